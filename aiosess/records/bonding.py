"""A session is bound to its principal, looked at now and then, and let go.

The index is written before the record where a session begins, and after it where one ends, so that
no session is alive that is not listed. Where the back-end has lost an index, sessions are entered
again when they are looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias
from weakref import WeakSet

from msgspec.structs import replace

from aiosess.errors import IdTaken, MergeConflict, SessionGone, StorageError, TooManySessions
from aiosess.events import Events, Reason
from aiosess.privacy import private
from aiosess.records.aliases import ENDED, MOST_ALIASES, Aliases
from aiosess.records.bonds import Bond
from aiosess.records.format import Alias, Former, Record, encode_alias
from aiosess.records.indexes import Entry, Index, Indexes, key_of_label, key_of_principal
from aiosess.records.lifetime import Lifetime, Touched
from aiosess.records.renewal import Renewal
from aiosess.records.state import SessionState, Standing
from aiosess.storages import Storage, Version

__all__ = ["MOST_SESSIONS", "Bonds", "Evict", "Limits", "Listed", "Live", "Seat", "new_handle"]

Evict: TypeAlias = Literal["oldest", "idle", "reject"]

MOST_SESSIONS: Final = 1_000
"""So many sessions an index holds at the most: some 120 kB, and memcached takes one megabyte."""

# A login writes its record so many seconds after the index at the latest, or enters itself again.
_PENDING: Final = 60.0
_LISTED_ANEW: Final = _PENDING / 2
# By so many seconds two ends may differ that are the same.
_JITTER: Final = 1.0
_HANDLE_BYTES: Final = 12

Belongs: TypeAlias = Callable[[Bond], bool]
"""Asks whether a session is one of those that an index is to name."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many sessions a principal may have, and which of them ends where that is too many."""

    max_sessions: int = 100
    evict: Evict = "oldest"


class Listener(Protocol):
    """Hears of sessions that have ended."""

    def tell(self, session_id: str) -> None:
        """Have whatever is open under *session_id* looked at."""
        ...


class Seat:
    """Where options keep the limits of their principals, once somebody has set them.

    Those who serve sessions with these options hear of what the principals end.
    """

    limits: Limits | None = None
    is_in_service: bool = False
    """Whether sessions are served already, so that it is too late for limits."""

    def __init__(self) -> None:
        self._listeners: WeakSet[Listener] = WeakSet()

    def serve(self, listener: Listener) -> None:
        """Take note that sessions are served, whose watchers *listener* tells."""
        self.is_in_service = True
        self._listeners.add(listener)

    def tell(self, session_id: str) -> bool:
        """Tell all who serve sessions that the one under *session_id* may have ended.

        False where nobody serves any in this process.
        """
        listeners = list(self._listeners)
        for listener in listeners:
            listener.tell(session_id)
        return bool(listeners)


@private()
class Live(NamedTuple):
    """A session that is alive, and under which id."""

    session_id: str
    version: Version
    record: Record
    bond: Bond


@private()
class Listed(NamedTuple):
    """A session that is alive, and what the index knows of it."""

    live: Live
    entry: Entry


def new_handle() -> str:
    """Return 16 characters, 96 random bits."""
    return secrets.token_urlsafe(_HANDLE_BYTES)


class Bonds:
    """Enters sessions into the indexes of their principals and labels, and ends them by these.

    *storage* is the one of the records.
    """

    def __init__(
        self,
        storage: Storage,
        limits: Limits,
        *,
        indexes: Indexes,
        aliases: Aliases,
        renewal: Renewal,
        lifetime: Lifetime,
        events: Events,
    ) -> None:
        self._storage = storage
        self._limits = limits
        self._indexes = indexes
        self._aliases = aliases
        self._renewal = renewal
        self._lifetime = lifetime
        self._events = events
        self.looked: Touched = Touched(lifetime.touch_after, lifetime.steady)
        """Under which ids sessions were looked at; one that has a new id is due."""
        self._looked_passively = Touched(lifetime.touch_after, lifetime.steady)

    # A session begins to belong to somebody.

    async def enter(self, state: SessionState, bond: Bond) -> None:
        """Bind *state* by *bond*, which is still to be kept, and have the indexes name it.

        Raise TooManySessions where the principal may have no more; nothing has changed then.
        """
        # Before it is: nobody knows how far that comes.
        state.entered = (*state.entered, bond)
        enter = partial(self._enter, state, bond.handle)
        key = key_of_principal(bond.principal)
        bound = await self._indexes.change(key, partial(enter, is_limited=True))
        for key in _label_keys(bond):
            # Each has revocations of its own, and the bond is later than all of them.
            bound = max(bound, await self._indexes.change(key, partial(enter, is_limited=False)))
        state.bond = bond = replace(bond, bound=bound)
        self._note_listed(state)
        if not _is_kept(state, bond):
            # Else the indexes still name the id before, and the next request looks.
            self.looked.add(state.session_id)

    async def enter_again(self, state: SessionState, *, is_prolonged: bool = False) -> bool:
        """Have the indexes name *state* as it is about to be kept; False where it was revoked.

        Where they know it so already, nothing is asked; but where it *is_prolonged* they do not.
        """
        bond = state.bond
        if bond is None or not (is_prolonged or self._is_listed_otherwise(state)):
            return True
        reason = await self._looked_up(state, bond, is_passive=False)
        if reason is None:
            self._note_listed(state)
            return True
        await self._end_over(state, bond, reason)
        return False

    async def withdraw(self, state: SessionState) -> None:
        """Let the indexes forget the bonds of *state* that are not to be kept after all."""
        bonds, state.entered = state.entered, ()
        # What is written all the same is to be listed anew.
        state.listed = ("", 0.0, 0.0)
        for bond in bonds:
            await self.leave(bond, but=None if state.is_gone else state.kept_bond)

    async def part(self, state: SessionState) -> bool:
        """Give *state*, which is kept, a handle of its own; False where that cannot be listed.

        Another request renewed the same session at the same time, for the same principal, and each
        keeps one of its own. The other one has the handle.
        """
        bond = state.bond
        if bond is None:
            return False
        # What the indexes know by the handle is the other one from here on.
        state.entered = ()
        try:
            await self.enter(state, replace(bond, handle=new_handle()))
        except (StorageError, MergeConflict, TooManySessions):
            return False
        return True

    def _note_listed(self, state: SessionState) -> None:
        now = self._lifetime.now()
        state.listed = (state.session_id, now, self._lifetime.latest_end(state))

    def _is_listed_otherwise(self, state: SessionState) -> bool:
        """Ask whether the indexes know *state* by another id, or as ending earlier."""
        if not state.is_bond_changed:
            return self._lifetime.is_prolonged(state)
        session_id, at, until = state.listed
        passed = self._lifetime.now() - at
        is_longer = self._lifetime.latest_end(state) > until + passed + _JITTER
        return session_id != state.session_id or passed > _LISTED_ANEW or is_longer

    async def _enter(
        self, state: SessionState, handle: str, index: Index, *, is_limited: bool
    ) -> int:
        known = index.sessions.get(handle)
        if known is None:
            kept = state.kept_bond
            leaving = None if kept is None else kept.handle
            await self._make_room(index, math.inf, is_limited=is_limited, leaving=leaving)
        now = self._lifetime.now()
        bound = max(int(now * 1000), index.revoked + 1)
        until = self._lifetime.latest_end(state)
        index.sessions[handle] = Entry(_id_of(state, handle, known), bound, now, until)
        return bound

    async def _make_room(
        self, index: Index, bound: float, *, is_limited: bool, leaving: str | None = None
    ) -> None:
        """End sessions where *index* can name no more; *leaving* ends anyway, and does not count.

        Raise TooManySessions where it is the one that was *bound* then which is too many.
        """
        most = self._limits.max_sessions if is_limited else MOST_SESSIONS
        if len(index.sessions) < most:
            return
        await self._drop_dead(index)
        while len(index.sessions.keys() - {leaving}) >= most:
            if self._limits.evict == "reject":
                raise TooManySessions(most)
            is_idle = self._limits.evict == "idle"
            handle, entry = min(
                (each for each in index.sessions.items() if each[0] != leaving),
                key=lambda each: each[1].seen if is_idle else each[1].bound,
            )
            if not is_idle and bound < entry.bound:
                raise TooManySessions(most)
            bond = await self.end(handle, entry)
            del index.sessions[handle]
            if bond is None:
                continue
            self._events.tell(Reason.EVICTED, whose=bond)
            # Nobody who has the index of a label waits for that of a principal.
            for key in _label_keys(bond) if is_limited else ():
                await self._leave(key, handle)

    async def _drop_dead(self, index: Index) -> None:
        live = await self.live(index, lambda _: True)
        for handle, entry in list(index.sessions.items()):
            is_to_be_ended = entry.bound <= index.revoked
            if handle not in live and not is_to_be_ended and not self._is_pending(entry):
                del index.sessions[handle]

    def _is_pending(self, entry: Entry) -> bool:
        """Ask whether the record may be still to come."""
        # One of a clock that was ahead would be to come for as long.
        return abs(self._lifetime.now() - entry.seen) < _PENDING

    # A session is looked at, when somebody comes with it.

    async def look(self, state: SessionState, *, is_passive: bool = False) -> bool:
        """Look *state* up in its indexes, where that is due; False where it was revoked.

        Where an index has forgotten it, it is entered again; but not with *is_passive*, since that
        is no activity. Where the storage does not answer, the next request looks.
        """
        bond = state.kept_bond
        if bond is None or state.standing is Standing.FORMER:
            return True
        if not self._is_due(state, is_passive=is_passive):
            return True
        try:
            reason = await self._looked_up(state, bond, is_passive=is_passive)
        except (StorageError, MergeConflict):
            return True
        looked = self._looked_passively if is_passive else self.looked
        looked.add(state.session_id)
        if reason is None:
            return True
        await self._end_over(state, bond, reason)
        return False

    async def _end_over(self, state: SessionState, bond: Bond, reason: Reason) -> None:
        """End *state*, which is over for *reason*; one that is still to be kept is just not."""
        self._events.tell(reason, whose=bond)
        kept = state.previous or state
        if kept.version is not None and _is_kept(state, bond):
            with contextlib.suppress(StorageError, SessionGone):
                await self._renewal.end(kept.session_id, kept.version)
        await self.leave(bond)

    async def may_be_shown(self, bond: Bond, *, is_same: bool) -> bool:
        """Ask whether what is left from before a change of rights may still be shown.

        Not once its session was revoked; nor where that goes on with the same principal, and has
        ended.
        """
        try:
            index = await self._indexes.load(key_of_principal(bond.principal))
        except StorageError:
            return True
        if _why_over(index, bond) is not None:
            return False
        return not is_same or bond.handle in index.sessions

    def _is_due(self, state: SessionState, *, is_passive: bool) -> bool:
        return self.looked.is_due(state.session_id) and (
            not is_passive or self._looked_passively.is_due(state.session_id)
        )

    async def _looked_up(
        self, state: SessionState, bond: Bond, *, is_passive: bool
    ) -> Reason | None:
        """Have all indexes name *state* as it is now; return why it is over, where it is."""
        reason: Reason | None = None
        for key in _keys(bond):
            if is_passive:
                index = await self._indexes.load(key)
                reason = reason or _why_over(index, bond)
            else:
                is_limited = key == key_of_principal(bond.principal)
                confirm = partial(self._confirm, state, bond, is_limited=is_limited)
                reason = reason or await self._indexes.change(key, confirm)
        return reason

    async def _confirm(
        self, state: SessionState, bond: Bond, index: Index, *, is_limited: bool
    ) -> Reason | None:
        """Have *index* name *state* as it is now; return why it is over, where it is."""
        over = _why_over(index, bond)
        if over is not None:
            return over
        known, now = index.sessions.get(bond.handle), self._lifetime.now()
        bound = bond.bound if known is None else max(known.bound, bond.bound)
        session_id, until = _id_of(state, bond.handle, known), self._lifetime.latest_end(state)
        if known is None:
            try:
                await self._make_room(index, bound, is_limited=is_limited)
            except TooManySessions:
                return Reason.EVICTED
        elif (
            _is_kept(state, bond)
            and known.session_id == session_id
            and abs(now - known.seen) < self._lifetime.touch_after / 2
            and until - known.until < self._lifetime.touch_after
        ):
            # Another process was there a moment ago.
            return None
        index.sessions[bond.handle] = Entry(session_id, bound, now, until)
        return None

    # A session ends.

    async def leave(self, bond: Bond, *, but: Bond | None = None) -> None:
        """Let the indexes name the session by *bond* no more, which is over.

        Those that name it by the bond *but*, which it has instead, go on. Where the storage does
        not answer, its entries end by themselves.
        """
        is_same = but is not None and but.handle == bond.handle
        named = _keys(but) if but is not None and is_same else ()
        for key in _keys(bond):
            if key not in named:
                await self._leave(key, bond.handle)

    async def _leave(self, key: str, *handles: str) -> None:
        async def left(index: Index) -> None:
            for handle in handles:
                index.sessions.pop(handle, None)

        with contextlib.suppress(StorageError, MergeConflict):
            await self._indexes.change(key, left)

    async def _forget(self, key: str, dead: dict[str, Entry]) -> None:
        """Let the index under *key* name those no more that were *dead*, and are as they were."""

        async def forgotten(index: Index) -> None:
            for handle, entry in dead.items():
                if index.sessions.get(handle) == entry:
                    del index.sessions[handle]

        with contextlib.suppress(StorageError, MergeConflict):
            await self._indexes.change(key, forgotten)

    async def end(
        self, handle: str, entry: Entry, belongs: Belongs = lambda _: True
    ) -> Bond | None:
        """End the session that *entry* names; ``None`` where it is over, or does not *belong*.

        A login that is still to write its record writes none.
        """
        live = await self._find(entry.session_id)
        if live is None and self._is_pending(entry):
            ended = encode_alias(entry.session_id, ENDED)
            try:
                await self._storage.create(entry.session_id, ended, _PENDING)
            except IdTaken:
                live = await self._find(entry.session_id)
        if live is None or live.bond.handle != handle or not belongs(live.bond):
            return None
        try:
            await self._renewal.end(live.session_id, live.version)
        except SessionGone:
            # Somebody else logged in there.
            return None
        if live.record.former_id is not None:
            with contextlib.suppress(StorageError):
                await self._storage.delete(live.record.former_id)
        return live.bond

    async def _find(self, session_id: str) -> Live | None:
        """Return the session to which *session_id* leads now; ``None`` where none is bound."""
        for _ in range(MOST_ALIASES):
            stored = await self._storage.load(session_id)
            found = self._aliases.read(stored)
            match found:
                case Record() if stored is not None and found.bond is not None:
                    return Live(session_id, stored.version, found, found.bond)
                case Alias() if found.renewed_to:
                    session_id = found.renewed_to
                case Former() if found.is_same_principal:
                    session_id = found.moved_to
                case _:
                    return None
        return None

    # All sessions of a principal, or with a label.

    async def live(self, index: Index, belongs: Belongs) -> dict[str, Listed]:
        """Return the sessions that *index* names, by handle, where they are alive and *belong*."""
        entries = {
            handle: entry for handle, entry in index.sessions.items() if entry.bound > index.revoked
        }
        found = await asyncio.gather(*(self._find(each.session_id) for each in entries.values()))
        return {
            handle: Listed(live, entry)
            for (handle, entry), live in zip(entries.items(), found, strict=True)
            if live is not None and live.bond.handle == handle and belongs(live.bond)
        }

    async def sessions(self, key: str, belongs: Belongs) -> dict[str, Listed]:
        """Return the sessions that are alive of the index under *key*; it forgets the others."""
        index = await self._indexes.load(key)
        if not index.sessions:
            return {}
        live = await self.live(index, belongs)
        dead = {
            handle: entry
            for handle, entry in index.sessions.items()
            if handle not in live and entry.bound > index.revoked and not self._is_pending(entry)
        }
        if dead:
            await self._forget(key, dead)
        return live

    async def end_one(self, principal: str, handle: str) -> bool:
        """End the session called *handle* where it is one of *principal*; False where it is not."""
        key = key_of_principal(principal)
        entry = (await self._indexes.load(key)).sessions.get(handle)
        if entry is None:
            return False
        bond = await self.end(handle, entry)
        if bond is None:
            await self._forget(key, {handle: entry})
            return False
        self._events.tell(Reason.REVOKED, whose=bond)
        await self.leave(bond)
        return True

    async def revoke(self, key: str, belongs: Belongs, keep: SessionState | None = None) -> int:
        """End all sessions of the index under *key* but *keep*; return how many were alive.

        Whatever was bound before is over from here on, also where the index has forgotten it. Where
        the storage fails on the way, the error says how many have ended, and the rest is found by
        the next try.
        """
        kept = None if keep is None or keep.bond is None or not belongs(keep.bond) else keep
        entries = await self._indexes.change(key, partial(self._begin_revocation, kept))
        outcomes = await asyncio.gather(
            *(self.end(handle, entry, belongs) for handle, entry in entries.items()),
            return_exceptions=True,
        )
        failures = [each for each in outcomes if isinstance(each, BaseException)]
        ended = [each for each in outcomes if isinstance(each, Bond)]
        over = [
            handle
            for handle, outcome in zip(entries, outcomes, strict=True)
            if not isinstance(outcome, BaseException)
        ]
        await self._leave_all(key, ended, over)
        for bond in ended:
            self._events.tell(Reason.REVOKED, whose=bond)
        if failures:
            failures[0].add_note(f"{len(ended)} sessions have ended, and {len(failures)} may not")
            raise failures[0]
        return len(ended)

    async def _begin_revocation(self, kept: SessionState | None, index: Index) -> dict[str, Entry]:
        """Say in *index* that all sessions but *kept* are over, and return those that it names."""
        now, bond = self._lifetime.now(), None if kept is None else kept.bond
        index.revoked = max(
            int(now * 1000),
            index.revoked + 1,
            *(entry.bound for entry in index.sessions.values()),
        )
        remembers = [now + self._lifetime.longest_unlooked]
        remembers += [entry.until + self._lifetime.touch_after for entry in index.sessions.values()]
        index.remembers = max(remembers)
        entries = dict(index.sessions)
        if kept is not None and bond is not None:
            known = entries.pop(bond.handle, None)
            if known is None and await self._is_over(kept, bond):
                return entries
            session_id = kept.session_id if known is None else known.session_id
            until = self._lifetime.latest_end(kept)
            index.sessions[bond.handle] = Entry(session_id, index.revoked + 1, now, until)
        return entries

    async def _is_over(self, state: SessionState, bond: Bond) -> bool:
        """Ask whether *state*, which no index names by *bond*, has ended since it was read."""
        return _is_kept(state, bond) and await self._find(state.session_id) is None

    async def _leave_all(self, key: str, ended: list[Bond], over: list[str]) -> None:
        """Let the index under *key* forget what is *over*, and all others what has *ended*."""
        by_key: dict[str, set[str]] = {key: set(over)}
        for bond in ended:
            for other in _keys(bond):
                by_key.setdefault(other, set()).add(bond.handle)
        leaving: list[Awaitable[None]] = [
            self._leave(each, *handles) for each, handles in by_key.items() if handles
        ]
        await asyncio.gather(*leaving)


def _why_over(index: Index, bond: Bond) -> Reason | None:
    """Return why the session is over of which *index* knows, or has forgotten; ``None``: it is not.

    One that outlived a revocation was bound anew by it, as the index says.
    """
    known = index.sessions.get(bond.handle)
    bound = bond.bound if known is None else max(known.bound, bond.bound)
    return Reason.REVOKED if bound <= index.revoked else None


def _is_kept(state: SessionState, bond: Bond) -> bool:
    """Ask whether *state* is kept with *bond*, perhaps as it was before another login."""
    return state.kept_bond is not None and state.kept_bond.handle == bond.handle


def _id_of(state: SessionState, handle: str, known: Entry | None) -> str:
    """Return by which id an index is to name *state*, where it has *known* it so far.

    What is kept under the id before leads on, and is to be found until that is written.
    """
    kept = state.kept_bond
    if state.previous is None or kept is None or kept.handle != handle:
        return state.session_id
    return state.previous.session_id if known is None else known.session_id


def _keys(bond: Bond) -> list[str]:
    """Return under which keys the indexes are that name the session."""
    return [key_of_principal(bond.principal), *_label_keys(bond)]


def _label_keys(bond: Bond) -> list[str]:
    return [key_of_label(name, value) for name, value in bond.labels.items()]
