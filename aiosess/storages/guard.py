"""Trying again: a time limit for each call and retries with a wait, around any storage."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, Protocol, TypeVar, cast, runtime_checkable

from aiosess.errors import OptionsError, StorageUnavailable
from aiosess.storages import (
    PunctualStorage,
    Storage,
    Stored,
    TouchingStorage,
    Version,
)
from aiosess.timeouts import Duration, seconds

__all__ = ["Retries", "RetryPolicy", "RetryingStorage", "guarded", "no_wait"]

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
    """Calls again, as *policy* says, what raised StorageUnavailable that ``may_retry``.

    A call that takes longer than the policy's timeout counts as one, unless who is called
    *is_punctual* and says so itself. No other error is tried again, and a cancelled call is not
    either. RuntimeError outside of a task, which alone can be cancelled in time.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        is_punctual: bool = False,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._policy = policy
        self._sleep = sleep
        self._limit = None if is_punctual else _Limit(policy.timeout)

    async def call(self, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what *call* returns for these arguments."""
        retry = 0
        while True:
            try:
                if self._limit is None:
                    return await call(*args, **kwargs)
                return await self._limit.call(call, *args, **kwargs)
            except StorageUnavailable as error:
                retry += 1
                if retry > self._policy.retries or not error.may_retry:
                    raise
            await self._sleep(self._policy.pause(retry))


@runtime_checkable
class _Instant(Protocol):
    """A storage that says whether it always answers, and at once."""

    @property
    def is_instant(self) -> bool: ...


def guarded(storage: Storage, policy: RetryPolicy) -> Storage:
    """Return *storage* with what it lacks of the time limit and the retries of *policy*.

    A punctual storage keeps to the limit itself, and one that always answers needs no retries.
    """
    punctual = storage.within(policy.timeout) if isinstance(storage, PunctualStorage) else None
    if punctual is not None and (not policy.retries or _always_answers(punctual)):
        return punctual
    wrapped = RetryingStorage(punctual or storage, policy, is_punctual=punctual is not None)
    # To pyright, a function that returns a coroutine is none that is async.
    return cast("Storage", wrapped)


def _always_answers(storage: Storage) -> bool:
    return isinstance(storage, _Instant) and storage.is_instant


class RetryingStorage:
    """Asks *storage* again, as *policy* says, when it does not answer; see Retries.

    A retried ``create`` or ``replace`` may find its own earlier try: it then raises IdTaken or
    Conflict, and the payload that is kept tells. It can ``load_and_touch`` where *storage* can.
    """

    load_and_touch: Callable[[str, float], Coroutine[Any, Any, tuple[Stored, bool] | None]]

    def __init__(
        self,
        storage: Storage,
        policy: RetryPolicy,
        *,
        is_punctual: bool = False,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._storage = storage
        self._try = Retries(policy, is_punctual=is_punctual, sleep=sleep).call
        if isinstance(storage, TouchingStorage):
            load_and_touch = storage.load_and_touch
            self.load_and_touch = lambda session_id, ttl: self._try(load_and_touch, session_id, ttl)

    # Plain functions: a coroutine for each would only hand on what another one does.

    def create(self, session_id: str, payload: bytes, ttl: float) -> Coroutine[Any, Any, Version]:
        """Keep *payload* under a free id, with retries; raise IdTaken when it is not."""
        return self._try(self._storage.create, session_id, payload, ttl)

    def load(self, session_id: str) -> Coroutine[Any, Any, Stored | None]:
        """Return the record, or ``None`` when there is none, with retries."""
        return self._try(self._storage.load, session_id)

    def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Coroutine[Any, Any, Version]:
        """Put *payload* in the place of *expected*, with retries; raise Conflict when it is not."""
        return self._try(self._storage.replace, session_id, payload, ttl, expected=expected)

    def touch(self, session_id: str, ttl: float) -> Coroutine[Any, Any, bool]:
        """Let the record live *ttl* seconds from now, with retries; False when there is none."""
        return self._try(self._storage.touch, session_id, ttl)

    def delete(self, session_id: str) -> Coroutine[Any, Any, bool]:
        """Remove the record, with retries; False when there was none."""
        return self._try(self._storage.delete, session_id)


class _Limit:
    """Ends each call that takes longer than *timeout* seconds.

    All calls have the same time, so that they fall due in the order in which they began: one
    timer serves them all, where ``asyncio.timeout`` would set one for each.

    - ``running``: when the call that each task is waiting for, one at a time, falls due.
    - ``late``: the tasks whose call was ended and which do not know it yet.
    """

    def __init__(self, timeout: float) -> None:
        self.running: dict[asyncio.Task[Any], float] = {}
        self.late: set[asyncio.Task[Any]] = set()
        self._timeout = timeout
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_timed = False

    async def call(self, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what *call* returns; StorageUnavailable when it takes too long."""
        task = self._begin()
        cancelling = task.cancelling()
        try:
            return await call(*args, **kwargs)
        except asyncio.CancelledError as error:
            # As asyncio.timeout does: only our own cancellation becomes an error.
            if task not in self.late or task.cancelling() - 1 > cancelling:
                raise
            raise StorageUnavailable.after(self._timeout) from error
        finally:
            self.running.pop(task, None)
            if task in self.late:
                self.late.remove(task)
                # A storage may answer our cancellation with a result or an error of its own.
                task.uncancel()

    def _begin(self) -> asyncio.Task[Any]:
        """Let the time of a call begin, and return the task that makes it."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a storage is called outside of a task: await it in one")
        if loop is not self._loop:
            # Another loop, as in tests: what was under way in the last one is over.
            self._loop, self._is_timed = loop, False
            self.running.clear()
            self.late.clear()
        self.running[task] = due_at = loop.time() + self._timeout
        if not self._is_timed:
            self._is_timed = True
            loop.call_at(due_at, self._end_late, loop)
        return task

    def _end_late(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:
            return
        now = loop.time()
        while self.running:
            task, due_at = next(iter(self.running.items()))
            if due_at > now:
                loop.call_at(due_at, self._end_late, loop)
                return
            del self.running[task]
            self.late.add(task)
            task.cancel()
        self._is_timed = False
