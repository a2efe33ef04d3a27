"""A back-end that replies what it should not: a right answer or an error, and nobody's data."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from hypothesis import strategies as st

from aiosess import Conflict, CookieOptions, StorageError, StorageUnavailable
from aiosess.attributes import SessionCookie
from aiosess.events import Events
from aiosess.records.format import encode
from aiosess.records.marks import MarkedStorage
from tests.fuzz.records import mutated

__all__ = ["IDS", "PREFIX", "Fake", "Fault", "Script", "play", "scripts"]

PREFIX: Final = "sess:"
IDS: Final = ("apple-Tq5x", "pear-Hc0v", "plum-Zk9d")

# Seconds that a call may take, and what it may take with connecting and asking once more.
_LIMIT: Final = 1.0
_MOST: Final = 10.0
# After which an answer may be anybody's guess, but never another's record.
_HARMLESS: Final = frozenset({"right", "split"})


class Fault(NamedTuple):
    """What becomes of one reply; *at* is a place in it, *piece* what stands there instead."""

    kind: str = "right"
    at: int = 0
    piece: bytes = b""


class Act(NamedTuple):
    """What is asked, of which record, and whether it is given up at once."""

    verb: str
    number: int
    is_given_up: bool


class Script(NamedTuple):
    """What is asked, in batches of what is asked at once, and what becomes of the replies."""

    batches: list[list[Act]]
    faults: list[Fault]
    greetings: list[Fault]


_KINDS: Final = (
    *("right", "split", "lost", "twice", "held", "another's", "cut", "short", "changed"),
    *("garbage", "before", "after", "closed", "silent"),
)


def scripts(pieces: Sequence[bytes]) -> st.SearchStrategy[Script]:
    """Return scripts in which *pieces* stand in the place of replies."""
    piece = st.one_of(st.sampled_from(pieces), st.binary(max_size=5))
    fault = st.builds(Fault, st.sampled_from(_KINDS), st.integers(0, 300), piece)
    act = st.builds(
        Act,
        st.sampled_from(["load", "load", "load", "touch", "read", "afresh", "create", "replace"]),
        st.integers(0, len(IDS) - 1),
        st.sampled_from([False] * 7 + [True]),
    )
    return st.builds(
        Script,
        st.lists(st.lists(act, min_size=1, max_size=5), min_size=1, max_size=4),
        st.lists(st.one_of(st.just(Fault()), fault), max_size=8),
        st.one_of(st.just([]), st.just([]), st.lists(fault, max_size=4)),
    )


@cache
def payload(session_id: str, number: int) -> bytes:
    """Return the record of *session_id* as it is after so many writes."""
    data = {"whose": session_id, "number": number, "filling": "x" * len(session_id)}
    cookie = SessionCookie(CookieOptions(secure=False))
    return encode(session_id, data, cookie, created_at=1.0, now=2.0)


class Fake(ABC):
    """A server over a socket of the file system, with one record under each id."""

    def __init__(self, script: Script) -> None:
        self.records = {_key(each): payload(each, 0) for each in IDS}
        self.held = {key: {kept} for key, kept in self.records.items()}
        self.is_honest = True
        self.faults = list(script.faults)
        self.greetings = list(script.greetings)
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    def storage(self, path: str) -> Any:
        """Return a storage whose server is at *path*."""

    @abstractmethod
    async def talk(self, reader: asyncio.StreamReader, line: Line) -> None:
        """Reply to each command of a connection, until EOFError."""

    def write(self, key: bytes, written: bytes) -> None:
        """Keep what a client has sent."""
        self.records[key] = written
        self.held[key].add(written)

    def other(self, key: bytes) -> bytes:
        """Return the key of another record."""
        keys = list(self.records)
        return keys[(keys.index(key) + 1) % len(keys)] if key in keys else keys[0]

    def next(self, *, is_greeting: bool = False) -> Fault:
        """Return what becomes of the next reply."""
        left = self.greetings if is_greeting else self.faults
        fault = left.pop(0) if left else Fault()
        self.is_honest = self.is_honest and fault.kind in _HARMLESS
        return fault

    def stop(self) -> None:
        """Reply as a server should from now on."""
        self.faults.clear()
        self.greetings.clear()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[str]:
        """Give the path of the socket."""
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "s")
            server = await asyncio.start_unix_server(self._serve, path)
            try:
                yield path
            finally:
                server.close()
                for task in self._tasks:
                    task.cancel()
                if self._tasks:
                    await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(EOFError, OSError, asyncio.CancelledError):
                await self.talk(reader, Line(writer))
        finally:
            self._tasks.discard(task)
            writer.close()


def _is_anothers(fault: Fault) -> bool:
    """Ask whether a whole record comes by this fault."""
    return fault.kind == "another's" or b"whose" in fault.piece


def _made_of(reply: bytes, others: bytes, fault: Fault) -> bytes:
    """Return what is sent in the place of *reply*."""
    at, piece = fault.at % (len(reply) + 1), fault.piece
    return {
        "right": reply,
        "lost": b"",
        "closed": b"",
        "twice": reply + reply,
        "another's": others,
        "cut": reply[:at],
        "short": reply[:at],
        "changed": mutated(reply, [(at, len(piece), piece)]),
        "garbage": piece,
        "before": piece + reply,
        "after": reply + piece,
    }[fault.kind]


class Line:
    """One connection, on which replies go out as the script says."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._held = b""
        self._is_silent = False
        self._has_replied = False

    async def greet(self, reply: bytes, fault: Fault) -> None:
        """Send *reply* to what a client says first."""
        await self._say(reply, reply, Fault() if _is_anothers(fault) else fault)

    async def say(self, reply: bytes, others: bytes, fault: Fault) -> None:
        """Send *reply*, *others* where the fault is that, or whatever the fault makes of it.

        The first reply on a connection is nobody else's: no other came before that is mixed up.
        """
        is_first, self._has_replied = not self._has_replied, True
        await self._say(reply, others, Fault() if is_first and _is_anothers(fault) else fault)

    async def _say(self, reply: bytes, others: bytes, fault: Fault) -> None:
        self._is_silent = self._is_silent or fault.kind == "silent"
        if self._is_silent:
            return
        if fault.kind == "held":
            self._held += reply
            return
        if fault.kind == "split":
            await self._split(reply, 1 + fault.at % 40)
        else:
            self._send(_made_of(reply, others, fault))
        if fault.kind in {"cut", "closed"}:
            raise EOFError
        held, self._held = self._held, b""
        self._send(held)

    def _send(self, data: bytes) -> None:
        if self._writer.is_closing():
            raise EOFError
        self._writer.write(data)

    async def _split(self, reply: bytes, size: int) -> None:
        for start in range(0, len(reply), size):
            self._send(reply[start : start + size])
            await asyncio.sleep(0)
            await asyncio.sleep(0)


async def play(fake: Fake, script: Script) -> None:
    """Ask what the script says, and look at each answer; in the end, all are right again."""
    async with fake.running() as path:
        storage = fake.storage(path).within(_LIMIT)
        try:
            played = _Played(fake, storage)
            for batch in script.batches:
                await asyncio.gather(*map(played.one, batch))
            fake.stop()
            await _until_right(fake, played.marked)
        finally:
            await storage.close()


async def _until_right(fake: Fake, marked: MarkedStorage) -> None:
    """Look whether each record is to be had again, after a few calls that may fail."""
    right: list[bool] = []
    for _ in range(4):
        await asyncio.sleep(3)
        right = []
        for session_id in IDS:
            try:
                stored = await marked.load(session_id)
            except StorageError:
                right.append(False)
            else:
                kept = fake.records[_key(session_id)]
                right.append(stored is not None and stored.payload == kept)
    assert all(right), f"the answers stay wrong: {right}"


class _Played:
    def __init__(self, fake: Fake, storage: Any) -> None:
        self.marked = MarkedStorage(storage, Events())
        self._fake = fake
        self._storage = storage
        self._versions: dict[str, Any] = {}
        self._writes = 0

    async def one(self, act: Act) -> None:
        session_id = IDS[act.number]
        loop = asyncio.get_running_loop()
        began = loop.time()
        task = asyncio.ensure_future(self._asked(act.verb, session_id))
        if act.is_given_up:
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait([task])
        assert loop.time() - began <= _MOST, f"{act.verb} took {loop.time() - began:g} s"
        if task.cancelled():
            assert act.is_given_up
            return
        error = task.exception()
        if error is not None:
            self._look_at(session_id, error)

    async def _asked(self, verb: str, session_id: str) -> None:
        match verb:
            case "load":
                stored = await self.marked.load(session_id)
            case "afresh":
                stored = await self._storage.load_afresh(
                    session_id, agrees=lambda _: self._fake.is_honest
                )
                stored = await self.marked.own(session_id, stored)
            case "read" if hasattr(self._storage, "load_and_touch"):
                loaded = await self._storage.load_and_touch(session_id, 60)
                stored = await self.marked.own(session_id, loaded and loaded[0])
            case "create":
                await self.marked.create(session_id, self._new(session_id), 60)
                assert not self._fake.is_honest
                return
            case "replace":
                expected = self._versions.get(session_id)
                await self.marked.replace(session_id, self._new(session_id), 60, expected=expected)
                return
            case _:
                is_there = await self.marked.touch(session_id, 60)
                assert is_there or not self._fake.is_honest
                return
        self._look(session_id, stored)
        if stored is not None:
            self._versions[session_id] = stored.version

    def _new(self, session_id: str) -> bytes:
        self._writes += 1
        return payload(session_id, self._writes)

    def _look_at(self, session_id: str, error: BaseException) -> None:
        if not isinstance(error, StorageError):
            raise error
        for each in IDS:
            assert each not in str(error), error
        if self._fake.is_honest:
            assert not isinstance(error, StorageUnavailable), error
        if isinstance(error, Conflict) and error.current is not None:
            self._look(session_id, error.current)

    def _look(self, session_id: str, stored: Any) -> None:
        """Raise an AssertionError where *stored* was never kept under the id."""
        if stored is None:
            assert not self._fake.is_honest
            return
        held = self._fake.held
        if stored.payload in held[_key(session_id)]:
            return
        assert not self._fake.is_honest
        # What was changed on the way may be anything, but for what is another's.
        with contextlib.suppress(ValueError, RecursionError):
            data = json.loads(stored.payload)
            is_anothers = isinstance(data, dict) and data.get("whose") not in {None, session_id}
            assert not is_anothers, data


def _key(session_id: str) -> bytes:
    return (PREFIX + session_id).encode()
