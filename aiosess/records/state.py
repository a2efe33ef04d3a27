"""All that is known of one session in one request: what was read, changed, and is wanted of it."""

from __future__ import annotations

import copy
import enum
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Self

from msgspec import Struct

from aiosess.attributes import SessionCookie
from aiosess.privacy import private
from aiosess.records.bonds import Bond
from aiosess.records.changes import JSON, Snapshot, Values, put
from aiosess.records.format import COOKIE_KEY, NOTHING, Record
from aiosess.records.merge import (
    MISSING,
    NO_SHAPES,
    Changes,
    Data,
    Lost,
    Merge,
    Original,
    is_container,
    merged,
)
from aiosess.records.migration import version_only
from aiosess.records.refill import refill
from aiosess.records.shapes import Shape
from aiosess.records.typed import SessionKey
from aiosess.records.views import Views
from aiosess.storages import Version

__all__ = ["Intent", "Past", "Seen", "SessionState", "Standing"]


class Intent(enum.Enum):
    """What the handler wants of its session, beyond the data."""

    KEEP = enum.auto()
    """Keep it under the id it has."""
    RENEW = enum.auto()
    """A new id, the same data: rights change, and the old id shows what was before."""
    ROTATE = enum.auto()
    """A new id, the same data: for now and then, and the old id leads to it for a while."""
    REGENERATE = enum.auto()
    """A new id, empty; the old record is deleted."""
    EMPTY = enum.auto()
    """Delete the record, unless there are data again at the end."""
    DESTROY = enum.auto()
    """Delete the record."""


class Standing(enum.Enum):
    """What the id that the request came with is to the session."""

    LIVE = enum.auto()
    """The id under which it is kept."""
    ALIAS = enum.auto()
    """An id that was rotated away: it leads to the session."""
    FORMER = enum.auto()
    """The id from before a change of rights: it shows what was before, and changes nothing."""
    ANONYMOUS = enum.auto()
    """No id: the session is empty, because the storage cannot give the one that came."""


_ENDS: Final = frozenset({Intent.REGENERATE, Intent.EMPTY, Intent.DESTROY})


class Past(enum.Enum):
    """What lies behind a session that was handed out."""

    CONCLUDED = enum.auto()
    """The response is made: what changes now is late."""
    DESTROYED = enum.auto()
    """The session is over: nothing can be put in."""


@private()
class Seen(NamedTuple):
    """How the data of a session were: of what was handed out or set, the value then, frozen."""

    version: Version | None
    values: dict[str, Original]


# A Struct is made in C; a dataclass would take a function in Python for each.
@private("standing", "intent")
class SessionState(Struct):
    """All that is known of one session in one request; plain values, no I/O.

    - ``version``: of the record as it was read or written last; ``None``: there is none yet.
    - ``originals``: of each key that was handed out or set, the value as it was read.
    - ``original_own``: the cookie's own attributes as they were read.
    - ``previous``: the session as it was under the old id, after the id was changed.
    - ``stale_id``: the id that the browser came with, where it had no record that can be used.
    - ``unconfirmed``: the payloads that got no answer and may have been written all the same.
    - ``is_renewal_due``: the id went over a connection without TLS, and this one has it.
    - ``must_be_written``: the session is written even where nothing seems to have changed.
    - ``touched_at``: when the record was touched as it was read, by the steady clock of its
      lifetime; ``None``: it was only read.
    - ``standing``: what the id that the request came with is to the session.
    - ``authenticated_at``: when the principal was last authenticated; ``None``: never.
    - ``authenticated_before``: the same, as it was before the session was emptied.
    - ``instants``: how the record says both; empty where that was not looked at.
    - ``former_id``: the id from before a change of rights, until the new one was first used.
    - ``renewed_at``: when the id was last changed; ``None``: never, or not written down.
    - ``unknown``: what is written beside all that, and carried along: the application's version,
      and what a newer aiosess remembers. ``beginning``: what that is of a session that begins.
    - ``bond``: whose it is, as this request has it; ``None``: nobody's. ``kept_bond``: whose it is
      as it is kept.
    - ``listed``: under which id the index of a principal knows a bond that is not kept yet, since
      when, and until when at the latest, as Unix time.
    - ``entered``: the bonds by which indexes were told to name it, and which may not be kept.
    - ``views``: the values that were asked for by a ``SessionKey``; ``None``: none was.
    - ``is_gone``: the record was destroyed or has expired since it was read.
    - ``past``: what lies behind it; ``None`` while the handler is under way.
    - ``only_data``: the record lives as long as most, and nothing was done but to read data and to
      change some: ``originals`` tells all. Whoever does anything else calls ``beyond_data()``.
    """

    session_id: str
    cookie: SessionCookie
    created_at: float
    data: dict[str, Any] = {}
    version: Version | None = None
    original_own: dict[str, Any] = {}
    originals: dict[str, Original] = {}
    intent: Intent = Intent.KEEP
    previous: SessionState | None = None
    stale_id: str | None = None
    unconfirmed: tuple[bytes, ...] = ()
    must_be_written: bool = False
    touched_at: float | None = None
    standing: Standing = Standing.LIVE
    authenticated_at: float | None = None
    authenticated_before: float | None = None
    instants: bytes = b""
    former_id: str | None = None
    renewed_at: float | None = None
    unknown: Mapping[str, Any] = NOTHING
    beginning: Mapping[str, Any] = NOTHING
    bond: Bond | None = None
    kept_bond: Bond | None = None
    listed: tuple[str, float, float] = ("", 0.0, 0.0)
    entered: tuple[Bond, ...] = ()
    views: Views | None = None
    is_renewal_due: bool = False
    is_gone: bool = False
    only_data: bool = False
    values: Values = JSON
    past: Past | None = None

    @property
    def is_new(self) -> bool:
        """Whether nothing is kept under the id yet."""
        return self.version is None

    @property
    def is_stored(self) -> bool:
        """Whether there is a record, under this id or under the one before it."""
        return self.version is not None or self.previous is not None

    @property
    def is_overtaken(self) -> bool:
        """Whether somebody logged in since, or before, the session was read."""
        return self.standing is Standing.FORMER

    @property
    def may_be_modified(self) -> bool:
        """Whether anything was done but to read scalars; what was done may have been undone."""
        return (
            bool(self.originals)
            or self.must_be_written
            or self.intent is not Intent.KEEP
            or self.cookie.own != self.original_own
        )

    @property
    def is_modified(self) -> bool:
        """Whether there is something to write. Raise UnserializableValue where there cannot."""
        return self.must_be_written or self.is_changed

    @property
    def is_bond_changed(self) -> bool:
        """Whether this request has bound the session, or ended that."""
        return self.bond != self.kept_bond

    @property
    def is_changed(self) -> bool:
        """Whether the handler changed anything. Raise UnserializableValue as is_modified does."""
        data = self.data if self.views is None else self.data | self.views.changed(self.data)
        return self.cookie.own != self.original_own or bool(
            self.values.changed(self.originals, data)
        )

    @property
    def is_still_to_end(self) -> bool:
        """Whether there is a record that the handler wants to be gone."""
        before = self.previous
        is_to_end = self.intent in _ENDS or (before is not None and before.intent in _ENDS)
        return is_to_end and self.is_stored

    def beyond_data(self) -> None:
        """Take note that more is done to the session than to read its data and change some."""
        self.only_data = False

    def viewed(self, key: SessionKey[Any]) -> Views:
        """Return the values that were asked for by a key, *key* among them."""
        if self.views is None:
            self.views = Views(self.values)
        self.views.keys[key.name] = key
        return self.views

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """How the values look, by key, that were asked for by a ``SessionKey``."""
        return NO_SHAPES if self.views is None else self.views.shapes

    def gather(self) -> None:
        """Put into the data what was changed inside typed values.

        Raise UnserializableValue for one that cannot be kept.
        """
        if self.views is not None:
            self.views.put_into(self.data)

    def changes(self) -> Changes:
        """Return what was changed since the record was read, by top-level key.

        Raise UnserializableValue for a value that a record cannot hold.
        """
        self.gather()
        originals, data = self.originals, self.data
        changed = self.values.changed(originals, data)
        return {key: (originals[key], data.get(key, MISSING)) for key in changed}

    def snapshot(self) -> Snapshot:
        """Return what is about to be written. Raise UnserializableValue as changes() does."""
        self.gather()
        return Snapshot(self.values.changed(self.originals, self.data), self.cookie.own.copy())

    def saved(self, version: Version, snapshot: Snapshot) -> None:
        """Take note that *snapshot* was written: what changed since then is still to be saved."""
        self.must_be_written = False
        self.kept_bond = self.bond
        self.authenticated_before = self.authenticated_at
        self.original_own = snapshot.own
        self.unconfirmed = ()
        self.kept(version, snapshot.values)
        self._watch_views()

    def kept(self, version: Version, values: dict[str, Original]) -> None:
        """Take note that of the data *values* were written."""
        self.version = version
        data, originals = self.data, self.originals
        for key, original in values.items():
            if data.get(key, MISSING) is original:
                originals.pop(key, None)
            else:
                # Or a container, which the handler may still hold and change.
                originals[key] = original

    def deleted(self) -> None:
        """Take note that nothing is kept any more, under this id or the one before."""
        self.version = self.previous = self.views = None
        self.bond = self.kept_bond = None
        self.originals.clear()
        self.original_own = dict(self.cookie.own)
        self.must_be_written = False
        self.unconfirmed = ()

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
        kept, lost = merged(self.changes(), record.data, merge, whole, self.shapes)
        own_changes: Changes = {
            name: (self.original_own.get(name, MISSING), self.cookie.own.get(name, MISSING))
            for name in self.original_own.keys() | self.cookie.own.keys()
        }
        own_changes = {n: (was, now) for n, (was, now) in own_changes.items() if was != now}
        their_own = record.own_attributes(self.cookie.base)
        # A function of the application's knows its data, not the cookie's attributes.
        own, own_lost = merged(own_changes, their_own, "mine" if callable(merge) else merge)
        for key in self.originals:
            self.originals[key] = self.values.freeze(record.data.get(key, MISSING))
        data = record.data | kept
        refill(self.data, {key: value for key, value in data.items() if value is not MISSING})
        self._follow()
        self.original_own = dict(their_own)
        self.cookie.own.clear()
        self.cookie.own.update(their_own)
        for name, value in own.items():
            put(self.cookie.own, name, value)
        self.version = version
        self.unknown = record.unknown
        if self.bond == self.kept_bond:
            self.bond = record.bond
        self.kept_bond = record.bond
        return lost + [Lost((COOKIE_KEY, *path), side) for path, side in own_lost]

    def seen(self) -> Seen:
        """Return how the data are now, for changed_since(). Raise as gather() does."""
        self.gather()
        frozen = {key: self.values.freeze(self.data.get(key, MISSING)) for key in self.originals}
        return Seen(self.version, frozen)

    def changed_since(self, seen: Seen) -> Changes:
        """Return what was changed since *seen*, and is not saved."""
        self.gather()
        was = seen.values if seen.version == self.version else {}
        before = {key: was.get(key, original) for key, original in self.originals.items()}
        changed = self.values.changed(before, self.data)
        # What was only taken back since is no change.
        changed = self.values.changed({key: self.originals[key] for key in changed}, self.data)
        return {key: (before[key], self.data.get(key, MISSING)) for key in changed}

    def replaced_by(self, newest: SessionState, kept: Data) -> None:
        """Forget what this request did but for *kept*, and be what *newest* says of the record.

        A container that the handler holds is changed, not replaced, where its values allow it.
        """
        held = [key for key in self.originals if is_container(self.data.get(key))]
        self.originals = {
            key: self.values.freeze(newest.data.get(key, MISSING)) for key in (*held, *kept)
        }
        data = newest.data | kept
        self.values.fill(
            self.data, {key: value for key, value in data.items() if value is not MISSING}
        )
        self._follow()
        self.previous = None
        self.cookie.own.clear()
        self.cookie.own.update(newest.cookie.own)
        self.original_own = newest.original_own
        self.session_id, self.version = newest.session_id, newest.version
        self.created_at = newest.created_at
        self.authenticated_at = newest.authenticated_at
        self.former_id = newest.former_id
        self.renewed_at = newest.renewed_at
        self.unknown = newest.unknown
        self.bond = self.kept_bond = newest.bond
        if newest.standing is not Standing.LIVE:
            self.standing = newest.standing
        self.must_be_written = False
        self.intent = Intent.KEEP

    def _follow(self) -> None:
        """Let typed values that somebody holds become what stands in the data now."""
        if self.views is not None:
            self.views.follow(self.data)
        self._watch_views()

    def _watch_views(self) -> None:
        """Remember how the data are of typed values that somebody holds, and may change."""
        for name in () if self.views is None else self.views.names:
            self.originals.setdefault(name, self.values.freeze(self.data.get(name, MISSING)))

    def conclude(self) -> None:
        """Take note that the response is made: what changes from here on is late."""
        if self.past is None:
            self.past = Past.CONCLUDED

    def copied(self, **changes: Any) -> Self:
        """Return a copy in which *changes* are other than here."""
        other = copy.copy(self)
        for name, value in changes.items():
            setattr(other, name, value)
        return other

    def apart(self) -> Self:
        """Return a copy that goes its own way: what is changed here is not changed there."""
        return self.copied(
            views=None,
            data=dict(self.data),
            originals=dict(self.originals),
            cookie=SessionCookie(self.cookie.base, dict(self.cookie.own)),
        )

    def move_to(self, session_id: str) -> None:
        """Go on under another id; what is kept under this one becomes ``previous``."""
        if self.version is not None:
            # What is changed inside a container under the new id can then be rolled back.
            frozen = {
                key: self.values.freeze(value)
                for key, value in self.data.items()
                if key not in self.originals
            }
            self.previous = self.apart()
            self.previous.originals.update(frozen)
        self.session_id = session_id
        self.version = None
        self.unconfirmed = ()

    def empty(self) -> None:
        """Forget who was logged in, as all data were; the record goes unless there are new ones."""
        if self.previous is not None:
            # Under the new id nothing is kept yet; the record under the old one is to go.
            self.originals.clear()
            self.intent = Intent.REGENERATE
        elif self.intent is not Intent.EMPTY:
            self.authenticated_before = self.authenticated_at
            self.intent = Intent.EMPTY
        self.bond = self.authenticated_at = None

    def clear(self, now: float) -> None:
        """Forget all data, as a session that begins *now*."""
        self.data.clear()
        self.originals.clear()
        self.cookie.own.clear()
        self.original_own = {}
        self.created_at = now
        self.standing = Standing.LIVE
        self.authenticated_at = self.former_id = self.renewed_at = self.views = None
        self.bond = None
        self.unknown = self.beginning
        self.must_be_written = self.is_gone = False

    def fork_to(self, session_id: str, now: float, *, is_whole: bool = False) -> None:
        """Go on alone under another id.

        From an id that was rotated away, nothing comes along but what this request has changed;
        all of it where *is_whole*, since the same principal goes on. From one before a change of
        rights, what that still shows comes along.
        """
        values = {key: value for key, (_, value) in self.changes().items() if value is not MISSING}
        unknown, views = self.beginning, self.views
        if is_whole or self.standing is Standing.FORMER:
            values, unknown = dict(self.data), version_only(self.unknown)
        self.session_id = session_id
        self.version = self.kept_bond = None
        self.clear(now)
        self.data.update(values)
        self.unknown, self.views = unknown, views
        if views is not None:
            views.keep(values)
        self.originals.update(dict.fromkeys(values, MISSING))
        self.must_be_written = True

    def rollback(self) -> None:
        """Forget what this request did: data, cookie, id and intent are as they were read."""
        before = self.previous
        if (before or self).intent is Intent.EMPTY:
            (before or self).authenticated_at = (before or self).authenticated_before
        if before is not None:
            self.session_id, self.version = before.session_id, before.version
            self.created_at, self.standing = before.created_at, before.standing
            self.authenticated_at, self.former_id = before.authenticated_at, before.former_id
            self.renewed_at, self.unknown = before.renewed_at, before.unknown
            self.data.clear()
            self.data.update(before.data)
            self.originals = before.originals
            self.original_own = before.original_own
            self.previous = None
        elif self.version is None:
            # A login that did not come to its end.
            self.authenticated_at = None
        for key, original in self.originals.items():
            put(self.data, key, self.values.thaw(original))
        self.originals.clear()
        self.views = None
        self.bond = self.kept_bond
        self.cookie.own.clear()
        self.cookie.own.update(self.original_own)
        self.must_be_written = False
        self.intent = Intent.KEEP
