"""What counts is the session when the headers leave, whoever changed it and wherever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import aiohttp_session
import pytest
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from aiohttp_security import (
    AbstractAuthorizationPolicy,
    SessionIdentityPolicy,
    remember,
)
from aiohttp_security import setup as setup_security
from pytest_aiohttp import AiohttpClient

from aiosess import (
    SESSION,
    CookieOptions,
    Session,
    Storage,
    find_session,
    get_session,
    session_middleware,
    setup,
)
from aiosess.testing import FaultyStorage
from tests.conftest import MakeOptions
from tests.web.conftest import Client
from tests.web.handlers import (
    cookies_set,
    keep,
    kept,
    leave_alone,
    put,
    session_of,
    show,
    signed,
    views,
)

Act = Callable[[web.Request], Awaitable[object]]


def after(act: Act, path: str = "/views", *, answers: bool = False) -> Middleware:
    """Return a middleware that does *act* after the handler, and may answer by itself."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        raised: web.HTTPException | None = None
        response: web.StreamResponse
        try:
            response = await handler(request)
        except web.HTTPException as error:
            response = raised = error
        if request.path == path:
            await act(request)
            if answers:
                return web.Response(text="answered outside")
        if raised is not None:
            raise raised
        return response

    return middleware


def before(act: Act, path: str = "/views", *, answers: bool = False) -> Middleware:
    """Return a middleware that does *act* before the handler, and may answer in its place."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path == path:
            await act(request)
            if answers:
                return web.Response(text="answered outside")
        return await handler(request)

    return middleware


class Within(Protocol):
    """Serve handlers behind middlewares that stand outside of the sessions."""

    async def __call__(
        self,
        *middlewares: Middleware,
        bare: bool = False,
        handlers: Sequence[Handler] = (),
        **options: Any,
    ) -> Client: ...


async def missing(_request: web.Request) -> web.Response:
    """Say that there is nothing, without asking for the session."""
    raise web.HTTPNotFound


@pytest.fixture
def within(make_options: MakeOptions, aiohttp_client: AiohttpClient) -> Within:
    async def serve(
        *middlewares: Middleware,
        bare: bool = False,
        handlers: Sequence[Handler] = (),
        **options: Any,
    ) -> Client:
        app = web.Application(middlewares=middlewares)
        if bare:
            app.middlewares.append(session_middleware(make_options(**options)))
        else:
            setup(app, make_options(**options))
        for handler in (views, show, put, leave_alone, missing, *handlers):
            app.router.add_get(f"/{handler.__name__}", handler)
        return await aiohttp_client(app)

    return serve


async def note(request: web.Request) -> None:
    (await session_of(request))["outside"] = True


async def note_inside(request: web.Request) -> None:
    session = await session_of(request)
    session.setdefault("notes", []).append("outside")


async def note_in_hand(request: web.Request) -> None:
    request[SESSION]["outside"] = True


async def renew(request: web.Request) -> None:
    await (await session_of(request)).renew_id()


async def renew_and_save(request: web.Request) -> None:
    session = await session_of(request)
    await session.renew_id()
    await session.save()


async def renew_and_count(request: web.Request) -> None:
    session = await session_of(request)
    await session.renew_id()
    await session.atomic(lambda newest: newest.update(counted=True))


async def regenerate(request: web.Request) -> None:
    session = await session_of(request)
    await session.regenerate()
    session["outside"] = True


async def begin_anew(request: web.Request) -> None:
    (await aiohttp_session.new_session(request))["outside"] = True


async def log_in(request: web.Request) -> None:
    (await session_of(request))["AIOHTTP_SECURITY"] = "ann"


async def remember_longer(request: web.Request) -> None:
    (await session_of(request)).cookie.max_age = 7777


async def destroy(request: web.Request) -> None:
    await (await session_of(request)).destroy()


async def invalidate(request: web.Request) -> None:
    (await session_of(request)).invalidate()


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rolling": {"rolling": True},
    "max_age": {"cookie": CookieOptions(max_age=600)},
}
IDS: dict[str, tuple[Act, dict[str, Any]]] = {
    "renew_id": (renew, {"views": 1}),
    "renew_id and save": (renew_and_save, {"views": 1}),
    "renew_id and atomic": (renew_and_count, {"views": 1, "counted": True}),
    "regenerate": (regenerate, {"outside": True}),
    "new_session": (begin_anew, {"outside": True}),
    "a login": (log_in, {"views": 1, "AIOHTTP_SECURITY": "ann"}),
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize(("act", "data"), IDS.values(), ids=IDS)
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "known"])
async def test_a_browser_gets_the_id_that_a_middleware_outside_gave_its_session(
    *, within: Within, options: dict[str, Any], act: Act, data: dict[str, Any], is_new: bool
) -> None:
    client = await within(after(act), **options)
    if not is_new:
        await client.get("/put")

    response = await client.get("/views")
    seen = await (await client.get("/show")).json()

    assert response.status == 200
    assert len(cookies_set(response)) == 1
    assert seen["new"] is False
    assert seen["data"] == data


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "known"])
async def test_a_browser_gets_the_cookie_as_a_middleware_outside_left_it(
    *, within: Within, options: dict[str, Any], is_new: bool
) -> None:
    client = await within(after(remember_longer), **options)
    if not is_new:
        await client.get("/put?n=1")

    response = await client.get("/views")

    (cookie,) = cookies_set(response)
    assert "Max-Age=7777" in cookie


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("act", [destroy, invalidate])
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "known"])
async def test_a_session_that_a_middleware_outside_ended_is_over_in_the_browser_too(
    *, within: Within, options: dict[str, Any], act: Act, is_new: bool
) -> None:
    client = await within(after(act), **options)
    if not is_new:
        await client.get("/put?n=1")

    response = await client.get("/views")
    seen = await (await client.get("/show")).json()

    assert [cookie.partition(";")[0] for cookie in cookies_set(response)] == ["sid="]
    assert seen["new"] is True


CHANGES: dict[str, tuple[Act, dict[str, Any]]] = {
    "a value": (note, {"outside": True}),
    "inside a value": (note_inside, {"notes": ["outside"]}),
}


@pytest.mark.parametrize("path", ["/views", "/leave_alone", "/missing", "/nowhere"])
@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("answers", [True, False], ids=["answers", "passes on"])
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "known"])
async def test_an_error_page_outside_keeps_what_it_changes(
    *,
    within: Within,
    path: str,
    change: Act,
    expected: dict[str, Any],
    answers: bool,
    is_new: bool,
) -> None:
    client = await within(after(change, path, answers=answers))
    if not is_new:
        await client.get("/put?known=yes")

    await client.get(path)
    seen = await (await client.get("/show")).json()

    assert expected.items() <= seen["data"].items()
    assert ("known" in seen["data"]) is not is_new


@pytest.mark.parametrize("path", ["/views", "/leave_alone", "/missing", "/nowhere"])
@pytest.mark.parametrize("answers", [True, False], ids=["answers", "passes on"])
async def test_with_the_middleware_alone_a_known_session_keeps_what_is_changed_outside(
    *, within: Within, storage: Storage, path: str, answers: bool
) -> None:
    await keep(storage, "apple", known=True)
    client = await within(after(note, path, answers=answers), bare=True)

    await client.get(path, headers=signed("apple"))
    await client.get("/show", headers=signed("apple"))

    data = await kept(storage, "apple")
    assert data is not None
    assert data["outside"] is True


@pytest.mark.parametrize("path", ["/views", "/leave_alone", "/missing", "/nowhere"])
async def test_with_the_middleware_alone_the_log_says_what_to_do_for_a_change_that_is_lost(
    within: Within, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = await within(after(note, path), bare=True, save_uninitialized=False)

    await client.get(path)
    await client.get("/show")

    lost = [each.getMessage() for each in caplog.records if "too late" in each.getMessage()]
    if path != "/views":
        assert len(lost) == 1
        assert "aiosess.setup(app, options)" in lost[0]
    else:
        # The handler has put something in, so that the browser has a cookie.
        assert lost == []


@pytest.mark.parametrize("act", [renew, regenerate, begin_anew])
async def test_with_the_middleware_alone_a_new_id_that_cannot_be_sent_is_an_error(
    within: Within, act: Act, caplog: pytest.LogCaptureFixture
) -> None:
    client = await within(after(act), bare=True)
    await client.get("/put?n=1")

    response = await client.get("/views")
    seen = await (await client.get("/show")).json()

    assert response.status == 500
    assert "SessionNotSent: the id cannot change any more" in caplog.text
    assert seen["data"] == {"n": "1", "views": 1}


async def test_with_the_middleware_alone_what_is_saved_outside_is_kept(
    within: Within, storage: Storage
) -> None:
    answers: list[bool] = []

    async def note_and_save(request: web.Request) -> None:
        await note(request)
        answers.append(await request[SESSION].save())

    await keep(storage, "apple")
    client = await within(after(note_and_save), bare=True)

    await client.get("/views", headers=signed("apple"))

    assert answers == [True]
    assert await kept(storage, "apple") == {"views": 1, "outside": True}


# In front of ours.


async def test_a_middleware_in_front_of_ours_gets_the_session_before_the_handler_runs(
    within: Within,
) -> None:
    client = await within(before(note))

    await client.get("/views")
    seen = await (await client.get("/show")).json()

    assert seen["data"] == {"outside": True, "views": 1}


async def test_what_a_middleware_in_front_of_ours_opened_is_loaded_once(
    make_options: MakeOptions, storage: Storage, aiohttp_client: AiohttpClient
) -> None:
    seen: list[Session | None] = []

    async def look(request: web.Request) -> web.Response:
        await ask(request)
        return web.Response()

    async def ask(request: web.Request) -> None:
        seen.append(await find_session(request))

    app = web.Application(middlewares=[before(ask, "/look")])
    setup(app, make_options())
    app.router.add_get("/look", look)
    client = await aiohttp_client(app)

    await client.get("/look")

    assert seen[0] is seen[1] is not None


async def test_a_middleware_in_front_of_ours_that_answers_by_itself_keeps_its_change(
    within: Within,
) -> None:
    client = await within(before(note, answers=True))

    response = await client.get("/views")
    seen = await (await client.get("/show")).json()

    assert await response.text() == "answered outside"
    assert seen["data"] == {"outside": True}


async def test_a_middleware_of_the_parent_gets_the_session_of_a_sub_application(
    make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    sub = web.Application()
    setup(sub, make_options())
    sub.router.add_get("/views", views)
    sub.router.add_get("/show", show)
    app = web.Application(
        middlewares=[before(note, "/sub/views"), after(note_inside, "/sub/views")]
    )
    app.add_subapp("/sub", sub)
    client = await aiohttp_client(app)

    await client.get("/sub/views")
    seen = await (await client.get("/sub/show")).json()

    assert seen["data"] == {"outside": True, "views": 1, "notes": ["outside"]}


async def test_on_a_route_that_gets_none_a_middleware_in_front_of_ours_gets_none(
    within: Within,
) -> None:
    seen: list[Session | None] = []

    async def ask(request: web.Request) -> None:
        seen.append(await find_session(request))

    client = await within(before(ask, "/leave_alone"), exclude=["/leave_alone"])

    await client.get("/leave_alone")

    assert seen == [None]


# When the handler failed.


async def test_what_a_failed_handler_changed_is_forgotten_and_what_its_error_page_changes_is_kept(
    make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    @web.middleware
    async def error_page(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except ZeroDivisionError:
            await note(request)
            return web.Response(status=500, text="sorry")

    async def fail(request: web.Request) -> web.Response:
        (await session_of(request))["half"] = True
        raise ZeroDivisionError

    app = web.Application(middlewares=[error_page])
    setup(app, make_options())
    app.router.add_get("/fail", fail)
    app.router.add_get("/show", show)
    client = await aiohttp_client(app)

    response = await client.get("/fail")
    seen = await (await client.get("/show")).json()

    assert await response.text() == "sorry"
    assert seen["data"] == {"outside": True}


# A login by aiohttp-security.


class Everybody(AbstractAuthorizationPolicy):
    """Lets everybody be who they say."""

    async def authorized_userid(self, identity: str) -> str | None:
        return identity

    async def permits(self, identity: str | None, permission: Any, context: Any = None) -> bool:
        raise NotImplementedError


@pytest.mark.parametrize("path", ["/views", "/leave_alone"])
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "known"])
async def test_a_login_by_a_middleware_outside_reaches_the_browser_under_a_new_id(
    *,
    make_options: MakeOptions,
    storage: Storage,
    aiohttp_client: AiohttpClient,
    path: str,
    is_new: bool,
) -> None:
    @web.middleware
    async def log_in_by_token(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        if "token" in request.query:
            await remember(request, response, "ann")
        return response

    app = web.Application(middlewares=[log_in_by_token])
    setup(app, make_options())
    setup_security(app, SessionIdentityPolicy(), Everybody())
    for handler in (views, leave_alone, show, put):
        app.router.add_get(f"/{handler.__name__}", handler)
    client = await aiohttp_client(app)
    before_login = "" if is_new else await (await client.get("/put?n=1")).text()

    response = await client.get(f"{path}?token=1")
    seen = await (await client.get("/show")).json()

    assert response.status == 200
    assert seen["data"]["AIOHTTP_SECURITY"] == "ann"
    assert seen["id"] != before_login


# The application's own signals.


@pytest.mark.parametrize("order", ["before ours", "after ours"])
@pytest.mark.parametrize("is_asked", [True, False], ids=["asked", "not asked"])
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "known"])
async def test_what_a_signal_of_the_application_changes_is_kept(
    *,
    make_options: MakeOptions,
    aiohttp_client: AiohttpClient,
    order: str,
    is_asked: bool,
    is_new: bool,
) -> None:
    async def note_visit(request: web.Request, _response: web.StreamResponse) -> None:
        if request.path in {"/views", "/leave_alone"}:
            await note(request)

    app = web.Application()
    if order == "before ours":
        app.on_response_prepare.append(note_visit)
    setup(app, make_options())
    if order == "after ours":
        app.on_response_prepare.append(note_visit)
    for handler in (views, leave_alone, show, put):
        app.router.add_get(f"/{handler.__name__}", handler)
    client = await aiohttp_client(app)
    if not is_new:
        await client.get("/put?known=yes")

    await client.get("/views" if is_asked else "/leave_alone")
    seen = await (await client.get("/show")).json()

    assert seen["data"]["outside"] is True
    assert ("known" in seen["data"]) is not is_new


async def test_what_a_signal_of_a_sub_application_changes_in_a_known_session_is_kept(
    make_options: MakeOptions, storage: Storage, aiohttp_client: AiohttpClient
) -> None:
    async def note_visit(request: web.Request, _response: web.StreamResponse) -> None:
        await note_in_hand(request)

    sub, app = web.Application(), web.Application()
    sub.on_response_prepare.append(note_visit)
    sub.router.add_get("/views", views)
    setup(app, make_options())
    app.add_subapp("/sub", sub)
    app.router.add_get("/show", show)
    client = await aiohttp_client(app)
    await keep(storage, "apple")

    await client.get("/sub/views", headers=signed("apple"))
    await client.get("/show", headers=signed("apple"))

    assert await kept(storage, "apple") == {"views": 1, "outside": True}


async def test_a_signal_that_a_sub_application_had_before_setup_can_begin_a_session(
    make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    async def note_visit(request: web.Request, _response: web.StreamResponse) -> None:
        await note(request)

    sub, app = web.Application(), web.Application()
    sub.on_response_prepare.append(note_visit)
    setup(sub, make_options())
    sub.router.add_get("/leave_alone", leave_alone)
    app.add_subapp("/sub", sub)
    client = await aiohttp_client(app)

    response = await client.get("/sub/leave_alone")

    assert len(cookies_set(response)) == 1


# Clones.


def clones(path: str = "/views", **changes: Any) -> Middleware:
    """Return a middleware that hands on a clone of the request."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await handler(request.clone(**changes) if request.path == path else request)

    return middleware


@pytest.mark.parametrize("asks", [before(note), after(note)], ids=["before", "after"])
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "known"])
async def test_outside_of_a_middleware_that_clones_the_request_the_session_is_the_same(
    *, within: Within, asks: Middleware, is_new: bool
) -> None:
    client = await within(asks, clones())
    if not is_new:
        await client.get("/put?known=yes")

    response = await client.get("/views")
    seen = await (await client.get("/show")).json()

    assert len(cookies_set(response)) == int(is_new)
    assert {"outside": True, "views": 1}.items() <= seen["data"].items()


@web.middleware
async def once_more(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let a handler that failed try again."""
    try:
        return await handler(request)
    except (web.HTTPServerError, ValueError):
        return await handler(request)


@pytest.mark.parametrize("bare", [False, True], ids=["setup", "middleware"])
async def test_a_handler_that_is_called_again_after_its_session_was_not_kept_begins_anew(
    *, within: Within, storage: Storage, faulty: FaultyStorage, bare: bool
) -> None:
    client = await within(once_more, bare=bare, storage=faulty)
    await keep(storage, "apple", views=1)
    faulty.fail(times=1, verbs=("replace",))

    response = await client.get("/views", headers=signed("apple"))

    assert await response.json() == 2
    assert await kept(storage, "apple") == {"views": 2}


@pytest.mark.parametrize("bare", [False, True], ids=["setup", "middleware"])
async def test_a_handler_that_is_called_again_after_it_failed_begins_anew(
    *, within: Within, storage: Storage, bare: bool
) -> None:
    failures = [ValueError("the first time")]

    async def fail_once(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["tries"] = session.get("tries", 0) + 1
        if failures:
            raise failures.pop()
        return web.Response()

    client = await within(once_more, bare=bare, handlers=[fail_once])

    await client.get("/fail_once")

    shown = await (await client.get("/show")).json()
    assert shown["data"] == {"tries": 1}


@pytest.mark.parametrize("unset", ["keep", "destroy"])
async def test_who_holds_the_session_of_a_handler_that_failed_can_still_change_it(
    within: Within, storage: Storage, faulty: FaultyStorage, unset: str
) -> None:
    @web.middleware
    async def counted(request: web.Request, handler: Handler) -> web.StreamResponse:
        session = await session_of(request)
        response = await once_more(request, handler)
        session["counted"] = True
        return response

    client = await within(counted, storage=faulty, unset=unset)
    await keep(storage, "apple", views=1)
    faulty.fail(times=1, verbs=("replace",))

    await client.get("/views", headers=signed("apple"))
    # What is still being saved by then is waited for.
    await client.close()

    assert await kept(storage, "apple") == {"views": 2, "counted": True}


class Inside(Protocol):
    """Serve handlers with a middleware that stands inside of the sessions."""

    async def __call__(self, middleware: Middleware, **options: Any) -> Client: ...


@pytest.fixture
def inside(make_options: MakeOptions, aiohttp_client: AiohttpClient) -> Inside:
    async def serve(middleware: Middleware, **options: Any) -> Client:
        app = web.Application()
        setup(app, make_options(**options))
        app.middlewares.append(middleware)
        for handler in (views, show, put):
            app.router.add_get(f"/{handler.__name__}", handler)
        return await aiohttp_client(app)

    return serve


ORDERS = ["nobody else", "the original first", "the original after", "the clone after"]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("get", [get_session, aiohttp_session.get_session])
@pytest.mark.parametrize("unset", ["keep", "destroy"])
async def test_a_request_and_its_clone_share_one_session_whichever_is_asked(
    inside: Inside, storage: Storage, order: str, get: Any, unset: str
) -> None:
    seen: list[int] = []

    @web.middleware
    async def rewrite(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path != "/views":
            return await handler(request)
        clone = request.clone(rel_url="/views?again")
        if order == "the original first":
            await get(request)
        response = await handler(clone)
        if order == "the original after":
            seen.append((await get(request))["views"])
        if order == "the clone after":
            seen.append((await get(clone))["views"])
        return response

    await keep(storage, "apple", known=True)
    client = await inside(rewrite, unset=unset)

    await client.get("/views", headers=signed("apple"))

    assert await kept(storage, "apple") == {"known": True, "views": 1}
    assert seen in ([], [1])


async def test_a_session_that_is_taken_out_of_a_clone_is_taken_out(
    make_options: MakeOptions, storage: Storage, aiohttp_client: AiohttpClient
) -> None:
    async def unset(request: web.Request) -> web.Response:
        await session_of(request)
        del request[SESSION]
        return web.Response()

    app = web.Application()
    setup(app, make_options(unset="destroy"))
    app.middlewares.append(clones("/unset"))
    app.router.add_get("/unset", unset)
    client = await aiohttp_client(app)
    await keep(storage, "apple")

    await client.get("/unset", headers=signed("apple"))

    assert await storage.load("apple") is None


@pytest.mark.parametrize("load", ["lazy", "eager"])
@pytest.mark.parametrize("secure", [True, "auto"])
@pytest.mark.parametrize("place", ["inside", "outside"])
async def test_the_connection_is_that_of_the_request_which_the_handler_got(
    *,
    inside: Inside,
    within: Within,
    load: str,
    secure: Any,
    place: str,
) -> None:
    serve: Any = inside if place == "inside" else within
    proxy = clones(scheme="https")
    client = await serve(proxy, load=load, cookie=CookieOptions(secure=secure))

    response = await client.get("/views")

    (cookie,) = cookies_set(response)
    assert "Secure" in cookie


# A handler whose client is gone.


class Slow:
    """Lets a storage take its time to write, until told to go on."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.is_asked, self.may_go_on = asyncio.Event(), asyncio.Event()

    async def create(self, session_id: str, payload: bytes, ttl: float) -> Any:
        return await self._storage.create(session_id, payload, ttl)

    async def load(self, session_id: str) -> Any:
        return await self._storage.load(session_id)

    async def replace(self, session_id: str, payload: bytes, ttl: float, *, expected: Any) -> Any:
        self.is_asked.set()
        await self.may_go_on.wait()
        return await self._storage.replace(session_id, payload, ttl, expected=expected)

    async def touch(self, session_id: str, ttl: float) -> bool:
        return await self._storage.touch(session_id, ttl)

    async def delete(self, session_id: str) -> bool:
        return await self._storage.delete(session_id)


async def socket_that_counts(request: web.Request) -> web.WebSocketResponse:
    session = await session_of(request)
    session["messages"] = 0
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for _ in socket:
        session["messages"] += 1
    return socket


async def stream_after_a_change(request: web.Request) -> web.StreamResponse:
    session = await session_of(request)
    session["streamed"] = True
    response = web.StreamResponse()
    await response.prepare(request)
    return response


@pytest.mark.parametrize("path", ["/views", "/stream_after_a_change", "/socket_that_counts"])
async def test_a_commit_that_has_begun_is_finished_though_the_client_is_gone(
    make_options: MakeOptions, storage: Storage, path: str
) -> None:
    slow = Slow(storage)
    app = web.Application()
    setup(app, make_options(storage=slow, timeout=30))
    app.router.add_get("/views", views)
    app.router.add_get("/socket_that_counts", socket_that_counts)
    app.router.add_get("/stream_after_a_change", stream_after_a_change)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    await keep(storage, "apple")
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    headers = [f"GET {path} HTTP/1.1", "Host: localhost"]
    headers += [f"{name}: {value}" for name, value in signed("apple").items()]
    if path == "/socket_that_counts":
        slow.may_go_on.set()
        headers += [upgrade + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]

    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(("\r\n".join(headers) + "\r\n\r\n").encode())
    if path == "/socket_that_counts":
        await reader.readuntil(b"\r\n\r\n")
        slow.is_asked.clear()
        slow.may_go_on.clear()
        # A text message, and the end, both masked as clients do.
        writer.write(b"\x81\x81\x00\x00\x00\x00x" + b"\x88\x80\x00\x00\x00\x00")
    await slow.is_asked.wait()
    writer.close()
    await asyncio.sleep(0.05)
    slow.may_go_on.set()
    await runner.cleanup()

    expected = {"/views": {"views": 1}, "/stream_after_a_change": {"streamed": True}}
    assert await kept(storage, "apple") == expected.get(path, {"messages": 1})


# When the response is made.


@pytest.mark.parametrize("bare", [False, True], ids=["setup", "middleware"])
async def test_a_change_by_a_task_that_outlives_the_response_is_kept(
    *, make_options: MakeOptions, storage: Storage, aiohttp_client: AiohttpClient, bare: bool
) -> None:
    may_go_on, is_done = asyncio.Event(), asyncio.Event()

    async def later(session: Session) -> None:
        await may_go_on.wait()
        session["late"] = True
        is_done.set()

    tasks: list[asyncio.Task[None]] = []

    async def start(request: web.Request) -> web.Response:
        tasks.append(asyncio.create_task(later(await session_of(request))))
        return web.Response()

    app = web.Application()
    if bare:
        app.middlewares.append(session_middleware(make_options()))
    else:
        setup(app, make_options())
    app.router.add_get("/start", start)
    app.router.add_get("/show", show)
    client = await aiohttp_client(app)
    await keep(storage, "apple")
    await client.get("/start", headers=signed("apple"))

    may_go_on.set()
    await is_done.wait()
    await client.get("/show", headers=signed("apple"))

    assert await kept(storage, "apple") == {"late": True}


@pytest.mark.parametrize("bare", [False, True], ids=["setup", "middleware"])
async def test_a_task_that_outlives_the_response_of_a_new_browser_is_never_told_that_it_saved(
    *, make_options: MakeOptions, aiohttp_client: AiohttpClient, bare: bool
) -> None:
    may_go_on: asyncio.Event = asyncio.Event()
    told: list[str] = []

    async def later(request: web.Request) -> None:
        await may_go_on.wait()
        session = await session_of(request)
        session["late"] = True
        try:
            told.append(f"saved: {await session.save()}")
        except RuntimeError as error:
            told.append(type(error).__name__)
        session.rollback()

    tasks: list[asyncio.Task[None]] = []

    async def start(request: web.Request) -> web.Response:
        tasks.append(asyncio.create_task(later(request)))
        return web.Response()

    app = web.Application()
    if bare:
        app.middlewares.append(session_middleware(make_options()))
    else:
        setup(app, make_options())
    app.router.add_get("/start", start)
    client = await aiohttp_client(app)
    await client.get("/start")

    may_go_on.set()
    await tasks[0]

    assert told == ["SessionNotSent"]


async def test_a_value_that_cannot_be_kept_is_told_though_it_comes_late(
    make_options: MakeOptions,
    storage: Storage,
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    held: list[Session] = []

    async def hold(request: web.Request) -> web.Response:
        held.append(await session_of(request))
        return web.Response()

    app = web.Application()
    setup(app, make_options())
    app.router.add_get("/hold", hold)
    client = await aiohttp_client(app)
    await keep(storage, "apple")
    await client.get("/hold", headers=signed("apple"))

    held[0]["late"] = object()
    await client.get("/hold", headers=signed("apple"))

    assert "a change to a session came too late and is lost: session['late']" in caplog.text


async def test_a_late_change_of_a_socket_is_kept_though_its_client_is_gone_while_it_waits(
    make_options: MakeOptions, storage: Storage
) -> None:
    is_over, holding = asyncio.Event(), asyncio.Event()
    tasks: list[asyncio.Task[Any]] = []

    async def chat(request: web.Request) -> web.WebSocketResponse:
        session = await session_of(request)
        session["early"] = True
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        slow.is_asked.clear()
        slow.may_go_on.clear()
        session["saved"] = True
        tasks.append(asyncio.create_task(session.save()))
        await slow.is_asked.wait()
        session["late"] = True
        holding.set()
        await is_over.wait()
        return socket

    await keep(storage, "apple")
    slow = Slow(storage)
    slow.may_go_on.set()
    app = web.Application()
    setup(app, make_options(storage=slow, timeout=30))
    app.router.add_get("/chat", chat)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    headers = ["GET /chat HTTP/1.1", "Host: localhost"]
    headers += [f"{name}: {value}" for name, value in signed("apple").items()]
    headers += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    headers += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    _, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
    writer.write(("\r\n".join(headers) + "\r\n\r\n").encode())
    await holding.wait()
    is_over.set()
    await asyncio.sleep(0.02)
    writer.close()
    await asyncio.sleep(0.05)

    slow.may_go_on.set()
    await asyncio.wait(tasks)
    await runner.cleanup()

    assert await kept(storage, "apple") == {"early": True, "saved": True, "late": True}
