"""What is rare in the life of a session and of its record."""

from __future__ import annotations

import asyncio
import copy
import pickle
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from aiosess import (
    Conflict,
    CookieOptions,
    MemoryStorage,
    MergeConflict,
    SessionCookie,
    StorageUnavailable,
)
from aiosess.records.aliases import Leftover
from aiosess.records.conflicts import MOST_MERGES
from aiosess.records.format import Alias, encode_alias
from aiosess.records.repository import RecordOptions, SessionRepository
from aiosess.records.state import Intent, SessionState, Standing
from aiosess.storages import Storage, Stored
from aiosess.testing import FakeClock, FaultyStorage, put_session
from aiosess.testing.requests import _at_once
from aiosess.timeouts import Timeouts

COOKIE = CookieOptions(secure=False)


class Bench:
    """A repository in which users are known by the key ``user``."""

    def __init__(self, storage: Storage | None = None) -> None:
        self.clock = FakeClock()
        self.memory = MemoryStorage(clock=self.clock)
        self.faulty = FaultyStorage(self.memory)
        self.repository = SessionRepository(
            storage or self.faulty,
            RecordOptions(timeouts=Timeouts(idle=3600), principal_keys=frozenset({"user"})),
            clock=self.clock,
        )

    async def keep(self, session_id: str, **data: Any) -> SessionState:
        state = self.repository.fresh(session_id, COOKIE)
        state.data.update(data)
        await self.repository.create(state)
        return state

    async def come(self, session_id: str) -> SessionState:
        state = await self.repository.load(session_id, COOKIE)
        assert isinstance(state, SessionState)
        return state

    async def renew(self, before: str, after: str) -> None:
        async def new_id() -> str:
            return after

        state = await self.come(before)
        await self.repository.move(state, new_id)
        state.intent = Intent.RENEW
        assert state.previous is not None
        await self.repository.renew(state, state.previous)


@pytest.fixture
def bench() -> Bench:
    return Bench()


# A copy of a session is one of its data.


def test_a_copy_is_a_dict() -> None:
    session = put_session(make_mocked_request("GET", "/"), {"cart": ["pear"]})

    assert copy.copy(session) == {"cart": ["pear"]}


def test_what_is_changed_in_a_deep_copy_is_not_changed_in_the_session() -> None:
    session = put_session(make_mocked_request("GET", "/"), {"cart": ["pear"]})

    copy.deepcopy(session)["cart"].append("apple")

    assert session["cart"] == ["pear"]


def test_what_is_pickled_is_a_dict() -> None:
    session = put_session(make_mocked_request("GET", "/"), {"cart": ["pear"]})

    assert pickle.loads(pickle.dumps(session)) == {"cart": ["pear"]}  # noqa: S301


def test_a_memory_that_is_waited_for_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="was waited for"):
        _at_once(asyncio.sleep(0))


# Writes that meet what they wrote themselves.


async def changed(bench: Bench) -> tuple[SessionState, bytes, Any]:
    """Return a session that was changed, the payload of that, and what is to be noted of it."""
    await bench.keep("id", n=1)
    state = await bench.come("id")
    state.originals["n"] = 1
    state.data["n"] = 2
    return state, bench.repository.writing.encoded(state), state.snapshot()


async def test_a_write_that_is_there_already_was_a_success(bench: Bench) -> None:
    state, payload, snapshot = await changed(bench)
    version = await bench.memory.replace("id", payload, 60, expected=state.version)
    conflict = Conflict(await bench.memory.load("id"))

    is_kept = await bench.repository.resolve(state, conflict, payload, snapshot)

    assert is_kept
    assert state.version == version


async def test_a_write_over_one_of_ours_that_gets_no_answer_may_have_been_done(
    bench: Bench,
) -> None:
    state, payload, snapshot = await changed(bench)
    stored = await bench.memory.load("id")
    assert stored is not None
    bench.repository.writing.doubt(state, stored.payload)
    bench.faulty.fail(verbs=("replace",))

    with pytest.raises(StorageUnavailable):
        await bench.repository.resolve(state, Conflict(stored), payload, snapshot)

    assert state.unconfirmed == (stored.payload, payload)


class Forgetful(FaultyStorage):
    """A storage whose records go between a load and the touch that follows."""

    async def load_and_touch(self, session_id: str, _ttl: float) -> tuple[Stored, bool] | None:
        stored = await self.storage.load(session_id)
        await self.storage.delete(session_id)
        return None if stored is None else (stored, False)


async def test_a_record_that_goes_while_it_is_touched_is_gone() -> None:
    bench = Bench(Forgetful())
    state = await bench.keep("id", n=1)

    assert not await bench.repository.touch(state)


# Other ids of a session.


def test_from_an_id_that_was_rotated_away_only_what_was_changed_comes_along() -> None:
    state = SessionState("old", SessionCookie(COOKIE), 0.0, {"n": 1, "cart": "pear"})
    state.originals["n"] = 0
    state.standing = Standing.ALIAS

    state.fork_to("new", 1.0)

    assert (state.session_id, state.data, state.standing) == ("new", {"n": 1}, Standing.LIVE)


async def test_what_was_left_under_the_id_before_a_login_may_have_gone_by_itself(
    bench: Bench,
) -> None:
    await bench.keep("apple", n=1)
    await bench.renew("apple", "pear")
    await bench.memory.delete("apple")

    state = await bench.come("pear")

    assert (state.former_id, state.must_be_written) == (None, True)


async def test_a_logout_by_the_id_before_ends_what_is_left_where_the_session_has_gone(
    bench: Bench,
) -> None:
    await bench.keep("apple", user="ann")
    await bench.renew("apple", "pear")
    former = await bench.come("apple")
    await bench.memory.delete("pear")

    await bench.repository.delete(former)

    assert await bench.memory.load("apple") is None


async def test_a_session_that_others_rotate_without_end_is_given_up(bench: Bench) -> None:
    for number in range(MOST_MERGES + 1):
        payload = encode_alias(f"id{number}", Alias(f"id{number + 1}", bench.clock() + 60))
        await bench.memory.create(f"id{number}", payload, 60)
    first = await bench.memory.load("id0")

    with pytest.raises(MergeConflict):
        await bench.repository._renewal._where_it_lives("id0", first)


async def test_an_id_that_was_rotated_away_leads_to_nothing_where_the_session_has_gone(
    bench: Bench,
) -> None:
    payload = encode_alias("apple", Alias("pear", bench.clock() + 60))
    await bench.memory.create("apple", payload, 60)
    stored = await bench.memory.load("apple")
    assert stored is not None

    left = await bench.repository._renewal.end_reused("apple", stored)

    assert left is Leftover.REUSED
