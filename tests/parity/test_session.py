"""Cases E100 to E114, E137, E138: what a handler holds, and storages that answer at once."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from aiohttp import web

from aiosess import (
    SESSION,
    CookieOptions,
    SessionGone,
    Storage,
    StorageUnavailable,
    find_session,
)
from aiosess.testing import FakeClock, FaultyStorage
from tests.parity.conftest import Serve
from tests.parity.helpers import (
    EXPRESS,
    count,
    id_in,
    kept,
    look,
    record_of,
    sent_cookie,
    session_of,
    the_cookie,
)
from tests.parity.marks import parity


@parity("E100")
async def test_what_is_put_in_stands_in_the_storage_under_the_sessions_id(
    serve: Serve, storage: Storage
) -> None:
    client = await serve(count)
    first = await client.get("/")

    in_storage = await record_of(storage, id_in(first))
    second = await client.get("/")

    assert in_storage["count"] == 1
    assert await second.json() == 2


@parity("E101")
async def test_a_persistent_cookie_is_sent_again_only_when_the_session_was_changed(
    serve: Serve,
) -> None:
    async def handler(request: web.Request) -> web.Response:
        return await (look if request.path == "/look" else count)(request)

    client = await serve(handler, cookie=CookieOptions(max_age=60))

    responses = [await client.get(path) for path in ("/", "/", "/look", "/")]

    assert [sent_cookie(each) is not None for each in responses] == [True, True, False, True]
    assert [await each.json() for each in responses] == [1, 2, {"count": 2}, 3]


@parity(
    "E103",
    "S12",
    differs="the storage is asked in each request and its silence noticed, not an event of the "
    "client awaited; a browser without a cookie needs no answer, and gets a 500 only if there is "
    "something to save",
)
async def test_while_the_storage_is_away_there_is_no_session_and_no_cookie(
    serve: Serve, watched: FaultyStorage
) -> None:
    client = await serve(kept)
    await client.get("/")
    watched.fail()

    known = await client.get("/")
    client.session.cookie_jar.clear()
    unknown = await client.get("/")

    assert (known.status, await known.json(), sent_cookie(known)) == (200, False, None)
    assert (unknown.status, sent_cookie(unknown)) == (500, None)


@parity("E104")
async def test_when_the_storage_is_back_so_is_the_session(
    serve: Serve, watched: FaultyStorage
) -> None:
    client = await serve(look, save_uninitialized=True)
    first = await client.get("/")
    watched.fail()
    away = await client.get("/")
    watched.recover()

    back = await client.get("/")

    assert [await each.json() for each in (first, away, back)] == [{}, None, {}]


@parity(
    "E105",
    differs="the browser's cookie is cleared as well, and what is done to the session afterwards "
    "is a SessionGone",
)
async def test_destroy_deletes_the_record_and_clears_the_cookie(
    serve: Serve, storage: Storage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        if request.path != "/logout":
            session["user"] = "bob"
            return web.Response()
        await session.destroy()
        with pytest.raises(SessionGone):
            session["user"] = "mallory"
        return web.Response(text="logged out")

    client = await serve(handler)
    first = await client.get("/")

    second = await client.get("/logout")

    cleared = sent_cookie(second)
    assert await second.text() == "logged out"
    assert await storage.load(id_in(first)) is None
    assert cleared is not None
    assert (cleared.value, cleared.attributes["max-age"]) == ("", "0")


@parity("E105")
async def test_destroying_a_new_session_sends_no_cookie(
    serve: Serve, watched: FaultyStorage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.destroy()
        return web.Response()

    client = await serve(handler, **EXPRESS)

    response = await client.get("/")

    assert sent_cookie(response) is None
    assert watched.calls == []


async def regenerate(request: web.Request) -> web.Response:
    """Regenerate the session, and put in the path where it ends in "/put"."""
    session = await session_of(request)
    before = session.id
    await session.regenerate()
    found = dict(session)
    if request.path.endswith("/put"):
        session["page"] = request.path
    return web.json_response([found, before == session.id])


@parity("E106")
async def test_regenerate_keeps_an_empty_record_under_a_new_id_with_save_uninitialized(
    serve: Serve, storage: Storage
) -> None:
    client = await serve(regenerate, **EXPRESS)
    first = await client.get("/")

    second = await client.get("/")

    assert await second.json() == [{}, False]
    assert id_in(first) != id_in(second)
    assert await storage.load(id_in(first)) is None
    assert (await record_of(storage, id_in(second))).keys() == {"cookie", "__aiosess"}


@parity("E106")
async def test_regenerate_gives_a_session_of_its_own_to_what_is_put_in_afterwards(
    serve: Serve, storage: Storage
) -> None:
    client = await serve(regenerate)
    first = await client.get("/a/put")

    second = await client.get("/b/put")

    assert await second.json() == [{}, False]
    assert id_in(first) != id_in(second)
    assert await storage.load(id_in(first)) is None
    assert (await record_of(storage, id_in(second)))["page"] == "/b/put"


_EMPTY_IS_NOT_KEPT = (
    "without `save_uninitialized` Express keeps an empty record even so, also of a session that "
    "was new; here an empty session has none, and the cookie that would lead nowhere is cleared"
)


@parity("E106", differs=_EMPTY_IS_NOT_KEPT)
async def test_regenerate_alone_leaves_neither_a_record_nor_a_cookie(
    serve: Serve, storage: Storage, watched: FaultyStorage
) -> None:
    client = await serve(regenerate)
    first = await client.get("/put")
    watched.calls.clear()

    second = await client.get("/")

    assert await storage.load(id_in(first)) is None
    assert "create" not in watched.calls
    assert (the_cookie(second).value, the_cookie(second).attributes["max-age"]) == ("", "0")


@parity("E106", differs=_EMPTY_IS_NOT_KEPT)
async def test_a_new_session_that_was_regenerated_is_not_kept(
    serve: Serve, watched: FaultyStorage
) -> None:
    client = await serve(regenerate)

    response = await client.get("/")

    assert sent_cookie(response) is None
    assert watched.calls == []


@parity("E107")
async def test_reload_shows_what_another_request_wrote_meanwhile(serve: Serve) -> None:
    arrived, written = asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["page"] = request.path
        if request.path != "/foo":
            return web.Response()
        arrived.set()
        await written.wait()
        before = session["page"]
        await session.reload()
        return web.json_response([before, session["page"]])

    async def show(request: web.Request) -> web.Response:
        return await (look if request.path == "/look" else handler)(request)

    client = await serve(show)
    await client.get("/start")
    slow = asyncio.ensure_future(client.get("/foo"))
    await arrived.wait()

    await client.get("/bar")
    written.set()

    assert await (await slow).json() == ["/foo", "/bar"]
    assert await (await client.get("/look")).json() == {"page": "/bar"}


async def try_to_reload(request: web.Request) -> web.Response:
    """Put in the path, and answer what a reload that fails leaves of the session."""
    session = await session_of(request)
    session["page"] = request.path
    try:
        await session.reload()
    except (SessionGone, StorageUnavailable) as error:
        return web.json_response([type(error).__name__, dict(session)])
    raise AssertionError("there was something to reload")


@parity("E108")
async def test_reload_without_a_record_is_an_error(serve: Serve, storage: Storage) -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.path == "/":
            return await kept(request)
        await storage.delete((await session_of(request)).id)
        return await try_to_reload(request)

    client = await serve(handler, **EXPRESS)
    await client.get("/")

    response = await client.get("/foo")

    assert (await response.json())[0] == "SessionGone"


@parity(
    "E108",
    differs="the session is over and its cookie cleared, where Express writes the record anew at "
    "the end of the request: whoever was logged out meanwhile would be logged in again",
)
async def test_a_session_that_could_not_be_reloaded_is_not_brought_back(
    serve: Serve, storage: Storage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.path == "/":
            return await kept(request)
        await storage.delete((await session_of(request)).id)
        return await try_to_reload(request)

    client = await serve(handler, **EXPRESS)
    first = await client.get("/")

    second = await client.get("/foo")

    assert await storage.load(id_in(first)) is None
    assert (the_cookie(second).value, the_cookie(second).attributes["max-age"]) == ("", "0")


@parity("S17")
async def test_a_session_that_could_not_be_reloaded_still_shows_what_was_put_in(
    serve: Serve, storage: Storage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.path == "/":
            return await kept(request)
        await storage.delete((await session_of(request)).id)
        return await try_to_reload(request)

    client = await serve(handler)
    await client.get("/")

    response = await client.get("/foo")

    assert await response.json() == ["SessionGone", {"user": "bob", "page": "/foo"}]


@parity("S17")
async def test_a_new_session_that_cannot_be_reloaded_keeps_what_was_put_in(
    serve: Serve, storage: Storage
) -> None:
    client = await serve(try_to_reload)

    response = await client.get("/foo")

    assert await response.json() == ["SessionGone", {"page": "/foo"}]
    assert (await record_of(storage, id_in(response)))["page"] == "/foo"


@parity("S17")
async def test_what_was_put_in_is_saved_though_the_storage_did_not_answer_to_reload(
    serve: Serve, storage: Storage, watched: FaultyStorage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.path == "/":
            return await kept(request)
        await session_of(request)
        watched.fail(times=1, verbs=("load",))
        return await try_to_reload(request)

    client = await serve(handler)
    first = await client.get("/")

    response = await client.get("/foo")

    assert await response.json() == ["StorageUnavailable", {"user": "bob", "page": "/foo"}]
    assert (await record_of(storage, id_in(first)))["page"] == "/foo"


@parity("E109")
async def test_failing_to_reload_again_and_again_is_harmless(
    serve: Serve, storage: Storage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["user"] = "bob"
        if request.path == "/reload":
            await storage.delete(session.id)
            for _ in range(1000):
                with pytest.raises(SessionGone):
                    await session.reload()
        return web.Response(text="ok")

    client = await serve(handler)
    await client.get("/")

    response = await client.get("/reload")

    assert (response.status, await response.text()) == (200, "ok")


@parity("E110")
async def test_save_writes_at_once(serve: Serve, storage: Storage) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["user"] = "bob"
        await session.save()
        return web.json_response(await record_of(storage, session.id))

    client = await serve(handler)

    response = await client.get("/")

    assert (await response.json())["user"] == "bob"


async def save_what_is_there(request: web.Request) -> web.Response:
    """Put in the same each time, and save it."""
    session = await session_of(request)
    session["hit"] = True
    if request.path == "/reload":
        with contextlib.suppress(SessionGone):
            await session.reload()
    await session.save()
    return web.Response()


@parity(
    "E111",
    "E112",
    "E113",
    differs="where nothing was changed, `save()` itself writes nothing either; `changed()` before "
    "it has it written",
)
@pytest.mark.parametrize(
    ("path", "options", "calls"),
    [
        ("/", {}, ["create", "load"]),
        ("/", EXPRESS, ["create", "load"]),
        ("/reload", EXPRESS, ["create", "load", "load"]),
    ],
)
async def test_saving_by_hand_what_did_not_change_writes_nothing(
    *,
    serve: Serve,
    watched: FaultyStorage,
    storage: Storage,
    path: str,
    options: dict[str, Any],
    calls: list[str],
) -> None:
    client = await serve(save_what_is_there, **options)
    first = await client.get(path)

    await client.get(path)

    assert watched.calls == calls
    assert (await record_of(storage, id_in(first)))["hit"] is True


async def save_by_hand(request: web.Request) -> web.Response:
    session = await session_of(request)
    session["count"] = session.get("count", 0) + 1
    await session.save()
    return web.json_response(session["count"])


@parity("E111", "E113")
@pytest.mark.parametrize("resave", [False, True])
async def test_what_was_saved_by_hand_is_not_written_again_at_the_end(
    serve: Serve, watched: FaultyStorage, *, resave: bool
) -> None:
    client = await serve(save_by_hand, resave=resave, save_uninitialized=False)

    responses = [await client.get("/") for _ in range(2)]

    assert [await each.json() for each in responses] == [1, 2]
    assert watched.calls == ["create", "load", "replace"]


@parity("E112")
async def test_what_was_saved_after_a_reload_is_not_written_again(
    serve: Serve, watched: FaultyStorage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        if not session.new:
            await session.reload()
        return await save_by_hand(request)

    client = await serve(handler)
    await client.get("/")
    watched.calls.clear()

    response = await client.get("/")

    assert await response.json() == 2
    assert watched.calls == ["load", "load", "replace"]


@parity("E113")
async def test_what_was_saved_after_regenerate_is_not_written_again(
    serve: Serve, watched: FaultyStorage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.regenerate()
        return await save_by_hand(request)

    client = await serve(handler)
    await client.get("/")
    watched.calls.clear()

    response = await client.get("/")

    assert await response.json() == 1
    # The old record ends by a mark that stops whoever is renewing it, and goes.
    assert watched.calls == ["load", "create", "replace", "delete"]


class _Ttls(FaultyStorage):
    """Notes how long each touched record may live."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self.touched: list[float] = []

    async def touch(self, session_id: str, ttl: float) -> bool:
        self.touched.append(ttl)
        return await super().touch(session_id, ttl)


@parity(
    "E114",
    differs="the storage's clock is wound up and the record's bytes stay, so that a touch "
    "overwrites nobody",
)
async def test_touch_lets_the_record_live_its_whole_idle_timeout_from_now(
    serve: Serve, storage: Storage, session_clock: FakeClock
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session.setdefault("user", "bob")
        await session.touch()
        return web.Response()

    watched = _Ttls(storage)
    client = await serve(handler, storage=watched, cookie=CookieOptions(max_age=60))
    first = await client.get("/")
    before = await storage.load(id_in(first))
    session_clock.advance(0.1)

    await client.get("/")

    after = await storage.load(id_in(first))
    assert watched.touched == [60]
    assert before is not None
    assert after is not None
    assert after.payload == before.payload


@parity(
    "E137",
    differs="the five verbs are coroutines; one that never has to wait, as MemoryStorage's, "
    "answers at once",
)
async def test_saving_works_with_a_storage_that_answers_at_once(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["hits"] = session.get("hits", 0) + 1
        return web.Response(text=f"hits: {session['hits']}")

    client = await serve(handler)

    response = await client.get("/")

    assert await response.text() == "hits: 1"


@parity("E138")
async def test_destroying_works_in_a_streamed_response(serve: Serve, storage: Storage) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        session = await session_of(request)
        session["hits"] = hits = session.get("hits", 0) + 1
        response = web.StreamResponse()
        if hits > 1:
            del request[SESSION]
        await response.prepare(request)
        await response.write(b"destroyed\n" if hits > 1 else b"")
        await response.write(f"hits: {hits}".encode())
        return response

    client = await serve(handler, unset="destroy")
    first = await client.get("/")

    second = await client.get("/")

    assert await first.text() == "hits: 1"
    assert await second.text() == "destroyed\nhits: 2"
    assert await storage.load(id_in(first)) is None


@parity("E103")
async def test_find_session_gives_none_while_the_storage_is_away(
    serve: Serve, watched: FaultyStorage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await find_session(request)
        if session is not None:
            session["user"] = "bob"
        return web.json_response([session is None, SESSION in request])

    client = await serve(handler)
    await client.get("/")
    watched.fail()

    response = await client.get("/")

    assert await response.json() == [True, False]
