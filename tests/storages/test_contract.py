"""Each storage, and each wrapper, against each case of the contract.

Memcached and the adapter for the storages of aiohttp-session join here, a line each.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import redis
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster

from aiosess import MemoryStorage, Storage
from aiosess.guard.retries import RetryingStorage, RetryPolicy
from aiosess.storages.redis import RedisStorage
from aiosess.testing import FakeClock, FaultyStorage, Harness, report, run_contract
from aiosess.testing.pytest import storage_contract
from tests.guards import guarded
from tests.servers import ClusterServer, RedisServer

POLICY = RetryPolicy(retries=2, timeout=5.0)

# Long beside the way to a server on this machine, short to wait for.
UNIT = 0.05

MakeOnRedis: TypeAlias = Callable[[str], Storage | AbstractAsyncContextManager[Storage]]


def prefix() -> str:
    return f"{uuid.uuid4()}:"


def retrying(storage: Storage) -> Storage:
    return RetryingStorage(storage, POLICY)


def on_memory(wrap: Callable[[Storage], Storage]) -> Harness:
    clock = FakeClock()
    return Harness(lambda: wrap(MemoryStorage(clock=clock)), clock=clock)


test_memory = storage_contract(on_memory(lambda storage: storage))
test_memory_with_retries = storage_contract(on_memory(retrying))
test_memory_that_could_fail = storage_contract(on_memory(FaultyStorage))
test_redis = storage_contract("redis_harness")


@pytest.fixture
def redis_harness(redis_server: RedisServer) -> Harness:
    return Harness(lambda: RedisStorage.from_url(redis_server.url, prefix=prefix()), unit=UNIT)


async def test_memory_in_real_time() -> None:
    results = await run_contract(Harness(MemoryStorage, unit=UNIT))

    assert all(result.is_kept for result in results), report(results)


def as_applications_have_it(policy: RetryPolicy) -> MakeOnRedis:
    @asynccontextmanager
    async def make(url: str) -> AsyncGenerator[Storage]:
        async with RedisStorage.from_url(url, prefix=prefix()) as storage:
            yield guarded(storage, policy)

    return make


@asynccontextmanager
async def with_a_bounded_pool(url: str) -> AsyncGenerator[Storage]:
    pool = BlockingConnectionPool.from_url(url, max_connections=3)
    async with Redis.from_pool(pool) as client:
        yield RedisStorage(client, prefix=prefix())


def handed_in(**client_options: Any) -> MakeOnRedis:
    @asynccontextmanager
    async def make(url: str) -> AsyncGenerator[Storage]:
        async with Redis.from_url(url, **client_options) as client:
            yield RedisStorage(client, prefix=prefix())

    return make


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(as_applications_have_it(POLICY), id="with retries"),
        pytest.param(as_applications_have_it(RetryPolicy(timeout=5.0)), id="with a time limit"),
        pytest.param(with_a_bounded_pool, id="a pool of three connections"),
        pytest.param(handed_in(), id="a client handed in"),
        pytest.param(handed_in(decode_responses=True), id="decode_responses"),
        pytest.param(handed_in(protocol=3), id="RESP3"),
        pytest.param(handed_in(protocol=3, decode_responses=True), id="RESP3, decode_responses"),
        pytest.param(handed_in(single_connection_client=True), id="one connection"),
    ],
)
async def test_redis_with_any_client(make: MakeOnRedis, redis_server: RedisServer) -> None:
    harness = Harness(lambda: make(redis_server.url), unit=UNIT)

    results = await run_contract(harness)

    assert all(result.is_kept for result in results), report(results)


class RedisClusterServer(ClusterServer):
    """A cluster of one node that has all slots."""

    def start(self) -> None:
        """Start the process and wait until the cluster is up."""
        super().start()
        with redis.Redis.from_url(self.url) as node:
            node.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
            while "cluster_state:ok" not in str(node.execute_command("CLUSTER", "INFO")):
                time.sleep(0.05)


@pytest.fixture
def cluster_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisClusterServer(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize("client_options", [{}, {"decode_responses": True}], ids=str)
async def test_redis_cluster(cluster_server: RedisServer, client_options: dict[str, Any]) -> None:
    @asynccontextmanager
    async def make() -> AsyncGenerator[Storage]:
        url = cluster_server.url.removesuffix("/0")
        async with RedisCluster.from_url(url, **client_options) as client:
            yield RedisStorage(client, prefix=prefix())

    results = await run_contract(Harness(make, unit=UNIT))

    assert all(result.is_kept for result in results), report(results)
