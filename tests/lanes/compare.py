"""The comparison: cases on two lanes, and what differs, made as small as it goes."""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from tests.lanes.cases import Case, smaller
from tests.lanes.lanes import Lane
from tests.lanes.runner import observed

__all__ = ["Difference", "differences", "smallest"]


@dataclass(frozen=True)
class Difference:
    """A case that can be told apart on two lanes, and what was seen on each."""

    case: Case
    on_one: list[str]
    on_other: list[str]

    def __str__(self) -> str:
        diff = difflib.unified_diff(self.on_one, self.on_other, "one lane", "the other", n=8, lineterm="")
        return "\n".join([f"case: {self.case.to_json()}", *diff])


async def difference(case: Case, one: Lane, other: Lane) -> Difference | None:
    """Return what tells the lanes apart in *case*; ``None``: nothing."""
    on_one, on_other = await observed(case, one), await observed(case, other)
    return None if on_one == on_other else Difference(case, on_one, on_other)


async def differences(cases: Iterable[Case], one: Lane, other: Lane) -> AsyncIterator[Difference]:
    """Yield each difference between the lanes."""
    for case in cases:
        found = await difference(case, one, other)
        if found is not None:
            yield found


async def smallest(found: Difference, one: Lane, other: Lane) -> Difference:
    """Return a case with as little in it as still tells the lanes apart."""
    while True:
        for case in smaller(found.case):
            less = await difference(case, one, other)
            if less is not None:
                found = less
                break
        else:
            return found
