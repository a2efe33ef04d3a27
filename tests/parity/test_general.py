"""Cases E1 to E29: sessions in general."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping

import pytest
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from pytest_aiohttp import AiohttpClient, AiohttpServer

from aiosess import (
    CookieOptions,
    MemoryStorage,
    OptionsError,
    Session,
    SessionOptions,
    Storage,
    StorageError,
    session_middleware,
)
from aiosess.testing import FakeClock, FaultyStorage
from tests.conftest import MakeOptions
from tests.parity.conftest import Gone, Serve
from tests.parity.helpers import (
    EXPRESS,
    count,
    do_not_ask,
    id_in,
    kept,
    record_of,
    rewrite,
    sent_cookie,
    session_of,
    the_cookie,
)
from tests.parity.marks import parity

A_MINUTE = CookieOptions(max_age=60)


@parity("E1")
def test_the_package_has_a_session_a_contract_for_storages_and_a_memory_storage() -> None:
    assert issubclass(Session, MutableMapping)
    assert isinstance(MemoryStorage(), Storage)


@parity(
    "E2",
    differs="so it is where both have the same options; others would be options that nobody "
    "follows, and are an error that says so",
)
async def test_of_two_middlewares_the_inner_one_does_nothing(
    make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    options = make_options()
    app = web.Application(middlewares=[session_middleware(options), session_middleware(options)])
    app.router.add_get("/", kept)
    client = await aiohttp_client(app)

    response = await client.get("/")

    assert response.status == 200
    assert len(response.headers.getall("Set-Cookie")) == 1


@parity(
    "E2",
    differs="so it is where both have the same options; others would be options that nobody "
    "follows, and are an error that says so",
)
async def test_two_middlewares_with_other_options_are_an_error(
    make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    both = [session_middleware(make_options(name=name)) for name in ("outer", "inner")]
    app = web.Application(middlewares=both)
    app.router.add_get("/", kept)
    client = await aiohttp_client(app)

    response = await client.get("/")

    assert response.status == 500


@parity("E3", differs="the options refuse to be built, so that no request ever meets the mistake")
def test_options_without_a_secret_cannot_be_built() -> None:
    with pytest.raises(TypeError, match="secret"):
        SessionOptions()
    with pytest.raises(OptionsError, match="secret"):
        SessionOptions(secret="")


@parity("E5")
async def test_the_first_request_gets_a_session_a_record_and_a_cookie(
    serve: Serve, storage: Storage, watched: FaultyStorage
) -> None:
    client = await serve(kept)

    response = await client.get("/")

    assert response.status == 200
    assert watched.calls == ["create"]
    assert (await record_of(storage, id_in(response)))["user"] == "bob"


@parity("E6")
async def test_the_next_request_finds_what_the_first_put_in(serve: Serve) -> None:
    client = await serve(count)

    answers = [await (await client.get("/")).json() for _ in range(2)]

    assert answers == [1, 2]


@parity("E7")
@pytest.mark.parametrize(("handler", "load"), [(count, "lazy"), (do_not_ask, "eager")])
async def test_a_failing_read_harms_only_a_browser_with_a_cookie(
    serve: Serve, watched: FaultyStorage, handler: Handler, load: str
) -> None:
    client = await serve(handler, load=load, **EXPRESS)
    watched.fail(StorageError("boom!"), verbs=("load",))

    unknown = await client.get("/")
    known = await client.get("/")

    assert (unknown.status, sent_cookie(unknown) is not None) == (200, True)
    assert known.status == 500


@parity(
    "E7",
    differs="a handler that does not ask for its session is served: nothing is read for it, unless "
    "`load='eager'` has each session read before the handler, as in Express; and where the storage "
    "does not answer at all, `retries` says what the request gets",
)
async def test_a_failing_read_does_not_harm_a_handler_that_asks_for_no_session(
    serve: Serve, watched: FaultyStorage
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return await (kept if request.path == "/begin" else do_not_ask)(request)

    client = await serve(handler, **EXPRESS)
    await client.get("/begin")
    watched.fail(StorageError("boom!"), verbs=("load",))

    response = await client.get("/")

    assert response.status == 200


@parity(
    "E8",
    differs="absence is `None` in the contract of storages, so that no error code has to be known",
)
async def test_a_record_that_is_not_found_leads_to_a_new_session(
    serve: Serve, storage: Storage
) -> None:
    client = await serve(count)
    first = await client.get("/")
    await storage.delete(id_in(first))

    second = await client.get("/")

    assert await storage.load(id_in(first)) is None
    assert (second.status, await second.json()) == (200, 1)


@parity("E9")
async def test_two_browsers_without_a_cookie_get_a_session_each(
    serve: Serve, storage: Storage
) -> None:
    client = await serve(count)

    first = await client.get("/")
    client.session.cookie_jar.clear()
    second = await client.get("/")

    assert id_in(first) != id_in(second)
    assert (await record_of(storage, id_in(first)))["count"] == 1
    assert (await record_of(storage, id_in(second)))["count"] == 1


@parity(
    "E10",
    differs="aiohttp routes a target without a path nowhere; a middleware that answers it has "
    "its session",
)
async def test_a_target_without_a_path_counts_as_the_root(
    make_options: MakeOptions, aiohttp_server: AiohttpServer
) -> None:
    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await kept(request)

    app = web.Application(middlewares=[session_middleware(make_options()), answer])
    server = await aiohttp_server(app)
    reader, writer = await asyncio.open_connection(server.host, server.port)

    writer.write(b"GET http://example.org HTTP/1.1\r\nHost: example.org\r\n\r\n")
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    writer.close()

    assert head.startswith("HTTP/1.1 200")
    assert "Set-Cookie: sid=" in head


@parity("E13", differs="the key stays among the data, where Express drops it")
async def test_a_key_called_like_a_method_is_only_data(serve: Serve, storage: Storage) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["user"] = "bob"
        is_saved = await session.save()
        return web.json_response([is_saved, session.id != "nope", dict(session)])

    client = await serve(handler)
    first = await client.get("/")
    record = await record_of(storage, id_in(first))
    await rewrite(storage, id_in(first), {**record, "save": "nope", "id": "nope"})

    second = await client.get("/")

    assert await second.json() == [True, True, {"user": "bob", "save": "nope", "id": "nope"}]


@parity("E102")
@parity(
    "E14",
    differs="`cookie` is an attribute and not among the keys, which are the data alone",
)
async def test_iterating_gives_the_data_keys_and_nothing_else(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session.setdefault("test1", 1)
        session.setdefault("test2", "b")
        return web.json_response(list(session))

    client = await serve(handler)
    await client.get("/")

    answer = await (await client.get("/")).json()

    assert answer == ["test1", "test2"]


@parity("E15", differs="the id cannot be set at all, and a `genid` that gives no string is a 500")
async def test_an_id_that_is_no_string_is_neither_stored_nor_sent(
    serve: Serve, watched: FaultyStorage
) -> None:
    client = await serve(kept, genid=lambda _request: 42)

    response = await client.get("/")

    assert (response.status, sent_cookie(response)) == (500, None)
    assert watched.calls == []
    assert isinstance(Session.id, property)
    assert Session.id.fset is None


@parity("E16")
async def test_a_slowly_written_response_moves_the_cookies_end_on_when_rolling(
    serve: Serve, session_clock: FakeClock
) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        (await session_of(request))["user"] = "bob"
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"hello, ")
        await asyncio.sleep(0.02)
        await response.write(b"world")
        return response

    client = await serve(slow, rolling=True, cookie=A_MINUTE)
    first = await client.get("/")
    session_clock.advance(2)

    second = await client.get("/")

    assert await second.read() == b"hello, world"
    later = the_cookie(second).expires - the_cookie(first).expires
    assert later.total_seconds() == 2


async def _plain(request: web.Request) -> web.StreamResponse:
    return web.Response(text="Hello, world!")


async def _empty(request: web.Request) -> web.StreamResponse:
    return web.Response()


async def _in_parts(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={hdrs.CONTENT_LENGTH: "12"})
    await response.prepare(request)
    await response.write(b"hello, ")
    await response.write(b"world")
    return response


async def _of_known_length(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={hdrs.CONTENT_LENGTH: "13"})
    await response.prepare(request)
    await response.write(b"Hello, world!")
    return response


class _SlowStorage(FaultyStorage):
    """Takes its time to create a record."""

    async def create(self, session_id: str, payload: bytes, ttl: float) -> object:
        await asyncio.sleep(0.02)
        return await super().create(session_id, payload, ttl)


@parity("E17", "E18", "E19", "E20")
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (_plain, b"Hello, world!"),
        (_empty, b""),
        (_in_parts, b"hello, world"),
        (_of_known_length, b"Hello, world!"),
    ],
    ids=["plain", "empty", "in parts", "of known length"],
)
async def test_the_session_was_saved_once_when_the_client_has_the_response(
    serve: Serve, storage: Storage, body: Handler, expected: bytes
) -> None:
    slow = _SlowStorage(storage)

    async def handler(request: web.Request) -> web.StreamResponse:
        (await session_of(request))["user"] = "bob"
        return await body(request)

    client = await serve(handler, storage=slow)

    response = await client.get("/")

    assert await response.read() == expected
    assert response.headers[hdrs.CONTENT_LENGTH] == str(len(expected))
    assert slow.calls == ["create"]


@parity("E21")
async def test_the_record_of_an_unchanged_session_moves_on_when_it_is_written_again(
    serve: Serve, storage: Storage, session_clock: FakeClock
) -> None:
    client = await serve(kept, cookie=A_MINUTE, **EXPRESS)
    first = await client.get("/")
    before = await record_of(storage, id_in(first))
    session_clock.advance(2)

    await client.get("/")

    after = await record_of(storage, id_in(first))
    assert _ends(before) == f"{the_cookie(first).expires:%Y-%m-%dT%H:%M:%S}"
    assert _ends(after) > _ends(before)


@parity("E21")
async def test_the_record_ends_with_the_cookie_and_moves_on_with_it(
    serve: Serve, storage: Storage, session_clock: FakeClock
) -> None:
    client = await serve(count, cookie=A_MINUTE)
    first = await client.get("/")
    before = await record_of(storage, id_in(first))
    session_clock.advance(2)

    second = await client.get("/")

    after = await record_of(storage, id_in(second))
    assert id_in(second) == id_in(first)
    assert _ends(before) == f"{the_cookie(first).expires:%Y-%m-%dT%H:%M:%S}"
    assert _ends(after) == f"{the_cookie(second).expires:%Y-%m-%dT%H:%M:%S}"
    assert _ends(after) > _ends(before)


@parity("E22", "E23")
async def test_an_id_whose_record_is_gone_is_not_adopted(serve: Serve, storage: Storage) -> None:
    client = await serve(count)
    first = await client.get("/")
    await storage.delete(id_in(first))

    second = await client.get("/")

    assert await second.json() == 1
    assert id_in(second) != id_in(first)


@parity("E24")
async def test_an_unsigned_id_leads_to_a_new_session(serve: Serve, watched: FaultyStorage) -> None:
    client = await serve(count)
    first = await client.get("/")
    client.session.cookie_jar.clear()
    watched.calls.clear()

    second = await client.get("/", headers={hdrs.COOKIE: f"sid={id_in(first)}"})

    assert await second.json() == 1
    assert id_in(second) != id_in(first)
    assert watched.calls == ["create"]


@parity("E25")
async def test_a_damaged_signature_never_reaches_the_storage(
    serve: Serve, watched: FaultyStorage
) -> None:
    client = await serve(count)
    first = await client.get("/")
    client.session.cookie_jar.clear()
    watched.calls.clear()

    second = await client.get("/", headers={hdrs.COOKIE: f"sid={the_cookie(first).value[:-3]}"})

    assert await second.json() == 1
    assert id_in(second) != id_in(first)
    assert watched.calls == ["create"]


@parity("E26", "E27", "E28")
async def test_an_expired_record_is_gone_and_its_id_is_not_used_again(
    serve: Serve, gone: Gone
) -> None:
    # The browser keeps its cookie, so that the storage has to notice.
    client = await serve(count, idle_timeout=0.005, touch_after=0)
    first = await client.get("/")
    await gone(id_in(first))

    second = await client.get("/")

    assert await second.json() == 1
    assert id_in(second) != id_in(first)


@parity("E29", differs="it counts as absent and the log says why: one bad record is no error 500")
async def test_a_record_without_its_cookie_part_counts_as_absent(
    serve: Serve, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    client = await serve(count)
    first = await client.get("/")
    await rewrite(storage, id_in(first), {"foo": "bar"})

    with caplog.at_level(logging.WARNING, "aiosess"):
        second = await client.get("/")

    assert (second.status, await second.json()) == (200, 1)
    assert id_in(second) != id_in(first)
    assert "an object without a cookie" in caplog.text


def _ends(record: dict[str, dict[str, str]]) -> str:
    return record["cookie"]["expires"].partition(".")[0]
