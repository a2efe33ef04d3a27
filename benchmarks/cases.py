"""The requests that instructions.py and steps.py count: browsers in the server's own process.

aiohttp's own server answers connections that are no sockets, so that what the kernel does is left
out. Redis and memcached are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aiohttp import web
from processes import cores, memcached, redis_server
from server import application

CONNECTIONS = 32


@dataclass(frozen=True)
class Case:
    """One route of one application."""

    name: str
    sessions: str
    storage: str
    path: str
    connections: int = CONNECTIONS


CASES = [
    Case("bare", "none", "", "/read"),
    Case("empty-middleware", "empty-middleware", "", "/read"),
    Case("proposed-to-aiohttp", "proposed-to-aiohttp", "", "/read"),
    Case("sketch-read", "sketch", "", "/read"),
    Case("sketch-write", "sketch", "", "/write"),
    Case("excluded", "aiosess", "memory:", "/excluded"),
    Case("unused", "aiosess", "memory:", "/plain"),
    Case("memory-read", "aiosess", "memory:", "/read"),
    Case("memory-write", "aiosess", "memory:", "/write"),
    Case("bound-read", "aiosess-bound", "{redis}", "/read"),
    Case("bound-write", "aiosess-bound", "{redis}", "/write"),
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

    def close(self) -> None:
        pass

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

    async def begin(self, path: str = "/new") -> None:
        """Begin a session."""
        found = re.search(rb"(?i)\r\nset-cookie: ([^;]*)", await self.get(path))
        if found is not None:
            self._cookie += "; " + found[1].decode()

    async def get(self, path: str, times: int = 1) -> bytes:
        """Ask so many times; return the last answer, which must be a success."""
        answer = await self.ask(path, times)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"GET {path} was answered with {answer!r}")
        return answer

    async def ask(self, path: str, times: int = 1) -> bytes:
        """Ask so many times; return the last answer, whatever it is."""
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {self._cookie}\r\n\r\n"
        answer = b""
        for _ in range(times):
            self._wire.answer = asyncio.get_running_loop().create_future()
            self._protocol.data_received(request.encode())
            answer = await self._wire.answer
        return answer


async def begun(case: Case) -> list[Connection]:
    """Return the connections to an application, each with a session and some requests behind it."""
    app = application(case.sessions, case.storage)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    assert runner.server is not None
    connections = [Connection(runner.server()) for _ in range(case.connections)]
    for connection in connections:
        await connection.begin()
    await asyncio.gather(*(connection.get(case.path, 5) for connection in connections))
    return connections


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
