"""One connection to Redis for all requests of a process: what they ask in one tick goes together.

redis-py's pool gives each command a connection of its own, and each a write and a read. Here the
commands of all requests share one connection: those of one tick of the event loop leave in one
write, and the answers, which Redis gives in order, are handed out as they come. redis-py still
makes the connection (URL, TLS, credentials, Sentinel) and lends it; hiredis reads the protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Coroutine, Iterable
from typing import Any, Final, TypeAlias

from redis import exceptions
from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.connection import (
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection
from redis.credentials import StreamingCredentialProvider

from aiosess.errors import StorageUnavailable

__all__ = ["ClusterLine", "RedisLine", "line_of"]

# redis-py leaves much of its connections untyped.
_Connection: TypeAlias = Any
_Pool: TypeAlias = Any
_Command: TypeAlias = tuple[str | bytes | int, ...]
# Who waits, the packed command, when it was asked, and how many seconds the answer may take. A
# plain tuple, for there is one for each call.
_Call: TypeAlias = tuple[asyncio.Future[Any], bytes, float, float]

try:
    import hiredis
except ImportError:
    _pack: Any = None
    _Push: Any = ()
else:
    _pack = getattr(hiredis, "pack_command", None)
    _Push = getattr(hiredis, "PushNotification", ())

_NOT_YET: Final = object()
_clock: Final = time.monotonic

# So many calls may wait for answers; one more is refused, so that an outage does not fill memory.
_MOST_WAITING: Final = 10_000
# A connection that has owed an answer for so many seconds is given up, unless the client has a
# socket_timeout of its own; so is one that is not made in that time.
_PATIENCE: Final = 5.0
# A connection that nobody used for so many seconds may have been cut by the server meanwhile.
_IDLE: Final = 0.01

# Connections that are known to read and write as redis-py's do; one of the application's own
# class may not.
_SHAREABLE: Final = frozenset(
    {
        Connection,
        SSLConnection,
        UnixDomainSocketConnection,
        SentinelManagedConnection,
        SentinelManagedSSLConnection,
    }
)


# What a node of a cluster says instead of doing what it was asked.
_NOT_DONE: Final = (
    exceptions.AskError,  # a MovedError too
    exceptions.TryAgainError,
    exceptions.ClusterDownError,  # a MasterDownError too
)


def line_of(client: Redis | RedisCluster) -> RedisLine | ClusterLine | None:
    """Return a line over connections of *client*, or ``None`` where they cannot be shared."""
    if _pack is None or not _is_lent() or "execute_command" in _overridden(client):
        return None
    if isinstance(client, RedisCluster):
        # Who wants replicas to answer has no one connection for a key.
        reads_elsewhere = client.read_from_replicas or client.load_balancing_strategy
        return None if reads_elsewhere else ClusterLine(client)
    if not isinstance(client, Redis) or client.single_connection_client:
        return None
    pool = client.connection_pool
    return RedisLine(pool) if isinstance(pool, ConnectionPool) and _is_shareable(pool) else None


def _is_shareable(pool: _Pool) -> bool:
    credentials = pool.connection_kwargs.get("credential_provider")
    # New tokens reach a connection only when that comes back to its pool.
    return pool.connection_class in _SHAREABLE and not isinstance(
        credentials, StreamingCredentialProvider
    )


class RedisLine:
    """Sends the commands of many tasks over one connection of *pool*.

    A call may be cancelled at any time: if it was not sent yet, it never is; if it was, its
    answer is read and thrown away. Nobody gets another's. When the connection is lost, every
    call that waits fails with an error of redis-py, and the next one connects anew.
    """

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self._wire: _Wire | None = None

    def ask(self, command: _Command, timeout: float = math.inf) -> asyncio.Future[Any]:
        """Send *command* at the end of this tick.

        The future is its answer, strings as bytes, or an error of redis-py; StorageUnavailable
        when there is none after *timeout* seconds.
        """
        wire = self._wire
        if wire is None or wire.is_over or wire.loop is not asyncio.get_running_loop():
            wire = self._next_wire()
        return wire.ask(_pack(command), timeout)

    def ask_again(self, calls: Iterable[_Call]) -> None:
        """Let another connection do what the last one was asked and did not do."""
        self._next_wire().take(calls)

    async def close(self) -> None:
        """Give the connection back; calls that wait fail."""
        wire, self._wire = self._wire, None
        if wire is not None:
            await wire.close()

    def _next_wire(self) -> _Wire:
        self._wire = _Wire(self, self._pool, before=self._wire)
        return self._wire


class ClusterLine:
    """Sends each command over the line of the node that has its key.

    redis-py knows which node that is, and does what a node did not do: where the key has moved,
    and after a connection was lost or a call given up, the cluster's client is asked instead, so
    that it learns who has the key now.
    """

    def __init__(self, client: RedisCluster) -> None:
        self._client: Any = client
        self._lines: dict[str, RedisLine | None] = {}
        self._doubted: set[str] = set()

    async def ask(self, command: _Command, timeout: float = math.inf) -> Any:  # noqa: ASYNC109
        """Send *command* and return its answer, strings as bytes; raise redis-py's errors.

        *timeout* is for what goes over a line; what the cluster's client is asked has its own.
        """
        node = self._node_of(command)
        line = None if node is None else self._line_to(node)
        if node is None or line is None or node.name in self._doubted:
            answer = await self._client.execute_command(*command, NEVER_DECODE=True)
            if node is not None:
                self._doubted.discard(node.name)
            return answer
        try:
            return await line.ask(command, timeout)
        except _NOT_DONE:
            return await self._client.execute_command(*command, NEVER_DECODE=True)
        except exceptions.ResponseError:
            raise
        except BaseException:
            self._doubted.add(node.name)
            raise

    async def close(self) -> None:
        """Give the connections back; calls that wait fail."""
        lines, self._lines = self._lines, {}
        for line in lines.values():
            if line is not None:
                await line.close()

    def _node_of(self, command: _Command) -> Any:
        """Return the node that has the key of *command*; ``None`` when that is not known."""
        key = command[3] if command[0] in {"EVAL", "EVALSHA"} else command[1]
        try:
            return self._client.get_node_from_key(key)
        except exceptions.RedisClusterException:
            return None

    def _line_to(self, node: Any) -> RedisLine | None:
        if node.name not in self._lines:
            # Nodes of older redis-py keep their connections to themselves.
            can_lend = hasattr(node, "release") and _is_shareable(node)
            self._lines[node.name] = RedisLine(_NodePool(node)) if can_lend else None
        return self._lines[node.name]


class _NodePool:
    """The connections of one node of a cluster, as a pool has them."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self.connection_kwargs = node.connection_kwargs

    async def get_connection(self) -> _Connection:
        connection = self._node.acquire_connection()
        try:
            await connection.connect()
            if await _is_cut(connection):
                await connection.disconnect(nowait=True)
                await connection.connect()
        except BaseException:
            await self.release(connection)
            raise
        return connection

    async def release(self, connection: _Connection) -> None:
        self._node.release(connection)


class _Wire(asyncio.Protocol):
    """One connection, from the first call until it is lost; then another takes its place.

    Whatever makes it doubtful which answer belongs to whom ends the connection.
    """

    def __init__(self, line: RedisLine, pool: _Pool, *, before: _Wire | None) -> None:
        self.loop = asyncio.get_running_loop()
        self.is_over = False
        self._line = line
        self._pool = pool
        self._before = before
        self._patience: float = pool.connection_kwargs.get("socket_timeout") or _PATIENCE
        self._connection: _Connection | None = None
        self._transport: asyncio.Transport | None = None
        self._lender: asyncio.BaseProtocol | None = None
        self._reader: Any = None
        self._may_write = True
        self._outbox: list[_Call] = []
        self._waiting: deque[_Call] = deque()
        # Connecting, giving back, or hearing what Redis says unasked.
        self._connecting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = math.inf
        # When an answer came, or the first call after a pause.
        self._moved_at = 0.0
        self._may_be_cut = False

    def ask(self, command: bytes, timeout: float) -> asyncio.Future[Any]:
        """Send *command* at the end of this tick; the future is its answer."""
        outbox = self._outbox
        if len(outbox) + len(self._waiting) >= _MOST_WAITING:
            # Calls that were given up may stand there still.
            outbox[:] = [call for call in outbox if not call[0].done()]
            if len(outbox) + len(self._waiting) >= _MOST_WAITING:
                raise exceptions.ConnectionError(f"{_MOST_WAITING} calls are waiting for answers")
        # What loop.create_future() does by way of a Python function; the loop is this one.
        answer: asyncio.Future[Any] = asyncio.Future(loop=self.loop)
        if not outbox:
            self.loop.call_soon(self._send)
        now = _clock()
        outbox.append((answer, command, now, timeout))
        if now + timeout < self._look_at:
            self._look_by(now + timeout)
        return answer

    def take(self, calls: Iterable[_Call]) -> None:
        """Do what another connection was asked."""
        self._outbox.extend(calls)
        self.loop.call_soon(self._send)
        self._look_by(min(asked_at + timeout for _, _, asked_at, timeout in self._outbox))

    async def close(self) -> None:
        if self.loop is asyncio.get_running_loop():
            self._may_be_cut = False
            self._end(exceptions.ConnectionError("the storage was closed"))
            tasks = [task for task in (self._connecting, *self._tasks) if task is not None]
            if tasks:
                await asyncio.wait(tasks)
        elif self.loop.is_closed():
            await self._give_back()

    def connection_lost(self, exc: Exception | None) -> None:
        lost = exceptions.ConnectionError("the connection was lost")
        lost.__cause__ = exc
        self._end(lost)
        if self._lender is not None:
            # redis-py, or who asked it to disconnect, may be waiting for that.
            self._lender.connection_lost(exc)

    def pause_writing(self) -> None:
        self._may_write = False

    def resume_writing(self) -> None:
        self._may_write = True
        self._send()

    def data_received(self, data: bytes) -> None:
        if self.is_over:
            return
        self._moved_at = _clock()
        self._may_be_cut = False
        reader, waiting = self._reader, self._waiting
        try:
            reader.feed(data)
            while True:
                reply = reader.gets(False)
                if reply is _NOT_YET:
                    return
                if isinstance(reply, _Push):
                    self._hear(reply)
                    continue
                if not waiting:
                    raise exceptions.ConnectionError("redis answered what nobody asked")  # noqa: TRY301
                is_refusal = isinstance(reply, Exception)
                if is_refusal and self._is_end(reply):
                    raise reply
                answer = waiting.popleft()[0]
                if answer.done():
                    continue
                if is_refusal:
                    answer.set_exception(reply)
                else:
                    answer.set_result(reply)
        except Exception as error:  # noqa: BLE001
            # Whatever it was, no call may wait for ever.
            self._end(error)

    def _send(self) -> None:
        if self.is_over or not self._may_write:
            return
        transport = self._transport
        if transport is None:
            if self._connecting is None:
                self._moved_at = _clock()
                self._connecting = asyncio.Task(self._connect(), loop=self.loop)
                self._look_by(min(self._look_at, self._moved_at + _PATIENCE))
            return
        # What was cancelled before it was sent is never sent.
        calls = [call for call in self._outbox if not call[0].done()]
        self._outbox.clear()
        if not calls:
            return
        if not self._waiting:
            now = _clock()
            self._may_be_cut = now - self._moved_at > _IDLE
            self._moved_at = now
            self._waiting.extend(calls)
            if self._connection.should_reconnect():
                self._may_be_cut = True
                self._end(exceptions.ConnectionError("the connection is to be replaced"))
                return
        else:
            self._waiting.extend(calls)
        transport.write(b"".join([command for _, command, _, _ in calls]))
        owes_until = self._moved_at + self._patience
        if owes_until < self._look_at:
            self._look_by(owes_until)

    async def _connect(self) -> None:
        try:
            before, self._before = self._before, None
            if before is not None and before.loop.is_closed():
                await before.close()
            self._connection = connection = await self._pool.get_connection()
            # From here on what arrives is ours; redis-py has read the answers to what it asked.
            self._reader = hiredis.Reader(
                protocolError=exceptions.InvalidResponse,
                replyError=connection._parser.parse_error,  # noqa: SLF001
                notEnoughData=_NOT_YET,
            )
            transport = connection._writer.transport  # noqa: SLF001
            self._lender = transport.get_protocol()
            transport.set_protocol(self)
            if transport.is_closing():
                raise exceptions.ConnectionError("the connection was lost")
            self._transport = transport
        except BaseException as error:
            self._end(error)
            if not isinstance(error, Exception):
                raise
            return
        self._moved_at = _clock()
        self._send()

    def _is_end(self, refusal: Exception) -> bool:
        """Ask whether *refusal* says of the connection that it is of no use."""
        if not isinstance(refusal, exceptions.ResponseError):
            return True
        # The primary was demoted, and the sentinel knows the new one.
        return isinstance(refusal, exceptions.ReadOnlyError) and isinstance(
            self._connection, SentinelManagedConnection
        )

    def _hear(self, push: Any) -> None:
        """Tell redis-py what Redis said unasked: the connection may have to be replaced."""
        parser = self._connection._parser  # noqa: SLF001
        if hasattr(parser, "handle_push_response"):
            self._begin(parser.handle_push_response(push))

    def _look_by(self, at: float) -> None:
        """Let _look() be called at *at* instead."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._look_at = at
        if at < math.inf:
            self._timer = self.loop.call_later(max(0.0, at - _clock()), self._look)

    def _look(self) -> None:
        """End the calls that have waited too long, and the connection when it owes too long."""
        self._timer = None
        now, next_at = _clock(), math.inf
        for answer, _, asked_at, timeout in (*self._waiting, *self._outbox):
            if answer.done():
                continue
            if asked_at + timeout <= now:
                answer.set_exception(
                    StorageUnavailable(f"the storage did not answer within {timeout:g} s")
                )
            else:
                next_at = min(next_at, asked_at + timeout)
        if self._waiting or self._transport is None:
            owes_until = self._moved_at + (self._patience if self._waiting else _PATIENCE)
            if now >= owes_until:
                self._end(exceptions.TimeoutError("the connection owes an answer for too long"))
                return
            next_at = min(next_at, owes_until)
        self._look_by(next_at)

    def _end(self, error: BaseException) -> None:
        """Fail every call that waits, and give the connection back."""
        if self.is_over:
            return
        self.is_over = True
        self._look_by(math.inf)
        calls = [call for call in (*self._waiting, *self._outbox) if not call[0].done()]
        self._waiting.clear()
        self._outbox.clear()
        connecting = self._connecting
        if connecting is not None and connecting is not asyncio.current_task(self.loop):
            connecting.cancel()
        if self._connection is not None:
            self._begin(self._give_back())
        if self._may_be_cut and type(error) is exceptions.ConnectionError:
            # The server had cut the connection while nobody used it: that is no outage yet.
            if calls:
                self._line.ask_again(calls)
            return
        told = _told(error)
        for answer, *_ in calls:
            answer.set_exception(told)

    def _begin(self, act: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.Task(act, loop=self.loop)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _give_back(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        # RuntimeError: the connection's event loop is closed. KeyError: the pool was reset.
        with contextlib.suppress(exceptions.RedisError, OSError, RuntimeError):
            await connection.disconnect(nowait=True)
        with contextlib.suppress(exceptions.RedisError, OSError, RuntimeError, KeyError):
            await self._pool.release(connection)


def _told(error: BaseException) -> BaseException:
    if isinstance(error, exceptions.RedisError | OSError):
        return error
    lost = exceptions.ConnectionError(f"the connection was lost: {type(error).__name__}")
    lost.__cause__ = error
    return lost


def _is_lent() -> bool:
    """Ask whether connections of this redis-py can be lent; how is not a part of its API."""
    connection = Connection()
    return hasattr(connection, "_writer") and hasattr(connection, "_parser")


async def _is_cut(connection: _Connection) -> bool:
    """Ask whether the server closed the connection, is about to, or sent what nobody asked for."""
    try:
        if hasattr(connection, "can_read"):
            return connection.should_reconnect() or bool(await connection.can_read())
        # Before redis-py 8.
        return bool(await connection.can_read_destructive())
    except (exceptions.RedisError, OSError):
        return True


def _overridden(client: Redis | RedisCluster) -> set[str]:
    """Return the names that the client's class and its parents define on top of redis-py's."""
    own = [kind for kind in type(client).__mro__ if kind.__module__.partition(".")[0] != "redis"]
    return {name for kind in own for name in vars(kind)}
