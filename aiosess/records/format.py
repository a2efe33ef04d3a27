"""What a storage keeps under an id, and its bytes: the JSON of express-session."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias, cast

import msgspec

from aiosess.attributes import CookieOptions, SessionCookie, restored
from aiosess.errors import RecordError, UnserializableValue
from aiosess.privacy import private
from aiosess.records.instead import instead_of
from aiosess.text import is_text
from aiosess.timeouts import LONGEST, Duration, seconds

__all__ = [
    "COOKIE_KEY",
    "NOTHING",
    "RESERVED_KEY",
    "RESERVED_KEYS",
    "Alias",
    "Former",
    "Origin",
    "Record",
    "began_without_tls",
    "check_value",
    "decode",
    "decode_value",
    "encode",
    "encode_alias",
    "encode_former",
    "encode_usual",
    "encode_value",
    "largest_keys",
    "mark_of",
    "origin_of",
    "tail_of",
    "usual",
]

COOKIE_KEY: Final = "cookie"
RESERVED_KEY: Final = "__aiosess"
RESERVED_KEYS: Final = frozenset({COOKIE_KEY, RESERVED_KEY})

# Deeper than anybody's data, and well within what Python can walk down.
_DEEPEST: Final = 200
# A payload of so many bytes has no brackets enough to be deeper.
_SHORT: Final = 2 * _DEEPEST
_SCALARS: Final = frozenset({str, bool, type(None)})
# Python reads and writes integers of up to 4300 digits.
_MOST_BITS: Final = 14_000
# What aiosess remembers of a session like most others, without a login and with one.
_PLAIN_KEYS: Final = frozenset({"created", "rev", "mark"})
_AUTHENTICATED_KEYS: Final = _PLAIN_KEYS | {"auth"}
# All that this version remembers; what else is there was written by a newer one.
_KNOWN_KEYS: Final = _AUTHENTICATED_KEYS | {
    *("former", "renewed", "own"),
    *("renewed_to", "moved_to", "until", "same"),
}
# Of 60 bits, so that two sessions have the same mark about never.
_MARK_LENGTH: Final = 10
# So many ids, one for each session that was here last.
_MOST_TAILS: Final = 4096
# The year 9999: beyond, an instant cannot be written as a date.
_LATEST: Final = 253_370_764_800

# Not the random module's own numbers: an application may have each of its processes begin with the
# same. A process that was forked begins anew as well.
_revisions: Final = random.Random()  # noqa: S311 - no secret hangs on them
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_revisions.seed)

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode
_encode_anything: Final = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode

# Head, data, when the session began, the revision, and the tail.
_USUAL: Final = b'%%b%%b,"%b":{"created":%%b,"rev":"%%016x",%%b' % RESERVED_KEY.encode()

_AUTHENTICATED: Final = (
    b'%%b%%b,"%b":{"created":%%b,"auth":%%b,"rev":"%%016x",%%b' % RESERVED_KEY.encode()
)

_IN_CLEAR: Final = re.compile(rb'"secure"\s*:\s*false')

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
    """

    data: dict[str, Any]
    max_age: float | None
    own: dict[str, Any]
    created_at: float | None
    authenticated_at: float | None = None
    former_id: str | None = None
    renewed_at: float | None = None
    unknown: Mapping[str, Any] = NOTHING

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


@lru_cache(maxsize=_MOST_TAILS)
def tail_of(session_id: str) -> bytes:
    """Return how each payload ends that is written under *session_id*; remembered for thousands."""
    return b'"mark":"%b"}}' % mark_of(session_id).encode()


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
) -> bytes:
    """Return the payload, which differs from every other that was ever written.

    Its last bytes are the mark of *session_id*. The values must have passed check_value.
    """
    is_usual = not (cookie.own or former_id or renewed_at or unknown)
    if is_usual and data and cookie.base.head:
        tail = tail_of(session_id)
        return encode_usual(data, cookie.base.head, created_at, authenticated_at, tail)
    revision = _revisions.getrandbits(64)
    meta: Meta = {**unknown, "created": created_at, "rev": f"{revision:016x}"}
    if authenticated_at is not None:
        meta["auth"] = authenticated_at
    if former_id is not None:
        meta["former"] = former_id
    if renewed_at is not None:
        meta["renewed"] = renewed_at
    # The cookie itself says its max_age, where Express may change it.
    own = {name: value for name, value in cookie.own.items() if name != "max_age"}
    if own:
        meta["own"] = own
    meta["mark"] = mark_of(session_id)
    return encode_value({COOKIE_KEY: cookie.as_express(now), **data, RESERVED_KEY: meta})


def encode_usual(
    data: dict[str, Any],
    head: bytes,
    created_at: float,
    authenticated_at: float | None,
    tail: bytes,
) -> bytes:
    """Return what encode() does for a cookie without attributes of its own, in fewer steps.

    *head* is that of its options, *tail* that of the id. The values must have passed check_value.
    Empty where there are no data, or *head* is empty.
    """
    if not data or not head:
        return b""
    try:
        body = _encode(data)
    except (TypeError, ValueError):
        body = encode_value(data)
    if authenticated_at is None:
        return _USUAL % (head, body[1:-1], _encode(created_at), _revisions.getrandbits(64), tail)
    return _AUTHENTICATED % (
        head,
        body[1:-1],
        _encode(created_at),
        _encode(authenticated_at),
        _revisions.getrandbits(64),
        tail,
    )


def encode_alias(session_id: str, alias: Alias) -> bytes:
    """Return the payload that leads from *session_id*, which was renewed, to the new one.

    Express finds no data in it.
    """
    return _encode(
        {
            COOKIE_KEY: {"originalMaxAge": None, "expires": None, "httpOnly": True, "path": "/"},
            RESERVED_KEY: {
                "renewed_to": alias.renewed_to,
                "until": alias.until,
                "mark": mark_of(session_id),
            },
        }
    )


def encode_former(session_id: str, former: Former, cookie: SessionCookie, *, now: float) -> bytes:
    """Return the payload for what is left under *session_id*, from before a change of rights."""
    meta: Meta = {
        **former.record.unknown,
        "created": former.record.created_at,
        "moved_to": former.moved_to,
        "until": former.until,
        "same": former.is_same_principal,
        "rev": f"{_revisions.getrandbits(64):016x}",
        "mark": mark_of(session_id),
    }
    return encode_value(
        {COOKIE_KEY: cookie.as_express(now), **former.record.data, RESERVED_KEY: meta}
    )


def usual(
    payload: bytes, head: bytes, tail: bytes, now: float
) -> tuple[dict[str, Any], float, float | None] | None:
    """Return the data of a record like most others, when its session began, and its last login.

    *head* is that of the cookie's options: what it says of the cookie need not be read. *tail* is
    that of the id. ``None`` where it takes more to tell what *payload* is, or whose; also where the
    session began after *now*.
    """
    rest = payload.removeprefix(head)
    if (
        rest is payload
        or not payload.endswith(tail)
        or (len(payload) > _SHORT and _is_deep(payload))
    ):
        return None
    try:
        data: Any = _decode(b"{" + rest)
        meta: Any = data.pop(RESERVED_KEY)
        if meta.keys() != _PLAIN_KEYS:
            return _authenticated(data, meta, now)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError, AttributeError):
        return None
    created_at = meta["created"]
    # Of two cookies the last one counts.
    if (
        created_at.__class__ is not float
        or created_at > now
        or created_at < 0
        or COOKIE_KEY in data
    ):
        return None
    return data, created_at, None


def _authenticated(
    data: dict[str, Any], meta: Meta, now: float
) -> tuple[dict[str, Any], float, float] | None:
    """Return what usual() does for a session with a login, and nothing else in its *meta*."""
    created_at, authenticated_at = meta.get("created"), _instant(meta.get("auth"))
    if meta.keys() != _AUTHENTICATED_KEYS or COOKIE_KEY in data:
        return None
    if type(created_at) is not float or authenticated_at is None:
        return None
    if created_at < 0 or created_at > now or authenticated_at > now:
        return None
    return data, created_at, authenticated_at


def decode(payload: bytes) -> Record | Alias | Former:
    """Return what *payload* says; raise RecordError, with the reason, where it is not a record."""
    try:
        data: Any = _decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        data = _decode_rare(payload)
    if data.__class__ is not dict:
        raise RecordError(f"JSON, but {data.__class__.__name__} and not an object")
    if len(payload) > _SHORT and _is_deep(payload) and not _is_within(data, _DEEPEST):
        raise RecordError(f"nested more than {_DEEPEST} deep")
    cookie: Any = data.pop(COOKIE_KEY, None)
    if cookie.__class__ is not dict:
        raise RecordError("an object without a cookie")
    max_age = cookie.get("originalMaxAge")
    if max_age is not None:
        max_age = _max_age(max_age)
    meta: Any = data.pop(RESERVED_KEY, None)
    if meta.__class__ is not dict:
        return Record(data, max_age, {}, None)
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
    )
    moved_to, until = meta.get("moved_to"), _instant(meta.get("until"))
    if not is_text(moved_to) or until is None:
        return record
    return Former(record, moved_to, until, meta.get("same") is True)


def began_without_tls(payload: bytes) -> bool:
    """Ask whether the record in *payload* says that its cookie went over the wire in the clear."""
    if _IN_CLEAR.search(payload) is None:
        return False
    data = decode_value(payload)
    return data[COOKIE_KEY].get("secure") is False


def _is_deep(payload: bytes) -> bool:
    """Ask whether there are brackets enough for it."""
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
    return at if (type(at) is float or type(at) is int) and 0 <= at < _LATEST else None


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
