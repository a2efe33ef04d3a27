"""The contract: five verbs over bytes, and what a storage may be able to do besides."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

from aiosess.privacy import private

__all__ = [
    "Closeable",
    "FreshStorage",
    "NodeStorage",
    "NotifyingStorage",
    "PunctualStorage",
    "Storage",
    "Stored",
    "TouchingStorage",
    "Version",
    "as_notifying",
    "as_punctual",
    "as_touching",
    "namer_of_nodes",
]

Version: TypeAlias = Hashable
"""Which state of a record was seen; only the storage that gave it looks inside."""


@private()
class Stored(NamedTuple):
    """What a storage keeps under one id: the payload, and the version that it had when read."""

    payload: bytes
    version: Version


@runtime_checkable
class Storage(Protocol):
    """Keeps opaque bytes under a session id for a time.

    ``ttl`` is in seconds, more than zero; a storage that counts in whole seconds rounds up. A
    record whose ttl has run out is absent. Absence is ``None`` or ``False``, never an exception.
    Every verb raises StorageUnavailable when the back-end gives no answer, with the client's
    error as its cause, and may be cancelled at any ``await`` without harm to later calls.
    """

    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        """Keep *payload* under an id that is free, and return its version.

        Raise IdTaken, and change nothing, when there is a record already.
        """
        ...

    async def load(self, session_id: str) -> Stored | None:
        """Return the record, or ``None`` when there is none; its life is not extended."""
        ...

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        """Put *payload* in the place of the version *expected*, and return the new version.

        Raise Conflict, and change nothing, when the record is of another version (which the
        error carries) or is gone.
        """
        ...

    async def touch(self, session_id: str, ttl: float) -> bool:
        """Let the record live *ttl* seconds from now; its payload and version stay.

        Return False, and create nothing, when there is no such record.
        """
        ...

    async def delete(self, session_id: str) -> bool:
        """Remove the record. Return False when there was none."""
        ...


@runtime_checkable
class TouchingStorage(Protocol):
    """A storage that can read a record and extend its life in one call."""

    async def load_and_touch(self, session_id: str, ttl: float) -> tuple[Stored, bool] | None:
        """Return the record, and whether it now lives *ttl* seconds.

        A record that lives longer anyway keeps its end, and the second is False; one that has no
        end keeps none, and it is True. Payload and version stay. Return ``None``, and create
        nothing, when there is no such record.
        """
        ...


@runtime_checkable
class PunctualStorage(Protocol):
    """A storage that can keep to a time limit itself, which costs less than one around it."""

    def within(self, timeout: float) -> Storage | None:
        """Return the same storage, whose calls raise StorageUnavailable after *timeout* seconds.

        ``None`` where it cannot, as it is set up.
        """
        ...


@runtime_checkable
class NodeStorage(Protocol):
    """A storage that can say on which server of its back-end a record is.

    An outage is then one of that server alone, and its log line says where it is.
    """

    def node_of(self, session_id: str) -> str:
        """Return the server that keeps *session_id*, as ``host:port``; nothing is asked."""
        ...


@runtime_checkable
class FreshStorage(Protocol):
    """A storage whose calls share connections, and that can ask on one that nobody else uses.

    Where a reply is lost on the way, those behind it on a shared connection reach the wrong callers
    from then on. Without this ability, a record that is doubted is asked for by ``load`` again.
    """

    async def load_afresh(
        self, session_id: str, *, agrees: Callable[[Stored | None], bool]
    ) -> Stored | None:
        """Return the record, asked for on a new connection; ``None`` when there is none.

        Where *agrees* says of it that it is not what the shared connection answered, that
        connection is ended: the calls that wait on it raise StorageUnavailable.
        """
        ...


@runtime_checkable
class NotifyingStorage(Protocol):
    """A storage by which the processes of an application can tell each other something at once.

    What they tell is that something happened to a session. A notice may get lost, and proves
    nothing: whoever hears one looks at the record.
    """

    async def publish(self, notice: bytes) -> None:
        """Tell *notice* to all who are subscribed now, here and in other processes.

        StorageUnavailable when the back-end does not answer.
        """
        ...

    def subscribe(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Return what, once entered, hears each notice that is published from then on.

        Those of this process are among them. Entering, and going on to the next notice, raise
        StorageUnavailable where the back-end cannot be heard. Leaving ends it.
        """
        ...


@runtime_checkable
class Closeable(Protocol):
    """A storage that holds connections of its own."""

    async def close(self) -> None:
        """Close what the storage opened itself; a client that was handed in stays open."""
        ...


def as_touching(storage: object) -> TouchingStorage | None:
    """Return *storage* as one that can load and touch in one call; ``None`` where it cannot."""
    if isinstance(storage, TouchingStorage) and _has_itself(storage, "load_and_touch"):
        return storage
    return None


def as_punctual(storage: object) -> PunctualStorage | None:
    """Return *storage* as one that can keep to a time limit; ``None`` where it cannot."""
    if isinstance(storage, PunctualStorage) and _has_itself(storage, "within"):
        return storage
    return None


def as_notifying(storage: object) -> NotifyingStorage | None:
    """Return *storage* as one that can tell other processes; ``None`` where it cannot."""
    if isinstance(storage, NotifyingStorage) and _has_itself(storage, "publish"):
        return storage
    return None


def namer_of_nodes(storage: object) -> Callable[[str], str]:
    """Return what tells of a session id on which server *storage* keeps it; else its class."""
    if isinstance(storage, NodeStorage):
        return storage.node_of
    kind = type(storage).__name__
    return lambda _session_id: kind


def _has_itself(storage: object, verb: str) -> bool:
    # What __getattr__ hands out belongs to another storage: calls would go past this one.
    return hasattr(type(storage), verb) or verb in getattr(storage, "__dict__", ())
