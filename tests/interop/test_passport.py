"""Logins by Passport with keepSessionInfo, in sessions that Express and aiohttp share."""

from __future__ import annotations

import json
import logging
from typing import ClassVar

import pytest
from redis.asyncio import Redis
from yarl import URL

from aiosess.records.format import mark_of
from tests.interop.node.cases import Peers, Serve, record
from tests.interop.node.peers import Browser


class TestPassport(Peers):
    """Passport copies the whole record under a new id, what is aiosess' own in it included."""

    script: ClassVar[str] = "passport.js"

    async def test_a_session_that_was_copied_at_login_goes_on_at_python(
        self, browser: Browser, node: URL, python: URL
    ) -> None:
        await browser.do(python, "write", cart=[1])
        before = await browser.do(python, "id")

        await browser.do(node, "enter", username="bob", password="any")

        assert await browser.do(python, "id") != before
        assert await browser.do(python, "read") == {"cart": [1], "passport": {"user": "bob"}}

    async def test_the_copy_holds_what_aiosess_wrote_for_the_id_before(
        self, browser: Browser, node: URL, python: URL, redis: Redis
    ) -> None:
        await browser.do(python, "write", cart=[1])
        before = json.loads(await record(redis, browser))

        await browser.do(node, "enter", username="bob", password="any")

        copied = json.loads(await record(redis, browser))
        assert copied["__aiosess"] == before["__aiosess"]

    async def test_the_log_says_once_that_a_session_was_copied_and_nothing_was_mixed_up(
        self, browser: Browser, node: URL, python: URL, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        await browser.do(python, "write", cart=[1])
        await browser.do(node, "enter", username="bob", password="any")

        await browser.do(python, "read")
        await browser.do(python, "read")

        told = [each.getMessage() for each in caplog.records if each.name == "aiosess"]
        assert len([line for line in told if "was copied" in line]) == 1
        assert [line for line in told if "mixed up" in line] == []

    async def test_the_copy_gets_the_mark_of_its_own_id_with_the_next_write_of_python(
        self, browser: Browser, node: URL, python: URL, redis: Redis
    ) -> None:
        await browser.do(python, "write", cart=[1])
        before = await browser.do(python, "id")
        await browser.do(node, "enter", username="bob", password="any")
        copied = json.loads(await record(redis, browser))["__aiosess"]["mark"]

        await browser.do(python, "write", seen=True)

        written = json.loads(await record(redis, browser))["__aiosess"]["mark"]
        assert copied == mark_of(before)
        assert written == mark_of(await browser.do(python, "id"))

    async def test_what_python_writes_into_the_copy_is_there_for_node_and_the_login_holds(
        self, browser: Browser, node: URL, python: URL
    ) -> None:
        await browser.do(python, "write", cart=[1])
        await browser.do(node, "enter", username="bob", password="any")

        await browser.do(python, "write", seen=True)
        await browser.do(node, "write", more=2)

        assert await browser.do(node, "user") == "bob"
        expected = {"cart": [1], "passport": {"user": "bob"}, "seen": True, "more": 2}
        assert await browser.do(python, "read") == await browser.do(node, "read") == expected

    async def test_the_id_from_before_the_login_is_dead_on_both_sides(
        self, browser: Browser, node: URL, python: URL
    ) -> None:
        await browser.do(python, "write", cart=[1])
        old = browser.cookie
        assert old is not None
        await browser.do(node, "enter", username="bob", password="any")

        browser.come_back_with(old)

        assert await browser.do(python, "read") == await browser.do(node, "read") == {}

    async def test_a_session_that_was_copied_again_at_logout_goes_on_at_python(
        self, browser: Browser, node: URL, python: URL
    ) -> None:
        await browser.do(python, "write", cart=[1])
        await browser.do(node, "enter", username="bob", password="any")
        await browser.do(python, "write", seen=True)

        await browser.do(node, "leave")

        expected = {"cart": [1], "passport": {}, "seen": True}
        assert await browser.do(python, "read") == expected
        assert await browser.do(node, "user") is None

    async def test_a_copied_session_is_renewed_and_ended_by_python_as_any_other(
        self, browser: Browser, node: URL, python: URL
    ) -> None:
        await browser.do(python, "write", cart=[1])
        await browser.do(node, "enter", username="bob", password="any")

        await browser.do(python, "renew", principal="bob")
        user = await browser.do(node, "user")
        renewed = browser.cookie
        assert renewed is not None
        await browser.do(python, "logout")
        browser.come_back_with(renewed)

        assert user == "bob"
        assert await browser.do(node, "read") == await browser.do(python, "read") == {}

    async def test_the_absolute_timeout_goes_on_from_where_the_session_began(
        self, browser: Browser, node: URL, serve_aiohttp: Serve, redis: Redis
    ) -> None:
        python = await serve_aiohttp(absolute_timeout=200_000)
        await browser.do(python, "write", cart=[1])
        began = json.loads(await record(redis, browser))["__aiosess"]["created"]

        await browser.do(node, "enter", username="bob", password="any")
        await browser.do(python, "write", seen=True)

        assert json.loads(await record(redis, browser))["__aiosess"]["created"] == began
