"""Sessions that starsessions began go on, by the code of from-starsessions.md."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from pytest_aiohttp import AiohttpClient
from redis.asyncio import Redis

from aiosess import get_session
from tests.interop.documents import code_of
from tests.servers import RedisServer

OLD_ID: Final = "537abd2c43d0b5b04bd9017dd6a61250"
OLD_KEY: Final = f"starsessions.{OLD_ID}"
# As starsessions 2.2.1 wrote it.
OLD_RECORD: Final = (
    b'{"user": "bob", "cart": [{"sku": "\\u00e4", "n": 2}], "seen": null, "__metadata__": '
    b'{"lifetime": 3600, "created": 1795761642.6849117, "last_access": 1795761642.6849134}}'
)
OLD_DATA: Final = {"user": "bob", "cart": [{"sku": "ä", "n": 2}], "seen": None}

Client = TestClient[web.Request, web.Application]


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_server.url) as client:
        await client.set(OLD_KEY, OLD_RECORD, ex=3600)
        yield client
        await client.delete(OLD_KEY)


async def show(request: web.Request) -> web.Response:
    session = await get_session(request)
    return web.json_response([session.new, dict(session)])


async def see_other(request: web.Request) -> web.Response:
    raise web.HTTPSeeOther("/")


async def log_out(request: web.Request) -> web.Response:
    session = await get_session(request)
    await session.destroy()
    return web.Response()


@pytest.fixture
async def browser(
    redis: Redis,
    redis_server: RedisServer,
    aiohttp_client: AiohttpClient,
    monkeypatch: pytest.MonkeyPatch,
) -> Client:
    """One that comes with the cookie of starsessions."""
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    app = code_of("migrating/from-starsessions.md")["app"]
    for handler in (show, see_other, log_out):
        app.router.add_get(f"/{handler.__name__}", handler)
    client: Client = await aiohttp_client(app)
    client.session.cookie_jar.update_cookies({"session": OLD_ID}, client.make_url("/"))
    return client


def cookies_in(client: Client) -> set[str]:
    return {each.key for each in client.session.cookie_jar}


async def test_an_old_session_is_copied_once_and_goes_on_as_a_new_one(browser: Client) -> None:
    first = await browser.get("/show")
    cookies = cookies_in(browser)
    second = await browser.get("/show")

    assert [await each.json() for each in (first, second)] == [[True, OLD_DATA], [False, OLD_DATA]]
    assert cookies == {"sid"}


async def test_a_redirect_takes_the_old_cookie_away_as_well(browser: Client) -> None:
    await browser.get("/see_other", allow_redirects=False)

    assert cookies_in(browser) == {"sid"}


async def test_the_old_record_has_a_minute_left_and_is_not_kept_alive_by_being_asked_for(
    browser: Client, redis: Redis
) -> None:
    await browser.get("/show")
    left = await redis.ttl(OLD_KEY)
    await redis.expire(OLD_KEY, 10)
    browser.session.cookie_jar.clear()

    again = await browser.get("/show", cookies={"session": OLD_ID})

    assert 0 < left <= 60
    assert await again.json() == [True, OLD_DATA]
    assert 0 < await redis.ttl(OLD_KEY) <= 10


async def test_an_old_id_without_a_record_is_an_empty_session(
    browser: Client, redis: Redis
) -> None:
    await redis.delete(OLD_KEY)

    response = await browser.get("/show")

    assert await response.json() == [True, {}]
    assert cookies_in(browser) == set()


async def test_a_session_that_is_there_already_is_not_overwritten(
    browser: Client, redis: Redis
) -> None:
    await browser.get("/show")
    await redis.set(OLD_KEY, b'{"user": "mallory", "__metadata__": {}}', ex=3600)

    response = await browser.get("/show", cookies={"session": OLD_ID})

    assert await response.json() == [False, OLD_DATA]


async def test_after_a_logout_the_browser_has_neither_the_old_nor_the_new_session(
    browser: Client,
) -> None:
    await browser.get("/show")

    await browser.get("/log_out")

    assert cookies_in(browser) == set()
