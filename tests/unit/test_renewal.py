"""A session under several ids: none of them loses it, and none outlives it."""

from __future__ import annotations

from typing import Any

import pytest

from aiosess import (
    MISSING,
    CookieOptions,
    MemoryStorage,
    MergeConflict,
    SessionCookie,
    SessionGone,
    StorageError,
    StorageUnavailable,
)
from aiosess.records.aliases import Leftover
from aiosess.records.conflicts import MOST_MERGES
from aiosess.records.format import Alias, encode_alias
from aiosess.records.repository import RecordOptions, SessionRepository
from aiosess.records.state import Intent, SessionState, Standing
from aiosess.testing import FakeClock, FaultyStorage
from aiosess.timeouts import Timeouts

COOKIE = CookieOptions(secure=False)
IDLE = 3600.0
GRACE = 10.0


class Bench:
    """A repository in which users are known by the key ``user``."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.storage = FaultyStorage(MemoryStorage(clock=clock))
        self.repository = SessionRepository(
            self.storage,
            RecordOptions(
                timeouts=Timeouts(idle=IDLE),
                renew_grace=GRACE,
                principal_keys=frozenset({"user"}),
                is_renewed_now_and_then=True,
            ),
            clock=clock,
        )

    async def keep(self, session_id: str, **data: Any) -> SessionState:
        state = self.repository.fresh(session_id, COOKIE)
        state.data.update(data)
        await self.repository.create(state)
        return state

    async def come(self, session_id: str) -> SessionState:
        """Return the session of a client that comes with *session_id*."""
        state = await self.repository.load(session_id, COOKIE)
        assert isinstance(state, SessionState)
        return state

    async def move(self, state: SessionState, session_id: str, intent: Intent) -> bool:
        async def new_id() -> str:
            return session_id

        await self.repository.move(state, new_id)
        state.intent = intent
        previous = state.previous
        assert previous is not None
        act = self.repository.rotate if intent is Intent.ROTATE else self.repository.renew
        is_kept = await act(state, previous)
        state.intent = Intent.KEEP
        return is_kept

    async def rotate(self, before: str, after: str) -> None:
        await self.move(await self.come(before), after, Intent.ROTATE)

    async def renew(self, before: str, after: str) -> None:
        await self.move(await self.come(before), after, Intent.RENEW)


def change(state: SessionState, **data: Any) -> None:
    """Set keys as Session does."""
    for key, value in data.items():
        state.originals.setdefault(key, state.data.get(key, MISSING))
        state.data[key] = value


@pytest.fixture
def bench(clock: FakeClock) -> Bench:
    return Bench(clock)


@pytest.mark.parametrize("intent", [Intent.ROTATE, Intent.RENEW], ids=lambda each: each.name)
async def test_an_answer_that_was_lost_is_no_failure_where_the_storage_says_so(
    bench: Bench, intent: Intent
) -> None:
    await bench.keep("a", cart=1)
    state = await bench.come("a")
    bench.storage.fail(verbs=("replace",), times=1, lose_answer=True)

    assert await bench.move(state, "b", intent)

    assert (await bench.come("b")).data == {"cart": 1}


async def test_a_rotation_of_which_nobody_knows_how_far_it_came_costs_no_session(
    bench: Bench,
) -> None:
    await bench.keep("a", cart=1)
    state = await bench.come("a")
    bench.storage.fail(verbs=("replace", "load"), times=2, lose_answer=True)
    with pytest.raises(StorageUnavailable):
        await bench.move(state, "b", Intent.ROTATE)

    assert (await bench.come("a")).data == {"cart": 1}


@pytest.mark.parametrize("intent", [Intent.ROTATE, Intent.RENEW], ids=lambda each: each.name)
async def test_a_new_id_whose_answer_was_lost_costs_no_session(
    bench: Bench, intent: Intent
) -> None:
    await bench.keep("a", cart=1)
    state = await bench.come("a")
    bench.storage.fail(verbs=("replace", "load"), times=2, lose_answer=True)
    with pytest.raises(StorageUnavailable):
        await bench.move(state, "b", intent)
    previous = state.previous
    assert previous is not None
    bench.clock.advance(1)

    again = bench.repository.rotate if intent is Intent.ROTATE else bench.repository.renew
    is_kept = await again(state, previous)

    assert is_kept
    assert (await bench.come("b")).data == {"cart": 1}


@pytest.mark.parametrize("intent", [Intent.ROTATE, Intent.RENEW], ids=lambda each: each.name)
async def test_a_logout_through_the_id_before_ends_a_session_that_moved_twice(
    bench: Bench, intent: Intent
) -> None:
    await bench.keep("a", user="ann")
    under_way = await bench.come("a")
    await bench.renew("a", "b")
    await bench.move(await bench.come("b"), "c", intent)
    under_way.standing = Standing.FORMER

    await bench.repository.delete(under_way)

    assert await bench.repository.load("c", COOKIE) is None


async def test_what_only_touches_follows_a_session_that_is_rotated_time_and_again(
    bench: Bench,
) -> None:
    await bench.keep("0", user="ann")
    socket = await bench.come("0")

    for number in range(12):
        await bench.rotate(str(number), str(number + 1))
        bench.clock.advance(IDLE / 4)
        assert await bench.repository.touch(socket)

    assert socket.session_id == "12"
    assert socket.standing is Standing.ALIAS


async def test_a_request_under_way_reloads_the_session_after_the_grace_of_its_id(
    bench: Bench,
) -> None:
    await bench.keep("a", cart=1)
    under_way = await bench.come("a")
    await bench.rotate("a", "b")
    other = await bench.come("b")
    other.data["cart"], other.originals["cart"] = 2, 1
    await bench.repository.replace(other)
    bench.clock.advance(GRACE + 1)

    await bench.repository.reload(under_way, under_way.seen())

    assert under_way.data == {"cart": 2}


async def test_to_reload_is_not_to_come_with_the_new_id(bench: Bench) -> None:
    await bench.keep("a", cart=1)
    state = await bench.come("a")
    await bench.move(state, "b", Intent.RENEW)

    await bench.repository.reload(state, state.seen())
    bench.clock.advance(GRACE + 1)

    # The response with the new id may be lost still.
    assert (await bench.come("a")).data == {"cart": 1}


async def test_reading_after_a_login_takes_no_room(bench: Bench) -> None:
    await bench.keep("a", user="ann")
    await bench.renew("a", "b")
    bench.storage.fail(StorageError("OOM"), verbs=("create", "replace"))

    state = await bench.come("b")

    assert state.data == {"user": "ann"}
    assert state.former_id == "a"


async def test_of_two_changes_of_rights_in_one_request_the_first_id_gets_its_grace(
    bench: Bench,
) -> None:
    await bench.keep("a", user="ann")
    state = await bench.come("a")
    await bench.move(state, "b", Intent.RENEW)
    await bench.move(state, "c", Intent.RENEW)
    await bench.come("c")

    bench.clock.advance(GRACE + 1)

    assert await bench.repository.load("a", COOKIE) is Leftover.REFUSED


async def test_an_old_id_that_is_used_all_the_time_ends_with_the_idle_timeout(
    bench: Bench,
) -> None:
    await bench.keep("a", cart=1)
    await bench.renew("a", "b")

    for _ in range(4):
        bench.clock.advance(IDLE / 4)
        state = await bench.repository.load("a", COOKIE)
        if isinstance(state, SessionState):
            await bench.storage.touch("a", IDLE)

    assert await bench.repository.load("a", COOKIE) is Leftover.REFUSED


async def test_a_session_that_another_request_rotated_is_not_due_again(bench: Bench) -> None:
    await bench.keep("a", cart=1)
    under_way = await bench.come("a")
    await bench.rotate("a", "b")
    under_way.data["n"], under_way.originals["cart"] = 2, 1

    await bench.repository.replace(under_way)

    assert (await bench.come("b")).renewed_at == bench.clock()


async def test_a_rotation_that_is_taken_back_leaves_the_time_of_the_one_before(
    bench: Bench,
) -> None:
    state = await bench.keep("a", cart=1)

    async def new_id() -> str:
        return "b"

    await bench.repository.move(state, new_id)
    state.rollback()

    assert state.renewed_at is None


async def test_a_logout_leaves_nothing_under_the_id_before_the_login(bench: Bench) -> None:
    await bench.keep("a", user="ann", card=4)
    state = await bench.come("a")
    await bench.move(state, "b", Intent.RENEW)

    await bench.repository.delete(state)

    assert await bench.repository.load("a", COOKIE) is None


async def test_a_session_that_never_stands_still_cannot_be_ended_unseen(bench: Bench) -> None:
    class Restless(FaultyStorage):
        """Others write just before each replace."""

        async def replace(self, session_id: str, *args: Any, **options: Any) -> Any:
            stored = await self.storage.load(session_id)
            assert stored is not None
            await self.storage.replace(
                session_id, stored.payload + b" ", IDLE, expected=stored.version
            )
            return await super().replace(session_id, *args, **options)

    state = await bench.keep("a", user="ann")
    restless = SessionRepository(
        Restless(bench.storage), RecordOptions(timeouts=Timeouts(idle=IDLE)), clock=bench.clock
    )

    with pytest.raises(Exception, match="others changed the session 100 times"):
        await restless.delete(state)

    assert await bench.repository.load("a", COOKIE) is not None


async def test_a_login_keeps_what_others_changed_since_they_rotated_the_id(bench: Bench) -> None:
    await bench.keep("a", cart=1)
    logging_in = await bench.come("a")
    await bench.rotate("a", "b")
    other = await bench.come("b")
    change(other, paid=True)
    await bench.repository.replace(other)

    change(logging_in, user="ann")
    await bench.move(logging_in, "c", Intent.RENEW)

    assert (await bench.come("c")).data == {"cart": 1, "paid": True, "user": "ann"}


@pytest.mark.parametrize("session_id", ["a", "b"])
async def test_a_login_leaves_a_view_under_the_id_to_which_others_rotated(
    bench: Bench, session_id: str
) -> None:
    await bench.keep("a", cart=1)
    logging_in = await bench.come("a")
    await bench.rotate("a", "b")

    change(logging_in, user="ann")
    await bench.move(logging_in, "c", Intent.RENEW)

    view = await bench.come(session_id)
    assert view.standing is Standing.FORMER
    assert view.data == {"cart": 1}


async def test_the_view_under_an_id_that_was_rotated_ends_once_the_login_is_used(
    bench: Bench,
) -> None:
    await bench.keep("a", cart=1)
    logging_in = await bench.come("a")
    await bench.rotate("a", "b")
    await bench.move(logging_in, "c", Intent.RENEW)
    await bench.come("c")

    bench.clock.advance(GRACE + 1)

    assert await bench.repository.load("b", COOKIE) is Leftover.REFUSED


async def test_of_two_logins_at_once_a_logout_from_one_leaves_the_view_to_the_other(
    bench: Bench,
) -> None:
    await bench.keep("a", cart=1)
    first, second = await bench.come("a"), await bench.come("a")
    await bench.move(first, "b", Intent.RENEW)
    await bench.move(second, "c", Intent.RENEW)

    await bench.repository.delete(second)

    assert (await bench.come("a")).data == {"cart": 1}


async def test_a_session_that_expires_in_the_second_of_two_logins_is_gone(bench: Bench) -> None:
    await bench.keep("a", cart=1)
    first, second = await bench.come("a"), await bench.come("a")
    await bench.move(first, "b", Intent.RENEW)
    put_under = bench.storage.replace

    async def expire(*args: Any, **options: Any) -> Any:
        await bench.storage.storage.delete("c")
        return await put_under(*args, **options)

    bench.storage.replace = expire  # type: ignore[method-assign] # the storage of this test alone

    assert not await bench.move(second, "c", Intent.RENEW)


async def test_a_logout_that_is_refused_leaves_what_was_before_the_login(bench: Bench) -> None:
    await bench.keep("a", cart=1)
    state = await bench.come("a")
    await bench.move(state, "b", Intent.RENEW)
    await bench.renew("b", "c")

    with pytest.raises(SessionGone):
        await bench.repository.delete(state)

    assert (await bench.come("a")).data == {"cart": 1}


# What has gone by itself, or never ends


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
    await bench.storage.delete("apple")

    state = await bench.come("pear")

    assert (state.former_id, state.must_be_written) == (None, True)


async def test_a_logout_by_the_id_before_ends_what_is_left_where_the_session_has_gone(
    bench: Bench,
) -> None:
    await bench.keep("apple", user="ann")
    await bench.renew("apple", "pear")
    former = await bench.come("apple")
    await bench.storage.delete("pear")

    await bench.repository.delete(former)

    assert await bench.storage.load("apple") is None


async def test_a_session_that_others_rotate_without_end_is_given_up(bench: Bench) -> None:
    for number in range(MOST_MERGES + 1):
        payload = encode_alias(f"id{number}", Alias(f"id{number + 1}", bench.clock() + 60))
        await bench.storage.create(f"id{number}", payload, 60)
    first = await bench.storage.load("id0")

    with pytest.raises(MergeConflict):
        await bench.repository._renewal._where_it_lives("id0", first)


async def test_an_id_that_was_rotated_away_leads_to_nothing_where_the_session_has_gone(
    bench: Bench,
) -> None:
    payload = encode_alias("apple", Alias("pear", bench.clock() + 60))
    await bench.storage.create("apple", payload, 60)
    stored = await bench.storage.load("apple")
    assert stored is not None

    left = await bench.repository._renewal.end_reused("apple", stored)

    assert left is Leftover.REUSED
