"""The application to be measured: a counter, with the sessions of one library, or with none.

    python benchmarks/server.py --port 8080 --sessions aiosess --storage redis://127.0.0.1:6379/0

Every answer is a short text: ``/new`` begins a session with the number 0, ``/read`` says the
number, ``/write`` adds one and says it, ``/plain`` does not ask for its session, ``/excluded``
gets none, ``/person`` keeps what a log-in does. Without sessions, each of them says 0. A session
that is not found is an error 500, so that it cannot pass for a quick answer.
"""

# Each library is imported only where it is measured.
# ruff: noqa: PLC0415

from __future__ import annotations

import argparse
import gc
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

SECRET = "a secret for the benchmarks, longer than 32 bytes"

# The same in each of the peers: 111 bytes of JSON.
PERSON = {
    "user_id": 184467,
    "name": "Ada Lovelace",
    "roles": ["editor", "reviewer"],
    "csrf": "k3v9XbQ7mT2sW8yZr5nLp0aDhJ4cU1e",
}

# Seconds. A machine that is busy with something else, or counts, is no outage.
PATIENCE = 60.0

# Ours and theirs are both mappings.
GetSession = Callable[[web.Request], Awaitable[Any]]


def without_sessions(app: web.Application) -> None:
    """Add the routes, each with the bare handler that the others are compared with."""

    async def bare(_request: web.Request) -> web.Response:
        return web.Response(text="0")

    for path in ("/new", "/read", "/write", "/plain", "/excluded"):
        app.router.add_get(path, bare)


@web.middleware
async def do_nothing(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Pass a request on: what is left is what aiohttp takes for any middleware."""
    return await handler(request)


def without_current_app(app: web.Application) -> None:
    """Leave out what aiohttp could leave out where there is one application: a measurement only.

    See docs/explanation/speed.md, "What aiohttp could change".
    """
    app.pre_freeze()
    handlers: Any = app._middlewares_handlers  # noqa: SLF001 - there is no other way
    # The outermost one keeps request.match_info.current_app right where several take turns.
    app._middlewares_handlers = handlers[:-1]  # noqa: SLF001


def with_sessions(app: web.Application, get_session: GetSession) -> None:
    """Add the routes, each with its handler."""

    async def new(request: web.Request) -> web.Response:
        session = await get_session(request)
        session["number"] = 0
        return web.Response(text="0")

    async def read(request: web.Request) -> web.Response:
        session = await get_session(request)
        return web.Response(text=str(session["number"]))

    async def write(request: web.Request) -> web.Response:
        session = await get_session(request)
        session["number"] += 1
        return web.Response(text=str(session["number"]))

    async def plain(_request: web.Request) -> web.Response:
        return web.Response(text="0")

    async def person(request: web.Request) -> web.Response:
        session = await get_session(request)
        session.update(PERSON)
        return web.Response(text="0")

    app.router.add_get("/new", new)
    app.router.add_get("/person", person)
    app.router.add_get("/read", read)
    app.router.add_get("/write", write)
    app.router.add_get("/plain", plain)
    app.router.add_get("/excluded", plain)


def with_aiosess(
    app: web.Application, storage_url: str, *, is_eager: bool, is_bound: bool = False
) -> None:
    """Install aiosess as its documentation says, but for the time limits.

    With *is_bound*, each session belongs to a principal of its own.
    """
    import aiosess

    options = aiosess.SessionOptions(
        secret=SECRET,
        storage=_aiosess_storage(storage_url),
        load="eager" if is_eager else None,
        exclude=["/excluded"],
        timeout=PATIENCE,
    )
    if not is_bound:
        aiosess.setup(app, options)
        with_sessions(app, aiosess.get_session)
        return
    from aiosess.principals import Principals

    Principals(options)
    aiosess.setup(app, options)

    async def bound(request: web.Request) -> aiosess.Session:
        session = await aiosess.get_session(request)
        if session.new:
            await session.bind(f"principal of {session.id}")
        return session

    with_sessions(app, bound)


def with_aiohttp_session(app: web.Application, storage_url: str) -> None:
    """Install aiohttp-session as its documentation says."""
    import aiohttp_session

    aiohttp_session.setup(app, _aiohttp_session_storage(storage_url))
    with_sessions(app, aiohttp_session.get_session)


def with_sketch(app: web.Application) -> None:
    """Install the least that a session can do."""
    import sketch

    sketch.setup(app, SECRET)
    with_sessions(app, sketch.get_session)


def _aiosess_storage(url: str) -> Any:
    match urlsplit(url).scheme:
        case "memory":
            from aiosess import MemoryStorage

            return MemoryStorage()
        case "redis":
            from aiosess.storages.redis import RedisStorage

            return RedisStorage.from_url(url, socket_timeout=PATIENCE)
        case "memcached":
            from aiosess.storages.memcached import MemcachedStorage

            return MemcachedStorage.from_url(url, timeout=PATIENCE)
        case other:
            raise SystemExit(f"aiosess has no storage for {other!r}")


def _aiohttp_session_storage(url: str) -> Any:
    parts = urlsplit(url)
    match parts.scheme:
        case "redis":
            from aiohttp_session.redis_storage import RedisStorage
            from redis.asyncio import Redis

            # By default, the 101st request at once is an error.
            return RedisStorage(Redis.from_url(url, max_connections=1024))
        case "memcached":
            import aiomcache
            from aiohttp_session.memcached_storage import MemcachedStorage

            assert parts.hostname is not None
            assert parts.port is not None
            return MemcachedStorage(aiomcache.Client(parts.hostname, parts.port))
        case "cookie":
            from aiohttp_session.cookie_storage import EncryptedCookieStorage

            return EncryptedCookieStorage(SECRET.encode()[:32])
        case other:
            raise SystemExit(f"aiohttp-session has no storage for {other!r}")


def application(sessions: str, storage_url: str, *, is_eager: bool = False) -> web.Application:
    """Return the application with the sessions of one library, or with none."""
    app = web.Application()
    match sessions:
        case "aiosess":
            with_aiosess(app, storage_url, is_eager=is_eager)
        case "aiosess-bound":
            with_aiosess(app, storage_url, is_eager=is_eager, is_bound=True)
        case "aiohttp-session":
            with_aiohttp_session(app, storage_url)
        case "sketch":
            with_sketch(app)
        case "empty-middleware":
            app.middlewares.append(do_nothing)
            without_sessions(app)
        case "proposed-to-aiohttp":
            app.middlewares.append(do_nothing)
            without_sessions(app)
            without_current_app(app)
        case _:
            without_sessions(app)
    return app


async def freeze(_app: web.Application) -> None:
    """Let the garbage collector pass by all that is there already."""
    gc.collect()
    gc.freeze()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument(
        "--freeze", action="store_true", help="gc.freeze() once everything is there"
    )
    parser.add_argument(
        "--sessions",
        choices=(
            "none",
            "empty-middleware",
            "proposed-to-aiohttp",
            "sketch",
            "aiosess",
            "aiohttp-session",
        ),
        default="aiosess",
        help="empty-middleware: none, behind a middleware that does nothing; sketch: see sketch.py",
    )
    parser.add_argument(
        "--storage",
        default="memory:",
        metavar="URL",
        help="memory:, redis://..., memcached://... or cookie: (encrypted, aiohttp-session only)",
    )
    parser.add_argument("--eager", action="store_true", help="load before the handler runs")
    arguments = parser.parse_args()

    # That MemoryStorage is for one process is known here.
    logging.getLogger("aiosess").setLevel(logging.ERROR)
    app = application(arguments.sessions, arguments.storage, is_eager=arguments.eager)
    if arguments.freeze:
        app.on_startup.append(freeze)
    loop = None
    if arguments.loop == "uvloop":
        import uvloop

        loop = uvloop.new_event_loop()
    web.run_app(app, host="127.0.0.1", port=arguments.port, access_log=None, print=None, loop=loop)


if __name__ == "__main__":
    main()
