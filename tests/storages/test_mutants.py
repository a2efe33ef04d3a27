"""Each case catches the storage that is broken in just that way."""

from __future__ import annotations

import pytest

from aiosess import MemoryStorage
from aiosess.testing import CASES, Case, FakeClock, Harness, Misbehaviour
from tests.storages.mutants import MUTANTS


def on_the_bench(storage_class: type[MemoryStorage]) -> Harness:
    clock = FakeClock()
    return Harness(lambda: storage_class(clock=clock), clock=clock)


def test_each_case_has_a_mutant() -> None:
    assert set(MUTANTS) == {case.name for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_the_case_catches_its_mutant(case: Case) -> None:
    with pytest.raises(Misbehaviour):
        await case.run(on_the_bench(MUTANTS[case.name]))
