"""Cookies as a real browser keeps and sends them: attributes, TLS, neighbours, other sites."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler
from playwright.async_api import BrowserContext, Page
from yarl import URL

from aiosess import CookieOptions, SessionOptions, get_session, setup
from tests.browser.conftest import MakeShop, Serve
from tests.browser.pages import Shop

pytestmark = pytest.mark.asyncio(loop_scope="package")

MakeOptions = Callable[..., SessionOptions]

MONTH: Final = 30 * 86400


# The shop's own cookie.


async def test_the_cookie_has_the_attributes_that_were_asked_for(shop: Shop) -> None:
    await shop.log_in()

    [cookie] = await shop.page.context.cookies()
    assert cookie["name"] == "__Host-sid"
    assert (cookie["domain"], cookie["path"]) == ("shop.test", "/")
    assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (True, True, "Lax")


async def test_scripts_do_not_see_the_cookie(shop: Shop) -> None:
    await shop.log_in()

    assert await shop.page.evaluate("document.cookie") == ""


async def test_a_cookie_ends_with_the_browser(shop: Shop) -> None:
    await shop.log_in()

    [cookie] = await shop.page.context.cookies()
    assert cookie["expires"] == -1


async def test_the_cookie_of_who_is_remembered_lives_for_a_month(shop: Shop) -> None:
    before = int(time.time())

    await shop.log_in(is_remembered=True)

    [cookie] = await shop.page.context.cookies()
    # Browsers go by Max-Age, which is in whole seconds.
    assert before <= cookie["expires"] - MONTH <= time.time() + 1


# Over TLS, and without.


async def test_without_tls_there_is_no_cookie(
    context: BrowserContext, serve: Serve, make_shop: MakeShop
) -> None:
    site = await serve(make_shop(), is_encrypted=False)
    shop = await Shop.open(context, site.url)

    await shop.log_in()

    assert await context.cookies() == []
    assert "Hello" not in await shop.text()


async def test_the_cookie_is_not_sent_without_tls(
    shop: Shop, serve: Serve, context: BrowserContext
) -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.Response(text=request.headers.get("Cookie", "none"))

    app = web.Application()
    app.router.add_get("/", echo)
    plain = await serve(app, is_encrypted=False)
    await shop.log_in()

    page = await context.new_page()
    await page.goto(str(plain.url))

    assert await page.inner_text("body") == "none"


# What a neighbour can plant.


def planting(name: str) -> web.Application:
    """Make a site that plants a cookie called *name* in the browsers of all of its domain."""

    async def plant(_request: web.Request) -> web.Response:
        line = f"{name}=planted; Domain=shop.test; Path=/; Secure"
        return web.Response(headers={"Set-Cookie": line})

    app = web.Application()
    app.router.add_get("/", plant)
    return app


@pytest.mark.parametrize(("name", "planted"), [("__Host-sid", []), ("sid", ["sid"])])
async def test_a_neighbour_cannot_plant_a_cookie_with_host_in_its_name(
    name: str, planted: list[str], context: BrowserContext, serve: Serve
) -> None:
    neighbour = await serve(planting(name), "blog.shop.test")
    page = await context.new_page()

    await page.goto(str(neighbour.url))

    assert [cookie["name"] for cookie in await context.cookies()] == planted


# Forms and requests of other pages.


def page_with_form(action: URL) -> web.Application:
    """Make a site whose button puts a pear into the cart of somebody else's shop."""

    async def form(_request: web.Request) -> web.Response:
        text = f"""<form method="post" action="{action}">
            <button name="fruit" value="pear">Win a prize</button></form>
            <a href="{action.origin()}/">To the shop</a>"""
        return web.Response(text=text, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", form)
    return app


@pytest.mark.parametrize("name", ["page.test", "blog.shop.test"])
async def test_a_form_of_another_page_is_refused(name: str, shop: Shop, serve: Serve) -> None:
    await shop.log_in()
    evil = await serve(page_with_form(shop.url / "cart"), name)
    page = await shop.page.context.new_page()
    await page.goto(str(evil.url))

    async with page.expect_navigation():
        await page.get_by_role("button").click()

    assert "Please use the buttons of our own pages." in await page.inner_text("body")
    assert "pear" not in await cart_of(shop)


async def cart_of(shop: Shop) -> str:
    await shop.page.reload()
    return await shop.page.inner_text("ul")


async def test_a_link_on_another_site_leads_to_a_shop_that_knows_who_comes(
    shop: Shop, serve: Serve
) -> None:
    await shop.log_in()
    other = await serve(page_with_form(shop.url / "cart"), "page.test")
    page = await shop.page.context.new_page()
    await page.goto(str(other.url))

    async with page.expect_navigation():
        await page.get_by_role("link").click()

    assert "Hello ann" in await page.inner_text("body")


# A session that other sites use.


def counting(options: SessionOptions) -> web.Application:
    """Make a site that counts, also for pages of other sites."""

    @web.middleware
    async def let_all_ask(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        response.headers["Access-Control-Allow-Origin"] = request.headers.get("Origin", "*")
        response.headers["Access-Control-Allow-Credentials"] = "true"
        return response

    async def count(request: web.Request) -> web.Response:
        session = await get_session(request)
        session["count"] = session.get("count", 0) + 1
        return web.Response(text=str(session["count"]))

    app = web.Application(middlewares=[let_all_ask])
    setup(app, options)
    app.router.add_route("*", "/", count)
    return app


def empty() -> web.Application:
    async def page(_request: web.Request) -> web.Response:
        return web.Response(text="a page", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    return app


async def counts_seen_by(page: Page, url: URL) -> Any:
    """Return what a script of *page* gets that asks *url* twice."""
    return await page.evaluate(
        """async url => {
            const ask = async () => await (await fetch(url, {credentials: "include"})).text()
            return [await ask(), await ask()]
        }""",
        str(url),
    )


async def opened(context: BrowserContext, url: URL) -> Page:
    page = await context.new_page()
    await page.goto(str(url))
    return page


@pytest.mark.parametrize(
    ("cookie", "counts"),
    [
        (CookieOptions(), ["1", "1"]),
        (CookieOptions(samesite="none", secure=True), ["1", "1"]),
        (CookieOptions(samesite="none", secure=True, partitioned=True), ["1", "2"]),
    ],
    ids=["lax", "none", "partitioned"],
)
async def test_a_script_of_another_site_has_a_session_only_where_it_is_partitioned(
    cookie: CookieOptions,
    counts: list[str],
    context: BrowserContext,
    serve: Serve,
    options: MakeOptions,
) -> None:
    site = await serve(counting(options(cookie=cookie)))
    page = await opened(context, (await serve(empty(), "page.test")).url)

    assert await counts_seen_by(page, site.url) == counts


async def test_a_lax_cookie_that_is_there_is_not_sent_by_a_script_of_another_site(
    context: BrowserContext, serve: Serve, options: MakeOptions
) -> None:
    site = await serve(counting(options()))
    own = await opened(context, site.url)
    page = await opened(context, (await serve(empty(), "page.test")).url)

    assert await counts_seen_by(page, site.url) == ["1", "1"]
    assert await counts_seen_by(own, site.url) == ["2", "3"]


async def test_a_form_of_another_site_comes_without_the_cookie(
    context: BrowserContext, serve: Serve, options: MakeOptions
) -> None:
    site = await serve(counting(options()))
    own = await opened(context, site.url)
    page = await opened(context, (await serve(page_with_form(site.url), "page.test")).url)

    async with page.expect_navigation():
        await page.get_by_role("button").click()

    assert (await own.inner_text("body"), await page.inner_text("body")) == ("1", "1")


async def test_a_partitioned_session_is_another_one_on_each_site(
    context: BrowserContext, serve: Serve, options: MakeOptions
) -> None:
    cookie = CookieOptions(samesite="none", secure=True, partitioned=True)
    site = await serve(counting(options(cookie=cookie)))
    page = await opened(context, (await serve(empty(), "page.test")).url)
    another = await opened(context, (await serve(empty(), "another.test")).url)
    await counts_seen_by(page, site.url)

    assert await counts_seen_by(another, site.url) == ["1", "2"]
    assert await counts_seen_by(page, site.url) == ["3", "4"]


@pytest.mark.parametrize(
    ("is_partitioned", "counts"),
    [(False, ("1", "1")), (True, ("1", "2"))],
    ids=["none", "partitioned"],
)
async def test_a_frame_on_another_site_has_a_session_only_where_it_is_partitioned(
    *,
    is_partitioned: bool,
    counts: tuple[str, str],
    context: BrowserContext,
    serve: Serve,
    options: MakeOptions,
) -> None:
    cookie = CookieOptions(samesite="none", secure=True, partitioned=is_partitioned)
    site = await serve(counting(options(cookie=cookie)))
    page = await opened(context, (await serve(empty(), "page.test")).url)
    await page.evaluate(
        "url => document.body.appendChild(document.createElement('iframe')).src = url",
        str(site.url),
    )
    frame = page.frame_locator("iframe").locator("body")
    first = await frame.inner_text()

    await page.frames[1].goto(str(site.url))

    assert (first, await frame.inner_text()) == counts
