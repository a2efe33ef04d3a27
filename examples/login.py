"""Logs people in and out: ``python examples/login.py``; alice's password is ``wonderland``.

The session id is renewed at login, so that whoever planted the id from before sees nothing of the
login, and the session is destroyed at logout.
"""

import hmac
import html
import os
from datetime import timedelta

from aiohttp import web

from aiosess import SessionOptions, get_session, setup

PASSWORDS = {"alice": "wonderland"}

LOGIN_FORM = """<!doctype html>
<form method="post" action="/login">
  <input name="name" placeholder="alice">
  <input name="password" type="password" placeholder="wonderland">
  <button>Log in</button>
</form>
"""

GREETING = """<!doctype html>
<p>Hello {name}, this is your page number {pages}.</p>
<form method="post" action="/logout"><button>Log out</button></form>
"""


async def home(request: web.Request) -> web.Response:
    session = await get_session(request)
    name = session.get("name")
    if name is None:
        return web.Response(text=LOGIN_FORM, content_type="text/html")
    session["pages"] = session.get("pages", 0) + 1
    text = GREETING.format(name=html.escape(name), pages=session["pages"])
    return web.Response(text=text, content_type="text/html")


async def login(request: web.Request) -> web.Response:
    form = await request.post()
    name, password = str(form.get("name", "")), str(form.get("password", ""))
    # A real application compares hashes, made by argon2 or scrypt.
    expected = PASSWORDS.get(name, "")
    if not expected or not hmac.compare_digest(password.encode(), expected.encode()):
        raise web.HTTPForbidden(text="No such name and password.")
    session = await get_session(request)
    session["name"] = name
    await session.authenticated()
    raise web.HTTPSeeOther("/")


async def logout(request: web.Request) -> web.Response:
    session = await get_session(request)
    await session.destroy()
    raise web.HTTPSeeOther("/")


def make_app(options: SessionOptions) -> web.Application:
    """Return the application, ready to be run."""
    app = web.Application()
    setup(app, options)
    app.router.add_get("/", home)
    app.router.add_post("/login", login)
    app.router.add_post("/logout", logout)
    return app


if __name__ == "__main__":
    web.run_app(
        make_app(
            SessionOptions(
                secret=os.environ.get("SESSION_SECRET", "keyboard cat"),
                idle_timeout=timedelta(minutes=30),
                absolute_timeout=timedelta(hours=12),
            )
        ),
        host="127.0.0.1",
        port=int(os.environ.get("PORT", "8080")),
    )
