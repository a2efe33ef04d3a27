"""Requests over one session in which people log in and out, a storage call at a time."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
)

from aiosess import Session, SessionGone
from aiosess.events import Events, Reason, SessionEvent
from aiosess.records import repository
from aiosess.records.aliases import Left
from aiosess.records.format import Former, Record, decode
from aiosess.records.repository import RecordOptions
from aiosess.records.state import Intent, SessionState, Standing
from aiosess.storages.memcached import MemcachedStorage
from aiosess.storages.redis import RedisStorage
from aiosess.timeouts import Timeouts
from tests.storages.model import (
    COOKIE,
    DAY,
    GRACE,
    NO_IO,
    AtServer,
    Gate,
    InMemory,
    Machine,
    no_pause,
)

__all__ = ["LoginsOnMemcached", "LoginsOnMemory", "LoginsOnRedis"]

T = TypeVar("T")

OPTIONS: Final = RecordOptions(
    timeouts=Timeouts(idle=DAY), renew_grace=GRACE, principal_keys=frozenset({"user"})
)
MOST_CLIENTS: Final = 4

numbers = st.integers(0, 11)
haste = st.booleans()


def tokens_in(data: dict[str, Any]) -> Counter[str]:
    """Return what was ever put in and is there, each as often as it is there."""
    found = Counter(key for key in data if key.startswith("t"))
    cart = data.get("cart", {})
    return found + Counter(list(cart.get("parts", {}))) + Counter(cart.get("list", []))


@dataclass(eq=False)
class Line:
    """The session between two changes of rights, under one id after the other.

    - ``must``, ``may``: what was put in and has to be there, and what may be there; they differ
      where two logged in at once, and each went on with what it had read.
    - ``choices``: the values of one key that everybody sets, in the order in which they were kept.
    - ``follower``: the line after the next change of rights; this one is a view from then on.
    - ``used_at``: when a client first came with an id of the follower.
    """

    number: int
    user: str | None
    ids: list[str]
    must: set[str] = field(default_factory=set)
    may: set[str] = field(default_factory=set)
    choices: list[int] = field(default_factory=lambda: [0])
    is_dead: bool = False
    rotated_at: dict[str, float] = field(default_factory=dict)
    follower: Line | None = None
    used_at: float | None = None

    def last(self) -> Line | None:
        """Return the line that may be ended from here; ``None`` where its principal is another."""
        line = self
        while line.follower is not None:
            if line.user is None or line.user != line.follower.user:
                return None
            line = line.follower
        return line

    def on(self) -> list[Line]:
        """Return the line, and those that follow it."""
        return [self, *(self.follower.on() if self.follower is not None else ())]

    def is_over(self) -> bool:
        """Ask whether what is left of it may be gone, because a line after it has ended."""
        return any(line.is_dead for line in self.on())


@dataclass
class Request:
    """A request that has its session open, and what it put in and has not saved."""

    line: Line
    state: SessionState
    session: Session
    unsaved: set[str] = field(default_factory=set)
    choice: int | None = None
    choices_seen: int = 1
    seen: set[str] = field(default_factory=set)
    is_renewed: bool = False


@dataclass
class Client:
    """One request after another, from a process of its own."""

    gate: Gate
    keeper: repository.SessionRepository
    events: list[Reason]
    request: Request | None = None
    task: asyncio.Task[Any] | None = None
    then: Callable[[Any], None] | None = None
    gone: Callable[[], None] | None = None
    verb: str = ""


class LoginMachine(Machine):
    """The rules. As in ``model``, a call ends with the storage call that makes it happen."""

    clients: list[Client]

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[Line] = []
        self.refused_ids: list[str] = []

    # Running the clients.

    def running(self, verb: str = "") -> list[Client]:
        return [each for each in self.clients if each.task is not None and verb in each.verb]

    def holding(self) -> list[Client]:
        return [each for each in self.clients if each.task is None and each.request is not None]

    def able(self) -> list[Client]:
        """Return those whose request may change the id of its session."""
        return [
            each
            for each in self.holding()
            if each.request is not None
            and each.request.state.standing is Standing.LIVE
            and not each.request.is_renewed
        ]

    def start(
        self,
        client: Client,
        verb: str,
        call: Coroutine[Any, Any, T],
        then: Callable[[T], None],
        gone: Callable[[], None],
        *,
        is_in_haste: bool,
    ) -> None:
        """Let *client* begin a call; *gone* checks that it may be told that the session is over."""
        client.verb, client.then, client.gone = verb, then, gone
        client.events.clear()

        async def begin() -> None:
            client.task = asyncio.create_task(call)

        self.run(begin())
        self.settle(client)
        while is_in_haste and client.task is not None:
            client.gate.let_through()
            self.settle(client)

    def settle(self, client: Client) -> None:
        """Run until *client* stands before its next storage call, or is done."""
        task, then, gone = client.task, client.then, client.gone
        assert task is not None
        assert then is not None
        assert gone is not None
        while client.gate.turn is None and not task.done():
            self.run(asyncio.sleep(0))
        if not task.done():
            return
        client.task = client.then = client.gone = None
        error = task.exception()
        if error is None:
            then(task.result())
            return
        assert isinstance(error, SessionGone), f"{client.verb}: {error!r}"
        gone()
        client.request = None

    def line_of(self, session_id: str) -> Line:
        return next(line for line in self.lines if session_id in line.ids)

    def is_ending(self, line: Line) -> bool:
        """Ask whether somebody is just ending *line*, or one that came of it."""
        requests = [each.request for each in self.running("log out") if each.request is not None]
        return any(each.line in line.on() or line in each.line.on() for each in requests)

    # What a request sees, and what it may be told.

    def sees(self, client: Client, must: set[str]) -> None:
        """Check what the request of *client* sees, now that it knows what is kept."""
        request = client.request
        assert request is not None
        line, data = request.line, request.state.data
        seen = tokens_in(data)
        assert max(seen.values(), default=1) == 1, f"{client.verb}: something is there twice"
        unknown = set(seen) - line.may - request.unsaved
        assert not unknown, f"{client.verb}: data are seen that are not of this session"
        lost = must - set(seen)
        assert not lost, f"{client.verb}: what was kept is not seen"
        assert data.get("line") == line.number, f"{client.verb}: another line is seen"
        request.seen = set(seen) - request.unsaved
        request.choices_seen = len(line.choices)

    def kept(self, client: Client) -> None:
        """Take note that what the request put in is kept, and check that it was told right."""
        request = client.request
        assert request is not None
        line = request.line
        assert line.follower is None, f"{client.verb}: a change came in after a login"
        line.must |= request.unsaved
        line.may |= request.unsaved
        if request.choice is not None:
            others = len(line.choices) > request.choices_seen
            told = client.events.count(Reason.CHANGE_LOST)
            assert bool(told) == others, f"{client.verb}: {told} were told that they lost"
            line.choices.append(request.choice)
        request.unsaved, request.choice = set(), None
        self.sees(client, line.must)

    def dropped(self, client: Client) -> None:
        """Check that what the request put in could not be kept, and that this was told."""
        request = client.request
        assert request is not None
        assert request.line.follower is not None, f"{client.verb}: dropped, and nobody logged in"
        if request.unsaved:
            assert Reason.FORMER_CHANGED in client.events, f"{client.verb}: dropped in silence"
        request.unsaved, request.choice = set(), None

    def may_be_gone(self, line: Line, verb: str) -> Callable[[], None]:
        def check() -> None:
            assert line.is_over() or self.is_ending(line), (
                f"{verb}: told that a session is over that is not"
            )

        return check

    # Rules: a session and its clients.

    @initialize(count=st.integers(2, MOST_CLIENTS))
    def begin(self, count: int) -> None:
        self.storage = self.run(self.open_storage())
        for _ in range(count):
            gate, events = Gate(self.storage), list[Reason]()

            def told(event: SessionEvent, events: list[Reason] = events) -> None:
                events.append(event.reason)

            keeper = repository.SessionRepository(
                gate, OPTIONS, clock=self.clock, sleep=no_pause, events=Events(told)
            )
            self.clients.append(Client(gate, keeper, events))
        self.begin_session()

    def begin_session(self) -> None:
        keeper = repository.SessionRepository(self.storage, OPTIONS, clock=self.clock)
        self.counter += 1
        line = Line(self.counter, None, [str(uuid.uuid4())])
        self.lines.append(line)
        state = keeper.fresh(line.ids[0], COOKIE)
        state.data.update({"line": line.number, "choice": 0})
        self.run(keeper.create(state))

    @precondition(lambda self: len(self.holding()) + len(self.running()) < len(self.clients))
    @rule(number=numbers, which=st.sampled_from(["newest", "newest", "any"]), haste=haste)
    def open(self, number: int, which: str, *, haste: bool) -> None:
        """Begin a request, with an id that may be an old one."""
        if all(line.is_over() for line in self.lines) and not self.running():
            self.begin_session()
        client = next(each for each in self.clients if each.task is None and not each.request)
        ids = [session_id for line in self.lines for session_id in line.ids]
        session_id = ids[-1 - number % (2 if which == "newest" else len(ids)) % len(ids)]
        line = self.line_of(session_id)
        is_rotated = session_id in line.rotated_at
        is_in_grace = not is_rotated or self.clock() < line.rotated_at[session_id] + GRACE
        is_view_over = line.used_at is not None and self.clock() >= line.used_at + GRACE
        must, is_over = set(line.must), line.is_dead

        def then(found: SessionState | Left | None) -> None:
            if not isinstance(found, SessionState):
                is_old = line.follower is not None or is_rotated
                is_expired = not is_in_grace or is_view_over
                assert line.is_over() or self.is_ending(line) or (is_old and is_expired), (
                    "a session is refused that goes on"
                )
                return
            assert not is_over, "a session that has ended was revived"
            assert is_in_grace, "an id opens a session whose time of grace is over"
            assert not is_view_over, "an id shows a session whose time of grace is over"
            client.request = Request(line, found, Session(found, NO_IO))
            if found.standing is Standing.FORMER:
                assert line.follower is not None, "a view is shown, and nobody logged in"
            self.sees(client, must)
            for each in self.lines:
                if each.follower is line and each.used_at is None:
                    each.used_at = self.clock()

        self.start(
            client,
            "open",
            client.keeper.load(session_id, COOKIE),
            then,
            lambda: None,
            is_in_haste=haste,
        )

    @precondition(lambda self: self.holding())
    @rule(number=numbers)
    def leave(self, number: int) -> None:
        """End a request without saving."""
        chosen(self.holding(), number).request = None

    # Rules: changes.

    @precondition(lambda self: self.holding())
    @rule(
        number=numbers,
        kind=st.sampled_from(["key", "part", "item", "item", "choice"]),
        after=st.sampled_from(["wait", "save", "save in haste"]),
    )
    def change(self, number: int, kind: str, after: str) -> None:
        client, request = chosen_request(self.holding(), number)
        self.counter += 1
        if kind == "choice":
            request.session["choice"] = request.choice = self.counter
        else:
            request.unsaved.add(put_in(request.session, kind, self.counter))
        if after != "wait":
            self.begin_to_save(client, request, is_in_haste=after == "save in haste")

    @precondition(lambda self: self.holding())
    @rule(number=numbers, haste=haste)
    def save(self, number: int, *, haste: bool) -> None:
        client, request = chosen_request(self.holding(), number)
        if request.unsaved or request.choice is not None:
            self.begin_to_save(client, request, is_in_haste=haste)

    def begin_to_save(self, client: Client, request: Request, *, is_in_haste: bool) -> None:
        if request.state.standing is Standing.FORMER:
            # The exchange drops it, without asking the storage.
            request.state.rollback()
            request.unsaved, request.choice = set(), None
            return
        call = client.keeper.replace(request.state)
        self.start(
            client,
            "save",
            call,
            self.saved(client, request, "save"),
            self.may_be_gone(request.line, "save"),
            is_in_haste=is_in_haste,
        )

    def saved(self, client: Client, request: Request, verb: str) -> Callable[[object], None]:
        was_over = request.line.is_dead

        def then(is_kept: object) -> None:
            if not is_kept:
                self.may_be_gone(request.line, verb)()
                client.request = None
                return
            if request.state.standing is Standing.FORMER:
                self.dropped(client)
                return
            assert not was_over, f"{verb}: a session that has ended was revived"
            self.kept(client)

        return then

    @precondition(lambda self: self.holding())
    @rule(number=numbers, haste=haste)
    def change_atomically(self, number: int, *, haste: bool) -> None:
        client, request = chosen_request(self.holding(), number)
        if request.state.standing is Standing.FORMER:
            return
        self.counter += 1
        number, line, was_over = self.counter, request.line, request.line.is_dead

        def change(newest: SessionState) -> str:
            return put_in(Session(newest, NO_IO), "item", number)

        def then(token: str) -> None:
            assert not was_over, "a session that has ended was revived"
            assert line.follower is None, "a change came in after a login"
            line.must.add(token)
            line.may.add(token)
            self.sees(client, line.must)

        def gone() -> None:
            assert line.is_over() or line.follower is not None or self.is_ending(line)

        call = client.keeper.atomic(request.state, change)
        self.start(client, "change atomically", call, then, gone, is_in_haste=haste)

    @precondition(lambda self: self.holding())
    @rule(number=numbers, haste=haste)
    def reload(self, number: int, *, haste: bool) -> None:
        client, request = chosen_request(self.holding(), number)
        must = set(request.line.must)

        def then(_: None) -> None:
            request.unsaved, request.choice = set(), None
            self.sees(client, must)

        self.start(
            client,
            "reload",
            client.keeper.reload(request.state, request.state.seen()),
            then,
            self.may_be_gone(request.line, "reload"),
            is_in_haste=haste,
        )

    # Rules: another id.

    @precondition(lambda self: self.able())
    @rule(number=numbers, who=st.sampled_from(["ann", "ann", "bob"]), haste=haste)
    def log_in(self, number: int, who: str, *, haste: bool) -> None:
        client, request = chosen_request(self.able(), number)
        before, was_over = request.line, request.line.is_dead
        new_id = str(uuid.uuid4())
        self.counter += 1
        after = Line(self.counter, who, [new_id])
        request.state.move_to(new_id)
        request.session["user"] = who
        request.session["line"] = after.number
        request.state.intent = Intent.RENEW
        previous = request.state.previous
        assert previous is not None

        def then(is_kept: object) -> None:
            if not is_kept:
                self.refused_ids.append(new_id)
                self.may_be_gone(before, "log in")()
                client.request = None
                return
            assert not was_over, "a session that has ended was revived"
            request.state.intent = Intent.KEEP
            request.is_renewed = True
            self.lines.append(after)
            if before.follower is None:
                before.follower = after
                after.must = before.must | request.unsaved
            else:
                # Somebody else has logged in since: each has a session of its own.
                after.must = request.seen | request.unsaved
            after.may = before.may | request.unsaved
            after.choices = [*before.choices, request.choice or before.choices[-1]]
            request.line, request.unsaved, request.choice = after, set(), None
            self.sees(client, after.must)

        call = client.keeper.renew(request.state, previous)
        self.start(
            client, "log in", call, then, self.may_be_gone(before, "log in"), is_in_haste=haste
        )

    @precondition(lambda self: self.able())
    @rule(number=numbers, haste=haste)
    def rotate(self, number: int, *, haste: bool) -> None:
        client, request = chosen_request(self.able(), number)
        new_id = str(uuid.uuid4())
        request.state.move_to(new_id)
        request.state.intent = Intent.ROTATE
        previous = request.state.previous
        assert previous is not None
        saved = self.saved(client, request, "rotate")

        def then(is_kept: object) -> None:
            request.state.intent = Intent.KEEP
            is_moved = (
                request.state.session_id == new_id and request.state.standing is Standing.LIVE
            )
            if is_kept and is_moved:
                request.line.rotated_at[request.line.ids[-1]] = self.clock()
                request.line.ids.append(new_id)
                request.is_renewed = True
            else:
                self.refused_ids.append(new_id)
            saved(is_kept)

        call = client.keeper.rotate(request.state, previous)
        self.start(
            client,
            "rotate",
            call,
            then,
            self.may_be_gone(request.line, "rotate"),
            is_in_haste=haste,
        )

    # Rules: the end.

    @precondition(lambda self: self.holding())
    @rule(number=numbers, haste=haste)
    def log_out(self, number: int, *, haste: bool) -> None:
        client, request = chosen_request(self.holding(), number)
        line = request.line

        def then(_: None) -> None:
            client.request = None
            ended = line.last()
            if ended is not None:
                ended.is_dead = True
                return
            # Else its own principal has ended it, or is just doing so.
            assert line.is_over() or self.is_ending(line), "told of a logout that did not happen"

        def gone() -> None:
            assert line.follower is not None, "a logout was refused, and nobody logged in"

        self.start(
            client, "log out", client.keeper.delete(request.state), then, gone, is_in_haste=haste
        )

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
        client = chosen(self.running(), number)
        while client.task is not None:
            client.gate.let_through()
            self.settle(client)

    @precondition(lambda self: not self.running())
    @rule(seconds=st.sampled_from([4.0, GRACE]))
    def rest(self, seconds: float) -> None:
        self.clock.advance(seconds)

    # What is always so.

    @invariant()
    def what_is_kept_is_what_the_model_says(self) -> None:
        if self.running():
            return
        for line in self.lines[-6:]:
            found = self.kept_under(line.ids[-1])
            if line.is_dead:
                assert not isinstance(found, Record), "a session that has ended was revived"
                continue
            if line.is_over() and not isinstance(found, Former):
                continue
            kind = Record if line.follower is None else Former
            assert isinstance(found, kind), f"found {found} under an id that has a {kind}"
            data = found.data if isinstance(found, Record) else found.record.data
            tokens = tokens_in(data)
            assert line.must <= set(tokens) <= line.may
            assert set(tokens.values()) <= {1}
            assert data["line"] == line.number
        for session_id in self.refused_ids[-6:]:
            assert self.kept_under(session_id) is None, "a rotation that was given up left a record"

    def kept_under(self, session_id: str) -> object:
        stored = self.run(self.storage.load(session_id))
        return None if stored is None else decode(stored.payload)


class LoginsOnMemory(InMemory, LoginMachine):
    """On memory."""


class LoginsOnRedis(AtServer, LoginMachine):
    """On Redis."""

    kind = RedisStorage


class LoginsOnMemcached(AtServer, LoginMachine):
    """On memcached."""

    kind = MemcachedStorage


def put_in(session: Session, kind: str, number: int) -> str:
    """Put something in that was never there, and return its name."""
    token = f"t{number}"
    match kind:
        case "key":
            session[token] = number
        case "part":
            session.setdefault("cart", {}).setdefault("parts", {})[token] = number
        case _:
            session.setdefault("cart", {}).setdefault("list", []).append(token)
    return token


def chosen(clients: list[Client], number: int) -> Client:
    return clients[number % len(clients)]


def chosen_request(clients: list[Client], number: int) -> tuple[Client, Request]:
    client = chosen(clients, number)
    assert client.request is not None
    return client, client.request
