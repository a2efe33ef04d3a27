"""The comparison: a case on two lanes, and what differs, made as small as it goes."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from tests.lanes.cases import Case, smaller
from tests.lanes.lanes import Lane
from tests.lanes.runner import observed

__all__ = ["Difference", "difference", "smallest"]


@dataclass(frozen=True)
class Difference:
    """A case in which two lanes can be told apart, and what was seen on each."""

    case: Case
    on_one: list[str]
    on_other: list[str]

    def __str__(self) -> str:
        diff = difflib.unified_diff(
            self.on_one, self.on_other, "one lane", "the other lane", n=20, lineterm=""
        )
        return "\n".join([f"--case '{self.case.to_json()}'", *diff])


async def difference(case: Case, one: Lane, other: Lane) -> Difference | None:
    """Return what tells the lanes apart in *case*; ``None``: nothing does."""
    on_one, on_other = await observed(case, one), await observed(case, other)
    return None if on_one == on_other else Difference(case, on_one, on_other)


async def smallest(found: Difference, one: Lane, other: Lane) -> Difference:
    """Return a case with as little in it as still tells the lanes apart."""
    while True:
        less = await _less(found, one, other)
        if less is None:
            return found
        found = less


async def _less(found: Difference, one: Lane, other: Lane) -> Difference | None:
    for case in smaller(found.case):
        less = await difference(case, one, other)
        if less is not None:
            return less
    return None
