"""A storage that was made for aiohttp-session, at its seams: what it knows, and what it cannot."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import aiohttp_session
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from pytest_aiohttp import AiohttpClient
from redis.asyncio import Redis

from aiosess import (
    Session,
    SessionError,
    SessionKey,
    SessionOptions,
    StorageUnavailable,
    health,
    setup,
)
from aiosess.compat.redis_storage import RedisStorage
from aiosess.exchange.exchange import Exchange
from aiosess.exchange.manager import SessionManager
from aiosess.interop.storage import _means_no_answer
from tests.interop.foreign_storages import Database, DocumentStorage
from tests.servers import RedisServer
from tests.web.conftest import Client
from tests.web.handlers import session_of

pytestmark = pytest.mark.one_lane("such a storage has no fast lane")

USER: Final = SessionKey("user", str)
KEY: Final = "AIOHTTP_SESSION"


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def options(database: Database) -> SessionOptions:
    return SessionOptions(storage=DocumentStorage(database))


@pytest.fixture
def request_() -> web.Request:
    return make_mocked_request("GET", "/", {"Cookie": f"{KEY}=apple"})


@pytest.fixture
def exchange(options: SessionOptions, request_: web.Request) -> Exchange:
    manager = SessionManager(options)
    return manager.exchange(manager, request_)


async def connected(aiohttp_client: AiohttpClient, options: Any, *handlers: Any) -> Client:
    app = web.Application()
    setup(app, options)
    for handler in handlers:
        app.router.add_get(f"/{handler.__name__}", handler)
    return await aiohttp_client(app, cookies={KEY: "apple"})


async def test_nothing_is_known_of_its_nodes(
    aiohttp_client: AiohttpClient, options: SessionOptions
) -> None:
    client = await connected(aiohttp_client, options)

    assert client.app is not None
    assert await health(client.app) == ()


async def test_what_is_private_to_it_is_not_found_in_the_request(exchange: Exchange) -> None:
    assert not hasattr(exchange, "_get_session_data")
    assert hasattr(exchange, "database")


async def test_what_is_private_to_its_session_is_not_found_in_ours(
    exchange: Exchange, request_: web.Request
) -> None:
    session = await exchange.load_session(request_)

    assert not hasattr(session, "_identity")


async def test_its_session_takes_values_with_a_type(
    exchange: Exchange, request_: web.Request
) -> None:
    session = await exchange.load_session(request_)

    session[USER] = "ann"

    assert session[USER] == "ann"


async def test_nobody_is_known_to_have_logged_in(exchange: Exchange, request_: web.Request) -> None:
    session = await exchange.load_session(request_)

    with pytest.raises(SessionError, match="does not keep when somebody logged in"):
        await session.authenticated()


async def test_it_alone_knows_whether_an_id_came(exchange: Exchange, request_: web.Request) -> None:
    assert exchange.transport.has_any(request_)


async def test_a_max_age_that_is_the_same_as_before_is_none_of_its_own(
    exchange: Exchange, request_: web.Request
) -> None:
    session = await exchange.load_session(request_)

    session.max_age = session.max_age

    assert exchange.state is not None
    assert exchange.state.cookie.own == {}


async def test_an_empty_session_is_not_written_to_be_touched(
    database: Database, exchange: Exchange, request_: web.Request
) -> None:
    await database.write(f"{KEY}_apple", {"data": {"session": {}, "created": 0}, "expire": None})
    before = dict(database.rows)
    await exchange.load_session(request_)
    assert exchange.state is not None

    assert await exchange.repository.touch(exchange.state)

    assert database.rows == before


async def test_its_session_takes_a_new_id_now_and_then_as_well(
    aiohttp_client: AiohttpClient, database: Database, options: SessionOptions
) -> None:
    async def rotate(request: web.Request) -> web.Response:
        await (await session_of(request)).rotate_id()
        return web.Response()

    row = {"data": {"session": {"n": 1}, "created": 0}, "expire": None}
    await database.write(f"{KEY}_apple", row)
    client = await connected(aiohttp_client, options, rotate)

    response = await client.get("/rotate")

    new_id = response.cookies[KEY].value
    assert new_id != "apple"
    assert database.rows[f"{KEY}_{new_id}"]["data"]["session"] == {"n": 1}


async def test_what_a_task_adds_to_a_list_after_the_response_is_kept(
    aiohttp_client: AiohttpClient, database: Database, options: SessionOptions
) -> None:
    may_go_on = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def later(session: Session, _request: web.Request) -> None:
        await may_go_on.wait()
        session["cart"].append("apple")

    async def answer(request: web.Request) -> web.Response:
        session = await session_of(request)
        tasks.append(asyncio.create_task(later(session, request)))
        return web.Response()

    row = {"data": {"session": {"cart": ["pear"]}, "created": 0}, "expire": None}
    await database.write(f"{KEY}_apple", row)
    client = await connected(aiohttp_client, options, answer)
    await client.get("/answer")
    may_go_on.set()
    await tasks[0]
    await client.server.close()

    assert database.rows[f"{KEY}_apple"]["data"]["session"] == {"cart": ["pear", "apple"]}


def test_an_outage_that_it_has_told_already_is_one() -> None:
    assert _means_no_answer(StorageUnavailable("away"))


async def test_an_empty_session_that_was_never_kept_deletes_nothing(
    redis_server: RedisServer, request_: web.Request
) -> None:
    async with Redis.from_url(redis_server.url) as client:
        storage = RedisStorage(client)
        response = web.Response()
        session = aiohttp_session.Session(None, data=None, new=True)

        await storage.save_session(request_, response, session)

        assert response.cookies[KEY].value == ""
