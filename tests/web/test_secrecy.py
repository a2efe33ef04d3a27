"""Nothing that goes wrong writes a session id, a secret or data into a log, tracebacks included."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientPayloadError, DummyCookieJar, web
from pytest_aiohttp import AiohttpClient

from aiosess import CookieOptions, SessionGone, Storage
from aiosess.storages.redis import RedisStorage
from aiosess.testing import FaultyStorage
from tests.conftest import SECRET, MakeApp
from tests.servers import RedisServer
from tests.web.conftest import Client, Connect
from tests.web.handlers import keep, put, session_of, signed, views
from tests.web.test_streams import stream_then_change

# What no line of the log may hold: each id in these tests begins so, and so do all data.
ID = "id-of-a-session"
DATA = "what-nobody-should-read"

Scenario = Callable[[Client, FaultyStorage], Awaitable[object]]


async def crash(request: web.Request) -> web.Response:
    (await session_of(request))["n"] = DATA
    raise LookupError("a crash")


async def keep_an_object(request: web.Request) -> web.Response:
    (await session_of(request))["n"] = {"a": [DATA, object()]}
    return web.Response()


async def renew(request: web.Request) -> web.Response:
    session = await session_of(request)
    session["n"] = DATA
    await session.renew_id()
    return web.Response()


async def begin(request: web.Request) -> web.Response:
    (await session_of(request))["n"] = DATA
    return web.Response()


async def reload(request: web.Request) -> web.Response:
    session = await session_of(request)
    await request.app[STORAGE].delete(session.id)
    with pytest.raises(SessionGone):
        await session.reload()
    session["n"] = DATA
    await session.save()
    return web.Response()


async def go_on_when_it_is_gone(request: web.Request) -> web.Response:
    session = await session_of(request)
    await request.app[STORAGE].delete(session.id)
    await session.atomic(lambda newest: newest.update(n=DATA))
    return web.Response()


async def collide(request: web.Request) -> web.Response:
    session = await session_of(request)
    session["n"] = DATA
    other = await request.app[STORAGE].load(session.id)
    await request.app[STORAGE].replace(
        session.id, other.payload.replace(b"1", b"2"), 60, expected=other.version
    )
    return web.Response()


STORAGE: web.AppKey[Any] = web.AppKey("storage", object)
KNOWN = signed(f"{ID}-apple")


async def without_an_answer(client: Client, faulty: FaultyStorage) -> None:
    faulty.fail()
    await client.get("/put?n=1", headers=KNOWN)
    await client.get("/begin")


async def with_an_error(client: Client, faulty: FaultyStorage) -> None:
    faulty.fail(LookupError("the back-end is odd"))
    await client.get("/views", headers=KNOWN)


async def with_a_saving_that_fails(client: Client, faulty: FaultyStorage) -> None:
    faulty.fail(verbs=("create", "replace", "touch"))
    await client.get("/renew", headers=KNOWN)
    await client.get("/put?n=1", headers=KNOWN)


async def with_a_handler_that_crashes(client: Client, _faulty: FaultyStorage) -> None:
    await client.get("/crash", headers=KNOWN)


async def with_what_cannot_be_kept(client: Client, _faulty: FaultyStorage) -> None:
    await client.get("/keep_an_object", headers=KNOWN)


async def with_an_id_that_is_taken(client: Client, _faulty: FaultyStorage) -> None:
    await client.get("/begin")
    await client.get("/begin", headers={"X-Repeat": "yes"})


async def with_an_id_that_was_renewed(client: Client, _faulty: FaultyStorage) -> None:
    await client.get("/renew", headers=KNOWN)
    await client.get("/views", headers=KNOWN)


async def with_a_record_that_went(client: Client, _faulty: FaultyStorage) -> None:
    await client.get("/reload", headers=KNOWN)


async def with_a_record_that_went_before_atomic(client: Client, _faulty: FaultyStorage) -> None:
    await client.get("/go_on_when_it_is_gone", headers=KNOWN)


async def with_two_who_changed_it(client: Client, _faulty: FaultyStorage) -> None:
    await client.get("/collide", headers=KNOWN)


async def with_headers_that_have_left(client: Client, _faulty: FaultyStorage) -> None:
    response = await client.get("/stream_then_change")
    with pytest.raises(ClientPayloadError):
        await response.read()


async def with_a_record_that_cannot_be_read(client: Client, faulty: FaultyStorage) -> None:
    await faulty.storage.create(f"{ID}-odd", f"not JSON, but {DATA}".encode(), 60)
    await client.get("/views", headers=signed(f"{ID}-odd"))


async def with_a_cookie_that_is_withheld(client: Client, _faulty: FaultyStorage) -> None:
    await client.get("/begin", headers={"X-Secure": "yes"})


async def with_a_wrong_signature(client: Client, _faulty: FaultyStorage) -> None:
    await client.get("/views", headers=signed(f"{ID}-apple", "another secret"))


SCENARIOS: dict[str, tuple[Scenario, str]] = {
    "no answer": (without_an_answer, "is refused without its session"),
    "an error": (with_an_error, "the back-end is odd"),
    "a failed save": (with_a_saving_that_fails, "is refused without its session"),
    "a crash": (with_a_handler_that_crashes, "a crash"),
    "an object": (with_what_cannot_be_kept, "session['n']['a'][1] is of type object"),
    "a taken id": (with_an_id_that_is_taken, "IdTaken"),
    "an id from before": (with_an_id_that_was_renewed, "from before a login was dropped"),
    "a deleted record": (with_a_record_that_went, "ended while a request was using it"),
    "a deleted record, atomic": (with_a_record_that_went_before_atomic, "SessionGone"),
    "a conflict": (with_two_who_changed_it, "MergeConflict"),
    "headers that left": (with_headers_that_have_left, "SessionNotSent"),
    "a broken record": (with_a_record_that_cannot_be_read, "a record cannot be read"),
    "a withheld cookie": (with_a_cookie_that_is_withheld, "is withheld"),
    "a wrong signature": (with_a_wrong_signature, "GET /views"),
}


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Everything that anybody logs, with tracebacks."""
    caplog.set_level(logging.DEBUG)
    return caplog


@pytest.fixture
async def client(
    make_app: MakeApp, aiohttp_client: AiohttpClient, storage: Storage, faulty: FaultyStorage
) -> Client:
    numbers = itertools.count()

    def genid(request: web.Request) -> str:
        return f"{ID}-{0 if 'X-Repeat' in request.headers else next(numbers)}"

    def cookie(request: web.Request) -> CookieOptions:
        return CookieOptions(secure="X-Secure" in request.headers)

    await keep(storage, f"{ID}-apple", n=1)
    app = make_app(
        *(begin, views, put, renew, crash, keep_an_object, reload, go_on_when_it_is_gone),
        *(collide, stream_then_change),
        storage=faulty,
        genid=genid,
        cookie=cookie,
        merge="raise",
        renew_grace=0,
    )
    app[STORAGE] = storage
    return await aiohttp_client(app, cookie_jar=DummyCookieJar())


@pytest.mark.nist("5.1-6")
@pytest.mark.parametrize(("happen", "message"), SCENARIOS.values(), ids=SCENARIOS)
async def test_no_id_no_secret_and_no_data_are_logged(
    log: pytest.LogCaptureFixture,
    client: Client,
    faulty: FaultyStorage,
    happen: Scenario,
    message: str,
) -> None:
    await happen(client, faulty)

    assert message in log.text
    assert not any(secret in log.text for secret in (ID, DATA, SECRET))


async def test_no_id_and_no_data_are_logged_while_redis_is_away(
    log: pytest.LogCaptureFixture,
    connect: Connect,
    own_redis_server: RedisServer,
) -> None:
    async with RedisStorage.from_url(own_redis_server.url) as storage:
        await keep(storage, f"{ID}-apple", n=1)
        client = await connect(views, begin, forgets=True, storage=storage, retries=1)
        own_redis_server.stop()

        await client.get("/views", headers=KNOWN)
        await client.get("/begin")

    assert log.text.count("is refused without its session") == 2
    assert not any(secret in log.text for secret in (ID, DATA, SECRET))
