"""When a session ends: idle and absolute timeout, as arithmetic on plain numbers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias

from aiosess.errors import OptionsError

__all__ = ["DAY", "LONGEST", "Duration", "Timeouts", "seconds", "steady_of"]

DAY: Final = 86_400.0
LONGEST: Final = 100 * 365 * DAY

Duration: TypeAlias = float | timedelta
"""A span of time: seconds, or a ``timedelta``."""


def seconds(value: object, *, name: str, zero: bool = False) -> float:
    """Return *value*, a number of seconds or a ``timedelta``, as seconds.

    Raise OptionsError, naming *name*, unless it is more than zero (or zero, where *zero*) and at
    most a hundred years.
    """
    if isinstance(value, timedelta):
        number = value.total_seconds()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    else:
        raise OptionsError(f"{name}={value!r} is not a duration: give seconds or a timedelta")
    if not math.isfinite(number) or number > LONGEST:
        raise OptionsError(f"{name}={value!r} must be at most a hundred years")
    if number < 0 or (number == 0 and not zero):
        least = "zero or more" if zero else "more than zero"
        raise OptionsError(f"{name}={value!r} must be {least} seconds")
    return number


def steady_of(clock: Callable[[], float]) -> Callable[[], float]:
    """Return what spans of time go by where *clock* gives Unix time, which may be set back.

    That is the machine's own; a clock of one's own, as a test moves it, serves for both.
    """
    return time.monotonic if clock is time.time else clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """The two clocks of a session, and how rarely the first is wound up.

    *idle* and *absolute* are seconds, *absolute* ``None`` for none. *touch_after* is how many
    seconds must have passed since the last touch before the next one. *idle_without_max_age*
    is *idle* for a session that has no max_age though the options give one.
    """

    idle: float
    absolute: float | None = None
    touch_after: float = 0.0
    idle_without_max_age: float = DAY

    def __post_init__(self) -> None:
        if self.absolute is not None and self.absolute < self.idle:
            raise OptionsError(
                f"absolute_timeout={self.absolute:g} s is shorter than the idle timeout of "
                f"{self.idle:g} s: raise the one or lower the other (idle_timeout=)"
            )
        if self.touch_after >= self.idle:
            raise OptionsError(
                f"touch_after={self.touch_after:g} s is not shorter than the idle timeout of "
                f"{self.idle:g} s: busy sessions would expire"
            )

    def ttl(self, *, created_at: float, now: float, idle: float | None = None) -> float:
        """Return how many seconds from *now* a record may still live, zero or less for none.

        *idle* is the session's own idle timeout in place of the general one.
        """
        left = self.idle if idle is None else idle
        if self.absolute is None:
            return left
        return min(left, created_at + self.absolute - now)
