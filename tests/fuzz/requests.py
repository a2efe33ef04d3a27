"""Headers of strangers: cookies, X-Forwarded-Proto and Host."""

from __future__ import annotations

import json
import re
from functools import partial
from types import SimpleNamespace
from typing import Any, Final, NamedTuple, cast

from aiohttp import hdrs, web
from hypothesis import strategies as st
from multidict import CIMultiDict

from aiosess.transports.cookie import cookie_values, is_secure
from aiosess.transports.signing import Signer
from tests.fuzz.records import mutated
from tests.fuzz.site import LANES, OLD_SECRET, OPTIONS, SECRET, SIGNER, Site, run, site_of
from tests.fuzz.target import Target
from tests.lanes.wire import Answer

__all__ = ["TARGETS"]

# Who has a session, and so may have a cookie that was really given; a stranger has the others.
_OURS: Final = ("apple", "pear", "a.b", "s:x", "sn\u2603w", "to be", "%41")
_THEIRS: Final = ("plum", "made-1", "")
_FOREIGN: Final = "a secret of somebody else, which is long enough to be quiet"

_MOST_READ: Final = 65_536

# Cookies.


class _Cookie(NamedTuple):
    """One part of a header, and the id that it brings where it was really given."""

    text: bytes
    session_id: str | None = None


def _genuine(made: tuple[str, str, bytes]) -> _Cookie:
    session_id, secret, space = made
    value = Signer(secret).sign(session_id).encode()
    return _Cookie(space + b"sid=" + value + space, session_id)


def _escaped(made: tuple[str, int]) -> _Cookie:
    """Return another spelling of what was given: each character may be percent-encoded."""
    session_id, which = made
    value = SIGNER.sign(session_id)
    spelled = [
        f"%{ord(letter):02x}" if which >> (at % 30) & 1 and letter != "%" else letter
        for at, letter in enumerate(value)
    ]
    text = "".join(spelled)
    # An escape that was there is one letter: only what stands outside of one may be spelled anew.
    is_plain = "%" not in value
    return (
        _Cookie(f"sid={text}".encode(), session_id)
        if is_plain
        else _Cookie(b"sid=" + value.encode(), session_id)
    )


_GENUINE = st.tuples(
    st.sampled_from(_OURS),
    st.sampled_from([SECRET, OLD_SECRET]),
    st.sampled_from([b"", b" ", b"\t"]),
).map(_genuine)
_FORGED = st.one_of(
    st.sampled_from([*_OURS, *_THEIRS]).map(
        lambda session_id: Signer(_FOREIGN).sign(session_id or "none").encode()
    ),
    st.sampled_from([*_OURS, *_THEIRS]).map(lambda session_id: f"s%3A{session_id}".encode()),
    st.tuples(
        st.sampled_from([*_OURS, *_THEIRS]), st.text("ABCabc+/=%012", min_size=43, max_size=43)
    ).map(lambda made: f"s%3A{made[0]}.{made[1]}".encode()),
    st.tuples(st.sampled_from(_OURS), st.sampled_from(_OURS)).map(
        lambda two: (
            SIGNER.sign(two[0]).encode().rpartition(b".")[0]
            + b"."
            + (SIGNER.sign(two[1]) if two[0] != two[1] else "x").encode().rpartition(b".")[2]
        )
    ),
).map(lambda value: _Cookie(b"sid=" + value))
_BYTES = st.binary(max_size=30).map(lambda data: data.translate(None, b"\r\n"))
_NOISE = st.one_of(
    _BYTES,
    st.tuples(
        st.sampled_from([b"sid=", b"sid", b"xsid=", b"SID=", b'sid="', b"a=sid="]), _BYTES
    ).map(b"".join),
    st.sampled_from([b"sid=" * 500, b"sid=s%3A" + b"." * 3000, b"sid=" + b"%" * 1000, b"=" * 200]),
    st.integers(1, 7900).map(lambda size: b"sid=s%3A" + b"A" * size),
).map(lambda text: _Cookie(text.replace(b";", b"")))


def _changed(made: tuple[_Cookie, list[tuple[int, int, bytes]]]) -> _Cookie:
    cookie, mutations = made
    text = mutated(cookie.text, mutations).translate(None, b";\r\n")
    # What is left of it may still be what was given.
    return _Cookie(text, cookie.session_id)


_PIECE = st.one_of(
    st.binary(max_size=3), st.sampled_from([b"%00", b"%2e", b"%", b"=", b'"', b"s:"])
)
_CHANGED = st.tuples(
    _GENUINE,
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 3), _PIECE), min_size=1, max_size=2),
).map(_changed)
_COOKIES = st.one_of(
    _GENUINE,
    st.tuples(st.sampled_from(_OURS), st.integers(0, 2**30)).map(_escaped),
    _FORGED,
    _NOISE,
    _CHANGED,
)
_HEADERS = st.lists(
    st.tuples(st.lists(_COOKIES, max_size=6), st.sampled_from([1, 1, 1, 1, 1, 3, 40, 400])),
    min_size=1,
    max_size=3,
)


def _request(*headers: tuple[str, str]) -> web.Request:
    """Return as much of a request as is asked for *headers*."""
    made = SimpleNamespace(headers=CIMultiDict(headers), get_extra_info=lambda _name: None)
    return cast("web.Request", made)


def _check_cookies(made: list[tuple[list[_Cookie], int]]) -> None:
    """Check what is read from headers that no server has looked at before."""
    headers = [[cookie for cookie in cookies for _ in range(times)] for cookies, times in made]
    given = {cookie.session_id for cookies in headers for cookie in cookies}
    lines = [b";".join(cookie.text for cookie in cookies) for cookies in headers]
    texts = [line.decode("utf-8", "surrogateescape") for line in lines]
    request = _request(*((hdrs.COOKIE, text) for text in texts))

    values = list(cookie_values(request, "sid"))
    held = [signed.session_id for signed in Signer([SECRET, OLD_SECRET]).held(values)]

    assert set(held) <= given, held
    assert sum(map(len, values)) <= _MOST_READ
    if sum(map(len, texts)) <= _MOST_READ:
        certain = [
            cookie.session_id for cookies in headers for cookie in cookies if cookie in _CERTAIN
        ]
        assert [each for each in held if each in certain][: len(certain)] or not certain


_CERTAIN: Final = frozenset(
    _genuine((session_id, secret, b"")) for session_id in _OURS for secret in (SECRET, OLD_SECRET)
)


def _check_cookie_requests(made: tuple[list[tuple[list[_Cookie], int]], str]) -> None:
    headers, path = made
    cookies = [cookie for parts, times in headers for cookie in parts * times]
    given = {cookie.session_id for cookie in cookies} - {None}
    lines = [b"Cookie: " + b";".join(c.text for c in parts * times) for parts, times in headers]

    seen = {lane: run(partial(_asked, _site(lane), path, lines)) for lane in LANES}

    assert seen["fast"] == seen["whole"], seen
    status, asked, shown, kept = seen["fast"]
    assert status in {None, 200, 400}, status
    assert set(asked) <= given, asked
    assert kept == {each: {"whose": each} for each in _OURS}
    if shown is not None:
        whose = shown["data"].get("whose")
        assert whose in given or (whose is None and shown["new"])
        assert shown["id"] == whose or (whose is None and shown["id"].startswith("made-"))


def _site(lane: str) -> Site:
    return site_of(lane, "cookies")


async def _asked(site: Site, path: str, lines: list[bytes]) -> tuple[Any, ...]:
    """Return the status, the ids that were asked for, what was shown, and what is kept."""
    for each in _OURS:
        record = json.dumps({"cookie": {"path": "/"}, "whose": each}).encode()
        await site.storage.delete(each)
        await site.storage.create(each, record, 1e6)
    for each in site.made:
        await site.storage.delete(each)
    site.made.clear()
    head = [b"GET " + path.encode() + b" HTTP/1.1", b"Host: a", b"Connection: close", *lines]
    answer, body = await site.ask(b"\r\n".join([*head, b"", b""]))
    asked = list(site.storage.asked)
    is_shown = answer.status == 200 and path == "/show"
    kept: dict[str, Any] = {}
    for each in _OURS:
        stored = await site.storage.load(each)
        data = {} if stored is None else json.loads(stored.payload)
        kept[each] = {name: data[name] for name in data if name == "whose"}
    return answer.status, asked, json.loads(body) if is_shown else None, kept


# X-Forwarded-Proto and Host.

_PROTO = st.one_of(
    st.sampled_from([b"https", b"http", b"HTTPS", b" https , http", b"wss", b"", b",https"]),
    st.sampled_from([b"https;", b"https\x00", b"httpss", b"\xff", b"https" * 300, b"http,https"]),
    _BYTES,
)
_HOST = st.one_of(
    st.sampled_from([b"example.org", b"a.example.org:80", b"[::1]", b"[::1", b"::1", b"", b":"]),
    st.sampled_from([b"example.org:99999", b"example.org:x", b"a b", b"a/b", b"a@b", b"\xe9.org"]),
    st.sampled_from([b"EXAMPLE.ORG.", b"xn--", b"xn--a.org", b"..", b"%41", b"a" * 300, b"a\\b"]),
    st.sampled_from([b"\xe2\x84\x80", b"a?b", b"a#b", b"example.org, b", b"[v1.a]", b"1.2.3.4.5"]),
    _BYTES,
)
_LINES = st.lists(
    st.one_of(
        _PROTO.map(lambda value: b"X-Forwarded-Proto: " + value),
        _HOST.map(lambda value: b"Host: " + value),
        _HOST.map(lambda value: b"X-Forwarded-Host: " + value),
        _BYTES.map(lambda value: b"Forwarded: " + value),
    ),
    max_size=4,
)
_COOKIE_LINE: Final = re.compile(
    r"sid=s%3Amade-\d+\.[A-Za-z0-9%]{43,90}(; Max-Age=\d+; Expires=[A-Za-z0-9, :]+)?; Path=/(put)?"
    r"(; Domain=\.?example\.org)?; HttpOnly(; Secure)?; SameSite=(Lax|None)"
)


def _check_headers(made: tuple[str, list[bytes], bool]) -> None:
    name, lines, is_encrypted = made

    seen = {
        lane: run(partial(_sent, site_of(lane, name), lines, is_encrypted=is_encrypted))
        for lane in LANES
    }

    assert seen["fast"] == seen["whole"], seen
    status, cookies = seen["fast"]
    assert status in {None, 200, 400}, status
    for line in cookies:
        assert _COOKIE_LINE.fullmatch(line), line
        assert ("Secure" in line) == _is_encrypted(name, lines, is_encrypted=is_encrypted), line


def _is_encrypted(name: str, lines: list[bytes], *, is_encrypted: bool) -> bool:
    """Ask, by words of its own, whether the browser's connection is to be taken for encrypted."""
    if is_encrypted or OPTIONS[name].get("proxy") is not True:
        return is_encrypted
    told = [line.partition(b": ")[2] for line in lines if line.startswith(b"X-Forwarded-Proto:")]
    first = told[0].split(b",")[0].strip(b" \t").lower() if told else b""
    return first in {b"https", b"wss"}


async def _sent(
    site: Site, lines: list[bytes], *, is_encrypted: bool
) -> tuple[int | None, list[str]]:
    for each in site.made:
        await site.storage.delete(each)
    site.made.clear()
    has_host = any(line.startswith(b"Host:") for line in lines)
    head = [b"GET /put HTTP/1.1", *([] if has_host else [b"Host: example.org"]), *lines]
    answer: Answer
    answer, _ = await site.ask(
        b"\r\n".join([*head, b"Connection: close", b"", b""]), is_encrypted=is_encrypted
    )
    cookies = [value for name, value in answer.headers if name == hdrs.SET_COOKIE]
    return answer.status, cookies


def _check_is_secure(value: str) -> None:
    """Check a header that no server has looked at before."""
    request = _request((hdrs.X_FORWARDED_PROTO, value))

    found = is_secure(request, proxy=True)

    assert found == (re.match(r"\s*(https|wss)\s*(,|\Z)", value, re.IGNORECASE) is not None)
    assert not is_secure(request, proxy=False)


TARGETS: Final = [
    Target(name="cookies", inputs=_HEADERS, check=_check_cookies, few=100),
    Target(
        name="cookie-requests",
        inputs=st.tuples(_HEADERS, st.sampled_from(["/show", "/put", "/show"])),
        check=_check_cookie_requests,
        few=60,
    ),
    Target(
        name="headers",
        inputs=st.tuples(st.sampled_from(sorted(OPTIONS)), _LINES, st.booleans()),
        check=_check_headers,
        few=100,
    ),
    Target(
        name="forwarded-proto",
        inputs=st.one_of(
            st.text(max_size=12),
            st.sampled_from(
                ["https", "HTTPS ,x", "\thttps", "https\u2003", "httpS,", "wss", "\u017f"]
            ),
        ),
        check=_check_is_secure,
        few=100,
    ),
]
