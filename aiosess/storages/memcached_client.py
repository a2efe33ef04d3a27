"""A small memcached client: one connection a node, shared by all that is asked at once.

The commands of one loop tick leave in one write, and the replies are handed out in the order of
the commands. docs/explanation/memcached-client.md says why it is not one of the libraries. The
protocol: https://github.com/memcached/memcached/blob/master/doc/protocol.txt
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias, cast
from urllib.parse import unquote, urlsplit

from aiosess.errors import OptionsError, StorageError

__all__ = ["MemcachedClient", "Reply", "Value"]

_PORT: Final = 11211
_MOST_PORTS: Final = 65535

# Words that end a reply and leave the connection usable.
_WORDS: Final = frozenset(
    (b"STORED", b"NOT_STORED", b"EXISTS", b"NOT_FOUND", b"TOUCHED", b"DELETED", b"END")
)
_LINE_END: Final = b"\r\n"
_END: Final = b"END\r\n"


class Value(NamedTuple):
    """What is kept under *key*: its bytes, and the cas unique that names this state of it."""

    key: bytes
    payload: bytes
    unique: int


Reply: TypeAlias = Value | bytes
"""What memcached answered: a value, or the line without its end; of statistics, all lines."""


class MemcachedClient:
    """Talks to memcached 1.4.8 or later, over one connection to each node.

    - *nodes*: ``"host:port"``, ``"host"``, ``"[::1]:11211"`` or the path of a Unix socket. A key
      belongs to one of them by its name alone (rendezvous hashing): where a node is added or
      removed, only the keys that move to or from it change their place; the order is of no
      importance. A node that is away is not stood in for, so that it cannot come back with
      records that were changed or deleted elsewhere meanwhile.
    - *timeout*: seconds in which a connection must stand, and after which a node that says
      nothing although it was asked is given up; the next call connects anew.
    - *tls*: an ``ssl.SSLContext``; *username* and *password*: for a server started with ``-Y``.

    It connects when first used, and may be built before there is a loop.
    """

    def __init__(
        self,
        *nodes: str,
        timeout: float = 2.0,
        tls: ssl.SSLContext | None = None,
        username: str | None = None,
        password: str | None = None,
    ) -> None:
        if not nodes:
            raise OptionsError("nodes=() names no server: give 'host:port' once or more")
        if not timeout > 0:
            raise OptionsError(f"timeout={timeout!r} must be more than 0 seconds")
        if (username is None) != (password is None):
            raise OptionsError("username and password go together: give both or none")
        login = None if username is None else f"{username} {password}".encode()
        dial = _Dial(timeout, tls, login)
        self._nodes = [_Node(name, dial) for name in sorted(set(nodes))]

    @classmethod
    def from_url(
        cls, url: str, *, timeout: float = 2.0, tls: ssl.SSLContext | None = None
    ) -> MemcachedClient:
        """Return a client for ``memcached://[user:password@]host:port,host2:port2``.

        ``memcacheds://`` is the same over TLS, by *tls* or the default context;
        ``unix:///run/memcached.sock`` is a socket of this machine.
        """
        parts = urlsplit(url)
        if parts.scheme == "unix" and parts.path and not parts.netloc:
            return cls(parts.path, timeout=timeout)
        credentials, _, hosts = parts.netloc.rpartition("@")
        has_more = parts.path.strip("/") or parts.query or parts.fragment
        if parts.scheme not in ("memcached", "memcacheds") or not hosts or has_more:
            raise OptionsError(
                "the url is not of the form memcached://host:port,host2:port2, "
                "memcacheds://host:port or unix:///path"
            )
        if parts.scheme == "memcacheds" and tls is None:
            tls = ssl.create_default_context()
        username, _, password = credentials.partition(":")
        return cls(
            *hosts.split(","),
            timeout=timeout,
            tls=tls,
            username=unquote(username) if credentials else None,
            password=unquote(password) if credentials else None,
        )

    async def ask(self, key: bytes, command: bytes) -> Reply:
        """Send *command*, which is about *key*, to the key's node, and return the reply.

        Raise OSError (``TimeoutError`` and ``ConnectionError`` are some) when there is none. May
        be cancelled: a command that was not sent yet is not sent, and the reply to one that was
        is thrown away when it comes.
        """
        nodes = self._nodes
        node = nodes[0] if len(nodes) == 1 else max(nodes, key=lambda node: node.score(key))
        connection = node.connection
        if connection is None or connection.loop is not asyncio.get_running_loop():
            connection = await node.connect()
        return await connection.ask(key, command)

    async def close(self) -> None:
        """Close the connections; who waits for a reply gets ``ConnectionError``."""
        for node in self._nodes:
            node.close()


@dataclass(frozen=True, slots=True)
class _Dial:
    """How every node is connected to."""

    timeout: float
    tls: ssl.SSLContext | None
    login: bytes | None


class _Node:
    """One server: where it is, and the connection to it, if there is one."""

    def __init__(self, name: str, dial: _Dial) -> None:
        self.connection: _Connection | None = None
        self._dial = dial
        self._connecting: asyncio.Task[_Connection] | None = None
        self._path = name if name.startswith("/") else None
        self._host, self._port = ("", 0) if self._path else _address(name)
        place = self._path or f"{self._host}:{self._port}"
        self._hash = hashlib.blake2b(place.encode() + b" ", digest_size=8)

    def score(self, key: bytes) -> bytes:
        """Return how much the key belongs here: the node with the most has it."""
        score = self._hash.copy()
        score.update(key)
        return score.digest()

    async def connect(self) -> _Connection:
        """Return a connection that stands, a new one where needed; all who ask share it."""
        loop = asyncio.get_running_loop()
        task = self._connecting
        if task is None or task.done() or task.get_loop() is not loop:
            task = self._connecting = loop.create_task(self._connect(loop))
            # Who was cancelled meanwhile does not look at the outcome.
            task.add_done_callback(_look_at)
        # Unlike an awaited task, one that is waited for outlives the cancelled waiter.
        await asyncio.wait([task])
        if task.cancelled():
            raise ConnectionAbortedError("the client was closed")
        return task.result()

    def close(self) -> None:
        connecting, self._connecting = self._connecting, None
        if connecting is not None and not connecting.get_loop().is_closed():
            connecting.cancel()
        connection, self.connection = self.connection, None
        if connection is not None and not connection.loop.is_closed():
            connection.give_up(ConnectionAbortedError("the client was closed"))

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> _Connection:
        dial = self._dial
        connection = _Connection(loop, self, dial.timeout)
        try:
            async with asyncio.timeout(dial.timeout):
                if self._path is not None:
                    await loop.create_unix_connection(lambda: connection, self._path, ssl=dial.tls)
                else:
                    await loop.create_connection(
                        lambda: connection, self._host, self._port, ssl=dial.tls
                    )
                if dial.login is not None:
                    await _log_in(connection, dial.login)
            # One that was closed at once says so to whoever asks; the next call connects anew.
            self.connection = connection if connection.is_open else None
        finally:
            if self.connection is not connection:
                connection.give_up(ConnectionResetError("memcached was not connected to"))
        return connection


class _Call(NamedTuple):
    key: bytes
    command: bytes
    reply: asyncio.Future[Reply]


class _Connection(asyncio.Protocol):
    """Sends what is asked in one tick together, and hands the replies out in order.

    Whatever makes it doubtful which reply belongs to whom ends the connection.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, node: _Node, patience: float) -> None:
        self.loop = loop
        self.is_open = False
        self._node = node
        self._patience = patience
        self._transport: asyncio.Transport | None = None
        self._may_write = True
        self._unsent: list[_Call] = []
        self._sent: deque[_Call] = deque()
        self._received: list[bytes] = []
        self._length = 0
        self._needed = 0
        self._is_silent = True
        self._watch: asyncio.TimerHandle | None = None

    async def ask(self, key: bytes, command: bytes) -> Reply:
        """Send *command* at the end of this tick; return its reply."""
        if not self.is_open:
            raise ConnectionResetError("the connection to memcached was lost")
        reply: asyncio.Future[Reply] = self.loop.create_future()
        if not self._unsent:
            self.loop.call_soon(self._send)
        self._unsent.append(_Call(key, command, reply))
        return await reply

    def give_up(self, error: Exception) -> None:
        """Close at once; who waits for a reply gets an error with the text of *error*."""
        if self._transport is not None:
            self._transport.abort()
        self._end(error)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or ConnectionResetError("memcached closed the connection"))

    def pause_writing(self) -> None:
        self._may_write = False

    def resume_writing(self) -> None:
        self._may_write = True
        self._send()

    def data_received(self, data: bytes) -> None:
        self._is_silent = False
        self._received.append(data)
        self._length += len(data)
        if self._length < self._needed:
            return
        data = b"".join(self._received) if len(self._received) > 1 else data
        start, self._needed = 0, 0
        while start < len(data):
            reply, end = _read(data, start)
            if reply is None:
                self._needed = end - start
                break
            start = end
            if not self._hand_out(reply):
                return
        self._received = [data[start:]] if start < len(data) else []
        self._length = len(data) - start

    def _hand_out(self, reply: Reply) -> bool:
        """Give *reply* to the longest waiting; False when the connection had to be given up."""
        if not self._sent:
            self.give_up(ConnectionResetError(f"memcached said unasked: {_text(reply)}"))
            return False
        call = self._sent.popleft()
        if isinstance(reply, Value) and reply.key != call.key:
            self._sent.appendleft(call)
            self.give_up(ConnectionResetError("memcached answered with another key"))
            return False
        if not call.reply.done():
            call.reply.set_result(reply)
        if isinstance(reply, Value) or reply in _WORDS or reply.startswith((b"SERV", b"STAT")):
            return True
        # After a command that it did not understand, memcached may take data for commands.
        self.give_up(ConnectionResetError(f"memcached said: {_text(reply)}"))
        return False

    def _send(self) -> None:
        if not self._may_write or self._transport is None:
            return
        calls = [call for call in self._unsent if not call.reply.done()]
        self._unsent.clear()
        if not calls:
            return
        self._sent.extend(calls)
        self._transport.write(b"".join([call.command for call in calls]))
        if self._watch is None:
            self._watch_on()

    def _watch_on(self) -> None:
        self._is_silent = True
        self._watch = self.loop.call_later(self._patience, self._look)

    def _look(self) -> None:
        self._watch = None
        if not self._sent:
            return
        if self._is_silent:
            self.give_up(TimeoutError(f"memcached said nothing for {self._patience:g} s"))
            return
        self._watch_on()

    def _end(self, error: Exception) -> None:
        if not self.is_open:
            return
        self.is_open = False
        if self._node.connection is self:
            self._node.connection = None
        if self._watch is not None:
            self._watch.cancel()
        kind = TimeoutError if isinstance(error, TimeoutError) else ConnectionResetError
        for call in (*self._sent, *self._unsent):
            if not call.reply.done():
                # One error each: an error that is raised twice collects both tracebacks.
                call.reply.set_exception(kind(str(error)))
        self._sent.clear()
        self._unsent.clear()


def _read(data: bytes, start: int) -> tuple[Reply | None, int]:
    """Return the reply that begins at *start* and where it ends.

    ``None`` and where it ends at the earliest, when it is not all there yet.
    """
    line_end = data.find(_LINE_END, start)
    if line_end < 0:
        return None, len(data) + 1
    line = data[start:line_end]
    after = line_end + 2
    if line.startswith(b"VALUE "):
        _, key, _, length, unique = line.split(b" ")
        payload_end = after + int(length)
        end = payload_end + 2 + len(_END)
        if len(data) < end:
            return None, end
        return Value(key, data[after:payload_end], int(unique)), end
    if line.startswith(b"STAT "):
        last = data.find(_LINE_END + _END, line_end)
        if last < 0:
            return None, len(data) + 1
        return data[start:last], last + 2 + len(_END)
    return line, after


async def _log_in(connection: _Connection, login: bytes) -> None:
    # Any key will do: https://github.com/memcached/memcached/blob/master/doc/protocol.txt
    reply = await connection.ask(b"", b"set auth 0 0 %d\r\n%b\r\n" % (len(login), login))
    if reply != b"STORED":
        raise StorageError(f"memcached refused the username or password: {_text(reply)}")


def _without_login(name: str) -> str:
    return name.rpartition("@")[2]


def _address(name: str) -> tuple[str, int]:
    host, colon, port = name.rpartition(":")
    if not colon or name.endswith("]"):
        host, port = name, str(_PORT)
    is_bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if is_bracketed else host
    if not host or (":" in host and not is_bracketed):
        raise OptionsError(
            f"{_without_login(name)!r} is not a node: write 'host:port' or '[::1]:port'"
        )
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= _MOST_PORTS):
        raise OptionsError(
            f"{_without_login(name)!r} is not a node: its port is not from 1 to {_MOST_PORTS}"
        )
    return host, int(port)


def _look_at(task: asyncio.Task[_Connection]) -> None:
    if not task.cancelled():
        task.exception()


def _text(reply: Reply) -> str:
    return reply.decode(errors="replace") if isinstance(reply, bytes) else "a value"
