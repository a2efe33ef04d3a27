"""Any storage made for aiohttp-session as the storage of SessionOptions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp_session
import pytest
from aiohttp import WSMsgType, hdrs, web
from aiohttp_session import AbstractStorage, SimpleCookieStorage
from pytest_aiohttp import AiohttpClient

from aiosess import (
    SESSION,
    BreakerOptions,
    CookieOptions,
    OptionsError,
    Session,
    SessionError,
    SessionGone,
    SessionNotSent,
    SessionOptions,
    compat,
    get_session,
    session_middleware,
    setup,
)
from aiosess.testing import FakeClock, session_for
from tests.interop.foreign_storages import (
    BasketStorage,
    Database,
    DocumentStorage,
    ItemStorage,
    TableStorage,
)
from tests.web.conftest import Client
from tests.web.handlers import kind, leave_alone, session_of, views

COOKIE = "AIOHTTP_SESSION"


class NoAnswerError(Exception):
    """An error that is no OSError, as clients of databases have it."""


class ConnectionLost(NoAnswerError):
    """As pymongo, botocore and others call theirs."""


class AuthenticationError(ConnectionLost):
    """As redis-py has it: among the connection errors, yet trying again does not mend it."""


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture(params=[DocumentStorage, ItemStorage, TableStorage])
def foreign(request: pytest.FixtureRequest, database: Database) -> AbstractStorage:
    """Each kind of storage in turn."""
    made: AbstractStorage = request.param(database)
    return made


class Serve:
    """Serve these handlers at ``/<name>`` over a storage, and return a browser."""

    def __init__(self, aiohttp_client: AiohttpClient) -> None:
        self._client = aiohttp_client

    async def __call__(
        self, storage: AbstractStorage, *handlers: Any, bare: bool = False, **options: Any
    ) -> Client:
        app = web.Application()
        made = SessionOptions(storage=storage, **options)
        if bare:
            app.middlewares.append(session_middleware(made))
        else:
            setup(app, made)
        for handler in handlers:
            name = handler.__name__
            app.router.add_route("*", f"/{name}", handler, name=name)
        return await self._client(app)


@pytest.fixture
def serve(aiohttp_client: AiohttpClient) -> Serve:
    return Serve(aiohttp_client)


async def put(request: web.Request) -> web.Response:
    """Put the query into the session."""
    (await session_of(request)).update(request.query)
    return web.Response()


async def data(request: web.Request) -> web.Response:
    """Answer what the session holds."""
    return web.json_response(dict(await session_of(request)))


def cookie_of(client: Client) -> str:
    (value,) = [each.value for each in client.session.cookie_jar if each.key == COOKIE]
    return value


# What it gets.


async def test_no_secret_is_needed(foreign: AbstractStorage) -> None:
    options = SessionOptions(storage=foreign)

    assert options.storage is foreign


async def test_a_session_is_kept_from_request_to_request(
    serve: Serve, foreign: AbstractStorage
) -> None:
    client = await serve(foreign, views)
    await client.get("/views")

    response = await client.get("/views")

    assert await response.json() == 2


async def test_a_response_that_sets_the_cookie_tells_caches(
    serve: Serve, foreign: AbstractStorage
) -> None:
    client = await serve(foreign, put)

    response = await client.get("/put?a=1")

    assert response.headers[hdrs.CACHE_CONTROL] == 'private, no-cache="Set-Cookie"'
    assert response.headers[hdrs.VARY] == "Cookie"


async def test_the_session_is_ours_and_aiohttp_sessions(
    serve: Serve, foreign: AbstractStorage
) -> None:
    async def kinds(request: web.Request) -> web.Response:
        session = await aiohttp_session.get_session(request)
        return web.json_response(
            [
                isinstance(session, Session),
                session is await get_session(request),
                session is request[SESSION],
            ]
        )

    client = await serve(foreign, kinds)

    response = await client.get("/kinds")

    assert await response.json() == [True, True, True]


async def test_a_session_that_nobody_asks_for_is_not_loaded(
    serve: Serve, database: Database
) -> None:
    client = await serve(DocumentStorage(database), leave_alone)
    client.session.cookie_jar.update_cookies({COOKIE: "something"})

    response = await client.get("/leave_alone")

    assert database.calls == []
    assert hdrs.SET_COOKIE not in response.headers
    assert hdrs.VARY not in response.headers


async def test_a_session_that_is_only_read_is_not_written(serve: Serve, database: Database) -> None:
    client = await serve(DocumentStorage(database), put, data)
    await client.get("/put?a=1")
    database.calls.clear()

    response = await client.get("/data")

    assert database.calls == ["read"]
    assert hdrs.SET_COOKIE not in response.headers
    assert response.headers[hdrs.VARY] == "Cookie"


async def test_two_tasks_of_a_request_load_the_session_once(
    serve: Serve, database: Database
) -> None:
    async def twice(request: web.Request) -> web.Response:
        one, other = await asyncio.gather(get_session(request), get_session(request))
        return web.json_response(one is other)

    client = await serve(DocumentStorage(database), put, twice)
    await client.get("/put?a=1")
    database.calls.clear()

    response = await client.get("/twice")

    assert await response.json() is True
    assert database.calls == ["read"]


async def test_a_change_inside_a_value_is_noticed(serve: Serve, foreign: AbstractStorage) -> None:
    async def begin(request: web.Request) -> web.Response:
        (await session_of(request))["cart"] = {"items": []}
        return web.Response()

    async def add(request: web.Request) -> web.Response:
        (await session_of(request))["cart"]["items"].append("book")
        return web.Response()

    client = await serve(foreign, begin, add, data)
    await client.get("/begin")
    await client.get("/add")

    response = await client.get("/data")

    assert await response.json() == {"cart": {"items": ["book"]}}


async def test_a_number_that_became_another_kind_of_number_is_a_change(
    serve: Serve, database: Database
) -> None:
    async def begin(request: web.Request) -> web.Response:
        (await session_of(request))["flags"] = [1]
        return web.Response()

    async def turn(request: web.Request) -> web.Response:
        (await session_of(request))["flags"][0] = True
        return web.Response()

    client = await serve(DocumentStorage(database), begin, turn)
    await client.get("/begin")

    await client.get("/turn")

    (row,) = database.rows.values()
    assert row["data"]["session"]["flags"][0] is True


async def test_values_need_not_be_json_where_the_storage_takes_them(
    serve: Serve, database: Database
) -> None:
    moment = datetime(2026, 11, 23, tzinfo=UTC)

    async def begin(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["at"] = {moment}
        session["cookie"] = b"a key that is reserved in our own records"
        return web.Response()

    async def add(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["at"].add("later")
        return web.Response(text=repr(session["cookie"]))

    client = await serve(DocumentStorage(database), begin, add)
    await client.get("/begin")

    response = await client.get("/add")

    (row,) = database.rows.values()
    assert row["data"]["session"]["at"] == {moment, "later"}
    assert await response.text() == "b'a key that is reserved in our own records'"


async def test_what_cannot_be_copied_counts_as_changed(serve: Serve, database: Database) -> None:
    async def look(request: web.Request) -> web.Response:
        session = await session_of(request)
        assert not session["lock"].locked()
        return web.Response()

    client = await serve(DocumentStorage(database), look)
    row = {"data": {"session": {}, "created": 1}}
    database.rows[f"{COOKIE}_x"] = row
    client.session.cookie_jar.update_cookies({COOKIE: "x"})

    async def read(key: Any) -> Any:
        return {"data": {"session": {"lock": _Uncopied()}, "created": 1}}

    async def write(key: Any, row: Any) -> None:
        database.rows[key] = row

    database.read, database.write = read, write  # type: ignore[method-assign]

    await client.get("/look")

    assert database.rows[f"{COOKIE}_x"] is not row


class _Uncopied(asyncio.Lock):
    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("there is only one")


async def test_members_of_the_storages_own_session_are_passed_on(
    serve: Serve, database: Database
) -> None:
    async def add(request: web.Request) -> web.Response:
        session: Any = await get_session(request)
        session.add(request.query["item"])
        return web.Response()

    client = await serve(BasketStorage(database), add, data)
    await client.get("/add?item=book")
    await client.get("/add?item=pen")

    response = await client.get("/data")

    assert await response.json() == {"items": ["book", "pen"]}


async def test_a_member_that_nobody_has_is_an_attribute_error(
    serve: Serve, database: Database
) -> None:
    async def ask(request: web.Request) -> web.Response:
        session: Any = await get_session(request)
        with pytest.raises(AttributeError, match="no_such_member"):
            session.no_such_member()
        return web.Response()

    client = await serve(DocumentStorage(database), ask)

    response = await client.get("/ask")

    assert response.status == 200


async def test_the_storage_is_found_in_the_request_with_all_its_members(
    serve: Serve, database: Database
) -> None:
    async def ask(request: web.Request) -> web.Response:
        storage = request[aiohttp_session.STORAGE_KEY]
        return web.json_response([storage.cookie_name, storage.database is database])

    client = await serve(DocumentStorage(database), ask)

    response = await client.get("/ask")

    assert await response.json() == [COOKIE, True]


async def test_only_the_routes_that_were_chosen_get_a_session(
    serve: Serve, foreign: AbstractStorage
) -> None:
    client = await serve(foreign, views, kind, for_routes=["views"])

    response = await client.get("/kind")

    assert await response.text() == "NoneType"


async def test_the_session_is_loaded_before_the_handler_where_that_is_wanted(
    serve: Serve, database: Database
) -> None:
    async def look(request: web.Request) -> web.Response:
        session: Session = request[SESSION]
        return web.json_response(dict(session))

    client = await serve(DocumentStorage(database), put, look, load="eager")
    await client.get("/put?a=1")

    response = await client.get("/look")

    assert await response.json() == {"a": "1"}


# Outages.


@pytest.mark.parametrize("error", [OSError(), ConnectionLost(), TimeoutError()])
async def test_a_call_without_an_answer_is_tried_again(
    serve: Serve, foreign: AbstractStorage, database: Database, error: Exception
) -> None:
    client = await serve(foreign, views, retries=2)
    await client.get("/views")
    database.errors = [error, error]

    response = await client.get("/views")

    assert await response.json() == 2


async def test_a_save_without_an_answer_is_tried_again_and_sends_one_cookie(
    serve: Serve, foreign: AbstractStorage, database: Database
) -> None:
    client = await serve(foreign, views, retries=1)
    database.errors = [ConnectionLost()]

    response = await client.get("/views")

    assert len(response.headers.getall(hdrs.SET_COOKIE)) == 1
    assert await (await client.get("/views")).json() == 2


async def test_after_all_retries_the_answer_is_500_and_the_handler_is_not_called(
    serve: Serve, foreign: AbstractStorage, database: Database
) -> None:
    calls: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        calls.append("called")
        return web.Response()

    client = await serve(foreign, views, handler, retries=1)
    await client.get("/views")
    database.errors = [ConnectionLost(), ConnectionLost()]

    response = await client.get("/handler")

    assert response.status == 500
    assert calls == []


async def test_without_retries_the_handler_gets_no_session(
    serve: Serve, foreign: AbstractStorage, database: Database
) -> None:
    client = await serve(foreign, views, kind)
    await client.get("/views")
    database.errors = [ConnectionLost()]

    response = await client.get("/kind")

    assert await response.text() == "NoneType"


async def test_an_anonymous_session_stands_in_and_is_not_saved(
    serve: Serve, foreign: AbstractStorage, database: Database
) -> None:
    async def tell(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["views"] = 99
        return web.json_response(session.is_anonymous)

    client = await serve(foreign, views, tell, on_unavailable="anonymous")
    await client.get("/views")
    database.errors = [ConnectionLost()]

    response = await client.get("/tell")

    assert await response.json() is True
    assert hdrs.SET_COOKIE not in response.headers
    assert await (await client.get("/views")).json() == 2


async def test_after_some_failures_a_storage_is_not_asked_until_the_pause_is_over(
    serve: Serve, foreign: AbstractStorage, database: Database
) -> None:
    clock = FakeClock()
    client = await serve(
        foreign, views, kind, breaker=BreakerOptions(failures=1), retries=0, clock=clock
    )
    await client.get("/views")
    database.errors = [ConnectionLost()]
    statuses = [(await client.get("/kind")).status for _ in range(3)]
    clock.advance(1)

    response = await client.get("/kind")

    assert statuses == [500, 500, 500]
    assert response.status == 200


async def test_a_save_that_fails_sends_no_cookie(
    serve: Serve, foreign: AbstractStorage, database: Database
) -> None:
    client = await serve(foreign, views)
    database.errors = [ConnectionLost()]

    response = await client.get("/views")

    assert response.status == 500
    assert hdrs.SET_COOKIE not in response.headers


async def test_a_call_that_takes_too_long_counts_as_no_answer(
    serve: Serve, database: Database
) -> None:
    class Slow(DocumentStorage):
        async def load_session(self, _request: web.Request) -> aiohttp_session.Session:
            await asyncio.Event().wait()
            raise AssertionError

    client = await serve(Slow(database), kind, timeout=0.01)

    response = await client.get("/kind")

    assert await response.text() == "NoneType"


@pytest.mark.parametrize("error", [AuthenticationError(), KeyError("a mistake")])
async def test_an_error_that_trying_again_does_not_mend_is_raised(
    serve: Serve, database: Database, error: Exception
) -> None:
    client = await serve(DocumentStorage(database), put, data, retries=3)
    await client.get("/put?a=1")
    database.calls.clear()
    database.errors = [error]

    response = await client.get("/data")

    assert response.status == 500
    assert database.calls == ["read"]


async def test_a_cookie_that_the_storage_cannot_read_counts_as_none(
    serve: Serve, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    client = await serve(TableStorage(database), views)
    client.session.cookie_jar.update_cookies({COOKIE: "no UUID"})

    with caplog.at_level(logging.WARNING, "aiosess"):
        response = await client.get("/views")

    assert await response.json() == 1
    assert "cannot be read (TableStorage: ValueError)" in caplog.text


@pytest.mark.parametrize("kind", [SimpleCookieStorage, compat.SimpleCookieStorage])
async def test_a_cookie_that_is_nested_too_deeply_counts_as_none(
    serve: Serve, kind: type[AbstractStorage]
) -> None:
    client = await serve(kind(), views)

    response = await client.get("/views", headers={"Cookie": f"{COOKIE}={'[' * 7_000}"})

    assert await response.json() == 1


async def test_a_value_error_that_is_not_about_a_cookie_is_raised(
    serve: Serve, database: Database
) -> None:
    class Broken(DocumentStorage):
        async def load_session(self, _request: web.Request) -> aiohttp_session.Session:
            raise ValueError("a mistake")

    client = await serve(Broken(database), views)

    response = await client.get("/views")

    assert response.status == 500


async def test_a_storage_that_returns_no_session_is_refused(
    serve: Serve, database: Database
) -> None:
    class Broken(DocumentStorage):
        async def load_session(self, _request: web.Request) -> Any:
            return {}

    async def ask(request: web.Request) -> web.Response:
        with pytest.raises(TypeError, match="not a session"):
            await get_session(request)
        return web.Response()

    client = await serve(Broken(database), ask)

    response = await client.get("/ask")

    assert response.status == 200


# Responses that the handler prepares itself.


async def test_a_stream_sends_the_cookie_of_a_new_session(
    serve: Serve, foreign: AbstractStorage
) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        (await session_of(request))["a"] = 1
        response = web.StreamResponse()
        await response.prepare(request)
        return response

    client = await serve(foreign, stream, data)
    await client.get("/stream")

    response = await client.get("/data")

    assert await response.json() == {"a": 1}


async def test_what_a_stream_changes_later_is_kept_where_the_browser_knows_the_session(
    serve: Serve, foreign: AbstractStorage
) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        session = await session_of(request)
        session["begun"] = True
        response = web.StreamResponse()
        await response.prepare(request)
        session["done"] = True
        return response

    client = await serve(foreign, stream, data)
    await (await client.get("/stream")).read()

    response = await client.get("/data")

    assert await response.json() == {"begun": True, "done": True}


async def test_what_a_websocket_saves_is_kept(serve: Serve, foreign: AbstractStorage) -> None:
    async def chat(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            session = await session_of(request)
            session["said"] = message.data
            await session.save()
            await socket.close()
        return socket

    client = await serve(foreign, put, chat, data)
    await client.get("/put?a=1")
    async with client.ws_connect("/chat") as socket:
        await socket.send_str("hello")
        assert (await socket.receive()).type is WSMsgType.CLOSE

    response = await client.get("/data")

    assert await response.json() == {"a": "1", "said": "hello"}


async def test_a_new_session_that_can_no_longer_be_sent_is_an_error(
    serve: Serve, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write_eof()
        (await session_of(request))["a"] = 1
        return response

    client = await serve(DocumentStorage(database), stream)

    await (await client.get("/stream")).read()

    assert database.rows == {}
    assert "await session.save() before prepare()" in caplog.text


async def test_data_in_the_cookie_cannot_change_after_the_headers(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write_eof()
        (await session_of(request))["b"] = 2
        return response

    client = await serve(SimpleCookieStorage(), put, stream)
    await client.get("/put?a=1")
    before = cookie_of(client)

    await (await client.get("/stream")).read()

    assert "SessionNotSent" in caplog.text
    assert cookie_of(client) == before


async def test_save_before_prepare_needs_no_setup(serve: Serve, foreign: AbstractStorage) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        session = await session_of(request)
        session["a"] = 1
        await session.save()
        session["b"] = 2
        return web.Response()

    client = await serve(foreign, stream, data, bare=True)
    await client.get("/stream")

    response = await client.get("/data")

    assert await response.json() == {"a": 1, "b": 2}


async def test_an_outage_at_the_head_of_a_stream_is_a_500(
    serve: Serve, foreign: AbstractStorage, database: Database
) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        session = await session_of(request)
        session["a"] = 1
        database.errors = [ConnectionLost()]
        response = web.StreamResponse()
        await response.prepare(request)
        session["b"] = 2
        await response.write(b"all of it")
        return response

    client = await serve(foreign, stream)

    response = await client.get("/stream")

    assert response.status == 500
    assert hdrs.SET_COOKIE not in response.headers
    assert database.rows == {}


@pytest.mark.parametrize("retries", [None, 0])
async def test_an_outage_at_the_end_of_a_stream_leaves_the_response_whole(
    serve: Serve, database: Database, retries: int | None
) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        session = await session_of(request)
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"all of it")
        await response.write_eof()
        session["b"] = 2
        database.errors = [ConnectionLost()]
        return response

    client = await serve(DocumentStorage(database), put, stream, retries=retries)
    await client.get("/put?a=1")

    response = await client.get("/stream")

    (row,) = database.rows.values()
    assert await response.text() == "all of it"
    assert row["data"]["session"] == {"a": "1"}


async def test_the_cookie_goes_with_the_response_that_leaves(
    serve: Serve, foreign: AbstractStorage
) -> None:
    @web.middleware
    async def other(request: web.Request, handler: Any) -> web.StreamResponse:
        await handler(request)
        return web.Response(text="another")

    client_app = web.Application(middlewares=[other])
    setup(client_app, SessionOptions(storage=foreign))
    client_app.router.add_get("/views", views)
    client = await serve._client(client_app)

    response = await client.get("/views")

    assert await response.text() == "another"
    assert COOKIE in response.cookies


# The members of the session.


async def test_a_raised_redirect_keeps_the_session(serve: Serve, foreign: AbstractStorage) -> None:
    async def login(request: web.Request) -> web.Response:
        (await session_of(request))["user"] = "ann"
        raise web.HTTPFound("/data")

    client = await serve(foreign, login, data)

    response = await client.get("/login")

    assert await response.json() == {"user": "ann"}


async def test_renew_id_keeps_the_data_and_empties_the_old_record(
    serve: Serve, foreign: AbstractStorage
) -> None:
    async def login(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.renew_id()
        session["user"] = "ann"
        return web.Response()

    client = await serve(foreign, put, login, data)
    await client.get("/put?cart=full")
    before = cookie_of(client)
    await client.get("/login")
    after = cookie_of(client)

    response = await client.get("/data")

    assert await response.json() == {"cart": "full", "user": "ann"}
    assert after != before
    client.session.cookie_jar.clear()
    stale = await client.get("/data", headers={hdrs.COOKIE: f"{COOKIE}={before}"})
    assert await stale.json() == {}


@pytest.mark.parametrize("begin_anew", ["regenerate", "new_session"])
async def test_regenerate_starts_over_under_another_id(
    serve: Serve, foreign: AbstractStorage, begin_anew: str
) -> None:
    async def login(request: web.Request) -> web.Response:
        session = await session_of(request)
        if begin_anew == "regenerate":
            await session.regenerate()
            session["user"] = "ann"
        else:
            (await aiohttp_session.new_session(request))["user"] = session["cart"]
        return web.Response()

    client = await serve(foreign, put, login, data)
    await client.get("/put?cart=ann")
    before = cookie_of(client)
    await client.get("/login")

    response = await client.get("/data")

    assert await response.json() == {"user": "ann"}
    client.session.cookie_jar.clear()
    stale = await client.get("/data", headers={hdrs.COOKIE: f"{COOKIE}={before}"})
    assert await stale.json() == {}


@pytest.mark.parametrize("end", ["destroy", "invalidate", "unset", "empty"])
async def test_the_end_of_a_session_clears_record_and_cookie(
    serve: Serve, foreign: AbstractStorage, end: str
) -> None:
    async def logout(request: web.Request) -> web.Response:
        session = await session_of(request)
        match end:
            case "destroy":
                await session.destroy()
            case "invalidate":
                session.invalidate()
            case "unset":
                del request[SESSION]
            case _:
                session.clear()
        return web.Response()

    client = await serve(foreign, put, logout, data, unset="destroy")
    await client.get("/put?a=1")
    before = cookie_of(client)

    response = await client.get("/logout")

    assert response.cookies[COOKIE].value == ""
    stale = await client.get("/data", headers={hdrs.COOKIE: f"{COOKIE}={before}"})
    assert await stale.json() == {}


async def test_unset_keeps_the_record_where_that_is_wanted(
    serve: Serve, foreign: AbstractStorage
) -> None:
    async def unset(request: web.Request) -> web.Response:
        (await session_of(request))["a"] = "not kept"
        del request[SESSION]
        return web.Response()

    client = await serve(foreign, put, unset, data)
    await client.get("/put?a=1")
    await client.get("/unset")

    response = await client.get("/data")

    assert await response.json() == {"a": "1"}


async def test_a_destroyed_session_takes_no_more_changes(
    serve: Serve, foreign: AbstractStorage
) -> None:
    async def logout(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.destroy()
        with pytest.raises(SessionGone):
            session["a"] = 2
        return web.Response()

    client = await serve(foreign, put, logout)
    await client.get("/put?a=1")

    response = await client.get("/logout")

    assert response.status == 200


async def test_data_put_in_after_invalidate_are_kept(
    serve: Serve, foreign: AbstractStorage
) -> None:
    async def restart(request: web.Request) -> web.Response:
        session = await session_of(request)
        session.invalidate()
        session["b"] = 2
        return web.Response()

    client = await serve(foreign, put, restart, data)
    await client.get("/put?a=1")
    await client.get("/restart")

    response = await client.get("/data")

    assert await response.json() == {"b": 2}


async def test_an_empty_new_session_is_not_kept(serve: Serve, database: Database) -> None:
    async def mark(request: web.Request) -> web.Response:
        (await session_of(request)).changed()
        return web.Response()

    client = await serve(DocumentStorage(database), mark, save_uninitialized=True)

    response = await client.get("/mark")

    assert database.rows == {}
    assert hdrs.SET_COOKIE not in response.headers


def change_value(session: Session) -> None:
    session["a"] = {"n": 2}
    session["b"] = 2


def change_inside(session: Session) -> None:
    session["a"]["n"] = 2


def delete(session: Session) -> None:
    del session["a"]


def end(session: Session) -> None:
    session.invalidate()


@pytest.mark.parametrize("change", [change_value, change_inside, delete, end])
async def test_rollback_forgets_what_this_request_did(
    serve: Serve, foreign: AbstractStorage, database: Database, change: Callable[[Session], None]
) -> None:
    async def begin(request: web.Request) -> web.Response:
        (await session_of(request))["a"] = {"n": 1}
        return web.Response()

    async def regret(request: web.Request) -> web.Response:
        session = await session_of(request)
        session.max_age = 5
        change(session)
        session.rollback()
        return web.json_response(dict(session))

    client = await serve(foreign, begin, regret, data)
    await client.get("/begin")
    database.calls.clear()

    response = await client.get("/regret")

    assert await response.json() == {"a": {"n": 1}}
    assert database.calls == ["read"]
    assert await (await client.get("/data")).json() == {"a": {"n": 1}}


@pytest.mark.parametrize("change", ["renew_id", "regenerate"])
async def test_rollback_takes_the_old_id_back(
    serve: Serve, foreign: AbstractStorage, database: Database, change: str
) -> None:
    async def regret(request: web.Request) -> web.Response:
        session = await session_of(request)
        await getattr(session, change)()
        session["b"] = 2
        session.rollback()
        return web.json_response(dict(session))

    client = await serve(foreign, put, regret, data)
    await client.get("/put?a=1")
    database.calls.clear()

    response = await client.get("/regret")

    assert await response.json() == {"a": "1"}
    assert database.calls == ["read"]
    assert await (await client.get("/data")).json() == {"a": "1"}


async def test_reload_reads_the_record_again(serve: Serve, foreign: AbstractStorage) -> None:
    met, changed = asyncio.Event(), asyncio.Event()

    async def wait(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["mine"] = "forgotten"
        met.set()
        await changed.wait()
        await session.reload()
        return web.json_response(dict(session))

    client = await serve(foreign, put, wait)
    await client.get("/put?a=1")
    waiting = asyncio.ensure_future(client.get("/wait"))
    await met.wait()
    await client.get("/put?a=2")
    changed.set()

    response = await waiting

    assert await response.json() == {"a": "2"}


async def test_what_is_changed_while_a_reload_is_under_way_survives(
    serve: Serve, foreign: AbstractStorage
) -> None:
    async def change_meanwhile(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["mine"] = "forgotten"
        reloads = [asyncio.create_task(session.reload()) for _ in range(2)]
        await asyncio.sleep(0)
        session["late"] = "kept"
        await asyncio.gather(*reloads)
        return web.json_response(dict(session))

    client = await serve(foreign, put, change_meanwhile, data)
    await client.get("/put?a=1")

    response = await client.get("/change_meanwhile")

    assert await response.json() == {"a": "1", "late": "kept"}
    assert await (await client.get("/data")).json() == {"a": "1", "late": "kept"}


async def test_a_session_that_was_saved_in_this_request_can_be_reloaded(
    serve: Serve, foreign: AbstractStorage
) -> None:
    async def ask(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["b"] = "2"
        await session.save()
        session["b"] = "not saved"
        await session.reload()
        return web.json_response(dict(session))

    client = await serve(foreign, put, ask)
    await client.get("/put?a=1")

    response = await client.get("/ask")

    assert await response.json() == {"a": "1", "b": "2"}


async def test_touching_a_new_session_does_nothing(
    serve: Serve, foreign: AbstractStorage, database: Database
) -> None:
    async def touch(request: web.Request) -> web.Response:
        return web.json_response(await (await session_of(request)).touch())

    client = await serve(foreign, touch)

    response = await client.get("/touch")

    assert await response.json() is True
    assert database.rows == {}


async def test_a_handler_that_fails_keeps_nothing(
    serve: Serve, foreign: AbstractStorage, database: Database
) -> None:
    async def fail(request: web.Request) -> web.Response:
        (await session_of(request))["a"] = 1
        raise LookupError("a mistake")

    client = await serve(foreign, fail)

    response = await client.get("/fail")

    assert response.status == 500
    assert database.rows == {}


async def test_cookie_attributes_that_browsers_refuse_are_sent_all_the_same(
    serve: Serve, database: Database
) -> None:
    storage = DocumentStorage(database, samesite="None", secure=False, max_age=60)
    client = await serve(storage, put)

    response = await client.get("/put?a=1")

    assert response.cookies[COOKIE]["samesite"] == "None"
    assert response.cookies[COOKIE]["max-age"] == "60"


async def test_a_new_session_cannot_be_reloaded(serve: Serve, foreign: AbstractStorage) -> None:
    async def ask(request: web.Request) -> web.Response:
        session = await session_of(request)
        with pytest.raises(SessionGone, match="is new"):
            await session.reload()
        session["a"] = 1
        await session.save()
        with pytest.raises(SessionError, match="from the next request on"):
            await session.reload()
        return web.Response()

    client = await serve(foreign, ask)

    response = await client.get("/ask")

    assert response.status == 200


async def test_a_new_session_that_cannot_be_reloaded_keeps_what_was_put_in(
    serve: Serve, foreign: AbstractStorage
) -> None:
    async def ask(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["a"] = 1
        with pytest.raises(SessionGone, match="is new"):
            await session.reload()
        return web.Response()

    client = await serve(foreign, ask, data)
    await client.get("/ask")

    response = await client.get("/data")

    assert await response.json() == {"a": 1}


async def test_a_session_that_ended_meanwhile_cannot_be_reloaded(
    serve: Serve, foreign: AbstractStorage, database: Database
) -> None:
    async def ask(request: web.Request) -> web.Response:
        session = await session_of(request)
        database.rows.clear()
        with pytest.raises(SessionGone, match="destroyed or has expired"):
            await session.reload()
        return web.Response()

    client = await serve(foreign, put, ask)
    await client.get("/put?a=1")

    response = await client.get("/ask")

    assert response.status == 200


async def test_touch_writes_the_record_again(
    serve: Serve, foreign: AbstractStorage, database: Database
) -> None:
    async def touch(request: web.Request) -> web.Response:
        return web.json_response(await (await session_of(request)).touch())

    client = await serve(foreign, put, touch)
    await client.get("/put?a=1")
    database.calls.clear()

    response = await client.get("/touch")

    assert await response.json() is True
    assert database.calls == ["read", "write"]
    assert COOKIE in response.cookies


async def test_rolling_sends_the_cookie_with_each_response_that_used_its_session(
    serve: Serve, foreign: AbstractStorage
) -> None:
    client = await serve(foreign, put, data, rolling=True)
    await client.get("/put?a=1")

    response = await client.get("/data")

    assert COOKIE in response.cookies


async def test_atomic_says_that_it_cannot(serve: Serve, foreign: AbstractStorage) -> None:
    async def count(request: web.Request) -> web.Response:
        session = await session_of(request)
        with pytest.raises(SessionError, match="a storage that compares and sets"):
            await session.atomic(lambda newest: newest.update(n=1))
        return web.Response()

    client = await serve(foreign, count)

    response = await client.get("/count")

    assert response.status == 200


async def test_the_id_is_known_once_the_storage_has_made_one(
    serve: Serve, foreign: AbstractStorage
) -> None:
    async def ask(request: web.Request) -> web.Response:
        session = await session_of(request)
        with pytest.raises(SessionError, match="makes one when it saves"):
            _ = session.id
        session["a"] = 1
        await session.save()
        return web.Response(text=session.id)

    client = await serve(foreign, ask)

    response = await client.get("/ask")

    assert await response.text() == cookie_of(client)


async def test_the_identity_is_the_storages_own(serve: Serve, database: Database) -> None:
    async def ask(request: web.Request) -> web.Response:
        session = await session_of(request)
        return web.Response(text=type(session.identity).__name__)

    client = await serve(TableStorage(database), put, ask)
    await client.get("/put?a=1")

    response = await client.get("/ask")

    assert await response.text() == "UUID"


async def test_the_identity_of_a_new_session_can_be_chosen(
    serve: Serve, database: Database
) -> None:
    async def begin(request: web.Request) -> web.Response:
        session = await session_of(request)
        session.set_new_identity("chosen")
        session["a"] = 1
        return web.Response()

    async def again(request: web.Request) -> web.Response:
        with pytest.raises(RuntimeError, match="not new"):
            (await session_of(request)).set_new_identity("another")
        return web.Response()

    client = await serve(DocumentStorage(database), begin, again)
    await client.get("/begin")

    response = await client.get("/again")

    assert response.status == 200
    assert set(database.rows) == {f"{COOKIE}_chosen"}


async def test_max_age_can_be_set_for_one_session(serve: Serve, database: Database) -> None:
    async def remember(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["a"] = 1
        session.cookie.max_age = 99
        return web.json_response(session.max_age)

    client = await serve(DocumentStorage(database, max_age=10), remember)

    response = await client.get("/remember")

    (row,) = database.rows.values()
    assert await response.json() == 99
    assert row["expire"] == 99
    assert response.cookies[COOKIE]["max-age"] == "99"


async def test_another_attribute_of_the_cookie_cannot(serve: Serve, database: Database) -> None:
    async def narrow(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["a"] = 1
        session.cookie.path = "/admin"
        with pytest.raises(SessionError, match="path cannot be set with DocumentStorage"):
            await session.save()
        session.rollback()
        return web.Response()

    client = await serve(DocumentStorage(database), narrow)

    response = await client.get("/narrow")

    assert response.status == 200


async def test_the_id_cannot_change_after_the_headers(
    serve: Serve, foreign: AbstractStorage
) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        session = await session_of(request)
        response = web.StreamResponse()
        await response.prepare(request)
        with pytest.raises(SessionNotSent):
            await session.renew_id()
        return response

    client = await serve(foreign, put, stream)
    await client.get("/put?a=1")

    response = await client.get("/stream")

    assert response.status == 200


async def test_a_login_renews_the_id(serve: Serve, foreign: AbstractStorage) -> None:
    client = await serve(foreign, put, data)
    await client.get("/put?cart=full")
    before = cookie_of(client)

    await client.get("/put?AIOHTTP_SECURITY=ann")

    assert cookie_of(client) != before
    assert await (await client.get("/data")).json() == {"cart": "full", "AIOHTTP_SECURITY": "ann"}


# Where the data are in the cookie.


async def test_in_a_cookie_there_is_no_id_to_renew(serve: Serve) -> None:
    async def renew(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.renew_id()
        with pytest.raises(SessionError, match="keeps the data in the cookie makes none"):
            _ = session.id
        return web.json_response(dict(session))

    client = await serve(SimpleCookieStorage(), put, renew)
    await client.get("/put?a=1")

    response = await client.get("/renew")

    assert await response.json() == {"a": "1"}
    assert hdrs.SET_COOKIE not in response.headers


async def test_in_a_cookie_too_a_session_can_be_regenerated(serve: Serve) -> None:
    async def begin(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.regenerate()
        session["b"] = 2
        return web.Response()

    client = await serve(SimpleCookieStorage(), put, begin, data)
    await client.get("/put?a=1")
    await client.get("/begin")

    response = await client.get("/data")

    assert await response.json() == {"b": 2}


async def test_a_storage_of_ones_own_that_keeps_data_in_the_cookie_is_found_out(
    serve: Serve,
) -> None:
    class Plain(AbstractStorage):
        async def load_session(self, request: web.Request) -> aiohttp_session.Session:
            cookie = self.load_cookie(request)
            if cookie is None:
                return await self.new_session()
            return aiohttp_session.Session(None, data={"session": {"a": cookie}}, new=False)

        async def save_session(
            self,
            _request: web.Request,
            response: web.StreamResponse,
            session: aiohttp_session.Session,
        ) -> None:
            self.save_cookie(response, session.get("a", ""))

    async def stream(request: web.Request) -> web.StreamResponse:
        session = await session_of(request)
        response = web.StreamResponse()
        await response.prepare(request)
        with pytest.raises(SessionNotSent):
            await session.touch()
        session["a"] = "2"
        with pytest.raises(SessionNotSent):
            await session.save()
        session.rollback()
        return response

    client = await serve(Plain(), put, stream, data)
    await client.get("/put?a=1")
    response = await client.get("/stream")

    assert await response.text() == ""
    assert await (await client.get("/data")).json() == {"a": "1"}


async def test_in_a_cookie_what_was_saved_cannot_be_read_again_in_the_same_request(
    serve: Serve,
) -> None:
    async def ask(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.reload()
        session["a"] = "2"
        await session.save()
        with pytest.raises(SessionError, match="from the next request on"):
            await session.reload()
        return web.json_response(dict(session))

    client = await serve(SimpleCookieStorage(), put, ask)
    await client.get("/put?a=1")

    response = await client.get("/ask")

    assert await response.json() == {"a": "2"}


# What it cannot do.


def test_what_it_cannot_do_is_said_once_at_start_up(
    foreign: AbstractStorage, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "aiosess"):
        session_middleware(SessionOptions(storage=foreign))

    (record,) = caplog.records
    said = record.getMessage()
    assert said.startswith(f"{type(foreign).__name__} is a storage of aiohttp-session: ")
    assert "only the later one keeps its change" in said
    assert "reading a session does not extend its life" in said
    assert "session.atomic() raises SessionError" in said
    assert "session.renew_id() leaves the old id no time of grace" in said
    assert "session.destroy() leaves an empty record behind" in said


def test_of_a_cookie_it_says_that_a_copy_lives_on(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "aiosess"):
        session_middleware(SessionOptions(storage=SimpleCookieStorage()))

    assert "a copy of the cookie outlives session.destroy()" in caplog.text


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("name", "other"),
        ("cookie", CookieOptions(path="/admin")),
        ("genid", lambda _request: "id"),
        ("idle_timeout", 60),
        ("absolute_timeout", 3600),
        ("touch_after", 5),
        ("merge", "raise"),
        ("whole", ["address"]),
        ("renew_grace", 0),
    ],
)
def test_an_option_that_it_cannot_follow_is_refused(
    database: Database, option: str, value: object
) -> None:
    options: Any = {option: value}

    with pytest.raises(OptionsError, match=f"{option}=.* has no effect on DocumentStorage"):
        SessionOptions(storage=DocumentStorage(database), **options)


async def test_the_session_of_a_test_client_cannot_be_reached(
    serve: Serve, database: Database
) -> None:
    client = await serve(DocumentStorage(database), views)
    options = SessionOptions(storage=DocumentStorage(database))

    with pytest.raises(OptionsError, match="finds a session by a request only"):
        async with session_for(client, options):
            pass
