"""When others were quicker: what they wrote and what we changed become one, and are written."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Container
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from aiosess.errors import Conflict, MergeConflict, SessionGone
from aiosess.events import Events, Reason
from aiosess.guard.budget import BudgetSpent, in_time, seconds_left
from aiosess.records.aliases import Aliases, Found
from aiosess.records.format import Record
from aiosess.records.merge import Merge
from aiosess.records.state import Intent, SessionState, Standing
from aiosess.records.writing import Writing
from aiosess.storages import Storage, Stored, Version

__all__ = [
    "MOST_MERGES",
    "QUICK_TRIES",
    "Conflicts",
    "Queues",
    "Rebase",
    "go_on_under",
    "gone",
    "pause_after",
    "superseded",
    "too_often",
]

T = TypeVar("T")

MOST_MERGES: Final = 100
"""So many times others may be quicker before a session is given up."""

QUICK_TRIES: Final = 5
"""After so many tries that others were quicker than, there are pauses."""

_LONGEST_PAUSE: Final = 0.05


class Rebase:
    """Puts the changes of a request on top of newer records, and tells which of them lost."""

    def __init__(self, merge: Merge, whole: frozenset[str], events: Events) -> None:
        self._merge: Merge = merge
        self._whole = whole
        self._events = events

    def __call__(
        self, state: SessionState, record: Record, version: Version, *, merge: Merge | None = None
    ) -> None:
        """Change *state*; raise MergeConflict where *merge*, or the options, say so."""
        lost = state.rebase(record, version, merge or self._merge, self._whole)
        # What is further down may be data of a person.
        for key, side in sorted({(each.path[0], each.side) for each in lost}):
            self._events.tell(Reason.CHANGE_LOST, key=key, side=side)


class Conflicts:
    """Merges and tries again, until a session fits on what is kept in *storage*."""

    def __init__(
        self,
        storage: Storage,
        aliases: Aliases,
        writing: Writing,
        *,
        rebase: Rebase,
        events: Events,
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self.storage: Storage = storage
        self.aliases: Aliases = aliases
        self.writing: Writing = writing
        self.rebase: Rebase = rebase
        self._events = events
        self._sleep = sleep
        self._queues = Queues()

    @property
    def queued(self) -> Container[str]:
        """The ids of sessions that somebody is changing who was not the quickest."""
        return self._queues.by_key

    async def write(self, state: SessionState) -> bool:
        """Write *state* on top of what others wrote meanwhile; False when the record is gone.

        Raise MergeConflict as put_on_top() does.
        """
        if state.session_id in self.queued:
            # Whoever does not wait has read what those in front are about to replace.
            async with self._queues.enter(state.session_id) as queue:
                if queue.newest is not None:
                    return await self._put(queue, state, queue.newest)
        try:
            written = await self.writing.replace(state)
        except Conflict as conflict:
            return await self.put_on_top(state, conflict.current)
        self.writing.saved(state, written)
        return True

    async def put_on_top(self, state: SessionState, current: Stored | None) -> bool:
        """Write *state* on top of *current*, which is kept now; False when the record is gone.

        Raise MergeConflict when ``merge="raise"`` finds one, or others were quicker too often.
        """
        # One at a time in this process, so that only other processes can be quicker.
        async with self._queues.enter(state.session_id) as queue:
            return await self._put(queue, state, queue.newest or current)

    async def _put(self, queue: _Queue, state: SessionState, current: Stored | None) -> bool:
        session_id = state.session_id
        for tries in range(MOST_MERGES):
            found = await self.aliases.follow(state.session_id, current)
            if not isinstance(found, Found):
                state.is_gone = True
                return False
            if found.standing is Standing.FORMER:
                self.drop(state)
                return True
            go_on_under(state, found)
            self.rebase(state, found.record, found.version)
            try:
                written = await self.writing.replace(state)
            except Conflict as conflict:
                current = await self._newest(state, conflict, tries)
                continue
            self.writing.saved(state, written)
            # Under another id, it is nothing to those who wait for this one.
            queue.newest = written.stored if state.session_id == session_id else None
            return True
        raise too_often()

    async def atomic(
        self,
        state: SessionState,
        change: Callable[[SessionState], T],
        as_state: Callable[[Found], SessionState],
    ) -> T:
        """Apply *change* to the newest data and write that alone; return what it returned.

        *as_state* makes a session of what is kept. The unsaved changes in *state* stay on top of
        the result. Raise SessionGone when the record is gone, MergeConflict when others were
        quicker too often.
        """
        state.changes()
        async with self._queues.enter(state.session_id):
            stored = await self.storage.load(state.session_id)
            for tries in range(MOST_MERGES):
                found = await self.aliases.follow(state.session_id, stored)
                if not isinstance(found, Found):
                    raise gone(state)
                if found.standing is Standing.FORMER:
                    self.drop(state)
                    raise superseded()
                go_on_under(state, found)
                newest = as_state(found)
                result = change(newest)
                try:
                    if newest.is_modified:
                        self.writing.saved(newest, await self.writing.replace(newest))
                except Conflict as conflict:
                    stored = await self._newest(state, conflict, tries)
                    continue
                self.rebase(state, _as_record(newest), newest.version, merge="mine")
                if newest.intent is not Intent.KEEP:
                    state.intent = newest.intent
                return result
        raise too_often()

    def drop(self, state: SessionState) -> None:
        """Take note that rights have changed since *state* was read: its changes are dropped."""
        if state.is_modified:
            self._events.tell(Reason.FORMER_CHANGED)
        state.rollback()
        state.standing = Standing.FORMER

    async def _newest(self, state: SessionState, conflict: Conflict, tries: int) -> Stored | None:
        """Return what is kept now, after *tries* that others were quicker than."""
        if tries < QUICK_TRIES:
            return conflict.current
        # Jitter parts processes that keep meeting each other; what the conflict told is old then.
        await self._sleep(pause_after(tries))
        return await self.storage.load(state.session_id)


def pause_after(tries: int) -> float:
    """Return how many seconds to wait after *tries* that others were quicker than; by chance."""
    most = min(_LONGEST_PAUSE, 0.001 * 2.0 ** (tries - QUICK_TRIES))
    return random.uniform(0, most)  # noqa: S311 - no secret hangs on it


def gone(state: SessionState) -> SessionGone:
    """Take note that the record of *state* is not there any more, and return the error."""
    state.is_gone = True
    return SessionGone("the record was destroyed or has expired meanwhile")


def superseded() -> SessionGone:
    """Return the error for what cannot be done through an id from before a change of rights."""
    return SessionGone(
        "somebody logged in since this request read its session, which goes on under another id: "
        "nothing can be done to it from here"
    )


def too_often() -> MergeConflict:
    """Return the error for a session that others changed each time it was to be written."""
    return MergeConflict(f"others changed the session {MOST_MERGES} times: it was not saved")


def go_on_under(state: SessionState, found: Found) -> None:
    """Take the id to which a renewed one led."""
    # The version stays until the data are of that version too: see SessionState.rebase.
    if state.session_id != found.session_id:
        state.standing = Standing.ALIAS
        state.renewed_at = found.record.renewed_at
    state.session_id = found.session_id


def _as_record(state: SessionState) -> Record:
    return Record(
        state.data,
        state.cookie.max_age,
        state.cookie.own,
        state.created_at,
        unknown=state.unknown,
        bond=state.bond,
    )


class _Queue:
    """Those who wait to change one session.

    ``newest`` is what the one before them wrote, ``pace`` is how many seconds a turn takes.
    """

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.people = 0
        self.newest: Stored | None = None
        self.pace = 0.0

    def check(self, turns: int) -> None:
        """Raise BudgetSpent where the act under way has no time left for so many *turns*."""
        if self.pace * turns > seconds_left():
            raise BudgetSpent(
                f"so many requests change the session at this moment, {self.people}, that the "
                "budget of an act is not enough to wait for them"
            )

    def took(self, seconds: float) -> None:
        """Take note of a turn; one that was slow does not say that all are."""
        self.pace = min(seconds, 2 * self.pace) if self.pace else seconds


class Queues:
    """One queue for each key of a storage, for as long as somebody stands in it."""

    def __init__(self) -> None:
        self.by_key: dict[str, _Queue] = {}

    @asynccontextmanager
    async def enter(self, key: str) -> AsyncGenerator[_Queue]:
        """Stand in the queue for *key*, and have one's turn in the block.

        StorageUnavailable where the budget of the act will not do for all in front: at once, so
        that their time is not spent on turns that come too late.
        """
        queue = self.by_key.setdefault(key, _Queue())
        queue.check(queue.people + 1)
        queue.people += 1
        clock = asyncio.get_running_loop().time
        try:
            await _acquired(queue.lock)
            began = clock()
            try:
                queue.check(1)
                yield queue
                queue.took(clock() - began)
            finally:
                queue.lock.release()
        finally:
            queue.people -= 1
            if not queue.people:
                del self.by_key[key]


async def _acquired(lock: asyncio.Lock) -> None:
    """Take *lock*; StorageUnavailable where the budget of the act ends before."""
    left = seconds_left()
    if left == math.inf:
        await lock.acquire()
    else:
        await in_time(lock.acquire, left)
