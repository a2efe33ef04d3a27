"""Trying again: a time limit for each call and retries with a wait, around any storage."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeVar

from aiosess.errors import OptionsError, StorageUnavailable
from aiosess.storages import Storage, Stored, Version
from aiosess.timeouts import Duration, seconds

__all__ = ["Retries", "RetryPolicy", "RetryingStorage", "no_wait"]

P = ParamSpec("P")
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


class Retries:
    """Calls again, as *policy* says, what raised StorageUnavailable.

    A call that takes longer than the policy's timeout counts as one. No other error is tried
    again, and a cancelled call is not either.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._policy = policy
        self._sleep = sleep
        self._deadlines = _Deadlines(policy.timeout)

    async def call(self, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what *call* returns for these arguments."""
        retry = 0
        while True:
            try:
                return await self._deadlines.run(call(*args, **kwargs))
            except StorageUnavailable:
                retry += 1
                if retry > self._policy.retries:
                    raise
            await self._sleep(self._policy.pause(retry))


class RetryingStorage:
    """Asks *storage* again, as *policy* says, when it does not answer.

    A retried ``create`` or ``replace`` may find its own earlier try: it then raises IdTaken or
    Conflict, and the payload that is kept tells.
    """

    def __init__(
        self,
        storage: Storage,
        policy: RetryPolicy,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._storage = storage
        self._try = Retries(policy, sleep=sleep).call

    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        """As the storage does, with retries."""
        return await self._try(self._storage.create, session_id, payload, ttl)

    async def load(self, session_id: str) -> Stored | None:
        """As the storage does, with retries."""
        return await self._try(self._storage.load, session_id)

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        """As the storage does, with retries."""
        return await self._try(self._storage.replace, session_id, payload, ttl, expected=expected)

    async def touch(self, session_id: str, ttl: float) -> bool:
        """As the storage does, with retries."""
        return await self._try(self._storage.touch, session_id, ttl)

    async def delete(self, session_id: str) -> bool:
        """As the storage does, with retries."""
        return await self._try(self._storage.delete, session_id)


class _Call:
    """One call that is under way; *task* ``None`` once it is done."""

    __slots__ = ("due_at", "is_late", "task")

    def __init__(self, task: asyncio.Task[Any] | None, due_at: float) -> None:
        self.task = task
        self.due_at = due_at
        self.is_late = False


class _Deadlines:
    """Ends each call that takes longer than *timeout* seconds.

    All calls have the same time, so that they fall due in the order in which they began: one
    timer serves them all, where ``asyncio.timeout`` would set one for each.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._calls: deque[_Call] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, awaitable: Awaitable[T]) -> T:
        """Return what *awaitable* returns; StorageUnavailable when that takes too long."""
        call = self._begin()
        task = call.task
        cancelling = 0 if task is None else task.cancelling()
        try:
            return await awaitable
        except asyncio.CancelledError as error:
            # As asyncio.timeout does: only our own cancellation, and no other, becomes an error.
            if call.is_late and task is not None and task.cancelling() - 1 <= cancelling:
                raise StorageUnavailable(
                    f"the storage did not answer within {self._timeout:g} s"
                ) from error
            raise
        finally:
            call.task = None
            if call.is_late and task is not None:
                # A storage may answer our cancellation with a result or an error of its own.
                task.uncancel()

    def _begin(self) -> _Call:
        loop = asyncio.get_running_loop()
        call = _Call(asyncio.current_task(), loop.time() + self._timeout)
        if loop is not self._loop:
            # Another loop, as in tests: what was under way in the last one is over.
            self._loop = loop
            self._calls.clear()
        if not self._calls:
            loop.call_at(call.due_at, self._end_late, loop)
        self._calls.append(call)
        return call

    def _end_late(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:
            return
        calls, now = self._calls, loop.time()
        while calls and (calls[0].task is None or calls[0].due_at <= now):
            call = calls.popleft()
            if call.task is not None:
                call.is_late = True
                call.task.cancel()
        if calls:
            loop.call_at(calls[0].due_at, self._end_late, loop)
