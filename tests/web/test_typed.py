"""Requests whose sessions have values with a type, and records of other versions."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from pytest_aiohttp import AiohttpClient

from aiosess import (
    MemoryStorage,
    Reason,
    SessionEvent,
    SessionKey,
    Storage,
    UnserializableValue,
    setup,
)
from aiosess.testing import session_for
from tests.conftest import MakeOptions
from tests.web.conftest import Connect
from tests.web.handlers import keep, kept, session_of, show, signed


@dataclasses.dataclass
class User:
    name: str
    visits: int = 0


USER = SessionKey("user", User)
SINCE = SessionKey("since", datetime)
CART = SessionKey("cart", dict[str, int], default_factory=dict)
TAGS = SessionKey("tags", set[str], default_factory=set)
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


async def meta_of(storage: Storage, session_id: str = "apple") -> dict[str, Any]:
    """Return what aiosess remembers in the record under *session_id*."""
    stored = await storage.load(session_id)
    assert stored is not None
    found: dict[str, Any] = json.loads(stored.payload)["__aiosess"]
    return found


# Values with a type


async def begin(request: web.Request) -> web.Response:
    session = await session_of(request)
    session[USER], session[SINCE] = User("ann"), NOON
    return web.Response(text=session.id)


async def visit(request: web.Request) -> web.Response:
    session = await session_of(request)
    session[USER].visits += 1
    session[TAGS].add(request.query.get("tag", "seen"))
    return web.Response(text=f"{session[USER]} {session[SINCE] == NOON}")


async def test_what_json_lacks_comes_back_in_the_next_request(
    connect: Connect, storage: Storage
) -> None:
    client = await connect(begin, visit)
    session_id = await (await client.get("/begin")).text()

    await client.get("/visit")
    answer = await client.get("/visit")

    assert await answer.text() == "User(name='ann', visits=2) True"
    assert await kept(storage, session_id) == {
        "user": {"name": "ann", "visits": 2},
        "since": "2026-01-02T12:00:00Z",
        "tags": ["seen"],
    }


async def test_typed_values_that_were_only_read_are_not_written(
    connect: Connect, storage: Storage
) -> None:
    async def look(request: web.Request) -> web.Response:
        session = await session_of(request)
        return web.json_response([session[USER].name, dict(session[CART]), list(session[TAGS])])

    await keep(storage, "apple", user={"name": "ann"})
    before = await storage.load("apple")
    client = await connect(look, forgets=True)

    answer = await client.get("/look", headers=signed("apple"))

    assert await answer.json() == ["ann", {}, []]
    assert await storage.load("apple") == before


async def test_a_default_begins_no_session(connect: Connect) -> None:
    async def look(request: web.Request) -> web.Response:
        return web.json_response((await session_of(request))[CART])

    client = await connect(look)

    answer = await client.get("/look")

    assert (await answer.json(), answer.cookies) == ({}, {})


async def test_a_default_that_was_changed_begins_one(connect: Connect) -> None:
    async def buy(request: web.Request) -> web.Response:
        cart = (await session_of(request))[CART]
        cart["apple"] = cart.get("apple", 0) + 1
        return web.json_response(cart)

    client = await connect(buy)

    answers = [await (await client.get("/buy")).json() for _ in range(2)]

    assert answers == [{"apple": 1}, {"apple": 2}]


async def test_what_two_requests_add_to_a_set_at_once_is_all_kept(
    connect: Connect, storage: Storage
) -> None:
    have_both_read = asyncio.Barrier(2)

    async def tag(request: web.Request) -> web.Response:
        tags = (await session_of(request))[TAGS]
        await have_both_read.wait()
        tags.add(request.query["tag"])
        return web.Response()

    await keep(storage, "apple", tags=["old"])
    client = await connect(tag, forgets=True)

    await asyncio.gather(
        *(client.get(f"/tag?tag={name}", headers=signed("apple")) for name in ("new", "also"))
    )

    assert await kept(storage, "apple") == {"tags": ["also", "new", "old"]}


async def test_an_explicit_save_lets_whoever_holds_a_value_go_on(
    connect: Connect, storage: Storage
) -> None:
    async def twice(request: web.Request) -> web.Response:
        session = await session_of(request)
        user = session[USER]
        user.visits = 1
        await session.save()
        user.visits = 2
        return web.Response()

    await keep(storage, "apple", user={"name": "ann"})
    client = await connect(twice, forgets=True)

    await client.get("/twice", headers=signed("apple"))

    assert await kept(storage, "apple") == {"user": {"name": "ann", "visits": 2}}


async def test_a_reload_gives_whoever_holds_a_value_what_is_kept(
    connect: Connect, storage: Storage
) -> None:
    async def reload(request: web.Request) -> web.Response:
        session = await session_of(request)
        user = session[USER]
        user.visits = 7
        await session.reload()
        return web.Response(text=f"{user} {session[USER] is user}")

    await keep(storage, "apple", user={"name": "ann"})
    client = await connect(reload, forgets=True)

    answer = await client.get("/reload", headers=signed("apple"))

    assert await answer.text() == "User(name='ann', visits=0) True"


async def test_typed_values_can_be_changed_atomically(connect: Connect, storage: Storage) -> None:
    async def count(request: web.Request) -> web.Response:
        session = await session_of(request)

        def add_one(newest: Any) -> None:
            newest[USER].visits += 1

        await session.atomic(add_one)
        return web.Response(text=str(session[USER].visits))

    await keep(storage, "apple", user={"name": "ann"})
    client = await connect(count, forgets=True)

    answers = await asyncio.gather(
        *(client.get("/count", headers=signed("apple")) for _ in range(5))
    )

    assert sorted([await answer.text() for answer in answers]) == ["1", "2", "3", "4", "5"]


async def test_whoever_holds_a_value_goes_on_with_it_after_a_new_id(
    connect: Connect, storage: Storage
) -> None:
    async def log_in(request: web.Request) -> web.Response:
        session = await session_of(request)
        user = session[USER]
        await session.renew_id()
        user.visits = 3
        return web.Response(text=session.id)

    await keep(storage, "apple", user={"name": "ann"})
    client = await connect(log_in, forgets=True)

    session_id = await (await client.get("/log_in", headers=signed("apple"))).text()

    assert await kept(storage, session_id) == {"user": {"name": "ann", "visits": 3}}


async def test_a_key_may_say_who_is_logged_in(connect: Connect, storage: Storage) -> None:
    await keep(storage, "apple")
    client = await connect(begin, forgets=True, renew_on=[USER])

    session_id = await (await client.get("/begin", headers=signed("apple"))).text()
    answer = await client.get("/begin", headers=signed("apple"))

    assert session_id == "apple"
    assert answer.cookies["sid"].value != ""


async def test_two_keys_of_one_name_and_different_types_are_refused(connect: Connect) -> None:
    async def other(request: web.Request) -> web.Response:
        try:
            (await session_of(request))[SessionKey("user", str)] = "ann"
        except Exception as error:  # noqa: BLE001 - its text is looked at
            return web.Response(text=f"{type(error).__name__}: {error}")
        return web.Response(text="taken")

    client = await connect(begin, other)
    await client.get("/begin")

    text = await (await client.get("/other")).text()

    assert text.startswith("OptionsError: two SessionKeys are called 'user'")
    assert "of User" in text
    assert "of str" in text


async def test_a_value_that_cannot_be_kept_is_no_answer_as_if_it_were(
    connect: Connect, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    async def spoil(request: web.Request) -> web.Response:
        user: Any = (await session_of(request))[USER]
        user.visits = "many"
        return web.Response()

    await keep(storage, "apple", user={"name": "ann"})
    client = await connect(spoil, forgets=True)

    answer = await client.get("/spoil", headers=signed("apple"))

    assert answer.status == 500
    assert await kept(storage, "apple") == {"user": {"name": "ann"}}
    [error] = [each.exc_info[1] for each in caplog.records if each.exc_info]
    assert isinstance(error, UnserializableValue)


@pytest.mark.parametrize("times", [1, 3])
async def test_the_log_says_once_that_a_default_stands_for_what_is_kept(
    connect: Connect, storage: Storage, caplog: pytest.LogCaptureFixture, times: int
) -> None:
    count = SessionKey("count", int, default=7, on_invalid="default")

    async def look(request: web.Request) -> web.Response:
        session = await session_of(request)
        return web.json_response(session[count])

    await keep(storage, "apple", count="many")
    client = await connect(look, forgets=True)

    for _ in range(times):
        assert await (await client.get("/look", headers=signed("apple"))).json() == 7

    [line] = [each for each in caplog.records if "SessionKey" in each.getMessage()]
    assert line.levelno == logging.WARNING


async def test_a_late_change_inside_a_value_is_kept(connect: Connect, storage: Storage) -> None:
    held: list[Any] = []

    async def stream(request: web.Request) -> web.StreamResponse:
        session = await session_of(request)
        held.append(session[USER])
        response = web.StreamResponse()
        await response.prepare(request)
        held[0].visits = 4
        await response.write_eof()
        return response

    await keep(storage, "apple", user={"name": "ann"})
    client = await connect(stream, forgets=True)

    await (await client.get("/stream", headers=signed("apple"))).read()

    assert await kept(storage, "apple") == {"user": {"name": "ann", "visits": 4}}


@pytest.mark.one_lane("session_for has no lane")
async def test_a_test_reaches_typed_values(
    make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    app = web.Application()
    app.router.add_get("/visit", visit)
    setup(app, make_options(storage=MemoryStorage()))
    client = await aiohttp_client(app)

    async with session_for(client) as session:
        session[USER], session[SINCE] = User("ann"), NOON
    await client.get("/visit?tag=new")

    async with session_for(client) as session:
        assert (session[USER], session[TAGS]) == (User("ann", 1), {"new"})


# Records of other versions


def bring_up(data: dict[str, Any], was: int) -> dict[str, Any] | None:
    """Make a user out of a name, and nothing out of what is blocked."""
    if "blocked" in data:
        return None
    if "name" in data:
        data["user"] = {"name": data.pop("name"), "visits": was}
    return data


async def put_n(request: web.Request) -> web.Response:
    session = await session_of(request)
    session["n"] = 1
    return web.json_response(dict(session))


async def test_an_older_record_is_brought_up_when_it_is_read_and_not_written(
    connect: Connect, storage: Storage
) -> None:
    await keep(storage, "apple", name="ann")
    before = await storage.load("apple")
    client = await connect(show, forgets=True, version=3, migrate=bring_up)

    answer = await client.get("/show", headers=signed("apple"))

    assert (await answer.json())["data"] == {"user": {"name": "ann", "visits": 0}}
    assert await storage.load("apple") == before


async def test_what_was_brought_up_is_kept_with_the_next_write(
    connect: Connect, storage: Storage
) -> None:
    await keep(storage, "apple", name="ann")
    client = await connect(put_n, forgets=True, version=3, migrate=bring_up)

    await client.get("/put_n", headers=signed("apple"))

    assert await kept(storage, "apple") == {"user": {"name": "ann", "visits": 0}, "n": 1}
    assert (await meta_of(storage))["version"] == 3


async def test_a_record_that_aiosess_wrote_before_there_were_versions_is_brought_up(
    connect: Connect, storage: Storage
) -> None:
    async def put_name(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["name"] = "ann"
        return web.Response(text=session.id)

    before = await connect(put_name)
    session_id = await (await before.get("/put_name")).text()
    client = await connect(show, forgets=True, version=3, migrate=bring_up)

    answer = await client.get("/show", headers=signed(session_id))

    assert (await answer.json())["data"] == {"user": {"name": "ann", "visits": 0}}


async def test_a_new_session_says_its_version(connect: Connect, storage: Storage) -> None:
    client = await connect(begin, version=3, migrate=bring_up)

    session_id = await (await client.get("/begin")).text()

    assert (await meta_of(storage, session_id))["version"] == 3


@pytest.mark.parametrize("options", [{}, {"version": 2, "migrate": bring_up}])
async def test_an_older_process_reads_a_newer_record_and_leaves_it_a_newer_one(
    connect: Connect, storage: Storage, options: dict[str, Any]
) -> None:
    newer = await connect(begin, version=3, migrate=bring_up)
    session_id = await (await newer.get("/begin")).text()
    older = await connect(put_n, forgets=True, **options)

    answer = await older.get("/put_n", headers=signed(session_id))

    assert (await answer.json())["user"] == {"name": "ann", "visits": 0}
    assert (await meta_of(storage, session_id))["version"] == 3


async def test_what_others_wrote_meanwhile_is_brought_up_before_it_is_merged(
    connect: Connect, storage: Storage
) -> None:
    async def meanwhile(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["n"] = 1
        await storage.delete("apple")
        await keep(storage, "apple", name="bob")
        return web.Response()

    await keep(storage, "apple", name="ann")
    client = await connect(meanwhile, forgets=True, version=3, migrate=bring_up)

    await client.get("/meanwhile", headers=signed("apple"))

    assert await kept(storage, "apple") == {"user": {"name": "bob", "visits": 0}, "n": 1}
    assert (await meta_of(storage))["version"] == 3


async def test_where_nothing_can_be_made_of_a_record_the_session_starts_anew(
    connect: Connect, storage: Storage
) -> None:
    await keep(storage, "apple", blocked=True)
    client = await connect(begin, forgets=True, version=3, migrate=bring_up)

    session_id = await (await client.get("/begin", headers=signed("apple"))).text()

    assert session_id != "apple"
    assert await kept(storage, "apple") is None
    assert set(await kept(storage, session_id) or ()) == {"user", "since"}


async def test_that_nothing_could_be_made_of_a_record_is_told(
    connect: Connect, storage: Storage
) -> None:
    heard: list[SessionEvent] = []
    await keep(storage, "apple", blocked=True)
    client = await connect(show, forgets=True, version=3, migrate=bring_up, on_event=heard.append)

    await client.get("/show", headers=signed("apple"))

    assert Reason.NOT_MIGRATED in [each.reason for each in heard]


async def test_the_view_of_the_old_id_after_a_login_keeps_its_version(
    connect: Connect, storage: Storage
) -> None:
    async def log_in(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.renew_id()
        return web.Response()

    await keep(storage, "apple", name="ann")
    client = await connect(log_in, show, forgets=True, version=3, migrate=bring_up)

    await client.get("/log_in", headers=signed("apple"))
    answer = await client.get("/show", headers=signed("apple"))

    assert (await answer.json())["data"] == {"user": {"name": "ann", "visits": 0}}
    assert (await meta_of(storage))["version"] == 3


async def test_a_session_that_starts_over_says_the_version_of_its_application(
    connect: Connect, storage: Storage
) -> None:
    async def start_over(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.regenerate()
        session["n"] = 1
        return web.Response(text=session.id)

    newer = await connect(begin, version=4)
    old_id = await (await newer.get("/begin")).text()
    client = await connect(start_over, forgets=True, version=3)

    session_id = await (await client.get("/start_over", headers=signed(old_id))).text()

    assert (await meta_of(storage, session_id))["version"] == 3
