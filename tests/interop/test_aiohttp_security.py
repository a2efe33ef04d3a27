"""aiohttp-security, unmodified: who is logged in stands in our session."""

from __future__ import annotations

import logging

import aiohttp_security
import pytest
from aiohttp import web
from aiohttp_security import SessionIdentityPolicy
from aiohttp_security.abc import AbstractAuthorizationPolicy
from pytest_aiohttp import AiohttpClient

from aiosess import Storage, setup
from aiosess.principals import Principals
from tests.conftest import MakeApp, MakeOptions
from tests.web.conftest import Client
from tests.web.handlers import kept, put, session_of, show, signed


class Users(AbstractAuthorizationPolicy):
    """Everybody is who they say they are, and Ann may do everything."""

    async def authorized_userid(self, identity: str) -> str | None:
        return identity

    async def permits(
        self,
        identity: str | None,
        permission: object,  # noqa: ARG002 - the contract's
        context: object = None,  # noqa: ARG002 - the contract's
    ) -> bool:
        return identity == "ann"


async def login(request: web.Request) -> web.Response:
    response = web.Response()
    await aiohttp_security.remember(request, response, request.query["as"])
    return response


async def logout(request: web.Request) -> web.Response:
    response = web.Response()
    await aiohttp_security.forget(request, response)
    return response


async def who(request: web.Request) -> web.Response:
    user = await aiohttp_security.authorized_userid(request)
    return web.json_response([user, await aiohttp_security.permits(request, "anything")])


async def note(request: web.Request) -> web.Response:
    session = await session_of(request)
    session["note"] = "something else"
    return web.Response(text=session.id)


class Serve:
    """Serve the handlers above, with options."""

    def __init__(self, make_app: MakeApp, aiohttp_client: AiohttpClient) -> None:
        self._make_app = make_app
        self._client = aiohttp_client

    async def __call__(self, key: str = "AIOHTTP_SECURITY", **options: object) -> Client:
        app = self._make_app(login, logout, who, note, put, show, **options)
        aiohttp_security.setup(app, SessionIdentityPolicy(key), Users())
        return await self._client(app)


@pytest.fixture
def serve(make_app: MakeApp, aiohttp_client: AiohttpClient) -> Serve:
    return Serve(make_app, aiohttp_client)


async def session_id(client: Client) -> str:
    shown = await (await client.get("/show")).json()
    return str(shown["id"])


async def test_who_was_remembered_is_known_in_the_next_request(serve: Serve) -> None:
    client = await serve()
    await client.get("/login?as=ann")

    response = await client.get("/who")

    assert await response.json() == ["ann", True]


async def test_who_was_forgotten_is_nobody(serve: Serve) -> None:
    client = await serve()
    await client.get("/login?as=ann")
    await client.get("/logout")

    response = await client.get("/who")

    assert await response.json() == [None, False]


async def test_who_was_remembered_is_the_principal_until_they_are_forgotten(
    make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    options = make_options()
    principals = Principals(options)
    app = web.Application()
    app.router.add_get("/login", login)
    app.router.add_get("/logout", logout)
    setup(app, options)
    aiohttp_security.setup(app, SessionIdentityPolicy(), Users())
    client = await aiohttp_client(app)

    counts: list[int] = []
    for path in ("/login?as=ann", "/logout"):
        await client.get(path)
        counts.append(len(await principals.sessions_of("ann")))

    assert counts == [1, 0]


@pytest.mark.asvs("7.2.4")
@pytest.mark.nist("5.1-1")
async def test_remember_renews_the_id_and_keeps_the_data(serve: Serve) -> None:
    client = await serve()
    await client.get("/put?cart=full")
    before = await session_id(client)

    await client.get("/login?as=ann")

    shown = await (await client.get("/show")).json()
    assert shown["id"] != before
    assert shown["data"] == {"cart": "full", "AIOHTTP_SECURITY": "ann"}


@pytest.mark.asvs("7.2.4")
async def test_the_id_from_before_the_login_ends_with_its_grace_after_the_new_one_is_used(
    serve: Serve, storage: Storage
) -> None:
    client = await serve(renew_grace=0)
    await client.get("/put?cart=full")
    before = await session_id(client)
    await client.get("/login?as=ann")
    await client.get("/who")
    client.session.cookie_jar.clear()

    response = await client.get("/who", headers=signed(before))

    assert await response.json() == [None, False]
    assert await kept(storage, before) == {"cart": "full"}


async def test_remember_renews_the_id_of_a_session_that_was_invalidated_first(
    make_app: MakeApp, aiohttp_client: AiohttpClient
) -> None:
    async def start(request: web.Request) -> web.Response:
        (await session_of(request)).invalidate()
        response = web.Response()
        await aiohttp_security.remember(request, response, "ann")
        return response

    app = make_app(start, put, show)
    aiohttp_security.setup(app, SessionIdentityPolicy(), Users())
    client = await aiohttp_client(app)
    await client.get("/put?cart=full")
    before = await session_id(client)

    await client.get("/start")

    shown = await (await client.get("/show")).json()
    assert shown["id"] != before
    assert shown["data"] == {"AIOHTTP_SECURITY": "ann"}


async def test_an_id_that_the_handler_renewed_itself_is_renewed_once(
    make_app: MakeApp, aiohttp_client: AiohttpClient
) -> None:
    async def start(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.renew_id()
        response = web.Response(text=session.id)
        await aiohttp_security.remember(request, response, "ann")
        return response

    app = make_app(start, put, show)
    aiohttp_security.setup(app, SessionIdentityPolicy(), Users())
    client = await aiohttp_client(app)
    await client.get("/put?cart=full")

    response = await client.get("/start")

    assert await response.text() == await session_id(client)


async def test_remembering_somebody_else_renews_the_id_again(serve: Serve) -> None:
    client = await serve()
    await client.get("/login?as=ann")
    before = await session_id(client)

    await client.get("/login?as=bob")

    assert await session_id(client) != before


@pytest.mark.parametrize("path", ["/login?as=ann", "/logout", "/note"])
async def test_the_id_stays_where_nobody_else_logs_in(serve: Serve, path: str) -> None:
    client = await serve()
    await client.get("/put?cart=full")
    await client.get("/login?as=ann")
    before = await session_id(client)

    await client.get(path)

    assert await session_id(client) == before


async def test_another_key_is_named_in_the_options(serve: Serve) -> None:
    client = await serve("user", renew_on=["user"])
    await client.get("/put?cart=full")
    before = await session_id(client)

    await client.get("/login?as=ann")

    assert await session_id(client) != before


async def test_renewing_can_be_turned_off(serve: Serve) -> None:
    client = await serve(renew_on=[])
    await client.get("/put?cart=full")
    before = await session_id(client)

    await client.get("/login?as=ann")

    assert await session_id(client) == before


async def test_a_login_after_the_headers_keeps_the_id_and_says_so(
    make_app: MakeApp, aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await aiohttp_security.remember(request, response, "ann")
        return response

    app = make_app(stream, put, show, who)
    aiohttp_security.setup(app, SessionIdentityPolicy(), Users())
    client = await aiohttp_client(app)
    await client.get("/put?cart=full")
    before = await session_id(client)

    with caplog.at_level(logging.WARNING, "aiosess"):
        await (await client.get("/stream")).read()

    assert await session_id(client) == before
    assert await (await client.get("/who")).json() == ["ann", True]
    assert "a login in a streamed response keeps the session id" in caplog.text
