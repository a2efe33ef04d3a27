"""Around any storage: a time limit for each call, retries with a wait, a budget, a breaker."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, ParamSpec, Protocol, TypeVar, cast, runtime_checkable

from aiosess.errors import OptionsError, StorageError, StorageUnavailable
from aiosess.guard.breaker import Breaker
from aiosess.guard.budget import (
    Budget,
    BudgetSpent,
    grant_pause,
    in_time,
    is_spending,
    seconds_left,
)
from aiosess.storages import FreshStorage, NodeStorage, Storage, Stored, Version
from aiosess.storages.base import as_punctual, as_touching
from aiosess.timeouts import Duration, seconds

__all__ = [
    "Retries",
    "RetryPolicy",
    "RetryingStorage",
    "always_answers",
    "guarded",
    "limited_to",
    "no_wait",
]

P = ParamSpec("P")
T = TypeVar("T")

_MOST_RETRIES: Final = 1000
# A call may end so many seconds later than the budget of its act, for want of a timer of its own.
_SLACK: Final = 0.02
# Seconds that the record of a probe lives, and how many ids are tried to find one on a node.
_PROBE_TTL: Final = 1.0
_MOST_IDS: Final = 1000


def no_wait(_retry: int) -> float:
    """Return zero: the next try follows at once."""
    return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long to wait for an answer, and how often to ask again.

    - ``retries``: how many calls after the first.
    - ``wait``: called with 1, 2, ... before each of them; returns seconds or a ``timedelta``.
    - ``timeout``: seconds for one call.
    - ``budget``: seconds for all that an act of a request asks; ``None``: what one call may take
      with all its retries and waits.
    """

    retries: int = 0
    wait: Callable[[int], Duration] = no_wait
    timeout: float = 1.0
    budget: float | None = None

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
        timeout = seconds(self.timeout, name="timeout")
        if self.budget is not None:
            object.__setattr__(self, "budget", seconds(self.budget, name="budget"))
            timeout = min(timeout, self.budget)
        object.__setattr__(self, "timeout", timeout)

    def budget_of_an_act(self) -> Budget:
        """Return what one act of a request may spend."""
        if self.budget is not None:
            return Budget(self.budget)
        return Budget(self.timeout * (1 + self.retries), pauses=self.retries)

    def pause(self, retry: int) -> float:
        """Return the seconds to wait before the retry numbered *retry*, from 1."""
        return seconds(self.wait(retry), name=f"retries_strategy({retry})", zero=True)


class Retries:
    """Calls again, as *policy* says, what raised StorageUnavailable that ``may_retry``.

    A call that takes longer than the policy's timeout counts as one, unless who is called
    *is_punctual* and says so itself. No other error is tried again, and a cancelled call is not
    either. Where the act of a request has a budget, nothing begins that cannot end in time. With a
    *breaker*, nothing is asked of a node that is known to be away. RuntimeError outside of a task,
    which alone can be cancelled in time.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        is_punctual: bool = False,
        breaker: Breaker | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._policy = policy
        self._sleep = sleep
        self._limit = None if is_punctual else _Limit(policy.timeout)
        self._breaker = breaker
        self._budget = policy.budget_of_an_act()

    async def call(
        self, node: str, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return what *call*, a verb of *node*'s, returns for these arguments."""
        if not is_spending():
            return await self._budget.spend(self._call, node, call, args, kwargs)
        return await self._call(node, call, args, kwargs)

    async def _call(
        self, name: str, call: Callable[..., Awaitable[T]], args: Any, kwargs: Any
    ) -> T:
        if self._breaker is None:
            return await self._tries(lambda: False, call, args, kwargs)
        operation = operation_of(call)
        node = self._breaker.node(name)
        probed = node.enter(operation)

        def is_over() -> bool:
            # What is known to be away by now is not asked again.
            return bool(probed) or node.is_shut(operation)

        try:
            answer = await self._tries(is_over, call, args, kwargs)
        except BudgetSpent as error:
            node.given_up(probed)
            self._breaker.slow(node, operation, error)
            raise
        except StorageUnavailable as error:
            node.failed(operation, error, probed)
            raise
        except StorageError:
            node.answered(operation, probed)
            raise
        except BaseException:
            node.given_up(probed)
            raise
        node.answered(operation, probed)
        return answer

    async def _tries(
        self, is_over: Callable[[], bool], call: Callable[..., Awaitable[T]], args: Any, kwargs: Any
    ) -> T:
        retry, failed = 0, None
        while True:
            try:
                return await self._once(call, args, kwargs)
            except BudgetSpent:
                if failed is not None:
                    raise failed from failed.__cause__
                raise
            except StorageUnavailable as error:
                retry, failed = retry + 1, error
                if retry > self._policy.retries or not error.may_retry or is_over():
                    raise
                pause = self._policy.pause(retry)
                if not grant_pause(pause):
                    raise
            await self._sleep(pause)

    async def _once(self, call: Callable[..., Awaitable[T]], args: Any, kwargs: Any) -> T:
        left = seconds_left()
        if left + _SLACK >= self._policy.timeout:
            if self._limit is None:
                return await call(*args, **kwargs)
            return await self._limit.call(call, *args, **kwargs)
        return await in_time(_coroutine(call, args, kwargs), left)


async def _coroutine(call: Callable[..., Awaitable[T]], args: Any, kwargs: Any) -> T:
    return await call(*args, **kwargs)


def operation_of(call: Callable[..., object]) -> str:
    """Return the verb that *call* is; reading is one, however it is done."""
    name = getattr(call, "__name__", "call").strip("_")
    return "load" if name in {"load_and_touch", "load_afresh"} else name


@runtime_checkable
class _Instant(Protocol):
    """A storage that says whether it always answers, and at once."""

    @property
    def is_instant(self) -> bool: ...


def guarded(storage: Storage, policy: RetryPolicy, breaker: Breaker | None = None) -> Storage:
    """Return *storage* with the time limit, the retries and the budget of *policy*, and *breaker*.

    A punctual storage keeps to the limit itself, and one that always answers needs nothing else.
    """
    punctual = limited_to(policy.timeout, storage)
    if punctual is not None and always_answers(punctual):
        return punctual
    wrapped = RetryingStorage(
        punctual or storage, policy, is_punctual=punctual is not None, breaker=breaker
    )
    # To pyright, a function that returns a coroutine is none that is async.
    return cast("Storage", wrapped)


def limited_to(timeout: float, storage: Storage) -> Storage | None:
    """Return *storage* as it keeps to *timeout* seconds itself; ``None`` where it cannot."""
    punctual = as_punctual(storage)
    return None if punctual is None else punctual.within(timeout)


def always_answers(storage: Storage) -> bool:
    """Ask whether each verb of *storage* answers at once and never fails."""
    return isinstance(storage, _Instant) and storage.is_instant


class RetryingStorage:
    """Asks *storage* again, as *policy* says, when it does not answer; see Retries.

    A retried ``create`` or ``replace`` may find its own earlier try: it then raises IdTaken or
    Conflict, and the payload that is kept tells. It can ``load_and_touch`` and ``load_afresh``
    where *storage* can.

    ``straight`` is *storage* where it needs neither a time limit nor retries, so that it can be
    asked past this guard while all its nodes are well; else ``None``. Whoever does so tells
    ``failed_straight()`` what failed.
    """

    load_and_touch: Callable[[str, float], Coroutine[Any, Any, tuple[Stored, bool] | None]]
    load_afresh: Callable[..., Coroutine[Any, Any, Stored | None]]

    def __init__(
        self,
        storage: Storage,
        policy: RetryPolicy,
        *,
        is_punctual: bool = False,
        breaker: Breaker | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.straight: Storage | None = storage if is_punctual and not policy.retries else None
        self.breaker = breaker
        self._storage = storage
        self._try = Retries(policy, is_punctual=is_punctual, breaker=breaker, sleep=sleep).call
        kind = type(storage).__name__
        self.node_of: Callable[[str], str] = (
            storage.node_of if isinstance(storage, NodeStorage) else lambda _session_id: kind
        )
        touching = as_touching(storage)
        if touching is not None:
            load_and_touch = touching.load_and_touch
            self.load_and_touch = lambda session_id, ttl: self._try(
                self.node_of(session_id), load_and_touch, session_id, ttl
            )
        if isinstance(storage, FreshStorage):
            self.load_afresh = partial(self._load_afresh, storage.load_afresh)

    def _load_afresh(
        self,
        load_afresh: Callable[..., Coroutine[Any, Any, Stored | None]],
        session_id: str,
        *,
        agrees: Callable[[Stored | None], bool],
    ) -> Coroutine[Any, Any, Stored | None]:
        return self._try(self.node_of(session_id), load_afresh, session_id, agrees=agrees)

    def failed_straight(self, operation: str, session_id: str, error: StorageUnavailable) -> None:
        """Take note that a call past this guard failed, and say of which node in *error*."""
        if self.breaker is not None:
            self.breaker.node(self.node_of(session_id)).failed(operation, error)

    async def probe(self) -> None:
        """Ask each node that is not well, and that may be asked now, whether it is well again.

        What it refused to write is tried with a record that lives for a second.
        """
        if self.breaker is None:
            return
        for node in list(self.breaker.nodes.values()):
            if node.is_well:
                continue
            session_id = self._id_on(node.name)
            if session_id is None:
                self.breaker.forget(node)
                continue
            for operation in node.due():
                with contextlib.suppress(StorageError):
                    await self._probe(session_id, operation)

    async def _probe(self, session_id: str, operation: str) -> None:
        if operation == "load":
            await self.load(session_id)
            return
        version = await self.create(session_id, b"{}", _PROBE_TTL)
        if operation == "replace":
            await self.replace(session_id, b"{ }", _PROBE_TTL, expected=version)
        elif operation == "touch":
            await self.touch(session_id, _PROBE_TTL)
        elif operation == "delete":
            await self.delete(session_id)

    def _id_on(self, node: str) -> str | None:
        """Return an id that nobody has and *node* keeps; ``None`` where it keeps none any more."""
        ids = (f"aiosess-probe-{secrets.token_urlsafe(12)}" for _ in range(_MOST_IDS))
        return next((each for each in ids if self.node_of(each) == node), None)

    # Plain functions: a coroutine for each would only hand on what another one does.

    def create(self, session_id: str, payload: bytes, ttl: float) -> Coroutine[Any, Any, Version]:
        """Keep *payload* under a free id, with retries; raise IdTaken when it is not."""
        node = self.node_of(session_id)
        return self._try(node, self._storage.create, session_id, payload, ttl)

    def load(self, session_id: str) -> Coroutine[Any, Any, Stored | None]:
        """Return the record, or ``None`` when there is none, with retries."""
        return self._try(self.node_of(session_id), self._storage.load, session_id)

    def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Coroutine[Any, Any, Version]:
        """Put *payload* in the place of *expected*, with retries; raise Conflict when it is not."""
        node = self.node_of(session_id)
        return self._try(node, self._storage.replace, session_id, payload, ttl, expected=expected)

    def touch(self, session_id: str, ttl: float) -> Coroutine[Any, Any, bool]:
        """Let the record live *ttl* seconds from now, with retries; False when there is none."""
        return self._try(self.node_of(session_id), self._storage.touch, session_id, ttl)

    def delete(self, session_id: str) -> Coroutine[Any, Any, bool]:
        """Remove the record, with retries; False when there was none."""
        return self._try(self.node_of(session_id), self._storage.delete, session_id)


class _Limit:
    """Ends each call that takes longer than *timeout* seconds.

    All calls have the same time, so that they fall due in the order in which they began. One timer
    serves all of an event loop, where ``asyncio.timeout`` would set one for each.

    - ``running``: by event loop, while it has a timer, when the call that each task is waiting
      for, one at a time, falls due.
    - ``late``: the tasks whose call was ended and which do not know it yet.
    """

    def __init__(self, timeout: float) -> None:
        self.running: dict[asyncio.AbstractEventLoop, dict[asyncio.Task[Any], float]] = {}
        self.late: set[asyncio.Task[Any]] = set()
        self._timeout = timeout

    async def call(self, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what *call* returns; StorageUnavailable when it takes too long."""
        task, running = self._begin()
        cancelling = task.cancelling()
        try:
            return await call(*args, **kwargs)
        except asyncio.CancelledError as error:
            # As asyncio.timeout does: only our own cancellation becomes an error.
            if task not in self.late or task.cancelling() - 1 > cancelling:
                raise
            raise StorageUnavailable.after(self._timeout) from error
        finally:
            running.pop(task, None)
            if task in self.late:
                self.late.remove(task)
                # A storage may answer our cancellation with a result or an error of its own.
                task.uncancel()

    def _begin(self) -> tuple[asyncio.Task[Any], dict[asyncio.Task[Any], float]]:
        """Let the time of a call begin; return the task that makes it, and those of its loop."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a storage is called outside of a task: await it in one")
        due_at = loop.time() + self._timeout
        running = self.running.get(loop)
        if running is None:
            # What was under way in a loop that is closed, as in tests, is over.
            for closed in [each for each in list(self.running) if each.is_closed()]:
                self.running.pop(closed, None)
            running = self.running[loop] = {}
            loop.call_at(due_at, self._end_late, loop)
        running[task] = due_at
        return task, running

    def _end_late(self, loop: asyncio.AbstractEventLoop) -> None:
        now, running = loop.time(), self.running[loop]
        while running:
            task, due_at = next(iter(running.items()))
            if due_at > now:
                loop.call_at(due_at, self._end_late, loop)
                return
            del running[task]
            self.late.add(task)
            task.cancel()
        del self.running[loop]
