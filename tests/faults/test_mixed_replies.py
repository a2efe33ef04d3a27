"""One reply is lost on the way, and those behind it reach the wrong callers: nobody sees them."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web
from pytest_aiohttp import AiohttpClient

from aiosess import SessionOptions, Storage, get_session, setup
from aiosess.storages.memcached import MemcachedStorage
from aiosess.storages.redis import RedisStorage
from tests.conftest import SECRET
from tests.faults.proxy import Proxy, proxy_to
from tests.web.handlers import keep, signed

pytestmark = pytest.mark.parametrize("lane", ["fast", "whole"], indirect=True)

NAMES = [f"browser-{number}" for number in range(16)]


@pytest.fixture(params=["redis", "redis, not shared", "memcached"])
def back_end(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


class Behind:
    """A storage whose server is behind a proxy, and the same one past it."""

    def __init__(self, proxy: Proxy, storage: Storage, past: Storage) -> None:
        self.proxy = proxy
        self.storage = storage
        self.past = past


def connected(back_end: str, port: int, prefix: str) -> RedisStorage | MemcachedStorage:
    if back_end == "memcached":
        return MemcachedStorage.from_url(f"memcached://127.0.0.1:{port}", prefix=prefix)
    return RedisStorage.from_url(
        f"redis://127.0.0.1:{port}", prefix=prefix, multiplex=back_end == "redis"
    )


@pytest.fixture
async def behind(request: pytest.FixtureRequest, back_end: str) -> AsyncIterator[Behind]:
    prefix = f"{uuid.uuid4()}:"
    async with AsyncExitStack() as stack:
        kind = "memcached_server" if back_end == "memcached" else "redis_server"
        server = request.getfixturevalue(kind)
        proxy = await stack.enter_async_context(proxy_to(server.port))
        past = connected(back_end, server.port, prefix)
        through = connected(back_end, proxy.port, prefix)
        await stack.enter_async_context(past)
        await stack.enter_async_context(through)
        yield Behind(proxy, through, past)


async def whose(request: web.Request) -> web.Response:
    session = await get_session(request)
    return web.Response(text=session.get("name", "nobody"))


async def begin(request: web.Request) -> web.Response:
    session = await get_session(request)
    session["name"] = request.query["name"]
    return web.Response(text=session.id)


def application(storage: Storage) -> web.Application:
    app = web.Application()
    setup(app, SessionOptions(secret=SECRET, storage=storage, timeout=0.3, breaker=None))
    for handler in (whose, begin):
        app.router.add_get(f"/{handler.__name__}", handler)
    return app


class Browsers:
    """Many browsers, each with a session that holds its name."""

    def __init__(self, client: Any, ids: dict[str, str]) -> None:
        self.client = client
        self.ids = ids

    async def asks(self, name: str) -> str | None:
        """Return whose session is shown to the one with this name; ``None``: an error page."""
        async with self.client.get("/whose", headers=signed(self.ids[name])) as response:
            text: str = await response.text()
            return text if response.status == 200 else None


@pytest.fixture
async def browsers(behind: Behind, aiohttp_client: AiohttpClient) -> Browsers:
    client = await aiohttp_client(application(behind.storage))
    ids: dict[str, str] = {}
    for name in NAMES:
        client.session.cookie_jar.clear()
        async with client.get("/begin", params={"name": name}) as response:
            ids[name] = await response.text()
    client.session.cookie_jar.clear()
    return Browsers(client, ids)


async def test_no_read_shows_the_session_of_another_browser(
    behind: Behind, browsers: Browsers
) -> None:
    behind.proxy.swallow_next()
    lost = asyncio.create_task(browsers.asks(NAMES[0]))
    await behind.proxy.swallowed.wait()

    shown = [
        (name, await browsers.asks(name)) for name in (*NAMES[1:], *NAMES, *NAMES, *NAMES, NAMES[0])
    ]

    assert await lost in {NAMES[0], None}
    assert [(name, other) for name, other in shown if other not in {name, None, "nobody"}] == []
    assert shown[-16:] == [(name, name) for name, _ in shown[-16:]]


async def test_reads_that_are_under_way_together_show_nobody_elses_session(
    behind: Behind, browsers: Browsers
) -> None:
    behind.proxy.swallow_next()
    lost = asyncio.create_task(browsers.asks(NAMES[0]))
    await behind.proxy.swallowed.wait()

    shown = await asyncio.gather(*(browsers.asks(name) for name in NAMES * 4))
    then = [await browsers.asks(name) for name in NAMES]

    await lost
    pairs = zip(NAMES * 4, shown, strict=True)
    assert [(name, other) for name, other in pairs if other not in {name, None, "nobody"}] == []
    assert then == NAMES


@pytest.mark.parametrize("back_end", ["redis"], indirect=True)
async def test_the_log_says_that_replies_were_mixed_up(
    behind: Behind, browsers: Browsers, caplog: pytest.LogCaptureFixture
) -> None:
    behind.proxy.swallow_next()
    lost = asyncio.create_task(browsers.asks(NAMES[0]))
    await behind.proxy.swallowed.wait()

    await browsers.asks(NAMES[1])
    await lost

    [line] = [each for each in caplog.records if "mixed up" in each.getMessage()]
    assert line.levelno == logging.ERROR


# A record that was copied is what it is, however it is asked for.


async def copy(behind: Behind, browsers: Browsers) -> None:
    """Copy the record of the first browser, as Node code does."""
    stored = await behind.past.load(browsers.ids[NAMES[0]])
    assert stored is not None
    await behind.past.create("copy", stored.payload, 60)
    browsers.ids["copy"] = "copy"


async def test_a_copied_record_is_asked_for_on_a_connection_of_its_own_and_once(
    behind: Behind, browsers: Browsers
) -> None:
    await copy(behind, browsers)
    before = behind.proxy.connections

    shown = [await browsers.asks("copy") for _ in range(5)]

    assert shown == [NAMES[0]] * 5
    assert behind.proxy.connections == before + 1


async def test_the_shared_connection_stays_where_a_record_was_only_copied(
    behind: Behind, browsers: Browsers
) -> None:
    await copy(behind, browsers)
    await browsers.asks("copy")
    before = behind.proxy.connections

    assert await browsers.asks(NAMES[1]) == NAMES[1]
    assert behind.proxy.connections == before


async def test_a_record_without_a_mark_is_not_asked_for_again(
    behind: Behind, browsers: Browsers
) -> None:
    await keep(behind.past, "express", name="Ann")
    browsers.ids["express"] = "express"
    before = behind.proxy.connections

    assert await browsers.asks("express") == "Ann"
    assert behind.proxy.connections == before
