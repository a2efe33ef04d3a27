"""What aiohttp_session finds in a request: under the keys that it knows, our sessions."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, Final, Generic, NoReturn, TypeVar

from aiohttp import web
from aiohttp_session import SESSION_KEY, STORAGE_KEY

from aiosess.attributes import SessionCookie
from aiosess.errors import SessionError
from aiosess.records.state import Intent, SessionState
from aiosess.session import SESSION, Session

__all__ = ["VISIT", "Bridge", "NoSessions", "hand_out", "silence"]

StateT = TypeVar("StateT", bound=SessionState)


class Bridge(ABC, Generic[StateT]):
    """Stands where aiohttp_session expects the request's storage.

    So ``aiohttp_session.get_session(request)`` and ``new_session(request)`` return our sessions,
    in handlers and in libraries that nobody can change.
    """

    _session: Session | None
    _state: StateT | None

    is_asked: bool = False
    """Whether anybody asked for the session."""

    request: web.Request
    """The request; not there any more when the response is made."""

    sent_on: web.StreamResponse | None = None
    """The response whose headers left, or are about to."""

    @abstractmethod
    def open(self, request: web.Request) -> Coroutine[Any, Any, Session | None]:
        """Return the session; ``None`` where there can be none."""

    def end(self, response: web.StreamResponse) -> Coroutine[Any, Any, None] | None:
        """Begin to commit, and return what is still to be awaited, where anything is."""
        return self.commit(response)

    @abstractmethod
    async def commit(self, response: web.StreamResponse) -> None:
        """Keep what the handler did, then write the cookie into *response*."""

    def is_ready(self, response: web.StreamResponse) -> bool:
        """Ask whether *response* can leave as it is; False: it takes prepare()."""
        if not self.is_asked:
            self.sent_on = response
        return not self.is_asked

    @abstractmethod
    async def prepare(self, request: web.Request, response: web.StreamResponse) -> None:
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
        request = self.request
        session = await self.load_session(request)
        held = self._state
        if held is None:
            return session
        self._state = state = held.copied(
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
        hand_out(request, self._session)
        return self._session


class NoSessions:
    """Stands there in a request whose route gets no session, and says so."""

    async def open(self, _request: web.Request) -> None:
        """Return ``None``."""

    async def load_session(self, _request: web.Request) -> NoReturn:
        """Raise RuntimeError."""
        self._refuse()

    async def new_session(self) -> NoReturn:
        """Raise RuntimeError."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise RuntimeError("this route gets no session: see for_routes and exclude in the options")


def hand_out(request: web.Request, session: Session) -> None:
    """Let everybody find *session* in *request*."""
    request[SESSION] = request[SESSION_KEY] = session


def silence(request: web.Request) -> None:
    """Let aiohttp not warn of two keys of type str, once a process: they are not ours to choose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", web.NotAppKeyWarning)
        for key in {STORAGE_KEY, SESSION_KEY} - request.keys():
            request[key] = None
            del request[key]


VISIT: Final = web.RequestKey[Bridge[Any] | NoSessions]("aiosess.exchange")
"""Where a request keeps its visit, which stands under aiohttp_session's key as well."""
