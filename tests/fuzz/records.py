"""Bytes under an id: whatever they are, a request is answered, and what can be read be written."""

from __future__ import annotations

import json
from functools import partial
from typing import Any, Final

from hypothesis import strategies as st

from aiosess import CookieOptions, RecordError
from aiosess.attributes import SessionCookie
from aiosess.records.format import (
    Alias,
    Former,
    Record,
    decode,
    encode,
    encode_alias,
    encode_former,
    mark_of,
    origin_of,
    start_of,
)
from aiosess.records.migration import Migration
from aiosess.records.usual import usual_of
from aiosess.storages import Stored
from tests.fuzz.site import LANES, SIGNER, Site, cookie_of, run, site_of
from tests.fuzz.target import Target

__all__ = ["TARGETS", "mutated"]

_ID: Final = "apple"
_NOW: Final = 1_700_000_000.0
_COOKIE: Final = CookieOptions(secure=False)
_USUAL: Final = usual_of(Migration())

_TEXTS = st.text(st.characters(exclude_categories=()), max_size=6)
_NUMBERS = st.one_of(
    st.integers(-5, 5),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([10**4000, 253_370_764_800, _NOW, _NOW + 60, _NOW - 1e9, 1e308, 1e-320, -0.0]),
)
_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), _NUMBERS, _TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(_TEXTS, inner, max_size=3)
    ),
    max_leaves=5,
)
_DATA = st.dictionaries(
    st.one_of(_TEXTS, st.sampled_from(["mine", "AIOHTTP_SECURITY", "__aiosess", "cookie", ""])),
    _VALUES,
    max_size=3,
)

# What Express writes, and what we do, with values that neither of them would.

_EXPRESS = st.fixed_dictionaries(
    {},
    optional={
        "originalMaxAge": st.one_of(st.none(), _VALUES),
        "expires": st.one_of(st.none(), st.just("2030-01-01T00:00:00.000Z"), _VALUES),
        "secure": st.one_of(st.booleans(), _VALUES),
        "httpOnly": st.one_of(st.just(True), _VALUES),
        "path": st.one_of(st.just("/"), _VALUES),
        "sameSite": st.one_of(st.just("lax"), _VALUES),
        "domain": _VALUES,
    },
)
_INSTANTS = st.one_of(st.sampled_from([_NOW, _NOW - 10, _NOW + 10, 0, 1e12]), _VALUES)
_IDS = st.one_of(st.sampled_from([_ID, "pear", "plum", "", "\ud800", "\0"]), _VALUES)
_OWN = st.fixed_dictionaries(
    {},
    optional={
        "max_age": st.one_of(st.just(60.0), _VALUES),
        "expires": _INSTANTS,
        "path": st.one_of(st.just("/a"), _VALUES),
        "domain": _VALUES,
        "httponly": st.one_of(st.booleans(), _VALUES),
        "secure": st.one_of(st.booleans(), _VALUES),
        "samesite": st.one_of(st.sampled_from(["none", "strict", False]), _VALUES),
        "partitioned": _VALUES,
        "priority": _VALUES,
        "other": _VALUES,
    },
)
_META = st.fixed_dictionaries(
    {},
    optional={
        "created": _INSTANTS,
        "auth": _INSTANTS,
        "rev": st.one_of(st.just("0" * 11), _VALUES),
        "former": _IDS,
        "renewed": _INSTANTS,
        "own": st.one_of(_OWN, _VALUES),
        "renewed_to": _IDS,
        "moved_to": _IDS,
        "until": st.one_of(st.just(_NOW + 10), _INSTANTS),
        "same": st.one_of(st.booleans(), _VALUES),
        "later": _VALUES,
        "mark": st.one_of(st.just(mark_of(_ID)), _VALUES),
    },
)
_ODD = st.tuples(
    st.fixed_dictionaries({"cookie": st.one_of(_EXPRESS, _VALUES)}),
    _DATA,
    st.fixed_dictionaries({}, optional={"__aiosess": st.one_of(_META, _META, _VALUES)}),
).map(lambda parts: json.dumps({**parts[0], **parts[1], **parts[2]}).encode())


def _real(made: tuple[dict[str, Any], dict[str, Any], int, float | None]) -> bytes:
    data, own, kind, at = made
    data = {key: value for key, value in data.items() if key not in {"cookie", "__aiosess"}}
    cookie = SessionCookie(CookieOptions(secure=False), own)
    if kind == 0:
        return encode_alias(_ID, Alias("pear", _NOW + 5))
    if kind == 1:
        record = Record(data, None, {}, _NOW)
        return encode_former(_ID, Former(record, "pear", _NOW + 5, True), cookie, now=_NOW)
    return encode(
        _ID,
        data,
        cookie,
        created_at=_NOW - 60,
        now=_NOW,
        authenticated_at=at,
        former_id=None if kind < 4 else "pear",
        unknown={} if kind < 6 else {"later": [1]},
    )


_REAL = st.tuples(
    _DATA,
    st.sampled_from([{}, {}, {"max_age": 60.0}, {"path": "/a"}, {"samesite": "strict"}]),
    st.integers(0, 7),
    st.sampled_from([None, _NOW - 1]),
).map(_real)

# Near-JSON.

_PIECES = st.one_of(
    st.binary(max_size=4),
    st.sampled_from(
        [
            *(b"1e999", b"-1e999", b"NaN", b"Infinity", b"9" * 5000, b"0x1", b"01", b"1.", b"\x00"),
            *(b"\xff", b"\xef\xbb\xbf", b"\\ud800", b"\\u0000", b'"', b"}", b"{", b"[" * 250),
            *(
                b"null",
                b"{}",
                b"[]",
                b",",
                b'"cookie":{}',
                b'"__aiosess":{}',
                b"e999",
                b'"secure":false',
            ),
        ]
    ),
)
_MUTATIONS = st.lists(
    st.tuples(st.integers(0, 600), st.integers(0, 30), _PIECES), min_size=1, max_size=3
)


def mutated(data: bytes, mutations: list[tuple[int, int, bytes]]) -> bytes:
    """Return *data* in which pieces stand in the place of others."""
    for at, length, piece in mutations:
        start = at % (len(data) + 1)
        data = data[:start] + piece + data[start + length :]
    return data


def _nested(made: tuple[int, tuple[bytes, bytes], bool]) -> bytes:
    depth, (opening, closing), is_closed = made
    inside = opening * depth + b"1" + closing * (depth * is_closed)
    return b'{"cookie":{},"deep":%b}' % inside


_NESTED = st.tuples(
    st.one_of(st.integers(190, 210), st.integers(0, 1000), st.just(100_000)),
    st.sampled_from([(b"[", b"]"), (b'{"a":', b"}"), (b'[{"":', b"}]")]),
    st.booleans(),
).map(_nested)

_PAYLOADS = st.one_of(
    _REAL,
    _ODD,
    st.tuples(_REAL, _MUTATIONS).map(lambda made: mutated(*made)),
    st.tuples(_ODD, _MUTATIONS).map(lambda made: mutated(*made)),
    _NESTED,
    st.binary(max_size=30),
    _VALUES.map(lambda value: json.dumps(value).encode()),
)


def _decoded(payload: bytes) -> Record | Alias | Former | None:
    try:
        return decode(payload)
    except RecordError as error:
        assert str(error)  # noqa: PT017 - most payloads raise none
        return None


def _check(payload: bytes) -> None:
    found = _decoded(payload)
    origin = origin_of(payload)
    if found is not None:
        assert origin.is_record
    short = _USUAL(_ID, Stored(payload, 1), _COOKIE, _NOW)
    if short is not None:
        assert isinstance(found, Record)
        assert short.data == found.data
        assert (short.created_at, short.authenticated_at) == (
            found.created_at,
            found.authenticated_at,
        )
    if isinstance(found, Record):
        _check_that_it_can_be_written(found)


def _check_that_it_can_be_written(record: Record) -> None:
    cookie = SessionCookie(CookieOptions(secure=False), dict(record.own))
    written = encode(
        _ID,
        record.data,
        cookie,
        created_at=record.created_at or _NOW,
        now=_NOW,
        authenticated_at=record.authenticated_at,
        former_id=record.former_id,
        renewed_at=record.renewed_at,
        unknown=record.unknown,
    )
    again = decode(written)

    if not isinstance(again, Alias):
        kept = again if isinstance(again, Record) else again.record
        assert kept.data == record.data
    assert written.startswith(start_of(_ID))


# Whole requests.


async def _asked(site: Site, payload: bytes, path: str) -> list[Any]:
    """Return what a browser sees whose id has *payload* under it, and what the next ones see."""
    for other in (_ID, "pear", *site.made):
        await site.storage.delete(other)
    site.made.clear()
    pear = json.dumps({"cookie": {"path": "/"}, "fruit": "pear"}).encode()
    await site.storage.create("pear", pear, 1e6)
    await site.storage.create(_ID, payload, 1e6)
    cookie: bytes = b"sid=" + SIGNER.sign(_ID).encode()
    seen: list[Any] = []
    for each in ("/show", path, "/show"):
        answer, body = await site.get(each, cookie)
        assert answer.status == 200, answer
        seen.append((each, json.loads(body) if each == "/show" else None))
        cookie = cookie_of(answer) or cookie
    return seen


def _check_request(made: tuple[bytes, str]) -> None:
    payload, path = made
    found = _decoded(payload)

    seen = {lane: run(partial(_asked, _sites(lane), payload, path)) for lane in LANES}

    assert seen["fast"] == seen["whole"], seen
    first, last = seen["fast"][0][1], seen["fast"][2][1]
    if found is None:
        assert (first["new"], first["data"]) == (True, {})
    # What is left from before a change of rights is shown, and takes no change; nor does what ends.
    ends = isinstance(found, Former) or (isinstance(found, Record) and "expires" in found.own)
    if path == "/put" and not ends:
        assert last["data"]["mine"] == "1"
    if path == "/leave":
        assert last["new"]


def _sites(lane: str) -> Site:
    site = site_of(lane, "records")
    site.clock.now = _NOW
    return site


TARGETS: Final = [
    Target(name="records", inputs=_PAYLOADS, check=_check, few=400),
    Target(
        name="record-requests",
        inputs=st.tuples(_PAYLOADS, st.sampled_from(["/put", "/login", "/leave", "/show"])),
        check=_check_request,
        few=100,
    ),
]
