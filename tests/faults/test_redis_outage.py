"""A Redis that hangs, stops, restarts, or only reads: no answer is possible, a wrong one is not."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest
import redis
from redis.asyncio import Redis

from aiosess import Conflict, IdTaken, StorageUnavailable
from aiosess.guard.retries import RetryingStorage, RetryPolicy
from aiosess.storages.redis import RedisStorage
from tests.servers import RedisServer

VERBS: Final = ("create", "load", "replace", "touch", "delete")

LIMIT: Final = 0.15
# Some servers are back sooner than a connection counts as idle.
LONGER_THAN_A_TICK: Final = 0.05


class LastingRedisServer(RedisServer):
    """A redis-server that has its data again after a restart."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._command += ["--appendonly", "yes", "--appendfsync", "always"]
        self._command += ["--repl-diskless-sync-delay", "0"]

    def start(self) -> None:
        """Start the process and wait until it has read its data."""
        super().start()
        with redis.Redis.from_url(self.url) as client:
            while _is_loading(client):
                time.sleep(0.01)


def _is_loading(client: redis.Redis) -> bool:
    try:
        return not client.ping()
    except redis.exceptions.BusyLoadingError:
        return True


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LastingRedisServer]:
    server = LastingRedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def storage(server: LastingRedisServer) -> AsyncIterator[RedisStorage]:
    """A storage with a connection that is open already, and the record ``there``."""
    async with RedisStorage.from_url(server.url) as storage:
        await storage.create("there", b"cart", 600)
        yield storage


@pytest.fixture
def impatient(storage: RedisStorage) -> RetryingStorage:
    """The storage with a time limit for each call, and no retries."""
    return RetryingStorage(storage, RetryPolicy(timeout=LIMIT))


@pytest.fixture
def patient(storage: RedisStorage) -> RetryingStorage:
    """The storage with retries for some seconds."""
    return RetryingStorage(storage, RetryPolicy(retries=100, wait=lambda _: 0.05, timeout=LIMIT))


def call(storage: RedisStorage | RetryingStorage, verb: str) -> Awaitable[object]:
    """Return the call of *verb* on the record ``there``, whatever arguments it takes."""
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "create": lambda: storage.create("new", b"new", 600),
        "load": lambda: storage.load("there"),
        "replace": lambda: storage.replace("there", b"more", 600, expected=b"cart"),
        "touch": lambda: storage.touch("there", 600),
        "delete": lambda: storage.delete("there"),
    }
    return calls[verb]()


async def payload(storage: RedisStorage | RetryingStorage, session_id: str) -> bytes | None:
    stored = await storage.load(session_id)
    return None if stored is None else stored.payload


# Paused.


@pytest.mark.parametrize("verb", VERBS)
async def test_a_call_to_a_paused_server_ends_after_its_time_limit(
    server: RedisServer, impatient: RetryingStorage, verb: str
) -> None:
    loop = asyncio.get_running_loop()
    server.pause()
    started = loop.time()

    with pytest.raises(StorageUnavailable):
        await call(impatient, verb)

    assert LIMIT <= loop.time() - started < 10 * LIMIT


async def test_a_paused_server_holds_up_nobody_else(
    server: RedisServer, impatient: RetryingStorage
) -> None:
    server.pause()

    results = await asyncio.wait_for(
        asyncio.gather(*(impatient.load("there") for _ in range(50)), return_exceptions=True),
        10 * LIMIT,
    )

    assert {type(result) for result in results} == {StorageUnavailable}


async def test_no_call_gets_the_late_answer_of_one_that_was_given_up(
    server: RedisServer, storage: RedisStorage, impatient: RetryingStorage
) -> None:
    ids = [f"record {number}" for number in range(20)]
    for session_id in ids:
        await storage.create(session_id, session_id.encode(), 600)
    server.pause()
    given_up = await asyncio.gather(*(impatient.load(i) for i in ids), return_exceptions=True)
    server.resume()

    seen = [await payload(storage, session_id) for session_id in reversed(ids)]

    assert {type(result) for result in given_up} == {StorageUnavailable}
    assert seen == [session_id.encode() for session_id in reversed(ids)]


async def test_a_replace_that_was_given_up_has_happened_or_not_but_never_in_part(
    server: RedisServer, storage: RedisStorage, impatient: RetryingStorage
) -> None:
    server.pause()
    with pytest.raises(StorageUnavailable):
        await impatient.replace("there", b"more", 600, expected=b"cart")
    server.resume()

    seen = await payload(storage, "there")

    assert seen in {b"cart", b"more"}


async def test_retries_go_on_when_a_paused_server_goes_on(
    server: RedisServer, patient: RetryingStorage
) -> None:
    server.pause()
    loading = asyncio.create_task(patient.load("there"))
    await asyncio.sleep(2 * LIMIT)
    is_waiting = not loading.done()
    server.resume()

    stored = await loading

    assert is_waiting
    assert stored is not None
    assert stored.payload == b"cart"


async def test_a_retried_create_meets_at_worst_its_own_record(
    server: RedisServer, patient: RetryingStorage
) -> None:
    server.pause()
    creating = asyncio.create_task(patient.create("new", b"mine", 600))
    await asyncio.sleep(2 * LIMIT)
    server.resume()

    # IdTaken is raised where the first try got there and only its answer did not.
    with contextlib.suppress(IdTaken):
        await creating

    assert await payload(patient, "new") == b"mine"


async def test_a_retried_replace_meets_at_worst_its_own_payload(
    server: RedisServer, patient: RetryingStorage
) -> None:
    server.pause()
    replacing = asyncio.create_task(patient.replace("there", b"mine", 600, expected=b"cart"))
    await asyncio.sleep(2 * LIMIT)
    server.resume()

    with contextlib.suppress(Conflict):
        await replacing

    assert await payload(patient, "there") == b"mine"


async def test_a_cancelled_call_to_a_paused_server_ends_at_once(
    server: RedisServer, patient: RetryingStorage
) -> None:
    server.pause()
    loading = asyncio.create_task(patient.load("there"))
    await asyncio.sleep(LIMIT / 3)

    loading.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(loading, LIMIT)


# Stopped and started again.


@pytest.mark.parametrize("verb", VERBS)
async def test_a_server_that_stopped_is_unavailable(
    server: RedisServer, storage: RedisStorage, verb: str
) -> None:
    server.stop()

    with pytest.raises(StorageUnavailable):
        await call(storage, verb)


@pytest.mark.parametrize("verb", VERBS)
async def test_the_first_call_after_a_restart_succeeds(
    server: RedisServer, storage: RedisStorage, verb: str
) -> None:
    await asyncio.sleep(LONGER_THAN_A_TICK)
    server.stop()
    server.start()

    answer = await call(storage, verb)

    assert answer not in {None, False}


async def test_a_restarted_server_that_lost_its_scripts_still_replaces(
    server: RedisServer, storage: RedisStorage
) -> None:
    version = await storage.replace("there", b"more", 600, expected=b"cart")
    await asyncio.sleep(LONGER_THAN_A_TICK)
    server.stop()
    server.start()

    await storage.replace("there", b"again", 600, expected=version)

    assert await payload(storage, "there") == b"again"


async def test_a_restarted_server_that_lost_its_data_says_gone_and_keeps_nothing_alive(
    own_redis_server: RedisServer,
) -> None:
    async with RedisStorage.from_url(own_redis_server.url) as storage:
        version = await storage.create("there", b"cart", 600)
        await asyncio.sleep(LONGER_THAN_A_TICK)
        own_redis_server.stop()
        own_redis_server.start()

        assert await storage.load("there") is None
        assert await storage.touch("there", 600) is False
        with pytest.raises(Conflict) as conflict:
            await storage.replace("there", b"more", 600, expected=version)
        assert conflict.value.current is None


async def test_calls_under_way_at_a_restart_get_the_right_answer_or_none(
    server: RedisServer, storage: RedisStorage
) -> None:
    ids = [f"record {number}" for number in range(10)]
    for session_id in ids:
        await storage.create(session_id, session_id.encode(), 600)
    wrong: list[tuple[str, object]] = []
    outcomes: set[str] = set()

    async def ask(session_id: str) -> None:
        try:
            seen = await payload(storage, session_id)
        except StorageUnavailable:
            outcomes.add("unavailable")
            return
        outcomes.add("answered")
        if seen != session_id.encode():
            wrong.append((session_id, seen))

    async def ask_on(session_id: str, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await ask(session_id)
            await asyncio.sleep(0.001)

    stop = asyncio.Event()
    askers = [asyncio.create_task(ask_on(session_id, stop)) for session_id in ids]
    await asyncio.sleep(0.1)
    await asyncio.to_thread(server.stop)
    await asyncio.sleep(0.1)
    await asyncio.to_thread(server.start)
    await asyncio.sleep(0.1)
    stop.set()
    await asyncio.gather(*askers)

    assert wrong == []
    assert outcomes == {"answered", "unavailable"}
    assert await payload(storage, ids[0]) == ids[0].encode()


@pytest.mark.parametrize("verb", VERBS)
async def test_retries_bridge_a_restart(
    server: RedisServer, patient: RetryingStorage, verb: str
) -> None:
    server.stop()
    asked = asyncio.ensure_future(call(patient, verb))
    await asyncio.sleep(0.1)
    is_waiting = not asked.done()

    await asyncio.to_thread(server.start)
    answer = await asked

    assert is_waiting
    assert answer not in {None, False}


async def test_connections_that_an_outage_broke_do_not_pile_up(
    server: RedisServer, storage: RedisStorage
) -> None:
    await asyncio.gather(*(storage.load("there") for _ in range(20)))
    server.stop()
    await asyncio.gather(*(storage.load("there") for _ in range(20)), return_exceptions=True)
    server.start()

    await asyncio.gather(*(storage.load("there") for _ in range(20)))

    async with Redis.from_url(server.url) as client:
        assert len(await client.client_list()) <= 21


# Read-only.


@pytest.fixture
def replica(
    own_redis_server: RedisServer, server: RedisServer, storage: RedisStorage
) -> RedisServer:
    """A replica of *server* that has caught up, the record ``there`` included."""
    with redis.Redis.from_url(own_redis_server.url) as client:
        client.replicaof("127.0.0.1", server.port)
        deadline = time.monotonic() + 30
        while not client.exists("sess:there"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    return own_redis_server


@pytest.mark.parametrize("verb", ["create", "replace", "touch", "delete"])
async def test_a_replica_cannot_be_written_and_the_primary_stays_as_it_was(
    replica: RedisServer, storage: RedisStorage, verb: str
) -> None:
    async with RedisStorage.from_url(replica.url) as on_replica:
        with pytest.raises(StorageUnavailable):
            await call(on_replica, verb)

    assert await payload(storage, "there") == b"cart"
    assert await payload(storage, "new") is None


async def test_a_replica_that_does_not_have_the_record_yet_does_not_say_that_it_is_gone(
    replica: RedisServer,
) -> None:
    async with RedisStorage.from_url(replica.url) as on_replica:
        with pytest.raises(StorageUnavailable):
            await on_replica.replace("not there yet", b"more", 600, expected=b"cart")


async def test_a_replica_that_becomes_the_primary_is_written_by_retries(
    replica: RedisServer,
) -> None:
    async with (
        RedisStorage.from_url(replica.url) as on_replica,
        Redis.from_url(replica.url) as client,
    ):
        patient = RetryingStorage(on_replica, RetryPolicy(retries=100, wait=lambda _: 0.05))
        replacing = asyncio.create_task(patient.replace("there", b"more", 600, expected=b"cart"))
        await asyncio.sleep(0.2)
        is_waiting = not replacing.done()

        await client.replicaof("NO", "ONE")
        await replacing

        assert is_waiting
        assert await payload(on_replica, "there") == b"more"
