"""A Redis that misbehaves exactly as a test says, one conversation a connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import hiredis


class Conversation:
    """One connection, seen from the server; *number* counts the connections from 1."""

    def __init__(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.number = number
        self._reader = reader
        self._writer = writer
        self._commands = hiredis.Reader()

    async def command(self) -> list[bytes]:
        """Return the next command; EOFError when the client has left."""
        while True:
            command: Any = self._commands.gets()
            if command is not False:
                return list(command)
            data = await self._reader.read(65536)
            if not data:
                raise EOFError
            self._commands.feed(data)

    async def greet(self) -> None:
        """Answer what redis-py says when it has connected: HELLO, CLIENT SETINFO, ..."""
        words: list[bytes] = []
        while words[-2:-1] != [b"LIB-VER"]:
            words = await self.command()
            self.say(b"-ERR no\r\n" if b"MAINT_NOTIFICATIONS" in words else b"+OK\r\n")

    async def hear(self) -> None:
        """Wait until the client says something more, and read no more than its beginning."""
        self._commands.feed(await self._reader.read(1))

    def say(self, data: bytes) -> None:
        """Send *data* as it is."""
        self._writer.write(data)

    async def flush(self) -> None:
        """Wait until what was said has left."""
        await self._writer.drain()

    async def echo(self) -> None:
        """Answer each command with its second word, as if every record held its own key."""
        while True:
            self.say(bulk((await self.command())[1]))

    def close(self) -> None:
        """End the connection."""
        self._writer.close()


Talk: TypeAlias = Callable[[Conversation], Awaitable[None]]


def bulk(value: bytes) -> bytes:
    """Return *value* as Redis sends a string."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


@asynccontextmanager
async def odd_redis(talk: Talk) -> AsyncGenerator[str]:
    """Give the URL of a server that runs *talk* for each connection, and closes it after."""
    tasks: set[asyncio.Task[Any]] = set()
    number = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal number
        number += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(EOFError, OSError, asyncio.CancelledError):
                await talk(Conversation(number, reader, writer))
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await server.wait_closed()
