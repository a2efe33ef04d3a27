"""What one process showed, and what several show together: medians, and how sure they are."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_RESAMPLES = 2000


@dataclass
class Sample:
    """One run of wrk against one process; CPU, commands and bytes are those of one request."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    bad: int
    cpu_us: float = 0.0
    connections: int | None = None
    commands: dict[str, float] | None = None
    bytes_in: float | None = None
    bytes_out: float | None = None

    @property
    def per_second(self) -> float:
        """The requests that were answered well, for each second."""
        return max(0, self.requests - self.bad) / self.seconds


@dataclass(frozen=True)
class Setting:
    """Under what variants are compared."""

    loop: str
    connections: int


@dataclass(frozen=True)
class Interval:
    """A figure, and between what it lies in 95 of 100 cases."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.low:.2f} to {self.high:.2f})"


Samples = list[Sample]
"""One for each process."""

Results = dict[Setting, dict[str, Samples]]
"""By setting and by variant."""


def per_second(sample: Sample) -> float:
    return sample.per_second


def cpu(sample: Sample) -> float:
    return sample.cpu_us


def p99(sample: Sample) -> float:
    return sample.p99_ms


def median(samples: Samples, of: Callable[[Sample], float]) -> float:
    return statistics.median(of(each) for each in samples)


def ratio(ours: Samples, theirs: Samples, of: Callable[[Sample], float]) -> Interval:
    """Return the ratio of two medians over processes, with its bootstrap interval.

    What is drawn anew are processes: runs of one process have its luck in common.
    """
    chance = random.Random(0)
    above, below = [of(each) for each in ours], [of(each) for each in theirs]

    def drawn(values: Sequence[float]) -> float:
        return statistics.median(chance.choices(values, k=len(values)))

    ratios = sorted(drawn(above) / drawn(below) for _ in range(_RESAMPLES))
    return Interval(
        statistics.median(above) / statistics.median(below),
        ratios[round(0.025 * _RESAMPLES)],
        ratios[round(0.975 * _RESAMPLES) - 1],
    )


def commands(samples: Samples) -> dict[str, float]:
    """Return the median of each command a request."""
    names = {name for each in samples for name in each.commands or {}}
    medians = {
        name: statistics.median((each.commands or {}).get(name, 0.0) for each in samples)
        for name in sorted(names)
    }
    return {name: count for name, count in medians.items() if count > 0.02}


def connections(samples: Samples) -> int | None:
    """Return the most connections that a process had to its back-end."""
    return max((each.connections for each in samples if each.connections is not None), default=None)
