"""Many requests at once, WebSockets and event streams, as the scripts of a page make them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from aiohttp import web
from playwright.async_api import BrowserContext

from aiosess import SessionOptions, get_session, setup
from aiosess.testing import FakeClock
from tests.browser.conftest import Serve

pytestmark = pytest.mark.asyncio(loop_scope="package")

MakeOptions = Callable[..., SessionOptions]


async def user(request: web.Request) -> web.Response:
    """Tell who is logged in; ``?is=ann`` logs in."""
    session = await get_session(request)
    if "is" in request.query:
        session["user"] = request.query["is"]
    return web.Response(text=f"user: {session.get('user', 'nobody')}")


async def cart(request: web.Request) -> web.Response:
    session = await get_session(request)
    return web.Response(text=" ".join(session.get("cart", [])))


def application(options: SessionOptions) -> web.Application:
    app = web.Application()
    setup(app, options)
    app.router.add_get("/", user)
    return app


# Eight requests at once, of which each could renew the id.

EIGHT_AT_ONCE = """async () => {
    const ask = async () => await (await fetch("/")).text()
    return await Promise.all(Array.from({length: 8}, ask))
}"""


async def test_when_the_id_is_due_all_of_eight_requests_see_the_same_session(
    context: BrowserContext, serve: Serve, options: MakeOptions, clock: FakeClock
) -> None:
    site = await serve(application(options(clock=clock, renew_every=60)))
    page = await context.new_page()
    await page.goto(str(site.url % {"is": "ann"}))
    [before] = await context.cookies()
    clock.advance(61)

    answers = await page.evaluate(EIGHT_AT_ONCE)

    [after] = await context.cookies()
    assert answers == ["user: ann"] * 8
    assert before["value"] != after["value"]


async def test_the_cookie_that_is_left_of_eight_requests_opens_the_session(
    context: BrowserContext, serve: Serve, options: MakeOptions, clock: FakeClock
) -> None:
    site = await serve(application(options(clock=clock, renew_every=60, renew_grace=10)))
    page = await context.new_page()
    await page.goto(str(site.url % {"is": "ann"}))
    clock.advance(61)
    await page.evaluate(EIGHT_AT_ONCE)
    # The old id is of no use any more, and the new one is not due.
    clock.advance(11)

    await page.goto(str(site.url))

    assert await page.inner_text("body") == "user: ann"


# A WebSocket.


async def socket(request: web.Request) -> web.WebSocketResponse:
    """Answer with who is logged in, and put each message into the cart."""
    session = await get_session(request)
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        session.setdefault("cart", []).append(message.data)
        await session.save()
        await socket.send_str(f"{session.get('user', 'nobody')}: {message.data}")
    return socket


SAY = """fruit => new Promise((resolve, reject) => {
    const socket = new WebSocket(`wss://${location.host}/socket`)
    socket.onopen = () => socket.send(fruit)
    socket.onmessage = event => resolve(event.data)
    socket.onerror = reject
})"""


async def test_a_socket_sees_the_session_and_saves_it_while_it_is_open(
    context: BrowserContext, serve: Serve, options: MakeOptions
) -> None:
    app = application(options())
    app.router.add_get("/socket", socket)
    app.router.add_get("/cart", cart)
    site = await serve(app)
    page = await context.new_page()
    await page.goto(str(site.url % {"is": "ann"}))

    answer = await page.evaluate(SAY, "pear")

    other = await context.new_page()
    await other.goto(str(site.url / "cart"))
    assert answer == "ann: pear"
    assert await other.inner_text("body") == "pear"


async def greeting_socket(request: web.Request) -> web.WebSocketResponse:
    """Begin a session, and say so."""
    session = await get_session(request)
    session["user"] = "guest"
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.send_str("welcome")
    async for _message in socket:
        pass
    return socket


async def test_a_socket_can_begin_a_session(
    context: BrowserContext, serve: Serve, options: MakeOptions
) -> None:
    app = application(options())
    app.router.add_get("/socket", greeting_socket)
    site = await serve(app)
    page = await context.new_page()
    await page.goto(str(site.url))

    answer = await page.evaluate(SAY, "pear")

    await page.reload()
    assert answer == "welcome"
    assert await page.inner_text("body") == "user: guest"


# A stream of events.

# At the first event, ask for the cart while the stream is still open.
LISTEN = """() => new Promise((resolve, reject) => {
    const source = new EventSource("/events")
    source.onmessage = async event => {
        const cart = await (await fetch("/cart")).text()
        source.close()
        resolve([event.data, cart])
    }
    source.onerror = reject
})"""


async def test_a_stream_of_events_sees_the_session_and_saves_it_while_it_is_open(
    context: BrowserContext, serve: Serve, options: MakeOptions
) -> None:
    has_heard = asyncio.Event()

    async def events(request: web.Request) -> web.StreamResponse:
        session = await get_session(request)
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        session["cart"] = ["pear"]
        await session.save()
        await stream.write(f"data: {session['user']} has a pear\n\n".encode())
        await has_heard.wait()
        return stream

    app = application(options())
    app.router.add_get("/events", events)
    app.router.add_get("/cart", cart)
    site = await serve(app)
    page = await context.new_page()
    await page.goto(str(site.url % {"is": "ann"}))

    heard = await page.evaluate(LISTEN)
    has_heard.set()

    assert heard == ["ann has a pear", "pear"]
