"""Sessions set up at start-up, from a configuration object and a shared Redis client.

``python examples/async_config.py``, with REDIS_URL, SESSION_SECRET and PORT in the environment.
"""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

from aiohttp import web
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import parse_url

from aiosess import CookieOptions, SessionOptions, get_session, setup_async
from aiosess.storages.redis import RedisStorage


@dataclass(frozen=True)
class Config:
    """What differs between one machine and another."""

    redis_url: str
    secret: str
    max_age: timedelta = timedelta(days=1)

    @classmethod
    def from_environment(cls) -> "Config":
        """Read it from the environment, with values that do for trying."""
        return cls(
            redis_url=os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"),
            secret=os.environ.get("SESSION_SECRET", "keyboard cat"),
        )


CONFIG = web.AppKey("CONFIG", Config)
REDIS = web.AppKey("REDIS", Redis)


async def redis_client(app: web.Application) -> AsyncIterator[None]:
    """Open the client that the whole application uses, and close it at the end."""
    # What Redis.from_url(url) does, in words that type checkers know.
    pool = ConnectionPool(**parse_url(app[CONFIG].redis_url))
    async with Redis.from_pool(pool) as client:
        app[REDIS] = client
        yield


def session_options(config: Config, redis: Redis) -> SessionOptions:
    """Put the options together; called once, at start-up."""
    return SessionOptions(
        secret=config.secret,
        storage=RedisStorage(redis),
        cookie=CookieOptions(max_age=config.max_age),
        retries=2,
        retries_strategy=lambda retry: 0.05 * 2**retry,
    )


async def views(request: web.Request) -> web.Response:
    session = await get_session(request)
    session["views"] = session.get("views", 0) + 1
    return web.json_response(session["views"])


def make_app(config: Config) -> web.Application:
    """Return the application, ready to be run."""
    app = web.Application()
    app[CONFIG] = config
    app.router.add_get("/views", views, name="views")
    setup_async(
        app,
        imports=[redis_client],
        inject=[CONFIG, REDIS],
        use_factory=session_options,
    )
    return app


if __name__ == "__main__":
    web.run_app(
        make_app(Config.from_environment()),
        host="127.0.0.1",
        port=int(os.environ.get("PORT", "8080")),
    )
