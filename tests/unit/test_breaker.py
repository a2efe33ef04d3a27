"""The breaker: when a node is given up, who asks it again, and what is told of an outage."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

import pytest

from aiosess import (
    BreakerOptions,
    Conflict,
    OptionsError,
    Reason,
    SessionEvent,
    StorageError,
    StorageUnavailable,
)
from aiosess.events import Events
from aiosess.guard.breaker import Breaker
from aiosess.guard.budget import Budget
from aiosess.guard.retries import RetryingStorage, RetryPolicy
from aiosess.testing import FakeClock, FaultyStorage


class Bench:
    """A storage that can fail, behind a breaker whose time is moved by hand."""

    def __init__(
        self,
        *,
        breaker: BreakerOptions | None,
        retries: int = 0,
        storage: FaultyStorage | None = None,
    ) -> None:
        self.heard: list[SessionEvent] = []
        self.clock = FakeClock()
        self.faulty = storage or FaultyStorage()
        self.changes: list[bool] = []
        self.breaker = Breaker(
            breaker, Events(self.heard.append), clock=self.clock, steady=self.clock
        )
        self.breaker.on_change = self.changes.append
        self.storage = RetryingStorage(
            self.faulty, RetryPolicy(retries=retries), breaker=self.breaker
        )

    async def ask(self, times: int = 1, verb: str = "load") -> list[str]:
        """Call so often; return what came of each call."""
        return [await self.outcome(verb) for _ in range(times)]

    async def outcome(self, verb: str) -> str:
        try:
            match verb:
                case "load":
                    await self.storage.load("id")
                case "create":
                    await self.storage.create(f"id-{len(self.faulty.calls)}", b"{}", 60)
                case "replace":
                    await self.storage.replace("id", b"{}", 60, expected=1)
                case "touch":
                    await self.storage.touch("id", 60)
                case _:
                    await self.storage.delete("id")
        except StorageUnavailable as error:
            return "refused" if "is not asked now" in str(error) else "failed"
        except StorageError:
            return "error"
        return "answered"

    def reasons(self) -> list[Reason]:
        return [event.reason for event in self.heard]

    async def open(self) -> None:
        """Fail until nothing is asked any more."""
        self.faulty.fail()
        await self.ask(5)
        self.faulty.calls.clear()


@pytest.fixture
def bench() -> Bench:
    return Bench(breaker=BreakerOptions(failures=5, pause=0.5, longest_pause=5))


async def test_after_so_many_failures_in_a_row_nothing_is_asked_any_more(bench: Bench) -> None:
    bench.faulty.fail()

    assert await bench.ask(7) == ["failed"] * 5 + ["refused"] * 2
    assert bench.faulty.calls == ["load"] * 5


async def test_an_answer_in_between_begins_the_count_anew(bench: Bench) -> None:
    for _ in range(3):
        bench.faulty.fail(times=4)
        outcomes = await bench.ask(5)

        assert outcomes == ["failed"] * 4 + ["answered"]


async def test_a_call_counts_once_after_its_last_retry() -> None:
    bench = Bench(breaker=BreakerOptions(failures=2), retries=3)
    bench.faulty.fail()

    assert await bench.ask(3) == ["failed", "failed", "refused"]
    assert bench.faulty.calls == ["load"] * 8


async def test_what_the_retries_bridge_is_no_failure() -> None:
    bench = Bench(breaker=BreakerOptions(failures=1), retries=3)
    bench.faulty.fail(times=3)

    assert await bench.ask() == ["answered"]
    assert bench.heard == []


async def test_an_answer_that_is_an_error_is_an_answer(bench: Bench) -> None:
    bench.faulty.fail(StorageError("odd"))

    assert await bench.ask(7) == ["error"] * 7
    assert bench.heard == []


async def test_a_conflict_is_an_answer(bench: Bench) -> None:
    bench.faulty.fail(times=4)
    await bench.ask(4)
    bench.faulty.fail(Conflict(None), verbs=("replace",))
    await bench.ask(verb="replace")
    bench.faulty.fail(times=4)

    assert await bench.ask(5) == ["failed"] * 4 + ["answered"]


async def test_a_node_that_does_not_answer_is_asked_for_nothing_else_either(bench: Bench) -> None:
    await bench.open()

    outcomes = [await bench.outcome(verb) for verb in ("create", "replace", "touch", "delete")]

    assert outcomes == ["refused"] * 4


@pytest.mark.parametrize("verb", ["create", "replace", "touch", "delete"])
async def test_a_node_that_refuses_one_verb_is_asked_for_the_others(
    bench: Bench, verb: str
) -> None:
    bench.faulty.fail(StorageUnavailable("full", is_answer=True), verbs=(verb,))
    others = {"load", "create", "replace", "touch", "delete"} - {verb}
    await bench.ask(5, verb)

    assert await bench.ask(1, verb) == ["refused"]
    assert "refused" not in [await bench.outcome(other) for other in others]


class Wrapped(FaultyStorage):
    """Has verbs that go by no name of their own, as behind a decorator."""

    def __init__(self) -> None:
        super().__init__()
        self.load = partial(super().load)  # type: ignore[method-assign]
        self.create = partial(super().create)  # type: ignore[method-assign]


async def test_verbs_without_a_name_are_told_apart() -> None:
    storage, breaker = Wrapped(), Breaker(BreakerOptions(failures=1), Events())
    guarded = RetryingStorage(storage, RetryPolicy(), breaker=breaker)
    storage.fail(StorageUnavailable("full", is_answer=True), verbs=("create",))
    with pytest.raises(StorageUnavailable):
        await guarded.create("id", b"{}", 60)

    assert await guarded.load("id") is None


# Getting well again


async def test_while_it_is_open_one_call_after_the_pause_goes_through(bench: Bench) -> None:
    await bench.open()
    bench.clock.advance(0.7)

    assert await bench.ask(3) == ["failed", "refused", "refused"]
    assert bench.faulty.calls == ["load"]


async def test_a_probe_is_not_tried_again() -> None:
    bench = Bench(breaker=BreakerOptions(failures=1), retries=3)
    bench.faulty.fail()
    await bench.ask()
    bench.clock.advance(0.7)
    bench.faulty.calls.clear()

    assert await bench.ask() == ["failed"]
    assert bench.faulty.calls == ["load"]


async def test_while_a_probe_is_under_way_no_other_call_goes_through(bench: Bench) -> None:
    await bench.open()
    bench.clock.advance(0.7)
    bench.faulty.hang()
    probe = asyncio.create_task(bench.outcome("load"))
    await asyncio.sleep(0)

    assert await bench.ask(2) == ["refused", "refused"]
    probe.cancel()


async def test_a_probe_that_was_given_up_makes_way_for_the_next(bench: Bench) -> None:
    await bench.open()
    bench.clock.advance(0.7)
    bench.faulty.hang()
    probe = asyncio.create_task(bench.outcome("load"))
    await asyncio.sleep(0)
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    bench.faulty.recover()

    assert await bench.ask(2) == ["answered", "answered"]


async def test_after_a_probe_that_was_answered_all_is_well(bench: Bench) -> None:
    await bench.open()
    bench.faulty.recover()
    bench.clock.advance(0.7)

    assert await bench.ask(3) == ["answered"] * 3
    assert bench.changes == [False, True]


async def test_the_pause_is_doubled_up_to_the_longest(bench: Bench) -> None:
    await bench.open()
    pauses: list[float] = []
    for _ in range(6):
        [health] = bench.breaker.health()
        pauses.append(health.retry_after)
        bench.clock.advance(health.retry_after + 0.001)
        await bench.ask()

    expected = [0.5, 1, 2, 4, 5, 5]
    assert all(
        0.8 * each <= pause <= 1.2 * each for pause, each in zip(pauses, expected, strict=True)
    )


async def test_pauses_differ_so_that_processes_do_not_ask_in_step() -> None:
    pauses: set[float] = set()
    for _ in range(5):
        bench = Bench(breaker=BreakerOptions())
        await bench.open()
        pauses.add(bench.breaker.health()[0].retry_after)

    assert len(pauses) > 1


async def test_a_call_that_began_before_and_fails_late_does_not_prolong_the_pause(
    bench: Bench,
) -> None:
    node = bench.breaker.node("FaultyStorage")
    await bench.open()
    before = bench.breaker.health()[0].retry_after

    node.failed("load", StorageUnavailable("late"))

    assert bench.breaker.health()[0].retry_after == before


async def test_without_a_breaker_each_call_is_made(bench: Bench) -> None:
    bench = Bench(breaker=None)
    bench.faulty.fail()

    assert await bench.ask(20) == ["failed"] * 20


async def test_what_was_under_way_is_not_tried_again_once_the_node_is_known_to_be_away() -> None:
    bench = Bench(breaker=BreakerOptions(failures=1), retries=9)
    bench.faulty.fail()
    node = bench.breaker.node("FaultyStorage")
    asked = asyncio.create_task(bench.outcome("load"))
    await asyncio.sleep(0)
    node.failed("load", StorageUnavailable("another call"))
    await asked

    assert len(bench.faulty.calls) < 9


# What is told


async def test_an_outage_is_told_once_when_it_begins_and_once_when_it_ends(bench: Bench) -> None:
    bench.faulty.fail()
    await bench.ask(50)
    bench.faulty.recover()
    bench.clock.advance(0.7)
    await bench.ask(5)

    assert bench.reasons() == [Reason.OUTAGE_BEGAN, Reason.OUTAGE_ENDED]


async def test_the_lines_name_the_node_the_reason_how_long_and_how_many(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bench.faulty.fail()
    await bench.ask(50)
    bench.faulty.recover()
    bench.clock.advance(0.7)
    await bench.ask()

    lines = [(record.levelname, record.message) for record in caplog.records]
    assert lines == [
        ("ERROR", "the storage at FaultyStorage does not answer: told to fail"),
        ("INFO", "the storage at FaultyStorage answers again after 0.7 s: 50 calls failed"),
    ]


async def test_an_outage_that_goes_on_is_told_every_thirty_seconds(bench: Bench) -> None:
    bench.faulty.fail()
    for _ in range(120):
        await bench.ask(10)
        bench.clock.advance(1)

    assert bench.reasons() == [Reason.OUTAGE_BEGAN, *[Reason.OUTAGE_GOES_ON] * 3]


async def test_failures_that_come_and_go_are_one_outage(bench: Bench) -> None:
    for _ in range(100):
        bench.faulty.fail(times=1)
        await bench.ask(3)
        bench.clock.advance(0.1)

    assert bench.reasons() == [Reason.OUTAGE_BEGAN]


async def test_an_error_says_which_node_failed_at_what_and_when_to_come_again(
    bench: Bench,
) -> None:
    await bench.open()

    with pytest.raises(StorageUnavailable) as caught:
        await bench.storage.create("id", b"{}", 60)

    error = caught.value
    assert (error.node, error.operation) == ("FaultyStorage", "create")
    assert 0.4 <= error.retry_after <= 0.6


async def test_an_act_without_time_left_is_told_and_is_no_failure_of_the_node(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def act() -> str:
        return await bench.outcome("load")

    outcomes = [await Budget(1e-9).spend(act) for _ in range(9)]

    assert outcomes == ["failed"] * 9
    assert bench.faulty.calls == []
    assert [health.is_well for health in bench.breaker.health()] == [True]
    [record] = caplog.records
    assert record.message.startswith(
        "the budget of an act was spent before the storage at FaultyStorage was done: 1 in all"
    )


# Health


async def test_health_tells_since_when_a_node_is_away_and_why(bench: Bench) -> None:
    await bench.ask()
    bench.clock.advance(10)
    began_at = bench.clock()
    await bench.open()

    [health] = bench.breaker.health()

    assert (health.node, health.operation, health.is_well) == ("FaultyStorage", None, False)
    assert (health.since, health.reason) == (began_at, "told to fail")


async def test_health_of_a_node_that_is_well_says_since_when(bench: Bench) -> None:
    began_at = bench.clock()
    await bench.ask()
    bench.clock.advance(10)

    [health] = bench.breaker.health()

    assert (health.is_well, health.since, health.reason) == (True, began_at, None)


async def test_a_probe_without_traffic_finds_that_a_node_is_well_again(bench: Bench) -> None:
    await bench.open()
    bench.faulty.recover()
    await bench.storage.probe()
    is_well_too_early = bench.breaker.health()[0].is_well
    bench.clock.advance(0.7)

    await bench.storage.probe()

    assert not is_well_too_early
    assert bench.breaker.health()[0].is_well


@pytest.mark.parametrize("verb", ["create", "replace", "touch", "delete"])
async def test_a_probe_tries_what_was_refused(bench: Bench, verb: str) -> None:
    bench.faulty.fail(StorageUnavailable("full", is_answer=True), verbs=(verb,))
    await bench.ask(5, verb)
    bench.clock.advance(0.7)
    await bench.storage.probe()
    is_well_too_early = bench.breaker.health()[0].is_well
    bench.faulty.recover()
    bench.clock.advance(1.3)

    await bench.storage.probe()

    assert not is_well_too_early
    assert bench.breaker.health()[0].is_well


# Nodes


class TwoNodes(FaultyStorage):
    """Keeps what ends with an early letter on another server than the rest."""

    def node_of(self, session_id: str) -> str:
        return "a:1" if session_id[-1].lower() < "n" else "b:2"


async def away(session_id: str) -> Bench:
    """Return two nodes, of which the one that keeps *session_id* is away."""
    bench = Bench(breaker=BreakerOptions(failures=1), storage=TwoNodes())
    bench.faulty.fail(times=1)
    with pytest.raises(StorageUnavailable):
        await bench.storage.load(session_id)
    return bench


async def test_of_two_nodes_the_one_that_answers_is_asked() -> None:
    bench = await away("apple")

    assert await bench.storage.load("berry") is None
    with pytest.raises(StorageUnavailable, match="the storage at a:1 does not answer"):
        await bench.storage.load("apple")


async def test_a_probe_asks_for_a_record_of_the_node_that_is_away() -> None:
    bench = await away("berry")
    bench.clock.advance(0.7)

    await bench.storage.probe()

    assert [node.is_well for node in bench.breaker.health()] == [True]


class Moving(FaultyStorage):
    """Keeps everything on one server, until a failover puts another in its place."""

    node = "a:1"

    def node_of(self, _session_id: str) -> str:
        return self.node


async def failed_over() -> Bench:
    """Return a storage whose first server was away when another took its place."""
    storage = Moving()
    bench = Bench(breaker=BreakerOptions(failures=1), storage=storage)
    storage.fail(times=1)
    with pytest.raises(StorageUnavailable):
        await bench.storage.load("apple")
    storage.node = "b:2"
    await bench.storage.load("apple")
    return bench


async def test_a_probe_forgets_a_node_whose_records_another_has() -> None:
    bench = await failed_over()

    await bench.storage.probe()

    assert [(node.node, node.is_well) for node in bench.breaker.health()] == [("b:2", True)]
    assert bench.reasons() == [Reason.OUTAGE_BEGAN, Reason.NODE_FORGOTTEN]


async def test_a_node_in_trouble_that_nobody_asks_any_more_is_forgotten() -> None:
    bench = await failed_over()
    bench.clock.advance(61)

    await bench.storage.load("apple")

    assert [node.node for node in bench.breaker.health()] == ["b:2"]
    assert bench.changes == [False, True]


async def test_a_node_in_trouble_that_is_asked_is_not_forgotten(bench: Bench) -> None:
    bench.faulty.fail()
    for _ in range(30):
        await bench.ask()
        bench.clock.advance(10)

    assert [health.is_well for health in bench.breaker.health()] == [False]
    assert Reason.NODE_FORGOTTEN not in bench.reasons()


# Options


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"failures": 0}, "breaker failures=0 must be 1 or more"),
        ({"failures": 1.5}, "breaker failures=1.5 must be a whole number"),
        ({"failures": True}, "breaker failures=True must be a whole number"),
        ({"pause": 0}, "breaker pause=0 must be more than zero"),
        ({"pause": "1"}, "breaker pause='1' is not a duration"),
        ({"pause": 6}, "breaker longest_pause=5.0 is shorter than pause=6"),
    ],
)
def test_breaker_options_that_make_no_sense_are_refused(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionsError) as caught:
        BreakerOptions(**given)

    assert str(caught.value).startswith(message)
