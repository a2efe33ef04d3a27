"""How fresh a login is: noted by a proof of one's own, asked for before what is dangerous."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, make_mocked_request
from pytest_aiohttp import AiohttpClient
from yarl import URL

from aiosess import (
    OptionsError,
    SessionNotSent,
    Storage,
    require_fresh,
    return_path,
    setup,
)
from aiosess.testing import FakeClock, put_session
from tests.conftest import MakeOptions
from tests.web.conftest import Connect
from tests.web.handlers import cookies_set, keep, put, session_of, show, signed

HOUR = 3600


async def prove(request: web.Request) -> web.Response:
    session = await session_of(request)
    session["user"] = "ann"
    await session.authenticated()
    return web.Response(text=session.id)


async def look(request: web.Request) -> web.Response:
    session = await session_of(request)
    return web.json_response(
        {
            "fresh": session.is_fresh(timedelta(minutes=10)),
            "at": session.authenticated_at,
            "ends": session.expires_at,
        }
    )


@require_fresh(600)
async def pay(_request: web.Request) -> web.Response:
    return web.Response(text="paid")


@require_fresh(600, on_stale="/confirm?lang=de")
async def change(_request: web.Request) -> web.Response:
    return web.Response(text="changed")


async def looked(client: TestClient[Any, Any], **kwargs: Any) -> dict[str, Any]:
    told: dict[str, Any] = await (await client.get("/look", **kwargs)).json()
    return told


async def test_a_login_that_was_proved_is_fresh(connect: Connect, clock: FakeClock) -> None:
    client = await connect(prove, look, clock=clock)

    await client.get("/prove")
    clock.advance(600)

    assert (await looked(client))["fresh"] is True


async def test_a_login_does_not_stay_fresh(connect: Connect, clock: FakeClock) -> None:
    client = await connect(prove, look, clock=clock)

    await client.get("/prove")
    clock.advance(601)

    assert (await looked(client))["fresh"] is False


async def test_a_login_of_a_clock_that_was_ahead_does_not_stay_fresh(
    connect: Connect, clock: FakeClock
) -> None:
    client = await connect(prove, look, clock=clock)
    clock.advance(24 * HOUR)
    await client.get("/prove")

    clock.advance(-24 * HOUR)
    at_first = await looked(client)
    clock.advance(601)

    assert (at_first["fresh"], (await looked(client))["fresh"]) == (True, False)


async def test_without_a_login_nothing_is_fresh(connect: Connect, clock: FakeClock) -> None:
    client = await connect(put, look, clock=clock)

    await client.get("/put?n=1")

    assert await looked(client) | {"ends": None} == {"fresh": False, "at": None, "ends": None}


def test_a_time_that_makes_no_sense_is_refused_also_while_nobody_is_logged_in() -> None:
    session = put_session(make_mocked_request("GET", "/"))

    with pytest.raises(OptionsError, match="within=-1 must be more than zero seconds"):
        session.is_fresh(-1)


@pytest.mark.asvs("7.2.4")
async def test_a_proof_of_somebody_who_is_logged_in_renews_the_id_and_keeps_the_data(
    connect: Connect, clock: FakeClock
) -> None:
    client = await connect(prove, put, show, clock=clock)
    first = await (await client.get("/prove")).text()
    await client.get("/put?n=1")
    clock.advance(HOUR)

    second = await (await client.get("/prove")).text()
    shown = await (await client.get("/show")).json()

    assert second != first
    assert (shown["id"], shown["data"]) == (second, {"user": "ann", "n": "1"})


async def test_the_old_id_is_not_fresh(connect: Connect, clock: FakeClock) -> None:
    client = await connect(put, prove, look, clock=clock, forgets=True)
    before = await (await client.get("/put?n=1")).text()
    after = await (await client.get("/prove", headers=signed(before))).text()

    told = [(await looked(client, headers=signed(each)))["fresh"] for each in (before, after)]

    assert told == [False, True]


@pytest.mark.asvs("7.3.2")
@pytest.mark.nist("5.2-c")
async def test_a_proof_begins_both_timeouts_again(
    connect: Connect, storage: Storage, clock: FakeClock
) -> None:
    client = await connect(
        prove, look, clock=clock, idle_timeout=HOUR, absolute_timeout=2 * HOUR, touch_after=0
    )
    await client.get("/prove")
    for _ in range(3):
        clock.advance(HOUR / 2)
        await client.get("/look")

    await client.get("/prove")
    clock.advance(HOUR - 1)

    assert (await looked(client))["at"] == clock() - HOUR + 1


async def test_a_new_session_that_only_proved_somebody_is_kept(
    connect: Connect, clock: FakeClock
) -> None:
    async def only_prove(request: web.Request) -> web.Response:
        await (await session_of(request)).authenticated()
        return web.Response()

    client = await connect(only_prove, look, clock=clock)

    await client.get("/only_prove")

    assert (await looked(client))["at"] == clock()


async def test_a_proof_in_a_handler_that_failed_is_none(connect: Connect, clock: FakeClock) -> None:
    async def fail(request: web.Request) -> web.Response:
        await (await session_of(request)).authenticated()
        raise ZeroDivisionError

    client = await connect(put, fail, look, clock=clock)
    await client.get("/put?n=1")

    await client.get("/fail")

    assert (await looked(client))["at"] is None


async def test_a_proof_that_was_rolled_back_is_none(connect: Connect, clock: FakeClock) -> None:
    async def undo(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.authenticated()
        session.rollback()
        session["n"] = 1
        return web.Response()

    client = await connect(undo, look, clock=clock)

    await client.get("/undo")

    assert (await looked(client))["at"] is None


async def test_what_is_put_in_after_a_session_was_emptied_is_not_fresh(
    connect: Connect, clock: FakeClock
) -> None:
    async def empty(request: web.Request) -> web.Response:
        session = await session_of(request)
        session.invalidate()
        session["flash"] = "bye"
        return web.Response()

    client = await connect(prove, empty, look, pay, clock=clock)
    await client.get("/prove")

    await client.get("/empty")

    assert (await looked(client))["at"] is None
    assert (await client.get("/pay")).status == 403


async def test_a_session_that_was_emptied_and_rolled_back_is_as_fresh_as_before(
    connect: Connect, clock: FakeClock
) -> None:
    async def undo(request: web.Request) -> web.Response:
        session = await session_of(request)
        session.invalidate()
        session.rollback()
        session["n"] = 1
        return web.Response()

    client = await connect(prove, undo, look, clock=clock)
    await client.get("/prove")

    await client.get("/undo")

    assert (await looked(client))["at"] == clock()


async def test_a_proof_after_a_new_session_was_emptied_is_kept(
    connect: Connect, clock: FakeClock
) -> None:
    async def empty_and_prove(request: web.Request) -> web.Response:
        session = await session_of(request)
        session.invalidate()
        await session.authenticated()
        return web.Response()

    client = await connect(empty_and_prove, look, clock=clock)

    await client.get("/empty_and_prove")

    assert (await looked(client))["at"] == clock()


async def test_a_proof_after_the_headers_have_left_says_what_to_do(connect: Connect) -> None:
    caught: list[str] = []

    async def stream(request: web.Request) -> web.StreamResponse:
        session = await session_of(request)
        response = web.StreamResponse()
        await response.prepare(request)
        with pytest.raises(SessionNotSent) as error:
            await session.authenticated()
        caught.append(str(error.value))
        return response

    client = await connect(put, stream)
    await client.get("/put?n=1")

    await client.get("/stream")

    assert "the headers have left" in caught[0]


# Values that say who is logged in


async def put_user(request: web.Request) -> web.Response:
    session = await session_of(request)
    session["user"] = {"name": request.query["name"], "roles": []}
    return web.Response(text=session.id)


async def add_role(request: web.Request) -> web.Response:
    session = await session_of(request)
    session["user"]["roles"].append("editor")
    return web.Response()


async def prove_again(request: web.Request) -> web.Response:
    await (await session_of(request)).authenticated()
    return web.Response()


async def rotate(request: web.Request) -> web.Response:
    await (await session_of(request)).rotate_id()
    return web.Response()


def id_in(response: Any) -> str:
    """Return the id in the cookie that *response* sets."""
    (cookie,) = cookies_set(response)
    return str(cookie).partition("s%3A")[2].partition(".")[0]


async def test_a_first_dict_that_says_who_is_logged_in_is_a_login(
    connect: Connect, clock: FakeClock
) -> None:
    client = await connect(put_user, look, clock=clock, renew_on=["user"])

    await client.get("/put_user?name=ann")

    assert (await looked(client))["at"] == clock()


async def test_a_change_inside_it_renews_the_id_and_makes_no_login_fresh(
    connect: Connect, clock: FakeClock
) -> None:
    client = await connect(put_user, add_role, look, show, clock=clock, renew_on=["user"])
    await client.get("/put_user?name=ann")
    logged_in_at, before = clock(), (await (await client.get("/show")).json())["id"]
    clock.advance(HOUR)

    await client.get("/add_role")

    assert (await looked(client))["at"] == logged_in_at
    assert (await (await client.get("/show")).json())["id"] != before


async def test_a_change_inside_it_through_the_old_id_lets_nobody_in(
    connect: Connect, clock: FakeClock
) -> None:
    client = await connect(
        put_user, prove_again, add_role, clock=clock, renew_on=["user"], forgets=True
    )
    before = id_in(await client.get("/put_user?name=ann"))
    await client.get("/prove_again", headers=signed(before))

    response = await client.get("/add_role", headers=signed(before))

    assert (response.status, cookies_set(response)) == (200, [])


async def test_a_change_inside_it_through_an_id_that_was_rotated_away_is_kept_there(
    connect: Connect, clock: FakeClock
) -> None:
    client = await connect(
        put_user, rotate, add_role, show, clock=clock, renew_on=["user"], forgets=True
    )
    before = id_in(await client.get("/put_user?name=ann"))
    after = id_in(await client.get("/rotate", headers=signed(before)))

    response = await client.get("/add_role", headers=signed(before))
    shown = await (await client.get("/show", headers=signed(after))).json()

    assert cookies_set(response) == []
    assert shown["data"]["user"]["roles"] == ["editor"]


async def test_a_change_inside_it_where_no_login_is_known_is_one(
    connect: Connect, storage: Storage, clock: FakeClock
) -> None:
    await keep(storage, "apple", user={"name": "ann", "roles": []})
    client = await connect(add_role, look, clock=clock, renew_on=["user"])

    jar = client.session.cookie_jar
    response = await client.get("/add_role", headers=signed("apple"))
    jar.update_cookies(response.cookies, response.url)

    assert (await looked(client))["at"] == clock()


# Handlers that want it


@pytest.mark.asvs("7.5.1")
@pytest.mark.asvs("7.5.3")
async def test_a_handler_that_wants_a_fresh_login_runs_with_one(connect: Connect) -> None:
    client = await connect(prove, pay)

    await client.get("/prove")

    assert await (await client.get("/pay")).text() == "paid"


@pytest.mark.parametrize("waits", [None, 601], ids=["nobody", "long ago"])
@pytest.mark.asvs("7.5.1")
@pytest.mark.asvs("7.5.3")
async def test_without_a_fresh_login_the_handler_does_not_run(
    connect: Connect, clock: FakeClock, waits: float | None
) -> None:
    client = await connect(prove, pay, clock=clock)
    if waits is not None:
        await client.get("/prove")
        clock.advance(waits)

    response = await client.get("/pay")

    assert (response.status, await response.text()) == (
        403,
        "This takes a login in the last 600 seconds.",
    )


async def test_a_page_to_go_to_is_told_where_to_return_to(connect: Connect) -> None:
    client = await connect(change)

    response = await client.get("/change?to=a%26b&n=1", allow_redirects=False)

    assert response.status == 303
    assert response.headers["Location"] == "/confirm?lang=de&next=/change?to%3Da%2526b%26n%3D1"


async def test_a_form_is_not_returned_to(connect: Connect) -> None:
    client = await connect(change)

    response = await client.post("/change", allow_redirects=False)

    assert response.headers["Location"] == "/confirm?lang=de"


@pytest.mark.parametrize("slashes", ["//", "/\\", "/\\/"])
async def test_another_host_is_never_returned_to(
    make_options: MakeOptions, aiohttp_client: AiohttpClient, slashes: str
) -> None:
    app = web.Application()
    app.router.add_get("/{tail:.*}", change)
    setup(app, make_options())
    client = await aiohttp_client(app)

    url = URL(f"{client.make_url('')}{slashes}elsewhere.example/x", encoded=True)
    response = await client.session.get(url, allow_redirects=False)

    assert response.request_info.url.raw_path == f"{slashes}elsewhere.example/x"
    assert response.headers["Location"] == "/confirm?lang=de&next=/elsewhere.example/x"


async def back(request: web.Request) -> web.Response:
    raise web.HTTPSeeOther(return_path(request, default="/start"))


@pytest.mark.parametrize("path", ["/", "/pay?for=book&n=2", "/a//b", "/a%20b/%C3%BC?next=/c"])
async def test_the_page_that_was_asked_for_is_returned_to(connect: Connect, path: str) -> None:
    client = await connect(back)

    response = await client.get("/back", params={"next": path}, allow_redirects=False)

    assert response.headers["Location"] == path


@pytest.mark.parametrize(
    "told",
    [
        *("//evil.example", "///evil.example", "https://evil.example", "https:/evil.example"),
        *("/\\evil.example", "\\\\evil.example", "/\t/evil.example", "/\n/evil.example"),
        *("/\r/evil.example", "\t//evil.example", " //evil.example", "/ /evil.example"),
        *("javascript:alert(1)", "evil.example", "?for=book", "http://[", ""),
    ],
)
async def test_what_names_another_host_is_not_returned_to(connect: Connect, told: str) -> None:
    client = await connect(back)

    response = await client.get("/back", params={"next": told}, allow_redirects=False)

    assert response.headers["Location"] == "/start"


async def test_without_a_page_to_return_to_it_is_the_default(connect: Connect) -> None:
    response = await (await connect(back)).get("/back", allow_redirects=False)

    assert response.headers["Location"] == "/start"


def answer(_request: web.Request) -> web.Response:
    return web.json_response({"stale": True}, status=401)


async def answer_later(request: web.Request) -> web.Response:
    return answer(request)


@pytest.mark.parametrize("on_stale", [answer, answer_later])
async def test_a_function_answers_in_the_place_of_the_handler(
    connect: Connect, on_stale: Callable[[web.Request], Any]
) -> None:
    @require_fresh(600, on_stale=on_stale)
    async def guarded(_request: web.Request) -> web.Response:
        return web.Response()

    client = await connect(guarded)

    response = await client.get("/guarded")

    assert (response.status, await response.json()) == (401, {"stale": True})


async def test_a_method_of_a_view_can_want_it(connect: Connect) -> None:
    class Account(web.View):
        async def get(self) -> web.Response:
            return web.Response(text="shown")

        @require_fresh(600)
        async def delete(self) -> web.Response:
            return web.Response(text="deleted")

    client = await connect(prove, Account)

    stale = [(await client.get("/Account")).status, (await client.delete("/Account")).status]
    await client.get("/prove")

    assert stale == [200, 403]
    assert await (await client.delete("/Account")).text() == "deleted"


async def test_a_plain_function_is_a_handler_as_well(connect: Connect) -> None:
    @require_fresh(600)
    def plain(_request: web.Request) -> Any:
        return web.Response(text="plain")

    client = await connect(prove, plain)
    await client.get("/prove")

    assert await (await client.get("/plain")).text() == "plain"


async def test_what_is_no_handler_is_refused() -> None:
    @require_fresh(600)
    async def other(_name: str) -> web.Response:
        return web.Response()

    with pytest.raises(TypeError, match="for handlers of a request"):
        await other("ann")


async def without() -> web.Response:
    return web.Response()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: require_fresh(0), "within=0 must be more than zero"),
        (lambda: require_fresh("10m"), "within='10m' is not a duration"),  # type: ignore[arg-type]
        (lambda: require_fresh(9, on_stale=3), "on_stale=3 must be a path"),  # type: ignore[arg-type]
        (lambda: require_fresh(9, on_stale="login"), "on_stale='login' must be .* begins with '/'"),
        (lambda: require_fresh(9)(3), "3 is none"),  # type: ignore[arg-type]
        (lambda: require_fresh(9)(without), r"without\(\) takes no request: give it one"),
    ],
)
def test_a_guard_that_makes_no_sense_says_what_to_do(
    make: Callable[[], object], words: str
) -> None:
    with pytest.raises(OptionsError, match=words):
        make()


# When it ends


async def ends_of(client: TestClient[Any, Any], clock: FakeClock) -> float:
    """Return in how many seconds the session ends, as a handler sees it."""
    ends: float = (await looked(client))["ends"]
    return round(ends - clock(), 3)


async def test_a_new_session_does_not_say_when_it_ends(connect: Connect) -> None:
    client = await connect(look)

    assert (await looked(client))["ends"] is None


async def test_a_session_ends_its_idle_timeout_after_it_is_touched(
    connect: Connect, clock: FakeClock
) -> None:
    client = await connect(put, look, clock=clock, idle_timeout=HOUR, touch_after=0)
    await client.get("/put?n=1")
    clock.advance(60)

    assert await ends_of(client, clock) == HOUR


async def test_a_session_that_is_not_touched_again_may_end_as_much_earlier(
    connect: Connect, clock: FakeClock
) -> None:
    client = await connect(put, look, clock=clock, idle_timeout=HOUR, touch_after=100)
    await client.get("/put?n=1")

    assert await ends_of(client, clock) == HOUR - 100


@pytest.mark.nist("5.2-b")
async def test_a_session_ends_at_its_absolute_timeout(connect: Connect, clock: FakeClock) -> None:
    client = await connect(
        prove, look, clock=clock, idle_timeout=HOUR, absolute_timeout=1.5 * HOUR, touch_after=0
    )
    await client.get("/prove")
    clock.advance(HOUR - 60)

    assert await ends_of(client, clock) == HOUR / 2 + 60


async def test_a_session_that_is_changed_ends_its_idle_timeout_from_then(
    connect: Connect, clock: FakeClock
) -> None:
    async def change_and_look(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["n"] = 2
        return web.json_response(session.expires_at)

    client = await connect(put, change_and_look, clock=clock, idle_timeout=HOUR, touch_after=100)
    await client.get("/put?n=1")

    ends = await (await client.get("/change_and_look")).json()

    assert ends == clock() + HOUR


async def test_a_session_with_a_max_age_of_its_own_ends_by_it(
    connect: Connect, clock: FakeClock
) -> None:
    async def remember(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["n"] = 1
        session.cookie.max_age = 10 * HOUR
        return web.Response()

    client = await connect(remember, look, clock=clock, idle_timeout=HOUR, touch_after=0)
    await client.get("/remember")

    assert await ends_of(client, clock) == 10 * HOUR
