"""What the cookie says about itself: its attributes, for all sessions and for one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, lru_cache, partial
from typing import Any, Final, Generic, Literal, Self, TypeAlias, TypeVar, cast, overload

import msgspec

from aiosess.errors import OptionsError
from aiosess.spelling import with_hints
from aiosess.timeouts import Duration, seconds

__all__ = [
    "COOKIE_KEY",
    "RESERVED_KEY",
    "SECURE_PREFIXES",
    "CookieOptions",
    "Priority",
    "SameSite",
    "SessionCookie",
    "check_name",
    "restored",
]

COOKIE_KEY: Final = "cookie"
"""Under which key of a record Express keeps the attributes."""
RESERVED_KEY: Final = "__aiosess"
"""Under which key aiosess keeps what it remembers itself."""

SameSite: TypeAlias = Literal["lax", "strict", "none", "auto"] | bool
Priority: TypeAlias = Literal["low", "medium", "high"]

# RFC 6265, section 4.1.1: an attribute's value is any CHAR except CTLs or ";".
_VALUE: Final = re.compile(r"[ -:<-~]*")
# RFC 9110, section 5.6.2: a cookie's name is a token.
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# Browsers take a cookie with such a name only if it is secure.
SECURE_PREFIXES: Final = ("__host-", "__secure-", "__http-")
_HTTP_PREFIXES: Final = ("__http-", "__host-http-")

_FIRST_YEAR: Final = 1970
_LAST_YEAR: Final = 9998


def _check_path(path: object) -> None:
    if not isinstance(path, str) or not path.startswith("/") or not _VALUE.fullmatch(path):
        raise OptionsError(f"cookie path={path!r} must start with '/' and be plain ASCII without ;")


def _check_domain(domain: object) -> None:
    if domain is None:
        return
    if not isinstance(domain, str) or not re.fullmatch(r"\.?[A-Za-z0-9.-]+", domain):
        raise OptionsError(
            f"cookie domain={domain!r} is not a host name: give 'example.org' (IDNA-encoded)"
        )


def _check_expires(expires: object) -> None:
    if expires is None:
        return
    if not isinstance(expires, datetime) or expires.tzinfo is None:
        raise OptionsError(
            f"cookie expires={expires!r} must be a datetime with a time zone: "
            "datetime(..., tzinfo=UTC)"
        )
    # Beyond, the time cannot be written in UTC; browsers shorten what is over 400 days anyway.
    if not _FIRST_YEAR <= expires.year <= _LAST_YEAR:
        raise OptionsError(
            f"cookie expires={expires!r} must be in the years {_FIRST_YEAR} to {_LAST_YEAR}"
        )


def _check_bool(value: object, name: str) -> None:
    if not isinstance(value, bool):
        raise OptionsError(f"cookie {name}={value!r} must be True or False")


def _check_secure(secure: object) -> None:
    if secure != "auto" and not isinstance(secure, bool):
        raise OptionsError(f"cookie secure={secure!r} must be True, False or 'auto'")


def _checked_samesite(samesite: object) -> SameSite:
    if samesite is True:
        return "strict"
    if samesite is False:
        return False
    if isinstance(samesite, str) and samesite.lower() in {"lax", "strict", "none", "auto"}:
        return cast("SameSite", samesite.lower())
    raise OptionsError(
        f"cookie samesite={samesite!r} must be 'lax', 'strict', 'none', 'auto', True or False"
    )


def _check_priority(priority: object) -> None:
    if priority not in (None, "low", "medium", "high"):
        raise OptionsError(f"cookie priority={priority!r} must be 'low', 'medium', 'high' or None")


# Without slots, for the sake of ``frame``.
@with_hints({"maxAge": "max_age=..., in seconds"})
@dataclass(frozen=True, kw_only=True)
class CookieOptions:
    """The attributes of the session cookie; checked when built, OptionsError where they clash.

    - ``path``: the cookie goes to this path and below, by whole segments (RFC 6265, 5.1.4).
    - ``domain``: sent to this domain and its sub-domains; ``None``: to this host only.
    - ``max_age``: seconds or a ``timedelta``; ``None``: until the browser closes.
    - ``expires``: a fixed end instead, as an aware ``datetime``.
    - ``httponly``: hidden from the scripts of a page.
    - ``secure``: ``True``, ``False``, or ``"auto"``: as the connection is.
    - ``samesite``: ``"lax"``, ``"strict"`` (or ``True``), ``"none"``, ``False`` (left out), or
      ``"auto"``: ``"none"`` where the cookie is secure, else ``"lax"``.
    - ``partitioned``: one cookie jar a top-level site (CHIPS); needs ``secure``.
    - ``priority``: ``"low"``, ``"medium"`` or ``"high"``: which cookies Chromium keeps longest.
    """

    path: str = "/"
    domain: str | None = None
    max_age: Duration | None = None
    expires: datetime | None = None
    httponly: bool = True
    secure: bool | Literal["auto"] = "auto"
    samesite: SameSite = "lax"
    partitioned: bool = False
    priority: Priority | None = None

    def __post_init__(self) -> None:
        _check_path(self.path)
        _check_domain(self.domain)
        if self.max_age is not None:
            object.__setattr__(self, "max_age", seconds(self.max_age, name="cookie max_age"))
        _check_expires(self.expires)
        if self.max_age is not None and self.expires is not None:
            raise OptionsError("a cookie takes max_age or expires, not both: leave one out")
        _check_bool(self.httponly, "httponly")
        _check_secure(self.secure)
        object.__setattr__(self, "samesite", _checked_samesite(self.samesite))
        if self.samesite == "none" and self.secure is False:
            raise OptionsError(
                "samesite='none' with secure=False is refused by browsers: set secure=True"
            )
        _check_bool(self.partitioned, "partitioned")
        if self.partitioned and self.secure is False:
            raise OptionsError(
                "partitioned=True with secure=False is refused by browsers: set secure=True"
            )
        _check_priority(self.priority)

    @cached_property
    def frame(self) -> bytes:
        """What a record has before its data, of a session without attributes of its own.

        Empty where the cookie has an end, which differs from record to record.
        """
        if self.max_age is not None or self.expires is not None:
            return b""
        cookie = msgspec.json.encode(SessionCookie(self).as_express(0))
        return f'"{COOKIE_KEY}":{cookie.decode()},'.encode()

    def resolve(self, *, is_secure: bool) -> CookieOptions:
        """Return the same attributes with each ``"auto"`` settled for one connection."""
        if self.secure != "auto" and self.samesite != "auto":
            return self
        secure = is_secure if self.secure == "auto" else self.secure
        samesite = self.samesite
        if samesite == "auto":
            samesite = "none" if secure else "lax"
        elif samesite == "none" and not secure:
            # A browser refuses SameSite=None without Secure; Lax at least arrives.
            samesite = "lax"
        partitioned = self.partitioned and secure
        return replace(self, secure=secure, samesite=samesite, partitioned=partitioned)


T = TypeVar("T")


class _Attribute(Generic[T]):
    """An attribute of one session's cookie: what the session has of its own, else the option.

    *check* raises OptionsError for a value that makes no sense, and then nothing is changed.
    """

    def __init__(self, check: Callable[[object], object]) -> None:
        self._check = check

    def __set_name__(self, _owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, cookie: None, owner: type) -> Self: ...

    @overload
    def __get__(self, cookie: SessionCookie, owner: type) -> T: ...

    def __get__(self, cookie: SessionCookie | None, owner: type) -> object:
        if cookie is None:
            return self
        own, name = cookie.own, self._name
        return own[name] if name in own else getattr(cookie.base, name)

    def __set__(self, cookie: SessionCookie, value: T) -> None:
        self._check(value)
        _keep(cookie, self._name, value)


def _keep(cookie: SessionCookie, name: str, value: object) -> None:
    # What equals the option is not the session's own, so that a new option reaches it later.
    if value == getattr(cookie.base, name):
        cookie.own.pop(name, None)
    else:
        cookie.own[name] = value


class _Attributes:
    """The attributes of one session's cookie that are kept as they were set."""

    __slots__ = ()

    path: _Attribute[str] = _Attribute(_check_path)
    """The path to which the cookie goes, and below."""

    domain: _Attribute[str | None] = _Attribute(_check_domain)
    """The domain to which the cookie goes; ``None``: this host only."""

    httponly: _Attribute[bool] = _Attribute(partial(_check_bool, name="httponly"))
    """Whether the cookie is hidden from the page's scripts."""

    secure: _Attribute[bool] = _Attribute(partial(_check_bool, name="secure"))
    """Whether the cookie goes over TLS only; ``"auto"`` is settled already."""

    partitioned: _Attribute[bool] = _Attribute(partial(_check_bool, name="partitioned"))
    """Whether the cookie is kept apart for each top-level site."""

    priority: _Attribute[Priority | None] = _Attribute(_check_priority)
    """The Priority attribute; ``None``: left out."""


class SessionCookie(_Attributes, msgspec.Struct, eq=False):
    """The cookie of one session: the options' attributes, and what this session has of its own.

    Each attribute can be set for this session alone (``session.cookie.max_age = 30 * 86400`` for
    *remember me*) and is kept with it. A value that makes no sense raises OptionsError and
    changes nothing.
    """

    base: CookieOptions
    own: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"SessionCookie({self.base!r}, own={self.own!r})"

    @property
    def max_age(self) -> float | None:
        """Seconds that the cookie lives after each time it is sent; ``None``: no such limit.

        Set for one session, it is also how long the record lives unused, and wins over
        ``expires``.
        """
        if self.own.get("expires") is not None:
            return None
        age = self.own.get("max_age", self.base.max_age)
        return cast("float | None", age)

    @max_age.setter
    def max_age(self, value: Duration | None) -> None:
        age = None if value is None else seconds(value, name="session.cookie.max_age")
        _keep(self, "expires", None)
        _keep(self, "max_age", age)

    @property
    def expires(self) -> datetime | None:
        """The fixed instant at which the cookie and the record end; ``None``: none fixed."""
        if "expires" not in self.own:
            return None if self.own.get("max_age") is not None else self.base.expires
        at = cast("float | None", self.own["expires"])
        return None if at is None else datetime.fromtimestamp(at, UTC)

    @expires.setter
    def expires(self, value: datetime | None) -> None:
        _check_expires(value)
        _keep(self, "max_age", None)
        _keep(self, "expires", None if value is None else value.timestamp())

    @property
    def samesite(self) -> Literal["lax", "strict", "none", False]:
        """The SameSite attribute; ``False``: left out."""
        samesite = self.own.get("samesite", self.base.samesite)
        return cast('Literal["lax", "strict", "none", False]', samesite)

    @samesite.setter
    def samesite(self, value: Literal["lax", "strict", "none"] | bool) -> None:
        samesite = _checked_samesite(value)
        if samesite == "auto":
            samesite = "none" if self.secure else "lax"
        _keep(self, "samesite", samesite)

    @property
    def is_persistent(self) -> bool:
        """Whether the cookie has an end of its own; without one, it ends with the browser."""
        if self.own:
            return self.expires_at(0) is not None
        return self.base.max_age is not None or self.base.expires is not None

    def expires_at(self, now: float) -> float | None:
        """Return the Unix time at which a cookie sent *now* ends; ``None``: with the browser."""
        fixed = self.expires
        if fixed is not None:
            return fixed.timestamp()
        age = self.max_age
        return None if age is None else now + age

    def as_express(self, now: float) -> dict[str, Any]:
        """Return what express-session's ``Cookie.data`` holds, for a cookie that is sent *now*.

        Left out is what its constructor sets by itself: no end, ``HttpOnly``, the path ``/``. So is
        what it leaves out: ``secure`` and ``sameSite`` where they are false.
        """
        attributes = self if self.own else self.base
        fields: dict[str, Any] = {"originalMaxAge": None}
        expires_at = self.expires_at(now)
        if expires_at is not None:
            fields["originalMaxAge"] = round((expires_at - now) * 1000)
            fields["expires"] = _iso(expires_at)
        if attributes.secure:
            fields["secure"] = True
        if not attributes.httponly:
            fields["httpOnly"] = False
        if attributes.path != "/":
            fields["path"] = attributes.path
        if attributes.samesite:
            fields["sameSite"] = attributes.samesite
        if attributes.domain is not None:
            fields["domain"] = attributes.domain
        if attributes.partitioned:
            fields["partitioned"] = True
        if attributes.priority is not None:
            fields["priority"] = attributes.priority
        return fields


def _iso(at: float) -> str:
    second = math.floor(at)
    # As datetime rounds, which may be up to the next second.
    more, microseconds = divmod(round((at - second) * 1_000_000), 1_000_000)
    return f"{_iso_second(second + more)}.{microseconds // 1000:03d}Z"


# The cookies that are sent in one second mostly end in one second, too.
@lru_cache(maxsize=64)
def _iso_second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()[:-6]


def restored(own: dict[str, Any]) -> dict[str, Any]:
    """Return a session's own attributes as a record kept them; none where they make no sense."""
    fixed = own.get("expires")
    try:
        expires = None if fixed is None else datetime.fromtimestamp(fixed, UTC)
        attributes: dict[str, Any] = {**own, "expires": expires}
        settled = CookieOptions(**attributes).resolve(is_secure=True)
    except (TypeError, ValueError, OverflowError, OSError):
        return {}
    return {name: fixed if name == "expires" else getattr(settled, name) for name in own}


def check_name(name: object, cookie: CookieOptions | None) -> None:
    """Raise OptionsError unless *name* can be a cookie's name, and this cookie's.

    The prefixes are those of RFC 6265bis, section 4.1.3, and of its successor, which adds the
    two with ``Http-``; *cookie* is ``None`` when unknown yet.
    """
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise OptionsError(
            f"name={name!r} cannot be a cookie's name: use letters, digits, '-', '_' and '.'"
        )
    lowered = name.lower()
    if cookie is None or not lowered.startswith(SECURE_PREFIXES):
        return
    if cookie.secure is False:
        raise OptionsError(f"name={name!r} needs a secure cookie: CookieOptions(secure=True)")
    if lowered.startswith(_HTTP_PREFIXES) and not cookie.httponly:
        raise OptionsError(f"name={name!r} needs CookieOptions(httponly=True), the default")
    if lowered.startswith("__host-") and cookie.domain is not None:
        raise OptionsError(f"name={name!r} cannot have domain={cookie.domain!r}: leave it out")
    if lowered.startswith("__host-") and cookie.path != "/":
        raise OptionsError(f"name={name!r} cannot have path={cookie.path!r}: it must be '/'")
