"""The session of a test client's browser, to be set before a request and read after it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.test_utils import TestClient, make_mocked_request
from aiohttp_session import AbstractStorage

from aiosess.attributes import CookieOptions
from aiosess.errors import OptionsError, SessionGone
from aiosess.options import SessionOptions
from aiosess.records.decide import Action, Rules, decide, ending
from aiosess.records.repository import Keeper
from aiosess.records.state import Intent, SessionState
from aiosess.session import Session

__all__ = ["session_for"]

T = TypeVar("T")


@asynccontextmanager
async def session_for(
    client: TestClient[Any, Any], options: SessionOptions
) -> AsyncGenerator[Session]:
    """Give the session of *client*'s browser, a new one where it has none.

    ::

        async with session_for(client, options) as session:
            session["user"] = 1

    *options* are those of the application: its storage is read and written, its secret signs the
    cookie that goes into the client's cookie jar. At the end of the block the session is kept as
    at the end of a request, and not at all where the block raised. Raise SessionGone when a
    request of the block destroyed what the block changed, RuntimeError when the jar keeps no
    cookies.
    """
    browser = _Browser(client, options)
    visit = await _Visit.open(browser, options)
    yield Session(visit.state, visit)
    await visit.keep(options.rules)
    if visit.state.is_gone:
        raise SessionGone("the session was destroyed, or has expired, before the block ended")
    if visit.state.version is None:
        browser.drop_cookie()
    else:
        browser.put_cookie(visit.state.session_id)


class _Browser:
    """The cookie jar of a test client."""

    def __init__(self, client: TestClient[Any, Any], options: SessionOptions) -> None:
        self._client = client
        self._options = options
        self._jar = client.session.cookie_jar
        self.url = client.make_url("/")

    def session_id(self) -> str | None:
        """Return the id in the jar's session cookie, if there is one and its signature holds."""
        for morsel in self._jar:
            if morsel.key == self._options.name:
                signed = self._options.signer.unsign(morsel.value)
                if signed is not None:
                    return signed.session_id
        return None

    def put_cookie(self, session_id: str) -> None:
        """Let the browser send the cookie with each request."""
        name = self._options.name
        if session_id == self.session_id():
            return
        self.drop_cookie()
        # Without Domain and Secure, so that it goes to the test server too.
        cookie = SimpleCookie()
        cookie[name] = self._options.signer.sign(session_id)
        cookie[name]["path"] = "/"
        self._jar.update_cookies(cookie, self.url)
        if self.session_id() is None:
            raise RuntimeError(
                "the client's cookie jar keeps no cookies of the test server: "
                "give it aiohttp.CookieJar(unsafe=True)"
            )

    def drop_cookie(self) -> None:
        """Remove the cookie."""
        name = self._options.name
        self._jar.clear(lambda morsel: morsel.key == name)

    def request(self) -> web.Request:
        """Return a request as the browser would send it, for the options that ask for one."""
        app = self._client.app
        given = {} if app is None else {"app": app}
        return make_mocked_request("GET", "/", {"Host": self.url.authority}, **given)


class _Visit:
    """A session's way to its storage, as a request's visit is."""

    def __init__(
        self, keeper: Keeper, state: SessionState, browser: _Browser, options: SessionOptions
    ) -> None:
        self.state = state
        self._keeper = keeper
        self._browser = browser
        self._options = options

    @classmethod
    async def open(cls, browser: _Browser, options: SessionOptions) -> _Visit:
        if isinstance(options.storage, AbstractStorage):
            raise OptionsError(
                f"session_for cannot reach into {options.storage!r}: a storage of aiohttp-session "
                "finds a session by a request only"
            )
        keeper = Keeper(options.storage, options.keeper_options)
        cookie = await _cookie(browser, options)
        session_id = browser.session_id()
        state = None if session_id is None else await keeper.load(session_id, cookie)
        if state is None:
            state = keeper.fresh(await _new_id(browser, options), cookie)
            state.stale_id = session_id
        return cls(keeper, state, browser, options)

    async def keep(self, rules: Rules) -> None:
        """Do to the record what the state of the session asks for."""
        state, keeper = self.state, self._keeper
        if state.is_gone:
            return
        match decide(ending(state, is_touch_due=False, is_resigned=False), rules):
            case Action.NOTHING:
                return
            case Action.CREATE:
                await keeper.create(state)
            case Action.REPLACE:
                await keeper.replace(state)
            case Action.TOUCH:
                await keeper.touch(state)
            case Action.RENEW:
                if state.previous is not None:
                    await keeper.renew(state, state.previous)
            case Action.DELETE:
                await keeper.delete(state)
                state.session_id = await _new_id(self._browser, self._options)
        state.intent = Intent.KEEP

    async def save(self) -> bool:
        """Write now."""
        await self.keep(Rules(save_uninitialized=True))
        return not self.state.is_gone

    async def reload(self) -> None:
        """Read again."""
        self.state.rollback()
        await self._keeper.reload(self.state)

    async def touch(self) -> bool:
        """Extend the record's life."""
        return self.state.is_new or await self._keeper.touch(self.state)

    async def destroy(self) -> None:
        """Delete the record."""
        await self._keeper.delete(self.state)
        self.state.intent = Intent.DESTROY

    async def change_id(self, intent: Intent) -> None:
        """Take a new id."""
        state = self.state
        if intent is Intent.RENEW and state.is_new:
            return
        state.leave_for(await _new_id(self._browser, self._options))
        if intent is Intent.REGENERATE:
            state.start_over(self._keeper.now())
        state.intent = intent

    async def atomic(self, change: Callable[[Session], T]) -> T:
        """Apply a change to the newest data."""
        if self.state.is_new:
            return change(Session(self.state, self))
        return await self._keeper.atomic(self.state, lambda newest: change(Session(newest, self)))


async def _cookie(browser: _Browser, options: SessionOptions) -> CookieOptions:
    given = options.cookie
    if callable(given):
        cookie = given(browser.request())
        given = await cookie if inspect.isawaitable(cookie) else cookie
    return given.resolve(is_secure=browser.url.scheme == "https")


async def _new_id(browser: _Browser, options: SessionOptions) -> str:
    session_id = options.genid(browser.request())
    return await session_id if inspect.isawaitable(session_id) else session_id
