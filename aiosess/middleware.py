"""The life of one request: select, open, handle, commit."""

from __future__ import annotations

import inspect
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from typing import Any, Final, TypeAlias, cast
from weakref import ref

from aiohttp import web
from aiohttp.http import StreamWriter
from aiohttp.typedefs import Handler, Middleware
from aiohttp_session import STORAGE_KEY

from aiosess.errors import AiosessError, OptionsError, StorageUnavailable
from aiosess.events import Reason, in_words
from aiosess.exchange.exchange import Exchange
from aiosess.exchange.keys import NO_SESSION, NoSession
from aiosess.exchange.manager import EXCHANGE, OURS, SessionManager
from aiosess.exchange.stages import Opening
from aiosess.guard.breaker import NodeHealth
from aiosess.options import SessionOptions
from aiosess.privacy import forget_locals
from aiosess.session import SESSION, Session
from aiosess.spelling import with_usage

__all__ = [
    "SESSION",
    "explain",
    "find_session",
    "get_session",
    "health",
    "session_middleware",
    "setup",
    "setup_async",
]

OptionsFactory: TypeAlias = Callable[..., SessionOptions | Awaitable[SessionOptions]]
CleanupProvider: TypeAlias = Callable[[web.Application], AsyncIterator[None]]


@with_usage("app.middlewares.append(session_middleware(SessionOptions(secret=...)))")
def session_middleware(options: SessionOptions) -> Middleware:
    """Return the middleware that gives requests their sessions.

    The middleware alone saves what streams and WebSockets change in a session that the browser has
    already. Only ``setup`` can send the cookie of a new one there. Where the middleware is
    installed twice, the inner one does nothing.
    """
    return _Slot(SessionManager(_checked(options))).middleware


@with_usage("setup(app, SessionOptions(secret=...))")
def setup(app: web.Application, options: SessionOptions) -> None:
    """Give *app* sessions: the middleware, streamed responses, checks at start-up, clean-up.

    A route in the options that *app* does not have stops the start with OptionsError. A storage
    that opened connections itself is closed with *app*. Raise RuntimeError where *app* has started,
    or was added to another one by ``add_subapp``.

    What the signal ``on_response_prepare`` changes in a session is kept. To a sub-application, add
    such signals before ``setup``: those that come later are too late for the cookie of a new one.
    """
    slot = _Slot(SessionManager(_checked(options)))

    async def run(app: web.Application) -> AsyncIterator[None]:
        try:
            _begin_to_serve(app, slot)
            yield
        finally:
            await slot.manager.close()

    _install(app, slot, run)


@with_usage("setup_async(app, use_factory=f), where f returns SessionOptions(secret=...)")
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
    SessionOptions; a failure stops the start. Raise OptionsError for arguments that make no sense,
    and RuntimeError as ``setup`` does.
    """
    if not callable(use_factory):
        raise OptionsError(f"use_factory={use_factory!r} is not callable: give a function")
    for option, given in (("inject", inject), ("imports", imports)):
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise OptionsError(f"{option}={given!r} must be a list: {option}=[{given!r}]")
    slot = _Slot()

    async def run(app: web.Application) -> AsyncIterator[None]:
        options = use_factory(*(_injected(app, key) for key in inject))
        slot.manager = SessionManager(
            _checked(await options if inspect.isawaitable(options) else options)
        )
        try:
            _begin_to_serve(app, slot)
            yield
        finally:
            await slot.manager.close()

    _install(app, slot, run, imports)


def get_session(request: web.Request) -> Coroutine[Any, Any, Session]:
    """Return, once awaited, the session of *request*, a new one where the browser has none.

    Raise what ``on_unavailable`` says where the storage does not answer, SessionError where the
    path is not under the cookie's. Raise RuntimeError where the route gets no session, or no
    session middleware is installed in front of the caller. A call in ``genid`` or ``cookie`` of the
    options gets that error too, since these are called first. ``find_session`` is for handlers that
    can do without.
    """
    try:
        exchange = request[EXCHANGE]
    except KeyError:
        exchange = _exchange_elsewhere(request)
    return exchange.open(request)


def find_session(
    request: web.Request, *, passive: bool = False
) -> Coroutine[Any, Any, Session | None]:
    """Return, once awaited, the session of *request*, or ``None`` where it gets none.

    There is none where the route is not selected, where the path is not under the cookie's, and
    where the storage does not answer and ``retries`` is not set. Raise what ``on_unavailable``
    says where it does not answer after all ``retries``. Raise RuntimeError where no session
    middleware is installed in front of the caller.

    *passive*: asking is no activity, as where a page polls. The session does not live longer by it,
    and no cookie is sent, unless it is changed, or asked for as usual in this request as well.
    """
    try:
        exchange = request[EXCHANGE]
    except KeyError:
        exchange = _exchange_elsewhere(request)
    if passive:
        return exchange.open_passively(request)
    return exchange.open(request, required=False)


def explain(request: web.Request) -> str:
    """Return what was decided about the session of *request*, and why, for people to read."""
    exchange = request.get(EXCHANGE) or _of_clone(request)
    if exchange is None:
        return "no session middleware was at this request"
    if isinstance(exchange, NoSession):
        return Reason.NOT_SELECTED.words
    return in_words(exchange.decisions())


async def health(app: web.Application) -> tuple[NodeHealth, ...]:
    """Return the health of each node of the back-end that *app*'s sessions have used so far.

    For a readiness endpoint: ``all(node.is_well for node in await health(app))``. A node that is
    not well is asked again, where that is due: so it gets well also where no request comes.
    Sessions in memory have no nodes. Raise RuntimeError where ``setup`` was not called, and after
    ``setup_async`` until the application has started.
    """
    slots = app.get(_SLOTS)
    if slots is None:
        raise RuntimeError(
            "this application has no sessions by aiosess.setup(app, options), and without that "
            "nothing is known of their storage"
        )
    if not all(hasattr(slot, "manager") for slot in slots):
        raise RuntimeError(
            "the application has not started: setup_async() makes its sessions when it does"
        )
    known = [await slot.manager.health() for slot in slots]
    return tuple(each for nodes in known for each in nodes)


# The first spares most responses that their parents are looked at.
_RESPONSES: Final = (web.Response, web.StreamResponse)


class _Done(tuple[()]):
    """What is awaited in no time, for who has to return an awaitable: no coroutine is made."""

    __slots__ = ()
    # A tuple's iterator is as good as a generator here.
    __await__ = cast("Any", tuple).__iter__


_DONE: Final[Awaitable[None]] = _Done()


class _Slot:
    """Where the middleware finds the session manager, which setup_async() fills in at start-up."""

    manager: SessionManager
    middleware: Middleware

    def __init__(self, manager: SessionManager | None = None) -> None:
        if manager is not None:
            self.manager = manager
        self.middleware = _middleware(self)
        OURS[self.middleware] = ref(self)

    async def stop_watching(self, _app: web.Application) -> None:
        """Close the sockets whose sessions are watched, before anybody waits for their handlers."""
        await self.manager.stop_watching()


# So many keys every request has from us: to ask for one that it has not takes an exception.
_OUR_KEYS: Final = 2
_SLOTS: Final = web.AppKey("aiosess.slots", list[_Slot])


def _middleware(slot: _Slot) -> Middleware:
    @web.middleware
    def select(request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]:
        manager = slot.manager
        # Both spare most requests the look-up of a key that is not there.
        if (
            manager.may_come_second
            and len(request)
            and isinstance(found := request.get(EXCHANGE), Exchange)
        ):
            if found.ahead_of is manager:
                found.ahead_of = None
                return _serve(manager, found, request, handler)
            if found.manager is not manager or not found.is_at_its_end:
                # Installed twice: the inner one does nothing.
                manager.check_alone(found.manager, request)
                return handler(request)
            # Somebody in front of ours calls the handler again, and that begins anew.
            found.make_way()
        is_selected = manager.decided.get(request.match_info.route)
        if not is_selected:
            if is_selected is None:
                is_selected = manager.selects(request)
            if not is_selected:
                request[EXCHANGE] = request[STORAGE_KEY] = NO_SESSION
                if manager.events.is_heard:
                    manager.events.tell_decisions((Reason.NOT_SELECTED,), request=request)
                return handler(request)
        request[EXCHANGE] = request[STORAGE_KEY] = exchange = manager.exchange(manager, request)
        return _serve(manager, exchange, request, handler)

    return select


async def _serve(
    manager: SessionManager, exchange: Exchange, request: web.Request, handler: Handler
) -> web.StreamResponse:
    try:
        if manager.is_eager:
            await exchange.open(request, required=False)
        response = await handler(request)
        if not isinstance(response, _RESPONSES):
            raise RuntimeError(  # noqa: TRY004 - it is what aiohttp_session raises
                f"Expect response, not {type(response)!r}: "
                "the handler must return a web.StreamResponse"
            )
    except web.HTTPException as response_raised:
        await exchange.commit(response_raised)
        raise
    except StorageUnavailable as error:
        # What a handler asked for by itself, and did not catch, gets what the options say, too.
        exchange.abandon()
        manager.outage.refuse(request, error, has_left=exchange.has_left)
    except BaseException as error:
        exchange.abandon()
        _explain(error, exchange)
        raise
    # Where nobody asked for it, what somebody put in its place is refused at the end.
    if exchange.opening or (len(request) > _OUR_KEYS and SESSION in request):
        rest = exchange.end(response)
        if rest is not None:
            try:
                await rest
            except (AiosessError, web.HTTPException) as error:
                forget_locals(error)
                raise
    elif not manager.is_told_of_headers:
        exchange.leave()
    return response


def _explain(error: BaseException, exchange: Exchange) -> None:
    """Note in *error*, where that is a usual mistake in Python's words, what to write."""
    if not isinstance(error, TypeError | AttributeError):
        return
    words = str(error)
    if "'coroutine'" in words and exchange.opening is Opening.ASKED:
        error.add_note(
            "The coroutine may be the session, which is there once it is awaited: "
            "session = await get_session(request)"
        )
    elif "Session" in words and "JSON" in words:
        error.add_note("A session is no dict, and JSON takes a copy of its data: dict(session)")


def _install(
    app: web.Application, slot: _Slot, run: CleanupProvider, imports: Iterable[CleanupProvider] = ()
) -> None:
    if app.pre_frozen:
        raise RuntimeError(
            "the application has started, or is part of another one already: call setup() before "
            "it is run, and before add_subapp()"
        )
    app.middlewares.append(slot.middleware)
    app.on_response_prepare.append(_on_response_prepare)
    app.on_shutdown.append(slot.stop_watching)
    app.setdefault(_SLOTS, []).append(slot)
    app.cleanup_ctx.extend((*imports, run))


def _begin_to_serve(app: web.Application, slot: _Slot) -> None:
    """Check the routes of *app*, and get ready for its requests."""
    manager = slot.manager
    manager.be_told_of_headers()
    if manager.watcher is not None:
        manager.watcher.open()
    manager.check_routes(app)
    manager.claim_routes(app)
    _hear_last(app)
    # Somebody in front of ours may clone requests; a sub-application is frozen already.
    if app.middlewares.frozen or app.middlewares[0] is not slot.middleware:
        manager.share_exchanges()
    else:
        manager.may_come_second = False


def _hear_last(app: web.Application) -> None:
    """Let our signal be the last, so that what the application's own ones change is kept."""
    signals = app.on_response_prepare
    if not signals.frozen:
        signals.remove(_on_response_prepare)
        signals.append(_on_response_prepare)


def _managers(request: web.Request) -> Iterator[SessionManager]:
    """Go through those who serve *request* by ``setup``, from the outermost application inwards."""
    for app in request.match_info.apps:
        for slot in app.get(_SLOTS, ()):
            yield slot.manager


def _of_clone(request: web.Request) -> Exchange | None:
    """Return the exchange that a clone of *request* has; ``None`` where there is none."""
    for manager in _managers(request):
        found = manager.exchange_of_clone(request)
        if found is not None:
            return found
    return None


def _exchange_elsewhere(request: web.Request) -> Exchange | NoSession:
    """Return the exchange of a request in which there is none; RuntimeError where none can be."""
    exchange = _of_clone(request) or _begun_ahead(request)
    if exchange is None:
        installed = [each for app in request.match_info.apps for each in app.middlewares]
        missing = (
            "no session middleware is installed, or it stands behind the middleware that asks"
            if not any(each in OURS for each in installed)
            else "the session middleware stands behind the middleware that asks"
        )
        raise RuntimeError(
            f"{missing}: aiosess.setup(app, options) serves all of them, and "
            "app.middlewares.append(aiosess.session_middleware(options)) those that come after it"
        )
    return exchange


def _begun_ahead(request: web.Request) -> Exchange | NoSession | None:
    """Return the exchange that our middleware, which is still to come, will go on with.

    ``None`` where sessions were not installed by ``setup``.
    """
    found: NoSession | None = None
    for manager in _managers(request):
        if manager.selects(request):
            request[EXCHANGE] = request[STORAGE_KEY] = exchange = manager.exchange(manager, request)
            exchange.ahead_of = manager
            return exchange
        found = NO_SESSION
    return found


def _on_response_prepare(request: web.Request, response: web.StreamResponse) -> Awaitable[None]:
    try:
        exchange = request[EXCHANGE]
    except KeyError:
        exchange = _of_clone(request) or NO_SESSION
    return _DONE if exchange.let_go(response) else _prepare(exchange, request, response)


async def _prepare(
    exchange: Exchange | NoSession, request: web.Request, response: web.StreamResponse
) -> None:
    try:
        await exchange.prepare(response)
    except BaseException as error:
        forget_locals(error)
        exchange.abandon()
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
