"""How long one act of a request may wait for the storage, whatever it asks of it.

An act is the load, the commit, or an explicit verb. What it spends is calls and their retries, the
waits between them, merges, and the queue of a session that many change at once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeVar

from aiosess.clients.pipeline import STALL, expire
from aiosess.errors import StorageUnavailable

__all__ = [
    "Budget",
    "BudgetSpent",
    "grant_pause",
    "in_time",
    "is_spending",
    "seconds_left",
    "uncounted",
]

P = ParamSpec("P")
T = TypeVar("T")

_BEAT: Final = 0.05
_SPENT: Final = "the budget of an act was spent before the storage was done"


class Budget:
    """The *seconds* that each act may wait for the storage, and so many pauses between calls."""

    def __init__(self, seconds: float, *, pauses: int = 0) -> None:
        self.seconds = seconds
        self._pauses = pauses

    async def spend(
        self, act: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return what *act* returns; what it asks of a guarded storage has to be in time."""
        return await self.spend_rest(0.0, act, *args, **kwargs)

    async def spend_rest(
        self,
        spent: float,
        act: Callable[P, Coroutine[Any, Any, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Return what *act* returns, which goes on where one call took *spent* seconds.

        At most a half of the budget counts as spent: to whoever looked at no clock meanwhile, an
        event loop that was busy looks like a storage that was slow.
        """
        clock = _patient_clock()
        before = _ACT.get()
        until = clock.now() + self.seconds - min(spent, self.seconds / 2)
        begun = _Act(clock, until, self._pauses)
        _ACT.set(begun)
        clock.start()
        try:
            return await act(*args, **kwargs)
        finally:
            clock.stop()
            begun.is_over = True
            _ACT.set(before)


def is_spending() -> bool:
    """Ask whether this task is in an act that has a budget."""
    return _under_way() is not None


def seconds_left() -> float:
    """Return the seconds that the act under way may still wait; without a budget, infinity."""
    act = _under_way()
    return math.inf if act is None else act.until - act.clock.now()


def grant_pause(seconds: float) -> bool:
    """Return whether a call can follow after a pause of so many *seconds*, which then begins."""
    act = _under_way()
    if act is None:
        return True
    if act.pauses:
        act.pauses -= 1
        act.until += seconds
    return seconds < act.until - act.clock.now()


async def uncounted(call: Awaitable[T]) -> T:
    """Return what *call* returns, which asks the application and not the storage."""
    act = _under_way()
    if act is None:
        return await call
    began = act.clock.now()
    try:
        return await call
    finally:
        act.until += act.clock.now() - began


class BudgetSpent(StorageUnavailable):
    """An act of a request has no time left: that says nothing of the node that it would ask."""


async def in_time(
    call: Callable[[], Awaitable[T]], limit: float, *, late: StorageUnavailable | None = None
) -> T:
    """Return what *call* returns; *late* when it takes more than *limit* seconds, or BudgetSpent.

    Where the event loop was busy, what came meanwhile is read before the call is given up.
    """
    if limit <= 0:
        raise BudgetSpent(_SPENT)
    scope = asyncio.timeout(None)
    try:
        async with scope:
            timer = expire(scope, limit)
            try:
                return await call()
            finally:
                timer.cancel()
    except TimeoutError:
        if not scope.expired():
            raise
        raise late or BudgetSpent(_SPENT) from None


class _PatientClock:
    """Seconds of one event loop, that do not pass while the loop is busy.

    It beats while anybody looks at it. A beat that is late tells for how long nothing was read.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lost = 0.0
        self._users = 0
        self._beat_at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def now(self) -> float:
        """Return the seconds, as of a beat that is overdue."""
        return min(self._loop.time(), self._beat_at + STALL) - self._lost

    def start(self) -> None:
        """Beat, now that one more looks at it."""
        self._users += 1
        if self._users == 1:
            self._next()

    def stop(self) -> None:
        """Beat no more, if nobody looks at it any longer."""
        self._users -= 1
        if not self._users and self._timer is not None:
            self._timer.cancel()
            self._lost += self._overdue()
            self._timer, self._beat_at = None, math.inf

    def _next(self) -> None:
        self._beat_at = self._loop.time() + _BEAT
        self._timer = self._loop.call_at(self._beat_at, self._beat)

    def _beat(self) -> None:
        self._lost += self._overdue()
        self._next()

    def _overdue(self) -> float:
        return max(0.0, self._loop.time() - self._beat_at - STALL)


@dataclass(slots=True)
class _Act:
    """What an act has left: its end by *clock*, and the pauses that put it off."""

    clock: _PatientClock
    until: float
    pauses: int
    is_over: bool = False


_ACT: ContextVar[_Act | None] = ContextVar("aiosess.act", default=None)


def _under_way() -> _Act | None:
    """Return the act of this task; ``None`` where it has none, or began in one that is over."""
    act = _ACT.get()
    return None if act is None or act.is_over else act


_CLOCKS: Final[dict[asyncio.AbstractEventLoop, _PatientClock]] = {}


def _patient_clock() -> _PatientClock:
    loop = asyncio.get_running_loop()
    clock = _CLOCKS.get(loop)
    if clock is None:
        for closed in [each for each in list(_CLOCKS) if each.is_closed()]:
            _CLOCKS.pop(closed, None)
        clock = _CLOCKS[loop] = _PatientClock(loop)
    return clock
