"""One connection to Redis for all requests of a process: what they ask in one tick goes together.

redis-py's pool gives each command a connection of its own, and each a write and a read. Here the
commands of all requests share one connection: those of one tick of the event loop leave in one
write, and the answers, which Redis gives in order, are handed out as they come. redis-py still
makes the connection (URL, TLS, credentials, Sentinel) and reads the protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
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

__all__ = ["ClusterLine", "RedisLine", "line_of"]

# redis-py leaves much of its connections untyped.
_Connection: TypeAlias = Any
_Pool: TypeAlias = Any
_Command: TypeAlias = tuple[str | bytes | int, ...]

try:
    import hiredis
except ImportError:
    _pack: Any = None
else:
    _pack = getattr(hiredis, "pack_command", None)

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
    if _pack is None or "execute_command" in _overridden(client):
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

    async def call(self, command: _Command, *, is_repeated: bool = False) -> Any:
        """Send *command* and return its answer, strings as bytes; raise redis-py's errors."""
        wire = self._open()
        answer = wire.ask(command)
        try:
            return await answer
        except asyncio.CancelledError:
            wire.forget(answer)
            raise
        except _CutWhileIdleError:
            # The server had cut the connection while nobody used it: that is no outage yet.
            if is_repeated:
                raise
            return await self.call(command, is_repeated=True)

    async def close(self) -> None:
        """Give the connection back; calls that wait fail."""
        wire, self._wire = self._wire, None
        if wire is not None:
            await wire.close()

    def _open(self) -> _Wire:
        wire = self._wire
        if wire is None or wire.is_over or wire.loop is not asyncio.get_running_loop():
            wire = self._wire = _Wire(self._pool, before=wire)
        return wire


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

    async def call(self, command: _Command) -> Any:
        """Send *command* and return its answer, strings as bytes; raise redis-py's errors."""
        node = self._node_of(command)
        line = None if node is None else self._line_to(node)
        if node is None or line is None or node.name in self._doubted:
            answer = await self._client.execute_command(*command, NEVER_DECODE=True)
            if node is not None:
                self._doubted.discard(node.name)
            return answer
        try:
            return await line.call(command)
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


class _CutWhileIdleError(exceptions.ConnectionError):
    """The connection was lost in a pause, or with the first call after it unanswered."""


class _Wire:
    """One connection, from the first call until it is lost; then another takes its place.

    Whatever still runs after the end finds nothing to send and nobody to answer here.
    """

    def __init__(self, pool: _Pool, *, before: _Wire | None) -> None:
        self.loop = asyncio.get_running_loop()
        self.is_over = False
        self._pool = pool
        self._before = before
        self._patience: float = pool.connection_kwargs.get("socket_timeout") or _PATIENCE
        self._connection: _Connection | None = None
        self._outbox: dict[asyncio.Future[Any], bytes] = {}
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._ender: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        # When an answer came, or the first call after a pause.
        self._moved_at = 0.0
        self._may_be_cut = False

    def ask(self, command: _Command) -> asyncio.Future[Any]:
        """Send *command* at the end of this tick; the future is its answer."""
        outbox = self._outbox
        if len(outbox) + len(self._waiting) >= _MOST_WAITING:
            raise exceptions.ConnectionError(f"{_MOST_WAITING} calls are waiting for answers")
        # What loop.create_future() does by way of a Python function; the loop is this one.
        answer: asyncio.Future[Any] = asyncio.Future(loop=self.loop)
        outbox[answer] = _pack(command)
        if self._sender is None:
            self._start()
        return answer

    def forget(self, answer: asyncio.Future[Any]) -> None:
        """Do not send the command of *answer*, if it was not sent yet."""
        self._outbox.pop(answer, None)

    async def close(self) -> None:
        if self.loop is asyncio.get_running_loop():
            self._may_be_cut = False
            await self._end(exceptions.ConnectionError("the storage was closed"))
        elif self.loop.is_closed():
            await self._give_back()

    def _start(self) -> None:
        now = self.loop.time()
        if not self._waiting:
            self._may_be_cut = self._connection is not None and now - self._moved_at > _IDLE
            self._moved_at = now
        if self._timer is None:
            self._timer = self.loop.call_at(now + self._patience, self._watch)
        # The task begins in the next tick, whatever the loop's task factory says; what others ask
        # until then goes along.
        self._sender = asyncio.Task(self._send(), loop=self.loop)

    async def _send(self) -> None:
        try:
            connection = self._connection
            if connection is None:
                connection = await self._connect()
            while self._outbox:
                if not self._waiting and await _is_cut(connection):
                    raise _CutWhileIdleError("the connection was cut while it was idle")
                # redis-py would connect anew, in the middle of what others wait for.
                if not connection.is_connected:
                    raise exceptions.ConnectionError("the connection was lost")
                await self._send_batch(connection)
            self._sender = None
        except BaseException as error:
            # Whatever it was, no call may wait for ever.
            await self._end(error)
            if not isinstance(error, Exception):
                raise

    async def _connect(self) -> _Connection:
        before, self._before = self._before, None
        if before is not None and before.loop.is_closed():
            await before.close()
        self._connection = await self._pool.get_connection()
        self._moved_at = self.loop.time()
        return self._connection

    async def _send_batch(self, connection: _Connection) -> None:
        batch, self._outbox = self._outbox, {}
        if any(answer.done() for answer in batch):
            # What was cancelled before it was sent is never sent.
            batch = {answer: command for answer, command in batch.items() if not answer.done()}
            if not batch:
                return
        self._waiting.extend(batch)
        if self._reader is None:
            self._reader = asyncio.Task(self._read(connection), loop=self.loop)
        await connection.send_packed_command(b"".join(batch.values()), check_health=False)

    async def _read(self, connection: _Connection) -> None:
        try:
            while self._waiting:
                value: Any = None
                refusal: exceptions.ResponseError | None = None
                try:
                    # Who watches over the time is _watch(): a limit for each answer costs more.
                    value = await connection.read_response(disable_decoding=True, timeout=math.inf)
                except exceptions.ResponseError as error:
                    refusal = error
                answer = self._waiting.popleft()
                self._moved_at = self.loop.time()
                self._may_be_cut = False
                if answer.done():
                    continue
                if refusal is None:
                    answer.set_result(value)
                else:
                    answer.set_exception(refusal)
            self._reader = None
        except BaseException as error:
            await self._end(error)
            if not isinstance(error, Exception):
                raise

    def _watch(self) -> None:
        """Give the connection up when it has owed an answer for too long."""
        self._timer = None
        if not self._waiting and self._sender is None:
            return
        due_at = self._moved_at + (self._patience if self._waiting else _PATIENCE)
        if self.loop.time() < due_at:
            self._timer = self.loop.call_at(due_at, self._watch)
            return
        late = exceptions.TimeoutError("the connection owes an answer for too long")
        self._ender = asyncio.Task(self._end(late), loop=self.loop)

    async def _end(self, error: BaseException) -> None:
        """Fail every call that waits, and give the connection back."""
        if self.is_over:
            return
        self.is_over = True
        if self._timer is not None:
            self._timer.cancel()
        told = self._told(error)
        for answer in (*self._waiting, *self._outbox):
            if not answer.done():
                answer.set_exception(told)
        self._waiting.clear()
        self._outbox.clear()
        try:
            # Before the connection can be another's, nothing of ours may touch it any more.
            await _stop(self._sender, self._reader)
        finally:
            await self._give_back()

    def _told(self, error: BaseException) -> BaseException:
        if self._may_be_cut and type(error) is exceptions.ConnectionError:
            return _CutWhileIdleError(str(error))
        if isinstance(error, exceptions.RedisError | OSError):
            return error
        lost = exceptions.ConnectionError(f"the connection was lost: {type(error).__name__}")
        lost.__cause__ = error
        return lost

    async def _give_back(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        # RuntimeError: the connection's event loop is closed. KeyError: the pool was reset.
        with contextlib.suppress(exceptions.RedisError, OSError, RuntimeError):
            await connection.disconnect(nowait=True)
        with contextlib.suppress(exceptions.RedisError, OSError, RuntimeError, KeyError):
            await self._pool.release(connection)


async def _is_cut(connection: _Connection) -> bool:
    """Ask whether the server closed the connection, is about to, or sent what nobody asked for."""
    try:
        if hasattr(connection, "can_read"):
            return connection.should_reconnect() or bool(await connection.can_read())
        # Before redis-py 8.
        return bool(await connection.can_read_destructive())
    except (exceptions.RedisError, OSError):
        return True


async def _stop(*tasks: asyncio.Task[None] | None) -> None:
    """Cancel *tasks* but for the current one, and wait until they are done."""
    current = asyncio.current_task()
    others = [task for task in tasks if task is not None and task is not current]
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others)


def _overridden(client: Redis | RedisCluster) -> set[str]:
    """Return the names that the client's class and its parents define on top of redis-py's."""
    own = [kind for kind in type(client).__mro__ if kind.__module__.partition(".")[0] != "redis"]
    return {name for kind in own for name in vars(kind)}
