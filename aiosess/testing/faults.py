"""A storage that works until it is told to fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from aiosess.errors import StorageUnavailable
from aiosess.storages import Closeable, MemoryStorage, Storage, Stored, Version

__all__ = ["FaultyStorage"]

T = TypeVar("T")

_VERBS: Final = ("create", "load", "replace", "touch", "delete")


class FaultyStorage:
    """Passes each call on to *storage*, notes its verb in ``calls``, and fails when told to."""

    def __init__(self, storage: Storage | None = None) -> None:
        self.storage: Storage = MemoryStorage() if storage is None else storage
        self.calls: list[str] = []
        self._error: Exception | None = None
        self._failures_left: int | None = None
        self._verbs: frozenset[str] = frozenset()
        self._is_answer_lost = False
        self._is_hanging = False

    def fail(
        self,
        error: Exception | None = None,
        *,
        times: int | None = None,
        verbs: tuple[str, ...] = _VERBS,
        lose_answer: bool = False,
    ) -> None:
        """From here on raise *error* (by default StorageUnavailable) for each of *verbs*.

        *times*: so many calls, then work again; ``None``: until ``recover()``. *lose_answer*: the
        call is done first, as when a connection breaks while the answer is on its way. Raise
        TypeError for an *error* that is none, ValueError for a verb that a storage has not.
        """
        if not isinstance(error, Exception | None):
            raise TypeError(
                f"fail({error!r}): give an exception, or verbs=({error!r},) for calls of one verb"
            )
        if unknown := set(verbs).difference(_VERBS):
            raise ValueError(f"verbs={sorted(unknown)!r}: a storage has only {_VERBS!r}")
        self._error = StorageUnavailable("told to fail") if error is None else error
        self._failures_left = times
        self._verbs = frozenset(verbs)
        self._is_answer_lost = lose_answer

    def hang(self) -> None:
        """From here on never answer; a call can only be cancelled."""
        self._is_hanging = True

    def recover(self) -> None:
        """Work again."""
        self._error = None
        self._is_hanging = False

    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        """Let *storage* keep *payload* under a free id, or fail as told."""
        return await self._pass("create", lambda: self.storage.create(session_id, payload, ttl))

    async def load(self, session_id: str) -> Stored | None:
        """Return the record that *storage* has, or fail as told."""
        return await self._pass("load", lambda: self.storage.load(session_id))

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        """Let *storage* put *payload* in the place of *expected*, or fail as told."""
        return await self._pass(
            "replace",
            lambda: self.storage.replace(session_id, payload, ttl, expected=expected),
        )

    async def touch(self, session_id: str, ttl: float) -> bool:
        """Let the record in *storage* live *ttl* seconds from now, or fail as told."""
        return await self._pass("touch", lambda: self.storage.touch(session_id, ttl))

    async def delete(self, session_id: str) -> bool:
        """Remove the record from *storage*, or fail as told."""
        return await self._pass("delete", lambda: self.storage.delete(session_id))

    async def close(self) -> None:
        """Close the storage; it never fails at this."""
        if isinstance(self.storage, Closeable):
            await self.storage.close()

    async def _pass(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        self.calls.append(verb)
        if self._is_hanging:
            await asyncio.Event().wait()
        error = self._next_error(verb)
        if error is None:
            return await call()
        if self._is_answer_lost:
            await call()
        # A back-end raises a new one each time, and whoever catches it may write into it.
        raise error.again() if isinstance(error, StorageUnavailable) else error

    def _next_error(self, verb: str) -> Exception | None:
        if verb not in self._verbs or self._failures_left == 0:
            return None
        if self._error is not None and self._failures_left is not None:
            self._failures_left -= 1
        return self._error
