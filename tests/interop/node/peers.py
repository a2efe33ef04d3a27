"""The peers: real Node applications beside an aiohttp one, and one browser that visits both."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from http.cookies import Morsel
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import quote, unquote

import pytest
from aiohttp import ClientSession, CookieJar, web
from yarl import URL

from aiosess import Session, SessionOptions, get_session, setup
from tests.servers import RedisServer, Server, binary, free_port

__all__ = ["COOKIE", "SECRET", "Browser", "NodeServer", "aiohttp_peer"]

COOKIE: Final = "connect.sid"
SECRET: Final = "a secret that Node and Python know, and nobody else does"

Body: TypeAlias = dict[str, Any]

_FOLDER: Final = Path(__file__).parent


class NodeServer(Server):
    """The application in *script*, with these options of express-session.

    *packages* are the store and the client to take, by the names that package.json gives them.
    """

    def __init__(
        self,
        script: str,
        redis: RedisServer,
        options: dict[str, Any],
        packages: tuple[str, str] = ("connect-redis", "redis"),
    ) -> None:
        install()
        port = free_port()
        environment = {
            "PORT": str(port),
            "REDIS_URL": redis.url,
            "SECRET": SECRET,
            "COOKIE": COOKIE,
            "OPTIONS": json.dumps(options),
        }
        environment["STORE"], environment["CLIENT"] = packages
        variables = [f"{name}={value}" for name, value in environment.items()]
        super().__init__(["env", *variables, binary("node"), str(_FOLDER / script)], port)

    @property
    def url(self) -> URL:
        """Where browsers connect."""
        return URL(f"http://127.0.0.1:{self.port}")


def install() -> None:
    """Have npm install the pinned packages, once; without npm skip, or fail where CI is set."""
    npm = binary("npm")
    lock, installed = _FOLDER / "package-lock.json", _FOLDER / "node_modules" / ".package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
        return
    try:
        subprocess.run([npm, "ci"], cwd=_FOLDER, check=True, capture_output=True, timeout=100)
    except subprocess.SubprocessError as error:
        told = getattr(error, "stderr", None) or b""
        message = f"npm ci does not work in {_FOLDER}: {error}\n{told.decode(errors='replace')}"
    else:
        installed.touch()
        return
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


class Browser:
    """One cookie jar; asks peers to do things to their session."""

    def __init__(self) -> None:
        # Browsers send a cookie back as it came; aiohttp would put some into quotes.
        jar = CookieJar(unsafe=True, quote_cookie=False)
        self._session = ClientSession(cookie_jar=jar)
        self.status = 0
        self.set_cookie: str | None = None

    async def do(self, peer: URL, action: str, **body: Any) -> Any:
        """Have *peer* do *action*, and return what came of it."""
        async with self._session.post(peer / action, json=body) as response:
            self.status = response.status
            self.set_cookie = response.headers.get("Set-Cookie")
            response.raise_for_status()
            return (await response.json())["result"]

    @property
    def cookie(self) -> str | None:
        """The session cookie's value, decoded: Fastify encodes less of it than the others."""
        sent = self.cookie_as_sent
        return None if sent is None else unquote(sent)

    @property
    def cookie_as_sent(self) -> str | None:
        """The session cookie's value, as it travels."""
        morsel = self._morsel
        return None if morsel is None else morsel.value

    def come_back_with(self, cookie: str) -> None:
        """Have this value in the session cookie."""
        self._session.cookie_jar.update_cookies(
            {COOKIE: quote(cookie, safe="")}, URL("http://127.0.0.1")
        )

    async def aclose(self) -> None:
        """Close the window."""
        await self._session.close()

    @property
    def _morsel(self) -> Morsel[str] | None:
        cookies = self._session.cookie_jar.filter_cookies(URL("http://127.0.0.1"))
        return cookies.get(COOKIE)


def aiohttp_peer(options: SessionOptions) -> web.Application:
    """Return an application that does what actions.js does."""
    app = web.Application()
    setup(app, options)
    app.router.add_post("/{action}", _act)
    return app


async def _act(request: web.Request) -> web.Response:
    session = await get_session(request)
    action = _ACTIONS[request.match_info["action"]]
    return web.json_response({"result": await action(session, await request.json())})


async def _read(session: Session, _body: Body) -> object:
    return dict(session)


async def _write(session: Session, body: Body) -> object:
    session.update(body)
    return dict(session)


async def _remove(session: Session, body: Body) -> object:
    del session[body["key"]]
    return dict(session)


async def _login(session: Session, body: Body) -> object:
    await session.regenerate()
    session["principal"] = body["principal"]
    return dict(session)


async def _renew(session: Session, body: Body) -> object:
    await session.renew_id()
    session["principal"] = body["principal"]
    return dict(session)


async def _logout(session: Session, _body: Body) -> object:
    await session.destroy()
    return None


async def _max_age(session: Session, body: Body) -> object:
    age = body["milliseconds"]
    session.cookie.max_age = None if age is None else age / 1000
    return None


async def _end_at(session: Session, body: Body) -> object:
    session.cookie.expires = datetime.fromtimestamp(body["at"], UTC)
    return None


async def _cookie(session: Session, _body: Body) -> object:
    age, end = session.cookie.max_age, session.cookie.expires
    return {
        "milliseconds": None if age is None else round(age * 1000),
        "end": None if end is None else end.timestamp(),
    }


async def _id(session: Session, _body: Body) -> object:
    return session.id


_ACTIONS: Final[dict[str, Callable[[Session, Body], Awaitable[object]]]] = {
    "read": _read,
    "write": _write,
    "remove": _remove,
    "login": _login,
    "renew": _renew,
    "logout": _logout,
    "maxAge": _max_age,
    "endAt": _end_at,
    "cookie": _cookie,
    "id": _id,
}
