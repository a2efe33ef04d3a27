"""One storage in several event loops: one after the other, and at the same time in threads."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import pytest
import redis as synchronous
from redis.asyncio import Redis

from aiosess.storages.memcached import MemcachedClient, MemcachedStorage
from aiosess.storages.redis import RedisStorage
from tests.servers import MemcachedServer, RedisServer

T = TypeVar("T")
Networked: TypeAlias = RedisStorage | MemcachedStorage

KINDS: Final = ["redis", "redis without multiplex", "memcached"]
ROUNDS: Final = 20


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where a server is that nobody else uses."""
    server = MemcachedServer() if request.param == "memcached" else RedisServer(tmp_path)
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def make(request: pytest.FixtureRequest, url: str) -> Callable[[], Networked]:
    """Make a storage on that server."""
    kind = request.node.callspec.params["url"]
    if kind == "memcached":
        return lambda: MemcachedStorage.from_url(url)
    return lambda: RedisStorage.from_url(url, multiplex=kind == "redis")


@pytest.fixture
def storage(make: Callable[[], Networked]) -> Networked:
    return make()


def connections(url: str) -> int:
    """Return how many connections the server has, this one not counted."""
    if url.startswith("redis"):
        with synchronous.Redis.from_url(url) as client:
            return len(client.client_list()) - 1
    return asyncio.run(connections_of_memcached(url))


async def connections_of_memcached(url: str) -> int:
    client = MemcachedClient.from_url(url)
    lines = bytes(await client.ask(b"k", b"stats\r\n")).splitlines()  # type: ignore[arg-type]
    await client.close()
    return int(dict(line.split()[1:3] for line in lines)[b"curr_connections"]) - 1


def run_in_two_threads(work: Callable[[int], Coroutine[Any, Any, T]]) -> list[T]:
    """Run *work* of 0 and of 1 in an event loop each, at the same time, and return the outcomes."""
    outcomes: dict[int, T] = {}

    def run(number: int) -> None:
        outcomes[number] = asyncio.run(work(number))

    threads = [threading.Thread(target=run, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [outcomes[number] for number in (0, 1)]


def connections_in_the_end(url: str, expected: int) -> int:
    """Return how many connections the server has, when those that were closed are gone."""
    deadline = time.monotonic() + 10
    while (count := connections(url)) != expected and time.monotonic() < deadline:
        time.sleep(0.02)
    return count


class Turns:
    """Lets two event loops take turns."""

    def __init__(self) -> None:
        self._barrier = threading.Barrier(2, timeout=30)

    def next(self) -> Awaitable[int]:
        """Wait until the other loop is here too."""
        return asyncio.to_thread(self._barrier.wait)


def test_a_storage_in_two_event_loops_at_once_has_a_connection_in_each(
    storage: Networked, url: str
) -> None:
    turns = Turns()

    async def work(number: int) -> tuple[int, list[bytes]]:
        session_id, seen = f"loop-{number}", []
        await storage.create(session_id, session_id.encode(), 60)
        for _ in range(ROUNDS):
            await turns.next()
            stored = await storage.load(session_id)
            assert stored is not None
            seen.append(stored.payload)
        await turns.next()
        count = 0
        if number == 0:
            count = await asyncio.to_thread(connections_in_the_end, url, 2)
        await turns.next()
        await storage.delete(session_id)
        await storage.close()
        return count, seen

    (count, first), (_, second) = run_in_two_threads(work)

    assert (first, second) == ([b"loop-0"] * ROUNDS, [b"loop-1"] * ROUNDS)
    assert count == 2


def test_closing_in_one_event_loop_disturbs_nobody_in_another(storage: Networked) -> None:
    turns = Turns()

    async def work(number: int) -> object:
        await storage.load("k")
        await turns.next()
        if number == 0:
            await storage.close()
            await turns.next()
            return None
        loading = [asyncio.create_task(storage.load("k")) for _ in range(10)]
        await turns.next()
        loaded = await asyncio.gather(*loading)
        await storage.close()
        return loaded

    assert run_in_two_threads(work) == [None, [None] * 10]


# A loop that ends with an open connection says so when that is collected: rightly.
@pytest.mark.filterwarnings("ignore:unclosed")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_event_loops_one_after_the_other_do_not_pile_up_connections(
    make: Callable[[], Networked], url: str
) -> None:
    storage = make()
    for _ in range(5):
        asyncio.run(storage.load("k"))
    gc.collect()
    # That of the last loop, and perhaps that of the first.
    kept = connections_in_the_end(url, 1)
    asyncio.run(storage.close())
    # Not later, in a test that has nothing to do with it.
    del storage
    gc.collect()

    assert kept <= 2


@pytest.mark.parametrize("multiplex", [True, False])
def test_a_client_that_was_handed_in_says_at_once_that_it_serves_one_event_loop_at_a_time(
    redis_server: RedisServer, *, multiplex: bool
) -> None:
    client = Redis.from_url(redis_server.url)
    storage, turns = RedisStorage(client, multiplex=multiplex), Turns()

    async def work(number: int) -> object:
        if number == 0:
            await storage.load("k")
            await turns.next()
            await turns.next()
            loaded = await storage.load("k")
            await storage.close()
            await client.aclose()
            return loaded
        await turns.next()
        with pytest.raises(RuntimeError, match=r"use RedisStorage\.from_url") as refused:
            await storage.load("k")
        await turns.next()
        return type(refused.value)

    outcomes = run_in_two_threads(work)

    assert outcomes == [None, RuntimeError]
