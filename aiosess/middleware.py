"""The life of one request: select, open, handle, commit."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, TypeAlias, cast

from aiohttp import web
from aiohttp.http import StreamWriter
from aiohttp.typedefs import Handler, Middleware
from aiohttp_session import STORAGE_KEY

from aiosess.errors import OptionsError
from aiosess.exchange.exchange import Visit
from aiosess.exchange.keys import VISIT, Bridge, NoSessions
from aiosess.exchange.manager import Sessions
from aiosess.interop.borrowed import ForeignVisit
from aiosess.options import SessionOptions
from aiosess.session import SESSION, Session

__all__ = ["SESSION", "get_session", "session_middleware", "setup", "setup_async"]

OptionsFactory: TypeAlias = Callable[..., SessionOptions | Awaitable[SessionOptions]]
CleanupProvider: TypeAlias = Callable[[web.Application], AsyncIterator[None]]


def session_middleware(options: SessionOptions) -> Middleware:
    """Return the middleware that gives requests their sessions.

    Where a handler prepares its response itself (streams, WebSockets), this alone saves the
    changes to a session that the browser has already, but only ``setup`` can send the cookie of a
    new one. Where it is installed twice, the inner one does nothing.
    """
    return _middleware(Sessions(_checked(options)))


def setup(app: web.Application, options: SessionOptions) -> None:
    """Give *app* sessions: the middleware, streamed responses, checks at start-up, clean-up.

    A route in the options that *app* does not have stops the start with OptionsError. A storage
    that opened connections itself is closed with *app*.
    """
    sessions = Sessions(_checked(options))

    async def run(app: web.Application) -> AsyncIterator[None]:
        try:
            sessions.check_routes(app)
            yield
        finally:
            await sessions.close()

    _install(app, sessions, run)


def setup_async(
    app: web.Application,
    *,
    use_factory: OptionsFactory,
    inject: Sequence[web.AppKey[Any]] = (),
    imports: Iterable[CleanupProvider] = (),
) -> None:
    """Give *app* sessions whose options are known only at start-up.

    *imports* are ``cleanup_ctx`` providers that run first; *inject* are the keys whose values in
    *app* are given to *use_factory*, in this order. It is called once, may be async, and returns
    SessionOptions; a failure stops the start.
    """
    if not callable(use_factory):
        raise OptionsError(f"use_factory={use_factory!r} is not callable: give a function")
    sessions = Sessions()

    async def run(app: web.Application) -> AsyncIterator[None]:
        options = use_factory(*(_injected(app, key) for key in inject))
        sessions.configure(_checked(await options if inspect.isawaitable(options) else options))
        try:
            sessions.check_routes(app)
            yield
        finally:
            await sessions.close()

    app.cleanup_ctx.extend(imports)
    _install(app, sessions, run)


def get_session(request: web.Request) -> Coroutine[Any, Any, Session | None]:
    """Return, once awaited, the session of *request*, a new one where the browser has none.

    Return ``None`` where the route gets no session, or the storage does not answer and
    ``retries`` is not set. Raise RuntimeError where no session middleware is installed, and
    HTTPInternalServerError where the storage does not answer after all ``retries``.
    """
    try:
        visit = request[VISIT]
    except KeyError:
        raise RuntimeError(
            "no session middleware is installed: "
            "app.middlewares.append(aiosess.session_middleware(options))"
        ) from None
    return visit.open(request)


_NO_SESSIONS: Final = NoSessions()
# The first spares most responses that their parents are looked at.
_RESPONSES: Final = (web.Response, web.StreamResponse)


class _Done(tuple[()]):
    """What is awaited in no time, for who has to return an awaitable: no coroutine is made."""

    __slots__ = ()
    # A tuple's iterator is as good as a generator here.
    __await__ = cast("Any", tuple).__iter__


_DONE: Final[Awaitable[None]] = _Done()


def _middleware(sessions: Sessions) -> Middleware:
    @web.middleware
    def select(request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]:
        # An empty request, as most are here, saves the look-up of a key that is not there.
        if len(request) and isinstance(request.get(VISIT), Bridge):
            return handler(request)
        is_selected = sessions.decided.get(request.match_info.route)
        if is_selected is None:
            is_selected = sessions.selects(request)
        if not is_selected:
            request[VISIT] = request[STORAGE_KEY] = _NO_SESSIONS
            return handler(request)
        visit: Visit | ForeignVisit
        if sessions.foreign is None:
            visit = Visit(sessions, request)
        else:
            visit = ForeignVisit(sessions.foreign, sessions.options, request)
        request[VISIT] = request[STORAGE_KEY] = visit
        return _serve(sessions, visit, request, handler)

    return select


async def _serve(
    sessions: Sessions, visit: Visit | ForeignVisit, request: web.Request, handler: Handler
) -> web.StreamResponse:
    try:
        if sessions.is_eager:
            await visit.open(request)
        response = await handler(request)
    except web.HTTPException as response_raised:
        await visit.commit(response_raised)
        raise
    except BaseException:
        visit.abandon()
        raise
    else:
        if visit.is_asked and isinstance(response, _RESPONSES):
            rest = visit.end(response)
            if rest is not None:
                await rest
        return response
    finally:
        visit.leave()


def _install(app: web.Application, sessions: Sessions, run: CleanupProvider) -> None:
    app.middlewares.append(_middleware(sessions))
    app.on_response_prepare.append(_on_response_prepare)
    sessions.is_told_of_headers = True
    app.cleanup_ctx.append(run)


def _on_response_prepare(request: web.Request, response: web.StreamResponse) -> Awaitable[None]:
    try:
        visit = request[VISIT]
    except KeyError:
        return _DONE
    if isinstance(visit, NoSessions) or visit.is_ready(response):
        return _DONE
    return _prepare(visit, request, response)


async def _prepare(visit: Bridge[Any], request: web.Request, response: web.StreamResponse) -> None:
    try:
        await visit.prepare(request, response)
    except BaseException:
        visit.abandon()
        _rewind(request, response)
        raise


def _rewind(request: web.Request, response: web.StreamResponse) -> None:
    """Make way for an error in the place of a response that aiohttp began to prepare.

    By now the connection is set to frame the body of *response*, which would garble the error's.
    """
    if response.compression:
        # What was set up for compressing cannot be undone: better cut than garbled.
        request.protocol.force_close()
    elif isinstance(request.writer, StreamWriter):
        request.writer.chunked = False
        request.writer.length = None


def _checked(options: object) -> SessionOptions:
    if not isinstance(options, SessionOptions):
        # Not its value: a dict of options holds the secret.
        raise OptionsError(
            f"options of type {type(options).__name__} must be SessionOptions(secret=...)"
        )
    return options


def _injected(app: web.Application, key: web.AppKey[Any]) -> Any:
    try:
        return app[key]
    except KeyError:
        raise OptionsError(
            f"inject has {key!r}, which the application does not hold: "
            "set it before start-up or in one of imports"
        ) from None
