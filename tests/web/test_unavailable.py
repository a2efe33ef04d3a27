"""What a request gets while the storage is away, as ``on_unavailable`` says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import ServerDisconnectedError, hdrs, web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.typedefs import Handler
from pytest_aiohttp import AiohttpClient

from aiosess import (
    BreakerOptions,
    CookieOptions,
    OptionsError,
    Outage,
    Reason,
    SessionEvent,
    SessionOptions,
    Storage,
    StorageUnavailable,
    find_session,
    get_session,
    health,
    setup,
    setup_async,
)
from aiosess.testing import FakeClock, FaultyStorage
from tests.conftest import SECRET, MakeOptions
from tests.web.conftest import Client, Connect
from tests.web.handlers import (
    cookies_set,
    keep,
    kept,
    kind,
    put,
    session_of,
    show,
    signed,
    start,
    views,
)

APPLE = signed("apple")


# An HTTP error


@pytest.mark.parametrize("given", [web.HTTPServiceUnavailable, web.HTTPServiceUnavailable()])
async def test_503_says_when_to_come_again_and_that_nobody_is_to_keep_it(
    connect: Connect, faulty: FaultyStorage, given: Any
) -> None:
    client = await connect(show, storage=faulty, on_unavailable=given, forgets=True)
    faulty.fail()

    for _ in range(2):
        response = await client.get("/show", headers=APPLE)

        assert response.status == 503
        assert response.headers[hdrs.RETRY_AFTER] == "1"
        assert response.headers[hdrs.CACHE_CONTROL] == "no-store"


async def test_an_answer_that_has_no_body_is_given_without_one(
    connect: Connect, faulty: FaultyStorage
) -> None:
    client = await connect(show, storage=faulty, on_unavailable=web.HTTPNoContent(), forgets=True)
    faulty.fail()

    response = await client.get("/show", headers=APPLE)

    assert (response.status, await response.read()) == (204, b"")


async def test_retry_after_is_what_is_left_of_the_breakers_pause(
    connect: Connect, faulty: FaultyStorage
) -> None:
    client = await connect(
        show,
        storage=faulty,
        on_unavailable=web.HTTPServiceUnavailable,
        breaker=BreakerOptions(failures=1, pause=40, longest_pause=40),
        forgets=True,
    )
    faulty.fail()
    await client.get("/show", headers=APPLE)

    response = await client.get("/show", headers=APPLE)

    assert 30 <= int(response.headers[hdrs.RETRY_AFTER]) <= 48


async def test_what_was_made_by_hand_is_sent_as_it_is_to_each_request(
    connect: Connect, faulty: FaultyStorage
) -> None:
    made = web.HTTPServiceUnavailable(
        text="<h1>Soon</h1>", content_type="text/html", headers={"Retry-After": "99"}
    )
    client = await connect(show, storage=faulty, on_unavailable=made, forgets=True)
    faulty.fail()

    for _ in range(2):
        response = await client.get("/show", headers=APPLE)

        assert await response.text() == "<h1>Soon</h1>"
        assert response.content_type == "text/html"
        assert response.headers[hdrs.RETRY_AFTER] == "99"


async def test_a_redirect_can_be_what_a_request_gets(
    connect: Connect, faulty: FaultyStorage
) -> None:
    given = web.HTTPFound("/maintenance")
    client = await connect(show, storage=faulty, on_unavailable=given, forgets=True)
    faulty.fail()

    response = await client.get("/show", headers=APPLE, allow_redirects=False)

    assert (response.status, response.headers[hdrs.LOCATION]) == (302, "/maintenance")


async def test_a_save_that_fails_gets_it_too(connect: Connect, faulty: FaultyStorage) -> None:
    client = await connect(put, storage=faulty, on_unavailable=web.HTTPServiceUnavailable)
    faulty.fail()

    response = await client.get("/put?n=1")

    assert response.status == 503
    assert cookies_set(response) == []


@pytest.mark.parametrize("verb", ["destroy", "save", "regenerate"])
async def test_a_verb_that_failed_and_was_not_caught_gets_it_too(
    connect: Connect, storage: Storage, faulty: FaultyStorage, verb: str
) -> None:
    async def act(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["n"] = 2
        await getattr(session, verb)()
        return web.Response()

    await keep(storage, "apple", n=1)
    client = await connect(
        act, storage=faulty, on_unavailable=web.HTTPServiceUnavailable, forgets=True
    )
    faulty.fail(verbs=("create", "replace", "touch", "delete"))

    response = await client.get("/act", headers=APPLE)

    assert response.status == 503
    assert cookies_set(response) == []


@pytest.mark.parametrize("retries", [None, 0, 2])
async def test_without_retries_a_handler_still_finds_none(
    connect: Connect, faulty: FaultyStorage, retries: int | None
) -> None:
    client = await connect(
        kind,
        storage=faulty,
        retries=retries,
        on_unavailable=web.HTTPServiceUnavailable,
        forgets=True,
    )
    faulty.fail()

    response = await client.get("/kind", headers=APPLE)

    assert response.status == (200 if retries is None else 503)


async def test_an_error_page_that_stands_outside_sees_it(
    make_options: MakeOptions, faulty: FaultyStorage, aiohttp_client: AiohttpClient
) -> None:
    @web.middleware
    async def pages(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPServiceUnavailable:
            return web.Response(text="a page of ours", status=503)

    app = web.Application(middlewares=[pages])
    setup(app, make_options(storage=faulty, on_unavailable=web.HTTPServiceUnavailable))
    app.router.add_get("/show", show)
    client = await aiohttp_client(app)
    faulty.fail()

    response = await client.get("/show", headers=APPLE)

    assert await response.text() == "a page of ours"


# Anonymous


async def test_an_anonymous_session_is_empty_and_says_that_it_is_one(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    async def tell(request: web.Request) -> web.Response:
        session = await get_session(request)
        return web.json_response([session.is_anonymous, dict(session)])

    await keep(storage, "apple", user="alice")
    client = await connect(tell, storage=faulty, on_unavailable="anonymous", forgets=True)
    was = await (await client.get("/tell", headers=APPLE)).json()
    faulty.fail()

    response = await client.get("/tell", headers=APPLE)

    assert was == [False, {"user": "alice"}]
    assert await response.json() == [True, {}]


@pytest.mark.parametrize("retries", [0, 2])
async def test_with_retries_find_session_returns_it_too(
    connect: Connect, faulty: FaultyStorage, retries: int
) -> None:
    client = await connect(
        kind, storage=faulty, retries=retries, on_unavailable="anonymous", forgets=True
    )
    faulty.fail()

    assert await (await client.get("/kind", headers=APPLE)).text() == "Session"


async def test_what_is_put_into_it_is_dropped_without_a_cookie(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    await keep(storage, "apple", n=0)
    client = await connect(put, storage=faulty, on_unavailable="anonymous", forgets=True)
    faulty.fail(verbs=("load",))

    response = await client.get("/put?n=1", headers=APPLE)

    assert response.status == 200
    assert cookies_set(response) == []
    assert await kept(storage, "apple") == {"n": 0}
    assert faulty.calls == ["load"]


async def test_its_id_is_one_that_nobody_else_has(connect: Connect, faulty: FaultyStorage) -> None:
    client = await connect(show, storage=faulty, on_unavailable="anonymous", forgets=True)
    faulty.fail()

    ids = {(await (await client.get("/show", headers=APPLE)).json())["id"] for _ in range(3)}

    assert len(ids) == 3
    assert "apple" not in ids


async def test_after_the_outage_the_session_is_there_as_it_was(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    await keep(storage, "apple", user="alice")
    client = await connect(show, put, storage=faulty, on_unavailable="anonymous", forgets=True)
    faulty.fail()
    await client.get("/put?user=mallory", headers=APPLE)
    faulty.recover()

    response = await client.get("/show", headers=APPLE)

    assert (await response.json())["data"] == {"user": "alice"}


@pytest.mark.parametrize("verb", ["save", "destroy", "renew_id", "rotate_id", "regenerate"])
async def test_no_verb_does_as_if_it_were_a_session_that_is_kept(
    connect: Connect, faulty: FaultyStorage, verb: str
) -> None:
    async def act(request: web.Request) -> web.Response:
        session = await get_session(request)
        with pytest.raises(StorageUnavailable):
            await getattr(session, verb)()
        return web.Response(text="raised")

    client = await connect(act, storage=faulty, on_unavailable="anonymous", forgets=True)
    faulty.fail()

    assert await (await client.get("/act", headers=APPLE)).text() == "raised"


async def test_nobody_can_log_in_to_it(connect: Connect, faulty: FaultyStorage) -> None:
    async def login(request: web.Request) -> web.Response:
        (await get_session(request))["user"] = "alice"
        return web.Response(text="welcome")

    client = await connect(
        login, storage=faulty, on_unavailable="anonymous", renew_on=["user"], forgets=True
    )
    faulty.fail()

    response = await client.get("/login", headers=APPLE)

    assert response.status == 503
    assert cookies_set(response) == []


async def test_a_logout_that_did_not_happen_is_not_answered_as_one(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    async def logout(request: web.Request) -> web.Response:
        (await get_session(request)).invalidate()
        return web.Response(text="bye")

    await keep(storage, "apple", user="alice")
    client = await connect(logout, storage=faulty, on_unavailable="anonymous", forgets=True)
    faulty.fail(verbs=("create", "replace", "touch", "delete"))

    response = await client.get("/logout", headers=APPLE)

    assert response.status == 503
    assert await kept(storage, "apple") == {"user": "alice"}


async def test_the_operator_may_choose_that_a_lost_change_is_answered(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    heard: list[SessionEvent] = []
    await keep(storage, "apple", n=0)
    client = await connect(
        put, storage=faulty, on_unavailable="anonymous", on_event=heard.append, forgets=True
    )
    faulty.fail(verbs=("replace",))

    response = await client.get("/put?n=1", headers=APPLE)

    assert response.status == 200
    assert cookies_set(response) == []
    assert Reason.NOT_KEPT in [event.reason for event in heard]


async def test_a_lost_change_sends_no_cookie_again(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    await keep(storage, "apple", n=0)
    client = await connect(
        put,
        storage=faulty,
        on_unavailable="anonymous",
        cookie=CookieOptions(max_age=60),
        forgets=True,
    )
    faulty.fail(verbs=("replace",))

    response = await client.get("/put?n=1", headers=APPLE)

    assert cookies_set(response) == []


# A function


async def test_a_function_is_told_what_failed_and_decides(
    connect: Connect, faulty: FaultyStorage
) -> None:
    told: list[tuple[str, Outage]] = []

    def decide(request: web.Request, outage: Outage) -> web.HTTPException:
        told.append((request.path, outage))
        return web.HTTPTooManyRequests()

    client = await connect(show, storage=faulty, on_unavailable=decide, forgets=True)
    faulty.fail()

    response = await client.get("/show", headers=APPLE)

    assert response.status == 429
    [(path, outage)] = told
    assert path == "/show"
    assert (outage.operation, outage.node) == ("load", "FaultyStorage")
    assert "told to fail" in outage.reason


async def test_a_function_may_say_anonymous_for_some(
    connect: Connect, faulty: FaultyStorage
) -> None:
    def decide(request: web.Request, _outage: Outage) -> Any:
        return "anonymous" if request.path == "/show" else web.HTTPServiceUnavailable

    client = await connect(show, views, storage=faulty, on_unavailable=decide, forgets=True)
    faulty.fail()

    assert (await client.get("/show", headers=APPLE)).status == 200
    assert (await client.get("/views", headers=APPLE)).status == 503


async def test_a_function_may_raise(connect: Connect, faulty: FaultyStorage) -> None:
    def decide(_request: web.Request, _outage: Outage) -> Any:
        raise web.HTTPGatewayTimeout

    client = await connect(show, storage=faulty, on_unavailable=decide, forgets=True)
    faulty.fail()

    assert (await client.get("/show", headers=APPLE)).status == 504


async def test_a_function_that_returns_something_else_is_told_so(
    connect: Connect, faulty: FaultyStorage
) -> None:
    async def asks(request: web.Request) -> web.Response:
        with pytest.raises(OptionsError, match="on_unavailable returned 503: return"):
            await get_session(request)
        return web.Response(text="told")

    client = await connect(
        asks, storage=faulty, on_unavailable=lambda _request, _outage: 503, forgets=True
    )
    faulty.fail()

    assert await (await client.get("/asks", headers=APPLE)).text() == "told"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("anon", "on_unavailable='anon' must be an HTTP error"),
        (503, "on_unavailable=503 must be an HTTP error"),
        (ValueError, "on_unavailable=<class 'ValueError'> must be an HTTP error"),
        (web.HTTPFound, "on_unavailable=HTTPFound cannot be made without arguments"),
        (web.HTTPMethodNotAllowed("GET", ["POST"]), "give a function that returns one"),
    ],
)
def test_what_no_request_can_get_is_refused_when_the_options_are_built(
    given: Any, message: str
) -> None:
    with pytest.raises(OptionsError) as caught:
        SessionOptions(secret=SECRET, on_unavailable=given)

    assert message in str(caught.value)


@pytest.mark.parametrize("given", [True, 5, {"failures": 5}])
def test_a_breaker_that_is_none_is_refused(given: Any) -> None:
    with pytest.raises(OptionsError, match=r"must be BreakerOptions\(\.\.\.\) or None"):
        SessionOptions(secret=SECRET, breaker=given)


# The breaker, seen from outside


async def test_while_a_node_is_away_requests_are_refused_without_asking_it(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    clock = FakeClock()
    await keep(storage, "apple", n=1)
    client = await connect(
        show, storage=faulty, breaker=BreakerOptions(failures=2), clock=clock, forgets=True
    )
    faulty.fail()
    for _ in range(10):
        await client.get("/show", headers=APPLE)
    asked = len(faulty.calls)
    faulty.recover()
    refused = await client.get("/show", headers=APPLE)
    clock.advance(1)

    response = await client.get("/show", headers=APPLE)

    assert asked == 2
    assert refused.status == 500
    assert (await response.json())["data"] == {"n": 1}


async def test_a_touch_that_is_not_tried_fails_no_request(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    await keep(storage, "apple", n=1)
    client = await connect(show, storage=faulty, touch_after=0, forgets=True)
    faulty.fail(StorageUnavailable("full", is_answer=True), verbs=("touch",))

    statuses = [(await client.get("/show", headers=APPLE)).status for _ in range(8)]

    assert statuses == [200] * 8


async def test_an_outage_is_one_line_in_the_log(
    connect: Connect, faulty: FaultyStorage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="aiosess")
    client = await connect(show, put, storage=faulty, forgets=True)
    faulty.fail()
    for _ in range(20):
        await client.get("/show", headers=APPLE)
        await client.get("/put?n=1")

    lines = [record.message for record in caplog.records if record.name == "aiosess"]

    assert lines == ["the storage at FaultyStorage does not answer: told to fail"]


async def test_health_is_what_a_readiness_endpoint_asks(
    make_options: MakeOptions,
    storage: Storage,
    faulty: FaultyStorage,
    aiohttp_client: AiohttpClient,
) -> None:
    clock = FakeClock()

    async def ready(request: web.Request) -> web.Response:
        nodes = await health(request.app)
        return web.json_response([[node.node, node.is_well] for node in nodes])

    app = web.Application()
    options = make_options(storage=faulty, breaker=BreakerOptions(failures=1), clock=clock)
    setup(app, options)
    app.router.add_get("/show", show)
    app.router.add_get("/ready", ready)
    client = await aiohttp_client(app)
    faulty.fail()
    await client.get("/show", headers=APPLE)
    away = await (await client.get("/ready")).json()
    faulty.recover()
    clock.advance(1)

    response = await client.get("/ready")

    assert away == [["FaultyStorage", False]]
    assert await response.json() == [["FaultyStorage", True]]


async def test_health_of_an_application_without_sessions_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"no sessions by aiosess\.setup"):
        await health(web.Application())


async def test_health_before_there_are_sessions_says_when_there_will_be() -> None:
    app = web.Application()
    setup_async(app, use_factory=lambda: SessionOptions(secret=SECRET))

    with pytest.raises(RuntimeError, match="the application has not started"):
        await health(app)


# The budget


async def test_an_act_ends_with_its_budget_however_many_calls_it_takes(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    await keep(storage, "apple", n=1)
    client = await connect(show, storage=faulty, retries=50, timeout=0.2, budget=0.5, forgets=True)
    faulty.hang()

    response = await client.get("/show", headers=APPLE)

    assert response.status == 500
    # Three, and more where the loop is busy, since that time does not count; fifty without it.
    assert len(faulty.calls) < 10


async def test_find_session_without_retries_and_anonymous_is_none(
    connect: Connect, faulty: FaultyStorage
) -> None:
    async def both(request: web.Request) -> web.Response:
        found = await find_session(request)
        session = await get_session(request)
        return web.json_response([found is None, session.is_anonymous])

    client = await connect(both, storage=faulty, on_unavailable="anonymous", forgets=True)
    faulty.fail()

    assert await (await client.get("/both", headers=APPLE)).json() == [True, True]


# When the application stops


async def test_a_save_under_way_ends_with_its_budget_when_the_application_stops(
    make_options: MakeOptions, storage: Storage, faulty: FaultyStorage
) -> None:
    changed = asyncio.Event()

    async def change(request: web.Request) -> web.Response:
        (await session_of(request))["n"] = 1
        faulty.hang()
        changed.set()
        return web.Response()

    await keep(storage, "apple", n=0)
    app = web.Application()
    setup(app, make_options(storage=faulty, timeout=0.1))
    app.router.add_get("/change", change)
    server = TestServer(app, handler_cancellation=True)
    client: Client = TestClient(server)
    async with server, client:
        asking = asyncio.create_task(client.get("/change", headers=APPLE))
        await changed.wait()
        asking.cancel()
        async with asyncio.timeout(10):
            await server.close()

    assert "replace" in faulty.calls


class NeverWritten(FaultyStorage):
    """Hangs from the first write on."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self.is_written = asyncio.Event()

    async def replace(self, *args: Any, **kwargs: Any) -> Any:
        self.hang()
        self.is_written.set()
        return await super().replace(*args, **kwargs)


async def test_what_a_cancelled_request_could_not_keep_is_told_with_its_cause(
    make_options: MakeOptions, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    hanging = NeverWritten(storage)
    handling: list[asyncio.Task[Any] | None] = []
    asked: list[web.Request] = []

    async def change(request: web.Request) -> web.Response:
        (await session_of(request))["n"] = 1
        handling.append(asyncio.current_task())
        return web.Response()

    def answer(request: web.Request, _outage: Outage) -> web.HTTPException:
        asked.append(request)
        return web.HTTPServiceUnavailable()

    await keep(storage, "apple", n=0)
    app = web.Application()
    setup(app, make_options(storage=hanging, timeout=0.1, on_unavailable=answer))
    app.router.add_get("/change", change)
    client: Client = TestClient(TestServer(app))
    async with client:
        asking = asyncio.create_task(client.get("/change", headers=APPLE))
        await hanging.is_written.wait()
        (task,) = handling
        assert task is not None
        task.cancel()
        with pytest.raises(ServerDisconnectedError):
            await asking

    assert "had changed could not be kept: StorageUnavailable" in caplog.text
    # Nobody waits for an answer.
    assert asked == []


async def test_what_the_storage_opened_is_closed_once(
    make_options: MakeOptions, faulty: FaultyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[FaultyStorage] = []

    async def close(self: FaultyStorage) -> None:
        closed.append(self)

    monkeypatch.setattr(FaultyStorage, "close", close)
    app = web.Application()
    setup(app, make_options(storage=faulty))

    await start(app)

    assert closed == [faulty]


# A session that is known already


class Punctual(FaultyStorage):
    """A storage that keeps the time limit itself, and so is asked past its guard."""

    def within(self, timeout: float) -> Punctual:  # noqa: ARG002
        return self


@pytest.mark.parametrize("verb", ["load", "replace"])
async def test_a_storage_that_keeps_time_itself_is_known_to_be_away_when_it_failed(
    verb: str, connect: Connect, storage: Storage
) -> None:
    await keep(storage, "apple", n=1)
    punctual = Punctual(storage)
    client = await connect(views, storage=punctual, forgets=True)
    await client.get("/views", headers=APPLE)
    await client.get("/views", headers=APPLE)

    punctual.fail(verbs=(verb,))
    await client.get("/views", headers=APPLE)

    assert client.app is not None
    assert [node.is_well for node in await health(client.app)] == [False]


async def test_a_page_that_may_do_without_is_answered_though_its_change_is_lost(
    connect: Connect, storage: Storage
) -> None:
    await keep(storage, "apple", n=1)
    faulty = FaultyStorage(storage)
    client = await connect(views, storage=faulty, on_unavailable="anonymous", forgets=True)
    await client.get("/views", headers=APPLE)

    faulty.fail(verbs=("replace",))
    response = await client.get("/views", headers=APPLE)

    assert response.status == 200
    assert cookies_set(response) == []
    assert await kept(storage, "apple") == {"n": 1, "views": 1}
