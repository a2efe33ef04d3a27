"""The code of the guide on sockets does what the guide says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType, WSServerHandshakeError, web
from pytest_aiohttp import AiohttpClient

from aiosess import Reason

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "websockets.md"

pytestmark = pytest.mark.one_lane("a guide")


@pytest.fixture
def guide() -> dict[str, Any]:
    blocks = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(block, namespace)  # noqa: S102 - it is our own
    return namespace


async def test_the_chat_closes_with_its_session(
    guide: dict[str, Any], aiohttp_client: AiohttpClient
) -> None:
    app: web.Application = guide["app"]
    app.router.add_get("/game", guide["game"])
    browser = await aiohttp_client(app)
    await browser.post("/login", data={"name": "ann"})
    sockets = [await browser.ws_connect(f"/{each}") for each in ("chat", "game")]
    for ws in sockets:
        await ws.send_str("hello")
    said = [await ws.receive_str(timeout=5) for ws in sockets]

    await browser.post("/logout")

    assert said == ["ann: hello", "hello"]
    for ws in sockets:
        message = await ws.receive(timeout=5)
        assert message == (WSMsgType.CLOSE, 1008, Reason.ENDED.words)


@pytest.mark.parametrize("path", ["/chat", "/game"])
async def test_a_page_of_another_origin_opens_no_socket(
    path: str, guide: dict[str, Any], aiohttp_client: AiohttpClient
) -> None:
    app: web.Application = guide["app"]
    app.router.add_get("/game", guide["game"])
    browser = await aiohttp_client(app)
    await browser.post("/login", data={"name": "ann"})

    with pytest.raises(WSServerHandshakeError, match="403"):
        await browser.ws_connect(path, headers={"Origin": "http://elsewhere.example"})


async def test_the_stream_ends_with_its_session(
    guide: dict[str, Any], aiohttp_client: AiohttpClient
) -> None:
    browser = await aiohttp_client(guide["app"])
    await browser.post("/login", data={"name": "ann"})
    stream = await browser.get("/news")
    await stream.content.readuntil(b"nothing new\n\n")

    await browser.post("/logout")

    assert await stream.text() == "event: ended\ndata: log in again\n\n"
