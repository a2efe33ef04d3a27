"""Counts views for each browser, in memcached: ``python examples/memcached_storage.py``.

It differs from ``redis_storage.py`` in its storage alone. Several servers share the records when
``MEMCACHED_URL`` names them: ``memcached://127.0.0.1:11211,127.0.0.1:11212``.
"""

import os

from aiohttp import web

from aiosess import SessionOptions, get_session, session_middleware
from aiosess.storages.memcached import MemcachedStorage


async def views(request: web.Request) -> web.Response:
    session = await get_session(request)
    session["views"] = session.get("views", 0) + 1
    return web.json_response(session["views"])


storage = MemcachedStorage.from_url(os.environ.get("MEMCACHED_URL", "memcached://127.0.0.1:11211"))

app = web.Application()
app.middlewares.append(session_middleware(SessionOptions(secret="keyboard cat", storage=storage)))
app.router.add_get("/views", views, name="views")
app.router.add_get("/", views)

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))
