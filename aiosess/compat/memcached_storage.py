"""Stands in for aiohttp_session.memcached_storage: records in memcached, keys in the cookie."""

from __future__ import annotations

import re
import time
from typing import Final

from aiohttp_session import AbstractStorage, Session
from aiohttp_session.memcached_storage import MemcachedStorage as _MemcachedStorage

from aiosess.compat.keyed import KeyedRecords

__all__ = ["AbstractStorage", "MemcachedStorage", "Session"]

_MONTH: Final = 30 * 86_400
# https://docs.memcached.org/protocols/basic/: at most 250 bytes, no white space, no controls.
_KEY: Final = re.compile(rb"[\x21-\x7e\x80-\xff]{1,250}")


class MemcachedStorage(KeyedRecords, _MemcachedStorage):
    """Keeps records in memcached. A cookie that cannot be a key counts as none."""

    async def _get(self, key: str) -> str | bytes | None:
        name = key.encode(errors="replace")
        return await self.conn.get(name) if _KEY.fullmatch(name) else None

    async def _set(self, key: str, value: str, max_age: int | None) -> None:
        # Memcached reads a time of more than 30 days as a date, and 0 as never.
        expires = max_age or 0
        if expires > _MONTH:
            expires += int(time.time())
        await self.conn.set(key.encode(), value.encode(), exptime=expires)

    async def _delete(self, key: str) -> None:
        await self.conn.delete(key.encode())
