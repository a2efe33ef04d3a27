"""A session ends though the back-end takes no writes, and nobody is told so where it does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler
from aiohttp_session import new_session
from pytest_aiohttp import AiohttpClient
from redis.asyncio import Redis

from aiosess import (
    SESSION,
    CookieOptions,
    SessionOptions,
    Storage,
    StorageError,
    StorageUnavailable,
    setup,
)
from aiosess.records.format import Alias, encode_alias
from aiosess.storages.redis import RedisStorage
from aiosess.testing import FaultyStorage
from tests.conftest import SECRET
from tests.servers import RedisServer
from tests.web.conftest import Connect
from tests.web.handlers import keep, kept, session_of, signed

FULL: Final = StorageError("OOM, says the back-end: no room for another byte")
REFUSALS: Final = (StorageError("MISCONF, says the back-end"), StorageUnavailable("READONLY"))
WRITES: Final = ("create", "replace")


async def destroy(request: web.Request) -> web.Response:
    await (await session_of(request)).destroy()
    return web.Response()


async def invalidate(request: web.Request) -> web.Response:
    (await session_of(request)).invalidate()
    return web.Response()


async def invalidate_and_go_on(request: web.Request) -> web.Response:
    session = await session_of(request)
    session.invalidate()
    session["flash"] = "bye"
    return web.Response()


async def invalidate_and_login(request: web.Request) -> web.Response:
    session = await session_of(request)
    session.invalidate()
    session["AIOHTTP_SECURITY"] = "somebody else"
    return web.Response()


async def regenerate(request: web.Request) -> web.Response:
    await (await session_of(request)).regenerate()
    return web.Response()


async def regenerate_and_go_on(request: web.Request) -> web.Response:
    session = await session_of(request)
    await session.regenerate()
    session["flash"] = "bye"
    return web.Response()


async def begin_anew(request: web.Request) -> web.Response:
    await session_of(request)
    await new_session(request)
    return web.Response()


async def begin_and_go_on(request: web.Request) -> web.Response:
    await session_of(request)
    (await new_session(request))["flash"] = "bye"
    return web.Response()


async def unset(request: web.Request) -> web.Response:
    await session_of(request)
    del request[SESSION]
    return web.Response()


ENDS = (destroy, invalidate, regenerate, begin_anew, unset)
ENDS_AND_MORE = (invalidate_and_go_on, invalidate_and_login, regenerate_and_go_on)


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
async def test_a_session_ends_where_nothing_can_be_written(
    end: Handler, connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    await keep(storage, "apple", user="Ann")
    client = await connect(end, storage=faulty, forgets=True, unset="destroy")
    faulty.fail(FULL, verbs=WRITES)

    response = await client.get(f"/{end.__name__}", headers=signed("apple"))

    assert response.status == 200
    assert await kept(storage, "apple") is None


@pytest.mark.parametrize("end", ENDS_AND_MORE, ids=lambda end: end.__name__)
async def test_a_session_ends_though_what_follows_it_cannot_be_kept(
    end: Handler, connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    await keep(storage, "apple", user="Ann")
    client = await connect(end, storage=faulty, forgets=True)
    faulty.fail(FULL, verbs=WRITES)

    response = await client.get(f"/{end.__name__}", headers=signed("apple"))

    assert response.status == 500
    assert await kept(storage, "apple") is None


@pytest.mark.asvs("7.4.1")
@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("end", [*ENDS, *ENDS_AND_MORE], ids=lambda end: end.__name__)
async def test_nobody_is_told_of_an_end_where_even_deleting_is_refused(
    end: Handler,
    refusal: StorageError,
    connect: Connect,
    storage: Storage,
    faulty: FaultyStorage,
) -> None:
    await keep(storage, "apple", user="Ann")
    client = await connect(end, storage=faulty, forgets=True, unset="destroy")
    faulty.fail(refusal, verbs=(*WRITES, "touch", "delete"))

    response = await client.get(f"/{end.__name__}", headers=signed("apple"))

    assert response.status == 500
    assert await kept(storage, "apple") == {"user": "Ann"}


@pytest.mark.parametrize("end", [destroy, regenerate_and_go_on], ids=lambda end: end.__name__)
async def test_a_session_ends_under_its_new_id_where_nothing_can_be_written(
    end: Handler, connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    async def end_late(request: web.Request) -> web.StreamResponse:
        await session_of(request)
        # Another process renews the id meanwhile.
        await storage.delete("apple")
        alias = encode_alias("apple", Alias("pear", 2e9))
        await storage.create("apple", alias, 60)
        faulty.fail(FULL, verbs=WRITES)
        return await end(request)

    await keep(storage, "apple", user="Ann")
    await keep(storage, "pear", user="Ann")
    client = await connect(end_late, storage=faulty, forgets=True)

    await client.get("/end_late", headers=signed("apple"))

    assert await storage.load("apple") is None
    assert await storage.load("pear") is None


@pytest.fixture
async def full_redis(own_redis_server: RedisServer) -> AsyncIterator[RedisStorage]:
    """A Redis that has a session and takes no other byte."""
    async with (
        RedisStorage.from_url(own_redis_server.url) as storage,
        Redis.from_url(own_redis_server.url) as admin,
    ):
        await keep(storage, "apple", user="Ann")
        await admin.config_set("maxmemory-policy", "noeviction")
        await admin.config_set("maxmemory", "1")
        with pytest.raises(StorageError, match="memory"):
            await keep(storage, "pear")
        yield storage


@pytest.mark.asvs("7.4.1")
@pytest.mark.parametrize(
    ("end", "status"),
    [*((end, 200) for end in ENDS), *((end, 500) for end in ENDS_AND_MORE)],
    ids=lambda each: getattr(each, "__name__", None),
)
async def test_a_session_ends_in_a_redis_that_is_full(
    end: Handler, status: int, aiohttp_client: AiohttpClient, full_redis: RedisStorage
) -> None:
    app = web.Application()
    setup(app, SessionOptions(secret=SECRET, storage=full_redis, unset="destroy"))
    app.router.add_get("/end", end)
    client = await aiohttp_client(app)

    response = await client.get("/end", headers=signed("apple"))

    assert response.status == status
    assert await full_redis.load("apple") is None


@pytest.mark.parametrize(
    "end", [regenerate_and_go_on, begin_and_go_on], ids=lambda end: end.__name__
)
async def test_a_session_ends_though_the_cookie_of_the_next_one_is_withheld(
    end: Handler, connect: Connect, storage: Storage
) -> None:
    await keep(storage, "apple", user="Ann")
    client = await connect(end, forgets=True, cookie=CookieOptions(secure=True))

    response = await client.get(f"/{end.__name__}", headers=signed("apple"))

    assert response.status == 200
    assert await kept(storage, "apple") is None
