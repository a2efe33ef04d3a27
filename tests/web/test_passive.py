"""Requests that are no activity: they read the session, and it does not live longer by them."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from aiosess import (
    CookieOptions,
    MemoryStorage,
    OptionsError,
    Route,
    Session,
    Storage,
    Stored,
    find_session,
    get_session,
)
from aiosess.testing import FakeClock, FaultyStorage
from tests.conftest import MakeApp, MakeOptions
from tests.web.conftest import Connect
from tests.web.handlers import keep, kept, put, session_of, show, signed

HOUR = 3600
APPLE = signed("apple")


async def poll(request: web.Request) -> web.Response:
    session = await session_of(request)
    return web.json_response({"data": dict(session), "ends": session.expires_at})


async def glance(request: web.Request) -> web.Response:
    session = await find_session(request, passive=True)
    return web.json_response(None if session is None else dict(session))


async def mark(request: web.Request) -> web.Response:
    session: Session = await session_of(request)
    session["seen"] = True
    return web.Response()


async def both(request: web.Request) -> web.Response:
    await find_session(request, passive=True)
    await get_session(request)
    return web.Response()


@pytest.fixture
async def client(connect: Connect, storage: Storage, clock: FakeClock) -> TestClient[Any, Any]:
    client = await connect(
        *(poll, glance, mark, both, show, put),
        clock=clock,
        forgets=True,
        idle_timeout=HOUR,
        touch_after=0,
        passive=["poll", Route("/mark")],
    )
    await keep(storage, "apple", n=1)
    return client


@pytest.mark.parametrize("path", ["/poll", "/glance"])
async def test_a_passive_request_reads_the_session(client: TestClient[Any, Any], path: str) -> None:
    told = await (await client.get(path, headers=APPLE)).json()

    assert told.get("data", told) == {"n": 1}


@pytest.mark.parametrize("path", ["/poll", "/glance"])
async def test_a_passive_request_touches_nothing(
    connect: Connect, faulty: FaultyStorage, storage: Storage, path: str
) -> None:
    await keep(storage, "apple", n=1)
    client = await connect(
        poll, glance, storage=faulty, forgets=True, touch_after=0, passive=["poll"]
    )

    await client.get(path, headers=APPLE)

    assert faulty.calls == ["load"]


@pytest.mark.parametrize("path", ["/poll", "/glance"])
async def test_a_request_that_polls_sends_no_cookie_even_where_it_is_rolling(
    connect: Connect, storage: Storage, path: str
) -> None:
    await keep(storage, "apple", n=1)
    client = await connect(poll, glance, forgets=True, rolling=True, resave=True, passive=["poll"])

    response = await client.get(path, headers=APPLE)

    assert "Set-Cookie" not in response.headers


async def test_what_a_passive_request_changes_is_kept(
    client: TestClient[Any, Any], storage: Storage
) -> None:
    await client.get("/mark", headers=APPLE)

    assert await kept(storage, "apple") == {"n": 1, "seen": True}


async def test_a_session_that_begins_in_a_passive_request_is_kept_and_told(
    client: TestClient[Any, Any],
) -> None:
    response = await client.get("/mark")

    assert "Set-Cookie" in response.headers


async def test_a_passive_request_without_a_session_begins_none_though_all_are_kept(
    connect: Connect,
) -> None:
    client = await connect(poll, save_uninitialized=True, passive=["poll"])

    assert "Set-Cookie" not in (await client.get("/poll")).headers


async def test_an_explicit_save_of_a_passive_request_is_done(connect: Connect) -> None:
    async def save(request: web.Request) -> web.Response:
        return web.json_response(await (await session_of(request)).save())

    client = await connect(save, passive=["save"])

    response = await client.get("/save")

    assert (await response.json(), "Set-Cookie" in response.headers) == (True, True)


async def test_a_passive_request_rotates_no_id(
    connect: Connect, clock: FakeClock, storage: Storage
) -> None:
    client = await connect(
        put, poll, clock=clock, idle_timeout=HOUR, renew_every=60, passive=["poll"]
    )
    await client.get("/put?n=1")
    clock.advance(120)

    assert "Set-Cookie" not in (await client.get("/poll")).headers


async def test_a_session_that_is_asked_for_as_usual_as_well_is_active(
    connect: Connect, faulty: FaultyStorage, storage: Storage
) -> None:
    await keep(storage, "apple", n=1)
    client = await connect(both, storage=faulty, forgets=True, touch_after=0)

    await client.get("/both", headers=APPLE)

    assert faulty.calls == ["load", "touch"]


async def test_on_a_passive_route_nobody_who_asks_is_active(
    connect: Connect, faulty: FaultyStorage, storage: Storage
) -> None:
    await keep(storage, "apple", n=1)
    client = await connect(
        both, storage=faulty, forgets=True, touch_after=0, passive=["both"], load="eager"
    )

    await client.get("/both", headers=APPLE)

    assert faulty.calls == ["load"]


async def test_a_passive_request_does_not_know_when_the_session_ends(
    client: TestClient[Any, Any],
) -> None:
    told = await (await client.get("/poll", headers=APPLE)).json()

    assert told["ends"] is None


async def test_a_passive_question_where_there_is_no_session_is_none(connect: Connect) -> None:
    client = await connect(glance, exclude=["glance"])

    assert await (await client.get("/glance")).json() is None


@pytest.mark.one_lane("MemoryStorage alone goes by a clock that is moved")
@pytest.mark.asvs("7.3.1")
async def test_polling_keeps_no_session_alive(connect: Connect, clock: FakeClock) -> None:
    storage = MemoryStorage(clock=clock)
    client = await connect(
        *(poll, show, put),
        storage=storage,
        clock=clock,
        idle_timeout=HOUR,
        touch_after=0,
        passive=["poll"],
    )
    await client.get("/put?n=1")
    for _ in range(5):
        clock.advance(HOUR / 4)
        await client.get("/poll")

    assert (await (await client.get("/show")).json())["data"] == {}


async def test_a_route_that_is_not_there_stops_the_start(make_app: MakeApp) -> None:
    runner = web.AppRunner(make_app(poll, passive=["pol"]))

    with pytest.raises(OptionsError, match="passive has 'pol', which no route"):
        await runner.setup()


@pytest.mark.parametrize(
    ("passive", "words"),
    [("poll", r"passive='poll' must be a list: passive=\['poll'\]"), ([5], "passive has 5")],
)
def test_routes_that_make_no_sense_say_what_to_do(
    make_options: MakeOptions, passive: Any, words: str
) -> None:
    with pytest.raises(OptionsError, match=words):
        make_options(passive=passive)


async def test_a_cookie_with_an_end_moves_on_with_a_change(connect: Connect) -> None:
    cookie = CookieOptions(max_age=HOUR, secure=False)
    client = await connect(put, mark, poll, passive=["mark", "poll"], cookie=cookie)
    await client.get("/put?n=1")

    sent = ["Set-Cookie" in (await client.get(path)).headers for path in ("/mark", "/poll")]

    assert sent == [True, False]


class Touching(FaultyStorage):
    """A storage that can touch what it reads, in the same call."""

    async def load_and_touch(self, session_id: str, ttl: float) -> tuple[Stored, bool] | None:
        stored = await self.load(session_id)
        return None if stored is None else (stored, await self.touch(session_id, ttl))


@pytest.mark.parametrize(
    ("path", "calls"), [("/show", ["load", "touch"]), ("/poll", ["load"]), ("/glance", ["load"])]
)
async def test_a_storage_that_can_touch_as_it_reads_does_not_where_nobody_is_active(
    connect: Connect, storage: Storage, path: str, calls: list[str]
) -> None:
    touching = Touching(storage)
    await keep(storage, "apple", n=1)
    client = await connect(show, poll, glance, storage=touching, forgets=True, passive=["poll"])

    await client.get(path, headers=APPLE)

    assert touching.calls == calls
