"""A request without a socket: aiohttp's own server protocol, on a transport in memory."""

from __future__ import annotations

import asyncio
import io
import re
from http.client import HTTPException, HTTPResponse
from typing import Any, NamedTuple, cast

from aiohttp import web

__all__ = ["Answer", "Wire"]

# What differs from one run to the next and says nothing.
_UNTOLD = frozenset({"Date", "Server"})


class Answer(NamedTuple):
    """What a browser gets: *status* ``None`` where there was no response at all."""

    status: int | None
    headers: list[tuple[str, str]]
    body: str


class Wire(asyncio.Transport):
    """One connection, for one request."""

    def __init__(self, server: web.Server, *, is_encrypted: bool) -> None:
        super().__init__({"sslcontext": object()} if is_encrypted else {})
        self._protocol = server()
        self.sent = bytearray()
        self._is_closing = False
        self._is_lost = False
        self._closed = asyncio.Event()

    async def ask(self, path: str, headers: dict[str, str]) -> Answer:
        """Send a request and return the answer, once the server has closed the connection."""
        lines = [f"GET {path} HTTP/1.1", "Host: example.org", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return await self.say("\r\n".join([*lines, "", ""]).encode())

    async def say(self, data: bytes) -> Answer:
        """Send *data* as it is and return the answer, once the server has closed the connection."""
        self._protocol.connection_made(self)
        self._protocol.data_received(data)
        await self._closed.wait()
        return _answer(bytes(self.sent))

    def hang_up(self) -> None:
        """Close the connection from the browser's side."""
        if not self._is_closing:
            self._is_closing = True
            asyncio.get_running_loop().call_soon(self._lose)

    def _lose(self) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._protocol.connection_lost(None)
            self._closed.set()

    # What aiohttp asks of a transport.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._is_closing:
            self.sent += data

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self.hang_up()

    def abort(self) -> None:
        self.hang_up()

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    @property
    def _sendfile_compatible(self) -> None:
        # The loop asks for it; aiohttp then reads the file itself.
        raise NotImplementedError


class _Sent(io.BytesIO):
    """What was sent; it stays open, so that what comes after the response is seen too."""

    def makefile(self, _mode: str) -> _Sent:
        return self

    def close(self) -> None:
        pass


def _answer(sent: bytes) -> Answer:
    if not sent:
        return Answer(None, [], "nothing was sent")
    stream = _Sent(sent)
    response = HTTPResponse(cast("Any", stream), method="GET")
    try:
        response.begin()
    except HTTPException as error:
        return Answer(None, [], f"{type(error).__name__}: {_undated(sent)!r}")
    headers = [(name, value) for name, value in response.getheaders() if name not in _UNTOLD]
    try:
        body = repr(response.read()[:80])
    except HTTPException as error:
        body = f"cut: {type(error).__name__}"
    more = stream.read()
    return Answer(response.status, headers, f"{body}, then {_undated(more)!r}" if more else body)


def _undated(sent: bytes) -> bytes:
    return re.sub(rb"Date: [^\r]*", b"Date: ...", sent)
