"""Whose a record is: what a storage answers is looked at before anybody believes it."""

from __future__ import annotations

from typing import Final

from aiosess.errors import Conflict, StorageUnavailable
from aiosess.events import Events, Reason
from aiosess.records.format import Origin, mark_of, origin_of, start_of
from aiosess.storages import FreshStorage, Storage, Stored, Version

__all__ = ["MarkedStorage"]

# So many records that were asked for again are remembered, so that each is once only.
_MOST_SEEN: Final = 1024


class MarkedStorage:
    """Passes each verb on to *storage*; a record that it answers with is that of its id.

    A record whose mark is that of another id is asked for once more, where the storage can on a
    connection of its own. Where the answer is the same, it was written so: Node code copies a
    session under a new id. Else replies were mixed up, and nobody gets the wrong record. What is
    no record at all is asked for again as well; a record without a mark is taken as it is.
    """

    def __init__(self, storage: Storage, events: Events) -> None:
        self._storage = storage
        self._events = events
        # By session id where the record came from that was kept there, asked for again.
        self._seen_again: dict[str, Origin] = {}

    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        """Keep *payload* under a free id; IdTaken when it is not."""
        return await self._storage.create(session_id, payload, ttl)

    async def load(self, session_id: str) -> Stored | None:
        """Return the record of *session_id*, or ``None`` when there is none."""
        return await self.own(session_id, await self._storage.load(session_id))

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        """Put *payload* in the place of *expected*; Conflict, with a record of the id, if not."""
        try:
            return await self._storage.replace(session_id, payload, ttl, expected=expected)
        except Conflict as conflict:
            raise await self.own_conflict(session_id, conflict) from None

    async def touch(self, session_id: str, ttl: float) -> bool:
        """Let the record live *ttl* seconds from now; False when there is none."""
        return await self._storage.touch(session_id, ttl)

    async def delete(self, session_id: str) -> bool:
        """Remove the record; False when there was none."""
        return await self._storage.delete(session_id)

    async def own_conflict(self, session_id: str, conflict: Conflict) -> Conflict:
        """Return *conflict*, or one with the record that is kept where its own is another's."""
        current = await self.own(session_id, conflict.current)
        return conflict if current is conflict.current else Conflict(current)

    async def own(self, session_id: str, stored: Stored | None) -> Stored | None:
        """Return *stored*, which was answered for *session_id*; what is kept if it is another's.

        Raise StorageUnavailable where that cannot be found out.
        """
        if stored is None or stored.payload.startswith(start_of(session_id)):
            return stored
        origin = origin_of(stored.payload)
        if _fits(session_id, origin) or self._seen_again.get(session_id) == origin:
            return stored
        return await self._asked_again(session_id, stored, origin)

    async def _asked_again(self, session_id: str, doubted: Stored, origin: Origin) -> Stored | None:
        """Return what is kept for *session_id*, of which *doubted* was answered."""
        storage = self._storage
        if isinstance(storage, FreshStorage):
            stored = await storage.load_afresh(session_id, agrees=lambda kept: _agree(kept, origin))
        else:
            stored = await storage.load(session_id)
        found = None if stored is None else origin_of(stored.payload)
        if not _agree(stored, origin):
            self._events.tell_now_and_then(Reason.REPLIES_MIXED_UP)
        if found is None or _fits(session_id, found):
            return stored
        if not isinstance(storage, FreshStorage) and stored != doubted:
            error = StorageUnavailable("the storage did not answer: its replies are mixed up")
            # The node did answer, so that this is no failure of it.
            error.operation = "load"
            raise error
        if found.is_record:
            self._events.tell(Reason.RECORD_COPIED)
        if len(self._seen_again) >= _MOST_SEEN:
            self._seen_again.clear()
        self._seen_again[session_id] = found
        return stored


def _fits(session_id: str, origin: Origin) -> bool:
    """Ask whether a record from *origin* may be that of *session_id*."""
    return origin.is_record and (origin.mark is None or origin.mark == mark_of(session_id))


def _agree(stored: Stored | None, origin: Origin) -> bool:
    """Ask whether *stored* is what came from *origin*, perhaps written again since.

    Two sessions that began in the same millisecond cannot be told apart by it: their mix-up is
    put right as any other, but nobody is told of it.
    """
    if stored is None:
        return False
    found = origin_of(stored.payload)
    if found.created is not None and found.created == origin.created:
        return True
    return (found.mark, found.is_record) == (origin.mark, origin.is_record)
