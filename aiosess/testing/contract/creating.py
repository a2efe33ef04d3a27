"""Create: only where nothing is."""

# ruff: noqa: D401 - a docstring here is a promise about the storage

from __future__ import annotations

import asyncio
from typing import Final

from aiosess.errors import IdTaken
from aiosess.storages import Storage
from aiosess.testing.contract.case import (
    LONG,
    Case,
    Misbehaviour,
    expect,
    kept,
    new_id,
    promise,
    promise_over_time,
)
from aiosess.testing.contract.harness import Timeline

__all__ = ["CREATING"]


@promise
async def create_keeps_the_payload(storage: Storage) -> None:
    """What create was given, load returns."""
    session_id = new_id()

    await storage.create(session_id, b"cart", LONG)

    await kept(storage, session_id, b"cart")


@promise
async def create_never_overwrites(storage: Storage) -> None:
    """Create under an id that is taken raises IdTaken, and payload and version stay."""
    session_id = new_id()
    version = await storage.create(session_id, b"first", LONG)

    await _refused(storage, session_id, LONG)

    stored = await kept(storage, session_id, b"first")
    expect(stored.version == version, "the refused create changed the version")


@promise_over_time
async def a_refused_create_does_not_extend_life(storage: Storage, time: Timeline) -> None:
    """A create that was refused does not change how long the record lives."""
    session_id = new_id()
    started = time.now()
    await storage.create(session_id, b"first", 2 * time.unit)

    try:
        await _refused(storage, session_id, LONG)
    except Misbehaviour:
        time.still_before(started + 2 * time.unit)
        raise
    await time.wait(3 * time.unit)

    stored = await storage.load(session_id)
    expect(stored is None, "the refused create gave the record its own ttl")


@promise_over_time
async def create_takes_the_id_of_an_expired_record(storage: Storage, time: Timeline) -> None:
    """The id of a record that has expired is free, and the old end is not the new one's."""
    session_id = new_id()
    await storage.create(session_id, b"old", time.unit)
    await time.wait(2 * time.unit)

    await storage.create(session_id, b"new", LONG)
    await time.wait(2 * time.unit)

    await kept(storage, session_id, b"new")


@promise_over_time
async def create_takes_the_id_of_a_deleted_record(storage: Storage, time: Timeline) -> None:
    """The id of a record that was deleted is free, and the old end is not the new one's."""
    session_id = new_id()
    await storage.create(session_id, b"old", time.unit)
    await storage.delete(session_id)

    await storage.create(session_id, b"new", LONG)
    await time.wait(2 * time.unit)

    await kept(storage, session_id, b"new")


@promise
async def of_creates_at_once_one_wins(storage: Storage) -> None:
    """Of many creates under one id at the same time exactly one wins, and its payload is kept."""
    session_id = new_id()
    payloads = [b"%d" % number for number in range(10)]

    results = await asyncio.gather(
        *(storage.create(session_id, payload, LONG) for payload in payloads),
        return_exceptions=True,
    )

    winners = [p for p, r in zip(payloads, results, strict=True) if not isinstance(r, Exception)]
    expect(len(winners) == 1, f"{len(winners)} of 10 creates under one id succeeded")
    losers = [result for result in results if isinstance(result, Exception)]
    expect(
        all(isinstance(error, IdTaken) for error in losers),
        f"the others must raise IdTaken, not {losers!r}",
    )
    await kept(storage, session_id, winners[0])


async def _refused(storage: Storage, session_id: str, ttl: float) -> None:
    try:
        await storage.create(session_id, b"second", ttl)
    except IdTaken:
        return
    raise Misbehaviour("create overwrote a record")


CREATING: Final[tuple[Case, ...]] = (
    create_keeps_the_payload,
    create_never_overwrites,
    a_refused_create_does_not_extend_life,
    create_takes_the_id_of_an_expired_record,
    create_takes_the_id_of_a_deleted_record,
    of_creates_at_once_one_wins,
)
