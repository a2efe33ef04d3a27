"""A fast lane that forgets something is noticed."""

from __future__ import annotations

import pytest

from tests.lanes.cases import case_of
from tests.lanes.lanes import FAST, lane_of
from tests.lanes.mutants import MUTANTS, Mutant, mutated
from tests.lanes.runner import observed

# So many cases, at the most, until a mutant shows.
ENOUGH = 3000


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
async def test_a_lane_is_noticed_that_forgets(mutant: Mutant) -> None:
    lane = lane_of(mutated(mutant))

    seen_at = None
    for seed in (*range(mutant.first, ENOUGH), *range(mutant.first)):
        if await observed(case_of(seed), lane) != await healthy(seed):
            seen_at = seed
            break

    assert seen_at is not None


# The lane as it is does the same for each mutant.
SEEN: dict[int, list[str]] = {}


async def healthy(seed: int) -> list[str]:
    """Return what is seen of the case on the lane as it is."""
    if seed not in SEEN:
        SEEN[seed] = await observed(case_of(seed), FAST)
    return SEEN[seed]


def test_a_mutant_whose_text_is_gone_says_so() -> None:
    stale = Mutant("nothing", "a text that stands nowhere", "")

    with pytest.raises(LookupError, match="stands 0 times"):
        mutated(stale)
