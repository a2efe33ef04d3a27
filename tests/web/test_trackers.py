"""An error tracker that sends each local of each frame gets nothing of a session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler
from pytest_aiohttp import AiohttpClient
from sentry_sdk import Client as SentryClient
from sentry_sdk import new_scope
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from aiosess import SESSION, MemoryStorage, Storage, setup
from tests.conftest import SECRET, MakeOptions
from tests.web.handlers import keep, session_of, signed

# Each is put together when it runs, so that it does not stand in a line of code that is sent.
ID = "apple" * 4
DATA = "read" * 4

Failing = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
def storage() -> Storage:
    """Trackers see the requests of any storage alike."""
    return MemoryStorage()


class InMemory(Transport):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.sent.extend(item.get_bytes().decode() for item in envelope.items)


async def read_and_fail(request: web.Request) -> web.StreamResponse:
    session = await session_of(request)
    assert session["card"]
    raise LookupError("a crash")


async def change_and_fail(request: web.Request) -> web.StreamResponse:
    held = await session_of(request)
    held["cart"] = {"card": held["card"]}
    raise LookupError("a crash")


async def begin_and_fail(request: web.Request) -> web.StreamResponse:
    session = await session_of(request)
    await session.regenerate()
    session["card"] = request.query["card"][::-1]
    raise LookupError("a crash")


async def renew_and_fail(request: web.Request) -> web.StreamResponse:
    await (await session_of(request)).renew_id()
    raise LookupError("a crash")


async def unloaded(request: web.Request) -> web.StreamResponse:
    session = request[SESSION]
    return web.json_response(dict(session))


async def within_atomic(request: web.Request) -> web.StreamResponse:
    def fail(_newest: Any) -> None:
        raise LookupError("a crash")

    await (await session_of(request)).atomic(fail)
    return web.Response()


async def keep_an_object(request: web.Request) -> web.StreamResponse:
    session = await session_of(request)
    session["cart"] = [session["card"], object()]
    return web.Response()


async def save_an_object(request: web.Request) -> web.StreamResponse:
    session = await session_of(request)
    session["cart"] = [session["card"], object()]
    await session.save()
    return web.Response()


FAILING: list[Failing] = [
    *(read_and_fail, change_and_fail, begin_and_fail, renew_and_fail, unloaded, within_atomic),
    *(keep_an_object, save_an_object),
]


# Older trackers know no other name for it.
@pytest.mark.filterwarnings("ignore:The send_default_pii option:DeprecationWarning")
@pytest.mark.parametrize("is_personal", [False, True], ids=["by default", "with personal data"])
@pytest.mark.parametrize("failing", FAILING)
async def test_a_tracker_gets_no_data_no_id_and_no_secret_of_a_handler_that_fails(
    *,
    make_options: MakeOptions,
    aiohttp_client: AiohttpClient,
    storage: Storage,
    failing: Failing,
    is_personal: bool,
) -> None:
    transport = InMemory()
    tracker = SentryClient(
        dsn="http://key@127.0.0.1:1/1",
        transport=transport,
        default_integrations=False,
        send_default_pii=is_personal,
    )

    @web.middleware
    async def track(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Exception as error:
            with new_scope() as scope:
                scope.set_client(tracker)
                scope.capture_exception(error)
            raise

    app = web.Application(middlewares=[track])
    setup(app, make_options(genid=lambda _request: f"{ID}-new"))
    app.router.add_get("/", failing)
    await keep(storage, ID, card=DATA)
    client = await aiohttp_client(app)

    response = await client.get("/", params={"card": DATA[::-1]}, headers=signed(ID))

    (event,) = transport.sent
    assert response.status == 500
    assert '"vars"' in event
    assert [secret for secret in (DATA, ID, SECRET) if secret in event] == []
