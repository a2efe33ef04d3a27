"""A storage that does not answer: what a request gets, by ``retries``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler
from pytest_aiohttp import AiohttpClient

from aiosess import (
    CookieOptions,
    OptionsError,
    SessionOptions,
    Storage,
    StorageError,
    StorageUnavailable,
    find_session,
    get_session,
    setup,
)
from aiosess.storages.redis import RedisStorage
from aiosess.testing import FaultyStorage
from tests.conftest import SECRET, MakeOptions
from tests.servers import RedisServer
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

LONG = 30.0


class Strategy:
    """Waits a little, and notes before which retries it was asked."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.asked: list[int] = []
        self.was_asked = asyncio.Event()
        self.seconds = seconds

    def __call__(self, retry: int) -> float:
        self.asked.append(retry)
        self.was_asked.set()
        return self.seconds

    def forget(self) -> None:
        """Forget that it was asked, as once when the options are built."""
        self.asked.clear()
        self.was_asked.clear()


# Loading.


async def test_without_retries_the_handler_runs_without_a_session(
    connect: Connect, faulty: FaultyStorage, caplog: pytest.LogCaptureFixture
) -> None:
    client = await connect(kind, storage=faulty, forgets=True)
    faulty.fail()

    response = await client.get("/kind", headers=signed("apple"))

    assert response.status == 200
    assert await response.text() == "NoneType"
    assert faulty.calls == ["load"]
    assert cookies_set(response) == []
    assert "the storage at FaultyStorage does not answer: told to fail" in caplog.text


async def test_without_retries_the_session_is_back_when_the_storage_is(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    await keep(storage, "apple")
    client = await connect(kind, storage=faulty, forgets=True)
    faulty.fail(times=1)

    kinds = [await (await client.get("/kind", headers=signed("apple"))).text() for _ in range(2)]

    assert kinds == ["NoneType", "Session"]


async def test_within_one_request_the_answer_stays_the_same(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    async def twice(request: web.Request) -> web.Response:
        first = await kind(request)
        second = await kind(request)
        return web.json_response([first.text, second.text])

    await keep(storage, "apple")
    client = await connect(twice, storage=faulty, forgets=True)
    faulty.fail(times=1)

    response = await client.get("/twice", headers=signed("apple"))

    assert await response.json() == ["NoneType", "NoneType"]
    assert faulty.calls == ["load"]


@pytest.mark.parametrize("retries", [0, 1, 3])
async def test_with_retries_the_request_is_a_500_and_the_handler_is_not_called(
    connect: Connect, faulty: FaultyStorage, retries: int
) -> None:
    called: list[str] = []

    async def handler(_request: web.Request) -> web.Response:
        called.append("handler")
        return web.Response()

    client = await connect(handler, storage=faulty, retries=retries, forgets=True)
    faulty.fail()

    response = await client.get("/handler", headers=signed("apple"))

    assert response.status == 500
    assert called == []
    assert faulty.calls == ["load"] * (retries + 1)


@pytest.mark.parametrize("retries", [0, 2])
async def test_with_retries_and_lazy_loading_get_session_itself_raises_the_500(
    connect: Connect, faulty: FaultyStorage, retries: int
) -> None:
    async def catches(request: web.Request) -> web.Response:
        with pytest.raises(web.HTTPInternalServerError):
            await session_of(request)
        return web.Response(text="caught")

    client = await connect(catches, storage=faulty, retries=retries, load="lazy", forgets=True)
    faulty.fail()

    response = await client.get("/catches", headers=signed("apple"))

    assert await response.text() == "caught"


async def test_without_retries_get_session_itself_raises_the_500(
    connect: Connect, faulty: FaultyStorage, caplog: pytest.LogCaptureFixture
) -> None:
    client = await connect(views, storage=faulty, forgets=True)
    faulty.fail()

    response = await client.get("/views", headers=signed("apple"))

    assert response.status == 500
    assert await response.text() == "The session storage does not answer."
    assert faulty.calls == ["load"]
    assert "the storage at FaultyStorage does not answer: told to fail" in caplog.text


async def test_get_session_raises_where_find_session_found_none_and_asks_no_more(
    connect: Connect, faulty: FaultyStorage
) -> None:
    async def both(request: web.Request) -> web.Response:
        found = await find_session(request)
        with pytest.raises(web.HTTPInternalServerError):
            await get_session(request)
        return web.Response(text=str(found))

    client = await connect(both, storage=faulty, forgets=True)
    faulty.fail()

    response = await client.get("/both", headers=signed("apple"))

    assert await response.text() == "None"
    assert faulty.calls == ["load"]


async def test_a_retry_that_succeeds_is_all_that_the_request_notices(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    await keep(storage, "apple", fruit="apple")
    client = await connect(show, storage=faulty, retries=2, touch_after=60, forgets=True)
    faulty.fail(times=2)

    response = await client.get("/show", headers=signed("apple"))

    assert (await response.json())["data"] == {"fruit": "apple"}
    assert faulty.calls == ["load", "load", "load", "touch"]


async def test_the_strategy_is_asked_from_1_to_retries_and_never_before_the_first_try(
    connect: Connect, faulty: FaultyStorage
) -> None:
    strategy = Strategy()
    client = await connect(kind, storage=faulty, retries=3, retries_strategy=strategy, forgets=True)
    strategy.forget()
    faulty.fail()

    await client.get("/kind", headers=signed("apple"))

    assert strategy.asked == [1, 2, 3]


async def test_the_strategy_is_not_asked_where_the_storage_answers(
    connect: Connect, storage: Storage
) -> None:
    strategy = Strategy()
    await keep(storage, "apple")
    client = await connect(views, retries=3, retries_strategy=strategy, forgets=True)
    strategy.forget()

    await client.get("/views", headers=signed("apple"))

    assert strategy.asked == []


async def test_the_strategys_seconds_are_waited(connect: Connect, faulty: FaultyStorage) -> None:
    strategy = Strategy(0.1)
    client = await connect(kind, storage=faulty, retries=2, retries_strategy=strategy, forgets=True)
    strategy.forget()
    faulty.fail()
    loop = asyncio.get_running_loop()
    started = loop.time()

    await client.get("/kind", headers=signed("apple"))

    assert 0.2 <= loop.time() - started < 5


async def test_a_strategy_that_later_returns_no_seconds_is_a_clear_error(
    connect: Connect, faulty: FaultyStorage, caplog: pytest.LogCaptureFixture
) -> None:
    client = await connect(
        kind, storage=faulty, retries=2, retries_strategy=lambda retry: 1 - retry, forgets=True
    )
    faulty.fail()

    response = await client.get("/kind", headers=signed("apple"))

    assert response.status == 500
    assert f"{OptionsError.__name__}: retries_strategy(2)=-1" in caplog.text


@pytest.mark.parametrize("retries", [None, 0, 2])
async def test_without_a_cookie_the_handler_runs_with_a_session_all_the_same(
    connect: Connect, faulty: FaultyStorage, retries: int | None
) -> None:
    client = await connect(kind, storage=faulty, retries=retries)
    faulty.fail()

    response = await client.get("/kind")

    assert await response.text() == "Session"
    assert faulty.calls == []


@pytest.mark.parametrize("retries", [None, 0, 2])
async def test_an_error_that_is_no_outage_is_not_tried_again(
    connect: Connect, faulty: FaultyStorage, retries: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    client = await connect(kind, storage=faulty, retries=retries, forgets=True)
    faulty.fail(StorageError("a wrong password"))

    response = await client.get("/kind", headers=signed("apple"))

    assert response.status == 500
    assert faulty.calls == ["load"]
    assert "a wrong password" in caplog.text


@pytest.mark.parametrize(("retries", "status", "calls"), [(None, 200, 1), (0, 500, 1), (1, 500, 2)])
async def test_a_storage_that_hangs_is_given_up_after_the_timeout(
    connect: Connect, faulty: FaultyStorage, retries: int | None, status: int, calls: int
) -> None:
    client = await connect(kind, storage=faulty, retries=retries, timeout=0.05, forgets=True)
    faulty.hang()

    async with asyncio.timeout(5):
        response = await client.get("/kind", headers=signed("apple"))

    assert response.status == status
    assert faulty.calls == ["load"] * calls


# Saving.


@pytest.mark.parametrize("cookie", [CookieOptions(), CookieOptions(max_age=60)], ids=str)
@pytest.mark.parametrize("retries", [None, 0, 2])
async def test_a_new_session_that_cannot_be_saved_is_a_500_without_a_cookie(
    connect: Connect, faulty: FaultyStorage, retries: int | None, cookie: CookieOptions
) -> None:
    client = await connect(put, storage=faulty, retries=retries, cookie=cookie)
    faulty.fail()

    response = await client.get("/put?n=1")

    assert response.status == 500
    assert cookies_set(response) == []
    assert faulty.calls == ["create"] * (1 + (retries or 0))


@pytest.mark.parametrize("options", [{}, {"cookie": CookieOptions(max_age=60)}, {"rolling": True}])
@pytest.mark.parametrize("retries", [None, 0])
async def test_a_known_session_that_cannot_be_saved_is_a_500_without_a_cookie(
    connect: Connect,
    storage: Storage,
    faulty: FaultyStorage,
    retries: int | None,
    options: dict[str, Any],
) -> None:
    await keep(storage, "apple", n=0)
    client = await connect(put, storage=faulty, retries=retries, forgets=True, **options)
    faulty.fail(verbs=("replace", "touch"))

    response = await client.get("/put?n=1", headers=signed("apple"))

    assert response.status == 500
    assert cookies_set(response) == []
    assert await kept(storage, "apple") == {"n": 0}


@pytest.mark.parametrize("retries", [None, 0])
async def test_a_handler_to_which_save_said_that_it_failed_gives_its_own_answer(
    connect: Connect, storage: Storage, faulty: FaultyStorage, retries: int | None
) -> None:
    async def polite(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["n"] = 1
        try:
            await session.save()
        except StorageUnavailable:
            return web.Response(status=503, text="come back later")
        return web.Response()

    await keep(storage, "apple", n=0)
    client = await connect(polite, storage=faulty, retries=retries, forgets=True)
    faulty.fail(verbs=("replace",))

    response = await client.get("/polite", headers=signed("apple"))

    assert (response.status, await response.text()) == (503, "come back later")


@pytest.mark.parametrize("retries", [None, 0])
async def test_after_a_save_that_succeeded_a_later_one_that_fails_is_a_500_again(
    connect: Connect, storage: Storage, faulty: FaultyStorage, retries: int | None
) -> None:
    async def thrice(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["n"] = 1
        faulty.fail(verbs=("replace",))
        with pytest.raises(StorageUnavailable):
            await session.save()
        faulty.recover()
        await session.save()
        session["n"] = 2
        faulty.fail(verbs=("replace",))
        return web.Response()

    await keep(storage, "apple", n=0)
    client = await connect(thrice, storage=faulty, retries=retries, forgets=True)

    response = await client.get("/thrice", headers=signed("apple"))

    assert response.status == 500
    assert await kept(storage, "apple") == {"n": 1}


async def test_with_retries_a_redirect_whose_session_cannot_be_saved_is_a_500(
    connect: Connect, faulty: FaultyStorage
) -> None:
    async def redirect(request: web.Request) -> web.Response:
        (await session_of(request))["flash"] = "hello"
        raise web.HTTPFound("/elsewhere")

    client = await connect(redirect, storage=faulty, retries=0)
    faulty.fail()

    response = await client.get("/redirect", allow_redirects=False)

    assert response.status == 500
    assert faulty.calls == ["create"]


@pytest.mark.parametrize("lose_answer", [False, True], ids=["refused", "answer lost"])
async def test_a_save_that_succeeds_at_the_second_try_is_kept_once(
    connect: Connect, faulty: FaultyStorage, *, lose_answer: bool
) -> None:
    client = await connect(views, storage=faulty, retries=1)

    faulty.fail(times=1, verbs=("create",), lose_answer=lose_answer)
    first = await (await client.get("/views")).json()
    faulty.fail(times=1, verbs=("replace",), lose_answer=lose_answer)
    second = await (await client.get("/views")).json()
    third = await (await client.get("/views")).json()

    assert [first, second, third] == [1, 2, 3]


async def test_without_retries_a_touch_that_fails_leaves_the_response_alone(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    await keep(storage, "apple", n=1)
    client = await connect(show, storage=faulty, forgets=True)
    faulty.fail(verbs=("touch",))

    response = await client.get("/show", headers=signed("apple"))

    assert (await response.json())["data"] == {"n": 1}


async def test_destroy_raises_so_that_nobody_believes_in_a_logout_that_was_none(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    async def logout(request: web.Request) -> web.Response:
        session = await session_of(request)
        with pytest.raises(StorageUnavailable):
            await session.destroy()
        return web.json_response(dict(session))

    await keep(storage, "apple", n=1)
    client = await connect(logout, storage=faulty, forgets=True)
    faulty.fail(verbs=("replace", "delete"))

    response = await client.get("/logout", headers=signed("apple"))

    assert await response.json() == {"n": 1}
    assert await kept(storage, "apple") == {"n": 1}
    assert cookies_set(response) == []


async def test_a_session_is_over_before_its_record_is_deleted(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    async def logout(request: web.Request) -> web.Response:
        await (await session_of(request)).destroy()
        return web.Response()

    await keep(storage, "apple", n=1)
    client = await connect(logout, show, storage=faulty, forgets=True)
    faulty.fail(verbs=("delete",))

    response = await client.get("/logout", headers=signed("apple"))
    after = await client.get("/show", headers=signed("apple"))

    assert cookies_set(response)[0].startswith("sid=;")
    assert (await after.json())["data"] == {}


# Waiting.


@pytest.fixture
async def waiting(
    make_options: MakeOptions, faulty: FaultyStorage, aiohttp_client: AiohttpClient
) -> AsyncIterator[tuple[Client, Strategy, asyncio.Task[Any], list[BaseException]]]:
    """A client, one of whose requests waits for its first retry."""
    ended: list[BaseException] = []

    @web.middleware
    async def note_end(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except BaseException as error:
            ended.append(error)
            raise

    strategy = Strategy(LONG)
    app = web.Application(middlewares=[note_end])
    setup(app, make_options(storage=faulty, retries=5, retries_strategy=strategy))
    app.router.add_get("/kind", kind)
    client = await aiohttp_client(app)
    strategy.forget()
    faulty.fail()
    task = asyncio.create_task(client.get("/kind", headers=signed("apple")))
    await strategy.was_asked.wait()
    yield client, strategy, task, ended
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


Waiting = tuple[Client, Strategy, asyncio.Task[Any], list[BaseException]]


async def test_waiting_for_a_retry_does_not_hold_up_other_requests(
    waiting: Waiting, faulty: FaultyStorage
) -> None:
    client, _, task, _ = waiting
    faulty.recover()

    async with asyncio.timeout(5):
        responses = await asyncio.gather(*(client.get("/kind") for _ in range(20)))

    assert {response.status for response in responses} == {200}
    assert not task.done()


async def test_a_cancelled_request_stops_retrying(waiting: Waiting, faulty: FaultyStorage) -> None:
    client, strategy, task, ended = waiting

    task.cancel()
    async with asyncio.timeout(5):
        while not ended:
            await client.get("/kind")

    assert isinstance(ended[0], asyncio.CancelledError)
    assert strategy.asked == [1]
    assert faulty.calls == ["load"]


# A real Redis that goes away.


@pytest.fixture
async def redis_client(
    own_redis_server: RedisServer, aiohttp_client: AiohttpClient, request: pytest.FixtureRequest
) -> Client:
    """A client of an application on a Redis of its own; the parameter is ``retries``."""
    storage = RedisStorage.from_url(own_redis_server.url)
    app = web.Application()
    setup(
        app,
        SessionOptions(secret=SECRET, storage=storage, retries=request.param, timeout=0.5),
    )
    app.router.add_get("/put", put)
    app.router.add_get("/kind", kind)
    app.router.add_get("/views", views)
    return await aiohttp_client(app)


@pytest.mark.parametrize("redis_client", [None], indirect=True)
async def test_a_stopped_redis_leaves_the_handler_without_a_session(
    redis_client: Client, own_redis_server: RedisServer
) -> None:
    await redis_client.get("/views")
    own_redis_server.stop()

    response = await redis_client.get("/kind")

    assert await response.text() == "NoneType"


@pytest.mark.parametrize("redis_client", [0, 1], indirect=True)
async def test_a_stopped_redis_is_a_500_where_retries_are_set(
    redis_client: Client, own_redis_server: RedisServer
) -> None:
    await redis_client.get("/views")
    own_redis_server.stop()

    response = await redis_client.get("/kind")

    assert response.status == 500


@pytest.mark.parametrize("redis_client", [None], indirect=True)
async def test_a_stopped_redis_sets_no_cookie_for_a_new_session(
    redis_client: Client, own_redis_server: RedisServer
) -> None:
    own_redis_server.stop()

    response = await redis_client.get("/put?n=1")

    assert response.status == 500
    assert cookies_set(response) == []


@pytest.mark.parametrize("redis_client", [None, 0], indirect=True)
async def test_a_redis_that_was_started_again_serves_sessions_at_once(
    redis_client: Client, own_redis_server: RedisServer
) -> None:
    await redis_client.get("/views")
    own_redis_server.stop()
    await redis_client.get("/views")
    own_redis_server.start()

    counts = [await (await redis_client.get("/views")).json() for _ in range(2)]

    assert counts == [1, 2]


@pytest.mark.parametrize("redis_client", [None], indirect=True)
async def test_a_paused_redis_holds_a_request_up_for_the_timeout_only(
    redis_client: Client, own_redis_server: RedisServer
) -> None:
    await redis_client.get("/views")
    own_redis_server.pause()

    async with asyncio.timeout(5):
        response = await redis_client.get("/kind")

    assert await response.text() == "NoneType"


@pytest.mark.parametrize("redis_client", [None], indirect=True)
async def test_after_a_pause_no_answer_is_taken_for_that_of_another_call(
    redis_client: Client, own_redis_server: RedisServer
) -> None:
    first = await (await redis_client.get("/views")).json()
    own_redis_server.pause()
    await redis_client.get("/kind")
    own_redis_server.resume()

    counts = [await (await redis_client.get("/views")).json() for _ in range(3)]

    assert [first, *counts] == [1, 2, 3, 4]


async def test_an_application_starts_while_its_redis_is_away(
    own_redis_server: RedisServer,
) -> None:
    own_redis_server.stop()
    app = web.Application()
    setup(app, SessionOptions(secret=SECRET, storage=RedisStorage.from_url(own_redis_server.url)))

    await start(app)

    assert app.frozen
