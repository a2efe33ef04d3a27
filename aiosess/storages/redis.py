"""Sessions in Redis or Valkey: one string key a session, as connect-redis keeps them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Final, Self

try:
    from redis import Redis as BlockingRedis
    from redis import RedisCluster as BlockingCluster
    from redis.asyncio import Redis, RedisCluster
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        f'{_error}: pip install "aiosess[redis]"', name=_error.name
    ) from _error

from aiosess.clients.redis import ClientLine, ScriptUnknown, line_of
from aiosess.clients.redis_clients import Clients
from aiosess.clients.redis_notices import heard
from aiosess.clients.redis_urls import maker
from aiosess.errors import Conflict, IdTaken, OptionsError, StorageUnavailable
from aiosess.storages._shared import Closing, copied, new_stored
from aiosess.storages.base import Stored, Version
from aiosess.text import is_text

__all__ = ["RedisStorage"]

# The answer: 1 when written, the payload that is kept when it is another, nil when gone. Deleting
# what is not there does nothing, but for a replica, which must not say "gone", it is an error.
# What is expected comes as it is, or as its digest where a fourth argument says so.
_REPLACE: Final = """\
local kept = redis.call('GET', KEYS[1])
if not kept then
  redis.call('DEL', KEYS[1])
  return false
end
local found = kept
if ARGV[4] then found = redis.sha1hex(kept) end
if found ~= ARGV[1] then return kept end
if redis.call('PTTL', KEYS[1]) == -1 then
  redis.call('SET', KEYS[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1
"""

# The answer: 1, or 0 when there is no such record.
_TOUCH: Final = """\
if redis.call('PTTL', KEYS[1]) == -1 then return 1 end
return redis.call('PEXPIRE', KEYS[1], ARGV[1])
"""

# The answer: the payload, and 1 when it lives long enough now. Where nothing can be written just
# now, as on a replica, the record is read all the same.
_LOAD_AND_TOUCH: Final = """\
local kept = redis.call('GET', KEYS[1])
if not kept then return false end
local left = redis.call('PTTL', KEYS[1])
if left == -1 then return {kept, 1} end
if left > tonumber(ARGV[1]) then return {kept, 0} end
return {kept, redis.pcall('PEXPIRE', KEYS[1], ARGV[1])}
"""


# Of which class an answer is; another one belongs to another command.
_PAYLOAD: Final = frozenset[type]((bytes, type(None)))
_PAYLOAD_AND_TOUCH: Final = frozenset[type]((list, type(None)))
_REPLACED: Final = frozenset[type]((int, bytes, type(None)))
_NUMBER: Final = frozenset[type]((int,))

# Seconds within which a connection that listens is made; without a time limit of the calls.
_CONNECT: Final = 5.0

# Bytes: below, a payload is sent in fewer steps than its digest is made.
_SHORT: Final = 4096
_sha1: Final = partial(hashlib.sha1, usedforsecurity=False)
_REPLACE_SHA: Final = _sha1(_REPLACE.encode()).hexdigest()
_TOUCH_SHA: Final = _sha1(_TOUCH.encode()).hexdigest()
_LOAD_AND_TOUCH_SHA: Final = _sha1(_LOAD_AND_TOUCH.encode()).hexdigest()


class RedisStorage(Closing):
    """Keeps records on a Redis or Valkey server (single, Sentinel or Cluster), 6.0 or later.

    *client* is any ``redis.asyncio`` client, with ``decode_responses`` or without; it is the
    application's to close. *prefix* stands before each session id. Raise OptionsError for another
    client, and for a *prefix* that is no text.

    The version of a record is its payload, so that a change by Express is seen as one too. A key
    that has no end, as connect-redis writes them with ``disableTTL``, is given none: not by a
    touch, nor by a replace.

    With *multiplex* all requests of the process share one connection of the client's pool, on a
    cluster one to each node. What they ask in one tick leaves in one write. A connection that
    owes an answer and is silent for longer than the time limit of a call is replaced. That limit is
    ``SessionOptions.timeout``; without it, the client's ``socket_timeout``, or else 5 s.
    Without *multiplex*, and for clients that have no such connections
    (``single_connection_client``, a streaming credential provider, reads from replicas, classes
    of one's own), each command goes by the client's ``execute_command``.
    """

    def __init__(
        self, client: Redis | RedisCluster, *, prefix: str = "sess:", multiplex: bool = True
    ) -> None:
        if not hasattr(client, "execute_command"):
            raise OptionsError(
                # Not its value: a URL may hold a password.
                f"client is of type {type(client).__name__}, which is no redis.asyncio client: "
                "use RedisStorage.from_url('redis://...') to have one made"
            )
        if isinstance(client, BlockingRedis | BlockingCluster):
            raise OptionsError(
                f"client is a {type(client).__module__}.{type(client).__name__}, which blocks the "
                "event loop: take one of redis.asyncio"
            )
        if not is_text(prefix):
            raise OptionsError(f"prefix={prefix!r} must be a str, such as 'sess:'")
        self._prefix = prefix
        self._channel = f"{prefix}ended"
        self._clients = clients = Clients(client)
        self._line = line_of(clients) if multiplex else ClientLine(clients)
        self._timeout = self._line.patience

    @classmethod
    def from_url(
        cls, url: str, *, prefix: str = "sess:", multiplex: bool = True, **client_options: Any
    ) -> Self:
        """Connect to *url* when first used; OptionsError when it makes no sense.

        - ``redis://host:6379/0``, ``rediss://`` (TLS), ``unix:///run/redis.sock``
        - ``redis+sentinel://host1,host2/name/0``: the primary that the sentinels call *name*
        - ``redis+cluster://host1,host2``: a cluster of which these are some nodes
        - ``valkey`` in the place of ``redis``, and ``s`` for TLS, in each of them

        *client_options* go to the client of ``redis.asyncio``, and ``sentinel_kwargs`` to those of
        the sentinels. The clients, one for each event loop, are ours: ``close()`` closes them. They
        do not try again by themselves, beyond replacing a connection that was cut while idle:
        that is what ``SessionOptions.retries`` is for.
        """
        make = maker(url, client_options)
        storage = cls(make(), prefix=prefix, multiplex=multiplex)
        storage._clients.own(make)
        return storage

    def within(self, timeout: float) -> Self:
        """Return the same storage, whose calls raise StorageUnavailable after *timeout* seconds.

        That is the time in which Redis says nothing: while it answers, however slowly, nobody on
        the shared connection is refused.
        """
        limited = copied(self)
        limited._timeout = timeout  # noqa: SLF001 - it is one of us
        return limited

    def node_of(self, session_id: str) -> str:
        """Return the server that keeps *session_id*, as ``host:port``; nothing is asked.

        Where sentinels name the server, its name there; before a cluster was asked, "cluster".
        """
        return self._clients.node_of(self._prefix + session_id)

    async def close(self) -> None:
        """Close the client if ``from_url`` made it; one that was handed in stays open.

        What is in use in another event loop, which runs in a thread of its own, stays open too.
        """
        await self._line.close()
        await self._clients.close()

    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        """Keep *payload* under a free id (``SET NX PX``); IdTaken when it is not."""
        command = ("SET", self._prefix + session_id, payload, "PX", _ms(ttl), "NX")
        written = await self._line.ask(command, self._timeout, _PAYLOAD)
        if written is None:
            raise IdTaken
        # A client that is asked by itself says True.
        if written not in {b"OK", "OK", True}:
            raise _not_ours()
        return payload

    async def load(self, session_id: str) -> Stored | None:
        """Return the record (``GET``), or ``None`` when there is none."""
        command = ("GET", self._prefix + session_id)
        answer = await self._line.ask(command, self._timeout, _PAYLOAD)
        if answer.__class__ is bytes:
            return new_stored(Stored, (answer, answer))
        return _stored(answer)

    async def load_afresh(
        self, session_id: str, *, agrees: Callable[[Stored | None], bool]
    ) -> Stored | None:
        """Return the record (``GET``), asked for on a connection that nobody else uses.

        Where *agrees* says of it that the shared connection answered something else, that ends.
        """
        answer = await self._line.ask_afresh(
            ("GET", self._prefix + session_id),
            self._timeout,
            lambda answer: agrees(_stored(answer)),
        )
        return _stored(answer)

    async def load_and_touch(self, session_id: str, ttl: float) -> tuple[Stored, bool] | None:
        """Return the record, and whether it now lives *ttl* seconds (a script, one round trip)."""
        script = (_LOAD_AND_TOUCH, _LOAD_AND_TOUCH_SHA, _PAYLOAD_AND_TOUCH)
        answer = await self._run(*script, session_id, _ms(ttl))
        match answer:
            case None:
                return None
            case [kept, is_touched]:
                stored = _stored(kept)
                return None if stored is None else (stored, is_touched == 1)
            case _:
                raise _not_ours()

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        """Put *payload* in the place of the version *expected* (a script, one round trip)."""
        if not isinstance(expected, bytes):
            # A version of another storage fits nothing that is kept.
            raise Conflict(await self.load(session_id))
        arguments: tuple[bytes | str | int, ...] = (expected, payload, _ms(ttl))
        if len(expected) > _SHORT:
            arguments = (_sha1(expected).hexdigest(), payload, _ms(ttl), 1)
        answer = await self._run(_REPLACE, _REPLACE_SHA, _REPLACED, session_id, *arguments)
        if answer == 1:
            return payload
        raise Conflict(_stored(answer))

    async def touch(self, session_id: str, ttl: float) -> bool:
        """Let the record live *ttl* seconds from now (a script, one round trip).

        False when there is none.
        """
        return _is_done(await self._run(_TOUCH, _TOUCH_SHA, _NUMBER, session_id, _ms(ttl)))

    async def delete(self, session_id: str) -> bool:
        """Remove the record (``DEL``); False when there was none."""
        command = ("DEL", self._prefix + session_id)
        return _is_done(await self._line.ask(command, self._timeout, _NUMBER))

    async def publish(self, notice: bytes) -> None:
        """Tell *notice* to all who are subscribed (``PUBLISH``), on each node of a cluster."""
        command = ("PUBLISH", self._channel, notice)
        await self._line.ask(command, self._timeout, _NUMBER)

    def subscribe(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Return what, once entered, hears each notice (``SUBSCRIBE``).

        It has a connection of its own, and none of the client's pool.
        """
        return heard(self._clients, self._channel, min(self._timeout, _CONNECT))

    async def _run(
        self,
        script: str,
        digest: str,
        fits: frozenset[type],
        session_id: str,
        *arguments: str | bytes | int,
    ) -> Any:
        """Run *script*, which is sent where the server does not know its *digest*."""
        arguments = (1, self._prefix + session_id, *arguments)
        try:
            return await self._line.ask(("EVALSHA", digest, *arguments), self._timeout, fits)
        except ScriptUnknown:
            return await self._line.ask(("EVAL", script, *arguments), self._timeout, fits)


def _stored(answer: Any) -> Stored | None:
    payload = answer.encode() if isinstance(answer, str) else answer
    if payload is None:
        return None
    if not isinstance(payload, bytes):
        raise _not_ours()
    return Stored(payload, payload)


def _not_ours() -> StorageUnavailable:
    # Not what it said: that may be somebody's data.
    return StorageUnavailable("redis did not answer: what it said answers another command")


def _is_done(answer: object) -> bool:
    if not isinstance(answer, int):
        raise _not_ours()
    return answer > 0


def _ms(ttl: float) -> int:
    return max(1, math.ceil(ttl * 1000))
