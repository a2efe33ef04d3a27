"""The record of aiohttp-session: how it is read and written, and what we put beside it."""

from __future__ import annotations

import time
from typing import Any, cast

from aiohttp_session import AbstractStorage, Session, SessionData

__all__ = ["KeptSession", "Records"]


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


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
