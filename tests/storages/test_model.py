"""No interleaving of clients loses an update or brings a session back to life."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from aiosess import MemoryStorage
from aiosess.records.repository import SessionRepository
from aiosess.records.state import SessionState
from aiosess.testing import FakeClock
from tests.servers import MemcachedServer, RedisServer
from tests.storages.model import (
    COOKIE,
    DAY,
    OPTIONS,
    SETTINGS,
    Gate,
    OnMemcached,
    OnMemory,
    OnRedis,
)

# A counter-example is made small before it is printed, which takes its time.
pytestmark = pytest.mark.timeout(600)


def test_interleavings_on_memory() -> None:
    run_state_machine_as_test(OnMemory, settings=SETTINGS)


def test_interleavings_on_redis(redis_server: RedisServer) -> None:
    class OnThisRedis(OnRedis):
        url = redis_server.url

    run_state_machine_as_test(OnThisRedis, settings=settings(SETTINGS, max_examples=20))


def test_interleavings_on_memcached(memcached_server: MemcachedServer) -> None:
    class OnThisMemcached(OnMemcached):
        url = memcached_server.url

    run_state_machine_as_test(OnThisMemcached, settings=settings(SETTINGS, max_examples=20))


async def test_a_session_that_expires_while_it_is_renewed_is_gone(clock: FakeClock) -> None:
    storage = MemoryStorage(clock=clock)
    gate = Gate(storage)
    renewing, other = (SessionRepository(each, OPTIONS, clock=clock) for each in (gate, storage))
    state = other.fresh("old", COOKIE)
    await other.create(state)
    state.move_to("new")
    assert state.previous is not None
    theirs = await other.load("old", COOKIE)
    assert isinstance(theirs, SessionState)
    theirs.must_be_written = True

    renewal = asyncio.create_task(renewing.rotate(state, state.previous))
    await gate.arrived()
    gate.let_through()
    await gate.arrived()
    await other.replace(theirs)
    gate.let_through()
    await gate.arrived()
    clock.advance(DAY + 1)
    gate.let_through()
    await gate.arrived()
    gate.let_through()

    assert await renewal is False
    assert state.is_gone
