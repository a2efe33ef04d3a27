"""A real Chromium for all tests, a new profile for each, and servers that it reaches by name."""

from __future__ import annotations

import functools
import importlib
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeAlias, cast

import pytest
import pytest_asyncio
import trustme
from aiohttp import web
from playwright.async_api import Browser, BrowserContext, async_playwright
from yarl import URL

from aiosess import SessionOptions
from aiosess.storages.redis import RedisStorage
from tests.browser.pages import Shop
from tests.conftest import SECRET
from tests.servers import RedisServer, binary

FLAGS: Final = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Each name below .test is this machine, and there is nothing else.
    "--host-resolver-rules=MAP *.test 127.0.0.1,MAP * ~NOTFOUND,EXCLUDE 127.0.0.1",
]

# People's browsers keep the last pages in memory, for the back button.
NOT_THESE: Final = ["--disable-back-forward-cache"]

on_the_loop_of_the_browser = functools.partial(pytest_asyncio.fixture, loop_scope="package")

Serve: TypeAlias = Callable[..., Awaitable["Site"]]
MakeShop: TypeAlias = Callable[[], web.Application]


class Site:
    """An application that is served on loopback under a name below ``.test``."""

    def __init__(self, name: str, tls: ssl.SSLContext | None) -> None:
        self._name = name
        self._tls = tls
        self._port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> URL:
        """Where browsers find it."""
        scheme = "http" if self._tls is None else "https"
        return URL.build(scheme=scheme, host=self._name, port=self._port, path="/")

    async def start(self, app: web.Application) -> None:
        """Serve *app*, on the same port as before if there was one."""
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._tls)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop to serve, and close all connections."""
        if self._runner is not None:
            await self._runner.cleanup()


@pytest.fixture(scope="session")
def tls() -> ssl.SSLContext:
    """A certificate of an authority that the browser is told to overlook."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("shop.test", "*.shop.test", "page.test", "another.test").configure_cert(
        context
    )
    return context


@on_the_loop_of_the_browser()
async def serve(tls: ssl.SSLContext) -> AsyncIterator[Serve]:
    """Serve an application under a name, over TLS unless told otherwise."""
    sites: list[Site] = []

    async def start(
        app: web.Application, name: str = "shop.test", *, is_encrypted: bool = True
    ) -> Site:
        site = Site(name, tls if is_encrypted else None)
        await site.start(app)
        sites.append(site)
        return site

    yield start
    for site in sites:
        await site.stop()


@on_the_loop_of_the_browser(scope="package")
async def browser() -> AsyncIterator[Browser]:
    path = binary("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path, args=FLAGS, ignore_default_args=NOT_THESE
        )
        yield browser
        await browser.close()


# The server is asked for, so that it stops when nobody is connected any more.
@on_the_loop_of_the_browser()
async def context(browser: Browser, serve: Serve) -> AsyncIterator[BrowserContext]:
    """A profile without cookies, whose pages are the tabs of one browser."""
    context = await browser.new_context(ignore_https_errors=True)
    context.set_default_timeout(10_000)
    yield context
    await context.close()


@pytest.fixture
def options(redis_server: RedisServer) -> Callable[..., SessionOptions]:
    """Options over a real Redis, for the applications that tests make."""
    prefix = f"{uuid.uuid4()}:"

    def make(**options: Any) -> SessionOptions:
        storage = RedisStorage.from_url(redis_server.url, prefix=prefix)
        return SessionOptions(**{"secret": SECRET, "storage": storage, **options})

    return make


@pytest.fixture
def make_shop(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> MakeShop:
    """Make the shop of the tutorial's last step."""
    monkeypatch.setenv("SESSION_SECRET", SECRET.replace(" ", "-"))
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    shop = importlib.import_module("examples.shop.step7")
    return cast("MakeShop", shop.make_app)


@on_the_loop_of_the_browser()
async def shop(context: BrowserContext, serve: Serve, make_shop: MakeShop) -> Shop:
    """A tab that shows the shop."""
    site = await serve(make_shop())
    return await Shop.open(context, site.url)
