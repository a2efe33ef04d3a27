"""Counts views for each browser, in memory: ``python examples/in_memory.py``."""

import os

from aiohttp import web

from aiosess import SessionOptions, get_session, session_middleware


async def views(request: web.Request) -> web.Response:
    session = await get_session(request)
    session["views"] = session.get("views", 0) + 1
    return web.json_response(session["views"])


app = web.Application()
app.middlewares.append(session_middleware(SessionOptions(secret="keyboard cat")))
app.router.add_get("/views", views, name="views")
app.router.add_get("/", views)

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))
