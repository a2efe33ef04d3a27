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
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final, Generic, TypeAlias, TypeVar

from aiosess.errors import StorageUnavailable

__all__ = ["Call", "Pipeline", "Wires", "clock", "hang_up"]

# So many calls may wait for answers; one more is refused, so that an outage does not fill memory.
_MOST_WAITING: Final = 10_000

clock: Final = time.monotonic
"""What the time limits go by, in seconds."""

Call: TypeAlias = tuple[asyncio.Future[Any], bytes, float, float, bytes]
"""A future for the answer, the command, when it was asked, how long it may take, and its key.

There is one for each call, hence a plain tuple.
"""


_is_done: Final = asyncio.Future[Any].done
_answer_of: Final = itemgetter(0)
_command_of: Final = itemgetter(1)


class Pipeline(asyncio.Protocol, ABC):
    """Sends what is asked in one tick together; the answers are those of ``waiting``, in order.

    A call may be given up at any time: if it was not sent yet, it never is; if it was, its answer
    is read and thrown away. A server that owes an answer and says nothing for *patience* seconds is
    given up.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, patience: float) -> None:
        self.loop = loop
        self.is_over: bool = False
        self.patience: float = patience
        self.transport: asyncio.Transport | None = None
        self.waiting: deque[Call] = deque()
        # When the server said something, or was first asked after a pause.
        self.moved_at: float = 0.0
        self._may_write = True
        self._outbox: list[Call] = []
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = math.inf

    def ask(self, command: bytes, timeout: float, key: bytes = b"") -> asyncio.Future[Any]:
        """Send *command* at the end of this tick; the future is its answer.

        It fails with StorageUnavailable when there is none after *timeout* seconds.
        """
        outbox = self._outbox
        if self.is_over or len(outbox) + len(self.waiting) >= _MOST_WAITING:
            self._make_room()
        # loop.create_future() with a call less; the loop is this one.
        answer: asyncio.Future[Any] = asyncio.Future(loop=self.loop)
        if not outbox:
            self.loop.call_soon(self.send)
        now = clock()
        outbox.append((answer, command, now, timeout, key))
        if now + timeout < self._look_at:
            self.look_by(now + timeout)
        return answer

    def take(self, calls: Sequence[Call]) -> None:
        """Do what was asked before this connection stood."""
        if self.is_over:
            self._make_room()
        self._outbox.extend(calls)
        self.loop.call_soon(self.send)
        first = min(asked_at + timeout for _, _, asked_at, timeout, _ in calls)
        if first < self._look_at:
            self.look_by(first)

    def pause_writing(self) -> None:
        """Let calls wait until the server has read what was sent."""
        self._may_write = False

    def resume_writing(self) -> None:
        """Send what waited."""
        self._may_write = True
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
        if not self.waiting:
            self.moved_at = clock()
        self.waiting.extend(calls)
        self.transport.write(b"".join(map(_command_of, calls)))
        owes_until = self.moved_at + self.patience
        if owes_until < self._look_at:
            self.look_by(owes_until)

    def end(self, error: BaseException) -> None:
        """Be over: no call waits any longer."""
        if self.is_over:
            return
        self.is_over = True
        self.look_by(math.inf)
        calls = [call for call in (*self.waiting, *self._outbox) if not call[0].done()]
        self.waiting.clear()
        self._outbox.clear()
        self.ended(calls, error)

    @abstractmethod
    def ended(self, calls: Sequence[Call], error: BaseException) -> None:
        """Tell those who waited, and let go of the connection."""

    def look_by(self, at: float) -> None:
        """Look at *at* for who has waited too long."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._look_at = at
        if at < math.inf:
            self._timer = self.loop.call_later(max(0.0, at - clock()), self._look)

    def _look(self) -> None:
        self._timer = None
        now, next_at = clock(), math.inf
        for answer, _, asked_at, timeout, _ in (*self.waiting, *self._outbox):
            if answer.done():
                continue
            if asked_at + timeout <= now:
                answer.set_exception(StorageUnavailable.after(timeout))
            else:
                next_at = min(next_at, asked_at + timeout)
        if self.waiting or self.transport is None:
            owes_until = self.moved_at + self.patience
            if now >= owes_until:
                self.end(TimeoutError(f"the server said nothing for {self.patience:g} s"))
                return
            next_at = min(next_at, owes_until)
        self.look_by(next_at)

    def _make_room(self) -> None:
        """Forget what was given up; raise an error where that does not help."""
        if self.is_over:
            raise ConnectionResetError("the connection was lost")
        self._outbox[:] = [call for call in self._outbox if not call[0].done()]
        if len(self._outbox) + len(self.waiting) >= _MOST_WAITING:
            raise StorageUnavailable(f"{_MOST_WAITING} calls are waiting for answers")


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

    The event loops may run one after the other or, in threads, at the same time.
    """

    def __init__(self) -> None:
        self._open: set[P] = set()
        self._lock = threading.Lock()

    def here(self) -> P | None:
        """Return the connection that takes calls of the running loop, if there is one."""
        loop = asyncio.get_running_loop()
        with self._lock:
            for wire in self._open:
                if wire.loop is loop and not wire.is_over:
                    return wire
        return None

    def add(self, wire: P) -> None:
        """Remember *wire* until it is discarded or taken."""
        with self._lock:
            self._open.add(wire)

    def discard(self, wire: P) -> None:
        """Forget *wire*, which is closed."""
        with self._lock:
            self._open.discard(wire)

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
        return taken
