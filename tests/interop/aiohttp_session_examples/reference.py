"""Documentation, reference: the middleware alone, a session as a mapping, a new session."""

from __future__ import annotations

from aiohttp import web
from aiohttp_session import SimpleCookieStorage, get_session, new_session, session_middleware


async def mapping(request: web.Request) -> web.Response:
    session = await get_session(request)
    session["key1"] = "value 1"
    session["key2"] = {"inner": "value 2"}
    session["key2"]["inner"] = "changed"
    session.changed()
    return web.json_response(["key1" in session, session["key2"], len(session), session.empty])


async def begin(request: web.Request) -> web.Response:
    session = await new_session(request)
    session["begun"] = True
    return web.json_response([session.new, session.identity])


async def end(request: web.Request) -> web.Response:
    session = await get_session(request)
    session.invalidate()
    return web.json_response(session.empty)


async def show(request: web.Request) -> web.Response:
    session = await get_session(request)
    return web.json_response([session.new, dict(session)])


def make_app() -> web.Application:
    app = web.Application(middlewares=[session_middleware(SimpleCookieStorage())])
    for each in (mapping, begin, end, show):
        app.router.add_get(f"/{each.__name__}", each)
    return app
