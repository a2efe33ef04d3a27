"""The fruit shop, step 1: the server knows a browser again."""

from aiohttp import web

from aiosess import SessionOptions, get_session, setup


def page(*parts: str) -> web.Response:
    text = "\n".join(["<!doctype html>", "<h1>The fruit shop</h1>", *parts])
    return web.Response(text=text, content_type="text/html")


async def home(request: web.Request) -> web.Response:
    session = await get_session(request)
    session["visits"] = session.get("visits", 0) + 1
    return page(f"<p>Visit number {session['visits']}</p>")


def make_app() -> web.Application:
    app = web.Application()
    setup(app, SessionOptions(secret="only for trying: 32 bytes or more"))
    app.router.add_get("/", home)
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=8080)
