"""The contract's cases where a storage is wrong at the step before the one that is looked at."""

from __future__ import annotations

import pytest

from aiosess import Conflict, MemoryStorage, Version
from aiosess.testing import CASES, Case, FakeClock, FaultyStorage, Harness, Misbehaviour


def case(name: str) -> Case:
    return next(each for each in CASES if str(each) == name)


class Overwriting(MemoryStorage):
    """A storage in which no id is ever taken."""

    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        await self.delete(session_id)
        return await super().create(session_id, payload, ttl)


class Refusing(MemoryStorage):
    """A storage that finds a conflict in each replace."""

    async def replace(
        self, session_id: str, _payload: bytes, _ttl: float, *, expected: Version
    ) -> Version:
        assert expected is not None
        raise Conflict(await self.load(session_id))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Overwriting, "a_refused_create_does_not_extend_life"),
        (Refusing, "the_ttl_of_replace_counts"),
    ],
)
async def test_a_storage_that_fails_before_the_time_counts_is_told_so(
    kind: type[MemoryStorage], name: str
) -> None:
    clock = FakeClock()

    with pytest.raises(Misbehaviour):
        await case(name).run(Harness(lambda: kind(clock=clock), clock))


async def test_a_time_limit_of_the_storage_itself_is_not_taken_for_ours() -> None:
    storage = FaultyStorage()
    storage.fail(TimeoutError("of the storage"))

    with pytest.raises(TimeoutError, match="of the storage"):
        await CASES[0].run(Harness(lambda: storage))
