"""Requests of several processes that use one session at once each keep what they did."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from typing import Any, Final, cast

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiosess import CookieOptions, Session, Storage
from aiosess.records.repository import RecordOptions, SessionRepository
from aiosess.records.state import SessionState
from aiosess.session import SessionIO
from aiosess.timeouts import Timeouts
from tests.edits import OWN_EDITS, OwnEdit, own_edit

COOKIE: Final = CookieOptions(secure=False)
# A conflict that takes a decision would be an error.
OPTIONS: Final = RecordOptions(timeouts=Timeouts(idle=600), merge="raise")
NO_IO: Final = cast("SessionIO", None)

SETTINGS = settings(
    deadline=None,
    max_examples=40,
    # Each example keeps a session of its own.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class Request:
    """A request that uses a session, served by a process of its own."""

    def __init__(self, storage: Storage, session_id: str) -> None:
        self.repository = SessionRepository(storage, OPTIONS)
        self._session_id = session_id

    async def open(self) -> Session:
        state = await self.repository.load(self._session_id, COOKIE)
        assert isinstance(state, SessionState)
        self._state = state
        return Session(state, NO_IO)

    async def save(self) -> None:
        if self._state.is_modified:
            assert await self.repository.replace(self._state)


async def keep(storage: Storage, data: dict[str, Any]) -> str:
    """Keep a session with *data*, and return its id."""
    repository = SessionRepository(storage, OPTIONS)
    state = repository.fresh(str(uuid.uuid4()), COOKIE)
    state.data.update(data)
    await repository.create(state)
    return state.session_id


async def kept(storage: Storage, session_id: str) -> dict[str, Any]:
    return dict(await Request(storage, session_id).open())


@SETTINGS
@given(
    begin=OWN_EDITS,
    edits=st.tuples(OWN_EDITS, OWN_EDITS),
    order=st.permutations([0, 1]),
)
async def test_two_requests_that_change_different_keys_both_keep_all(
    storage: Storage,
    begin: list[OwnEdit],
    edits: tuple[list[OwnEdit], list[OwnEdit]],
    order: list[int],
) -> None:
    expected: dict[str, Any] = {}
    for number, edit in enumerate(begin):
        own_edit(expected, edit, "01"[number % 2], number)
    session_id = await keep(storage, expected)
    requests = [Request(storage, session_id) for _ in range(2)]
    sessions = [await request.open() for request in requests]

    for side in order:
        for number, edit in enumerate(edits[side]):
            own_edit(sessions[side], edit, str(side), number)
            own_edit(expected, edit, str(side), number)
        await requests[side].save()

    assert await kept(storage, session_id) == expected


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["set", "delete", "buy", "say", "say", "pop", "save", "save"]),
    ),
    max_size=25,
)


class Shop:
    """What three requests do to one session, and what must become of it."""

    def __init__(self) -> None:
        self.own: dict[str, int] = {}
        self.bought: list[str] = []
        self.said: list[str] = []
        self.shown: list[str] = []

    def act(self, session: Session, who: int, verb: str, number: int) -> None:
        token = f"{who}.{number}"
        match verb:
            case "set":
                session["cart"].setdefault("by", {})[str(who)] = number
                self.own[str(who)] = number
            case "delete":
                session["cart"].setdefault("by", {}).pop(str(who), None)
                self.own.pop(str(who), None)
            case "buy":
                session["cart"]["items"].append(token)
                self.bought.append(token)
            case "say":
                session.setdefault("flash", []).append(token)
                self.said.append(token)
            case "pop" if who == 0:
                self.shown += session.pop("flash", [])
            case _:
                pass


@SETTINGS
@given(steps=STEPS)
async def test_requests_that_go_on_after_each_save_lose_and_repeat_nothing(
    storage: Storage, steps: list[tuple[int, str]]
) -> None:
    session_id = await keep(storage, {"cart": {"items": []}})
    requests = [Request(storage, session_id) for _ in range(3)]
    sessions = [await request.open() for request in requests]
    shop = Shop()

    for number, (who, verb) in enumerate(steps):
        shop.act(sessions[who], who, verb, number)
        if verb == "save":
            await requests[who].save()
    for request in requests:
        await request.save()

    data = await kept(storage, session_id)
    assert data["cart"].get("by", {}) == shop.own
    assert Counter(data["cart"]["items"]) == Counter(shop.bought)
    assert Counter(data.get("flash", [])) + Counter(shop.shown) == Counter(shop.said)


async def test_many_processes_that_add_to_one_cart_lose_nothing(storage: Storage) -> None:
    session_id = await keep(storage, {})

    async def add(number: int) -> None:
        request = Request(storage, session_id)
        session = await request.open()
        cart = session.setdefault("cart", {"items": [], "by": {}})
        await asyncio.sleep(0)
        cart["items"].append(number)
        cart["by"][str(number)] = number
        await request.save()

    await asyncio.gather(*(add(number) for number in range(50)))

    cart = (await kept(storage, session_id))["cart"]
    assert sorted(cart["items"]) == list(range(50))
    assert cart["by"] == {str(number): number for number in range(50)}
