"""What nestjs-session and its middleware module promise, and where aiosess means to differ."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler
from pytest_aiohttp import AiohttpClient

from aiosess import (
    CookieOptions,
    SessionOptions,
    Storage,
    find_session,
    get_session,
    session_middleware,
    setup,
    setup_async,
)
from aiosess.testing import FaultyStorage
from tests.conftest import SECRET, MakeOptions
from tests.web.conftest import Connect
from tests.web.handlers import cookies_set, keep, kept, kind, signed, views


@pytest.fixture
def app() -> web.Application:
    app = web.Application()
    app.router.add_get("/views", views, name="views")
    return app


async def test_n1_for_root_counts_views(
    app: web.Application, make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    setup(app, make_options())
    client = await aiohttp_client(app)

    counts = [await (await client.get("/views")).json() for _ in range(2)]

    assert counts == [1, 2]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_n2_for_root_async_counts_views(
    app: web.Application,
    make_options: MakeOptions,
    aiohttp_client: AiohttpClient,
    *,
    is_async: bool,
) -> None:
    def factory() -> SessionOptions:
        return make_options()

    async def factory_async() -> SessionOptions:
        return make_options()

    setup_async(app, use_factory=factory_async if is_async else factory)
    client = await aiohttp_client(app)

    counts = [await (await client.get("/views")).json() for _ in range(2)]

    assert counts == [1, 2]


async def test_n3_the_session_is_absent_while_the_storage_is_away(
    connect: Connect, faulty: FaultyStorage
) -> None:
    client = await connect(kind, storage=faulty, forgets=True)
    faulty.fail()

    response = await client.get("/kind", headers=signed("apple"))

    assert response.status == 200
    assert await response.text() == "NoneType"


async def test_n3_where_a_handler_needs_its_session_the_outage_is_a_500(
    connect: Connect, faulty: FaultyStorage
) -> None:
    """In NestJS such a handler fails on ``undefined``, which is a 500 as well."""
    client = await connect(views, storage=faulty, forgets=True)
    faulty.fail()

    response = await client.get("/views", headers=signed("apple"))

    assert response.status == 500


async def test_n3_differs_a_save_that_fails_is_a_500(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    """NestJS answers 200 and logs it: the headers may have left before the session is saved."""
    await keep(storage, "apple", views=1)
    client = await connect(views, storage=faulty, forgets=True)
    faulty.fail(verbs=("replace",))

    response = await client.get("/views", headers=signed("apple"))

    assert response.status == 500
    assert await kept(storage, "apple") == {"views": 1}


async def test_n3_differs_a_request_without_a_cookie_has_a_session_all_the_same(
    connect: Connect, faulty: FaultyStorage
) -> None:
    """NestJS gives it none; here nothing is asked of the storage before there is what to save."""
    client = await connect(kind, storage=faulty)
    faulty.fail()

    response = await client.get("/kind")

    assert await response.text() == "Session"
    assert faulty.calls == []


async def test_n4_with_retries_0_the_handler_is_not_called_while_the_storage_is_away(
    connect: Connect, faulty: FaultyStorage
) -> None:
    called: list[str] = []

    async def handler(_request: web.Request) -> web.Response:
        called.append("handler")
        return web.Response()

    client = await connect(handler, storage=faulty, retries=0, forgets=True)
    faulty.fail()

    response = await client.get("/handler", headers=signed("apple"))

    assert response.status == 500
    assert called == []


async def test_n4_differs_a_request_without_a_cookie_is_served(
    connect: Connect, faulty: FaultyStorage
) -> None:
    """NestJS refuses it; here it never touches the storage, so that an outage is not its concern.

    Once it has something to save, it is refused as well.
    """
    client = await connect(kind, views, storage=faulty, retries=0)
    faulty.fail()

    reading = await client.get("/kind")
    writing = await client.get("/views")

    assert (reading.status, writing.status) == (200, 500)


async def test_n5_a_storage_that_is_back_for_the_retry_is_enough(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    await keep(storage, "apple", views=1)

    def reconnect(_retry: int) -> float:
        faulty.recover()
        return 0

    client = await connect(
        views, storage=faulty, retries=1, retries_strategy=reconnect, forgets=True
    )
    faulty.fail()

    response = await client.get("/views", headers=signed("apple"))

    assert response.status == 200
    assert await response.json() == 2


async def test_n6_with_retries_0_an_error_in_the_storage_refuses_known_browsers_only(
    connect: Connect, faulty: FaultyStorage
) -> None:
    called: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        called.append("handler")
        return await views(request)

    client = await connect(handler, storage=faulty, retries=0)
    faulty.fail(verbs=("load",))

    statuses = [(await client.get("/handler")).status for _ in range(2)]

    assert statuses == [200, 500]
    assert called == ["handler"]


async def with_session(request: web.Request) -> web.Response:
    return await views(request)


async def without_session(request: web.Request) -> web.Response:
    if await find_session(request) is None:
        return web.json_response(1)
    return await views(request)


async def test_n7_for_routes(connect: Connect) -> None:
    client = await connect(with_session, without_session, for_routes=["/with_session"])

    inside = [await (await client.get("/with_session")).json() for _ in range(2)]
    outside = [await client.get("/without_session") for _ in range(2)]

    assert inside == [1, 2]
    assert [await response.json() for response in outside] == [1, 1]
    assert [cookies_set(response) for response in outside] == [[], []]


async def test_n8_exclude(connect: Connect) -> None:
    routes: dict[str, Any] = {
        "for_routes": [with_session, without_session],
        "exclude": ["/without_session"],
    }
    client = await connect(with_session, without_session, **routes)

    inside = [await (await client.get("/with_session")).json() for _ in range(2)]
    outside = [await (await client.get("/without_session")).json() for _ in range(2)]

    assert inside == [1, 2]
    assert outside == [1, 1]


# Beyond nestjs-session.


@pytest.mark.parametrize("retries", [0, 1, 4])
async def test_the_strategy_is_called_with_1_to_retries_and_there_is_one_try_more(
    connect: Connect, faulty: FaultyStorage, retries: int
) -> None:
    asked: list[int] = []

    def strategy(retry: int) -> float:
        asked.append(retry)
        return 0

    client = await connect(
        kind, storage=faulty, retries=retries, retries_strategy=strategy, forgets=True
    )
    # What it was tried with when the options were built.
    asked.clear()
    faulty.fail()

    await client.get("/kind", headers=signed("apple"))

    assert asked == list(range(1, retries + 1))
    assert len(faulty.calls) == retries + 1


async def test_loading_is_tried_again_too(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    """nestjs-session tries again only while the store says that it is disconnected."""
    await keep(storage, "apple", views=1)
    client = await connect(views, storage=faulty, retries=1, forgets=True)
    faulty.fail(times=1, verbs=("load",))

    response = await client.get("/views", headers=signed("apple"))

    assert await response.json() == 2


async def test_a_path_that_the_cookie_does_not_reach_is_no_outage(
    connect: Connect, faulty: FaultyStorage
) -> None:
    """nestjs-session answers 500: it takes the missing session for a store that is away."""
    client = await connect(kind, storage=faulty, retries=0, cookie=CookieOptions(path="/other"))

    response = await client.get("/kind")

    assert response.status == 200
    assert await response.text() == "NoneType"


# The module on which nestjs-session stands.


def test_m1_without_options_there_is_a_clear_error_and_no_secret_is_made_up() -> None:
    """NestJS calls the middleware with ``{}``; a session whose secret nobody chose is no use."""
    factory: Any = SessionOptions

    with pytest.raises(TypeError, match="secret"):
        factory()


async def test_m2_the_options_that_are_given_are_those_that_are_used(
    app: web.Application, storage: Storage, aiohttp_client: AiohttpClient
) -> None:
    options = SessionOptions(
        secret=SECRET,
        storage=storage,
        name="given",
        genid=lambda _request: "chosen",
        cookie=CookieOptions(path="/views", httponly=False, samesite="strict"),
    )
    setup(app, options)
    client = await aiohttp_client(app)

    response = await client.get("/views")

    header = cookies_set(response)[0]
    assert header.startswith("given=s%3Achosen.")
    assert header.endswith("; Path=/views; SameSite=Strict")
    assert await storage.load("chosen") is not None


async def test_m3_the_options_that_the_factory_returns_are_those_that_are_used(
    app: web.Application, make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    async def factory() -> SessionOptions:
        return make_options(name="made", genid=lambda _request: "chosen")

    setup_async(app, use_factory=factory)
    client = await aiohttp_client(app)

    response = await client.get("/views")

    assert cookies_set(response)[0].startswith("made=s%3Achosen.")


async def test_m4_middlewares_run_once_for_each_request_and_in_order(
    make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    """NestJS takes a list of middlewares; here the application's own list is that list."""
    ran: list[str] = []

    @web.middleware
    async def outside(request: web.Request, handler: Handler) -> web.StreamResponse:
        with pytest.raises(RuntimeError):
            await get_session(request)
        ran.append("outside")
        return await handler(request)

    @web.middleware
    async def inside(request: web.Request, handler: Handler) -> web.StreamResponse:
        ran.append(type(await get_session(request)).__name__)
        return await handler(request)

    app = web.Application(middlewares=[outside, session_middleware(make_options()), inside])
    app.router.add_get("/views", views)
    client = await aiohttp_client(app)

    response = await client.get("/views")

    assert await response.json() == 1
    assert ran == ["outside", "Session"]


async def test_m5_routing_is_decided_by_the_options_and_the_rest_of_them_is_unchanged(
    connect: Connect, faulty: FaultyStorage
) -> None:
    async def allow(request: web.Request) -> web.Response:
        return await kind(request)

    async def forbid(request: web.Request) -> web.Response:
        return await kind(request)

    routes: dict[str, Any] = {"for_routes": [allow, forbid], "exclude": ["/forbid"]}
    client = await connect(allow, forbid, storage=faulty, name="named", load="eager", **routes)

    headers = {"Cookie": signed("apple")["Cookie"].replace("sid=", "named=")}
    kinds = [
        await (await client.get(path, headers=headers)).text() for path in ("/allow", "/forbid")
    ]

    assert kinds == ["Session", "NoneType"]
    assert faulty.calls == ["load"]
