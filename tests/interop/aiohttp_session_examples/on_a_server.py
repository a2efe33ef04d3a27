"""Demo: the last visit, in Redis and in memcached."""

from __future__ import annotations

import time

import aiomcache
from aiohttp import web
from aiohttp_session import get_session, setup
from aiohttp_session.memcached_storage import MemcachedStorage
from aiohttp_session.redis_storage import RedisStorage
from redis import asyncio as aioredis


async def handler(request: web.Request) -> web.Response:
    session = await get_session(request)
    last_visit = session.get("last_visit")
    session["last_visit"] = time.time()
    return web.Response(text=f"Last visited: {last_visit}")


def with_redis(url: str) -> web.Application:
    redis = aioredis.from_url(url)

    async def dispose(_app: web.Application) -> None:
        await redis.aclose()

    app = web.Application()
    setup(app, RedisStorage(redis))
    app.on_cleanup.append(dispose)
    app.router.add_get("/", handler)
    return app


def with_memcached(port: int) -> web.Application:
    client = aiomcache.Client("127.0.0.1", port)

    async def dispose(_app: web.Application) -> None:
        await client.close()

    app = web.Application()
    setup(app, MemcachedStorage(client))
    app.on_cleanup.append(dispose)
    app.router.add_get("/", handler)
    return app
