"""Demo: a page for users only, and a login that takes a new session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp_session import get_session, new_session, setup
from aiohttp_session.cookie_storage import EncryptedCookieStorage
from cryptography import fernet

Page = Callable[[web.Request], Awaitable[web.StreamResponse]]

USERS = [("admin", "admin")]


def login_required(page: Page) -> Page:
    async def guarded(request: web.Request) -> web.StreamResponse:
        session = await get_session(request)
        if "user_id" not in session:
            raise web.HTTPFound(request.app.router["login"].url_for())
        return await page(request)

    return guarded


@login_required
async def restricted(request: web.Request) -> web.Response:
    session = await get_session(request)
    return web.Response(text=f"User {USERS[session['user_id']][0]} authorized")


async def login_page(_request: web.Request) -> web.Response:
    return web.Response(text="Name and password, please")


async def login(request: web.Request) -> web.Response:
    form = await request.post()
    given = (str(form["name"]), str(form["password"]))
    if given not in USERS:
        return web.Response(text="No such user", status=403)
    session = await new_session(request)
    session["user_id"] = USERS.index(given)
    raise web.HTTPFound(request.app.router["restricted"].url_for())


def make_app() -> web.Application:
    app = web.Application()
    setup(app, EncryptedCookieStorage(fernet.Fernet.generate_key().decode()))
    app.router.add_get("/", restricted, name="restricted")
    app.router.add_get("/login", login_page, name="login")
    app.router.add_post("/login", login)
    return app
