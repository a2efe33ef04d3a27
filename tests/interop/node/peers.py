"""The peers: real Node applications beside an aiohttp one, and one browser that visits both."""

from __future__ import annotations

import json
import os
import subprocess
from http.cookies import Morsel
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import ClientSession, CookieJar, web
from yarl import URL

from aiosess import SessionOptions, get_session, setup
from tests.servers import RedisServer, Server, binary, free_port

__all__ = ["COOKIE", "SECRET", "Browser", "NodeServer", "aiohttp_peer"]

COOKIE: Final = "connect.sid"
SECRET: Final = "a secret that Node and Python know, and nobody else does"

_FOLDER: Final = Path(__file__).parent


class NodeServer(Server):
    """The application in *script*, with these options of express-session."""

    def __init__(self, script: str, redis: RedisServer, options: dict[str, Any]) -> None:
        install()
        port = free_port()
        environment = {
            "PORT": str(port),
            "REDIS_URL": redis.url,
            "SECRET": SECRET,
            "COOKIE": COOKIE,
            "OPTIONS": json.dumps(options),
        }
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
        self._session = ClientSession(cookie_jar=CookieJar(unsafe=True))
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
        """The session cookie's value, as it travels."""
        morsel = self._morsel
        return None if morsel is None else morsel.value

    def forget(self) -> None:
        """Drop all cookies."""
        self._session.cookie_jar.clear()

    def come_back_with(self, cookie: str) -> None:
        """Have this value in the session cookie."""
        self._session.cookie_jar.update_cookies({COOKIE: cookie}, URL("http://127.0.0.1"))

    async def close(self) -> None:
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
    body = await request.json()
    session = await get_session(request)
    assert session is not None
    result: Any = None
    match request.match_info["action"]:
        case "read":
            result = dict(session)
        case "write":
            session.update(body)
            result = dict(session)
        case "remove":
            del session[body["key"]]
            result = dict(session)
        case "login":
            await session.regenerate()
            session["principal"] = body["principal"]
            result = dict(session)
        case "renew":
            await session.renew_id()
            session["principal"] = body["principal"]
            result = dict(session)
        case "logout":
            await session.destroy()
        case "maxAge":
            age = body["milliseconds"]
            session.cookie.max_age = None if age is None else age / 1000
        case "cookie":
            age = session.cookie.max_age
            result = {"milliseconds": None if age is None else round(age * 1000)}
        case "id":
            result = session.id
        case unknown:
            raise web.HTTPNotFound(text=unknown)
    return web.json_response({"result": result})
