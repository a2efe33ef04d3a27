"""Who is logged in on which device, and how that ends: devices, passwords, a chat, an admin page.

    python examples/devices.py     # http://127.0.0.1:8080/, or PORT=...

Log in as ann (pear tree) in two browsers, and as root (oak tree) in a third.
"""

from __future__ import annotations

import hmac
import html
import os
from datetime import timedelta
from time import localtime, strftime

from aiohttp import web
from aiohttp.typedefs import Handler

from aiosess import (
    CookieOptions,
    Session,
    SessionOptions,
    get_session,
    require_fresh,
    return_path,
    setup,
)
from aiosess.principals import Principals

# A real application keeps hashes of them, made by argon2 or scrypt.
PASSWORDS = {"ann": "pear tree", "root": "oak tree"}

COOKIE = CookieOptions(secure="auto")

PRINCIPALS = web.AppKey("PRINCIPALS", Principals)
SOCKETS = web.AppKey("SOCKETS", set[web.WebSocketResponse])

LOGIN_FORM = """<form method="post" action="/login">
  <input name="name" placeholder="name">
  <input name="password" type="password" placeholder="password">
  <input name="device" placeholder="this device, such as: my phone">
  <button>Log in</button>
</form>"""

CONFIRM_FORM = """<form method="post">
  <input name="password" type="password" placeholder="your password, once more">
  <button>Go on</button>
</form>"""

PASSWORD_FORM = """<form method="post" action="/password">
  <input name="new" type="password" placeholder="new password">
  <button>Change the password, and log out all other devices</button>
</form>"""

LINKS = """<p>
  <a href="/chat">Chat</a> <a href="/password">Password</a> <a href="/admin">Admin</a>
</p>"""

CHAT = """<p id="state">connecting</p><ul id="said"></ul>
<form id="say"><input id="text"><button>Say</button></form>
<script>
  const socket = new WebSocket(location.href.replace(/^http/, "ws").replace("/chat", "/socket"));
  const state = document.getElementById("state");
  socket.onopen = () => { state.textContent = "open"; };
  socket.onclose = (event) => { state.textContent = `closed: ${event.code} ${event.reason}`; };
  socket.onmessage = (event) => {
    const line = document.createElement("li");
    line.textContent = event.data;
    document.getElementById("said").append(line);
  };
  document.getElementById("say").onsubmit = (event) => {
    event.preventDefault();
    socket.send(document.getElementById("text").value);
  };
</script>"""


def page(*parts: str) -> web.Response:
    text = "\n".join(["<!doctype html>", "<h1>Devices</h1>", *parts])
    headers = {"Cache-Control": "no-store"}
    return web.Response(text=text, content_type="text/html", headers=headers)


def button(action: str, words: str, **fields: str) -> str:
    hidden = "".join(
        f'<input type="hidden" name="{name}" value="{html.escape(value)}">'
        for name, value in fields.items()
    )
    return f'<form method="post" action="{action}">{hidden}<button>{words}</button></form>'


def is_password_of(name: str, password: str) -> bool:
    expected = PASSWORDS.get(name, "")
    return expected != "" and hmac.compare_digest(password.encode(), expected.encode())


async def logged_in(request: web.Request) -> tuple[Session, str]:
    """Return the session and its principal; go to the login where there is none."""
    session = await get_session(request)
    if session.principal is None:
        raise web.HTTPSeeOther("/")
    return session, session.principal


async def home(request: web.Request) -> web.Response:
    session = await get_session(request)
    if session.principal is None:
        return page(LOGIN_FORM)
    devices = await request.app[PRINCIPALS].sessions_of(session.principal, current=session)
    lines = [
        "<li>"
        + html.escape(device.label or "a device")
        + strftime(", last seen at %H:%M", localtime(device.last_seen_at))
        + (
            " <strong>this one</strong>"
            if device.is_current
            else button("/devices/end", "Log out", handle=device.handle)
        )
        + "</li>"
        for device in devices
    ]
    return page(
        f"<p>Hello {html.escape(session.principal)}</p>",
        f"<ul>{''.join(lines)}</ul>",
        button("/devices/end-others", "Log out all others"),
        button("/logout", "Log out"),
        LINKS,
    )


async def log_in(request: web.Request) -> web.Response:
    form = await request.post()
    name, password = str(form.get("name", "")), str(form.get("password", ""))
    if is_password_of(name, password):
        session = await get_session(request)
        await session.bind(name, label=str(form.get("device", "")) or None)
    raise web.HTTPSeeOther("/")


async def log_out(request: web.Request) -> web.Response:
    session = await get_session(request)
    await session.destroy()
    raise web.HTTPSeeOther("/")


async def end_device(request: web.Request) -> web.Response:
    _, principal = await logged_in(request)
    form = await request.post()
    await request.app[PRINCIPALS].end(principal, str(form.get("handle", "")))
    raise web.HTTPSeeOther("/")


async def end_others(request: web.Request) -> web.Response:
    session, principal = await logged_in(request)
    await request.app[PRINCIPALS].revoke(principal, keep=session)
    raise web.HTTPSeeOther("/")


async def confirm_page(_request: web.Request) -> web.Response:
    return page(CONFIRM_FORM)


async def confirm(request: web.Request) -> web.Response:
    session, principal = await logged_in(request)
    form = await request.post()
    if not is_password_of(principal, str(form.get("password", ""))):
        return page("<p>That was another password.</p>", CONFIRM_FORM)
    await session.authenticated()
    raise web.HTTPSeeOther(return_path(request))


fresh = require_fresh(timedelta(minutes=10), on_stale="/confirm")


@fresh
async def password_page(_request: web.Request) -> web.Response:
    return page(PASSWORD_FORM)


@fresh
async def change_password(request: web.Request) -> web.Response:
    session, principal = await logged_in(request)
    form = await request.post()
    PASSWORDS[principal] = str(form.get("new", ""))
    await session.authenticated()
    await request.app[PRINCIPALS].revoke(principal, keep=session)
    raise web.HTTPSeeOther("/")


async def admin(request: web.Request) -> web.Response:
    _, principal = await logged_in(request)
    if principal != "root":
        raise web.HTTPForbidden(text="This page is for root.")
    counts = {name: len(await request.app[PRINCIPALS].sessions_of(name)) for name in PASSWORDS}
    lines = [
        f"<li>{html.escape(name)}: {count} " + button("/admin/end", "End all", name=name) + "</li>"
        for name, count in counts.items()
    ]
    return page(f"<ul>{''.join(lines)}</ul>")


@fresh
async def end_account(request: web.Request) -> web.Response:
    _, principal = await logged_in(request)
    if principal != "root":
        raise web.HTTPForbidden(text="This page is for root.")
    form = await request.post()
    await request.app[PRINCIPALS].revoke(str(form.get("name", "")) or "nobody")
    raise web.HTTPSeeOther("/admin")


async def chat(request: web.Request) -> web.Response:
    await logged_in(request)
    return page(CHAT)


async def socket(request: web.Request) -> web.WebSocketResponse:
    session = await get_session(request)
    if session.principal is None:
        raise web.HTTPForbidden
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    sockets = request.app[SOCKETS]
    sockets.add(ws)
    try:
        async with session.watch(ws):
            async for message in ws:
                for other in sockets:
                    await other.send_str(f"{session.principal}: {message.data}")
    finally:
        sockets.discard(ws)
    return ws


@web.middleware
async def refuse_forged(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let forms of our own pages pass, and those of programs, which say nothing."""
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    if request.method == "POST" and site != "same-origin":
        raise web.HTTPForbidden(text="Please use the buttons of our own pages.")
    return await handler(request)


def make_app(options: SessionOptions) -> web.Application:
    app = web.Application(middlewares=[refuse_forged])
    app[PRINCIPALS] = Principals(options, max_sessions=20)
    app[SOCKETS] = set()
    setup(app, options)
    app.router.add_get("/", home)
    app.router.add_post("/login", log_in)
    app.router.add_post("/logout", log_out)
    app.router.add_post("/devices/end", end_device)
    app.router.add_post("/devices/end-others", end_others)
    app.router.add_get("/confirm", confirm_page)
    app.router.add_post("/confirm", confirm)
    app.router.add_get("/password", password_page)
    app.router.add_post("/password", change_password)
    app.router.add_get("/admin", admin)
    app.router.add_post("/admin/end", end_account)
    app.router.add_get("/chat", chat)
    app.router.add_get("/socket", socket)
    return app


if __name__ == "__main__":
    secret = os.environ.get("SESSION_SECRET", "keyboard cat, but with more than 32 bytes")
    web.run_app(
        make_app(SessionOptions(secret=secret, cookie=COOKIE)),
        host="127.0.0.1",
        port=int(os.environ.get("PORT", "8080")),
    )
