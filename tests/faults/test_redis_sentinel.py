"""Three sentinels, of which the first hangs: that costs next to nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import redis as blocking
from redis.asyncio import Sentinel

from aiosess import Storage
from aiosess.guard.retries import RetryPolicy, guarded
from aiosess.storages.redis import RedisStorage
from tests.servers import RedisServer, Server, binary, free_port

NAME: Final = "sessions"


class SentinelServer(Server):
    """A redis-sentinel that watches *primary* with others; two must agree."""

    def __init__(self, folder: Path, primary: RedisServer) -> None:
        folder.mkdir()
        port = free_port()
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor {NAME} 127.0.0.1 {primary.port} 2\n"
            f"sentinel down-after-milliseconds {NAME} 500\n"
            f"sentinel failover-timeout {NAME} 2000\n"
        )
        super().__init__([binary("redis-server"), str(config), "--sentinel"], port)


class Watched:
    """A primary with a replica, and three sentinels."""

    def __init__(self, folder: Path) -> None:
        (folder / "primary").mkdir()
        (folder / "replica").mkdir()
        quickly = ("--repl-diskless-sync-delay", "0")
        self.primary = RedisServer(folder / "primary", *quickly)
        of_primary = ("--replicaof", "127.0.0.1", str(self.primary.port))
        self.replica = RedisServer(folder / "replica", *quickly, *of_primary)
        self.sentinels = [SentinelServer(folder / f"sentinel-{n}", self.primary) for n in range(3)]

    @property
    def servers(self) -> list[Server]:
        return [self.primary, self.replica, *self.sentinels]

    @property
    def hosts(self) -> list[tuple[str, int]]:
        return [("127.0.0.1", sentinel.port) for sentinel in self.sentinels]

    @property
    def url(self) -> str:
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"redis+sentinel://{hosts}/{NAME}"


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    try:
        for server in made.servers:
            server.start()
        yield made
    finally:
        for server in made.servers:
            server.stop()


def wait_until_a_failover_is_possible(watched: Watched) -> None:
    """Wait until all sentinels know each other and the replica."""
    for sentinel in watched.sentinels:
        with blocking.Redis(port=sentinel.port) as client:
            wait_until(partial(is_complete, client))


def wait_until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_complete(sentinel: Any) -> bool:
    state = sentinel.sentinel_masters()[NAME]
    return bool(state["num-other-sentinels"] == 2 and state["num-slaves"] == 1)


def impatient(storage: RedisStorage) -> Storage:
    return guarded(storage, RetryPolicy(timeout=0.3, retries=2, wait=lambda n: 0.02 * n))


@pytest.mark.parametrize("multiplex", [True, False])
async def test_a_sentinel_that_hangs_at_the_start_is_no_outage(
    watched: Watched, *, multiplex: bool
) -> None:
    watched.sentinels[0].pause()
    async with RedisStorage.from_url(watched.url, multiplex=multiplex) as storage:
        assert await impatient(storage).load("k") is None


async def test_a_client_that_was_handed_in_does_not_wait_for_a_sentinel_that_hangs(
    watched: Watched,
) -> None:
    watched.sentinels[0].pause()
    # With the options that redis-py has by itself.
    sentinel: Any = Sentinel(watched.hosts)  # type: ignore[no-untyped-call]
    async with sentinel.master_for(NAME) as client, RedisStorage(client) as storage:
        loaded = await impatient(storage).load("k")
    for each in sentinel.sentinels:
        await each.aclose()

    assert loaded is None


@pytest.mark.parametrize("multiplex", [True, False])
async def test_after_a_failover_the_new_primary_is_used_though_the_first_sentinel_hangs(
    watched: Watched, *, multiplex: bool
) -> None:
    await asyncio.to_thread(wait_until_a_failover_is_possible, watched)
    async with RedisStorage.from_url(watched.url, multiplex=multiplex) as storage:
        lasting = guarded(storage, RetryPolicy(timeout=0.3, retries=300, wait=lambda _: 0.1))
        await lasting.create("there", b"cart", 600)
        with blocking.Redis.from_url(watched.replica.url) as replica:
            wait_until(lambda: replica.exists("sess:there"))
        watched.primary.pause()
        watched.sentinels[0].pause()

        await lasting.replace("there", b"more", 600, expected=b"cart")

        with blocking.Redis.from_url(watched.replica.url) as replica:
            kept = replica.get("sess:there")

    assert kept == b"more"
