"""Load: the bytes that were written, or nothing."""

# ruff: noqa: D401 - a docstring here is a promise about the storage

from __future__ import annotations

from typing import Final

from aiosess.storages import Storage
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

__all__ = ["LOADING"]


@promise
async def load_of_an_absent_record_is_none(storage: Storage) -> None:
    """Load returns None for an id that no record has, and creates nothing."""
    session_id = new_id()

    await absent(storage, session_id, "nothing was created")

    await absent(storage, session_id, "nothing was created but load was called")


@promise
async def every_byte_survives(storage: Storage) -> None:
    """A payload of all byte values comes back as it was, from create and from replace."""
    session_id = new_id()
    every_byte = bytes(range(256))

    version = await storage.create(session_id, every_byte, LONG)
    await kept(storage, session_id, every_byte)
    await storage.replace(session_id, every_byte[::-1], LONG, expected=version)

    await kept(storage, session_id, every_byte[::-1])


@promise
async def an_empty_payload_survives(storage: Storage) -> None:
    """An empty payload is a record like another, and not an absent one."""
    session_id = new_id()

    version = await storage.create(session_id, b"", LONG)
    stored = await kept(storage, session_id, b"")
    await storage.replace(session_id, b"full", LONG, expected=stored.version)

    expect(stored.version == version, "load and create gave different versions")
    await kept(storage, session_id, b"full")


@promise
async def a_large_payload_survives(storage: Storage) -> None:
    """A payload of 100 kB comes back as it was, from create and from replace."""
    session_id = new_id()
    large = bytes(range(250)) * 400

    version = await storage.create(session_id, large, LONG)
    await kept(storage, session_id, large)
    await storage.replace(session_id, large[::-1], LONG, expected=version)

    await kept(storage, session_id, large[::-1])


@promise
async def load_changes_nothing(storage: Storage) -> None:
    """Load gives the same payload and an equal version, however often, until somebody writes."""
    session_id = new_id()
    await storage.create(session_id, b"cart", LONG)

    first = await kept(storage, session_id, b"cart")
    second = await kept(storage, session_id, b"cart")

    expect(
        first.version == second.version,
        f"the version became another by loading: {first.version!r}, then {second.version!r}",
    )


@promise_over_time
async def load_does_not_extend_life(storage: Storage, time: Timeline) -> None:
    """Load does not let a record live longer."""
    session_id = new_id()
    await storage.create(session_id, b"cart", 2 * time.unit)

    await time.wait(time.unit)
    await storage.load(session_id)
    await time.wait(2 * time.unit)

    await absent(storage, session_id, "its ttl ran out and nobody touched it, only loaded")


LOADING: Final[tuple[Case, ...]] = (
    load_of_an_absent_record_is_none,
    every_byte_survives,
    an_empty_payload_survives,
    a_large_payload_survives,
    load_changes_nothing,
    load_does_not_extend_life,
)
