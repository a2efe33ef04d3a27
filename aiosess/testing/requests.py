"""The session of a request that no server has seen, for the unit test of one handler."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, ClassVar, Final, ParamSpec, TypeVar

from aiohttp import web
from aiohttp_session import STORAGE_KEY

from aiosess.events import Events, Reason
from aiosess.exchange.exchange import Exchange
from aiosess.exchange.keys import silence
from aiosess.exchange.manager import EXCHANGE, SessionManager
from aiosess.guard.budget import Budget
from aiosess.options import SessionOptions
from aiosess.records.state import SessionState
from aiosess.session import Session
from aiosess.storages import MemoryStorage
from aiosess.transports.base import SignedId
from aiosess.transports.cookie import CookieTransport
from aiosess.transports.signing import Signer

__all__ = ["put_session"]

P = ParamSpec("P")
T = TypeVar("T")

# Signs nothing that a browser gets to see.
_SECRET: Final = secrets.token_urlsafe(32)


class _Known(CookieTransport):
    """Carries the ids that are known to have come, whatever the request says."""

    def __init__(self, options: SessionOptions, signer: Signer, came: tuple[SignedId, ...]) -> None:
        super().__init__(options.name, signer, options.cookie, proxy=options.proxy)
        self._came = came

    def read(self, _request: web.Request, /) -> Iterator[SignedId]:
        """Give the ids that came."""
        return iter(self._came)

    def has_any(self, _request: web.Request, /) -> bool:
        """Ask whether an id came."""
        return bool(self._came)

    def is_for_host(self, _request: web.Request, _state: SessionState, /) -> bool:
        """Return True: a request that no server has seen has no host."""
        return True


class _NoBudget(Budget):
    """Counts no time, of which a memory takes none, and so needs no event loop."""

    async def spend(
        self, act: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return what *act* returns."""
        return await act(*args, **kwargs)


class _Silence(Events):
    """Tells nobody that a memory is lost with its process: this one is lost with its request."""

    def tell_once(self, reason: Reason, *, request: Any = None, **details: Any) -> None:
        """Say nothing."""


class _Memory(MemoryStorage):
    """The memory of one request."""

    is_instant: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self._events = _Silence()


def put_session(request: web.Request, data: Mapping[Any, Any] | None = None) -> Session:
    """Put a session with *data* into *request*, as if its browser had come back, and return it.

    ::

        request = make_mocked_request("GET", "/")
        session = put_session(request, {"user": "ann"})

    ``get_session(request)`` gives this session, and so does ``request[SESSION]``. Its verbs work on
    a memory of its own. Without *data* the session is new. No middleware is at work, so that at the
    end nothing is kept by itself: what a handler changed is there to be looked at.

    Raise UnserializableValue for *data* that JSON does not have.
    """
    options = SessionOptions(secret=_SECRET, storage=_Memory())
    return _opened(request, options, (_kept(data, options, request),) if data else ())


def _kept(data: Mapping[Any, Any], options: SessionOptions, request: web.Request) -> SignedId:
    """Keep a session with *data*, and return its id."""
    session = _opened(request, options, ())
    session.update(data)
    _at_once(session.save())
    return SignedId(session.id, is_current=True)


def _opened(request: web.Request, options: SessionOptions, came: tuple[SignedId, ...]) -> Session:
    """Put into *request* the session under the id that *came*, else a new one."""
    manager = SessionManager(options, transport=_Known(options, Signer(_SECRET), came))
    manager.budget = _NoBudget(0)
    # No middleware was at it that would have done so.
    silence(request)
    request[EXCHANGE] = request[STORAGE_KEY] = exchange = Exchange(manager, request)
    return _at_once(exchange.load_session(request))


def _at_once(act: Coroutine[Any, Any, T]) -> T:
    """Return what *act* returns, which waits for nothing: a memory answers at once."""
    try:
        act.send(None)
    except StopIteration as done:
        answer: T = done.value
        return answer
    raise RuntimeError("a session in memory was waited for")
