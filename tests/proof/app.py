"""The application of the proof, one of several processes: ``python -m tests.proof.app``."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import time

import aiohttp_session
from aiohttp import web
from aiohttp_session.redis_storage import RedisStorage as TheirRedisStorage
from redis.asyncio import Redis

from aiosess import (
    CookieOptions,
    MemoryStorage,
    Session,
    SessionOptions,
    Storage,
    get_session,
    setup,
)
from aiosess.options import random_id
from aiosess.storages.memcached import MemcachedStorage
from aiosess.storages.redis import RedisStorage

SECRET = "the proof's secret, long enough to be quiet"
REPEATING_IDS = 1000
# A grace that is over before the slow requests are, in seconds.
BRIEF = 0.001
THEIRS = web.AppKey("theirs", bool)


async def either(request: web.Request) -> aiohttp_session.Session:
    """Return the session, theirs or ours."""
    if THEIRS in request.app:
        return await aiohttp_session.get_session(request)
    return await opened(request)


async def opened(request: web.Request) -> Session:
    """Return our session."""
    return await get_session(request)


async def put(request: web.Request) -> web.Response:
    """Set a key; with ``ms``, after a pause, as slow requests do."""
    session = await either(request)
    opened_at, was_known = time.monotonic(), "base" in session
    await asyncio.sleep(float(request.query.get("ms", 0)) / 1000)
    session[request.query["key"]] = 1
    told = {"known": was_known, "opened": opened_at, "at": time.monotonic()}
    return web.json_response(told)


async def add(request: web.Request) -> web.Response:
    """Add one to a counter, atomically."""
    session = await opened(request)

    def increment(newest: Session) -> int:
        newest["count"] = newest.get("count", 0) + 1
        return int(newest["count"])

    return web.json_response(await session.atomic(increment))


async def buy(request: web.Request) -> web.Response:
    """Set a key and add to a list, both inside one value."""
    session = await opened(request)
    # Others read the session meanwhile, on memory too.
    await asyncio.sleep(0.001)
    cart = session.setdefault("cart", {"items": {}, "log": []})
    cart["items"][request.query["key"]] = 1
    cart["log"].append(request.query["key"])
    return web.Response()


async def say(request: web.Request) -> web.Response:
    """Leave a message for the next page."""
    session = await opened(request)
    await asyncio.sleep(0.001)
    session.setdefault("flash", []).append(request.query["key"])
    return web.Response()


async def tell(request: web.Request) -> web.Response:
    """Return the messages that were left, which are gone then."""
    session = await opened(request)
    await asyncio.sleep(0.001)
    return web.json_response(session.pop("flash", []))


async def show(request: web.Request) -> web.Response:
    """Return all data."""
    return web.json_response(dict(await either(request)))


async def login(request: web.Request) -> web.Response:
    """Renew the id, as a log-in does."""
    session = await opened(request)
    await session.renew_id()
    session["user"] = "somebody"
    await session.save()
    return web.json_response({"at": time.monotonic()})


async def rotate(request: web.Request) -> web.Response:
    """Give the session another id, as is done now and then."""
    session = await opened(request)
    await session.rotate_id()
    session["rotated"] = True
    return web.Response()


async def logout(request: web.Request) -> web.Response:
    """Destroy the session."""
    session = await opened(request)
    await session.destroy()
    return web.json_response({"at": time.monotonic()})


async def socket(request: web.Request) -> web.StreamResponse:
    """Stay open as long as the session lives."""
    session = await opened(request)
    if session.new:
        raise web.HTTPForbidden
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    async with session.watch(ws):
        async for _ in ws:
            pass
    return ws


def application(
    backend: str, *, is_theirs: bool, is_repeating: bool, is_brief: bool, watch_every: float
) -> web.Application:
    """Return the application on *backend*, which is ``memory`` or a URL."""
    app = web.Application()
    for handler in (put, add, buy, say, tell, show, login, rotate, logout, socket):
        app.router.add_get(f"/{handler.__name__}", handler)
    if is_theirs:
        app[THEIRS] = True
        client = Redis.from_url(backend)
        aiohttp_session.setup(app, TheirRedisStorage(client))
        return app
    ids = itertools.count()

    def repeating(_request: web.Request) -> str:
        return f"repeated-{next(ids) % REPEATING_IDS}"

    # The clients share two cores with the servers: what is measured here is not how long it takes.
    options = SessionOptions(
        secret=SECRET,
        storage=storage(backend),
        cookie=CookieOptions(max_age=600),
        genid=repeating if is_repeating else random_id,
        timeout=30,
        renew_grace=BRIEF if is_brief else 10.0,
        watch_every=watch_every,
    )
    setup(app, options)
    return app


def storage(backend: str) -> Storage:
    """Return the storage for *backend*."""
    if backend == "memory":
        return MemoryStorage()
    if backend.startswith("memcached:"):
        return MemcachedStorage.from_url(backend)
    return RedisStorage.from_url(backend)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--theirs", action="store_true")
    parser.add_argument("--repeating", action="store_true")
    parser.add_argument("--brief", action="store_true")
    parser.add_argument("--watch-every", type=float, default=15.0)
    given = parser.parse_args()
    # A refused id is a 500 with a traceback, and that is wanted a hundred thousand times here.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    app = application(
        given.backend,
        is_theirs=given.theirs,
        is_repeating=given.repeating,
        is_brief=given.brief,
        watch_every=given.watch_every,
    )
    web.run_app(app, host="127.0.0.1", port=given.port, print=None, access_log=None, backlog=4096)


if __name__ == "__main__":
    main()
