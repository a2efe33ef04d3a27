"""Both lanes do the same, in whatever an application does."""

from __future__ import annotations

import asyncio

import pytest

from tests.lanes.cases import Case, case_of, steps_of
from tests.lanes.compare import Difference, difference, smallest
from tests.lanes.lanes import FAST, WHOLE
from tests.lanes.runner import observed
from tests.lanes.steps import STEPS

CASES = 400


async def test_nothing_that_can_be_seen_tells_the_lanes_apart() -> None:
    found = [await difference(case_of(seed), WHOLE, FAST) for seed in range(CASES)]

    differing = [each for each in found if each is not None]
    assert not differing, await told(differing)


async def told(differing: list[Difference]) -> str:
    """Return how many differ, and the first one, as it is and as small as it goes."""
    first = differing[0]
    less = await smallest(first, WHOLE, FAST)
    return f"{len(differing)} of {CASES} cases differ\n{first}\n\nas small as it goes:\n{less}"


async def test_a_case_looks_the_same_each_time() -> None:
    cases = [case_of(seed) for seed in range(50)]

    first = [await observed(case, FAST) for case in cases]
    await asyncio.sleep(0)
    second = [await observed(case, FAST) for case in cases]

    assert first == second


@pytest.mark.parametrize("seed", range(20))
def test_a_case_comes_back_from_what_is_printed_of_it(seed: int) -> None:
    case = case_of(seed)

    again = Case.from_json(case.to_json())

    assert again == case


def test_the_cases_leave_no_step_out() -> None:
    done = {step for seed in range(4 * CASES) for step in steps_of(case_of(seed))}

    assert done == set(STEPS)
