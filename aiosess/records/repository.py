"""The sessions of an application, kept as records in a storage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, TypeVar

from aiosess.attributes import CookieOptions, SessionCookie
from aiosess.errors import Conflict, IdTaken, SessionGone, StorageError, StorageUnavailable
from aiosess.events import Events
from aiosess.records.aliases import ENDED, Aliases, Ended, Found, Left, Leftover
from aiosess.records.bonding import Bonds, Seat
from aiosess.records.bonds import Bond
from aiosess.records.changes import Snapshot
from aiosess.records.conflicts import Conflicts, Rebase, go_on_under, gone
from aiosess.records.decide import Ending, ending
from aiosess.records.format import Former
from aiosess.records.indexes import Indexes
from aiosess.records.lifetime import LEAST_TTL, Lifetime
from aiosess.records.looking import Looking
from aiosess.records.marks import MarkedStorage
from aiosess.records.merge import Merge, merged
from aiosess.records.migration import Migration
from aiosess.records.renewal import Renewal
from aiosess.records.state import Intent, Seen, SessionState, Standing
from aiosess.records.writing import Writing
from aiosess.storages import Storage, Stored, TouchingStorage
from aiosess.storages.base import as_touching
from aiosess.timeouts import Timeouts

__all__ = ["NewId", "RecordOptions", "Repository", "SessionRepository"]

T = TypeVar("T")

NewId: TypeAlias = Callable[[], Awaitable[str]]
"""Makes a session id that was never used before."""


class Repository(Protocol):
    """Keeps sessions: never loses an update, never brings one back to life.

    Every coroutine raises StorageUnavailable after all retries, when the back-end gives no answer.
    """

    @property
    def bonds(self) -> Bonds | None:
        """What binds sessions to principals; ``None`` where the application has no Principals."""
        ...

    def now(self) -> float:
        """Return the Unix time."""
        ...

    async def load(
        self, session_id: str, cookie: CookieOptions, /, *, is_passive: bool = False
    ) -> SessionState | Left | None:
        """Return the session under *session_id*; ``None`` when there is none to go on with.

        What is left under an id whose time of grace is over is to stay there. With *is_passive*,
        reading is no activity: nothing lives longer by it.
        """
        ...

    def fresh(self, session_id: str, cookie: CookieOptions, /) -> SessionState:
        """Return a session that is not kept yet."""
        ...

    def expires_at(self, state: SessionState, /) -> float | None:
        """Return the Unix time at which *state* ends, at the earliest; ``None``: not known."""
        ...

    def ending(self, state: SessionState, *, is_resigned: bool, is_saved: bool) -> Ending:
        """Return how *state* was left. Raise UnserializableValue for what cannot be written."""
        ...

    async def move(self, state: SessionState, new_id: NewId, /) -> None:
        """Let *state* go on under an id from *new_id*; nothing is written yet."""
        ...

    def can_renew(self, state: SessionState) -> bool:
        """Ask whether anybody may know the id of *state*, so that it has to be renewed."""
        ...

    async def create(self, state: SessionState) -> None:
        """Keep *state* for the first time; IdTaken when its id is not free."""
        ...

    async def replace(self, state: SessionState) -> bool:
        """Write what was changed on top of what others changed; False when the record is gone."""
        ...

    async def touch(self, state: SessionState, *, is_renewal_told: bool = True) -> bool:
        """Let the record live its idle timeout from now; False when it is gone."""
        ...

    async def renew(self, state: SessionState, previous: SessionState, /) -> bool:
        """Keep *state* under its new id, because rights change; False when it is gone."""
        ...

    async def rotate(self, state: SessionState, previous: SessionState, /) -> bool:
        """Keep *state* under its new id, for now and then; False when it is gone."""
        ...

    async def delete(self, state: SessionState) -> None:
        """Remove the record, and the one under the id before; neither need be there."""
        ...

    def tell(self, session_id: str, /) -> object:
        """Have who watches *session_id* look at it: it may have ended, or be somebody else's."""
        ...

    async def reload(self, state: SessionState, seen: Seen) -> None:
        """Read the record again into *state*; SessionGone when there is none.

        What was changed since *seen* is kept.
        """
        ...

    async def atomic(self, state: SessionState, change: Callable[[SessionState], T], /) -> T:
        """Apply *change* to the newest data and write that alone; return what it returned."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOptions:
    """What the options say about records; *renew_grace* is in seconds, *max_size* in bytes.

    *is_idle_by_cookie*: each request's cookie options say how long its session may be idle.
    """

    timeouts: Timeouts
    is_idle_by_cookie: bool = False
    merge: Merge = "mine"
    whole: frozenset[str] = frozenset()
    max_size: int = 1_000_000
    renew_grace: float = 10.0
    principal_keys: frozenset[str] = frozenset()
    is_renewed_now_and_then: bool = False
    on_reuse: Literal["refuse", "end"] = "refuse"
    migration: Migration = field(default_factory=Migration)
    seat: Seat = field(default_factory=Seat)


class SessionRepository:
    """Keeps sessions as records in a storage of ours."""

    def __init__(
        self,
        storage: Storage,
        options: RecordOptions,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        events: Events | None = None,
    ) -> None:
        self.storage = storage
        self.now = clock
        self.lifetime: Lifetime = Lifetime(
            options.timeouts, is_idle_by_cookie=options.is_idle_by_cookie, clock=clock
        )
        events = events or Events()
        self._kept = MarkedStorage(storage, events)
        self.writing: Writing = Writing(self._kept, self.lifetime, max_size=options.max_size)
        self._is_renewed_now_and_then = options.is_renewed_now_and_then
        self._on_reuse = options.on_reuse
        self._whole = options.whole
        self.touching: TouchingStorage | None = as_touching(storage)
        self.migration: Migration = options.migration
        self._beginning = options.migration.beginning
        self._aliases = Aliases(self._kept, clock, events, options.migration)
        rebase = Rebase(options.merge, options.whole, events)
        self._conflicts = Conflicts(
            self._kept, self._aliases, self.writing, rebase=rebase, events=events, sleep=sleep
        )
        self.queued: Container[str] = self._conflicts.queued
        """The ids of sessions whose changes wait for those of other requests."""
        self._renewal = Renewal(
            self._conflicts,
            self.lifetime,
            grace=options.renew_grace,
            principal_keys=options.principal_keys,
            tell=self.tell,
        )
        self.looking: Looking = Looking(
            self._kept,
            self._aliases,
            self.lifetime,
            state_of=self._state,
            principal_keys=options.principal_keys,
        )
        self.on_end: Callable[[str], object] | None = None
        """Hears of each id under which a session lives no more, or not for the same principal."""
        limits = options.seat.limits
        self.bonds: Bonds | None = None
        if limits is not None:
            self.bonds = Bonds(
                self._kept,
                limits,
                indexes=Indexes(self._kept, clock=clock, sleep=sleep, events=events),
                aliases=self._aliases,
                renewal=self._renewal,
                lifetime=self.lifetime,
                events=events,
            )

    def fresh(self, session_id: str, cookie: CookieOptions) -> SessionState:
        """Return a session that is not kept yet."""
        return SessionState(
            session_id,
            SessionCookie(cookie),
            self.now(),
            unknown=self._beginning,
            beginning=self._beginning,
        )

    async def load(
        self, session_id: str, cookie: CookieOptions, *, is_passive: bool = False
    ) -> SessionState | Left | None:
        """Return the session under *session_id*; ``None`` when there is none to go on with.

        A record whose absolute timeout has passed is deleted. One that cannot be decoded counts
        as absent; the log says so, once for each reason. Where a touch is due, and the storage
        can, that is done in the same call, but not with *is_passive*.
        """
        is_touched = False
        is_due = not is_passive and self.lifetime.touched.is_due(session_id)
        if self.touching is not None and is_due:
            loaded = await self.touching.load_and_touch(session_id, self.lifetime.idle)
            stored, is_touched = loaded or (None, False)
        else:
            stored = await self.storage.load(session_id)
        state = await self.read(session_id, stored, cookie, is_passive=is_passive)
        is_live = isinstance(state, SessionState) and state.standing is Standing.LIVE
        if isinstance(state, SessionState) and is_live and is_touched:
            await self._note_touch(state)
        return state

    async def read(
        self,
        session_id: str,
        stored: Stored | None,
        cookie: CookieOptions,
        *,
        is_passive: bool = False,
    ) -> SessionState | Left | None:
        """Return the session to which *stored* leads; ``None`` when there is none to go on with.

        *stored* is what the storage answered for *session_id*, which may be another's record.
        """
        stored = await self._kept.own(session_id, stored)
        found = await self._aliases.follow(session_id, stored, is_by_client=True)
        if found is Leftover.REUSED and stored is not None and self._on_reuse == "end":
            return await self._end_reused(session_id, stored)
        if not isinstance(found, Found):
            return found
        state = self._state(found, cookie)
        if self.lifetime.is_over(state):
            await self.storage.delete(state.session_id)
            return None
        if state.bond is not None and self.bonds is not None:
            if found.standing is Standing.FORMER:
                left = self._aliases.read(stored)
                is_same = not isinstance(left, Former) or left.is_same_principal
                if not await self.bonds.may_be_shown(state.bond, is_same=is_same):
                    return Leftover.REFUSED
            elif not await self.bonds.look(state, is_passive=is_passive):
                return None
        await self._renewal.first_use(state)
        return state

    async def _end_reused(self, session_id: str, stored: Stored) -> Left:
        """End the session to which *session_id*, which was rotated away, led; say what is left."""
        left = await self._renewal.end_reused(session_id, stored)
        if isinstance(left, Ended) and left.bond is not None and self.bonds is not None:
            await self.bonds.leave(left.bond)
        return left

    async def move(self, state: SessionState, new_id: NewId) -> None:
        """Let *state* go on under an id from *new_id*; nothing is written yet."""
        state.move_to(await new_id())
        if self._is_renewed_now_and_then:
            state.renewed_at = self.now()

    def expires_at(self, state: SessionState) -> float | None:
        """Return the Unix time at which *state* ends, at the earliest; ``None``: it is new."""
        return None if state.is_new else self.lifetime.ends_at(state)

    def can_renew(self, state: SessionState) -> bool:
        """Ask whether anybody may know the id of *state*, so that it has to be renewed."""
        return not state.is_new

    def ending(self, state: SessionState, *, is_resigned: bool, is_saved: bool) -> Ending:
        """Return how *state* was left. Raise UnserializableValue for what cannot be written."""
        is_touch_due = self.lifetime.is_touch_due(state)
        return ending(state, is_touch_due=is_touch_due, is_resigned=is_resigned, is_saved=is_saved)

    async def create(self, state: SessionState) -> None:
        """Keep *state* for the first time; IdTaken when its id is not free.

        What the browser came with before makes way: the record that regenerate() left, or one
        that could not be used. The first of these ends even where a back-end that is full or away
        cannot keep the new one. Where a login was revoked before it was kept, ``is_gone`` says so.
        """
        before = state.kept_bond
        try:
            if await self._list(state):
                self.writing.saved(state, await self.writing.create(state))
        except IdTaken:
            if not await self._is_forestalled(state):
                raise
            state.is_gone = True
        except StorageError:
            await self._delete_previous(state)
            raise
        await self._delete_previous(state)
        if state.stale_id is not None and state.stale_id != state.session_id:
            await self.storage.delete(state.stale_id)
        state.stale_id = None
        await self._unlist(before, state)

    async def replace(self, state: SessionState) -> bool:
        """Write what was changed on top of what others changed; False when the record is gone.

        Raise MergeConflict when ``merge="raise"`` finds one, or others were quicker too often. A
        session that was emptied ends even where what is new in it cannot be kept.
        """
        if self.lifetime.ttl(state) <= 0:
            return await self._end(state)
        before = state.kept_bond
        try:
            is_kept = await self._list(state) and await self._conflicts.write(state)
        except StorageError:
            if state.intent is Intent.EMPTY:
                await self.delete(state)
            raise
        await self._unlist(before, state)
        return is_kept and await self._goes_on(state)

    async def _goes_on(self, state: SessionState) -> bool:
        """Look *state*, which was written, up in its indexes where due; False: it was revoked.

        For those who hold it long, and write again and again.
        """
        if self.bonds is not None and not await self.bonds.look(state):
            state.is_gone = True
        return not state.is_gone

    async def _list(self, state: SessionState) -> bool:
        """Have the index of its principal name *state* before it is kept; False: it was revoked."""
        if self.bonds is not None and not await self.bonds.enter_again(state):
            state.is_gone = True
        return not state.is_gone

    async def _unlist(self, before: Bond | None, state: SessionState) -> None:
        """Let indexes forget *state*, which was kept with the bond *before*, if it has another."""
        if self.bonds is not None and before is not None:
            await self.bonds.leave(before, but=None if state.is_gone else state.kept_bond)

    async def _is_forestalled(self, state: SessionState) -> bool:
        """Ask whether the login that *state* is was revoked before it was kept."""
        if self.bonds is None or state.bond is None:
            return False
        return self._aliases.read(await self._kept.load(state.session_id)) == ENDED

    async def resolve(
        self, state: SessionState, conflict: Conflict, payload: bytes, snapshot: Snapshot
    ) -> bool:
        """Go on where *payload* met another version than expected; False: the record is gone."""
        conflict = await self._kept.own_conflict(state.session_id, conflict)
        try:
            written = await self.writing.known_again(state, conflict, payload, snapshot)
        except Conflict as other:
            before = state.kept_bond
            is_kept = await self._conflicts.put_on_top(state, other.current)
            await self._unlist(before, state)
            return is_kept
        self.writing.saved(state, written)
        return True

    async def touch(self, state: SessionState, *, is_renewal_told: bool = True) -> bool:
        """Let the record live its idle timeout from now; False when it is gone.

        With *is_renewal_told*, the record is read again, in the same call where the storage can.
        Where its id was renewed or rotated meanwhile, ``standing`` says so; of one that was
        rotated, *state* goes on under the new id.
        """
        ttl = self.lifetime.ttl(state)
        if ttl <= 0:
            return await self._end(state)
        if is_renewal_told:
            stored = await self._load_and_touch(state.session_id, ttl)
            found = await self._aliases.follow(state.session_id, stored)
            state.is_gone = not isinstance(found, Found)
            if isinstance(found, Found) and found.session_id != state.session_id:
                go_on_under(state, found)
                await self.storage.touch(state.session_id, ttl)
            elif isinstance(found, Found) and found.standing is Standing.FORMER:
                state.standing = Standing.FORMER
        else:
            state.is_gone = not await self.storage.touch(state.session_id, ttl)
        self.lifetime.touched.add(state.session_id)
        return not state.is_gone and await self._goes_on(state)

    async def renew(self, state: SessionState, previous: SessionState) -> bool:
        """Keep *state* under its new id, because rights change; False when it is gone.

        Under the old id remains what was there just before, for those who come with it. A session
        that was emptied ends even where what is new in it cannot be kept.
        """
        before = state.kept_bond
        try:
            is_kept = await self._list(state) and await self._renewal.renew(state, previous)
        except StorageError as error:
            if isinstance(error, IdTaken) and await self._is_forestalled(state):
                state.is_gone = True
                return False
            if previous.intent is Intent.EMPTY:
                await self._delete_previous(state)
            raise
        await self._unlist(before, state)
        if is_kept and self.bonds is not None and _is_parted(state, before):
            return not await self.bonds.part(state) or await self._conflicts.write(state)
        return is_kept

    async def rotate(self, state: SessionState, previous: SessionState) -> bool:
        """Keep *state* under its new id, and let the old one lead there; False when it is gone."""
        return await self._list(state) and await self._renewal.rotate(state, previous)

    async def delete(self, state: SessionState) -> None:
        """Remove the record, and the one under the id before; neither need be there.

        Raise SessionGone where *state* is what is left from before a change of rights. Where the
        principal is known to be the same, the session that lives on is ended instead.
        """
        if state.standing is Standing.FORMER:
            await self._renewal.end_live(state.session_id)
        else:
            for each in (state.previous, state):
                if each is not None:
                    await self._delete_kept(each)
        bonds = {bond.handle: bond for bond in (state.kept_bond, state.bond) if bond is not None}
        state.deleted()
        for bond in bonds.values():
            await self._unlist(bond, state)

    def tell(self, session_id: str) -> None:
        """Have who watches *session_id* look at it: it may have ended, or be somebody else's."""
        if self.on_end is not None:
            self.on_end(session_id)

    async def _delete_previous(self, state: SessionState) -> None:
        if state.previous is not None:
            await self._delete_kept(state.previous)
            state.previous = None

    async def _delete_kept(self, state: SessionState) -> None:
        if state.version is None:
            return
        await self._renewal.end(state.session_id, state.version)
        # Not before: where rights changed meanwhile, nothing has ended.
        if state.former_id is not None:
            await self.storage.delete(state.former_id)

    async def reload(self, state: SessionState, seen: Seen) -> None:
        """Read the record again into *state*, whose changes are forgotten.

        What another task has changed since *seen* is kept. Raise SessionGone, and forget nothing,
        when there is no record.
        """
        kept = state.previous or state
        if kept.is_new:
            raise SessionGone("the session is new: there is no record to read yet")
        # Not as for a client that comes with the id: this request has it already.
        stored = await self._kept.load(kept.session_id)
        found = await self._aliases.follow(kept.session_id, stored)
        newest = self._state(found, state.cookie.base) if isinstance(found, Found) else None
        if newest is None or self.lifetime.is_over(newest):
            raise gone(state)
        meanwhile = state.changed_since(seen)
        on_top = merged(meanwhile, newest.data, "mine", self._whole, state.shapes).values
        state.replaced_by(newest, on_top)

    async def atomic(self, state: SessionState, change: Callable[[SessionState], T], /) -> T:
        """Apply *change* to the newest data and write that alone; return what it returned.

        The unsaved changes in *state* stay on top of the result. To a session that is not kept yet,
        *change* is applied here, and nothing is written. Raise SessionGone when the record is gone,
        MergeConflict when others were quicker too often.
        """
        if state.is_new:
            return change(state)
        own = state.original_own
        result = await self._conflicts.atomic(
            state, change, lambda found: self._state(found, state.cookie.base)
        )
        if self.bonds is not None and state.original_own != own:
            await self.bonds.enter_again(state, is_prolonged=True)
        return result

    async def _load_and_touch(self, session_id: str, ttl: float) -> Stored | None:
        """Return the record, which lives *ttl* seconds from now."""
        if self.touching is None:
            is_there = await self.storage.touch(session_id, ttl)
            return await self._kept.load(session_id) if is_there else None
        stored, is_touched = await self.touching.load_and_touch(session_id, ttl) or (None, False)
        if stored is not None and not is_touched and not await self.storage.touch(session_id, ttl):
            return None
        return await self._kept.own(session_id, stored)

    async def _note_touch(self, state: SessionState) -> None:
        """Take note that the record was touched when it was read, with the general idle timeout.

        That is too much where the session's own is shorter, or its end is near.
        """
        ttl, idle = self.lifetime.ttl(state), self.lifetime.idle
        if ttl > idle:
            # Such a record lives longer anyway, and is still to be touched.
            return
        if ttl < idle:
            try:
                await self.storage.touch(state.session_id, max(ttl, LEAST_TTL))
            except StorageUnavailable:
                # The record was read, and is touched once more at the end of the request.
                return
        state.touched_at = self.lifetime.steady()
        self.lifetime.touched.add(state.session_id)

    async def _end(self, state: SessionState) -> bool:
        await self.storage.delete(state.session_id)
        state.is_gone = True
        return False

    def _state(self, found: Found, cookie: CookieOptions) -> SessionState:
        session_id, record, version, standing = found
        own = record.own_attributes(cookie)
        # A clock that was ahead and is right again must put no end off.
        now, began_at = self.now(), record.created_at
        created_at = now if began_at is None else min(began_at, now)
        authenticated_at = record.authenticated_at
        if authenticated_at is not None:
            authenticated_at = min(authenticated_at, now)
        renewed_at = record.renewed_at
        if renewed_at is not None:
            renewed_at = min(renewed_at, now)
        state = SessionState(
            session_id,
            SessionCookie(cookie, own),
            created_at,
            record.data,
            version,
            original_own=dict(own),
            standing=standing,
            authenticated_at=authenticated_at,
            former_id=record.former_id,
            renewed_at=renewed_at,
            unknown=record.unknown,
            beginning=self._beginning,
            bond=record.bond,
            kept_bond=record.bond,
        )
        if cookie.secure and "secure" not in own and standing is Standing.LIVE:
            state.is_renewal_due = record.is_in_clear
        # Without a beginning that was written, as in Express, it would never be too old. By a clock
        # that was ahead, a login would stay fresh until then, and an id be rotated no more.
        has_end = self.lifetime.ends_anyway or self._is_renewed_now_and_then
        state.must_be_written = (
            authenticated_at != record.authenticated_at
            or renewed_at != record.renewed_at
            or (has_end and created_at != began_at)
        )
        return state


def _is_parted(state: SessionState, before: Bond | None) -> bool:
    """Ask whether *state* was renewed beside another request, and has the handle of that one."""
    bond = state.bond
    is_same = bond is not None and before is not None and bond.handle == before.handle
    return is_same and state.former_id is None and not state.is_overtaken
