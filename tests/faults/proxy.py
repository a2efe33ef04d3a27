"""A proxy between a storage and its server that loses a reply, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

__all__ = ["Proxy", "proxy_to"]


class Proxy:
    """Hands on what client and server say; when told to, it swallows what the server says next."""

    def __init__(self, upstream: int) -> None:
        self.port = 0
        self.connections = 0
        self.swallowed = asyncio.Event()
        self._upstream = upstream
        self._swallows_next = False
        self._tasks: set[asyncio.Task[None]] = set()

    def swallow_next(self) -> None:
        """Lose what the server says next; ``swallowed`` is set then."""
        self.swallowed.clear()
        self._swallows_next = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        answers, questions = await asyncio.open_connection("127.0.0.1", self._upstream)
        for pump in (self._ask(reader, questions), self._answer(answers, writer)):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                if self._swallows_next:
                    self._swallows_next = False
                    self.swallowed.set()
                    continue
                writer.write(data)
        finally:
            writer.close()


@asynccontextmanager
async def proxy_to(port: int) -> AsyncGenerator[Proxy]:
    """Give a proxy that stands before *port* of the loopback interface, at a port of its own."""
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
        await server.wait_closed()
