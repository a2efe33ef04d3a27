"""The shop as somebody sees it who sits at the browser."""

from __future__ import annotations

from playwright.async_api import BrowserContext, Page
from yarl import URL


class Shop:
    """A tab that shows the shop."""

    def __init__(self, page: Page, url: URL) -> None:
        self.page = page
        self.url = url

    @classmethod
    async def open(cls, context: BrowserContext, url: URL) -> Shop:
        """Open the shop in a new tab of *context*."""
        shop = cls(await context.new_page(), url)
        await shop.page.goto(str(url))
        return shop

    async def another_tab(self) -> Shop:
        """Open the shop in one more tab of this browser."""
        return await self.open(self.page.context, self.url)

    async def log_in(self, *, is_remembered: bool = False) -> None:
        """Log in as Ann."""
        await self.page.fill("[name=name]", "ann")
        await self.page.fill("[name=password]", "pear tree")
        if is_remembered:
            await self.page.check("[name=remember]")
        await self.press("Log in")

    async def press(self, button: str) -> None:
        """Press a button, and wait for the page to which it leads."""
        async with self.page.expect_navigation():
            await self.page.get_by_role("button", name=button, exact=True).click()

    async def text(self) -> str:
        """Return what the page says now."""
        return await self.page.inner_text("body")

    async def reloaded_text(self) -> str:
        """Return what the page says when it is loaded again."""
        await self.page.reload()
        return await self.text()
