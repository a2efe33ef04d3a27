"""The pytest plugin, and what it gives: an own clock, a client's session, a client logged in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from pytest_aiohttp import AiohttpClient

from aiosess import (
    MemoryStorage,
    OptionsError,
    SessionOptions,
    StorageUnavailable,
    get_session,
    setup,
)
from aiosess.testing import FakeClock, FaultyStorage, LogIn, SessionOf, logged_in, session_for

SECRET = "a secret of the tests that is long enough to be quiet"

Client: TypeAlias = TestClient[Any, Any]


async def whole(request: web.Request) -> web.Response:
    """Answer with the whole session."""
    session = await get_session(request)
    return web.json_response({"id": session.id, "new": session.new, "data": dict(session)})


def application(**options: Any) -> web.Application:
    app = web.Application()
    app.router.add_get("/whole", whole)
    setup(app, SessionOptions(**{"secret": SECRET, "storage": MemoryStorage(), **options}))
    return app


async def seen_by_the_application(client: Client) -> Any:
    async with client.get("/whole") as response:
        return await response.json()


# What the fixtures give.


def test_each_test_has_a_clock_of_its_own(aiosess_clock: FakeClock) -> None:
    before = aiosess_clock()

    aiosess_clock.advance(60)

    assert isinstance(aiosess_clock, FakeClock)
    assert aiosess_clock() == before + 60


async def test_the_session_of_a_client_is_set_and_read(
    aiohttp_client: AiohttpClient, session_of: SessionOf
) -> None:
    client = await aiohttp_client(application())

    async with session_of(client) as session:
        session["views"] = 1

    assert (await seen_by_the_application(client))["data"] == {"views": 1}


@pytest.mark.parametrize("verb", ["load", "replace"])
async def test_a_storage_that_does_not_answer_is_an_error_of_the_block(
    verb: str, aiohttp_client: AiohttpClient, session_of: SessionOf
) -> None:
    storage = FaultyStorage()
    client = await aiohttp_client(application(storage=storage))
    await logged_in(client, user="ann")
    storage.fail(verbs=(verb,))

    with pytest.raises(StorageUnavailable):
        async with session_of(client) as session:
            session["user"] = "bob"


# Logging in.


async def test_who_is_logged_in_is_known_to_the_application(
    aiohttp_client: AiohttpClient, logged_in: LogIn
) -> None:
    client = await aiohttp_client(application())

    session = await logged_in(client, user="ann", roles=["admin"])

    seen = await seen_by_the_application(client)
    assert seen == {"id": session.id, "new": False, "data": {"user": "ann", "roles": ["admin"]}}


@pytest.mark.parametrize("renew_on", [(), ("user",)])
async def test_a_login_gives_the_session_a_new_id_and_keeps_what_is_in_it(
    renew_on: tuple[str, ...], aiohttp_client: AiohttpClient
) -> None:
    client = await aiohttp_client(application(renew_on=renew_on))
    async with session_for(client) as visitor:
        visitor["cart"] = ["pear"]

    session = await logged_in(client, user="ann")

    seen = await seen_by_the_application(client)
    assert seen["id"] == session.id != visitor.id
    assert seen["data"] == {"cart": ["pear"], "user": "ann"}


async def test_a_login_is_dated_where_the_options_say_what_is_one(
    aiohttp_client: AiohttpClient, aiosess_clock: FakeClock
) -> None:
    client = await aiohttp_client(application(renew_on=["user"], clock=aiosess_clock))

    session = await logged_in(client, user="ann")

    assert session.authenticated_at == aiosess_clock()


async def test_the_options_can_be_said(aiohttp_client: AiohttpClient) -> None:
    inner = web.Application()
    inner.router.add_get("/whole", whole)
    options = SessionOptions(secret=SECRET)
    setup(inner, options)
    app = web.Application()
    app.add_subapp("/inner/", inner)
    client = await aiohttp_client(app)

    await logged_in(client, options, user="ann")

    async with client.get("/inner/whole") as response:
        assert (await response.json())["data"] == {"user": "ann"}


async def test_a_login_is_fresh_whatever_the_options_call_one(
    aiohttp_client: AiohttpClient, logged_in: LogIn
) -> None:
    client = await aiohttp_client(application(renew_on=["another"]))

    session = await logged_in(client, user="ann")

    assert session.is_fresh(60)


async def test_without_options_that_are_clear_nobody_is_logged_in(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(web.Application())

    with pytest.raises(OptionsError, match="say which"):
        await logged_in(client, user="ann")


async def test_a_login_says_who_it_is(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(application())

    with pytest.raises(TypeError, match=r'logged_in\(client, user="ann"\)'):
        await logged_in(client)


# The plugin in a suite of somebody else.


def pytest_in(folder: Path, *arguments: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run pytest over *code* in a process of its own."""
    (folder / "test_theirs.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    # What it counts is not to be mixed with what is counted here.
    environment = {**os.environ, "COVERAGE_FILE": str(folder / ".coverage")}
    return subprocess.run(
        command, cwd=folder, env=environment, check=False, capture_output=True, text=True
    )


def test_a_suite_without_sessions_loads_nothing_for_them(tmp_path: Path) -> None:
    code = (
        "import sys\n\n"
        "def test_nothing_of_it_is_there(pytestconfig):\n"
        "    assert pytestconfig.pluginmanager.hasplugin('aiosess')\n"
        "    assert not {'aiosess', 'aiohttp'} & set(sys.modules)\n"
    )
    others = [argument for each in ("aiohttp", "asyncio") for argument in ("-p", f"no:{each}")]

    finished = pytest_in(tmp_path, *others, "-p", "no:sybil", code=code)

    assert finished.returncode == 0, finished.stdout


def test_a_suite_that_counts_what_of_the_package_is_run_counts_each_line(tmp_path: Path) -> None:
    code = "def test_time(aiosess_clock):\n    aiosess_clock.advance(aiosess_clock())\n"

    finished = pytest_in(tmp_path, "--cov=aiosess", "--cov-report=term", code=code)

    (line,) = [each for each in finished.stdout.splitlines() if "testing/clock.py" in each]
    assert line.endswith(" 100%")


def test_the_plugin_can_be_left_out(tmp_path: Path) -> None:
    code = "def test_a_session(session_of):\n    assert session_of\n"

    finished = pytest_in(tmp_path, "-p", "no:aiosess", code=code)

    assert "fixture 'session_of' not found" in finished.stdout


def test_the_check_that_is_shipped_needs_no_other_plugin(tmp_path: Path) -> None:
    alone = ["-p", "no:asyncio", "-p", "no:aiohttp", "-p", "no:sybil", "-W", "error"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *alone]

    finished = subprocess.run(
        [*command, "--pyargs", "aiosess.testing.check"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )

    assert finished.returncode == 0, finished.stdout
