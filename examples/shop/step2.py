"""The fruit shop, step 2: people log in."""

import hmac
import html

from aiohttp import web

from aiosess import Session, SessionOptions, get_session, setup

# A real shop keeps hashes of them, made by argon2 or scrypt.
PASSWORDS = {"ann": "pear tree", "bob": "apple tree"}

LOGIN_FORM = """<form method="post" action="/login">
  <input name="name" placeholder="name">
  <input name="password" type="password" placeholder="password">
  <button>Log in</button>
</form>"""


def page(*parts: str) -> web.Response:
    text = "\n".join(["<!doctype html>", "<h1>The fruit shop</h1>", *parts])
    return web.Response(text=text, content_type="text/html")


def account(session: Session) -> str:
    if "user" not in session:
        return LOGIN_FORM
    return f"<p>Hello {html.escape(session['user'])}</p>"


async def home(request: web.Request) -> web.Response:
    session = await get_session(request)
    session["visits"] = session.get("visits", 0) + 1
    return page(f"<p>Visit number {session['visits']}</p>", account(session))


def is_password_of(name: str, password: str) -> bool:
    expected = PASSWORDS.get(name, "")
    return expected != "" and hmac.compare_digest(password.encode(), expected.encode())


async def log_in(request: web.Request) -> web.Response:
    form = await request.post()
    name, password = str(form.get("name", "")), str(form.get("password", ""))
    if not is_password_of(name, password):
        raise web.HTTPForbidden(text="No such name and password.")
    session = await get_session(request)
    session["user"] = name
    raise web.HTTPSeeOther("/")


def make_app() -> web.Application:
    app = web.Application()
    options = SessionOptions(
        secret="only for trying: 32 bytes or more",
        renew_on=["user"],
    )
    setup(app, options)
    app.router.add_get("/", home)
    app.router.add_post("/login", log_in)
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=8080)
