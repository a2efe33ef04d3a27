"""A client for an application, and a storage that fails on request over each storage."""

from __future__ import annotations

from typing import Any, Protocol

import pytest
from aiohttp import DummyCookieJar, web
from aiohttp.test_utils import TestClient
from pytest_aiohttp import AiohttpClient

from aiosess import Storage, session_middleware
from aiosess.testing import FaultyStorage
from tests.conftest import MakeApp, MakeOptions

Client = TestClient[web.Request, web.Application]


class Connect(Protocol):
    """Serve these handlers at ``/<name>``, and return a browser (or one without cookies)."""

    async def __call__(
        self, *handlers: Any, forgets: bool = False, **options: Any
    ) -> TestClient[web.Request, web.Application]: ...


@pytest.fixture
def faulty(storage: Storage) -> FaultyStorage:
    """Each storage in turn, wrapped so that it can fail and tells what it was asked."""
    return FaultyStorage(storage)


@pytest.fixture
def connect(make_app: MakeApp, aiohttp_client: AiohttpClient) -> Connect:
    """Connect a client to an application that has sessions by ``setup``."""

    async def connect(*handlers: Any, forgets: bool = False, **options: Any) -> Client:
        jar = DummyCookieJar() if forgets else None
        return await aiohttp_client(make_app(*handlers, **options), cookie_jar=jar)

    return connect


@pytest.fixture
def connect_bare(make_options: MakeOptions, aiohttp_client: AiohttpClient) -> Connect:
    """Connect a client to an application that has the middleware only."""

    async def connect(*handlers: Any, forgets: bool = False, **options: Any) -> Client:
        app = web.Application(middlewares=[session_middleware(make_options(**options))])
        for handler in handlers:
            app.router.add_route("*", f"/{handler.__name__}", handler, name=handler.__name__)
        jar = DummyCookieJar() if forgets else None
        return await aiohttp_client(app, cookie_jar=jar)

    return connect
