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
from typing import Any, Final, TypeAlias, TypeGuard

from redis import exceptions
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import (
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

__all__ = ["RedisLine", "is_shareable"]

# redis-py leaves much of its connections untyped.
_Connection: TypeAlias = Any

try:
    import hiredis
except ImportError:
    _pack: Any = None
else:
    _pack = getattr(hiredis, "pack_command", None)

# So many calls may wait for answers; one more is refused, so that an outage does not fill memory.
_MOST_WAITING: Final = 10_000
# A connection that has owed an answer for so many seconds is given up.
_PATIENCE: Final = 5.0


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


def is_shareable(client: Redis | RedisCluster) -> TypeGuard[Redis]:
    """Ask whether *client* has connections that can be shared, and hiredis is there."""
    return (
        _pack is not None
        and isinstance(client, Redis)
        and "execute_command" not in _overridden(client)
        and not client.single_connection_client
        and client.connection_pool.connection_class in _SHAREABLE
    )


class _StaleConnection(exceptions.ConnectionError):
    """A connection that had worked was lost before it answered the first call after a pause."""


class RedisLine:
    """Sends the commands of many tasks over one connection of *client*'s pool.

    A call may be cancelled at any time: its answer is read and thrown away, and nobody gets
    another's. When the connection is lost, every call that waits fails with redis-py's
    ConnectionError, and the next one connects anew.
    """

    def __init__(self, client: Redis) -> None:
        self._pool: Any = client.connection_pool
        self._connection: _Connection | None = None
        self._outbox: list[tuple[bytes, asyncio.Future[Any]]] = []
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._moved_at = 0.0
        self._has_answered = False
        self._is_used = False

    async def call(self, *command: str | bytes | int) -> Any:
        """Send *command* and return its answer, strings as bytes; raise redis-py's errors."""
        try:
            return await self._ask(command)
        except _StaleConnection:
            # The server had cut the connection while nobody used it: that is no outage yet.
            return await self._ask(command)

    async def _ask(self, command: tuple[str | bytes | int, ...]) -> Any:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._forget(loop)
        if self._waiting and loop.time() - self._moved_at > _PATIENCE:
            await self._fail(exceptions.TimeoutError("the connection owes an answer for too long"))
        if len(self._outbox) + len(self._waiting) >= _MOST_WAITING:
            raise exceptions.ConnectionError(f"{_MOST_WAITING} calls are waiting for answers")
        answer: asyncio.Future[Any] = loop.create_future()
        self._outbox.append((_pack(command), answer))
        if self._sender is None:
            # The task begins in the next tick; what others ask until then goes along.
            self._sender = loop.create_task(self._send())
        return await answer

    async def close(self) -> None:
        """Give the connection back; calls that wait fail."""
        await self._fail(exceptions.ConnectionError("the storage was closed"))

    async def _send(self) -> None:
        try:
            connection = await self._connected()
            while self._outbox:
                batch, self._outbox = self._outbox, []
                live = [(command, answer) for command, answer in batch if not answer.done()]
                if not self._waiting:
                    self._moved_at = asyncio.get_running_loop().time()
                    self._has_answered = False
                self._waiting.extend(answer for _, answer in live)
                if self._waiting and self._reader is None:
                    self._reader = asyncio.create_task(self._read(connection))
                commands = b"".join(command for command, _ in live)
                await connection.send_packed_command(commands, check_health=False)
        except BaseException as error:
            # Whatever it was, no call may wait for ever.
            if self._sender is asyncio.current_task():
                await self._fail(error)
            if not isinstance(error, Exception):
                raise
        else:
            self._sender = None

    async def _read(self, connection: _Connection) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                value, error = await _response(connection)
                self._moved_at = loop.time()
                self._has_answered = self._is_used = True
                answer = self._waiting.popleft()
                if answer.done():
                    continue
                if error is None:
                    answer.set_result(value)
                else:
                    answer.set_exception(error)
        except BaseException as error:
            # Once given up for another, this reader has no say any more.
            if self._reader is asyncio.current_task():
                await self._fail(error)
            if not isinstance(error, Exception):
                raise
        else:
            self._reader = None

    async def _connected(self) -> _Connection:
        connection = self._connection
        if connection is not None and not self._waiting and await _is_stale(connection):
            await self._drop()
        if self._connection is None:
            self._connection = await self._pool.get_connection()
            self._is_used = False
        return self._connection

    async def _fail(self, error: BaseException) -> None:
        """Fail every call that waits, and give the connection up."""
        told = error if isinstance(error, exceptions.RedisError | OSError) else _lost(error)
        is_stale = self._is_used and not self._has_answered
        if is_stale and isinstance(told, exceptions.ConnectionError):
            told = _StaleConnection(str(told))
        answers = [*self._waiting, *(answer for _, answer in self._outbox)]
        self._waiting.clear()
        self._outbox.clear()
        current = asyncio.current_task()
        for task in (self._sender, self._reader):
            if task is not None and task is not current:
                task.cancel()
        self._sender = self._reader = None
        for answer in answers:
            if not answer.done():
                answer.set_exception(told)
        await self._drop()

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        self._is_used = False
        if connection is not None:
            with contextlib.suppress(exceptions.RedisError, OSError):
                await connection.disconnect(nowait=True)
            await self._pool.release(connection)

    def _forget(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start anew in another event loop; what the last one left behind cannot be awaited."""
        self._loop = loop
        self._connection = self._sender = self._reader = None
        self._outbox = []
        self._waiting = deque()


async def _response(connection: _Connection) -> tuple[Any, exceptions.ResponseError | None]:
    try:
        # The time limit is the caller's: a pause between two answers is no error here.
        answer: Any = await connection.read_response(disable_decoding=True, timeout=math.inf)
    except exceptions.ResponseError as error:
        return None, error
    return answer, None


async def _is_stale(connection: _Connection) -> bool:
    """Ask whether the server closed the connection, or sent what nobody asked for."""
    try:
        return not connection.is_connected or bool(await connection.can_read())
    except (exceptions.RedisError, OSError):
        return True


def _lost(error: BaseException) -> exceptions.ConnectionError:
    lost = exceptions.ConnectionError(f"the connection was lost: {type(error).__name__}")
    lost.__cause__ = error
    return lost


def _overridden(client: Redis) -> set[str]:
    """Return the names that the client's class and its parents define on top of redis-py's."""
    kinds = type(client).__mro__
    return {name for kind in kinds[: kinds.index(Redis)] for name in vars(kind)}
