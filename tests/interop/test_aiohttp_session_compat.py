"""aiosess.compat in the place of aiohttp_session: the same cookies and records, fewer faults."""

from __future__ import annotations

import base64
import importlib
import json
import logging
import pkgutil
import time
import typing
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import aiohttp_session
import aiomcache
import pytest
from aiohttp import CookieJar, hdrs, web
from aiohttp.test_utils import make_mocked_request
from aiohttp_session import AbstractStorage
from cryptography.fernet import Fernet
from nacl.encoding import Base64Encoder
from nacl.secret import SecretBox
from pytest_aiohttp import AiohttpClient
from redis.asyncio import Redis

from aiosess import compat
from aiosess.compat.cookie_storage import EncryptedCookieStorage
from aiosess.compat.nacl_storage import NaClCookieStorage
from tests.servers import MemcachedServer, RedisServer
from tests.web.conftest import Client

COOKIE = "AIOHTTP_SESSION"
KEY = b"a key that has thirty-two bytes!"
OLD_KEY = b"the key from before, 32 bytes :)"

# aiohttp_session itself, where it is first in the process, uses keys of which aiohttp warns.
pytestmark = pytest.mark.filterwarnings("ignore::aiohttp.web_exceptions.NotAppKeyWarning")

THEIRS, OURS = "aiohttp_session", "aiosess.compat"
IN_COOKIE = ["simple", "encrypted", "nacl"]
ON_SERVER = ["redis", "memcached"]


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
async def memcached(memcached_server: MemcachedServer) -> AsyncIterator[aiomcache.Client]:
    client = aiomcache.Client("127.0.0.1", memcached_server.port)
    yield client
    await client.close()


class Make:
    """Make a storage of a kind, aiohttp_session's own or ours."""

    def __init__(self, redis: Redis, memcached: aiomcache.Client) -> None:
        self.redis = redis
        self.memcached = memcached

    def __call__(self, package: str, kind: str, **options: Any) -> AbstractStorage:
        module, name, first = {
            "simple": ("", "SimpleCookieStorage", ()),
            "encrypted": (".cookie_storage", "EncryptedCookieStorage", (KEY,)),
            "nacl": (".nacl_storage", "NaClCookieStorage", (KEY,)),
            "redis": (".redis_storage", "RedisStorage", (self.redis,)),
            "memcached": (".memcached_storage", "MemcachedStorage", (self.memcached,)),
        }[kind]
        made = getattr(importlib.import_module(package + module), name)(*first, **options)
        assert isinstance(made, AbstractStorage)
        return made

    async def record(self, kind: str, value: str) -> Any:
        """Return the record that the cookie *value* is, or leads to; ``None`` for none."""
        match kind:
            case "simple":
                payload: Any = value
            case "encrypted":
                payload = Fernet(base64.urlsafe_b64encode(KEY)).decrypt(value)
            case "nacl":
                payload = SecretBox(KEY).decrypt(value.encode(), encoder=Base64Encoder)
            case "redis":
                payload = await self.redis.get(f"{COOKIE}_{value}")
            case _:
                payload = await self.memcached.get(f"{COOKIE}_{value}".encode())
        return None if payload is None else json.loads(payload)

    async def cookie(self, kind: str, record: object) -> str:
        """Keep *record* as it is, and return the cookie's value for it."""
        payload = json.dumps(record)
        match kind:
            case "simple":
                return payload
            case "encrypted":
                return Fernet(base64.urlsafe_b64encode(KEY)).encrypt(payload.encode()).decode()
            case "nacl":
                return SecretBox(KEY).encrypt(payload.encode(), encoder=Base64Encoder).decode()
            case "redis":
                await self.redis.set(f"{COOKIE}_kept", payload)
            case _:
                await self.memcached.set(f"{COOKIE}_kept".encode(), payload.encode())
        return "kept"


@pytest.fixture
def make(redis: Redis, memcached: aiomcache.Client) -> Make:
    return Make(redis, memcached)


async def put(request: web.Request) -> web.Response:
    session = await compat.get_session(request)
    session.update(request.query)
    return web.json_response(session.created)


async def show(request: web.Request) -> web.Response:
    session = await compat.get_session(request)
    return web.json_response({"new": session.new, "data": dict(session)})


async def logout(request: web.Request) -> web.Response:
    (await compat.get_session(request)).invalidate()
    return web.Response()


async def log_in(request: web.Request) -> web.Response:
    session = await compat.new_session(request)
    session["user"] = "ann"
    return web.Response()


async def remember(request: web.Request) -> web.Response:
    session = await compat.get_session(request)
    session["a"] = 1
    session.max_age = 1000
    return web.Response()


class Serve:
    """Serve the handlers above and others by ``setup`` of a package; return a browser."""

    def __init__(self, aiohttp_client: AiohttpClient) -> None:
        self._client = aiohttp_client

    async def __call__(
        self, storage: AbstractStorage, *handlers: Any, by: str = OURS, jar: Any = None
    ) -> Client:
        app = web.Application()
        importlib.import_module(by).setup(app, storage)
        for handler in (put, show, logout, log_in, remember, *handlers):
            app.router.add_get(f"/{handler.__name__}", handler)
        return await self._client(app, cookie_jar=jar)


@pytest.fixture
def serve(aiohttp_client: AiohttpClient) -> Serve:
    return Serve(aiohttp_client)


def cookie_of(client: Client) -> str:
    (value,) = [each.value for each in client.session.cookie_jar if each.key == COOKIE]
    return value


def send(client: Client, value: str) -> None:
    client.session.cookie_jar.update_cookies({COOKIE: value}, client.make_url("/"))


# A complete stand-in.

MODULES: Final = sorted(each.name for each in pkgutil.iter_modules(aiohttp_session.__path__))
# How it is done, and no part of what it stands in for.
OUR_OWN_MODULES: Final = {"format", "in_cookie", "keyed"}
# What their modules themselves take from the standard library under a name of its own.
BORROWED: Final = vars(typing).keys() | {"time"}


def importable(module: ModuleType) -> set[str]:
    """Return the names that users can import from *module*, but for other modules."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    } - BORROWED


def test_there_is_a_module_for_each_of_theirs_and_no_other() -> None:
    ours = {each.name for each in pkgutil.iter_modules(compat.__path__)}

    assert sorted(ours - OUR_OWN_MODULES) == MODULES


@pytest.mark.parametrize("module", ["", *(f".{name}" for name in MODULES)])
def test_every_name_of_theirs_is_here_on_purpose_and_no_other(module: str) -> None:
    theirs, ours = (importlib.import_module(package + module) for package in (THEIRS, OURS))

    assert set(ours.__all__) == importable(theirs)
    assert importable(theirs) <= importable(ours)


@pytest.mark.parametrize(
    "name",
    [
        *("AbstractStorage", "Handler", "Middleware", "Session", "SessionData"),
        *("SESSION_KEY", "STORAGE_KEY", "get_session", "new_session"),
    ],
)
def test_what_a_library_may_compare_with_is_aiohttp_sessions_own(name: str) -> None:
    assert getattr(compat, name) is getattr(aiohttp_session, name)


@pytest.mark.parametrize("kind", [*IN_COOKIE, *ON_SERVER])
def test_our_storages_are_aiohttp_sessions(make: Make, kind: str) -> None:
    assert isinstance(make(OURS, kind), type(make(THEIRS, kind)))


def test_what_is_no_storage_is_refused_as_by_aiohttp_session() -> None:
    storage: Any = None

    with pytest.raises(RuntimeError, match="Expected AbstractStorage got None"):
        compat.setup(web.Application(), storage)


@pytest.mark.parametrize("kind", [*IN_COOKIE, *ON_SERVER])
@pytest.mark.parametrize(("first", "second"), [(THEIRS, OURS), (OURS, THEIRS)])
async def test_nobody_is_logged_out_by_the_move(
    serve: Serve, make: Make, kind: str, first: str, second: str
) -> None:
    jar = CookieJar(unsafe=True)
    before = await serve(make(first, kind, max_age=60), by=first, jar=jar)
    after = await serve(make(second, kind, max_age=60), by=second, jar=jar)
    await before.get("/put?user=ann")
    await after.get("/put?cart=full")

    response = await before.get("/show")

    assert await response.json() == {"new": False, "data": {"user": "ann", "cart": "full"}}


@pytest.mark.parametrize("kind", [*IN_COOKIE, *ON_SERVER])
async def test_aiohttp_session_reads_what_has_our_keys_beside_its_own(
    serve: Serve, make: Make, kind: str
) -> None:
    jar = CookieJar(unsafe=True)
    ours = await serve(make(OURS, kind, max_age=60), jar=jar)
    theirs = await serve(make(THEIRS, kind, max_age=60), by=THEIRS, jar=jar)
    send(
        ours,
        await make.cookie(kind, {"created": time.time() - 5, "session": {"a": 1}, "began": 9}),
    )
    await ours.get("/remember")
    assert (await make.record(kind, cookie_of(ours))).keys() == {
        *("created", "session", "began", "max_age")
    }

    response = await theirs.get("/show")

    assert await response.json() == {"new": False, "data": {"a": 1}}


@pytest.mark.parametrize("kind", [*IN_COOKIE, *ON_SERVER])
async def test_the_record_is_the_one_of_aiohttp_session(
    serve: Serve, make: Make, kind: str
) -> None:
    client = await serve(make(OURS, kind))

    await client.get("/put?a=1")

    record = await make.record(kind, cookie_of(client))
    assert record == {"created": pytest.approx(time.time(), abs=5), "session": {"a": "1"}}


@pytest.mark.parametrize("kind", [*IN_COOKIE, *ON_SERVER])
async def test_the_cookie_has_the_attributes_that_aiohttp_session_gives_it(
    serve: Serve, make: Make, kind: str
) -> None:
    options: Any = {"max_age": 60, "path": "/", "secure": False, "samesite": "Lax"}
    theirs = await serve(make(THEIRS, kind, **options), by=THEIRS)
    ours = await serve(make(OURS, kind, **options))

    expected = (await theirs.get("/put?a=1")).cookies[COOKIE]
    cookie = (await ours.get("/put?a=1")).cookies[COOKIE]

    ends = {"expires"}
    assert {k: v for k, v in cookie.items() if k not in ends} == {
        k: v for k, v in expected.items() if k not in ends
    }
    assert bool(cookie["expires"]) == bool(expected["expires"])


@pytest.mark.parametrize("kind", [*IN_COOKIE, *ON_SERVER])
async def test_options_keep_their_names(serve: Serve, make: Make, kind: str) -> None:
    def encode(value: object) -> str:
        return json.dumps([value])

    def decode(text: str) -> Any:
        return json.loads(text)[0]

    client = await serve(
        make(OURS, kind, cookie_name="mine", httponly=False, encoder=encode, decoder=decode)
    )
    response = await client.get("/put?a=1")

    shown = await (await client.get("/show")).json()

    assert response.cookies["mine"]["httponly"] == ""
    assert shown == {"new": False, "data": {"a": "1"}}


@pytest.mark.parametrize("kind", ON_SERVER)
async def test_the_key_factory_makes_the_keys(serve: Serve, make: Make, kind: str) -> None:
    client = await serve(make(OURS, kind, key_factory=lambda: "chosen"))

    await client.get("/put?a=1")

    assert cookie_of(client) == "chosen"
    assert (await make.record(kind, "chosen"))["session"] == {"a": "1"}


async def test_a_record_in_redis_lives_for_its_max_age(serve: Serve, make: Make) -> None:
    client = await serve(make(OURS, "redis", max_age=60))

    await client.get("/put?a=1")

    assert 0 < await make.redis.ttl(f"{COOKIE}_{cookie_of(client)}") <= 60


@pytest.mark.parametrize("days", [1, 60])
async def test_a_record_in_memcached_may_live_longer_than_thirty_days(
    serve: Serve, make: Make, days: int
) -> None:
    client = await serve(make(OURS, "memcached", max_age=days * 86_400))
    await client.get("/put?a=1")

    response = await client.get("/show")

    assert await response.json() == {"new": False, "data": {"a": "1"}}


async def test_the_middleware_alone_does_as_well(aiohttp_client: AiohttpClient, make: Make) -> None:
    app = web.Application(middlewares=[compat.session_middleware(make(OURS, "encrypted"))])
    app.router.add_get("/put", put)
    app.router.add_get("/show", show)
    client = await aiohttp_client(app)
    await client.get("/put?a=1")

    response = await client.get("/show")

    assert await response.json() == {"new": False, "data": {"a": "1"}}


async def test_static_files_have_sessions_too(
    aiohttp_client: AiohttpClient, make: Make, tmp_path: Path
) -> None:
    @web.middleware
    async def count(request: web.Request, handler: Any) -> web.StreamResponse:
        session = await compat.get_session(request)
        session["files"] = session.get("files", 0) + 1
        response: web.StreamResponse = await handler(request)
        return response

    (tmp_path / "page.txt").write_text("a page")
    app = web.Application()
    compat.setup(app, make(OURS, "redis"))
    app.middlewares.append(count)
    app.router.add_static("/files", tmp_path)
    client = await aiohttp_client(app)
    await client.get("/files/page.txt")

    await client.get("/files/page.txt")

    assert (await make.record("redis", cookie_of(client)))["session"] == {"files": 2}


async def test_without_its_server_the_answer_is_500_as_in_aiohttp_session(
    serve: Serve, own_redis_server: RedisServer
) -> None:
    async with Redis.from_url(own_redis_server.url) as redis:
        client = await serve(Make(redis, aiomcache.Client("127.0.0.1"))(OURS, "redis"))
        own_redis_server.stop()

        response = await client.get("/put?a=1")

    assert response.status == 500


@pytest.mark.parametrize(
    "package",
    [
        THEIRS,
        OURS,
    ],
)
@pytest.mark.parametrize("returned", [None, "text"])
@pytest.mark.parametrize("is_asked", [True, False])
async def test_a_handler_that_returns_no_response_is_told_so(
    package: str, returned: Any, *, is_asked: bool
) -> None:
    module = importlib.import_module(package)

    async def handler(request: web.Request) -> Any:
        if is_asked:
            (await module.get_session(request))["a"] = 1
        return returned

    serve = module.session_middleware(module.SimpleCookieStorage())

    with pytest.raises(RuntimeError, match=f"Expect response, not {type(returned)!r}"):
        await serve(make_mocked_request("GET", "/"), handler)


# What aiohttp-session gets wrong.


@pytest.mark.parametrize("kind", [*IN_COOKIE, *ON_SERVER])
async def test_a_file_response_keeps_the_session(
    serve: Serve, make: Make, kind: str, tmp_path: Path
) -> None:
    async def download(request: web.Request) -> web.FileResponse:
        (await compat.get_session(request))["file"] = True
        return web.FileResponse(tmp_path / "file.txt")

    (tmp_path / "file.txt").write_text("a file")
    client = await serve(make(OURS, kind), download)
    await client.get("/download")

    response = await client.get("/show")

    assert await response.json() == {"new": False, "data": {"file": True}}


@pytest.mark.parametrize("kind", [*IN_COOKIE, *ON_SERVER])
async def test_a_stream_keeps_the_session(serve: Serve, make: Make, kind: str) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        (await compat.get_session(request))["stream"] = True
        response = web.StreamResponse()
        await response.prepare(request)
        return response

    client = await serve(make(OURS, kind), stream)
    await client.get("/stream")

    response = await client.get("/show")

    assert await response.json() == {"new": False, "data": {"stream": True}}


@pytest.mark.parametrize("kind", ON_SERVER)
@pytest.mark.parametrize("path", ["/logout", "/log_in"])
async def test_the_end_of_a_session_deletes_its_record(
    serve: Serve, make: Make, kind: str, path: str
) -> None:
    client = await serve(make(OURS, kind))
    await client.get("/put?a=1")
    before = cookie_of(client)

    await client.get(path)

    assert await make.record(kind, before) is None


@pytest.mark.parametrize("kind", [*IN_COOKIE, *ON_SERVER])
async def test_logout_clears_the_session(serve: Serve, make: Make, kind: str) -> None:
    client = await serve(make(OURS, kind))
    await client.get("/put?a=1")
    await client.get("/logout")

    response = await client.get("/show")

    assert await response.json() == {"new": True, "data": {}}


@pytest.mark.parametrize("kind", [*IN_COOKIE, *ON_SERVER])
async def test_created_stays_what_it_was(serve: Serve, make: Make, kind: str) -> None:
    begun = int(time.time()) - 30
    client = await serve(make(OURS, kind, max_age=60))
    send(client, await make.cookie(kind, {"created": begun, "session": {"a": 1}}))
    await client.get("/put?b=2")

    response = await client.get("/put?c=3")

    assert await response.json() == begun
    record = await make.record(kind, cookie_of(client))
    assert record["created"] == pytest.approx(time.time(), abs=5)
    assert record["began"] == begun


@pytest.mark.parametrize("kind", [*IN_COOKIE, *ON_SERVER])
async def test_a_sessions_own_max_age_is_remembered(serve: Serve, make: Make, kind: str) -> None:
    client = await serve(make(OURS, kind, max_age=60))
    await client.get("/remember")

    response = await client.get("/put?b=2")

    assert response.cookies[COOKIE]["max-age"] == "1000"


@pytest.mark.parametrize("kind", [*IN_COOKIE, *ON_SERVER])
@pytest.mark.parametrize(
    ("times", "data"),
    [
        ({"ago": 50}, {"a": 1}),
        ({"ago": 70}, {}),
        ({"ago": 70, "max_age": 100}, {"a": 1}),
        ({"ago": 50, "max_age": 10}, {}),
    ],
)
async def test_a_session_ends_when_its_max_age_is_over(
    serve: Serve, make: Make, kind: str, times: dict[str, int], data: dict[str, int]
) -> None:
    client = await serve(make(OURS, kind, max_age=60))
    record = {"created": int(time.time()) - times["ago"], "session": {"a": 1}, **times}
    send(client, await make.cookie(kind, record))

    response = await client.get("/show")

    assert await response.json() == {"new": not data, "data": data}


@pytest.mark.parametrize("kind", [*IN_COOKIE, *ON_SERVER])
@pytest.mark.parametrize(
    "record",
    [
        [],
        "text",
        {},
        {"created": 1, "session": []},
        {"created": "now", "session": {}},
        {"created": 1, "session": {"a": 1}, "max_age": "long"},
    ],
)
async def test_a_record_that_makes_no_sense_counts_as_none(
    serve: Serve, make: Make, kind: str, record: object
) -> None:
    client = await serve(make(OURS, kind))
    send(client, await make.cookie(kind, record))

    response = await client.get("/show")

    assert await response.json() == {"new": True, "data": {}}


@pytest.mark.parametrize("kind", [*IN_COOKIE, *ON_SERVER])
@pytest.mark.parametrize("value", ["x", "{", "AAAA", "a b", "k" * 300, "\u00e9", "[1]", "%00"])
async def test_a_bad_cookie_counts_as_none(serve: Serve, make: Make, kind: str, value: str) -> None:
    client = await serve(make(OURS, kind))

    response = await client.get("/show", headers={hdrs.COOKIE: f"{COOKIE}={value}"})

    assert await response.json() == {"new": True, "data": {}}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("encrypted", Fernet(base64.urlsafe_b64encode(KEY)).encrypt(b"no JSON").decode()),
        ("nacl", SecretBox(KEY).encrypt(b"no JSON", encoder=Base64Encoder).decode()),
    ],
)
async def test_what_decrypts_to_no_json_counts_as_none(
    serve: Serve, make: Make, kind: str, value: str
) -> None:
    client = await serve(make(OURS, kind))
    send(client, value)

    response = await client.get("/show")

    assert await response.json() == {"new": True, "data": {}}


@pytest.mark.parametrize("kind", ON_SERVER)
async def test_a_record_that_cannot_be_decoded_is_overwritten(
    serve: Serve, make: Make, kind: str
) -> None:
    client = await serve(make(OURS, kind))
    await make.redis.set(f"{COOKIE}_kept", b"\xff")
    await make.memcached.set(f"{COOKIE}_kept".encode(), b"\xff")
    send(client, "kept")

    await client.get("/put?a=1")

    assert (await make.record(kind, "kept"))["session"] == {"a": "1"}


async def test_a_redis_client_may_decode_responses(
    serve: Serve, redis_server: RedisServer, make: Make
) -> None:
    async with Redis.from_url(redis_server.url, decode_responses=True) as redis:
        client = await serve(Make(redis, make.memcached)(OURS, "redis"))
        await client.get("/put?a=1")

        response = await client.get("/show")

    assert await response.json() == {"new": False, "data": {"a": "1"}}


@pytest.mark.parametrize("kind", ["encrypted", "nacl"])
async def test_a_key_can_be_rotated(serve: Serve, make: Make, kind: str) -> None:
    def storage(*keys: bytes) -> AbstractStorage:
        return NaClCookieStorage(keys) if kind == "nacl" else EncryptedCookieStorage(keys)

    jar = CookieJar(unsafe=True)
    before = await serve(storage(OLD_KEY), jar=jar)
    meanwhile = await serve(storage(KEY, OLD_KEY), jar=jar)
    after = await serve(storage(KEY), jar=jar)
    await before.get("/put?a=1")
    await meanwhile.get("/show")

    response = await after.get("/show")

    assert await response.json() == {"new": False, "data": {"a": "1"}}


@pytest.mark.parametrize("kind", ["encrypted", "nacl"])
async def test_a_cookie_of_the_current_key_is_not_sent_again(
    serve: Serve, make: Make, kind: str
) -> None:
    client = await serve(make(OURS, kind))
    await client.get("/put?a=1")

    response = await client.get("/show")

    assert hdrs.SET_COOKIE not in response.headers


@pytest.mark.parametrize("storage", [EncryptedCookieStorage, NaClCookieStorage])
def test_a_storage_without_a_key_cannot_be_built(storage: Any) -> None:
    with pytest.raises(ValueError, match="secret_key is empty"):
        storage([])


def test_a_key_may_be_a_fernet_or_text() -> None:
    text = Fernet.generate_key().decode()

    storage = EncryptedCookieStorage([Fernet(text), text, KEY, bytearray(KEY)])

    assert storage.cookie_name == COOKIE


@pytest.mark.parametrize("kind", IN_COOKIE)
async def test_a_cookie_that_browsers_would_drop_is_an_error_in_the_log(
    serve: Serve, make: Make, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def fill(request: web.Request) -> web.Response:
        (await compat.get_session(request))["text"] = "x" * 5000
        return web.Response()

    client = await serve(make(OURS, kind), fill)

    with caplog.at_level(logging.ERROR, "aiosess"):
        await client.get("/fill")

    assert "browsers keep 4096 at the most" in caplog.text


@pytest.mark.parametrize("max_age", [0, -1])
@pytest.mark.parametrize("kind", ON_SERVER)
async def test_a_max_age_of_nothing_ends_the_session(
    serve: Serve, make: Make, kind: str, max_age: int
) -> None:
    async def expire(request: web.Request) -> web.Response:
        session = await compat.get_session(request)
        session["a"] = 2
        session.max_age = max_age
        return web.Response()

    client = await serve(make(OURS, kind), expire)
    await client.get("/put?a=1")
    before = cookie_of(client)

    await client.get("/expire")

    assert await make.record(kind, before) is None
