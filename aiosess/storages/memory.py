"""Sessions in the memory of this process: for one process, for tests, and as the example."""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable
from typing import Any, ClassVar, Final, Self, TypeAlias

import msgspec

from aiosess.errors import Conflict, IdTaken, OptionsError
from aiosess.events import Events, Reason
from aiosess.privacy import private
from aiosess.storages._shared import new_stored
from aiosess.storages.base import Stored, Version

__all__ = ["MemoryStorage"]

# How many records one call looks at, besides its own, so that no call pauses the loop.
_LOOKS: Final = 32
# A dict that grows copies itself, and one of a million records pauses the loop; small ones do not.
# The number is a prime, because within each dict the last bits of the hash must still differ.
_SHARDS: Final = 251
# How many ids a bucket takes at the most, for the same reason.
_FULL: Final = 1024

_Bucket: TypeAlias = dict[str, None]


@private()
class _Entry(msgspec.Struct, gc=False):
    """A record. The garbage collector does not know it, nor a dict that holds nothing else.

    A collection would look at each of a million objects. There are no cycles to find: a bucket
    knows ids only.
    """

    payload: bytes
    version: int
    expires_at: float
    bucket: _Bucket


class MemoryStorage:
    """Keeps records in this process; they are lost when it ends and unseen by other processes.

    At most *max_records* are kept. Where one more is created, the one nearest to its end goes, give
    or take a five-hundredth of its life; after many were touched, that is the nearest among 32.

    Each create and load looks at up to 32 records whose end has come, and removes those that were
    not extended. So what nobody asks for is freed as well, and a million that expire at once pause
    nothing. No call goes through all records, nor does the garbage collector. The first create
    says in the log that the storage is not for several processes.
    """

    is_instant: ClassVar[bool] = True
    """Whether each verb answers at once and never fails; a subclass must say so of itself."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Take it that the verbs of a subclass may wait and fail, unless it says otherwise."""
        super().__init_subclass__(**options)
        cls.is_instant = vars(cls).get("is_instant", False)

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
        self._shards: list[dict[str, _Entry]] = [{} for _ in range(_SHARDS)]
        self._count = 0
        self._ends = _Ends()
        self._versions = itertools.count(1)
        self._events = Events()

    def within(self, timeout: float) -> Self | None:  # noqa: ARG002 - it needs no time
        """Return the storage itself, which waits for nothing, whatever the *timeout* in seconds.

        ``None`` where a subclass may wait: the time has to be watched for it.
        """
        return self if self.is_instant else None

    def __len__(self) -> int:
        """Return how many records are in memory, expired ones that were not removed included."""
        return self._count

    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        """Keep *payload* under a free id; IdTaken when it is not."""
        self._events.tell_once(Reason.ONE_PROCESS)
        now = self._clock()
        self._sweep(now)
        shard = self._shard(session_id)
        entry = shard.get(session_id)
        if entry is not None:
            if entry.expires_at > now:
                raise IdTaken
            self._remove(session_id)
        if self._count >= self._max_records:
            self._evict(now)
        expires_at = now + ttl
        bucket = self._ends.bucket(expires_at, ttl)
        bucket[session_id] = None
        entry = _Entry(payload, next(self._versions), expires_at, bucket)
        shard[session_id] = entry
        self._count += 1
        return entry.version

    async def load(self, session_id: str) -> Stored | None:
        """Return the record, or ``None`` when there is none."""
        now = self._clock()
        queue = self._ends.queue
        if queue and queue[0][0] <= now:
            self._sweep(now)
        # _find() with a call less, for each request loads.
        entry = self._shards[hash(session_id) % _SHARDS].get(session_id)
        if entry is None or entry.expires_at <= now:
            return None
        return new_stored(Stored, (entry.payload, entry.version))

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        """Put *payload* in the place of the version *expected*; Conflict when it is another."""
        now = self._clock()
        # _find() with a call less, for each change is a replace.
        entry = self._shards[hash(session_id) % _SHARDS].get(session_id)
        if entry is None or entry.expires_at <= now:
            raise Conflict(None)
        if entry.version != expected:
            raise Conflict(Stored(entry.payload, entry.version))
        self._extend(session_id, entry, now + ttl, now)
        entry.payload = payload
        entry.version = version = next(self._versions)
        return version

    async def touch(self, session_id: str, ttl: float) -> bool:
        """Let the record live *ttl* seconds from now; False when there is none."""
        now = self._clock()
        entry = self._find(session_id, now)
        if entry is None:
            return False
        self._extend(session_id, entry, now + ttl, now)
        return True

    async def delete(self, session_id: str) -> bool:
        """Remove the record; False when there was none."""
        entry = self._remove(session_id)
        return entry is not None and entry.expires_at > self._clock()

    def _shard(self, session_id: str) -> dict[str, _Entry]:
        return self._shards[hash(session_id) % _SHARDS]

    def _find(self, session_id: str, now: float) -> _Entry | None:
        entry = self._shards[hash(session_id) % _SHARDS].get(session_id)
        if entry is None or entry.expires_at <= now:
            return None
        return entry

    def _extend(self, session_id: str, entry: _Entry, expires_at: float, now: float) -> None:
        is_earlier = expires_at < entry.expires_at
        entry.expires_at = expires_at
        # A later end is noticed when the record is looked at, and costs a touch nothing.
        if is_earlier:
            self._move(session_id, entry, now)

    def _move(self, session_id: str, entry: _Entry, now: float) -> None:
        """Put the record where it is looked at when it ends."""
        _take_out(session_id, entry.bucket)
        entry.bucket = self._ends.bucket(entry.expires_at, entry.expires_at - now)
        entry.bucket[session_id] = None

    def _sweep(self, now: float) -> None:
        queue = self._ends.queue
        for _ in range(_LOOKS):
            if not queue or queue[0][0] > now:
                return
            bucket = queue[0][2]
            if bucket:
                # Not the first: to find that, a dict passes by all that were removed.
                session_id, _ = bucket.popitem()
                self._look(session_id, now)
            else:
                self._ends.close_first()

    def _look(self, session_id: str, now: float) -> None:
        """Remove the record if it has ended, else look again when it will have."""
        entry = self._shard(session_id)[session_id]
        if entry.expires_at <= now:
            self._remove(session_id)
        else:
            self._move(session_id, entry, now)

    def _evict(self, now: float) -> None:
        """Remove the record nearest to its end, of those that one call may look at."""
        seen: list[tuple[float, str]] = []
        for _ in range(_LOOKS):
            due, session_id = self._ends.first()
            entry = self._shard(session_id)[session_id]
            seen.append((entry.expires_at, session_id))
            if entry.expires_at <= due:
                break
            self._move(session_id, entry, now)
        self._remove(min(seen)[1])

    def _remove(self, session_id: str) -> _Entry | None:
        shard = self._shard(session_id)
        entry = shard.pop(session_id, None)
        if entry is None:
            return None
        self._count -= 1
        if not shard:
            # Else a dict that was large keeps its table.
            shard.clear()
        _take_out(session_id, entry.bucket)
        return entry


class _Ends:
    """When to look at which record: buckets of ids, each with a *due*, the earliest first.

    At its due, all records in a bucket have ended, but for those that were extended since. Each
    record is in one bucket, of which its entry knows, so that nothing stays behind when it goes.
    """

    def __init__(self) -> None:
        # A heap of (due, number, bucket); the number keeps buckets from being compared.
        self.queue: list[tuple[float, int, _Bucket]] = []
        # Where the next record goes for each due; all of these are in the queue.
        self._open: dict[float, _Bucket] = {}
        self._numbers = itertools.count()
        self._tidy_at = 64

    def bucket(self, expires_at: float, ttl: float) -> _Bucket:
        """Return where a record goes that ends at *expires_at*, after *ttl* seconds."""
        # A power of two, so that no digit is lost: 512 to 1024 of them make a ttl, or 1 ms is one.
        step = math.ldexp(1.0, max(math.frexp(ttl)[1], 0) - 10)
        due = math.ceil(expires_at / step) * step if expires_at < math.inf else expires_at
        bucket = self._open.get(due)
        if bucket is None or len(bucket) >= _FULL:
            return self._opened(due)
        return bucket

    def first(self) -> tuple[float, str]:
        """Return the earliest due and an id that is looked at then; there must be one."""
        while not self.queue[0][2]:
            self.close_first()
        due, _, bucket = self.queue[0]
        return due, next(iter(bucket))

    def close_first(self) -> None:
        """Forget the first bucket, which must be empty."""
        due, _, _ = heapq.heappop(self.queue)
        self._open.pop(due, None)

    def _opened(self, due: float) -> _Bucket:
        if len(self.queue) >= self._tidy_at:
            self._tidy()
        bucket = self._open[due] = {}
        heapq.heappush(self.queue, (due, next(self._numbers), bucket))
        return bucket

    def _tidy(self) -> None:
        # Without this, records that go or move before their due would leave empty buckets behind.
        self.queue[:] = [each for each in self.queue if each[2]]
        heapq.heapify(self.queue)
        self._open = {due: bucket for due, _, bucket in self.queue}
        self._tidy_at = 2 * len(self.queue) + 64


def _take_out(session_id: str, bucket: _Bucket) -> None:
    # A sweep has taken it out already.
    bucket.pop(session_id, None)
    if not bucket:
        bucket.clear()
