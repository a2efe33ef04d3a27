"""Trying again: a time limit for each call and retries with a wait, around any storage."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from aiosess.errors import OptionsError, StorageUnavailable
from aiosess.storages import Storage, Stored, Version
from aiosess.timeouts import Duration, seconds

__all__ = ["RetryPolicy", "RetryingStorage", "no_wait"]

T = TypeVar("T")

_MOST_RETRIES: Final = 1000


def no_wait(_retry: int) -> float:
    """Return zero: the next try follows at once."""
    return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long to wait for an answer, and how often to ask again.

    - ``retries``: how many calls after the first.
    - ``wait``: called with 1, 2, ... before each of them; returns seconds or a ``timedelta``.
    - ``timeout``: seconds for one call.
    """

    retries: int = 0
    wait: Callable[[int], Duration] = no_wait
    timeout: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.retries, int) or isinstance(self.retries, bool):
            raise OptionsError(f"retries={self.retries!r} must be a whole number or None")
        if not 0 <= self.retries <= _MOST_RETRIES:
            raise OptionsError(f"retries={self.retries!r} must be from 0 to {_MOST_RETRIES}")
        if not callable(self.wait):
            raise OptionsError(
                f"retries_strategy={self.wait!r} is not callable: "
                "give a function of the retry's number that returns seconds"
            )
        object.__setattr__(self, "timeout", seconds(self.timeout, name="timeout"))

    def pause(self, retry: int) -> float:
        """Return the seconds to wait before the retry numbered *retry*, from 1."""
        return seconds(self.wait(retry), name=f"retries_strategy({retry})", zero=True)


class RetryingStorage:
    """Asks *storage* again, as *policy* says, when it raises StorageUnavailable.

    A call that takes longer than the policy's timeout counts as one. No other error is tried
    again, and a cancelled call is not either. A retried ``create`` or ``replace`` may find its
    own earlier try: it then raises IdTaken or Conflict, and the payload that is kept tells.
    """

    def __init__(
        self,
        storage: Storage,
        policy: RetryPolicy,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._storage = storage
        self._policy = policy
        self._sleep = sleep

    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        """As the storage does, with retries."""
        return await self._try(lambda: self._storage.create(session_id, payload, ttl))

    async def load(self, session_id: str) -> Stored | None:
        """As the storage does, with retries."""
        return await self._try(lambda: self._storage.load(session_id))

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        """As the storage does, with retries."""
        return await self._try(
            lambda: self._storage.replace(session_id, payload, ttl, expected=expected)
        )

    async def touch(self, session_id: str, ttl: float) -> bool:
        """As the storage does, with retries."""
        return await self._try(lambda: self._storage.touch(session_id, ttl))

    async def delete(self, session_id: str) -> bool:
        """As the storage does, with retries."""
        return await self._try(lambda: self._storage.delete(session_id))

    async def _try(self, call: Callable[[], Awaitable[T]]) -> T:
        retry = 0
        while True:
            try:
                return await self._once(call)
            except StorageUnavailable:
                retry += 1
                if retry > self._policy.retries:
                    raise
                await self._sleep(self._policy.pause(retry))

    async def _once(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self._policy.timeout):
                return await call()
        except TimeoutError as error:
            raise StorageUnavailable(
                f"the storage did not answer within {self._policy.timeout:g} s"
            ) from error
