"""Around any storage: a time limit for each call, retries with a wait, a budget, a breaker."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, ParamSpec, Protocol, TypeVar, cast, runtime_checkable

from aiosess.errors import OptionsError, StorageError, StorageUnavailable
from aiosess.events import Events
from aiosess.guard.breaker import Breaker
from aiosess.guard.budget import (
    Budget,
    BudgetSpent,
    grant_pause,
    in_time,
    is_spending,
    seconds_left,
)
from aiosess.storages import FreshStorage, Storage, Stored, Version
from aiosess.storages.base import as_notifying, as_punctual, as_touching, namer_of_nodes
from aiosess.timeouts import Duration, seconds

__all__ = [
    "Retries",
    "RetryPolicy",
    "RetryingStorage",
    "always_answers",
    "guard_of",
    "guarded_by",
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

    @property
    def has_own_budget(self) -> bool:
        """Whether an act may spend something else than the time limit of one call."""
        return self.retries > 0 or self.budget is not None

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
    either. Where the act of a request has a budget, nothing begins that cannot end in time. Nothing
    is asked of a node that *breaker* knows to be away; by default, it only takes note.
    RuntimeError outside of a task, which alone can be cancelled in time.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        is_punctual: bool = False,
        breaker: Breaker | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.breaker: Breaker = breaker or Breaker(None, Events())
        self._policy = policy
        self._sleep = sleep
        self._is_punctual = is_punctual
        self._budget = policy.budget_of_an_act()

    async def call(
        self,
        node: str,
        operation: str,
        call: Callable[P, Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Return what *call*, which does *operation* on *node*, returns for these arguments."""

        def once() -> Awaitable[T]:
            return call(*args, **kwargs)

        if not is_spending():
            return await self._budget.spend(self._call, node, operation, once)
        return await self._call(node, operation, once)

    async def _call(self, name: str, operation: str, once: Callable[[], Awaitable[T]]) -> T:
        node = self.breaker.node(name)
        probed = node.enter(operation)

        def is_over() -> bool:
            # What is known to be away by now is not asked again.
            return bool(probed) or node.is_shut(operation)

        try:
            answer = await self._tries(once, is_over)
        except BudgetSpent as error:
            node.given_up(probed)
            self.breaker.slow(node, operation, error)
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

    async def _tries(self, once: Callable[[], Awaitable[T]], is_over: Callable[[], bool]) -> T:
        retry, failed = 0, None
        while True:
            try:
                return await self._in_time(once)
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

    async def _in_time(self, once: Callable[[], Awaitable[T]]) -> T:
        left, timeout = seconds_left(), self._policy.timeout
        if left + _SLACK < timeout:
            return await in_time(once, left)
        if self._is_punctual and self._policy.has_own_budget:
            # An answer that is on its way makes a call longer than its time limit.
            return await in_time(once, max(left, timeout) + _SLACK)
        if self._is_punctual:
            return await once()
        return await in_time(once, timeout, late=StorageUnavailable.after(timeout))


@runtime_checkable
class _Instant(Protocol):
    """A storage that says whether it always answers, and at once."""

    @property
    def is_instant(self) -> bool: ...


def guard_of(
    storage: Storage, policy: RetryPolicy, breaker: Breaker | None = None
) -> RetryingStorage | None:
    """Return a guard of *storage*; ``None`` where that always answers at once, and needs none.

    The guard adds the retries and the budget of *policy*, *breaker*, and the time limit where
    *storage* cannot keep to one itself.
    """
    punctual = limited_to(policy.timeout, storage)
    if punctual is not None and always_answers(punctual):
        return None
    return RetryingStorage(
        punctual or storage, policy, is_punctual=punctual is not None, breaker=breaker
    )


def guarded_by(guard: RetryingStorage | None, storage: Storage) -> Storage:
    """Return *guard* as the storage that it is; *storage* itself where it has none."""
    # To pyright, a function that returns a coroutine is none that is async.
    return storage if guard is None else cast("Storage", guard)


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
    Conflict, and the payload that is kept tells. It can ``load_and_touch``, ``load_afresh``,
    ``publish`` and ``subscribe`` where *storage* can.

    ``straight`` is *storage* where it needs neither a time limit nor retries, so that it can be
    asked past this guard while all its nodes are well; else ``None``. Whoever does so tells
    ``failed_straight()`` what failed.
    """

    load_and_touch: Callable[[str, float], Coroutine[Any, Any, tuple[Stored, bool] | None]]
    load_afresh: Callable[..., Coroutine[Any, Any, Stored | None]]
    publish: Callable[[bytes], Coroutine[Any, Any, None]]
    subscribe: Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]]

    def __init__(
        self,
        storage: Storage,
        policy: RetryPolicy,
        *,
        is_punctual: bool = False,
        breaker: Breaker | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        retries = Retries(policy, is_punctual=is_punctual, breaker=breaker, sleep=sleep)
        needs_no_more = is_punctual and not policy.has_own_budget
        self.straight: Storage | None = storage if needs_no_more else None
        self.breaker: Breaker = retries.breaker
        self.node_of: Callable[[str], str] = namer_of_nodes(storage)
        self._storage = storage
        self._try = retries.call
        touching = as_touching(storage)
        if touching is not None:
            load_and_touch = touching.load_and_touch
            self.load_and_touch = lambda session_id, ttl: self._try(
                self.node_of(session_id), "load", load_and_touch, session_id, ttl
            )
        if isinstance(storage, FreshStorage):
            self.load_afresh = partial(self._load_afresh, storage.load_afresh)
        notifying = as_notifying(storage)
        if notifying is not None:
            # A notice is not worth a retry, and says nothing of how the records do.
            self.publish, self.subscribe = notifying.publish, notifying.subscribe

    def _load_afresh(
        self,
        load_afresh: Callable[..., Coroutine[Any, Any, Stored | None]],
        session_id: str,
        *,
        agrees: Callable[[Stored | None], bool],
    ) -> Coroutine[Any, Any, Stored | None]:
        return self._try(self.node_of(session_id), "load", load_afresh, session_id, agrees=agrees)

    def failed_straight(self, operation: str, session_id: str, error: StorageUnavailable) -> None:
        """Take note that a call past this guard failed, and say of which node in *error*."""
        self.breaker.node(self.node_of(session_id)).failed(operation, error)

    async def probe(self) -> None:
        """Ask each node that is not well, and that may be asked now, whether it is well again.

        What it refused to write is tried with a record that lives for a second.
        """
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
        return self._try(node, "create", self._storage.create, session_id, payload, ttl)

    def load(self, session_id: str) -> Coroutine[Any, Any, Stored | None]:
        """Return the record, or ``None`` when there is none, with retries."""
        return self._try(self.node_of(session_id), "load", self._storage.load, session_id)

    def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Coroutine[Any, Any, Version]:
        """Put *payload* in the place of *expected*, with retries; raise Conflict when it is not."""
        node = self.node_of(session_id)
        replace = self._storage.replace
        return self._try(node, "replace", replace, session_id, payload, ttl, expected=expected)

    def touch(self, session_id: str, ttl: float) -> Coroutine[Any, Any, bool]:
        """Let the record live *ttl* seconds from now, with retries; False when there is none."""
        return self._try(self.node_of(session_id), "touch", self._storage.touch, session_id, ttl)

    def delete(self, session_id: str) -> Coroutine[Any, Any, bool]:
        """Remove the record, with retries; False when there was none."""
        return self._try(self.node_of(session_id), "delete", self._storage.delete, session_id)
