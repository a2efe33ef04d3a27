"""The code in the how-to pages does what the pages say."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import uuid
from pathlib import Path
from typing import Any, Final, TypeAlias

import aiohttp
import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestClient
from pytest_aiohttp import AiohttpClient
from redis.asyncio import Redis

from aiosess import MemoryStorage, Reason, SessionOptions, Storage, get_session, setup
from aiosess.storages.redis import RedisStorage
from aiosess.testing import FakeClock, Harness, session_for
from aiosess.testing.pytest import storage_contract
from tests.conftest import SECRET
from tests.servers import RedisServer, Server, free_port

GUIDES: Final = Path(__file__).parents[2] / "docs" / "how-to"
BLOCK: Final = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)

Client: TypeAlias = TestClient[Any, Any]


def application_of(page: str) -> web.Application:
    """Return the application that a how-to page makes."""
    app: web.Application = code_of(page)["app"]
    return app


def code_of(page: str) -> dict[str, Any]:
    """Run the blocks of a how-to page, and return the names that they define."""
    names: dict[str, Any] = {}
    text = (GUIDES / f"{page}.md").read_text(encoding="utf-8")
    exec("\n".join(BLOCK.findall(text)), names)  # noqa: S102 - it is our own
    return names


# Log in and out.


@pytest.fixture
async def visitor(aiohttp_client: AiohttpClient) -> Client:
    """Somebody at the door of the application in "log in and out"."""
    return await aiohttp_client(application_of("log-in"))


async def log_in(client: Client) -> None:
    await client.post("/login", data={"name": "alice", "password": "wonderland"})


async def test_who_is_not_logged_in_is_sent_to_the_login_and_gets_no_cookie(
    visitor: Client,
) -> None:
    answer = await visitor.get("/account", allow_redirects=False)

    assert (answer.status, answer.headers["Location"]) == (303, "/login")
    assert "Set-Cookie" not in answer.headers


async def test_a_wrong_password_logs_nobody_in(visitor: Client) -> None:
    answer = await visitor.post("/login", data={"name": "alice", "password": "looking-glass"})

    assert answer.status == 403
    assert (await visitor.get("/account", allow_redirects=False)).status == 303


async def test_a_login_takes_a_new_id_and_keeps_what_was_there(visitor: Client) -> None:
    async with session_for(visitor) as session:
        session["cart"] = ["tea"]
        before = session.id

    await log_in(visitor)

    async with session_for(visitor) as session:
        assert session.id != before
        assert (session["cart"], session["user"]) == (["tea"], "alice")


async def test_a_logout_ends_the_session_for_all_who_have_the_cookie(
    visitor: Client, aiohttp_client: AiohttpClient
) -> None:
    await log_in(visitor)
    (cookie,) = visitor.session.cookie_jar
    thief: Client = await aiohttp_client(visitor.server)

    await visitor.post("/logout")
    answer = await thief.get(
        "/account", headers={"Cookie": f"sid={cookie.value}"}, allow_redirects=False
    )

    assert answer.status == 303


# WebSockets and server-sent events.


@pytest.fixture
async def listener(aiohttp_client: AiohttpClient) -> Client:
    """A browser of the application in "WebSockets and server-sent events", logged in."""
    client = await aiohttp_client(application_of("streams"))
    async with session_for(client) as session:
        session["user"] = "ann"
    return client


async def test_a_socket_keeps_what_was_said_while_it_is_open(listener: Client) -> None:
    async with listener.ws_connect("/chat") as socket:
        await socket.send_str("hello")
        answer = await socket.receive_str()
        async with session_for(listener) as session:
            said = session["said"]

    assert (answer, said) == ("ann: hello", ["hello"])


async def test_a_socket_is_closed_when_its_session_ended(listener: Client) -> None:
    async with listener.ws_connect("/chat") as socket:
        async with session_for(listener) as session:
            await session.destroy()
        await socket.send_str("still there?")
        message = await socket.receive()

    assert (message.type, message.data) == (WSMsgType.CLOSE, 1008)


@pytest.mark.parametrize(
    ("origin", "is_open"), [("http://elsewhere.example", False), (None, True)], ids=str
)
async def test_a_socket_is_for_the_pages_of_its_own_origin(
    listener: Client, origin: str | None, *, is_open: bool
) -> None:
    headers = {} if origin is None else {"Origin": origin}

    try:
        await (await listener.ws_connect("/chat", headers=headers)).close()
        was_open = True
    except aiohttp.WSServerHandshakeError:
        was_open = False

    assert was_open is is_open


async def test_an_origin_that_is_none_is_refused_as_any_other(listener: Client) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
        await listener.ws_connect("/chat", headers={"Origin": "http://["})


async def test_events_are_sent_and_the_session_is_kept_before_them(listener: Client) -> None:
    answer = await listener.get("/prices")
    body = await answer.text()

    async with session_for(listener) as session:
        assert session["watches"] == 1
    assert body == "data: 3\n\ndata: 2\n\ndata: 1\n\n"


# A page on another origin.

PARTNER: Final = {"Origin": "https://partner.example", "X-Forwarded-Proto": "https"}


@pytest.fixture
async def partner(aiohttp_client: AiohttpClient) -> Client:
    return await aiohttp_client(application_of("other-origin"))


async def test_a_known_page_may_ask_first(partner: Client) -> None:
    asks = {**PARTNER, "Access-Control-Request-Method": "POST"}

    answer = await partner.options("/cart", headers=asks)

    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] == "https://partner.example"
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"


async def test_a_known_page_may_read_what_comes_of_its_request(partner: Client) -> None:
    answer = await partner.post("/cart", data="tea", headers=PARTNER)

    assert answer.headers["Access-Control-Allow-Origin"] == "https://partner.example"
    assert "Origin" in answer.headers.getall("Vary")


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null"])
async def test_an_unknown_page_changes_nothing_and_reads_nothing(
    partner: Client, origin: str
) -> None:
    answer = await partner.post("/cart", data="tea", headers={**PARTNER, "Origin": origin})

    assert answer.status == 403
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_the_cookie_for_another_site_has_all_three_attributes() -> None:
    cookie = code_of("other-origin")["options"].cookie

    assert (cookie.samesite, cookie.secure, cookie.partitioned) == ("none", True, True)


# Storages.

_clock = FakeClock()


def _succession() -> Storage:
    made: Storage = code_of("moving-storages")["Succession"](
        new=MemoryStorage(clock=_clock), old=MemoryStorage(clock=_clock)
    )
    return made


test_sqlite_keeps_the_contract = code_of("own-storage")["test_sqlite"]
test_a_succession_keeps_the_contract = storage_contract(Harness(_succession, clock=_clock))


async def count(request: web.Request) -> web.Response:
    session = await get_session(request)
    session["views"] = session.get("views", 0) + 1
    return web.json_response(session["views"])


async def log_out(request: web.Request) -> web.Response:
    await (await get_session(request)).destroy()
    return web.Response()


def counting(storage: Storage) -> web.Application:
    app = web.Application()
    app.router.add_get("/count", count)
    app.router.add_get("/log_out", log_out)
    setup(app, SessionOptions(secret=SECRET, storage=storage))
    return app


async def test_old_sessions_stay_in_the_old_storage_until_they_end(
    aiohttp_client: AiohttpClient,
) -> None:
    new, old = MemoryStorage(), MemoryStorage()
    succession = code_of("moving-storages")["Succession"](new=new, old=old)
    before = await aiohttp_client(counting(old))
    await before.get("/count")
    after = await aiohttp_client(counting(succession))
    cookies = {each.key: each.value for each in before.session.cookie_jar}

    counted = await (await after.get("/count", cookies=cookies)).json()
    kept_in = (len(new), len(old))
    await after.get("/log_out", cookies=cookies)

    assert (counted, kept_in) == (2, (0, 1))
    assert len(old) == 0


async def test_a_new_session_goes_to_the_new_storage(aiohttp_client: AiohttpClient) -> None:
    new, old = MemoryStorage(), MemoryStorage()
    succession = code_of("moving-storages")["Succession"](new=new, old=old)
    client = await aiohttp_client(counting(succession))

    await client.get("/count")

    assert (len(new), len(old)) == (1, 0)


async def test_the_records_of_a_redis_are_copied_with_their_ends(
    redis_server: RedisServer,
) -> None:
    prefix, clock = f"{uuid.uuid4()}:", FakeClock()
    new = MemoryStorage(clock=clock)
    async with RedisStorage.from_url(redis_server.url, prefix=prefix) as old:
        await old.create("apple", b"tea", 60)
        await old.create("pear", b"cake", 600)
    copy = code_of("moving-storages")["copy"]

    async with Redis(host="127.0.0.1", port=redis_server.port) as client:
        copied = [await copy(client, prefix, new) for _ in range(2)]

    found = await new.load("apple")
    assert copied == [2, 0]
    assert found is not None
    assert found.payload == b"tea"
    clock.advance(61)
    assert await new.load("apple") is None
    assert await new.load("pear") is not None


# Why is my session not saved?

NOT_SAVED: Final = (GUIDES / "not-saved.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "reason",
    [each for each in Reason if each.level == logging.DEBUG and each.kind != "watch"],
    ids=lambda each: each.name,
)
def test_each_decision_has_its_row(reason: Reason) -> None:
    assert f"| {reason.words.removesuffix(': {error}')} |" in NOT_SAVED


async def test_a_response_says_what_the_page_shows(aiohttp_client: AiohttpClient) -> None:
    shown = NOT_SAVED.partition("```text\n")[2].partition("```")[0].splitlines()
    client = await aiohttp_client(application_of("not-saved"))

    said = [(await client.get("/views")).headers["X-Session"] for _ in range(2)]

    assert said == shown


# Several workers, and production.


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, redis_server: RedisServer) -> None:
    """What the pages take from the environment."""
    monkeypatch.setenv("SESSION_SECRET", SECRET.replace(" ", "-"))
    monkeypatch.setenv("REDIS_URL", redis_server.url)


@pytest.mark.usefixtures("environment")
async def test_two_workers_count_for_one_browser(aiohttp_client: AiohttpClient) -> None:
    make_app = code_of("workers")["make_app"]
    one: Client = await aiohttp_client(await make_app())
    other: Client = await aiohttp_client(await make_app())
    await one.get("/")
    cookies = {each.key: each.value for each in one.session.cookie_jar}

    answer = await (await other.get("/", cookies=cookies)).json()

    assert answer["views"] == 2


@pytest.mark.usefixtures("environment")
async def test_the_options_for_production_are_ready_to_serve(
    aiohttp_client: AiohttpClient,
) -> None:
    client: Client = await aiohttp_client(await code_of("production")["make_app"]())

    answer = await client.get("/ready")

    assert answer.status == 200


async def test_a_process_is_alive_and_ready(aiohttp_client: AiohttpClient) -> None:
    client: Client = await aiohttp_client(application_of("readiness"))

    statuses = [(await client.get(path)).status for path in ("/alive", "/ready")]

    assert statuses == [200, 200]


# The lines of the log.

SHOP: Final = """
from aiohttp import web

from aiosess import BreakerOptions, SessionOptions, get_session, setup
from aiosess.testing import FaultyStorage

storage = FaultyStorage()


async def visit(request: web.Request) -> web.Response:
    session = await get_session(request)
    session["n"] = session.get("n", 0) + 1
    return web.Response()


async def trouble(request: web.Request) -> web.Response:
    storage.recover()
    if request.query["is"] == "on":
        storage.fail()
    return web.Response()


def make_app() -> web.Application:
    app = web.Application()
    app.router.add_get("/", visit)
    app.router.add_get("/trouble", trouble)
    breaker = BreakerOptions(failures=1, pause=0.01, longest_pause=0.01)
    setup(app, SessionOptions(secret="x" * 32, storage=storage, breaker=breaker))
    return app


if __name__ == "__main__":
    import sys

    web.run_app(make_app(), host="127.0.0.1", port=int(sys.argv[1]), print=None)
"""
UNDER: Final = {
    "run_app": ["shop.py", "{port}"],
    "gunicorn": [
        *("-m", "gunicorn", "shop:make_app()", "--bind", "127.0.0.1:{port}"),
        *("--worker-class", "aiohttp.GunicornWebWorker"),
    ],
}


class LoggingShop(Server):
    """An application under `web.run_app` or gunicorn, whose stderr goes to a file."""

    def __init__(self, folder: Path, beginning: str, words: list[str]) -> None:
        (folder / "shop.py").write_text(beginning + SHOP)
        self.log = folder / "log"
        port = free_port()
        python = " ".join([sys.executable, *(word.format(port=port) for word in words)])
        settings = [f"--chdir={folder}", f"HOME={folder}"]
        command = python.replace("shop:make_app()", "'shop:make_app()'")
        super().__init__(["env", *settings, "sh", "-c", f"exec {command} 2>log"], port)

    def kill(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


async def said_of_an_outage(shop: LoggingShop) -> list[str]:
    """Return the lines of aiosess in the log of a *shop* that had an outage."""
    shop.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{shop.port}") as browser:
            await browser.get("/trouble?is=on")
            await browser.get("/")
            await browser.get("/trouble?is=off")
            async with asyncio.timeout(20):
                while (await browser.get("/")).status != 200:
                    pass
    finally:
        shop.stop()
    lines = shop.log.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if "storage at FaultyStorage" in line]


@pytest.mark.parametrize("words", UNDER.values(), ids=UNDER)
async def test_of_an_outage_only_the_beginning_is_seen_where_no_logging_is_set_up(
    words: list[str], tmp_path: Path
) -> None:
    [begin] = await said_of_an_outage(LoggingShop(tmp_path, "", words))

    assert begin.startswith("the storage at FaultyStorage does not answer")


@pytest.mark.parametrize("words", UNDER.values(), ids=UNDER)
async def test_with_the_lines_of_the_guide_the_end_of_an_outage_is_seen_too(
    words: list[str], tmp_path: Path
) -> None:
    page = (GUIDES / "observability.md").read_text(encoding="utf-8")
    beginning = BLOCK.findall(page)[0]

    begin, end = await said_of_an_outage(LoggingShop(tmp_path, beginning, words))

    assert " ERROR aiosess: " in begin
    assert " INFO aiosess: " in end
