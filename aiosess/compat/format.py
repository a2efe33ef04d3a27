"""The record of aiohttp-session: how it is read and written, and what we put beside it."""

from __future__ import annotations

import time
from typing import Any, Final, cast

from aiohttp import web
from aiohttp_session import AbstractStorage, Session, SessionData
from aiohttp_session import SimpleCookieStorage as _SimpleCookieStorage

from aiosess.compat.log import log

__all__ = ["KeptSession", "Records", "SimpleCookieStorage", "warn_of_size"]

# RFC 6265, section 6.1: what a browser keeps of one cookie at the least, and in fact at the most.
_LARGEST_COOKIE: Final = 4096


class KeptSession(Session):
    """A session as it was kept; ``created`` is when it was last written, as its max_age needs."""

    began_at: int
    """When the session began."""


class Records(AbstractStorage):
    """Reads and writes ``{"created": ..., "session": {...}}``.

    Two keys may stand beside them, which aiohttp-session leaves unread: ``began`` once the
    session was written a second time, and ``max_age`` where it has one of its own.
    """

    deletes_records = True

    async def session_in(self, content: object, identity: str | None) -> Session:
        """Return the session in *content*, a new one where it has none or its time is over."""
        if not isinstance(content, dict):
            return await self.new_session()
        record = cast("dict[str, Any]", content)
        data, created = record.get("session"), record.get("created")
        max_age = record.get("max_age", self.max_age)
        if not isinstance(data, dict) or not _is_number(created):
            return await self.new_session()
        if not (max_age is None or _is_number(max_age)):
            return await self.new_session()
        if max_age is not None and time.time() - cast("float", created) > max_age:
            return await self.new_session()
        session = KeptSession(
            identity,
            data={"created": cast("int", created), "session": cast("dict[str, Any]", data)},
            new=False,
            # The time that is left was looked at here.
            max_age=None,
        )
        session.max_age = max_age
        began = record.get("began")
        session.began_at = int(cast("float", began)) if _is_number(began) else session.created
        return session

    def _get_session_data(self, session: Session) -> SessionData:
        record = cast("dict[str, Any]", super()._get_session_data(session))
        if not record:
            return {}
        began_at = getattr(session, "began_at", session.created)
        if began_at != session.created:
            record["began"] = began_at
        if session.max_age != self.max_age:
            record["max_age"] = session.max_age
        return cast("SessionData", record)


class SimpleCookieStorage(Records, _SimpleCookieStorage):
    """Keeps the data as plain JSON in the cookie, for tests: anybody can read and write it.

    A cookie that is not such JSON counts as none.
    """

    deletes_records = False

    async def load_session(self, request: web.Request) -> Session:
        """Return the session in the cookie, or a new one."""
        cookie = self.load_cookie(request)
        if cookie is None:
            return await self.new_session()
        try:
            content = self._decoder(cookie)
        except ValueError:
            log.warning("a session cookie is not JSON: there is no session then")
            return await self.new_session()
        return await self.session_in(content, None)

    async def save_session(
        self, request: web.Request, response: web.StreamResponse, session: Session
    ) -> None:
        """Put the session into the cookie."""
        await super().save_session(request, response, session)
        warn_of_size(response, self.cookie_name)


def warn_of_size(response: web.StreamResponse, name: str) -> None:
    """Say so in the log where a browser will drop the cookie called *name* for its size."""
    morsel = response.cookies.get(name)
    if morsel is None:
        return
    size = len(name) + len(morsel.coded_value)
    if size > _LARGEST_COOKIE:
        log.error(
            "the session is lost: its cookie has %d bytes, of which browsers keep %d at the most; "
            "use a storage that keeps the data on the server",
            size,
            _LARGEST_COOKIE,
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
