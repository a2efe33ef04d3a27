"""The fruit shop, step 5: remember me."""

import hmac
import html
from datetime import timedelta

from aiohttp import web

from aiosess import Session, SessionKey, SessionOptions, get_session, setup

# A real shop keeps hashes of them, made by argon2 or scrypt.
PASSWORDS = {"ann": "pear tree", "bob": "apple tree"}

PRICES = {"apple": 40, "pear": 60}  # in cents

CART = SessionKey("cart", dict[str, int], default_factory=dict)

LOGIN_FORM = """<form method="post" action="/login">
  <input name="name" placeholder="name">
  <input name="password" type="password" placeholder="password">
  <label><input name="remember" type="checkbox"> Remember me</label>
  <button>Log in</button>
</form>"""


def page(*parts: str) -> web.Response:
    text = "\n".join(["<!doctype html>", "<h1>The fruit shop</h1>", *parts])
    return web.Response(text=text, content_type="text/html")


def account(session: Session) -> str:
    if "user" not in session:
        return LOGIN_FORM
    return f"<p>Hello {html.escape(session['user'])}</p>"


def shelf() -> str:
    buttons = [f'<button name="fruit" value="{fruit}">{fruit}</button>' for fruit in PRICES]
    return f'<form method="post" action="/cart">{" ".join(buttons)}</form>'


def cart(session: Session) -> str:
    counts = session[CART]
    total = sum(PRICES[fruit] * count for fruit, count in counts.items()) / 100
    lines = [f"<li>{fruit}: {count}</li>" for fruit, count in sorted(counts.items())]
    return f"<ul>{''.join(lines)}</ul><p>Total: {total:.2f}</p>"


def flash(session: Session, message: str) -> None:
    session.setdefault("messages", []).append(message)


def messages(session: Session) -> str:
    taken: list[str] = session.pop("messages", [])
    return "\n".join(f"<p><em>{html.escape(message)}</em></p>" for message in taken)


async def home(request: web.Request) -> web.Response:
    session = await get_session(request)
    return page(messages(session), shelf(), cart(session), account(session))


async def add_to_cart(request: web.Request) -> web.Response:
    form = await request.post()
    fruit = str(form.get("fruit", ""))
    if fruit not in PRICES:
        raise web.HTTPBadRequest(text="We have no such fruit.")

    def add(session: Session) -> None:
        counts = session[CART]
        counts[fruit] = counts.get(fruit, 0) + 1
        flash(session, f"One {fruit} more.")

    session = await get_session(request)
    await session.atomic(add)
    raise web.HTTPSeeOther("/")


def is_password_of(name: str, password: str) -> bool:
    expected = PASSWORDS.get(name, "")
    return expected != "" and hmac.compare_digest(password.encode(), expected.encode())


async def log_in(request: web.Request) -> web.Response:
    form = await request.post()
    name, password = str(form.get("name", "")), str(form.get("password", ""))
    session = await get_session(request)
    if is_password_of(name, password):
        session["user"] = name
        session.cookie.max_age = timedelta(days=30) if "remember" in form else None
        flash(session, "Welcome to the shop.")
    else:
        flash(session, "No such name and password.")
    raise web.HTTPSeeOther("/")


def make_app() -> web.Application:
    app = web.Application()
    options = SessionOptions(
        secret="only for trying: 32 bytes or more",
        renew_on=["user"],
        idle_timeout=timedelta(hours=2),
    )
    setup(app, options)
    app.router.add_get("/", home)
    app.router.add_post("/cart", add_to_cart)
    app.router.add_post("/login", log_in)
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=8080)
