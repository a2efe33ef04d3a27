"""How many instructions the server's process executes for one request: exact on any machine.

    make bench-instructions
    python benchmarks/instructions.py --against HEAD~1
    python benchmarks/instructions.py --only 'memory-*,redis-read'

valgrind counts them, in user space. aiohttp's own server answers 32 connections that are in the
same process, so that what the kernel does is left out; Redis and memcached are real. Each case runs
with few and with more requests, and the difference is what the requests took. Neighbours do not
change it; a slow machine only takes longer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fnmatch
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aiohttp import web
from micro import unpacked
from processes import cores, memcached, redis_server
from server import application

CONNECTIONS = 32
FEW, MORE = 10, 40


@dataclass(frozen=True)
class Case:
    """One route of one application."""

    name: str
    sessions: str
    storage: str
    path: str


CASES = [
    Case("bare", "none", "", "/read"),
    Case("empty-middleware", "empty-middleware", "", "/read"),
    Case("sketch-read", "sketch", "", "/read"),
    Case("sketch-write", "sketch", "", "/write"),
    Case("unused", "aiosess", "memory:", "/plain"),
    Case("memory-read", "aiosess", "memory:", "/read"),
    Case("memory-write", "aiosess", "memory:", "/write"),
    *(
        Case(f"{prefix}{storage}-{act}", sessions, "{" + storage + "}", f"/{act}")
        for storage in ("redis", "memcached")
        for act in ("read", "write")
        for prefix, sessions in (("", "aiosess"), ("as-", "aiohttp-session"))
    ),
]


class Wire(asyncio.Transport):
    """The server's side of a connection; what is written there is the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.answer: asyncio.Future[bytes] | None = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default

    def is_closing(self) -> bool:
        return False

    def write(self, data: Any) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(bytes(data))

    def writelines(self, lines: Any) -> None:
        self.write(b"".join(lines))


class Connection:
    """One browser."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        self._protocol = protocol
        self._wire = Wire()
        self._cookie = "theme=dark"
        protocol.connection_made(self._wire)

    async def begin(self) -> None:
        """Begin a session."""
        found = re.search(rb"(?i)\r\nset-cookie: ([^;]*)", await self.get("/new"))
        if found is not None:
            self._cookie += "; " + found[1].decode()

    async def get(self, path: str, times: int = 1) -> bytes:
        """Ask so many times; return the last answer."""
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {self._cookie}\r\n\r\n"
        answer = b""
        for _ in range(times):
            self._wire.answer = asyncio.get_running_loop().create_future()
            self._protocol.data_received(request.encode())
            answer = await self._wire.answer
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"GET {path} was answered with {answer!r}")
        return answer


async def begun(case: Case) -> list[Connection]:
    """Return the connections to an application, each with a session and some requests behind it."""
    runner = web.AppRunner(application(case.sessions, case.storage), access_log=None)
    await runner.setup()
    assert runner.server is not None
    connections = [Connection(runner.server()) for _ in range(CONNECTIONS)]
    for connection in connections:
        await connection.begin()
    await asyncio.gather(*(connection.get(case.path, 5) for connection in connections))
    return connections


async def answer(case: Case, times: int) -> None:
    """Let each connection ask *times* times."""
    connections = await begun(case)
    await asyncio.gather(*(connection.get(case.path, times) for connection in connections))


def count(case: Case, times: int, package: Path | None) -> int:
    """Return the instructions of a whole process."""
    command = ["valgrind", "--tool=cachegrind", "--cache-sim=no"]
    command += ["--cachegrind-out-file=/dev/null", sys.executable, __file__]
    command += ["--run", json.dumps([case.name, case.sessions, case.storage, case.path, times])]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    if package is not None:
        environment["PYTHONPATH"] = str(package)
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = re.search(r"I\s+refs:\s+([\d,]+)", finished.stderr)
    if finished.returncode or found is None:
        raise SystemExit(f"{case.name}: {finished.stderr}")
    return int(found[1].replace(",", ""))


def per_request(case: Case, package: Path | None) -> float:
    """Return the instructions of one request."""
    with ThreadPoolExecutor(2) as both:
        few, more = both.map(lambda times: count(case, times, package), (FEW, MORE))
    return (more - few) / (MORE - FEW) / CONNECTIONS


@contextlib.contextmanager
def back_ends() -> Iterator[Callable[[Case], Case]]:
    """Start Redis and memcached, and give a function that says of a case where they are."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aiosess-bench-")))
        *_, back_end_core = cores()
        ports = {}
        for name, start in {"redis": redis_server, "memcached": memcached}.items():
            process = start(core=back_end_core, folder=folder)
            stack.callback(process.stop)
            ports[name] = process.port
        urls = {
            "{redis}": f"redis://127.0.0.1:{ports['redis']}/0",
            "{memcached}": f"memcached://127.0.0.1:{ports['memcached']}",
        }
        yield lambda case: replace(case, storage=urls.get(case.storage, case.storage))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", metavar="NAMES", help="these cases, * allowed, with commas")
    parser.add_argument("--against", metavar="REVISION", help="another revision beside it")
    parser.add_argument("--run", metavar="CASE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if arguments.run:
        *fields, times = json.loads(arguments.run)
        asyncio.run(answer(Case(*fields), times))
        return

    patterns = (arguments.only or "*").split(",")
    chosen = [
        case
        for case in CASES
        if case.name == "bare" or any(fnmatch.fnmatch(case.name, each) for each in patterns)
    ]
    with contextlib.ExitStack() as stack:
        placed = stack.enter_context(back_ends())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aiosess-bench-")))
        other = unpacked(arguments.against, folder) if arguments.against else None
        against = f" {arguments.against} |" if other is not None else ""
        print(f"| thousand instructions a request | now | beyond bare | of bare |{against}")
        print("| --- | --- | --- | --- |" + (" --- |" if other is not None else ""))
        bare = 0.0
        for case in chosen:
            now = per_request(placed(case), None)
            bare = bare or now
            row = (
                f"| {case.name} | {now / 1e3:.0f} | {(now - bare) / 1e3:+.0f} | {bare / now:.2f} |"
            )
            if other is not None and case.sessions == "aiosess":
                row += f" {per_request(placed(case), other) / 1e3:.0f} |"
            elif other is not None:
                row += " |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
