"""The tutorial keeps its word: each step of the shop is run, and its page shows the same code."""

from __future__ import annotations

import asyncio
import difflib
import functools
import importlib
import re
import runpy
import shlex
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
from aiohttp import ClientResponse, ClientSession, CookieJar, web
from aiohttp.test_utils import TestClient
from pytest_aiohttp import AiohttpClient, AiohttpServer

from aiosess import MemoryStorage, SessionOptions
from aiosess.storages.redis import RedisStorage
from aiosess.testing import FakeClock, session_for
from tests.servers import RedisServer, Server, free_port

ROOT: Final = Path(__file__).parent.parent
PAGES: Final = ROOT / "docs" / "tutorial"
STEPS: Final = range(1, 8)
ANN: Final = {"name": "ann", "password": "pear tree"}
MONTH: Final = 30 * 86400
TLS: Final = {"X-Forwarded-Proto": "https"}
SECRET: Final = "a-secret-for-the-tests-longer-than-32-bytes"

Client = TestClient[Any, Any]


def file_of(step: int) -> Path:
    return ROOT / "examples" / "shop" / f"step{step}.py"


def module_of(step: int) -> ModuleType:
    return importlib.import_module(f"examples.shop.step{step}")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What step 7 is told by those who run it; no Redis listens there."""
    monkeypatch.setenv("SESSION_SECRET", SECRET)
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")


def app_of(step: int) -> web.Application:
    app: web.Application = module_of(step).make_app()
    return app


async def text_of(client: Client) -> str:
    return await (await client.get("/")).text()


async def log_in(client: Client, **form: str) -> ClientResponse:
    return await client.post("/login", data={**ANN, **form})


def cookie_of(client: Client, name: str = "sid") -> str | None:
    return {cookie.key: cookie.value for cookie in client.session.cookie_jar}.get(name)


async def with_stolen(client: Client, cookie: str | None) -> str:
    """Return the home page as somebody sees it who has *cookie* and nothing else."""
    async with (
        ClientSession(cookies={"sid": str(cookie)}, cookie_jar=CookieJar(unsafe=True)) as thief,
        thief.get(client.make_url("/")) as response,
    ):
        return await response.text()


# The pages.


@pytest.mark.parametrize("step", STEPS)
def test_a_step_is_run_as_its_page_says(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[tuple[object, object]] = []

    def run_app(app: web.Application, *, host: str, port: int) -> None:
        served.append((type(app), (host, port)))

    monkeypatch.setattr(web, "run_app", run_app)
    runpy.run_path(str(file_of(step)), run_name="__main__")

    assert served == [(web.Application, ("127.0.0.1", 8080))]


def blocks_of(step: int) -> list[str]:
    """Return the pieces of code that the page of *step* shows of its file."""
    [page] = PAGES.glob(f"{step}-*.md")
    fence = r'^```python title="shop.py"\n(.*?)^```$'
    return re.findall(fence, page.read_text(), re.DOTALL | re.MULTILINE)


def lines_of(step: int) -> list[str]:
    return file_of(step).read_text().splitlines() if step else []


@pytest.mark.parametrize("step", STEPS)
def test_a_page_shows_the_code_that_is_run(step: int) -> None:
    code = file_of(step).read_text()

    assert [block for block in blocks_of(step) if block not in code] == []


@pytest.mark.parametrize("step", STEPS)
def test_a_page_shows_all_that_is_new(step: int) -> None:
    shown = "".join(blocks_of(step)).splitlines()
    told = difflib.ndiff(lines_of(step - 1), lines_of(step))
    new = [line[2:] for line in told if line.startswith("+ ") and line[2:].strip()]

    assert new
    assert [line for line in new if line not in shown and not line.startswith('"""')] == []


def test_all_code_of_the_pages_is_compared() -> None:
    fences = [
        line
        for page in sorted(PAGES.glob("*.md"))
        for line in page.read_text().splitlines()
        if line.startswith("```python")
    ]

    assert len(fences) == sum(len(blocks_of(step)) for step in STEPS)


# Step 1: the first session.


async def test_visits_are_counted(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(app_of(1))

    pages = [await text_of(client) for _ in range(3)]

    assert [re.findall(r"Visit number (\d+)", page) for page in pages] == [["1"], ["2"], ["3"]]


async def test_another_browser_has_a_session_of_its_own(
    aiohttp_client: AiohttpClient, aiohttp_server: AiohttpServer
) -> None:
    server = await aiohttp_server(app_of(1))
    mine: Client = await aiohttp_client(server)
    another: Client = await aiohttp_client(server)
    await text_of(mine)

    assert "Visit number 1" in await text_of(another)


async def test_the_cookie_says_nothing_and_is_hidden_from_scripts(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(app_of(1))

    line = (await client.get("/")).headers["Set-Cookie"]

    assert re.fullmatch(r"sid=s%3A[^;]{70,90}; Path=/; HttpOnly; SameSite=Lax", line)


async def test_the_log_reminds_that_sessions_are_in_memory(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = await aiohttp_client(app_of(1))

    await text_of(client)

    assert any("keeps sessions in this process only" in each for each in caplog.messages)


# Step 2: logging in.


@pytest.mark.parametrize("step", range(2, 7))
async def test_who_logs_in_is_greeted(step: int, aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(app_of(step))

    await log_in(client)

    assert "Hello ann" in await text_of(client)


@pytest.mark.parametrize("step", range(2, 7))
@pytest.mark.parametrize(("name", "password"), [("ann", "apple tree"), ("eve", "")])
async def test_a_wrong_password_logs_nobody_in(
    step: int, name: str, password: str, aiohttp_client: AiohttpClient
) -> None:
    client = await aiohttp_client(app_of(step))

    await log_in(client, name=name, password=password)

    assert "Hello" not in await text_of(client)


@pytest.mark.parametrize("step", range(2, 7))
async def test_what_was_in_the_session_is_still_there_after_the_login(
    step: int, aiohttp_client: AiohttpClient
) -> None:
    client = await aiohttp_client(app_of(step))
    async with session_for(client) as session:
        session["kept"] = 1

    await log_in(client)

    async with session_for(client) as session:
        assert session["kept"] == 1


@pytest.mark.parametrize("step", range(2, 7))
async def test_a_cookie_from_before_the_login_is_not_logged_in(
    step: int, aiohttp_client: AiohttpClient
) -> None:
    client = await aiohttp_client(app_of(step))
    async with session_for(client) as session:
        session["kept"] = 1
    planted = cookie_of(client)

    await log_in(client)

    assert cookie_of(client) != planted
    assert "Hello" not in await with_stolen(client, planted)


@pytest.mark.parametrize("step", range(2, 8))
async def test_a_name_is_shown_as_text(step: int, aiohttp_client: AiohttpClient) -> None:
    module = module_of(step)
    shown: str = module.account({"user": "<b>"})

    assert "Hello &lt;b&gt;" in shown


# Step 3: flash messages.


async def test_a_message_is_shown_once(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(app_of(3))
    after_login = await (await log_in(client)).text()

    after_reload = await text_of(client)

    assert ("Welcome" in after_login, "Welcome" in after_reload) == (True, False)


async def test_a_wrong_password_is_told_on_the_home_page(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(app_of(3))

    answer = await log_in(client, password="?")

    assert (answer.url.path, answer.status) == ("/", 200)
    assert "No such name and password." in await answer.text()


# Step 4: the cart.


async def put(client: Client, fruit: str) -> ClientResponse:
    return await client.post("/cart", data={"fruit": fruit})


async def test_the_cart_counts_and_adds_up(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(app_of(4))
    await put(client, "apple")
    await put(client, "pear")

    page = await (await put(client, "pear")).text()

    assert "<li>apple: 1</li><li>pear: 2</li>" in page
    assert "Total: 1.60" in page


async def test_what_the_shop_does_not_have_is_refused(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(app_of(4))

    answer = await put(client, "<script>")

    assert answer.status == 400


async def test_the_cart_is_still_there_after_the_login(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(app_of(4))
    await put(client, "apple")

    page = await (await log_in(client)).text()

    assert "<li>apple: 1</li>" in page


async def test_tabs_that_fill_the_cart_at_once_lose_nothing(
    aiohttp_client: AiohttpClient, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = RedisStorage.from_url(redis_server.url, prefix=f"{uuid.uuid4()}:")
    options = functools.partial(SessionOptions, storage=storage)
    monkeypatch.setattr(module_of(4), "SessionOptions", options)
    client = await aiohttp_client(app_of(4))
    await put(client, "apple")

    await asyncio.gather(*(put(client, fruit) for fruit in ["apple", "pear"] * 5))

    assert "<li>apple: 6</li><li>pear: 5</li>" in await text_of(client)


# Step 5: remember me.


@pytest.fixture
def clocked(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> web.Application:
    """The shop of step 5, whose time the test moves."""
    options = functools.partial(SessionOptions, clock=clock, storage=MemoryStorage(clock=clock))
    monkeypatch.setattr(module_of(5), "SessionOptions", options)
    return app_of(5)


async def test_the_cookie_of_who_is_remembered_lives_for_a_month(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(app_of(5))

    await log_in(client, remember="on")

    [cookie] = client.session.cookie_jar
    assert cookie["max-age"] == str(MONTH)


async def test_the_cookie_of_who_is_not_remembered_ends_with_the_browser(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(app_of(5))
    await log_in(client, remember="on")

    await log_in(client)

    [cookie] = client.session.cookie_jar
    assert (cookie["max-age"], cookie["expires"]) == ("", "")


@pytest.mark.parametrize(
    ("form", "seconds"), [({}, 2 * 3600), ({"remember": "on"}, MONTH)], ids=["else", "remembered"]
)
async def test_a_login_lasts_for_two_hours_or_a_month(
    form: dict[str, str],
    seconds: int,
    clocked: web.Application,
    clock: FakeClock,
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(clocked)
    await log_in(client, **form)
    # The clock of the browser stands still, so that its cookie stays.
    cookie = cookie_of(client)
    clock.advance(seconds - 1)
    before = await with_stolen(client, cookie)

    clock.advance(seconds + 1)
    after = await with_stolen(client, cookie)

    assert ("Hello ann" in before, "Hello ann" in after) == (True, False)


@pytest.mark.parametrize(("rolling", "ages"), [(False, []), (True, [str(MONTH)])])
async def test_a_visit_prolongs_the_month_only_with_rolling(
    *,
    rolling: bool,
    ages: list[str],
    aiohttp_client: AiohttpClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = functools.partial(SessionOptions, rolling=rolling)
    monkeypatch.setattr(module_of(5), "SessionOptions", options)
    client = await aiohttp_client(app_of(5))
    await log_in(client, remember="on")

    answer = await client.get("/")

    assert [cookie["max-age"] for cookie in answer.cookies.values()] == ages


# Step 6: logging out.


async def test_after_the_logout_the_cookie_is_gone_and_worth_nothing(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(app_of(6))
    await log_in(client)
    stolen = cookie_of(client)

    await client.post("/logout")

    assert cookie_of(client) is None
    assert "Hello" not in await with_stolen(client, stolen)


async def test_a_link_does_not_log_out(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(app_of(6))
    await log_in(client)

    answer = await client.get("/logout")

    assert answer.status == 405
    assert "Hello ann" in await text_of(client)


async def test_the_browser_keeps_no_page(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(app_of(6))

    answer = await log_in(client)

    assert answer.headers["Cache-Control"] == "no-store"


# Step 7: production.


@pytest.fixture
async def production(
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    aiohttp_client: AiohttpClient,
    aiohttp_server: AiohttpServer,
) -> Client:
    """A browser of the shop of step 7, as if behind a proxy that ends TLS."""
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    server = await aiohttp_server(app_of(7))
    jar = CookieJar(unsafe=True, treat_as_secure_origin=[server.make_url("/").origin()])
    return await aiohttp_client(server, cookie_jar=jar, headers=TLS)


async def test_the_cookie_is_for_this_host_and_for_tls_only(production: Client) -> None:
    answer = await production.post("/login", data=ANN, allow_redirects=False)

    name, _, rest = answer.headers["Set-Cookie"].partition("=")
    assert name == "__Host-sid"
    assert rest.partition("; ")[2] == "Path=/; HttpOnly; Secure; SameSite=Lax"


async def test_who_logs_in_through_the_proxy_is_greeted(production: Client) -> None:
    answer = await log_in(production)

    assert "Hello ann" in await answer.text()


async def test_without_a_proxy_that_says_so_no_cookie_is_sent(production: Client) -> None:
    async with ClientSession() as browser:
        answer = await browser.post(production.make_url("/login"), data=ANN, allow_redirects=False)

    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Host": "shop.example", "Origin": "https://shop.example"}, 303),
        ({"Host": "shop.example", "Origin": "https://evil.example"}, 403),
        ({"Host": "shop.example", "Origin": "null"}, 403),
        ({"Host": "shop.example", "Origin": "http://["}, 403),
        ({}, 200),
    ],
)
async def test_a_form_counts_only_where_it_is_from_a_page_of_the_shop(
    told: dict[str, str], status: int, production: Client
) -> None:
    answer = await production.post(
        "/cart", data={"fruit": "pear"}, headers=told, allow_redirects="Host" not in told
    )

    assert answer.status == status


async def test_a_link_from_another_site_leads_to_the_shop(production: Client) -> None:
    answer = await production.get("/", headers={"Sec-Fetch-Site": "cross-site"})

    assert answer.status == 200


async def test_it_is_ready_while_redis_is_well(production: Client) -> None:
    await put(production, "pear")

    answer = await production.get("/ready")

    assert (answer.status, await answer.text()) == (200, "well")


async def test_without_redis_it_is_not_ready(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(app_of(7), headers=TLS)
    lost = [await put(client, "pear") for _ in range(6)]

    answer = await client.get("/ready")

    assert {each.status for each in lost} == {503}
    assert (answer.status, await answer.text()) == (503, "away")


class Gunicorn(Server):
    """The two processes of step 7, started as its page says, but on a free port."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        [page] = PAGES.glob("7-*.md")
        [command] = re.findall(r"^gunicorn .*$", page.read_text(), re.MULTILINE)
        port = free_port()
        words = shlex.split(command.replace(":8080", f":{port}"))
        (folder / "shop.py").write_text(file_of(7).read_text())
        # At home, gunicorn leaves a folder.
        settings = [f"SESSION_SECRET={SECRET}", f"REDIS_URL={redis_url}", f"HOME={folder}"]
        super().__init__(
            ["env", f"--chdir={folder}", *settings, sys.executable, "-m", *words], port
        )

    def kill(self) -> None:
        """Ask the first process to end, which ends the others."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


@pytest.fixture
def gunicorn(redis_server: RedisServer, tmp_path: Path) -> Iterator[Gunicorn]:
    server = Gunicorn(tmp_path, redis_server.url)
    server.start()
    yield server
    server.stop()


async def test_both_processes_of_gunicorn_know_a_session(gunicorn: Gunicorn) -> None:
    url = f"http://127.0.0.1:{gunicorn.port}"
    jar = CookieJar(unsafe=True, treat_as_secure_origin=[url])
    headers = {**TLS, "Connection": "close"}
    async with ClientSession(cookie_jar=jar, headers=headers) as browser:
        await browser.post(f"{url}/login", data=ANN)

        pages = [await (await browser.get(url)).text() for _ in range(10)]

    assert all("Hello ann" in page for page in pages)


async def test_a_restart_ends_no_session(
    production: Client, aiohttp_client: AiohttpClient, aiohttp_server: AiohttpServer
) -> None:
    await log_in(production)
    restarted = await aiohttp_server(app_of(7))
    cookie = cookie_of(production, "__Host-sid")

    async with ClientSession(headers={**TLS, "Cookie": f"__Host-sid={cookie}"}) as browser:
        page = await (await browser.get(restarted.make_url("/"))).text()

    assert "Hello ann" in page


async def test_a_new_secret_logs_nobody_out(
    production: Client, aiohttp_server: AiohttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log_in(production)
    monkeypatch.setenv("SESSION_SECRET", f"{SECRET[::-1]} {SECRET}")
    restarted = await aiohttp_server(app_of(7))
    cookie = cookie_of(production, "__Host-sid")

    async with ClientSession(headers={**TLS, "Cookie": f"__Host-sid={cookie}"}) as browser:
        page = await (await browser.get(restarted.make_url("/"))).text()

    assert "Hello ann" in page
