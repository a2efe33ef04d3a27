"""A storage made for aiohttp-session: asked, asked again, and its errors told apart by name."""

from __future__ import annotations

import re
from typing import Any, Final, cast

import aiohttp_session
from aiohttp import web

from aiosess.attributes import CookieOptions
from aiosess.errors import OptionsError, StorageUnavailable
from aiosess.events import Events, Reason
from aiosess.guard.breaker import Breaker
from aiosess.guard.observed import Watch, observed
from aiosess.guard.retries import Retries, RetryPolicy

__all__ = ["BorrowedStorage"]

# What clients of databases call an error that means "no answer"; few derive it from OSError.
_NO_ANSWER: Final = re.compile("connect|time(d)?_?out|unavailable|OperationalError", re.IGNORECASE)
_REFUSED: Final = re.compile("auth(entic|oriz)", re.IGNORECASE)


class BorrowedStorage:
    """Asks *given*, a storage made for aiohttp-session, and asks again as *policy* says.

    An OSError means "no answer", and so does an error whose class, or a base of it, is called
    after a connection or a timeout: the call is made again. A ValueError about the cookie that the
    browser sent, or a RecursionError, means that there is no session.
    """

    def __init__(
        self,
        given: aiohttp_session.AbstractStorage,
        policy: RetryPolicy,
        events: Events,
        *,
        breaker: Breaker | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.given = given
        self.name: str = type(given).__name__
        self.cookie: CookieOptions = _cookie_options(given)
        self._retries = Retries(policy, breaker=breaker)
        self._watch = watch
        self._events = events
        self._kept_in_cookie = any(
            each.__name__ in {"SimpleCookieStorage", "EncryptedCookieStorage", "NaClCookieStorage"}
            for each in type(given).__mro__
        )
        events.tell(Reason.BORROWED_LIMITS, storage=self.name, limits=self._limits())

    async def load(self, request: web.Request) -> aiohttp_session.Session:
        """Return the session that the cookie in *request* leads to, or a new one."""
        session = await self._retries.call(self.name, "load", self._load, request)
        if not session.new and session.identity is None:
            self._kept_in_cookie = True
        return session

    async def save(
        self, request: web.Request, session: aiohttp_session.Session
    ) -> web.StreamResponse:
        """Keep *session*, or end it where it is empty; return a response with what is to be sent.

        It is not the response that the handler made: that one may have left, or never leave.
        """
        return await self._retries.call(self.name, "save", self._save, request, session)

    async def new(self) -> aiohttp_session.Session:
        """Return a session that is not kept yet."""
        return await self.given.new_session()

    def is_kept_in_cookie(self) -> bool:
        """Ask whether the data travel in the cookie, as far as is known."""
        return self._kept_in_cookie

    async def _load(self, request: web.Request) -> aiohttp_session.Session:
        try:
            session = await self._answer("load", self.given.load_session(request))
        except (ValueError, RecursionError) as error:
            if self.given.load_cookie(request) is None:
                raise
            self._events.tell_once(
                Reason.BORROWED_UNREADABLE, storage=self.name, error=type(error).__name__
            )
            return await self.new()
        if not isinstance(session, aiohttp_session.Session):
            raise TypeError(f"{self.name}.load_session() returned {session!r}, not a session")
        return session

    async def _save(
        self, request: web.Request, session: aiohttp_session.Session
    ) -> web.StreamResponse:
        response = web.StreamResponse()
        await self._answer("save", self.given.save_session(request, response, session))
        return response

    async def _answer(self, operation: str, call: Any) -> Any:
        answer = self._answer_of(call)
        if self._watch is None:
            return await answer
        return await observed(self._watch, operation, self.name, answer)

    async def _answer_of(self, call: Any) -> Any:
        try:
            return await call
        except Exception as error:
            if _means_no_answer(error):
                raise StorageUnavailable(
                    f"{self.name} did not answer: {type(error).__name__}"
                ) from error
            raise

    def _limits(self) -> str:
        """Say what such a storage cannot do."""
        limits = [
            "of two requests that change one session at once, only the later one keeps its change",
            "reading a session does not extend its life",
            "session.atomic() raises SessionError",
        ]
        if self._kept_in_cookie:
            limits.append("a copy of the cookie outlives session.destroy() and renew_id()")
        else:
            limits.append("session.renew_id() leaves the old id no time of grace")
        if not self._kept_in_cookie and not getattr(self.given, "deletes_records", False):
            limits.append("session.destroy() leaves an empty record behind")
        return "; ".join(limits)


def _cookie_options(storage: aiohttp_session.AbstractStorage) -> CookieOptions:
    given = storage.cookie_params
    try:
        return CookieOptions(
            path=given.get("path") or "/",
            domain=given.get("domain"),
            max_age=storage.max_age,
            httponly=bool(given.get("httponly")),
            secure=bool(given.get("secure")),
            samesite=cast("Any", given.get("samesite") or False),
        )
    except OptionsError:
        # Browsers may refuse such a cookie; the storage sends it all the same.
        return CookieOptions(samesite=False, secure=False)


def _means_no_answer(error: Exception) -> bool:
    if isinstance(error, StorageUnavailable):
        return True
    names = [each.__name__ for each in type(error).__mro__]
    if any(_REFUSED.search(name) for name in names):
        return False
    return isinstance(error, OSError) or any(_NO_ANSWER.search(name) for name in names)
