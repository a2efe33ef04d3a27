"""aiohttp_session's own functions, in handlers and in libraries that nobody can change."""

from __future__ import annotations

import subprocess
import sys

import aiohttp_session
import pytest
from aiohttp import web
from pytest_aiohttp import AiohttpClient

import aiosess
from aiosess import SESSION, Session, Storage
from aiosess.testing import FaultyStorage
from tests.conftest import MakeApp
from tests.web.conftest import Connect
from tests.web.handlers import kept, put, session_of, show, views


async def theirs(request: web.Request) -> web.Response:
    """Count the visits by way of aiohttp_session."""
    session = await aiohttp_session.get_session(request)
    session["views"] = session.get("views", 0) + 1
    return web.json_response(session["views"])


@pytest.mark.parametrize("is_outside", [True, False])
async def test_our_sessions_work_beside_the_middleware_of_aiohttp_session(
    make_app: MakeApp, aiohttp_client: AiohttpClient, *, is_outside: bool
) -> None:
    other = aiohttp_session.session_middleware(aiohttp_session.SimpleCookieStorage())
    app = make_app(views)
    app.middlewares.insert(0 if is_outside else 1, other)
    client = await aiohttp_client(app)

    seen = [await (await client.get("/views")).json() for _ in range(3)]

    assert seen == [1, 2, 3]


async def test_get_session_of_aiohttp_session_gives_our_session(connect: Connect) -> None:
    async def compare(request: web.Request) -> web.Response:
        session = await aiohttp_session.get_session(request)
        return web.json_response(
            [type(session) is Session, session is await aiosess.get_session(request)]
        )

    client = await connect(compare)

    response = await client.get("/compare")

    assert await response.json() == [True, True]


async def test_what_is_put_in_by_way_of_aiohttp_session_is_kept(connect: Connect) -> None:
    client = await connect(theirs, views)
    await client.get("/theirs")

    response = await client.get("/views")

    assert await response.json() == 2


async def test_the_session_stands_under_both_keys_of_the_request(connect: Connect) -> None:
    async def keys(request: web.Request) -> web.Response:
        session = await session_of(request)
        return web.json_response(
            [request[aiohttp_session.SESSION_KEY] is session, request[SESSION] is session]
        )

    client = await connect(keys)

    response = await client.get("/keys")

    assert await response.json() == [True, True]


async def test_new_session_of_aiohttp_session_starts_over_under_another_id(
    connect: Connect, storage: Storage
) -> None:
    async def login(request: web.Request) -> web.Response:
        session = await aiohttp_session.new_session(request)
        session["user"] = "ann"
        return web.json_response(session.new)

    client = await connect(put, login, show)
    old_id = await (await client.get("/put?cart=full")).text()

    response = await client.get("/login")

    shown = await (await client.get("/show")).json()
    assert await response.json() is True
    assert shown["data"] == {"user": "ann"}
    assert shown["id"] != old_id
    assert await kept(storage, old_id) is None


async def test_data_can_be_carried_over_from_the_session_that_new_session_replaces(
    connect: Connect,
) -> None:
    async def login(request: web.Request) -> web.Response:
        before = await aiohttp_session.get_session(request)
        session = await aiohttp_session.new_session(request)
        session["cart"] = before["cart"]
        before["late"] = "lost, as in aiohttp-session"
        return web.json_response(session is before)

    client = await connect(put, login, show)
    await client.get("/put?cart=full")

    response = await client.get("/login")

    shown = await (await client.get("/show")).json()
    assert await response.json() is False
    assert shown["data"] == {"cart": "full"}


async def test_new_session_is_what_everybody_gets_from_then_on(connect: Connect) -> None:
    async def login(request: web.Request) -> web.Response:
        session = await aiohttp_session.new_session(request)
        ours = await aiosess.get_session(request)
        again = await aiohttp_session.get_session(request)
        return web.json_response([ours is session, again is session])

    client = await connect(login)

    response = await client.get("/login")

    assert await response.json() == [True, True]


async def test_new_session_after_the_headers_leaves_the_session_as_it_is(connect: Connect) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        session = await aiohttp_session.get_session(request)
        response = web.StreamResponse()
        await response.prepare(request)
        with pytest.raises(aiosess.SessionNotSent):
            await aiohttp_session.new_session(request)
        session["late"] = "kept"
        return response

    client = await connect(put, stream, show)
    await client.get("/put?cart=full")

    await (await client.get("/stream")).read()

    shown = await (await client.get("/show")).json()
    assert shown["data"] == {"cart": "full", "late": "kept"}


async def test_a_route_without_sessions_says_so_to_aiohttp_session(connect: Connect) -> None:
    async def ask(request: web.Request) -> web.Response:
        with pytest.raises(RuntimeError, match="gets no session: see for_routes and exclude"):
            await aiohttp_session.get_session(request)
        with pytest.raises(RuntimeError, match="gets no session: see for_routes and exclude"):
            await aiohttp_session.new_session(request)
        return web.Response()

    client = await connect(ask, views, exclude=["ask"])

    response = await client.get("/ask")

    assert response.status == 200


async def test_without_its_storage_aiohttp_session_raises_where_find_session_is_none(
    connect: Connect, faulty: FaultyStorage
) -> None:
    async def ask(request: web.Request) -> web.Response:
        assert await aiosess.find_session(request) is None
        with pytest.raises(aiosess.SessionError, match="the storage does not answer"):
            await aiohttp_session.get_session(request)
        return web.Response()

    client = await connect(views, ask, storage=faulty)
    await client.get("/views")
    faulty.fail()

    response = await client.get("/ask")

    assert response.status == 200


def test_the_keys_of_aiohttp_session_raise_no_warning() -> None:
    code = """
import asyncio
from aiohttp import web
from pytest_aiohttp import AiohttpClient
from aiohttp.test_utils import TestClient, TestServer
import aiohttp_session, aiosess

async def handler(request):
    session = await aiohttp_session.get_session(request)
    session["a"] = 1
    await aiohttp_session.new_session(request)
    return web.Response()

async def main():
    app = web.Application()
    app.router.add_get("/", handler)
    aiosess.setup(app, aiosess.SessionOptions(secret=32 * "s"))
    async with TestClient(TestServer(app)) as client:
        print((await client.get("/")).status)

asyncio.run(main())
"""

    # aiohttp warns once a process: another one knows nothing yet.
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True
    )

    assert result.stdout == "200\n"
