"""A storage that works until it is told to fail."""

from __future__ import annotations

import asyncio

from aiosess.errors import StorageUnavailable
from aiosess.storages import MemoryStorage, Storage, Stored, Version

__all__ = ["FaultyStorage"]


class FaultyStorage:
    """Passes each call on to *storage*, notes its verb in ``calls``, and fails when told to."""

    def __init__(self, storage: Storage | None = None) -> None:
        self.storage: Storage = MemoryStorage() if storage is None else storage
        self.calls: list[str] = []
        self._error: Exception | None = None
        self._failures_left: int | None = None
        self._verbs: frozenset[str] = frozenset()
        self._is_hanging = False

    def fail(
        self,
        error: Exception | None = None,
        *,
        times: int | None = None,
        verbs: tuple[str, ...] = ("create", "load", "replace", "touch", "delete"),
    ) -> None:
        """From here on raise *error* (by default StorageUnavailable) for each of *verbs*.

        *times*: so many calls, then work again; ``None``: until ``recover()``.
        """
        self._error = StorageUnavailable("told to fail") if error is None else error
        self._failures_left = times
        self._verbs = frozenset(verbs)

    def hang(self) -> None:
        """From here on never answer; a call can only be cancelled."""
        self._is_hanging = True

    def recover(self) -> None:
        """Work again."""
        self._error = None
        self._is_hanging = False

    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        """As the storage does."""
        await self._pass("create")
        return await self.storage.create(session_id, payload, ttl)

    async def load(self, session_id: str) -> Stored | None:
        """As the storage does."""
        await self._pass("load")
        return await self.storage.load(session_id)

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        """As the storage does."""
        await self._pass("replace")
        return await self.storage.replace(session_id, payload, ttl, expected=expected)

    async def touch(self, session_id: str, ttl: float) -> bool:
        """As the storage does."""
        await self._pass("touch")
        return await self.storage.touch(session_id, ttl)

    async def delete(self, session_id: str) -> bool:
        """As the storage does."""
        await self._pass("delete")
        return await self.storage.delete(session_id)

    async def _pass(self, verb: str) -> None:
        self.calls.append(verb)
        if self._is_hanging:
            await asyncio.Event().wait()
        if self._error is None or verb not in self._verbs:
            return
        if self._failures_left is not None:
            if self._failures_left == 0:
                return
            self._failures_left -= 1
        raise self._error
