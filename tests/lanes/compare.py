"""The comparison: a case on two lanes, and what differs, made as small as it goes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from tests.lanes.cases import Case, smaller
from tests.lanes.lanes import Lane
from tests.lanes.runner import observed

__all__ = ["Broken", "Difference", "breakages", "broken", "difference", "smallest"]

# Nobody's step is the reason of these.
_BREAKAGE: Final = re.compile(
    r"AttributeError|AssertionError|cannot become|unhandled: |never awaited|it hangs"
)


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


@dataclass(frozen=True)
class Broken:
    """A case in which something of ours breaks, and what was seen."""

    case: Case
    lines: list[str]

    def __str__(self) -> str:
        return "\n".join([f"--case '{self.case.to_json()}'", *self.lines])


FoundT = TypeVar("FoundT", Difference, Broken)


async def difference(case: Case, one: Lane, other: Lane) -> Difference | None:
    """Return what tells the lanes apart in *case*; ``None``: nothing does."""
    on_one, on_other = await observed(case, one), await observed(case, other)
    return None if on_one == on_other else Difference(case, on_one, on_other)


def breakages(lines: Iterable[str]) -> list[str]:
    """Return those of *lines* that no application can be the reason of."""
    return [line for line in lines if _BREAKAGE.search(line)]


async def broken(case: Case, lane: Lane) -> Broken | None:
    """Return what breaks in *case*; ``None``: nothing does."""
    lines = await observed(case, lane)
    return Broken(case, lines) if breakages(lines) else None


async def smallest(found: FoundT, look: Callable[[Case], Awaitable[FoundT | None]]) -> FoundT:
    """Return a case with as little in it as *look* still finds something in."""
    while True:
        less = await _less(found, look)
        if less is None:
            return found
        found = less


async def _less(found: FoundT, look: Callable[[Case], Awaitable[FoundT | None]]) -> FoundT | None:
    for case in smaller(found.case):
        less = await look(case)
        if less is not None:
            return less
    return None
