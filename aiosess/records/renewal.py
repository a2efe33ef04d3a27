"""A session takes a new id: the old one leads there for a while, or nowhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from aiosess.attributes import CookieOptions, SessionCookie
from aiosess.errors import (
    Conflict,
    SessionError,
    SessionGone,
    StorageError,
    StorageUnavailable,
)
from aiosess.records.aliases import ENDED, Ended, Found, Left, Leftover
from aiosess.records.conflicts import MOST_MERGES, Conflicts, superseded, too_often
from aiosess.records.decide import is_somebody
from aiosess.records.format import Alias, Former, Record, encode_alias, encode_former
from aiosess.records.lifetime import LEAST_TTL, Lifetime
from aiosess.records.state import SessionState, Standing
from aiosess.records.writing import Written
from aiosess.storages import Stored, Version

__all__ = ["Renewal"]

# Longer than any request that began before is under way.
_ENDED_MORE: Final = 1.0


class Renewal:
    """Moves sessions to other ids, and ends them under all of theirs; *grace* is in seconds.

    *tell* hears of each id under which a session lives no more.
    """

    def __init__(
        self,
        conflicts: Conflicts,
        lifetime: Lifetime,
        *,
        grace: float,
        principal_keys: frozenset[str],
        tell: Callable[[str], None],
    ) -> None:
        self._storage = conflicts.storage
        self._aliases = conflicts.aliases
        self._writing = conflicts.writing
        self._rebase = conflicts.rebase
        self._conflicts = conflicts
        self._lifetime = lifetime
        self._principal_keys = principal_keys
        self._grace = grace
        self._tell = tell

    async def renew(self, state: SessionState, previous: SessionState) -> bool:
        """Keep *state* under its new id, because rights change; False when it is gone.

        Under the old id remains what was there just before. What others wrote there until then
        comes along.
        """
        # Of two changes in one request, a client knows the first id only.
        state.former_id = previous.former_id or previous.session_id
        shown = _as_kept(previous)
        return await self._move(state, previous, self._former(shown, state.session_id, state))

    def _former(self, shown: Record, moved_to: str, state: SessionState) -> Former:
        """Return what is left of *shown*, where *state* goes on.

        Its grace begins when the new id is first used; but at once where somebody has lost rights,
        since whoever logs out may never come again.
        """
        is_same = self._is_same_principal(shown, state)
        is_lost = shown.bond is not None and not is_same
        until = self._lifetime.now() + (self._grace if is_lost else self._ttl(state))
        return Former(shown, moved_to, until, is_same)

    async def rotate(self, state: SessionState, previous: SessionState) -> bool:
        """Keep *state* under its new id, and let the old one lead there; False when it is gone.

        Where another request has rotated it at the same time, *state* goes on under that id.
        """
        until = self._lifetime.now() + self._grace
        return await self._move(state, previous, Alias(state.session_id, until))

    async def first_use(self, state: SessionState) -> None:
        """Let the time of grace of the id before begin, now that a client came with the new one.

        Where the storage cannot take note of it, that is tried again by the next request.
        """
        former_id = state.former_id
        if former_id is None:
            return
        try:
            stored = await self._storage.load(former_id)
            found = self._aliases.read(stored)
            if stored is not None and isinstance(found, Former):
                ttl = max(self._lifetime.ttl(state), self._lifetime.idle)
                await self._begin_grace(former_id, found, stored.version, ttl)
        except StorageError:
            # Reading takes no room in the back-end.
            return
        state.former_id = None
        state.must_be_written = True

    async def _begin_grace(
        self, session_id: str, former: Former, version: Version, ttl: float
    ) -> None:
        now = self._lifetime.now()
        if former.until <= now + self._grace:
            return
        cookie = SessionCookie(CookieOptions(secure=False))
        left = replace(former, until=now + self._grace)
        payload = encode_former(session_id, left, cookie, now=now)
        # Requests that are under way longer than the grace find it still: it tells them apart
        # from those whose session has ended. An index may name the session by it.
        with contextlib.suppress(Conflict):
            await self._writing.replace_bytes(session_id, payload, ttl, expected=version)

    async def _move(
        self, state: SessionState, previous: SessionState, left: Alias | Former
    ) -> bool:
        # An explicit save() may have got halfway before the storage went away.
        keep = self._writing.create if state.version is None else self._writing.replace
        written = await keep(state)
        state.version = written.version
        try:
            outcome = await self._leave_behind(state, previous, written, left)
        except SessionError as error:
            if isinstance(error, StorageUnavailable) and not error.is_answer:
                # The old id may lead here by now, and then this is all that is left of the session.
                raise
            await self._storage.delete(state.session_id)
            state.version = None
            raise
        if isinstance(outcome, Written):
            self._writing.saved(state, outcome)
            state.previous = None
            self._tell(previous.session_id)
            return True
        await self._storage.delete(state.session_id)
        if outcome is None:
            state.is_gone = True
            return False
        # Somebody else rotated it: go on as if this request had not.
        state.session_id, state.version = previous.session_id, previous.version
        state.previous, state.unconfirmed = None, ()
        return await self._conflicts.put_on_top(state, outcome)

    async def end(self, session_id: str, version: Version) -> None:
        """Remove the record, also when it was renewed meanwhile and lives under another id.

        That needs no room in the back-end. Raise StorageError where even deleting is refused, so
        that the record may still be there.
        """
        for _ in range(MOST_MERGES):
            ended = encode_alias(session_id, ENDED)
            try:
                # From here on nobody can renew it any more.
                await self._writing.replace_bytes(
                    session_id, ended, self._grace + _ENDED_MORE, expected=version
                )
                break
            except Conflict as conflict:
                current = conflict.current
            except StorageError:
                # A back-end that is full takes no marker, and still deletes. A renewal that is
                # still to leave something here finds no record then, and undoes itself.
                current = await self._storage.load(session_id)
                session_id, _ = await self._where_it_lives(session_id, current)
                await self._storage.delete(session_id)
                self._tell(session_id)
                return
            session_id, current = await self._where_it_lives(session_id, current)
            if current is None:
                return
            version = current.version
        else:
            raise too_often()
        self._tell(session_id)
        # The session is over; if this fails, what is left goes when nobody asks for it any more.
        with contextlib.suppress(StorageError):
            await self._storage.delete(session_id)

    async def _where_it_lives(
        self, session_id: str, current: Stored | None
    ) -> tuple[str, Stored | None]:
        """Return the id under which the session lives on, and its record; remove what led there.

        Raise SessionGone where rights have changed since.
        """
        for _ in range(MOST_MERGES):
            found = self._aliases.read(current)
            if isinstance(found, Former) and not found.is_same_principal:
                raise superseded()
            leads_to = _leads_to(found)
            if not leads_to:
                return session_id, current
            await self._storage.delete(session_id)
            session_id, current = leads_to, await self._storage.load(leads_to)
        raise too_often()

    async def end_live(self, former_id: str) -> None:
        """End the session that lives on since rights changed, where the principal is the same.

        Raise SessionGone where it is another, or where the session cannot be found from here.
        """
        found = self._aliases.read(await self._storage.load(former_id))
        if not isinstance(found, Former) or not found.is_same_principal:
            raise superseded()
        moved_to = found.moved_to
        session_id, live = await self._where_it_lives(moved_to, await self._storage.load(moved_to))
        if live is not None:
            await self.end(session_id, live.version)
        await self._storage.delete(former_id)

    async def end_reused(self, session_id: str, stored: Stored) -> Left:
        """End the session to which *session_id*, which was rotated away, led; say what is left.

        A login since has made it another one, which goes on.
        """
        try:
            session_id, live = await self._where_it_lives(session_id, stored)
        except SessionGone:
            return Leftover.REUSED
        if live is None:
            return Leftover.REUSED
        record = self._aliases.read(live)
        await self.end(session_id, live.version)
        return Ended(record.bond if isinstance(record, Record) else None)

    async def _leave_behind(
        self,
        state: SessionState,
        previous: SessionState,
        written: Written,
        left: Alias | Former,
    ) -> Written | Stored | None:
        """Put *left* under the old id, in the place of the record there.

        Where rights change and another request has rotated the id meanwhile, that is the one to
        which it led. Return what is kept under the new id; ``None`` where the session was destroyed
        meanwhile; what stands there already where somebody else has rotated it as well.
        """
        ttl = self._ttl(state)
        old_id, seen = previous.session_id, previous.version
        for _ in range(MOST_MERGES):
            payload = self._encoded(old_id, left, state)
            try:
                await self._put(old_id, payload, ttl, left, expected=seen)
            except Conflict as conflict:
                current = conflict.current
            else:
                return written
            if _leads_to(self._aliases.read(current)) == _leads_to(left):
                # What is there is our own, left by a write whose answer was lost.
                return written
            found = await self._aliases.follow(old_id, current)
            if not isinstance(found, Found):
                return None
            if _gives_way(state, left, found.standing):
                return current
            if found.standing is Standing.FORMER:
                # After two changes of rights at once, each keeps a session of its own, and what
                # is left belongs to the other.
                state.former_id = None
                return await self._written_again(state)
            self._rebase(state, found.record, state.version)
            if isinstance(left, Former):
                # Another request may have rotated the id, or logged out without an end.
                left = self._former(found.record, left.moved_to, state)
                state.former_id = previous.former_id or found.session_id
            again = await self._written_again(state)
            if again is None:
                return None
            written, old_id, seen = again, found.session_id, found.version
        raise too_often()

    async def _put(
        self,
        session_id: str,
        payload: bytes,
        ttl: float,
        left: Alias | Former,
        *,
        expected: Version,
    ) -> None:
        """Put *payload*, which says *left*, in the place of the record; raise Conflict."""
        try:
            await self._writing.replace_bytes(session_id, payload, ttl, expected=expected)
        except StorageUnavailable as error:
            if error.is_answer:
                raise
            # Perhaps only the answer was lost.
            current = self._aliases.read(await self._storage.load(session_id))
            if _leads_to(current) != _leads_to(left):
                raise

    async def _written_again(self, state: SessionState) -> Written | None:
        """Write *state* under its new id once more; ``None`` where that has expired already."""
        try:
            written = await self._writing.replace(state)
        except Conflict:
            # Nobody else knows the id.
            return None
        state.version = written.version
        return written

    def _encoded(self, session_id: str, left: Alias | Former, state: SessionState) -> bytes:
        if isinstance(left, Alias):
            return encode_alias(session_id, left)
        return encode_former(session_id, left, state.cookie, now=self._lifetime.now())

    def _ttl(self, state: SessionState) -> float:
        """Return how long what is left under an old id is kept, in seconds."""
        return max(self._lifetime.ttl(state), self._grace, LEAST_TTL)

    def _is_same_principal(self, before: Record, after: SessionState) -> bool:
        """Ask whether a principal is known, and the same as before; a bond says so best."""
        was, bond = before.data, before.bond
        if bond is not None:
            return after.bond is not None and after.bond.principal == bond.principal
        known = [key for key in self._principal_keys if is_somebody(was.get(key))]
        return bool(known) and all(was[key] == after.data.get(key) for key in known)


def _leads_to(found: Record | Alias | Former | None) -> str:
    """Return the id under which the session lives on; empty where that is the same."""
    match found:
        case Alias():
            return found.renewed_to
        case Former():
            return found.moved_to
        case _:
            return ""


def _gives_way(state: SessionState, left: Alias | Former, standing: Standing) -> bool:
    """Ask whether *state* is to go on as if it had no new id, since another request was quicker."""
    match standing:
        case Standing.ALIAS:
            return isinstance(left, Alias)
        case Standing.FORMER:
            # Where no handler asked for a new id, the browser's is that of the login.
            return isinstance(left, Alias) or state.is_renewal_due
        case _:
            return False


def _as_kept(previous: SessionState) -> Record:
    """Return the record that *previous* was read from."""
    before = previous.apart()
    before.rollback()
    return Record(
        before.data, None, {}, before.created_at, unknown=before.unknown, bond=before.bond
    )
