"""The budget of an act: what counts, what is not begun any more, and what a busy loop costs."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from aiosess import IdTaken, MemoryStorage, OptionsError, StorageUnavailable
from aiosess.guard.budget import Budget, BudgetSpent, grant_pause, in_time, seconds_left, uncounted
from aiosess.guard.retries import RetryingStorage, RetryPolicy
from aiosess.testing import FaultyStorage


class SlowStorage(FaultyStorage):
    """Answers each call after so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(MemoryStorage())
        self.seconds = seconds

    async def _pass(self, verb: str, call: Any) -> Any:
        await asyncio.sleep(self.seconds)
        return await super()._pass(verb, call)


async def test_the_calls_of_one_act_share_its_budget() -> None:
    storage = SlowStorage(0.2)
    guarded = RetryingStorage(storage, RetryPolicy(timeout=2, budget=0.5))

    async def act() -> None:
        for _ in range(10):
            await guarded.load("id")

    with pytest.raises(StorageUnavailable):
        await Budget(0.5).spend(act)
    assert len(storage.calls) == 2


async def test_two_acts_have_a_budget_each() -> None:
    storage = SlowStorage(0.2)
    guarded = RetryingStorage(storage, RetryPolicy(timeout=2, budget=0.5))

    for _ in range(4):
        await Budget(0.5).spend(guarded.load, "id")

    assert len(storage.calls) == 4


async def test_a_call_outside_of_an_act_has_a_budget_of_its_own() -> None:
    storage = FaultyStorage()
    storage.hang()
    guarded = RetryingStorage(storage, RetryPolicy(retries=100, timeout=0.05, budget=0.2))

    with pytest.raises(StorageUnavailable):
        await guarded.load("id")

    assert 1 < len(storage.calls) <= 5


async def test_by_default_one_call_has_time_for_all_its_retries_and_waits() -> None:
    storage = FaultyStorage()
    storage.hang()
    policy = RetryPolicy(retries=3, wait=lambda retry: 0.01 * retry, timeout=0.05)

    with pytest.raises(StorageUnavailable):
        await RetryingStorage(storage, policy).load("id")

    assert len(storage.calls) == 4


async def test_nothing_is_begun_that_cannot_end_in_time() -> None:
    storage = FaultyStorage()
    storage.fail()
    policy = RetryPolicy(retries=3, wait=lambda _: 0.3, timeout=1, budget=0.2)

    with pytest.raises(StorageUnavailable):
        await RetryingStorage(storage, policy).load("id")

    assert len(storage.calls) == 1


async def test_where_the_budget_is_used_up_the_error_says_so() -> None:
    storage = FaultyStorage()
    guarded = RetryingStorage(storage, RetryPolicy(timeout=1, budget=0.1))

    async def act() -> None:
        await asyncio.sleep(0.15)
        await guarded.load("id")

    with pytest.raises(StorageUnavailable, match="the budget of an act was spent"):
        await Budget(0.1).spend(act)
    assert storage.calls == []


async def test_what_the_application_does_meanwhile_does_not_count() -> None:
    guarded = RetryingStorage(FaultyStorage(), RetryPolicy(timeout=1, budget=0.1))

    async def act() -> None:
        await uncounted(asyncio.sleep(0.15))
        await guarded.load("id")

    await Budget(0.1).spend(act)


async def test_while_the_event_loop_is_busy_no_time_passes() -> None:
    async def act() -> float:
        time.sleep(0.3)  # noqa: ASYNC251 - it is the busy loop that is tried here
        await asyncio.sleep(0)
        return seconds_left()

    assert await Budget(1).spend(act) > 0.8


async def test_time_that_is_waited_passes() -> None:
    async def act() -> float:
        await asyncio.sleep(0.3)
        return seconds_left()

    assert await Budget(1).spend(act) < 0.8


async def test_an_act_can_go_on_with_what_was_spent_before() -> None:
    async def act() -> float:
        return seconds_left()

    assert await Budget(1).spend_rest(0.4, act) <= 0.6


async def test_what_may_have_been_a_busy_loop_leaves_half_of_the_budget() -> None:
    async def act() -> float:
        return seconds_left()

    assert 0.3 < await Budget(1).spend_rest(60, act) <= 0.5


async def test_outside_of_an_act_there_is_no_budget() -> None:
    assert seconds_left() == float("inf")
    assert grant_pause(1000)


async def test_a_task_that_begins_in_an_act_has_ended_with_its_own() -> None:
    async def act() -> None:
        return None

    await Budget(1).spend(act)

    assert seconds_left() == float("inf")


async def test_a_task_that_outlives_the_act_it_began_in_has_a_budget_of_its_own() -> None:
    guarded = RetryingStorage(FaultyStorage(), RetryPolicy())

    async def later() -> object:
        await asyncio.sleep(0.05)
        return await guarded.load("id")

    async def act() -> asyncio.Task[object]:
        return asyncio.create_task(later())

    task = await Budget(0.01).spend(act)

    assert await task is None


async def test_a_call_that_is_in_time_returns_its_answer() -> None:
    assert await in_time(lambda: asyncio.sleep(0, "answer"), 1) == "answer"


async def test_a_call_that_is_late_is_given_up() -> None:
    with pytest.raises(BudgetSpent):
        await in_time(lambda: asyncio.sleep(5), 0.01)


async def test_without_time_nothing_is_begun() -> None:
    began: list[bool] = []

    async def call() -> None:
        began.append(True)

    with pytest.raises(BudgetSpent):
        await in_time(call, 0)
    assert began == []


async def test_a_call_that_is_late_fails_with_what_is_said_of_it() -> None:
    late = StorageUnavailable("too late")

    with pytest.raises(StorageUnavailable, match="too late"):
        await in_time(lambda: asyncio.sleep(5), 0.01, late=late)


async def test_a_timeout_of_the_calls_own_stays_one() -> None:
    async def call() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await in_time(call, 1)


async def test_an_answer_that_came_while_the_loop_was_busy_is_read() -> None:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    async def call() -> str:
        return await answer

    asked = asyncio.create_task(in_time(call, 0.05))
    await asyncio.sleep(0)
    time.sleep(0.2)  # noqa: ASYNC251 - it is the busy loop that is tried here
    loop.call_later(0.05, answer.set_result, "answer")

    assert await asked == "answer"


async def test_an_error_that_is_an_answer_is_not_one_of_time() -> None:
    storage = MemoryStorage()
    await storage.create("id", b"{}", 60)
    guarded = RetryingStorage(storage, RetryPolicy(timeout=1, budget=0.5))

    with pytest.raises(IdTaken):
        await guarded.create("id", b"{}", 60)


@pytest.mark.parametrize("budget", [0, -1, "1", float("nan")])
def test_a_budget_that_makes_no_sense_is_refused(budget: Any) -> None:
    with pytest.raises(OptionsError, match="budget="):
        RetryPolicy(budget=budget)
