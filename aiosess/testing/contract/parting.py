"""Apart: no record, and no call, takes another's place."""

# ruff: noqa: D401 - a docstring here is a promise about the storage

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Final

from aiosess.errors import Conflict
from aiosess.storages import Storage
from aiosess.testing.contract.case import (
    LONG,
    Case,
    absent,
    expect,
    kept,
    new_id,
    promise,
)

__all__ = ["PARTING"]

_ODD_IDS: Final = (
    " ",
    "\n",
    "\r\nget x\r\n",
    "\x00",
    "%",
    "%0A",
    "/foo",
    "../..",
    "*",
    "?[a-z]{x}",
    "äöü ☕ 🍪",
    "'\";--",
    "sess:",
    ":",
    "\\",
)
_LONG_ID: Final = "ü" * 500
_MANY: Final = 200
_ROUNDS: Final = 40


@promise
async def odd_ids_are_ids(storage: Storage) -> None:
    """Any str is an id, byte for byte: spaces, line ends, NUL, '%', '/', '*', non-ASCII."""
    for odd in _ODD_IDS:
        unique = new_id()
        session_id = f"{odd}{unique}{odd}"

        version = await storage.create(session_id, b"one", LONG)
        await kept(storage, session_id, b"one")
        await storage.replace(session_id, b"two", LONG, expected=version)
        touched = await storage.touch(session_id, LONG)
        await kept(storage, session_id, b"two")
        await absent(storage, unique, f"only an id with {odd!r} around it was created")
        deleted = await storage.delete(session_id)

        expect(touched is True, f"touch did not find an id with {odd!r}")
        expect(deleted is True, f"delete did not find an id with {odd!r}")
        await absent(storage, session_id, f"an id with {odd!r} was deleted")


@promise
async def long_ids_are_ids(storage: Storage) -> None:
    """An id of more than 500 characters is an id, and its last character counts."""
    session_id = _LONG_ID + new_id()
    await storage.create(session_id + "a", b"one", LONG)
    await storage.create(session_id + "b", b"two", LONG)

    await storage.touch(session_id + "a", LONG)
    await storage.delete(session_id + "b")

    await kept(storage, session_id + "a", b"one")
    await absent(storage, session_id + "b", "it was deleted")


@promise
async def similar_ids_are_different_ids(storage: Storage) -> None:
    """Ids that differ in case, in a blank, in one accent's encoding or by a prefix stay apart."""
    unique = new_id()
    similar = ("a", "A", " a", "a ", "aa", "", "é", "e\u0301", "\ufeffa", "*")
    ids = {unique + ending: ending.encode() for ending in similar}
    for session_id, payload in ids.items():
        await storage.create(session_id, payload, LONG)

    await storage.delete(unique + "*")
    del ids[unique + "*"]

    for session_id, payload in ids.items():
        await kept(storage, session_id, payload)


@promise
async def many_records_stay_apart(storage: Storage) -> None:
    """Each of many records is created, replaced, touched and deleted without the others."""
    ids = [new_id() for _ in range(_MANY)]
    versions = [await storage.create(i, i.encode(), LONG) for i in ids]

    for session_id, version in zip(ids[::3], versions[::3], strict=True):
        await storage.replace(session_id, b"replaced", LONG, expected=version)
    for session_id in ids[1::3]:
        await storage.delete(session_id)
    for session_id in ids[2::3]:
        await storage.touch(session_id, 2 * LONG)

    for session_id in ids[::3]:
        await kept(storage, session_id, b"replaced")
    for session_id in ids[1::3]:
        await absent(storage, session_id, "it was deleted")
    for session_id in ids[2::3]:
        await kept(storage, session_id, session_id.encode())


@promise
async def calls_at_once_each_get_their_own_answer(storage: Storage) -> None:
    """Of many calls under way at once each gets its own answer, whatever the verb."""
    ids = [new_id() for _ in range(20)]
    for session_id in ids[::2]:
        await storage.create(session_id, session_id.encode(), LONG)

    loaded = asyncio.gather(*(storage.load(i) for i in ids))
    touched = asyncio.gather(*(storage.touch(i, LONG) for i in ids))
    payloads = [None if stored is None else stored.payload for stored in await loaded]

    expect(
        payloads == [i.encode() if n % 2 == 0 else None for n, i in enumerate(ids)],
        "a load got the answer of another call",
    )
    expect(
        await touched == [n % 2 == 0 for n in range(len(ids))],
        "a touch got the answer of another call",
    )


@promise
async def a_cancelled_call_does_no_harm(storage: Storage) -> None:
    """After a call was cancelled at any moment the next one gets its own answer."""
    first, second = new_id(), new_id()
    await storage.create(first, b"first", LONG)
    await storage.create(second, b"second", LONG)

    for number in range(_ROUNDS):
        await _cancel_after(storage.load(first), number)
        await kept(storage, second, b"second")
        await _cancel_after(storage.touch(first, LONG), number)
        await absent(storage, new_id(), "only a touch was cancelled before")


@promise
async def a_cancelled_write_is_whole_or_not_at_all(storage: Storage) -> None:
    """A write that was cancelled at any moment has happened as a whole, or not at all."""
    before, after = b"before " * 20, b"after " * 20
    for number in range(_ROUNDS):
        session_id = new_id()
        version = await storage.create(session_id, before, LONG)

        await _cancel_after(storage.replace(session_id, after, LONG, expected=version), number)

        stored = await storage.load(session_id)
        expect(stored is not None, "the record went when its replace was cancelled")
        payload = b"" if stored is None else stored.payload
        expect(payload in {before, after}, f"a cancelled replace left {payload!r}")


async def _cancel_after(call: Coroutine[Any, Any, object], number: int) -> None:
    """Start *call* and cancel it: at once, after some turns of the loop, or some time."""
    task = asyncio.create_task(call)
    for _ in range(number % 10):
        await asyncio.sleep(0)
    if number >= _ROUNDS // 2:
        await asyncio.sleep(number * 0.00002)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Conflict):
        await task


PARTING: Final[tuple[Case, ...]] = (
    odd_ids_are_ids,
    long_ids_are_ids,
    similar_ids_are_different_ids,
    many_records_stay_apart,
    calls_at_once_each_get_their_own_answer,
    a_cancelled_call_does_no_harm,
    a_cancelled_write_is_whole_or_not_at_all,
)
