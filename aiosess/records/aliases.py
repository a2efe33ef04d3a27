"""Where an id leads: to a record, by way of an alias to the record under a newer id, or nowhere."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from aiosess.errors import RecordError
from aiosess.events import Events, Reason
from aiosess.privacy import private
from aiosess.records.bonds import Bond
from aiosess.records.format import Alias, Former, Record, decode
from aiosess.records.migration import Migration
from aiosess.records.state import Standing
from aiosess.storages import Storage, Stored, Version

__all__ = ["ENDED", "MOST_ALIASES", "Aliases", "Ended", "Found", "Left", "Leftover"]

# An id that was rotated time and again while one request was under way.
MOST_ALIASES: Final = 10
"""So many ids lead on one after the other."""

ENDED: Final = Alias("", 0.0)
"""What stands under an id while its session is being destroyed: it leads nowhere."""


@private("standing")
class Found(NamedTuple):
    """A record, the id under which it is kept now, and what the id that led there is to it."""

    session_id: str
    record: Record
    version: Version
    standing: Standing = Standing.LIVE


class Leftover(enum.Enum):
    """What is found under an id whose time of grace is over."""

    REFUSED = enum.auto()
    """Nothing for the client. Requests under way still know by it what became of theirs."""
    REUSED = enum.auto()
    """Nothing for the client either: an id that was rotated away, and that nobody should have."""


@private()
class Ended(NamedTuple):
    """A session was ended because an old id of it came back; ``bond`` says whose it was."""

    bond: Bond | None


Left: TypeAlias = Leftover | Ended
"""What is under an id that leads to no session any more."""


class Aliases:
    """Follows ids in *storage*; one that was renewed leads on for its time of grace."""

    def __init__(
        self,
        storage: Storage,
        clock: Callable[[], float],
        events: Events,
        migration: Migration,
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._events = events
        self._migration = migration

    async def follow(
        self, session_id: str, stored: Stored | None, *, is_by_client: bool = False
    ) -> Found | Leftover | None:
        """Return the record that *stored* is, or leads to; ``None`` when there is none.

        *is_by_client*: a client came with the id, and not a request that was under way. Then the
        time of grace counts. A record that cannot be decoded counts as absent, and so does an older
        one of which the application's ``migrate`` makes nothing.
        """
        standing = Standing.LIVE
        for _ in range(MOST_ALIASES):
            found = self.read(stored)
            if is_by_client and self._is_over(found):
                self._events.tell(Reason.OLD_ID_USED)
                return Leftover.REUSED if isinstance(found, Alias) else Leftover.REFUSED
            match found:
                case Record() if stored is not None:
                    return self.found(session_id, found, stored.version, standing)
                case Former() if stored is not None:
                    former = Standing.FORMER
                    return self.found(session_id, found.record, stored.version, former)
                case Alias() if found.renewed_to:
                    session_id, standing = found.renewed_to, Standing.ALIAS
                    stored = await self._storage.load(session_id)
                case _:
                    return None
        return None

    def found(
        self,
        session_id: str,
        record: Record,
        version: Version,
        standing: Standing = Standing.LIVE,
    ) -> Found | None:
        """Return *record* as the application has it now; ``None`` where it makes nothing of it."""
        migrated = self._migration(record)
        if migrated is None:
            self._events.tell(Reason.NOT_MIGRATED)
            return None
        return Found(session_id, migrated, version, standing)

    def _is_over(self, found: Record | Alias | Former | None) -> bool:
        match found:
            case Former() | Alias() if found != ENDED:
                return self._clock() >= found.until
            case _:
                return False

    def read(self, stored: Stored | None) -> Record | Alias | Former | None:
        """Return what *stored* says; ``None`` where that cannot be decoded: the log says so."""
        if stored is None:
            return None
        try:
            return decode(stored.payload)
        except RecordError as error:
            self._events.tell_once(Reason.RECORD_UNREADABLE, error=error)
            return None
