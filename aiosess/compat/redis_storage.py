"""Stands in for aiohttp_session.redis_storage: records in Redis, their keys in the cookie."""

from __future__ import annotations

from typing import cast

from aiohttp_session import AbstractStorage, Session
from aiohttp_session.redis_storage import RedisStorage as _RedisStorage

try:
    from redis import VERSION as _VERSION  # pyright: ignore[reportUnknownVariableType] - untyped
    from redis.asyncio import Redis
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        f'{_error}: pip install "aiosess[redis]"', name=_error.name
    ) from _error

from aiosess.compat.keyed import KeyedRecords

__all__ = ["REDIS_VERSION", "AbstractStorage", "RedisStorage", "Session"]

REDIS_VERSION = cast("tuple[int | str, ...]", _VERSION)


class RedisStorage(KeyedRecords, _RedisStorage):
    """Keeps records in Redis, for a client with ``decode_responses`` or without.

    Without *max_age*, as in aiohttp-session, a record stays until its session is ended.
    """

    _redis: Redis

    async def _get(self, key: str) -> str | bytes | None:
        return await self._redis.get(key)

    async def _set(self, key: str, value: str, max_age: int | None) -> None:
        await self._redis.set(key, value, ex=max_age)

    async def _delete(self, key: str) -> None:
        await self._redis.delete(key)
