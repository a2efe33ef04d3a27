"""Which sessions a principal has, or a label: one more record of the same storage.

An index names sessions; the truth is the record of each. It is changed by compare-and-set.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from aiosess.attributes import RESERVED_KEY
from aiosess.errors import Conflict, IdTaken
from aiosess.events import Events, Reason
from aiosess.privacy import private
from aiosess.records.conflicts import MOST_MERGES, QUICK_TRIES, Queues, pause_after, too_often
from aiosess.records.format import stamp_of
from aiosess.records.lifetime import LEAST_TTL
from aiosess.storages import Storage, Stored
from aiosess.timeouts import LONGEST

__all__ = ["Entry", "Index", "Indexes", "key_of_label", "key_of_principal"]

T = TypeVar("T")


@private()
class Entry(Struct, frozen=True, array_like=True):
    """What an index knows of one session.

    - ``session_id``: that leads to its record.
    - ``bound``: when it was bound, in milliseconds; later than any revocation that it outlived.
    - ``seen``: Unix time at which somebody last came with it, as far as that was written down.
    - ``until``: Unix time at which it is over at the latest, if nobody came since.
    """

    session_id: str
    bound: int
    seen: float
    until: float


@private()
class Index(Struct):
    """Sessions by their handles, and the last revocation.

    - ``revoked``: whatever was bound at that time, in milliseconds, or before, is over.
    - ``remembers``: Unix time until which that has to be known.
    """

    sessions: dict[str, Entry] = {}
    revoked: int = 0
    remembers: float = 0.0

    def drop_over(self, now: float) -> None:
        """Forget the sessions that can be alive no more at *now*, and a revocation of long ago."""
        over = [handle for handle, entry in self.sessions.items() if entry.until <= now]
        for handle in over:
            del self.sessions[handle]
        if self.remembers <= now:
            self.revoked, self.remembers = 0, 0.0

    @property
    def until(self) -> float:
        """Until when it is needed, as Unix time."""
        ends = (entry.until for entry in self.sessions.values())
        return max(self.remembers, max(ends, default=0.0))


_encode: Final = msgspec.json.Encoder().encode


@private()
class _Payload(Struct):
    """An index as bytes, of which what every record of ours begins with is not looked at."""

    index: Index


_decode: Final = msgspec.json.Decoder(_Payload).decode


def key_of_principal(principal: str) -> str:
    """Return under which key the index of *principal* is kept."""
    return f"p/{_digest(principal)}"


def key_of_label(name: str, value: str) -> str:
    """Return under which key the index is kept of the sessions with that label."""
    return f"l/{_digest(f'{len(name)}:{name}{value}')}"


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


class Indexes:
    """Keeps indexes in *storage*; *clock* gives Unix time."""

    def __init__(
        self,
        storage: Storage,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        events: Events,
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._sleep = sleep
        self._events = events
        self._queues = Queues()

    async def load(self, key: str) -> Index:
        """Return the index under *key*, empty where there is none."""
        return self._read(await self._storage.load(key))

    async def change(self, key: str, change: Callable[[Index], Awaitable[T]]) -> T:
        """Apply *change* to the newest index under *key*, write it, and return what it returned.

        Where others were quicker, *change* is called again. Nothing is written where it has changed
        nothing. Raise MergeConflict when others were quicker too often.
        """
        # One at a time in this process, so that only other processes can be quicker.
        async with self._queues.enter(key) as queue:
            stored = queue.newest or await self._storage.load(key)
            for tries in range(MOST_MERGES):
                index = self._read(stored)
                before = _encode(index)
                result = await change(index)
                if _encode(index) == before:
                    queue.newest = stored
                    return result
                try:
                    queue.newest = await self._write(key, index, stored)
                except Conflict as conflict:
                    stored = conflict.current
                except IdTaken:
                    stored = await self._storage.load(key)
                else:
                    return result
                if tries >= QUICK_TRIES:
                    await self._sleep(pause_after(tries))
                    stored = await self._storage.load(key)
        raise too_often()

    async def _write(self, key: str, index: Index, stored: Stored | None) -> Stored | None:
        """Put *index* in the place of *stored*; one that is not needed any more ends at once."""
        payload = _encode({RESERVED_KEY: stamp_of(key), "index": index})
        # Whoever wrote into it by hand may have taken any number for an instant.
        ttl = min(max(index.until - self._clock(), LEAST_TTL), LONGEST)
        if stored is not None:
            version = await self._storage.replace(key, payload, ttl, expected=stored.version)
        elif index.until:
            version = await self._storage.create(key, payload, ttl)
        else:
            return None
        return Stored(payload, version)

    def _read(self, stored: Stored | None) -> Index:
        index = Index()
        if stored is not None:
            try:
                index = _decode(stored.payload).index
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                # Sessions that it knew are entered again when they are next looked at.
                self._events.tell_once(Reason.RECORD_UNREADABLE, error=error)
        index.drop_over(self._clock())
        return index
