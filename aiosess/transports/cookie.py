"""How the session id travels: read, sign, write and clear the cookie, as express-session does."""

from __future__ import annotations

import binascii
import hmac
import logging
import math
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import quote, unquote

from aiohttp import hdrs, web

from aiosess.attributes import SessionCookie
from aiosess.errors import OptionsError

__all__ = [
    "Secret",
    "Signed",
    "Signer",
    "clear_cookie",
    "cookie_values",
    "is_secure",
    "is_under",
    "keep_out_of_caches",
    "set_cookie",
    "vary_by_cookie",
]

_log: Final = logging.getLogger("aiosess")

Secret: TypeAlias = str | bytes

_PREFIX: Final = "s:"
_SIGNATURE_LENGTH: Final = 43
_STRONG: Final = 32
_COOKIE: Final = hdrs.COOKIE
# So many cookies, one for each session that was here last.
_MOST_VERIFIED: Final = 4096
# What JavaScript's encodeURIComponent leaves alone besides letters, digits and "_.-~".
_UNQUOTED: Final = "!~*'()"


class Signed(NamedTuple):
    """A session id whose signature holds; *is_current*: it was made with the first secret."""

    session_id: str
    is_current: bool


class Signer:
    """Signs session ids with the first secret and accepts those signed with any.

    A signed id is ``s:<id>.<base64 of HMAC-SHA256(secret, id), without =>``, percent-encoded:
    the format of express-session. Raise OptionsError for no secret or one that is not text.
    """

    def __init__(self, secrets: Secret | Sequence[Secret]) -> None:
        given: Sequence[Secret] = [secrets] if isinstance(secrets, str | bytes) else secrets
        if not isinstance(given, Sequence) or not given:
            raise OptionsError("secret must be a str, bytes or a list of them with at least one")
        keys = [_key(secret) for secret in given]
        self._macs = [hmac.new(key, digestmod="sha256") for key in keys]
        self._verified: dict[str, Signed] = {}
        if any(len(key) < _STRONG for key in keys):
            _log.warning(
                "a secret has fewer than %d bytes and could be guessed: "
                'make one with python -c "import secrets; print(secrets.token_hex(32))"',
                _STRONG,
            )

    def sign(self, session_id: str) -> str:
        """Return the cookie's value for *session_id*."""
        signature = _signature(self._macs[0], session_id.encode()).decode()
        return quote(f"{_PREFIX}{session_id}.{signature}", safe=_UNQUOTED)

    def unsign(self, value: str) -> Signed | None:
        """Return the id in the cookie's *value*, or ``None`` when no secret made its signature."""
        session_id, _, signature = _unquoted(value).rpartition(".")
        if not session_id.startswith(_PREFIX) or len(signature) != _SIGNATURE_LENGTH:
            return None
        session_id = session_id[len(_PREFIX) :]
        try:
            message, given = session_id.encode(), signature.encode("ascii")
        except UnicodeEncodeError:
            return None
        if not session_id:
            return None
        for index, mac in enumerate(self._macs):
            if hmac.compare_digest(_signature(mac, message), given):
                return Signed(session_id, is_current=index == 0)
        return None

    def read(self, name: str, request: web.Request) -> Signed | None:
        """Return the id in the first cookie called *name* whose signature holds.

        Signatures that held are remembered, for some thousand cookies.
        """
        # Most requests bring one such cookie, not for the first time.
        before, _, after = request.headers.get(_COOKIE, "").partition(name + "=")
        if not before or before.endswith("; "):
            signed = self._verified.get(after.partition(";")[0])
            if signed is not None:
                return signed
        for value in cookie_values(request, name):
            signed = self._verified.get(value) or self._verify(value)
            if signed is not None:
                return signed
        return None

    def _verify(self, value: str) -> Signed | None:
        signed = self.unsign(value)
        # Not what does not hold, nor other spellings of what does: nobody can push others out.
        if signed is not None and signed.is_current and value == self.sign(signed.session_id):
            if len(self._verified) >= _MOST_VERIFIED:
                self._verified.clear()
            self._verified[value] = signed
        return signed


def cookie_values(request: web.Request, name: str) -> list[str]:
    """Return the values of all cookies called *name*, in the order in which they were sent.

    Not by way of ``request.cookies``, which keeps the last of a name only: a cookie that was
    planted from a sibling domain would push ours aside. It would parse all others as well.
    """
    values: list[str] = []
    start = name + "="
    for header in request.headers.getall(hdrs.COOKIE, ()):
        before, found, after = header.partition(start)
        while found:
            value, _, after = after.partition(";")
            # Not the end of a longer name, nor a part of another cookie's value.
            before = before.rstrip()
            if not before or before[-1] == ";":
                values.append(value.strip(' \t"'))
            before, found, after = after.partition(start)
    return values


def is_secure(request: web.Request, *, proxy: bool | None) -> bool:
    """Ask whether the browser's connection is encrypted.

    *proxy* ``True`` believes the first value of ``X-Forwarded-Proto``, ``False`` only the
    transport, ``None`` asks ``request.secure``.
    """
    if proxy is None:
        return request.secure
    if request.get_extra_info("sslcontext") is not None:
        return True
    if not proxy:
        return False
    first = request.headers.get(hdrs.X_FORWARDED_PROTO, "").partition(",")[0]
    return first.strip().lower() == "https"


def is_under(path: str, cookie_path: str) -> bool:
    """Ask whether a browser sends a cookie of *cookie_path* with *path* (RFC 6265, 5.1.4)."""
    if cookie_path in {"/", path}:
        return True
    return path.startswith(cookie_path if cookie_path.endswith("/") else cookie_path + "/")


def set_cookie(
    response: web.StreamResponse, name: str, value: str, cookie: SessionCookie, *, now: float
) -> None:
    """Add the ``Set-Cookie`` header; *value* is what Signer.sign returned."""
    expires_at = cookie.expires_at(now)
    lifetime = ""
    if expires_at is not None:
        age = max(0, math.ceil(expires_at - now))
        lifetime = f"; Max-Age={age}; Expires={_http_date(math.floor(expires_at))}"
    response.headers.add(hdrs.SET_COOKIE, f"{name}={value}{lifetime}{_attributes(cookie)}")
    keep_out_of_caches(response)


def clear_cookie(response: web.StreamResponse, name: str, cookie: SessionCookie) -> None:
    """Add the ``Set-Cookie`` header that removes the cookie from the browser."""
    lifetime = f"; Max-Age=0; Expires={_http_date(0)}"
    response.headers.add(hdrs.SET_COOKIE, f"{name}={lifetime}{_attributes(cookie)}")
    keep_out_of_caches(response)


def keep_out_of_caches(response: web.StreamResponse) -> None:
    """Let no cache keep the ``Set-Cookie`` header, unless the handler has told caches what to do.

    RFC 9111, section 5.2.2.4: a cache may keep the response, but not this header.
    """
    response.headers.setdefault(hdrs.CACHE_CONTROL, 'no-cache="Set-Cookie"')


def vary_by_cookie(response: web.StreamResponse) -> None:
    """Tell caches that *response* differs from browser to browser."""
    headers = response.headers
    if headers.setdefault(hdrs.VARY, "Cookie") == "Cookie":
        return
    vary = ", ".join(filter(None, headers.getall(hdrs.VARY)))
    if not vary:
        headers[hdrs.VARY] = "Cookie"
    elif not {"*", "cookie"} & {each.strip().lower() for each in vary.split(",")}:
        headers[hdrs.VARY] = f"{vary}, Cookie"


def _key(secret: object) -> bytes:
    key = secret.encode() if isinstance(secret, str) else secret
    if not isinstance(key, bytes):
        raise OptionsError(f"a secret must be str or bytes, not {type(secret).__name__}")
    if not key:
        raise OptionsError("secret is empty: give at least 32 random bytes")
    return key


def _signature(mac: hmac.HMAC, message: bytes) -> bytes:
    mac = mac.copy()
    mac.update(message)
    return binascii.b2a_base64(mac.digest(), newline=False).rstrip(b"=")


def _unquoted(value: str) -> str:
    # Our own cookies have these three escapes and no others.
    plain = value.replace("%3A", ":").replace("%2B", "+").replace("%2F", "/")
    if "%" not in plain:
        return plain
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        return ""


def _attributes(cookie: SessionCookie) -> str:
    parts = [f"; Path={cookie.path}"]
    if cookie.domain is not None:
        parts.append(f"; Domain={cookie.domain}")
    if cookie.httponly:
        parts.append("; HttpOnly")
    if cookie.secure:
        parts.append("; Secure")
    if cookie.partitioned:
        parts.append("; Partitioned")
    if cookie.priority is not None:
        parts.append(f"; Priority={cookie.priority.capitalize()}")
    if cookie.samesite:
        parts.append(f"; SameSite={cookie.samesite.capitalize()}")
    return "".join(parts)


# The cookies that are sent in one second mostly end in one second, too.
@lru_cache(maxsize=64)
def _http_date(at: int) -> str:
    # RFC 9110, section 5.6.7; strftime would follow the locale.
    year, month, day, hour, minute, second, weekday, *_ = time.gmtime(at)
    return (
        f"{_WEEKDAYS[weekday]}, {day:02d} {_MONTHS[month - 1]} {year:04d} "
        f"{hour:02d}:{minute:02d}:{second:02d} GMT"
    )


_WEEKDAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)
