"""One session against its storage: no update lost, none brought back to life."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from aiosess import (
    MISSING,
    CookieOptions,
    IdTaken,
    MemoryStorage,
    MergeConflict,
    RecordTooLarge,
    SessionCookie,
    SessionGone,
    StorageUnavailable,
    Version,
)
from aiosess.guard.budget import Budget, BudgetSpent
from aiosess.guard.retries import RetryingStorage, RetryPolicy
from aiosess.records.aliases import Leftover
from aiosess.records.conflicts import Queues
from aiosess.records.format import Alias, Record, decode, encode, encode_alias, start_of
from aiosess.records.lifetime import Lifetime, Touched
from aiosess.records.merge import freeze
from aiosess.records.repository import RecordOptions, SessionRepository
from aiosess.records.state import Intent, SessionState, Standing
from aiosess.storages import Storage, Stored
from aiosess.testing import FakeClock, FaultyStorage
from aiosess.timeouts import Timeouts

COOKIE = CookieOptions(secure=False)
IDLE = 100.0


async def no_sleep(_seconds: float) -> None:
    await asyncio.sleep(0)


class Bench:
    """A repository over a storage that can fail, on a clock that can be moved."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.memory = MemoryStorage(clock=clock)
        self.faulty = FaultyStorage(self.memory)
        self.repository = self.another()

    def another(
        self, *, storage: Storage | None = None, timeouts: Timeouts | None = None, **options: Any
    ) -> SessionRepository:
        """Return a repository over the same records, as another process has."""
        return SessionRepository(
            self.faulty if storage is None else storage,
            RecordOptions(timeouts=timeouts or Timeouts(idle=IDLE), **options),
            clock=self.clock,
            sleep=no_sleep,
        )

    async def keep(self, cookie: CookieOptions = COOKIE, **data: Any) -> SessionState:
        """Keep a session under "id", as another process does."""
        state = self.another().fresh("id", cookie)
        state.data.update(data)
        await self.another().create(state)
        self.faulty.calls.clear()
        return state

    async def load(self, session_id: str = "id") -> SessionState:
        state = await self.repository.load(session_id, COOKIE)
        assert isinstance(state, SessionState)
        return state

    async def kept(self, session_id: str = "id") -> dict[str, Any]:
        """Return the data that are kept."""
        state = await self.another().load(session_id, COOKIE)
        assert isinstance(state, SessionState)
        return state.data


@pytest.fixture
def bench(clock: FakeClock) -> Bench:
    return Bench(clock)


def change(state: SessionState, **values: Any) -> None:
    """Do what ``Session.update`` does, for values that are not there or are scalars."""
    for key, value in values.items():
        state.originals.setdefault(key, state.data.get(key, MISSING))
        state.data[key] = value


def renewed(state: SessionState) -> SessionState:
    state.move_to("new")
    state.intent = Intent.RENEW
    assert state.previous is not None
    return state.previous


class LostAnswers(FaultyStorage):
    """Does what it is asked, but the answer to each first ``create`` and ``replace`` is lost."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self._lost: set[str] = set()

    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        version = await super().create(session_id, payload, ttl)
        self._lose("create")
        return version

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        version = await super().replace(session_id, payload, ttl, expected=expected)
        self._lose("replace")
        return version

    def _lose(self, verb: str) -> None:
        if verb not in self._lost:
            self._lost.add(verb)
            raise StorageUnavailable("the answer was lost")


@pytest.fixture
def losing(bench: Bench) -> SessionRepository:
    """A repository that tries once more, over a storage whose answers get lost."""
    lost = LostAnswers(bench.memory)
    return bench.another(storage=RetryingStorage(lost, RetryPolicy(retries=1)))


def test_now_is_what_the_clock_says(bench: Bench) -> None:
    assert bench.repository.now() == bench.clock()


# Load


async def test_a_session_that_was_kept_is_loaded(bench: Bench) -> None:
    created = await bench.keep(count=1)
    bench.clock.advance(5)

    state = await bench.load()

    assert (state.session_id, state.data) == ("id", {"count": 1})
    assert state.created_at == created.created_at
    assert not state.is_new
    assert state.standing is Standing.LIVE
    assert not state.is_modified


async def test_an_unknown_id_has_no_session(bench: Bench) -> None:
    assert await bench.repository.load("unknown", COOKIE) is None


async def test_a_storage_that_does_not_answer_is_not_a_session_that_is_not_there(
    bench: Bench,
) -> None:
    bench.faulty.fail()

    with pytest.raises(StorageUnavailable):
        await bench.repository.load("id", COOKIE)


async def test_loading_does_not_lengthen_a_records_life(bench: Bench) -> None:
    await bench.keep()
    bench.clock.advance(IDLE - 1)
    await bench.load()

    bench.clock.advance(1)

    assert await bench.repository.load("id", COOKIE) is None


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"\xff", "not JSON: UnicodeDecodeError"),
        (b"[]", "JSON, but list and not an object"),
        (b"{}", "an object without a cookie"),
        (
            b'{"cookie":{},"a":1e400}',
            "a number beyond float, of which only infinity would be left",
        ),
    ],
)
async def test_a_record_that_cannot_be_read_counts_as_absent_and_is_logged_once(
    bench: Bench, caplog: pytest.LogCaptureFixture, payload: bytes, reason: str
) -> None:
    await bench.memory.create("id", payload, IDLE)
    caplog.clear()

    loaded = [await bench.repository.load("id", COOKIE) for _ in range(3)]

    assert loaded == [None, None, None]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == f"a record cannot be read ({reason}): it counts as absent"


async def test_a_session_of_express_begins_when_it_is_first_seen(bench: Bench) -> None:
    await bench.memory.create("id", b'{"cookie":{},"count":1}', IDLE)

    state = await bench.load()

    assert state.created_at == bench.clock()
    assert not state.is_modified


async def test_a_session_of_express_gets_a_beginning_where_there_is_an_absolute_timeout(
    bench: Bench,
) -> None:
    await bench.memory.create("id", b'{"cookie":{},"count":1}', IDLE)
    repository = bench.another(timeouts=Timeouts(idle=IDLE, absolute=200))

    state = await repository.load("id", COOKIE)

    assert isinstance(state, SessionState)
    assert state.is_modified


async def test_a_session_that_is_written_ends_with_its_cookie(bench: Bench) -> None:
    end = datetime.fromtimestamp(bench.clock() + IDLE / 2, UTC)
    cookie = CookieOptions(secure=False, expires=end)
    await bench.keep(cookie, count=1)
    state = await bench.repository.load("id", cookie)
    assert isinstance(state, SessionState)
    change(state, count=2)

    await bench.repository.replace(state)
    bench.clock.advance(IDLE / 2 + 1)

    assert await bench.memory.load("id") is None


# Absolute timeout


async def test_a_session_is_over_when_its_absolute_timeout_has_passed(bench: Bench) -> None:
    await bench.keep()
    repository = bench.another(timeouts=Timeouts(idle=10, absolute=50))
    bench.clock.advance(50)

    loaded = await repository.load("id", COOKIE)

    assert loaded is None
    assert await bench.memory.load("id") is None


@pytest.mark.asvs("7.3.2")
@pytest.mark.nist("5.2-b")
async def test_a_busy_session_lives_no_longer_than_its_absolute_timeout(bench: Bench) -> None:
    repository = bench.another(timeouts=Timeouts(idle=40, absolute=50))
    state = repository.fresh("id", COOKIE)
    await repository.create(state)
    bench.clock.advance(30)
    await repository.touch(state)
    bench.clock.advance(19.9)
    is_there = await bench.memory.load("id") is not None

    bench.clock.advance(0.2)

    assert is_there
    assert await bench.memory.load("id") is None


@pytest.mark.parametrize("verb", ["replace", "touch"])
async def test_a_session_that_ends_while_a_request_runs_is_deleted(bench: Bench, verb: str) -> None:
    repository = bench.another(timeouts=Timeouts(idle=40, absolute=50))
    await bench.keep()
    state = await bench.load()
    change(state, count=1)
    bench.clock.advance(50)

    is_kept = await getattr(repository, verb)(state)

    assert not is_kept
    assert state.is_gone
    assert await bench.memory.load("id") is None


async def test_a_session_ends_at_its_own_fixed_time(bench: Bench) -> None:
    state = bench.repository.fresh("id", COOKIE)
    state.cookie.expires = datetime.fromtimestamp(bench.clock() + 5, UTC)
    await bench.repository.create(state)
    bench.clock.advance(4)
    is_kept = await bench.repository.touch(state)

    bench.clock.advance(1)

    assert is_kept
    assert await bench.repository.load("id", COOKIE) is None


async def test_a_sessions_own_max_age_is_its_idle_timeout(bench: Bench) -> None:
    state = bench.repository.fresh("id", COOKIE)
    state.cookie.max_age = 5 * IDLE
    await bench.repository.create(state)

    bench.clock.advance(5 * IDLE - 1)

    assert (await bench.load()).cookie.max_age == 5 * IDLE


FOR_IDLE = CookieOptions(secure=False, max_age=IDLE)
# What connect-redis calls ttl, and has for cookies that end with the browser.
WITHOUT_AGE = Timeouts(idle=IDLE, idle_without_max_age=5 * IDLE, touch_after=IDLE / 2)


async def keep_without_age(repository: SessionRepository) -> SessionState:
    """Keep a session under "id" whose cookie is to end with the browser, whatever the options."""
    state = repository.fresh("id", FOR_IDLE)
    state.cookie.max_age = None
    await repository.create(state)
    return state


async def test_a_session_that_took_its_max_age_back_lives_as_long_as_one_that_never_had_any(
    bench: Bench,
) -> None:
    await keep_without_age(bench.another(timeouts=WITHOUT_AGE))

    bench.clock.advance(5 * IDLE - 1)
    is_there = await bench.memory.load("id") is not None
    bench.clock.advance(1)

    assert is_there
    assert await bench.memory.load("id") is None


async def test_a_touch_does_not_shorten_the_life_of_such_a_session(bench: Bench) -> None:
    repository = bench.another(timeouts=WITHOUT_AGE)
    state = await keep_without_age(repository)

    await repository.touch(state)

    bench.clock.advance(5 * IDLE - 1)
    assert await bench.memory.load("id") is not None


@pytest.mark.parametrize(("without_age", "is_due"), [(IDLE / 10, True), (IDLE * 10, False)])
async def test_such_a_session_is_touched_each_time_where_its_life_is_shorter_than_that_of_others(
    *, bench: Bench, without_age: float, is_due: bool
) -> None:
    timeouts = Timeouts(idle=IDLE, idle_without_max_age=without_age, touch_after=IDLE / 2)
    repository = bench.another(timeouts=timeouts)

    state = await keep_without_age(repository)

    assert repository.lifetime.is_touch_due(state) is is_due


async def test_a_session_with_a_fixed_end_is_touched_no_more_often_for_having_no_max_age(
    bench: Bench,
) -> None:
    timeouts = Timeouts(idle=IDLE, idle_without_max_age=IDLE / 10, touch_after=IDLE / 2)
    repository = bench.another(timeouts=timeouts)
    state = repository.fresh("id", FOR_IDLE)
    state.cookie.expires = datetime(2099, 1, 1, tzinfo=UTC)

    await repository.create(state)

    assert not repository.lifetime.is_touch_due(state)


# Create


async def test_an_id_that_is_taken_is_refused(bench: Bench) -> None:
    await bench.keep(owner="somebody")
    state = bench.repository.fresh("id", COOKIE)

    with pytest.raises(IdTaken):
        await bench.repository.create(state)

    assert await bench.kept() == {"owner": "somebody"}
    assert state.is_new


async def test_an_id_that_was_taken_and_is_free_again_is_refused_this_time(bench: Bench) -> None:
    bench.faulty.fail(IdTaken(), verbs=("create",))

    with pytest.raises(IdTaken):
        await bench.repository.create(bench.repository.fresh("id", COOKIE))


async def test_a_created_session_is_not_new_any_more(bench: Bench) -> None:
    state = bench.repository.fresh("id", COOKIE)
    change(state, count=1)

    await bench.repository.create(state)

    assert not state.is_new
    assert not state.is_modified


async def test_a_create_whose_answer_was_lost_is_not_taken_for_another_session(
    bench: Bench, losing: SessionRepository
) -> None:
    state = losing.fresh("id", COOKIE)
    change(state, count=1)

    await losing.create(state)

    assert await bench.kept() == {"count": 1}
    assert not state.is_new


async def test_the_record_that_regenerating_left_is_deleted(bench: Bench) -> None:
    await bench.keep()
    state = await bench.load()
    state.move_to("new")

    await bench.repository.create(state)

    assert await bench.memory.load("id") is None
    assert await bench.memory.load("new") is not None
    assert state.previous is None


async def test_a_record_that_could_not_be_used_makes_way(bench: Bench) -> None:
    await bench.memory.create("stale", b"not a record", IDLE)
    state = bench.repository.fresh("id", COOKIE)
    state.stale_id = "stale"

    await bench.repository.create(state)

    assert await bench.memory.load("stale") is None
    assert state.stale_id is None


async def test_a_new_record_under_the_id_that_was_stale_stays(bench: Bench) -> None:
    state = bench.repository.fresh("id", COOKIE)
    state.stale_id = "id"

    await bench.repository.create(state)

    assert await bench.memory.load("id") is not None


# Replace


async def test_a_change_is_written_in_one_round_trip(bench: Bench) -> None:
    await bench.keep(count=1)
    state = await bench.load()
    bench.faulty.calls.clear()
    change(state, count=2)

    is_kept = await bench.repository.replace(state)

    assert is_kept
    assert bench.faulty.calls == ["replace"]
    assert await bench.kept() == {"count": 2}


async def test_writing_lengthens_the_records_life(bench: Bench) -> None:
    await bench.keep()
    state = await bench.load()
    bench.clock.advance(IDLE - 1)
    await bench.repository.replace(state)

    bench.clock.advance(IDLE - 1)

    assert await bench.memory.load("id") is not None


async def test_two_requests_that_change_one_session_both_keep_their_change(bench: Bench) -> None:
    await bench.keep(a=1, b=1)
    first, second = await bench.load(), await bench.load()
    change(first, a=2)
    change(second, b=2)

    await bench.repository.replace(first)
    await bench.repository.replace(second)

    assert await bench.kept() == {"a": 2, "b": 2}


async def test_the_later_one_of_two_requests_keeps_the_max_age_that_the_other_set(
    bench: Bench,
) -> None:
    await bench.keep(n=1)
    remembers, counts = await bench.load(), await bench.load()
    remembers.cookie.max_age = 5 * IDLE
    change(counts, n=2)

    await bench.repository.replace(remembers)
    await bench.repository.replace(counts)
    bench.clock.advance(4 * IDLE)

    found = await bench.load()
    assert (found.data, found.cookie.max_age) == ({"n": 2}, 5 * IDLE)


async def test_many_requests_at_once_each_keep_their_change(bench: Bench) -> None:
    await bench.keep()
    states = [await bench.load() for _ in range(50)]
    for number, state in enumerate(states):
        change(state, **{str(number): number})

    await asyncio.gather(*(bench.repository.replace(state) for state in states))

    assert await bench.kept() == {str(number): number for number in range(50)}


@pytest.mark.parametrize(("merge", "kept"), [("mine", 3), ("theirs", 2)])
async def test_merge_says_who_wins(bench: Bench, merge: str, kept: int) -> None:
    repository = bench.another(merge=merge)
    await bench.keep(count=1)
    first, second = await bench.load(), await bench.load()
    change(first, count=2)
    change(second, count=3)

    await repository.replace(first)
    await repository.replace(second)

    assert await bench.kept() == {"count": kept}


ADDRESS = {"street": "Mill Lane", "town": "Ash"}


async def overtaken(bench: Bench) -> SessionState:
    """Return a session in which we changed the street, while another request changed the town."""
    await bench.keep(address=ADDRESS)
    first, second = await bench.load(), await bench.load()
    for state, part, value in ((first, "town", "Elm"), (second, "street", "High Street")):
        state.originals["address"] = freeze(state.data["address"])
        state.data["address"][part] = value
    await bench.repository.replace(first)
    return second


async def test_both_changes_inside_one_value_are_kept(bench: Bench) -> None:
    state = await overtaken(bench)

    await bench.repository.replace(state)

    assert await bench.kept() == {"address": {"street": "High Street", "town": "Elm"}}


async def test_an_addition_whose_save_got_no_answer_is_made_once(bench: Bench) -> None:
    repository = bench.another(storage=LostAnswers(bench.memory))
    await bench.keep()
    state = await bench.load()
    change(state, flash=["saved"])
    with pytest.raises(StorageUnavailable):
        await repository.replace(state)
    state.data["flash"].append("said later")

    await repository.replace(state)

    assert await bench.kept() == {"flash": ["saved", "said later"]}


async def test_a_value_that_is_whole_is_kept_as_one_side_has_it(bench: Bench) -> None:
    state = await overtaken(bench)

    await bench.another(whole=frozenset({"address"})).replace(state)

    assert await bench.kept() == {"address": {"street": "High Street", "town": "Ash"}}


async def test_a_value_that_is_whole_is_kept_as_one_side_has_it_when_the_id_is_renewed(
    bench: Bench,
) -> None:
    state = await overtaken(bench)

    await bench.another(whole=frozenset({"address"})).renew(state, renewed(state))

    assert await bench.kept("new") == {"address": {"street": "High Street", "town": "Ash"}}


async def test_a_value_that_is_whole_is_kept_as_one_side_has_it_on_top_of_atomic(
    bench: Bench,
) -> None:
    state = await overtaken(bench)

    await bench.another(whole=frozenset({"address"})).atomic(state, lambda _newest: None)

    assert state.data == {"address": {"street": "High Street", "town": "Ash"}}


async def test_a_refused_merge_is_refused_again_and_loses_nothing(bench: Bench) -> None:
    repository = bench.another(merge="raise")
    await bench.keep(count=1)
    first, second = await bench.load(), await bench.load()
    change(first, count=2, other=2)
    change(second, count=3)
    await repository.replace(first)

    with pytest.raises(MergeConflict, match="another request changed 'count' as well"):
        await repository.replace(second)
    with pytest.raises(MergeConflict):
        await repository.replace(second)

    assert await bench.kept() == {"count": 2, "other": 2}


async def test_a_destroyed_session_stays_destroyed(bench: Bench) -> None:
    await bench.keep()
    state = await bench.load()
    change(state, count=1)
    await bench.memory.delete("id")

    is_kept = await bench.repository.replace(state)

    assert not is_kept
    assert state.is_gone
    assert await bench.memory.load("id") is None


async def test_a_record_that_became_unreadable_counts_as_gone(bench: Bench) -> None:
    await bench.keep()
    state = await bench.load()
    change(state, count=1)
    await bench.memory.delete("id")
    await bench.memory.create("id", b"not a record", IDLE)

    assert not await bench.repository.replace(state)


async def test_a_replace_whose_answer_was_lost_is_not_a_conflict(
    bench: Bench, losing: SessionRepository
) -> None:
    await bench.keep(count=1)
    state = await bench.load()
    change(state, count=2)

    is_kept = await losing.replace(state)

    assert is_kept
    assert await bench.kept() == {"count": 2}
    stored = await bench.memory.load("id")
    assert stored is not None
    assert state.version == stored.version


class Overtaken(FaultyStorage):
    """Before each ``replace`` under "id", *times* often, somebody else writes."""

    def __init__(self, bench: Bench, times: int) -> None:
        super().__init__(bench.memory)
        self._keeper = bench.another(storage=bench.memory)
        self._times = times

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        if self._times and session_id == "id":
            self._times -= 1
            theirs = await self._keeper.load(session_id, COOKIE)
            assert isinstance(theirs, SessionState)
            change(theirs, theirs=self._times)
            await self._keeper.replace(theirs)
        return await super().replace(session_id, payload, ttl, expected=expected)


async def test_a_request_that_is_overtaken_again_and_again_keeps_its_change(bench: Bench) -> None:
    await bench.keep()
    repository = bench.another(storage=Overtaken(bench, times=20))
    state = await bench.load()
    change(state, mine=1)

    is_kept = await repository.replace(state)

    assert is_kept
    assert await bench.kept() == {"mine": 1, "theirs": 0}


async def test_a_request_that_is_always_overtaken_gives_up(bench: Bench) -> None:
    await bench.keep()
    repository = bench.another(storage=Overtaken(bench, times=1000))
    state = await bench.load()
    change(state, mine=1)

    with pytest.raises(MergeConflict, match="others changed the session 100 times") as caught:
        await repository.replace(state)

    assert caught.value.keys == ()


# Touch


async def test_touching_lengthens_the_records_life_and_changes_nothing(bench: Bench) -> None:
    await bench.keep(count=1)
    state = await bench.load()
    before = await bench.memory.load("id")
    bench.clock.advance(IDLE - 1)

    is_kept = await bench.repository.touch(state)

    bench.clock.advance(IDLE - 1)
    assert is_kept
    assert await bench.memory.load("id") == before


async def test_touching_does_not_bring_a_session_back(bench: Bench) -> None:
    await bench.keep()
    state = await bench.load()
    await bench.memory.delete("id")

    is_kept = await bench.repository.touch(state)

    assert not is_kept
    assert state.is_gone
    assert await bench.memory.load("id") is None


@pytest.mark.parametrize(("passed", "is_due"), [(0, False), (9.9, False), (20, True), (500, True)])
async def test_a_record_that_was_touched_recently_is_not_due(
    *, bench: Bench, passed: float, is_due: bool
) -> None:
    repository = bench.another(timeouts=Timeouts(idle=1000, touch_after=20))
    await bench.keep()
    state = await bench.load()
    await repository.touch(state)

    bench.clock.advance(passed)

    assert repository.lifetime.is_touch_due(state) is is_due


@pytest.mark.parametrize("touch_after", [0, 20])
async def test_a_record_that_this_process_never_touched_is_due(
    bench: Bench, touch_after: float
) -> None:
    repository = bench.another(timeouts=Timeouts(idle=IDLE, touch_after=touch_after))
    await bench.keep()

    assert repository.lifetime.is_touch_due(await bench.load())


async def test_without_touch_after_a_touch_is_always_due(bench: Bench) -> None:
    await bench.keep()
    state = await bench.load()

    await bench.repository.touch(state)

    assert bench.repository.lifetime.is_touch_due(state)


@pytest.mark.parametrize(("max_age", "is_due"), [(IDLE / 10, True), (IDLE * 10, False)])
async def test_a_session_with_a_shorter_life_of_its_own_is_touched_each_time(
    *, bench: Bench, max_age: float, is_due: bool
) -> None:
    repository = bench.another(timeouts=Timeouts(idle=IDLE, touch_after=IDLE / 2))
    state = repository.fresh("id", COOKIE)
    state.cookie.max_age = max_age

    await repository.create(state)

    assert repository.lifetime.is_touch_due(state) is is_due


def test_a_touch_is_forgotten_in_time_however_late_somebody_asks(clock: FakeClock) -> None:
    touched = Touched(20, clock)
    touched.add("id")
    clock.advance(19)
    is_recent = not touched.is_due("id")

    clock.advance(2)

    assert is_recent
    assert touched.is_due("id")


def test_the_clock_of_a_test_is_the_one_for_spans_of_time_too(clock: FakeClock) -> None:
    lifetime = Lifetime(Timeouts(idle=IDLE), is_idle_by_cookie=False, clock=clock)

    assert lifetime.steady is clock


def test_the_machines_clock_may_be_set_back_and_its_steady_one_is_not() -> None:
    lifetime = Lifetime(Timeouts(idle=IDLE), is_idle_by_cookie=False, clock=time.time)

    assert lifetime.steady is time.monotonic


@pytest.mark.parametrize("step", [-86_400.0, -IDLE, -1.0, 86_400.0])
async def test_a_session_in_use_outlives_a_wall_clock_that_is_set(
    step: float, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    steady = FakeClock()
    monkeypatch.setattr(time, "time", clock)
    monkeypatch.setattr(time, "monotonic", steady)
    repository = SessionRepository(
        MemoryStorage(clock=steady),
        RecordOptions(timeouts=Timeouts(idle=IDLE, touch_after=IDLE / 20)),
        clock=clock,
    )
    state = repository.fresh("id", COOKIE)
    state.data["user"] = "Ann"
    await repository.create(state)
    clock.advance(step)

    for _ in range(50):
        steady.advance(IDLE / 10)
        clock.advance(IDLE / 10)
        seen = await repository.load("id", COOKIE)
        assert isinstance(seen, SessionState)
        if repository.lifetime.is_touch_due(seen):
            await repository.touch(seen, is_renewal_told=False)


async def test_a_session_from_the_future_begins_now_and_says_so_when_it_is_written(
    bench: Bench,
) -> None:
    await bench.keep(count=1)
    clock = FakeClock(bench.clock() - 10_000)
    repository = SessionRepository(
        bench.memory,
        RecordOptions(timeouts=Timeouts(idle=IDLE, absolute=IDLE * 2)),
        clock=clock,
    )

    state = await repository.load("id", COOKIE)
    assert isinstance(state, SessionState)
    began_at, is_written = state.created_at, state.must_be_written
    await repository.replace(state)

    assert began_at == clock()
    assert is_written
    stored = await bench.memory.load("id")
    assert stored is not None
    record = decode(stored.payload)
    assert isinstance(record, Record)
    assert record.created_at == began_at


async def test_a_session_from_the_future_has_its_absolute_timeout(bench: Bench) -> None:
    await bench.keep(count=1)
    clock = FakeClock(bench.clock() - 1_000_000)
    repository = SessionRepository(
        bench.memory,
        RecordOptions(timeouts=Timeouts(idle=IDLE, absolute=IDLE)),
        clock=clock,
    )
    state = await repository.load("id", COOKIE)
    assert isinstance(state, SessionState)
    await repository.replace(state)

    clock.advance(IDLE + 1)

    assert await repository.load("id", COOKIE) is None


def test_touches_are_remembered_in_bounded_memory(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Touched, "_MOST", 10)
    touched = Touched(20, clock)

    for number in range(1000):
        touched.add(str(number))

    remembered = sum(not touched.is_due(str(number)) for number in range(1000))
    assert 0 < remembered <= 20
    assert not touched.is_due("999")


# Touch by a storage that can load and touch in one call


class Touching(FaultyStorage):
    """One that can, as RedisStorage can."""

    memory: MemoryStorage

    async def load_and_touch(self, session_id: str, ttl: float) -> tuple[Stored, bool] | None:
        self.calls.append("load_and_touch")
        stored = await self.memory.load(session_id)
        if stored is None:
            return None
        entry = self.memory._find(session_id, self.memory._clock())
        assert entry is not None
        is_due = entry.expires_at <= self.memory._clock() + ttl
        if is_due:
            await self.memory.touch(session_id, ttl)
        return stored, is_due


@pytest.fixture
def touching(bench: Bench) -> Touching:
    storage = Touching(bench.memory)
    storage.memory = bench.memory
    return storage


@pytest.fixture
def touching_repository(bench: Bench, touching: Touching) -> SessionRepository:
    return bench.another(storage=touching, timeouts=Timeouts(idle=IDLE, touch_after=IDLE / 2))


async def loaded(repository: SessionRepository, session_id: str = "id") -> SessionState:
    state = await repository.load(session_id, COOKIE)
    assert isinstance(state, SessionState)
    return state


async def test_a_session_whose_touch_is_due_is_read_and_touched_in_one_call(
    bench: Bench, touching: Touching, touching_repository: SessionRepository
) -> None:
    await bench.keep(count=1)
    bench.clock.advance(IDLE - 1)

    is_due = touching_repository.lifetime.is_touch_due(await loaded(touching_repository))

    bench.clock.advance(IDLE - 1)
    assert touching.calls == ["load_and_touch"]
    assert not is_due
    assert await bench.kept() == {"count": 1}


async def test_a_session_whose_touch_is_not_due_is_only_read(
    bench: Bench, touching: Touching, touching_repository: SessionRepository
) -> None:
    await bench.keep()
    await loaded(touching_repository)
    touching.calls.clear()

    await loaded(touching_repository)

    assert touching.calls == ["load"]


@pytest.mark.parametrize("touch_after", [0, 5])
async def test_a_long_request_extends_the_sessions_life_at_its_end_too(
    bench: Bench, touching: Touching, touch_after: float
) -> None:
    repository = bench.another(
        storage=touching, timeouts=Timeouts(idle=IDLE, touch_after=touch_after)
    )
    await bench.keep()
    state = await loaded(repository)
    is_due_at_once = repository.lifetime.is_touch_due(state)

    bench.clock.advance(IDLE * 0.8)

    assert (is_due_at_once, repository.lifetime.is_touch_due(state)) == (False, True)


async def test_a_session_that_was_read_is_there_though_its_life_could_not_be_corrected(
    bench: Bench, touching: Touching, touching_repository: SessionRepository
) -> None:
    state = await bench.keep()
    state.cookie.max_age = IDLE / 10
    await bench.repository.replace(state)
    touching.fail(times=1, verbs=("touch",))

    again = await loaded(touching_repository)

    assert touching_repository.lifetime.is_touch_due(again)


async def test_without_touch_after_each_session_is_touched_when_it_is_read(
    bench: Bench, touching: Touching
) -> None:
    repository = bench.another(storage=touching)
    await bench.keep()
    states = [await loaded(repository) for _ in range(3)]

    assert touching.calls == ["load_and_touch"] * 3
    assert not any(repository.lifetime.is_touch_due(state) for state in states)


async def test_a_session_with_a_longer_life_of_its_own_keeps_it_when_it_is_read(
    bench: Bench, touching_repository: SessionRepository
) -> None:
    state = await bench.keep()
    state.cookie.max_age = IDLE * 10
    await bench.repository.replace(state)

    again = await loaded(touching_repository)

    bench.clock.advance(IDLE * 9)
    assert touching_repository.lifetime.is_touch_due(again)
    assert await bench.memory.load("id") is not None


async def test_a_session_with_a_shorter_life_of_its_own_keeps_it_when_it_is_read(
    bench: Bench, touching_repository: SessionRepository
) -> None:
    state = await bench.keep()
    state.cookie.max_age = IDLE / 10
    await bench.repository.replace(state)

    await loaded(touching_repository)

    bench.clock.advance(IDLE / 10 + 1)
    assert await bench.memory.load("id") is None


async def test_reading_does_not_extend_a_life_beyond_the_absolute_timeout(
    bench: Bench, touching: Touching
) -> None:
    repository = bench.another(storage=touching, timeouts=Timeouts(idle=IDLE, absolute=IDLE * 1.5))
    await bench.keep()
    bench.clock.advance(IDLE - 1)

    await loaded(repository)

    bench.clock.advance(IDLE / 2 + 2)
    assert await bench.memory.load("id") is None


async def test_a_rotation_is_told_in_the_call_that_touches(
    bench: Bench, touching: Touching, touching_repository: SessionRepository
) -> None:
    await bench.keep(count=1)
    state = await loaded(touching_repository)
    other = await bench.load()
    await bench.repository.rotate(other, renewed(other))
    touching.calls.clear()

    is_kept = await touching_repository.touch(state)

    assert (is_kept, state.standing) == (True, Standing.ALIAS)
    assert touching.calls[0] == "load_and_touch"


async def test_a_touch_that_reads_as_well_does_not_bring_a_session_back(
    bench: Bench, touching_repository: SessionRepository
) -> None:
    await bench.keep()
    state = await loaded(touching_repository)
    await bench.memory.delete("id")

    is_kept = await touching_repository.touch(state)

    assert (is_kept, state.is_gone) == (False, True)
    assert await bench.memory.load("id") is None


async def test_a_record_that_would_outlive_its_idle_timeout_ends_in_time_once_it_is_touched(
    bench: Bench, touching_repository: SessionRepository
) -> None:
    """As after the operator has lowered idle_timeout."""
    await bench.keep()
    await bench.memory.touch("id", IDLE * 10)
    state = await loaded(touching_repository)
    assert touching_repository.lifetime.is_touch_due(state)

    await touching_repository.touch(state)

    bench.clock.advance(IDLE + 1)
    assert await bench.memory.load("id") is None


# Renew


async def test_rotating_moves_the_data_and_the_old_id_leads_there(bench: Bench) -> None:
    await bench.keep(count=1)
    state = await bench.load()
    previous = renewed(state)
    change(state, user="Ann")

    is_kept = await bench.repository.rotate(state, previous)

    assert is_kept
    assert await bench.kept("new") == {"count": 1, "user": "Ann"}
    led = await bench.load("id")
    assert (led.session_id, led.standing) == ("new", Standing.ALIAS)
    assert led.data == {"count": 1, "user": "Ann"}
    assert not state.is_modified
    assert state.previous is None


async def test_the_old_id_leads_nowhere_after_the_grace_period(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aiosess")
    await bench.keep()
    state = await bench.load()
    await bench.repository.rotate(state, renewed(state))
    bench.clock.advance(9.9)
    led = await bench.repository.load("id", COOKIE)

    bench.clock.advance(0.1)

    assert isinstance(led, SessionState)
    assert await bench.repository.load("id", COOKIE) is Leftover.REUSED
    assert "used after it had been renewed: it is refused" in caplog.text


async def test_without_a_grace_period_the_old_id_is_refused_at_once(bench: Bench) -> None:
    repository = bench.another(renew_grace=0)
    await bench.keep()
    state = await bench.load()

    await repository.rotate(state, renewed(state))

    assert await repository.load("id", COOKIE) is Leftover.REUSED
    assert isinstance(await repository.load("new", COOKIE), SessionState)


async def test_a_request_under_way_under_the_old_id_keeps_its_change(bench: Bench) -> None:
    await bench.keep(count=1)
    under_way = await bench.load()
    state = await bench.load()
    await bench.repository.rotate(state, renewed(state))
    change(under_way, count=2)

    is_kept = await bench.repository.replace(under_way)

    assert is_kept
    assert await bench.kept("new") == {"count": 2}
    assert (under_way.session_id, under_way.standing) == ("new", Standing.ALIAS)


async def test_what_was_written_under_the_old_id_meanwhile_comes_along(bench: Bench) -> None:
    await bench.keep(count=1)
    state, other = await bench.load(), await bench.load()
    previous = renewed(state)
    change(state, user="Ann")
    change(other, count=2)
    await bench.repository.replace(other)

    await bench.repository.renew(state, previous)

    assert await bench.kept("new") == {"count": 2, "user": "Ann"}


async def test_a_session_that_was_destroyed_meanwhile_is_not_renewed(bench: Bench) -> None:
    await bench.keep()
    state = await bench.load()
    previous = renewed(state)
    await bench.memory.delete("id")

    is_kept = await bench.repository.renew(state, previous)

    assert not is_kept
    assert state.is_gone
    assert len(bench.memory) == 0


async def test_two_requests_that_renew_at_once_each_have_a_session(bench: Bench) -> None:
    await bench.keep(count=1)
    first, second = await bench.load(), await bench.load()
    await bench.repository.renew(first, renewed(first))
    second.move_to("newer")
    second.intent = Intent.RENEW
    assert second.previous is not None

    is_kept = await bench.repository.renew(second, second.previous)

    assert is_kept
    assert await bench.kept("new") == await bench.kept("newer") == {"count": 1}


async def test_a_refused_merge_leaves_the_session_under_its_old_id(bench: Bench) -> None:
    repository = bench.another(merge="raise")
    await bench.keep(count=1)
    state, other = await bench.load(), await bench.load()
    previous = renewed(state)
    change(state, count=3)
    change(other, count=2)
    await repository.replace(other)

    with pytest.raises(MergeConflict):
        await repository.renew(state, previous)

    assert await bench.kept("id") == {"count": 2}
    assert await bench.memory.load("new") is None


async def test_renewing_while_others_never_stop_writing_is_given_up(bench: Bench) -> None:
    await bench.keep()
    state = await bench.load()
    repository = bench.another(storage=Overtaken(bench, times=1000))

    with pytest.raises(MergeConflict, match="others changed the session 100 times"):
        await repository.renew(state, renewed(state))

    assert await bench.memory.load("new") is None


async def test_rotating_can_be_tried_again_after_it_got_halfway(bench: Bench) -> None:
    await bench.keep(count=1)
    state = await bench.load()
    previous = renewed(state)
    bench.faulty.fail(verbs=("replace",))
    with pytest.raises(StorageUnavailable):
        await bench.repository.rotate(state, previous)
    bench.faulty.recover()
    change(state, count=2)

    is_kept = await bench.repository.rotate(state, previous)

    assert is_kept
    assert await bench.kept("id") == await bench.kept("new") == {"count": 2}


async def test_a_rotation_whose_answers_were_lost_is_one(
    bench: Bench, losing: SessionRepository
) -> None:
    await bench.keep(count=1)
    state = await bench.load()

    is_kept = await losing.rotate(state, renewed(state))

    assert is_kept
    assert await bench.kept("id") == await bench.kept("new") == {"count": 1}


async def test_an_id_that_was_rotated_twice_leads_to_the_session(bench: Bench) -> None:
    await bench.keep(count=1)
    state = await bench.load()
    await bench.repository.rotate(state, renewed(state))
    state.move_to("newest")
    assert state.previous is not None
    await bench.repository.rotate(state, state.previous)

    led = await bench.load("id")

    assert (led.session_id, led.data) == ("newest", {"count": 1})


async def test_ids_that_lead_in_a_circle_lead_nowhere(bench: Bench) -> None:
    until = bench.clock() + 10
    await bench.memory.create("id", encode_alias("id", Alias("other", until)), IDLE)
    await bench.memory.create("other", encode_alias("other", Alias("id", until)), IDLE)

    assert await bench.repository.load("id", COOKIE) is None


async def test_an_id_that_leads_to_a_destroyed_session_leads_nowhere(bench: Bench) -> None:
    alias = encode_alias("id", Alias("destroyed", bench.clock() + 10))
    await bench.memory.create("id", alias, IDLE)

    assert await bench.repository.load("id", COOKIE) is None


# Delete


async def test_deleting_removes_the_record(bench: Bench) -> None:
    await bench.keep()
    state = await bench.load()

    await bench.repository.delete(state)

    assert await bench.memory.load("id") is None
    assert state.is_new


async def test_deleting_a_session_under_a_new_id_removes_the_record_before(bench: Bench) -> None:
    await bench.keep()
    state = await bench.load()
    state.move_to("new")

    await bench.repository.delete(state)

    assert len(bench.memory) == 0
    assert state.previous is None


async def test_deleting_a_new_session_asks_the_storage_for_nothing(bench: Bench) -> None:
    await bench.repository.delete(bench.repository.fresh("id", COOKIE))

    assert bench.faulty.calls == []


# Reload


async def test_reloading_forgets_changes_and_takes_what_is_kept(bench: Bench) -> None:
    await bench.keep(count=1)
    state, other = await bench.load(), await bench.load()
    change(state, count=5, mine=1)
    state.cookie.max_age = 5
    change(other, count=2)
    other.cookie.path = "/shop"
    await bench.repository.replace(other)

    await bench.repository.reload(state, state.seen())

    assert state.data == {"count": 2}
    assert state.cookie.own == {"path": "/shop"}
    assert state.version == other.version
    assert not state.is_modified


async def test_reloading_a_destroyed_session_says_so(bench: Bench) -> None:
    await bench.keep()
    state = await bench.load()
    await bench.memory.delete("id")

    with pytest.raises(SessionGone, match="destroyed or has expired"):
        await bench.repository.reload(state, state.seen())

    assert state.is_gone


async def test_reloading_a_new_session_says_so_and_leaves_it_usable(bench: Bench) -> None:
    state = bench.repository.fresh("id", COOKIE)

    with pytest.raises(SessionGone, match="is new"):
        await bench.repository.reload(state, state.seen())

    assert not state.is_gone


# Atomic


def increment(state: SessionState) -> int:
    change(state, count=state.data["count"] + 1)
    return int(state.data["count"])


async def test_a_counter_is_right_however_many_count_at_once(bench: Bench) -> None:
    await bench.keep(count=0)
    states = [await bench.load() for _ in range(50)]
    keepers = [bench.repository, bench.another()]

    counts = await asyncio.gather(
        *(keepers[n % 2].atomic(state, increment) for n, state in enumerate(states))
    )

    assert sorted(counts) == list(range(1, 51))
    assert await bench.kept() == {"count": 50}


async def test_other_changes_stay_unsaved_on_top(bench: Bench) -> None:
    await bench.keep(count=1)
    state = await bench.load()
    change(state, mine=1)

    await bench.repository.atomic(state, increment)

    assert await bench.kept() == {"count": 2}
    assert state.data == {"count": 2, "mine": 1}
    assert state.changes() == {"mine": (MISSING, 1)}


async def test_a_change_that_changes_nothing_writes_nothing(bench: Bench) -> None:
    await bench.keep(count=1)
    state = await bench.load()
    bench.faulty.calls.clear()

    result = await bench.repository.atomic(state, lambda newest: newest.data["count"])

    assert result == 1
    assert bench.faulty.calls == ["load"]


async def test_a_change_that_fails_loses_nothing_of_what_others_wrote(bench: Bench) -> None:
    await bench.keep(count=1)
    state, other = await bench.load(), await bench.load()
    change(other, theirs=1)
    await bench.repository.replace(other)
    change(state, mine=1)

    with pytest.raises(KeyError, match="stock"):
        await bench.repository.atomic(state, lambda newest: newest.data["stock"])
    await bench.repository.replace(state)

    assert await bench.kept() == {"count": 1, "theirs": 1, "mine": 1}


async def test_atomic_on_a_destroyed_session_says_so(bench: Bench) -> None:
    await bench.keep(count=1)
    state = await bench.load()
    await bench.memory.delete("id")

    with pytest.raises(SessionGone):
        await bench.repository.atomic(state, increment)

    assert state.is_gone


async def test_atomic_that_is_always_overtaken_gives_up(bench: Bench) -> None:
    await bench.keep(count=1)
    repository = bench.another(storage=Overtaken(bench, times=1000))

    with pytest.raises(MergeConflict, match="100 times"):
        await repository.atomic(await bench.load(), increment)


async def test_atomic_follows_an_id_that_was_rotated_meanwhile(bench: Bench) -> None:
    await bench.keep(count=1)
    under_way = await bench.load()
    state = await bench.load()
    await bench.repository.rotate(state, renewed(state))

    await bench.repository.atomic(under_way, increment)

    assert await bench.kept("new") == {"count": 2}
    assert under_way.session_id == "new"


# What is kept of nobody


async def test_queues_are_there_only_while_somebody_stands_in_them() -> None:
    queues = Queues()
    order: list[str] = []

    async def stand(name: str) -> None:
        async with queues.enter("id"):
            order.append(name)
            await asyncio.sleep(0)
            order.append(name)

    await asyncio.gather(stand("first"), stand("second"), stand("third"))

    assert order == ["first", "first", "second", "second", "third", "third"]
    assert queues.by_key == {}


async def test_who_leaves_a_queue_does_not_hold_up_the_others() -> None:
    queues = Queues()
    async with queues.enter("id"):
        impatient = asyncio.create_task(_pass_through(queues))
        patient = asyncio.create_task(_pass_through(queues))
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.gather(impatient, return_exceptions=True)

    await patient

    assert impatient.cancelled()
    assert queues.by_key == {}


async def test_whose_budget_will_not_do_for_all_in_front_is_refused_at_once() -> None:
    queues = Queues()
    async with queues.enter("id") as queue:
        queue.took(0.4)
        waiting = asyncio.create_task(_pass_through(queues))
        await asyncio.sleep(0)

        with pytest.raises(BudgetSpent, match="at this moment, 2, that"):
            await Budget(1.0).spend(_pass_through, queues)

    await waiting


async def test_whose_budget_will_do_for_all_in_front_has_a_turn() -> None:
    queues = Queues()
    async with queues.enter("id") as queue:
        queue.took(0.4)
        waiting = asyncio.create_task(Budget(10.0).spend(_pass_through, queues))
        await asyncio.sleep(0)

    await waiting
    assert queues.by_key == {}


async def test_a_turn_that_would_end_too_late_is_not_begun() -> None:
    queues = Queues()
    with contextlib.suppress(StorageUnavailable):
        async with queues.enter("id") as queue:
            waiting = asyncio.create_task(Budget(10.0).spend(_pass_through, queues))
            await asyncio.sleep(0)
            queue.took(20.0)
            raise StorageUnavailable("no answer")

    with pytest.raises(BudgetSpent, match="at this moment, 1, that"):
        await waiting
    assert queues.by_key == {}


class FailingSecond(FaultyStorage):
    """Says when the second replace has come, and fails it when it is told to."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self.has_come, self.fails = asyncio.Event(), asyncio.Event()

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        if self.calls.count("replace") == 1:
            self.has_come.set()
            await self.fails.wait()
            self.fail(times=1)
        return await super().replace(session_id, payload, ttl, expected=expected)


async def test_who_waited_for_somebody_who_failed_writes_what_they_have_read(bench: Bench) -> None:
    storage = FailingSecond(bench.memory)
    repository = bench.another(storage=storage)
    await bench.keep(count=1)
    first, other = await bench.load(), await bench.load()
    change(other, other=1)
    await bench.repository.replace(other)
    second = await bench.load()
    change(first, first=1)
    change(second, second=1)

    failing = asyncio.create_task(repository.replace(first))
    await storage.has_come.wait()
    waiting = asyncio.create_task(repository.replace(second))
    await asyncio.sleep(0)
    storage.fails.set()

    with pytest.raises(StorageUnavailable):
        await failing
    assert await waiting
    assert await bench.kept() == {"count": 1, "other": 1, "second": 1}
    assert storage.calls.count("replace") == 3


async def test_one_slow_turn_does_not_say_that_all_are() -> None:
    async with Queues().enter("id") as queue:
        for seconds in (0.02, 0.9):
            queue.took(seconds)

        assert queue.pace == 0.04


async def _pass_through(queues: Queues) -> None:
    async with queues.enter("id"):
        pass


async def test_every_record_that_is_written_differs_from_the_one_before(bench: Bench) -> None:
    await bench.keep(count=1)
    state = await bench.load()
    before = await bench.memory.load("id")

    await bench.repository.replace(state)

    after = await bench.memory.load("id")
    assert before is not None
    assert after is not None
    assert before.payload != after.payload
    assert decode(before.payload) == decode(after.payload)


class Crowded(FaultyStorage):
    """Lets somebody else write before each of the first *rivals* calls of ``replace``."""

    def __init__(self, storage: Storage, rivals: int) -> None:
        super().__init__(storage)
        self._rivals = rivals

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        if self._rivals > 0:
            self._rivals -= 1
            await self.intrude(session_id)
        return await super().replace(session_id, payload, ttl, expected=expected)

    async def intrude(self, session_id: str = "id") -> None:
        kept = await self.storage.load(session_id)
        assert kept is not None
        await self.storage.replace(session_id, kept.payload, 60, expected=kept.version)


async def test_after_a_pause_the_save_goes_on_from_what_is_kept_by_then(bench: Bench) -> None:
    await bench.keep(n=1)
    crowded = Crowded(bench.memory, rivals=8)

    async def somebody_writes_in_each_pause(_seconds: float) -> None:
        await crowded.intrude()

    repository = SessionRepository(
        crowded,
        RecordOptions(timeouts=Timeouts(idle=IDLE)),
        clock=bench.clock,
        sleep=somebody_writes_in_each_pause,
    )
    state = await repository.load("id", COOKIE)
    assert isinstance(state, SessionState)
    change(state, mine=2)

    assert await repository.replace(state) is True

    assert await bench.kept() == {"n": 1, "mine": 2}


# Whose a record is, and what a newer version wrote into it.


UNKNOWN = {"later": {"n": [1]}}


async def keep_by_newer(bench: Bench, **data: Any) -> None:
    """Keep a session under "id", as a newer version does."""
    payload = encode(
        "id",
        data,
        SessionCookie(COOKIE),
        created_at=bench.clock(),
        now=bench.clock(),
        unknown=UNKNOWN,
    )
    await bench.memory.create("id", payload, IDLE)


async def unknown_of(bench: Bench, session_id: str) -> object:
    stored = await bench.memory.load(session_id)
    assert stored is not None
    found = decode(stored.payload)
    assert not isinstance(found, Alias)
    return found.unknown if isinstance(found, Record) else found.record.unknown


async def test_what_a_newer_version_wrote_survives_a_write(bench: Bench) -> None:
    await keep_by_newer(bench, count=1)
    state = await bench.load()
    change(state, count=2)

    await bench.repository.replace(state)

    assert await unknown_of(bench, "id") == UNKNOWN


async def test_what_a_newer_version_writes_meanwhile_survives_a_merge(bench: Bench) -> None:
    await bench.keep(count=1)
    state = await bench.load()
    change(state, mine=True)
    await bench.memory.delete("id")
    await keep_by_newer(bench, count=2)

    await bench.repository.replace(state)

    assert await bench.kept() == {"count": 2, "mine": True}
    assert await unknown_of(bench, "id") == UNKNOWN


async def test_what_a_newer_version_wrote_survives_an_atomic_change(bench: Bench) -> None:
    await keep_by_newer(bench, count=1)
    state = await bench.load()

    await bench.repository.atomic(state, lambda newest: change(newest, count=2))
    change(state, mine=True)
    await bench.repository.replace(state)

    assert await unknown_of(bench, "id") == UNKNOWN


async def test_what_a_newer_version_wrote_survives_a_reload(bench: Bench) -> None:
    await bench.keep(count=1)
    state = await bench.load()
    await bench.memory.delete("id")
    await keep_by_newer(bench, count=2)

    await bench.repository.reload(state, state.seen())
    change(state, count=3)
    await bench.repository.replace(state)

    assert await unknown_of(bench, "id") == UNKNOWN


async def test_what_a_newer_version_wrote_goes_along_at_a_renewal(bench: Bench) -> None:
    await keep_by_newer(bench, count=1)
    state = await bench.load()

    await bench.repository.renew(state, renewed(state))

    assert await unknown_of(bench, "new") == UNKNOWN
    assert await unknown_of(bench, "id") == UNKNOWN


async def test_what_a_newer_version_wrote_goes_along_at_a_rotation(bench: Bench) -> None:
    await keep_by_newer(bench, count=1)
    state = await bench.load()

    await bench.repository.rotate(state, renewed(state))

    assert await unknown_of(bench, "new") == UNKNOWN


async def test_a_session_that_begins_anew_has_nothing_of_what_a_newer_version_wrote(
    bench: Bench,
) -> None:
    await keep_by_newer(bench, count=1)
    state = await bench.load()
    state.move_to("new")
    state.clear(bench.clock())
    state.intent = Intent.REGENERATE

    await bench.repository.create(state)

    assert await unknown_of(bench, "new") == {}


async def test_a_rollback_brings_back_what_a_newer_version_wrote(bench: Bench) -> None:
    await keep_by_newer(bench, count=1)
    state = await bench.load()
    state.move_to("new")
    state.clear(bench.clock())

    state.rollback()

    assert state.unknown == UNKNOWN


@pytest.mark.parametrize("move", ["renew", "rotate"])
async def test_what_is_left_under_an_old_id_has_the_mark_of_that_id(
    bench: Bench, move: str
) -> None:
    await bench.keep(count=1)
    state = await bench.load()

    await getattr(bench.repository, move)(state, renewed(state))
    # A client comes with the new id, and the time of grace of the old one begins.
    await bench.load("new")

    left, live = await bench.memory.load("id"), await bench.memory.load("new")
    assert left is not None
    assert live is not None
    assert left.payload.startswith(start_of("id"))
    assert live.payload.startswith(start_of("new"))


async def test_what_stands_there_while_a_session_ends_has_the_mark_of_its_id(bench: Bench) -> None:
    state = await bench.keep(count=1)
    seen: list[bytes] = []

    class Watched(FaultyStorage):
        async def replace(
            self, session_id: str, payload: bytes, ttl: float, *, expected: Version
        ) -> Version:
            seen.append(payload)
            return await super().replace(session_id, payload, ttl, expected=expected)

    await bench.another(storage=Watched(bench.memory)).delete(state)

    assert [payload.startswith(start_of("id")) for payload in seen] == [True]


async def test_a_record_that_was_copied_gets_the_right_mark_with_the_next_write(
    bench: Bench,
) -> None:
    await bench.keep(count=1)
    original = await bench.memory.load("id")
    assert original is not None
    await bench.memory.create("copy", original.payload, IDLE)
    state = await bench.load("copy")
    change(state, count=2)

    await bench.repository.replace(state)

    written = await bench.memory.load("copy")
    assert written is not None
    assert written.payload.startswith(start_of("copy"))
    assert await bench.kept("copy") == {"count": 2}


# How large a record may be.


async def test_a_record_above_the_limit_is_refused_and_the_one_before_stays(bench: Bench) -> None:
    await bench.keep(count=1)
    repository = bench.another(max_size=1000)
    state = await repository.load("id", COOKIE)
    assert isinstance(state, SessionState)
    change(state, text="x" * 1000)

    with pytest.raises(RecordTooLarge, match="more than max_record_size=1000") as caught:
        await repository.replace(state)

    assert caught.value.keys == (("text", 1009), ("count", 9))
    assert await bench.kept() == {"count": 1}


async def test_a_session_above_the_limit_does_not_begin(bench: Bench) -> None:
    repository = bench.another(max_size=1000)
    state = repository.fresh("id", COOKIE)
    change(state, text="x" * 1000)

    with pytest.raises(RecordTooLarge):
        await repository.create(state)

    assert await bench.memory.load("id") is None


async def test_a_record_may_be_as_large_as_the_limit(bench: Bench) -> None:
    await bench.keep(text="x" * 1000)
    stored = await bench.memory.load("id")
    assert stored is not None
    repository = bench.another(max_size=len(stored.payload))
    state = repository.fresh("other", COOKIE)
    change(state, text="x" * 1000)

    await repository.create(state)

    assert await bench.kept("other") == {"text": "x" * 1000}


async def test_a_record_may_not_be_a_byte_larger_than_the_limit(bench: Bench) -> None:
    await bench.keep(text="x" * 1000)
    stored = await bench.memory.load("id")
    assert stored is not None
    repository = bench.another(max_size=len(stored.payload) - 1)
    state = repository.fresh("other", COOKIE)
    change(state, text="x" * 1000)

    with pytest.raises(RecordTooLarge):
        await repository.create(state)


@pytest.mark.parametrize("size", [1500, 2000])
async def test_a_record_that_is_larger_already_may_be_read_and_may_shrink(
    bench: Bench, size: int
) -> None:
    await bench.keep(text="x" * 2000)
    repository = bench.another(max_size=1000)
    state = await repository.load("id", COOKIE)
    assert isinstance(state, SessionState)
    change(state, text="y" * size)

    await repository.replace(state)

    assert await bench.kept() == {"text": "y" * size}


async def test_a_record_that_is_larger_already_may_not_grow(bench: Bench) -> None:
    await bench.keep(text="x" * 2000)
    repository = bench.another(max_size=1000)
    state = await repository.load("id", COOKIE)
    assert isinstance(state, SessionState)
    change(state, text="y" * 2001)

    with pytest.raises(RecordTooLarge):
        await repository.replace(state)


async def test_a_record_that_is_larger_already_may_take_a_new_id(bench: Bench) -> None:
    await bench.keep(text="x" * 2000)
    repository = bench.another(max_size=1000)
    state = await repository.load("id", COOKIE)
    assert isinstance(state, SessionState)

    await repository.renew(state, renewed(state))

    assert await bench.kept("new") == {"text": "x" * 2000}


async def test_nothing_is_left_of_a_new_id_where_a_merge_makes_the_record_too_large(
    bench: Bench,
) -> None:
    await bench.keep(count=1)
    repository = bench.another(max_size=1000)
    state = await repository.load("id", COOKIE)
    assert isinstance(state, SessionState)
    change(state, mine="x" * 500)
    theirs = await bench.load()
    change(theirs, theirs="x" * 500)
    await bench.repository.replace(theirs)

    with pytest.raises(RecordTooLarge):
        await repository.renew(state, renewed(state))

    assert await bench.memory.load("new") is None
    assert await bench.kept() == {"count": 1, "theirs": "x" * 500}
