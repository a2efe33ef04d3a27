"""What it takes to watch many sockets: looks, writes and pauses, counted."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any
from weakref import ref

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from aiosess import CookieOptions, Reason, Storage
from aiosess.events import Events
from aiosess.exchange.watching import Watcher
from aiosess.guard.retries import RetryPolicy
from aiosess.records.repository import RecordOptions, SessionRepository
from aiosess.records.state import SessionState
from aiosess.storages.redis import RedisStorage
from aiosess.timeouts import Timeouts
from tests.guards import guarded
from tests.servers import RedisServer
from tests.web.test_watch import becomes

pytestmark = pytest.mark.one_lane("what is watched has left its lane")

SESSIONS = 1000
SOCKETS_EACH = 10
EVERY = 15.0
MOST_LOOKS_A_SECOND = 70


class Counting:
    """Counts the loads of a storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.loads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    async def load(self, session_id: str) -> Any:
        self.loads += 1
        return await self._storage.load(session_id)


class Pauses:
    """Stands in for sleep: the test says when a pause is over."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._over = asyncio.Semaphore(0)

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await self._over.acquire()

    def end(self) -> None:
        self._over.release()


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[RedisStorage]:
    async with RedisStorage.from_url(redis_server.url, prefix=f"{uuid.uuid4()}:") as storage:
        yield storage


async def kept(repository: SessionRepository, number: int) -> SessionState:
    state = repository.fresh(f"session-{number}", CookieOptions())
    state.data["number"] = number
    await repository.create(state)
    return state


async def test_ten_thousand_sockets_take_a_look_a_session_in_a_handful_of_writes(
    redis: RedisStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting, pauses, ended = Counting(redis), Pauses(), list[Reason]()
    repository = SessionRepository(
        guarded(counting, RetryPolicy()), RecordOptions(timeouts=Timeouts(idle=3600))
    )
    states = await asyncio.gather(*(kept(repository, number) for number in range(SESSIONS)))
    watcher = Watcher(repository.looking, Events(), every=EVERY, sleep=pauses)
    request = make_mocked_request("GET", "/")
    line: Any = redis._line
    wire = line.wires.here()
    writes = 0
    write = wire.transport.write

    def counted(data: bytes) -> None:
        nonlocal writes
        writes += 1
        write(data)

    with ExitStack() as sockets:
        for state in states * SOCKETS_EACH:
            sockets.enter_context(watcher.watched(state, ended.append, ref[web.Request](request)))
        await watcher.look_at_all()
        monkeypatch.setattr(wire, "transport", _Written(wire.transport, counted))
        counting.loads = 0

        pauses.end()
        await becomes(lambda: counting.loads == SESSIONS and not wire.waiting)

        assert counting.loads == SESSIONS
        assert writes <= 5
        assert SESSIONS / min(pauses.seconds) <= MOST_LOOKS_A_SECOND
        await asyncio.gather(*(repository.delete(state) for state in states))
        await watcher.look_at_all()
        assert ended == [Reason.ENDED] * SESSIONS * SOCKETS_EACH
    await watcher.close()
    assert len(watcher) == 0


class _Written:
    """A transport whose writes are counted."""

    def __init__(self, transport: asyncio.Transport, write: Any) -> None:
        self._transport = transport
        self.write = write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
