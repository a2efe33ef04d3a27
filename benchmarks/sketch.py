"""The least that a session can do, to be measured beside the real thing.

A cookie is found and its signature looked up, a record is read from a dict and decoded, and encoded
again when it was changed. No options, no storage that could wait or fail, no expiry, no merge, no
second task, no streams: it loses updates and keeps what nobody needs any more.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Any

import msgspec
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

VISIT = web.RequestKey("sketch.visit", object)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Sketch:
    """The sessions of one application."""

    def __init__(self, secret: str) -> None:
        self._mac = hmac.new(secret.encode(), digestmod="sha256")
        self.verified: dict[str, str] = {}
        self.records: dict[str, bytes] = {}

    def begin(self) -> tuple[str, str]:
        """Return a new id and its cookie."""
        session_id = secrets.token_urlsafe(24)
        mac = self._mac.copy()
        mac.update(session_id.encode())
        cookie = f"{session_id}.{mac.hexdigest()}"
        self.verified[cookie] = session_id
        return session_id, cookie


class Visit:
    """One request's session."""

    session_id: str | None = None
    payload = b""
    data: dict[str, Any] | None = None

    def __init__(self, sketch: Sketch, request: web.Request) -> None:
        self._sketch = sketch
        self.request = request

    async def open(self) -> dict[str, Any]:
        """Return what the record holds."""
        _, _, after = self.request.headers.get(hdrs.COOKIE, "").partition("sid=")
        self.session_id = self._sketch.verified.get(after.partition(";")[0])
        self.data = {}
        if self.session_id is not None:
            self.payload = self._sketch.records[self.session_id]
            self.data = _decode(self.payload)
        return self.data

    def commit(self, response: web.StreamResponse) -> None:
        """Keep what was changed."""
        response.headers[hdrs.VARY] = "Cookie"
        payload = _encode(self.data)
        if payload == self.payload:
            return
        if self.session_id is None:
            self.session_id, cookie = self._sketch.begin()
            response.headers[hdrs.SET_COOKIE] = f"sid={cookie}; Path=/; HttpOnly"
        self._sketch.records[self.session_id] = payload


def setup(app: web.Application, secret: str) -> None:
    """Give *app* sessions that are a sketch."""
    sketch = Sketch(secret)

    @web.middleware
    async def serve(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[VISIT] = visit = Visit(sketch, request)
        response = await handler(request)
        if visit.data is not None:
            visit.commit(response)
        del visit.request
        return response

    app.middlewares.append(serve)


async def get_session(request: web.Request) -> dict[str, Any]:
    """Return the session of *request*."""
    visit = request[VISIT]
    assert isinstance(visit, Visit)
    return await visit.open()
