"""What is fuzzed: how inputs are made, and what must hold for each; and how many are run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from hypothesis import HealthCheck, given, seed, settings
from hypothesis.strategies import SearchStrategy

__all__ = ["Target", "in_bounds", "run"]

# Seconds of this process that one input may take: an input that takes more holds the loop.
_MOST_WORK: Final = 3.0


@dataclass(frozen=True, kw_only=True)
class Target:
    """Inputs, and a check that raises an AssertionError for each that finds a fault.

    *few* is how many of them are run with all other tests.
    """

    name: str
    inputs: SearchStrategy[Any]
    check: Callable[[Any], None]
    few: int = field(default=100)


def run(
    target: Target,
    count: int,
    *,
    first: int | None = None,
    told: Callable[[int], None] = lambda _: None,
) -> int:
    """Check *count* inputs, and return how many there were; raise the fault that one shows.

    The inputs are the same each time, or those of the seed *first*. *told* hears how many were
    done.
    """
    done = 0

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=first is None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def each(made: Any) -> None:
        nonlocal done
        done += 1
        told(done)
        in_bounds(target.check, made)

    (each if first is None else seed(first)(each))()
    return done


def in_bounds(check: Callable[[Any], None], made: Any) -> None:
    """Run *check*, and raise an AssertionError where it took more work than any input may."""
    began = time.process_time()
    check(made)
    took = time.process_time() - began
    assert took < _MOST_WORK, f"the input took {took:.1f} s"
