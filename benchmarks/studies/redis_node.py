"""What a session asks of one Redis: memory by its size, and the server's processor time a request.

    make bench-redis-node

An application of aiosess writes sessions with so many bytes of data to an empty Redis of the
study's own. Memory is what ``used_memory`` grew by, for copies of one record that live a day.
Processor time is that of the Redis process, its kernel time included, for requests of 1 and of 32
browsers at once: those who ask in one tick share a write, which spares the server most of its work.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import redis
from aiohttp import web

from aiosess import SessionOptions, get_session, setup
from aiosess.storages.redis import RedisStorage

sys.path.insert(0, str(Path(__file__).parents[1]))
from cases import Connection
from processes import Process, cores, redis_server
from redis_bytes import bytes_a_session

# Bytes of data: {"n":1000,"text":"..."} takes 20 beside the text.
SIZES = (100, 500, 1_000, 2_000, 5_000, 10_000, 50_000)
AROUND = 20
COPIES = 20_000
REQUESTS = 3_200
ROUNDS = 7
HEAD = (
    "| data, bytes | record, bytes | Redis, bytes a session | read, µs of Redis: 1 at once, 32 "
    "| write, µs of Redis: 1 at once, 32 |\n| --- | --- | --- | --- | --- |"
)


def application(url: str) -> web.Application:
    app = web.Application()

    async def new(request: web.Request) -> web.Response:
        session = await get_session(request)
        session["n"] = 1000
        session["text"] = "x" * (int(request.query["size"]) - AROUND)
        return web.Response()

    async def read(request: web.Request) -> web.Response:
        session = await get_session(request)
        return web.Response(text=str(session["n"]))

    async def write(request: web.Request) -> web.Response:
        session = await get_session(request)
        session["n"] += 1
        return web.Response(text=str(session["n"]))

    app.router.add_get("/new", new)
    app.router.add_get("/read", read)
    app.router.add_get("/write", write)
    setup(app, SessionOptions(secret="s" * 40, storage=RedisStorage.from_url(url)))
    return app


async def seconds_a_request(process: Process, connections: list[Connection], path: str) -> float:
    """Return how long Redis was on a processor for each request to *path*: a median of rounds."""
    times = REQUESTS // len(connections)
    await asyncio.gather(*(each.get(path, 20) for each in connections))
    found = []
    for _ in range(ROUNDS):
        before = process.cpu_seconds()
        await asyncio.gather(*(each.get(path, times) for each in connections))
        found.append((process.cpu_seconds() - before) / (times * len(connections)))
    return statistics.median(found)


async def row(process: Process, client: Any, size: int, copies: int) -> str:
    """Return what sessions of that size ask of Redis."""
    client.flushdb()
    runner = web.AppRunner(application(f"redis://127.0.0.1:{process.port}/0"), access_log=None)
    await runner.setup()
    assert runner.server is not None
    connections = [Connection(runner.server()) for _ in range(32)]
    for each in connections:
        await each.begin(f"/new?size={size}")
    key = client.randomkey()
    value = client.get(key)
    cells = []
    for path in ("/read", "/write"):
        each = [
            await seconds_a_request(process, some, path) * 1e6
            for some in (connections[:1], connections)
        ]
        cells.append(", ".join(f"{one:.{one < 10:d}f}" for one in each))
    await runner.cleanup()
    taken = bytes_a_session(client, key, value, copies)
    return f"| {size:,} | {len(value):,} | {taken:,.0f} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--copies", type=int, default=COPIES)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aiosess-bench-")))
        process = redis_server(core=cores()[2], folder=folder)
        stack.callback(process.stop)
        client: Any = stack.enter_context(redis.Redis(port=process.port))
        print(f"Redis {client.info('server')['redis_version']}\n\n{HEAD}")
        for size in SIZES:
            print(asyncio.run(row(process, client, size, arguments.copies)), flush=True)


if __name__ == "__main__":
    main()
