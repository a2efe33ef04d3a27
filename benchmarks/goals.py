"""What a session may cost: the goals, counted in instructions, and whether they are reached.

All are thousand instructions beyond an application with an empty middleware: what aiohttp takes for
the first middleware, some 15 thousand, an application with any middleware has paid already.
"""

from __future__ import annotations

from dataclasses import dataclass

Figures = dict[str, float]


@dataclass(frozen=True)
class Goal:
    """What a case may cost; a *rival* makes it a share of what that one costs."""

    label: str
    case: str
    at_first: float
    """What it cost when the goals were set."""
    at_least: float
    aim: float
    rival: str | None = None

    def figure(self, beyond: Figures) -> float | None:
        """Return the figure that the goal speaks of, ``None`` where it was not counted."""
        if self.case not in beyond:
            return None
        if self.rival is None:
            return beyond[self.case]
        return beyond[self.case] / beyond[self.rival] if self.rival in beyond else None

    def verdict(self, figure: float) -> str:
        """Return whether *figure* is what it should be, as precisely as it is printed."""
        figure = round(figure, self._digits)
        if figure <= self.aim:
            return "reached, the aim too"
        return "reached" if figure <= self.at_least else "**not reached**"

    def row(self, figure: float) -> str:
        digits = self._digits
        parts = [self.label, f"{self.at_first:g}", f"{self.at_least:g}", f"{self.aim:g}"]
        return f"| {' | '.join(parts)} | {figure:.{digits}f} | {self.verdict(figure)} |"

    @property
    def _digits(self) -> int:
        return 1 if self.rival is None else 2


GOALS = [
    Goal("route excluded", "excluded", 11, 11, 7),
    Goal("session not used", "unused", 16.3, 16, 12),
    Goal("memory, read", "memory-read", 61.5, 55, 48),
    Goal("memory, write", "memory-write", 98, 82, 70),
    Goal("Redis, read", "redis-read", 89, 85, 77),
    Goal("Redis, write", "redis-write", 169, 160, 145),
    Goal("memcached, read", "memcached-read", 94, 90, 82),
    Goal("memcached, write", "memcached-write", 164, 155, 140),
    Goal(
        "Redis, read: share of aiohttp-session's", "redis-read", 0.23, 0.22, 0.20, "as-redis-read"
    ),
    Goal(
        "Redis, write: share of aiohttp-session's",
        "redis-write",
        0.21,
        0.20,
        0.18,
        "as-redis-write",
    ),
]

HEAD = (
    "| thousand instructions beyond an empty middleware | at c38b870 | at least | aim | now | |\n"
    "| --- | --- | --- | --- | --- | --- |"
)


def table(beyond: Figures) -> str:
    """Return the goals of what was counted, as Markdown."""
    figures = [(goal, goal.figure(beyond)) for goal in GOALS]
    return "\n".join([HEAD, *(goal.row(figure) for goal, figure in figures if figure is not None)])
