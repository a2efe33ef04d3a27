"""A small memcached client: one connection a node, shared by all that is asked at once.

The commands of one loop tick leave in one write, and the replies are handed out in the order of
the commands. docs/explanation/memcached-client.md says why it is not one of the libraries. The
protocol: https://github.com/memcached/memcached/blob/master/doc/protocol.txt
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import ssl
from asyncio import get_running_loop
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias, cast
from urllib.parse import unquote

import msgspec

from aiosess.clients.addresses import address, split
from aiosess.clients.pipeline import (
    STALL,
    Call,
    Pipeline,
    Wires,
    clock,
    expire,
    hang_up,
    keep_alive,
)
from aiosess.errors import OptionsError, StorageUnavailable
from aiosess.privacy import private
from aiosess.timeouts import seconds

__all__ = ["MemcachedClient", "Reply", "Value"]

_PORT: Final = 11211

# What those are told who waited in a task that somebody cancelled.
_CANCELLED: Final = "the client was closed, or its event loop ends"

# Words that end a reply and leave the connection usable.
_WORDS: Final = frozenset(
    (b"STORED", b"NOT_STORED", b"EXISTS", b"NOT_FOUND", b"TOUCHED", b"DELETED", b"END")
)
# Which of them may answer a command that begins so; another one belongs to another command.
_ANSWERS: Final = {
    b"ge": frozenset((b"END",)),
    b"ad": frozenset((b"STORED", b"NOT_STORED")),
    b"ca": frozenset((b"STORED", b"EXISTS", b"NOT_FOUND")),
    b"to": frozenset((b"TOUCHED", b"NOT_FOUND")),
    b"de": frozenset((b"DELETED", b"NOT_FOUND")),
}
# The first byte of the only command that a value answers.
_GETS: Final = ord("g")
_FIRST_WORDS: Final = (b"ERROR", b"CLIENT_ERROR ", b"SERVER_ERROR ", b"STAT ")
# No line of memcached is longer: https://github.com/memcached/memcached/blob/master/doc/protocol.txt
_LONGEST_LINE: Final = 2_048
# Statistics are some kilobytes; what has no end is looked through again with each piece of it.
_LONGEST_STATISTICS: Final = 65_536
# The largest item that memcached can be told to take (-I), in bytes.
_LARGEST: Final = 2**30
_LINE_END: Final = b"\r\n"
_END: Final = b"END\r\n"
_TRAILER: Final = _LINE_END + _END
_AFTER_PAYLOAD: Final = len(_TRAILER)
# Digits alone: the unique goes into a command later.
_VALUE: Final = re.compile(rb"VALUE ([^ \r\n]+) [0-9]+ ([0-9]{1,10}) ([0-9]{1,20})\r\n").match


@private()
class Value(msgspec.Struct, eq=False, frozen=True, gc=False):
    """What is kept under a key, and the cas unique that is memcached's name for this state of it.

    Memcached tells the *unique* to who reads and not to who writes: there it is empty, and two
    values are equal where their payloads are.
    """

    payload: bytes
    unique: bytes = b""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Value) and self.payload == other.payload

    def __ne__(self, other: object) -> bool:
        # Structs have one of their own, which does not ask __eq__.
        return not self == other

    def __hash__(self) -> int:
        return hash(self.payload)


Reply: TypeAlias = Value | bytes
"""What memcached answered: a value, or the line without its end; of statistics, all lines."""


class MemcachedClient:
    """Talks to memcached 1.4.8 or later, over one connection to each node.

    - *nodes*: ``"host:port"``, ``"host"``, ``"[::1]:11211"`` or the path of a Unix socket; their
      order is of no importance. A key belongs to one of them by its name alone (rendezvous
      hashing). Where a node is added or removed, only the keys that move to or from it change
      their place. A node that is away is not stood in for, so that it cannot come back with
      records that were changed or deleted elsewhere meanwhile.
    - *timeout*: seconds in which a connection must stand, and the time limit of a call that has
      none of its own. A node that says nothing for that long although it was asked is given up;
      the next call connects anew.
    - *tls*: an ``ssl.SSLContext``; *username* and *password*: for a server started with ``-Y``.

    It connects when first used, and may be built before there is a loop. Raise OptionsError for
    arguments that make no sense.
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
        timeout = seconds(timeout, name="timeout")
        if tls is not None and any(name.startswith("/") for name in nodes):
            raise OptionsError("tls is for nodes of the network: a socket of this machine has none")
        if (username is None) != (password is None):
            raise OptionsError("username and password go together: give both or none")
        login = None if username is None else f"{username} {password}".encode()
        dial = _Dial(timeout, tls, login)
        self.timeout = timeout
        self._nodes = [_Node(name, dial) for name in sorted(set(nodes))]

    @classmethod
    def from_url(
        cls, url: str, *, timeout: float = 2.0, tls: ssl.SSLContext | None = None
    ) -> MemcachedClient:
        """Return a client for ``memcached://[user:password@]host:port,host2:port2``.

        ``memcacheds://`` is the same over TLS, by *tls* or the default context;
        ``unix:///run/memcached.sock`` is a socket of this machine.
        """
        parts = split(url)
        if parts.scheme == "unix" and parts.path and not parts.netloc:
            return cls(parts.path, timeout=timeout, tls=tls)
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

    def ask(
        self,
        key: bytes,
        command: bytes,
        timeout: float | None = None,
    ) -> Awaitable[Reply]:
        """Send *command*, which is about *key*, to the key's node; await the reply.

        That raises StorageUnavailable when there is none: when the node says nothing for *timeout*
        seconds (``None``: the client's), or refuses the username or password. May be cancelled: a
        command that was not sent yet is not sent, and the reply to one that was is thrown away
        when it comes.
        """
        if timeout is None:
            timeout = self.timeout
        nodes = self._nodes
        node = nodes[0] if len(nodes) == 1 else self._node_of(key)
        connection = node.wires.latest
        # A connection that stands is asked at once: its future is all that there is to await.
        if (
            connection is not None
            and not connection.is_over
            and connection.loop is get_running_loop()
        ):
            return connection.ask(command, timeout, key)
        return node.connect_and_ask(key, command, timeout)

    def node_of(self, key: bytes) -> str:
        """Return the node that has *key*, as ``host:port`` or path."""
        return self._node_of(key).place

    def _node_of(self, key: bytes) -> _Node:
        return max(self._nodes, key=lambda node: node.score(key))

    async def ask_afresh(
        self, key: bytes, command: bytes, limit: float, agrees: Callable[[Reply], bool]
    ) -> Reply:
        """Send *command*, as ``ask`` does, on a connection that nobody else uses.

        Where *agrees* says that the shared connection replied something else, that one ends.
        """
        node = self._node_of(key)
        return await node.ask_afresh(key, command, limit, agrees)

    async def close(self) -> None:
        """Close the connections of this event loop; calls that wait in it raise StorageUnavailable.

        Those of closed event loops are closed too.
        """
        for node in self._nodes:
            node.close()


@private("timeout")
@dataclass(frozen=True, slots=True)
class _Dial:
    """How every node is connected to."""

    timeout: float
    tls: ssl.SSLContext | None
    login: bytes | None


class _Node:
    """One server: where it is, and the connection to it, if there is one."""

    def __init__(self, name: str, dial: _Dial) -> None:
        self.wires: Wires[_Connection] = Wires()
        self._dial = dial
        self._connecting: dict[asyncio.AbstractEventLoop, asyncio.Task[_Connection]] = {}
        # Those that wait for a connection, for calls that the last one did not send.
        self._moving: set[asyncio.Task[None]] = set()
        self._path = name if name.startswith("/") else None
        self._host, self._port = ("", 0) if self._path else address(name, port=_PORT)
        self.place: str = self._path or f"{self._host}:{self._port}"
        self._hash = hashlib.blake2b(self.place.encode() + b" ", digest_size=8)

    def score(self, key: bytes) -> bytes:
        """Return how much the key belongs here: the node with the most has it."""
        score = self._hash.copy()
        score.update(key)
        return score.digest()

    async def connect_and_ask(
        self,
        key: bytes,
        command: bytes,
        limit: float,
    ) -> Reply:
        asked_at = clock()
        try:
            connection = await self.connect(limit)
            answer: asyncio.Future[Reply] = connection.loop.create_future()
            connection.take([(answer, command, asked_at, limit, key)])
        except OSError as error:
            raise _no_answer(error) from error
        return await answer

    async def ask_afresh(
        self, key: bytes, command: bytes, limit: float, agrees: Callable[[Reply], bool]
    ) -> Reply:
        suspect = self.wires.here()
        try:
            connection = await self._dialled(get_running_loop(), limit)
            try:
                reply: Reply = await connection.ask(command, limit, key)
            finally:
                connection.close()
        except OSError as error:
            raise _no_answer(error) from error
        if suspect is not None and not agrees(reply):
            suspect.end(ConnectionResetError("memcached's replies are out of step"))
        return reply

    def ask_again(self, calls: Sequence[Call]) -> None:
        """Let another connection do what the last one was asked and did not do."""
        task = get_running_loop().create_task(self._connect_and_take(calls))
        self._moving.add(task)
        task.add_done_callback(partial(self._moved, calls))

    async def connect(self, limit: float) -> _Connection:
        """Return a connection that stands, a new one where needed; all who ask share it.

        StorageUnavailable when that takes more than *limit* seconds.
        """
        standing = self.wires.here()
        if standing is not None:
            return standing
        loop = get_running_loop()
        task = self._connecting.get(loop)
        if task is None:
            task = self._connecting[loop] = loop.create_task(self._connect(loop))
            task.add_done_callback(self._connected)
        # Unlike an awaited task, one that is waited for outlives the cancelled waiter.
        due_at = loop.time() + limit
        await asyncio.wait([task], timeout=limit if limit < math.inf else None)
        # While the event loop was busy, nothing was done for the connection.
        stalled = loop.time() - due_at
        if not task.done() and stalled > STALL:
            await asyncio.wait([task], timeout=stalled)
        if not task.done():
            raise StorageUnavailable.after(limit)
        if task.cancelled():
            raise ConnectionAbortedError(_CANCELLED)
        error = task.exception()
        if isinstance(error, StorageUnavailable):
            # One error each: an error that is raised twice collects both tracebacks.
            raise error.again() from error
        if isinstance(error, OSError):
            raise _no_answer(error) from error
        return task.result()

    def close(self) -> None:
        connecting = self._connecting.pop(get_running_loop(), None)
        if connecting is not None:
            connecting.cancel()
        for wire in self.wires.take():
            wire.close()

    async def _connect_and_take(self, calls: Sequence[Call]) -> None:
        due_at = max(asked_at + limit for _, _, asked_at, limit, _ in calls)
        try:
            connection = await self.connect(due_at - clock())
            connection.take(calls)
        except (OSError, StorageUnavailable) as error:
            _refuse(calls, error)

    def _moved(self, calls: Sequence[Call], task: asyncio.Task[None]) -> None:
        self._moving.discard(task)
        if task.cancelled():
            # Perhaps before its first step.
            _refuse(calls, ConnectionAbortedError(_CANCELLED))

    def _connected(self, task: asyncio.Task[_Connection]) -> None:
        if self._connecting.get(task.get_loop()) is task:
            del self._connecting[task.get_loop()]
        if not task.cancelled():
            # Those who were cancelled meanwhile do not look at the outcome.
            task.exception()

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> _Connection:
        connection = await self._dialled(loop, math.inf)
        for abandoned in self.wires.take_abandoned():
            abandoned.close()
        # One that was closed at once says so to whoever asks; the next call connects anew.
        if not connection.is_over:
            self.wires.add(connection)
        return connection

    async def _dialled(self, loop: asyncio.AbstractEventLoop, limit: float) -> _Connection:
        connection, scope = _Connection(loop, self), asyncio.timeout(None)
        limit = min(limit, self._dial.timeout)
        try:
            async with scope:
                timer = expire(scope, limit)
                try:
                    await self._make(connection)
                finally:
                    timer.cancel()
        except BaseException as error:
            connection.end(ConnectionResetError("memcached was not connected to"))
            if isinstance(error, TimeoutError) and scope.expired():
                raise StorageUnavailable.after(limit) from error
            raise
        return connection

    async def _make(self, connection: _Connection) -> None:
        loop, dial = connection.loop, self._dial
        if self._path is not None:
            await loop.create_unix_connection(lambda: connection, self._path)
        else:
            await loop.create_connection(lambda: connection, self._host, self._port, ssl=dial.tls)
        if dial.login is not None:
            await _log_in(connection, dial.login)


class _Connection(Pipeline):
    """One connection to a node; whatever makes it doubtful which reply is whose ends it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, node: _Node) -> None:
        super().__init__(loop)
        self._node = node
        # The reply that is not all there yet: its pieces, and the bytes that are still missing.
        self._pieces: list[bytes] = []
        self._missing = 0

    def close(self) -> None:
        if self.loop.is_closed():
            # Nobody is left there who waits.
            hang_up(self.transport)
        else:
            self.end(ConnectionAbortedError("the client was closed"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.moved_at = clock()
        keep_alive(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(exc or ConnectionResetError("memcached closed the connection"))

    def data_received(self, data: bytes) -> None:
        self.moved_at = clock()
        if self._pieces:
            self._pieces.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = b"".join(self._pieces)
            self._pieces.clear()
        start, size, waiting = 0, len(data), self.waiting
        while start < size and not self.is_closed:
            reply, key, end = _read(data, start)
            if reply is None:
                self._pieces.append(data[start:])
                self._missing = end - size
                return
            start = end
            if not waiting:
                # Not what: it may be somebody's data.
                self.end(ConnectionResetError("memcached said something unasked"))
                return
            _, command, _, _, asked_for = waiting[0]
            is_usual = (
                reply in _ANSWERS.get(command[:2], _WORDS)
                if key is None
                else key == asked_for and command[0] == _GETS
            )
            complaint = None if is_usual else _complaint(reply, key, asked_for)
            if complaint is not None:
                self.end(ConnectionResetError(complaint))
                return
            future = waiting.popleft()[0]
            if not future.done():
                future.set_result(reply)
            if key is None and reply not in _WORDS and not _is_understood(reply):
                self.end(ConnectionResetError(f"memcached said: {_text(reply)}"))

    def ended(self, calls: Sequence[Call], error: BaseException) -> None:
        if self.transport is not None:
            self.transport.abort()
        self._node.wires.discard(self)
        kind = TimeoutError if isinstance(error, TimeoutError) else ConnectionResetError
        _refuse(calls, kind(str(error)))

    def pass_on(self, calls: Sequence[Call]) -> None:
        self._node.ask_again(calls)


def _refuse(calls: Sequence[Call], error: OSError | StorageUnavailable) -> None:
    for answer, *_ in calls:
        if not answer.done():
            # One error each: an error that is raised twice collects both tracebacks.
            answer.set_exception(_one_more(error))


def _one_more(error: OSError | StorageUnavailable) -> StorageUnavailable:
    if isinstance(error, StorageUnavailable):
        return error.again()
    return _no_answer(type(error)(str(error)))


def _no_answer(error: OSError) -> StorageUnavailable:
    unavailable = StorageUnavailable(f"memcached did not answer: {type(error).__name__}: {error}")
    unavailable.__cause__ = error
    return unavailable


def _read(data: bytes, start: int) -> tuple[Reply | None, bytes | None, int]:
    """Return what _reply_at does; an empty reply for what is not of the protocol."""
    try:
        return _reply_at(data, start)
    except ValueError:
        return b"", None, len(data)


def _reply_at(data: bytes, start: int) -> tuple[Reply | None, bytes | None, int]:
    """Return the reply that begins at *start*, its key when it is a value, and where it ends.

    ``None`` for the reply, and where it ends at the earliest, when it is not all there yet.
    """
    begun = _VALUE(data, start)
    if begun is not None:
        return _value_at(data, begun.end(), *begun.groups())
    line_end = data.find(_LINE_END, start)
    if line_end < 0:
        if len(data) - start > _LONGEST_LINE:
            raise ValueError("a line without an end")
        return None, None, len(data) + 1
    line = data[start:line_end]
    after = line_end + 2
    if line.startswith(b"VALUE "):
        raise ValueError("a value of no size that there is, or without a unique")
    if line.startswith(b"STAT "):
        last = data.find(_LINE_END + _END, line_end)
        if last < 0 and len(data) - start > _LONGEST_STATISTICS:
            raise ValueError("statistics without an end")
        if last < 0:
            return None, None, len(data) + 1
        return data[start:last], None, last + _AFTER_PAYLOAD
    return line, None, after


def _value_at(
    data: bytes, start: int, key: bytes, length: bytes, unique: bytes
) -> tuple[Reply | None, bytes | None, int]:
    """Return what _reply_at does for the value of *length* bytes at *start*."""
    payload_end = start + int(length)
    end = payload_end + _AFTER_PAYLOAD
    if len(data) < end:
        if payload_end - start > _LARGEST:
            raise ValueError("a value of no size that there is")
        return None, None, end
    if data[payload_end:end] != _TRAILER:
        raise ValueError("a value that does not end where it says")
    return Value(data[start:payload_end], unique), key, end


def _complaint(reply: Reply, key: bytes | None, asked_for: bytes) -> str | None:
    """Return why a connection ends with *reply*, which is not as usual; ``None`` where it stays."""
    if key is not None and key != asked_for:
        return "memcached answered with another key"
    if key is not None or reply in _WORDS:
        return "what memcached said answers another command"
    if isinstance(reply, bytes) and not reply.startswith(_FIRST_WORDS):
        return "memcached said what is not of its protocol"
    return None


def _is_understood(reply: Reply) -> bool:
    """Return False where memcached may take the data after the command for commands."""
    return not isinstance(reply, bytes) or reply.startswith((b"SERV", b"STAT"))


async def _log_in(connection: _Connection, login: bytes) -> None:
    # Any key will do: https://github.com/memcached/memcached/blob/master/doc/protocol.txt
    command = b"set auth 0 0 %d\r\n%b\r\n" % (len(login), login)
    reply = await connection.ask(command, math.inf)
    if reply != b"STORED":
        refused = f"memcached refused the username or password: {_text(reply)}"
        raise StorageUnavailable(refused, may_retry=False, is_answer=True)


def _text(reply: Reply) -> str:
    return reply.decode(errors="replace") if isinstance(reply, bytes) else "a value"
