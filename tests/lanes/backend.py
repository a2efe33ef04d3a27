"""A storage that notes each call, can be slow, fail and be hung up on, and other processes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import Any, Final, TypeVar

from aiosess import CookieOptions, MemoryStorage
from aiosess.attributes import SessionCookie
from aiosess.errors import RecordError
from aiosess.records.bonds import Bond
from aiosess.records.format import Alias, Former, Record, decode, encode, encode_alias
from aiosess.storages import Stored, Version
from aiosess.testing import FakeClock, FaultyStorage

__all__ = ["Backend", "PunctualBackend", "Records", "TouchingBackend"]

T = TypeVar("T")

_REVISION: Final = re.compile(rb',"rev":"[^"]*"')
_STRANGE: Final = encode(
    "stranger",
    {"n": "a secret of somebody else"},
    SessionCookie(CookieOptions(secure=False)),
    created_at=1.0,
    now=1.0,
)


class Backend:
    """Passes each call on to a FaultyStorage, and tells *note* of it with what it was given.

    One that *is_slow* lets other tasks run before and after each call. What stands in ``at`` under
    a verb is done once, before the next such call. One that *is_mixing_up* answers the next read
    with a stranger's record.
    """

    def __init__(self, note: Callable[[str], None], clock: FakeClock, *, is_slow: bool) -> None:
        self.memory = MemoryStorage(clock=clock)
        self.faulty = FaultyStorage(self.memory)
        self.session_ids: dict[str, None] = {}
        self.at: dict[str, Callable[[], Awaitable[None]]] = {}
        self.is_mixing_up = False
        self._note = note
        self._is_slow = is_slow

    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        self.session_ids[session_id] = None
        told = f"create {session_id} for {ttl:g} s"
        return await self._pass("create", told, self.faulty.create(session_id, payload, ttl))

    async def load(self, session_id: str) -> Stored | None:
        return await self._pass("load", f"load {session_id}", self._load(session_id))

    async def _load(self, session_id: str) -> Stored | None:
        stored = await self.faulty.load(session_id)
        if self.is_mixing_up and stored is not None:
            self.is_mixing_up = False
            return Stored(_STRANGE, -1)
        return stored

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        call = self.faulty.replace(session_id, payload, ttl, expected=expected)
        return await self._pass("replace", f"replace {session_id} for {ttl:g} s", call)

    async def touch(self, session_id: str, ttl: float) -> bool:
        told = f"touch {session_id} for {ttl:g} s"
        return await self._pass("touch", told, self.faulty.touch(session_id, ttl))

    async def delete(self, session_id: str) -> bool:
        return await self._pass("delete", f"delete {session_id}", self.faulty.delete(session_id))

    async def _pass(self, verb: str, told: str, call: Awaitable[T]) -> T:
        self._note(told)
        if verb in self.at:
            await self.at.pop(verb)()
        # As at a server: what was sent is done, whether or not somebody still waits for the answer.
        doing = _sent(call) if self._is_slow else call
        if self._is_slow:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        try:
            result = await doing
        except Exception as error:
            self._note(f"... {type(error).__name__}")
            raise
        if self._is_slow:
            await asyncio.sleep(0)
        return result


def _sent(call: Awaitable[T]) -> asyncio.Future[T]:
    future = asyncio.ensure_future(call)
    # Nobody may be left to ask for the error.
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future


class PunctualBackend(Backend):
    """One that keeps to a time limit itself, so that nothing is put around it."""

    def within(self, timeout: float) -> PunctualBackend:  # noqa: ARG002 - it always answers
        return self


class TouchingBackend(PunctualBackend):
    """One that can read and touch in one call."""

    async def load_and_touch(self, session_id: str, ttl: float) -> tuple[Stored, bool] | None:
        told = f"load and touch {session_id} for {ttl:g} s"
        return await self._pass("load", told, self._load_and_touch(session_id, ttl))

    async def _load_and_touch(self, session_id: str, ttl: float) -> tuple[Stored, bool] | None:
        stored = await self._load(session_id)
        if stored is None:
            return None
        return stored, await self.faulty.storage.touch(session_id, ttl)


class Records:
    """The records in the back-end, written and read past the application that is looked at."""

    def __init__(self, backend: Backend, clock: FakeClock, cookie: CookieOptions) -> None:
        self._backend = backend
        self._memory = backend.memory
        self._clock = clock
        self._cookie = cookie

    async def keep(
        self,
        session_id: str,
        data: dict[str, Any],
        *,
        age: float = 0,
        own: dict[str, Any] | None = None,
        of: str | None = None,
        unknown: dict[str, Any] | None = None,
        bond: Bond | None = None,
    ) -> None:
        """Keep a record as aiosess writes it, *age* seconds after the session began.

        One that was written for the id *of*, where that is given, and with *unknown* besides.
        """
        payload = encode(
            of or session_id,
            data,
            SessionCookie(self._cookie, own or {}),
            created_at=self._clock() - age,
            now=self._clock(),
            unknown=unknown or {},
            bond=bond,
        )
        await self.put(session_id, payload)

    async def put(self, session_id: str, payload: bytes) -> None:
        """Keep *payload*, in the place of what there was."""
        self._backend.session_ids[session_id] = None
        await self._memory.delete(session_id)
        await self._memory.create(session_id, payload, 86_400)

    async def keep_by_express(self, session_id: str, data: dict[str, Any]) -> None:
        """Keep a record as express-session writes it."""
        age = self._cookie.max_age
        cookie = {
            "originalMaxAge": None if age is None else age * 1000,
            "expires": None if age is None else "2030-01-01T00:00:00.000Z",
            "httpOnly": True,
            "path": "/",
        }
        await self.put(session_id, json.dumps({"cookie": cookie, **data}).encode())

    async def lead(self, session_id: str, renewed_to: str, seconds: float) -> None:
        """Put what a renewal leaves in the place of the record; nowhere: the session ended."""
        await self.put(
            session_id, encode_alias(session_id, Alias(renewed_to, self._clock() + seconds))
        )

    async def change(self, session_id: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Write as another process does, under the id to which *session_id* leads."""
        stored = await self._memory.load(session_id)
        found = self._decoded(stored)
        if isinstance(found, Alias):
            await self.change(found.renewed_to, change)
        elif isinstance(found, Record) and stored is not None:
            change(found.data)
            payload = self._payload(
                session_id,
                found.data,
                found.created_at or self._clock(),
                found.own,
                bond=found.bond,
            )
            await self._memory.replace(session_id, payload, 86_400, expected=stored.version)

    async def renew(self, session_id: str, renewed_to: str) -> None:
        """Renew the id as another process does."""
        found = self._decoded(await self._memory.load(session_id))
        if isinstance(found, Record):
            await self.keep(renewed_to, found.data, bond=found.bond)
            await self.lead(session_id, renewed_to, 10)

    async def delete(self, session_id: str) -> None:
        """Delete the record, and not the one to which it leads."""
        await self._memory.delete(session_id)

    async def shown(self) -> list[str]:
        """Return all that is kept, a line for each record, in the order in which they came."""
        lines: list[str] = []
        for session_id in self._backend.session_ids:
            stored = await self._memory.load(session_id)
            if stored is not None:
                lines.append(f"kept {session_id}: {self._shown(stored)}")
        return lines

    def _shown(self, stored: Stored) -> str:
        found = self._decoded(stored)
        if found is not None:
            return _in_full(found)
        # Whatever it was that was written, it has a revision by chance.
        return repr(_REVISION.sub(b"", stored.payload))

    def _decoded(self, stored: Stored | None) -> Record | Alias | Former | None:
        if stored is None:
            return None
        try:
            return decode(stored.payload)
        except RecordError:
            return None

    def _payload(
        self,
        session_id: str,
        data: dict[str, Any],
        created_at: float,
        own: dict[str, Any],
        *,
        bond: Bond | None,
    ) -> bytes:
        cookie, now = SessionCookie(self._cookie, own), self._clock()
        return encode(session_id, data, cookie, created_at=created_at, now=now, bond=bond)


def _in_full(found: Record | Alias | Former) -> str:
    """Return all that *found* says, which shows none of it by itself."""
    names = found._fields if isinstance(found, Record) else [f.name for f in fields(found)]
    values = {name: getattr(found, name) for name in names}
    said = {
        name: _in_full(value) if isinstance(value, Record) else value
        for name, value in values.items()
    }
    return f"{type(found).__name__} {said!r}"
