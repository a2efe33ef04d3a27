"""The guard of a storage: time limit and retries, where it lacks them, and what is left alone."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from aiosess import (
    Conflict,
    IdTaken,
    MemoryStorage,
    OptionsError,
    StorageError,
    StorageUnavailable,
    Stored,
)
from aiosess.guard.retries import RetryingStorage, RetryPolicy, no_wait
from aiosess.testing import FaultyStorage
from tests.guards import guarded


class Pauses:
    """A sleep that takes no time and notes for how long it was asked."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)


@pytest.fixture
def faulty() -> FaultyStorage:
    return FaultyStorage()


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


VERBS: list[tuple[str, Callable[[RetryingStorage], Awaitable[Any]]]] = [
    ("create", lambda storage: storage.create("new", b"payload", 60)),
    ("load", lambda storage: storage.load("id")),
    ("replace", lambda storage: storage.replace("id", b"newer", 60, expected=1)),
    ("touch", lambda storage: storage.touch("id", 60)),
    ("delete", lambda storage: storage.delete("id")),
]
each_verb = pytest.mark.parametrize(("verb", "call"), VERBS, ids=[verb for verb, _ in VERBS])


@each_verb
async def test_a_call_that_is_answered_is_made_once(
    faulty: FaultyStorage,
    pauses: Pauses,
    verb: str,
    call: Callable[[RetryingStorage], Awaitable[Any]],
) -> None:
    await faulty.storage.create("id", b"payload", 60)
    retrying = RetryingStorage(faulty, RetryPolicy(retries=3), sleep=pauses)

    answer = await call(retrying)

    assert faulty.calls == [verb]
    assert pauses.taken == []
    assert answer


@each_verb
async def test_a_call_that_is_not_answered_is_made_again(
    faulty: FaultyStorage,
    pauses: Pauses,
    verb: str,
    call: Callable[[RetryingStorage], Awaitable[Any]],
) -> None:
    await faulty.storage.create("id", b"payload", 60)
    faulty.fail(times=2)
    retrying = RetryingStorage(faulty, RetryPolicy(retries=2), sleep=pauses)

    answer = await call(retrying)

    assert faulty.calls == [verb] * 3
    assert answer


async def test_a_call_is_made_once_and_retries_times_more(
    faulty: FaultyStorage, pauses: Pauses
) -> None:
    faulty.fail()
    retrying = RetryingStorage(faulty, RetryPolicy(retries=3), sleep=pauses)

    with pytest.raises(StorageUnavailable, match="told to fail"):
        await retrying.load("id")

    assert faulty.calls == ["load"] * 4


async def test_without_retries_a_call_is_made_once(faulty: FaultyStorage, pauses: Pauses) -> None:
    faulty.fail()
    retrying = RetryingStorage(faulty, RetryPolicy(), sleep=pauses)

    with pytest.raises(StorageUnavailable):
        await retrying.load("id")

    assert faulty.calls == ["load"]
    assert pauses.taken == []


async def test_the_strategy_is_asked_with_1_to_n_and_never_before_the_first_try(
    faulty: FaultyStorage, pauses: Pauses
) -> None:
    asked: list[tuple[int, int]] = []

    def wait(retry: int) -> float:
        asked.append((retry, len(faulty.calls)))
        return retry / 2

    faulty.fail()
    retrying = RetryingStorage(faulty, RetryPolicy(retries=3, wait=wait), sleep=pauses)

    with pytest.raises(StorageUnavailable):
        await retrying.load("id")

    assert asked == [(1, 1), (2, 2), (3, 3)]
    assert pauses.taken == [0.5, 1.0, 1.5]


async def test_the_strategy_is_not_asked_when_the_first_try_is_answered(
    faulty: FaultyStorage, pauses: Pauses
) -> None:
    policy = RetryPolicy(retries=3, wait=lambda retry: pytest.fail(f"asked with {retry}"))

    await RetryingStorage(faulty, policy, sleep=pauses).load("id")

    assert faulty.calls == ["load"]


async def test_the_strategy_starts_at_1_again_for_the_next_call(
    faulty: FaultyStorage, pauses: Pauses
) -> None:
    retrying = RetryingStorage(faulty, RetryPolicy(retries=2, wait=float), sleep=pauses)
    faulty.fail(times=1)
    await retrying.load("id")
    faulty.fail(times=1)

    await retrying.load("id")

    assert pauses.taken == [1.0, 1.0]


async def test_the_strategy_may_return_a_timedelta(faulty: FaultyStorage, pauses: Pauses) -> None:
    faulty.fail(times=1)
    policy = RetryPolicy(retries=1, wait=lambda _: timedelta(milliseconds=250))

    await RetryingStorage(faulty, policy, sleep=pauses).load("id")

    assert pauses.taken == [0.25]


@pytest.mark.parametrize("wait", [-1, None, "1"])
async def test_a_wait_that_makes_no_sense_is_refused_with_its_retry(
    faulty: FaultyStorage, pauses: Pauses, wait: Any
) -> None:
    faulty.fail()
    policy = RetryPolicy(retries=1, wait=lambda _: wait)

    with pytest.raises(OptionsError, match=r"^retries_strategy\(1\)="):
        await RetryingStorage(faulty, policy, sleep=pauses).load("id")


def test_no_wait_is_none() -> None:
    assert no_wait(5) == 0


@pytest.mark.parametrize(
    "error",
    [
        StorageError("a wrong password"),
        IdTaken(),
        Conflict(None),
        Conflict(Stored(b"newer", 2)),
        ValueError("a bug"),
    ],
    ids=repr,
)
async def test_an_answer_that_is_an_error_is_not_asked_for_again(
    faulty: FaultyStorage, pauses: Pauses, error: Exception
) -> None:
    faulty.fail(error)
    retrying = RetryingStorage(faulty, RetryPolicy(retries=3), sleep=pauses)

    with pytest.raises(type(error)) as caught:
        await retrying.create("id", b"payload", 60)

    assert caught.value is error
    assert faulty.calls == ["create"]


# Timeouts


def cancellations() -> int:
    """How many cancellations of this task are still to be dealt with."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


async def test_a_call_without_an_answer_in_time_counts_as_unavailable(
    faulty: FaultyStorage,
) -> None:
    faulty.hang()
    retrying = RetryingStorage(faulty, RetryPolicy(timeout=0.01))

    with pytest.raises(StorageUnavailable, match=r"^the storage did not answer within 0\.01 s$"):
        await retrying.load("id")


async def test_each_try_has_the_whole_timeout(faulty: FaultyStorage, pauses: Pauses) -> None:
    faulty.hang()
    policy = RetryPolicy(retries=2, timeout=0.01, budget=60)
    retrying = RetryingStorage(faulty, policy, sleep=pauses)

    with pytest.raises(StorageUnavailable):
        await retrying.load("id")

    assert faulty.calls == ["load"] * 3


async def test_the_timeout_of_one_call_does_not_end_another(faulty: FaultyStorage) -> None:
    late = RetryingStorage(faulty, RetryPolicy(timeout=0.01))
    faulty.hang()
    with pytest.raises(StorageUnavailable):
        await late.load("id")
    faulty.recover()

    await asyncio.sleep(0.02)

    assert await late.load("id") is None


async def test_an_answer_that_came_while_the_event_loop_was_busy_is_no_timeout() -> None:
    class Answering(FaultyStorage):
        async def load(self, session_id: str) -> Stored | None:  # noqa: ARG002 - whatever the id
            await answered
            return Stored(b"cart", 1)

    loop = asyncio.get_running_loop()
    answered: asyncio.Future[None] = loop.create_future()
    asked = asyncio.create_task(RetryingStorage(Answering(), RetryPolicy(timeout=0.05)).load("id"))
    await asyncio.sleep(0)
    time.sleep(0.3)  # noqa: ASYNC251 - it is the busy loop that is tried here
    # As an answer that lies in the socket by now, and is read a little later.
    loop.call_later(0.1, answered.set_result, None)

    assert await asked == (b"cart", 1)


async def test_a_task_that_met_a_timeout_is_not_left_cancelled(faulty: FaultyStorage) -> None:
    faulty.hang()
    retrying = RetryingStorage(faulty, RetryPolicy(timeout=0.01))

    with pytest.raises(StorageUnavailable):
        await retrying.load("id")

    assert cancellations() == 0


class Stubborn(FaultyStorage):
    """Answers a cancellation with an error, or with an answer that came just then."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__()
        self._own_error = error

    async def load(self, session_id: str) -> Stored | None:
        self.hang()
        try:
            return await super().load(session_id)
        except asyncio.CancelledError:
            if self._own_error is not None:
                raise self._own_error from None
        return Stored(b"just then", 1)


async def test_an_answer_that_comes_just_then_is_an_answer() -> None:
    retrying = RetryingStorage(Stubborn(None), RetryPolicy(timeout=0.01))

    assert await retrying.load("id") == Stored(b"just then", 1)

    assert cancellations() == 0


@pytest.mark.parametrize("error", [StorageUnavailable("cut"), StorageError("odd")], ids=repr)
async def test_an_error_that_comes_just_then_leaves_no_cancellation_behind(
    error: Exception,
) -> None:
    retrying = RetryingStorage(Stubborn(error), RetryPolicy(timeout=0.01))

    with pytest.raises(StorageError) as caught:
        await retrying.load("id")

    assert caught.value is error
    assert cancellations() == 0


async def test_calls_beside_each_other_each_end_in_time(faulty: FaultyStorage) -> None:
    faulty.hang()
    retrying = RetryingStorage(faulty, RetryPolicy(timeout=0.01))

    ends = await asyncio.gather(*(retrying.load("id") for _ in range(20)), return_exceptions=True)

    assert {type(end) for end in ends} == {StorageUnavailable}


async def test_a_call_has_its_own_time_though_another_began_before(faulty: FaultyStorage) -> None:
    retrying = RetryingStorage(faulty, RetryPolicy(timeout=0.05))
    await retrying.load("id")
    await asyncio.sleep(0.03)
    faulty.hang()
    began_at = asyncio.get_running_loop().time()

    with pytest.raises(StorageUnavailable):
        await retrying.load("id")

    assert asyncio.get_running_loop().time() - began_at >= 0.049


def test_a_storage_can_serve_one_event_loop_after_another(faulty: FaultyStorage) -> None:
    retrying = RetryingStorage(faulty, RetryPolicy(timeout=0.01))
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(retrying.load("id"))
        second.run(retrying.load("id"))
        first.run(asyncio.sleep(0.02))
        faulty.hang()

        with pytest.raises(StorageUnavailable, match=r"did not answer within 0\.01 s"):
            second.run(retrying.load("id"))


def test_a_call_in_another_event_loop_does_not_take_the_time_limit_off_one(
    faulty: FaultyStorage,
) -> None:
    retrying = RetryingStorage(faulty, RetryPolicy(timeout=0.05))
    with asyncio.Runner() as first, asyncio.Runner() as second:

        async def begin() -> asyncio.Task[Stored | None]:
            task = asyncio.create_task(retrying.load("id"))
            await asyncio.sleep(0)
            return task

        faulty.hang()
        hanging = first.run(begin())
        faulty.recover()
        second.run(retrying.load("id"))

        with pytest.raises(StorageUnavailable, match=r"did not answer within 0\.05 s"):
            first.run(asyncio.wait_for(hanging, 10))


def test_an_event_loop_that_was_closed_is_forgotten(faulty: FaultyStorage) -> None:
    retrying = RetryingStorage(faulty, RetryPolicy(timeout=60))
    loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()

    async def load() -> None:
        loops.add(asyncio.get_running_loop())
        await retrying.load("id")

    for _ in range(3):
        asyncio.run(load())
    gc.collect()

    assert len(loops) == 1


# Cancellation, and others


async def test_a_cancelled_call_is_not_made_again(faulty: FaultyStorage, pauses: Pauses) -> None:
    faulty.hang()
    retrying = RetryingStorage(faulty, RetryPolicy(retries=3, timeout=60), sleep=pauses)
    task = asyncio.create_task(retrying.load("id"))
    await asyncio.sleep(0)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert faulty.calls == ["load"]


async def test_a_request_that_is_cancelled_while_it_waits_is_not_tried_again(
    faulty: FaultyStorage,
) -> None:
    faulty.fail()
    retrying = RetryingStorage(faulty, RetryPolicy(retries=3, wait=lambda _: 60))
    task = asyncio.create_task(retrying.load("id"))
    await asyncio.sleep(0)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert faulty.calls == ["load"]


async def test_the_callers_own_time_limit_stays_its_own(faulty: FaultyStorage) -> None:
    faulty.hang()
    retrying = RetryingStorage(faulty, RetryPolicy(retries=3, timeout=60))

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await retrying.load("id")

    assert faulty.calls == ["load"]


async def test_the_wait_of_one_request_does_not_hold_up_another(faulty: FaultyStorage) -> None:
    waiting, may_go_on = asyncio.Event(), asyncio.Event()

    async def wait(_seconds: float) -> None:
        waiting.set()
        await may_go_on.wait()

    faulty.fail(times=1)
    retrying = RetryingStorage(faulty, RetryPolicy(retries=1), sleep=wait)
    first = asyncio.create_task(retrying.load("id"))
    await waiting.wait()

    second = await retrying.create("id", b"payload", 60)

    assert not first.done()
    may_go_on.set()
    assert await first == Stored(b"payload", second)


# The policy


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"retries": -1}, "retries=-1 must be from 0 to 1000"),
        ({"retries": 1.0}, "retries=1.0 must be a whole number or None"),
        ({"retries": True}, "retries=True must be a whole number or None"),
        ({"wait": 5}, "retries_strategy=5 is not callable"),
        ({"timeout": 0}, "timeout=0 must be more than zero seconds"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError) as caught:
        RetryPolicy(**given)

    assert str(caught.value).startswith(message)


# Who watches the time


class Punctual(FaultyStorage):
    """A storage that keeps to a time limit itself, where *can*."""

    def __init__(self, *, can: bool = True) -> None:
        super().__init__()
        self.timeout: float | None = None
        self._can = can

    def within(self, timeout: float) -> FaultyStorage | None:
        self.timeout = timeout
        return self if self._can else None


def test_a_storage_that_keeps_to_the_time_limit_itself_can_be_asked_past_the_guard() -> None:
    storage = Punctual()

    held = guarded(storage, RetryPolicy(timeout=0.5))

    assert isinstance(held, RetryingStorage)
    assert held.straight is storage
    assert storage.timeout == 0.5


@pytest.mark.parametrize(
    ("storage", "policy"),
    [
        (Punctual(), RetryPolicy(retries=1)),
        (Punctual(), RetryPolicy(budget=2)),
        (Punctual(can=False), RetryPolicy()),
        (FaultyStorage(), RetryPolicy()),
    ],
)
def test_what_needs_retries_or_a_time_limit_is_not_asked_past_the_guard(
    storage: FaultyStorage, policy: RetryPolicy
) -> None:
    held = guarded(storage, policy)

    assert isinstance(held, RetryingStorage)
    assert held.straight is None


class Measured:
    """A storage that counts the calls of another, and passes on whatever else that one has."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self.loads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    async def load(self, session_id: str) -> Stored | None:
        self.loads += 1
        loaded: Stored | None = await self._storage.load(session_id)
        return loaded


@pytest.mark.parametrize("inner", [MemoryStorage, Punctual])
async def test_a_storage_around_another_is_not_passed_by(inner: Callable[[], Any]) -> None:
    outer: Any = Measured(inner())

    held = guarded(outer, RetryPolicy())
    await held.load("apple")

    assert outer.loads == 1


class Touching(MemoryStorage):
    """A storage that can read and touch in one call."""

    async def load_and_touch(self, session_id: str, ttl: float) -> tuple[Stored, bool] | None:
        stored = await self.load(session_id)
        return None if stored is None else (stored, await self.touch(session_id, ttl))


def test_a_storage_around_another_is_not_passed_by_where_that_one_touches() -> None:
    around: Any = Measured(Touching())

    assert hasattr(guarded(Touching(), RetryPolicy()), "load_and_touch")
    assert not hasattr(guarded(around, RetryPolicy()), "load_and_touch")


def test_memory_needs_nothing_around_it() -> None:
    storage = MemoryStorage()

    assert guarded(storage, RetryPolicy(retries=3)) is storage


class SlowMemory(MemoryStorage):
    """Memory that never answers a load, and says nothing of it."""

    async def load(self, session_id: str) -> Stored | None:
        await asyncio.Event().wait()
        return await super().load(session_id)


async def test_the_time_is_watched_for_a_kind_of_memory_that_may_wait() -> None:
    held = guarded(SlowMemory(), RetryPolicy(timeout=0.02))

    with pytest.raises(StorageUnavailable, match=r"did not answer within 0\.02 s"):
        await held.load("id")


def test_a_kind_of_memory_can_say_that_it_always_answers() -> None:
    class CountingMemory(MemoryStorage):
        is_instant = True

    storage = CountingMemory()

    assert guarded(storage, RetryPolicy(retries=3)) is storage


async def test_memory_that_could_fail_is_asked_again() -> None:
    storage = FaultyStorage(MemoryStorage())
    storage.fail(times=1)

    await guarded(storage, RetryPolicy(retries=1)).load("id")

    assert storage.calls == ["load", "load"]


async def test_a_storage_that_keeps_to_the_time_limit_is_still_asked_again() -> None:
    storage = Punctual()
    storage.fail(times=1)

    await guarded(storage, RetryPolicy(retries=1)).load("id")

    assert storage.calls == ["load", "load"]


@pytest.mark.parametrize(
    "storage", [FaultyStorage(), Punctual(can=False)], ids=["never", "not now"]
)
async def test_the_time_is_watched_for_a_storage_that_cannot(storage: FaultyStorage) -> None:
    storage.hang()

    with pytest.raises(StorageUnavailable, match=r"did not answer within 0\.02 s"):
        await guarded(storage, RetryPolicy(timeout=0.02)).load("id")
