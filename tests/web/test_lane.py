"""The tests of requests run on both lanes: that they do is a test of its own."""

from __future__ import annotations

from aiohttp import web

from aiosess.exchange.exchange import Exchange
from aiosess.exchange.fast import FastExchange
from aiosess.exchange.manager import EXCHANGE
from tests.web.conftest import Connect
from tests.web.handlers import session_of


async def test_a_request_takes_the_lane_that_its_test_says(connect: Connect, lane: str) -> None:
    async def handler(request: web.Request) -> web.Response:
        await session_of(request)
        return web.Response(text=type(request[EXCHANGE]).__name__)

    client = await connect(handler)

    taken = await (await client.get("/handler")).text()

    assert taken == {"fast": FastExchange, "whole": Exchange}[lane].__name__
