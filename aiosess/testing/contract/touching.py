"""Touch and delete: longer, shorter, gone."""

# ruff: noqa: D401 - a docstring here is a promise about the storage

from __future__ import annotations

from typing import Final

from aiosess.storages import Storage, TouchingStorage
from aiosess.testing.contract.case import (
    LONG,
    Case,
    absent,
    expect,
    kept,
    new_id,
    promise,
    promise_over_time,
)
from aiosess.testing.contract.harness import Timeline

__all__ = ["TOUCHING"]


@promise_over_time
async def touch_extends_life(storage: Storage, time: Timeline) -> None:
    """A touched record lives the ttl of the touch, counted from the touch."""
    session_id = new_id()
    started = time.now()
    await storage.create(session_id, b"cart", 2 * time.unit)
    touched = await storage.touch(session_id, 8 * time.unit)
    time.still_before(started + 2 * time.unit)

    await time.wait(4 * time.unit)
    stored = await storage.load(session_id)
    time.still_before(started + 8 * time.unit)

    expect(touched is True, f"touch of a record returned {touched!r}: it must be True")
    expect(stored is not None, "the record ended with the ttl that it had before the touch")


@promise_over_time
async def touch_shortens_life(storage: Storage, time: Timeline) -> None:
    """A touch with a shorter ttl lets the record end earlier."""
    session_id = new_id()
    await storage.create(session_id, b"cart", LONG)

    await storage.touch(session_id, time.unit)
    await time.wait(2 * time.unit)

    await absent(storage, session_id, "the ttl of the touch has run out")


@promise_over_time
async def the_last_touch_counts(storage: Storage, time: Timeline) -> None:
    """A record that was touched to end soon and then to live long lives long."""
    session_id = new_id()
    started = time.now()
    await storage.create(session_id, b"cart", LONG)

    await storage.touch(session_id, 2 * time.unit)
    await storage.touch(session_id, LONG)
    time.still_before(started + 2 * time.unit)
    await time.wait(3 * time.unit)

    await kept(storage, session_id, b"cart")


@promise
async def touch_keeps_payload_and_version(storage: Storage) -> None:
    """A touch changes neither payload nor version: one seen before it can still be replaced."""
    session_id = new_id()
    version = await storage.create(session_id, b"cart", LONG)

    await storage.touch(session_id, LONG)

    stored = await kept(storage, session_id, b"cart")
    expect(stored.version == version, "the touch changed the version")
    await storage.replace(session_id, b"more", LONG, expected=version)


@promise
async def touch_never_creates(storage: Storage) -> None:
    """Touch of an id that no record has returns False and creates nothing."""
    session_id = new_id()

    touched = await storage.touch(session_id, LONG)

    expect(touched is False, f"touch of no record returned {touched!r}: it must be False")
    await absent(storage, session_id, "only touch was called")


@promise
async def touch_never_revives_a_deleted_record(storage: Storage) -> None:
    """Touch of a record that was deleted returns False, and it stays deleted."""
    session_id = new_id()
    await storage.create(session_id, b"cart", LONG)
    await storage.delete(session_id)

    touched = await storage.touch(session_id, LONG)

    expect(touched is False, f"touch of a deleted record returned {touched!r}")
    await absent(storage, session_id, "it was deleted")


@promise_over_time
async def touch_never_revives_an_expired_record(storage: Storage, time: Timeline) -> None:
    """Touch of a record that has expired returns False, and it stays absent."""
    session_id = new_id()
    await storage.create(session_id, b"cart", time.unit)
    await time.wait(2 * time.unit)

    touched = await storage.touch(session_id, LONG)

    expect(touched is False, f"touch of an expired record returned {touched!r}")
    await absent(storage, session_id, "it has expired")


@promise
async def load_and_touch_returns_what_load_returns(storage: Storage) -> None:
    """Where there is load_and_touch, it returns the record with the version that load returns."""
    if not isinstance(storage, TouchingStorage):
        return
    session_id = new_id()
    await storage.create(session_id, b"cart", LONG / 2)
    stored = await kept(storage, session_id, b"cart")

    loaded = await storage.load_and_touch(session_id, LONG)

    expect(loaded == (stored, True), f"load_and_touch returned {loaded!r}, load {stored!r}")
    await storage.replace(session_id, b"new", LONG, expected=stored.version)


@promise_over_time
async def load_and_touch_extends_life(storage: Storage, time: Timeline) -> None:
    """A record that load_and_touch touched lives its ttl, counted from then."""
    if not isinstance(storage, TouchingStorage):
        return
    session_id = new_id()
    started = time.now()
    await storage.create(session_id, b"cart", 2 * time.unit)
    await storage.load_and_touch(session_id, 8 * time.unit)
    time.still_before(started + 2 * time.unit)

    await time.wait(4 * time.unit)
    stored = await storage.load(session_id)
    time.still_before(started + 8 * time.unit)

    expect(stored is not None, "the record ended with the ttl that it had before")


@promise_over_time
async def load_and_touch_never_shortens_life(storage: Storage, time: Timeline) -> None:
    """A record that lives longer than the ttl of load_and_touch keeps its end, and that says so."""
    if not isinstance(storage, TouchingStorage):
        return
    session_id = new_id()
    await storage.create(session_id, b"cart", LONG)

    loaded = await storage.load_and_touch(session_id, time.unit)
    await time.wait(2 * time.unit)

    expect(
        loaded is not None and loaded[1] is False,
        f"load_and_touch with a shorter ttl returned {loaded!r}: the second must be False",
    )
    await kept(storage, session_id, b"cart")


@promise
async def load_and_touch_never_creates(storage: Storage) -> None:
    """Load_and_touch returns None for an id that no record has, and it stays absent."""
    if not isinstance(storage, TouchingStorage):
        return
    session_id = new_id()

    loaded = await storage.load_and_touch(session_id, LONG)

    expect(loaded is None, f"load_and_touch of no record returned {loaded!r}: it must be None")
    await absent(storage, session_id, "only load_and_touch was called")


@promise
async def delete_removes(storage: Storage) -> None:
    """Delete removes the record and returns True."""
    session_id = new_id()
    await storage.create(session_id, b"cart", LONG)

    deleted = await storage.delete(session_id)

    expect(deleted is True, f"delete of a record returned {deleted!r}: it must be True")
    await absent(storage, session_id, "it was deleted")


@promise
async def delete_of_an_absent_record_is_false(storage: Storage) -> None:
    """Delete returns False for an id that no record has, and for one deleted before."""
    session_id = new_id()
    never_there = await storage.delete(session_id)
    await storage.create(session_id, b"cart", LONG)
    await storage.delete(session_id)

    deleted_before = await storage.delete(session_id)

    expect(never_there is False, f"delete of no record returned {never_there!r}")
    expect(deleted_before is False, f"the second delete returned {deleted_before!r}")


@promise_over_time
async def delete_of_an_expired_record_is_false(storage: Storage, time: Timeline) -> None:
    """Delete returns False for a record that has expired."""
    session_id = new_id()
    await storage.create(session_id, b"cart", time.unit)
    await time.wait(2 * time.unit)

    deleted = await storage.delete(session_id)

    expect(deleted is False, f"delete of an expired record returned {deleted!r}")


TOUCHING: Final[tuple[Case, ...]] = (
    touch_extends_life,
    touch_shortens_life,
    the_last_touch_counts,
    touch_keeps_payload_and_version,
    touch_never_creates,
    touch_never_revives_a_deleted_record,
    touch_never_revives_an_expired_record,
    load_and_touch_returns_what_load_returns,
    load_and_touch_extends_life,
    load_and_touch_never_shortens_life,
    load_and_touch_never_creates,
    delete_removes,
    delete_of_an_absent_record_is_false,
    delete_of_an_expired_record_is_false,
)
