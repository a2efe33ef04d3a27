"""The cookie as the browser gets it, and when it gets none."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trustme
from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web
from aiohttp.test_utils import TestServer
from aiohttp.typedefs import Handler
from pytest_aiohttp import AiohttpClient

from aiosess import CookieOptions, SessionOptions, Storage, setup
from aiosess.testing import FaultyStorage
from aiosess.transports.signing import Signer
from tests.conftest import SECRET, MakeApp, MakeOptions
from tests.web.conftest import Connect
from tests.web.handlers import cookies_set, keep, kept, kind, put, show, signed, views

OLD_SECRET = "the secret of last year, which is long enough as well"

HTTPS = {"X-Forwarded-Proto": "https"}
HTTP = {"X-Forwarded-Proto": "http"}


def attributes(header: str) -> list[str]:
    """Return the attributes of a ``Set-Cookie`` header."""
    return header.split("; ")[1:]


# Which attributes there are.


@pytest.mark.nist("5.1-c", "5.1-e", "5.1-g", "5.1.1-2", "5.1.1-3", "5.1.1-4", "5.1.1-5", "5.1.1-6")
async def test_the_defaults_are_the_safe_ones(connect: Connect) -> None:
    client = await connect(views)

    response = await client.get("/views")

    assert cookies_set(response)[0].startswith("sid=s%3A")
    assert attributes(cookies_set(response)[0]) == ["Path=/", "HttpOnly", "SameSite=Lax"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"httponly": False}, ["Path=/", "SameSite=Lax"]),
        ({"domain": "example.org"}, ["Path=/", "Domain=example.org", "HttpOnly", "SameSite=Lax"]),
        ({"samesite": True}, ["Path=/", "HttpOnly", "SameSite=Strict"]),
        ({"samesite": False}, ["Path=/", "HttpOnly"]),
        ({"priority": "high"}, ["Path=/", "HttpOnly", "Priority=High", "SameSite=Lax"]),
        ({"secure": False}, ["Path=/", "HttpOnly", "SameSite=Lax"]),
    ],
    ids=str,
)
async def test_each_attribute_of_the_options_is_sent(
    connect: Connect, options: dict[str, Any], expected: list[str]
) -> None:
    client = await connect(views, cookie=CookieOptions(**options))

    response = await client.get("/views")

    assert attributes(cookies_set(response)[0]) == expected


async def test_a_partitioned_cookie_says_so_on_a_secure_connection(connect: Connect) -> None:
    cookie = CookieOptions(partitioned=True, samesite="none", secure=True)
    client = await connect(views, cookie=cookie, proxy=True)

    response = await client.get("/views", headers=HTTPS)

    expected = ["Path=/", "HttpOnly", "Secure", "Partitioned", "SameSite=None"]
    assert attributes(cookies_set(response)[0]) == expected


async def test_the_name_is_that_of_the_options(connect: Connect) -> None:
    client = await connect(views, name="session_id")

    responses = [await client.get("/views") for _ in range(2)]

    assert list(responses[0].cookies) == ["session_id"]
    assert [await response.json() for response in responses] == [1, 2]


@pytest.mark.nist("5.1.1-4")
async def test_max_age_is_sent_both_ways(connect: Connect) -> None:
    client = await connect(views, cookie=CookieOptions(max_age=90))

    response = await client.get("/views")

    lifetime = attributes(cookies_set(response)[0])[:2]
    assert lifetime[0] == "Max-Age=90"
    assert lifetime[1].endswith(" GMT")


# Secure and SameSite by the connection.


@pytest.mark.parametrize(
    ("proxy", "headers", "is_secure"),
    [
        (True, HTTPS, True),
        (True, {"X-Forwarded-Proto": "HTTPS , http"}, True),
        (True, {"X-Forwarded-Proto": "http, https"}, False),
        (True, HTTP, False),
        (True, {}, False),
        (False, HTTPS, False),
        (None, HTTPS, False),
    ],
    ids=str,
)
async def test_auto_is_secure_as_the_connection_is(
    connect: Connect, *, proxy: bool | None, headers: dict[str, str], is_secure: bool
) -> None:
    cookie = CookieOptions(secure="auto", samesite="auto")
    client = await connect(views, proxy=proxy, cookie=cookie)

    response = await client.get("/views", headers=headers)

    secure = ["Path=/", "HttpOnly", "Secure", "SameSite=None"]
    plain = ["Path=/", "HttpOnly", "SameSite=Lax"]
    assert attributes(cookies_set(response)[0]) == (secure if is_secure else plain)


async def test_without_proxy_the_frameworks_word_counts(
    make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    @web.middleware
    async def believe_remote(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await handler(request.clone(scheme="https"))

    app = web.Application(middlewares=[believe_remote])
    setup(app, make_options())
    app.router.add_get("/", views)
    client = await aiohttp_client(app)

    response = await client.get("/")

    assert "Secure" in attributes(cookies_set(response)[0])


@pytest.mark.parametrize("proxy", [False, True])
async def test_proxy_false_and_true_do_not_believe_the_frameworks_word(
    make_options: MakeOptions,
    aiohttp_client: AiohttpClient,
    *,
    proxy: bool,
) -> None:
    @web.middleware
    async def believe_remote(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await handler(request.clone(scheme="https"))

    app = web.Application(middlewares=[believe_remote])
    setup(app, make_options(proxy=proxy))
    app.router.add_get("/", views)
    client = await aiohttp_client(app)

    response = await client.get("/")

    assert "Secure" not in attributes(cookies_set(response)[0])


@pytest.mark.nist("5.1-4", "5.1.1-1")
@pytest.mark.parametrize("proxy", [None, False, True])
async def test_over_tls_the_cookie_is_secure_and_comes_back(
    make_app: MakeApp, *, proxy: bool | None
) -> None:
    authority = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    server = TestServer(make_app(views, proxy=proxy, name="__Host-sid"), host="localhost")
    await server.start_server(ssl=server_context)

    async with ClientSession(connector=TCPConnector(ssl=client_context)) as client:
        url = f"https://localhost:{server.port}/views"
        responses = [await client.get(url) for _ in range(2)]
        counts = [await response.json() for response in responses]
    await server.close()

    assert counts == [1, 2]
    assert cookies_set(responses[0])[0].startswith("__Host-sid=s%3A")
    assert "Secure" in attributes(cookies_set(responses[0])[0])


# A cookie that a browser would refuse is withheld, and then nothing is kept either.


@pytest.mark.nist("5.1-4", "5.1.1-1")
@pytest.mark.parametrize(
    "options",
    [
        {"cookie": CookieOptions(secure=True)},
        {"cookie": CookieOptions(secure=True), "save_uninitialized": True},
        {"cookie": lambda _request: CookieOptions(secure=True)},
        {"name": "__Host-sid"},
        {"name": "__Secure-sid"},
    ],
    ids=["secure", "uninitialized", "function", "__Host-", "__Secure-"],
)
async def test_a_withheld_cookie_is_logged_once_and_nothing_is_kept(
    connect: Connect,
    faulty: FaultyStorage,
    caplog: pytest.LogCaptureFixture,
    options: dict[str, Any],
) -> None:
    client = await connect(views, storage=faulty, **options)

    responses = [await client.get("/views") for _ in range(2)]

    assert [await response.json() for response in responses] == [1, 1]
    assert [cookies_set(response) for response in responses] == [[], []]
    assert faulty.calls == []
    assert caplog.text.count("is withheld and no session kept") == 1
    assert "set proxy=True" in caplog.text


@pytest.mark.parametrize(
    ("proxy", "headers", "way_out"),
    [
        (None, {}, "behind a TLS proxy, set proxy=True"),
        (False, HTTPS, "behind a TLS proxy, set proxy=True"),
        (True, {}, "proxy=True goes by X-Forwarded-Proto, and none came"),
        (True, {"X-Forwarded-Proto": "http"}, "what came does not begin with https"),
        (True, {"X-Forwarded-Proto": "http, https"}, "what came does not begin with https"),
    ],
)
@pytest.mark.parametrize(
    "options",
    [{"cookie": CookieOptions(secure=True)}, {"name": "__Host-sid"}],
    ids=["cookie", "name"],
)
async def test_the_log_says_why_the_connection_counts_as_plain(
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    *,
    proxy: bool | None,
    headers: dict[str, str],
    way_out: str,
    options: dict[str, Any],
) -> None:
    client = await connect(views, proxy=proxy, **options)

    await client.get("/views", headers=headers)

    [line] = [each.getMessage() for each in caplog.records if "withheld" in each.getMessage()]
    assert way_out in line
    assert ("set proxy=True" in line) == (not proxy)


async def test_a_known_session_is_saved_though_its_cookie_cannot_be_sent_again(
    connect: Connect, storage: Storage
) -> None:
    await keep(storage, "apple", views=1)
    client = await connect(views, cookie=CookieOptions(secure=True), rolling=True, forgets=True)

    response = await client.get("/views", headers=signed("apple"))

    assert await response.json() == 2
    assert cookies_set(response) == []
    assert await kept(storage, "apple") == {"views": 2}


async def test_behind_a_tls_proxy_that_is_believed_it_is_not_withheld(connect: Connect) -> None:
    client = await connect(views, cookie=CookieOptions(secure=True), proxy=True)

    response = await client.get("/views", headers=HTTPS)

    assert "Secure" in attributes(cookies_set(response)[0])


# Path.


@pytest.mark.nist("5.1.1-2")
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/foo/bar", "Session"),
        ("/foo/bar/", "Session"),
        ("/foo/bar/baz", "Session"),
        ("/foo/bar?query", "Session"),
        ("/foo/barbaz", "NoneType"),
        ("/foo", "NoneType"),
        ("/", "NoneType"),
        ("/other/foo/bar", "NoneType"),
        ("/FOO/BAR", "NoneType"),
    ],
)
async def test_the_cookies_path_counts_by_whole_segments(
    make_options: MakeOptions, aiohttp_client: AiohttpClient, path: str, expected: str
) -> None:
    app = web.Application()
    setup(app, make_options(cookie=CookieOptions(path="/foo/bar")))
    app.router.add_get("/{any:.*}", kind)
    client = await aiohttp_client(app)

    response = await client.get(path)

    assert await response.text() == expected


async def test_the_path_is_that_of_the_request_also_inside_a_sub_application(
    make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    app, sub = web.Application(), web.Application()
    setup(app, make_options(cookie=CookieOptions(path="/foo/bar")))
    sub.router.add_get("/{any:.*}", kind)
    app.add_subapp("/foo", sub)
    client = await aiohttp_client(app)

    kinds = [await (await client.get(path)).text() for path in ("/foo/bar", "/foo/foo/bar")]

    assert kinds == ["Session", "NoneType"]


# Options by a function of the request.


def by_path(request: web.Request) -> CookieOptions:
    return CookieOptions(path=request.path, samesite="auto")


async def by_path_later(request: web.Request) -> CookieOptions:
    await asyncio.sleep(0)
    return by_path(request)


@pytest.mark.parametrize("function", [by_path, by_path_later])
@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (HTTPS, ["Path=/views", "HttpOnly", "Secure", "SameSite=None"]),
        (HTTP, ["Path=/views", "HttpOnly", "SameSite=Lax"]),
    ],
    ids=["https", "http"],
)
async def test_the_options_may_be_a_function_and_auto_is_honoured_in_its_result(
    connect: Connect,
    function: Callable[[web.Request], CookieOptions | Awaitable[CookieOptions]],
    headers: dict[str, str],
    expected: list[str],
) -> None:
    client = await connect(views, cookie=function, proxy=True)

    response = await client.get("/views", headers=headers)

    assert attributes(cookies_set(response)[0]) == expected


async def test_the_max_age_that_a_function_returns_is_how_long_the_record_lives(
    connect: Connect, storage: Storage, until_expired: float
) -> None:
    client = await connect(put, cookie=lambda _request: CookieOptions(max_age=0.1))

    session_id = await (await client.get("/put?n=1")).text()
    await asyncio.sleep(until_expired)

    assert await storage.load(session_id) is None


async def test_the_idle_timeout_wins_over_the_max_age_that_a_function_returns(
    connect: Connect, storage: Storage
) -> None:
    client = await connect(put, cookie=lambda _request: CookieOptions(max_age=0.1), idle_timeout=60)

    session_id = await (await client.get("/put?n=1")).text()
    await asyncio.sleep(0.2)

    assert await storage.load(session_id) is not None


async def test_a_function_that_returns_no_options_is_a_clear_error(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = await connect(views, cookie=lambda _request: {"path": "/"})

    response = await client.get("/views")

    assert response.status == 500
    assert "the cookie function returned {'path': '/'}, not CookieOptions" in caplog.text


async def test_a_function_whose_options_do_not_fit_the_name_is_a_clear_error(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = await connect(views, name="__Host-sid", cookie=by_path)

    response = await client.get("/views")

    assert response.status == 500
    assert "cannot have path='/views'" in caplog.text


# Signing.


@pytest.mark.nist("5.1.1-7")
@pytest.mark.parametrize(
    ("session_id", "expected"),
    [
        ("apple", "s%3Aapple.D8Y%2BpkTAmeR0PobOhY4G97PRW%2Bj7bUnP%2F5m6%2FOn1MCU"),
        ("%", "s%3A%25.kzQ6x52kKVdF35Qh62AWk4ZekS28K5XYCXKa%2FOTZ01g"),
        ("/foo", "s%3A%2Ffoo.paEKBtAHbV5s1IB8B2zPnzAgYmmnRPIqObW4VRYj%2FMQ"),
    ],
)
async def test_the_cookie_is_that_of_express(
    connect: Connect, session_id: str, expected: str
) -> None:
    client = await connect(views, secret="keyboard cat", genid=lambda _request: session_id)

    first = await client.get("/views")
    second = await client.get("/views")

    assert cookies_set(first)[0].split(";")[0] == f"sid={expected}"
    assert await second.json() == 2


@pytest.mark.parametrize("session_id", ["with space", "sn\u2603w", "a.b.c", ";,="])
async def test_whatever_genid_returns_travels_there_and_back(
    connect: Connect, session_id: str
) -> None:
    client = await connect(views, genid=lambda _request: session_id)

    counts = [await (await client.get("/views")).json() for _ in range(2)]

    assert counts == [1, 2]


async def test_all_secrets_are_accepted_and_the_first_one_signs(
    connect: Connect, storage: Storage
) -> None:
    await keep(storage, "apple", n=1)
    client = await connect(show, secret=[SECRET, OLD_SECRET], forgets=True)

    response = await client.get("/show", headers=signed("apple", OLD_SECRET))

    assert (await response.json())["data"] == {"n": 1}
    value = cookies_set(response)[0].split(";")[0].removeprefix("sid=")
    assert value == Signer(SECRET).sign("apple")


async def test_a_cookie_of_the_first_secret_is_not_signed_again(
    connect: Connect, storage: Storage
) -> None:
    await keep(storage, "apple", n=1)
    client = await connect(show, secret=[SECRET, OLD_SECRET], forgets=True)

    response = await client.get("/show", headers=signed("apple"))

    assert cookies_set(response) == []


async def test_a_cookie_of_an_older_secret_whose_record_is_gone_is_not_signed_again(
    connect: Connect,
) -> None:
    client = await connect(show, secret=[SECRET, OLD_SECRET], forgets=True)

    response = await client.get("/show", headers=signed("apple", OLD_SECRET))

    assert cookies_set(response) == []


@pytest.mark.asvs("7.4.5")
async def test_a_secret_that_was_taken_out_is_not_accepted(
    connect: Connect, faulty: FaultyStorage
) -> None:
    client = await connect(show, storage=faulty, forgets=True)

    await client.get("/show", headers=signed("apple", OLD_SECRET))

    assert faulty.calls == []


async def test_a_short_secret_is_warned_of_once_and_never_printed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    SessionOptions(secret=["keyboard cat", "short as well"])

    assert caplog.text.count("a secret has fewer than 32 bytes") == 1
    assert "keyboard cat" not in caplog.text


async def test_two_applications_with_names_of_their_own_live_side_by_side(
    make_options: MakeOptions, aiohttp_client: AiohttpClient, storage: Storage
) -> None:
    await keep(storage, "apple", fruit="apple")
    await keep(storage, "pear", fruit="pear")
    app, admin = web.Application(), web.Application()
    setup(app, make_options(exclude=["/admin/{any:.*}"]))
    setup(admin, make_options(name="sid2"))
    app.router.add_get("/show", show)
    admin.router.add_get("/show", show)
    app.add_subapp("/admin", admin)
    client = await aiohttp_client(app, cookie_jar=DummyCookieJar())
    sign = Signer(SECRET).sign
    headers = {"Cookie": f"sid2={sign('pear')}; sid={sign('apple')}"}

    found = [
        (await (await client.get(path, headers=headers)).json())["data"]
        for path in ("/show", "/admin/show")
    ]

    assert found == [{"fruit": "apple"}, {"fruit": "pear"}]


async def test_the_id_is_never_in_the_log(
    connect: Connect, faulty: FaultyStorage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="aiosess")
    client = await connect(put, storage=faulty, genid=lambda _request: "secret-id")
    await client.get("/put?n=1")
    faulty.fail()
    await client.get("/put?n=2")

    said = [record.getMessage() for record in caplog.records if record.name == "aiosess"]

    assert any("refused without its session" in message for message in said)
    assert not any("secret-id" in message for message in said)


# What no browser would send back.


async def test_a_domain_that_is_not_the_hosts_is_told_once(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = await connect(views, cookie=CookieOptions(domain="example.com"), forgets=True)

    for _ in range(2):
        await client.get("/views")

    told = "the domain of the cookie 'sid' is 'example.com', and the request was for '127.0.0.1'"
    assert caplog.text.count(told) == 1


@pytest.mark.parametrize("domain", ["example.com", ".example.com", "EXAMPLE.com", None])
@pytest.mark.parametrize("host", ["example.com", "shop.example.com", "example.com:8080"])
async def test_a_domain_that_is_the_hosts_is_not_told(
    connect: Connect, caplog: pytest.LogCaptureFixture, domain: str | None, host: str
) -> None:
    client = await connect(views, cookie=CookieOptions(domain=domain), forgets=True)

    await client.get("/views", headers={"Host": host})

    assert "the domain of the cookie" not in caplog.text


@pytest.mark.parametrize("host", ["example.com:99999", "example.com:x", "::1", "xn--"])
async def test_a_host_that_is_none_gets_a_session_all_the_same(connect: Connect, host: str) -> None:
    client = await connect(views, cookie=CookieOptions(domain="example.com"), forgets=True)

    response = await client.get("/views", headers={"Host": host})

    assert response.status == 200
    assert len(cookies_set(response)) == 1


async def test_a_path_that_is_not_under_the_cookies_is_told_once(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = await connect(kind, cookie=CookieOptions(path="/shop"))

    for _ in range(2):
        await client.get("/kind")

    told = "asked for at '/kind', and there can be none: the path of its cookie is '/shop'"
    assert caplog.text.count(told) == 1
