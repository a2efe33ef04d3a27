"""The session of a test client's browser, to be set before a request and read after it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http.cookies import SimpleCookie
from typing import Any, Final, NoReturn, Protocol

from aiohttp import web
from aiohttp.test_utils import TestClient, make_mocked_request

from aiosess.attributes import CookieOptions
from aiosess.errors import OptionsError, SessionGone
from aiosess.exchange.exchange import Exchange
from aiosess.exchange.keys import silence
from aiosess.exchange.manager import SessionManager, managers_in
from aiosess.options import SessionOptions
from aiosess.records.decide import Reply
from aiosess.records.state import SessionState
from aiosess.session import Session
from aiosess.transports.base import Lines, SignedId
from aiosess.transports.cookie import CookieTransport
from aiosess.transports.signing import Signer

__all__ = ["LogIn", "SessionOf", "logged_in", "session_for"]

_NOTHING_TOLD: Final[Lines] = ()


class SessionOf(Protocol):
    """What the fixture ``session_of`` is: ``session_for``."""

    def __call__(
        self, client: TestClient[Any, Any], options: SessionOptions | None = None
    ) -> AbstractAsyncContextManager[Session]:
        """Give the session of *client*'s browser."""
        ...


class LogIn(Protocol):
    """What the fixture ``logged_in`` is: the function of that name."""

    async def __call__(
        self, client: TestClient[Any, Any], options: SessionOptions | None = None, /, **data: Any
    ) -> Session:
        """Log the browser of *client* in."""
        ...


@asynccontextmanager
async def session_for(
    client: TestClient[Any, Any], options: SessionOptions | None = None
) -> AsyncGenerator[Session]:
    """Give the session of *client*'s browser, a new one where it has none.

    ::

        async with session_for(client) as session:
            session["user"] = 1

    *options* are those of the application, and found there. Their storage is read and written, and
    their secret signs the cookie that goes into the client's jar. Raise OptionsError without them
    where only a sub-application has sessions, or there are several options.

    At the end of the block the session is kept as at the end of a request: a login gets a new id.
    Where the block raised, nothing is kept.
    Raise SessionGone when a request of the block destroyed what the block changed, RuntimeError
    when the jar keeps no cookies, StorageUnavailable when the storage does not answer.
    """
    options = options or _options_of(client)
    signer = options.plan.signer
    if signer is None:
        raise OptionsError(
            f"session_for cannot reach into {options.storage!r}: a storage of aiohttp-session "
            "finds a session by a request only"
        )
    jar = _Jar(client, options, signer)
    # A request as the browser would send it, for the options that ask for one.
    app = {} if client.app is None else {"app": client.app}
    request = make_mocked_request("GET", "/", {"Host": jar.url.authority}, **app)
    # No middleware was at it that would have done so.
    silence(request)
    manager = SessionManager(options, transport=jar, outage=_Raise())
    exchange = Exchange(manager, request)
    session = await exchange.load_session(request)
    yield session
    await exchange.commit(web.Response())
    if exchange.state is not None and exchange.state.is_gone:
        raise SessionGone("the session was destroyed, or has expired, before the block ended")


async def logged_in(
    client: TestClient[Any, Any], options: SessionOptions | None = None, /, **data: Any
) -> Session:
    """Log *client*'s browser in: put *data* into its session, and return that.

    ::

        session = await logged_in(client, user="ann")

    A session that the browser has already gets a new id and keeps what is in it, and the login is
    fresh, as after ``authenticated()``. Its ``id``, ``authenticated_at`` and data can be looked at;
    to change it, use ``session_for``. *options* are those of the application, and found there.
    Raise TypeError without *data*, and what ``session_for`` raises.
    """
    if not data:
        raise TypeError(
            'logged_in(client) says nobody who is logged in: logged_in(client, user="ann")'
        )
    async with session_for(client, options) as session:
        session.update(data)
        await session.authenticated()
    return session


def _options_of(client: TestClient[Any, Any]) -> SessionOptions:
    """Return the options with which sessions are installed in the application of *client*."""
    managers = () if client.app is None else managers_in(client.app)
    if len(managers) != 1:
        raise OptionsError(
            f"the application of this client has sessions by {len(managers)} SessionOptions, those "
            "of sub-applications not counted: say which, session_for(client, options)"
        )
    return managers[0].options


class _Raise:
    """Lets a test see that the storage does not answer."""

    def opens_anonymously(self, request: object, error: Exception, **_: object) -> NoReturn:
        """Raise *error*."""
        self.refuse(request, error)

    def lose(self, request: object, error: Exception, **_: object) -> NoReturn:
        """Raise *error*."""
        self.refuse(request, error)

    def refuse(self, request: object, error: Exception, **_: object) -> NoReturn:  # noqa: ARG002 - whatever the request
        """Raise *error*."""
        raise error


class _Jar(CookieTransport):
    """Sends session ids by way of a test client's cookie jar."""

    def __init__(
        self, client: TestClient[Any, Any], options: SessionOptions, signer: Signer
    ) -> None:
        super().__init__(options.name, signer, options.cookie, proxy=options.proxy)
        self._jar = client.session.cookie_jar
        self.url = client.make_url("/")

    def is_secure(self, _request: web.Request, /) -> bool:
        """Ask whether the test server speaks TLS."""
        return self.url.scheme == "https"

    def is_sent(self, _request: web.Request, _cookie: CookieOptions, /) -> bool:
        """Return True: to the jar the path of the cookie is of no importance."""
        return True

    def read(self, _request: web.Request, /) -> Iterator[SignedId]:
        """Give the ids in the jar's session cookies whose signatures hold."""
        values = [morsel.value for morsel in self._jar if morsel.key == self.name]
        return self.signer.held(values)

    def has_any(self, _request: web.Request, /) -> bool:
        """Ask whether there is a session cookie in the jar."""
        return any(morsel.key == self.name for morsel in self._jar)

    def is_for_host(self, _request: web.Request, _state: SessionState, /) -> bool:
        """Return True: the jar gets its cookie without a domain."""
        return True

    def withheld_because(self, _state: SessionState, /, *, is_secure: bool) -> None:
        """Return ``None``: the jar takes a cookie without Secure."""

    def tell(
        self,
        _response: web.StreamResponse,
        reply: Reply,
        state: SessionState,
        _told: Lines,
        /,
    ) -> Lines:
        """Put the cookie into the jar, or take it out."""
        if reply is Reply.CLEAR:
            self._clear()
        elif reply is Reply.SEND:
            self._put(state.session_id)
        return _NOTHING_TOLD

    def _clear(self) -> None:
        self._jar.clear(lambda morsel: morsel.key == self.name)

    def _put(self, session_id: str) -> None:
        self._clear()
        # Without Domain and Secure, so that it goes to the test server too.
        cookie = SimpleCookie()
        cookie[self.name] = self.signer.sign(session_id)
        cookie[self.name]["path"] = "/"
        self._jar.update_cookies(cookie, self.url)
        if not any(morsel.key == self.name for morsel in self._jar):
            raise RuntimeError(
                "the client's cookie jar keeps no cookies of the test server: "
                "give it aiohttp.CookieJar(unsafe=True)"
            )
