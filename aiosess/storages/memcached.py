"""Sessions in memcached: one item a session, on one server or several."""

from __future__ import annotations

import hashlib
import math
import re
import ssl
import string
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Final, Self, cast

from aiosess.clients.memcached import MemcachedClient, Reply, Value
from aiosess.errors import Conflict, IdTaken, OptionsError, StorageError, StorageUnavailable
from aiosess.storages._shared import Closing, copied, new_stored
from aiosess.storages.base import Stored, Version

__all__ = ["MemcachedClient", "MemcachedStorage"]

# What may stand in a key, and how long it may be:
# https://github.com/memcached/memcached/blob/master/doc/protocol.txt
_LONGEST_KEY: Final = 250
_LEGAL: Final = re.compile(rf"[!-~]{{1,{_LONGEST_KEY}}}")
_LONGEST_PREFIX: Final = 150
_HASHED: Final = "sha256:"

# What is URL-safe, as our own ids are, comes out of this table as it was, and nothing else does.
_URL_SAFE: Final = f"{string.ascii_letters}{string.digits}-_".encode()
_KEEP_URL_SAFE: Final = bytes(byte if byte in _URL_SAFE else _URL_SAFE[0] for byte in range(256))

# How a reply begins that is an error: https://github.com/memcached/memcached/wiki/Commands
_ERRORS: Final = ("ERROR", "CLIENT_ERROR", "SERVER_ERROR")

# So many keys are remembered.
_MOST_NAMES: Final = 4096

# Memcached takes a longer time for a date.
_MONTH: Final = 30 * 24 * 60 * 60
_LAST_DATE: Final = 2**31 - 1


class MemcachedStorage(Closing):
    """Keeps records on one memcached server or several, 1.4.8 or later.

    *client* is a ``MemcachedClient``, which can be imported from here; it is the application's to
    close. *prefix* stands before each session id. An id that cannot be part of a key (too long,
    spaces, not ASCII) is kept under its SHA-256. Memcached counts in whole seconds: a record
    lives its ttl at the least, and at the most two seconds longer.

    A memcached that is full drops the records that were not used for longest, and one that ends
    drops all: such a record is absent. A record larger than the server allows (``-I``, one
    megabyte by default) is refused with a StorageError that says so, and the one before stays.

    Raise OptionsError for another client, and for a *prefix* that cannot be part of a key.
    """

    def __init__(
        self,
        client: MemcachedClient,
        *,
        prefix: str = "sess:",
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(client, MemcachedClient):
            raise OptionsError(
                f"client is a {type(client).__name__} and not a MemcachedClient: "
                "use MemcachedStorage.from_url('memcached://...') to have one made"
            )
        is_legal = isinstance(prefix, str) and (prefix == "" or _LEGAL.fullmatch(prefix))
        if not is_legal or len(prefix) > _LONGEST_PREFIX:
            raise OptionsError(
                f"prefix={prefix!r} must be at most {_LONGEST_PREFIX} ASCII characters, "
                "none of them a space or a control character"
            )
        self._client = client
        self._prefix = prefix
        self._key_prefix = prefix.encode()
        self._longest_id = _LONGEST_KEY - len(prefix)
        self._owns_client = False
        self._clock = clock
        self._timeout = client.timeout
        # For thousands of sessions, those that were here last.
        self._named = lru_cache(maxsize=_MOST_NAMES)(self._name)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        prefix: str = "sess:",
        timeout: float = 2.0,
        tls: ssl.SSLContext | None = None,
    ) -> Self:
        """Connect to *url* when first used: ``memcached://host:port,host2:port2``.

        Also ``memcacheds://`` (TLS, by *tls* or the default context), ``unix:///path``, and
        ``user:password@`` before the hosts. *timeout* as in ``MemcachedClient``. The client is
        ours: ``close()`` closes it. It does not try again by itself: that is what
        ``SessionOptions.retries`` is for.
        """
        client = MemcachedClient.from_url(url, timeout=timeout, tls=tls)
        storage = cls(client, prefix=prefix)
        storage._owns_client = True
        return storage

    def within(self, timeout: float) -> Self:
        """Return the same storage, whose calls raise StorageUnavailable after *timeout* seconds."""
        limited = copied(self)
        limited._timeout = timeout  # noqa: SLF001 - it is one of us
        return limited

    def node_of(self, session_id: str) -> str:
        """Return the server that keeps *session_id*, as ``host:port``; nothing is asked."""
        return self._client.node_of(self._named(session_id)[0])

    async def close(self) -> None:
        """Close the client if ``from_url`` made it; one that was handed in stays open."""
        if self._owns_client:
            await self._client.close()

    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        """Keep *payload* under a free id (``add``); IdTaken when it is not."""
        key, _ = self._named(session_id)
        command = b"add %b 0 %d %d\r\n%b\r\n" % (key, self._expires(ttl), len(payload), payload)
        reply = await self._client.ask(key, command, self._timeout)
        if reply == b"STORED":
            return Value(payload)
        if reply == b"NOT_STORED":
            raise IdTaken
        raise await self._refused(key, reply, payload)

    async def load(self, session_id: str) -> Stored | None:
        """Return the record (``gets``), or ``None`` when there is none."""
        named = self._named
        key, gets = named(session_id)
        reply = await self._client.ask(key, gets, self._timeout)
        if isinstance(reply, Value):
            return new_stored(Stored, (reply.payload, reply))
        return _stored(reply)

    async def load_afresh(
        self, session_id: str, *, agrees: Callable[[Stored | None], bool]
    ) -> Stored | None:
        """Return the record (``gets``), asked for on a connection that nobody else uses.

        Where *agrees* says of it that the shared connection answered something else, that ends.
        """
        key, gets = self._named(session_id)
        reply = await self._client.ask_afresh(
            key, gets, self._timeout, lambda reply: agrees(_stored(reply))
        )
        return _stored(reply)

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        """Put *payload* in the place of the version *expected* (``cas``).

        One command, but one more before it when the version comes from a create or replace and
        not from a load, and one more after it on a Conflict.
        """
        unique = expected.unique if isinstance(expected, Value) else b""
        if not unique:
            unique = await self._unique(session_id, expected)
        named = self._named
        key, _ = named(session_id)
        end, size = self._expires(ttl), len(payload)
        command = b"cas %b 0 %d %d %b\r\n%b\r\n" % (key, end, size, unique, payload)
        reply = await self._client.ask(key, command, self._timeout)
        if reply == b"STORED":
            return Value(payload)
        if reply == b"NOT_FOUND":
            raise Conflict(None)
        if reply == b"EXISTS":
            raise Conflict(await self.load(session_id))
        raise await self._refused(key, reply, payload)

    async def touch(self, session_id: str, ttl: float) -> bool:
        """Let the record live *ttl* seconds from now (``touch``); False when there is none."""
        key, _ = self._named(session_id)
        command = b"touch %b %d\r\n" % (key, self._expires(ttl))
        reply = await self._client.ask(key, command, self._timeout)
        return _is_done(reply, b"TOUCHED")

    async def delete(self, session_id: str) -> bool:
        """Remove the record (``delete``); False when there was none."""
        key, _ = self._named(session_id)
        reply = await self._client.ask(key, b"delete %b\r\n" % key, self._timeout)
        return _is_done(reply, b"DELETED")

    def _name(self, session_id: str) -> tuple[bytes, bytes]:
        """Return the key, and the command that reads what is kept there."""
        key = self._key(session_id)
        return key, b"gets %b\r\n" % key

    def _key(self, session_id: str) -> bytes:
        if session_id.isascii() and 0 < len(session_id) <= self._longest_id:
            plain = session_id.encode()
            if plain.translate(_KEEP_URL_SAFE) == plain:
                return self._key_prefix + plain
        key = self._prefix + session_id
        if _LEGAL.fullmatch(key) is not None and not session_id.startswith(_HASHED):
            return key.encode("ascii")
        digest = hashlib.sha256(session_id.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{self._prefix}{_HASHED}{digest}".encode("ascii")

    def _expires(self, ttl: float) -> int:
        # One more: the second in which the record is written has partly gone already.
        seconds = math.ceil(ttl) + 1
        if seconds > _MONTH:
            return min(int(self._clock()) + seconds, _LAST_DATE)
        return seconds

    async def _unique(self, session_id: str, expected: Version) -> bytes:
        """Return memcached's name for *expected*; raise Conflict when that is not kept now."""
        current = await self.load(session_id)
        if current is None or current.version != expected:
            raise Conflict(current)
        return cast("Value", current.version).unique

    async def _refused(self, key: bytes, reply: Reply, payload: bytes) -> StorageError:
        """Return the error for a record that was not written; StorageUnavailable is raised."""
        if not (isinstance(reply, bytes) and reply.startswith(b"SERVER_ERROR object too large")):
            return _failed(reply)
        settings = await self._client.ask(key, b"stats settings\r\n", self._timeout)
        found = re.search(rb"^STAT item_size_max (\d+)", _line(settings), re.MULTILINE)
        limit = "" if found is None else f" of {int(found[1]):,} bytes"
        return StorageError(
            f"the record is {len(payload):,} bytes, which with its key is above memcached's "
            f"limit{limit} for an item: keep less in the session, or start memcached with a "
            "larger -I"
        )


def _stored(reply: Reply) -> Stored | None:
    if isinstance(reply, Value):
        return Stored(reply.payload, reply)
    if reply == b"END":
        return None
    raise _failed(reply)


def _is_done(reply: Reply, done: bytes) -> bool:
    if reply == done:
        return True
    if reply == b"NOT_FOUND":
        return False
    raise _failed(reply)


def _failed(reply: Reply) -> StorageError:
    text = _line(reply).decode(errors="replace")
    if text.startswith("ERROR Too many open connections"):
        return StorageUnavailable(f"memcached is not ready: {text}", is_answer=True)
    if text.startswith("SERVER_ERROR out of memory"):
        said = f"memcached refuses for now: {text}"
        return StorageUnavailable(said, may_retry=False, is_answer=True)
    if text.startswith("CLIENT_ERROR unauthenticated"):
        said = f"memcached refuses this user: {text}"
        return StorageUnavailable(said, may_retry=False, is_answer=True)
    if text.startswith("SERVER_ERROR"):
        # Of memcached itself, or of a proxy that cannot reach it.
        return StorageUnavailable(f"memcached is not ready: {text}", is_answer=True)
    if text.startswith(_ERRORS):
        return StorageError(f"memcached answered with an error: {text}")
    # Not the reply: it may be somebody's data.
    return StorageUnavailable("memcached did not answer: what it said answers another command")


def _line(reply: Reply) -> bytes:
    return b"a value" if isinstance(reply, Value) else reply
