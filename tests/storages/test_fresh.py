"""A record asked for on a connection of its own, and what becomes of the shared one."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import BlockingConnectionPool, Redis

from aiosess import MemoryStorage, Storage, StorageUnavailable
from aiosess.guard.retries import RetryPolicy
from aiosess.storages import FreshStorage, Stored
from aiosess.storages.memcached import MemcachedStorage
from aiosess.storages.redis import RedisStorage
from tests.guards import guarded
from tests.servers import MemcachedServer, RedisServer, free_port


class OwnClient(Redis):
    """A client that sends commands in a way of its own, and shows no pool."""

    def __init__(self, inner: Redis) -> None:
        self._inner = inner

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        inner: Any = self._inner
        return await inner.execute_command(*args, **options)


@pytest.fixture(params=["redis", "redis, not shared", "memcached"])
async def fresh(request: pytest.FixtureRequest) -> AsyncIterator[RedisStorage | MemcachedStorage]:
    """Each storage that can, connected."""
    prefix = f"{uuid.uuid4()}:"
    if request.param == "memcached":
        memcached: MemcachedServer = request.getfixturevalue("memcached_server")
        async with MemcachedStorage.from_url(memcached.url, prefix=prefix) as storage:
            yield storage
        return
    redis: RedisServer = request.getfixturevalue("redis_server")
    is_shared = request.param == "redis"
    async with RedisStorage.from_url(redis.url, prefix=prefix, multiplex=is_shared) as other:
        yield other


def agreeing(_stored: Stored | None) -> bool:
    return True


def differing(_stored: Stored | None) -> bool:
    return False


async def payload(storage: Storage, session_id: str) -> bytes | None:
    stored = await storage.load(session_id)
    return None if stored is None else stored.payload


async def test_the_record_is_read_as_by_load(fresh: RedisStorage | MemcachedStorage) -> None:
    await fresh.create("ann", b"cart", 60)

    stored = await fresh.load_afresh("ann", agrees=agreeing)

    assert stored is not None
    assert stored == await fresh.load("ann")
    await fresh.replace("ann", b"more", 60, expected=stored.version)
    assert await payload(fresh, "ann") == b"more"


async def test_there_is_none_where_there_is_no_record(
    fresh: RedisStorage | MemcachedStorage,
) -> None:
    assert await fresh.load_afresh("ann", agrees=agreeing) is None


async def test_what_is_read_is_compared_with_what_the_shared_connection_answered(
    fresh: RedisStorage | MemcachedStorage,
) -> None:
    await fresh.create("ann", b"cart", 60)
    shown: list[bytes | None] = []

    def agrees(stored: Stored | None) -> bool:
        shown.append(None if stored is None else stored.payload)
        return True

    await fresh.load_afresh("ann", agrees=agrees)

    assert shown == [b"cart"]


async def test_calls_go_on_after_the_shared_connection_was_ended(
    fresh: RedisStorage | MemcachedStorage,
) -> None:
    await fresh.create("ann", b"cart", 60)

    await fresh.load_afresh("ann", agrees=differing)

    assert await payload(fresh, "ann") == b"cart"


async def test_a_guarded_storage_can_where_the_one_inside_can(
    fresh: RedisStorage | MemcachedStorage,
) -> None:
    await fresh.create("ann", b"cart", 60)
    storage = guarded(fresh, RetryPolicy(retries=1))

    assert isinstance(storage, FreshStorage)
    stored = await storage.load_afresh("ann", agrees=agreeing)
    assert stored is not None
    assert stored.payload == b"cart"


def test_a_storage_in_memory_has_no_connections() -> None:
    assert not isinstance(MemoryStorage(), FreshStorage)


@pytest.mark.parametrize("multiplex", [True, False])
async def test_a_redis_that_is_away_is_unavailable(*, multiplex: bool) -> None:
    url = f"redis://127.0.0.1:{free_port()}"
    async with RedisStorage.from_url(url, multiplex=multiplex) as storage:
        with pytest.raises(StorageUnavailable):
            await storage.load_afresh("ann", agrees=agreeing)


async def test_a_memcached_that_is_away_is_unavailable() -> None:
    async with MemcachedStorage.from_url(f"memcached://127.0.0.1:{free_port()}") as storage:
        with pytest.raises(StorageUnavailable):
            await storage.load_afresh("ann", agrees=agreeing)


async def test_a_pool_that_has_no_room_left_is_not_asked_for_any(
    redis_server: RedisServer,
) -> None:
    pool = BlockingConnectionPool.from_url(redis_server.url, max_connections=1, timeout=1)
    async with Redis(connection_pool=pool) as client:
        storage = RedisStorage(client, prefix=f"{uuid.uuid4()}:")
        await storage.create("ann", b"cart", 60)

        stored = await storage.load_afresh("ann", agrees=agreeing)

        assert stored is not None
        await storage.close()


async def test_a_client_that_shows_no_pool_is_asked_once_more(redis_server: RedisServer) -> None:
    async with Redis.from_url(redis_server.url) as inner:
        storage = RedisStorage(OwnClient(inner), prefix=f"{uuid.uuid4()}:")
        await storage.create("ann", b"cart", 60)

        stored = await storage.load_afresh("ann", agrees=agreeing)

        assert stored is not None
        assert stored.payload == b"cart"


async def test_a_client_that_shows_no_pool_and_differs_twice_is_unavailable(
    redis_server: RedisServer,
) -> None:
    async with Redis.from_url(redis_server.url) as inner:
        storage = RedisStorage(OwnClient(inner), prefix=f"{uuid.uuid4()}:")

        with pytest.raises(StorageUnavailable, match="mixed up"):
            await storage.load_afresh("ann", agrees=differing)
