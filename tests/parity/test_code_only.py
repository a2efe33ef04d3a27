"""Cases S4 to S14: what stands only in the code of express-session.

S1 and S3 are beside the tests of the cookie, S2 beside those of its path, S4 beside those of the
secret, S12 beside those of an outage.
"""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from pytest_aiohttp import AiohttpClient

from aiosess import (
    CookieOptions,
    SessionNotSent,
    SessionOptions,
    Storage,
    StorageUnavailable,
    setup,
)
from aiosess.testing import FaultyStorage
from tests.conftest import SECRET
from tests.parity.conftest import Serve
from tests.parity.helpers import (
    HTTPS,
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


@parity(
    "S5",
    differs="all are looked at, and the first whose signature holds and whose record is there is "
    "used, so that a cookie planted from a sibling domain locks nobody out",
)
async def test_a_planted_cookie_does_not_push_ours_aside(serve: Serve) -> None:
    client = await serve(count)
    ours = the_cookie(await client.get("/")).value
    client.session.cookie_jar.clear()

    response = await client.get("/", headers={hdrs.COOKIE: f"sid=s%3Aplanted.x; sid={ours}"})

    assert await response.json() == 2


async def regenerate(request: web.Request) -> web.Response:
    session = await session_of(request)
    if request.path == "/login":
        await session.regenerate()
    session["page"] = request.path
    return web.Response()


@parity(
    "S6",
    differs="the request fails before its headers leave: nobody is logged in while the old id is "
    "still good",
)
@pytest.mark.parametrize("retries", [0, None])
async def test_a_login_whose_old_record_cannot_be_ended_does_not_happen(
    serve: Serve, watched: FaultyStorage, storage: Storage, retries: int | None
) -> None:
    client = await serve(regenerate, retries=retries)
    first = await client.get("/")
    watched.fail(StorageUnavailable("boom!"), verbs=("replace", "delete"))

    second = await client.get("/login")

    assert (second.status, sent_cookie(second)) == (500, None)
    assert (await record_of(storage, id_in(first)))["page"] == "/"


@parity(
    "S7",
    differs="touch is one of the five verbs that every storage has",
)
async def test_every_storage_can_touch(serve: Serve, watched: FaultyStorage) -> None:
    client = await serve(kept, touch_after=0)
    first = await client.get("/")

    await client.get("/")

    assert watched.calls == ["create", "load", "touch"]
    assert await watched.touch(id_in(first), 60) is True


@parity("S8")
async def test_an_unchanged_session_lives_on_in_the_storage_but_its_cookie_is_not_sent_again(
    serve: Serve, watched: FaultyStorage
) -> None:
    client = await serve(kept, cookie=CookieOptions(max_age=60), touch_after=0)
    await client.get("/")

    response = await client.get("/")

    assert watched.calls[-1] == "touch"
    assert sent_cookie(response) is None


@parity(
    "S9",
    differs="it is settled for each request, so that a session that began over plain HTTP gets a "
    "secure cookie, and a new id, once it goes over TLS",
)
async def test_secure_auto_is_settled_for_each_request(serve: Serve) -> None:
    client = await serve(count, proxy=True, cookie=CookieOptions(secure="auto"), rolling=True)

    first = await client.get("/")
    second = await client.get("/", headers=HTTPS)

    assert id_in(first) != id_in(second)
    assert "secure" not in the_cookie(first).attributes
    assert "secure" in the_cookie(second).attributes


@parity("S10", differs="it is settled like any other")
async def test_auto_from_a_cookie_function_is_settled(serve: Serve) -> None:
    client = await serve(
        kept, proxy=True, cookie=lambda _request: CookieOptions(secure="auto", samesite="auto")
    )

    attributes = the_cookie(await client.get("/", headers=HTTPS)).attributes

    assert "secure" in attributes
    assert attributes["samesite"] == "None"


@parity("S11", differs="each keeps its own options: a storage knows nothing of them")
async def test_two_applications_on_one_storage_keep_their_own_options(
    storage: Storage, aiohttp_client: AiohttpClient
) -> None:
    clients = []
    for name in ("first", "second"):
        app = web.Application()
        options = SessionOptions(
            secret=SECRET,
            storage=storage,
            genid=lambda request: f"made-by-{request.path}",
            cookie=CookieOptions(path=f"/{name}"),
        )
        setup(app, options)
        app.router.add_get(f"/{name}", kept)
        clients.append(await aiohttp_client(app))

    cookies = [
        await client.get(path) for client, path in zip(clients, ("/first", "/second"), strict=True)
    ]

    assert [id_in(each) for each in cookies] == ["made-by-/first", "made-by-/second"]
    assert [the_cookie(each).attributes["path"] for each in cookies] == ["/first", "/second"]


def _stream(*, is_new: bool) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        session = await session_of(request)
        if request.path == "/begin":
            session["page"] = "begin"
            return web.Response()
        if request.path == "/look":
            return await look(request)
        response = web.StreamResponse()
        await response.prepare(request)
        session["page"] = "stream"
        await response.write(b"streamed")
        if is_new:
            with pytest.raises(SessionNotSent):
                await session.save()
            session.rollback()
        return response

    return handler


@parity("S13")
async def test_what_a_stream_changes_after_its_headers_is_still_saved(serve: Serve) -> None:
    client = await serve(_stream(is_new=False))
    await client.get("/begin")

    streamed = await client.get("/stream")
    body = await streamed.read()

    assert body == b"streamed"
    assert await (await client.get("/look")).json() == {"page": "stream"}


@parity(
    "S13",
    differs="for a browser that has no cookie yet it is an error, and not a record that nobody "
    "can reach",
)
async def test_a_session_that_begins_after_the_headers_is_an_error(
    serve: Serve, watched: FaultyStorage
) -> None:
    client = await serve(_stream(is_new=True))

    response = await client.get("/stream")

    assert await response.read() == b"streamed"
    assert watched.calls == []


class _GatedStorage(FaultyStorage):
    """Answers a create or replace only once the gate is open."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self.gate = asyncio.Event()
        self.asked = asyncio.Event()

    async def create(self, session_id: str, payload: bytes, ttl: float) -> object:
        self.asked.set()
        await self.gate.wait()
        return await super().create(session_id, payload, ttl)


@parity(
    "S14",
    differs="all of it is, headers included, so that a browser that follows a redirect never "
    "meets a session that is not saved yet, and a failure can still be answered",
)
async def test_nothing_of_the_response_leaves_before_the_storage_has_confirmed(
    serve: Serve, storage: Storage
) -> None:
    gated = _GatedStorage(storage)
    client = await serve(kept, storage=gated, timeout=30)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await gated.asked.wait()

    first_byte = asyncio.ensure_future(reader.read(1))
    await asyncio.sleep(0.02)
    was_early = first_byte.done()
    gated.gate.set()

    assert not was_early
    assert await first_byte == b"H"
    writer.close()
