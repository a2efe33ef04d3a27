"""Demo: messages for the next page, by a middleware that uses the session."""

from __future__ import annotations

from typing import NoReturn

from aiohttp import web
from aiohttp.typedefs import Handler
from aiohttp_session import get_session, setup
from aiohttp_session.cookie_storage import EncryptedCookieStorage
from cryptography import fernet

INCOMING = web.RequestKey("incoming", list[str])
OUTGOING = web.RequestKey("outgoing", list[str])


@web.middleware
async def flash_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    session = await get_session(request)
    request[INCOMING] = session.pop("flash", [])
    request[OUTGOING] = []
    try:
        return await handler(request)
    finally:
        session["flash"] = request[INCOMING] + request[OUTGOING]


async def flash(request: web.Request) -> NoReturn:
    request[OUTGOING].append("You have just visited flash page")
    raise web.HTTPFound("/")


async def home(request: web.Request) -> web.Response:
    messages = request[INCOMING]
    request[INCOMING] = []
    return web.Response(text=",".join(messages) or "No flash messages yet")


def make_app() -> web.Application:
    app = web.Application()
    setup(app, EncryptedCookieStorage(fernet.Fernet.generate_key().decode()))
    app.middlewares.append(flash_middleware)
    app.router.add_get("/", home)
    app.router.add_get("/flash", flash)
    return app
