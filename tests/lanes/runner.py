"""Runs one case on one lane, and returns all that can be seen of it, line by line."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final, cast
from unittest import mock

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from multidict import CIMultiDict

from aiosess import CookieOptions, SessionOptions, session_middleware, setup
from aiosess.exchange import acting
from aiosess.principals import Principals
from aiosess.records.bonds import Bond
from aiosess.testing import FakeClock
from aiosess.transports.signing import Signer
from tests.lanes.backend import Backend, PunctualBackend, Records, TouchingBackend
from tests.lanes.cases import Around, Case, End, Request
from tests.lanes.lanes import Lane, driving
from tests.lanes.steps import Scene, play, told
from tests.lanes.wire import Answer, Wire

__all__ = ["observed"]

_SECRET: Final = "the first secret of the lanes, long enough to be quiet"
_OLD_SECRET: Final = "the secret before, which is still accepted by the lanes"
_BACKENDS: Final[dict[str, type[Backend]]] = {
    "plain": Backend,
    "punctual": PunctualBackend,
    "touching": TouchingBackend,
}
_FILE: Final = Path(__file__).with_name("__init__.py")
# Longer than any case takes: what is not over by then hangs.
_LONGEST: Final = 5.0
_MADE_ID: Final = re.compile(r"\b(?:made|theirs)-\d+\b")
# What may differ from one lane to the other, or from run to run, and tells nothing.
_LOOSE: Final = re.compile(r"0x[0-9a-f]+|'\w+' object")


async def observed(case: Case, lane: Lane) -> list[str]:
    """Return all that can be seen of *case* on *lane*.

    That is what each step returned or raised, each call of the storage, the answers, the log, and
    what is kept in the end. The ids that were made are named in the order in which they appear.
    """
    clock = FakeClock()
    stage = _Stage(case, clock)
    others = asyncio.all_tasks()
    handles = mock.patch.object(acting, "new_handle", stage.made_handle)
    with driving(lane), handles, _heard(stage.note):
        try:
            async with asyncio.timeout(_LONGEST):
                await _run(stage, others)
        except TimeoutError:
            stage.note("it hangs")
            await _cancel(asyncio.all_tasks() - others)
    return _with_names(stage.lines + await stage.records.shown())


class _Stage:
    """What all that happens in one case has in common."""

    def __init__(self, case: Case, clock: FakeClock) -> None:
        self.case = case
        self.clock = clock
        self.lines: list[str] = []
        self.backend = _BACKENDS[case.storage](self.note, clock, is_slow=case.is_slow)
        self.cookie = _cookie(case)
        self.records = Records(
            self.backend, clock, self.cookie.resolve(is_secure=case.is_encrypted)
        )
        self.signer = Signer([_SECRET, _OLD_SECRET])
        self.session_id = ""
        self.request = Request()
        self.handled: Scene | None = None
        self.wire: Wire | None = None
        self._made = self._theirs = self._handles = 0
        self._principals: Principals | None = None
        self._tasks: set[asyncio.Future[None]] = set()

    def note(self, line: str) -> None:
        self.lines.append(line)

    def made_id(self, _request: web.Request) -> str:
        self._made += 1
        return (
            "apple" if self.case.options.is_id_taken and self._made == 1 else f"made-{self._made}"
        )

    def made_handle(self) -> str:
        self._handles += 1
        return f"handle-{self._handles:09}"

    async def revoke(self, principal: str) -> None:
        if self._principals is not None:
            await self._principals.revoke(principal)

    def their_id(self) -> str:
        self._theirs += 1
        return f"theirs-{self._theirs}"

    def begin(self, act: Coroutine[Any, Any, object]) -> None:
        async def noted() -> None:
            try:
                self.note(f"beside the request: {await act!r}")
            except Exception as error:  # noqa: BLE001 - whatever it is, it is seen
                self.note(f"beside the request: {told(error)}")

        task = asyncio.ensure_future(noted())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def hang_up(self) -> None:
        if self.wire is not None:
            self.wire.hang_up()

    def cookie_of(self, _request: web.Request) -> CookieOptions:
        return self.cookie

    async def awaited_cookie_of(self, _request: web.Request) -> CookieOptions:
        await asyncio.sleep(0)
        return self.cookie

    def options(self) -> SessionOptions:
        """Return the options of the application."""
        given = self.case.options
        cookies: dict[str, Any] = {
            "given": self.cookie,
            "by a function": self.cookie_of,
            "by a coroutine": self.awaited_cookie_of,
        }
        options = SessionOptions(
            secret=[_SECRET, _OLD_SECRET],
            storage=self.backend,
            name=given.name,
            cookie=cookies[given.cookie],
            genid=self.made_id,
            clock=self.clock,
            proxy=given.proxy,
            resave=given.resave,
            rolling=given.rolling,
            save_uninitialized=given.save_uninitialized,
            unset=given.unset,
            absolute_timeout=given.absolute_timeout,
            retries=given.retries,
            timeout=_LONGEST,
            on_unavailable=(
                "anonymous" if given.on_unavailable == "anonymous" else web.HTTPServiceUnavailable
            ),
            renew_grace=given.renew_grace,
            merge=given.merge,
            load=given.load,
            touch_after=given.touch_after,
            max_record_size=given.max_record_size,
            version=given.version,
            on_reuse=given.on_reuse,
            migrate=None if given.version is None else _brought_up,
        )
        if given.max_sessions:
            self._principals = Principals(options, max_sessions=given.max_sessions)
        return options


def _cookie(case: Case) -> CookieOptions:
    given = case.options
    return CookieOptions(path=given.path, max_age=given.max_age, secure=given.secure)


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _run(stage: _Stage, others: set[asyncio.Task[Any]]) -> None:
    """Send the requests of a case; *others* are the tasks that do not belong to it."""
    case = stage.case
    browser = _Browser(stage, await _arrival(stage))
    runner = web.AppRunner(
        _application(stage), handler_cancellation=case.is_cancelling, access_log=None
    )
    await runner.setup()
    server = runner.server
    if server is None:
        raise RuntimeError("the application did not start")
    for number, request in enumerate(case.requests, start=1):
        stage.note(f"request {number}")
        stage.request, stage.handled = request, None
        stage.clock.advance(request.later)
        headers = browser.headers(request)
        stage.wire = Wire(server, is_encrypted=case.is_encrypted)
        answer = await stage.wire.ask("/shop/cart", headers)
        await _all_is_done(others)
        browser.take(answer)
        if stage.handled is not None and request.afterwards:
            stage.begin(play(stage.handled, request.afterwards))
            await _all_is_done(others)
    await runner.cleanup()


async def _all_is_done(others: set[asyncio.Task[Any]]) -> None:
    """Wait for the tasks that the case has begun."""
    while tasks := asyncio.all_tasks() - others:
        await asyncio.wait(tasks)


# The browser.


class _Browser:
    """Holds the cookie, and shows it as a person can read it."""

    def __init__(self, stage: _Stage, cookies: list[str]) -> None:
        self._stage = stage
        self._first = self._cookies = cookies
        self._name = stage.case.options.name

    def headers(self, request: Request) -> dict[str, str]:
        """Return the headers of a request, with the cookie that came first or came last."""
        cookies = self._first if request.first_cookie_again else self._cookies
        name = f"x{self._name}" if request.is_misnamed else self._name
        signed = filter(None, map(self._stage.signer.unsign, cookies))
        self._stage.session_id = next((each.session_id for each in signed), "none")
        headers = {"Cookie": "; ".join(f"{name}={value}" for value in cookies)}
        if self._stage.case.options.proxy is not None:
            headers[hdrs.X_FORWARDED_PROTO] = "https"
        return headers if cookies else {**headers, "Cookie": "other=1"}

    def take(self, answer: Answer) -> None:
        """Keep the cookie of *answer*, and note the whole."""
        note = self._stage.note
        note(f"answer {answer.status}: {answer.body}")
        for name, value in sorted(answer.headers):
            if name == hdrs.SET_COOKIE and value.startswith(self._name + "="):
                note(f"  Set-Cookie: {self._taken(value)}")
            else:
                note(f"  {name}: {value}")

    def _taken(self, set_cookie: str) -> str:
        value, _, attributes = set_cookie.removeprefix(self._name + "=").partition(";")
        self._cookies = [value] if value else []
        if not value:
            return f"cleared;{attributes}"
        signed = self._stage.signer.unsign(value)
        shown = repr(value) if signed is None else f"{signed.session_id}, {signed.is_current}"
        return f"{shown};{attributes}"


_BOND: Final = Bond("handle-of-apple0", "me", 1)
_REMEMBERED: Final[dict[str, dict[str, Any]]] = {
    "by a newer version": {"later": [1]},
    "by an older application": {"version": 1},
    "by a newer application": {"version": 5},
}


def _brought_up(data: dict[str, Any], was: int) -> dict[str, Any]:
    return {**data, "was": was}


async def _arrival(stage: _Stage) -> list[str]:
    """Keep the records that are there at first, and return the cookies of the browser."""
    records, sign = stage.records, stage.signer.sign
    data: dict[str, Any] = {"n": 1, "cart": ["a"], "deep": {"tags": {"count": 1}}}
    # Where principals are known, somebody has logged in, and the index has forgotten that.
    bond = _BOND if stage.case.options.max_sessions else None
    await records.keep("apple", data, bond=bond)
    ours, pear, came = sign("apple"), sign("pear"), stage.case.came
    match came:
        case "renewed a moment ago":
            await records.lead("pear", "apple", 8)
        case "renewed long ago":
            await records.lead("pear", "apple", -1)
        case "ended a moment ago":
            await records.lead("pear", "", 0)
        case "by Express":
            await records.keep_by_express("pear", data)
        case "unreadable":
            await records.put("pear", b"{not a record")
        case "with attributes of its own":
            await records.keep("pear", data, own={"max_age": 500.0, "httponly": False})
        case "very old":
            await records.keep("pear", data, age=199_000)
        case "copied from another id":
            await records.keep("pear", data, of="peach")
        case "by a newer version" | "by an older application" | "by a newer application":
            await records.keep("pear", data, unknown=_REMEMBERED[came])
        case _:
            # Under this id there is nothing.
            pass
    sent = {
        "nothing": [],
        "ours": [ours],
        "signed by the old secret": [Signer(_OLD_SECRET).sign("apple")],
        "badly signed": [Signer("somebody else's secret, as long as ours").sign("apple")],
        "badly signed, then ours": ["s%3Aapple.planted", ours],
        "unknown, then ours": [pear, ours],
    }
    return sent.get(came, [pear])


# The application.


def _application(stage: _Stage) -> web.Application:
    app = web.Application()
    app.router.add_get("/{tail:.*}", _handler(stage))
    app.middlewares.append(_middleware(stage, "outer", lambda: stage.request.outer))
    app.on_response_prepare.append(_signal(stage, "signal before", "signal_before"))
    if stage.case.by == "setup":
        setup(app, stage.options())
    else:
        app.middlewares.append(session_middleware(stage.options()))
    app.middlewares.append(_middleware(stage, "inner", lambda: stage.request.inner))
    app.on_response_prepare.append(_signal(stage, "signal after", "signal_after"))
    return app


def _signal(
    stage: _Stage, who: str, field: str
) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    async def signal(request: web.Request, response: web.StreamResponse) -> None:
        await play(Scene(stage, who, request, response.headers), getattr(stage.request, field))

    return signal


def _middleware(stage: _Stage, who: str, around: Callable[[], Around]) -> Middleware:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        does = around()
        before = Scene(stage, who, request, CIMultiDict(), finds=does.finds)
        await play(before, does.before)
        response: web.StreamResponse
        raised: Exception | None = None
        try:
            response = await handler(request.clone() if does.clones else request)
        except web.HTTPException as error:
            stage.note(f"{who} gets {told(error)}")
            # An HTTP error is a response, too.
            response, raised = error, error
        except Exception as error:  # noqa: BLE001 - error pages catch all
            stage.note(f"{who} gets {told(error)}")
            response, raised = web.Response(status=500, text="sorry"), error
        after = Scene(stage, who, request, response.headers, finds=does.finds)
        await play(after, does.after)
        if does.replaces:
            return web.Response(text=f"from the {who} middleware", status=response.status)
        if raised is not None:
            raise raised
        return response

    return middleware


def _handler(stage: _Stage) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        does = stage.request
        scene = stage.handled = Scene(stage, "handler", request, CIMultiDict())
        await play(scene, does.steps, raises=True)
        if does.end.startswith("stream"):
            return await _stream(scene, does)
        return _response(scene, does.end)

    return handler


def _response(scene: Scene, end: End) -> web.StreamResponse:
    match end:
        case "redirect":
            raise web.HTTPFound("/elsewhere", headers=scene.headers)
        case "error":
            raise RuntimeError("told to fail")
        case "file":
            return web.FileResponse(_FILE, headers=scene.headers)
        case "unprepared stream":
            return web.StreamResponse(headers=scene.headers)
        case _:
            return web.Response(text="hello", headers=scene.headers)


async def _stream(scene: Scene, does: Request) -> web.StreamResponse:
    response = web.StreamResponse(headers=scene.headers)
    await response.prepare(scene.request)
    await response.write(b"hello")
    await play(scene, does.late, raises=True)
    match does.end:
        case "stream, then redirect":
            raise web.HTTPFound("/elsewhere")
        case "stream, then error":
            raise RuntimeError("told to fail")
        case "stream, then response":
            return web.Response(text="another")
        case _:
            return response


# The log.


class _Noting(logging.Handler):
    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__()
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        raised = "" if error is None else f" {told(error)}"
        self._note(f"log {record.levelname} {record.name}: {record.getMessage()}{raised}")


@contextlib.contextmanager
def _logged(note: Callable[[str], None]) -> Iterator[None]:
    """Note each line of the log, and let nobody else see it."""
    handler = _Noting(note)
    with contextlib.ExitStack() as stack:
        for name in ("aiosess", "aiohttp.server"):
            logger = logging.getLogger(name)
            before = logger.level, logger.propagate
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
            logger.propagate = False
            stack.callback(logger.removeHandler, handler)
            stack.callback(logger.setLevel, before[0])
            stack.callback(setattr, logger, "propagate", before[1])
        yield


@contextlib.contextmanager
def _warned(note: Callable[[str], None]) -> Iterator[None]:
    """Note that a coroutine was never awaited; other warnings are not ours."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, RuntimeWarning):
            note("warning: a coroutine was never awaited")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = cast("Any", show)
        yield


@contextlib.contextmanager
def _unhandled(note: Callable[[str], None]) -> Iterator[None]:
    """Note, at the end, each error that nobody asked a task for."""
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[Any]] = []
    before = loop.get_task_factory()

    def make(loop: asyncio.AbstractEventLoop, act: Any, **rest: Any) -> asyncio.Task[Any]:
        tasks.append(asyncio.Task(act, loop=loop, **rest))
        return tasks[-1]

    loop.set_task_factory(cast("Any", make))
    yield
    loop.set_task_factory(before)
    for task in tasks:
        # The loop would tell of it as well, but only when the task is freed, sooner or later.
        is_asked = not getattr(task, "_log_traceback", False)
        if task.done() and not task.cancelled() and not is_asked:
            note(f"unhandled: {task.exception()!r}")


@contextlib.contextmanager
def _heard(note: Callable[[str], None]) -> Iterator[None]:
    """Note what is logged, warned of, and not handled."""
    with _logged(note), _warned(note), _unhandled(note):
        yield


def _with_names(lines: list[str]) -> list[str]:
    names: dict[str, str] = {}

    def name(found: re.Match[str]) -> str:
        return names.setdefault(found[0], f"id-{len(names) + 1}")

    return [_LOOSE.sub("...", _MADE_ID.sub(name, line)) for line in lines]
