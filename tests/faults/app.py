"""The application of the faults, in a process of its own: ``python -m tests.faults.app``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import socket
import time
from pathlib import Path
from typing import Any, Final

import aiohttp_session
from aiohttp import web
from aiohttp_session.redis_storage import RedisStorage as TheirRedisStorage
from redis.asyncio import Redis

from aiosess import SessionOptions, Storage, StorageCall, get_session, setup
from aiosess.storages.memcached import MemcachedStorage
from aiosess.storages.redis import RedisStorage

SECRET: Final = "the secret of the faults, long enough to be quiet"
RETRIES: Final = 2
TIMEOUT: Final = 0.3
THEIRS: Final = web.AppKey("theirs", bool)
CALLS: Final = web.AppKey("calls", list[int])
NAME: Final = "sessions.test"
"""The name of a server that only resolve_by() knows."""
_RESOLVER_HANGS: Final = 5.0


def wait(retry: int) -> float:
    """Return the seconds before a retry."""
    return 0.02 * retry


BUDGET: Final = TIMEOUT * (1 + RETRIES) + sum(map(wait, range(1, RETRIES + 1)))
"""What one act of a request may take, in seconds."""


async def write(request: web.Request) -> web.Response:
    """Keep the number in the query under the key there; answer whether the session is new."""
    if THEIRS in request.app:
        theirs = await aiohttp_session.get_session(request)
        is_new, theirs[request.query["key"]] = theirs.new, int(request.query["n"])
        return web.json_response({"is_new": is_new})
    session = await get_session(request)
    is_new, session[request.query["key"]] = session.new, int(request.query["n"])
    return web.json_response({"is_new": is_new})


async def read(request: web.Request) -> web.Response:
    """Answer with all that the session holds."""
    if THEIRS in request.app:
        return web.json_response(dict(await aiohttp_session.get_session(request)))
    return web.json_response(dict(await get_session(request)))


async def stats(request: web.Request) -> web.Response:
    """Answer how many calls of the storage there were."""
    return web.json_response(request.app[CALLS][0])


async def alive(_request: web.Request) -> web.Response:
    """Answer without a session."""
    return web.Response()


def storage_of(url: str) -> Storage:
    """Return the storage that *url* names."""
    if url.startswith("memcached"):
        return MemcachedStorage.from_url(url)
    return RedisStorage.from_url(url)


def resolve_by(names: Path) -> None:
    """From here on, let the file *names* say what a resolver answers for NAME.

    It holds an address, nothing where the name does not exist, or "hangs".
    """
    asked = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in {NAME, NAME.encode()}:
            return asked(host, *args, **kwargs)
        said = names.read_text()
        if said == "hangs":
            time.sleep(_RESOLVER_HANGS)
        if said in {"", "hangs"}:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return asked(said, *args, **kwargs)

    socket.getaddrinfo = getaddrinfo


async def serve(url: str, port: int, *, is_theirs: bool) -> None:
    app, calls = web.Application(), [0]
    app[CALLS] = calls

    def count(_call: StorageCall) -> None:
        calls[0] += 1

    if is_theirs:
        app[THEIRS] = True
        client: Redis = Redis.from_url(url)
        aiohttp_session.setup(app, TheirRedisStorage(client))
    else:
        setup(
            app,
            SessionOptions(
                secret=SECRET,
                storage=storage_of(url),
                retries=RETRIES,
                retries_strategy=wait,
                timeout=TIMEOUT,
                on_unavailable=web.HTTPServiceUnavailable,
                on_storage_call=count,
                exclude=["/stats", "/alive"],
            ),
        )
    for handler in (write, read, stats, alive):
        app.router.add_get(f"/{handler.__name__}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    is_over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, is_over.set)
    await is_over.wait()
    await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("port", type=int)
    parser.add_argument("--theirs", action="store_true")
    parser.add_argument("--log")
    parser.add_argument("--names", type=Path, help="a file with the address of the server's name")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, filename=given.log, format="%(levelname)s %(message)s")
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    if given.names is not None:
        resolve_by(given.names)
    asyncio.run(serve(given.url, given.port, is_theirs=given.theirs))
