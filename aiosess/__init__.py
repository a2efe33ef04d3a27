"""Server-side sessions for aiohttp.web.

Reading order: ``middleware`` (the life of one request), ``options`` (what can be configured),
``commit`` (what the end of a request means), ``session`` (what a handler holds), ``keeper`` (one
session against its storage), ``merge``, ``record``, ``cookie``, ``routes``, ``retry``, and
``storages``, where the contract is ``storages.base``.
"""

from aiosess.attributes import CookieOptions, SessionCookie
from aiosess.errors import (
    AiosessError,
    Conflict,
    IdTaken,
    MergeConflict,
    OptionsError,
    RecordError,
    SessionError,
    SessionGone,
    SessionNotSent,
    StorageError,
    StorageUnavailable,
    UnserializableValue,
)
from aiosess.middleware import SESSION, get_session, session_middleware, setup, setup_async
from aiosess.options import SessionOptions
from aiosess.records.merge import MISSING
from aiosess.routes import Route
from aiosess.session import Session
from aiosess.storages import MemoryStorage, Storage, Stored, Version

__all__ = [
    "MISSING",
    "SESSION",
    "AiosessError",
    "Conflict",
    "CookieOptions",
    "IdTaken",
    "MemoryStorage",
    "MergeConflict",
    "OptionsError",
    "RecordError",
    "Route",
    "Session",
    "SessionCookie",
    "SessionError",
    "SessionGone",
    "SessionNotSent",
    "SessionOptions",
    "Storage",
    "StorageError",
    "StorageUnavailable",
    "Stored",
    "UnserializableValue",
    "Version",
    "get_session",
    "session_middleware",
    "setup",
    "setup_async",
]
