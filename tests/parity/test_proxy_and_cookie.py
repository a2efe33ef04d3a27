"""Cases E30 to E59: the ``proxy`` option and the ``cookie`` option."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import hdrs, web

from aiosess import CookieOptions
from aiosess.testing import FaultyStorage
from tests.parity.conftest import Mount, Serve
from tests.parity.helpers import HTTPS, kept, over_tls, sent_cookie, session_of, the_cookie
from tests.parity.marks import parity

SECURE = CookieOptions(secure=True)
HTTP = {hdrs.X_FORWARDED_PROTO: "http"}


async def say_scheme(request: web.Request) -> web.Response:
    """Change the session and answer whether the framework calls the connection encrypted."""
    (await session_of(request))["user"] = "bob"
    return web.json_response(request.secure)


@parity("E30", "E31")
@pytest.mark.parametrize("value", ["https", "https,http", "HTTPS , http"])
async def test_a_trusted_proxy_that_says_https_first_is_believed(serve: Serve, value: str) -> None:
    client = await serve(kept, cookie=SECURE, proxy=True)

    response = await client.get("/", headers={hdrs.X_FORWARDED_PROTO: value})

    assert sent_cookie(response) is not None


@parity("E32")
async def test_a_trusted_proxy_that_says_nothing_means_plain_http(serve: Serve) -> None:
    client = await serve(kept, cookie=SECURE, proxy=True)

    response = await client.get("/")

    assert (response.status, sent_cookie(response)) == (200, None)


@parity("E33", "E35")
@pytest.mark.parametrize("proxy", [False, None])
async def test_a_proxy_that_is_not_trusted_is_not_believed(
    serve: Serve, *, proxy: bool | None
) -> None:
    client = await serve(kept, cookie=SECURE, proxy=proxy)

    response = await client.get("/", headers=HTTPS)

    assert (response.status, sent_cookie(response)) == (200, None)


@parity("E34")
async def test_without_trust_the_framework_is_not_believed_either(serve: Serve) -> None:
    client = await serve(say_scheme, before=over_tls, cookie=SECURE, proxy=False)

    response = await client.get("/", headers=HTTPS)

    assert await response.json() is True
    assert sent_cookie(response) is None


@parity("E36")
async def test_where_nothing_is_said_about_proxies_the_framework_is_believed(serve: Serve) -> None:
    client = await serve(say_scheme, before=over_tls, cookie=SECURE)

    response = await client.get("/")

    assert await response.json() is True
    assert sent_cookie(response) is not None


@parity("E37", "S3")
@pytest.mark.parametrize("path", ["/", "/foo", "/elsewhere/foo/bar"])
async def test_outside_the_cookies_path_there_is_no_session(
    serve: Serve, watched: FaultyStorage, path: str
) -> None:
    client = await serve(kept, cookie=CookieOptions(path="/foo/bar"))

    response = await client.get(path)

    assert (response.status, await response.json()) == (200, False)
    assert sent_cookie(response) is None
    assert watched.calls == []


@parity("E38")
async def test_the_host_is_never_mistaken_for_the_path(serve: Serve) -> None:
    client = await serve(kept, cookie=CookieOptions(path="/foo/bar"))

    response = await client.get("/", headers={hdrs.HOST: "http://foo/bar"})

    assert await response.json() is False
    assert sent_cookie(response) is None


@parity("E39", "E40")
@pytest.mark.parametrize("path", ["/foo/bar", "/foo/bar/", "/foo/bar/baz"])
async def test_at_the_cookies_path_and_below_there_is_a_session(serve: Serve, path: str) -> None:
    client = await serve(kept, cookie=CookieOptions(path="/foo/bar"))

    response = await client.get(path)

    assert the_cookie(response).attributes["path"] == "/foo/bar"


@parity("S2", differs="whole segments are compared, as browsers do (RFC 6265, section 5.1.4)")
async def test_a_path_that_only_begins_like_the_cookies_gets_no_session(serve: Serve) -> None:
    client = await serve(kept, cookie=CookieOptions(path="/foo/bar"))

    response = await client.get("/foo/barbaz")

    assert await response.json() is False
    assert sent_cookie(response) is None


@parity("E41")
async def test_in_a_sub_application_the_prefix_counts(mount: Mount) -> None:
    client = await mount(kept, cookie=CookieOptions(path="/foo/bar"))

    response = await client.get("/foo/bar")

    assert sent_cookie(response) is not None


@parity("E42")
async def test_in_a_sub_application_a_path_behind_the_prefix_does_not_count(mount: Mount) -> None:
    client = await mount(kept, cookie=CookieOptions(path="/foo/bar"))

    response = await client.get("/foo/foo/bar")

    assert await response.json() is False
    assert sent_cookie(response) is None


@parity("E43", "E44")
@pytest.mark.parametrize(("proxy", "is_secure"), [(True, True), (False, False)])
async def test_secure_auto_follows_a_proxy_only_where_it_is_trusted(
    serve: Serve, *, proxy: bool, is_secure: bool
) -> None:
    client = await serve(kept, cookie=CookieOptions(secure="auto"), proxy=proxy)

    response = await client.get("/", headers=HTTPS)

    assert ("secure" in the_cookie(response).attributes) is is_secure


@parity("E45")
async def test_secure_auto_follows_the_framework_over_tls(serve: Serve) -> None:
    client = await serve(say_scheme, before=over_tls, cookie=CookieOptions(secure="auto"))

    response = await client.get("/")

    assert await response.json() is True
    assert "secure" in the_cookie(response).attributes


@parity("E46")
async def test_secure_auto_follows_the_framework_over_plain_http(serve: Serve) -> None:
    client = await serve(say_scheme, cookie=CookieOptions(secure="auto"))

    response = await client.get("/")

    assert await response.json() is False
    assert "secure" not in the_cookie(response).attributes


def attributes_of(request: web.Request) -> CookieOptions:
    return CookieOptions(path=request.path, httponly=True, secure=False)


async def attributes_of_later(request: web.Request) -> CookieOptions:
    return attributes_of(request)


@parity("E47", "E48")
@pytest.mark.parametrize("cookie", [attributes_of, attributes_of_later], ids=["sync", "async"])
async def test_a_function_of_the_request_gives_the_cookies_attributes(
    serve: Serve, cookie: Any
) -> None:
    client = await serve(kept, cookie=cookie)

    response = await client.get("/test")

    assert the_cookie(response).attributes == {"path": "/test", "httponly": "", "samesite": "Lax"}


@parity("E49", "E50")
@pytest.mark.parametrize(("before", "samesite"), [(over_tls, "None"), (None, "Lax")])
async def test_samesite_auto_follows_the_connection(
    serve: Serve, before: Any, samesite: str
) -> None:
    client = await serve(kept, before=before, cookie=CookieOptions(samesite="auto"))

    response = await client.get("/")

    assert the_cookie(response).attributes["samesite"] == samesite


@parity("E51", "E52", "E53")
@pytest.mark.parametrize(
    ("proxy", "headers", "samesite"),
    [(True, HTTPS, "None"), (True, HTTP, "Lax"), (False, HTTPS, "Lax")],
)
async def test_samesite_auto_follows_a_proxy_only_where_it_is_trusted(
    serve: Serve, *, proxy: bool, headers: dict[str, str], samesite: str
) -> None:
    client = await serve(kept, cookie=CookieOptions(samesite="auto"), proxy=proxy)

    response = await client.get("/", headers=headers)

    assert the_cookie(response).attributes["samesite"] == samesite


@parity("E54", "E55")
@pytest.mark.parametrize(
    ("before", "is_secure", "samesite"), [(over_tls, True, "None"), (None, False, "Lax")]
)
async def test_both_auto_agree_with_each_other(
    serve: Serve, *, before: Any, is_secure: bool, samesite: str
) -> None:
    cookie = CookieOptions(secure="auto", samesite="auto")
    client = await serve(kept, before=before, cookie=cookie)

    attributes = the_cookie(await client.get("/")).attributes

    assert ("secure" in attributes) is is_secure
    assert attributes["samesite"] == samesite


@parity(
    "E56",
    differs="Lax, because every browser refuses None without Secure; asking for such a pair "
    "outright is refused when the options are built",
)
async def test_samesite_auto_without_secure_is_lax_even_over_tls(serve: Serve) -> None:
    cookie = CookieOptions(secure=False, samesite="auto")
    client = await serve(kept, before=over_tls, cookie=cookie)

    attributes = the_cookie(await client.get("/")).attributes

    assert "secure" not in attributes
    assert attributes["samesite"] == "Lax"


@parity("E57")
async def test_samesite_auto_without_secure_is_lax_over_plain_http(serve: Serve) -> None:
    client = await serve(kept, cookie=CookieOptions(secure=False, samesite="auto"))

    attributes = the_cookie(await client.get("/")).attributes

    assert "secure" not in attributes
    assert attributes["samesite"] == "Lax"


@parity("E58")
async def test_samesite_auto_with_secure_is_none_over_tls(serve: Serve) -> None:
    cookie = CookieOptions(secure=True, samesite="auto")
    client = await serve(kept, before=over_tls, cookie=cookie)

    attributes = the_cookie(await client.get("/")).attributes

    assert "secure" in attributes
    assert attributes["samesite"] == "None"


@parity("E59")
async def test_samesite_auto_with_secure_sends_no_cookie_over_plain_http(serve: Serve) -> None:
    client = await serve(kept, cookie=CookieOptions(secure=True, samesite="auto"))

    response = await client.get("/")

    assert (response.status, sent_cookie(response)) == (200, None)
