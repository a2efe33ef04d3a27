"""Where an id leads: to a record, by way of an alias to the record under a newer id, or nowhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from aiosess.errors import RecordError
from aiosess.events import Events, Reason
from aiosess.records.format import Alias, Record, decode, encode_alias
from aiosess.storages import Storage, Stored, Version

__all__ = ["ENDED", "Aliases", "Found"]

_MOST_RENEWALS: Final = 3

ENDED: Final = encode_alias(Alias("", 0.0))
"""What stands under an id while its session is being destroyed: it leads nowhere."""


class Found(NamedTuple):
    """A record, and the id under which it is kept now."""

    session_id: str
    record: Record
    version: Version


class Aliases:
    """Follows ids in *storage*; one that was renewed leads on for its time of grace."""

    def __init__(self, storage: Storage, clock: Callable[[], float], events: Events) -> None:
        self._storage = storage
        self._clock = clock
        self._events = events

    async def follow(self, session_id: str, stored: Stored | None) -> Found | None:
        """Return the record that *stored* is, or leads to; ``None`` when there is none.

        A record that cannot be decoded counts as absent.
        """
        for _ in range(_MOST_RENEWALS):
            found = self.read(stored)
            if stored is None or found is None:
                return None
            if isinstance(found, Record):
                return Found(session_id, found, stored.version)
            if not found.renewed_to:
                return None
            if self._clock() >= found.until:
                self._events.tell(Reason.OLD_ID_USED)
                return None
            session_id = found.renewed_to
            stored = await self._storage.load(session_id)
        return None

    def read(self, stored: Stored | None) -> Record | Alias | None:
        """Return what *stored* says; ``None`` where that cannot be decoded: the log says so."""
        if stored is None:
            return None
        try:
            return decode(stored.payload)
        except RecordError as error:
            self._events.tell_once(Reason.RECORD_UNREADABLE, error=error)
            return None
