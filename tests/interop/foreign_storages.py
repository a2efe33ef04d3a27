"""Storages as others have written them for aiohttp-session, each over a database in this process.

They follow the published ones (Mongo, DynamoDB, PostgreSQL) in how they use the contract: which
identity they give, what they keep, what they do with an empty session.
"""

from __future__ import annotations

import asyncio
import copy
import json
import uuid
from typing import Any

from aiohttp import web
from aiohttp_session import AbstractStorage, Session


class Database:
    """Rows by key, and a way to let the next calls fail."""

    def __init__(self) -> None:
        self.rows: dict[Any, Any] = {}
        self.calls: list[str] = []
        self.errors: list[Exception] = []

    async def read(self, key: Any) -> Any:
        await self._answer("read")
        return copy.deepcopy(self.rows.get(key))

    async def write(self, key: Any, row: Any) -> None:
        await self._answer("write")
        self.rows[key] = copy.deepcopy(row)

    async def _answer(self, call: str) -> None:
        self.calls.append(call)
        # Others have their turn meanwhile, as where a network is in between.
        await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop(0)


class DocumentStorage(AbstractStorage):
    """As for Mongo: the data are kept as they are, and need not be JSON."""

    def __init__(self, database: Database, **options: Any) -> None:
        super().__init__(**options)
        self.database = database

    async def load_session(self, request: web.Request) -> Session:
        cookie = self.load_cookie(request)
        row = None if cookie is None else await self.database.read(f"{self.cookie_name}_{cookie}")
        if row is None:
            return Session(None, data=None, new=True, max_age=self.max_age)
        return Session(cookie, data=row["data"], new=False, max_age=self.max_age)

    async def save_session(
        self, _request: web.Request, response: web.StreamResponse, session: Session
    ) -> None:
        key = session.identity
        if key is None:
            key = uuid.uuid4().hex
            self.save_cookie(response, key, max_age=session.max_age)
        elif session.empty:
            self.save_cookie(response, "", max_age=session.max_age)
        else:
            self.save_cookie(response, str(key), max_age=session.max_age)
        row = {"data": self._get_session_data(session), "expire": session.max_age}
        await self.database.write(f"{self.cookie_name}_{key}", row)


class ItemStorage(AbstractStorage):
    """As for DynamoDB: one item of JSON a session, the database made ready at the first call."""

    def __init__(self, database: Database, **options: Any) -> None:
        super().__init__(**options)
        self.database = database
        self.is_ready = False

    async def load_session(self, request: web.Request) -> Session:
        self.is_ready = True
        cookie = self.load_cookie(request)
        if cookie is None:
            return await self.new_session()
        item = await self.database.read(cookie)
        if item is None:
            return await self.new_session()
        return Session(
            cookie, data=self._decoder(item["session_data"]["S"]), new=False, max_age=self.max_age
        )

    async def save_session(
        self, _request: web.Request, response: web.StreamResponse, session: Session
    ) -> None:
        assert self.is_ready
        key = session.identity or uuid.uuid4().hex
        self.save_cookie(response, "" if session.empty else key, max_age=session.max_age)
        data = self._encoder(self._get_session_data(session))
        await self.database.write(key, {"session_data": {"S": data}})


class TableStorage(AbstractStorage):
    """As for PostgreSQL: the identity is a UUID, and a cookie that is none is a ValueError."""

    def __init__(self, database: Database, **options: Any) -> None:
        super().__init__(**options)
        self.database = database

    async def load_session(self, request: web.Request) -> Session:
        cookie = self.load_cookie(request)
        if cookie is None:
            return Session(None, data={}, new=True, max_age=self.max_age)
        row = await self.database.read(uuid.UUID(cookie))
        if row is None:
            return Session(None, data={}, new=True, max_age=self.max_age)
        created, session = row
        data: Any = {"created": created, "session": json.loads(session)}
        return Session(uuid.UUID(cookie), data=data, new=False, max_age=self.max_age)

    async def save_session(
        self, _request: web.Request, response: web.StreamResponse, session: Session
    ) -> None:
        key = session.identity or uuid.uuid4()
        self.save_cookie(response, "" if session.empty else str(key), max_age=session.max_age)
        data = self._get_session_data(session)
        row = (session.created, json.dumps(data.get("session", {})))
        await self.database.write(uuid.UUID(str(key)), row)


class Basket(Session):
    """A session with a member of its own."""

    def add(self, item: str) -> None:
        self["items"] = [*self.get("items", []), item]


class BasketStorage(DocumentStorage):
    """Gives sessions of its own class, and expects them back."""

    async def new_session(self) -> Session:
        return Basket(None, data=None, new=True, max_age=self.max_age)

    async def load_session(self, request: web.Request) -> Session:
        loaded = await super().load_session(request)
        data: Any = {"created": loaded.created, "session": dict(loaded)}
        return Basket(loaded.identity, data=data, new=loaded.new, max_age=self.max_age)

    async def save_session(
        self, request: web.Request, response: web.StreamResponse, session: Session
    ) -> None:
        assert isinstance(session, Basket)
        await super().save_session(request, response, session)
