"""Overlapping requests that change the inside of one value: both changes stay, or it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from aiosess import MergeConflict, Session, Storage
from aiosess.storages import Version
from aiosess.testing import FaultyStorage
from tests.web.conftest import Client, Connect
from tests.web.handlers import keep, kept, session_of, signed

Act = Callable[[Session], object]


class Overlap:
    """Handlers that have all read the session before any of them is let go on to change it."""

    def __init__(self, **acts: Act) -> None:
        self._acts = acts
        self._have_read = {name: asyncio.Event() for name in acts}
        self._may_change = {name: asyncio.Event() for name in acts}

    async def handler(self, request: web.Request) -> web.Response:
        """Do what the query names."""
        name = request.query["act"]
        session = await session_of(request)
        session.get("flash"), session.get("cart")
        self._have_read[name].set()
        await self._may_change[name].wait()
        self._acts[name](session)
        return web.Response()

    async def run(self, client: Client, *order: str) -> list[int]:
        """Send all requests, let them change the session in *order*; return their statuses."""
        tasks = {
            name: asyncio.create_task(client.get(f"/handler?act={name}", headers=signed("apple")))
            for name in self._acts
        }
        for event in self._have_read.values():
            await event.wait()
        statuses: list[int] = []
        for name in order:
            self._may_change[name].set()
            statuses.append((await tasks[name]).status)
        return statuses


def buy(fruit: str) -> Act:
    def act(session: Session) -> None:
        cart = session.setdefault("cart", {})
        cart[fruit] = cart.get(fruit, 0) + 1

    return act


def say(message: str) -> Act:
    return lambda session: session.setdefault("flash", []).append(message)


def show(session: Session) -> None:
    session.pop("flash", None)


@pytest.mark.parametrize("before", [{}, {"cart": {}}, {"cart": {"plum": 1}}])
async def test_both_of_two_requests_that_add_to_one_cart_keep_their_addition(
    connect: Connect, storage: Storage, before: dict[str, Any]
) -> None:
    overlap = Overlap(one=buy("apple"), other=buy("pear"))
    await keep(storage, "apple", **before)
    client = await connect(overlap.handler, forgets=True)

    await overlap.run(client, "one", "other")

    cart = before.get("cart", {}) | {"apple": 1, "pear": 1}
    assert await kept(storage, "apple") == {"cart": cart}


@pytest.mark.parametrize("before", [{}, {"flash": []}, {"flash": ["old"]}])
async def test_both_of_two_requests_that_append_to_one_list_keep_their_message(
    connect: Connect, storage: Storage, before: dict[str, Any]
) -> None:
    overlap = Overlap(one=say("one"), other=say("other"))
    await keep(storage, "apple", **before)
    client = await connect(overlap.handler, forgets=True)

    await overlap.run(client, "other", "one")

    assert await kept(storage, "apple") == {"flash": [*before.get("flash", []), "other", "one"]}


@pytest.mark.parametrize("order", [("pops", "adds"), ("adds", "pops")])
@pytest.mark.parametrize("pop", [show, lambda session: session["flash"].clear()])
async def test_a_message_that_is_added_while_all_are_popped_stays(
    connect: Connect, storage: Storage, order: tuple[str, str], pop: Act
) -> None:
    overlap = Overlap(pops=pop, adds=say("new"))
    await keep(storage, "apple", flash=["old", "older"])
    client = await connect(overlap.handler, forgets=True)

    await overlap.run(client, *order)

    assert await kept(storage, "apple") == {"flash": ["new"]}


async def test_a_message_of_a_slow_request_stays_and_brings_back_none_that_was_popped(
    connect: Connect, storage: Storage
) -> None:
    overlap = Overlap(pops=show, adds=say("new"), slow=say("late"))
    await keep(storage, "apple", flash=["old"])
    client = await connect(overlap.handler, forgets=True)

    await overlap.run(client, "pops", "adds", "slow")

    assert await kept(storage, "apple") == {"flash": ["new", "late"]}


async def test_who_holds_a_part_of_the_session_goes_on_with_it_after_a_save(
    connect: Connect, storage: Storage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        items = session["cart"]["items"]
        items.append("mine")
        await (await client.get("/other", headers=signed("apple"))).read()
        await session.save()
        items.append("after the save")
        return web.Response()

    async def other(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["cart"]["items"].append("theirs")
        return web.Response()

    await keep(storage, "apple", cart={"items": []})
    client = await connect(handler, other, forgets=True)

    await client.get("/handler", headers=signed("apple"))

    assert await kept(storage, "apple") == {"cart": {"items": ["theirs", "mine", "after the save"]}}


def move(part: str, value: str) -> Act:
    return lambda session: session["address"].update({part: value})


async def test_an_address_that_is_whole_is_one_of_the_two(
    connect: Connect, storage: Storage
) -> None:
    overlap = Overlap(one=move("town", "Elm"), other=move("street", "High Street"))
    await keep(storage, "apple", address={"street": "Mill Lane", "town": "Ash"})
    client = await connect(overlap.handler, forgets=True, whole=["address"])

    await overlap.run(client, "one", "other")

    assert await kept(storage, "apple") == {"address": {"street": "High Street", "town": "Ash"}}


async def test_a_function_decides_at_the_deepest_key_that_differs(
    connect: Connect, storage: Storage
) -> None:
    def more(path: tuple[str, ...], base: int, mine: int, theirs: int) -> int:
        assert path == ("cart", "apple")
        return mine + theirs - base

    overlap = Overlap(one=buy("apple"), other=lambda session: session["cart"].update(apple=5))
    await keep(storage, "apple", cart={"apple": 1, "pear": 1})
    client = await connect(overlap.handler, forgets=True, merge=more)

    await overlap.run(client, "one", "other")

    assert await kept(storage, "apple") == {"cart": {"apple": 6, "pear": 1}}


async def test_a_refused_merge_tells_the_path(connect: Connect, storage: Storage) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["cart"]["apple"] = 2
        await (await client.get("/other", headers=signed("apple"))).read()
        with pytest.raises(MergeConflict) as caught:
            await session.save()
        session.rollback()
        return web.json_response(caught.value.keys)

    async def other(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["cart"]["apple"] = 3
        return web.Response()

    await keep(storage, "apple", cart={"apple": 1})
    client = await connect(handler, other, forgets=True, merge="raise")

    response = await client.get("/handler", headers=signed("apple"))

    assert await response.json() == [["cart", "apple"]]
    assert await kept(storage, "apple") == {"cart": {"apple": 3}}


async def test_who_waited_in_the_queue_begins_with_what_the_one_before_wrote(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    everybody, all_have_read = 10, asyncio.Event()
    read: list[str] = []

    async def count(request: web.Request) -> web.Response:
        session = await session_of(request)
        read.append(request.query["key"])
        if len(read) == everybody:
            all_have_read.set()
        await all_have_read.wait()
        session[request.query["key"]] = 1
        return web.Response()

    await keep(storage, "apple")
    client = await connect(count, storage=faulty, forgets=True, touch_after=60)

    await asyncio.gather(
        *(client.get(f"/count?key={n}", headers=signed("apple")) for n in range(everybody))
    )

    assert await kept(storage, "apple") == {str(n): 1 for n in range(everybody)}
    # One write each, and one more for who was not the first.
    assert faulty.calls.count("replace") <= 2 * everybody - 1


class SlowThird(FaultyStorage):
    """Says when the third replace has come, and does it when it is told to."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self.has_come, self.goes_on = asyncio.Event(), asyncio.Event()

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        if self.calls.count("replace") == 2:
            self.has_come.set()
            await self.goes_on.wait()
        return await super().replace(session_id, payload, ttl, expected=expected)


async def test_who_finds_others_in_the_queue_waits_before_the_first_try(
    connect: Connect, storage: Storage
) -> None:
    slow, both_have_read, has_changed = SlowThird(storage), asyncio.Barrier(2), asyncio.Event()

    async def meet(request: web.Request) -> web.Response:
        session = await session_of(request)
        await both_have_read.wait()
        session[request.query["key"]] = 1
        return web.Response()

    async def come_later(request: web.Request) -> web.Response:
        (await session_of(request))["later"] = 1
        has_changed.set()
        return web.Response()

    await keep(storage, "apple")
    client = await connect(meet, come_later, storage=slow, forgets=True, touch_after=60)
    paths = ("/meet?key=a", "/meet?key=b")
    two = [asyncio.create_task(client.get(path, headers=signed("apple"))) for path in paths]
    await slow.has_come.wait()

    later = asyncio.create_task(client.get("/come_later", headers=signed("apple")))
    await has_changed.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    slow.goes_on.set()
    await asyncio.gather(*two, later)

    assert await kept(storage, "apple") == {"a": 1, "b": 1, "later": 1}
    # Of the two that met, one was not the quickest: it has tried twice.
    assert slow.calls.count("replace") == 4
