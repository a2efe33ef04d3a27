"""A login ends what was before: those who hold the old id neither see nor change what follows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from aiosess import CookieOptions, Session, SessionGone, Storage
from aiosess.testing import FakeClock
from tests.web.conftest import Client, Connect
from tests.web.handlers import cookies_set, keep, kept, put, session_of, show, signed

Log = Callable[[Session], Awaitable[object]]

OLD = signed("old")


async def log_in(request: web.Request) -> web.Response:
    """Log in as whoever the query says."""
    session = await session_of(request)
    session["user"] = request.query.get("user", "ann")
    session["secret"] = "of the one who logged in"
    return web.Response(text=session.id)


async def step_up(request: web.Request) -> web.Response:
    """Renew the id although the principal stays."""
    session = await session_of(request)
    await session.renew_id()
    session["secret"] = "of the one who logged in"
    return web.Response(text=session.id)


async def log_out(request: web.Request) -> web.Response:
    """Say whether the logout happened."""
    try:
        await (await session_of(request)).destroy()
    except SessionGone:
        return web.Response(text="nothing was ended")
    return web.Response(text="over")


def id_in(response: Any) -> str:
    """Return the id in the cookie that *response* sets."""
    (cookie,) = cookies_set(response)
    return str(cookie).partition("s%3A")[2].partition(".")[0]


@pytest.fixture
def ids() -> list[str]:
    return ["new", "newer", "newest"]


@pytest.fixture
async def client(connect: Connect, storage: Storage, ids: list[str], clock: FakeClock) -> Client:
    """Serve with a session under "old" that was there before anybody logged in."""
    await keep(storage, "old", cart=["tea"])
    return await connect(
        *(log_in, step_up, log_out, show, put),
        forgets=True,
        renew_on=["user"],
        renew_grace=10,
        genid=lambda _request: ids.pop(0),
        clock=clock,
    )


async def shown(client: Client, session_id: str) -> dict[str, Any]:
    answer: dict[str, Any] = await (await client.get("/show", headers=signed(session_id))).json()
    return answer


@pytest.mark.asvs("7.2.4")
async def test_the_old_id_shows_the_session_as_it_was_just_before(client: Client) -> None:
    await client.get("/log_in", headers=OLD)

    seen = await shown(client, "old")

    assert seen["data"] == {"cart": ["tea"]}


@pytest.mark.asvs("7.2.4")
@pytest.mark.nist("5.3")
async def test_what_is_changed_through_the_old_id_is_dropped_and_told(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aiosess")
    await client.get("/log_in", headers=OLD)

    response = await client.get("/put?email=mallory", headers=OLD)

    assert cookies_set(response) == []
    assert (await shown(client, "new"))["data"].keys() == {"cart", "user", "secret"}
    assert (await shown(client, "old"))["data"] == {"cart": ["tea"]}
    assert "a change through a session id from before a login was dropped" in caplog.text


async def test_nobody_is_logged_out_through_the_old_id(client: Client) -> None:
    await client.get("/log_in", headers=OLD)

    answer = await (await client.get("/log_out", headers=OLD)).text()

    assert answer == "nothing was ended"
    assert (await shown(client, "new"))["data"]["user"] == "ann"


async def test_where_the_principal_is_the_same_a_logout_through_the_old_id_ends_the_session(
    client: Client, storage: Storage
) -> None:
    await client.get("/log_in", headers=OLD)
    await client.get("/step_up", headers=signed("new"))

    answer = await (await client.get("/log_out", headers=signed("new"))).text()

    assert answer == "over"
    assert (await shown(client, "newer"))["new"] is True


async def test_where_nobody_is_known_to_be_the_same_a_logout_through_the_old_id_ends_nothing(
    client: Client,
) -> None:
    await client.get("/step_up", headers=OLD)

    answer = await (await client.get("/log_out", headers=OLD)).text()

    assert answer == "nothing was ended"
    assert "secret" in (await shown(client, "new"))["data"]


async def test_a_login_whose_response_was_lost_costs_nothing(
    client: Client, clock: FakeClock
) -> None:
    await client.get("/log_in", headers=OLD)
    clock.advance(1000)

    response = await client.get("/log_in", headers=OLD)

    assert (await shown(client, id_in(response)))["data"]["cart"] == ["tea"]


@pytest.mark.asvs("7.2.4")
async def test_the_old_id_is_of_no_use_once_the_grace_since_the_first_use_is_over(
    client: Client, clock: FakeClock
) -> None:
    await client.get("/log_in", headers=OLD)
    await shown(client, "new")
    clock.advance(9.9)
    seen = await shown(client, "old")
    clock.advance(0.2)

    refused = await shown(client, "old")

    assert seen["data"] == {"cart": ["tea"]}
    assert refused["new"] is True


async def test_the_first_use_is_noted_once(client: Client, storage: Storage) -> None:
    await client.get("/log_in", headers=OLD)
    await shown(client, "new")
    first = await storage.load("new")

    await shown(client, "new")

    assert await storage.load("new") == first


@pytest.mark.parametrize("seconds", [1, 100])
async def test_a_request_that_was_under_way_says_nothing_about_the_cookie(
    connect: Connect, storage: Storage, clock: FakeClock, seconds: float
) -> None:
    has_begun, may_end = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["slow"] = True
        has_begun.set()
        await may_end.wait()
        return web.Response()

    await keep(storage, "old", cart=["tea"])
    client = await connect(
        *(log_in, slow, show),
        forgets=True,
        renew_on=["user"],
        rolling=True,
        cookie=CookieOptions(max_age=3600),
        clock=clock,
    )
    pending = asyncio.create_task(client.get("/slow", headers=OLD))
    await has_begun.wait()
    new_id = id_in(await client.get("/log_in", headers=OLD))
    await client.get("/show", headers=signed(new_id))
    clock.advance(seconds)

    may_end.set()
    response = await pending

    assert cookies_set(response) == []
    assert "slow" not in (await kept(storage, new_id) or {"slow": True})


async def test_a_new_session_of_a_refused_browser_leaves_no_other_request_without_its_cookie(
    client: Client, storage: Storage, clock: FakeClock
) -> None:
    await client.get("/log_in", headers=OLD)
    await shown(client, "new")
    clock.advance(11)

    response = await client.get("/put?n=1", headers=OLD)

    assert id_in(response) == "newer"
    assert await storage.load("old") is not None


async def test_regenerate_through_the_old_id_begins_a_session_of_its_own(
    connect: Connect, storage: Storage
) -> None:
    async def regenerate(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.regenerate()
        session["mine"] = True
        return web.Response(text=session.id)

    await keep(storage, "old", cart=["tea"])
    client = await connect(log_in, regenerate, forgets=True, renew_on=["user"])
    new_id = id_in(await client.get("/log_in", headers=OLD))

    own_id = await (await client.get("/regenerate", headers=OLD)).text()

    assert await kept(storage, own_id) == {"mine": True}
    assert (await kept(storage, new_id) or {})["user"] == "ann"


@pytest.mark.parametrize("verb", ["save", "touch"])
async def test_what_the_old_id_cannot_do_is_told_as_not_done(
    connect: Connect, storage: Storage, verb: str
) -> None:
    async def try_it(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["n"] = 1
        return web.json_response(await getattr(session, verb)())

    await keep(storage, "old")
    client = await connect(log_in, try_it, forgets=True, renew_on=["user"])
    await client.get("/log_in", headers=OLD)

    response = await client.get("/try_it", headers=OLD)

    assert await response.json() is False


async def test_atomic_through_the_old_id_raises(connect: Connect, storage: Storage) -> None:
    async def count(request: web.Request) -> web.Response:
        session = await session_of(request)
        with pytest.raises(SessionGone, match="somebody logged in"):
            await session.atomic(lambda newest: newest.update(n=1))
        return web.Response(text="refused")

    await keep(storage, "old")
    client = await connect(log_in, count, forgets=True, renew_on=["user"])
    await client.get("/log_in", headers=OLD)

    response = await client.get("/count", headers=OLD)

    assert await response.text() == "refused"


# When somebody was authenticated.


async def tell(request: web.Request) -> web.Response:
    """Say when somebody logged in, after doing what the query asks for."""
    session = await session_of(request)
    match request.query.get("do"):
        case "log in":
            session["user"] = "ann"
        case "log in again":
            session["user"] = "bob"
        case "renew":
            await session.renew_id()
        case "log out":
            del session["user"]
        case _:
            session["n"] = session.get("n", 0) + 1
    if "save" in request.query:
        await session.save()
    return web.json_response(session.authenticated_at)


@pytest.mark.asvs("7.5.1", "7.5.3")
@pytest.mark.nist("5.2-c")
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "known"])
async def test_a_login_is_when_somebody_was_authenticated_last(
    *, connect: Connect, storage: Storage, clock: FakeClock, is_new: bool
) -> None:
    if not is_new:
        await keep(storage, "old")
    client = await connect(tell, renew_on=["user"], clock=clock)
    at = clock()
    before = await (await client.get("/tell")).json()

    await client.get("/tell?do=log in")
    clock.advance(60)
    after_it = await (await client.get("/tell")).json()
    renewed = await (await client.get("/tell?do=renew")).json()
    await client.get("/tell?do=log in again")
    again = await (await client.get("/tell")).json()
    await client.get("/tell?do=log out")
    out = await (await client.get("/tell")).json()

    assert (before, after_it, renewed, again, out) == (None, at, at, at + 60, None)


@pytest.mark.asvs("7.3.2", "7.6.1")
@pytest.mark.nist("5.2-a", "5.2-c")
async def test_the_absolute_timeout_counts_from_the_login(
    connect: Connect, clock: FakeClock
) -> None:
    client = await connect(
        tell, show, renew_on=["user"], clock=clock, absolute_timeout=100, idle_timeout=100
    )
    await client.get("/tell")
    clock.advance(90)
    await client.get("/tell?do=log in")
    clock.advance(90)
    still = (await (await client.get("/show")).json())["new"]
    await client.get("/tell?do=renew")
    clock.advance(11)

    over = (await (await client.get("/show")).json())["new"]

    assert (still, over) == (False, True)


# Now and then.


@pytest.mark.nist("5.1-b")
async def test_an_id_is_rotated_as_often_as_the_options_say(
    connect: Connect, clock: FakeClock
) -> None:
    client = await connect(put, show, renew_every=60, clock=clock)
    first = id_in(await client.get("/put?n=1"))
    clock.advance(59)
    early = cookies_set(await client.get("/show"))
    clock.advance(2)

    second = id_in(await client.get("/show"))
    seen = await (await client.get("/show")).json()

    assert early == []
    assert second != first
    assert (seen["id"], seen["data"]) == (second, {"n": "1"})


async def test_an_id_is_rotated_that_was_new_by_a_clock_that_was_ahead(
    connect: Connect, clock: FakeClock
) -> None:
    client = await connect(put, rotate, show, renew_every=60, clock=clock)
    clock.advance(1000)
    await client.get("/put?n=1")
    first = id_in(await client.get("/rotate"))
    clock.advance(-1000)
    await client.get("/show")
    clock.advance(61)

    assert id_in(await client.get("/show")) != first


async def test_an_id_is_rotated_of_a_session_that_does_not_say_when_it_began(
    connect: Connect, storage: Storage, clock: FakeClock
) -> None:
    await keep(storage, "apple", n=1)
    client = await connect(show, renew_every=60, clock=clock, forgets=True)
    await client.get("/show", headers=signed("apple"))
    clock.advance(61)

    response = await client.get("/show", headers=signed("apple"))

    assert id_in(response) != "apple"


async def test_requests_that_rotate_an_id_at_once_share_one_session(
    connect: Connect, storage: Storage, clock: FakeClock
) -> None:
    async def add(request: web.Request) -> web.Response:
        session = await session_of(request)
        await asyncio.sleep(0)
        session[request.query["key"]] = True
        return web.Response()

    client = await connect(add, put, renew_every=60, clock=clock, forgets=True)
    first = id_in(await client.get("/put?n=1"))
    clock.advance(61)

    responses = await asyncio.gather(
        *(client.get(f"/add?key=k{number}", headers=signed(first)) for number in range(8))
    )

    new = {id_in(response) for response in responses if cookies_set(response)}
    assert len(new) == 1
    assert await kept(storage, new.pop()) == {"n": "1", **{f"k{n}": True for n in range(8)}}


@pytest.mark.parametrize("renew_every", [None, 60])
async def test_a_rotation_that_meets_a_login_says_nothing_about_the_cookie(
    connect: Connect, storage: Storage, clock: FakeClock, renew_every: float | None
) -> None:
    has_begun, may_end = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["slow"] = True
        if renew_every is None:
            await session.rotate_id()
        has_begun.set()
        await may_end.wait()
        return web.Response()

    client = await connect(
        *(log_in, put, slow), forgets=True, renew_on=["user"], renew_every=renew_every, clock=clock
    )
    old_id = id_in(await client.get("/put?n=1"))
    clock.advance(61)
    pending = asyncio.create_task(client.get("/slow", headers=signed(old_id)))
    await has_begun.wait()
    new_id = id_in(await client.get("/log_in", headers=signed(old_id)))

    may_end.set()
    response = await pending

    assert cookies_set(response) == []
    assert "slow" not in (await kept(storage, new_id) or {"slow": True})


# Over TLS for the first time.


@pytest.mark.nist("5.1-f")
@pytest.mark.parametrize("secure", ["auto", True])
async def test_a_session_that_began_without_tls_gets_a_new_id_and_a_secure_cookie_over_tls(
    connect: Connect, storage: Storage, caplog: pytest.LogCaptureFixture, secure: Any
) -> None:
    caplog.set_level(logging.INFO, "aiosess")
    plain = '{"cookie":{"originalMaxAge":null,"expires":null,"secure":false,"path":"/"},"n":1}'
    await storage.create("old", plain.encode(), 60)
    client = await connect(show, proxy=True, cookie=CookieOptions(secure=secure), forgets=True)

    response = await client.get("/show", headers={**OLD, "X-Forwarded-Proto": "https"})

    (cookie,) = cookies_set(response)
    assert "Secure" in cookie
    assert id_in(response) != "old"
    assert await kept(storage, id_in(response)) == {"n": 1}
    assert "came over TLS, and gets a new id" in caplog.text


async def overtaken(connect: Connect, storage: Storage, *, is_login: bool) -> Any:
    """Return the response to a request over TLS that a login overtook."""
    has_begun, may_end = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["user" if is_login else "slow"] = "bob"
        has_begun.set()
        await may_end.wait()
        return web.Response()

    plain = '{"cookie":{"originalMaxAge":null,"expires":null,"secure":false,"path":"/"}}'
    await storage.create("old", plain.encode(), 60)
    client = await connect(log_in, slow, proxy=True, forgets=True, renew_on=["user"])
    over_tls = {**OLD, "X-Forwarded-Proto": "https"}
    pending = asyncio.create_task(client.get("/slow", headers=over_tls))
    await has_begun.wait()
    await client.get("/log_in", headers=over_tls)
    may_end.set()
    return await pending


async def test_the_first_request_over_tls_says_nothing_about_the_cookie_of_a_login_meanwhile(
    connect: Connect, storage: Storage
) -> None:
    response = await overtaken(connect, storage, is_login=False)

    assert cookies_set(response) == []


async def test_a_login_over_tls_for_the_first_time_has_its_cookie_whoever_else_logs_in(
    connect: Connect, storage: Storage
) -> None:
    response = await overtaken(connect, storage, is_login=True)

    assert (await kept(storage, id_in(response)) or {})["user"] == "bob"


async def test_a_record_that_says_nothing_of_tls_keeps_its_id(
    connect: Connect, storage: Storage
) -> None:
    await keep(storage, "old", n=1)
    client = await connect(show, proxy=True, forgets=True)

    response = await client.get("/show", headers={**OLD, "X-Forwarded-Proto": "https"})

    assert cookies_set(response) == []
    assert (await response.json())["id"] == "old"


async def rotate(request: web.Request) -> web.Response:
    session = await session_of(request)
    await session.rotate_id()
    return web.Response(text=session.id)


async def test_one_who_comes_by_an_id_that_was_rotated_does_not_rotate_it_again(
    connect: Connect, storage: Storage
) -> None:
    await keep(storage, "apple", n=1)
    client = await connect(rotate, forgets=True)
    new_id = await (await client.get("/rotate", headers=signed("apple"))).text()

    again = await client.get("/rotate", headers=signed("apple"))

    assert await again.text() == new_id
