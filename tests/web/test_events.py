"""What was decided about a session, and why: in the log at DEBUG, as events, and on request."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import hdrs, web
from aiohttp.test_utils import make_mocked_request
from aiohttp.typedefs import Handler
from pytest_aiohttp import AiohttpClient

from aiosess import SESSION, CookieOptions, Reason, Session, SessionEvent, Storage, explain
from aiosess.testing import FakeClock, FaultyStorage
from tests.conftest import MakeApp
from tests.web.conftest import Connect
from tests.web.handlers import keep, leave_alone, put, session_of, show, signed

FORGED = {hdrs.COOKIE: "sid=s%3Aapple.forged"}

OPENED = {
    "no cookie": ({}, Reason.NO_COOKIE),
    "a forged one": (FORGED, Reason.BAD_SIGNATURE),
    "no record": (signed("unknown"), Reason.NO_RECORD),
    "a record": (signed("apple"), Reason.OPENED),
}


@pytest.fixture
def heard() -> list[SessionEvent]:
    return []


def reasons(heard: list[SessionEvent]) -> list[Reason]:
    return [each.reason for each in heard if each.reason is not Reason.ONE_PROCESS]


@pytest.mark.nist("5.3")
@pytest.mark.parametrize(("headers", "reason"), OPENED.values(), ids=OPENED)
async def test_an_event_says_how_the_session_was_opened(
    connect: Connect,
    storage: Storage,
    heard: list[SessionEvent],
    headers: dict[str, str],
    reason: Reason,
) -> None:
    await keep(storage, "apple")
    client = await connect(show, on_event=heard.append, forgets=True)

    await client.get("/show", headers=headers)

    assert reasons(heard)[0] is reason


async def renew(session: Session) -> None:
    await session.renew_id()


async def change(session: Session) -> None:
    session["n"] = 1


async def destroy(session: Session) -> None:
    await session.destroy()


async def look(session: Session) -> None:
    session.get("n")


BECAME: dict[str, tuple[Callable[[Session], Awaitable[None]], Reason]] = {
    "looked at": (look, Reason.UNCHANGED),
    "changed": (change, Reason.REPLACED),
    "renewed": (renew, Reason.RENEWED),
    "destroyed": (destroy, Reason.DELETED),
}


@pytest.mark.parametrize(("act", "reason"), BECAME.values(), ids=BECAME)
async def test_an_event_says_what_became_of_the_session(
    connect: Connect, storage: Storage, heard: list[SessionEvent], act: Any, reason: Reason
) -> None:
    async def handler(request: web.Request) -> web.Response:
        await act(await session_of(request))
        return web.Response()

    await keep(storage, "apple")
    client = await connect(look_at, handler, on_event=heard.append, forgets=True)
    # So that no touch is due.
    await client.get("/look_at", headers=signed("apple"))
    heard.clear()

    await client.get("/handler", headers=signed("apple"))

    assert reasons(heard) == [Reason.OPENED, reason]


async def look_at(request: web.Request) -> web.Response:
    (await session_of(request)).get("n")
    return web.Response()


@pytest.mark.nist("5.1-6")
async def test_an_event_knows_its_request_and_its_time_and_no_id(
    connect: Connect, storage: Storage, heard: list[SessionEvent], clock: FakeClock
) -> None:
    await keep(storage, "apple", secret="of apple")
    client = await connect(put, on_event=heard.append, clock=clock, forgets=True)

    await client.get("/put?n=1", headers=signed("apple"))

    event = heard[-1]
    assert (event.kind, event.reason, event.handle) == ("session", Reason.REPLACED, None)
    assert event.request.path == "/put"
    assert event.at == clock()


async def test_a_listener_that_fails_is_logged_and_no_reason_to_fail(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_event: SessionEvent) -> None:
        raise ZeroDivisionError

    client = await connect(put, on_event=fail)

    response = await client.get("/put?n=1")

    assert response.status == 200
    assert "on_event failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


async def test_the_log_says_in_one_line_at_debug_what_was_decided(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "aiosess")
    client = await connect(show, put, leave_alone, exclude=["leave_alone"])
    caplog.clear()

    for path in ("/show", "/put?n=1", "/show", "/leave_alone"):
        await client.get(path)

    lines = [each.getMessage() for each in caplog.records if each.levelno == logging.DEBUG]
    assert [line for line in lines if "session" in line] == [
        "a new session: no cookie came; not saved, because nothing was changed",
        "a new session: no cookie came; kept for the first time",
        "the session was opened; not saved, because nothing was changed",
        "the route gets no session",
    ]


async def test_a_withheld_cookie_is_a_reason(connect: Connect, heard: list[SessionEvent]) -> None:
    client = await connect(put, on_event=heard.append, cookie=CookieOptions(secure=True))

    await client.get("/put?n=1")

    assert reasons(heard)[-1] is Reason.WITHHELD


async def test_a_storage_that_is_away_is_a_reason(
    connect: Connect, faulty: FaultyStorage, heard: list[SessionEvent]
) -> None:
    client = await connect(put, storage=faulty, retries=0, on_event=heard.append, forgets=True)
    faulty.fail()

    await client.get("/put?n=1", headers=signed("apple"))

    assert Reason.REFUSED in reasons(heard)


@pytest.mark.parametrize("path", ["/explained", "/changed"])
async def test_explain_says_of_a_request_what_was_decided(
    connect: Connect, storage: Storage, path: str
) -> None:
    said: list[str] = []
    requests: list[web.Request] = []

    async def explained(request: web.Request) -> web.Response:
        (await session_of(request)).get("n")
        requests.append(request)
        return web.Response()

    async def changed(request: web.Request) -> web.Response:
        (await session_of(request))["n"] = 2
        requests.append(request)
        return web.Response()

    await keep(storage, "apple", n=1)
    client = await connect(explained, changed, forgets=True)
    await client.get("/explained", headers=signed("apple"))

    await client.get(path, headers=signed("apple"))
    said = [explain(request) for request in requests]

    what = "saved" if path == "/changed" else "not saved, because nothing was changed"
    assert said[-1] == f"the session was opened; {what}"


async def test_explain_says_that_a_route_gets_no_session(connect: Connect) -> None:
    async def left_out(request: web.Request) -> web.Response:
        return web.Response(text=explain(request))

    client = await connect(left_out, exclude=["left_out"])

    assert await (await client.get("/left_out")).text() == "the route gets no session"


def test_explain_says_that_nothing_of_ours_was_at_a_request() -> None:
    request = make_mocked_request("GET", "/")

    assert explain(request) == "no session middleware was at this request"


async def test_a_logout_through_the_id_before_is_told_as_one(
    connect: Connect, storage: Storage, heard: list[SessionEvent]
) -> None:
    async def step_up(request: web.Request) -> web.Response:
        await (await session_of(request)).renew_id()
        return web.Response()

    async def log_out(request: web.Request) -> web.Response:
        await (await session_of(request)).destroy()
        return web.Response()

    await keep(storage, "apple", user="ann")
    client = await connect(step_up, log_out, on_event=heard.append, renew_on=["user"], forgets=True)
    await client.get("/step_up", headers=signed("apple"))
    heard.clear()

    await client.get("/log_out", headers=signed("apple"))

    assert reasons(heard) == [Reason.OPENED, Reason.DELETED]


async def test_to_look_at_what_was_before_a_login_drops_nothing(
    connect: Connect, storage: Storage, heard: list[SessionEvent]
) -> None:
    async def step_up(request: web.Request) -> web.Response:
        await (await session_of(request)).renew_id()
        return web.Response()

    await keep(storage, "apple", user="ann")
    client = await connect(step_up, show, on_event=heard.append, forgets=True)
    await client.get("/step_up", headers=signed("apple"))
    heard.clear()

    await client.get("/show", headers=signed("apple"))

    assert reasons(heard) == [Reason.OPENED, Reason.UNCHANGED]


@pytest.mark.parametrize("error", [web.HTTPNotFound, ZeroDivisionError], ids=lambda e: e.__name__)
async def test_that_nobody_asked_is_told_once(
    connect: Connect, heard: list[SessionEvent], error: type[Exception]
) -> None:
    async def handler(_request: web.Request) -> web.Response:
        raise error

    client = await connect(handler, on_event=heard.append)

    await client.get("/handler")

    assert reasons(heard) == [Reason.NOT_ASKED]


async def test_what_atomic_wrote_was_saved_and_its_cookie_lives_on(
    connect: Connect, heard: list[SessionEvent]
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.atomic(lambda newest: newest.update(n=1))
        return web.Response()

    client = await connect(put, handler, on_event=heard.append, cookie=CookieOptions(max_age=60))
    await client.get("/put?cart=tea")
    heard.clear()

    response = await client.get("/handler")

    assert reasons(heard) == [Reason.OPENED, Reason.REPLACED]
    assert hdrs.SET_COOKIE in response.headers


async def test_changes_to_a_session_that_was_taken_away_are_told_to_be_dropped(
    connect: Connect, storage: Storage, heard: list[SessionEvent]
) -> None:
    async def handler(request: web.Request) -> web.Response:
        (await session_of(request))["n"] = 1
        del request[SESSION]
        return web.Response()

    await keep(storage, "apple")
    client = await connect(handler, on_event=heard.append, forgets=True)

    await client.get("/handler", headers=signed("apple"))

    assert reasons(heard) == [Reason.OPENED, Reason.DROPPED]


async def test_while_the_handler_runs_nothing_is_said_of_the_end(
    connect: Connect, storage: Storage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        (await session_of(request))["n"] = 1
        return web.Response(text=explain(request))

    await keep(storage, "apple")
    client = await connect(handler)

    response = await client.get("/handler", headers=signed("apple"))

    assert await response.text() == "the session was opened"


async def test_a_touch_is_told_where_a_container_was_looked_at(
    make_app: MakeApp, aiohttp_client: AiohttpClient, storage: Storage, clock: FakeClock
) -> None:
    said: list[str] = []

    @web.middleware
    async def outside(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        said.append(explain(request))
        return response

    async def look(request: web.Request) -> web.Response:
        (await session_of(request)).get("cart")
        # So that the touch is due at the end, and not when the session is read.
        clock.advance(50)
        return web.Response()

    app = make_app(put_cart, look, clock=clock, idle_timeout=100, touch_after=20)
    app.middlewares.insert(0, outside)
    client = await aiohttp_client(app)
    await client.get("/put_cart")
    # The fast lane is for cookies that came before.
    await client.get("/look")

    await client.get("/look")

    assert said[-1] == (
        "the session was opened; not saved, because nothing was changed, but touched"
    )


async def put_cart(request: web.Request) -> web.Response:
    (await session_of(request))["cart"] = ["tea"]
    return web.Response()


@pytest.mark.one_lane("who wants the log takes the whole way")
async def test_whoever_wants_the_log_may_say_so_after_setup(
    make_app: MakeApp, aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(put)
    caplog.set_level(logging.DEBUG, logger="aiosess")
    client = await aiohttp_client(app)

    await client.get("/put?n=1")

    assert "a new session: no cookie came; kept for the first time" in caplog.text
