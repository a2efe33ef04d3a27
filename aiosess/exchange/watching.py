"""What is open beside a request: it is told when its session has ended.

Each session that is watched is looked at now and then, however many sockets it has, and at once
where somebody tells that something happened to it. What is told is never believed by itself: the
record decides.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from contextlib import contextmanager, suppress
from contextvars import Context
from typing import Any, Final
from weakref import ref

from aiohttp import WSCloseCode, web

from aiosess.errors import StorageError
from aiosess.events import Events, Reason
from aiosess.privacy import private
from aiosess.records.looking import Looking, Sight, notice_of
from aiosess.records.state import SessionState
from aiosess.session import End
from aiosess.storages import NotifyingStorage

__all__ = ["Watcher", "close_socket"]

# So many looks leave in one write. More would pause the event loop for longer than a request takes.
_AT_ONCE: Final = 250
# The share of a pause by which it is longer at the most, so that processes do not look in step.
_JITTER: Final = 0.1
# What a WebSocket says at its end; all else is that the session is over.
_CODES: Final = {
    Reason.OUT_OF_SIGHT: WSCloseCode.TRY_AGAIN_LATER,
    Reason.STOPPED: WSCloseCode.GOING_AWAY,
}
# Seconds that a client has to take the end of its socket and to answer.
_TO_CLOSE: Final = 10.0
# Seconds before a subscription is tried again: the first pause; each of the next is twice as long.
_FIRST_PAUSE: Final = 0.1


class _Watch:
    """One that is told when its session ends: a socket, or a task that waits."""

    __slots__ = ("end", "principal", "request", "session")

    def __init__(
        self, session: _Watched, end: End, request: ref[web.Request], principal: dict[str, Any]
    ) -> None:
        self.session = session
        self.end = end
        self.request = request
        self.principal = principal

    def is_others(self, principal: dict[str, Any]) -> bool:
        """Ask whether a session of *principal* is not that of the one who was logged in before."""
        return any(principal.get(key) != value for key, value in self.principal.items())


@private()
class _Watched:
    """A session, and who is told when it ends."""

    __slots__ = ("is_told", "sight", "watches")

    def __init__(self, sight: Sight) -> None:
        self.sight = sight
        self.watches: set[_Watch] = set()
        self.is_told = False

    @property
    def notice(self) -> bytes:
        """What is told of the session under the id that it has now."""
        return notice_of(self.sight.session_id)


class Watcher:
    """Watches the sessions of one application, while anybody asks for that.

    Each session is looked at every *every* seconds, or a little later, hundreds of them in one
    write. *storage* tells what happens in other processes; ``None``: none tells. *sleep* and
    *steady*, a clock, are for tests.
    """

    def __init__(
        self,
        looking: Looking,
        events: Events,
        *,
        every: float,
        storage: NotifyingStorage | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._looking = looking
        self._events = events
        self._every = every
        self._storage = storage
        self._sleep = sleep
        self._steady = steady
        # By what is told of them.
        self._sessions: dict[bytes, _Watched] = {}
        self._due: set[_Watched] = set()
        self._is_any_due: asyncio.Event
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False
        # What is under way: watching that is to stop, and notices that are to leave.
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Return how many sessions are watched."""
        return len(self._sessions)

    @contextmanager
    def watched(self, state: SessionState, end: End, request: ref[web.Request]) -> Generator[None]:
        """Call *end* with the reason once *state*, which has a record, has ended; leaving stops it.

        *request* is told in the event.
        """
        sight = self._looking.begin(state)
        session = self._session_of(sight)
        watch = _Watch(session, end, request, sight.principal)
        session.watches.add(watch)
        self._start()
        # Between the load and now, nobody here listened: the session may have ended.
        self._look_soon((session,))
        if self._is_closed:
            self._tell(watch, Reason.STOPPED)
        try:
            yield
        finally:
            watch.session.watches.discard(watch)
            if not watch.session.watches:
                self._forget(watch.session)

    def tell(self, session_id: str) -> None:
        """Have all processes look at *session_id*, under which a session may live no more."""
        notice = notice_of(session_id)
        self._hear(notice)
        if self._storage is not None:
            self._begin(self._publish(self._storage, notice))

    async def look_at_all(self) -> None:
        """Look at each session that is watched, and return once that is done."""
        await self._look_at(self._sessions.values())

    def open(self) -> None:
        """Take note that the application starts, perhaps once more."""
        self._is_closed = False

    async def close(self) -> None:
        """Tell all that the application stops, also those who begin to watch from here on."""
        self._is_closed = True
        for session in list(self._sessions.values()):
            self._end(session, Reason.STOPPED)
        while self._tasks:
            await asyncio.wait(self._tasks)

    # The sessions that are watched.

    def _session_of(self, sight: Sight) -> _Watched:
        """Return the session of *sight*, which others may watch already."""
        session = self._sessions.setdefault(notice_of(sight.session_id), _Watched(sight))
        session.sight.until = sight.until
        session.sight.may_end_at = sight.may_end_at
        return session

    def _forget(self, session: _Watched) -> None:
        if self._sessions.get(session.notice) is session:
            del self._sessions[session.notice]
        self._due.discard(session)
        if not self._sessions:
            self._stop()

    def _end(self, session: _Watched, reason: Reason) -> None:
        self._forget(session)
        for watch in list(session.watches):
            self._tell(watch, reason)

    def _tell(self, watch: _Watch, reason: Reason) -> None:
        watch.session.watches.discard(watch)
        self._events.tell(reason, request=watch.request())
        watch.end(reason)

    def _follow(self, session: _Watched, notice: bytes) -> None:
        """Watch *session* under the id that it has now; it was known by *notice*."""
        if self._sessions.get(notice) is session:
            del self._sessions[notice]
        other = self._sessions.setdefault(session.notice, session)
        if other is not session:
            for watch in session.watches:
                watch.session = other
            other.watches |= session.watches
            session.watches.clear()
        # What was told of the new id until now, nobody heard.
        self._look_soon((other,))

    # Looking.

    def _hear(self, notice: bytes) -> None:
        session = self._sessions.get(notice)
        if session is not None:
            session.is_told = True
            self._look_soon((session,))

    def _look_soon(self, sessions: Iterable[_Watched]) -> None:
        self._due.update(sessions)
        self._is_any_due.set()

    async def _look_at(self, sessions: Iterable[_Watched]) -> None:
        rest = iter(list(sessions))
        while batch := list(itertools.islice(rest, _AT_ONCE)):
            await asyncio.gather(*map(self._look, batch))

    async def _look(self, session: _Watched) -> None:
        sight, notice = session.sight, session.notice
        is_told, session.is_told = session.is_told, False
        try:
            reason = await self._looking.look(sight, is_told=is_told)
        except Exception as error:  # noqa: BLE001 - others are to be looked at all the same
            if not isinstance(error, StorageError):
                self._events.tell_now_and_then(Reason.LOOK_FAILED, error=error)
            session.is_told |= is_told
            reason = Reason.OUT_OF_SIGHT if self._looking.is_over(sight) else None
        if reason is not None:
            self._end(session, reason)
            return
        for watch in [each for each in session.watches if each.is_others(sight.principal)]:
            self._tell(watch, Reason.TAKEN_OVER)
        if not session.watches:
            self._forget(session)
        elif session.notice != notice:
            self._follow(session, notice)

    # The tasks: there is one, and what it begins, while anything is watched.

    def _start(self) -> None:
        if self._task is None:
            # One for each event loop in which the application runs.
            self._is_any_due = asyncio.Event()
            self._task = self._begin(self._watch())

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _begin(self, act: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # The context is not that of the request which came first.
        task = asyncio.get_running_loop().create_task(act, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _watch(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._go_round())
            if self._storage is not None:
                tasks.create_task(self._listen(self._storage))
            while True:
                await self._is_any_due.wait()
                self._is_any_due.clear()
                due, self._due = self._due, set()
                await self._look_at(due)

    async def _go_round(self) -> None:
        while True:
            await self._sleep(self._longer(self._every))
            self._look_soon(self._sessions.values())

    async def _listen(self, storage: NotifyingStorage) -> None:
        pause = _FIRST_PAUSE
        while True:
            began_at = self._steady()
            try:
                async with storage.subscribe() as notices:
                    # What was told before, nobody here heard.
                    self._look_soon(self._sessions.values())
                    async for notice in notices:
                        self._hear(notice)
            except Exception as error:  # noqa: BLE001 - looking now and then goes on
                self._events.tell_now_and_then(
                    Reason.NOT_NOTIFIED, error=error, every=self._every * (1 + _JITTER)
                )
            if self._steady() - began_at > self._every:
                pause = _FIRST_PAUSE
            await self._sleep(self._longer(pause))
            pause = min(2 * pause, self._every)

    async def _publish(self, storage: NotifyingStorage, notice: bytes) -> None:
        # Without it, others notice when they look.
        with suppress(StorageError):
            await storage.publish(notice)

    def _longer(self, pause: float) -> float:
        return pause * (1 + _JITTER * random.random())  # noqa: S311 - no secret


async def close_socket(
    ws: web.WebSocketResponse, reason: Reason, transport: asyncio.Transport | None
) -> None:
    """Close *ws* with the code and the words of *reason*.

    Of a client that reads nothing any more, *transport*, which carries the socket, is cut.
    """
    code = _CODES.get(reason, WSCloseCode.POLICY_VIOLATION)
    try:
        async with asyncio.timeout(_TO_CLOSE):
            await ws.close(code=code, message=reason.words.encode(), drain=False)
    except TimeoutError:
        if transport is not None:
            transport.abort()
