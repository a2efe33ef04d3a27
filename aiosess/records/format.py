"""What a storage keeps under an id, and its bytes: the JSON of express-session."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias, cast

import msgspec

from aiosess.attributes import COOKIE_KEY, RESERVED_KEY, CookieOptions, SessionCookie, restored
from aiosess.errors import RecordError, UnserializableValue
from aiosess.privacy import private
from aiosess.records.bonds import BOND_KEYS, Bond, bond_in
from aiosess.records.instead import instead_of
from aiosess.text import is_text
from aiosess.timeouts import LONGEST, Duration, seconds

__all__ = [
    "COOKIE_KEY",
    "NOTHING",
    "RESERVED_KEY",
    "RESERVED_KEYS",
    "VERSION",
    "Alias",
    "Former",
    "Origin",
    "Record",
    "check_value",
    "decode",
    "decode_value",
    "encode",
    "encode_alias",
    "encode_former",
    "encode_usual",
    "encode_value",
    "instants_of",
    "largest_keys",
    "mark_of",
    "origin_of",
    "stamp_of",
    "start_of",
    "version_of",
    "version_stamp",
]

RESERVED_KEYS: Final = frozenset({COOKIE_KEY, RESERVED_KEY})

# Deeper than anybody's data, and well within what Python can walk down.
_DEEPEST: Final = 200
# A payload of so many bytes has no brackets enough to be deeper.
SHORT: Final = 2 * _DEEPEST
_SCALARS: Final = frozenset({str, bool, type(None)})
# Python reads and writes integers of up to 4300 digits.
_MOST_BITS: Final = 14_000
# All that this version remembers; what else is there was written by a newer one.
_KNOWN_KEYS: Final = frozenset(
    {
        *("created", "auth", "former", "renewed", "own", "rev", "mark"),
        *("renewed_to", "moved_to", "until", "same"),
        *BOND_KEYS,
    }
)
# Of 60 bits, so that two sessions have the same mark about never.
_MARK_LENGTH: Final = 10
# So many revisions are made at once, a multiple of four.
_STOCK: Final = 512
MOST_REMEMBERED: Final = 4096
"""Of so many sessions, those that were here last, is remembered what their records say."""

# The year 9999: beyond, an instant cannot be written as a date.
LATEST: Final = 253_370_764_800

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode
_encode_anything: Final = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode

VERSION: Final = "version"
"""Where a record says, among what aiosess remembers, which version of the application wrote it."""

# What stands between the parts of a usual record; see encode_usual().
CREATED: Final = b'","created":'
LOGIN: Final = b',"auth":'
AFTER_META: Final = b"},"

Meta: TypeAlias = dict[str, Any]

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
"""What a newer version remembers beside what this one does, of most records."""


@private()
class Record(NamedTuple):
    """What is kept for one session.

    - ``data``: what handlers see.
    - ``max_age``: seconds, as the cookie had it when the record was written.
    - ``own``: the cookie attributes that this session alone has.
    - ``created_at``: Unix time; ``None`` where Express created the record.
    - ``authenticated_at``: Unix time of the last login; ``None`` where there was none.
    - ``former_id``: the id from before a change of rights, until this one was first used.
    - ``renewed_at``: Unix time at which the id was last changed, where that is written down.
    - ``unknown``: what a newer version of aiosess remembers beside that; it is carried along.
    - ``bond``: whose the session is; ``None`` where it is nobody's.
    - ``is_in_clear``: whether it says that its cookie goes over the wire without TLS.
    """

    data: dict[str, Any]
    max_age: float | None
    own: dict[str, Any]
    created_at: float | None
    authenticated_at: float | None = None
    former_id: str | None = None
    renewed_at: float | None = None
    unknown: Mapping[str, Any] = NOTHING
    is_in_clear: bool = False
    bond: Bond | None = None

    def own_attributes(self, options: CookieOptions) -> dict[str, Any]:
        """Return the cookie attributes in which the session differs from *options*.

        As in Express, a session keeps the max_age that it was given.
        """
        own = dict(self.own)
        if own.get("expires", options.expires) is not None:
            return own
        # A record counts in milliseconds.
        usual = None if options.max_age is None else _rounded(options.max_age)
        return own if self.max_age == usual else {**own, "max_age": self.max_age}


@private("until")
@dataclass(frozen=True, slots=True)
class Alias:
    """What is left under an id that was renewed: where the session is now, and until when."""

    renewed_to: str
    until: float


@private("until")
@dataclass(frozen=True, slots=True)
class Former:
    """What is left under the id from before a change of rights: the session as it was then.

    - ``record``: what it still shows.
    - ``moved_to``: the id under which the session lives on.
    - ``until``: Unix time; as long as the record lives, while the new id was not used yet.
    - ``is_same_principal``: whether it belongs to the same principal as before.
    """

    record: Record
    moved_to: str
    until: float
    is_same_principal: bool


@private("is_record")
class Origin(NamedTuple):
    """Where a payload comes from.

    - ``mark``: that of the id for which it was written; ``None`` where it has none, as one that
      Express wrote.
    - ``created``: Unix time at which its session began, where that is written down.
    - ``is_record``: whether it is JSON as a record is.
    """

    mark: str | None = None
    created: float | None = None
    is_record: bool = True


def mark_of(session_id: str) -> str:
    """Return the short hash by which a record says that it is that of *session_id*."""
    digest = hashlib.sha256(session_id.encode("utf-8", "surrogatepass")).digest()
    return base64.urlsafe_b64encode(digest)[:_MARK_LENGTH].decode("ascii")


@lru_cache(maxsize=MOST_REMEMBERED)
def start_of(session_id: str) -> bytes:
    """Return how each payload begins that is written under *session_id*; kept for thousands."""
    return f'{{"{RESERVED_KEY}":{{"mark":"{mark_of(session_id)}","rev":"'.encode()


def origin_of(payload: bytes) -> Origin:
    """Return where *payload* says that it comes from."""
    try:
        data: Any = decode_value(payload)
    except (ValueError, RecursionError):
        data = None
    if data.__class__ is not dict:
        return Origin(is_record=False)
    meta: Any = data.get(RESERVED_KEY)
    if meta.__class__ is not dict:
        return Origin()
    mark = meta.get("mark")
    return Origin(mark if isinstance(mark, str) else None, _instant(meta.get("created")))


def largest_keys(data: Mapping[str, Any], most: int) -> tuple[tuple[str, int], ...]:
    """Return the *most* keys in *data* that take the most bytes, each with how many."""
    sizes = ((key, len(encode_value({key: value})) - 2) for key, value in data.items())
    return tuple(sorted(sizes, key=lambda size: -size[1])[:most])


def encode(
    session_id: str,
    data: dict[str, Any],
    cookie: SessionCookie,
    *,
    created_at: float,
    now: float,
    authenticated_at: float | None = None,
    former_id: str | None = None,
    renewed_at: float | None = None,
    unknown: Mapping[str, Any] = NOTHING,
    bond: Bond | None = None,
) -> bytes:
    """Return the payload, which differs from every other that was ever written.

    It begins with the mark of *session_id*. The values must have passed check_value.
    """
    version = version_of(unknown)
    is_told = not unknown or unknown == {VERSION: version}
    if is_told and data and cookie.base.frame and not (cookie.own or former_id or renewed_at):
        instants = instants_of(created_at, authenticated_at, version, bond)
        return encode_usual(data, cookie.base.frame, instants, start_of(session_id))
    meta = {**stamp_of(session_id), **unknown, "created": _in_ms(created_at), **_said(bond)}
    if authenticated_at is not None:
        meta["auth"] = _in_ms(authenticated_at)
    if former_id is not None:
        meta["former"] = former_id
    if renewed_at is not None:
        meta["renewed"] = renewed_at
    # The cookie itself says its max_age, where Express may change it.
    own = {name: value for name, value in cookie.own.items() if name != "max_age"}
    if own:
        meta["own"] = own
    return encode_value({RESERVED_KEY: meta, COOKIE_KEY: cookie.as_express(now), **data})


def encode_usual(data: dict[str, Any], frame: bytes, instants: bytes, start: bytes) -> bytes:
    """Return what encode() does for a cookie without attributes of its own, in fewer steps.

    *start* is that of the id, *instants* are what instants_of() gives, and *frame* is that of the
    cookie's options. The values must have passed check_value. Empty where there are no data, or no
    *frame*.
    """
    if not data or not frame:
        return b""
    try:
        body = _encode(data)
    except (TypeError, ValueError):
        body = encode_value(data)
    try:
        revision = _revisions.pop()
    except IndexError:
        revision = _revision()
    return b"".join((start, revision, CREATED, instants, AFTER_META, frame, body[1:]))


def instants_of(
    created_at: float, authenticated_at: float | None, version: int = 0, bond: Bond | None = None
) -> bytes:
    """Return how a record says when its session began, and its last login, in Unix time.

    Behind them stands the *version* of the application, where it has one, and the *bond*.
    """
    instants = _encode(_in_ms(created_at))
    if authenticated_at is not None:
        instants += LOGIN + _encode(_in_ms(authenticated_at))
    instants += version_stamp(version)
    return instants if bond is None else instants + bond.stamp


def version_of(unknown: Mapping[str, Any]) -> int:
    """Return the version of the application that wrote a record; 0 where that is not said."""
    was = unknown.get(VERSION)
    return was if type(was) is int and was > 0 else 0


def version_stamp(version: int) -> bytes:
    """Return how a usual record says the *version* of the application; empty for 0."""
    return b',"%s":%d' % (VERSION.encode(), version) if version else b""


def _in_ms(at: float) -> float:
    """Return *at* cut down to a millisecond, which is not later than *at*."""
    rounded = round(at, 3)
    return rounded if rounded <= at else round(rounded - 0.001, 3)


# Made some hundreds at a time. A process that was forked begins anew.
_revisions: Final[list[bytes]] = []
_cut: Final = struct.Struct("11s" * _STOCK).unpack
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_revisions.clear)


def _revision() -> bytes:
    """Return 11 characters, 66 random bits, that no other payload has."""
    try:
        return _revisions.pop()
    except IndexError:
        # Four of them are 33 bytes.
        _revisions.extend(_cut(base64.urlsafe_b64encode(os.urandom(_STOCK * 33 // 4))))
        return _revisions.pop()


def encode_alias(session_id: str, alias: Alias) -> bytes:
    """Return the payload that leads from *session_id*, which was renewed, to the new one.

    Express finds no data in it.
    """
    meta = {**stamp_of(session_id), "renewed_to": alias.renewed_to, "until": alias.until}
    return _encode({RESERVED_KEY: meta, COOKIE_KEY: {"originalMaxAge": None}})


def encode_former(session_id: str, former: Former, cookie: SessionCookie, *, now: float) -> bytes:
    """Return the payload for what is left under *session_id*, from before a change of rights."""
    created_at = former.record.created_at
    meta = {
        **stamp_of(session_id),
        **former.record.unknown,
        "created": None if created_at is None else _in_ms(created_at),
        "moved_to": former.moved_to,
        "until": former.until,
        "same": former.is_same_principal,
        **_said(former.record.bond),
    }
    return encode_value(
        {RESERVED_KEY: meta, COOKIE_KEY: cookie.as_express(now), **former.record.data}
    )


def _said(bond: Bond | None) -> Meta:
    """Return what a record says of its *bond*, by key."""
    return {} if bond is None else bond.in_meta()


def stamp_of(session_id: str) -> Meta:
    """Return what each record begins with: whose it is, and that it is no other one."""
    return {"mark": mark_of(session_id), "rev": _revision().decode()}


def decode(payload: bytes) -> Record | Alias | Former:
    """Return what *payload* says; raise RecordError, with the reason, where it is not a record."""
    try:
        data: Any = _decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        data = _decode_rare(payload)
    if data.__class__ is not dict:
        raise RecordError(f"JSON, but {data.__class__.__name__} and not an object")
    if len(payload) > SHORT and may_be_deep(payload) and not _is_within(data, _DEEPEST):
        raise RecordError(f"nested more than {_DEEPEST} deep")
    cookie: Any = data.pop(COOKIE_KEY, None)
    if cookie.__class__ is not dict:
        raise RecordError("an object without a cookie")
    max_age = cookie.get("originalMaxAge")
    if max_age is not None:
        max_age = _max_age(max_age)
    meta: Any = data.pop(RESERVED_KEY, None)
    if meta.__class__ is not dict:
        # Express says nothing where its options do not.
        return Record(data, max_age, {}, None, is_in_clear=cookie.get("secure") is False)
    # Data beside it were written by Express, which carries our key along: a session of its own.
    if "renewed_to" in meta and not data:
        alias = _alias(meta)
        if alias is not None:
            return alias
    own, former_id = meta.get("own"), meta.get("former")
    record = Record(
        data,
        max_age,
        restored(own) if own.__class__ is dict else {},
        _instant(meta.get("created")),
        _instant(meta.get("auth")),
        former_id if is_text(former_id) else None,
        _instant(meta.get("renewed")),
        {key: value for key, value in meta.items() if key not in _KNOWN_KEYS} or NOTHING,
        is_in_clear=not cookie.get("secure", False),
        bond=bond_in(meta),
    )
    moved_to, until = meta.get("moved_to"), _instant(meta.get("until"))
    if not is_text(moved_to) or until is None:
        return record
    return Former(record, moved_to, until, meta.get("same") is True)


def may_be_deep(payload: bytes) -> bool:
    """Ask whether there are brackets enough for data that are nested too deep."""
    return payload.count(b"[") + payload.count(b"{") > _DEEPEST


def encode_value(value: object) -> bytes:
    """Return *value* as JSON; raise ValueError or TypeError where it cannot be."""
    try:
        return _encode(value)
    except (TypeError, ValueError):
        # Lone surrogates and subclasses of str: rare, and json knows them.
        return _encode_anything(value).encode()


def decode_value(payload: bytes) -> Any:
    """Return what the JSON in *payload* says; raise ValueError where it is not JSON."""
    try:
        return _decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return json.loads(payload, parse_constant=_refuse)


def check_value(value: object, path: str) -> None:
    """Raise UnserializableValue unless *value* comes back from JSON as it went in.

    Tuples come back as lists; nothing else changes its type. *path* names the value.
    """
    _check(value, path, _DEEPEST - 1)


def _check(value: object, path: str, levels: int) -> None:
    if levels < 0:
        name = path.partition("]")[0] + "]"
        raise UnserializableValue(
            f"{name} holds itself, or is nested more than {_DEEPEST} deep: store plain data",
            path=name,
        )
    if value.__class__ in _SCALARS or isinstance(value, str):
        return
    if isinstance(value, int | float):
        _check_number(value, path)
    elif isinstance(value, dict):
        for key, item in cast("dict[object, object]", value).items():
            if not isinstance(key, str):
                raise UnserializableValue(
                    f"{path} has the key {key!r}: JSON has only str keys, use {str(key)!r}",
                    path=path,
                )
            _check(item, f"{path}[{key!r}]", levels - 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(cast("list[object]", value)):
            _check(item, f"{path}[{index}]", levels - 1)
    else:
        raise UnserializableValue(
            f"{path} is of type {type(value).__name__}, which a session cannot keep: "
            f"store {instead_of(value)}",
            path=path,
        )


def _is_within(value: object, levels: int) -> bool:
    if isinstance(value, dict):
        items = list(cast("dict[str, object]", value).values())
    elif isinstance(value, list):
        items = cast("list[object]", value)
    else:
        return True
    return levels > 0 and all(_is_within(item, levels - 1) for item in items)


def _check_number(value: float, path: str) -> None:
    if isinstance(value, int):
        if value.bit_length() > _MOST_BITS:
            raise UnserializableValue(
                f"{path} is an integer of more than 4000 digits: store it as a str", path=path
            )
    elif not math.isfinite(value):
        raise UnserializableValue(
            f"{path} is {value!r}, which JSON does not have: store None, or a str", path=path
        )


def _decode_rare(payload: bytes) -> Any:
    try:
        return json.loads(payload, parse_constant=_refuse, parse_float=_finite)
    except OverflowError as error:
        raise RecordError("a number beyond float, of which only infinity would be left") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not JSON: {type(error).__name__}") from error


def _alias(meta: Meta) -> Alias | None:
    renewed_to, until = meta["renewed_to"], _instant(meta.get("until"))
    if not is_text(renewed_to) or until is None:
        return None
    return Alias(renewed_to, until)


def _instant(at: Any) -> float | None:
    return at if (type(at) is float or type(at) is int) and 0 <= at < LATEST else None


def _max_age(milliseconds: object) -> float | None:
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        return None
    if milliseconds <= 0:
        return None
    return min(milliseconds, LONGEST * 1000) / 1000


def _rounded(age: Duration) -> float:
    return round(seconds(age, name="max_age") * 1000) / 1000


def _finite(digits: str) -> float:
    """Return the number that *digits* say; raise OverflowError where no float is as large."""
    number = float(digits)
    if math.isinf(number):
        raise OverflowError(f"{digits[:30]} is beyond float")
    return number


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")
