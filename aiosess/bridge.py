"""What aiohttp_session finds in a request: under the keys that it knows, our sessions."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, Final, Generic, NoReturn, TypeVar

from aiohttp import web
from aiohttp_session import SESSION_KEY, STORAGE_KEY

from aiosess.attributes import SessionCookie
from aiosess.errors import SessionError
from aiosess.session import SESSION, Intent, Session, SessionState

__all__ = ["Bridge", "NoSessions", "hand_out", "offer"]

StateT = TypeVar("StateT", bound=SessionState)

# aiohttp warns of a key that is a str, once a process; these two are not ours to choose.
_warned_of: Final = [STORAGE_KEY, SESSION_KEY]


class Bridge(ABC, Generic[StateT]):
    """Stands where aiohttp_session expects the request's storage.

    So ``aiohttp_session.get_session(request)`` and ``new_session(request)`` return our sessions,
    in handlers and in libraries that nobody can change.
    """

    _request: web.Request
    _session: Session | None
    _state: StateT | None

    is_asked: bool = False
    """Whether anybody asked for the session."""

    @abstractmethod
    async def open(self, request: web.Request) -> Session | None:
        """Return the session; ``None`` where there can be none."""

    @abstractmethod
    async def prepare(self, response: web.StreamResponse) -> None:
        """Commit, for a response whose headers are about to leave."""

    @abstractmethod
    def abandon(self) -> None:
        """Keep nothing more."""

    @abstractmethod
    async def change_id(self, intent: Intent) -> None:
        """Take a new id."""

    @abstractmethod
    def leave(self) -> None:
        """Let go of what need not be held, now that the response is made."""

    @abstractmethod
    def session_of(self, state: StateT) -> Session:
        """Return what handlers hold of *state*."""

    async def load_session(self, request: web.Request) -> Session:
        """Return the session; SessionError where there can be none."""
        session = await self.open(request)
        if session is None:
            raise SessionError(
                "this request has no session: the storage does not answer, or the path is not "
                "under the cookie's; aiosess.get_session() would return None"
            )
        return session

    async def new_session(self) -> Session:
        """Return an empty session with a new id; the record that there was is deleted.

        The object that was handed out before keeps what it held, for those who carry it over.
        """
        session = await self.load_session(self._request)
        held = self._state
        if held is None:
            return session
        self._state = state = replace(
            held,
            data=dict(held.data),
            originals=dict(held.originals),
            cookie=SessionCookie(held.cookie.base, dict(held.cookie.own)),
        )
        try:
            await self.change_id(Intent.REGENERATE)
        except BaseException:
            self._state = held
            raise
        self._session = self.session_of(state)
        hand_out(self._request, self._session)
        return self._session


class NoSessions:
    """Stands there in a request whose route gets no session, and says so."""

    async def load_session(self, _request: web.Request) -> NoReturn:
        """Raise RuntimeError."""
        self._refuse()

    async def new_session(self) -> NoReturn:
        """Raise RuntimeError."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise RuntimeError("this route gets no session: see for_routes and exclude in the options")


def offer(request: web.Request, storage: Bridge[Any] | NoSessions) -> None:
    """Let aiohttp_session find *storage* in *request*."""
    if _warned_of:
        _silence(request)
    request[STORAGE_KEY] = storage


def hand_out(request: web.Request, session: Session) -> None:
    """Let everybody find *session* in *request*."""
    request[SESSION] = request[SESSION_KEY] = session


def _silence(request: web.Request) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", web.NotAppKeyWarning)
        while _warned_of:
            key = _warned_of.pop()
            request.setdefault(key, None)
            del request[key]
