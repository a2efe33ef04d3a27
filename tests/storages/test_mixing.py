"""Whatever sessions do, a login among it, and whichever answers are mixed up: to each its own."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiosess import Conflict, CookieOptions, MemoryStorage, Storage, Version
from aiosess.records.repository import RecordOptions, SessionRepository
from aiosess.records.state import Intent, SessionState
from aiosess.storages import Stored
from aiosess.storages.memcached import MemcachedStorage
from aiosess.storages.redis import RedisStorage
from aiosess.testing import FaultyStorage
from aiosess.timeouts import Timeouts
from tests.servers import MemcachedServer, RedisServer

COOKIE: Final = CookieOptions(secure=False)
OWNERS: Final = ("ann", "bob", "eve")
Make = Callable[[], AbstractAsyncContextManager[Storage]]


class Mixing(FaultyStorage):
    """Answers with the record under *strange* instead, as often as it is told to."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self.strange = ""

    async def load(self, session_id: str) -> Stored | None:
        return await self._stranger(session_id) or await super().load(session_id)

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        try:
            return await super().replace(session_id, payload, ttl, expected=expected)
        except Conflict as conflict:
            raise Conflict(await self._stranger(session_id) or conflict.current) from None

    async def load_afresh(
        self, session_id: str, *, agrees: Callable[[Stored | None], bool]
    ) -> Stored | None:
        stored = await self.storage.load(session_id)
        agrees(stored)
        return stored

    async def _stranger(self, session_id: str) -> Stored | None:
        strange, self.strange = self.strange, ""
        return await self.storage.load(strange) if strange not in {"", session_id} else None


class World:
    """Three browsers, each with a session that says whose it is."""

    def __init__(self, storage: Storage) -> None:
        self.mixing = Mixing(storage)
        self.repository = SessionRepository(
            self.mixing, RecordOptions(timeouts=Timeouts(idle=600.0), renew_grace=600.0)
        )
        self.ids = {owner: f"{owner}-{uuid.uuid4()}" for owner in OWNERS}

    async def begin(self) -> None:
        for owner, session_id in self.ids.items():
            state = self.repository.fresh(session_id, COOKIE)
            state.data.update(owner=owner, n=0)
            await self.repository.create(state)

    async def load(self, owner: str) -> SessionState:
        """Return the session of *owner*: the one place where what was read is looked at."""
        state = await self.repository.load(self.ids[owner], COOKIE)
        assert isinstance(state, SessionState)
        assert state.data["owner"] == owner
        return state

    async def read(self, owner: str, _strange: str) -> None:
        await self.load(owner)

    async def write(self, owner: str, _strange: str) -> None:
        assert await self.repository.replace(counted(await self.load(owner)))

    async def write_late(self, owner: str, strange: str) -> None:
        """Write what another request has changed meanwhile; who says so may be mixed up."""
        state = counted(await self.load(owner))
        assert await self.repository.replace(counted(await self.load(owner)))
        self.mixing.strange = self.ids[strange]
        assert await self.repository.replace(state)
        assert state.data["owner"] == owner

    async def reload(self, owner: str, strange: str) -> None:
        state = await self.load(owner)
        self.mixing.strange = self.ids[strange]
        await self.repository.reload(state, state.seen())
        assert state.data["owner"] == owner

    async def atomic(self, owner: str, strange: str) -> None:
        state = await self.load(owner)
        self.mixing.strange = self.ids[strange]
        assert await self.repository.atomic(state, lambda newest: newest.data["owner"]) == owner

    async def log_in(self, owner: str, strange: str) -> None:
        await self._move(owner, strange, Intent.RENEW)

    async def rotate(self, owner: str, strange: str) -> None:
        await self._move(owner, strange, Intent.ROTATE)

    async def _move(self, owner: str, strange: str, intent: Intent) -> None:
        state = await self.load(owner)
        state.move_to(f"{owner}-{uuid.uuid4()}")
        assert state.previous is not None
        is_login = intent is Intent.RENEW
        move = self.repository.renew if is_login else self.repository.rotate
        self.mixing.strange = self.ids[strange]
        assert await move(state, state.previous)
        self.mixing.strange = ""
        self.ids[owner] = state.session_id


def counted(state: SessionState) -> SessionState:
    state.originals.setdefault("n", state.data["n"])
    state.data["n"] += 1
    return state


ACTS: Final[dict[str, Callable[[World, str, str], Awaitable[None]]]] = {
    "read": World.read,
    "write": World.write,
    "write late": World.write_late,
    "reload": World.reload,
    "atomic": World.atomic,
    "log in": World.log_in,
    "rotate": World.rotate,
}
STEPS = st.lists(
    st.tuples(
        st.sampled_from(sorted(ACTS)),
        st.sampled_from(OWNERS),
        st.sampled_from(OWNERS),
        st.sampled_from(("", *OWNERS)),
    ),
    max_size=12,
)


async def happens(make: Make, steps: list[tuple[str, str, str, str]]) -> None:
    async with make() as storage:
        world = World(storage)
        await world.begin()
        for act, owner, strange, at_first in steps:
            world.mixing.strange = world.ids.get(at_first, "")
            await ACTS[act](world, owner, strange)
        world.mixing.strange = ""
        for owner in OWNERS:
            await world.load(owner)


@pytest.mark.parametrize(("kind", "examples"), [("memory", 150), ("redis", 20), ("memcached", 20)])
def test_to_each_its_own_session_whichever_answers_are_mixed_up(
    kind: str, examples: int, request: pytest.FixtureRequest
) -> None:
    @settings(deadline=None, max_examples=examples)
    @given(steps=STEPS)
    def whatever_happens(steps: Any) -> None:
        asyncio.run(happens(make, steps))

    make = maker(kind, request)

    whatever_happens()


def maker(kind: str, request: pytest.FixtureRequest) -> Make:
    """Return what makes a storage of that kind, to be used in an event loop of its own."""
    if kind == "memory":
        return lambda: nullcontext(MemoryStorage())
    if kind == "redis":
        redis: RedisServer = request.getfixturevalue("redis_server")
        return lambda: RedisStorage.from_url(redis.url)
    memcached: MemcachedServer = request.getfixturevalue("memcached_server")
    return lambda: MemcachedStorage.from_url(memcached.url)
