"""Cases E115 to E136: the cookie of one session."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from typing import Any

import pytest
import trustme
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from pytest_aiohttp import AiohttpClient, AiohttpServer

from aiosess import CookieOptions, OptionsError, Storage, setup
from aiosess.testing import FakeClock, FaultyStorage
from tests.conftest import MakeOptions
from tests.parity.conftest import Serve
from tests.parity.helpers import (
    EXPRESS,
    HTTPS,
    count,
    id_in,
    kept,
    record_of,
    sent_cookie,
    session_of,
    the_cookie,
)
from tests.parity.marks import parity


@parity("E115")
async def test_attributes_can_be_set_for_one_session(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session.cookie.httponly = False
        session.cookie.secure = True
        return web.Response()

    client = await serve(handler, cookie=CookieOptions(secure=False), proxy=True, **EXPRESS)

    attributes = the_cookie(await client.get("/", headers=HTTPS)).attributes

    assert "httponly" not in attributes
    assert "secure" in attributes


async def show_to_scripts(request: web.Request) -> web.Response:
    """Change nothing but an attribute of the cookie, and answer what it was."""
    session = await session_of(request)
    before = session.cookie.httponly
    session.cookie.httponly = False
    return web.json_response(before)


_COOKIE_IS_KEPT = (
    "it is, and so is a new one: what a handler set for one session is kept without a value having "
    "to be changed as well"
)


@parity("S15", differs=_COOKIE_IS_KEPT)
async def test_a_session_of_which_only_the_cookie_was_changed_is_kept_and_sent(
    serve: Serve, watched: FaultyStorage
) -> None:
    client = await serve(show_to_scripts)

    responses = [await client.get("/") for _ in range(2)]

    assert [await each.json() for each in responses] == [True, False]
    assert watched.calls == ["create", "load"]
    assert "httponly" not in the_cookie(responses[0]).attributes


@parity("S15", differs=_COOKIE_IS_KEPT)
async def test_a_record_of_which_only_the_cookie_was_changed_is_written(
    serve: Serve, watched: FaultyStorage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        return await (kept if request.path == "/begin" else show_to_scripts)(request)

    client = await serve(handler)
    await client.get("/begin")

    response = await client.get("/")

    assert watched.calls == ["create", "load", "replace"]
    assert "httponly" not in the_cookie(response).attributes


@parity(
    "S16",
    differs="as `Max-Age` and `Expires`: a browser whose clock is wrong goes by the first "
    "(RFC 6265, section 5.3)",
)
async def test_the_end_of_a_cookie_is_sent_as_an_age_and_as_a_date(serve: Serve) -> None:
    client = await serve(kept, cookie=CookieOptions(max_age=60))

    attributes = the_cookie(await client.get("/")).attributes

    assert attributes["max-age"] == "60"
    assert "expires" in attributes


@parity("E116")
async def test_without_max_age_the_cookie_ends_with_the_browser(serve: Serve) -> None:
    client = await serve(kept)

    attributes = the_cookie(await client.get("/")).attributes

    assert not attributes.keys() & {"expires", "max-age"}


@parity("E117")
async def test_a_cookie_that_ends_with_the_browser_is_sent_once(serve: Serve) -> None:
    client = await serve(kept)
    await client.get("/")

    response = await client.get("/admin")

    assert sent_cookie(response) is None


@parity("E118")
async def test_the_options_attributes_and_the_sessions_own_come_together(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        (await session_of(request)).cookie.secure = False
        return web.Response()

    cookie = CookieOptions(
        httponly=False, max_age=5, path="/admin", priority="high", secure=True, samesite=False
    )
    client = await serve(handler, cookie=cookie, **EXPRESS)

    attributes = the_cookie(await client.get("/admin")).attributes

    assert attributes.pop("expires")
    assert attributes == {"path": "/admin", "max-age": "5", "priority": "High"}


@parity("E119", differs="the assignment itself is refused, where the mistake is")
async def test_an_end_that_is_no_date_is_refused_and_changes_nothing(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["user"] = "bob"
        with pytest.raises(OptionsError, match="expires"):
            session.cookie.expires = "never"  # type: ignore[assignment]
        return web.Response()

    client = await serve(handler)

    response = await client.get("/")

    assert response.status == 200
    assert "expires" not in the_cookie(response).attributes


async def _set(request: web.Request) -> web.StreamResponse:
    await kept(request)
    response = web.Response()
    response.set_cookie("previous", "value")
    return response


async def _add_header(request: web.Request) -> web.StreamResponse:
    await kept(request)
    return web.Response(headers={hdrs.SET_COOKIE: "previous=value"})


async def _stream(request: web.Request) -> web.StreamResponse:
    await kept(request)
    response = web.StreamResponse()
    response.headers.add(hdrs.SET_COOKIE, "previous=value")
    await response.prepare(request)
    return response


@parity("E120", "E121")
@pytest.mark.parametrize("handler", [_set, _add_header, _stream])
async def test_cookies_that_the_application_set_stay(serve: Serve, handler: Handler) -> None:
    client = await serve(handler)

    response = await client.get("/")

    assert the_cookie(response, "previous").value == "value"
    assert sent_cookie(response) is not None


async def say_max_age(request: web.Request) -> web.Response:
    session = await session_of(request)
    session["user"] = "bob"
    return web.json_response(session.cookie.max_age)


@parity("E122", "E123")
async def test_max_age_reads_back_as_it_was_set_in_every_request(
    serve: Serve, storage: Storage, session_clock: FakeClock
) -> None:
    client = await serve(say_max_age, cookie=CookieOptions(max_age=2))
    first = await client.get("/")
    session_clock.advance(0.1)

    second = await client.get("/")

    assert [await first.json(), await second.json()] == [2, 2]
    assert (await record_of(storage, id_in(first)))["cookie"]["originalMaxAge"] == 2000


@parity(
    "E124",
    differs="a storage keeps bytes and never sees a date; in the record, the end is a text",
)
async def test_the_end_of_the_cookie_is_text_in_every_storage(
    serve: Serve, storage: Storage, session_clock: FakeClock
) -> None:
    session_clock.now = datetime(2040, 2, 29, 12, tzinfo=UTC).timestamp()
    client = await serve(say_max_age, cookie=CookieOptions(max_age=2))

    response = await client.get("/")

    record = await record_of(storage, id_in(response))
    assert record["cookie"]["expires"] == "2040-02-29T12:00:02.000Z"


@pytest.fixture
async def over_real_tls(
    make_options: MakeOptions, aiohttp_server: AiohttpServer, aiohttp_client: AiohttpClient
) -> Any:
    authority = trustme.CA()
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(served)
    app = web.Application()
    setup(app, make_options(cookie=CookieOptions(secure=True)))
    app.router.add_get("/", kept)
    client: Any = await aiohttp_client(await aiohttp_server(app, ssl=served))
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    return client, trusted


@parity("E125")
async def test_a_secure_cookie_is_sent_over_tls(over_real_tls: Any) -> None:
    client, trusted = over_real_tls

    response = await client.get("/", ssl=trusted)

    assert "secure" in the_cookie(response).attributes


@parity("E126")
async def test_a_secure_cookie_is_withheld_over_plain_http(serve: Serve) -> None:
    client = await serve(kept, cookie=CookieOptions(secure=True))

    response = await client.get("/")

    assert (response.status, sent_cookie(response)) == (200, None)


@parity(
    "S1",
    differs="the record is withheld too: each request would leave one that nobody can reach",
)
async def test_where_the_cookie_is_withheld_no_record_is_kept_either(
    serve: Serve, watched: FaultyStorage
) -> None:
    client = await serve(kept, cookie=CookieOptions(secure=True))

    await client.get("/")

    assert watched.calls == []


@parity("E127", "E128", "E129")
@pytest.mark.parametrize(
    ("own", "age"), [(None, 2), (5, 5), (3_000_000, 3_000_000)], ids=["option", "own", "large"]
)
async def test_the_cookie_ends_max_age_from_now(
    serve: Serve, session_clock: FakeClock, own: float | None, age: int
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["count"] = session.get("count", 0) + 1
        if own is not None:
            session.cookie.max_age = own
        return web.Response()

    client = await serve(handler, cookie=CookieOptions(max_age=2))
    await client.get("/")
    session_clock.advance(1)

    cookie = the_cookie(await client.get("/"))

    assert cookie.expires.timestamp() - session_clock.now == age
    assert cookie.attributes["max-age"] == str(age)


def _with_expires(end: datetime | None) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        (await session_of(request)).cookie.expires = end
        return await count(request)

    return handler


@parity("E130")
async def test_a_fixed_end_is_sent_as_it_is(serve: Serve) -> None:
    client = await serve(
        _with_expires(datetime(1970, 1, 1, tzinfo=UTC)), cookie=CookieOptions(max_age=2)
    )

    attributes = the_cookie(await client.get("/")).attributes

    assert attributes["expires"] == "Thu, 01 Jan 1970 00:00:00 GMT"


@parity("E131", "E132", "E133")
async def test_a_session_without_an_end_has_a_cookie_that_is_sent_once(serve: Serve) -> None:
    client = await serve(_with_expires(None), cookie=CookieOptions(max_age=2))

    first, second = await client.get("/"), await client.get("/")

    assert not the_cookie(first).attributes.keys() & {"expires", "max-age"}
    assert await second.json() == 2
    assert sent_cookie(second) is None


@parity("E134", "E135", "E136")
@pytest.mark.parametrize(
    ("options", "is_sent"),
    [({}, False), ({"partitioned": False}, False), ({"partitioned": True}, True)],
    ids=["default", "false", "true"],
)
async def test_partitioned_is_sent_where_it_is_asked_for(
    serve: Serve, options: dict[str, Any], *, is_sent: bool
) -> None:
    client = await serve(kept, cookie=CookieOptions(secure=True, **options), proxy=True)

    attributes = the_cookie(await client.get("/", headers=HTTPS)).attributes

    assert ("partitioned" in attributes) is is_sent


@parity("E136", differs="over TLS only: without Secure, browsers refuse such a cookie")
async def test_partitioned_is_left_out_where_the_cookie_is_not_secure(serve: Serve) -> None:
    client = await serve(kept, cookie=CookieOptions(partitioned=True))

    attributes = the_cookie(await client.get("/")).attributes

    assert not attributes.keys() & {"partitioned", "secure"}
