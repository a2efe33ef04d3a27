"""An error tracker that sends each local of each frame gets nothing of a session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler
from pytest_aiohttp import AiohttpClient
from sentry_sdk import Client as SentryClient
from sentry_sdk import new_scope
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from aiosess import SESSION, MemoryStorage, Storage, StorageError, StorageUnavailable, setup
from aiosess.storages.redis import RedisStorage
from aiosess.testing import FaultyStorage
from tests.conftest import SECRET, MakeOptions
from tests.servers import free_port
from tests.web.handlers import keep, session_of, show, signed

# Each is put together when it runs, so that it does not stand in a line of code that is sent.
ID = "apple" * 4
DATA = "read" * 4

Failing = Callable[[web.Request], Awaitable[web.StreamResponse]]


SentOf = Callable[..., Awaitable[str]]


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


@pytest.fixture
def sent_of(make_options: MakeOptions, aiohttp_client: AiohttpClient, storage: Storage) -> SentOf:
    """What a tracker in front of all is sent of a request that fails."""

    async def sent_of(
        failing: Failing,
        *,
        begin: Callable[[], object] = lambda: None,
        is_personal: bool = False,
        **options: Any,
    ) -> str:
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
        setup(app, make_options(genid=lambda _request: f"{ID}-new", **options))
        app.router.add_get("/", failing)
        app.router.add_get("/show", show)
        await keep(storage, ID, card=DATA)
        client = await aiohttp_client(app)
        # The fast lane is for cookies that came before.
        await client.get("/show", headers=signed(ID))
        begin()

        response = await client.get("/", params={"card": DATA[::-1]}, headers=signed(ID))

        event = transport.sent[-1]
        assert response.status == 500
        assert '"vars"' in event
        return event

    return sent_of


@pytest.mark.nist("5.1-6")
# Older trackers know no other name for it.
@pytest.mark.filterwarnings("ignore:The send_default_pii option:DeprecationWarning")
@pytest.mark.parametrize("is_personal", [False, True], ids=["by default", "with personal data"])
@pytest.mark.parametrize("failing", FAILING)
async def test_a_tracker_gets_no_data_no_id_and_no_secret_of_a_handler_that_fails(
    *, sent_of: SentOf, failing: Failing, is_personal: bool
) -> None:
    event = await sent_of(failing, is_personal=is_personal)

    assert [secret for secret in (DATA, ID, SECRET) if secret in event] == []


async def copy_the_card(request: web.Request) -> web.StreamResponse:
    session = await session_of(request)
    session["copy"] = session["card"]
    return web.Response()


async def copy_and_save(request: web.Request) -> web.StreamResponse:
    session = await session_of(request)
    session["copy"] = session["card"]
    await session.save()
    return web.Response()


async def copy_in_a_stream(request: web.Request) -> web.StreamResponse:
    session = await session_of(request)
    session["copy"] = session["card"]
    response = web.StreamResponse()
    await response.prepare(request)
    return response


@pytest.mark.filterwarnings("ignore:The send_default_pii option:DeprecationWarning")
@pytest.mark.parametrize("error", [StorageUnavailable, StorageError])
@pytest.mark.parametrize("verb", ["load", "replace"])
@pytest.mark.parametrize("failing", [copy_the_card, copy_and_save, copy_in_a_stream])
async def test_a_tracker_gets_no_data_no_id_and_no_secret_of_a_storage_that_fails(
    *,
    sent_of: SentOf,
    storage: Storage,
    failing: Failing,
    verb: str,
    error: type[StorageError],
) -> None:
    faulty = FaultyStorage(storage)

    event = await sent_of(
        failing, begin=partial(faulty.fail, error("told to fail"), verbs=(verb,)), storage=faulty
    )

    assert [secret for secret in (DATA, ID, SECRET) if secret in event] == []


@pytest.mark.filterwarnings("ignore:The send_default_pii option:DeprecationWarning")
async def test_a_tracker_gets_no_id_of_a_redis_that_is_away(sent_of: SentOf) -> None:
    async with RedisStorage.from_url(f"redis://127.0.0.1:{free_port()}") as redis:
        event = await sent_of(read_and_fail, storage=redis)

    assert "ConnectionError" in event
    assert [secret for secret in (DATA, ID, SECRET) if secret in event] == []
