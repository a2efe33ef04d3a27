"""The application of ../server.py, in Starlette with starsessions, under uvicorn.

python benchmarks/peers/starlette_server.py none|redis://... PORT
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starsessions import SessionAutoloadMiddleware, SessionMiddleware
from starsessions.stores.redis import RedisStore

PERSON = {
    "user_id": 184467,
    "name": "Ada Lovelace",
    "roles": ["editor", "reviewer"],
    "csrf": "k3v9XbQ7mT2sW8yZr5nLp0aDhJ4cU1e",
}


async def bare(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("0")


async def new(request: Request) -> PlainTextResponse:
    request.session["number"] = 0
    return PlainTextResponse("0")


async def person(request: Request) -> PlainTextResponse:
    request.session.update(PERSON)
    return PlainTextResponse("0")


async def read(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(request.session["number"]))


async def write(request: Request) -> PlainTextResponse:
    request.session["number"] += 1
    return PlainTextResponse(str(request.session["number"]))


def application(storage: str) -> Starlette:
    if storage == "none":
        return Starlette(routes=[Route(path, bare) for path in ("/new", "/read", "/write")])
    store = RedisStore(connection=Redis.from_url(storage))
    middleware: list[Any] = [
        Middleware(SessionMiddleware, store=store, cookie_https_only=False),
        Middleware(SessionAutoloadMiddleware),
    ]
    routes = [
        Route("/new", new),
        Route("/person", person),
        Route("/read", read),
        Route("/write", write),
    ]
    return Starlette(routes=routes, middleware=middleware)


if __name__ == "__main__":
    uvicorn.run(
        application(sys.argv[1]),
        host="127.0.0.1",
        port=int(sys.argv[2]),
        loop="asyncio",
        access_log=False,
        log_level="error",
    )
