"""The types that a user's editor sees: checked by mypy and pyright, never run."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any, TypedDict, assert_type

import aiohttp_session
from aiohttp import web
from aiohttp.typedefs import Middleware
from redis.asyncio import Redis

from aiosess import (
    SESSION,
    Conflict,
    CookieOptions,
    MemoryStorage,
    MergeConflict,
    OptionsError,
    Reason,
    Route,
    Session,
    SessionCookie,
    SessionKey,
    SessionOptions,
    Storage,
    StorageUnavailable,
    Stored,
    Version,
    find_session,
    get_session,
    require_fresh,
    return_path,
    session_middleware,
    setup,
    setup_async,
)
from aiosess.principals import Principals, SessionInfo
from aiosess.storages.redis import RedisStorage
from aiosess.testing import FakeClock, FaultyStorage

NUMBER = web.AppKey("NUMBER", int)
REDIS = web.AppKey("REDIS", Redis)


# What a handler holds.


async def handler(request: web.Request) -> web.Response:
    session = assert_type(await get_session(request), Session)
    assert_type(await find_session(request), Session | None)
    assert_type(request[SESSION], Session)
    theirs: aiohttp_session.Session = session
    assert_type(theirs.new, bool)
    assert_type(session.id, str)
    assert_type(session.identity, str | None)
    assert_type(session.created, int)
    assert_type(session.max_age, int | None)
    assert_type(session["key"], Any)
    assert_type(session.rollback(), None)
    assert_type(await session.save(), bool)
    assert_type(await session.reload(), None)
    assert_type(await session.touch(), bool)
    assert_type(await session.destroy(), None)
    assert_type(await session.regenerate(), None)
    assert_type(await session.renew_id(), None)
    return web.Response()


async def atomic(session: Session) -> None:
    def count(newest: Session) -> int:
        return len(newest)

    assert_type(await session.atomic(count), int)
    assert_type(await session.atomic(lambda newest: newest.id), str)


# What a key knows of its value.


class Role(enum.Enum):
    ADMIN = "admin"


@dataclasses.dataclass
class User:
    name: str


class Point(TypedDict):
    x: int


USER = SessionKey("user", User)
CART = SessionKey("cart", dict[str, int], default_factory=dict)
TAGS = SessionKey("tags", set[str], default_factory=set)
SINCE = SessionKey("since", datetime)
VISITS = SessionKey("visits", int, default=0, on_invalid="default")
ROLE = SessionKey("role", Role, default=Role.ADMIN)
WHERE = SessionKey("where", Point, merged=True)
NICK: SessionKey[str | None] = SessionKey("nick", str | None, default=None)


def typed_data(session: Session) -> None:
    assert_type(USER, SessionKey[User])
    assert_type(CART, SessionKey[dict[str, int]])
    assert_type(session[USER], User)
    assert_type(session[CART], dict[str, int])
    assert_type(session[TAGS], set[str])
    assert_type(session[WHERE], Point)
    assert_type(session[NICK], str | None)
    assert_type(session[ROLE], Role)
    session[USER] = User("ann")
    session[VISITS] += 1
    session[CART]["apple"] = 1
    assert_type(session.get(USER), User | None)
    assert_type(session.get(VISITS, 7), int)
    assert_type(session.get(SINCE, None), datetime | None)
    assert_type(session.get(VISITS, "none"), int | str)
    assert_type(session.pop(SINCE), datetime)
    assert_type(session.pop(SINCE, None), datetime | None)
    assert_type(session.setdefault(USER, User("ann")), User)
    assert_type(USER in session, bool)
    assert_type(sorted(session[TAGS]), list[str])
    assert_type(len(session[CART]), int)
    counts: dict[str, int] = dict(session[CART])
    several: list[str] = list(session.get(TAGS, set()))
    either: list[str] = [*several, *counts, *session.get(TAGS, ("a",))]
    assert_type(either, list[str])
    del session[USER]
    assert_type(USER.name, str)
    assert_type(USER.convert({"name": "ann"}), User)


def data_without_a_type(session: Session) -> None:
    assert_type(session["n"], Any)
    assert_type(session.get("n"), Any | None)
    assert_type(session.pop("n"), Any)
    session["n"] = session.get("n", 0) + 1
    session.setdefault("list", []).append(1)
    session.get("list", []).append(1)
    del session["n"]


def mistakes_that_a_checker_sees(session: Session) -> None:
    session[USER] = "ann"  # type: ignore[misc]  # pyright: ignore[reportArgumentType, reportCallIssue]
    session[CART]["apple"] = "one"  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
    session[USER].label = "ann"  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def cookie_of_one_session(session: Session) -> None:
    cookie = assert_type(session.cookie, SessionCookie)
    cookie.max_age = timedelta(days=30)
    cookie.samesite = True
    cookie.expires = None
    assert_type(cookie.max_age, float | None)
    assert_type(cookie.path, str)
    assert_type(cookie.secure, bool)


# What is configured.


def options() -> None:
    SessionOptions(secret="keyboard cat")
    SessionOptions(secret=[b"new", "old"], storage=MemoryStorage(max_records=10))
    SessionOptions(secret="s", idle_timeout=60, absolute_timeout=timedelta(hours=1), timeout=0.5)
    SessionOptions(secret="s", retries=3, retries_strategy=lambda retry: 0.1 * retry)
    SessionOptions(secret="s", retries=3, retries_strategy=lambda retry: timedelta(seconds=retry))
    SessionOptions(secret="s", merge="theirs", unset="destroy", load="eager", touch_after="10%")
    SessionOptions(secret="s", merge=larger, whole=["address"])
    SessionOptions(secret="s", whole=[CART, "address"], renew_on=[USER])
    SessionOptions(secret="s", version=2, migrate=bring_up)
    SessionOptions(secret="s", for_routes=["views", handler, View, Route("/x", method="POST")])
    SessionOptions(secret="s", cookie=CookieOptions(samesite=True, secure="auto"))
    SessionOptions(secret="s", cookie=cookie, genid=new_id)
    SessionOptions(secret="s", cookie=cookie_later, genid=new_id_later)


class View(web.View):
    pass


def bring_up(data: dict[str, Any], was: int) -> dict[str, Any] | None:
    return data if was else None


def larger(path: tuple[str, ...], base: Any, mine: Any, theirs: Any) -> Any:
    return max(mine, theirs) if path[-1] == "count" else base


def cookie(request: web.Request) -> CookieOptions:
    return CookieOptions(domain=request.host)


async def cookie_later(request: web.Request) -> CookieOptions:
    return cookie(request)


def new_id(request: web.Request) -> str:
    return request.path


async def new_id_later(request: web.Request) -> str:
    return new_id(request)


# How it is installed.


async def provider(app: web.Application) -> AsyncIterator[None]:
    app[NUMBER] = 1
    yield


def factory(number: int, redis: Redis) -> SessionOptions:
    return SessionOptions(secret=str(number), storage=RedisStorage(redis))


async def factory_later() -> SessionOptions:
    return SessionOptions(secret="s")


def install(app: web.Application, given: SessionOptions) -> None:
    assert_type(session_middleware(given), Middleware)
    app.middlewares.append(session_middleware(given))
    setup(app, given)
    setup_async(app, use_factory=factory, inject=[NUMBER, REDIS], imports=[provider])
    setup_async(app, use_factory=factory_later)


# What keeps the records, and what goes wrong.


async def storages(redis: Redis, storage: Storage) -> None:
    every: list[Storage] = [MemoryStorage(), RedisStorage(redis), FaultyStorage()]
    every.append(MemoryStorage(clock=FakeClock()))
    assert_type(RedisStorage.from_url("redis://localhost", prefix="mine:"), RedisStorage)
    stored = assert_type(await storage.load("id"), Stored | None)
    version = assert_type(await storage.create("id", b"{}", 60), Version)
    assert_type(await storage.replace("id", b"{}", 60.0, expected=version), Version)
    assert_type(await storage.touch("id", 60), bool)
    assert_type(await storage.delete("id"), bool)
    if stored is not None:
        assert_type(stored.payload, bytes)


def errors(conflict: Conflict, merge_conflict: MergeConflict) -> None:
    assert_type(conflict.current, Stored | None)
    assert_type(merge_conflict.keys, tuple[tuple[str, ...], ...])
    wrong: ValueError = OptionsError("no")
    away: Exception = StorageUnavailable("no")
    assert_type(wrong.args, tuple[Any, ...])
    assert_type(away.args, tuple[Any, ...])


# Whose a session is, and how fresh.


async def devices(session: Session, principals: Principals) -> None:
    assert_type(await session.bind("user-42", label="phone", labels={"sid": "1"}), None)
    assert_type(await session.unbind(), None)
    assert_type(session.principal, str | None)
    assert_type(session.handle, str | None)
    assert_type(await principals.sessions_of("user-42", current=session), list[SessionInfo])
    assert_type(await principals.end("user-42", "a handle"), bool)
    assert_type(await principals.revoke("user-42", keep=session), int)
    assert_type(await principals.revoke_label("sid", "1"), int)


async def fresh(session: Session, ws: web.WebSocketResponse) -> None:
    assert_type(await session.authenticated(), None)
    assert_type(session.is_fresh(timedelta(minutes=10)), bool)
    assert_type(session.expires_at, float | None)
    assert_type(await session.ended(), Reason)
    async with session.watch(ws) as watch:
        assert_type(watch.reason, Reason | None)


@require_fresh(600, on_stale="/confirm")
async def pay(_request: web.Request) -> web.Response:
    return web.Response()


async def confirmed(request: web.Request) -> web.Response:
    raise web.HTTPSeeOther(assert_type(return_path(request, default="/account"), str))


class Account(web.View):
    @require_fresh(timedelta(minutes=10))
    async def delete(self) -> web.Response:
        return web.Response()
