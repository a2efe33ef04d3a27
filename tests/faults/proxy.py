"""A proxy between a storage and its server that does to the connection what networks do."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

__all__ = ["Proxy", "proxy_to"]


class Proxy:
    """Hands on what client and server say, until it is told to do otherwise.

    - ``garbles``: each reply begins with what no server says.
    - ``cuts``: of each reply a half is handed on, and the connection closed.
    - ``delay``: what the server says at a time is handed on after so many seconds.
    - ``rate``: so many bytes of replies a second; ``None``: as many as there are.
    """

    def __init__(self, upstream: int) -> None:
        self.port = 0
        self.connections = 0
        self.swallowed = asyncio.Event()
        self.garbles = False
        self.cuts = False
        self.delay = 0.0
        self.rate: float | None = None
        self._upstream = upstream
        self._swallows_next = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._forgotten: set[asyncio.StreamWriter] = set()

    def reset(self) -> None:
        """Reset the connections that there are."""
        for writer in self._writers:
            end: socket.socket = writer.get_extra_info("socket")
            # Closed so, a connection says RST and not FIN.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def forget(self) -> None:
        """Hand on nothing more of the connections that there are, as a firewall does at times."""
        self._forgotten |= self._writers

    def swallow_next(self) -> None:
        """Lose what the server says next; ``swallowed`` is set then."""
        self.swallowed.clear()
        self._swallows_next = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            answers, questions = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(writer)
        for pump in (self._ask(reader, questions, writer), self._answer(answers, writer)):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
    ) -> None:
        try:
            while data := await reader.read(65_536):
                if client not in self._forgotten:
                    writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                if self._swallows_next:
                    self._swallows_next = False
                    self.swallowed.set()
                    continue
                if writer in self._forgotten:
                    continue
                await asyncio.sleep(self.delay)
                if self.rate is not None:
                    await asyncio.sleep(len(data) / self.rate)
                if self.cuts:
                    writer.write(data[: len(data) // 2])
                    break
                writer.write(b"\x00odd\r\n" + data if self.garbles else data)
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
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
