"""Each example, started as its docstring says and asked over HTTP."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.servers import Server, free_port

EXAMPLES = Path(__file__).parent.parent / "examples"

ALICE = {"name": "alice", "password": "wonderland"}


class Example(Server):
    """One example in a process of its own."""

    def __init__(self, name: str, **environment: str) -> None:
        port = free_port()
        settings = {"PORT": str(port), **environment}
        command = ["env", *(f"{key}={value}" for key, value in settings.items())]
        super().__init__([*command, sys.executable, str(EXAMPLES / f"{name}.py")], port)
        self.url = f"http://127.0.0.1:{port}"


@pytest.fixture
async def browser() -> AsyncIterator[aiohttp.ClientSession]:
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as browser:
        yield browser


@pytest.fixture(scope="module")
def example(request: pytest.FixtureRequest) -> Iterator[Example]:
    """The example that the test names, running; with Redis where it uses it."""
    name = request.param
    if name in {"redis_storage", "async_config"}:
        example = Example(name, REDIS_URL=request.getfixturevalue("redis_server").url)
    elif name == "memcached_storage":
        example = Example(name, MEMCACHED_URL=request.getfixturevalue("memcached_server").url)
    else:
        example = Example(name)
    example.start()
    yield example
    example.stop()


async def text(browser: aiohttp.ClientSession, url: str) -> str:
    async with browser.get(url) as response:
        return await response.text()


@pytest.mark.parametrize(
    ("example", "path"),
    [
        ("in_memory", "/"),
        ("in_memory", "/views"),
        ("redis_storage", "/"),
        ("redis_storage", "/views"),
        ("memcached_storage", "/"),
        ("async_config", "/views"),
    ],
    indirect=["example"],
)
async def test_views_are_counted_for_each_browser(
    example: Example, path: str, browser: aiohttp.ClientSession
) -> None:
    counts = [await text(browser, example.url + path) for _ in range(3)]

    async with aiohttp.ClientSession() as stranger:
        other_count = await text(stranger, example.url + path)

    assert (counts, other_count) == (["1", "2", "3"], "1")


@pytest.mark.parametrize(
    "example", ["redis_storage", "async_config", "memcached_storage"], indirect=True
)
async def test_a_back_end_goes_on_counting_after_the_process_was_restarted(
    example: Example, browser: aiohttp.ClientSession
) -> None:
    before = [await text(browser, f"{example.url}/views") for _ in range(2)]

    await asyncio.to_thread(example.stop)
    await asyncio.to_thread(example.start)
    after = await text(browser, f"{example.url}/views")

    assert (before, after) == (["1", "2"], "3")


@pytest.mark.parametrize("example", ["login"], indirect=True)
async def test_who_logs_in_is_greeted(example: Example, browser: aiohttp.ClientSession) -> None:
    async with browser.post(f"{example.url}/login", data=ALICE) as response:
        page = await response.text()

    assert "Hello alice" in page


@pytest.mark.parametrize("example", ["login"], indirect=True)
async def test_a_wrong_password_is_refused_and_leaves_no_cookie(
    example: Example, browser: aiohttp.ClientSession
) -> None:
    async with browser.post(f"{example.url}/login", data={**ALICE, "password": "?"}) as response:
        status = response.status

    assert (status, len(browser.cookie_jar)) == (403, 0)


@pytest.mark.parametrize("example", ["login"], indirect=True)
async def test_each_login_renews_the_id(example: Example, browser: aiohttp.ClientSession) -> None:
    await browser.post(f"{example.url}/login", data=ALICE)
    before = {cookie.value for cookie in browser.cookie_jar}

    await browser.post(f"{example.url}/login", data=ALICE)

    after = {cookie.value for cookie in browser.cookie_jar}
    assert len(before) == len(after) == 1
    assert before != after


@pytest.mark.parametrize("example", ["login"], indirect=True)
async def test_after_logout_the_cookie_is_gone_and_worth_nothing(
    example: Example, browser: aiohttp.ClientSession
) -> None:
    await browser.post(f"{example.url}/login", data=ALICE)
    kept = {cookie.key: cookie.value for cookie in browser.cookie_jar}

    await browser.post(f"{example.url}/logout")
    async with aiohttp.ClientSession(cookies=kept) as thief:
        page = await text(thief, example.url)

    assert len(kept) == 1
    assert len(browser.cookie_jar) == 0
    assert "Hello" not in page
