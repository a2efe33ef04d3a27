"""How the identity travels that a storage of aiohttp-session writes into its own cookie."""

from __future__ import annotations

from typing import Final

from aiohttp import hdrs, web

from aiosess.attributes import CookieOptions
from aiosess.events import Reason
from aiosess.interop.repository import BorrowedRepository
from aiosess.interop.storage import BorrowedStorage
from aiosess.records.decide import Action, Reply
from aiosess.records.state import SessionState
from aiosess.transports.base import Lines, SignedId, write_lines
from aiosess.transports.cookie import keep_out_of_caches, vary_by_cookie

__all__ = ["BorrowedTransport"]

_BY_REQUEST: Final = SignedId("", is_current=True)


class BorrowedTransport:
    """Passes on the headers that *storage* wrote when *repository* saved or ended a session."""

    def __init__(self, storage: BorrowedStorage, repository: BorrowedRepository) -> None:
        self._storage = storage
        self._repository = repository

    def is_secure(self, request: web.Request, /) -> bool:
        """Ask whether the client's connection is encrypted."""
        return request.secure

    async def attributes(
        self,
        _request: web.Request,
        /,
        *,
        is_secure: bool,  # noqa: ARG002 - the storage's cookie is the same with TLS and without
    ) -> CookieOptions:
        """Return the attributes of the storage's cookie, the same for each request."""
        return self._storage.cookie

    def is_sent(self, _request: web.Request, _cookie: CookieOptions, /) -> bool:
        """Return True: the storage looks for its cookie in each request."""
        return True

    def read(self, _request: web.Request, /) -> tuple[SignedId]:
        """Give one name for whatever came: the storage reads its cookie itself."""
        return (_BY_REQUEST,)

    def has_any(self, _request: web.Request, /) -> bool:
        """Return True: the storage alone knows."""
        return True

    def withheld_because(
        self,
        _state: SessionState,
        /,
        *,
        is_secure: bool,  # noqa: ARG002 - the storage looks at it or does not
    ) -> Reason | None:
        """Return ``None``: the storage sends its cookie whatever becomes of it."""
        return None

    def is_for_host(self, _request: web.Request, _state: SessionState, /) -> bool:
        """Return True: the storage writes its cookie itself."""
        return True

    def is_told_of(self, action: Action, state: SessionState, /) -> bool:
        """Ask whether *action* writes another cookie than the browser has."""
        if action is Action.NOTHING:
            return False
        is_known = action in {Action.REPLACE, Action.TOUCH, Action.DELETE}
        return not is_known or state.previous is not None or self._storage.is_kept_in_cookie()

    def tell(
        self,
        response: web.StreamResponse,
        _reply: Reply,
        _state: SessionState,
        told: Lines,
        /,
    ) -> Lines:
        """Put what the storage wrote into the headers of *response*."""
        written = self._repository.written
        if written is None:
            return ()
        cookies = [(hdrs.SET_COOKIE, each.OutputString()) for each in written.cookies.values()]
        lines = (*cookies, *written.headers.items())
        write_lines(response, lines, told)
        keep_out_of_caches(response)
        return lines

    def vary(self, response: web.StreamResponse) -> None:
        """Tell caches that *response* differs from browser to browser."""
        vary_by_cookie(response)
