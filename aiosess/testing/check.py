"""The check of the pytest plugin by itself: ``python -m pytest --pyargs aiosess.testing.check``.

Nothing is needed beside pytest and aiosess as they were installed; no other plugin, no server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request

from aiosess import MemoryStorage, SessionOptions, get_session, setup
from aiosess.testing import FakeClock, Harness, LogIn, SessionOf, put_session
from aiosess.testing.pytest import storage_contract

__all__ = [
    "test_a_client_is_logged_in",
    "test_a_handler_alone_finds_the_session_that_was_put_into_its_request",
    "test_a_login_ends_when_its_time_has_passed",
    "test_a_memory_fulfils_the_contract",
    "test_the_session_of_a_client_is_set_and_read",
]

_CLOCK = FakeClock()


async def _me(request: web.Request) -> web.Response:
    session = await get_session(request)
    session["views"] = session.get("views", 0) + 1
    return web.Response(text=session.get("user", "nobody"))


@asynccontextmanager
async def _served(**options: Any) -> AsyncGenerator[TestClient[Any, Any]]:
    app = web.Application()
    app.router.add_get("/me", _me)
    setup(app, SessionOptions(secret="a secret of more than 32 bytes, for a check", **options))
    async with TestClient(TestServer(app)) as client:
        yield client


async def _user(client: TestClient[Any, Any]) -> str:
    async with client.get("/me") as response:
        return await response.text()


def test_a_client_is_logged_in(logged_in: LogIn) -> None:
    async def run() -> None:
        async with _served() as client:
            await logged_in(client, user="ann")

            assert await _user(client) == "ann"

    asyncio.run(run())


def test_the_session_of_a_client_is_set_and_read(session_of: SessionOf) -> None:
    async def run() -> None:
        async with _served() as client:
            async with session_of(client) as session:
                session["views"] = 41

            await _user(client)

            async with session_of(client) as session:
                assert dict(session) == {"views": 42}

    asyncio.run(run())


def test_a_login_ends_when_its_time_has_passed(logged_in: LogIn, aiosess_clock: FakeClock) -> None:
    async def run() -> None:
        storage = MemoryStorage(clock=aiosess_clock)
        async with _served(idle_timeout=3600, clock=aiosess_clock, storage=storage) as client:
            await logged_in(client, user="ann")

            aiosess_clock.advance(3601)

            assert await _user(client) == "nobody"

    asyncio.run(run())


def test_a_handler_alone_finds_the_session_that_was_put_into_its_request() -> None:
    request = make_mocked_request("GET", "/me")
    session = put_session(request, {"user": "ann"})

    response = asyncio.run(_me(request))

    assert response.text == "ann"
    assert session["views"] == 1


test_a_memory_fulfils_the_contract: Callable[..., None] = storage_contract(
    Harness(lambda: MemoryStorage(clock=_CLOCK), _CLOCK)
)
