"""What is open beside a request ends with its session: sockets, streams, long handlers."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import unquote

import pytest
from aiohttp import ClientWebSocketResponse, WSCloseCode, WSMsgType, web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp_session import SimpleCookieStorage
from pytest_aiohttp import AiohttpClient

from aiosess import (
    MemoryStorage,
    Reason,
    SessionError,
    SessionEvent,
    SessionOptions,
    Storage,
    StorageCall,
    StorageError,
    StorageUnavailable,
    get_session,
    setup,
)
from aiosess.exchange import watching
from aiosess.exchange.manager import managers_in
from aiosess.exchange.watching import Watcher
from aiosess.principals import Principals
from aiosess.storages import NotifyingStorage
from aiosess.storages.redis import RedisStorage
from aiosess.testing import FakeClock, FaultyStorage
from tests.conftest import MakeApp, MakeOptions
from tests.servers import RedisServer
from tests.web.conftest import Client, Connect

# Only what is told, and rounds that a test goes itself.
NEVER = 100_000.0

KEY = "AIOHTTP_SECURITY"


async def login(request: web.Request) -> web.Response:
    session = await get_session(request)
    session[KEY] = request.query.get("name", "ann")
    return web.Response()


async def socket(request: web.Request) -> web.StreamResponse:
    session = await get_session(request)
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    async with session.watch(ws):
        await ws.send_str("open")
        async for message in ws:
            if message.data == "touch":
                await session.touch()
            await ws.send_str(str(message.data))
    return ws


async def wait(request: web.Request) -> web.Response:
    """Answer why the session ended, once it has."""
    session = await get_session(request)
    return web.Response(text=(await session.ended()).name)


async def change(request: web.Request) -> web.Response:
    """Do to the session what the query says."""
    session = await get_session(request)
    match request.query["do"]:
        case "destroy":
            await session.destroy()
        case "regenerate":
            await session.regenerate()
        case "invalidate":
            session.invalidate()
        case "renew":
            await session.renew_id()
        case "rotate":
            await session.rotate_id()
        case "login":
            session[KEY] = "somebody else"
        case "logout":
            del session[KEY]
        case _:
            session["seen"] = True
    return web.Response()


HANDLERS = (login, socket, wait, change)


async def opened(browser: Client, number: int = 1) -> list[ClientWebSocketResponse]:
    """Return so many sockets, each of which is watched by now."""
    sockets = [await browser.ws_connect("/socket") for _ in range(number)]
    for each in sockets:
        assert await each.receive_str(timeout=5) == "open"
    return sockets


async def closed(ws: ClientWebSocketResponse) -> tuple[int, str]:
    """Return the code and the message with which *ws* is closed."""
    message = await ws.receive(timeout=5)
    assert message.type is WSMsgType.CLOSE
    return message.data, str(message.extra)


async def is_open(ws: ClientWebSocketResponse) -> bool:
    await ws.send_str("still there?")
    return await ws.receive(timeout=5) == (WSMsgType.TEXT, "still there?", "")


async def becomes(is_so: Callable[[], bool]) -> None:
    """Return once it is so."""
    async with asyncio.timeout(5):
        for _ in itertools.count():
            if is_so():
                return
            await asyncio.sleep(0)


def id_of(browser: Client) -> str:
    [cookie] = browser.session.cookie_jar
    return unquote(cookie.value).removeprefix("s:").partition(".")[0]


def watcher_of(client: TestClient[Any, web.Application]) -> Watcher:
    watcher = managers_in(client.app)[0].watcher
    assert watcher is not None
    return watcher


async def as_same_browser(browser: Client, other: Client) -> Client:
    """Let *other* have the cookies of *browser*."""
    cookies = {each.key: each.value for each in browser.session.cookie_jar}
    other.session.cookie_jar.update_cookies(cookies, other.make_url("/"))
    return other


ENDS = {
    "destroy": Reason.ENDED,
    "regenerate": Reason.ENDED,
    "invalidate": Reason.ENDED,
    "renew": Reason.TAKEN_OVER,
    "login": Reason.TAKEN_OVER,
    "logout": Reason.TAKEN_OVER,
}


@pytest.mark.parametrize("do", ENDS)
@pytest.mark.asvs("7.4.1")
async def test_a_socket_is_closed_at_once_when_another_request_ends_its_session(
    do: str, connect: Connect
) -> None:
    browser = await connect(*HANDLERS, watch_every=NEVER, renew_on=[KEY] if do != "renew" else [])
    await browser.get("/login")
    [ws] = await opened(browser)

    await browser.get("/change", params={"do": do})

    assert await closed(ws) == (WSCloseCode.POLICY_VIOLATION, ENDS[do].words)


@pytest.mark.parametrize("do", ["rotate", "write"])
async def test_a_new_id_now_and_then_closes_no_socket(do: str, connect: Connect) -> None:
    browser = await connect(*HANDLERS, watch_every=NEVER)
    await browser.get("/login")
    [ws] = await opened(browser)

    await browser.get("/change", params={"do": do})
    await watcher_of(browser).look_at_all()

    assert await is_open(ws)


async def test_many_new_ids_before_the_next_look_close_no_socket(
    connect: Connect, make_app: MakeApp, faulty: FaultyStorage
) -> None:
    # A storage that tells nobody, as memcached.
    browser = await connect(*HANDLERS, watch_every=NEVER, storage=faulty)
    await browser.get("/login")
    [ws] = await opened(browser)
    async with TestClient(TestServer(make_app(*HANDLERS, storage=faulty))) as elsewhere:
        await as_same_browser(browser, elsewhere)
        for _ in range(20):
            await elsewhere.get("/change", params={"do": "rotate"})

    await watcher_of(browser).look_at_all()

    assert await is_open(ws)


async def test_a_socket_from_before_a_new_id_is_closed_with_the_session(connect: Connect) -> None:
    browser = await connect(*HANDLERS, watch_every=NEVER)
    await browser.get("/login")
    [first] = await opened(browser)
    await browser.get("/change", params={"do": "rotate"})
    [second] = await opened(browser)
    await watcher_of(browser).look_at_all()

    await browser.get("/change", params={"do": "destroy"})

    assert await closed(first) == await closed(second) == (1008, "the session ended")


async def test_who_logs_in_again_closes_no_socket_until_the_session_ends(connect: Connect) -> None:
    browser = await connect(*HANDLERS, watch_every=NEVER)
    await browser.get("/login")
    [ws] = await opened(browser)

    await browser.get("/change", params={"do": "renew"})
    await watcher_of(browser).look_at_all()

    assert await is_open(ws)
    await browser.get("/change", params={"do": "destroy"})
    assert await closed(ws) == (1008, "the session ended")


async def test_sockets_of_other_sessions_stay_open(connect: Connect, make_app: MakeApp) -> None:
    ann = await connect(*HANDLERS, watch_every=NEVER)
    async with TestClient(TestServer(make_app(*HANDLERS, watch_every=NEVER))) as bob:
        await ann.get("/login")
        await bob.get("/login")
        [ws] = await opened(bob)

        await ann.get("/change", params={"do": "destroy"})
        await watcher_of(bob).look_at_all()

        assert await is_open(ws)


async def test_all_sockets_of_a_session_are_closed(connect: Connect) -> None:
    browser = await connect(*HANDLERS, watch_every=NEVER)
    await browser.get("/login")
    sockets = await opened(browser, 20)

    await browser.get("/change", params={"do": "destroy"})

    assert {await closed(ws) for ws in sockets} == {(1008, "the session ended")}


async def test_a_long_handler_is_told_the_reason(connect: Connect) -> None:
    browser = await connect(*HANDLERS, watch_every=NEVER)
    await browser.get("/login")
    waiting = [asyncio.create_task(browser.get("/wait")) for _ in range(3)]
    await becomes(lambda: len(watcher_of(browser)) == 1)

    await browser.get("/change", params={"do": "destroy"})

    assert [await (await each).text() for each in waiting] == ["ENDED"] * 3


async def test_a_session_that_has_ended_by_then_is_told_at_once(connect: Connect) -> None:
    async def end_first(request: web.Request) -> web.Response:
        session = await get_session(request)
        await browser.get("/change", params={"do": "destroy"})
        return web.Response(text=(await session.ended()).name)

    browser = await connect(*HANDLERS, end_first, watch_every=NEVER)
    await browser.get("/login")

    told = await browser.get("/end_first")

    assert await told.text() == "ENDED"


@pytest.mark.asvs("7.4.1")
async def test_a_stream_ends_when_its_session_does(connect: Connect) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        session = await get_session(request)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: open\n\n")
        reason = await session.ended()
        await response.write(f"event: ended\ndata: {reason.words}\n\n".encode())
        return response

    browser = await connect(*HANDLERS, stream, watch_every=NEVER)
    await browser.get("/login")
    response = await browser.get("/stream")
    await response.content.readuntil(b"\n\n")

    await browser.get("/change", params={"do": "destroy"})

    assert await response.text() == "event: ended\ndata: the session ended\n\n"


async def test_who_waits_for_the_end_can_be_cancelled(connect: Connect) -> None:
    async def both(request: web.Request) -> web.Response:
        session = await get_session(request)
        first, second = (asyncio.create_task(session.ended()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await session.destroy()
        return web.Response(text=(await second).name)

    browser = await connect(*HANDLERS, both, watch_every=NEVER)
    await browser.get("/login")

    told = await browser.get("/both")

    assert await told.text() == "ENDED"
    assert len(watcher_of(browser)) == 0


async def test_a_client_that_reads_nothing_any_more_is_cut(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_TO_CLOSE", 0.1)
    is_over = asyncio.Event()

    async def flood(request: web.Request) -> web.StreamResponse:
        session = await get_session(request)
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        try:
            async with session.watch(ws):
                while True:
                    await ws.send_bytes(bytes(100_000))
        finally:
            is_over.set()

    browser = await connect(*HANDLERS, flood, watch_every=NEVER)
    await browser.get("/login")
    ws = await browser.ws_connect("/flood")
    assert ws._response.connection is not None
    transport: Any = ws._response.connection.transport
    transport.pause_reading()

    await browser.get("/change", params={"do": "destroy"})

    await asyncio.wait_for(is_over.wait(), 5)
    transport.abort()


# What cannot be watched.


async def test_a_session_without_a_record_says_what_to_do_first(connect: Connect) -> None:
    async def watch_new(request: web.Request) -> web.Response:
        session = await get_session(request)
        with pytest.raises(SessionError, match=r"await session\.save\(\) first"):
            await session.ended()
        session["is_there"] = True
        await session.save()
        ended = asyncio.create_task(session.ended())
        await session.destroy()
        return web.Response(text=(await ended).name)

    browser = await connect(watch_new)

    told = await browser.get("/watch_new")

    assert await told.text() == "ENDED"


async def test_a_socket_must_be_open_and_a_socket(connect: Connect) -> None:
    async def mistaken(request: web.Request) -> web.Response:
        session = await get_session(request)
        with pytest.raises(RuntimeError, match=r"await ws\.prepare"):
            await session.watch(web.WebSocketResponse()).__aenter__()
        other: Any = web.Response()
        with pytest.raises(TypeError, match=r"await session\.ended\(\)"):
            await session.watch(other).__aenter__()
        return web.Response()

    browser = await connect(login, mistaken)
    await browser.get("/login")

    told = await browser.get("/mistaken")

    assert told.status == 200


async def test_a_storage_of_aiohttp_session_says_that_it_cannot(
    aiohttp_client: AiohttpClient,
) -> None:
    async def watch_borrowed(request: web.Request) -> web.Response:
        session = await get_session(request)
        with pytest.raises(SessionError, match="use a storage of aiosess"):
            await session.ended()
        return web.Response()

    app = web.Application()
    setup(app, SessionOptions(storage=SimpleCookieStorage()))
    app.router.add_get("/watch_borrowed", watch_borrowed)
    browser = await aiohttp_client(app)

    told = await browser.get("/watch_borrowed")

    assert told.status == 200


@pytest.mark.parametrize("storage", [None])
async def test_an_empty_session_that_stands_in_for_one_cannot_be_watched(
    connect: Connect,
) -> None:
    async def watch_anonymous(request: web.Request) -> web.Response:
        session = await get_session(request)
        with pytest.raises(StorageUnavailable):
            await session.ended()
        return web.Response()

    faulty = FaultyStorage()
    browser = await connect(
        login, watch_anonymous, storage=faulty, on_unavailable="anonymous", breaker=None
    )
    await browser.get("/login")
    faulty.fail()

    told = await browser.get("/watch_anonymous")

    assert told.status == 200


async def test_a_logout_from_a_full_back_end_closes_the_socket_too(
    connect: Connect, faulty: FaultyStorage
) -> None:
    browser = await connect(*HANDLERS, storage=faulty, watch_every=NEVER)
    await browser.get("/login")
    [ws] = await opened(browser)
    faulty.fail(StorageError("full"), verbs=("create", "replace"))

    await browser.get("/change", params={"do": "destroy"})

    assert await closed(ws) == (1008, "the session ended")


@pytest.mark.parametrize("storage", ["memory"], indirect=True)
async def test_a_storage_whose_calls_are_told_tells_other_applications(
    connect: Connect, make_app: MakeApp
) -> None:
    calls: list[StorageCall] = []
    options: dict[str, Any] = {"watch_every": NEVER, "on_storage_call": calls.append}
    here = await connect(*HANDLERS, **options)
    await here.get("/login")
    [ws] = await opened(here)
    async with TestClient(TestServer(make_app(*HANDLERS, **options))) as elsewhere:
        await as_same_browser(here, elsewhere)

        await elsewhere.get("/change", params={"do": "destroy"})

        assert await closed(ws) == (1008, "the session ended")


@pytest.mark.parametrize("storage", ["memory", "redis"], indirect=True)
@pytest.mark.parametrize("way", ["revoke", "end", "label"])
async def test_a_program_that_serves_no_sessions_tells_at_once_as_well(
    make_options: MakeOptions, aiohttp_client: AiohttpClient, storage: Storage, way: str
) -> None:
    async def log_in(request: web.Request) -> web.Response:
        session = await get_session(request)
        await session.bind("ann", labels={"sid": "s1"})
        return web.Response(text=session.handle)

    options = make_options(watch_every=NEVER)
    Principals(options)
    app = web.Application()
    setup(app, options)
    app.router.add_get("/log_in", log_in)
    app.router.add_get("/socket", socket)
    browser = await aiohttp_client(app)
    handle = await (await browser.get("/log_in")).text()
    [ws] = await opened(browser)
    if isinstance(storage, RedisStorage):
        await subscribers(storage, 1)
    elsewhere = Principals(make_options())

    match way:
        case "revoke":
            await elsewhere.revoke("ann")
        case "end":
            await elsewhere.end("ann", handle)
        case _:
            await elsewhere.revoke_label("sid", "s1")

    assert await closed(ws) == (1008, "the session ended")


# Time.


@pytest.mark.asvs("7.3.2")
async def test_an_absolute_timeout_closes_a_socket(connect: Connect, clock: FakeClock) -> None:
    browser = await connect(
        *HANDLERS, watch_every=NEVER, clock=clock, idle_timeout=60, absolute_timeout=3600
    )
    await browser.get("/login")
    [ws] = await opened(browser)
    clock.advance(3600)

    await watcher_of(browser).look_at_all()

    assert await closed(ws) == (1008, "the session expired")


@pytest.fixture
async def timed(make_app: MakeApp, clock: FakeClock) -> AsyncIterator[Client]:
    """A browser of an application whose records end by the clock of the test."""
    storage = MemoryStorage(clock=clock)
    app = make_app(
        *HANDLERS, storage=storage, clock=clock, idle_timeout=60, watch_every=NEVER, touch_after=0
    )
    async with TestClient(TestServer(app)) as browser:
        await browser.get("/login")
        yield browser


@pytest.mark.parametrize("storage", [None])
@pytest.mark.asvs("7.3.1")
async def test_an_open_socket_does_not_keep_a_session_alive(
    timed: Client, clock: FakeClock
) -> None:
    [ws] = await opened(timed)

    for _ in range(2):
        clock.advance(31)
        await watcher_of(timed).look_at_all()

    assert await closed(ws) == (1008, "the session expired")


@pytest.mark.parametrize("storage", [None])
async def test_what_touches_its_session_keeps_its_socket_open(
    timed: Client, clock: FakeClock
) -> None:
    [ws] = await opened(timed)
    clock.advance(31)
    await ws.send_str("touch")
    await ws.receive(timeout=5)
    clock.advance(31)

    await watcher_of(timed).look_at_all()

    assert await is_open(ws)


async def test_an_outage_closes_sockets_only_when_the_session_must_have_expired(
    connect: Connect, faulty: FaultyStorage, clock: FakeClock
) -> None:
    browser = await connect(
        *HANDLERS, storage=faulty, clock=clock, idle_timeout=60, watch_every=NEVER, breaker=None
    )
    await browser.get("/login")
    [ws] = await opened(browser)
    await watcher_of(browser).look_at_all()
    faulty.fail()

    clock.advance(59)
    await watcher_of(browser).look_at_all()
    assert await is_open(ws)
    clock.advance(1)
    await watcher_of(browser).look_at_all()

    assert await closed(ws) == (WSCloseCode.TRY_AGAIN_LATER, Reason.OUT_OF_SIGHT.words)


async def test_a_session_is_looked_at_now_and_then(connect: Connect, storage: Storage) -> None:
    browser = await connect(*HANDLERS, watch_every=0.02)
    await browser.get("/login")
    [ws] = await opened(browser)

    # As Express or an operator does it, who tells nobody.
    await storage.delete(id_of(browser))

    assert await closed(ws) == (1008, "the session ended")


# Other processes, which share nothing but the storage.


async def test_what_another_process_ends_is_noticed_at_once_where_the_storage_can_tell(
    connect: Connect, storage: Storage, make_app: MakeApp
) -> None:
    here = await connect(*HANDLERS, watch_every=NEVER)
    await here.get("/login")
    [ws] = await opened(here)
    async with TestClient(TestServer(make_app(*HANDLERS, watch_every=NEVER))) as elsewhere:
        await as_same_browser(here, elsewhere)
        await elsewhere.get("/change", params={"do": "rotate"})
        await elsewhere.get("/change", params={"do": "destroy"})
        if not isinstance(storage, NotifyingStorage):
            assert await is_open(ws)
            await watcher_of(here).look_at_all()

    assert await closed(ws) == (1008, "the session ended")


def tasks_of_watchers() -> list[str]:
    """Return what is under way of all that watch."""
    acts = [repr(each.get_coro()) for each in asyncio.all_tasks()]
    return [each for each in acts if "Watcher." in each]


@pytest.fixture
def url(redis_server: RedisServer) -> str:
    return redis_server.url


@pytest.fixture
async def redis(url: str) -> AsyncIterator[RedisStorage]:
    async with RedisStorage.from_url(url, prefix=f"{uuid.uuid4()}:") as storage:
        yield storage


async def number_of_subscribers(storage: RedisStorage) -> int:
    client = storage._clients.here()
    [(_, number)] = await client.pubsub_numsub(storage._channel)
    return int(number)


async def subscribers(storage: RedisStorage, number: int) -> None:
    """Return once so many connections listen."""
    async with asyncio.timeout(5):
        for _ in itertools.count():
            if await number_of_subscribers(storage) == number:
                return


@pytest.mark.parametrize("storage", [None])
@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.asvs("7.4.1")
async def test_two_applications_on_one_redis_tell_each_other(
    protocol: int, url: str, make_app: MakeApp, connect: Connect
) -> None:
    prefix, url = f"{uuid.uuid4()}:", f"{url}?protocol={protocol}"
    one = RedisStorage.from_url(url, prefix=prefix)
    other = RedisStorage.from_url(url, prefix=prefix)
    here = await connect(*HANDLERS, storage=one, watch_every=NEVER)
    await here.get("/login")
    sockets = await opened(here, 3)
    app = make_app(*HANDLERS, storage=other, watch_every=NEVER)
    async with TestClient(TestServer(app)) as elsewhere:
        await as_same_browser(here, elsewhere)

        await elsewhere.get("/change", params={"do": "destroy"})

        assert {await closed(ws) for ws in sockets} == {(1008, "the session ended")}


@pytest.mark.parametrize("storage", [None])
async def test_there_is_one_connection_that_listens_while_anything_is_watched(
    connect: Connect, redis: RedisStorage
) -> None:
    browser = await connect(*HANDLERS, storage=redis, watch_every=NEVER)
    await browser.get("/login")
    assert await number_of_subscribers(redis) == 0
    sockets = await opened(browser, 3)
    await subscribers(redis, 1)

    assert await number_of_subscribers(redis) == 1

    for ws in sockets:
        await ws.close()
    await subscribers(redis, 0)
    assert len(watcher_of(browser)) == 0


@pytest.mark.parametrize("storage", [None])
async def test_a_connection_that_listens_and_is_lost_is_made_anew(
    connect: Connect, redis: RedisStorage, caplog: pytest.LogCaptureFixture
) -> None:
    browser = await connect(*HANDLERS, storage=redis, watch_every=NEVER)
    await browser.get("/login")
    [ws] = await opened(browser)
    await subscribers(redis, 1)
    client = redis._clients.here()

    await client.client_kill_filter(_type="pubsub")
    # What ends meanwhile is seen when it stands again.
    await redis.delete(id_of(browser))

    assert await closed(ws) == (1008, "the session ended")
    assert "nobody tells of sessions that end on other processes" in caplog.text


# The end of the application, and what is told.


async def test_an_application_that_stops_closes_what_is_open(connect: Connect) -> None:
    browser = await connect(*HANDLERS, watch_every=NEVER)
    await browser.get("/login")
    [ws] = await opened(browser)
    stopping = asyncio.create_task(browser.server.close())

    assert await closed(ws) == (WSCloseCode.GOING_AWAY, "the application stops")

    await stopping
    assert len(watcher_of(browser)) == 0


async def test_an_application_that_is_run_once_more_watches_again(make_app: MakeApp) -> None:
    app = make_app(*HANDLERS, storage=MemoryStorage(), watch_every=NEVER)
    for _ in range(2):
        async with TestClient(TestServer(app)) as browser:
            await browser.get("/login")
            [ws] = await opened(browser)

            assert await is_open(ws)


async def test_nothing_is_left_when_the_last_watch_is_over(connect: Connect) -> None:
    browser = await connect(*HANDLERS, watch_every=NEVER)
    await browser.get("/login")
    [ws] = await opened(browser)
    assert tasks_of_watchers()

    await ws.close()

    await becomes(lambda: not tasks_of_watchers())
    assert len(watcher_of(browser)) == 0


async def test_the_end_is_told_with_the_request_that_was_open(connect: Connect) -> None:
    events: list[SessionEvent] = []
    browser = await connect(*HANDLERS, watch_every=NEVER, on_event=events.append)
    await browser.get("/login")
    [ws] = await opened(browser)

    await browser.get("/change", params={"do": "destroy"})
    await closed(ws)

    [event] = [each for each in events if each.reason is Reason.ENDED]
    assert event.request.path == "/socket"


async def test_the_handler_knows_why_its_socket_was_closed(connect: Connect) -> None:
    seen: list[Reason | None] = []

    async def reading(request: web.Request) -> web.StreamResponse:
        session = await get_session(request)
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async with session.watch(ws) as watch:
            seen.append(watch.reason)
            await ws.send_str("open")
            await ws.receive()
            seen.append(watch.reason)
        return ws

    browser = await connect(*HANDLERS, reading, watch_every=NEVER)
    await browser.get("/login")
    ws = await browser.ws_connect("/reading")
    await ws.receive_str()

    await browser.get("/change", params={"do": "destroy"})
    await closed(ws)

    await becomes(lambda: seen == [None, Reason.ENDED])
