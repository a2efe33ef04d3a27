"""The page of the guide that counts down to the end of a session, in a browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import BrowserContext, Page, expect

from aiosess import MemoryStorage
from aiosess.testing import FakeClock
from tests.browser.conftest import Serve, on_the_loop_of_the_browser

pytestmark = pytest.mark.asyncio(loop_scope="package")

GUIDE: Final = Path(__file__).parents[2] / "docs" / "how-to" / "countdown.md"


def code_of(language: str) -> list[str]:
    text = GUIDE.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@on_the_loop_of_the_browser()
async def page(context: BrowserContext, serve: Serve, clock: FakeClock) -> Page:
    """The page of somebody who has just logged in; the clock of the browser is moved by hand."""
    names: dict[str, Any] = {"__name__": "guide"}
    exec(code_of("python")[0], names)  # noqa: S102 - it is our own
    site = await serve(names["application"](MemoryStorage(clock=clock), clock))
    page = await context.new_page()
    await page.goto(str(site.url))
    await page.evaluate("fetch('/login', { method: 'POST' })")
    await page.clock.install()
    await page.goto(str(site.url))
    [script] = code_of("js")
    await page.add_script_tag(content=script)
    return page


async def pass_minutes(page: Page, clock: FakeClock, minutes: float) -> None:
    """Let time pass, here and on the server."""
    clock.advance(60 * minutes)
    await page.clock.run_for(int(60_000 * minutes))


async def test_in_its_last_two_minutes_a_session_is_counted_down(
    page: Page, clock: FakeClock
) -> None:
    warning = page.locator("#warning")
    await pass_minutes(page, clock, 27)
    await expect(warning).to_be_hidden()

    await pass_minutes(page, clock, 1.5)

    await expect(warning).to_contain_text("Your session ends in 2 min.")


async def test_who_stays_is_warned_no_more_and_goes_on(page: Page, clock: FakeClock) -> None:
    await pass_minutes(page, clock, 28.5)

    await page.get_by_role("button", name="Stay").click()

    await expect(page.locator("#warning")).to_be_hidden()
    await pass_minutes(page, clock, 25)
    assert await page.evaluate("fetch('/alive').then(answer => answer.json())") is True


async def test_who_does_not_stay_is_sent_to_the_login(page: Page, clock: FakeClock) -> None:
    await pass_minutes(page, clock, 31)

    await page.wait_for_url("**/login")


async def test_who_is_at_work_in_another_tab_is_not_sent_away(page: Page, clock: FakeClock) -> None:
    await pass_minutes(page, clock, 20)
    other = await page.context.new_page()
    await other.goto(page.url)

    async with page.expect_response("**/alive") as asked:
        await pass_minutes(page, clock, 11)

    assert await (await asked.value).json() is True
    assert not page.url.endswith("/login")
