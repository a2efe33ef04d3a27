"""The end of a request: what is written, and what the response says about it."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from aiohttp.typedefs import Handler, Middleware
from pytest_aiohttp import AiohttpClient

from aiosess import (
    SESSION,
    CookieOptions,
    Session,
    SessionOptions,
    Storage,
    Stored,
    get_session,
    setup,
)
from aiosess.testing import FaultyStorage
from tests.conftest import SECRET, MakeApp, MakeOptions
from tests.web.conftest import Connect
from tests.web.handlers import (
    cookies_set,
    keep,
    kept,
    put,
    session_of,
    show,
    signed,
    start,
    views,
)

OLD_SECRET = "the secret of last year, which is long enough as well"
NO_CACHE = 'private, no-cache="Set-Cookie"'


def clear_lists(session: Session) -> None:
    for value in session.values():
        if isinstance(value, list):
            value.clear()


def change_and_roll_back(session: Session) -> None:
    session["cart"].append("b")
    session.rollback()


CHANGES: dict[str, tuple[Callable[[Session], Any], dict[str, Any]]] = {
    "a key set": (lambda s: s.update(x=1), {"cart": ["a"], "user": {"tags": []}, "n": 1, "x": 1}),
    "a key deleted": (lambda s: s.pop("n"), {"cart": ["a"], "user": {"tags": []}}),
    "a list appended to": (
        lambda s: s["cart"].append("b"),
        {"cart": ["a", "b"], "user": {"tags": []}, "n": 1},
    ),
    "a list two levels down": (
        lambda s: s["user"]["tags"].append("b"),
        {"cart": ["a"], "user": {"tags": ["b"]}, "n": 1},
    ),
    "through get": (
        lambda s: s.get("cart", []).append("b"),
        {"cart": ["a", "b"], "user": {"tags": []}, "n": 1},
    ),
    "through values": (
        clear_lists,
        {"cart": [], "user": {"tags": []}, "n": 1},
    ),
    "through setdefault": (
        lambda s: s.setdefault("new", []).append("b"),
        {"cart": ["a"], "user": {"tags": []}, "n": 1, "new": ["b"]},
    ),
    "a type that compares equal": (
        lambda s: s.update(n=True),
        {"cart": ["a"], "user": {"tags": []}, "n": True},
    ),
    "all keys cleared": (lambda s: s.clear(), {}),
}


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
async def test_a_change_is_noticed_without_any_flag(
    connect: Connect,
    storage: Storage,
    change: Callable[[Session], Any],
    expected: dict[str, Any],
) -> None:
    async def handler(request: web.Request) -> web.Response:
        change(await session_of(request))
        return web.Response()

    await keep(storage, "apple", cart=["a"], user={"tags": []}, n=1)
    client = await connect(handler, forgets=True)

    await client.get("/handler", headers=signed("apple"))

    found = await kept(storage, "apple")
    assert found == expected
    assert [type(value) for value in found.values()] == [type(x) for x in expected.values()]


UNCHANGED: dict[str, Callable[[Session], Any]] = {
    "read": lambda s: s["cart"],
    "the same value set": lambda s: s.update(n=1),
    "an equal list set": lambda s: s.update(cart=["a"]),
    "changed and changed back": lambda s: (s["cart"].append("b"), s["cart"].pop()),
    "set and deleted": lambda s: (s.update(x=1), s.pop("x")),
    "rolled back": change_and_roll_back,
}


@pytest.mark.parametrize("handle", UNCHANGED.values(), ids=UNCHANGED)
async def test_what_ends_as_it_began_is_not_written(
    connect: Connect, storage: Storage, faulty: FaultyStorage, handle: Callable[[Session], Any]
) -> None:
    async def handler(request: web.Request) -> web.Response:
        handle(await session_of(request))
        return web.Response()

    await keep(storage, "apple", cart=["a"], n=1)
    client = await connect(handler, storage=faulty, forgets=True)

    await client.get("/handler", headers=signed("apple"))

    assert "replace" not in faulty.calls
    assert await kept(storage, "apple") == {"cart": ["a"], "n": 1}


async def test_changed_has_an_unchanged_session_written(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        (await session_of(request)).changed()
        return web.Response()

    await keep(storage, "apple", n=1)
    client = await connect(handler, storage=faulty, forgets=True)

    await client.get("/handler", headers=signed("apple"))

    assert "replace" in faulty.calls


# The options of Express.


@pytest.mark.parametrize(("resave", "verb"), [(True, "replace"), (False, "touch")])
async def test_resave_writes_an_unchanged_session_and_otherwise_it_is_touched(
    connect: Connect, storage: Storage, faulty: FaultyStorage, *, resave: bool, verb: str
) -> None:
    await keep(storage, "apple")
    client = await connect(show, storage=faulty, resave=resave, touch_after=0, forgets=True)

    await client.get("/show", headers=signed("apple"))

    assert faulty.calls == ["load", verb]


async def test_resave_does_not_write_again_what_the_handler_saved_itself(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["n"] = 1
        await session.save()
        return web.Response()

    await keep(storage, "apple")
    client = await connect(handler, storage=faulty, resave=True, forgets=True)

    await client.get("/handler", headers=signed("apple"))

    assert faulty.calls == ["load", "replace"]


async def test_the_cookie_is_set_once_for_a_browser_session(connect: Connect) -> None:
    client = await connect(views)

    responses = [await client.get("/views") for _ in range(3)]

    assert [len(cookies_set(response)) for response in responses] == [1, 0, 0]


async def test_a_persistent_cookie_moves_on_with_each_change_only(connect: Connect) -> None:
    client = await connect(views, show, cookie=CookieOptions(max_age=60))

    responses = [await client.get(path) for path in ("/views", "/show", "/views")]

    assert [len(cookies_set(response)) for response in responses] == [1, 0, 1]


async def test_rolling_sets_the_cookie_with_each_response(connect: Connect) -> None:
    client = await connect(views, show, rolling=True)

    responses = [await client.get(path) for path in ("/views", "/show", "/show")]

    assert [len(cookies_set(response)) for response in responses] == [1, 1, 1]


async def test_rolling_sets_no_cookie_for_a_session_that_is_not_kept(connect: Connect) -> None:
    client = await connect(show, rolling=True)

    response = await client.get("/show")

    assert cookies_set(response) == []


@pytest.mark.parametrize(
    ("options", "secret"),
    [({"rolling": True}, SECRET), ({"secret": [SECRET, OLD_SECRET]}, OLD_SECRET)],
    ids=["rolling", "signed anew"],
)
async def test_a_cookie_is_never_sent_again_for_a_record_that_went_meanwhile(
    connect: Connect, storage: Storage, options: dict[str, Any], secret: str
) -> None:
    async def look_and_lose(request: web.Request) -> web.Response:
        await session_of(request)
        await storage.delete("apple")
        return web.Response()

    await keep(storage, "apple")
    client = await connect(show, look_and_lose, forgets=True, touch_after=60, **options)
    await client.get("/show", headers=signed("apple"))

    response = await client.get("/look_and_lose", headers=signed("apple", secret))

    assert [header.split(";")[0] for header in cookies_set(response)] == ["sid="]


async def test_rolling_keeps_the_id(connect: Connect) -> None:
    client = await connect(views, show, rolling=True)
    await client.get("/views")

    ids = [(await (await client.get("/show")).json())["id"] for _ in range(2)]

    assert ids[0] == ids[1]


async def test_save_uninitialized_keeps_an_empty_session(
    connect: Connect, storage: Storage
) -> None:
    client = await connect(show, save_uninitialized=True)

    first = await client.get("/show")
    second = await client.get("/show")

    assert len(cookies_set(first)) == 1
    assert (await second.json())["new"] is False
    assert await kept(storage, (await first.json())["id"]) == {}


async def unset(request: web.Request) -> web.Response:
    session = await session_of(request)
    session["forgotten"] = True
    del request[SESSION]
    return web.Response()


async def unset_to_none(request: web.Request) -> web.Response:
    session = await session_of(request)
    session["forgotten"] = True
    request[SESSION] = None  # type: ignore[misc]
    return web.Response()


@pytest.mark.parametrize("handler", [unset, unset_to_none], ids=["del", "None"])
async def test_unset_keeps_the_record_as_it_was(
    connect: Connect, storage: Storage, handler: Handler
) -> None:
    await keep(storage, "apple", n=1)
    client = await connect(handler, forgets=True)

    response = await client.get(f"/{handler.__name__}", headers=signed("apple"))

    assert await kept(storage, "apple") == {"n": 1}
    assert cookies_set(response) == []


@pytest.mark.parametrize("handler", [unset, unset_to_none], ids=["del", "None"])
async def test_unset_destroy_deletes_the_record_and_clears_the_cookie(
    connect: Connect, storage: Storage, handler: Handler
) -> None:
    await keep(storage, "apple", n=1)
    client = await connect(handler, unset="destroy", forgets=True)

    response = await client.get(f"/{handler.__name__}", headers=signed("apple"))

    assert await storage.load("apple") is None
    assert cookies_set(response)[0].startswith("sid=; Max-Age=0;")


async def test_unset_destroy_deletes_a_record_that_was_neither_changed_nor_due_for_a_touch(
    connect: Connect, storage: Storage
) -> None:
    async def only_unset(request: web.Request) -> web.Response:
        await session_of(request)
        del request[SESSION]
        return web.Response()

    await keep(storage, "apple", n=1)
    client = await connect(show, only_unset, unset="destroy", touch_after=60, forgets=True)
    await client.get("/show", headers=signed("apple"))

    await client.get("/only_unset", headers=signed("apple"))

    assert await storage.load("apple") is None


@pytest.mark.parametrize("handler", [unset, unset_to_none], ids=["del", "None"])
async def test_unset_destroy_of_a_new_session_asks_nothing_of_storage_or_browser(
    connect: Connect, faulty: FaultyStorage, handler: Handler
) -> None:
    client = await connect(handler, unset="destroy", storage=faulty)

    response = await client.get(f"/{handler.__name__}")

    assert faulty.calls == []
    assert cookies_set(response) == []


# Touching.


@pytest.mark.asvs("7.3.1")
@pytest.mark.nist("5.2-c")
async def test_an_unmodified_session_is_touched_so_that_it_lives_on(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    await keep(storage, "apple")
    client = await connect(show, storage=faulty, forgets=True)

    await client.get("/show", headers=signed("apple"))

    assert faulty.calls == ["load", "touch"]


@pytest.mark.parametrize(("handler", "verb"), [(show, "touch"), (views, "replace")])
async def test_a_record_that_was_touched_more_recently_than_touch_after_is_not_touched_again(
    connect: Connect, storage: Storage, faulty: FaultyStorage, handler: Any, verb: str
) -> None:
    await keep(storage, "apple")
    client = await connect(show, views, storage=faulty, touch_after=60, forgets=True)

    await client.get(f"/{handler.__name__}", headers=signed("apple"))
    await client.get("/show", headers=signed("apple"))

    assert faulty.calls == ["load", verb, "load"]


async def test_touch_after_zero_touches_each_time(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    await keep(storage, "apple")
    client = await connect(show, storage=faulty, touch_after=0, forgets=True)

    await client.get("/show", headers=signed("apple"))
    await client.get("/show", headers=signed("apple"))

    assert faulty.calls == ["load", "touch", "load", "touch"]


async def test_a_session_that_is_read_by_its_old_id_lives_on(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    async def rotate(request: web.Request) -> web.Response:
        await (await session_of(request)).rotate_id()
        return web.Response()

    await keep(storage, "apple")
    client = await connect(rotate, show, storage=faulty, touch_after=0, forgets=True)
    await client.get("/rotate", headers=signed("apple"))
    faulty.calls.clear()

    await client.get("/show", headers=signed("apple"))

    assert faulty.calls == ["load", "load", "touch"]


async def test_a_session_of_express_is_given_a_beginning_where_it_must_not_grow_too_old(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    await keep(storage, "apple")
    client = await connect(show, storage=faulty, absolute_timeout=60, idle_timeout=60, forgets=True)

    await client.get("/show", headers=signed("apple"))

    assert faulty.calls == ["load", "replace"]


async def test_a_request_that_takes_longer_than_touch_after_touches_at_its_end(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    async def read_slowly(request: web.Request) -> web.Response:
        await session_of(request)
        await asyncio.sleep(0.1)
        return web.Response()

    await keep(storage, "apple")
    client = await connect(show, read_slowly, storage=faulty, touch_after=0.05, forgets=True)

    await client.get("/show", headers=signed("apple"))
    await client.get("/read_slowly", headers=signed("apple"))

    assert faulty.calls == ["load", "touch", "load", "touch"]


class ReadsAndTouches(FaultyStorage):
    """A storage that can do both in one call."""

    async def load_and_touch(self, session_id: str, ttl: float) -> tuple[Stored, bool] | None:
        self.calls.append("load_and_touch")
        stored = await self.storage.load(session_id)
        return None if stored is None else (stored, await self.storage.touch(session_id, ttl))


async def test_a_record_that_was_touched_as_it_was_read_is_not_touched_again_at_the_end(
    connect: Connect, storage: Storage
) -> None:
    touching = ReadsAndTouches(storage)
    await keep(storage, "apple", n=1)
    client = await connect(show, storage=touching, touch_after=0, forgets=True)

    for _ in range(2):
        await client.get("/show", headers=signed("apple"))

    assert touching.calls == ["load_and_touch"] * 2


async def remember(request: web.Request) -> web.Response:
    session = await session_of(request)
    session.cookie.max_age = 60
    return web.Response()


async def test_a_session_with_a_shorter_life_of_its_own_is_touched_whenever_it_is_read(
    connect: Connect, faulty: FaultyStorage
) -> None:
    await keep(faulty, "apple", n=1)
    client = await connect(remember, show, storage=faulty, touch_after=60, forgets=True)
    await client.get("/remember", headers=signed("apple"))
    faulty.calls.clear()

    for _ in range(2):
        await client.get("/show", headers=signed("apple"))

    assert faulty.calls == ["load", "touch", "load", "touch"]


async def test_a_session_whose_life_a_function_of_the_request_shortened_is_touched_when_read(
    connect: Connect, faulty: FaultyStorage
) -> None:
    client = await connect(
        put,
        show,
        storage=faulty,
        cookie=lambda _request: CookieOptions(max_age=60),
        touch_after=60,
    )
    await client.get("/put", params={"n": "1"})
    faulty.calls.clear()

    for _ in range(2):
        await client.get("/show")

    assert faulty.calls == ["load", "touch", "load", "touch"]


async def test_a_session_that_is_modified_is_written_and_not_touched_as_well(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    await keep(storage, "apple")
    client = await connect(views, storage=faulty, touch_after=0, forgets=True)

    await client.get("/views", headers=signed("apple"))

    assert faulty.calls == ["load", "replace"]


async def test_a_session_whose_record_went_meanwhile_is_not_revived_and_its_cookie_is_cleared(
    connect: Connect, storage: Storage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        await storage.delete(session.id)
        session["n"] = 1
        return web.Response(text="answered")

    await keep(storage, "apple")
    client = await connect(handler, forgets=True)

    response = await client.get("/handler", headers=signed("apple"))

    assert await response.text() == "answered"
    assert await storage.load("apple") is None
    assert cookies_set(response)[0].startswith("sid=; Max-Age=0;")


async def test_changes_of_requests_that_meet_are_both_kept(
    connect: Connect, storage: Storage
) -> None:
    async def meet(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["mine"] = 1
        record = await storage.load("apple")
        assert record is not None
        theirs = record.payload.replace(b'"theirs": 0', b'"theirs": 1')
        await storage.replace("apple", theirs, 60, expected=record.version)
        return web.Response()

    await keep(storage, "apple", theirs=0)
    client = await connect(meet, forgets=True)

    await client.get("/meet", headers=signed("apple"))

    assert await kept(storage, "apple") == {"theirs": 1, "mine": 1}


# Order: first the storage, then the headers.


async def test_the_record_is_there_before_the_headers_leave(
    make_options: MakeOptions, aiohttp_client: AiohttpClient, storage: Storage
) -> None:
    seen: list[dict[str, Any] | None] = []

    async def look(request: web.Request, _response: web.StreamResponse) -> None:
        seen.append(await kept(storage, request[SESSION].id))

    app = web.Application()
    setup(app, make_options())
    app.on_response_prepare.append(look)
    app.router.add_get("/put", put)
    client = await aiohttp_client(app)

    await client.get("/put?fruit=apple")

    assert seen == [{"fruit": "apple"}]


async def test_no_cookie_is_set_when_the_save_fails(
    connect: Connect, faulty: FaultyStorage
) -> None:
    client = await connect(put, storage=faulty)
    faulty.fail()

    response = await client.get("/put?fruit=apple")

    assert response.status == 500
    assert cookies_set(response) == []


# What the response says.


@pytest.mark.nist("5.1-6")
async def test_a_cookie_keeps_its_header_out_of_caches(connect: Connect) -> None:
    client = await connect(views)

    response = await client.get("/views")

    assert response.headers["Cache-Control"] == NO_CACHE
    assert response.headers["Vary"] == "Cookie"


async def test_a_session_that_is_only_read_varies_by_cookie_and_may_be_cached(
    connect: Connect,
) -> None:
    client = await connect(views, show)
    await client.get("/views")

    response = await client.get("/show")

    assert response.headers["Vary"] == "Cookie"
    assert "Cache-Control" not in response.headers


@pytest.mark.parametrize("handler", [show, views])
async def test_with_the_middleware_only_a_known_session_varies_by_cookie_too(
    connect_bare: Connect, storage: Storage, handler: Any
) -> None:
    await keep(storage, "apple", views=1)
    client = await connect_bare(handler, touch_after=60, forgets=True)
    path = f"/{handler.__name__}"

    responses = [await client.get(path, headers=signed("apple")) for _ in range(2)]

    assert [response.headers["Vary"] for response in responses] == ["Cookie"] * 2


async def test_the_handlers_own_headers_stay(connect: Connect) -> None:
    async def handler(request: web.Request) -> web.Response:
        await views(request)
        headers = {"Cache-Control": "no-store", "Vary": "Accept", "Set-Cookie": "raw=1"}
        response = web.Response(headers=headers)
        response.set_cookie("theme", "dark")
        return response

    client = await connect(handler)

    response = await client.get("/handler")

    assert response.headers.getall("Cache-Control") == ["no-store"]
    assert response.headers["Vary"] == "Accept, Cookie"
    names = [header.partition("=")[0] for header in cookies_set(response)]
    assert sorted(names) == ["raw", "sid", "theme"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["cookie"], "cookie"),
        (["*"], "*"),
        (["Accept, COOKIE"], "Accept, COOKIE"),
        (["Origin", "Accept"], "Origin, Accept, Cookie"),
        (["Origin", "Cookie"], "Origin, Cookie"),
        ([""], "Cookie"),
    ],
    ids=str,
)
async def test_vary_names_cookie_once_and_loses_nothing(
    connect: Connect, given: list[str], expected: str
) -> None:
    async def handler(request: web.Request) -> web.Response:
        await get_session(request)
        response = web.Response()
        [response.headers.add("Vary", value) for value in given]
        return response

    client = await connect(handler)

    response = await client.get("/handler")

    assert ", ".join(response.headers.getall("Vary")) == expected


async def test_vary_names_cookie_though_a_middleware_outside_ours_writes_another(
    make_app: MakeApp, aiohttp_client: AiohttpClient
) -> None:
    @web.middleware
    async def outer(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        response.headers["Vary"] = "Origin"
        return response

    app = make_app(views, show)
    app.middlewares.insert(0, outer)
    client = await aiohttp_client(app)
    await client.get("/views")

    response = await client.get("/show")

    assert response.headers["Vary"] == "Origin, Cookie"


async def test_a_raised_redirect_keeps_the_session(connect: Connect, storage: Storage) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["flash"] = session.id
        raise web.HTTPFound("/show")

    client = await connect(handler, show)

    response = await client.get("/handler")

    found = await response.json()
    assert found["data"] == {"flash": found["id"]}
    assert await kept(storage, found["id"]) == found["data"]


async def test_a_raised_redirect_itself_carries_the_cookie(connect: Connect) -> None:
    async def handler(request: web.Request) -> web.Response:
        (await session_of(request))["flash"] = "saved"
        raise web.HTTPFound("/elsewhere")

    client = await connect(handler)

    response = await client.get("/handler", allow_redirects=False)

    assert response.status == 302
    assert len(cookies_set(response)) == 1


@pytest.mark.parametrize("status", [500, 503])
async def test_a_response_with_an_error_status_still_saves(connect: Connect, status: int) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status, text=str((await views(request)).text))

    client = await connect(handler)

    counts = [await (await client.get("/handler")).json(content_type=None) for _ in range(2)]

    assert counts == [1, 2]


@pytest.mark.parametrize("returned", [None, "text"])
async def test_a_handler_that_returns_no_response_is_a_500_that_says_so_and_keeps_nothing(
    connect: Connect, storage: Storage, caplog: pytest.LogCaptureFixture, returned: Any
) -> None:
    async def handler(request: web.Request) -> Any:
        (await session_of(request))["fruit"] = "pear"
        return returned

    await keep(storage, "apple", fruit="apple")
    client = await connect(handler, forgets=True)

    response = await client.get("/handler", headers=signed("apple"))

    assert response.status == 500
    assert await kept(storage, "apple") == {"fruit": "apple"}
    assert f"Expect response, not {type(returned)!r}" in caplog.text


async def test_a_raised_http_error_still_saves(connect: Connect) -> None:
    async def handler(request: web.Request) -> web.Response:
        raise web.HTTPInternalServerError(text=(await views(request)).text)

    client = await connect(handler)

    counts = [await (await client.get("/handler")).text() for _ in range(2)]

    assert counts == ["1", "2"]


async def crash(request: web.Request) -> web.Response:
    (await session_of(request))["crashed"] = True
    raise ZeroDivisionError


async def test_a_handler_that_crashes_saves_nothing(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    await keep(storage, "apple", n=1)
    client = await connect(crash, storage=faulty, forgets=True)

    response = await client.get("/crash", headers=signed("apple"))

    assert response.status == 500
    assert faulty.calls == ["load"]
    assert cookies_set(response) == []


async def test_a_handler_that_crashes_in_a_new_session_sets_no_cookie(
    connect: Connect, faulty: FaultyStorage
) -> None:
    client = await connect(crash, storage=faulty)

    response = await client.get("/crash")

    assert faulty.calls == []
    assert cookies_set(response) == []


async def test_what_was_saved_explicitly_before_a_crash_reaches_the_browser(
    connect: Connect,
) -> None:
    async def save_and_crash(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["kept"] = True
        await session.save()
        session["lost"] = True
        raise ZeroDivisionError

    client = await connect(save_and_crash, show)

    await client.get("/save_and_crash")
    found = await (await client.get("/show")).json()

    assert found["data"] == {"kept": True}


async def test_a_crash_that_an_outer_middleware_answers_saves_nothing(
    make_options: MakeOptions, aiohttp_client: AiohttpClient, faulty: FaultyStorage
) -> None:
    @web.middleware
    async def apologise(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except ZeroDivisionError:
            return web.Response(text="sorry")

    app = web.Application(middlewares=[apologise])
    setup(app, make_options(storage=faulty))
    app.router.add_get("/", crash)
    client = await aiohttp_client(app)

    response = await client.get("/")

    assert await response.text() == "sorry"
    assert faulty.calls == []
    assert cookies_set(response) == []


async def test_a_response_that_an_outer_middleware_puts_in_the_place_carries_the_cookie(
    make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    @web.middleware
    async def replace(request: web.Request, handler: Handler) -> web.StreamResponse:
        await handler(request)
        return web.Response(text="in its place")

    app = web.Application(middlewares=[replace])
    setup(app, make_options())
    app.router.add_get("/", views)
    client = await aiohttp_client(app)

    response = await client.get("/")

    assert await response.text() == "in its place"
    assert len(cookies_set(response)) == 1


async def test_a_file_response_carries_the_session(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("content")

    async def download(request: web.Request) -> web.FileResponse:
        await views(request)
        return web.FileResponse(tmp_path / "file.txt")

    client = await connect(download, show)

    response = await client.get("/download")
    found = await (await client.get("/show")).json()

    assert await response.text() == "content"
    assert found["data"] == {"views": 1}


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"If-None-Match": "*"}, 304), ({"Range": "bytes=0-2"}, 206), ({"Range": "bytes=99-"}, 416)],
    ids=["not modified", "a part", "no such part"],
)
async def test_a_file_response_without_the_whole_file_carries_the_session(
    connect: Connect, tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    (tmp_path / "file.txt").write_text("content")

    async def download(request: web.Request) -> web.FileResponse:
        await views(request)
        return web.FileResponse(tmp_path / "file.txt")

    client = await connect(download, show)

    response = await client.get("/download", headers=headers)
    found = await (await client.get("/show")).json()

    assert response.status == status
    assert response.headers["Cache-Control"] == 'private, no-cache="Set-Cookie"'
    assert found["data"] == {"views": 1}


async def test_a_file_that_was_compressed_beforehand_varies_by_cookie_too(
    connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "file.txt").write_text("content")
    (tmp_path / "file.txt.gz").write_bytes(gzip.compress(b"content"))

    async def download(request: web.Request) -> web.FileResponse:
        await views(request)
        return web.FileResponse(tmp_path / "file.txt")

    client = await connect(download)

    response = await client.get("/download", headers={"Accept-Encoding": "gzip"})

    assert response.headers["Content-Encoding"] == "gzip"
    assert response.headers["Vary"] == "Accept-Encoding, Cookie"


async def test_head_requests_have_sessions_too(connect: Connect) -> None:
    client = await connect(views, show)

    await client.head("/views")
    found = await (await client.get("/show")).json()

    assert found["data"] == {"views": 1}


# What cannot be kept.


def circle() -> list[Any]:
    """Return a list that holds itself."""
    endless: list[Any] = []
    endless.append(endless)
    return endless


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (object, "session['user']['pet'] is of type object"),
        (lambda: {1, 2}, "session['user']['pet'] is of type set"),
        (lambda: b"bytes", "session['user']['pet'] is of type bytes"),
        (lambda: float("nan"), "session['user']['pet'] is nan"),
        (lambda: [0, float("inf")], "session['user']['pet'][1] is inf"),
        (lambda: {1: "one"}, "session['user']['pet'] has the key 1"),
        (circle, "session['user']"),
    ],
    ids=["object", "set", "bytes", "NaN", "infinity", "key", "circle"],
)
async def test_a_value_that_cannot_be_kept_is_a_500_that_names_it_and_keeps_the_record(
    connect: Connect,
    storage: Storage,
    caplog: pytest.LogCaptureFixture,
    make: Callable[[], Any],
    reason: str,
) -> None:
    async def handler(request: web.Request) -> web.Response:
        (await session_of(request))["user"] = {"pet": make()}
        return web.Response()

    await keep(storage, "apple", user="Bob")
    client = await connect(handler, forgets=True)

    response = await client.get("/handler", headers=signed("apple"))

    assert response.status == 500
    assert await kept(storage, "apple") == {"user": "Bob"}
    assert f"UnserializableValue: {reason}" in caplog.text


@pytest.mark.parametrize(
    "value",
    [
        "",
        "snowman \u2603",
        "lone \ud800",
        "\x00",
        2**100,
        -(2**100),
        1.5,
        -0.0,
        None,
        [[]],
        {"": 0},
    ],
    ids=ascii,
)
async def test_a_json_value_comes_back_as_it_went_in(connect: Connect, value: Any) -> None:
    async def set_it(request: web.Request) -> web.Response:
        (await session_of(request))["value"] = value
        return web.Response()

    async def compare(request: web.Request) -> web.Response:
        found = (await session_of(request))["value"]
        return web.json_response(repr(found) == repr(value))

    client = await connect(set_it, compare)
    await client.get("/set_it")

    response = await client.get("/compare")

    assert await response.json() is True


async def test_the_storage_that_was_opened_by_us_is_closed_with_the_application(
    make_options: MakeOptions, storage: Storage
) -> None:
    closed: list[bool] = []

    class Closing(FaultyStorage):
        async def close(self) -> None:
            closed.append(True)

    app = web.Application()
    setup(app, make_options(storage=Closing(storage)))

    await start(app)

    assert closed == [True]


# A middleware outside ours.


def outside(change: Callable[[Session], Awaitable[object]]) -> Middleware:
    @web.middleware
    async def outer(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        await change(await session_of(request))
        return response

    return outer


async def serve_within(
    outer: Middleware, storage: Storage, aiohttp_client: AiohttpClient, **options: Any
) -> TestClient[web.Request, web.Application]:
    app = web.Application(middlewares=[outer])
    setup(app, SessionOptions(secret=SECRET, storage=storage, **options))
    app.router.add_get("/views", views)
    app.router.add_get("/show", show)
    return await aiohttp_client(app)


async def test_what_a_middleware_outside_ours_changes_is_kept(
    storage: Storage, aiohttp_client: AiohttpClient
) -> None:
    ids: list[str] = []

    async def change(session: Session) -> None:
        ids.append(session.id)
        session["outside"] = True

    client = await serve_within(outside(change), storage, aiohttp_client)

    response = await client.get("/views")

    assert len(cookies_set(response)) == 1
    assert await kept(storage, ids[0]) == {"views": 1, "outside": True}


async def test_what_it_changes_is_kept_where_the_handler_only_reads(
    storage: Storage, aiohttp_client: AiohttpClient
) -> None:
    async def count(session: Session) -> None:
        session["n"] = session.get("n", 0) + 1

    client = await serve_within(outside(count), storage, aiohttp_client)
    await keep(storage, "apple")

    for _ in range(3):
        await client.get("/show", headers=signed("apple"))

    assert await kept(storage, "apple") == {"n": 3}


async def test_what_it_saves_itself_moves_the_end_of_the_cookie(
    storage: Storage, aiohttp_client: AiohttpClient
) -> None:
    async def count_and_save(session: Session) -> None:
        session["n"] = session.get("n", 0) + 1
        await session.save()

    cookie = CookieOptions(max_age=60)
    client = await serve_within(outside(count_and_save), storage, aiohttp_client, cookie=cookie)
    await client.get("/show")

    responses = [await client.get("/show") for _ in range(2)]

    assert ["Max-Age=60" in cookies_set(response)[-1] for response in responses] == [True] * 2


async def test_a_middleware_outside_ours_can_destroy_the_session(
    storage: Storage, aiohttp_client: AiohttpClient
) -> None:
    client = await serve_within(outside(Session.destroy), storage, aiohttp_client)
    await keep(storage, "apple", views=1)

    response = await client.get("/views", headers=signed("apple"))

    assert cookies_set(response)[-1].startswith("sid=;")
    assert await storage.load("apple") is None


async def test_a_middleware_outside_ours_can_renew_the_id(
    storage: Storage, aiohttp_client: AiohttpClient
) -> None:
    ids: list[str] = []

    async def renew(session: Session) -> None:
        await session.renew_id()
        ids.append(session.id)

    client = await serve_within(outside(renew), storage, aiohttp_client)
    await keep(storage, "apple", views=1)

    response = await client.get("/views", headers=signed("apple"))

    assert ids[0] in cookies_set(response)[-1]
    assert await kept(storage, ids[0]) == {"views": 2}
