"""What must hold for every Node application that shares its live sessions with aiohttp."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from email.utils import parsedate_to_datetime
from http.cookies import SimpleCookie
from typing import Any, ClassVar, Final
from urllib.parse import unquote

import pytest
from aiohttp import web
from pytest_aiohttp import AiohttpServer
from redis.asyncio import Redis
from yarl import URL

from aiosess import CookieOptions, SessionOptions, get_session, setup
from aiosess.storages.redis import RedisStorage
from aiosess.transports.signing import Signer
from tests.interop.node.peers import COOKIE, SECRET, Browser, NodeServer, aiohttp_peer
from tests.servers import RedisServer

__all__ = [
    "MINUTE",
    "ExpressSessions",
    "Peers",
    "Serve",
    "SharedSessions",
    "key_in",
    "record",
]

DATA: Final[dict[str, Any]] = {
    "text": "plain",
    "empty text": "",
    "unicode": "Grüße, 世界 \U0001f600 \u2028 \x00 \\ \" '",
    "Schlüssel": "a key beyond ASCII",
    "": "an empty key",
    "half of a pair": "\ud83d",
    "yes": True,
    "no": False,
    "nothing": None,
    "zero": 0,
    "big": 2**53 - 1,
    "negative": -(2**53 - 1),
    "digits": 12_345_678_901_234_567_000,
    "exponent": 1e21,
    "float": 0.1 + 0.2,
    "negative float": -1.5e-7,
    "least float": 5e-324,
    "greatest float": 1.7976931348623157e308,
    "empty list": [],
    "empty object": {},
    "nested": {
        "cart": [{"sku": "a", "tags": [[], {}, None, [1, [2.5, ["x"]]]]}],
        "cookie": {"a": 1},
    },
    "10": "a key that JavaScript takes for an index",
}

MINUTE: Final = {"cookie": {"maxAge": 60_000}}

Serve = Callable[..., Any]


class Peers:
    """Who shares the sessions; a subclass says which *script* is in Node, on which *packages*."""

    script: ClassVar[str]
    packages: ClassVar[tuple[str, str]] = ("connect-redis", "redis")

    @pytest.fixture(scope="class")
    @classmethod
    def run_node(cls, redis_server: RedisServer) -> Iterator[Callable[[dict[str, Any]], URL]]:
        """Start the Node application, once for each set of options."""
        started: dict[str, NodeServer] = {}

        def run(options: dict[str, Any]) -> URL:
            key = json.dumps(options, sort_keys=True)
            if key not in started:
                started[key] = NodeServer(cls.script, redis_server, options, cls.packages)
                started[key].start()
            return started[key].url

        yield run
        for server in started.values():
            server.stop()

    @pytest.fixture
    def node(self, run_node: Callable[[dict[str, Any]], URL]) -> URL:
        return run_node({})

    @pytest.fixture
    def node_for_a_minute(self, run_node: Callable[[dict[str, Any]], URL]) -> URL:
        return run_node(MINUTE)

    @pytest.fixture
    def node_rolling(self, run_node: Callable[[dict[str, Any]], URL]) -> URL:
        return run_node({**MINUTE, "rolling": True})

    @pytest.fixture
    def node_with_old_defaults(self, run_node: Callable[[dict[str, Any]], URL]) -> URL:
        return run_node({"resave": True, "saveUninitialized": True})

    @pytest.fixture
    async def serve_aiohttp(
        self, redis_server: RedisServer, aiohttp_server: AiohttpServer
    ) -> AsyncIterator[Serve]:
        async with RedisStorage.from_url(redis_server.url) as storage:

            async def serve(**options: Any) -> URL:
                server = await aiohttp_server(
                    aiohttp_peer(
                        SessionOptions(
                            **{"secret": SECRET, "name": COOKIE, "storage": storage, **options}
                        )
                    )
                )
                return server.make_url("/")

            yield serve

    @pytest.fixture
    async def python(self, serve_aiohttp: Serve) -> URL:
        url: URL = await serve_aiohttp()
        return url

    @pytest.fixture
    async def python_for_a_minute(self, serve_aiohttp: Serve) -> URL:
        url: URL = await serve_aiohttp(cookie=CookieOptions(max_age=60))
        return url

    @pytest.fixture
    async def browser(self) -> AsyncIterator[Browser]:
        async with aclosing(Browser()) as browser:
            yield browser

    @pytest.fixture
    async def redis(self, redis_server: RedisServer) -> AsyncIterator[Redis]:
        async with Redis.from_url(redis_server.url) as client:
            yield client


class SharedSessions(Peers):
    """The cases."""

    # Data.

    async def test_what_node_wrote_python_reads(
        self, browser: Browser, node: URL, python: URL
    ) -> None:
        await browser.do(node, "write", **DATA)

        assert same(await browser.do(python, "read"), DATA)

    async def test_what_python_wrote_node_reads(
        self, browser: Browser, node: URL, python: URL
    ) -> None:
        await browser.do(python, "write", **DATA)

        assert same(await browser.do(node, "read"), DATA)

    async def test_what_node_wrote_survives_a_write_by_python(
        self, browser: Browser, node: URL, python: URL
    ) -> None:
        await browser.do(node, "write", **DATA)

        await browser.do(python, "write", here="too")

        assert same(await browser.do(node, "read"), {**DATA, "here": "too"})

    async def test_what_python_wrote_survives_a_write_by_node(
        self, browser: Browser, node: URL, python: URL
    ) -> None:
        await browser.do(python, "write", **DATA)

        await browser.do(node, "write", there="too")

        assert same(await browser.do(python, "read"), {**DATA, "there": "too"})

    async def test_a_browser_goes_back_and_forth_and_each_side_goes_on_from_the_other(
        self, browser: Browser, node: URL, python: URL
    ) -> None:
        for step, peer in enumerate([node, python, python, node, python, node, node, python]):
            await browser.do(peer, "write", **{f"step {step}": step})

        expected = {f"step {step}": step for step in range(8)}
        assert await browser.do(node, "read") == expected
        assert await browser.do(python, "read") == expected

    async def test_what_one_side_removes_is_gone_on_the_other(
        self, browser: Browser, node: URL, python: URL
    ) -> None:
        await browser.do(node, "write", a=1, b=2, c=3)

        await browser.do(python, "remove", key="a")
        await browser.do(node, "remove", key="b")

        assert await browser.do(python, "read") == await browser.do(node, "read") == {"c": 3}

    async def test_what_node_writes_during_a_request_to_python_is_kept(
        self, browser: Browser, node: URL, redis_server: RedisServer, aiohttp_server: AiohttpServer
    ) -> None:
        loaded, written = asyncio.Event(), asyncio.Event()

        async def slow(request: web.Request) -> web.Response:
            session = await get_session(request)
            session["mine"] = 1
            loaded.set()
            await written.wait()
            return web.json_response({"result": None})

        async with RedisStorage.from_url(redis_server.url) as storage:
            app = web.Application()
            setup(app, SessionOptions(secret=SECRET, name=COOKIE, storage=storage))
            app.router.add_post("/slow", slow)
            python = (await aiohttp_server(app)).make_url("/")
            await browser.do(node, "write", base=0)
            request = asyncio.ensure_future(browser.do(python, "slow"))
            await loaded.wait()

            await browser.do(node, "write", theirs=2)
            written.set()
            await request

        assert await browser.do(node, "read") == {"base": 0, "mine": 1, "theirs": 2}

    # The record's bytes.

    @pytest.mark.parametrize(
        "options",
        [{}, {"rolling": True}, {"touch_after": 0}, {"cookie": CookieOptions(max_age=60)}],
        ids=["plain", "rolling", "touching", "with max_age"],
    )
    async def test_reading_by_python_leaves_every_byte_as_node_wrote_it(
        self,
        browser: Browser,
        node: URL,
        serve_aiohttp: Serve,
        redis: Redis,
        options: dict[str, Any],
    ) -> None:
        python = await serve_aiohttp(**options)
        await browser.do(node, "write", **DATA)
        before = await record(redis, browser)

        await browser.do(python, "read")

        assert await record(redis, browser) == before

    async def test_writing_what_is_there_already_leaves_every_byte_as_node_wrote_it(
        self, browser: Browser, node: URL, python: URL, redis: Redis
    ) -> None:
        await browser.do(node, "write", **DATA)
        before = await record(redis, browser)

        await browser.do(python, "write", **DATA)

        assert await record(redis, browser) == before

    async def test_numbers_that_only_python_can_count_to_survive_while_node_only_reads(
        self, browser: Browser, node: URL, python: URL
    ) -> None:
        await browser.do(python, "write", exact=2**64 + 1)

        await browser.do(node, "read")

        assert await browser.do(python, "read") == {"exact": 2**64 + 1}

    async def test_reading_by_node_leaves_every_byte_as_python_wrote_it(
        self, browser: Browser, node: URL, python: URL, redis: Redis
    ) -> None:
        await browser.do(python, "write", **DATA)
        before = await record(redis, browser)

        await browser.do(node, "read")

        assert await record(redis, browser) == before

    async def test_node_carries_along_what_python_must_remember(
        self, browser: Browser, node: URL, python: URL, redis: Redis
    ) -> None:
        await browser.do(python, "write", here="first")
        before = json.loads(await record(redis, browser))

        await browser.do(node, "write", there="then")

        after = json.loads(await record(redis, browser))
        assert after["there"] == "then"
        assert after["__aiosess"] == before["__aiosess"]

    async def test_node_with_its_old_defaults_rewrites_the_record_and_loses_nothing(
        self, browser: Browser, node_with_old_defaults: URL, python: URL, redis: Redis
    ) -> None:
        await browser.do(python, "write", **DATA)
        before = json.loads(await record(redis, browser))

        await browser.do(node_with_old_defaults, "read")

        after = json.loads(await record(redis, browser))
        assert after["__aiosess"] == before["__aiosess"]
        assert same(await browser.do(python, "read"), DATA)

    async def test_a_session_that_node_made_for_a_passer_by_is_one_for_python(
        self, browser: Browser, node_with_old_defaults: URL, python: URL
    ) -> None:
        await browser.do(node_with_old_defaults, "read")
        cookie = browser.cookie

        await browser.do(python, "write", a=1)

        assert browser.cookie == cookie is not None
        assert await browser.do(node_with_old_defaults, "read") == {"a": 1}

    async def test_handlers_of_python_do_not_see_what_belongs_to_the_record(
        self, browser: Browser, node: URL, python: URL
    ) -> None:
        await browser.do(node, "write", a=1)
        await browser.do(python, "write", b=2)
        await browser.do(node, "write", c=3)

        assert await browser.do(python, "read") == {"a": 1, "b": 2, "c": 3}

    # The id and its cookie.

    async def test_both_sides_know_the_session_by_the_same_id_and_cookie(
        self, browser: Browser, node: URL, python: URL
    ) -> None:
        await browser.do(node, "write", a=1)
        cookie = browser.cookie

        ids = [await browser.do(peer, "id") for peer in (node, python)]

        assert ids[0] == ids[1]
        assert unquote(Signer(SECRET).sign(ids[0])) == cookie == browser.cookie

    async def test_a_login_at_node_holds_at_python_and_the_old_id_is_dead(
        self, browser: Browser, node: URL, python: URL
    ) -> None:
        await browser.do(python, "write", cart=[1])
        old = browser.cookie
        assert old is not None

        await browser.do(node, "login", principal="bob")

        assert await browser.do(python, "read") == {"principal": "bob"}
        browser.come_back_with(old)
        assert await browser.do(python, "read") == {}

    async def test_a_login_at_node_that_takes_everything_along_holds_at_python(
        self, browser: Browser, node: URL, python: URL
    ) -> None:
        await browser.do(python, "write", cart=[1])

        await browser.do(node, "loginKeepingAll", principal="bob")
        await browser.do(python, "write", seen=True)

        bobs = {"cart": [1], "principal": "bob", "seen": True}
        assert await browser.do(python, "read") == await browser.do(node, "read") == bobs

    async def test_a_login_at_python_holds_at_node_and_the_old_id_is_dead(
        self, browser: Browser, node: URL, python: URL
    ) -> None:
        await browser.do(node, "write", cart=[1])
        old = browser.cookie
        assert old is not None

        await browser.do(python, "login", principal="bob")

        assert await browser.do(node, "read") == {"principal": "bob"}
        browser.come_back_with(old)
        assert await browser.do(node, "read") == {}

    async def test_an_id_that_python_renewed_shows_node_what_was_before_and_the_new_one_all(
        self, browser: Browser, node: URL, python: URL
    ) -> None:
        await browser.do(node, "write", cart=[1])
        old = browser.cookie
        assert old is not None

        await browser.do(python, "renew", principal="bob")

        assert browser.cookie != old
        assert await browser.do(node, "read") == {"cart": [1], "principal": "bob"}
        browser.come_back_with(old)
        assert await browser.do(node, "read") == {"cart": [1]}

    async def test_what_node_writes_under_an_id_that_python_renewed_does_not_reach_the_session(
        self, browser: Browser, node: URL, python: URL
    ) -> None:
        await browser.do(node, "write", cart=[1])
        old = browser.cookie
        await browser.do(python, "renew", principal="bob")
        new = browser.cookie
        assert old is not None
        assert new is not None

        browser.come_back_with(old)
        await browser.do(node, "write", principal="mallory")

        browser.come_back_with(new)
        bobs = {"cart": [1], "principal": "bob"}
        assert await browser.do(python, "read") == await browser.do(node, "read") == bobs

    @pytest.mark.parametrize("is_node_first", [True, False])
    async def test_a_logout_on_one_side_is_one_on_the_other(
        self, browser: Browser, node: URL, python: URL, redis: Redis, *, is_node_first: bool
    ) -> None:
        first, second = (node, python) if is_node_first else (python, node)
        await browser.do(second, "login", principal="bob")
        cookie = browser.cookie
        assert cookie is not None

        await browser.do(first, "logout")

        browser.come_back_with(cookie)
        assert await browser.do(second, "read") == {}
        assert await redis.exists(key_of(cookie)) == 0

    async def test_python_does_not_bring_back_what_node_ended_meanwhile(
        self,
        browser: Browser,
        node: URL,
        redis: Redis,
        redis_server: RedisServer,
        aiohttp_server: AiohttpServer,
    ) -> None:
        loaded, ended = asyncio.Event(), asyncio.Event()

        async def slow(request: web.Request) -> web.Response:
            session = await get_session(request)
            session["late"] = True
            loaded.set()
            await ended.wait()
            return web.json_response({"result": None})

        async with RedisStorage.from_url(redis_server.url) as storage:
            app = web.Application()
            setup(app, SessionOptions(secret=SECRET, name=COOKIE, storage=storage))
            app.router.add_post("/slow", slow)
            python = (await aiohttp_server(app)).make_url("/")
            await browser.do(node, "login", principal="bob")
            cookie = browser.cookie
            assert cookie is not None
            request = asyncio.ensure_future(browser.do(python, "slow"))
            await loaded.wait()

            await browser.do(node, "logout")
            ended.set()
            await request

        assert await redis.exists(key_of(cookie)) == 0

    # Ends.

    @pytest.mark.parametrize("is_node_first", [True, False])
    async def test_both_sides_agree_when_a_session_ends(
        self,
        browser: Browser,
        node_for_a_minute: URL,
        python_for_a_minute: URL,
        redis: Redis,
        *,
        is_node_first: bool,
    ) -> None:
        peers = [node_for_a_minute, python_for_a_minute]
        first, second = peers if is_node_first else reversed(peers)

        await browser.do(first, "write", a=1)
        written = ends(browser)
        await browser.do(second, "write", b=2)
        rewritten = ends(browser)

        assert written == pytest.approx(time.time() + 60, abs=3)
        assert rewritten == pytest.approx(time.time() + 60, abs=3)
        assert 57_000 < await redis.pttl(key_in(browser)) <= 60_000
        stated = json.loads(await record(redis, browser))["cookie"]
        assert stated["originalMaxAge"] == pytest.approx(60_000, abs=2)

    async def test_an_age_that_node_gave_one_session_holds_at_python(
        self, browser: Browser, node: URL, python: URL, redis: Redis
    ) -> None:
        await browser.do(node, "write", a=1)
        await browser.do(node, "maxAge", milliseconds=120_000)

        age = (await browser.do(python, "cookie"))["milliseconds"]
        await browser.do(python, "write", b=2)

        assert age == pytest.approx(120_000, abs=2)
        assert ends(browser) == pytest.approx(time.time() + 120, abs=3)
        assert 117_000 < await redis.pttl(key_in(browser)) <= 120_000

    async def test_an_age_that_python_gave_one_session_holds_at_node(
        self, browser: Browser, node: URL, python: URL, redis: Redis
    ) -> None:
        await browser.do(python, "write", a=1)
        await browser.do(python, "maxAge", milliseconds=120_000)

        age = (await browser.do(node, "cookie"))["milliseconds"]
        await browser.do(node, "write", b=2)

        assert age == pytest.approx(120_000, abs=2)
        assert ends(browser) == pytest.approx(time.time() + 120, abs=3)
        assert 117_000 < await redis.pttl(key_in(browser)) <= 120_000

    async def test_a_fixed_end_that_python_gave_one_session_is_not_moved_by_node(
        self, browser: Browser, node: URL, python: URL
    ) -> None:
        end = float(int(time.time()) + 500)
        await browser.do(python, "write", a=1)
        await browser.do(python, "endAt", at=end)

        await browser.do(node, "write", b=2)
        await browser.do(python, "write", c=3)

        assert (await browser.do(python, "cookie"))["end"] == end
        assert await browser.do(node, "read") == {"a": 1, "b": 2, "c": 3}

    async def test_rolling_at_node_sends_the_same_id_on_again(
        self, browser: Browser, node_rolling: URL, python_for_a_minute: URL
    ) -> None:
        await browser.do(python_for_a_minute, "write", a=1)
        cookie = browser.cookie

        await browser.do(node_rolling, "read")

        assert browser.cookie == cookie
        assert ends(browser) == pytest.approx(time.time() + 60, abs=3)

    async def test_node_sends_the_cookie_of_a_session_of_python_with_all_its_attributes(
        self, browser: Browser, run_node: Callable[[dict[str, Any]], URL], python: URL
    ) -> None:
        await browser.do(python, "write", a=1)
        begun = attributes(browser)

        await browser.do(run_node({"rolling": True}), "write", b=2)

        assert begun == {"path": "/", "httponly": True, "samesite": "lax"}
        assert attributes(browser) == begun

    async def test_rolling_at_python_sends_the_same_id_on_again(
        self, browser: Browser, node_for_a_minute: URL, serve_aiohttp: Serve
    ) -> None:
        python = await serve_aiohttp(cookie=CookieOptions(max_age=60), rolling=True)
        await browser.do(node_for_a_minute, "write", a=1)
        cookie = browser.cookie

        await browser.do(python, "read")

        assert browser.cookie == cookie
        assert ends(browser) == pytest.approx(time.time() + 60, abs=3)

    async def test_a_login_whose_response_was_lost_costs_no_cart(
        self, browser: Browser, node: URL, serve_aiohttp: Serve
    ) -> None:
        python = await serve_aiohttp(renew_grace=0.05)
        await browser.do(node, "write", cart=[1])
        old = browser.cookie
        assert old is not None
        await browser.do(python, "renew", principal="bob")
        # The response with the new cookie was lost on its way.
        browser.come_back_with(old)
        await asyncio.sleep(0.1)

        assert await browser.do(python, "read") == {"cart": [1]}
        assert await browser.do(node, "read") == {"cart": [1]}

    async def test_an_absolute_end_that_python_keeps_is_carried_along_by_node(
        self, browser: Browser, node: URL, serve_aiohttp: Serve, redis: Redis
    ) -> None:
        python = await serve_aiohttp(absolute_timeout=200_000)
        await browser.do(node, "write", a=1)
        await browser.do(python, "read")
        created = json.loads(await record(redis, browser))["__aiosess"]["created"]

        await browser.do(node, "write", b=2)
        await browser.do(python, "write", c=3)

        assert created == pytest.approx(time.time(), abs=3)
        assert json.loads(await record(redis, browser))["__aiosess"]["created"] == created


class ExpressSessions(SharedSessions):
    """The cases, and what holds of express-session beyond them."""

    async def test_the_cookie_of_node_is_the_one_that_python_would_send_byte_by_byte(
        self, browser: Browser, node: URL
    ) -> None:
        await browser.do(node, "write", a=1)

        sent = Signer(SECRET).sign(await browser.do(node, "id"))
        assert browser.cookie_as_sent == sent

    async def test_keys_that_express_keeps_for_itself_are_lost_and_nothing_else_is(
        self, browser: Browser, node: URL, python: URL
    ) -> None:
        await browser.do(python, "write", id=5, save="me", touch=None, plain=1)

        await browser.do(node, "read")

        assert await browser.do(python, "read") == {"plain": 1}

    @pytest.mark.parametrize("is_node_first", [True, False])
    async def test_a_session_that_is_to_end_with_the_browser_does_on_both_sides(
        self,
        browser: Browser,
        node_for_a_minute: URL,
        python_for_a_minute: URL,
        *,
        is_node_first: bool,
    ) -> None:
        peers = [node_for_a_minute, python_for_a_minute]
        first, second = peers if is_node_first else reversed(peers)
        await browser.do(first, "write", a=1)
        await browser.do(first, "maxAge", milliseconds=None)

        age = (await browser.do(second, "cookie"))["milliseconds"]
        await browser.do(second, "write", b=2)

        assert age is None
        assert browser.set_cookie is None

    @pytest.mark.parametrize("is_node_first", [True, False])
    async def test_such_a_session_has_a_day_in_redis_whichever_side_touches_or_writes_it(
        self,
        browser: Browser,
        node_for_a_minute: URL,
        serve_aiohttp: Serve,
        redis: Redis,
        *,
        is_node_first: bool,
    ) -> None:
        python = await serve_aiohttp(cookie=CookieOptions(max_age=60), touch_after=0)
        peers = [node_for_a_minute, python]
        first, second = peers if is_node_first else reversed(peers)
        await browser.do(first, "write", a=1)
        await browser.do(first, "maxAge", milliseconds=None)
        lives = [await redis.pttl(key_in(browser))]

        await browser.do(second, "read")
        lives.append(await redis.pttl(key_in(browser)))
        await browser.do(second, "write", b=2)
        lives.append(await redis.pttl(key_in(browser)))

        assert lives == pytest.approx([86_400_000] * 3, abs=3_000)

    @pytest.mark.parametrize("is_read_by_node", [True, False])
    async def test_reading_on_either_side_lets_the_record_live_on(
        self,
        browser: Browser,
        node_for_a_minute: URL,
        serve_aiohttp: Serve,
        redis: Redis,
        *,
        is_read_by_node: bool,
    ) -> None:
        python = await serve_aiohttp(cookie=CookieOptions(max_age=60), touch_after=0)
        await browser.do(python if is_read_by_node else node_for_a_minute, "write", a=1)
        await redis.pexpire(key_in(browser), 5_000)

        await browser.do(node_for_a_minute if is_read_by_node else python, "read")

        assert await redis.pttl(key_in(browser)) > 57_000

    async def test_an_end_in_the_record_that_a_touch_has_overtaken_ends_nothing(
        self, browser: Browser, node_for_a_minute: URL, python_for_a_minute: URL, redis: Redis
    ) -> None:
        await browser.do(node_for_a_minute, "write", a=1)
        overtaken = json.loads(await record(redis, browser))
        overtaken["cookie"]["expires"] = "2020-02-29T12:00:00.000Z"
        await redis.set(key_in(browser), json.dumps(overtaken), keepttl=True)

        answers = [
            await browser.do(peer, "read") for peer in (python_for_a_minute, node_for_a_minute)
        ]

        assert answers == [{"a": 1}, {"a": 1}]

    async def test_a_new_secret_comes_in_without_a_logout_when_both_sides_know_it_first(
        self, browser: Browser, run_node: Callable[[dict[str, Any]], URL], serve_aiohttp: Serve
    ) -> None:
        new = "a newer secret that Node and Python know, and nobody else does"
        node_before = run_node({"secret": [SECRET, new]})
        node_after = run_node({"secret": [new, SECRET]})
        python_after = await serve_aiohttp(secret=[new, SECRET])
        await browser.do(node_before, "write", a=1)
        old = browser.cookie

        answers = [
            await browser.do(peer, "read") for peer in (python_after, node_before, node_after)
        ]

        assert answers == [{"a": 1}] * 3
        assert browser.cookie != old


def same(one: Any, other: Any) -> bool:
    """Ask whether two JSON values are the same value; 1 and 1.0 are, 1 and True are not."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, float | int) and isinstance(other, float | int):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return type(one) is type(other) and bool(one == other)


def key_of(cookie: str) -> str:
    """Return the Redis key of the session in this cookie."""
    signed = Signer(SECRET).unsign(cookie)
    assert signed is not None, "the cookie's signature does not hold"
    return f"sess:{signed.session_id}"


def key_in(browser: Browser) -> str:
    """Return the Redis key of the session that the browser has now."""
    assert browser.cookie is not None
    return key_of(browser.cookie)


async def record(redis: Redis, browser: Browser) -> bytes:
    """Return the record of the session that the browser has now, byte by byte."""
    payload = await redis.get(key_in(browser))
    assert isinstance(payload, bytes)
    return payload


def attributes(browser: Browser) -> dict[str, Any]:
    """Return the attributes of the cookie that was sent last, in small letters."""
    (morsel,) = SimpleCookie(browser.set_cookie).values()
    found = {name: value for name, value in morsel.items() if value}
    return {
        name: value.lower() if isinstance(value, str) else value for name, value in found.items()
    }


def ends(browser: Browser) -> float:
    """Return when the cookie ends that the last response sent."""
    assert browser.set_cookie is not None
    morsel = SimpleCookie(browser.set_cookie)[COOKIE]
    return parsedate_to_datetime(morsel["expires"]).timestamp()
