"""The example of devices, in two browsers of one person and one of an administrator."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import pytest
from playwright.async_api import Browser, Page
from yarl import URL

from aiosess import SessionOptions
from aiosess.testing import FakeClock
from tests.browser.conftest import Serve, Site, on_the_loop_of_the_browser

pytestmark = pytest.mark.asyncio(loop_scope="package")

MakeOptions = Callable[..., SessionOptions]

# Examples are no package.
EXAMPLE: Final[Any] = importlib.import_module("examples.devices")


class Device:
    """A browser of its own, with one tab."""

    def __init__(self, page: Page, url: URL) -> None:
        self.page = page
        self.url = url

    async def log_in(self, name: str = "ann") -> None:
        """Log in, and call this device by the name of its user and the word device."""
        await self.page.goto(str(self.url))
        await self.page.fill("[name=name]", name)
        await self.page.fill("[name=password]", EXAMPLE.PASSWORDS[name])
        await self.page.fill("[name=device]", f"{name}'s device")
        await self.press("Log in")

    async def press(self, button: str, *, near: str | None = None) -> None:
        """Press the first button of that name, in the line that has the text *near*."""
        place = self.page if near is None else self.page.locator("li", has_text=near)
        async with self.page.expect_navigation():
            await place.get_by_role("button", name=button).first.click()

    async def shown(self, path: str = "") -> str:
        """Go to *path*, and return what the page says."""
        await self.page.goto(str(self.url.join(URL(path))))
        return await self.page.inner_text("body")

    async def open_chat(self) -> None:
        """Open the chat, and wait for its socket."""
        await self.page.goto(str(self.url / "chat"))
        await self.page.get_by_text("open", exact=True).wait_for()

    async def closed(self) -> str:
        """Wait until the chat's socket is closed, and return what the page says of it."""
        await self.page.get_by_text("closed:").wait_for()
        return await self.page.inner_text("#state")


@on_the_loop_of_the_browser()
async def site(
    serve: Serve, options: MakeOptions, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> Site:
    """The example, whose passwords may be changed by one test only."""
    monkeypatch.setattr(EXAMPLE, "PASSWORDS", dict(EXAMPLE.PASSWORDS))
    return await serve(EXAMPLE.make_app(options(cookie=EXAMPLE.COOKIE, clock=clock)))


@on_the_loop_of_the_browser()
async def phone(browser: Browser, site: Site) -> AsyncIterator[Device]:
    """Ann's phone."""
    context = await browser.new_context(ignore_https_errors=True)
    context.set_default_timeout(10_000)
    yield Device(await context.new_page(), site.url)
    await context.close()


@on_the_loop_of_the_browser()
async def laptop(browser: Browser, site: Site) -> AsyncIterator[Device]:
    """Another browser of hers, or of the administrator."""
    context = await browser.new_context(ignore_https_errors=True)
    context.set_default_timeout(10_000)
    yield Device(await context.new_page(), site.url)
    await context.close()


async def test_both_devices_are_listed_and_each_says_which_it_is(
    phone: Device, laptop: Device
) -> None:
    await phone.log_in()
    await laptop.log_in()

    seen = await phone.shown()

    assert seen.count("ann's device") == 2
    assert seen.count("this one") == 1


async def test_one_device_logs_the_other_out(phone: Device, laptop: Device) -> None:
    await phone.log_in()
    await laptop.log_in()
    await phone.page.reload()

    await phone.press("Log out", near="last seen")

    assert "Hello ann" in await phone.shown()
    assert "Hello" not in await laptop.shown()


async def test_all_others_are_logged_out_and_this_one_stays(phone: Device, laptop: Device) -> None:
    await phone.log_in()
    await laptop.log_in()
    await phone.page.reload()

    await phone.press("Log out all others")

    assert "Hello ann" in await phone.shown()
    assert "Hello" not in await laptop.shown()


async def test_a_chat_closes_when_its_device_is_logged_out_elsewhere(
    phone: Device, laptop: Device
) -> None:
    await phone.log_in()
    await laptop.log_in()
    await laptop.open_chat()
    await phone.page.reload()

    await phone.press("Log out all others")

    assert (await laptop.closed()).startswith("closed: 1008")


async def test_a_chat_stays_open_when_another_device_is_logged_out(
    phone: Device, laptop: Device
) -> None:
    await laptop.log_in()
    await phone.log_in()
    await phone.open_chat()

    async with laptop.page.expect_navigation():
        await laptop.page.get_by_role("button", name="Log out", exact=True).last.click()
    await phone.page.fill("#text", "still here")
    await phone.page.get_by_role("button", name="Say").click()

    await phone.page.get_by_text("ann: still here").wait_for()
    assert await phone.page.inner_text("#state") == "open"


async def test_a_new_password_logs_all_other_devices_out(phone: Device, laptop: Device) -> None:
    await laptop.log_in()
    await phone.log_in()
    await phone.shown("/password")
    await phone.page.fill("[name=new]", "plum tree")

    await phone.press("Change the password, and log out all other devices")

    assert "Hello ann" in await phone.shown()
    assert "Hello" not in await laptop.shown()


async def test_long_after_the_login_the_password_is_asked_for_again(
    phone: Device, clock: FakeClock
) -> None:
    await phone.log_in()
    clock.advance(11 * 60)
    await phone.shown("/password")
    asked_first = await phone.page.locator("[name=new]").count()

    await phone.page.fill("[name=password]", "pear tree")
    await phone.press("Go on")

    assert phone.page.url == str(phone.url / "password")
    assert (asked_first, await phone.page.locator("[name=new]").count()) == (0, 1)


async def test_a_wrong_password_leads_nowhere(phone: Device, clock: FakeClock) -> None:
    await phone.log_in()
    clock.advance(11 * 60)
    await phone.shown("/password")

    await phone.page.fill("[name=password]", "apple tree")
    await phone.press("Go on")

    assert "That was another password." in await phone.page.inner_text("body")


async def test_an_administrator_ends_all_sessions_of_an_account(
    phone: Device, laptop: Device
) -> None:
    await phone.log_in()
    await laptop.log_in("root")
    assert "ann: 1" in await laptop.shown("/admin")

    await laptop.press("End all", near="ann")

    assert "Hello" not in await phone.shown()
    assert "ann: 0" in await laptop.shown("/admin")


async def test_who_is_no_administrator_does_not_see_the_page(phone: Device) -> None:
    await phone.log_in()

    assert await phone.shown("/admin") == "This page is for root."
