"""Time: a record lives as long as its ttl says, whether it is a blink or a century."""

# ruff: noqa: D401 - a docstring here is a promise about the storage

from __future__ import annotations

from typing import Final

from aiosess.storages import Storage
from aiosess.testing.contract.case import (
    Case,
    absent,
    expect,
    kept,
    new_id,
    promise,
    promise_over_time,
)
from aiosess.testing.contract.harness import Timeline

__all__ = ["ENDING"]

_DAY: Final = 86_400.0
_MONTH: Final = 31 * _DAY
_CENTURY: Final = 36_500 * _DAY


@promise_over_time
async def a_record_lives_its_ttl(storage: Storage, time: Timeline) -> None:
    """A record is there until its ttl has run out."""
    session_id = new_id()
    started = time.now()
    await storage.create(session_id, b"cart", 4 * time.unit)

    await time.wait(2 * time.unit)
    stored = await storage.load(session_id)
    time.still_before(started + 4 * time.unit)

    expect(stored is not None, "the record was gone after a half of its ttl")


@promise_over_time
async def a_record_ends_with_its_ttl(storage: Storage, time: Timeline) -> None:
    """A record is absent once its ttl has run out, though nobody deleted it."""
    session_id = new_id()
    await storage.create(session_id, b"cart", time.unit)

    await time.wait(2 * time.unit)

    await absent(storage, session_id, "its ttl has run out")


@promise_over_time
async def a_fraction_of_a_second_is_not_cut_off(storage: Storage, time: Timeline) -> None:
    """A ttl of 1.5 s is not cut to 1 s: a storage that counts in whole seconds rounds up."""
    created, touched = new_id(), new_id()
    started = time.now()
    await storage.create(created, b"cart", 1.5)
    await storage.create(touched, b"cart", 60.0)
    await storage.touch(touched, 1.5)

    await time.wait(1.2)
    stored = [await storage.load(created), await storage.load(touched)]
    time.still_before(started + 1.5)

    expect(stored[0] is not None, "a record created for 1.5 s was gone after 1.2 s")
    expect(stored[1] is not None, "a record touched for 1.5 s was gone after 1.2 s")


@promise_over_time
async def a_blink_is_a_ttl(storage: Storage, time: Timeline) -> None:
    """A ttl of less than a millisecond is no error and not forever, with each verb."""
    blink = 0.0004
    created, replaced, touched = new_id(), new_id(), new_id()
    version = await storage.create(replaced, b"one", 60.0)
    await storage.create(touched, b"one", 60.0)

    await storage.create(created, b"one", blink)
    await storage.replace(replaced, b"two", blink, expected=version)
    was_there = await storage.touch(touched, blink)
    await time.wait(time.unit)

    expect(was_there is True, f"touch with a ttl of {blink} s returned {was_there!r}")
    for session_id in (created, replaced, touched):
        await absent(storage, session_id, f"its ttl was {blink} s")


@promise
async def a_century_is_a_ttl(storage: Storage) -> None:
    """A ttl of more than a month, up to a hundred years, is no date in the past."""
    months, century, replaced, touched = new_id(), new_id(), new_id(), new_id()
    version = await storage.create(replaced, b"one", 60.0)
    await storage.create(touched, b"cart", 60.0)

    await storage.create(months, b"cart", _MONTH)
    await storage.create(century, b"cart", _CENTURY)
    await storage.replace(replaced, b"cart", _MONTH, expected=version)
    await storage.touch(touched, _CENTURY)

    for session_id in (months, century, replaced, touched):
        await kept(storage, session_id, b"cart")


ENDING: Final[tuple[Case, ...]] = (
    a_record_lives_its_ttl,
    a_record_ends_with_its_ttl,
    a_fraction_of_a_second_is_not_cut_off,
    a_blink_is_a_ttl,
    a_century_is_a_ttl,
)
