"""Live sessions shared with Express: express-session and connect-redis, on one Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing
from typing import ClassVar

import pytest
from pytest_aiohttp import AiohttpServer
from yarl import URL

from aiosess import SessionOptions
from aiosess.storages.redis import RedisStorage
from tests.interop.node.cases import ExpressSessions
from tests.interop.node.peers import COOKIE, SECRET, Browser, NodeServer, aiohttp_peer
from tests.servers import RedisServer


class TestExpress(ExpressSessions):
    script: ClassVar[str] = "express.js"


class TestExpressWithAnOlderStoreAndClient(ExpressSessions):
    script: ClassVar[str] = "express.js"
    packages: ClassVar[tuple[str, str]] = ("connect-redis-9", "redis-5")


@pytest.fixture(params=[("connect-redis", "redis-5"), ("connect-redis-9", "redis")])
def mixed_node(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[URL]:
    """An older store on a newer client, and the other way round."""
    server = NodeServer("express.js", redis_server, {}, request.param)
    server.start()
    yield server.url
    server.stop()


async def test_each_store_shares_sessions_by_way_of_each_client(
    mixed_node: URL, redis_server: RedisServer, aiohttp_server: AiohttpServer
) -> None:
    async with RedisStorage.from_url(redis_server.url) as storage, aclosing(Browser()) as browser:
        options = SessionOptions(secret=SECRET, name=COOKIE, storage=storage)
        python = (await aiohttp_server(aiohttp_peer(options))).make_url("/")

        await browser.do(mixed_node, "write", there=1)
        await browser.do(python, "write", here=2)

        assert await browser.do(mixed_node, "read") == {"there": 1, "here": 2}
