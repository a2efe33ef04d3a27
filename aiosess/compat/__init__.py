"""Stands in for aiohttp_session: change the import, and nothing else.

::

    from aiosess.compat import get_session, setup
    from aiosess.compat.redis_storage import RedisStorage

Cookie, keys and records are those of aiohttp-session, so that both can serve the same sessions.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from aiohttp_session import (
    SESSION_KEY,
    STORAGE_KEY,
    AbstractStorage,
    Session,
    SessionData,
    get_session,
    new_session,
)

from aiosess import middleware
from aiosess.compat.in_cookie import SimpleCookieStorage
from aiosess.options import SessionOptions

__all__ = [
    "SESSION_KEY",
    "STORAGE_KEY",
    "AbstractStorage",
    "Handler",
    "Middleware",
    "Session",
    "SessionData",
    "SimpleCookieStorage",
    "get_session",
    "new_session",
    "session_middleware",
    "setup",
]

# aiohttp-session waits for ever.
_TIMEOUT: Final = 30.0


def session_middleware(storage: AbstractStorage) -> Middleware:
    """Return the middleware that gives requests their sessions; RuntimeError for no storage.

    Responses that the handler prepares itself (streams, WebSockets) need ``setup``.
    """
    return middleware.session_middleware(_options(storage))


def setup(app: web.Application, storage: AbstractStorage) -> None:
    """Give *app* sessions that *storage* keeps; RuntimeError for no storage."""
    middleware.setup(app, _options(storage))


def _options(storage: AbstractStorage) -> SessionOptions:
    if not isinstance(storage, AbstractStorage):
        raise RuntimeError(  # noqa: TRY004 - it is what aiohttp_session raises
            f"Expected AbstractStorage got {storage}"
        )
    # As there: a session is loaded when asked for, and without its storage the answer is 500.
    return SessionOptions(storage=storage, retries=0, load="lazy", timeout=_TIMEOUT)
