"""The fruit shop, step 7: ready for the open network."""

import hmac
import html
import os
from datetime import timedelta

from aiohttp import web
from aiohttp.typedefs import Handler

from aiosess import CookieOptions, Session, SessionKey, SessionOptions, get_session, health, setup
from aiosess.storages.redis import RedisStorage

# A real shop keeps hashes of them, made by argon2 or scrypt.
PASSWORDS = {"ann": "pear tree", "bob": "apple tree"}

PRICES = {"apple": 40, "pear": 60}  # in cents

CART = SessionKey("cart", dict[str, int], default_factory=dict)

LOGOUT_FORM = """<form method="post" action="/logout"><button>Log out</button></form>"""

LOGIN_FORM = """<form method="post" action="/login">
  <input name="name" placeholder="name">
  <input name="password" type="password" placeholder="password">
  <label><input name="remember" type="checkbox"> Remember me</label>
  <button>Log in</button>
</form>"""


def page(*parts: str) -> web.Response:
    text = "\n".join(["<!doctype html>", "<h1>The fruit shop</h1>", *parts])
    headers = {"Cache-Control": "no-store"}
    return web.Response(text=text, content_type="text/html", headers=headers)


def account(session: Session) -> str:
    if "user" not in session:
        return LOGIN_FORM
    return f"<p>Hello {html.escape(session['user'])}</p>" + LOGOUT_FORM


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


async def log_out(request: web.Request) -> web.Response:
    session = await get_session(request)
    await session.destroy()
    raise web.HTTPSeeOther("/")


def is_from_our_pages(request: web.Request) -> bool:
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("Origin")
    return origin is None or origin.partition("://")[2] == request.host


@web.middleware
async def refuse_forged(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.method == "POST" and not is_from_our_pages(request):
        raise web.HTTPForbidden(text="Please use the buttons of our own pages.")
    return await handler(request)


async def ready(request: web.Request) -> web.Response:
    nodes = await health(request.app)
    is_well = all(node.is_well for node in nodes)
    return web.Response(text="well" if is_well else "away", status=200 if is_well else 503)


def make_app() -> web.Application:
    app = web.Application(middlewares=[refuse_forged])
    options = SessionOptions(
        secret=os.environ["SESSION_SECRET"].split(),
        storage=RedisStorage.from_url(os.environ["REDIS_URL"]),
        name="__Host-sid",
        cookie=CookieOptions(secure=True),
        proxy=True,
        exclude=["/ready"],
        on_unavailable=web.HTTPServiceUnavailable,
        renew_on=["user"],
        idle_timeout=timedelta(hours=2),
        absolute_timeout=timedelta(days=30),
    )
    setup(app, options)
    app.router.add_get("/", home)
    app.router.add_get("/ready", ready)
    app.router.add_post("/cart", add_to_cart)
    app.router.add_post("/login", log_in)
    app.router.add_post("/logout", log_out)
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=8080)
