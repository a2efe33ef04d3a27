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
from aiosess.principals import Principals
from aiosess.records.indexes import key_of_principal
from aiosess.storages.memcached import MemcachedStorage
from aiosess.storages.redis import RedisStorage

SECRET = "the proof's secret, long enough to be quiet"
REPEATING_IDS = 1000
# A grace that is over before the slow requests are, in seconds.
BRIEF = 0.001
THEIRS = web.AppKey("theirs", bool)
PRINCIPALS = web.AppKey("principals", Principals)
STORAGE = web.AppKey("storage", Storage)


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


async def bind(request: web.Request) -> web.Response:
    """Log in as whoever the query says."""
    session = await opened(request)
    await session.bind(request.query["as"])
    session["user"] = request.query["as"]
    return web.json_response(session.handle)


async def unbind(request: web.Request) -> web.Response:
    """Let the session be nobody's."""
    await (await opened(request)).unbind()
    return web.Response()


async def handle(request: web.Request) -> web.Response:
    """Return the handle of the session."""
    return web.json_response((await opened(request)).handle)


async def devices(request: web.Request) -> web.Response:
    """Return the handles of a principal's sessions."""
    found = await request.app[PRINCIPALS].sessions_of(request.query["as"])
    return web.json_response([each.handle for each in found])


async def revoke(request: web.Request) -> web.Response:
    """End all sessions of a principal."""
    return web.json_response(await request.app[PRINCIPALS].revoke(request.query["as"]))


async def forget(request: web.Request) -> web.Response:
    """Lose the index of a principal, as memcached may."""
    return web.json_response(
        await request.app[STORAGE].delete(key_of_principal(request.query["as"]))
    )


async def index(request: web.Request) -> web.Response:
    """Return whether there is an index of a principal."""
    found = await request.app[STORAGE].load(key_of_principal(request.query["as"]))
    return web.json_response(found is not None)


def application(
    backend: str,
    *,
    is_theirs: bool,
    is_repeating: bool,
    is_brief: bool,
    watch_every: float,
    most: int,
    idle: float,
    touch_after: str,
) -> web.Application:
    """Return the application on *backend*, which is ``memory`` or a URL."""
    app = web.Application()
    handlers = [put, add, buy, say, tell, show, login, rotate, logout, socket]
    handlers += [bind, unbind, handle, devices, revoke, forget, index]
    for each in handlers:
        app.router.add_get(f"/{each.__name__}", each)
    if is_theirs:
        app[THEIRS] = True
        client = Redis.from_url(backend)
        aiohttp_session.setup(app, TheirRedisStorage(client))
        return app
    ids = itertools.count()

    def repeating(_request: web.Request) -> str:
        return f"repeated-{next(ids) % REPEATING_IDS}"

    # The clients share two cores with the servers: what is measured here is not how long it takes.
    given = storage(backend)
    options = SessionOptions(
        secret=SECRET,
        storage=given,
        cookie=CookieOptions(max_age=idle),
        touch_after=touch_after,
        genid=repeating if is_repeating else random_id,
        timeout=30,
        renew_grace=BRIEF if is_brief else 10.0,
        watch_every=watch_every,
    )
    if most:
        app[PRINCIPALS] = Principals(options, max_sessions=most)
        app[STORAGE] = given
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
    parser.add_argument("--most", type=int, default=0, help="sessions of a principal")
    parser.add_argument("--idle", type=float, default=600)
    parser.add_argument("--touch-after", default="5%")
    given = parser.parse_args()
    # A refused id is a 500 with a traceback, and that is wanted a hundred thousand times here.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    app = application(
        given.backend,
        is_theirs=given.theirs,
        is_repeating=given.repeating,
        is_brief=given.brief,
        watch_every=given.watch_every,
        most=given.most,
        idle=given.idle,
        touch_after=given.touch_after,
    )
    web.run_app(app, host="127.0.0.1", port=given.port, print=None, access_log=None, backlog=4096)


if __name__ == "__main__":
    main()
