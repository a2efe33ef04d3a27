"""What every test may ask for: a clock, real servers, each storage, options, an application."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from aiohttp import web

from aiosess import MemoryStorage, SessionOptions, Storage, setup
from aiosess.exchange import manager
from aiosess.exchange.exchange import Exchange
from aiosess.storages.memcached import MemcachedStorage
from aiosess.storages.redis import RedisStorage
from aiosess.testing import FakeClock
from tests.servers import MemcachedServer, RedisServer

# The tests of whole requests: each runs on the fast lane and on the whole way.
ON_BOTH_LANES = tuple(
    str(Path(__file__).parent / place)
    for place in ("web", "parity", "interop", "storages/test_helpers.py")
)

SECRET = "a secret of the tests that is long enough to be quiet"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let each test of whole requests run on both lanes, unless it says why one is enough."""
    if not str(metafunc.definition.path).startswith(ON_BOTH_LANES):
        return
    if metafunc.definition.get_closest_marker("one_lane") is not None:
        return
    metafunc.parametrize("lane", ["fast", "whole"], indirect=True)


# By itself, for pytest forgets what is added to the fixtures of a test after it was collected.
@pytest.fixture(autouse=True)
def lane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The lane of all exchanges: "fast" where the options allow it, or always the "whole" way."""
    name: str = getattr(request, "param", "fast")
    if name == "whole":
        monkeypatch.setattr(manager, "lane_of", lambda _options, **_: Exchange)
    return name


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def memcached_server() -> Iterator[MemcachedServer]:
    server = MemcachedServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of this test alone, to be stopped and paused."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["memory", "redis", "memcached"])
async def storage(request: pytest.FixtureRequest) -> AsyncIterator[Storage]:
    """Each storage in turn, empty."""
    if request.param == "memory":
        yield MemoryStorage()
        return
    if request.param == "memcached":
        server = request.getfixturevalue("memcached_server")
        async with MemcachedStorage.from_url(server.url, prefix=f"{uuid.uuid4()}:") as memcached:
            yield memcached
        return
    server = request.getfixturevalue("redis_server")
    async with RedisStorage.from_url(server.url, prefix=f"{uuid.uuid4()}:") as redis:
        yield redis


@pytest.fixture
def until_expired(storage: Storage) -> float:
    """How many seconds to wait until a record with a ttl of 0.1 s is gone for certain."""
    # memcached counts in whole seconds, and rounds up.
    return 3.2 if isinstance(storage, MemcachedStorage) else 0.2


class MakeOptions(Protocol):
    """Build SessionOptions over the storage of the test, with a quiet secret."""

    def __call__(self, **options: Any) -> SessionOptions: ...


@pytest.fixture
def make_options(storage: Storage) -> MakeOptions:
    def make(**options: Any) -> SessionOptions:
        return SessionOptions(**{"secret": SECRET, "storage": storage, **options})

    return make


class MakeApp(Protocol):
    """Build an application with these handlers at ``/<name>`` and these options, by setup()."""

    def __call__(self, *handlers: Any, **options: Any) -> web.Application: ...


@pytest.fixture
def make_app(make_options: MakeOptions) -> MakeApp:
    def make(*handlers: Any, **options: Any) -> web.Application:
        app = web.Application()
        setup(app, make_options(**options))
        for handler in handlers:
            name = handler.__name__
            app.router.add_route("*", f"/{name}", handler, name=name)
        return app

    return make
