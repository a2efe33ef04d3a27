"""The main job: views per browser."""

from __future__ import annotations

from aiohttp import web
from pytest_aiohttp import AiohttpClient

from aiosess import get_session
from tests.conftest import MakeApp


async def views(request: web.Request) -> web.Response:
    session = await get_session(request)
    assert session is not None
    session["views"] = session.get("views", 0) + 1
    return web.json_response(session["views"])


async def test_views_are_counted_for_one_browser(
    make_app: MakeApp, aiohttp_client: AiohttpClient
) -> None:
    client = await aiohttp_client(make_app(views))

    counts = [await (await client.get("/views")).json() for _ in range(3)]

    assert counts == [1, 2, 3]
