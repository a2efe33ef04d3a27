"""Sessions in the memory of this process: for one process, for tests, and as the example."""

from __future__ import annotations

import heapq
import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiosess.errors import Conflict, IdTaken, OptionsError
from aiosess.storages.base import Stored, Version

__all__ = ["MemoryStorage"]

_log: Final = logging.getLogger("aiosess")

# How many expired records one call removes at the most, so that no call pauses the loop.
_SWEEP: Final = 32


@dataclass(slots=True)
class _Entry:
    payload: bytes
    version: int
    expires_at: float


class MemoryStorage:
    """Keeps records in this process; they are lost when it ends and unseen by other processes.

    At most *max_records* are kept: where one more is created, the one nearest to its end goes.
    Each create and load removes some expired records, so that what nobody asks for is freed as
    well; none scans them all. Says once, in the log, that it is not for several processes.
    """

    def __init__(
        self,
        *,
        max_records: int = 1_000_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_records < 1:
            raise OptionsError(f"max_records={max_records!r} must be one or more")
        self._max_records = max_records
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        # One pair a record, (when to look, id); a touched record is found too early and put back.
        self._ends: list[tuple[float, str]] = []
        self._versions = itertools.count(1)
        self._has_warned = False

    def __len__(self) -> int:
        """Return how many records are in memory, expired ones that were not removed included."""
        return len(self._entries)

    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        """Keep *payload* under a free id; IdTaken when it is not."""
        self._warn_once()
        now = self._clock()
        self._sweep(now)
        if self._find(session_id, now) is not None:
            raise IdTaken
        if len(self._entries) >= self._max_records:
            self._evict()
        entry = _Entry(payload, next(self._versions), now + ttl)
        self._entries[session_id] = entry
        self._watch(session_id, entry)
        return entry.version

    async def load(self, session_id: str) -> Stored | None:
        """Return the record, or ``None`` when there is none."""
        now = self._clock()
        self._sweep(now)
        entry = self._find(session_id, now)
        return None if entry is None else Stored(entry.payload, entry.version)

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        """Put *payload* in the place of the version *expected*; Conflict when it is another."""
        now = self._clock()
        entry = self._find(session_id, now)
        if entry is None:
            raise Conflict(None)
        if entry.version != expected:
            raise Conflict(Stored(entry.payload, entry.version))
        entry.payload = payload
        entry.version = next(self._versions)
        self._extend(session_id, entry, now + ttl)
        return entry.version

    async def touch(self, session_id: str, ttl: float) -> bool:
        """Let the record live *ttl* seconds from now; False when there is none."""
        now = self._clock()
        entry = self._find(session_id, now)
        if entry is None:
            return False
        self._extend(session_id, entry, now + ttl)
        return True

    async def delete(self, session_id: str) -> bool:
        """Remove the record; False when there was none."""
        existed = self._find(session_id, self._clock()) is not None
        self._entries.pop(session_id, None)
        self._compact()
        return existed

    def _find(self, session_id: str, now: float) -> _Entry | None:
        entry = self._entries.get(session_id)
        if entry is None or entry.expires_at <= now:
            return None
        return entry

    def _extend(self, session_id: str, entry: _Entry, expires_at: float) -> None:
        is_earlier = expires_at < entry.expires_at
        entry.expires_at = expires_at
        if is_earlier:
            self._watch(session_id, entry)

    def _watch(self, session_id: str, entry: _Entry) -> None:
        heapq.heappush(self._ends, (entry.expires_at, session_id))
        self._compact()

    def _sweep(self, now: float) -> None:
        for _ in range(_SWEEP):
            if not self._ends or self._ends[0][0] > now:
                return
            self._drop_next(now)

    def _evict(self) -> None:
        count = len(self._entries)
        while len(self._entries) == count:
            self._drop_next(None)

    def _drop_next(self, now: float | None) -> None:
        """Take the next end off the heap, and its record too if it has really ended.

        With *now* ``None``, the record goes unless it was extended since.
        """
        seen_at, session_id = heapq.heappop(self._ends)
        entry = self._entries.get(session_id)
        if entry is None:
            return
        if entry.expires_at > (seen_at if now is None else now):
            heapq.heappush(self._ends, (entry.expires_at, session_id))
            return
        del self._entries[session_id]

    def _compact(self) -> None:
        # Deleted records leave their end behind; without this, log-ins and log-outs would leak.
        if len(self._ends) > 2 * len(self._entries) + 64:
            self._ends = [(entry.expires_at, key) for key, entry in self._entries.items()]
            heapq.heapify(self._ends)

    def _warn_once(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            _log.warning(
                "MemoryStorage keeps sessions in this process only: they end with it, and "
                "another process does not see them. Use RedisStorage where there are several."
            )
