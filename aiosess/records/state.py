"""All that is known of one session in one request: what was read, what was changed, what is wanted."""

from __future__ import annotations

import copy
import enum
from typing import Any, Final, Self

from msgspec import Struct

from aiosess.attributes import SessionCookie
from aiosess.records.format import COOKIE_KEY, Record, check_value, decode_value
from aiosess.records.merge import MISSING, Changes, Lost, Merge, Original, freeze, merged
from aiosess.records.refill import refill
from aiosess.storages import Version

__all__ = ["Intent", "SessionState"]

# Any record can hold a str, and any int that is smaller.
_LARGE: Final = 2**63


class Intent(enum.Enum):
    """What the handler wants of its session, beyond the data."""

    KEEP = enum.auto()
    """Keep it under the id it has."""
    RENEW = enum.auto()
    """A new id, the same data."""
    REGENERATE = enum.auto()
    """A new id, empty; the old record is deleted."""
    EMPTY = enum.auto()
    """Delete the record, unless there are data again at the end."""
    DESTROY = enum.auto()
    """Delete the record."""


# A Struct is made in C; a dataclass would take a function in Python for each.
class SessionState(Struct):
    """All that is known of one session in one request; plain values, no I/O.

    - ``version``: of the record as it was read or written last; ``None``: there is none yet.
    - ``originals``: of each key that was handed out or set, the value as it was read.
    - ``written``, ``written_own``: what of them was changed, and the cookie's own attributes, as
      they were when the payload that is under way, or was last, was made.
    - ``previous``: the session as it was under the old id, after the id was changed.
    - ``stale_id``: the id that the browser came with, where it had no record that can be used.
    - ``unconfirmed``: the payload of a creation that got no answer, and may have happened.
    - ``touched_at``: when the record was touched as it was read; ``None``: it was only read.
    - ``is_alias``: the request came with an id that was renewed a moment ago.
    - ``is_gone``: the record was destroyed or has expired since it was read.
    - ``is_plain``: the record lives as long as most, and nothing was done but to read data and to
      change some: ``originals`` tells all. Who does anything else takes this back.
    """

    session_id: str
    cookie: SessionCookie
    created_at: float
    data: dict[str, Any] = {}
    version: Version | None = None
    original_own: dict[str, Any] = {}
    originals: dict[str, Original] = {}
    written: dict[str, Original] | None = None
    written_own: dict[str, Any] | None = None
    intent: Intent = Intent.KEEP
    previous: SessionState | None = None
    stale_id: str | None = None
    unconfirmed: bytes | None = None
    is_marked: bool = False
    touched_at: float | None = None
    is_alias: bool = False
    is_gone: bool = False
    is_plain: bool = False

    @property
    def is_new(self) -> bool:
        """Ask whether nothing is kept under the id yet."""
        return self.version is None

    @property
    def may_be_modified(self) -> bool:
        """Ask whether the handler did anything but read scalars; what it did may be undone."""
        return (
            bool(self.originals)
            or self.is_marked
            or self.intent is not Intent.KEEP
            or self.cookie.own != self.original_own
        )

    @property
    def is_modified(self) -> bool:
        """Ask whether there is something to write. Raise UnserializableValue where there cannot."""
        return self.is_marked or self.cookie.own != self.original_own or bool(self._changed())

    def changes(self) -> Changes:
        """Return what was changed since the record was read, by top-level key.

        Raise UnserializableValue for a value that a record cannot hold.
        """
        originals, data = self.originals, self.data
        return {key: (originals[key], data.get(key, MISSING)) for key in self._changed()}

    def writing(self) -> bool:
        """Take note of what is about to be written: what changes from here on is not in it.

        Return whether any of the data was changed. Raise UnserializableValue as changes() does.
        """
        self.written = self._changed()
        self.written_own = self.cookie.own.copy()
        return bool(self.written)

    def saved(self, version: Version) -> None:
        """Take note that it was written: changes since ``writing()`` are still to be saved."""
        self.version = version
        self.is_marked = False
        if self.written is None or self.written_own is None:
            raise RuntimeError("a session was saved without writing()")
        self.original_own = self.written_own
        data, originals = self.data, self.originals
        for key, original in self.written.items():
            if data.get(key, MISSING) is original:
                originals.pop(key, None)
            else:
                # Or a container, which the handler may still hold and change.
                originals[key] = original

    def _changed(self) -> dict[str, Original]:
        """Return the values that were changed, as they are now."""
        changed: dict[str, Original] = {}
        data = self.data
        for key, original in self.originals.items():
            value = data.get(key, MISSING)
            if value is original:
                continue
            kind = value.__class__
            if not (kind is str or (kind is int and -_LARGE < value < _LARGE) or value is MISSING):
                check_value(value, f"session[{key!r}]")
                value = freeze(value)
            if value.__class__ is not original.__class__ or value != original:
                changed[key] = value
        return changed

    def rebase(
        self,
        record: Record,
        version: Version,
        merge: Merge,
        whole: frozenset[str] = frozenset(),
    ) -> list[Lost]:
        """Put this request's changes on top of a newer *record*; return the changes that lost.

        Those of the cookie's attributes have paths that begin with ``"cookie"``. A container that
        the handler holds is changed, not replaced. Raise MergeConflict where *merge* says so;
        nothing has changed then.
        """
        kept, lost = merged(self.changes(), record.data, merge, whole)
        own_changes: Changes = {
            name: (self.original_own.get(name, MISSING), self.cookie.own.get(name, MISSING))
            for name in self.original_own.keys() | self.cookie.own.keys()
        }
        own_changes = {n: (was, now) for n, (was, now) in own_changes.items() if was != now}
        their_own = record.own_attributes(self.cookie.base)
        # A function of the application's knows its data, not the cookie's attributes.
        own, own_lost = merged(own_changes, their_own, "mine" if callable(merge) else merge)
        for key in self.originals:
            self.originals[key] = freeze(record.data.get(key, MISSING))
        data = record.data | kept
        refill(self.data, {key: value for key, value in data.items() if value is not MISSING})
        self.original_own = dict(their_own)
        self.cookie.own.clear()
        self.cookie.own.update(their_own)
        for name, value in own.items():
            _put(self.cookie.own, name, value)
        self.version = version
        return lost + [Lost((COOKIE_KEY, *path), side) for path, side in own_lost]

    def copied(self, **changes: Any) -> Self:
        """Return a copy in which *changes* are other than here."""
        other = copy.copy(self)
        for name, value in changes.items():
            setattr(other, name, value)
        return other

    def leave_for(self, session_id: str) -> None:
        """Go on under another id; what is kept under this one becomes ``previous``."""
        if self.version is not None:
            self.previous = self.copied(
                cookie=SessionCookie(self.cookie.base, dict(self.cookie.own)),
                data=dict(self.data),
                # What is changed inside a container under the new id can then be rolled back.
                originals={
                    key: self.originals[key] if key in self.originals else freeze(value)
                    for key, value in self.data.items()
                }
                | self.originals,
            )
        self.session_id = session_id
        self.version = None

    def start_over(self, now: float) -> None:
        """Forget all data, as a session that begins *now*."""
        self.data.clear()
        self.originals.clear()
        self.cookie.own.clear()
        self.original_own = {}
        self.created_at = now
        self.is_alias = self.is_marked = self.is_gone = False

    def part_for(self, session_id: str, now: float) -> None:
        """Go on alone under another id, with nothing but what this request has changed."""
        values = {key: value for key, (_, value) in self.changes().items() if value is not MISSING}
        self.session_id = session_id
        self.version = None
        self.start_over(now)
        self.data.update(values)
        self.originals.update(dict.fromkeys(values, MISSING))
        self.is_marked = True

    def rollback(self) -> None:
        """Forget what this request did: data, cookie, id and intent are as they were read."""
        before = self.previous
        if before is not None:
            self.session_id, self.version = before.session_id, before.version
            self.created_at, self.is_alias = before.created_at, before.is_alias
            self.data.clear()
            self.data.update(before.data)
            self.originals = before.originals
            self.original_own = before.original_own
            self.previous = None
        for key, original in self.originals.items():
            _put(
                self.data, key, decode_value(original) if isinstance(original, bytes) else original
            )
        self.originals.clear()
        self.cookie.own.clear()
        self.cookie.own.update(self.original_own)
        self.is_marked = False
        self.intent = Intent.KEEP


def _put(target: dict[str, Any], key: str, value: Any) -> None:
    if value is MISSING:
        target.pop(key, None)
    else:
        target[key] = value
