"""Two to five clients over one session, one storage call at a time, against a plain model."""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from aiosess import CookieOptions, MemoryStorage, Session, SessionGone, Storage, Stored, Version
from aiosess.records.aliases import Left
from aiosess.records.repository import RecordOptions, SessionRepository
from aiosess.records.state import Intent, SessionState
from aiosess.session import SessionIO
from aiosess.storages.memcached import MemcachedStorage
from aiosess.storages.redis import RedisStorage
from aiosess.testing import FakeClock
from aiosess.timeouts import Timeouts

__all__ = ["AtServer", "Gate", "InMemory", "Machine", "OnMemcached", "OnMemory", "OnRedis"]

T = TypeVar("T")

DAY: Final = 86_400.0
GRACE: Final = 10.0
MOST_CLIENTS: Final = 5
OPTIONS: Final = RecordOptions(timeouts=Timeouts(idle=DAY), renew_grace=GRACE)
COOKIE: Final = CookieOptions().resolve(is_secure=False)

NO_IO: Final = cast("SessionIO", None)
"""The machine itself does what a request would do for its session."""

numbers = st.integers(0, MOST_CLIENTS - 1)
keys = st.sampled_from(["one", "one", "two"])
LIST: Final = "list"
haste = st.booleans()


# A counter-example is looked for in so many runs, of so many steps each.
SETTINGS = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


class Gate:
    """A storage in front of which each call of one client waits until it is let through."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.turn: asyncio.Future[None] | None = None

    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        return await self._pass(lambda: self._storage.create(session_id, payload, ttl))

    async def load(self, session_id: str) -> Stored | None:
        return await self._pass(lambda: self._storage.load(session_id))

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        return await self._pass(
            lambda: self._storage.replace(session_id, payload, ttl, expected=expected)
        )

    async def touch(self, session_id: str, ttl: float) -> bool:
        return await self._pass(lambda: self._storage.touch(session_id, ttl))

    async def delete(self, session_id: str) -> bool:
        return await self._pass(lambda: self._storage.delete(session_id))

    def let_through(self) -> None:
        assert self.turn is not None
        turn, self.turn = self.turn, None
        turn.set_result(None)

    async def arrived(self) -> None:
        """Wait until a call stands before the gate."""
        while self.turn is None:  # noqa: ASYNC110 - there is nothing to wait for but other tasks
            await asyncio.sleep(0)

    async def _pass(self, call: Callable[[], Awaitable[T]]) -> T:
        self.turn = asyncio.get_running_loop().create_future()
        await self.turn
        return await call()


async def no_pause(_seconds: float) -> None:
    """Return at once: the order of events is the test's to choose."""


@dataclass
class Held:
    """A session in a client's hands.

    - ``base``: the data as the client saw them last.
    - ``unsaved``: what it changed and has not saved; ``None`` stands for a key that it deleted, and
      of the list, it is what was added.
    """

    state: SessionState
    session: Session
    base: dict[str, Any] = field(default_factory=dict)
    unsaved: dict[str, Any] = field(default_factory=dict)

    def changed(self, key: str) -> None:
        """Note the change; a value that is what it was is none."""
        value = copy.deepcopy(self.session.get(key))
        if value == self.base.get(key):
            self.unsaved.pop(key, None)
        elif key == LIST:
            self.unsaved[key] = self.session[key][len(self.base.get(key, [])) :]
        else:
            self.unsaved[key] = value


@dataclass
class Client:
    """One request after another, from a process of its own.

    ``task`` is the call that is under way, and ``then`` what it means for the model.
    """

    gate: Gate
    repository: SessionRepository
    held: Held | None = None
    task: asyncio.Task[Any] | None = None
    then: Callable[[Any], None] | None = None
    verb: str = ""
    was_dead: bool = False
    may_fail: bool = False


class Machine(RuleBasedStateMachine):
    """Clients over one storage, in a loop that goes on only while it is told to."""

    clients: list[Any]
    storage: Storage

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = FakeClock()
        self.clients = []
        self.counter = 0

    async def open_storage(self) -> Storage:
        raise NotImplementedError

    async def close_storage(self) -> None:
        """Nothing to close by default."""

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    def teardown(self) -> None:
        if self.clients:
            self.run(self._stop())
            self.run(self.close_storage())
        self.runner.close()

    async def _stop(self) -> None:
        tasks = [client.task for client in self.clients if client.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class InMemory(Machine):
    """On memory, which has no time of its own but the clock's."""

    async def open_storage(self) -> Storage:
        return MemoryStorage(clock=self.clock)


class AtServer(Machine):
    """On a server, whose time cannot be moved."""

    url: str
    kind: type[RedisStorage | MemcachedStorage]

    def __init__(self) -> None:
        super().__init__()
        self._server = self.kind.from_url(self.url, prefix=f"{uuid.uuid4()}:")

    async def open_storage(self) -> Storage:
        return self._server

    async def close_storage(self) -> None:
        await self._server.close()


class SessionMachine(Machine):
    """The rules.

    Each storage call is one step, and hypothesis says whose is next. A call of a client ends
    with the storage call that makes it happen, so that the order in which they end is the order
    in which a plain ``dict`` has to go through the same changes.
    """

    clients: list[Client]

    def __init__(self) -> None:
        super().__init__()
        self.data: dict[str, Any] = {}
        self.ids: list[str] = []
        self.is_dead = False
        self.is_ending = False
        self.renewed_at = 0.0
        self.dead_ids: list[str] = []

    @property
    def current_id(self) -> str:
        return self.ids[-1]

    # What the storages differ in.

    async def let_expire(self) -> None:
        """Let the ttl of every record run out."""

    # Running the clients.

    def running(self, verb: str = "") -> list[Client]:
        return [c for c in self.clients if c.task is not None and verb in c.verb]

    def free(self) -> list[Client]:
        """Return the clients that have no session and no call under way."""
        return [client for client in self.clients if client.task is None and client.held is None]

    def holding(self) -> list[Client]:
        """Return the clients that have a session and no call under way."""
        return [client for client in self.clients if client.task is None and client.held]

    def changed(self) -> list[Client]:
        """Return those of them that have something to save."""
        return [client for client in self.holding() if client.held and client.held.unsaved]

    def is_in_use(self) -> bool:
        return bool(self.running() or self.holding())

    def start(
        self,
        client: Client,
        verb: str,
        call: Coroutine[Any, Any, T],
        then: Callable[[T], None],
        *,
        is_in_haste: bool,
    ) -> None:
        """Let *client* begin a call, up to its first storage call, or its end."""
        client.verb, client.then = verb, then
        client.was_dead = self.is_dead
        client.may_fail = self.is_ending or not self.is_known(client)

        async def begin() -> None:
            client.task = asyncio.create_task(call)

        self.run(begin())
        self.settle(client)
        if is_in_haste:
            self.finish_call(client)

    def settle(self, client: Client) -> None:
        """Run until *client* stands before its next storage call, or is done."""

        task, then = client.task, client.then
        assert task is not None
        assert then is not None
        while client.gate.turn is None and not task.done():
            self.run(asyncio.sleep(0))
        if not task.done():
            return
        client.task = client.then = None
        error = task.exception()
        if error is None:
            then(task.result())
        else:
            assert isinstance(error, SessionGone), f"{client.verb}: {error!r}"
            self.was_told_that_it_is_over(client)

    def finish_call(self, client: Client) -> None:
        while client.task is not None:
            client.gate.let_through()
            self.settle(client)

    def is_known(self, client: Client) -> bool:
        """Ask whether the id that *client* goes by leads to the session."""
        if client.held is None or client.held.state.session_id == self.current_id:
            return True
        is_previous = client.held.state.session_id == self.ids[-2:][0]
        return is_previous and self.clock() < self.renewed_at + GRACE

    def was_told_that_it_is_over(self, client: Client) -> None:
        """Check that it is over, or may be, and let the client forget the session."""
        is_over = self.is_dead or self.is_ending or client.may_fail or not self.is_known(client)
        assert is_over, (
            f"{client.verb}: the session is alive, but the client was told that it ended"
        )
        client.held = None

    def happened(self, client: Client, *, changes: dict[str, Any]) -> None:
        """Do to the model what *client* did, and compare what it sees now."""
        assert not client.was_dead, f"{client.verb} of a session that had ended succeeded"
        for key, value in changes.items():
            put(self.data, key, copy.deepcopy(value))
        held = client.held
        assert held is not None
        seen = copy.deepcopy(self.data)
        for key, value in held.unsaved.items():
            put(seen, key, value)
        assert dict(held.session) == seen, f"after {client.verb}"
        held.base = copy.deepcopy(self.data)

    # Rules: a session and its clients.

    @initialize(count=st.integers(2, MOST_CLIENTS))
    def log_in(self, count: int) -> None:
        self.storage = self.run(self.open_storage())
        for _ in range(count):
            gate = Gate(self.storage)
            repository = SessionRepository(gate, OPTIONS, clock=self.clock, sleep=no_pause)
            self.clients.append(Client(gate, repository))
        self.begin_session()

    def begin_session(self) -> None:
        self.observer = SessionRepository(self.storage, OPTIONS, clock=self.clock)
        self.ids = [str(uuid.uuid4())]
        self.data = {"counter": 0}
        state = self.observer.fresh(self.current_id, COOKIE)
        state.data.update(self.data)
        self.run(self.observer.create(state))
        self.is_dead = self.is_ending = False
        self.renewed_at = 0.0

    @precondition(lambda self: self.free() and (not self.is_dead or not self.is_in_use()))
    @rule(number=numbers, haste=haste, cookie=st.sampled_from(["newest", "renewed a moment ago"]))
    def open(self, number: int, cookie: str, *, haste: bool) -> None:
        """Begin a request; a session that is over is followed by another."""
        if self.is_dead:
            self.dead_ids += self.ids
            self.begin_session()
        client = chosen(self.free(), number)
        is_in_grace = self.clock() < self.renewed_at + GRACE
        session_id = self.current_id if cookie == "newest" or not is_in_grace else self.ids[-2:][0]

        def then(state: SessionState | Left | None) -> None:
            if not isinstance(state, SessionState):
                self.was_told_that_it_is_over(client)
                return
            client.held = Held(state, Session(state, NO_IO))
            self.happened(client, changes={})

        self.start(
            client, "open", client.repository.load(session_id, COOKIE), then, is_in_haste=haste
        )

    # Rules: changes.

    @precondition(lambda self: self.holding())
    @rule(
        number=numbers,
        key=keys,
        kind=st.sampled_from(["set", "set", "delete", "append", "append", "look"]),
        after=st.sampled_from(["wait", "save", "save in haste"]),
    )
    def change(self, number: int, key: str, kind: str, after: str) -> None:
        client, held = chosen_held(self.holding(), number)
        self.counter += 1
        match kind:
            case "set":
                held.session[key] = self.counter
            case "delete":
                held.session.pop(key, None)
            case "look":
                # A container that is in somebody's hands is compared when saved.
                held.session.get(LIST)
            case _:
                key = LIST
                held.session.setdefault(key, [])
                held.session[key].append(self.counter)
        held.changed(key)
        assert held.state.is_modified == bool(held.unsaved)
        if held.unsaved and after != "wait":
            self.begin_to_save(client, held, is_in_haste=after == "save in haste")

    # Rules: calls.

    @precondition(lambda self: self.changed())
    @rule(number=numbers, haste=haste)
    def save(self, number: int, *, haste: bool) -> None:
        client, held = chosen_held(self.changed(), number)
        self.begin_to_save(client, held, is_in_haste=haste)

    def begin_to_save(self, client: Client, held: Held, *, is_in_haste: bool) -> None:
        call = client.repository.replace(held.state)
        self.start(client, "save", call, self.saved(client, held), is_in_haste=is_in_haste)

    @precondition(lambda self: self.holding())
    @rule(number=numbers, haste=haste)
    def touch(self, number: int, *, haste: bool) -> None:
        client, held = chosen_held(self.holding(), number)

        # What is left under an id that was renewed can be touched, whatever became of the session.
        may_be_touched = held.state.session_id != self.current_id

        def then(is_kept: object) -> None:
            assert may_be_touched or not (client.was_dead and is_kept), "touched what had ended"
            if not is_kept:
                self.was_told_that_it_is_over(client)

        self.start(client, "touch", client.repository.touch(held.state), then, is_in_haste=haste)

    @precondition(lambda self: self.holding())
    @rule(number=numbers, haste=haste)
    def reload(self, number: int, *, haste: bool) -> None:
        client, held = chosen_held(self.holding(), number)

        def then(_: None) -> None:
            held.unsaved = {}
            self.happened(client, changes={})

        self.start(
            client,
            "reload",
            client.repository.reload(held.state, held.state.seen()),
            then,
            is_in_haste=haste,
        )

    @precondition(lambda self: self.holding())
    @rule(number=numbers, haste=haste)
    def count_up(self, number: int, *, haste: bool) -> None:
        client, held = chosen_held(self.holding(), number)

        def up(newest: SessionState) -> int:
            session = Session(newest, NO_IO)
            session["counter"] += 1
            return cast("int", session["counter"])

        def then(returned: int) -> None:
            assert returned == self.data["counter"] + 1, "an increment was lost"
            self.happened(client, changes={"counter": returned})

        self.start(
            client, "count up", client.repository.atomic(held.state, up), then, is_in_haste=haste
        )

    @precondition(lambda self: self.may_renew())
    @rule(number=numbers, haste=haste)
    def renew(self, number: int, *, haste: bool) -> None:
        client, held = chosen_held(self.may_renew(), number)
        new_id = str(uuid.uuid4())
        held.state.move_to(new_id)
        held.state.intent = Intent.ROTATE
        assert held.state.previous is not None
        self.dead_ids.append(new_id)
        saved = self.saved(client, held)

        def then(is_kept: object) -> None:
            held.state.intent = Intent.KEEP
            # Else somebody has rotated it since, and this one goes on under that id.
            if is_kept and held.state.session_id == new_id:
                self.dead_ids.remove(new_id)
                self.ids.append(new_id)
                self.renewed_at = self.clock()
            saved(is_kept)

        self.start(
            client,
            "renew",
            client.repository.rotate(held.state, held.state.previous),
            then,
            is_in_haste=haste,
        )

    @precondition(lambda self: self.may_destroy())
    @rule(number=numbers, haste=haste)
    def destroy(self, number: int, *, haste: bool) -> None:
        client, held = chosen_held(self.may_destroy(), number)

        def then(_: None) -> None:
            self.is_dead = True
            self.is_ending = False
            client.held = None

        self.is_ending = True
        self.start(client, "destroy", client.repository.delete(held.state), then, is_in_haste=haste)

    def saved(self, client: Client, held: Held) -> Callable[[object], None]:
        """Return what it means that all unsaved changes of *client* were kept, or could not be."""
        changes = held.unsaved

        def then(is_kept: object) -> None:
            if not is_kept:
                self.was_told_that_it_is_over(client)
                return
            held.unsaved = {}
            self.happened(client, changes=changes)

        return then

    @precondition(lambda self: len(self.holding()) > 1)
    @rule(number=numbers)
    def leave(self, number: int) -> None:
        """End a request without saving."""
        chosen(self.holding(), number).held = None

    def may_renew(self) -> list[Client]:
        """Return who may: of two who renew at once, each has a session of its own afterwards."""
        if self.running("renew") or self.running("destroy"):
            return []
        if self.clock() < self.renewed_at + GRACE:
            return []
        return self.with_current_id()

    def may_destroy(self) -> list[Client]:
        """Ask nobody where it would be the end of a session that nobody else is using."""
        return self.holding() if len(self.holding()) > 1 else []

    def with_current_id(self) -> list[Client]:
        return [c for c in self.holding() if c.held and c.held.state.session_id == self.current_id]

    # Rules: what goes on meanwhile.

    @precondition(lambda self: self.running())
    @rule(number=numbers)
    def step(self, number: int) -> None:
        """Let one storage call happen."""
        client = chosen(self.running(), number)
        client.gate.let_through()
        self.settle(client)

    @precondition(lambda self: self.running())
    @rule(number=numbers)
    def finish(self, number: int) -> None:
        """Let all storage calls of one client happen."""
        self.finish_call(chosen(self.running(), number))

    @precondition(lambda self: not self.running() and self.clock() < self.renewed_at + 2 * GRACE)
    @rule(seconds=st.sampled_from([4.0, GRACE]))
    def rest(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: not self.is_dead and self.running())
    @rule()
    def expire(self) -> None:
        """Let the record's ttl run out, whatever is under way."""
        self.clock.advance(DAY + 1)
        self.run(self.let_expire())
        self.is_dead = True

    # What is always so.

    @invariant()
    def the_record_is_what_the_model_says(self) -> None:
        if not self.clients or self.running():
            return
        state = self.run(self.observer.load(self.current_id, COOKIE))
        if self.is_dead:
            assert not isinstance(state, SessionState), "the session was revived"
            return
        assert isinstance(state, SessionState), "the session was lost"
        assert state.data == self.data

    @invariant()
    def what_has_ended_stays_ended(self) -> None:
        if self.running():
            return
        ended = self.dead_ids + (self.ids if self.is_dead else [])
        for session_id in ended[-6:]:
            state = self.run(self.observer.load(session_id, COOKIE))
            assert not isinstance(state, SessionState), "a session that had ended was revived"


class OnMemory(InMemory, SessionMachine):
    """On memory."""


class OnServer(AtServer, SessionMachine):
    """On a server, where what is to expire is deleted."""

    async def let_expire(self) -> None:
        for session_id in self.ids + self.dead_ids:
            await self._server.delete(session_id)


class OnRedis(OnServer):
    """On Redis."""

    kind = RedisStorage


class OnMemcached(OnServer):
    """On memcached."""

    kind = MemcachedStorage


def chosen(clients: list[Client], number: int) -> Client:
    return clients[number % len(clients)]


def chosen_held(clients: list[Client], number: int) -> tuple[Client, Held]:
    client = chosen(clients, number)
    assert client.held is not None
    return client, client.held


def put(data: dict[str, Any], key: str, value: Any) -> None:
    """Set *key*, or delete it where *value* is ``None``; add to the list."""
    if value is None:
        data.pop(key, None)
    elif key == LIST:
        data[key] = data.get(key, []) + value
    else:
        data[key] = value
