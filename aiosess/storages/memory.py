"""Sessions in the memory of this process: for one process, for tests, and as the example."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Final, Self, TypeAlias

import msgspec

from aiosess.errors import Conflict, IdTaken, OptionsError, StorageError
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
# Records that somebody came back to may take so much of the room before new ones are spared.
_SHARE: Final = 0.8

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
    is_new: bool = True


class MemoryStorage:
    """Keeps records in this process; they are lost when it ends and unseen by other processes.

    At most *max_records* are kept, whose payloads have *max_bytes* at the most; each takes some 200
    bytes besides. A payload of more than *max_bytes* is refused with a StorageError. Raise
    OptionsError for a bound below one.

    Where there is no room, those records go first that nobody loaded since they were created, so
    that a flood of new sessions does not end those in use. Those in use go first where they take
    more than four fifths of the room. Of each kind that nearest to its end goes, as it was not
    touched for longest. That is give or take a five-hundredth of its life; after many were touched,
    the nearest among 32. A line in the log, two a minute at the most, says how many went.

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
        max_bytes: int = 500_000_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_records = _bound(max_records, "max_records")
        self._max_bytes = _bound(max_bytes, "max_bytes")
        self._clock = clock
        self._shards: list[dict[str, _Entry]] = [{} for _ in range(_SHARDS)]
        self._new = _Generation()
        self._used = _Generation()
        # No record ends before that.
        self._sweep_at = math.inf
        self._versions = itertools.count(1)
        self._events = Events(clock=clock)
        self._subscribers: set[asyncio.Queue[bytes]] = set()

    def within(self, timeout: float) -> Self | None:  # noqa: ARG002 - it needs no time
        """Return the storage itself, which waits for nothing, whatever the *timeout* in seconds.

        ``None`` where a subclass may wait: the time has to be watched for it.
        """
        return self if self.is_instant else None

    def __len__(self) -> int:
        """Return how many records are in memory, expired ones that were not removed included."""
        return self._new.count + self._used.count

    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        """Keep *payload* under a free id; IdTaken when it is not."""
        self._events.tell_once(Reason.ONE_PROCESS)
        now = self._clock()
        if self._sweep_at <= now:
            self._sweep(now)
        shard = self._shard(session_id)
        entry = shard.get(session_id)
        if entry is not None:
            if entry.expires_at > now:
                raise IdTaken
            self._remove(session_id)
        size = len(payload)
        self._make_room(size, now)
        expires_at = now + ttl
        bucket = self._place(session_id, self._new, expires_at, ttl)
        entry = _Entry(payload, next(self._versions), expires_at, bucket)
        shard[session_id] = entry
        self._new.count += 1
        self._new.size += size
        return entry.version

    async def load(self, session_id: str) -> Stored | None:
        """Return the record, or ``None`` when there is none."""
        now = self._clock()
        if self._sweep_at <= now:
            self._sweep(now)
        # _find() with a call less, for each request loads.
        entry = self._shards[hash(session_id) % _SHARDS].get(session_id)
        if entry is None or entry.expires_at <= now:
            return None
        if entry.is_new:
            self._came_back(session_id, entry, now)
        return new_stored(Stored, (entry.payload, entry.version))

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        """Put *payload* in the place of the version *expected*; Conflict when it is another."""
        now = self._clock()
        # _find() and _extend() with two calls less, for each change is a replace.
        entry = self._shards[hash(session_id) % _SHARDS].get(session_id)
        if entry is None or entry.expires_at <= now:
            raise Conflict(None)
        if entry.version != expected:
            raise Conflict(Stored(entry.payload, entry.version))
        growth = len(payload) - len(entry.payload)
        if growth:
            self._resize(session_id, entry, growth, now)
        expires_at = now + ttl
        is_earlier = expires_at < entry.expires_at
        entry.expires_at = expires_at
        if is_earlier:
            self._move(session_id, entry, now)
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

    async def publish(self, notice: bytes) -> None:
        """Tell *notice* to all in this process who are subscribed now."""
        for notices in self._subscribers:
            notices.put_nowait(notice)

    @asynccontextmanager
    async def subscribe(self) -> AsyncGenerator[AsyncIterator[bytes]]:
        """Give what hears each notice that is published from now on; leaving ends it."""
        notices: asyncio.Queue[bytes] = asyncio.Queue()
        self._subscribers.add(notices)
        try:
            yield _each_of(notices)
        finally:
            self._subscribers.discard(notices)

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
        generation, ttl = self._generation(entry), entry.expires_at - now
        entry.bucket = self._place(session_id, generation, entry.expires_at, ttl)

    def _place(
        self, session_id: str, generation: _Generation, expires_at: float, ttl: float
    ) -> _Bucket:
        bucket = generation.ends.bucket(expires_at, ttl)
        bucket[session_id] = None
        # A bucket is due at the end of what is in it, or later.
        if expires_at < self._sweep_at:
            self._sweep_at = min(self._sweep_at, generation.ends.next_due())
        return bucket

    def _generation(self, entry: _Entry) -> _Generation:
        return self._new if entry.is_new else self._used

    def _came_back(self, session_id: str, entry: _Entry, now: float) -> None:
        """Count the record among those that are in use."""
        self._new.remove(entry)
        entry.is_new = False
        self._used.add(entry)
        self._move(session_id, entry, now)

    def _resize(self, session_id: str, entry: _Entry, growth: int, now: float) -> None:
        """Let the record's next payload be of another size, at the cost of others if need be."""
        generation = self._generation(entry)
        if self._new.size + self._used.size + growth > self._max_bytes:
            # What is about to be written makes no room for itself.
            _take_out(session_id, entry.bucket)
            generation.remove(entry)
            try:
                self._make_room(len(entry.payload) + growth, now)
            finally:
                generation.add(entry)
                self._move(session_id, entry, now)
        generation.size += growth

    def _sweep(self, now: float) -> None:
        looks = _LOOKS
        for ends in (self._new.ends, self._used.ends):
            while looks and ends.next_due() <= now:
                looks -= 1
                session_id = ends.take_due()
                if session_id is not None:
                    self._look(session_id, now)
        self._sweep_at = min(self._new.ends.next_due(), self._used.ends.next_due())

    def _look(self, session_id: str, now: float) -> None:
        """Remove the record if it has ended, else look again when it will have."""
        entry = self._shard(session_id)[session_id]
        if entry.expires_at <= now:
            self._remove(session_id)
        else:
            self._move(session_id, entry, now)

    def _make_room(self, size: int, now: float) -> None:
        """Remove others until there is room for one more record, whose payload has *size* bytes."""
        if size > self._max_bytes:
            raise StorageError(
                f"the record is {size:,} bytes, above max_bytes={self._max_bytes:,} of this "
                "MemoryStorage: keep less in the session, or raise it"
            )
        while len(self) >= self._max_records:
            self._evict(now, f"max_records={self._max_records}")
        while self._new.size + self._used.size + size > self._max_bytes:
            self._evict(now, f"max_bytes={self._max_bytes}")

    def _evict(self, now: float, option: str) -> None:
        """Remove the record nearest to its end, of those that one call may look at."""
        ends = self._poorest().ends
        seen: list[tuple[float, str]] = []
        for _ in range(_LOOKS):
            due, session_id = ends.first()
            entry = self._shard(session_id)[session_id]
            seen.append((entry.expires_at, session_id))
            if entry.expires_at <= due:
                break
            self._move(session_id, entry, now)
        expires_at, session_id = min(seen)
        self._remove(session_id)
        if expires_at > now:
            self._events.tell_now_and_then(Reason.NO_ROOM, option=option)

    def _poorest(self) -> _Generation:
        """Return the generation that has to make room."""
        used = self._used
        is_large = used.count > _SHARE * self._max_records or used.size > _SHARE * self._max_bytes
        return used if not self._new.count or (is_large and used.count) else self._new

    def _remove(self, session_id: str) -> _Entry | None:
        shard = self._shard(session_id)
        entry = shard.pop(session_id, None)
        if entry is None:
            return None
        self._generation(entry).remove(entry)
        if not shard:
            # Else a dict that was large keeps its table.
            shard.clear()
        _take_out(session_id, entry.bucket)
        return entry


class _Generation:
    """Records that are alike in whether somebody came back to them: their ends, and their size."""

    def __init__(self) -> None:
        self.ends = _Ends()
        self.count = 0
        # Of all payloads together, in bytes.
        self.size = 0

    def add(self, entry: _Entry) -> None:
        """Count *entry* here."""
        self.count += 1
        self.size += len(entry.payload)

    def remove(self, entry: _Entry) -> None:
        """Count *entry* here no more."""
        self.count -= 1
        self.size -= len(entry.payload)


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

    def next_due(self) -> float:
        """Return the earliest due."""
        return self.queue[0][0] if self.queue else math.inf

    def take_due(self) -> str | None:
        """Return an id of the first bucket, which has it no more; ``None`` closes an empty one."""
        bucket = self.queue[0][2]
        if bucket:
            # Not the first: to find that, a dict passes by all that were removed.
            return bucket.popitem()[0]
        self.close_first()
        return None

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


def _bound(value: int, name: str) -> int:
    if not isinstance(value, int) or value < 1:  # pyright: ignore[reportUnnecessaryIsInstance] - not all are typed
        raise OptionsError(f"{name}={value!r} must be one or more, and a whole number")
    return value


def _take_out(session_id: str, bucket: _Bucket) -> None:
    # A sweep has taken it out already.
    bucket.pop(session_id, None)
    if not bucket:
        bucket.clear()


async def _each_of(notices: asyncio.Queue[bytes]) -> AsyncIterator[bytes]:
    while True:
        yield await notices.get()
