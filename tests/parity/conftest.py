"""One handler at every path, over each storage, with what it was asked written down."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Protocol

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from aiohttp.typedefs import Handler, Middleware
from pytest_aiohttp import AiohttpClient

from aiosess import Storage, session_middleware, setup
from aiosess.testing import FakeClock, FaultyStorage
from tests.conftest import MakeOptions

Client = TestClient[web.Request, web.Application]


@pytest.fixture
def watched(storage: Storage) -> FaultyStorage:
    """The storage of the test, which notes its calls and fails when told to."""
    return FaultyStorage(storage)


@pytest.fixture
def session_clock() -> FakeClock:
    """The clock of the sessions, to be moved; the storages keep their own."""
    return FakeClock(float(int(time.time())))


@pytest.fixture
def clock_options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The option for the sessions' clock, where the test asks for one that it can move."""
    if "session_clock" not in request.fixturenames:
        return {}
    return {"clock": request.getfixturevalue("session_clock")}


class Serve(Protocol):
    """Serve *handler* at every path, with these options, *before* running before the sessions."""

    async def __call__(
        self, handler: Handler, *, before: Middleware | None = None, **options: Any
    ) -> Client: ...


@pytest.fixture
def serve(
    watched: FaultyStorage,
    make_options: MakeOptions,
    aiohttp_client: AiohttpClient,
    clock_options: dict[str, Any],
) -> Serve:
    async def run(handler: Handler, *, before: Middleware | None = None, **options: Any) -> Client:
        app = web.Application(middlewares=[] if before is None else [before])
        setup(app, make_options(**{"storage": watched, **clock_options, **options}))
        app.router.add_route("*", "/{path:.*}", handler)
        client: Client = await aiohttp_client(app)
        return client

    return run


class Mount(Protocol):
    """Serve *handler* at every path below /foo, as a sub-application with its own sessions."""

    async def __call__(self, handler: Handler, **options: Any) -> Client: ...


@pytest.fixture
def mount(
    watched: FaultyStorage, make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> Mount:
    async def run(handler: Handler, **options: Any) -> Client:
        inner = web.Application()
        inner.middlewares.append(session_middleware(make_options(storage=watched, **options)))
        inner.router.add_route("*", "/{path:.*}", handler)
        app = web.Application()
        app.add_subapp("/foo", inner)
        client: Client = await aiohttp_client(app)
        return client

    return run


class Gone(Protocol):
    """Wait until the record under *session_id* has expired."""

    async def __call__(self, session_id: str) -> None: ...


@pytest.fixture
def gone(storage: Storage) -> Gone:
    async def wait(session_id: str) -> None:
        async with asyncio.timeout(5):
            # Expiry is the back-end's: there is nothing to wait on but the record itself.
            while await storage.load(session_id) is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    return wait
