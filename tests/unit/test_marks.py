"""Whose a record is: an answer with another's record is never believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aiosess import (
    Conflict,
    CookieOptions,
    MemoryStorage,
    Reason,
    SessionCookie,
    SessionEvent,
    StorageUnavailable,
    Version,
)
from aiosess.events import Events
from aiosess.records.format import RESERVED_KEY, decode_value, encode, encode_value
from aiosess.records.marks import MarkedStorage
from aiosess.storages import Storage, Stored

COOKIE = SessionCookie(CookieOptions(secure=False))


def record(session_id: str, *, created_at: float = 1.0, **data: Any) -> bytes:
    return encode(session_id, data, COOKIE, created_at=created_at, now=2.0)


def by_express(payload: bytes, **data: Any) -> bytes:
    """Return the record as Express writes it again: what is new comes last."""
    return encode_value({**decode_value(payload), **data})


ANN, BOB = record("ann", name="Ann"), record("bob", created_at=1.5, name="Bob")


class Mixed(MemoryStorage):
    """Answers the first reads, and each conflict, with what it was told to."""

    def __init__(self, *answers: bytes) -> None:
        super().__init__()
        self.answers = [Stored(answer, "another version") for answer in answers]
        self.loads = 0

    async def load(self, session_id: str) -> Stored | None:
        self.loads += 1
        return self.answers.pop(0) if self.answers else await super().load(session_id)

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        if self.answers:
            raise Conflict(self.answers.pop(0))
        return await super().replace(session_id, payload, ttl, expected=expected)


class Fresh(Mixed):
    """One that can ask on a connection of its own."""

    def __init__(self, *answers: bytes) -> None:
        super().__init__(*answers)
        self.agreed: list[bool] = []

    async def load_afresh(
        self, session_id: str, *, agrees: Callable[[Stored | None], bool]
    ) -> Stored | None:
        stored = await MemoryStorage.load(self, session_id)
        self.agreed.append(agrees(stored))
        return stored


@pytest.fixture
def heard() -> list[SessionEvent]:
    return []


@pytest.fixture
def marked(heard: list[SessionEvent]) -> Callable[[Storage], MarkedStorage]:
    return lambda storage: MarkedStorage(storage, Events(heard.append))


Mark = Callable[[Storage], MarkedStorage]


def reasons(heard: list[SessionEvent]) -> list[Reason]:
    return [each.reason for each in heard]


async def payload(storage: Storage, session_id: str) -> bytes | None:
    stored = await storage.load(session_id)
    return None if stored is None else stored.payload


async def test_the_record_of_the_id_is_believed(marked: Mark, heard: list[SessionEvent]) -> None:
    storage = Fresh()
    await storage.create("ann", ANN, 60)

    assert await payload(marked(storage), "ann") == ANN
    assert (storage.loads, storage.agreed, heard) == (1, [], [])


async def test_what_is_not_there_is_not_asked_for_again(marked: Mark) -> None:
    storage = Fresh()

    assert await payload(marked(storage), "ann") is None
    assert (storage.loads, storage.agreed) == (1, [])


async def test_a_record_that_express_wrote_again_is_believed(marked: Mark) -> None:
    written = by_express(ANN, cart=[1])
    storage = Fresh()
    await storage.create("ann", written, 60)

    assert await payload(marked(storage), "ann") == written
    assert storage.agreed == []


@pytest.mark.parametrize(
    "written",
    [b'{"cookie":{},"name":"Ann"}', b'{"cookie":{},"__aiosess":{"created":1.0}}'],
    ids=["by Express", "by an older aiosess"],
)
async def test_a_record_without_a_mark_is_taken(marked: Mark, written: bytes) -> None:
    storage = Fresh()
    await storage.create("ann", written, 60)

    assert await payload(marked(storage), "ann") == written
    assert storage.agreed == []


@pytest.mark.parametrize("other", [BOB, by_express(BOB, cart=[1]), b"OK"], ids=repr)
async def test_anothers_record_is_seen_by_nobody(
    marked: Mark, heard: list[SessionEvent], other: bytes
) -> None:
    storage = Fresh(other)
    await storage.create("ann", ANN, 60)

    assert await payload(marked(storage), "ann") == ANN
    assert storage.agreed == [False]
    assert reasons(heard) == [Reason.REPLIES_MIXED_UP]


async def test_anothers_record_in_the_place_of_none_is_none(
    marked: Mark, heard: list[SessionEvent]
) -> None:
    assert await payload(marked(Fresh(BOB)), "ann") is None
    assert reasons(heard) == [Reason.REPLIES_MIXED_UP]


async def test_anothers_record_in_a_conflict_is_not_merged_in(marked: Mark) -> None:
    storage = Fresh(BOB)
    await storage.create("ann", ANN, 60)

    with pytest.raises(Conflict) as caught:
        await marked(storage).replace("ann", ANN, 60, expected=0)

    assert caught.value.current is not None
    assert caught.value.current.payload == ANN


async def test_the_conflict_with_a_record_of_the_id_is_passed_on(marked: Mark) -> None:
    storage = Fresh(ANN)

    with pytest.raises(Conflict) as caught:
        await marked(storage).replace("ann", ANN, 60, expected=0)

    assert caught.value.current == Stored(ANN, "another version")
    assert storage.agreed == []


async def test_a_record_that_was_copied_under_the_id_is_taken_and_told(
    marked: Mark, heard: list[SessionEvent]
) -> None:
    storage = Fresh()
    await storage.create("ann", BOB, 60)

    assert await payload(marked(storage), "ann") == BOB
    assert storage.agreed == [True]
    assert reasons(heard) == [Reason.RECORD_COPIED]


async def test_a_copied_record_is_asked_for_again_once(
    marked: Mark, heard: list[SessionEvent]
) -> None:
    storage = Fresh()
    await storage.create("ann", BOB, 60)
    looking = marked(storage)

    for _ in range(3):
        await looking.load("ann")

    assert storage.agreed == [True]
    assert reasons(heard) == [Reason.RECORD_COPIED]


async def test_a_copied_record_that_was_put_right_meanwhile_is_no_mix_up(
    marked: Mark, heard: list[SessionEvent]
) -> None:
    storage = Fresh(BOB)
    put_right = record("ann", created_at=1.5, name="Bob", cart=[1])
    await storage.create("ann", put_right, 60)

    assert await payload(marked(storage), "ann") == put_right
    assert storage.agreed == [True]
    assert reasons(heard) == []


async def test_of_thousands_of_copied_records_the_last_ones_are_remembered(marked: Mark) -> None:
    storage = Fresh()
    looking = marked(storage)
    for number in range(1500):
        await storage.create(f"id {number}", BOB, 60)
        await looking.load(f"id {number}")

    assert len(looking._seen_again) <= 1024


async def test_what_is_no_record_is_asked_for_again_once(
    marked: Mark, heard: list[SessionEvent]
) -> None:
    storage = Fresh()
    await storage.create("ann", b"not JSON", 60)
    looking = marked(storage)

    assert [await payload(looking, "ann") for _ in range(3)] == [b"not JSON"] * 3
    assert storage.agreed == [True]
    assert reasons(heard) == []


# A storage that has no other connection is asked once more.


async def test_without_another_connection_the_storage_is_asked_again(marked: Mark) -> None:
    storage = Mixed(BOB)
    await storage.create("ann", ANN, 60)

    assert await payload(marked(storage), "ann") == ANN


async def test_without_another_connection_a_copied_record_is_taken(marked: Mark) -> None:
    storage = Mixed()
    await storage.create("ann", BOB, 60)

    assert await payload(marked(storage), "ann") == BOB


async def test_two_wrong_answers_are_no_answer(marked: Mark, heard: list[SessionEvent]) -> None:
    storage = Mixed(BOB, record("eve", created_at=1.7))
    await storage.create("ann", ANN, 60)

    with pytest.raises(StorageUnavailable, match="mixed up"):
        await marked(storage).load("ann")

    assert reasons(heard) == [Reason.REPLIES_MIXED_UP]


async def test_the_other_verbs_are_passed_on(marked: Mark) -> None:
    storage = MemoryStorage()
    looking = marked(storage)

    await looking.create("ann", ANN, 60)

    assert await looking.touch("ann", 60)
    assert await looking.delete("ann")
    assert await storage.load("ann") is None


def test_the_reserved_key_holds_the_mark() -> None:
    assert decode_value(ANN)[RESERVED_KEY]["mark"] != decode_value(BOB)[RESERVED_KEY]["mark"]
