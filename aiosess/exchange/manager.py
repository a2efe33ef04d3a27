"""The sessions of one application: its options, ready to use by each request."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Final

from aiohttp import web
from aiohttp_session import AbstractStorage

from aiosess.attributes import CookieOptions, check_name
from aiosess.errors import OptionsError
from aiosess.exchange.keys import silence
from aiosess.interop.borrowed import ForeignStorage
from aiosess.options import SessionOptions
from aiosess.records.repository import Keeper
from aiosess.storages import Closeable
from aiosess.storages.guard import guarded
from aiosess.transports.cookie import Signer

__all__ = ["Sessions"]

_log: Final = logging.getLogger("aiosess")


class Sessions:
    """The sessions of one application: its options, ready to use."""

    options: SessionOptions
    keeper: Keeper
    """Of a storage of ours; without meaning beside ``foreign``."""

    foreign: ForeignStorage | None
    """A storage made for aiohttp-session, where that was given."""

    cookies: tuple[CookieOptions, CookieOptions] | None
    """The cookie's attributes without TLS and with, where they are the same for all requests.

    ``None`` where a function says them, or a path which requests have a session.
    """

    is_told_of_headers: bool
    """Whether the signal ``on_response_prepare`` tells us before headers leave."""

    # Said here once, since asking the options each time costs each request a call.
    is_eager: bool
    acts_on_reads: bool
    proxy: bool | None
    name: str
    signer: Signer
    decided: Mapping[web.AbstractRoute, bool]
    """Whether a route gets a session, where that was asked before."""

    def __init__(self, options: SessionOptions | None = None) -> None:
        self.foreign = self.cookies = None
        self._given_cookies: tuple[CookieOptions, CookieOptions] | None = None
        self.is_told_of_headers = False
        self._is_checked = self._is_silenced = False
        self._reasons_logged: set[str] = set()
        if options is not None:
            self.configure(options)

    def configure(self, options: SessionOptions) -> None:
        """Take *options*; done once."""
        self.options = options
        if isinstance(options.storage, AbstractStorage):
            self.foreign = ForeignStorage(options.storage, options.retry_policy)
        else:
            storage = guarded(options.storage, options.retry_policy)
            self.keeper = Keeper(storage, options.keeper_options)
        self.is_eager = options.is_eager
        self.acts_on_reads = options.rules.acts_on_reads
        self.proxy, self.name, self.signer = options.proxy, options.name, options.signer
        self.decided = options.routes.decided
        given = options.cookie
        if isinstance(given, CookieOptions):
            self._given_cookies = (given.resolve(is_secure=False), given.resolve(is_secure=True))
            self.cookies = self._given_cookies if given.path == "/" else None

    def check_routes(self, app: web.Application) -> None:
        """Raise OptionsError for a route in the options that *app* does not have."""
        self.options.routes.check(app)
        self._is_checked = True

    def selects(self, request: web.Request) -> bool:
        """Ask whether the route of *request* gets a session."""
        if not self._is_silenced:
            silence(request)
            self._is_silenced = True
        if not self._is_checked:
            self.check_routes(request.app)
        return self.options.routes.selects(request)

    async def cookie_for(self, request: web.Request, *, is_secure: bool) -> CookieOptions:
        """Return the cookie's attributes for *request*, each ``"auto"`` settled."""
        if self._given_cookies is not None:
            return self._given_cookies[is_secure]
        given = self.options.cookie
        cookie = given(request) if callable(given) else given
        if inspect.isawaitable(cookie):
            cookie = await cookie
        if not isinstance(cookie, CookieOptions):
            raise OptionsError(f"the cookie function returned {cookie!r}, not CookieOptions")
        check_name(self.options.name, cookie)
        return cookie.resolve(is_secure=is_secure)

    async def new_id(self, request: web.Request) -> str:
        """Return a new session id from ``genid``."""
        session_id = self.options.genid(request)
        if inspect.isawaitable(session_id):
            session_id = await session_id
        if not isinstance(session_id, str) or not session_id:
            raise OptionsError(f"genid returned {session_id!r}: it must return a str, not empty")
        return session_id

    async def close(self) -> None:
        """Close the storage's own connections."""
        storage = self.options.storage
        if isinstance(storage, Closeable) and not isinstance(storage, AbstractStorage):
            await storage.close()

    def log_once(self, message: str) -> None:
        """Log a warning the first time it is due."""
        if message not in self._reasons_logged:
            self._reasons_logged.add(message)
            _log.warning(message)
