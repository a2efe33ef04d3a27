"""Handlers that many tests share, and helpers to read what came back."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import ClientResponse, hdrs, web

from aiosess import Session, Storage, find_session, get_session
from aiosess.transports.signing import Signer
from tests.conftest import SECRET


async def session_of(request: web.Request) -> Session:
    """Return the session of a request that must have one."""
    return await get_session(request)


async def views(request: web.Request) -> web.Response:
    """Count the visits of this browser."""
    session = await session_of(request)
    session["views"] = session.get("views", 0) + 1
    return web.json_response(session["views"])


async def show(request: web.Request) -> web.Response:
    """Answer what the session holds, without changing it."""
    session = await session_of(request)
    return web.json_response({"id": session.id, "new": session.new, "data": dict(session)})


async def put(request: web.Request) -> web.Response:
    """Put the query into the session."""
    session = await session_of(request)
    session.update(request.query)
    return web.Response(text=session.id)


async def leave_alone(request: web.Request) -> web.Response:
    """Do not ask for the session at all."""
    return web.Response()


async def kind(request: web.Request) -> web.Response:
    """Answer which type ``find_session`` returned."""
    return web.Response(text=type(await find_session(request)).__name__)


async def start(app: web.Application) -> None:
    """Start *app* and stop it again."""
    runner = web.AppRunner(app)
    try:
        await runner.setup()
    finally:
        await runner.cleanup()


def cookies_set(response: ClientResponse) -> list[str]:
    """Return each ``Set-Cookie`` header of *response*."""
    return response.headers.getall(hdrs.SET_COOKIE, [])


def signed(session_id: str, secret: str = SECRET) -> dict[str, str]:
    """Return the request header of a browser that holds *session_id*."""
    return {hdrs.COOKIE: f"sid={Signer(secret).sign(session_id)}"}


async def keep(storage: Storage, session_id: str, *, ttl: float = 60, **data: Any) -> None:
    """Keep a record as Express writes it."""
    cookie = {"originalMaxAge": None, "expires": None, "httpOnly": True, "path": "/"}
    await storage.create(session_id, json.dumps({"cookie": cookie, **data}).encode(), ttl)


async def kept(storage: Storage, session_id: str) -> dict[str, Any] | None:
    """Return the data in the record under *session_id*, or ``None`` when there is none."""
    stored = await storage.load(session_id)
    if stored is None:
        return None
    content: dict[str, Any] = json.loads(stored.payload)
    return {key: value for key, value in content.items() if key not in {"cookie", "__aiosess"}}
