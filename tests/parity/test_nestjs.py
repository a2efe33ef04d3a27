"""Cases N1 to N8 and M1 to M5: nestjs-session and create-nestjs-middleware-module."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from pytest_aiohttp import AiohttpClient

from aiosess import Route, SessionOptions, get_session, session_middleware, setup, setup_async
from aiosess.testing import FaultyStorage
from tests.conftest import SECRET, MakeOptions
from tests.parity.helpers import sent_cookie
from tests.parity.marks import parity

OPTIONS = web.AppKey("OPTIONS", SessionOptions)
OTHER = web.AppKey("OTHER", str)


class Views:
    """The controller of those tests: it counts views, and how often it was called."""

    def __init__(self) -> None:
        self.calls = 0

    async def views(self, request: web.Request) -> web.Response:
        self.calls += 1
        session = await get_session(request)
        if session is None:
            return web.json_response("undefined")
        session["views"] = session.get("views", 0) + 1
        return web.json_response(session["views"])


@pytest.fixture
def controller() -> Views:
    return Views()


def routed(controller: Views) -> web.Application:
    app = web.Application()
    app.router.add_get("/counted", controller.views, name="counted")
    app.router.add_get("/left-out", controller.views, name="left-out")
    return app


async def twice(client: Any, path: str) -> list[object]:
    return [await (await client.get(path)).json() for _ in range(2)]


@parity("N1", "M2")
async def test_options_given_at_once_count_views(
    controller: Views, make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    app = routed(controller)
    app.middlewares.append(session_middleware(make_options(name="given")))
    client = await aiohttp_client(app)

    response = await client.get("/counted")

    assert sent_cookie(response, "given") is not None
    assert await (await client.get("/counted")).json() == 2


@parity("N2", "M3")
async def test_options_from_a_factory_count_views(
    controller: Views, make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    async def provide(app: web.Application) -> AsyncIterator[None]:
        app[OPTIONS] = make_options(name="made")
        app[OTHER] = "other"
        yield

    async def make(other: str, options: SessionOptions) -> SessionOptions:
        assert other == "other"
        return options

    app = routed(controller)
    setup_async(app, use_factory=make, inject=[OTHER, OPTIONS], imports=[provide])
    client = await aiohttp_client(app)

    response = await client.get("/counted")

    assert sent_cookie(response, "made") is not None
    assert await (await client.get("/counted")).json() == 2


@pytest.fixture
def watched(storage: Any) -> FaultyStorage:
    return FaultyStorage(storage)


@parity("N3")
async def test_without_retries_a_storage_that_is_away_means_no_session(
    controller: Views,
    make_options: MakeOptions,
    watched: FaultyStorage,
    aiohttp_client: AiohttpClient,
) -> None:
    app = routed(controller)
    setup(app, make_options(storage=watched))
    client = await aiohttp_client(app)
    await client.get("/counted")
    watched.fail()

    response = await client.get("/counted")

    assert (response.status, await response.json()) == (200, "undefined")


@parity(
    "N4",
    differs="a browser without a cookie needs no answer from the storage and reaches the handler; "
    "it gets its 500 only if the handler wants something saved",
)
async def test_with_no_retries_left_a_known_browser_gets_500_and_no_handler(
    controller: Views,
    make_options: MakeOptions,
    watched: FaultyStorage,
    aiohttp_client: AiohttpClient,
) -> None:
    app = routed(controller)
    setup(app, make_options(storage=watched, retries=0))
    client = await aiohttp_client(app)
    await client.get("/counted")
    watched.fail()

    known = await client.get("/counted")
    calls = controller.calls
    client.session.cookie_jar.clear()
    unknown = await client.get("/counted")

    assert (known.status, calls) == (500, 1)
    assert (unknown.status, controller.calls) == (500, 2)


@parity("N5")
async def test_with_one_retry_a_storage_that_comes_back_in_time_is_enough(
    controller: Views,
    make_options: MakeOptions,
    watched: FaultyStorage,
    aiohttp_client: AiohttpClient,
) -> None:
    waited: list[int] = []

    def come_back(retry: int) -> float:
        waited.append(retry)
        watched.recover()
        return 0

    app = routed(controller)
    setup(app, make_options(storage=watched, retries=1, retries_strategy=come_back))
    client = await aiohttp_client(app)
    await client.get("/counted")
    watched.fail()

    response = await client.get("/counted")

    assert (response.status, await response.json()) == (200, 2)
    assert waited == [1]


@parity("N6")
async def test_a_storage_that_fails_to_read_refuses_only_known_browsers(
    controller: Views,
    make_options: MakeOptions,
    watched: FaultyStorage,
    aiohttp_client: AiohttpClient,
) -> None:
    app = routed(controller)
    setup(app, make_options(storage=watched, retries=0))
    client = await aiohttp_client(app)
    watched.fail(verbs=("load",))

    statuses = [(await client.get("/counted")).status for _ in range(2)]

    assert (statuses, controller.calls) == ([200, 500], 1)


@parity("N7")
@pytest.mark.parametrize("route", ["counted", "/counted", Route("/counted")])
async def test_for_routes_leaves_the_others_without_a_session(
    controller: Views, make_options: MakeOptions, aiohttp_client: AiohttpClient, route: Any
) -> None:
    app = routed(controller)
    setup(app, make_options(for_routes=[route]))
    client = await aiohttp_client(app)

    without = await client.get("/left-out")

    assert (await without.json(), sent_cookie(without)) == ("undefined", None)
    assert await twice(client, "/counted") == [1, 2]


@parity("N8")
async def test_exclude_wins_over_for_routes(
    controller: Views, make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    app = routed(controller)
    setup(app, make_options(for_routes=[controller.views], exclude=["left-out"]))
    client = await aiohttp_client(app)

    assert await twice(client, "/counted") == [1, 2]
    assert await twice(client, "/left-out") == ["undefined", "undefined"]


@parity(
    "M1",
    differs="there is nothing to build without a secret; a secret alone is enough",
)
def test_options_are_needed_and_a_secret_is_enough() -> None:
    with pytest.raises(TypeError, match="options"):
        session_middleware()  # type: ignore[call-arg]
    assert callable(session_middleware(SessionOptions(secret=SECRET)))


@parity(
    "M4",
    differs="one call gives one middleware: `app.middlewares` is a list already, and runs in order",
)
async def test_several_middlewares_run_once_each_in_the_order_of_the_list(
    controller: Views, make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    app = routed(controller)
    app.middlewares.extend(
        session_middleware(make_options(name=name, for_routes=[route]))
        for name, route in [("first", "counted"), ("second", "left-out")]
    )
    client = await aiohttp_client(app)

    counted, left_out = await client.get("/counted"), await client.get("/left-out")

    names = ("first", "second")
    assert [sent_cookie(counted, name) is not None for name in names] == [True, False]
    assert [sent_cookie(left_out, name) is not None for name in names] == [False, True]


@parity(
    "M5",
    differs="the routing options stand among the others, in one SessionOptions",
)
async def test_routing_by_controller_and_path_runs_the_middleware_for_the_allowed_only(
    controller: Views,
    make_options: MakeOptions,
    watched: FaultyStorage,
    aiohttp_client: AiohttpClient,
) -> None:
    app = web.Application()
    app.router.add_get("/allow", controller.views)
    app.router.add_get("/forbid", controller.views)
    options = make_options(storage=watched, for_routes=[controller.views], exclude=["/forbid"])
    setup(app, options)
    client = await aiohttp_client(app)

    allowed, forbidden = await client.get("/allow"), await client.get("/forbid")

    assert [await each.json() for each in (allowed, forbidden)] == [1, "undefined"]
    assert watched.calls == ["create"]
