"""An application with sessions that is asked byte by byte, on both lanes, without a socket."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from aiosess import CookieOptions, MemoryStorage, SessionOptions, get_session, setup
from aiosess.testing import FakeClock
from aiosess.transports.signing import Signer
from tests.lanes.lanes import FAST, WHOLE, driving
from tests.lanes.wire import Answer, Wire

__all__ = [
    "LANES",
    "OLD_SECRET",
    "OPTIONS",
    "SECRET",
    "SIGNER",
    "Site",
    "close",
    "cookie_of",
    "run",
    "site_of",
]

SECRET: Final = "a secret of the fuzzing, which is long enough to be quiet"
OLD_SECRET: Final = "an older secret of the fuzzing, long enough to be quiet"
LANES: Final = {"fast": FAST, "whole": WHOLE}

OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "believing": {"proxy": True, "cookie": CookieOptions(domain="example.org")},
    "secure": {"proxy": True, "cookie": CookieOptions(secure=True)},
    "not believing": {"proxy": False, "cookie": CookieOptions(samesite="auto")},
    "as aiohttp does": {"cookie": CookieOptions(path="/put", domain=".example.org")},
    "rolling": {"rolling": True, "proxy": True, "cookie": CookieOptions(max_age=60)},
}

# Seconds that one request may take: what is not over by then hangs.
_LONGEST: Final = 5.0


_RUNNING: Final[list[web.AppRunner]] = []


@cache
def _runner() -> asyncio.Runner:
    return asyncio.Runner()


def run(act: Callable[[], Awaitable[Any]]) -> Any:
    """Return what *act* returns; all that is fuzzed runs in one event loop."""

    async def in_time() -> Any:
        async with asyncio.timeout(_LONGEST):
            return await act()

    return _runner().run(in_time())


def close() -> None:
    """Stop all applications, and the event loop in which they are asked."""
    for running in _RUNNING:
        _runner().run(running.cleanup())
    _RUNNING.clear()
    site_of.cache_clear()
    _runner().close()
    _runner.cache_clear()


class _Named(MemoryStorage):
    """A memory that takes ids only that can go over a wire, and notes those that were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def load(self, session_id: str) -> Any:
        session_id.encode()
        self.asked.append(session_id)
        return await super().load(session_id)


async def show(request: web.Request) -> web.Response:
    session = await get_session(request)
    data = json.loads(json.dumps(dict(session), allow_nan=False))
    return web.json_response({"id": session.id, "new": session.new, "data": data})


async def put(request: web.Request) -> web.Response:
    session = await get_session(request)
    session["mine"] = "1"
    return web.Response(text=session.id)


async def login(request: web.Request) -> web.Response:
    session = await get_session(request)
    session["AIOHTTP_SECURITY"] = "somebody"
    return web.Response(text=session.id)


async def leave(request: web.Request) -> web.Response:
    session = await get_session(request)
    await session.destroy()
    return web.Response()


class Site:
    """An application on one lane, what it has in store, and what it logged as an error."""

    def __init__(self, lane: str, **options: Any) -> None:
        self.storage = _Named()
        self.clock = FakeClock()
        self.made: set[str] = set()
        self.errors: list[BaseException] = []
        self._lane = LANES[lane]
        self._options: dict[str, Any] = options
        self._server: web.Server | None = None

    def made_id(self, _request: web.Request) -> str:
        made = f"made-{len(self.made)}"
        self.made.add(made)
        return made

    async def ask(self, head: bytes, *, is_encrypted: bool = False) -> tuple[Answer, bytes]:
        """Send the *head* of a request as it is; return the answer and the whole of its body."""
        if self._server is None:
            self._server = await self._started()
        self.errors.clear()
        self.storage.asked.clear()
        wire = Wire(self._server, is_encrypted=is_encrypted)
        with self._heard():
            answer = await wire.say(head)
        if self.errors:
            raise AssertionError(f"the server failed: {self.errors[0]!r}") from self.errors[0]
        return answer, bytes(wire.sent).partition(b"\r\n\r\n")[2]

    async def get(self, path: str, cookie: bytes) -> tuple[Answer, bytes]:
        """Ask for *path* as a browser does that has this *cookie*."""
        lines = [
            f"GET {path} HTTP/1.1".encode(),
            b"Host: example.org",
            b"Connection: close",
            b"Cookie: " + cookie,
        ]
        return await self.ask(b"\r\n".join([*lines, b"", b""]))

    async def _started(self) -> web.Server:
        given: dict[str, Any] = {
            "secret": [SECRET, OLD_SECRET],
            "storage": self.storage,
            "genid": self.made_id,
            "clock": self.clock,
            **self._options,
        }
        app = web.Application()
        with driving(self._lane):
            setup(app, SessionOptions(**given))
            for handler in (show, put, login, leave):
                app.router.add_get(f"/{handler.__name__}", handler)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
        _RUNNING.append(runner)
        assert runner.server is not None
        return runner.server

    @contextmanager
    def _heard(self) -> Iterator[None]:
        """Note the errors that the server logs; nobody else hears of them."""
        handler = _Errors(self.errors)
        loggers = [logging.getLogger(name) for name in ("aiohttp.server", "aiosess")]
        before = [logger.propagate for logger in loggers]
        for logger in loggers:
            logger.addHandler(handler)
            logger.propagate = False
        try:
            yield
        finally:
            for logger, propagates in zip(loggers, before, strict=True):
                logger.removeHandler(handler)
                logger.propagate = propagates


class _Errors(logging.Handler):
    def __init__(self, errors: list[BaseException]) -> None:
        super().__init__(logging.ERROR)
        self._errors = errors

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        # A request that is no HTTP is the sender's fault.
        if error is not None and not isinstance(error, HttpProcessingError):
            self._errors.append(error)


@cache
def site_of(lane: str, name: str) -> Site:
    """Return the site on this lane that is called *name*, with the options that go with it."""
    return Site(lane, **OPTIONS.get(name, {}))


def cookie_of(answer: Answer) -> bytes | None:
    """Return the cookie that *answer* sets, as a browser sends it back; ``None`` for none."""
    lines = [value for name, value in answer.headers if name == hdrs.SET_COOKIE]
    return lines[0].partition(";")[0].encode() if lines else None


SIGNER: Final = Signer([SECRET, OLD_SECRET])
