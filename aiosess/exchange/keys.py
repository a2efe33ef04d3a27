"""Under which keys a request keeps its session and its exchange, aiohttp-session's included."""

from __future__ import annotations

import warnings
from collections.abc import Coroutine
from typing import Any, Final, NoReturn

from aiohttp import web
from aiohttp_session import SESSION_KEY, STORAGE_KEY

from aiosess.session import SESSION, Session
from aiosess.spelling import called

__all__ = ["ASKING", "NO_SESSION", "NoSession", "hand_out", "silence"]

ASKING: Final = "get_session() or find_session()"
"""What a coroutine is called that nobody awaited: both give the same."""


class NoSession:
    """Stands in the place of an exchange where the route gets no session, and says so."""

    @called(ASKING)
    async def open(self, _request: web.Request, *, required: bool = True) -> Any:
        """Return ``None``, or raise RuntimeError where a session is *required*."""
        if required:
            self._refuse()

    def open_passively(self, request: web.Request) -> Coroutine[Any, Any, None]:
        """Return ``None``, once awaited."""
        return self.open(request, required=False)

    def let_go(self, _response: web.StreamResponse, /) -> bool:
        """Return True: the response can leave as it is."""
        return True

    async def prepare(self, _response: web.StreamResponse) -> None:
        """Do nothing."""

    def abandon(self) -> None:
        """Do nothing."""

    async def load_session(self, _request: web.Request) -> NoReturn:
        """Raise RuntimeError."""
        self._refuse()

    async def new_session(self) -> NoReturn:
        """Raise RuntimeError."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise RuntimeError(
            "this route gets no session: see for_routes and exclude in the options, "
            "or ask by find_session(), which returns None here"
        )


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


NO_SESSION: Final = NoSession()
"""Needs nothing of a request, so that one serves all."""
