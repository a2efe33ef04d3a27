"""An id that was rotated away comes back after its grace: refused, or the end of its session."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from aiosess import OptionsError, Reason, SessionEvent, Storage
from aiosess.testing import FakeClock
from tests.conftest import MakeOptions
from tests.web.conftest import Connect
from tests.web.handlers import put, session_of, show, signed

HOUR = 3600


async def rotate(request: web.Request) -> web.Response:
    session = await session_of(request)
    await session.rotate_id()
    return web.Response(text=session.id)


async def login(request: web.Request) -> web.Response:
    session = await session_of(request)
    session["user"] = "ann"
    await session.renew_id()
    return web.Response(text=session.id)


async def ids_of(client: TestClient[Any, Any], *paths: str) -> list[str]:
    """Ask for each path with the id that came of the one before, and return the ids."""
    ids: list[str] = []
    for path in ("/put?n=1", *paths):
        headers = signed(ids[-1]) if ids else {}
        ids.append(await (await client.get(path, headers=headers)).text())
    return ids


async def data_of(client: TestClient[Any, Any], session_id: str) -> dict[str, Any]:
    shown = await (await client.get("/show", headers=signed(session_id))).json()
    data: dict[str, Any] = shown["data"]
    return data


HANDLERS = (put, show, rotate, login)


async def test_by_default_the_session_goes_on(connect: Connect, clock: FakeClock) -> None:
    client = await connect(*HANDLERS, forgets=True, clock=clock)
    old, new = await ids_of(client, "/rotate")
    clock.advance(11)

    assert await data_of(client, old) == {}
    assert await data_of(client, new) == {"n": "1"}


async def test_the_session_ends_where_the_options_say_so(
    connect: Connect, clock: FakeClock, storage: Storage
) -> None:
    client = await connect(*HANDLERS, forgets=True, clock=clock, on_reuse="end")
    old, new = await ids_of(client, "/rotate")
    clock.advance(11)

    assert await data_of(client, old) == {}

    assert await data_of(client, new) == {}
    assert [await storage.load(each) for each in (old, new)] == [None, None]


async def test_an_id_that_was_rotated_twice_since_ends_it_too(
    connect: Connect, clock: FakeClock
) -> None:
    client = await connect(*HANDLERS, forgets=True, clock=clock, on_reuse="end")
    oldest, _, new = await ids_of(client, "/rotate", "/rotate")
    clock.advance(11)

    await data_of(client, oldest)

    assert await data_of(client, new) == {}


async def test_within_its_grace_an_id_ends_nothing(connect: Connect, clock: FakeClock) -> None:
    client = await connect(*HANDLERS, forgets=True, clock=clock, on_reuse="end")
    old, new = await ids_of(client, "/rotate")
    clock.advance(9)

    assert await data_of(client, old) == {"n": "1"}
    assert await data_of(client, new) == {"n": "1"}


async def test_an_id_from_before_a_login_ends_nothing(connect: Connect, clock: FakeClock) -> None:
    client = await connect(*HANDLERS, forgets=True, clock=clock, on_reuse="end")
    old, new = await ids_of(client, "/login")
    await data_of(client, new)
    clock.advance(11)

    assert await data_of(client, old) == {}
    assert await data_of(client, new) == {"n": "1", "user": "ann"}


async def test_an_id_that_was_rotated_away_before_a_login_ends_nothing(
    connect: Connect, clock: FakeClock
) -> None:
    client = await connect(*HANDLERS, forgets=True, clock=clock, on_reuse="end")
    old, _, new = await ids_of(client, "/rotate", "/login")
    await data_of(client, new)
    clock.advance(11)

    await data_of(client, old)

    assert await data_of(client, new) == {"n": "1", "user": "ann"}


async def test_the_id_of_a_session_that_has_ended_already_tells_nothing(
    connect: Connect, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    client = await connect(*HANDLERS, forgets=True, clock=clock, on_reuse="end")
    old, _ = await ids_of(client, "/rotate")
    clock.advance(11)

    await data_of(client, old)
    await data_of(client, old)

    [line] = [each for each in caplog.records if "its session was ended" in each.getMessage()]
    assert line.levelno == logging.WARNING


@pytest.mark.one_lane("a listener takes the whole way")
async def test_a_listener_hears_of_it_with_the_request(connect: Connect, clock: FakeClock) -> None:
    heard: list[SessionEvent] = []
    client = await connect(
        *HANDLERS, forgets=True, clock=clock, on_reuse="end", on_event=heard.append
    )
    old, _ = await ids_of(client, "/rotate")
    clock.advance(11)

    await data_of(client, old)

    [event] = [each for each in heard if each.reason is Reason.REUSE_ENDED]
    assert (event.kind, event.request.path) == ("session", "/show")


def test_another_word_is_refused(make_options: MakeOptions) -> None:
    with pytest.raises(OptionsError, match="on_reuse='stop' must be one of 'refuse', 'end'"):
        make_options(on_reuse="stop")
