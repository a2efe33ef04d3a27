"""README, documentation's first page and demo: the last visit, in an encrypted cookie."""

from __future__ import annotations

import base64
import time

from aiohttp import web
from aiohttp_session import get_session, setup
from aiohttp_session.cookie_storage import EncryptedCookieStorage
from cryptography import fernet


async def handler(request: web.Request) -> web.Response:
    session = await get_session(request)
    last_visit = session["last_visit"] if "last_visit" in session else None  # noqa: SIM401 - as documented
    session["last_visit"] = time.time()
    return web.Response(text=f"Last visited: {last_visit}")


def with_a_fernet() -> web.Application:
    app = web.Application()
    setup(app, EncryptedCookieStorage(fernet.Fernet(fernet.Fernet.generate_key())))
    app.router.add_get("/", handler)
    return app


def with_bytes() -> web.Application:
    app = web.Application()
    setup(app, EncryptedCookieStorage(b"Thirty  two  length  bytes  key."))
    app.router.add_route("GET", "/", handler)
    return app


def with_a_decoded_key() -> web.Application:
    app = web.Application()
    secret_key = base64.urlsafe_b64decode(fernet.Fernet.generate_key())
    setup(app, EncryptedCookieStorage(secret_key))
    app.router.add_get("/", handler)
    return app
