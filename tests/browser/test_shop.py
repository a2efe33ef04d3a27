"""The shop of the tutorial in several tabs of a real browser."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler
from playwright.async_api import BrowserContext

from aiosess import get_session
from tests.browser.conftest import MakeShop, Serve
from tests.browser.pages import Shop

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_who_logs_in_is_greeted(shop: Shop) -> None:
    await shop.log_in()

    assert "Hello ann" in await shop.text()


async def test_a_login_in_one_tab_is_seen_in_the_other(shop: Shop) -> None:
    other = await shop.another_tab()
    before = await other.text()

    await shop.log_in()

    assert "Hello ann" not in before
    assert "Hello ann" in await other.reloaded_text()


async def test_a_cart_comes_along_through_the_login(shop: Shop) -> None:
    await shop.press("pear")

    await shop.log_in()

    assert "pear: 1" in await shop.text()


async def test_a_message_is_shown_once(shop: Shop) -> None:
    await shop.press("pear")
    before = await shop.text()

    after = await shop.reloaded_text()

    assert ("One pear more." in before, "One pear more." in after) == (True, False)


async def test_a_logout_in_one_tab_is_seen_in_the_other(shop: Shop) -> None:
    await shop.log_in()
    other = await shop.another_tab()

    await shop.press("Log out")

    assert "Hello" not in await other.reloaded_text()
    assert await shop.page.context.cookies() == []


async def test_the_back_button_shows_nothing_after_the_logout(shop: Shop) -> None:
    await shop.log_in()
    # An address of its own, by which the browser could find the page again.
    await shop.page.goto(str(shop.url % {"from": "a letter"}))
    before = await shop.text()
    await shop.press("Log out")

    # A page that comes out of the memory of the browser is never loaded: it is there.
    await shop.page.go_back(wait_until="commit")
    await shop.page.wait_for_function("document.readyState === 'complete'")

    assert shop.page.url == str(shop.url % {"from": "a letter"})
    assert ("Hello ann" in before, "Hello ann" in await shop.text()) == (True, False)


async def test_a_logout_holds_while_a_request_of_another_tab_is_under_way(
    context: BrowserContext, serve: Serve, make_shop: MakeShop
) -> None:
    has_read, may_go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        session = await get_session(request)
        has_read.set()
        await may_go_on.wait()
        session["slow"] = True
        return web.Response(text=f"{session['user']} was here")

    app = make_shop()
    app.router.add_get("/slow", slow)
    shop = await Shop.open(context, (await serve(app)).url)
    await shop.log_in()
    other = await context.new_page()
    loading = asyncio.create_task(other.goto(str(shop.url / "slow")))
    await has_read.wait()

    await shop.press("Log out")
    may_go_on.set()
    await loading

    assert await other.inner_text("body") == "ann was here"
    assert await context.cookies() == []
    assert "Hello" not in await shop.reloaded_text()


@pytest.mark.parametrize(
    ("buttons", "cart"),
    [(("apple", "pear"), ["apple: 1", "pear: 1"]), (("pear", "pear"), ["pear: 2"])],
    ids=["two fruits", "one fruit twice"],
)
async def test_two_tabs_that_fill_the_cart_at_once_lose_nothing(
    buttons: tuple[str, str],
    cart: list[str],
    context: BrowserContext,
    serve: Serve,
    make_shop: MakeShop,
) -> None:
    both_have_read = asyncio.Barrier(2)

    @web.middleware
    async def wait_for_the_other(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path == "/cart":
            await get_session(request)
            await both_have_read.wait()
        return await handler(request)

    app = make_shop()
    app.middlewares.append(wait_for_the_other)
    shop = await Shop.open(context, (await serve(app)).url)
    await shop.log_in()
    tabs = [shop, await shop.another_tab()]

    await asyncio.gather(*(tab.press(button) for tab, button in zip(tabs, buttons, strict=True)))

    await shop.page.reload()
    assert await shop.page.locator("li").all_inner_texts() == cart


async def test_a_restart_of_the_server_ends_no_session(
    context: BrowserContext, serve: Serve, make_shop: MakeShop
) -> None:
    site = await serve(make_shop())
    shop = await Shop.open(context, site.url)
    await shop.press("pear")
    await shop.log_in()

    await site.stop()
    await site.start(make_shop())

    text = await shop.reloaded_text()
    assert "Hello ann" in text
    assert "pear: 1" in text
