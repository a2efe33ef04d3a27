"""One connection that many share: the calls of a tick leave together, and are answered in order."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any, Final, Generic, TypeAlias, TypeVar

from aiosess.errors import StorageUnavailable

__all__ = ["STALL", "Call", "Pipeline", "Wires", "clock", "expire", "hang_up", "keep_alive"]

# When so many calls are not sent yet, those that were given up are looked for and forgotten.
_SWEEP_AT: Final = 1000

STALL: Final = 0.01
"""A timer that is late by so many seconds means that the event loop was busy."""
# A tick is long that takes this share of a time limit.
_LONG_TICK: Final = 0.1
# In so many turns, each event loop reads what had come before them.
_TURNS: Final = 2
# An answer that is on its way prolongs a call to so many of its time limits at the most.
_LONGEST: Final = 10
# So many seconds are between two looks for calls that waited too long.
_BETWEEN_LOOKS: Final = 0.01

# Seconds of silence before the first probe, and between two; how many may stay unanswered.
_KEEP_ALIVE: Final = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 3}

clock: Final = time.monotonic
"""What the time limits go by, in seconds."""

Call: TypeAlias = tuple[asyncio.Future[Any], bytes, float, float, Any]
"""A future for the answer, the command, when it was asked, its time limit, and what fits it.

There is one for each call, hence a plain tuple.
"""


_is_done: Final = asyncio.Future[Any].done
_answer_of: Final = itemgetter(0)
_command_of: Final = itemgetter(1)
_asked_at: Final = itemgetter(2)


class Pipeline(asyncio.Protocol, ABC):
    """Sends what is asked in one tick together; the answers are those of ``waiting``, in order.

    A call may be given up at any time: if it was not sent yet, it never is; if it was, its answer
    is read and thrown away. A time limit counts from the server's last sign of life, so that a
    large answer delays the others and refuses none, for ten time limits at the most. A server that
    owes an answer and says nothing for that long is given up: another connection takes the next
    calls, and those not sent yet.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        # No call is taken any more; those that wait may be answered until it is closed.
        self.is_over: bool = False
        self.is_closed: bool = False
        self.transport: asyncio.Transport | None = None
        self.waiting: deque[Call] = deque()
        # The server's last sign of life.
        self.moved_at: float = 0.0
        self._may_write = True
        self._outbox: list[Call] = []
        self._timer: asyncio.TimerHandle | None = None
        self._sweep_at = _SWEEP_AT
        self._look_at = math.inf
        self._least_timeout = math.inf
        # Since it takes no calls: how many waited then, and how many of the first have failed.
        self._owed = 0
        self._failed = 0

    def ask(self, command: bytes, timeout: float, fits: Any = None) -> asyncio.Future[Any]:
        """Send *command* at the end of this tick; the future is its answer.

        By *fits* a connection knows which answers may be those to the command: by its key, or by
        their class. The future fails with StorageUnavailable when the server says nothing for
        *timeout* seconds.
        """
        outbox = self._outbox
        if self.is_over or len(outbox) >= self._sweep_at:
            self._sweep()
        # loop.create_future() with a call less; the loop is this one.
        answer: asyncio.Future[Any] = asyncio.Future(loop=self.loop)
        if not outbox:
            self.loop.call_soon(self._send_asked)
        now = clock()
        outbox.append((answer, command, now, timeout, fits))
        if now + timeout < self._look_at:
            self._look_by(now + timeout, timeout)
        return answer

    def take(self, calls: Sequence[Call]) -> None:
        """Do what was asked before this connection stood."""
        self._check_is_not_over()
        self._outbox.extend(calls)
        # Late calls are looked for in order of time.
        self._outbox.sort(key=_asked_at)
        self.loop.call_soon(self.send)
        for _, _, asked_at, timeout, _ in calls:
            self._look_by(asked_at + timeout, timeout)

    def pause_writing(self) -> None:
        """Let calls wait until the server has read what was sent."""
        self._may_write = False

    def resume_writing(self) -> None:
        """Send what waited."""
        self._may_write = True
        self.moved_at = clock()
        self.send()

    def send(self) -> None:
        """Send what was asked, once the connection stands and takes more."""
        if self.transport is None or self.is_over or not self._may_write:
            return
        calls, self._outbox = self._outbox, []
        # What was given up before it was sent is never sent; map() asks without a step in Python.
        if any(map(_is_done, map(_answer_of, calls))):
            calls = [call for call in calls if not call[0].done()]
        if not calls:
            return
        self.waiting.extend(calls)
        self.transport.write(b"".join(map(_command_of, calls)))

    def _send_asked(self) -> None:
        """Send what was asked in the tick that is over; a long one does not count."""
        calls = self._outbox
        if calls and self.transport is not None and self._may_write:
            now, (_, _, asked_at, timeout, _) = clock(), calls[0]
            if now - asked_at > timeout * _LONG_TICK:
                # The server could not know of them.
                calls[:] = [(*call[:2], now, *call[3:]) for call in calls]
        self.send()

    def end(self, error: BaseException) -> None:
        """Be closed: no call waits any longer."""
        if self.is_closed:
            return
        self.is_over = self.is_closed = True
        self._stop_looking()
        calls = [call for call in (*self.waiting, *self._outbox) if not call[0].done()]
        self.waiting.clear()
        self._outbox.clear()
        self.ended(calls, error)

    @abstractmethod
    def ended(self, calls: Sequence[Call], error: BaseException) -> None:
        """Tell those who waited, and let go of the connection."""

    @abstractmethod
    def pass_on(self, calls: Sequence[Call]) -> None:
        """Let another connection do *calls*, which this one was asked and did not send."""

    def _look_by(self, at: float, timeout: float) -> None:
        """Look at *at* or before for who has waited for *timeout* seconds."""
        self._least_timeout = min(self._least_timeout, timeout)
        if at < self._look_at:
            self._stop_looking()
            self._look_at = at
            self._timer = self.loop.call_later(max(0.0, at - clock()), self._look)

    def _stop_looking(self) -> None:
        self._look_at = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Refuse who waits too long by now, once what has come by now is read.

        However long the event loop was busy: a server that has answered refuses nobody. Who waits
        for a connection has that much longer, because it takes several answers to make one.
        """
        stalled = 0.0 if self._timer is None else self.loop.time() - self._timer.when()
        if self.transport is None and stalled > STALL:
            self._timer = self.loop.call_later(stalled, self._read_first, _TURNS, clock())
        else:
            self._read_first(_TURNS, clock())

    def _read_first(self, turns: int, now: float) -> None:
        if turns:
            self._timer = self.loop.call_later(0, self._read_first, turns - 1, now)
        else:
            self._look_now(now)

    def _look_now(self, now: float) -> None:
        self._stop_looking()
        next_at = max(self._refuse_late(now), now + _BETWEEN_LOOKS)
        if next_at < math.inf:
            self._look_by(next_at, math.inf)
        elif self.is_over:
            self.end(TimeoutError("the server said nothing"))

    def _refuse_late(self, now: float) -> float:
        """Refuse the calls whose time is over; return when that of the next one is."""
        unsent, next_unsent_at = self._refuse(self._outbox, now)
        # What was given up goes at once, and its payload with it.
        del self._outbox[:unsent]
        if self.is_over:
            skipped = max(0, self._failed - (self._owed - len(self.waiting)))
            sent, next_at = self._refuse(islice(self.waiting, skipped, None), now)
            self._failed = skipped + sent + self._owed - len(self.waiting)
            return next_at
        sent, next_at = self._refuse(self.waiting, now)
        if not sent:
            return min(next_at, next_unsent_at)
        self.is_over = True
        self._owed, self._failed = len(self.waiting), sent
        calls, self._outbox = [call for call in self._outbox if not call[0].done()], []
        if calls:
            self.pass_on(calls)
        return next_at

    def _refuse(self, calls: Iterable[Call], now: float) -> tuple[int, float]:
        """Refuse those of *calls* whose time is over.

        Return how many of the first that are, and when that of the next one is. The calls are in
        order of time: after one that is young enough for every limit, no other is looked at.
        """
        late, next_at = 0, math.inf
        for answer, _, asked_at, timeout, _ in calls:
            since, least = max(asked_at, self.moved_at), self._least_timeout
            soonest_at = min(since + least, asked_at + _LONGEST * least)
            if soonest_at > now:
                return late, min(next_at, soonest_at)
            due_at = min(since + timeout, asked_at + _LONGEST * timeout)
            if due_at > now:
                next_at = min(next_at, due_at)
                continue
            late += next_at == math.inf
            if not answer.done():
                answer.set_exception(StorageUnavailable.after(timeout))
        return late, next_at

    def _sweep(self) -> None:
        """Forget what was given up before it was sent; raise an error where this is over."""
        self._check_is_not_over()
        self._outbox[:] = [call for call in self._outbox if not call[0].done()]
        # However many are left, each is looked at a few times only.
        self._sweep_at = max(_SWEEP_AT, 2 * len(self._outbox))

    def _check_is_not_over(self) -> None:
        if self.is_over:
            raise ConnectionResetError("the connection was lost")


def expire(scope: asyncio.Timeout, limit: float) -> asyncio.TimerHandle:
    """Let *scope* expire in *limit* seconds; whoever leaves it earlier cancels the timer.

    Where the event loop is busy then, it has that much longer: what came meanwhile is read.
    """
    loop = asyncio.get_running_loop()
    due_at = loop.time() + limit

    def give_up() -> None:
        stalled = loop.time() - due_at
        scope.reschedule(loop.time() + (stalled if stalled > STALL else 0.0))

    return loop.call_at(due_at, give_up)


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """Let the operating system notice when the other side has gone, and firewalls that it has not.

    What is no TCP, or cannot be told so, stays as it is.
    """
    end: socket.socket | None = transport.get_extra_info("socket")
    if end is None or end.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE.items():
            # Not every system has a name for each.
            if hasattr(socket, name):
                end.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def hang_up(transport: asyncio.BaseTransport | None) -> None:
    """Tell the server at once that a connection is over whose event loop was closed.

    The socket itself is closed when nobody refers to it any longer.
    """
    if transport is None:
        return
    # TypeError: uvloop, which closes its sockets with the loop.
    with contextlib.suppress(OSError, TypeError, AttributeError):
        transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)


P = TypeVar("P", bound=Pipeline)


class Wires(Generic[P]):
    """The connections to one place that are not closed yet: for new calls, one an event loop.

    The event loops may run one after the other or, in threads, at the same time. *latest* is the
    one that was made or asked for last; its loop may be another one, and no more calls taken.
    """

    def __init__(self) -> None:
        self.latest: P | None = None
        self._open: set[P] = set()
        self._lock = threading.Lock()

    def here(self) -> P | None:
        """Return the connection that takes calls of the running loop, if there is one."""
        loop = asyncio.get_running_loop()
        with self._lock:
            for wire in self._open:
                if wire.loop is loop and not wire.is_over:
                    self.latest = wire
                    return wire
        return None

    def add(self, wire: P) -> None:
        """Remember *wire* until it is discarded or taken."""
        with self._lock:
            self._open.add(wire)
            self.latest = wire

    def discard(self, wire: P) -> None:
        """Forget *wire*, which is closed."""
        with self._lock:
            self._open.discard(wire)
            if self.latest is wire:
                self.latest = None

    def take_abandoned(self) -> list[P]:
        """Return the connections whose event loop was closed, and forget them."""
        return self._take(None)

    def take(self) -> list[P]:
        """Return the connections of the running loop and of closed ones, and forget them.

        Those of a loop that runs elsewhere stay: only that may close them.
        """
        return self._take(asyncio.get_running_loop())

    def _take(self, loop: asyncio.AbstractEventLoop | None) -> list[P]:
        with self._lock:
            taken = [wire for wire in self._open if wire.loop is loop or wire.loop.is_closed()]
            self._open.difference_update(taken)
            self.latest = None
        return taken
