"""A record that went while a request was running stays gone, whatever the request does then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import WSMsgType, web

from aiosess import CookieOptions, Session, SessionGone, SessionNotSent, Storage
from tests.web.conftest import Connect
from tests.web.handlers import cookies_set, keep, kept, put, session_of, show, signed

Do = Callable[[Session], Awaitable[object]]


async def touch(session: Session) -> object:
    return await session.touch()


async def save(session: Session) -> object:
    session["late"] = True
    return await session.save()


async def change(session: Session) -> object:
    session["late"] = True
    return False


async def reload(session: Session) -> object:
    with pytest.raises(SessionGone):
        await session.reload()
    session["late"] = True
    return False


async def atomic(session: Session) -> object:
    with pytest.raises(SessionGone):
        await session.atomic(lambda newest: newest.update(late=True))
    return False


async def renew(session: Session) -> object:
    await session.renew_id()
    return False


async def renew_too_late(session: Session) -> object:
    with pytest.raises(SessionNotSent):
        await session.renew_id()
    session["late"] = True
    return False


@pytest.mark.parametrize("do", [touch, save, change, reload, atomic, renew])
async def test_a_response_clears_the_cookie_and_revives_nothing(
    connect: Connect, storage: Storage, caplog: pytest.LogCaptureFixture, do: Do
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        await storage.delete("apple")
        answer = await do(session)
        return web.json_response([answer, session.id])

    await keep(storage, "apple", n=1)
    client = await connect(handler, forgets=True)

    response = await client.get("/handler", headers=signed("apple"))
    answer, session_id = await response.json()

    assert answer is False
    assert [await storage.load(each) for each in ("apple", session_id)] == [None, None]
    assert [cookie.partition(";")[0] for cookie in cookies_set(response)] == ["sid="]
    assert "a session ended while a request was using it" in caplog.text


@pytest.mark.parametrize("do", [touch, save, change, reload, atomic, renew_too_late])
@pytest.mark.parametrize("kind", [web.StreamResponse, web.WebSocketResponse])
async def test_a_stream_or_websocket_goes_on_and_revives_nothing(
    connect: Connect,
    storage: Storage,
    caplog: pytest.LogCaptureFixture,
    kind: type[web.StreamResponse],
    do: Do,
) -> None:
    done = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        session = await session_of(request)
        response = kind()
        await response.prepare(request)
        await storage.delete("apple")
        assert await do(session) is False
        done.set()
        return response

    await keep(storage, "apple", n=1)
    client = await connect(handler, forgets=True)

    if kind is web.WebSocketResponse:
        async with client.ws_connect("/handler", headers=signed("apple")) as socket:
            assert (await socket.receive()).type is WSMsgType.CLOSE
    else:
        await (await client.get("/handler", headers=signed("apple"))).read()

    assert done.is_set()
    assert await storage.load("apple") is None
    assert "a session ended while a request was using it" in caplog.text


async def renew_here(request: web.Request) -> web.Response:
    session = await session_of(request)
    await session.renew_id()
    return web.Response(text=session.id)


async def destroy_here(request: web.Request) -> web.Response:
    await (await session_of(request)).destroy()
    return web.Response()


async def rotate_here(request: web.Request) -> web.Response:
    await (await session_of(request)).rotate_id()
    return web.Response()


async def use_it(request: web.Request) -> web.Response:
    session = await session_of(request)
    session["used"] = session.get("used", 0) + 1
    await session.save()
    await session.touch()
    return web.json_response(session["used"])


async def test_an_old_id_cannot_be_kept_alive_by_using_it(
    connect: Connect, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aiosess")
    await keep(storage, "apple", n=1)
    client = await connect(rotate_here, use_it, show, forgets=True, rolling=True, renew_grace=0.3)
    await client.get("/rotate_here", headers=signed("apple"))
    before = await storage.load("apple")
    used = [await client.get("/use_it", headers=signed("apple")) for _ in range(3)]
    after = await storage.load("apple")
    await asyncio.sleep(0.35)

    refused = await client.get("/show", headers=signed("apple"))

    assert before == after
    assert [await response.json() for response in used] == [1, 2, 3]
    assert [cookies_set(response) for response in used] == [[], [], []]
    assert (await refused.json())["data"] == {}
    assert "a session id was used after it had been renewed" in caplog.text


async def test_a_change_under_an_id_that_was_rotated_meanwhile_sends_no_cookie_with_the_new_one(
    connect: Connect, storage: Storage
) -> None:
    is_loaded, is_renewed = asyncio.Event(), asyncio.Event()

    async def change_later(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["n"] = 2
        is_loaded.set()
        await is_renewed.wait()
        return web.Response()

    ids = iter(["apple", "pear"])
    client = await connect(
        put,
        change_later,
        rotate_here,
        forgets=True,
        genid=lambda _request: next(ids),
        cookie=CookieOptions(max_age=600),
    )
    await client.get("/put", params={"n": "1"})
    changing = asyncio.create_task(client.get("/change_later", headers=signed("apple")))
    await is_loaded.wait()
    await client.get("/rotate_here", headers=signed("apple"))
    is_renewed.set()

    changed = await changing

    assert cookies_set(changed) == []
    assert await kept(storage, "pear") == {"n": 2}


@pytest.mark.asvs("7.4.1")
@pytest.mark.nist("5.1-3")
@pytest.mark.parametrize("by", ["old", "new"])
async def test_after_destroy_neither_the_old_nor_the_new_id_leads_anywhere(
    connect: Connect, storage: Storage, by: str
) -> None:
    await keep(storage, "old", n=1)
    client = await connect(
        rotate_here, destroy_here, show, forgets=True, genid=lambda _request: "new"
    )
    await client.get("/rotate_here", headers=signed("old"))

    await client.get("/destroy_here", headers=signed(by))
    found = [
        (await (await client.get("/show", headers=signed(each))).json())["data"]
        for each in ("old", "new")
    ]

    assert found == [{}, {}]
    assert await storage.load("new") is None


async def regenerate_here(request: web.Request) -> web.Response:
    session = await session_of(request)
    await session.regenerate()
    session["n"] = "of somebody else"
    return web.Response()


@pytest.mark.parametrize("path", ["/renew_here", "/regenerate_here"])
async def test_an_id_that_is_taken_is_refused_as_new_id_too(
    connect: Connect, storage: Storage, path: str
) -> None:
    await keep(storage, "apple", n="apple")
    await keep(storage, "pear", n="pear")
    client = await connect(
        renew_here, regenerate_here, show, forgets=True, genid=lambda _request: "pear"
    )

    response = await client.get(path, headers=signed("apple"))
    found = [
        (await (await client.get("/show", headers=signed(each))).json())["data"]
        for each in ("apple", "pear")
    ]

    assert response.status == 500
    assert cookies_set(response) == []
    assert found == [{"n": "apple"}, {"n": "pear"}]


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
    await client.get("/show", headers=signed("apple"))

    response = await client.get("/change", headers=signed("apple"))

    assert cookies_set(response)[0].startswith("sid=; Max-Age=0;")
    assert await storage.load("apple") is None
