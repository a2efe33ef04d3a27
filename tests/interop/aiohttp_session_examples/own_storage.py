"""Example: a storage of one's own, which keeps rows in a table as the one for PostgreSQL does."""

from __future__ import annotations

import uuid
from typing import Any

from aiohttp import web
from aiohttp_session import AbstractStorage, Session, get_session, setup


class TableStorage(AbstractStorage):
    def __init__(self, table: dict[uuid.UUID, tuple[str, int]]) -> None:
        super().__init__(max_age=60)
        self._table = table

    async def load_session(self, request: web.Request) -> Session:
        cookie = self.load_cookie(request)
        if cookie is None:
            return Session(None, data={}, new=True, max_age=self.max_age)
        key = uuid.UUID(cookie)
        if key not in self._table:
            return Session(None, data={}, new=True, max_age=self.max_age)
        session, created = self._table[key]
        data: Any = {"session": self._decoder(session), "created": created}
        return Session(key, data=data, new=False, max_age=self.max_age)

    async def save_session(
        self, _request: web.Request, response: web.StreamResponse, session: Session
    ) -> None:
        key = session.identity
        if key is None:
            key = uuid.uuid4()
            self.save_cookie(response, str(key), max_age=session.max_age)
        elif session.empty:
            self.save_cookie(response, "", max_age=session.max_age)
        else:
            self.save_cookie(response, str(key), max_age=session.max_age)
        data = self._get_session_data(session)
        row = (self._encoder(data.get("session", {})), session.created)
        self._table[uuid.UUID(str(key))] = row


async def handler(request: web.Request) -> web.Response:
    session = await get_session(request)
    session["visits"] = session.get("visits", 0) + 1
    return web.json_response(session["visits"])


def make_app(table: dict[uuid.UUID, tuple[str, int]]) -> web.Application:
    app = web.Application()
    setup(app, TableStorage(table))
    app.router.add_get("/", handler)
    return app
