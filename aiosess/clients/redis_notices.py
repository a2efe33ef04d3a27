"""What is published on a channel of Redis, heard on a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

from redis.asyncio import RedisCluster
from redis.exceptions import ResponseError

from aiosess.clients.pipeline import keep_alive
from aiosess.clients.redis import connected, in_words_of_a_storage, saying
from aiosess.clients.redis_clients import Clients
from aiosess.errors import StorageUnavailable

__all__ = ["heard"]

_MESSAGE: Final = b"message"
# Seconds of silence before the server is asked whether it is there, and within which it answers.
_SILENCE: Final = 5.0


@asynccontextmanager
async def heard(
    clients: Clients, channel: str, limit: float
) -> AsyncGenerator[AsyncIterator[bytes]]:
    """Give each message that is published on *channel* from now on; leaving ends it.

    StorageUnavailable where Redis does not take it within *limit* seconds, and in the iterator
    where the connection is lost or the server says nothing when it is asked.
    """
    with saying(in_words_of_a_storage):
        # Not in a task of its own: what that opened would be nobody's where this is cancelled.
        async with asyncio.timeout(limit):
            connection = await _subscribed(clients.here(), channel)
    try:
        async with aclosing(_messages(connection)) as messages:
            yield messages
    finally:
        await connection.disconnect(nowait=True)


async def _subscribed(client: Any, channel: str) -> Any:
    # Silence is no fault of who listens.
    connection = await connected(
        await _connections_of(client), socket_timeout=None, health_check_interval=0
    )
    try:
        # Nobody else would notice that the other side has gone.
        keep_alive(connection._writer.transport)  # noqa: SLF001 - redis-py shows no other way
        await connection.send_command("SUBSCRIBE", channel)
        await _read(connection)
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection


async def _connections_of(client: Any) -> Any:
    """Return what says how connections of *client* are made: its pool, or a node of a cluster."""
    if isinstance(client, RedisCluster):
        await client.initialize()
        # Each node of a cluster hears what is published on any.
        return client.get_random_node()
    pool = getattr(client, "connection_pool", None)
    if not hasattr(pool, "connection_class"):
        raise StorageUnavailable(f"{type(client).__name__} has no connections to listen on")
    return pool


async def _messages(connection: Any) -> AsyncGenerator[bytes]:
    while True:
        with saying(in_words_of_a_storage):
            said = await _next(connection)
        match said:
            case [kind, _, bytes(message)] if kind == _MESSAGE:
                yield message
            case _:
                # A server may say other things unasked, as before it is taken down.
                pass


async def _next(connection: Any) -> Any:
    """Return what the server says next; TimeoutError when it hangs.

    A server that hangs keeps its connections, while sentinels have long named another one.
    """
    try:
        said = await _read(connection, _SILENCE)
        if said is None:
            await connection.send_command("PING")
            said = await _read(connection, _SILENCE)
    except ResponseError as error:
        # Nothing else was asked: without the right to ask, the refusal is an answer too.
        return error
    if said is None:
        raise TimeoutError(f"the server said nothing for {2 * _SILENCE:g} s")
    return said


async def _read(connection: Any, limit: float | None = None) -> Any:
    """Return what the server says; ``None`` when that is nothing for *limit* seconds."""
    return await connection.read_response(
        disable_decoding=True, push_request=True, timeout=limit, disconnect_on_error=False
    )
