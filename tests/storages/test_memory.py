"""MemoryStorage beyond the contract: a bound, expiry without a scan, and nothing leaks."""

from __future__ import annotations

import gc
import logging
import math
import tracemalloc
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest

from aiosess import MemoryStorage, OptionsError, StorageError
from aiosess.storages.memory import _Entry
from aiosess.testing import FakeClock

HALF_A_MEGABYTE = 500_000
MOST_LOOKS = 32
DAY = 86_400.0


@pytest.fixture
def memory(clock: FakeClock) -> MemoryStorage:
    return MemoryStorage(clock=clock)


@contextmanager
def growth() -> Generator[list[int]]:
    """Give a list in which the bytes that stayed allocated stand when the block is done."""
    found: list[int] = []
    gc.collect()
    tracemalloc.start()
    try:
        yield found
        gc.collect()
        found.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()


async def fill(storage: MemoryStorage, ttls: list[float]) -> None:
    """Create a record for each of *ttls*, called by its number."""
    for number, ttl in enumerate(ttls):
        await storage.create(str(number), b"cart", ttl)


def count_looks(storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give a list of the records that are put off from now on, because they were extended."""
    looks: list[str] = []
    move = storage._move

    def moved(session_id: str, entry: _Entry, now: float) -> None:
        looks.append(session_id)
        move(session_id, entry, now)

    monkeypatch.setattr(storage, "_move", moved)
    return looks


def tracked() -> int:
    """Return how many objects the garbage collector looks at."""
    gc.collect()
    return len(gc.get_objects())


async def present(storage: MemoryStorage, count: int) -> list[int]:
    return [number for number in range(count) if await storage.load(str(number)) is not None]


# The bound.


async def test_there_are_never_more_records_than_max_records(clock: FakeClock) -> None:
    storage = MemoryStorage(max_records=10, clock=clock)

    await fill(storage, [60.0] * 100)

    assert len(storage) == 10


async def test_where_one_too_many_is_created_the_one_nearest_to_its_end_goes(
    clock: FakeClock,
) -> None:
    storage = MemoryStorage(max_records=3, clock=clock)

    await fill(storage, [30, 10, 20, 5])

    assert await present(storage, 4) == [0, 2, 3]


async def test_a_record_that_was_touched_is_no_longer_near_its_end(clock: FakeClock) -> None:
    storage = MemoryStorage(max_records=3, clock=clock)
    await fill(storage, [30, 10, 20])

    await storage.touch("1", 60)
    await storage.create("3", b"cart", 60)

    assert await present(storage, 4) == [0, 1, 3]


async def test_a_record_that_was_touched_to_end_soon_goes_first(clock: FakeClock) -> None:
    storage = MemoryStorage(max_records=3, clock=clock)
    await fill(storage, [30, 10, 20])

    await storage.touch("0", 1)
    await storage.create("3", b"cart", 60)

    assert await present(storage, 4) == [1, 2, 3]


async def test_a_record_that_was_touched_shorter_and_longer_goes_by_its_last_touch(
    clock: FakeClock,
) -> None:
    storage = MemoryStorage(max_records=3, clock=clock)
    await fill(storage, [30, 10, 20])

    await storage.touch("0", 1)
    await storage.touch("0", 40)
    await storage.create("3", b"cart", 60)

    assert await present(storage, 4) == [0, 2, 3]


async def test_of_records_with_one_end_the_newest_stay(clock: FakeClock) -> None:
    storage = MemoryStorage(max_records=3, clock=clock)

    await fill(storage, [60] * 5)

    assert await present(storage, 5) == [2, 3, 4]


async def test_where_all_were_touched_a_create_looks_at_a_few_only(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = MemoryStorage(max_records=1000, clock=clock)
    await fill(storage, [60] * 1000)
    for number in range(1000):
        await storage.touch(str(number), DAY)
    looks = count_looks(storage, monkeypatch)

    await storage.create("one more", b"cart", DAY)

    assert len(storage) == 1000
    assert 0 < len(looks) <= MOST_LOOKS


async def test_where_all_were_touched_the_nearest_of_those_looked_at_goes(
    clock: FakeClock,
) -> None:
    storage = MemoryStorage(max_records=100, clock=clock)
    await fill(storage, [60] * 100)
    for number in range(100):
        await storage.touch(str(number), DAY + (number - 7) ** 2)

    await storage.create("one more", b"cart", 2 * DAY)

    assert await present(storage, 100) == [number for number in range(100) if number != 7]


async def test_expired_records_make_way_before_living_ones(clock: FakeClock) -> None:
    storage = MemoryStorage(max_records=2, clock=clock)
    await fill(storage, [5, 60])
    clock.advance(6)

    await storage.create("2", b"cart", 60)

    assert await present(storage, 3) == [1, 2]


async def test_a_full_storage_of_one_record_still_takes_the_next(clock: FakeClock) -> None:
    storage = MemoryStorage(max_records=1, clock=clock)

    await fill(storage, [60, 60])

    assert await present(storage, 2) == [1]


async def test_a_refused_create_costs_no_other_record_its_place(clock: FakeClock) -> None:
    storage = MemoryStorage(max_records=2, clock=clock)
    await fill(storage, [60, 60])

    with pytest.raises(Exception, match="already"):
        await storage.create("0", b"again", 60)

    assert await present(storage, 2) == [0, 1]


@pytest.mark.parametrize("value", [0, -1, 1.5, "many"])
@pytest.mark.parametrize("name", ["max_records", "max_bytes"])
def test_a_bound_that_makes_no_sense_is_refused(name: str, value: Any) -> None:
    with pytest.raises(OptionsError, match=rf"{name}={value!r} must be one or more, and a whole"):
        MemoryStorage(**{name: value})


# The bound in bytes.


async def test_there_are_never_more_bytes_than_max_bytes(clock: FakeClock) -> None:
    storage = MemoryStorage(max_bytes=50, clock=clock)

    await fill(storage, [60.0] * 100)

    assert len(storage) == 50 // len(b"cart")


async def test_a_large_record_takes_the_place_of_many_small_ones(clock: FakeClock) -> None:
    storage = MemoryStorage(max_bytes=400, clock=clock)
    await fill(storage, [60.0] * 100)

    await storage.create("large", bytes(300), 60)

    assert await present(storage, 100) == list(range(75, 100))


async def test_a_record_that_grows_takes_the_place_of_others_and_not_its_own(
    clock: FakeClock,
) -> None:
    storage = MemoryStorage(max_bytes=40, clock=clock)
    version = await storage.create("growing", b"cart", 1)
    await fill(storage, [60.0] * 9)

    await storage.replace("growing", bytes(30), 1, expected=version)

    assert await present(storage, 9) == [7, 8]
    assert await storage.load("growing") is not None


async def test_a_record_may_grow_until_it_is_alone(clock: FakeClock) -> None:
    storage = MemoryStorage(max_bytes=40, clock=clock)
    version = await storage.create("growing", b"cart", 1)
    await fill(storage, [60.0] * 9)

    await storage.replace("growing", bytes(40), 1, expected=version)

    assert len(storage) == 1
    assert await storage.load("growing") is not None


async def test_what_shrinks_and_goes_makes_room(clock: FakeClock) -> None:
    storage = MemoryStorage(max_bytes=40, clock=clock)
    version = await storage.create("shrinking", bytes(36), 60)
    await storage.create("going", b"cart", 60)

    await storage.replace("shrinking", b"cart", 60, expected=version)
    await storage.delete("going")
    await fill(storage, [60.0] * 9)

    assert len(storage) == 10


async def test_a_payload_above_max_bytes_is_refused_and_says_the_way_out(
    clock: FakeClock,
) -> None:
    storage = MemoryStorage(max_bytes=1000, clock=clock)
    await fill(storage, [60.0] * 9)

    with pytest.raises(StorageError, match=r"1,001 bytes, above max_bytes=1,000 .*: keep less"):
        await storage.create("large", bytes(1001), 60)

    assert await present(storage, 9) == list(range(9))


async def test_a_record_that_would_grow_above_max_bytes_stays_as_it_was(clock: FakeClock) -> None:
    storage = MemoryStorage(max_bytes=1000, clock=clock)
    version = await storage.create("growing", b"cart", 60)

    with pytest.raises(StorageError, match="above max_bytes"):
        await storage.replace("growing", bytes(1001), 60, expected=version)

    assert await storage.load("growing") == (b"cart", version)


# A flood.


@pytest.mark.parametrize("bounds", [{"max_records": 100}, {"max_bytes": 400}])
async def test_a_flood_of_new_sessions_does_not_end_those_that_somebody_came_back_to(
    clock: FakeClock, bounds: dict[str, int]
) -> None:
    storage = MemoryStorage(clock=clock, **bounds)
    await fill(storage, [60.0] * 20)
    await present(storage, 20)
    clock.advance(1)

    for number in range(1000):
        await storage.create(f"flood {number}", b"cart", 60)

    assert await present(storage, 20) == list(range(20))
    assert len(storage) == 100


async def test_a_flood_of_large_records_does_not_end_those_that_somebody_came_back_to(
    clock: FakeClock,
) -> None:
    storage = MemoryStorage(max_bytes=4000, clock=clock)
    await fill(storage, [60.0] * 20)
    await present(storage, 20)

    for number in range(100):
        await storage.create(f"flood {number}", bytes(1000), 60)

    assert await present(storage, 20) == list(range(20))
    assert len(storage) == 23


@pytest.mark.parametrize("bounds", [{"max_records": 100}, {"max_bytes": 400}])
async def test_where_all_are_in_use_new_ones_have_a_fifth_of_the_room(
    clock: FakeClock, bounds: dict[str, int]
) -> None:
    storage = MemoryStorage(clock=clock, **bounds)
    await fill(storage, [60.0] * 100)
    await present(storage, 100)

    for number in range(1000):
        await storage.create(f"flood {number}", b"cart", 60)

    assert len(await present(storage, 100)) == 80
    assert all([await storage.load(f"flood {number}") for number in range(980, 1000)])


async def test_of_those_in_use_the_one_goes_first_that_was_not_touched_for_longest(
    clock: FakeClock,
) -> None:
    storage = MemoryStorage(max_records=10, clock=clock)
    await fill(storage, [60.0] * 10)
    await present(storage, 10)
    clock.advance(30)
    for number in (*range(4), *range(5, 10)):
        await storage.touch(str(number), 60)

    await storage.create("one more", b"cart", 60)

    assert await present(storage, 10) == [0, 1, 2, 3, 5, 6, 7, 8, 9]


async def test_records_in_use_that_ended_are_freed_as_well(clock: FakeClock) -> None:
    storage = MemoryStorage(clock=clock)
    await fill(storage, [10.0] * 20)
    await present(storage, 10)
    clock.advance(11)

    await storage.load("another")

    assert len(storage) == 0


async def test_the_first_session_that_is_removed_before_its_end_is_told_with_the_option(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    storage = MemoryStorage(max_records=10, clock=clock)
    await fill(storage, [60.0] * 10)
    caplog.clear()

    await storage.create("one more", b"cart", 60)

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "MemoryStorage(max_records=10) has no room: 1 sessions were removed" in caplog.text


async def test_further_ones_are_counted_and_told_a_minute_later(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    storage = MemoryStorage(max_bytes=40, clock=clock)
    await fill(storage, [600.0] * 110)
    caplog.clear()
    clock.advance(61)

    await storage.create("one more", b"cart", 600)
    await storage.create("and one", b"cart", 600)

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "MemoryStorage(max_bytes=40) has no room: 101 sessions were removed" in caplog.text


async def test_sessions_that_ended_make_room_without_a_word(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    storage = MemoryStorage(max_records=1, clock=clock)
    await fill(storage, [10.0])
    caplog.clear()
    clock.advance(11)

    await storage.create("one more", b"cart", 60)

    assert not caplog.records


# Expiry.


async def test_records_that_nobody_asks_for_are_freed(
    memory: MemoryStorage, clock: FakeClock
) -> None:
    await fill(memory, [10] * 20)
    clock.advance(11)

    await memory.load("another")

    assert len(memory) == 0


async def test_no_call_removes_so_many_records_that_it_would_pause_the_loop(
    memory: MemoryStorage, clock: FakeClock
) -> None:
    await fill(memory, [10] * 1000)
    clock.advance(11)

    await memory.load("another")

    assert 900 < len(memory) < 1000


async def test_more_records_expire_than_are_created_so_that_a_backlog_melts(
    memory: MemoryStorage, clock: FakeClock
) -> None:
    await fill(memory, [10] * 1000)
    clock.advance(11)

    for number in range(1000, 1100):
        await memory.create(str(number), b"cart", 60)

    assert len(memory) == 100


async def test_a_touched_record_outlives_its_first_end(
    memory: MemoryStorage, clock: FakeClock
) -> None:
    await fill(memory, [10, 10])
    await memory.touch("0", 60)
    clock.advance(11)

    await memory.load("another")

    assert len(memory) == 1
    assert await present(memory, 2) == [0]


async def test_a_touched_record_that_nobody_asks_for_is_freed_after_its_last_end(
    memory: MemoryStorage, clock: FakeClock
) -> None:
    await fill(memory, [10])
    await memory.touch("0", 60)
    clock.advance(11)
    await memory.load("another")
    clock.advance(50)

    await memory.load("another")

    assert len(memory) == 0


async def test_where_all_were_touched_a_load_looks_at_a_few_only(
    memory: MemoryStorage, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(memory, [10] * 1000)
    for number in range(1000):
        await memory.touch(str(number), 60)
    clock.advance(11)
    looks = count_looks(memory, monkeypatch)

    await memory.load("another")

    assert 0 < len(looks) <= MOST_LOOKS


@pytest.mark.parametrize("ttl", [0.5, 1, 59, 1000, 14 * DAY, 36_500 * DAY])
async def test_a_record_is_freed_within_a_five_hundredth_of_its_life(
    memory: MemoryStorage, clock: FakeClock, ttl: float
) -> None:
    clock.advance(1 / 3)
    await fill(memory, [ttl])
    clock.advance(ttl * (1 + 1 / 500))

    await memory.load("another")

    assert len(memory) == 0


async def test_a_backlog_of_emptied_buckets_is_cleared_bit_by_bit(
    memory: MemoryStorage, clock: FakeClock
) -> None:
    await fill(memory, [1000.0 + number for number in range(200)])
    for number in range(150):
        await memory.delete(str(number))
    before = len(memory._new.ends.queue)
    clock.advance(1300)

    await memory.load("another")

    assert 0 < before - len(memory._new.ends.queue) <= MOST_LOOKS


async def test_a_record_may_live_for_ever(memory: MemoryStorage, clock: FakeClock) -> None:
    await fill(memory, [math.inf, 10])
    await memory.touch("1", math.inf)
    clock.advance(1000 * DAY)

    assert await present(memory, 2) == [0, 1]


async def test_an_expired_record_is_absent_even_while_it_waits_to_be_removed(
    memory: MemoryStorage, clock: FakeClock
) -> None:
    await fill(memory, [10] * 1000)
    clock.advance(10)

    stored = await memory.load("999")

    assert stored is None
    assert len(memory) > 0


# Leaks.


async def test_creating_and_deleting_leaks_nothing(memory: MemoryStorage) -> None:
    await fill(memory, [3600] * 10)

    with growth() as grown:
        for number in range(20_000):
            await memory.create(f"short-lived {number}", b"cart", 3600)
            await memory.delete(f"short-lived {number}")

    assert grown[0] < HALF_A_MEGABYTE
    assert len(memory) == 10


async def test_creating_and_deleting_the_same_id_leaks_nothing(memory: MemoryStorage) -> None:
    await fill(memory, [3600] * 10)

    with growth() as grown:
        for _ in range(20_000):
            await memory.create("short-lived", b"cart", 3600)
            await memory.delete("short-lived")

    assert grown[0] < HALF_A_MEGABYTE


async def test_touching_shorter_and_longer_as_time_goes_by_leaks_nothing(
    memory: MemoryStorage, clock: FakeClock
) -> None:
    await fill(memory, [14 * DAY])

    with growth() as grown:
        for _ in range(20_000):
            await memory.touch("0", 14 * DAY)
            await memory.touch("0", 7 * DAY)
            clock.advance(1000)

    assert grown[0] < HALF_A_MEGABYTE
    assert len(memory) == 1


async def test_when_all_have_expired_their_memory_is_given_back(
    memory: MemoryStorage, clock: FakeClock
) -> None:
    with growth() as grown:
        await fill(memory, [3600] * 50_000)
        clock.advance(3700)
        for _ in range(50_000 // MOST_LOOKS + 100):
            await memory.load("another")

    assert grown[0] < HALF_A_MEGABYTE
    assert len(memory) == 0


async def test_when_all_are_deleted_their_memory_is_given_back(memory: MemoryStorage) -> None:
    with growth() as grown:
        await fill(memory, [3600] * 50_000)
        for number in range(50_000):
            await memory.delete(str(number))

    assert grown[0] < HALF_A_MEGABYTE


async def test_touching_leaks_nothing(memory: MemoryStorage) -> None:
    await fill(memory, [3600] * 10)

    with growth() as grown:
        for number in range(20_000):
            await memory.touch("5", 3600 - number / 10)

    assert grown[0] < HALF_A_MEGABYTE
    assert len(memory) == 10


async def test_replacing_leaks_nothing(memory: MemoryStorage) -> None:
    version = await memory.create("busy", b"cart", 3600)

    with growth() as grown:
        for number in range(20_000):
            version = await memory.replace(
                "busy", b"%d" % number, 3600 - number / 10, expected=version
            )

    assert grown[0] < HALF_A_MEGABYTE


async def test_creating_and_expiring_leaks_nothing(memory: MemoryStorage, clock: FakeClock) -> None:
    with growth() as grown:
        for number in range(20_000):
            await memory.create(str(number), b"cart", 10)
            clock.advance(1)

    assert grown[0] < HALF_A_MEGABYTE
    assert len(memory) <= 10


async def test_eviction_leaks_nothing(clock: FakeClock) -> None:
    storage = MemoryStorage(max_records=10, clock=clock)

    with growth() as grown:
        for number in range(20_000):
            await storage.create(str(number), b"cart", 3600)
            await storage.touch(str(number), 7200)

    assert grown[0] < HALF_A_MEGABYTE
    assert len(storage) == 10


# Many records.


async def test_the_garbage_collector_has_no_more_to_look_at_for_more_records(
    memory: MemoryStorage,
) -> None:
    await fill(memory, [3600] * 2000)
    before = tracked()

    for number in range(2000, 20_000):
        await memory.create(str(number), b"cart", 3600)

    assert tracked() - before < 200


async def test_no_dict_holds_so_many_records_that_its_growth_would_pause_the_loop(
    memory: MemoryStorage,
) -> None:
    await fill(memory, [3600] * 20_000)

    assert max(len(shard) for shard in memory._shards) < 200
    assert max(len(bucket) for _, _, bucket in memory._new.ends.queue) <= 1024


async def test_a_storage_that_is_left_behind_is_freed_with_its_records(clock: FakeClock) -> None:
    with growth() as grown:
        await fill(MemoryStorage(clock=clock), [3600] * 20_000)

    assert grown[0] < HALF_A_MEGABYTE


# The warning.


async def test_it_says_once_that_it_is_for_one_process(
    memory: MemoryStorage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="aiosess")

    await fill(memory, [60, 60, 60])

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Use RedisStorage where there are several" in caplog.text


async def test_it_says_nothing_until_it_keeps_something(
    memory: MemoryStorage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="aiosess")

    await memory.load("an id")

    assert not caplog.records


async def test_two_storages_share_nothing(clock: FakeClock) -> None:
    one, other = MemoryStorage(clock=clock), MemoryStorage(clock=clock)

    await one.create("an id", b"cart", 60)

    assert await other.load("an id") is None


async def test_the_id_of_a_record_that_ended_unseen_is_free() -> None:
    clock = FakeClock()
    memory = MemoryStorage(clock=clock)
    for number in range(100):
        await memory.create(f"id{number}", b"first", 60)
    clock.advance(61)

    for number in range(100):
        await memory.create(f"id{number}", b"second", 60)

    stored = await memory.load("id0")
    assert stored is not None
    assert stored.payload == b"second"


async def test_a_record_that_has_ended_makes_room_without_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    memory = MemoryStorage(clock=clock, max_records=100)
    for number in range(100):
        await memory.create(f"id{number}", b"", 60)
    clock.advance(61)
    memory._sweep_at = clock() + 1
    caplog.clear()

    await memory.create("new", b"", 60)

    assert caplog.records == []
    assert await memory.load("new") is not None
