"""One promise of the contract, and how it is put to the test."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from aiosess.errors import AiosessError, Conflict, IdTaken
from aiosess.storages import Storage, Stored, Version
from aiosess.testing.contract.harness import Harness, Timeline, TooSlow

__all__ = [
    "LONG",
    "Case",
    "Misbehaviour",
    "absent",
    "conflict",
    "expect",
    "kept",
    "new_id",
    "promise",
    "promise_over_time",
]

LONG: Final = 3600.0
"""A ttl that does not run out while a case is running."""

Check: TypeAlias = Callable[[Storage, Timeline], Awaitable[None]]

# Each time, the unit of time is twice as long.
_TRIES_WHEN_SLOW: Final = 5
_BRIEF: Final = 40


class Misbehaviour(AiosessError, AssertionError):
    """A storage does not keep a promise; the message says what it did."""


@dataclass(frozen=True, slots=True)
class Case:
    """One promise: its ``name``, the ``sentence`` that says it, and the check of it."""

    name: str
    sentence: str
    check: Check

    def __str__(self) -> str:
        return self.name

    async def run(self, harness: Harness) -> None:
        """Raise Misbehaviour where the storage breaks the promise.

        Any other error is one that the storage raised and should not have.
        """
        limit = asyncio.timeout(harness.patience)
        try:
            async with limit:
                await self._run(harness)
        except (Conflict, IdTaken) as error:
            raise Misbehaviour(f"{type(error).__name__} was raised: {error}") from error
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise Misbehaviour(f"there was no answer within {harness.patience:g} s") from error

    async def _run(self, harness: Harness) -> None:
        for tries in range(_TRIES_WHEN_SLOW):
            try:
                async with harness.open() as storage:
                    await self.check(storage, harness.timeline(slowness=2**tries))
            except TooSlow:
                continue
            return
        raise Misbehaviour("each call took so long that the record had expired meanwhile")


def promise(check: Callable[[Storage], Awaitable[None]]) -> Case:
    """Make a case of a function; its docstring is the promise."""

    async def check_now(storage: Storage, _time: Timeline) -> None:
        await check(storage)

    return Case(check.__name__, _sentence(check), check_now)


def promise_over_time(check: Check) -> Case:
    """Make a case of a function that lets time pass; its docstring is the promise."""
    return Case(check.__name__, _sentence(check), check)


def new_id() -> str:
    """Return a session id that no record has."""
    return secrets.token_urlsafe(24)


def expect(is_kept: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as a sentence
    """Raise Misbehaviour, saying *otherwise*, unless the promise is kept."""
    if not is_kept:
        raise Misbehaviour(otherwise)


async def kept(storage: Storage, session_id: str, payload: bytes) -> Stored:
    """Return the record, which must be there with *payload*."""
    stored = await storage.load(session_id)
    if stored is None:
        raise Misbehaviour(f"load returned None for a record with {_brief(payload)}")
    expect(
        isinstance(stored, Stored) and type(stored.payload) is bytes,
        f"load returned {type(stored).__name__}{tuple(stored)!r}: it must be Stored with bytes",
    )
    expect(
        stored.payload == payload,
        f"load returned {_brief(stored.payload)} in the place of {_brief(payload)}",
    )
    return stored


async def absent(storage: Storage, session_id: str, why: str) -> None:
    """Expect that there is no record under *session_id*."""
    stored = await storage.load(session_id)
    expect(stored is None, f"load returned {stored!r}, though {why}")


async def conflict(storage: Storage, session_id: str, expected: Version, why: str) -> Stored | None:
    """Expect that replacing the version *expected* is refused; return what is kept now."""
    try:
        await storage.replace(session_id, b"must not be written", LONG, expected=expected)
    except Conflict as refused:
        return refused.current
    raise Misbehaviour(f"replace wrote, though {why}")


def _brief(payload: bytes) -> str:
    if len(payload) <= _BRIEF:
        return repr(payload)
    return f"{payload[:_BRIEF]!r}... ({len(payload)} bytes)"


def _sentence(check: Callable[..., object]) -> str:
    sentence = " ".join((check.__doc__ or "").split())
    if not sentence.endswith("."):
        raise TypeError(f"{check.__name__} needs a docstring of one sentence: the promise")
    return sentence
