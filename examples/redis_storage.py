"""Counts views for each browser, in Redis: ``python examples/redis_storage.py``.

It differs from ``in_memory.py`` in its storage alone, and goes on counting after a restart.
"""

import os

from aiohttp import web

from aiosess import SessionOptions, get_session, session_middleware
from aiosess.storages.redis import RedisStorage


async def views(request: web.Request) -> web.Response:
    session = await get_session(request)
    session["views"] = session.get("views", 0) + 1
    return web.json_response(session["views"])


storage = RedisStorage.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))

app = web.Application()
app.middlewares.append(session_middleware(SessionOptions(secret="keyboard cat", storage=storage)))
app.router.add_get("/views", views, name="views")
app.router.add_get("/", views)

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))
