"""A session takes a new id: the old one leads there for a while, or nowhere."""

from __future__ import annotations

import contextlib
from typing import Final

from aiosess.errors import Conflict, MergeConflict, StorageUnavailable
from aiosess.records.aliases import ENDED, Aliases
from aiosess.records.conflicts import MOST_MERGES, Rebase, too_often
from aiosess.records.format import Alias, encode_alias
from aiosess.records.lifetime import LEAST_TTL, Lifetime
from aiosess.records.state import SessionState
from aiosess.records.writing import Writing, Written
from aiosess.storages import Storage, Version

__all__ = ["Renewal"]

# Longer than any request that began before is under way.
_ENDED_MORE: Final = 1.0


class Renewal:
    """Moves sessions to other ids, and ends them under all of theirs; *grace* is in seconds."""

    def __init__(
        self,
        storage: Storage,
        aliases: Aliases,
        writing: Writing,
        lifetime: Lifetime,
        *,
        grace: float,
        rebase: Rebase,
    ) -> None:
        self._storage = storage
        self._aliases = aliases
        self._writing = writing
        self._lifetime = lifetime
        self._grace = grace
        self._rebase = rebase

    async def renew(self, state: SessionState, previous: SessionState) -> bool:
        """Keep *state* under its new id and let the old one lead there; False when it is gone.

        What others write under the old id meanwhile comes along.
        """
        # An explicit save() may have got halfway before the storage went away.
        keep = self._writing.create if state.version is None else self._writing.replace
        written = await keep(state)
        state.version = written.version
        try:
            kept = await self._lead_on(state, previous, written)
        except MergeConflict:
            await self._storage.delete(state.session_id)
            state.version = None
            raise
        if kept is None:
            await self._storage.delete(state.session_id)
            state.is_gone = True
            return False
        self._writing.saved(state, kept)
        state.previous = None
        return True

    async def end(self, session_id: str, version: Version) -> None:
        """Remove the record, also when it was renewed meanwhile and lives under another id."""
        for _ in range(MOST_MERGES):
            try:
                # From here on nobody can renew it any more.
                await self._writing.replace_bytes(
                    session_id, ENDED, self._grace + _ENDED_MORE, expected=version
                )
                break
            except Conflict as conflict:
                current = conflict.current
            found = self._aliases.read(current)
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

    async def _lead_on(
        self, state: SessionState, previous: SessionState, written: Written
    ) -> Written | None:
        """Put an alias in the place of the old record, and return what is kept under the new id.

        ``None`` where the session was destroyed meanwhile.
        """
        alias = encode_alias(Alias(state.session_id, self._lifetime.now() + self._grace))
        ttl = max(self._lifetime.ttl(state), self._grace, LEAST_TTL)
        seen = previous.version
        for _ in range(MOST_MERGES):
            try:
                await self._writing.replace_bytes(previous.session_id, alias, ttl, expected=seen)
            except Conflict as conflict:
                current = conflict.current
            else:
                return written
            theirs = self._aliases.read(current)
            if current is None or theirs is None:
                return None
            if isinstance(theirs, Alias):
                # Somebody else renewed it at the same time, and each keeps a session of its own; or
                # destroyed it, and it leads nowhere.
                return written if theirs.renewed_to else None
            self._rebase(state, theirs, state.version)
            try:
                written = await self._writing.replace(state)
            except Conflict:
                # The new record has expired already: nobody else knows its id.
                return None
            state.version = written.version
            seen = current.version
        raise too_often()
