"""What seldom happens on the way of a request that brings a session which is known already."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from aiohttp.typedefs import Handler

from aiosess import SESSION, Session, Storage, Version, get_session, health, setup
from aiosess.testing import FaultyStorage, put_session
from tests.conftest import MakeOptions
from tests.web.conftest import Connect
from tests.web.handlers import cookies_set, keep, kept, session_of, show, signed, views

APPLE = signed("apple")


async def rotate(request: web.Request) -> web.Response:
    session = await session_of(request)
    await session.rotate_id()
    return web.Response(text=session.id)


async def stream_then_change(request: web.Request) -> web.StreamResponse:
    session = await session_of(request)
    response = web.StreamResponse()
    await response.prepare(request)
    session["late"] = True
    return response


async def stream_then_empty(request: web.Request) -> web.StreamResponse:
    session = await session_of(request)
    response = web.StreamResponse()
    await response.prepare(request)
    session.invalidate()
    return response


class Meeting(FaultyStorage):
    """A storage that takes its time, and says when it is asked to write."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self.is_writing = asyncio.Event()
        self.may_write = asyncio.Event()
        self.may_write.set()

    async def load(self, session_id: str) -> Any:
        await asyncio.sleep(0)
        return await super().load(session_id)

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        await self._meet()
        return await super().replace(session_id, payload, ttl, expected=expected)

    async def touch(self, session_id: str, ttl: float) -> bool:
        await self._meet()
        return await super().touch(session_id, ttl)

    async def _meet(self) -> None:
        self.is_writing.set()
        for _ in range(5):
            await asyncio.sleep(0)
        await self.may_write.wait()


class Punctual(FaultyStorage):
    """A storage that keeps the time limit itself, and so is asked past its guard."""

    def within(self, timeout: float) -> Punctual:  # noqa: ARG002
        return self


# Ids from before.


async def test_one_who_comes_by_an_id_that_was_rotated_does_not_rotate_it_again(
    connect: Connect, storage: Storage
) -> None:
    await keep(storage, "apple", n=1)
    client = await connect(rotate, forgets=True)
    new_id = await (await client.get("/rotate", headers=APPLE)).text()

    again = await client.get("/rotate", headers=APPLE)

    assert await again.text() == new_id


async def test_with_the_middleware_only_a_stream_by_an_id_that_was_rotated_is_kept(
    connect_bare: Connect, storage: Storage
) -> None:
    await keep(storage, "apple", n=1)
    client = await connect_bare(rotate, stream_then_change, forgets=True)
    new_id = await (await client.get("/rotate", headers=APPLE)).text()

    response = await client.get("/stream_then_change", headers=APPLE)

    assert response.status == 200
    assert await kept(storage, new_id) == {"n": 1, "late": True}


# Late.


async def test_a_session_that_is_emptied_when_the_headers_have_left_is_over(
    connect: Connect, storage: Storage
) -> None:
    await keep(storage, "apple", n=1)
    client = await connect(stream_then_empty, forgets=True)

    await (await client.get("/stream_then_empty", headers=APPLE)).read()

    assert await storage.load("apple") is None


async def test_what_a_task_changes_after_its_handler_has_failed_is_kept(
    connect: Connect, storage: Storage
) -> None:
    may_go_on = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def later(session: Session, _request: web.Request) -> None:
        await may_go_on.wait()
        session["late"] = True

    async def fail(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["early"] = True
        tasks.append(asyncio.create_task(later(session, request)))
        raise LookupError

    await keep(storage, "apple", n=1)
    client = await connect(fail, forgets=True)
    response = await client.get("/fail", headers=APPLE)
    may_go_on.set()
    await tasks[0]
    await client.server.close()

    assert response.status == 500
    assert await kept(storage, "apple") == {"n": 1, "late": True}


async def test_what_a_task_adds_to_a_list_after_the_response_is_kept(
    connect: Connect, storage: Storage
) -> None:
    may_go_on = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def later(session: Session, _request: web.Request) -> None:
        await may_go_on.wait()
        session["cart"].append("apple")

    async def answer(request: web.Request) -> web.Response:
        session = await session_of(request)
        tasks.append(asyncio.create_task(later(session, request)))
        return web.Response()

    await keep(storage, "apple", cart=["pear"])
    client = await connect(answer, forgets=True)
    await client.get("/answer", headers=APPLE)
    may_go_on.set()
    await tasks[0]
    await client.server.close()

    assert await kept(storage, "apple") == {"cart": ["pear", "apple"]}


# Two tasks of one request.


async def test_two_tasks_that_ask_at_once_get_one_session(
    connect: Connect, storage: Storage
) -> None:
    async def twice(request: web.Request) -> web.Response:
        first, second = await asyncio.gather(get_session(request), get_session(request))
        return web.json_response(first is second)

    await keep(storage, "apple", n=1)
    meeting = Meeting(storage)
    client = await connect(show, twice, storage=meeting, forgets=True)
    await client.get("/show", headers=APPLE)
    meeting.calls.clear()

    response = await client.get("/twice", headers=APPLE)

    assert await response.json() is True
    assert meeting.calls.count("load") == 1


async def test_a_task_that_acts_while_the_session_is_kept_has_its_turn_afterwards(
    connect: Connect, storage: Storage
) -> None:
    meeting = Meeting(storage)
    tasks: list[asyncio.Task[bool]] = []

    async def touch(session: Session, _request: web.Request) -> bool:
        await meeting.is_writing.wait()
        return await session.touch()

    async def change(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["n"] = 2
        tasks.append(asyncio.create_task(touch(session, request)))
        await asyncio.sleep(0)
        return web.Response()

    await keep(storage, "apple", n=1)
    client = await connect(show, change, storage=meeting, forgets=True)
    await client.get("/show", headers=APPLE)
    meeting.calls.clear()
    meeting.is_writing.clear()

    await client.get("/change", headers=APPLE)

    assert await tasks[0]
    assert [each for each in meeting.calls if each != "load"] == ["replace", "touch"]
    assert await kept(storage, "apple") == {"n": 2}


# Somebody else's session, and a record that went.


async def test_the_session_of_another_request_is_not_kept_in_the_place_of_ones_own(
    connect: Connect, storage: Storage
) -> None:
    async def mix_up(request: web.Request) -> web.Response:
        (await session_of(request))["n"] = 2
        request[SESSION] = put_session(make_mocked_request("GET", "/"), {"n": 3})
        return web.Response()

    await keep(storage, "apple", n=1)
    client = await connect(show, mix_up, forgets=True)
    await client.get("/show", headers=APPLE)

    await client.get("/mix_up", headers=APPLE)

    assert await kept(storage, "apple") == {"n": 1}


async def test_a_record_that_goes_while_the_handler_is_at_it_clears_the_cookie(
    connect: Connect, storage: Storage
) -> None:
    async def change(request: web.Request) -> web.Response:
        session = await session_of(request)
        await storage.delete("apple")
        session["n"] = 2
        return web.Response()

    await keep(storage, "apple", n=1)
    client = await connect(show, change, forgets=True)
    await client.get("/show", headers=APPLE)

    response = await client.get("/change", headers=APPLE)

    assert cookies_set(response)[0].startswith("sid=; Max-Age=0;")
    assert await storage.load("apple") is None


# The storage is away.


@pytest.mark.parametrize("verb", ["load", "replace"])
async def test_a_storage_that_keeps_time_itself_is_known_to_be_away_when_it_failed(
    verb: str, connect: Connect, storage: Storage
) -> None:
    await keep(storage, "apple", n=1)
    punctual = Punctual(storage)
    client = await connect(views, storage=punctual, forgets=True)
    await client.get("/views", headers=APPLE)
    await client.get("/views", headers=APPLE)

    punctual.fail(verbs=(verb,))
    await client.get("/views", headers=APPLE)

    assert client.app is not None
    assert [node.is_well for node in await health(client.app)] == [False]


async def test_a_page_that_may_do_without_is_answered_though_its_change_is_lost(
    connect: Connect, storage: Storage
) -> None:
    await keep(storage, "apple", n=1)
    faulty = FaultyStorage(storage)
    client = await connect(views, storage=faulty, on_unavailable="anonymous", forgets=True)
    await client.get("/views", headers=APPLE)

    faulty.fail(verbs=("replace",))
    response = await client.get("/views", headers=APPLE)

    assert response.status == 200
    assert cookies_set(response) == []
    assert await kept(storage, "apple") == {"n": 1, "views": 1}


async def look(request: web.Request) -> web.Response:
    session = await session_of(request)
    return web.json_response(len(session["cart"]))


@pytest.mark.parametrize(
    ("path", "views_kept"), [("/views", {"views": 2}), ("/look", {})], ids=["write", "touch"]
)
async def test_what_is_under_way_when_the_client_goes_is_finished_by_itself(
    path: str, views_kept: dict[str, int], make_options: MakeOptions, storage: Storage
) -> None:
    is_cancelled = asyncio.Event()

    @web.middleware
    async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except asyncio.CancelledError:
            is_cancelled.set()
            raise

    await keep(storage, "apple", cart=["pear"])
    meeting = Meeting(storage)
    app = web.Application(middlewares=[note])
    setup(app, make_options(storage=meeting, timeout=30, touch_after=0))
    app.router.add_get("/views", views)
    app.router.add_get("/look", look)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", f"Cookie: {APPLE['Cookie']}", "", ""]
    request = "\r\n".join(lines).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
    writer.write(request)
    await reader.readuntil(b"\r\n\r\n1")
    meeting.is_writing.clear()
    meeting.may_write.clear()

    writer.write(request)
    await meeting.is_writing.wait()
    writer.close()
    await is_cancelled.wait()
    meeting.may_write.set()
    await runner.cleanup()

    assert await kept(storage, "apple") == {"cart": ["pear"], **views_kept}
