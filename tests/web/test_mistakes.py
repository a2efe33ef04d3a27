"""The usual mistakes: each says what is wrong, and what to write."""

from __future__ import annotations

import enum
import gc
import json
import warnings
from collections import OrderedDict, defaultdict
from typing import Any

import pytest
from aiohttp import web
from pytest_aiohttp import AiohttpClient

from aiosess import (
    SESSION,
    MemoryStorage,
    Storage,
    find_session,
    get_session,
    session_middleware,
    setup,
    setup_async,
)
from tests.conftest import SECRET, MakeOptions
from tests.web.conftest import Connect
from tests.web.handlers import keep, kept, session_of, show, signed


@pytest.fixture
def storage() -> Storage:
    """No mistake here has to do with where sessions are kept."""
    return MemoryStorage()


# A session that is not there (yet).


async def put_without_await(request: web.Request) -> web.Response:
    get_session(request)["n"] = 1  # type: ignore[index]  # pyright: ignore - that is the mistake
    return web.Response()


async def get_without_await(request: web.Request) -> web.Response:
    get_session(request).get("n")  # type: ignore[attr-defined]  # pyright: ignore - likewise
    return web.Response()


async def look_without_await(request: web.Request) -> web.Response:
    return web.json_response("n" in get_session(request))  # type: ignore[operator]  # pyright: ignore - likewise


@pytest.mark.parametrize("forgets", [put_without_await, get_without_await, look_without_await])
@pytest.mark.filterwarnings("ignore:coroutine")
async def test_a_session_that_is_used_before_it_is_awaited_says_to_await_it(
    connect: Connect, caplog: pytest.LogCaptureFixture, forgets: Any
) -> None:
    client = await connect(forgets)

    response = await client.get(f"/{forgets.__name__}")

    assert response.status == 500
    assert "'coroutine'" in caplog.text
    assert "session = await get_session(request)" in caplog.text


async def test_another_coroutine_that_was_not_awaited_is_not_taken_for_the_session(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    async def other(request: web.Request) -> web.Response:
        await get_session(request)
        raise TypeError("'coroutine' object is not subscriptable")

    client = await connect(other)

    await client.get("/other")

    assert "'coroutine' object is not subscriptable" in caplog.text
    assert "The coroutine may be the session" not in caplog.text


@pytest.mark.parametrize("ask", [get_session, find_session])
@pytest.mark.parametrize("exclude", [(), ["forget"]], ids=["selected", "not selected"])
async def test_what_is_never_awaited_bears_the_name_of_what_was_called(
    connect: Connect, ask: Any, exclude: Any
) -> None:
    async def forget(request: web.Request) -> web.Response:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ask(request)
            gc.collect()
        return web.json_response([str(each.message) for each in caught])

    client = await connect(forget, exclude=exclude)

    said = await (await client.get("/forget")).json()

    assert said == ["coroutine 'get_session() or find_session()' was never awaited"]


@pytest.mark.parametrize(
    "verb", ["save", "reload", "touch", "destroy", "regenerate", "renew_id", "rotate_id", "atomic"]
)
async def test_a_verb_that_is_never_awaited_bears_its_name(connect: Connect, verb: str) -> None:
    async def forget(request: web.Request) -> web.Response:
        session = await get_session(request)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            getattr(session, verb)(*([len] if verb == "atomic" else []))
            gc.collect()
        return web.json_response([str(each.message) for each in caught])

    client = await connect(forget)

    said = await (await client.get("/forget")).json()

    assert said == [f"coroutine 'Session.{verb}' was never awaited"]


async def take(request: web.Request) -> web.Response:
    session = request[SESSION]
    return web.json_response(dict(session))


async def unset(request: web.Request) -> web.Response:
    del request[SESSION]
    return web.Response()


@pytest.mark.parametrize("act", [take, unset])
@pytest.mark.parametrize("is_installed", [True, False], ids=["installed", "not installed"])
async def test_a_request_without_its_session_says_how_it_is_loaded(
    *,
    make_options: MakeOptions,
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    act: Any,
    is_installed: bool,
) -> None:
    app = web.Application()
    if is_installed:
        setup(app, make_options())
    app.router.add_get("/", act)
    client = await aiohttp_client(app)

    response = await client.get("/")

    assert response.status == 500
    assert "KeyError: <aiosess.SESSION: this request holds no session, or none yet" in caplog.text
    assert "session = await get_session(request)" in caplog.text


# Something else in the place of the session.


async def as_in_express(request: web.Request) -> web.Response:
    request[SESSION] = {"name": "alice"}  # type: ignore[misc]  # pyright: ignore - that is the mistake
    return web.Response()


async def as_in_express_and_away(request: web.Request) -> web.Response:
    request[SESSION] = {"name": "alice"}  # type: ignore[misc]  # pyright: ignore - likewise
    raise web.HTTPFound("/show")


@pytest.mark.parametrize("act", [as_in_express, as_in_express_and_away])
@pytest.mark.parametrize("is_bare", [False, True], ids=["setup", "middleware alone"])
async def test_what_is_put_in_the_place_of_a_session_that_nobody_asked_for_is_an_error(
    *,
    connect: Connect,
    connect_bare: Connect,
    caplog: pytest.LogCaptureFixture,
    act: Any,
    is_bare: bool,
) -> None:
    client = await (connect_bare if is_bare else connect)(act, show)

    response = await client.get(f"/{act.__name__}", allow_redirects=False)

    assert response.status == 500
    assert "request[SESSION] was set to a dict, which is not kept" in caplog.text
    assert "session.update(...)" in caplog.text


async def test_a_route_without_a_session_may_put_there_what_it_likes(connect: Connect) -> None:
    client = await connect(as_in_express, exclude=["as_in_express"])

    assert (await client.get("/as_in_express")).status == 200


# Values.


async def test_a_session_that_is_answered_as_json_says_how_its_data_are_taken(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response(await get_session(request))

    client = await connect(answer)

    response = await client.get("/answer")

    assert response.status == 500
    assert "JSON takes a copy of its data: dict(session)" in caplog.text


async def test_another_error_of_json_says_nothing_of_sessions(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(request: web.Request) -> web.Response:
        await get_session(request)
        return web.Response(text=json.dumps(object()))

    client = await connect(answer)

    await client.get("/answer")

    assert "Object of type object is not JSON serializable" in caplog.text
    assert "dict(session)" not in caplog.text


async def test_what_a_session_cannot_keep_is_answered_with_what_it_can(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    async def remember(request: web.Request) -> web.Response:
        (await get_session(request))["seen"] = [{"tags": {"a", "b"}}]
        return web.Response()

    client = await connect(remember)

    response = await client.get("/remember")

    assert response.status == 500
    assert "session['seen'][0]['tags'] is of type set, which a session cannot keep" in caplog.text
    assert "store sorted(value), or list(value)" in caplog.text


class Level(enum.IntEnum):
    HIGH = 3


class Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, (2,)), [1, [2]]),
        (Level.HIGH, 3),
        (Colour.RED, "red"),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(int, a=1), {"a": 1}),
        (True, True),
        (10**30, 10**30),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_what_json_does_not_tell_apart_comes_back_as_what_json_has(
    connect: Connect, value: object, expected: object
) -> None:
    held: list[object] = []

    async def remember(request: web.Request) -> web.Response:
        (await session_of(request))["value"] = value
        return web.Response()

    async def recall(request: web.Request) -> web.Response:
        held.append((await session_of(request))["value"])
        return web.Response()

    client = await connect(remember, recall)

    await client.get("/remember")
    await client.get("/recall")

    assert held == [expected]
    assert type(held[0]) is type(expected)


# Ids.


@pytest.mark.parametrize(
    ("identity", "complaint"),
    [
        ("a\ud800b", "with a lone surrogate"),
        ("a" * 1001, "of 1001 bytes: 1000 at the most"),
        ("a\nb", "with a control character"),
    ],
    ids=["surrogate", "long", "newline"],
)
async def test_an_identity_that_no_cookie_carries_is_refused_where_it_is_chosen(
    connect: Connect, storage: Storage, identity: str, complaint: str
) -> None:
    async def choose(request: web.Request) -> web.Response:
        session = await session_of(request)
        before = session.id
        with pytest.raises(ValueError, match="a session id cannot be a str") as refused:
            session.set_new_identity(identity)
        return web.json_response([str(refused.value), session.id == before])

    client = await connect(choose)

    said, is_as_before = await (await client.get("/choose")).json()

    assert complaint in said
    assert identity not in said
    assert is_as_before


async def test_an_identity_of_the_longest_kind_serves(connect: Connect, storage: Storage) -> None:
    async def choose(request: web.Request) -> web.Response:
        session = await session_of(request)
        session.set_new_identity("a" * 1000)
        session["n"] = 1
        return web.Response()

    client = await connect(choose)

    await client.get("/choose")

    assert await kept(storage, "a" * 1000) == {"n": 1}


# What is installed, and how.


@pytest.mark.one_lane("no request is served")
@pytest.mark.parametrize(
    ("install", "usage"),
    [
        (setup, "write setup(app, SessionOptions(secret=...))"),
        (setup_async, "write setup_async(app, use_factory=f), where f returns SessionOptions("),
    ],
)
def test_options_that_are_given_one_by_one_say_how_they_are_given(install: Any, usage: str) -> None:
    with pytest.raises(TypeError) as error:
        install(web.Application(), secret=SECRET)

    assert usage in str(error.value)
    assert SECRET not in str(error.value)


@pytest.mark.one_lane("it never comes to a session")
@pytest.mark.filterwarnings("ignore:old-style middleware:DeprecationWarning")
async def test_a_session_middleware_that_was_not_called_says_how_it_is_installed(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    app = web.Application(middlewares=[session_middleware])  # type: ignore[list-item]  # pyright: ignore - that is the mistake
    app.router.add_get("/", show)
    client = await aiohttp_client(app)

    response = await client.get("/")

    assert response.status == 500
    assert "write app.middlewares.append(session_middleware(SessionOptions(secret=" in caplog.text


async def test_a_change_in_a_stream_names_setup_only_where_it_is_not_in_use(
    connect: Connect, connect_bare: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        session = await session_of(request)
        response = web.StreamResponse()
        await response.prepare(request)
        session["n"] = 1
        return response

    said: list[str] = []
    for serve in (connect, connect_bare):
        client = await serve(stream)
        await client.get("/stream")
        said.append(caplog.text)
        caplog.clear()

    assert all("await session.save() before prepare()" in each for each in said)
    assert ["aiosess.setup(app, options)" in each for each in said] == [False, True]


async def test_a_session_shows_its_keys_at_most(connect: Connect, storage: Storage) -> None:
    async def shown(request: web.Request) -> web.Response:
        return web.Response(text=repr(await session_of(request)))

    await keep(storage, "an-id-of-a-session", name="alice")
    client = await connect(shown)

    text = await (await client.get("/shown", headers=signed("an-id-of-a-session"))).text()

    assert text == "<Session new=False keys=['name']>"
