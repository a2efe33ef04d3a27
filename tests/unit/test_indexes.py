"""An index that others change each time it is to be written."""

from __future__ import annotations

import pytest

from aiosess.errors import Conflict, IdTaken, MergeConflict
from aiosess.events import Events
from aiosess.records.indexes import Entry, Index, Indexes, key_of_label, key_of_principal
from aiosess.storages import MemoryStorage, Stored, Version
from aiosess.testing import FakeClock


class Quicker(MemoryStorage):
    """Others write an index first, so many *times*."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        if self.times:
            self.times -= 1
            await super().create(session_id, payload, ttl)
            raise IdTaken
        return await super().create(session_id, payload, ttl)

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        if self.times:
            self.times -= 1
            kept = await self.load(session_id)
            assert kept is not None
            raise Conflict(Stored(kept.payload, kept.version))
        return await super().replace(session_id, payload, ttl, expected=expected)


async def change(storage: Quicker, waits: list[float]) -> str:
    """Enter a session into an index in *storage*; note the pauses in *waits*."""
    clock, tries = FakeClock(), list[int]()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def enter(index: Index) -> str:
        tries.append(1)
        index.sessions["h"] = Entry("id", len(tries), clock(), clock() + 9)
        return "entered"

    indexes = Indexes(storage, clock=clock, sleep=sleep, events=Events())
    return await indexes.change("p/x", enter)


async def test_an_index_is_written_though_others_are_quicker_a_few_times() -> None:
    waits: list[float] = []

    assert await change(Quicker(4), waits) == "entered"

    assert waits == []


async def test_there_are_pauses_where_others_are_quicker_again_and_again() -> None:
    waits: list[float] = []

    assert await change(Quicker(8), waits) == "entered"

    assert len(waits) == 3


async def test_an_index_is_given_up_that_others_change_each_time() -> None:
    with pytest.raises(MergeConflict):
        await change(Quicker(1000), [])


async def test_what_was_never_written_and_is_not_needed_is_not_written() -> None:
    async def leave(index: Index) -> None:
        index.revoked = 7

    storage, clock = Quicker(0), FakeClock()

    await Indexes(storage, clock=clock, events=Events()).change("p/x", leave)

    assert await storage.load("p/x") is None


async def test_an_index_forgets_what_is_over() -> None:
    clock = FakeClock()
    indexes = Indexes(MemoryStorage(), clock=clock, events=Events())

    async def enter(index: Index) -> None:
        index.sessions["short"] = Entry("a", 1, clock(), clock() + 5)
        index.sessions["long"] = Entry("b", 1, clock(), clock() + 50)

    await indexes.change("p/x", enter)
    clock.advance(10)

    assert set((await indexes.load("p/x")).sessions) == {"long"}


def test_two_principals_or_labels_never_have_one_index() -> None:
    keys = {
        key_of_principal("ab"),
        key_of_principal("a"),
        key_of_label("a", "b"),
        key_of_label("ab", ""),
        key_of_label("", "ab"),
    }

    assert len(keys) == 5
