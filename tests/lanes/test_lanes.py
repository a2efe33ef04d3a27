"""Both lanes do the same, in whatever an application does, and nothing breaks on them."""

from __future__ import annotations

import pytest

from tests.lanes.cases import Case, case_of, steps_of
from tests.lanes.compare import Broken, Difference, breakages, broken, difference, smallest
from tests.lanes.lanes import FAST, WHOLE
from tests.lanes.runner import observed
from tests.lanes.steps import STEPS

CASES = 1_000


async def test_nothing_that_can_be_seen_tells_the_lanes_apart() -> None:
    found = [await on_both(case_of(seed)) for seed in range(CASES)]

    differing = [each for each in found if each is not None]
    assert not differing, (
        f"{len(differing)} of {CASES} cases differ\n{differing[0]}\n\n"
        f"as small as it goes:\n{await smallest(differing[0], on_both)}"
    )


# Larger cases that told the lanes apart once: by the log line of an outage.
ONCE_DIFFERENT = [
    (
        '{"seed":3887,"came":"unreadable","requests":'
        '[{"steps":["reload"]},{"steps":["mix up load","read a list"]}]}'
    ),
    (
        '{"seed":4047,"came":"ours","storage":"punctual","requests":'
        '[{"steps":["set another"],"outer":{"before":["fail twice replace"]}},'
        '{"later":11,"steps":["set"]}]}'
    ),
]


@pytest.mark.parametrize("case", ONCE_DIFFERENT)
async def test_what_once_told_the_lanes_apart_does_not_any_more(case: str) -> None:
    assert await on_both(Case.from_json(case)) is None


async def on_both(case: Case) -> Difference | None:
    return await difference(case, WHOLE, FAST)


async def test_nothing_breaks_whatever_an_application_does() -> None:
    found = [await on_one(case_of(seed)) for seed in range(CASES)]

    breaking = [each for each in found if each is not None]
    assert not breaking, (
        f"{len(breaking)} of {CASES} cases break: {breakages(breaking[0].lines)}\n"
        f"as small as it goes:\n{await smallest(breaking[0], on_one)}"
    )


async def on_one(case: Case) -> Broken | None:
    return await broken(case, FAST)


async def test_a_case_looks_the_same_each_time() -> None:
    cases = [case_of(seed) for seed in range(50)]

    first = [await observed(case, FAST) for case in cases]
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
