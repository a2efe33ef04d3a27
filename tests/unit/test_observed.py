"""What is told of each call of a storage, and that nothing goes past whoever tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import pytest

from aiosess import (
    Conflict,
    IdTaken,
    MemoryStorage,
    Outcome,
    StorageCall,
    StorageError,
    StorageUnavailable,
    Stored,
)
from aiosess.guard.observed import ObservedStorage
from aiosess.guard.retries import RetryingStorage, RetryPolicy
from aiosess.storages import FreshStorage
from aiosess.storages.base import as_touching
from aiosess.testing import FaultyStorage
from tests.guards import guarded

TIME_LIMIT = 0.05


@pytest.fixture
def told() -> list[StorageCall]:
    return []


@pytest.fixture
def faulty() -> FaultyStorage:
    return FaultyStorage()


@pytest.fixture
def storage(faulty: FaultyStorage, told: list[StorageCall]) -> ObservedStorage:
    return ObservedStorage(faulty, told.append)


class Wrapper:
    """Counts loads, and hands all else on, as people write it."""

    def __init__(self, storage: Any) -> None:
        self.loads = 0
        self._storage = storage

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    async def load(self, session_id: str) -> Any:
        self.loads += 1
        return await self._storage.load(session_id)


class Networked(FaultyStorage):
    """Is on two servers, keeps to its time limit itself, and loads and touches in one call."""

    def node_of(self, session_id: str) -> str:
        return f"host:{len(session_id) % 2}"

    def within(self, timeout: float) -> Networked:
        limited = Networked(self.storage)
        limited.calls = [f"within {timeout:g}"]
        return limited

    async def load_and_touch(self, session_id: str, ttl: float) -> tuple[Stored, bool] | None:
        stored = await self.load(session_id)
        return None if stored is None else (stored, await self.touch(session_id, ttl))


Call: TypeAlias = Callable[[ObservedStorage], Awaitable[Any]]

OUTCOMES: dict[str, tuple[Call, Outcome]] = {
    "create": (lambda storage: storage.create("new", b"cart", 60), Outcome.DONE),
    "create a taken one": (lambda storage: storage.create("id", b"", 60), Outcome.TAKEN),
    "load": (lambda storage: storage.load("id"), Outcome.DONE),
    "load nothing": (lambda storage: storage.load("new"), Outcome.ABSENT),
    "replace": (lambda storage: storage.replace("id", b"", 60, expected=1), Outcome.DONE),
    "replace another": (
        lambda storage: storage.replace("id", b"", 60, expected=7),
        Outcome.CONFLICT,
    ),
    "touch": (lambda storage: storage.touch("id", 60), Outcome.DONE),
    "touch nothing": (lambda storage: storage.touch("new", 60), Outcome.ABSENT),
    "delete": (lambda storage: storage.delete("id"), Outcome.DONE),
    "delete nothing": (lambda storage: storage.delete("new"), Outcome.ABSENT),
}


@pytest.mark.parametrize("told_of", OUTCOMES)
async def test_each_call_is_told_with_its_verb_and_how_it_ended(
    storage: ObservedStorage,
    faulty: FaultyStorage,
    told: list[StorageCall],
    told_of: str,
) -> None:
    call, outcome = OUTCOMES[told_of]
    await faulty.create("id", b"cart", 60)

    await asyncio.gather(call(storage), return_exceptions=True)

    assert [(each.operation, each.outcome) for each in told] == [
        (told_of.partition(" ")[0], outcome)
    ]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (StorageUnavailable("away"), Outcome.UNAVAILABLE),
        (StorageUnavailable("full", is_answer=True), Outcome.REFUSED),
        (StorageError("odd"), Outcome.FAILED),
        (ZeroDivisionError(), Outcome.FAILED),
    ],
    ids=str,
)
async def test_an_error_is_told_by_its_kind_and_raised(
    told: list[StorageCall], error: Exception, outcome: Outcome
) -> None:
    class Raising(MemoryStorage):
        async def load(self, session_id: str) -> Stored | None:  # noqa: ARG002 - whatever the id
            raise error

    storage = ObservedStorage(Raising(), told.append)

    with pytest.raises(type(error)) as raised:
        await storage.load("id")

    assert raised.value is error
    assert [each.outcome for each in told] == [outcome]


async def test_a_call_that_was_cancelled_is_told_as_given_up(
    storage: ObservedStorage, faulty: FaultyStorage, told: list[StorageCall]
) -> None:
    faulty.hang()
    task = asyncio.create_task(storage.load("id"))
    await asyncio.sleep(0)

    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    assert [each.outcome for each in told] == [Outcome.GIVEN_UP]


async def test_it_is_told_how_long_the_call_took(
    faulty: FaultyStorage, told: list[StorageCall]
) -> None:
    faulty.hang()
    guard = guarded(ObservedStorage(faulty, told.append), RetryPolicy(timeout=TIME_LIMIT))

    with pytest.raises(StorageUnavailable):
        await guard.load("id")

    assert [each.outcome for each in told] == [Outcome.GIVEN_UP]
    assert told[0].seconds >= TIME_LIMIT * 0.9


async def test_neither_the_id_nor_the_data_are_told(
    storage: ObservedStorage, told: list[StorageCall]
) -> None:
    await storage.create("a secret id", b"secret data", 60)

    assert "secret" not in str(told)


async def test_each_retry_is_a_call_of_its_own(
    faulty: FaultyStorage, told: list[StorageCall]
) -> None:
    faulty.fail(times=2)
    guard = guarded(ObservedStorage(faulty, told.append), RetryPolicy(retries=2))

    await guard.load("id")

    assert [each.outcome for each in told] == [*[Outcome.UNAVAILABLE] * 2, Outcome.ABSENT]


async def test_what_the_function_raises_is_logged_and_the_call_goes_on(
    faulty: FaultyStorage, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(call: StorageCall) -> None:
        raise ZeroDivisionError(call.operation)

    await faulty.create("id", b"cart", 60)

    stored = await ObservedStorage(faulty, fail).load("id")

    assert stored is not None
    assert stored.payload == b"cart"
    assert [each.message for each in caplog.records if each.exc_info] == ["on_storage_call failed"]


async def test_the_node_is_told_where_the_storage_knows_it(told: list[StorageCall]) -> None:
    storage = ObservedStorage(Networked(), told.append)

    await storage.load("a")
    await storage.load("bb")

    assert [each.node for each in told] == ["host:1", "host:0"]


async def test_else_the_class_of_the_storage_is(
    storage: ObservedStorage, told: list[StorageCall]
) -> None:
    await storage.load("id")

    assert [each.node for each in told] == ["FaultyStorage"]


async def test_a_storage_that_keeps_to_the_time_limit_is_observed_within_it(
    told: list[StorageCall],
) -> None:
    limited = ObservedStorage(Networked(), told.append).within(7)

    assert limited is not None
    await limited.load("id")
    assert [each.operation for each in told] == ["load"]


async def test_a_storage_that_loads_and_touches_at_once_does_so_observed(
    told: list[StorageCall],
) -> None:
    networked = Networked()
    await networked.create("id", b"cart", 60)
    storage = ObservedStorage(networked, told.append)

    loaded = await storage.load_and_touch("id", 60)

    assert loaded is not None
    assert [(each.operation, each.outcome) for each in told] == [("load", Outcome.DONE)]


def test_a_storage_that_cannot_do_that_cannot_when_it_is_observed(
    storage: ObservedStorage,
) -> None:
    assert as_touching(storage) is None
    assert storage.within(1) is None


def test_memory_that_is_observed_needs_no_guard_either(told: list[StorageCall]) -> None:
    guard = guarded(ObservedStorage(MemoryStorage(), told.append), RetryPolicy(retries=2))

    assert isinstance(guard, ObservedStorage)


async def test_a_wrapper_of_ones_own_is_not_passed_by() -> None:
    wrapper = Wrapper(Networked())
    guard = guarded(wrapper, RetryPolicy(timeout=60))

    await guard.load("id")

    assert wrapper.loads == 1
    assert isinstance(guard, RetryingStorage)
    assert as_touching(guard) is None


async def test_a_wrapper_that_is_observed_is_not_passed_by(told: list[StorageCall]) -> None:
    wrapper = Wrapper(Networked())
    guard = guarded(ObservedStorage(wrapper, told.append), RetryPolicy(timeout=60))

    await guard.load("id")

    assert wrapper.loads == len(told) == 1


@pytest.mark.parametrize("error", [IdTaken(), Conflict(None)], ids=str)
async def test_an_answer_that_is_an_error_is_raised(
    storage: ObservedStorage, faulty: FaultyStorage, error: Exception
) -> None:
    faulty.fail(error)

    with pytest.raises(type(error)) as raised:
        await storage.create("id", b"cart", 60)

    assert raised.value is error


class Fresh(FaultyStorage):
    """Can ask over a connection of its own."""

    async def load_afresh(
        self, session_id: str, *, agrees: Callable[[Stored | None], bool]
    ) -> Stored | None:
        stored = await self.load(session_id)
        assert agrees(stored)
        return stored


async def test_a_record_that_is_asked_for_afresh_is_a_load(told: list[StorageCall]) -> None:
    storage = ObservedStorage(Fresh(), told.append)

    await storage.load_afresh("id", agrees=lambda stored: stored is None)

    assert [(call.operation, call.outcome) for call in told] == [("load", Outcome.ABSENT)]


def test_what_cannot_ask_afresh_does_not_seem_to(storage: ObservedStorage) -> None:
    assert not isinstance(storage, FreshStorage)
