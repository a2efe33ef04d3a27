"""For authors of applications: a session in the test client, a clock, a storage that fails."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
from aiohttp import CookieJar, DummyCookieJar, web
from aiohttp.test_utils import TestClient
from pytest_aiohttp import AiohttpClient

from aiosess import (
    CookieOptions,
    IdTaken,
    MemoryStorage,
    OptionsError,
    SessionGone,
    SessionOptions,
    Storage,
    StorageUnavailable,
    UnserializableValue,
    get_session,
    session_middleware,
    setup,
    setup_async,
)
from aiosess.testing import FakeClock, FaultyStorage, session_for
from tests.conftest import SECRET, MakeOptions

GUIDE: Final = Path(__file__).parents[2] / "docs" / "how-to" / "testing.md"

Client: TypeAlias = TestClient[Any, Any]


async def whole(request: web.Request) -> web.Response:
    """Answer with the whole session."""
    session = await get_session(request)
    return web.json_response({"id": session.id, "new": session.new, "data": dict(session)})


async def add(request: web.Request) -> web.Response:
    """Put the query into the session."""
    session = await get_session(request)
    session.update(request.query)
    return web.json_response(session.id)


async def log_out(request: web.Request) -> web.Response:
    session = await get_session(request)
    await session.destroy()
    return web.Response()


def application(options: SessionOptions) -> web.Application:
    app = web.Application()
    setup(app, options)
    for handler in (whole, add, log_out):
        app.router.add_get(f"/{handler.__name__}", handler)
    return app


@pytest.fixture
def options(make_options: MakeOptions) -> SessionOptions:
    return make_options()


@pytest.fixture
async def client(options: SessionOptions, aiohttp_client: AiohttpClient) -> Client:
    return await aiohttp_client(application(options))


async def seen_by_the_application(client: Client) -> Any:
    async with client.get("/whole") as response:
        return await response.json()


# Setting.


async def test_what_is_set_is_there_for_the_next_request(
    client: Client, options: SessionOptions
) -> None:
    async with session_for(client, options) as session:
        session["user"] = 1

    seen = await seen_by_the_application(client)
    assert seen == {"id": session.id, "new": False, "data": {"user": 1}}


async def test_the_options_are_found_in_the_application(client: Client) -> None:
    async with session_for(client) as session:
        session["user"] = 1

    seen = await seen_by_the_application(client)
    assert seen == {"id": session.id, "new": False, "data": {"user": 1}}


async def test_the_options_of_a_middleware_alone_are_found_as_well(
    options: SessionOptions, aiohttp_client: AiohttpClient
) -> None:
    app = web.Application(middlewares=[session_middleware(options)])
    app.router.add_get("/whole", whole)
    client = await aiohttp_client(app)

    async with session_for(client) as session:
        session["user"] = 1

    assert (await seen_by_the_application(client))["data"] == {"user": 1}


async def test_the_options_that_are_made_at_the_start_are_found_as_well(
    options: SessionOptions, aiohttp_client: AiohttpClient
) -> None:
    app = web.Application()
    setup_async(app, use_factory=lambda: options)
    app.router.add_get("/whole", whole)
    client = await aiohttp_client(app)

    async with session_for(client) as session:
        session["user"] = 1

    assert (await seen_by_the_application(client))["data"] == {"user": 1}


@pytest.mark.parametrize("count", [0, 2])
async def test_where_the_options_are_not_clear_they_have_to_be_said(
    count: int, make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    app = web.Application()
    app.router.add_get("/whole", whole)
    for number in range(count):
        setup(app, make_options(for_routes=["/whole"] if number else [], name=f"sid{number}"))
    client = await aiohttp_client(app)

    with pytest.raises(OptionsError, match=rf"by {count} SessionOptions.*say which"):
        async with session_for(client):
            pass


FIRST_USE = """
import asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiosess import SessionOptions, setup
from aiosess.testing import session_for

async def main():
    options = SessionOptions(secret="a secret of the tests that is long enough to be quiet")
    app = web.Application()
    setup(app, options)
    async with TestClient(TestServer(app)) as client, session_for(client, options) as session:
        session["user"] = 1

asyncio.run(main())
"""


@pytest.mark.one_lane("no request is served")
def test_the_first_use_in_a_process_warns_of_nothing() -> None:
    command = [sys.executable, "-W", "error", "-c", FIRST_USE]

    finished = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    assert "Warning" not in finished.stderr
    assert finished.returncode == 0


async def test_an_existing_session_is_changed_and_keeps_its_id(
    client: Client, options: SessionOptions
) -> None:
    async with client.get("/add", params={"cart": "apple"}) as response:
        session_id = await response.json()

    async with session_for(client, options) as session:
        session["user"] = 1

    seen = await seen_by_the_application(client)
    assert seen == {"id": session_id, "new": False, "data": {"cart": "apple", "user": 1}}


async def test_a_nested_change_is_noticed(client: Client, options: SessionOptions) -> None:
    async with session_for(client, options) as session:
        session["cart"] = ["apple"]

    async with session_for(client, options) as session:
        session["cart"].append("pear")

    assert (await seen_by_the_application(client))["data"] == {"cart": ["apple", "pear"]}


async def test_nothing_is_kept_where_the_block_raises(
    client: Client, options: SessionOptions
) -> None:
    async def fail() -> None:
        async with session_for(client, options) as session:
            session["user"] = 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()

    assert (await seen_by_the_application(client))["new"] is True


async def test_a_value_that_cannot_be_kept_is_refused(
    client: Client, options: SessionOptions
) -> None:
    with pytest.raises(UnserializableValue, match="'user'"):
        async with session_for(client, options) as session:
            session["user"] = object()


async def test_changes_of_a_request_within_the_block_are_not_lost(
    client: Client, options: SessionOptions
) -> None:
    async with session_for(client, options) as session:
        session["user"] = 1

    async with session_for(client, options) as session:
        session["cart"] = "apple"
        async with client.get("/add", params={"colour": "red"}):
            pass

    data = (await seen_by_the_application(client))["data"]
    assert data == {"user": 1, "cart": "apple", "colour": "red"}


async def test_a_session_destroyed_within_the_block_is_not_revived(
    client: Client, options: SessionOptions
) -> None:
    async with session_for(client, options) as session:
        session["user"] = 1

    async def change_what_is_destroyed() -> None:
        async with session_for(client, options) as session:
            async with client.get("/log_out"):
                pass
            session["user"] = 2

    with pytest.raises(SessionGone):
        await change_what_is_destroyed()

    assert (await seen_by_the_application(client))["data"] == {}


# Reading.


async def test_what_a_request_set_can_be_read(client: Client, options: SessionOptions) -> None:
    async with client.get("/add", params={"cart": "apple"}):
        pass

    async with session_for(client, options) as session:
        assert dict(session) == {"cart": "apple"}
        assert session.new is False


async def test_a_browser_without_a_session_has_a_new_one(
    client: Client, options: SessionOptions
) -> None:
    async with session_for(client, options) as session:
        assert session.new is True
        assert dict(session) == {}


async def test_only_looking_creates_no_record_and_no_cookie(aiohttp_client: AiohttpClient) -> None:
    storage = MemoryStorage()
    options = SessionOptions(secret=SECRET, storage=storage)
    client = await aiohttp_client(application(options))

    async with session_for(client, options):
        pass

    assert len(storage) == 0
    assert len(client.session.cookie_jar) == 0


async def test_only_looking_changes_nothing(
    client: Client, options: SessionOptions, storage: Storage
) -> None:
    async with session_for(client, options) as session:
        session["user"] = 1
    stored = await storage.load(session.id)

    async with session_for(client, options):
        pass

    assert await storage.load(session.id) == stored


async def test_each_client_has_its_own_session(
    client: Client, options: SessionOptions, aiohttp_client: AiohttpClient
) -> None:
    other = await aiohttp_client(application(options))

    async with session_for(client, options) as session:
        session["user"] = 1

    assert (await seen_by_the_application(other))["data"] == {}


# What else a session can do.


async def test_a_destroyed_session_is_over_for_the_application(
    client: Client, options: SessionOptions, storage: Storage
) -> None:
    async with session_for(client, options) as session:
        session["user"] = 1

    async with session_for(client, options) as session:
        await session.destroy()

    assert await storage.load(session.id) is None
    assert len(client.session.cookie_jar) == 0


async def test_a_renewed_session_has_a_new_id_and_the_same_data(
    client: Client, options: SessionOptions
) -> None:
    async with session_for(client, options) as session:
        session["user"] = 1
        old_id = session.id

    async with session_for(client, options) as session:
        await session.renew_id()

    seen = await seen_by_the_application(client)
    assert seen == {"id": session.id, "new": False, "data": {"user": 1}}
    assert session.id != old_id


async def test_a_new_session_has_no_need_of_a_new_id(
    client: Client, options: SessionOptions
) -> None:
    async with session_for(client, options) as session:
        before = session.id
        await session.renew_id()
        session["user"] = 1

    assert (await seen_by_the_application(client))["id"] == before


async def test_a_regenerated_session_is_empty_and_its_old_record_gone(
    client: Client, options: SessionOptions, storage: Storage
) -> None:
    async with session_for(client, options) as session:
        session["user"] = 1
        old_id = session.id

    async with session_for(client, options) as session:
        await session.regenerate()
        session["user"] = 2

    assert (await seen_by_the_application(client))["data"] == {"user": 2}
    assert await storage.load(old_id) is None


async def test_an_invalidated_session_is_over(
    client: Client, options: SessionOptions, storage: Storage
) -> None:
    async with session_for(client, options) as session:
        session["user"] = 1
        old_id = session.id

    async with session_for(client, options) as session:
        session.invalidate()

    assert await storage.load(old_id) is None
    assert (await seen_by_the_application(client))["new"] is True


async def test_save_and_reload_work_within_the_block(
    client: Client, options: SessionOptions
) -> None:
    async with session_for(client, options) as session:
        session["user"] = 1
        saved = await session.save()
        session["user"] = 2
        await session.reload()

    assert saved is True
    assert session["user"] == 1


async def test_a_counter_is_counted_atomically(client: Client, options: SessionOptions) -> None:
    async with session_for(client, options) as session:
        session["count"] = 1

    async with session_for(client, options) as session:
        returned = await session.atomic(lambda newest: newest.setdefault("count", 0) + 1)
        await session.atomic(lambda newest: newest.update(count=newest["count"] + 1))

    assert returned == 2
    assert (await seen_by_the_application(client))["data"] == {"count": 2}


async def test_a_counter_of_a_new_session_is_counted_too(
    client: Client, options: SessionOptions
) -> None:
    async with session_for(client, options) as session:
        await session.atomic(lambda newest: newest.update(count=1))

    assert (await seen_by_the_application(client))["data"] == {"count": 1}


async def test_a_touch_says_whether_the_record_is_there(
    client: Client, options: SessionOptions
) -> None:
    async with session_for(client, options) as session:
        session["user"] = 1
        of_a_new_one = await session.touch()

    async with session_for(client, options) as session:
        of_a_kept_one = await session.touch()

    assert (of_a_new_one, of_a_kept_one) == (True, True)


# Options.


@pytest.mark.parametrize(
    "given",
    [
        {"name": "__Secure-id", "cookie": CookieOptions(secure=True)},
        {"name": "__Host-id", "cookie": CookieOptions(secure=True)},
        {"cookie": CookieOptions(secure=True, domain="shop.example")},
        {"cookie": CookieOptions(max_age=60)},
        {"cookie": lambda _request: CookieOptions(samesite="strict")},
        {"genid": lambda _request: "an id (with 'odd' \"signs\"), =; %"},
        {"for_routes": ["/whole"]},
    ],
    ids=str,
)
async def test_the_options_of_the_application_are_honoured(
    given: dict[str, Any], make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    options = make_options(**given)
    client = await aiohttp_client(application(options))

    async with session_for(client, options) as session:
        session["user"] = 1

    assert (await seen_by_the_application(client))["data"] == {"user": 1}


async def test_a_sync_or_async_genid_and_cookie_may_look_at_the_application(
    make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    key = web.AppKey("tenant", str)

    async def genid(request: web.Request) -> str:
        return f"id of {request.app[key]}"

    async def cookie(request: web.Request) -> CookieOptions:
        return CookieOptions(max_age=len(request.app[key]))

    options = make_options(genid=genid, cookie=cookie)
    app = application(options)
    app[key] = "the shop"
    client = await aiohttp_client(app)

    async with session_for(client, options) as session:
        session["user"] = 1

    assert session.id == "id of the shop"
    assert session.cookie.max_age == 8


async def test_a_cookie_with_a_wrong_signature_is_no_session(
    client: Client, options: SessionOptions
) -> None:
    client.session.cookie_jar.update_cookies({"sid": "s%3Athief.wrong"}, client.make_url("/"))

    async with session_for(client, options) as session:
        session["user"] = 1

    assert session.id != "thief"
    assert (await seen_by_the_application(client))["data"] == {"user": 1}


@pytest.mark.parametrize("jar", [DummyCookieJar, CookieJar])
async def test_a_jar_that_keeps_no_cookies_is_an_error_that_says_so(
    jar: type[CookieJar], options: SessionOptions, aiohttp_client: AiohttpClient
) -> None:
    client = await aiohttp_client(application(options), cookie_jar=jar())

    with pytest.raises(RuntimeError, match="the client's cookie jar keeps no cookies"):
        async with session_for(client, options) as session:
            session["user"] = 1


async def test_an_id_that_is_taken_is_refused(
    make_options: MakeOptions, aiohttp_client: AiohttpClient, storage: Storage
) -> None:
    options = make_options(genid=lambda _request: "always the same")
    await storage.create("always the same", b"another's", 60)
    client = await aiohttp_client(application(options))

    with pytest.raises(IdTaken):
        async with session_for(client, options) as session:
            session["user"] = 1


# A clock.


def test_a_clock_stands_still_until_it_is_moved() -> None:
    clock = FakeClock(100.0)

    first, second = clock(), clock()
    clock.advance(5)

    assert (first, second, clock()) == (100.0, 100.0, 105.0)


# A storage that fails.


@asynccontextmanager
async def outage(storage: FaultyStorage) -> AsyncGenerator[None]:
    storage.fail()
    yield
    storage.recover()


async def test_it_works_and_notes_the_verbs_until_it_is_told_to_fail() -> None:
    storage = FaultyStorage()

    version = await storage.create("an id", b"one", 60)
    await storage.load("an id")
    await storage.replace("an id", b"two", 60, expected=version)
    await storage.touch("an id", 60)
    await storage.delete("an id")

    assert storage.calls == ["create", "load", "replace", "touch", "delete"]


async def test_an_outage_begins_and_ends_when_it_is_told_to() -> None:
    storage = FaultyStorage()

    async with outage(storage):
        with pytest.raises(StorageUnavailable):
            await storage.load("an id")

    assert await storage.load("an id") is None


async def test_only_the_verbs_that_were_named_fail() -> None:
    storage = FaultyStorage()

    storage.fail(verbs=("touch",))

    assert await storage.load("an id") is None
    with pytest.raises(StorageUnavailable):
        await storage.touch("an id", 60)


async def test_so_many_calls_fail_and_the_next_one_works() -> None:
    storage = FaultyStorage()

    storage.fail(times=2)
    results = [
        await asyncio.gather(storage.load("an id"), return_exceptions=True) for _ in range(3)
    ]

    assert [type(result) for (result,) in results] == [
        StorageUnavailable,
        StorageUnavailable,
        type(None),
    ]


async def test_calls_of_other_verbs_do_not_count_among_the_failures() -> None:
    storage = FaultyStorage()

    storage.fail(times=1, verbs=("touch",))
    await storage.load("an id")

    with pytest.raises(StorageUnavailable):
        await storage.touch("an id", 60)


async def test_the_error_can_be_chosen() -> None:
    storage = FaultyStorage()

    storage.fail(ConnectionError("another"))

    with pytest.raises(ConnectionError, match="another"):
        await storage.load("an id")


async def test_each_call_that_fails_has_an_error_of_its_own() -> None:
    storage = FaultyStorage()
    storage.fail(StorageUnavailable("away", may_retry=False))
    caught: list[StorageUnavailable] = []

    for _ in range(2):
        with pytest.raises(StorageUnavailable, match="away") as error:
            await storage.load("an id")
        caught.append(error.value)

    assert caught[0] is not caught[1]
    assert [each.may_retry for each in caught] == [False, False]


def test_a_verb_in_the_place_of_the_error_says_what_to_write() -> None:
    storage: Any = FaultyStorage()

    with pytest.raises(TypeError, match=r"or verbs=\('replace',\) for calls of one verb"):
        storage.fail("replace")


async def test_a_failing_call_does_nothing() -> None:
    memory = MemoryStorage()
    storage = FaultyStorage(memory)

    storage.fail()
    with pytest.raises(StorageUnavailable):
        await storage.create("an id", b"cart", 60)

    assert await memory.load("an id") is None


async def test_a_call_whose_answer_is_lost_is_done() -> None:
    memory = MemoryStorage()
    storage = FaultyStorage(memory)

    storage.fail(lose_answer=True)
    with pytest.raises(StorageUnavailable):
        await storage.create("an id", b"cart", 60)

    assert await memory.load("an id") is not None


async def test_a_hanging_storage_never_answers_and_can_be_cancelled() -> None:
    storage = FaultyStorage()

    storage.hang()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(storage.load("an id"), 0.01)
    storage.recover()

    assert await storage.load("an id") is None


def test_an_unknown_verb_is_refused() -> None:
    with pytest.raises(ValueError, match=r"verbs=\['save'\]: a storage has only"):
        FaultyStorage().fail(verbs=("save",))


async def test_closing_closes_the_storage_within() -> None:
    class Closing(MemoryStorage):
        is_closed = False

        async def close(self) -> None:
            self.is_closed = True

    inner = Closing()

    await FaultyStorage(inner).close()
    await FaultyStorage(MemoryStorage()).close()

    assert inner.is_closed


async def test_the_application_meets_the_outage(aiohttp_client: AiohttpClient) -> None:
    storage = FaultyStorage()
    options = SessionOptions(secret=SECRET, storage=storage, retries=0)
    client = await aiohttp_client(application(options))
    async with session_for(client, options) as session:
        session["user"] = 1

    storage.fail()
    async with client.get("/whole") as response:
        status = response.status

    assert status == 500


def test_it_is_a_storage() -> None:
    assert isinstance(FaultyStorage(), Storage)


# The guide.


@pytest.mark.one_lane("another process")
def test_the_tests_in_the_guide_pass_as_they_stand_there(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "test_guide.py").write_text("\n".join(blocks))
    settings = ["asyncio_mode=auto", "asyncio_default_fixture_loop_scope=function"]
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "--rootdir", str(tmp_path)]

    finished = subprocess.run(
        [*command, *(word for each in settings for word in ("-o", each)), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    tests = re.findall(r"^ *(?:async )?def test_", "\n".join(blocks), re.MULTILINE)
    assert len(tests) > 5
    assert f"{len(tests)} passed" in finished.stdout, finished.stdout
