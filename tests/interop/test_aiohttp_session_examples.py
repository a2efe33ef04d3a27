"""What aiohttp-session's documentation shows runs with only the import changed."""

from __future__ import annotations

import uuid
from pathlib import Path
from types import ModuleType

import pytest
from aiohttp import web
from pytest_aiohttp import AiohttpClient

from tests.servers import MemcachedServer, RedisServer

EXAMPLES = Path(__file__).parent / "aiohttp_session_examples"

# aiohttp_session itself, where it is first in the process, uses keys of which aiohttp warns.
pytestmark = pytest.mark.filterwarnings("ignore::aiohttp.web_exceptions.NotAppKeyWarning")


class Load:
    """Load an example with its imports from *package*."""

    def __init__(self, package: str) -> None:
        self._package = package

    def __call__(self, name: str) -> ModuleType:
        path = EXAMPLES / f"{name}.py"
        source = path.read_text().replace("from aiohttp_session", f"from {self._package}")
        module = ModuleType(name)
        exec(compile(source, path, "exec"), vars(module))  # noqa: S102 - a file of ours
        return module


@pytest.fixture(params=["aiohttp_session", "aiosess.compat"])
def load(request: pytest.FixtureRequest) -> Load:
    return Load(request.param)


async def visit_twice(aiohttp_client: AiohttpClient, app: web.Application) -> list[str]:
    client = await aiohttp_client(app)
    return [await (await client.get("/")).text(), await (await client.get("/")).text()]


@pytest.mark.parametrize("make", ["with_a_fernet", "with_bytes", "with_a_decoded_key"])
async def test_the_last_visit_in_an_encrypted_cookie(
    load: Load, aiohttp_client: AiohttpClient, make: str
) -> None:
    app = getattr(load("last_visit"), make)()

    first, second = await visit_twice(aiohttp_client, app)

    assert first == "Last visited: None"
    assert second.startswith("Last visited: 1")


async def test_the_last_visit_in_redis(
    load: Load, aiohttp_client: AiohttpClient, redis_server: RedisServer
) -> None:
    app = load("on_a_server").with_redis(redis_server.url)

    first, second = await visit_twice(aiohttp_client, app)

    assert first == "Last visited: None"
    assert second.startswith("Last visited: 1")


async def test_the_last_visit_in_memcached(
    load: Load, aiohttp_client: AiohttpClient, memcached_server: MemcachedServer
) -> None:
    app = load("on_a_server").with_memcached(memcached_server.port)

    first, second = await visit_twice(aiohttp_client, app)

    assert first == "Last visited: None"
    assert second.startswith("Last visited: 1")


async def test_a_session_is_a_mapping(load: Load, aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(load("reference").make_app())

    response = await client.get("/mapping")

    assert await response.json() == [True, {"inner": "changed"}, 2, False]
    assert await (await client.get("/show")).json() == [
        False,
        {"key1": "value 1", "key2": {"inner": "changed"}},
    ]


async def test_a_new_session_whatever_the_cookie(load: Load, aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(load("reference").make_app())
    await client.get("/mapping")

    response = await client.get("/begin")

    assert await response.json() == [True, None]
    assert await (await client.get("/show")).json() == [False, {"begun": True}]


async def test_a_session_that_is_invalidated(load: Load, aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(load("reference").make_app())
    await client.get("/mapping")

    response = await client.get("/end")

    assert await response.json() is True
    assert await (await client.get("/show")).json() == [True, {}]


async def test_a_page_for_users_only(load: Load, aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(load("login_required").make_app())

    before = await client.get("/")
    wrong = await client.post("/login", data={"name": "admin", "password": "guess"})
    right = await client.post("/login", data={"name": "admin", "password": "admin"})

    assert await before.text() == "Name and password, please"
    assert wrong.status == 403
    assert await right.text() == "User admin authorized"


@pytest.mark.skipif(not hasattr(web, "RequestKey"), reason="its keys came with aiohttp 3.14")
async def test_messages_for_the_next_page(load: Load, aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(load("flash_messages").make_app())

    first = await client.get("/")
    flashed = await client.get("/flash")
    last = await client.get("/")

    assert await first.text() == "No flash messages yet"
    assert await flashed.text() == "You have just visited flash page"
    assert await last.text() == "No flash messages yet"


async def test_a_storage_of_ones_own(load: Load, aiohttp_client: AiohttpClient) -> None:
    table: dict[uuid.UUID, tuple[str, int]] = {}

    visits = await visit_twice(aiohttp_client, load("own_storage").make_app(table))

    assert visits == ["1", "2"]
    assert len(table) == 1
