"""How long a record lives from now on, and when it is touched again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from aiosess.records.state import SessionState
from aiosess.timeouts import Timeouts, steady_of

__all__ = ["LEAST_TTL", "Lifetime", "Touched"]

LEAST_TTL: Final = 0.001
"""Seconds that a record is given whose time is over, where it must be kept all the same."""

# A touch so many seconds ago need not be repeated by the same request.
_JUST_NOW: Final = 1.0


class Lifetime:
    """The two timeouts of an application, for each of its sessions.

    *is_idle_by_cookie*: each request's cookie options say how long its session may be idle. *clock*
    gives Unix time, which may be set back; spans of time go by ``steady``. That is the machine's,
    unless *clock* is a clock of one's own, which serves for both.
    """

    def __init__(
        self,
        timeouts: Timeouts,
        *,
        is_idle_by_cookie: bool,
        clock: Callable[[], float],
    ) -> None:
        self.steady: Callable[[], float] = steady_of(clock)
        self.idle: float = timeouts.idle
        self.touched: Touched = Touched(timeouts.touch_after, self.steady)
        self.touch_after: float = timeouts.touch_after
        self.now = clock
        self.is_idle_by_cookie = is_idle_by_cookie
        self._timeouts = timeouts

    @property
    def ends_anyway(self) -> bool:
        """Whether there is an absolute timeout."""
        return self._timeouts.absolute is not None

    def ttl(self, state: SessionState) -> float:
        """Return how many seconds the record may live from now; zero or less: it is over."""
        cookie, timeouts = state.cookie, self._timeouts
        if not cookie.own and cookie.base.expires is None and not self.is_idle_by_cookie:
            return timeouts.ttl(created_at=_began_at(state), now=self.now())
        now = self.now()
        fixed = cookie.expires
        idle = self.own_idle(state) if fixed is None else fixed.timestamp() - now
        return timeouts.ttl(created_at=_began_at(state), now=now, idle=idle)

    def own_idle(self, state: SessionState) -> float | None:
        """Return this session's own idle timeout; ``None`` where the general one counts."""
        own = state.cookie.own
        if own.get("expires") is not None:
            return None
        if "max_age" not in own:
            return state.cookie.max_age if self.is_idle_by_cookie else None
        # That a cookie ends with the browser says nothing of its record, as in connect-redis.
        return self._timeouts.idle_without_max_age if own["max_age"] is None else own["max_age"]

    def ends_at(self, state: SessionState) -> float:
        """Return the Unix time at which *state* ends, if this request is the last.

        Where it does not touch the record, since that was done less than ``touch_after`` ago, that
        is the earliest time.
        """
        now, left = self.now(), self.ttl(state)
        if state.cookie.expires is None and not (state.may_be_modified or self.is_touch_due(state)):
            own = self.own_idle(state)
            left = min(left, (self.idle if own is None else own) - self._since_touch(state))
        return now + left

    def _since_touch(self, state: SessionState) -> float:
        """Return the most seconds that can have passed since the record was touched."""
        if state.touched_at is not None:
            return self.steady() - state.touched_at
        return self._timeouts.touch_after

    def latest_end(self, state: SessionState) -> float:
        """Return the Unix time at which *state* is over if it is touched no more.

        It may still be touched for ``touch_after`` from now by whoever looked at it now.
        """
        now, absolute = self.now(), self._timeouts.absolute
        idle_end = now + max(self.ttl(state), 0.0) + self.touch_after
        return idle_end if absolute is None else min(idle_end, _began_at(state) + absolute)

    def is_prolonged(self, state: SessionState) -> bool:
        """Ask whether *state* lives longer from here on than it was kept for, or may do so."""
        if state.cookie.own != state.original_own:
            return True
        before = state.previous
        is_proved = before is not None and before.authenticated_at != state.authenticated_at
        return self.ends_anyway and is_proved

    @property
    def longest_unlooked(self) -> float:
        """The most seconds for which a session can be alive that nobody has looked at."""
        return self.idle + self.touch_after

    def is_over(self, state: SessionState) -> bool:
        """Ask whether the absolute timeout has passed."""
        absolute = self._timeouts.absolute
        return absolute is not None and self.now() >= _began_at(state) + absolute

    def is_touch_due(self, state: SessionState) -> bool:
        """Ask whether this process last touched the record ``touch_after`` ago, or never."""
        own: float | None = None
        if state.cookie.own or self.is_idle_by_cookie:
            own = self.own_idle(state)
        if state.touched_at is not None:
            passed = self.steady() - state.touched_at
            if passed < min(_JUST_NOW, (own or self.idle) / 20):
                return False
        if own is not None and own < self.idle:
            # touch_after fits the general idle timeout; this session might end before it is due.
            return True
        return self.touched.is_due(state.session_id)


def _began_at(state: SessionState) -> float:
    """Return when the absolute timeout begins: NIST SP 800-63B-4, section 5.2."""
    return state.created_at if state.authenticated_at is None else state.authenticated_at


class Touched:
    """Which sessions this process touched less than *after* seconds ago, in bounded memory.

    Two sets take turns, so that an id is forgotten between a half of *after* and the whole.
    """

    _MOST: Final = 100_000

    def __init__(self, after: float, clock: Callable[[], float]) -> None:
        self._half = after / 2
        self._clock = clock
        self._turned_at = clock()
        self._turn_at = self._turned_at + self._half if after else math.inf
        self._newer: set[str] = set()
        self._older: set[str] = set()

    def add(self, session_id: str) -> None:
        """Take note that the record was touched just now."""
        if not self._half:
            return
        if self._clock() >= self._turn_at or len(self._newer) >= self._MOST:
            self._turn()
        self._newer.add(session_id)

    def is_due(self, session_id: str) -> bool:
        """Ask whether the record was not touched since it would have to be touched again."""
        clock = self._clock
        late = clock() - self._turn_at
        if late < 0:
            return session_id not in self._newer and session_id not in self._older
        # What was newer is older from here on; after another half, that is forgotten, too.
        return late >= self._half or session_id not in self._newer

    def _turn(self) -> None:
        passed = self._clock() - self._turned_at
        self._older = self._newer if passed < 2 * self._half else set()
        self._newer = set()
        # By whole halves, so that a late turn makes nothing look younger than it is.
        self._turned_at += passed - passed % self._half
        self._turn_at = self._turned_at + self._half
