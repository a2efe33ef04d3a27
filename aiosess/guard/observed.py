"""Each call of a storage, told to a function when it has ended: for traces and for metrics."""

from __future__ import annotations

import enum
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, TypeAlias, TypeVar

from msgspec import Struct

from aiosess.errors import Conflict, IdTaken, StorageUnavailable
from aiosess.events import tell_safely
from aiosess.guard.retries import always_answers, limited_to
from aiosess.storages import FreshStorage, Storage, Stored, Version
from aiosess.storages.base import as_notifying, as_touching, namer_of_nodes

__all__ = ["ObservedStorage", "Outcome", "StorageCall", "Watch", "observed"]

T = TypeVar("T")


class Outcome(enum.Enum):
    """How a call of a storage ended."""

    DONE = "done"
    ABSENT = "absent"
    """There is no such record."""
    TAKEN = "taken"
    """A record is there already under an id that was to be new."""
    CONFLICT = "conflict"
    """The record was changed or ended since it was read."""
    UNAVAILABLE = "unavailable"
    """The back-end gave no answer, or none in time."""
    REFUSED = "refused"
    """The back-end answered that it cannot do that now."""
    GIVEN_UP = "given_up"
    """Nobody waited any longer: the call was cancelled, by a time limit around it or a request."""
    FAILED = "failed"
    """Any other error."""


class StorageCall(Struct, frozen=True):
    """One call of a storage, which has just ended; a retry is another one.

    - ``operation``: the verb: ``"create"``, ``"load"`` (also where it touches), ``"replace"``,
      ``"touch"`` or ``"delete"``; of a storage made for aiohttp-session ``"load"`` or ``"save"``.
    - ``node``: the server that was asked, as ``host:port``, or what the storage calls it; else the
      name of the storage's class.
    - ``seconds``: how long it took.
    - ``outcome``: how it ended.
    """

    operation: str
    node: str
    seconds: float
    outcome: Outcome


Watch: TypeAlias = Callable[[StorageCall], object]
"""What ``SessionOptions.on_storage_call`` takes."""


async def observed(watch: Watch, operation: str, node: str, call: Awaitable[T]) -> T:
    """Return what *call* returns, and tell *watch* how it ended; what that raises is logged."""
    began_at, outcome = time.monotonic(), Outcome.GIVEN_UP
    try:
        answer = await call
        outcome = Outcome.ABSENT if _is_absence(answer) else Outcome.DONE
        return answer
    except Exception as error:
        outcome = _outcome_of(error)
        raise
    finally:
        ended = StorageCall(operation, node, time.monotonic() - began_at, outcome)
        tell_safely(watch, ended, "on_storage_call")


def _is_absence(answer: object) -> bool:
    return answer is None or answer is False


def _outcome_of(error: Exception) -> Outcome:
    match error:
        case StorageUnavailable():
            return Outcome.REFUSED if error.is_answer else Outcome.UNAVAILABLE
        case IdTaken():
            return Outcome.TAKEN
        case Conflict():
            return Outcome.CONFLICT
        case _:
            return Outcome.FAILED


class ObservedStorage:
    """Tells *watch* how each call of *storage* ended, and can do what *storage* can."""

    load_and_touch: Callable[[str, float], Coroutine[Any, Any, tuple[Stored, bool] | None]]
    load_afresh: Callable[..., Coroutine[Any, Any, Stored | None]]
    publish: Callable[[bytes], Coroutine[Any, Any, None]]
    subscribe: Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]]

    def __init__(self, storage: Storage, watch: Watch) -> None:
        self._storage = storage
        self._watch = watch
        self.node_of: Callable[[str], str] = namer_of_nodes(storage)
        self.is_instant: bool = always_answers(storage)
        if isinstance(storage, FreshStorage):
            self.load_afresh = partial(self._load_afresh, storage.load_afresh)
        touching = as_touching(storage)
        if touching is not None:
            load_and_touch = touching.load_and_touch
            self.load_and_touch = lambda session_id, ttl: self._observed(
                "load", session_id, load_and_touch(session_id, ttl)
            )
        notifying = as_notifying(storage)
        if notifying is not None:
            # No verbs: they ask for no record.
            self.publish, self.subscribe = notifying.publish, notifying.subscribe

    def within(self, timeout: float) -> ObservedStorage | None:
        """Return the same storage, limited to *timeout* seconds; ``None`` where it cannot be."""
        limited = limited_to(timeout, self._storage)
        return None if limited is None else ObservedStorage(limited, self._watch)

    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        """Keep *payload* under a free id; raise IdTaken when it is not."""
        call = self._storage.create(session_id, payload, ttl)
        return await self._observed("create", session_id, call)

    async def load(self, session_id: str) -> Stored | None:
        """Return the record, or ``None`` when there is none."""
        return await self._observed("load", session_id, self._storage.load(session_id))

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        """Put *payload* in the place of *expected*; raise Conflict when it is not there."""
        call = self._storage.replace(session_id, payload, ttl, expected=expected)
        return await self._observed("replace", session_id, call)

    async def touch(self, session_id: str, ttl: float) -> bool:
        """Let the record live *ttl* seconds from now; False when there is none."""
        return await self._observed("touch", session_id, self._storage.touch(session_id, ttl))

    async def delete(self, session_id: str) -> bool:
        """Remove the record; False when there was none."""
        return await self._observed("delete", session_id, self._storage.delete(session_id))

    async def _load_afresh(
        self,
        load_afresh: Callable[..., Coroutine[Any, Any, Stored | None]],
        session_id: str,
        *,
        agrees: Callable[[Stored | None], bool],
    ) -> Stored | None:
        return await self._observed("load", session_id, load_afresh(session_id, agrees=agrees))

    def _observed(
        self, operation: str, session_id: str, call: Coroutine[Any, Any, T]
    ) -> Coroutine[Any, Any, T]:
        return observed(self._watch, operation, self.node_of(session_id), call)
