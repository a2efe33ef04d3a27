"""Live sessions shared with Fastify: @fastify/session and connect-redis, on one Redis."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest
from redis.asyncio import Redis
from yarl import URL

from aiosess import CookieOptions
from tests.interop.node.cases import MINUTE, Serve, SharedSessions, key_in, record
from tests.interop.node.peers import SECRET, Browser

RunNode = Callable[[dict[str, Any]], URL]

NEW_SECRET = "a newer secret that Node and Python know, and nobody else does"


async def let_end(redis: Redis, browser: Browser, at: float) -> None:
    """Have the record say that its cookie ends *at* a Unix time; its life in Redis stays."""
    stated = json.loads(await record(redis, browser))
    stated["cookie"]["expires"] = datetime.fromtimestamp(at, UTC).isoformat()
    await redis.set(key_in(browser), json.dumps(stated), keepttl=True)


class TestFastify(SharedSessions):
    script: ClassVar[str] = "fastify.js"

    # What from-express.md says of it.

    async def test_without_the_prefix_fastify_clears_the_cookie_of_python(
        self, browser: Browser, run_node: RunNode, python: URL
    ) -> None:
        node = run_node({"cookiePrefix": ""})
        await browser.do(python, "write", a=1)

        await browser.do(node, "read")

        assert browser.cookie is None

    async def test_keys_called_like_methods_are_data_on_both_sides_while_fastify_only_reads(
        self, browser: Browser, node: URL, python: URL
    ) -> None:
        await browser.do(python, "write", id=5, save="me", touch=None, plain=1)

        await browser.do(node, "read")

        data = {"id": 5, "save": "me", "touch": None, "plain": 1}
        assert await browser.do(python, "read") == data

    async def test_a_reading_by_fastify_does_not_let_the_record_live_on(
        self, browser: Browser, node_for_a_minute: URL, redis: Redis
    ) -> None:
        await browser.do(node_for_a_minute, "write", a=1)
        await redis.pexpire(key_in(browser), 5_000)

        await browser.do(node_for_a_minute, "read")

        assert await redis.pttl(key_in(browser)) <= 5_000

    async def test_fastify_ends_a_session_at_the_end_that_stands_in_its_record(
        self, browser: Browser, node_for_a_minute: URL, python_for_a_minute: URL, redis: Redis
    ) -> None:
        await browser.do(node_for_a_minute, "write", a=1)
        await let_end(redis, browser, time.time() - 1)

        answers = [
            await browser.do(peer, "read") for peer in (python_for_a_minute, node_for_a_minute)
        ]

        assert answers == [{"a": 1}, {}]

    async def test_with_resave_python_moves_that_end_on_whenever_it_reads(
        self, browser: Browser, node_for_a_minute: URL, serve_aiohttp: Serve, redis: Redis
    ) -> None:
        python = await serve_aiohttp(cookie=CookieOptions(max_age=60), resave=True)
        await browser.do(node_for_a_minute, "write", a=1)
        await let_end(redis, browser, time.time() - 1)

        answers = [await browser.do(peer, "read") for peer in (python, node_for_a_minute)]

        assert answers == [{"a": 1}, {"a": 1}]

    async def test_fastify_gives_an_age_to_a_session_that_python_took_it_from(
        self, browser: Browser, node_for_a_minute: URL, python_for_a_minute: URL, redis: Redis
    ) -> None:
        await browser.do(python_for_a_minute, "write", a=1)
        await browser.do(python_for_a_minute, "maxAge", milliseconds=None)

        await browser.do(node_for_a_minute, "write", b=2)

        stated = json.loads(await record(redis, browser))["cookie"]
        assert stated["originalMaxAge"] == MINUTE["cookie"]["maxAge"]

    @pytest.mark.parametrize("saves_uninitialized", [True, False])
    async def test_a_new_secret_comes_in_without_a_logout_only_with_save_uninitialized(
        self,
        browser: Browser,
        run_node: RunNode,
        serve_aiohttp: Serve,
        *,
        saves_uninitialized: bool,
    ) -> None:
        node = run_node({"secret": [NEW_SECRET, SECRET], "saveUninitialized": saves_uninitialized})
        python = await serve_aiohttp(secret=[SECRET, NEW_SECRET])
        await browser.do(python, "write", a=1)

        answers = [await browser.do(node, "read") for _ in range(2)]

        assert answers == [{"a": 1}, {"a": 1} if saves_uninitialized else {}]
