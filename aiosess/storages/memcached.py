"""Sessions in memcached: one item a session, on one server or several."""

from __future__ import annotations

import hashlib
import math
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self, overload

from aiosess.errors import Conflict, IdTaken, OptionsError, StorageError, StorageUnavailable
from aiosess.storages.base import Stored, Version
from aiosess.storages.memcached_client import MemcachedClient, Reply, Value

__all__ = ["MemcachedStorage"]

# What may stand in a key, and how long it may be:
# https://github.com/memcached/memcached/blob/master/doc/protocol.txt
_LEGAL: Final = re.compile(r"[!-~]{1,250}")
_LONGEST_PREFIX: Final = 150
_HASHED: Final = "sha256:"

# Memcached takes a longer time for a date.
_MONTH: Final = 30 * 24 * 60 * 60
_LAST_DATE: Final = 2**31 - 1


@dataclass(slots=True, unsafe_hash=True)
class _Version:
    """A state of a record; *unique* is memcached's name for it, where it was told.

    Memcached tells it to who reads and not to who writes, so that it is not part of the value.
    """

    payload: bytes
    unique: int | None = field(default=None, compare=False)


class MemcachedStorage:
    """Keeps records on one memcached server or several, 1.4.8 or later.

    *client* is a ``MemcachedClient`` of ``aiosess.storages.memcached_client``; it is the
    application's to close. *prefix* stands before each session id. An id that cannot be part of
    a key (too long, spaces, not ASCII) is kept under its SHA-256. Memcached counts in whole
    seconds: a record lives its ttl at the least, and at the most two seconds longer.

    A memcached that is full drops the records that were not used for longest, and one that ends
    drops all: such a record is absent. A record larger than the server allows (``-I``, one
    megabyte by default) is refused with a StorageError that says so, and the one before stays.
    """

    def __init__(
        self,
        client: MemcachedClient,
        *,
        prefix: str = "sess:",
        owns_client: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(client, MemcachedClient):
            raise OptionsError(
                f"client is a {type(client).__name__} and not a MemcachedClient: "
                "use MemcachedStorage.from_url('memcached://...') to have one made"
            )
        is_legal = prefix == "" or _LEGAL.fullmatch(prefix) is not None
        if not is_legal or len(prefix) > _LONGEST_PREFIX:
            raise OptionsError(
                f"prefix={prefix!r} must be at most {_LONGEST_PREFIX} ASCII characters, "
                "none of them a space or a control character"
            )
        self._client = client
        self._prefix = prefix
        self._owns_client = owns_client
        self._clock = clock

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
        return cls(client, prefix=prefix, owns_client=True)

    async def __aenter__(self) -> Self:
        """Return the storage itself; leaving closes it."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close what the storage opened itself."""
        await self.close()

    async def close(self) -> None:
        """Close the client if ``from_url`` made it; one that was handed in stays open."""
        if self._owns_client:
            await self._client.close()

    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        """Keep *payload* under a free id (``add``); IdTaken when it is not."""
        key = self._key(session_id)
        head = b"add %b 0 %d %d\r\n" % (key, self._expires(ttl), len(payload))
        reply = await self._ask(key, b"%b%b\r\n" % (head, payload))
        if reply == b"STORED":
            return _Version(payload)
        if reply == b"NOT_STORED":
            raise IdTaken
        raise await self._refused(key, reply, payload)

    async def load(self, session_id: str) -> Stored | None:
        """Return the record (``gets``), or ``None`` when there is none."""
        return _stored(await self._load(self._key(session_id)))

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        """Put *payload* in the place of the version *expected* (``cas``).

        One command, but one more before it when the version comes from a create or replace and
        not from a load, and one more after it on a Conflict.
        """
        key = self._key(session_id)
        unique = expected.unique if isinstance(expected, _Version) else None
        if unique is None:
            current = await self._load(key)
            if current is None or _stored(current).version != expected:
                raise Conflict(_stored(current))
            unique = current.unique
        head = b"cas %b 0 %d %d %d\r\n" % (key, self._expires(ttl), len(payload), unique)
        reply = await self._ask(key, b"%b%b\r\n" % (head, payload))
        if reply == b"STORED":
            return _Version(payload)
        if reply == b"NOT_FOUND":
            raise Conflict(None)
        if reply == b"EXISTS":
            raise Conflict(_stored(await self._load(key)))
        raise await self._refused(key, reply, payload)

    async def touch(self, session_id: str, ttl: float) -> bool:
        """Let the record live *ttl* seconds from now (``touch``); False when there is none."""
        key = self._key(session_id)
        reply = await self._ask(key, b"touch %b %d\r\n" % (key, self._expires(ttl)))
        return _is_done(reply, b"TOUCHED")

    async def delete(self, session_id: str) -> bool:
        """Remove the record (``delete``); False when there was none."""
        key = self._key(session_id)
        return _is_done(await self._ask(key, b"delete %b\r\n" % key), b"DELETED")

    def _key(self, session_id: str) -> bytes:
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

    async def _load(self, key: bytes) -> Value | None:
        reply = await self._ask(key, b"gets %b\r\n" % key)
        if isinstance(reply, Value):
            return reply
        if reply == b"END":
            return None
        raise _failed(reply)

    async def _ask(self, key: bytes, command: bytes) -> Reply:
        try:
            return await self._client.ask(key, command)
        except OSError as error:
            raise StorageUnavailable(
                f"memcached did not answer: {type(error).__name__}: {error}"
            ) from error

    async def _refused(self, key: bytes, reply: Reply, payload: bytes) -> StorageError:
        """Return the error for a record that was not written."""
        if not (isinstance(reply, bytes) and reply.startswith(b"SERVER_ERROR object too large")):
            return _failed(reply)
        settings = await self._ask(key, b"stats settings\r\n")
        found = re.search(rb"^STAT item_size_max (\d+)", _line(settings), re.MULTILINE)
        limit = "" if found is None else f" of {int(found[1]):,} bytes"
        return StorageError(
            f"the record is {len(payload):,} bytes, which with its key is above memcached's "
            f"limit{limit} for an item: keep less in the session, or start memcached with a "
            "larger -I"
        )


@overload
def _stored(value: Value) -> Stored: ...
@overload
def _stored(value: Value | None) -> Stored | None: ...
def _stored(value: Value | None) -> Stored | None:
    if value is None:
        return None
    return Stored(value.payload, _Version(value.payload, value.unique))


def _is_done(reply: Reply, done: bytes) -> bool:
    if reply == done:
        return True
    if reply == b"NOT_FOUND":
        return False
    raise _failed(reply)


def _failed(reply: Reply) -> StorageError:
    text = _line(reply).decode(errors="replace")
    if text.startswith("ERROR Too many open connections"):
        return StorageUnavailable(f"memcached is not ready: {text}")
    return StorageError(f"memcached answered with an error: {text}")


def _line(reply: Reply) -> bytes:
    return b"a value" if isinstance(reply, Value) else reply
