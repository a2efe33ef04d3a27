"""One measurement, its neighbours, and the medians over the rounds."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Sample:
    """One run of wrk against one variant; CPU, commands and bytes are those of one request."""

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


@dataclass
class Measured:
    """A sample, those of the bare handler before and after it, and its rival's."""

    sample: Sample
    bare: tuple[Sample, Sample]
    bare_name: str
    rival: Sample | None

    @property
    def ratio(self) -> float:
        """The share of the bare handler's requests per second."""
        return self.sample.per_second / statistics.mean(each.per_second for each in self.bare)

    @property
    def cpu_added_us(self) -> float:
        return self.sample.cpu_us - statistics.mean(each.cpu_us for each in self.bare)

    @property
    def cpu_share(self) -> float:
        """The bare handler's processor time for a request, as a share of this one's."""
        return statistics.mean(each.cpu_us for each in self.bare) / self.sample.cpu_us

    @property
    def p99_ratio(self) -> float:
        return self.sample.p99_ms / statistics.mean(each.p99_ms for each in self.bare)


@dataclass(frozen=True)
class Setting:
    """Under what variants are compared."""

    loop: str
    connections: int


Results = dict[Setting, dict[str, list[Measured]]]


def median(rounds: list[Measured], of: Callable[[Measured], float]) -> float:
    return statistics.median(of(each) for each in rounds)


def commands(rounds: list[Measured]) -> dict[str, float]:
    """Return the median of each command a request."""
    names = {name for each in rounds for name in each.sample.commands or {}}
    medians = {
        name: statistics.median((each.sample.commands or {}).get(name, 0.0) for each in rounds)
        for name in sorted(names)
    }
    return {name: count for name, count in medians.items() if count > 0.02}


def connections(rounds: list[Measured]) -> int | None:
    """Return the connections to the back-end.

    They are those of the first round: later ones find what more clients have left open.
    """
    return rounds[0].sample.connections


def figure(rounds: list[Measured], name: str) -> float | None:
    """Return the median of the figure that a goal speaks of, ``None`` where it has none."""
    match name:
        case "ratio":
            return median(rounds, lambda each: each.ratio)
        case "p99_ratio":
            return median(rounds, lambda each: each.p99_ratio)
        case "commands":
            return sum(commands(rounds).values())
        case "connections":
            return connections(rounds)
        case "rival":
            times = [
                each.sample.per_second / each.rival.per_second for each in rounds if each.rival
            ]
            return statistics.median(times) if times else None
        case _:
            raise ValueError(name)
