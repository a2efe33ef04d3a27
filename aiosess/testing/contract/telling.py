"""Publish and subscribe, where a storage has them: told at once, and to all."""

# ruff: noqa: D401 - a docstring here is a promise about the storage

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Collection
from typing import Final

from aiosess.storages import NotifyingStorage, Storage
from aiosess.testing.contract.case import LONG, Case, Misbehaviour, expect, kept, new_id, promise

__all__ = ["TELLING"]

# Seconds in which a notice must have arrived.
_AT_ONCE: Final = 3.0
_MANY: Final = 50


def _new_notice(ending: bytes = b"") -> bytes:
    """Return a notice that nobody else publishes."""
    return secrets.token_hex(16).encode() + ending


async def _heard(notices: AsyncIterator[bytes], own: Collection[bytes]) -> bytes:
    """Return the next notice that is among *own*; those of other cases do not count."""
    try:
        async with asyncio.timeout(_AT_ONCE):
            async for notice in notices:
                if notice in own:
                    return notice
    except TimeoutError as error:
        raise Misbehaviour(f"a notice was not heard within {_AT_ONCE:g} s") from error
    raise Misbehaviour("a subscription ended by itself")


@promise
async def a_notice_reaches_all_who_are_subscribed(storage: Storage) -> None:
    """Where there is publish, a notice is heard by each subscription, here and elsewhere."""
    if not isinstance(storage, NotifyingStorage):
        return
    notice = _new_notice()
    async with storage.subscribe() as first, storage.subscribe() as second:
        await storage.publish(notice)

        await _heard(first, {notice})
        await _heard(second, {notice})


@promise
async def notices_arrive_as_they_were_published(storage: Storage) -> None:
    """Notices are heard byte for byte, and in the order in which one task published them."""
    if not isinstance(storage, NotifyingStorage):
        return
    endings = (b" ", b"\r\n", b"\x00\xff", *(str(number).encode() for number in range(_MANY)))
    published = [_new_notice(ending) for ending in endings]
    async with storage.subscribe() as notices:
        for each in published:
            await storage.publish(each)

        heard = [await _heard(notices, published) for _ in published]

    expect(heard == published, "notices were heard in another order, twice or not at all")


@promise
async def a_subscription_hears_from_its_beginning_on(storage: Storage) -> None:
    """A subscription hears what is published once it was entered, and nothing from before."""
    if not isinstance(storage, NotifyingStorage):
        return
    before, after = _new_notice(), _new_notice()
    await storage.publish(before)
    async with storage.subscribe() as notices:
        await storage.publish(after)

        heard = await _heard(notices, {before, after})

    expect(heard == after, "a notice was heard from before the subscription")


@promise
async def a_subscription_that_ends_disturbs_nobody(storage: Storage) -> None:
    """When one subscription was left, or was cancelled as it waited, others go on hearing."""
    if not isinstance(storage, NotifyingStorage):
        return
    notice = _new_notice()
    async with storage.subscribe() as notices:
        async with storage.subscribe():
            pass
        waiting = asyncio.create_task(_wait(storage))
        await asyncio.sleep(0)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        await storage.publish(notice)

        await _heard(notices, {notice})


@promise
async def records_are_read_while_anybody_is_subscribed(storage: Storage) -> None:
    """While a subscription waits, each call of the storage gets its own answer."""
    if not isinstance(storage, NotifyingStorage):
        return
    session_id, notice = new_id(), _new_notice()
    async with storage.subscribe() as notices:
        waiting = asyncio.create_task(_heard(notices, {notice}))
        await storage.create(session_id, b"cart", LONG)
        await storage.publish(notice)

        await kept(storage, session_id, b"cart")
        await waiting


async def _wait(storage: NotifyingStorage) -> None:
    async with storage.subscribe() as notices:
        await anext(notices)


TELLING: Final[tuple[Case, ...]] = (
    a_notice_reaches_all_who_are_subscribed,
    notices_arrive_as_they_were_published,
    a_subscription_hears_from_its_beginning_on,
    a_subscription_that_ends_disturbs_nobody,
    records_are_read_while_anybody_is_subscribed,
)
