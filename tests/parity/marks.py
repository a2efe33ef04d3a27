"""How a test says which case it answers, and whether aiosess does the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from tests.parity.cases import CASES

__all__ = ["Answer", "answers", "parity"]

Test = TypeVar("Test", bound=Callable[..., object])

_ANSWERS: Final = "parity_answers"


@dataclass(frozen=True, slots=True)
class Answer:
    """That a test answers the case *number*; *differs* says how and why, and is empty if not."""

    number: str
    differs: str


def parity(*numbers: str, differs: str = "") -> Callable[[Test], Test]:
    """Mark a test as the answer to these cases.

    *differs*: what aiosess does in the place of it, and why. Raise ValueError for a number that
    is not listed.
    """
    unknown = set(numbers) - CASES.keys()
    if unknown or not numbers:
        raise ValueError(f"parity{numbers!r}: give numbers that tests/parity/cases.py lists")

    def mark(test: Test) -> Test:
        new = tuple(Answer(number, differs) for number in numbers)
        setattr(test, _ANSWERS, (*answers(test), *new))
        return test

    return mark


def answers(test: object) -> tuple[Answer, ...]:
    """Return the cases that *test* answers."""
    found: tuple[Answer, ...] = getattr(test, _ANSWERS, ())
    return found
