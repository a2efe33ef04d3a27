"""Thousands of requests at once, on a Redis that is quick: answers by status, and sessions lost.

    make bench-overload
    python benchmarks/studies/overload.py --requests 20000 --compute-ms 1

All requests come in one tick of the event loop, each with a session of its own that holds a number,
to an application with the default options. The server is late then, its Redis is not: a session is
lost where the answer is not the number that is in it. After reading, each session is written once;
an answered write that is not in the storage is lost as well.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from aiosess import SessionOptions, get_session, setup
from aiosess.storages.redis import RedisStorage

sys.path.insert(0, str(Path(__file__).parents[1]))
from cases import Connection
from processes import cores, redis_server

# How many at once, and how long each handler computes, in milliseconds.
CASES = [(3_000, 0.0), (5_000, 0.0), (5_000, 0.5), (10_000, 0.0), (12_000, 0.0)]
HEAD = (
    "| at once | a handler computes | act | answers by status | sessions lost | seconds |\n"
    "| --- | --- | --- | --- | --- | --- |"
)


def application(url: str) -> web.Application:
    app = web.Application()

    async def new(request: web.Request) -> web.Response:
        session = await get_session(request)
        session["number"] = int(request.query["number"])
        return web.Response(text=str(session["number"]))

    async def read(request: web.Request) -> web.Response:
        session: Any = await get_session(request)
        compute(float(request.query["ms"]))
        return web.Response(text=str(session["number"]))

    async def write(request: web.Request) -> web.Response:
        session: Any = await get_session(request)
        compute(float(request.query["ms"]))
        session["number"] += 1
        return web.Response(text=str(session["number"]))

    app.router.add_get("/new", new)
    app.router.add_get("/read", read)
    app.router.add_get("/write", write)
    setup(app, SessionOptions(secret="s" * 40, storage=RedisStorage.from_url(url)))
    return app


def compute(milliseconds: float) -> None:
    """Keep the event loop for so long."""
    end = time.perf_counter() + milliseconds / 1e3
    while time.perf_counter() < end:
        pass


async def ask(connections: Sequence[Connection], path: str, ms: float) -> list[tuple[int, str]]:
    """Let all connections ask in one tick; return statuses and texts."""
    answers = await asyncio.gather(
        *(connection.ask(f"{path}?ms={ms}") for connection in connections)
    )
    return [_parsed(answer) for answer in answers]


def _parsed(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    found = re.match(rb"HTTP/1.1 (\d+)", head)
    assert found is not None
    return int(found[1]), body.decode(errors="replace")


async def run(url: str, requests: int, ms: float) -> int:
    """Print what becomes of so many requests at once; return how many sessions were lost."""
    runner = web.AppRunner(application(url), access_log=None)
    await runner.setup()
    assert runner.server is not None
    connections = [Connection(runner.server()) for _ in range(requests)]
    for number in range(0, requests, 100):
        some = connections[number : number + 100]
        await asyncio.gather(
            *(each.begin(f"/new?number={number + index}") for index, each in enumerate(some))
        )
    lost = 0
    for path, more in (("/read", 0), ("/write", 1)):
        begun = time.perf_counter()
        answers = await ask(connections, path, ms)
        took = time.perf_counter() - begun
        gone = sum(answer != (200, str(number + more)) for number, answer in enumerate(answers))
        if more:
            # Answered as kept, and not there.
            kept = await asyncio.gather(*(each.ask("/read?ms=0") for each in connections[:1000]))
            gone += sum(
                answer[0] == 200 and _parsed(later) != answer
                for answer, later in zip(answers[:1000], kept, strict=True)
            )
        statuses = ", ".join(
            f"{status}: {count:,}"
            for status, count in sorted(Counter(a for a, _ in answers).items())
        )
        print(
            f"| {requests:,} | {ms:g} ms | {path[1:]} | {statuses} | {gone} | {took:.1f} |",
            flush=True,
        )
        lost += gone
    await runner.cleanup()
    return lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, help="so many at once, in the place of five cases")
    parser.add_argument("--compute-ms", type=float, default=0.5)
    parser.add_argument("--log", action="store_true", help="show what aiosess says of it")
    arguments = parser.parse_args()
    if not arguments.log:
        logging.disable(logging.CRITICAL)
    cases = [(arguments.requests, arguments.compute_ms)] if arguments.requests else CASES
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aiosess-bench-")))
        process = redis_server(core=cores()[2], folder=folder)
        stack.callback(process.stop)
        print(HEAD)
        url = f"redis://127.0.0.1:{process.port}/0"
        lost = sum(asyncio.run(run(url, requests, ms)) for requests, ms in cases)
    print(f"\nsessions lost: {lost}")
    sys.exit(bool(lost))


if __name__ == "__main__":
    main()
