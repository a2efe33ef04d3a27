"""What was decided about a session, and why: in the log at DEBUG, as events, and on request."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import hdrs, web

from aiosess import CookieOptions, Reason, Session, SessionEvent, Storage, explain
from aiosess.testing import FakeClock, FaultyStorage
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
