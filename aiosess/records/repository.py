"""One session against its storage: load, create, replace, touch, renew, delete."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

from aiosess.attributes import CookieOptions, SessionCookie
from aiosess.errors import (
    Conflict,
    IdTaken,
    MergeConflict,
    RecordError,
    SessionGone,
    StorageUnavailable,
)
from aiosess.records.format import Alias, Record, decode, encode, encode_alias
from aiosess.records.merge import Merge
from aiosess.records.state import Intent, SessionState
from aiosess.storages import Storage, Stored, TouchingStorage, Version
from aiosess.timeouts import Timeouts

__all__ = ["Keeper", "KeeperOptions"]

T = TypeVar("T")

_log: Final = logging.getLogger("aiosess")

_MOST_MERGES: Final = 100
_MOST_RENEWALS: Final = 3
_QUICK_TRIES: Final = 5
_LONGEST_PAUSE: Final = 0.05
_LEAST_TTL: Final = 0.001
# A touch so many seconds ago need not be repeated by the same request.
_JUST_NOW: Final = 1.0
# What stands under an id while its session is being destroyed: it leads nowhere.
_ENDED: Final = encode_alias(Alias("", 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperOptions:
    """What the options say about records; *renew_grace* is in seconds.

    *is_idle_by_cookie*: each request's cookie options say how long its session may be idle.
    """

    timeouts: Timeouts
    is_idle_by_cookie: bool = False
    merge: Merge = "mine"
    whole: frozenset[str] = frozenset()
    renew_grace: float = 10.0


class _Found(NamedTuple):
    """A record, and the id under which it is kept now."""

    session_id: str
    record: Record
    version: Version


class Keeper:
    """Keeps sessions in *storage*: never loses an update, never brings one back to life."""

    is_due: Callable[[str], bool]
    """Ask whether a record that lives as long as most was last touched ``touch_after`` ago."""

    fetch: Callable[[str], Coroutine[Any, Any, Stored | None]]
    """Return what the storage keeps under an id, for read()."""

    touching: TouchingStorage | None
    """The storage, where it can read and touch in one call."""

    def __init__(
        self,
        storage: Storage,
        options: KeeperOptions,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._storage = storage
        self._timeouts = options.timeouts
        self._is_idle_by_cookie = options.is_idle_by_cookie
        # Whether even a record like most others takes a second look.
        self._is_particular = self._is_idle_by_cookie or self._timeouts.absolute is not None
        self._merge: Merge = options.merge
        self._whole = options.whole
        self._grace = options.renew_grace
        self._clock = clock
        self._sleep = sleep
        self.touching = storage if isinstance(storage, TouchingStorage) else None
        self._touched = _Touched(options.timeouts.touch_after, clock)
        self.is_due = self._touched.is_due
        self.fetch = storage.load
        self._queues = _Queues()
        self._reasons_logged: set[str] = set()

    def now(self) -> float:
        """Return the Unix time."""
        return self._clock()

    def fresh(self, session_id: str, cookie: CookieOptions) -> SessionState:
        """Return a session that is not kept yet."""
        return SessionState(session_id, SessionCookie(cookie), self._clock())

    async def load(self, session_id: str, cookie: CookieOptions) -> SessionState | None:
        """Return the session under *session_id*, or ``None`` when there is none to go on with.

        A record whose absolute timeout has passed is deleted. One that cannot be decoded counts
        as absent; the log says so, once for each reason. Where a touch is due, and the storage
        can, that is done in the same call.
        """
        is_touched = False
        if self.touching is not None and self.is_due(session_id):
            loaded = await self.touching.load_and_touch(session_id, self._timeouts.idle)
            stored, is_touched = loaded or (None, False)
        else:
            stored = await self.fetch(session_id)
        if stored is None:
            return None
        state = self.read(session_id, stored, cookie)
        if state is None:
            return await self.follow(session_id, stored, cookie)
        if is_touched:
            await self._note_touch(state)
        return state

    def read(self, session_id: str, stored: Stored, cookie: CookieOptions) -> SessionState | None:
        """Return the session whose record is *stored*; ``None`` where it takes follow()."""
        payload, version = stored
        try:
            record = decode(payload, cookie.head)
        except RecordError:
            return None
        if type(record) is not Record:
            return None
        data, max_age, own, created_at = record
        if own or max_age is not cookie.max_age or created_at is None or self._is_particular:
            state = self._state(session_id, record, version, cookie)
            return None if self._is_over(state) else state
        # As most are: what _state() does, with a call less.
        return SessionState(
            session_id, SessionCookie(cookie), created_at, data, version, is_plain=True
        )

    async def follow(
        self, session_id: str, stored: Stored, cookie: CookieOptions
    ) -> SessionState | None:
        """Return the session to which *stored* leads; ``None`` when there is none to go on with."""
        found = await self._follow(session_id, stored)
        if found is None:
            return None
        state = self._state(found.session_id, found.record, found.version, cookie)
        state.is_plain = False
        state.is_alias = found.session_id != session_id
        if self._is_over(state):
            await self._storage.delete(state.session_id)
            return None
        return state

    async def create(self, state: SessionState) -> None:
        """Keep *state* for the first time; IdTaken when its id is not free.

        What the browser came with before makes way: the record that regenerate() left, or one
        that could not be used.
        """
        version = await self._create(state, self._encode(state))
        self._saved(state, version)
        if state.previous is not None:
            await self._storage.delete(state.previous.session_id)
        if state.stale_id is not None and state.stale_id != state.session_id:
            await self._storage.delete(state.stale_id)
        state.previous = state.stale_id = None

    async def replace(self, state: SessionState) -> bool:
        """Write what was changed on top of what others changed; False when the record is gone.

        Raise MergeConflict when ``merge="raise"`` finds one, or others were quicker too often.
        """
        state.writing()
        return await self.write(state)

    async def write(self, state: SessionState) -> bool:
        """Do so with what ``state.writing()`` took note of just now."""
        # Most records live as long as all others.
        is_usual = state.is_plain and not self._is_particular and state.cookie.base.expires is None
        ttl = self._timeouts.idle if is_usual else self._ttl(state)
        if ttl <= 0:
            return await self._end(state)
        payload = self._payload(state)
        try:
            version = await self._storage.replace(
                state.session_id, payload, ttl, expected=state.version
            )
        except Conflict as conflict:
            current = conflict.current
            if current is None or current.payload != payload:
                return await self._replace_on_top(state, current)
            # An earlier try got there, only its answer did not.
            version = current.version
        state.saved(version)
        self._touched.add(state.session_id)
        return True

    async def touch(self, state: SessionState, *, is_renewal_told: bool = True) -> bool:
        """Let the record live its idle timeout from now; False when it is gone.

        With *is_renewal_told*, the record is read again, in the same call where the storage can, to
        find out whether the id was renewed meanwhile: ``is_alias`` says so then, and it is the
        record under the new id that lives on.
        """
        ttl = self._ttl(state)
        if ttl <= 0:
            return await self._end(state)
        if is_renewal_told:
            stored = await self._load_and_touch(state.session_id, ttl)
            found = await self._follow(state.session_id, stored)
            if found is not None and found.session_id != state.session_id:
                state.is_alias = True
                await self._storage.touch(found.session_id, ttl)
            state.is_gone = found is None
        else:
            state.is_gone = not await self._storage.touch(state.session_id, ttl)
        self._touched.add(state.session_id)
        return not state.is_gone

    async def renew(self, state: SessionState, previous: SessionState) -> bool:
        """Keep *state* under its new id and let the old one lead there; False when it is gone.

        What others write under the old id meanwhile comes along.
        """
        # An explicit save() may have got halfway before the storage went away.
        keep = self._create if state.version is None else self._replace
        state.version = await keep(state, self._encode(state))
        try:
            is_kept = await self._lead_on(state, previous)
        except MergeConflict:
            await self._storage.delete(state.session_id)
            state.version = None
            raise
        if not is_kept:
            await self._storage.delete(state.session_id)
            state.is_gone = True
            return False
        self._saved(state, state.version)
        state.previous = None
        return True

    async def delete(self, state: SessionState) -> None:
        """Remove the record, and the one under the id before; neither need be there."""
        for each in (state.previous, state):
            if each is not None and each.version is not None:
                await self._end_record(each.session_id, each.version)
        state.version = state.previous = None

    async def _end_record(self, session_id: str, version: Version) -> None:
        """Remove the record, also when it was renewed meanwhile and lives under another id."""
        for _ in range(_MOST_MERGES):
            try:
                # From here on nobody can renew it any more.
                await self._replace_bytes(session_id, _ENDED, self._grace + 1, expected=version)
                break
            except Conflict as conflict:
                current = conflict.current
            found = self._read(current)
            if isinstance(found, Alias) and found.renewed_to:
                await self._storage.delete(session_id)
                session_id = found.renewed_to
                current = await self._storage.load(session_id)
            if current is None:
                return
            version = current.version
        # The session is over; if this fails, what is left goes when nobody asks for it any more.
        with contextlib.suppress(StorageUnavailable):
            await self._storage.delete(session_id)

    async def reload(self, state: SessionState) -> None:
        """Read the record again into *state*; SessionGone when there is none."""
        if state.is_new:
            raise SessionGone("the session is new: there is no record to read yet")
        newest = await self.load(state.session_id, state.cookie.base)
        if newest is None:
            raise _gone(state)
        state.data.clear()
        state.data.update(newest.data)
        state.originals.clear()
        state.cookie.own.clear()
        state.cookie.own.update(newest.cookie.own)
        state.original_own = newest.original_own
        state.session_id, state.version = newest.session_id, newest.version
        state.is_alias = state.is_alias or newest.is_alias
        state.is_marked = False
        state.intent = Intent.KEEP

    async def atomic(self, state: SessionState, change: Callable[[SessionState], T]) -> T:
        """Apply *change* to the newest data and write that alone; return what it returned.

        The unsaved changes in *state* stay on top of the result. Raise SessionGone when the
        record is gone, MergeConflict when others were quicker too often.
        """
        state.changes()
        async with self._queues.enter(state.session_id):
            stored = await self._storage.load(state.session_id)
            for tries in range(_MOST_MERGES):
                found = await self._follow(state.session_id, stored)
                if found is None:
                    raise _gone(state)
                self._move(state, found)
                newest = self._state(
                    found.session_id, found.record, found.version, state.cookie.base
                )
                result = change(newest)
                try:
                    if newest.is_modified:
                        self._saved(newest, await self._replace(newest, self._encode(newest)))
                except Conflict as conflict:
                    stored = await self._newest(state, conflict, tries)
                    continue
                state.rebase(_as_record(newest), newest.version, "mine", self._whole)
                if newest.intent is not Intent.KEEP:
                    state.intent = newest.intent
                return result
        raise _too_often()

    def is_touch_due(self, state: SessionState) -> bool:
        """Ask whether this process last touched the record ``touch_after`` ago, or never."""
        own: float | None = None
        if state.cookie.own or self._is_idle_by_cookie:
            own = self._own_idle(state)
        if state.touched_at is not None:
            passed = self._clock() - state.touched_at
            if passed < min(_JUST_NOW, (own or self._timeouts.idle) / 20):
                return False
        if own is not None and own < self._timeouts.idle:
            # touch_after fits the general idle timeout; this session might end before it is due.
            return True
        return self._touched.is_due(state.session_id)

    async def _load_and_touch(self, session_id: str, ttl: float) -> Stored | None:
        """Return the record, which lives *ttl* seconds from now."""
        if self.touching is None:
            is_there = await self._storage.touch(session_id, ttl)
            return await self._storage.load(session_id) if is_there else None
        stored, is_touched = await self.touching.load_and_touch(session_id, ttl) or (None, False)
        if stored is not None and not is_touched and not await self._storage.touch(session_id, ttl):
            return None
        return stored

    async def _note_touch(self, state: SessionState) -> None:
        """Take note that the record was touched when it was read, with the general idle timeout.

        That is too much where the session's own is shorter, or its end is near.
        """
        ttl = self._ttl(state)
        if ttl > self._timeouts.idle:
            # It lives longer anyway, and is still to be touched.
            return
        if ttl < self._timeouts.idle:
            try:
                await self._storage.touch(state.session_id, max(ttl, _LEAST_TTL))
            except StorageUnavailable:
                # The record was read, and is touched once more at the end of the request.
                return
        state.touched_at = self._clock()
        self._touched.add(state.session_id)

    async def _replace_on_top(self, state: SessionState, current: Stored | None) -> bool:
        """Merge *state* with what is kept now, and try again, until it fits."""
        # One at a time in this process, so that only other processes can be quicker.
        async with self._queues.enter(state.session_id):
            for tries in range(_MOST_MERGES):
                found = await self._follow(state.session_id, current)
                if found is None:
                    state.is_gone = True
                    return False
                self._move(state, found)
                state.rebase(found.record, found.version, self._merge, self._whole)
                try:
                    version = await self._replace(state, self._encode(state))
                except Conflict as conflict:
                    current = await self._newest(state, conflict, tries)
                    continue
                self._saved(state, version)
                return True
        raise _too_often()

    async def _lead_on(self, state: SessionState, previous: SessionState) -> bool:
        """Put an alias in the place of the old record; False when that was destroyed."""
        alias = encode_alias(Alias(state.session_id, self._clock() + self._grace))
        ttl = max(self._ttl(state), self._grace, _LEAST_TTL)
        seen = previous.version
        for _ in range(_MOST_MERGES):
            try:
                await self._replace_bytes(previous.session_id, alias, ttl, expected=seen)
            except Conflict as conflict:
                current = conflict.current
            else:
                return True
            theirs = self._read(current)
            if current is None or theirs is None:
                return False
            if isinstance(theirs, Alias):
                # Somebody else renewed it at the same time, and each keeps a session of its own; or
                # destroyed it, and it leads nowhere.
                return bool(theirs.renewed_to)
            state.rebase(theirs, state.version, self._merge, self._whole)
            try:
                state.version = await self._replace(state, self._encode(state))
            except Conflict:
                # The new record has expired already: nobody else knows its id.
                return False
            seen = current.version
        raise _too_often()

    async def _create(self, state: SessionState, payload: bytes) -> Version:
        try:
            return await self._storage.create(
                state.session_id, payload, max(self._ttl(state), _LEAST_TTL)
            )
        except IdTaken:
            stored = await self._storage.load(state.session_id)
            if stored is None or stored.payload not in {payload, state.unconfirmed}:
                raise
            # An earlier try got there, only its answer did not.
            if stored.payload == payload:
                return stored.version
            state.version = stored.version
            return await self._replace(state, payload)
        except (StorageUnavailable, asyncio.CancelledError):
            # It may have happened all the same.
            state.unconfirmed = payload
            raise

    async def _replace(self, state: SessionState, payload: bytes) -> Version:
        return await self._replace_bytes(
            state.session_id, payload, max(self._ttl(state), _LEAST_TTL), expected=state.version
        )

    async def _replace_bytes(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        try:
            return await self._storage.replace(session_id, payload, ttl, expected=expected)
        except Conflict as conflict:
            current = conflict.current
            if current is None or current.payload != payload:
                raise
            # An earlier try got there, only its answer did not.
            return current.version

    async def _end(self, state: SessionState) -> bool:
        await self._storage.delete(state.session_id)
        state.is_gone = True
        return False

    async def _follow(self, session_id: str, stored: Stored | None) -> _Found | None:
        """Return the record that *stored* is, or leads to; ``None`` when there is none."""
        for _ in range(_MOST_RENEWALS):
            found = self._read(stored)
            if stored is None or found is None:
                return None
            if isinstance(found, Record):
                return _Found(session_id, found, stored.version)
            if not found.renewed_to:
                return None
            if self._clock() >= found.until:
                _log.warning("a session id was used after it had been renewed: it is refused")
                return None
            session_id = found.renewed_to
            stored = await self._storage.load(session_id)
        return None

    def _read(self, stored: Stored | None) -> Record | Alias | None:
        if stored is None:
            return None
        try:
            return decode(stored.payload)
        except RecordError as error:
            self._note_unreadable(error)
            return None

    def _note_unreadable(self, error: RecordError) -> None:
        reason = str(error)
        if reason not in self._reasons_logged:
            self._reasons_logged.add(reason)
            _log.warning("a record cannot be read (%s): it counts as absent", reason)

    def _state(
        self, session_id: str, record: Record, version: Version, cookie: CookieOptions
    ) -> SessionState:
        data, max_age, own, created_at = record
        # Most sessions have nothing of their own: the cookie lives as long as all others.
        if own or max_age is not cookie.max_age:
            own = record.own_attributes(cookie)
        is_by_express = created_at is None
        if created_at is None:
            created_at = self._clock()
        state = SessionState(session_id, SessionCookie(cookie, own), created_at, data, version)
        if own:
            state.original_own = dict(own)
        else:
            state.is_plain = not self._is_idle_by_cookie
        if is_by_express and self._timeouts.absolute is not None:
            # Without a beginning of its own, such a session would never be too old.
            state.is_plain, state.is_marked = False, True
        return state

    def _is_over(self, state: SessionState) -> bool:
        """Ask whether the absolute timeout has passed."""
        absolute = self._timeouts.absolute
        return absolute is not None and self._clock() >= state.created_at + absolute

    def _move(self, state: SessionState, found: _Found) -> None:
        """Go on under the id to which a renewed one led."""
        # The version stays until the data are of that version too: see SessionState.rebase.
        state.is_alias = state.is_alias or state.session_id != found.session_id
        state.session_id = found.session_id

    def _encode(self, state: SessionState) -> bytes:
        state.writing()
        return self._payload(state)

    def _payload(self, state: SessionState) -> bytes:
        return encode(state.data, state.cookie, created_at=state.created_at, now=self._clock())

    def _ttl(self, state: SessionState) -> float:
        """Return how many seconds the record may live from now; zero or less: it is over."""
        cookie, timeouts = state.cookie, self._timeouts
        if not cookie.own and cookie.base.expires is None and not self._is_idle_by_cookie:
            if timeouts.absolute is None:
                return timeouts.idle
            return timeouts.ttl(created_at=state.created_at, now=self._clock())
        now = self._clock()
        fixed = cookie.expires
        idle = self._own_idle(state) if fixed is None else fixed.timestamp() - now
        return timeouts.ttl(created_at=state.created_at, now=now, idle=idle)

    def _own_idle(self, state: SessionState) -> float | None:
        """Return this session's own idle timeout; ``None`` where the general one counts."""
        own = state.cookie.own.get("max_age")
        return state.cookie.max_age if own is None and self._is_idle_by_cookie else own

    def _saved(self, state: SessionState, version: Version) -> None:
        state.saved(version)
        self._touched.add(state.session_id)

    async def _newest(self, state: SessionState, conflict: Conflict, tries: int) -> Stored | None:
        """Return what is kept now, after *tries* that others were quicker than."""
        if tries < _QUICK_TRIES:
            return conflict.current
        # Jitter parts processes that keep meeting each other; what the conflict told is old then.
        most = min(_LONGEST_PAUSE, 0.001 * 2 ** (tries - _QUICK_TRIES))
        await self._sleep(random.uniform(0, most))  # noqa: S311 - no secret hangs on it
        return await self._storage.load(state.session_id)


class _Touched:
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
        if not self._half:
            return
        if self._clock() >= self._turn_at or len(self._newer) >= self._MOST:
            self._turn()
        self._newer.add(session_id)

    def is_due(self, session_id: str) -> bool:
        if self._clock() >= self._turn_at:
            self._turn()
        return session_id not in self._newer and session_id not in self._older

    def _turn(self) -> None:
        passed = self._clock() - self._turned_at
        self._older = self._newer if passed < 2 * self._half else set()
        self._newer = set()
        # By whole halves, so that a late turn makes nothing look younger than it is.
        self._turned_at += passed - passed % self._half
        self._turn_at = self._turned_at + self._half


class _Queues:
    """One queue for each session id, for as long as somebody stands in it."""

    def __init__(self) -> None:
        self._queues: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def enter(self, session_id: str) -> AsyncGenerator[None]:
        lock, people = self._queues.get(session_id, (asyncio.Lock(), 0))
        self._queues[session_id] = (lock, people + 1)
        try:
            async with lock:
                yield
        finally:
            _, people = self._queues.pop(session_id)
            if people > 1:
                self._queues[session_id] = (lock, people - 1)


def _as_record(state: SessionState) -> Record:
    return Record(state.data, state.cookie.max_age, state.cookie.own, state.created_at)


def _gone(state: SessionState) -> SessionGone:
    state.is_gone = True
    return SessionGone("the record was destroyed or has expired meanwhile")


def _too_often() -> MergeConflict:
    return MergeConflict(f"others changed the session {_MOST_MERGES} times: it was not saved")
