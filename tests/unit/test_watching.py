"""Who watches which sessions: followed, merged, forgotten, and what becomes of them in trouble."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from contextvars import ContextVar
from weakref import ref

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from aiosess import CookieOptions, MemoryStorage, Reason, StorageUnavailable, Stored
from aiosess.events import Events
from aiosess.exchange import watching as watching_module
from aiosess.exchange.watching import Watcher, close_socket
from aiosess.records.format import Alias, encode_alias
from aiosess.records.repository import RecordOptions, SessionRepository
from aiosess.records.state import Intent, SessionState
from aiosess.testing import FakeClock
from aiosess.timeouts import Timeouts

COOKIE = CookieOptions()
REQUEST = make_mocked_request("GET", "/")


async def never(_seconds: float) -> None:
    await asyncio.Event().wait()


class Troubled(MemoryStorage):
    """Notes what is looked at, and may fail."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.looked_at: list[str] = []
        self.error: Exception | None = None

    async def load(self, session_id: str) -> Stored | None:
        self.looked_at.append(session_id)
        if self.error is not None:
            raise self.error
        return await super().load(session_id)


@pytest.fixture
def storage(clock: FakeClock) -> Troubled:
    return Troubled(clock)


@pytest.fixture
def repository(storage: Troubled, clock: FakeClock) -> SessionRepository:
    options = RecordOptions(
        timeouts=Timeouts(idle=60, touch_after=3), principal_keys=frozenset({"user"})
    )
    return SessionRepository(storage, options, clock=clock)


@pytest.fixture
def watcher(repository: SessionRepository) -> Iterator[Watcher]:
    watcher = Watcher(repository.looking, Events(), every=15, sleep=never)
    repository.on_end = watcher.tell
    yield watcher
    assert len(watcher) == 0


class Watching:
    """Keeps sessions and watches them; ``ends`` are the reasons that were told, in order."""

    def __init__(self, watcher: Watcher, repository: SessionRepository) -> None:
        self.ends: list[Reason] = []
        self._watcher = watcher
        self._repository = repository

    async def kept(self, session_id: str = "ann", **data: str) -> SessionState:
        state = self._repository.fresh(session_id, COOKIE)
        state.data.update(data)
        await self._repository.create(state)
        return state

    def watched(self, state: SessionState) -> AbstractContextManager[None]:
        return self._watcher.watched(state, self.ends.append, ref[web.Request](REQUEST))

    async def look(self) -> list[Reason]:
        """Return what was told by now, once all were looked at."""
        await self._watcher.look_at_all()
        return self.ends


@pytest.fixture
def watching(watcher: Watcher, repository: SessionRepository) -> Watching:
    return Watching(watcher, repository)


async def rotated(repository: SessionRepository, state: SessionState, session_id: str) -> None:
    async def new_id() -> str:
        return session_id

    await repository.move(state, new_id)
    state.intent = Intent.ROTATE
    assert state.previous is not None
    await repository.rotate(state, state.previous)


async def settle() -> None:
    """Let all that is due be done; nothing waits for more than a turn of the loop here."""
    for _ in range(20):
        await asyncio.sleep(0)


# Following.


async def test_what_ends_while_its_new_id_is_found_out_is_seen_at_once(
    watching: Watching, watcher: Watcher, repository: SessionRepository, storage: Troubled
) -> None:
    state = await watching.kept()
    with watching.watched(state):
        await settle()
        repository.on_end = None
        await rotated(repository, state.copied(), "new")
        load = storage.load

        async def ends_meanwhile(session_id: str) -> Stored | None:
            stored = await load(session_id)
            if session_id == "new" and stored is not None:
                await storage.delete("new")
                watcher.tell("new")
            return stored

        storage.load = ends_meanwhile  # type: ignore[method-assign]
        watcher.tell("ann")
        await settle()

        assert watching.ends == [Reason.ENDED]


async def test_who_watched_under_two_ids_leaves_nothing_behind(
    watching: Watching, watcher: Watcher, repository: SessionRepository
) -> None:
    state = await watching.kept()
    old = state.copied()
    with watching.watched(old):
        await settle()
        repository.on_end = None
        await rotated(repository, state, "new")
        with watching.watched(state):
            assert len(watcher) == 2
            await watching.look()
            assert len(watcher) == 1
        assert len(watcher) == 1

    assert len(watcher) == 0


async def test_a_session_that_nobody_watches_any_more_is_not_looked_at(
    watching: Watching, storage: Troubled
) -> None:
    ann, bob = await watching.kept("ann"), await watching.kept("bob")
    with watching.watched(bob):
        await settle()
        storage.looked_at.clear()

        with watching.watched(ann):
            pass
        await settle()

        assert storage.looked_at == []


async def test_what_looks_knows_nothing_of_the_request_that_came_first(
    watching: Watching, storage: Troubled
) -> None:
    name = ContextVar[str]("name", default="nobody")
    seen: list[str] = []
    load = storage.load

    async def noted(session_id: str) -> Stored | None:
        seen.append(name.get())
        return await load(session_id)

    storage.load = noted  # type: ignore[method-assign]
    name.set("ann")
    with watching.watched(await watching.kept()):
        await settle()

    assert seen == ["nobody"]


async def test_ids_that_lead_in_a_circle_lead_nowhere(
    watching: Watching, storage: Troubled, clock: FakeClock
) -> None:
    with watching.watched(await watching.kept("ann")):
        await settle()
        await storage.delete("ann")
        for here, there in (("ann", "bob"), ("bob", "ann")):
            await storage.create(here, encode_alias(here, Alias(there, clock() + 60)), 60)

        assert await watching.look() == [Reason.ENDED]


# Reasons.


async def test_what_is_gone_before_it_may_have_expired_was_ended(
    watching: Watching, storage: Troubled, clock: FakeClock
) -> None:
    with watching.watched(await watching.kept()):
        clock.advance(56)
        await storage.delete("ann")

        assert await watching.look() == [Reason.ENDED]


async def test_what_is_gone_when_it_may_have_expired_counts_as_expired(
    watching: Watching, storage: Troubled, clock: FakeClock
) -> None:
    with watching.watched(await watching.kept()):
        # It may have been touched up to three seconds before it was watched.
        clock.advance(58)
        await storage.delete("ann")

        assert await watching.look() == [Reason.EXPIRED]


async def test_what_is_told_was_ended_whenever_that_was(
    watching: Watching, watcher: Watcher, clock: FakeClock
) -> None:
    with watching.watched(await watching.kept()):
        clock.advance(100)
        watcher.tell("ann")

        assert await watching.look() == [Reason.ENDED]


async def test_what_was_told_during_an_outage_is_not_forgotten(
    watching: Watching, watcher: Watcher, storage: Troubled, clock: FakeClock
) -> None:
    with watching.watched(await watching.kept()):
        await settle()
        storage.error = StorageUnavailable()
        watcher.tell("ann")
        await settle()
        storage.error = None
        clock.advance(100)

        assert await watching.look() == [Reason.ENDED]


async def test_a_later_watch_knows_of_a_later_touch(
    watching: Watching, storage: Troubled, clock: FakeClock
) -> None:
    state = await watching.kept()
    with watching.watched(state):
        clock.advance(50)
        await storage.touch("ann", 60)
        with watching.watched(state):
            clock.advance(20)
            await storage.delete("ann")

            assert await watching.look() == [Reason.ENDED, Reason.ENDED]


async def test_a_login_that_is_not_kept_yet_is_nobodys_end(watching: Watching) -> None:
    state = await watching.kept(user="ann")
    state.originals["user"] = "ann"
    state.data["user"] = "bob"
    with watching.watched(state):
        assert await watching.look() == []


# Trouble.


async def test_an_outage_counts_from_the_last_look(
    watching: Watching, storage: Troubled, clock: FakeClock
) -> None:
    with watching.watched(await watching.kept()):
        clock.advance(50)
        await watching.look()
        storage.error = StorageUnavailable()
        clock.advance(59)
        assert await watching.look() == []
        clock.advance(1)

        assert await watching.look() == [Reason.OUT_OF_SIGHT]


async def test_an_outage_counts_from_the_last_watch(
    watching: Watching, storage: Troubled, clock: FakeClock
) -> None:
    state = await watching.kept()
    with watching.watched(state):
        await settle()
        storage.error = StorageUnavailable()
        clock.advance(50)
        with watching.watched(state):
            clock.advance(20)

            assert await watching.look() == []


async def test_an_error_of_a_storage_is_told_and_others_are_looked_at(
    watching: Watching, storage: Troubled, caplog: pytest.LogCaptureFixture
) -> None:
    ann, bob = await watching.kept("ann"), await watching.kept("bob")
    load = storage.load

    async def fails_for_ann(session_id: str) -> Stored | None:
        if session_id == "ann":
            raise ZeroDivisionError
        return await load(session_id)

    storage.load = fails_for_ann  # type: ignore[method-assign]
    with watching.watched(ann), watching.watched(bob):
        await storage.delete("bob")

        assert await watching.look() == [Reason.ENDED]
    assert "could not be looked at" in caplog.text
    assert "ZeroDivisionError" in caplog.text


async def test_who_watches_is_told_that_the_application_stops(
    watching: Watching, watcher: Watcher
) -> None:
    with watching.watched(await watching.kept()):
        await watcher.close()

    assert watching.ends == [Reason.STOPPED]


async def test_who_begins_to_watch_while_the_application_stops_is_told_so_too(
    watching: Watching, watcher: Watcher
) -> None:
    await watcher.close()

    with watching.watched(await watching.kept()):
        assert watching.ends == [Reason.STOPPED]


# Subscriptions that fail.


class Failing:
    """Cannot be heard; each subscription lasts so many seconds of the clock."""

    def __init__(self, clock: FakeClock) -> None:
        self.lasts = 0.0
        self._clock = clock

    async def publish(self, _notice: bytes) -> None:
        raise StorageUnavailable

    def subscribe(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return self._subscribed()

    @asynccontextmanager
    async def _subscribed(self) -> AsyncIterator[AsyncIterator[bytes]]:
        self._clock.advance(self.lasts)
        raise StorageUnavailable("told to fail")
        yield


class Pauses:
    """Notes how long is slept, but for the rounds, until there are so many."""

    def __init__(self, number: int) -> None:
        self.seconds: list[float] = []
        self.are_enough = asyncio.Event()
        self._number = number
        self._is_round = True

    async def __call__(self, seconds: float) -> None:
        if self._is_round:
            # The rounds begin first.
            self._is_round = False
            await never(seconds)
        self.seconds.append(seconds)
        if len(self.seconds) >= self._number:
            self.are_enough.set()
            await never(seconds)


async def pauses_between(
    lasts: float, watching: Watching, repository: SessionRepository, clock: FakeClock
) -> list[float]:
    failing, pauses = Failing(clock), Pauses(12)
    failing.lasts = lasts
    watcher = Watcher(
        repository.looking, Events(), every=15, storage=failing, sleep=pauses, steady=clock
    )
    with watcher.watched(await watching.kept(), print, ref[web.Request](REQUEST)):
        await pauses.are_enough.wait()
        watcher.tell("ann")
        await settle()
    await watcher.close()
    return pauses.seconds


async def test_pauses_between_tries_to_listen_grow(
    watching: Watching, repository: SessionRepository, clock: FakeClock
) -> None:
    pauses = await pauses_between(0, watching, repository, clock)

    assert pauses[0] < 0.2
    assert all(later > 1.7 * earlier for earlier, later in itertools.pairwise(pauses[:7]))
    assert 15 <= max(pauses) <= 16.5


async def test_pauses_begin_anew_once_it_was_heard_for_long(
    watching: Watching, repository: SessionRepository, clock: FakeClock
) -> None:
    pauses = await pauses_between(16, watching, repository, clock)

    assert max(pauses) < 0.2


# Sockets.


class Stuck(web.WebSocketResponse):
    """A socket whose client reads nothing any more."""

    async def close(self, **_how: object) -> bool:
        await asyncio.Event().wait()
        return True


async def test_a_stuck_socket_whose_connection_went_meanwhile_is_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watching_module, "_TO_CLOSE", 0.01)

    closed = close_socket(Stuck(), Reason.ENDED, None)

    await asyncio.wait_for(closed, 5)
