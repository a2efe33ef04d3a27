"""Every exception, drawn as a tree; each says what to do next.

::

    AiosessError
    ├── OptionsError             an option makes no sense: mend it (also a ValueError)
    ├── SessionError             this request cannot go on with its session as it is
    │   ├── SessionGone          its record went meanwhile: start over or answer without
    │   ├── TooManySessions      the principal has as many as it may have: one of them is to end
    │   ├── SessionNotSent       the headers have left: save earlier, or use setup()
    │   ├── MergeConflict        two requests changed one value and merge="raise"
    │   ├── InvalidValue         what is kept has not the type of its SessionKey (also a ValueError)
    │   ├── RecordTooLarge       the record would be above max_record_size: keep less in it
    │   └── UnserializableValue  a value cannot be kept as JSON (also a TypeError)
    ├── RecordError              the bytes under an id are not a record
    └── StorageError             the storage could not do what it was asked
        ├── StorageUnavailable   no answer, or not now: try again later (may_retry: at once)
        ├── Conflict             the record changed or went: load again, or give up
        └── IdTaken              there is a record under this id already: use another id

No message holds a session id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from aiosess.storages.base import Stored

_LONGEST_NAME: Final = 60

__all__ = [
    "AiosessError",
    "Conflict",
    "IdTaken",
    "InvalidValue",
    "MergeConflict",
    "OptionsError",
    "RecordError",
    "RecordTooLarge",
    "SessionError",
    "SessionGone",
    "SessionNotSent",
    "StorageError",
    "StorageUnavailable",
    "TooManySessions",
    "UnserializableValue",
]


class AiosessError(Exception):
    """The root of every error that aiosess raises on purpose."""


class OptionsError(AiosessError, ValueError):
    """An option makes no sense; the message names its value and the way out."""


class SessionError(AiosessError):
    """The request cannot go on with its session as it is."""


class SessionGone(SessionError):
    """The record was destroyed or has expired meanwhile: it is not brought back to life."""


class SessionNotSent(SessionError, RuntimeError):
    """The session changed when its cookie could no longer be sent."""


class TooManySessions(SessionError):
    """A principal has as many sessions as it may have, and ``evict="reject"`` says to have no more.

    ``most`` is how many those are. The session was not bound.
    """

    def __init__(self, most: int) -> None:
        super().__init__(
            f"the principal has {most} sessions, as many as max_sessions allows: let one of them "
            "be ended by principals.end(), or the oldest by a login, Principals(evict='oldest')"
        )
        self.most = most


class MergeConflict(SessionError):
    """Two requests changed the same value and ``merge="raise"``, or merging took too many tries.

    ``keys`` are the paths of all values that both changed, each a tuple of the keys that lead
    there; empty when the tries ran out.
    """

    def __init__(self, message: str, *, keys: tuple[tuple[str, ...], ...] = ()) -> None:
        super().__init__(message)
        self.keys = keys


class InvalidValue(SessionError, ValueError):
    """A value that is kept does not convert to the type of its ``SessionKey``.

    - ``key``: the name under which it is kept.
    - ``reason``: what does not fit, and where.
    """

    def __init__(self, key: str, kind: str, reason: str) -> None:
        super().__init__(
            f"session[{key!r}] is kept, and is no {kind}: {reason}; bring older records up by "
            "SessionOptions(version=..., migrate=...), or let the key say on_invalid='default'"
        )
        self.key = key
        self.reason = reason


class RecordTooLarge(SessionError):
    """The record would be larger than ``max_record_size``; what was kept before stays.

    - ``size``: of the record that was not written, in bytes.
    - ``limit``: ``max_record_size``.
    - ``keys``: the largest keys of the session, each with the bytes that it takes.
    """

    def __init__(self, *, size: int, limit: int, keys: tuple[tuple[str, int], ...]) -> None:
        # A key may be as long as it likes.
        named = ", ".join(f"{key[:_LONGEST_NAME]!r} ({taken:,})" for key, taken in keys)
        super().__init__(
            f"the record would be {size:,} bytes, more than max_record_size={limit!r}: keep less "
            f"in the session, or raise the limit; its largest keys, in bytes: {named}"
        )
        self.size = size
        self.limit = limit
        self.keys = keys


class UnserializableValue(SessionError, TypeError):
    """A value in the session cannot be kept as JSON; ``path`` says where it stands."""

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class RecordError(AiosessError):
    """The bytes that a storage returned are not a record that aiosess or Express wrote."""


class StorageError(AiosessError):
    """The back-end answered, but with an error that trying again would not mend."""


class StorageUnavailable(StorageError):
    """The back-end did not answer, or cannot do just now what it was asked.

    - ``may_retry``: whether trying again in a moment may help, as with a back-end that is
      starting. It is False for one that is full, or that refuses a password: those are no passing
      faults.
    - ``is_answer``: the back-end said so itself; it may still do something else.
    - ``node``: where it is, as ``host:port``; ``None`` where that is not known.
    - ``operation``: the verb that was asked for; ``None`` where that is not known.
    - ``retry_after``: the seconds until the back-end is asked again; 0 where any call may ask it.
    """

    def __init__(self, *args: object, may_retry: bool = True, is_answer: bool = False) -> None:
        super().__init__(*args)
        self.may_retry = may_retry
        self.is_answer = is_answer
        self.node: str | None = None
        self.operation: str | None = None
        self.retry_after: float = 0.0

    def again(self) -> Self:
        """Return the same error for another call: one that is raised twice collects tracebacks."""
        error = type(self)(*self.args, may_retry=self.may_retry, is_answer=self.is_answer)
        error.node, error.operation = self.node, self.operation
        error.retry_after = self.retry_after
        return error

    @classmethod
    def after(cls, timeout: float) -> Self:
        """Return the error for a call that took longer than *timeout* seconds."""
        return cls(f"the storage did not answer within {timeout:g} s")


class Conflict(StorageError):
    """The record changed or went since it was loaded: load again, or give up.

    ``current`` is what is kept now, or ``None`` when the record is gone.
    """

    def __init__(self, current: Stored | None) -> None:
        super().__init__("the record changed since it was loaded" if current else "no such record")
        self.current = current


class IdTaken(StorageError):
    """There is a record under this id already; nothing was written."""

    def __init__(self) -> None:
        super().__init__("there is a record under this session id already")
