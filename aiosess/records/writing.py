"""A write whose answer was lost may have happened: the next one that meets it knows it again."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from aiosess.errors import Conflict, IdTaken, RecordTooLarge, StorageUnavailable
from aiosess.privacy import private
from aiosess.records.changes import Snapshot
from aiosess.records.format import encode, encode_value, largest_keys
from aiosess.records.lifetime import LEAST_TTL, Lifetime
from aiosess.records.state import SessionState
from aiosess.storages import Storage, Stored, Version

__all__ = ["Writing", "Written"]

# So many writes without an answer are remembered, each with its payload.
_MOST_DOUBTS: Final = 8
# So many keys are named of a record that is too large.
_MOST_NAMED: Final = 3


@private()
class Written(NamedTuple):
    """What was written, and the version that it has there."""

    version: Version
    snapshot: Snapshot
    payload: bytes

    @property
    def stored(self) -> Stored:
        """The record, as one that was read."""
        return Stored(self.payload, self.version)


class Writing:
    """Writes the records of sessions to *storage*.

    *max_size* is in bytes. Each payload has a random revision inside, so that no two writes are
    ever the same bytes. Where a payload of ours is kept that got no answer, it was written by us,
    and makes way.
    """

    def __init__(self, storage: Storage, lifetime: Lifetime, *, max_size: int) -> None:
        self.max_size: int = max_size
        self._storage = storage
        self._lifetime = lifetime

    async def create(self, state: SessionState) -> Written:
        """Keep *state* under its id; IdTaken when there is a record that is not ours."""
        snapshot = state.snapshot()
        payload = self.encoded(state)
        try:
            version = await self._create(state, payload)
        except (StorageUnavailable, asyncio.CancelledError):
            self.doubt(state, payload)
            raise
        return Written(version, snapshot, payload)

    async def replace(self, state: SessionState) -> Written:
        """Put *state* in the place of its version; Conflict where another is kept, or none."""
        snapshot = state.snapshot()
        payload = self.encoded(state)
        try:
            version = await self._storage.replace(
                state.session_id, payload, self._ttl(state), expected=state.version
            )
        except Conflict as conflict:
            return await self.known_again(state, conflict, payload, snapshot)
        except (StorageUnavailable, asyncio.CancelledError):
            self.doubt(state, payload)
            raise
        return Written(version, snapshot, payload)

    async def known_again(
        self, state: SessionState, conflict: Conflict, payload: bytes, snapshot: Snapshot
    ) -> Written:
        """Return what was written where *conflict* is with a write of ours; else raise it."""
        stored = conflict.current
        if stored is None or not _is_ours(state, stored, payload):
            raise conflict
        try:
            version = await self._write_over(state, stored, payload)
        except (StorageUnavailable, asyncio.CancelledError):
            self.doubt(state, payload)
            raise
        return Written(version, snapshot, payload)

    async def replace_bytes(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        """Put *payload* in the place of *expected*; Conflict where another is kept, or none."""
        try:
            return await self._storage.replace(session_id, payload, ttl, expected=expected)
        except Conflict as conflict:
            current = conflict.current
            if current is None or current.payload != payload:
                raise
            return current.version

    def saved(self, state: SessionState, written: Written) -> None:
        """Take note of what was written."""
        state.saved(written.version, written.snapshot)
        self._lifetime.touched.add(state.session_id)

    def doubt(self, state: SessionState, payload: bytes) -> None:
        """Take note that *payload* got no answer, and may have been written all the same."""
        state.unconfirmed = (*state.unconfirmed[1 - _MOST_DOUBTS :], payload)

    async def _create(self, state: SessionState, payload: bytes) -> Version:
        try:
            return await self._storage.create(state.session_id, payload, self._ttl(state))
        except IdTaken:
            stored = await self._storage.load(state.session_id)
            if stored is None or not _is_ours(state, stored, payload):
                raise
            return await self._write_over(state, stored, payload)

    async def _write_over(self, state: SessionState, stored: Stored, payload: bytes) -> Version:
        """Put *payload* in the place of a write of ours, unless that is this very one."""
        if stored.payload == payload:
            return stored.version
        return await self.replace_bytes(
            state.session_id, payload, self._ttl(state), expected=stored.version
        )

    def encoded(self, state: SessionState) -> bytes:
        """Return the payload of *state*, whose values were checked; RecordTooLarge above the limit.

        A record that is above it already may be written where its data have not grown.
        """
        payload = encode(
            state.session_id,
            state.data,
            state.cookie,
            created_at=state.created_at,
            now=self._lifetime.now(),
            authenticated_at=state.authenticated_at,
            former_id=state.former_id,
            renewed_at=state.renewed_at,
            unknown=state.unknown,
            bond=state.bond,
        )
        if len(payload) > self.max_size and _has_grown(state):
            keys = largest_keys(state.data, _MOST_NAMED)
            raise RecordTooLarge(size=len(payload), limit=self.max_size, keys=keys)
        return payload

    def _ttl(self, state: SessionState) -> float:
        return max(self._lifetime.ttl(state), LEAST_TTL)


def _is_ours(state: SessionState, stored: Stored, payload: bytes) -> bool:
    return stored.payload == payload or stored.payload in state.unconfirmed


def _has_grown(state: SessionState) -> bool:
    """Ask whether the data take more bytes than they did when they were read."""
    before = (state.previous or state).apart()
    before.rollback()
    return before.is_new or len(encode_value(state.data)) > len(encode_value(before.data))
