"""Server-side sessions for aiohttp.web.

Reading order:

- ``middleware``: the life of one request
- ``options``: what can be configured
- ``session``: what a handler holds
- ``exchange``: one request, from the session id that came to the one that goes
- ``records``: one session, what is kept of it, and the rules for that
- ``transports``: how the session id travels
- ``guard``: retries, time limits, budget and breaker around a storage
- ``storages``: what keeps bytes under an id; ``storages.base`` is the contract
"""

from typing import TYPE_CHECKING

from aiosess.attributes import CookieOptions, SessionCookie
from aiosess.errors import (
    AiosessError,
    Conflict,
    IdTaken,
    InvalidValue,
    MergeConflict,
    OptionsError,
    RecordError,
    RecordTooLarge,
    SessionError,
    SessionGone,
    SessionNotSent,
    StorageError,
    StorageUnavailable,
    TooManySessions,
    UnserializableValue,
)
from aiosess.events import Reason, SessionEvent
from aiosess.fresh import require_fresh, return_path
from aiosess.guard.breaker import BreakerOptions, NodeHealth
from aiosess.guard.observed import Outcome, StorageCall
from aiosess.middleware import (
    SESSION,
    explain,
    find_session,
    get_session,
    health,
    session_middleware,
    setup,
    setup_async,
)
from aiosess.options import SessionOptions
from aiosess.outages import Outage
from aiosess.records.merge import MISSING
from aiosess.records.typed import SessionKey
from aiosess.routes import Route
from aiosess.session import Session
from aiosess.storages import MemoryStorage, Storage, Stored, Version

__all__ = [
    "MISSING",
    "SESSION",
    "AiosessError",
    "BreakerOptions",
    "Conflict",
    "CookieOptions",
    "IdTaken",
    "InvalidValue",
    "MemoryStorage",
    "MergeConflict",
    "NodeHealth",
    "OptionsError",
    "Outage",
    "Outcome",
    "Reason",
    "RecordError",
    "RecordTooLarge",
    "Route",
    "Session",
    "SessionCookie",
    "SessionError",
    "SessionEvent",
    "SessionGone",
    "SessionKey",
    "SessionNotSent",
    "SessionOptions",
    "Storage",
    "StorageCall",
    "StorageError",
    "StorageUnavailable",
    "Stored",
    "TooManySessions",
    "UnserializableValue",
    "Version",
    "explain",
    "find_session",
    "get_session",
    "health",
    "require_fresh",
    "return_path",
    "session_middleware",
    "setup",
    "setup_async",
]

if TYPE_CHECKING:
    __version__: str
else:  # hidden from checkers, to which each name would exist

    def __getattr__(name: str) -> str:
        """Return the version, read from what is installed when somebody asks for it."""
        if name == "__version__":
            from importlib.metadata import version  # noqa: PLC0415 - it costs more than most imports

            return version("aiosess")
        raise AttributeError(f"module 'aiosess' has no attribute {name!r}")
