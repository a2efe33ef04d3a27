"""Three sentinels, of which the first hangs: that costs next to nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as blocking
from redis.asyncio import Sentinel

from aiosess import Storage, StorageUnavailable
from aiosess.clients import redis_notices
from aiosess.guard.retries import RetryPolicy
from aiosess.storages.redis import RedisStorage
from tests.faults.sentinels import (
    NAME,
    SentinelServer,
    Watched,
    wait_until,
    wait_until_a_failover_is_possible,
)
from tests.guards import guarded
from tests.servers import RedisServer, free_port


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


def impatient(storage: RedisStorage) -> Storage:
    return guarded(storage, RetryPolicy(timeout=0.3, retries=2, wait=lambda n: 0.02 * n))


@pytest.mark.parametrize("multiplex", [True, False])
async def test_a_sentinel_that_hangs_at_the_start_is_no_outage(
    watched: Watched, *, multiplex: bool
) -> None:
    watched.sentinels[0].pause()
    async with RedisStorage.from_url(watched.url, multiplex=multiplex) as storage:
        assert await impatient(storage).load("k") is None


async def test_a_name_that_no_sentinel_knows_is_told_with_the_way_out(watched: Watched) -> None:
    hosts = ",".join(f"127.0.0.1:{each.port}" for each in watched.sentinels)
    async with RedisStorage.from_url(f"redis+sentinel://{hosts}/visits") as storage:
        with pytest.raises(StorageUnavailable, match="'visits': see the name in the url"):
            await storage.load("k")


async def test_sentinels_of_which_none_is_there_say_so() -> None:
    url = f"redis+sentinel://127.0.0.1:{free_port()}/{NAME}"
    async with RedisStorage.from_url(url) as storage:
        with pytest.raises(StorageUnavailable, match=f"no sentinel .* '{NAME}': not all answer"):
            await storage.load("k")


@pytest.fixture
def locked(tmp_path: Path, redis_server: RedisServer) -> Iterator[SentinelServer]:
    """A sentinel that asks for a password."""
    server = SentinelServer(tmp_path / "locked", redis_server)
    with (tmp_path / "locked" / "sentinel.conf").open("a") as options:
        options.write("requirepass secret\n")
    server.start()
    yield server
    server.stop()


async def test_sentinels_that_ask_for_a_password_are_an_outage_that_is_not_retried(
    locked: SentinelServer,
) -> None:
    url = f"redis+sentinel://127.0.0.1:{locked.port}/{NAME}"
    async with RedisStorage.from_url(url) as storage:
        with pytest.raises(StorageUnavailable, match="give sentinel_kwargs=") as refused:
            await storage.load("k")

    assert not refused.value.may_retry


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


async def test_a_notice_is_heard_again_from_the_primary_that_took_over_from_one_that_hangs(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_notices, "_SILENCE", 0.2)
    await asyncio.to_thread(wait_until_a_failover_is_possible, watched)
    async with RedisStorage.from_url(watched.url) as storage:
        lasting = guarded(storage, RetryPolicy(timeout=0.3, retries=300, wait=lambda _: 0.1))
        async with storage.subscribe() as notices:
            await storage.publish(b"before")
            assert await anext(notices) == b"before"
            watched.primary.pause()

            async with asyncio.timeout(10):
                with pytest.raises(StorageUnavailable):
                    await anext(notices)

        await lasting.create("there", b"cart", 600)
        async with storage.subscribe() as notices:
            await storage.publish(b"after")

            assert await anext(notices) == b"after"
