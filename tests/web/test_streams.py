"""Responses that the handler prepares itself: streams, server-sent events, WebSockets."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from aiohttp import ClientPayloadError, ServerDisconnectedError, WSMsgType, web
from pytest_aiohttp import AiohttpClient

from aiosess import CookieOptions, SessionNotSent, Storage, StorageUnavailable, setup
from aiosess.testing import FaultyStorage
from tests.conftest import MakeOptions
from tests.web.conftest import Client, Connect
from tests.web.handlers import cookies_set, keep, kept, session_of, show, signed, views


async def stream(request: web.Request) -> web.StreamResponse:
    """Change the session, then send the body in pieces."""
    (await session_of(request))["streamed"] = True
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"one ")
    await response.write(b"two")
    return response


async def stream_then_change(request: web.Request) -> web.StreamResponse:
    """Change the session when the headers have left."""
    session = await session_of(request)
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"one ")
    session["late"] = True
    return response


async def save_then_stream(request: web.Request) -> web.StreamResponse:
    """Save while a failure can still be answered."""
    session = await session_of(request)
    session["saved"] = True
    try:
        await session.save()
    except StorageUnavailable:
        return web.Response(status=503, text="come back later")
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"one ")
    return response


async def events(request: web.Request) -> web.StreamResponse:
    """Send two server-sent events."""
    session = await session_of(request)
    session["events"] = session.get("events", 0) + 1
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b"data: 1\n\n")
    await response.write(b"data: 2\n\n")
    return response


async def echo(request: web.Request) -> web.WebSocketResponse:
    """Keep each message in the session, and answer with how many there are."""
    session = await session_of(request)
    session["messages"] = []
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        session["messages"].append(message.data)
        await session.save()
        await socket.send_json(len(session["messages"]))
    return socket


async def raw(client: Client, path: str, headers: dict[str, str] | None = None) -> bytes:
    """Return every byte that the server sends until it closes the connection."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Accept-Encoding: gzip, deflate"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    writer.write(("\r\n".join(lines) + "\r\nConnection: close\r\n\r\n").encode())
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return answer


# With setup.


async def test_a_stream_carries_the_cookie_and_its_session_is_kept(connect: Connect) -> None:
    client = await connect(stream, show)

    response = await client.get("/stream")
    body = await response.text()
    found = await (await client.get("/show")).json()

    assert body == "one two"
    assert len(cookies_set(response)) == 1
    assert response.headers["Vary"] == "Cookie"
    assert response.headers["Cache-Control"] == 'private, no-cache="Set-Cookie"'
    assert found["data"] == {"streamed": True}


async def test_the_record_is_there_before_the_first_byte_of_a_stream(
    connect: Connect, storage: Storage
) -> None:
    async def look(request: web.Request) -> web.StreamResponse:
        session = await session_of(request)
        session["streamed"] = True
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(str(await kept(storage, session.id)).encode())
        return response

    client = await connect(look)

    response = await client.get("/look")

    assert await response.text() == "{'streamed': True}"


async def test_a_late_change_of_a_session_that_the_browser_has_is_kept(
    connect: Connect, storage: Storage
) -> None:
    await keep(storage, "apple")
    client = await connect(stream_then_change, forgets=True)

    response = await client.get("/stream_then_change", headers=signed("apple"))

    assert await response.text() == "one "
    assert await kept(storage, "apple") == {"late": True}


async def test_a_late_change_of_a_new_session_is_a_loud_error(
    connect: Connect, faulty: FaultyStorage, caplog: pytest.LogCaptureFixture
) -> None:
    client = await connect(stream_then_change, storage=faulty)

    response = await client.get("/stream_then_change")
    with pytest.raises(ClientPayloadError):
        await response.read()

    assert faulty.calls == []
    assert "SessionNotSent" in caplog.text
    assert "await session.save() before prepare()" in caplog.text


async def test_a_late_change_before_a_raised_http_error_is_a_loud_error_too(
    connect: Connect, faulty: FaultyStorage, caplog: pytest.LogCaptureFixture
) -> None:
    async def stream_then_raise(request: web.Request) -> web.StreamResponse:
        await stream_then_change(request)
        raise web.HTTPBadRequest

    client = await connect(stream_then_raise, storage=faulty)

    answer = await raw(client, "/stream_then_raise")

    assert answer.count(b"HTTP/1.1") == 1
    assert b"Set-Cookie" not in answer
    assert faulty.calls == []
    assert "SessionNotSent" in caplog.text


async def test_a_late_change_of_a_known_session_before_a_raised_http_error_is_kept(
    connect: Connect, storage: Storage
) -> None:
    async def stream_then_raise(request: web.Request) -> web.StreamResponse:
        await stream_then_change(request)
        raise web.HTTPBadRequest

    await keep(storage, "apple")
    client = await connect(stream_then_raise)

    await raw(client, "/stream_then_raise", signed("apple"))

    assert await kept(storage, "apple") == {"late": True}


async def test_changes_before_and_after_the_headers_are_both_kept(
    connect: Connect, storage: Storage
) -> None:
    async def both(request: web.Request) -> web.StreamResponse:
        session = await session_of(request)
        session["cart"] = ["early"]
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(session.id.encode())
        session["cart"].append("late")
        return response

    client = await connect(both)

    session_id = await (await client.get("/both")).text()

    assert await kept(storage, session_id) == {"cart": ["early", "late"]}


async def test_server_sent_events_have_sessions(connect: Connect) -> None:
    client = await connect(events, show)

    bodies = [await (await client.get("/events")).text() for _ in range(2)]
    found = await (await client.get("/show")).json()

    assert bodies == ["data: 1\n\ndata: 2\n\n"] * 2
    assert found["data"] == {"events": 2}


@pytest.mark.parametrize("length", [None, 4], ids=["chunked", "length"])
async def test_a_body_stays_whole(connect: Connect, length: int | None) -> None:
    async def body(request: web.Request) -> web.StreamResponse:
        await views(request)
        response = web.StreamResponse()
        response.content_length = length
        await response.prepare(request)
        await response.write(b"body")
        await response.write_eof()
        return response

    client = await connect(body)

    response = await client.get("/body")

    assert await response.text() == "body"
    assert len(cookies_set(response)) == 1


async def test_a_stream_that_ends_its_session_clears_the_cookie(
    connect: Connect, storage: Storage
) -> None:
    async def goodbye(request: web.Request) -> web.StreamResponse:
        await (await session_of(request)).destroy()
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"goodbye")
        return response

    await keep(storage, "apple")
    client = await connect(goodbye, forgets=True)

    response = await client.get("/goodbye", headers=signed("apple"))

    assert await response.text() == "goodbye"
    assert await storage.load("apple") is None
    assert cookies_set(response)[0].startswith("sid=; Max-Age=0;")


async def test_the_id_cannot_change_when_the_headers_have_left(
    connect: Connect, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    async def renew_late(request: web.Request) -> web.StreamResponse:
        session = await session_of(request)
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one ")
        await session.renew_id()
        return response

    await keep(storage, "apple", n=1)
    client = await connect(renew_late, forgets=True)

    response = await client.get("/renew_late", headers=signed("apple"))
    with pytest.raises(ClientPayloadError):
        await response.read()

    assert "SessionNotSent: the id cannot change any more" in caplog.text
    assert await kept(storage, "apple") == {"n": 1}


async def test_a_stream_that_does_not_ask_has_no_session_headers(
    connect: Connect, faulty: FaultyStorage
) -> None:
    async def plain(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"plain")
        return response

    client = await connect(plain, storage=faulty, forgets=True)

    response = await client.get("/plain", headers=signed("apple"))

    assert "Vary" not in response.headers
    assert faulty.calls == []


@pytest.mark.parametrize("prefix", ["/sub", "/sub/deeper"])
async def test_a_stream_of_a_sub_application_has_the_session_of_its_parent(
    make_options: MakeOptions, aiohttp_client: AiohttpClient, prefix: str
) -> None:
    app, sub, deeper = web.Application(), web.Application(), web.Application()
    setup(app, make_options())
    for each in (app, sub, deeper):
        each.router.add_get("/stream", stream)
        each.router.add_get("/show", show)
    sub.add_subapp("/deeper", deeper)
    app.add_subapp("/sub", sub)
    client = await aiohttp_client(app)

    response = await client.get(f"{prefix}/stream")
    found = await (await client.get("/show")).json()

    assert len(cookies_set(response)) == 1
    assert found["data"] == {"streamed": True}


# WebSockets.


async def test_a_websocket_carries_the_cookie_and_keeps_several_changes(
    connect: Connect,
) -> None:
    client = await connect(echo, show)

    async with client.ws_connect("/echo") as socket:
        answers = []
        for word in ("a", "b", "c"):
            await socket.send_str(word)
            answers.append(await socket.receive_json())
    found = await (await client.get("/show")).json()

    assert answers == [1, 2, 3]
    assert found["data"] == {"messages": ["a", "b", "c"]}


async def test_changes_inside_a_websocket_are_seen_by_other_requests_at_once(
    connect: Connect,
) -> None:
    client = await connect(echo, show)

    async with client.ws_connect("/echo") as socket:
        await socket.send_str("a")
        await socket.receive_json()
        found = await (await client.get("/show")).json()

    assert found["data"] == {"messages": ["a"]}


async def test_a_websocket_sees_what_other_requests_wrote_when_it_saves(
    connect: Connect, storage: Storage
) -> None:
    client = await connect(echo, views, show)

    async with client.ws_connect("/echo") as socket:
        await client.get("/views")
        await socket.send_str("a")
        await socket.receive_json()
    found = await (await client.get("/show")).json()

    assert found["data"] == {"messages": ["a"], "views": 1}


async def test_a_websocket_whose_session_was_destroyed_meanwhile_does_not_revive_it(
    connect: Connect, storage: Storage
) -> None:
    async def saves(request: web.Request) -> web.WebSocketResponse:
        session = await session_of(request)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            session["message"] = message.data
            await socket.send_json(await session.save())
        return socket

    await keep(storage, "apple")
    client = await connect(saves, forgets=True)

    async with client.ws_connect("/saves", headers=signed("apple")) as socket:
        await socket.send_str("a")
        first = await socket.receive_json()
        await storage.delete("apple")
        await socket.send_str("b")
        second = await socket.receive_json()

    assert (first, second) == (True, False)
    assert await storage.load("apple") is None


async def test_saving_a_new_session_when_the_headers_have_left_raises_and_keeps_nothing(
    connect: Connect, faulty: FaultyStorage
) -> None:
    async def save_late(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        session = await session_of(request)
        session["late"] = True
        with pytest.raises(SessionNotSent):
            await session.save()
        session.rollback()
        await socket.send_str("told")
        return socket

    client = await connect(save_late, storage=faulty)

    async with client.ws_connect("/save_late") as socket:
        answer = await socket.receive_str()

    assert answer == "told"
    assert faulty.calls == []


async def test_a_websocket_that_asks_for_a_new_session_too_late_is_a_loud_error(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    async def late(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        (await session_of(request))["late"] = True
        await socket.send_str("hello")
        return socket

    client = await connect(late)

    async with client.ws_connect("/late") as socket:
        await socket.receive_str()
        message = await socket.receive()

    assert message.type in {WSMsgType.CLOSED, WSMsgType.CLOSE}
    assert "SessionNotSent" in caplog.text


# With the middleware only.


async def test_with_the_middleware_only_a_known_session_is_saved_after_the_stream(
    connect_bare: Connect, storage: Storage
) -> None:
    await keep(storage, "apple")
    client = await connect_bare(stream, forgets=True)

    response = await client.get("/stream", headers=signed("apple"))

    assert await response.text() == "one two"
    assert await kept(storage, "apple") == {"streamed": True}


@pytest.mark.parametrize("handler", [stream, save_then_stream])
async def test_with_the_middleware_only_a_new_session_in_a_stream_is_a_loud_error(
    connect_bare: Connect, caplog: pytest.LogCaptureFixture, handler: Any
) -> None:
    client = await connect_bare(handler)

    response = await client.get(f"/{handler.__name__}")
    with pytest.raises(ClientPayloadError):
        await response.read()

    assert "SessionNotSent" in caplog.text
    assert "aiosess.setup(app, options)" in caplog.text


async def test_with_the_middleware_only_a_stream_whose_save_fails_is_never_garbled(
    connect_bare: Connect, storage: Storage, faulty: FaultyStorage, caplog: pytest.LogCaptureFixture
) -> None:
    await keep(storage, "apple")
    client = await connect_bare(stream, storage=faulty, retries=0)
    faulty.fail(verbs=("replace",))

    answer = await raw(client, "/stream", signed("apple"))

    assert answer.count(b"HTTP/1.1") == 1
    assert not answer.endswith(b"0\r\n\r\n")
    assert "StorageUnavailable" in caplog.text


async def test_with_the_middleware_only_a_stream_that_only_reads_is_served(
    connect_bare: Connect, storage: Storage
) -> None:
    async def read(request: web.Request) -> web.StreamResponse:
        session = await session_of(request)
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(session["fruit"].encode())
        return response

    await keep(storage, "apple", fruit="apple")
    client = await connect_bare(read, forgets=True)

    response = await client.get("/read", headers=signed("apple"))

    assert await response.text() == "apple"


# Failing.


async def test_save_before_prepare_can_answer_politely(
    connect: Connect, faulty: FaultyStorage
) -> None:
    client = await connect(save_then_stream, storage=faulty)
    faulty.fail()

    response = await client.get("/save_then_stream")

    assert response.status == 503
    assert await response.text() == "come back later"


async def test_save_before_prepare_is_sent_with_the_stream(connect: Connect) -> None:
    client = await connect(save_then_stream, show)

    body = await (await client.get("/save_then_stream")).text()
    found = await (await client.get("/show")).json()

    assert body == "one "
    assert found["data"] == {"saved": True}


def broken(*, compressed: bool, length: int | None) -> Any:
    """Return a handler whose session cannot be saved when its headers are about to leave."""

    async def broken_stream(request: web.Request) -> web.StreamResponse:
        (await session_of(request))["bad"] = object()
        response = web.StreamResponse()
        if compressed:
            response.enable_compression()
        response.content_length = length
        await response.prepare(request)
        await response.write(b"hello")
        return response

    return broken_stream


@pytest.mark.parametrize("length", [None, 5], ids=["chunked", "length"])
async def test_a_failure_while_a_stream_is_prepared_is_a_clean_500(
    connect: Connect, length: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    client = await connect(broken(compressed=False, length=length))

    head, _, body = (await raw(client, "/broken_stream")).partition(b"\r\n\r\n")

    headers = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert head.startswith(b"HTTP/1.1 500 ")
    assert b"Transfer-Encoding" not in headers
    assert len(body) == int(headers[b"Content-Length"])
    assert b"hello" not in body
    assert "UnserializableValue" in caplog.text


async def test_a_failure_while_a_compressed_stream_is_prepared_never_garbles_the_connection(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = await connect(broken(compressed=True, length=None))

    answer = await raw(client, "/broken_stream")

    # aiohttp cannot take its compressor back: no answer at all is better than a garbled one.
    assert answer == b"" or answer.startswith(b"HTTP/1.1 500 ")
    assert b"\x1f\x8b" not in answer
    assert "UnserializableValue" in caplog.text


async def test_after_a_failed_stream_the_next_request_is_answered(connect: Connect) -> None:
    client = await connect(broken(compressed=True, length=None), views)
    with contextlib.suppress(ServerDisconnectedError):
        await client.get("/broken_stream")

    response = await client.get("/views")

    assert await response.json() == 1


async def test_a_failure_while_a_websocket_is_prepared_is_a_clean_500(connect: Connect) -> None:
    async def broken_socket(request: web.Request) -> web.WebSocketResponse:
        (await session_of(request))["bad"] = object()
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str("never")
        return socket

    client = await connect(broken_socket)
    upgrade = {
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }

    answer = await raw(client, "/broken_socket", upgrade)

    assert answer.startswith(b"HTTP/1.1 500 ")
    assert answer.count(b"HTTP/1.1") == 1


async def test_a_failure_at_the_end_of_a_stream_that_wrote_nothing_is_never_garbled(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        session = await session_of(request)
        response = web.StreamResponse()
        await response.prepare(request)
        session["late"] = True
        return response

    client = await connect(silent)

    answer = await raw(client, "/silent")

    assert answer.count(b"HTTP/1.1") <= 1
    assert not answer.endswith(b"0\r\n\r\n")
    assert "SessionNotSent" in caplog.text


async def test_a_late_change_that_cannot_be_saved_never_garbles_a_stream_left_for_another_response(
    connect: Connect, storage: Storage, faulty: FaultyStorage, caplog: pytest.LogCaptureFixture
) -> None:
    async def two_responses(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one ")
        (await session_of(request))["late"] = True
        return web.Response(text="another")

    await keep(storage, "apple")
    client = await connect(two_responses, storage=faulty, retries=0, load="lazy")
    faulty.fail(verbs=("replace",))

    answer = await raw(client, "/two_responses", signed("apple"))

    assert answer.count(b"HTTP/1.1") == 1
    assert "StorageUnavailable" in caplog.text


@pytest.mark.parametrize("retries", [None, 0, 1])
async def test_a_stream_whose_save_fails_is_a_500(
    connect: Connect, faulty: FaultyStorage, retries: int | None
) -> None:
    client = await connect(stream, storage=faulty, retries=retries)
    faulty.fail()

    response = await client.get("/stream")

    assert response.status == 500
    assert await response.text() == "The session storage does not answer."
    assert cookies_set(response) == []
    assert faulty.calls == ["create"] * (1 + (retries or 0))


@pytest.mark.parametrize("retries", [None, 0])
async def test_a_late_change_that_cannot_be_saved_is_a_loud_error(
    connect: Connect,
    storage: Storage,
    faulty: FaultyStorage,
    caplog: pytest.LogCaptureFixture,
    retries: int | None,
) -> None:
    await keep(storage, "apple")
    client = await connect(stream_then_change, storage=faulty, retries=retries, forgets=True)
    faulty.fail(verbs=("replace",))

    response = await client.get("/stream_then_change", headers=signed("apple"))
    with pytest.raises(ClientPayloadError):
        await response.read()

    assert "StorageUnavailable" in caplog.text


async def test_a_stream_whose_cookie_is_withheld_is_whole_and_nothing_is_kept(
    connect: Connect, faulty: FaultyStorage, caplog: pytest.LogCaptureFixture
) -> None:
    client = await connect(stream, storage=faulty, cookie=CookieOptions(secure=True))

    response = await client.get("/stream")

    assert await response.text() == "one two"
    assert cookies_set(response) == []
    assert faulty.calls == []
    assert "is withheld" in caplog.text


async def rotate(request: web.Request) -> web.Response:
    session = await session_of(request)
    await session.rotate_id()
    return web.Response(text=session.id)


async def stream_then_empty(request: web.Request) -> web.StreamResponse:
    session = await session_of(request)
    response = web.StreamResponse()
    await response.prepare(request)
    session.invalidate()
    return response


async def test_with_the_middleware_only_a_stream_by_an_id_that_was_rotated_is_kept(
    connect_bare: Connect, storage: Storage
) -> None:
    await keep(storage, "apple", n=1)
    client = await connect_bare(rotate, stream_then_change, forgets=True)
    new_id = await (await client.get("/rotate", headers=signed("apple"))).text()

    response = await client.get("/stream_then_change", headers=signed("apple"))

    assert response.status == 200
    assert await kept(storage, new_id) == {"n": 1, "late": True}


async def test_a_session_that_is_emptied_when_the_headers_have_left_is_over(
    connect: Connect, storage: Storage
) -> None:
    await keep(storage, "apple", n=1)
    client = await connect(stream_then_empty, forgets=True)

    await (await client.get("/stream_then_empty", headers=signed("apple"))).read()

    assert await storage.load("apple") is None
