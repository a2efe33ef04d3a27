"""Options that are known only at start-up: imports, inject, use_factory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web
from pytest_aiohttp import AiohttpClient

from aiosess import OptionsError, SessionOptions, Storage, setup_async
from aiosess.testing import FaultyStorage
from tests.conftest import SECRET, MakeOptions
from tests.web.handlers import kind, start, views


@dataclass(frozen=True)
class Config:
    secret: str
    name: str


CONFIG = web.AppKey("config", Config)
STORAGE = web.AppKey("storage", FaultyStorage)
LOG = web.AppKey("log", list[str])


@pytest.fixture
def app() -> web.Application:
    app = web.Application()
    app[LOG] = []
    app.router.add_get("/views", views, name="views")
    app.router.add_get("/kind", kind, name="kind")
    return app


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_the_factory_makes_the_options(
    app: web.Application,
    aiohttp_client: AiohttpClient,
    make_options: MakeOptions,
    *,
    is_async: bool,
) -> None:
    async def later() -> SessionOptions:
        await asyncio.sleep(0)
        return make_options(name="made")

    setup_async(app, use_factory=later if is_async else lambda: make_options(name="made"))
    client = await aiohttp_client(app)

    responses = [await client.get("/views") for _ in range(2)]

    assert [await response.json() for response in responses] == [1, 2]
    assert list(responses[0].cookies) == ["made"]


async def test_imports_run_first_and_their_values_are_injected_in_order(
    app: web.Application, aiohttp_client: AiohttpClient, storage: Storage
) -> None:
    async def provide_storage(app: web.Application) -> AsyncIterator[None]:
        app[LOG].append("storage opened")
        app[STORAGE] = FaultyStorage(storage)
        yield
        app[LOG].append("storage closed")

    async def provide_config(app: web.Application) -> AsyncIterator[None]:
        app[LOG].append("config read")
        app[CONFIG] = Config(SECRET, "injected")
        yield

    def make(config: Config, storage: FaultyStorage) -> SessionOptions:
        app[LOG].append("options made")
        return SessionOptions(secret=config.secret, name=config.name, storage=storage)

    setup_async(
        app,
        use_factory=make,
        inject=[CONFIG, STORAGE],
        imports=[provide_storage, provide_config],
    )
    client = await aiohttp_client(app)

    response = await client.get("/views")
    await client.close()

    assert list(response.cookies) == ["injected"]
    assert app[LOG] == ["storage opened", "config read", "options made", "storage closed"]


async def test_the_factory_is_called_once(
    app: web.Application, aiohttp_client: AiohttpClient, make_options: MakeOptions
) -> None:
    calls: list[str] = []

    def make() -> SessionOptions:
        calls.append("made")
        return make_options()

    setup_async(app, use_factory=make)
    client = await aiohttp_client(app)

    [await client.get("/views") for _ in range(3)]

    assert calls == ["made"]


async def test_routes_are_part_of_the_options(
    app: web.Application, aiohttp_client: AiohttpClient, make_options: MakeOptions
) -> None:
    setup_async(app, use_factory=lambda: make_options(for_routes=["views"]))
    client = await aiohttp_client(app)

    count = await (await client.get("/views")).json()
    other = await (await client.get("/kind")).text()

    assert (count, other) == (1, "NoneType")


async def test_a_failing_factory_stops_the_start(app: web.Application) -> None:
    async def fail() -> SessionOptions:
        raise ConnectionError("no configuration server")

    setup_async(app, use_factory=fail)

    with pytest.raises(ConnectionError, match="no configuration server"):
        await start(app)


async def test_a_failing_import_stops_the_start_before_the_factory_is_called(
    app: web.Application, make_options: MakeOptions
) -> None:
    async def fail(_app: web.Application) -> AsyncIterator[None]:
        raise ConnectionError("no server")
        yield

    def make() -> SessionOptions:
        app[LOG].append("made")
        return make_options()

    setup_async(app, use_factory=make, imports=[fail])

    with pytest.raises(ConnectionError, match="no server"):
        await start(app)
    assert app[LOG] == []


async def test_an_unknown_route_in_the_made_options_stops_the_start(
    app: web.Application, make_options: MakeOptions
) -> None:
    setup_async(app, use_factory=lambda: make_options(exclude=["veiws"]))

    with pytest.raises(OptionsError, match="exclude has 'veiws'"):
        await start(app)


async def test_a_key_that_the_application_does_not_hold_is_a_clear_error(
    app: web.Application,
) -> None:
    setup_async(app, use_factory=lambda config: config, inject=[CONFIG])

    with pytest.raises(OptionsError, match=r"inject has .*config.*set it before start-up"):
        await start(app)


@pytest.mark.parametrize("made", [None, {"secret": SECRET}, SECRET], ids=["None", "dict", "str"])
async def test_a_factory_that_returns_no_options_is_a_clear_error(
    app: web.Application, made: Any
) -> None:
    setup_async(app, use_factory=lambda: made)

    with pytest.raises(OptionsError, match="must be SessionOptions") as caught:
        await start(app)

    assert SECRET not in str(caught.value)


async def test_a_factory_that_cannot_be_called_is_refused_at_once(app: web.Application) -> None:
    not_callable: Any = SessionOptions(secret=SECRET)

    with pytest.raises(OptionsError, match="is not callable"):
        setup_async(app, use_factory=not_callable)


@pytest.mark.parametrize(
    ("option", "given"), [("inject", CONFIG), ("inject", "config"), ("imports", start)]
)
def test_one_in_the_place_of_a_list_is_refused_at_once(
    app: web.Application, option: str, given: Any
) -> None:
    arguments: dict[str, Any] = {option: given}

    with pytest.raises(OptionsError, match=f"{option}=.* must be a list"):
        setup_async(app, use_factory=lambda: SessionOptions(secret=SECRET), **arguments)


async def test_a_sub_application_can_be_set_up_so(
    aiohttp_client: AiohttpClient, make_options: MakeOptions
) -> None:
    parent, app = web.Application(), web.Application()
    app.router.add_get("/views", views)
    app[CONFIG] = Config(SECRET, "injected")
    setup_async(app, use_factory=lambda config: make_options(name=config.name), inject=[CONFIG])
    parent.add_subapp("/sub", app)
    client = await aiohttp_client(parent)

    response = await client.get("/sub/views")

    assert list(response.cookies) == ["injected"]


async def test_a_storage_that_opened_connections_itself_is_closed_with_the_application(
    app: web.Application, make_options: MakeOptions, storage: Storage
) -> None:
    class Closing(FaultyStorage):
        async def close(self) -> None:
            app[LOG].append("closed")

    setup_async(app, use_factory=lambda: make_options(storage=Closing(storage)))

    await start(app)

    assert app[LOG] == ["closed"]
