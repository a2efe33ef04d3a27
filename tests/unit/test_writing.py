"""Writes that meet what they wrote themselves, and touches of what goes meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from aiosess import (
    Conflict,
    CookieOptions,
    MemoryStorage,
    StorageUnavailable,
)
from aiosess.records.repository import RecordOptions, SessionRepository
from aiosess.records.state import Intent, SessionState
from aiosess.storages import Storage, Stored
from aiosess.testing import FakeClock, FaultyStorage
from aiosess.timeouts import Timeouts

COOKIE = CookieOptions(secure=False)


class Bench:
    """A repository in which users are known by the key ``user``."""

    def __init__(self, storage: Storage | None = None) -> None:
        self.clock = FakeClock()
        self.memory = MemoryStorage(clock=self.clock)
        self.faulty = FaultyStorage(self.memory)
        self.repository = SessionRepository(
            storage or self.faulty,
            RecordOptions(timeouts=Timeouts(idle=3600), principal_keys=frozenset({"user"})),
            clock=self.clock,
        )

    async def keep(self, session_id: str, **data: Any) -> SessionState:
        state = self.repository.fresh(session_id, COOKIE)
        state.data.update(data)
        await self.repository.create(state)
        return state

    async def come(self, session_id: str) -> SessionState:
        state = await self.repository.load(session_id, COOKIE)
        assert isinstance(state, SessionState)
        return state

    async def renew(self, before: str, after: str) -> None:
        async def new_id() -> str:
            return after

        state = await self.come(before)
        await self.repository.move(state, new_id)
        state.intent = Intent.RENEW
        assert state.previous is not None
        await self.repository.renew(state, state.previous)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def changed(bench: Bench) -> tuple[SessionState, bytes, Any]:
    """Return a session that was changed, the payload of that, and what is to be noted of it."""
    await bench.keep("id", n=1)
    state = await bench.come("id")
    state.originals["n"] = 1
    state.data["n"] = 2
    return state, bench.repository.writing.encoded(state), state.snapshot()


async def test_a_write_that_is_there_already_was_a_success(bench: Bench) -> None:
    state, payload, snapshot = await changed(bench)
    version = await bench.memory.replace("id", payload, 60, expected=state.version)
    conflict = Conflict(await bench.memory.load("id"))

    is_kept = await bench.repository.resolve(state, conflict, payload, snapshot)

    assert is_kept
    assert state.version == version


async def test_a_write_over_one_of_ours_that_gets_no_answer_may_have_been_done(
    bench: Bench,
) -> None:
    state, payload, snapshot = await changed(bench)
    stored = await bench.memory.load("id")
    assert stored is not None
    bench.repository.writing.doubt(state, stored.payload)
    bench.faulty.fail(verbs=("replace",))

    with pytest.raises(StorageUnavailable):
        await bench.repository.resolve(state, Conflict(stored), payload, snapshot)

    assert state.unconfirmed == (stored.payload, payload)


class Forgetful(FaultyStorage):
    """A storage whose records go between a load and the touch that follows."""

    async def load_and_touch(self, session_id: str, _ttl: float) -> tuple[Stored, bool] | None:
        stored = await self.storage.load(session_id)
        await self.storage.delete(session_id)
        return None if stored is None else (stored, False)


async def test_a_record_that_goes_while_it_is_touched_is_gone() -> None:
    bench = Bench(Forgetful())
    state = await bench.keep("id", n=1)

    assert not await bench.repository.touch(state)
