"""What the tests read off a response, and the handlers that several of them share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from aiohttp import ClientResponse, hdrs, web
from aiohttp.typedefs import Handler

from aiosess import Session, Storage, find_session, get_session
from aiosess.transports.signing import Signer
from tests.conftest import SECRET

__all__ = [
    "EXPRESS",
    "HTTPS",
    "SentCookie",
    "count",
    "do_not_ask",
    "id_in",
    "kept",
    "look",
    "over_tls",
    "record_of",
    "rewrite",
    "sent_cookie",
    "session_of",
    "the_cookie",
]

EXPRESS: Final[dict[str, Any]] = {"resave": True, "save_uninitialized": True}
"""The options that Express has on by default: without them, less would be put in here."""

HTTPS = {hdrs.X_FORWARDED_PROTO: "https"}


@dataclass(frozen=True, slots=True)
class SentCookie:
    """One ``Set-Cookie`` header: the value as it stands there, the attributes in lower case."""

    value: str
    attributes: dict[str, str]

    @property
    def expires(self) -> datetime:
        return parsedate_to_datetime(self.attributes["expires"]).astimezone(UTC)


def sent_cookie(response: ClientResponse, name: str = "sid") -> SentCookie | None:
    """Return the cookie called *name* that *response* sets; ``None``: it sets none."""
    found: SentCookie | None = None
    for header in response.headers.getall(hdrs.SET_COOKIE, ()):
        pair, *attributes = header.split("; ")
        if pair.startswith(f"{name}="):
            assert found is None, "the cookie was sent twice"
            split = (attribute.partition("=") for attribute in attributes)
            found = SentCookie(
                pair[len(name) + 1 :], {each.lower(): value for each, _, value in split}
            )
    return found


def the_cookie(response: ClientResponse, name: str = "sid") -> SentCookie:
    """Return the cookie called *name*, which *response* must set."""
    cookie = sent_cookie(response, name)
    assert cookie is not None, f"no cookie {name!r} was sent"
    return cookie


def id_in(response: ClientResponse, name: str = "sid", secret: str = SECRET) -> str:
    """Return the session id in the cookie that *response* sets."""
    signed = Signer(secret).unsign(the_cookie(response, name).value)
    assert signed is not None, "the cookie's signature does not hold"
    return signed.session_id


async def record_of(storage: Storage, session_id: str) -> dict[str, Any]:
    """Return the record under *session_id*, as Express would see it."""
    stored = await storage.load(session_id)
    assert stored is not None, "there is no such record"
    record: dict[str, Any] = json.loads(stored.payload)
    return record


async def rewrite(storage: Storage, session_id: str, record: dict[str, Any]) -> None:
    """Put *record* in the place of the one under *session_id*."""
    stored = await storage.load(session_id)
    assert stored is not None, "there is no such record"
    payload = json.dumps(record).encode()
    await storage.replace(session_id, payload, 60, expected=stored.version)


async def session_of(request: web.Request) -> Session:
    """Return the session of *request*, which must have one."""
    return await get_session(request)


async def look(request: web.Request) -> web.Response:
    """Answer with the session's data, or null; change nothing."""
    session = await find_session(request)
    return web.json_response(None if session is None else dict(session))


async def do_not_ask(_request: web.Request) -> web.Response:
    """Answer without asking for the session."""
    return web.Response()


async def count(request: web.Request) -> web.Response:
    """Answer how often this browser was here."""
    session = await session_of(request)
    session["count"] = session.get("count", 0) + 1
    return web.json_response(session["count"])


async def kept(request: web.Request) -> web.Response:
    """Write the same each time, and answer whether there is a session."""
    session = await find_session(request)
    if session is not None:
        session["user"] = "bob"
    return web.json_response(session is not None)


@web.middleware
async def over_tls(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Say, as aiohttp-remotes does behind a proxy, that the browser's connection is encrypted."""
    return await handler(request.clone(scheme="https"))
