"""Options that make no sense, and URLs: each is taken, or refused with words that name it."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from aiohttp import web
from hypothesis import strategies as st

from aiosess import BreakerOptions, CookieOptions, MemoryStorage, SessionOptions
from aiosess.errors import OptionsError
from aiosess.storages.memcached import MemcachedStorage
from aiosess.storages.redis import RedisStorage
from tests.fuzz.target import Target

__all__ = ["TARGETS"]

PASSWORD: Final = "Kn0ck-kn0ck"

_Given: TypeAlias = dict[str, Any]


class _Odd:
    """A value that no option takes."""

    def __repr__(self) -> str:
        return "<odd>"


_TEXTS = st.one_of(
    st.text(max_size=12),
    st.text(st.characters(exclude_categories=()), max_size=5),
    st.sampled_from(
        [
            *("\ud800", "na\xefve", "a\0b", "a\r\nb"),
            *("lax", "none", "auto", "mine", "raise", "keep", "eager", "low", "5%", "1e3%", "100%"),
            *(
                "sid",
                "__Host-sid",
                "/",
                "/a;b",
                ".example.org",
                "anonymous",
                "GET",
                "9" * 400 + "%",
            ),
        ]
    ),
)
_NUMBERS = st.one_of(
    st.integers(-3, 10),
    st.integers(-(10**400), 10**400),
    st.sampled_from([10**400, -(10**400), 2**63, 2**31]),
    st.floats(),
    st.sampled_from([math.nan, math.inf, -0.0, 1e-320, 1e308]),
    st.timedeltas(),
    st.sampled_from([timedelta.max, timedelta.min]),
)
_DATES = st.one_of(
    st.datetimes(),
    st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-23))])),
    st.sampled_from([datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)]),
)
_OBJECTS = st.sampled_from(
    [
        *(
            None,
            True,
            False,
            object,
            _Odd,
            _Odd(),
            CookieOptions(),
            CookieOptions,
            BreakerOptions(),
        ),
        *(web.HTTPServiceUnavailable, web.HTTPFound, web.HTTPFound("/"), web.HTTPException),
        *(str, int, float, MemoryStorage(), MemoryStorage, ..., NotImplemented),
    ]
)
_PLAIN = st.one_of(_TEXTS, st.binary(max_size=40), _NUMBERS, _DATES, _OBJECTS)
_VALUES = st.one_of(
    _PLAIN,
    st.lists(_PLAIN, max_size=3),
    st.tuples(_PLAIN),
    st.lists(st.lists(_PLAIN, max_size=1), max_size=2),
    st.sets(_TEXTS, max_size=2),
    st.dictionaries(_TEXTS, _PLAIN, max_size=2),
    st.sampled_from([{"a": {}}, [{}], [[]], {1: 2}, frozenset({1})]),
)

_SECRETS = st.one_of(
    st.just("a secret of the tests that is long enough to be quiet"),
    st.just(b"a secret of the tests that is long enough to be quiet"),
    st.just([PASSWORD * 4, b"another secret, which is long enough to be quiet"]),
    _VALUES,
)


def _given_to(options: type, **usual: Any) -> st.SearchStrategy[_Given]:
    """Return what *options* may be given: one odd value or a few, beside those that are usual."""
    names = [name for name in options.__annotations__ if name not in {"plan", "secret"}]
    odd = st.dictionaries(
        st.one_of(st.sampled_from(names), st.sampled_from(["httpOnly", "ttl", "x", ""])),
        _VALUES,
        min_size=1,
        max_size=2,
    )
    return st.tuples(st.fixed_dictionaries(usual), odd).map(lambda parts: {**parts[0], **parts[1]})


def _is_named(given: _Given, said: str) -> bool:
    """Ask whether *said* names one of the options that were given."""
    words = re.findall(r"\w+", said)
    return any(name in words or not name for name in given)


def _refusal(make: Callable[..., object], *url: object, **given: Any) -> Exception | None:
    """Return the error with which what is given is refused; ``None`` where it is taken."""
    try:
        make(*url, **given)
    except (OptionsError, TypeError) as error:
        return error
    return None


def _check(options: Callable[..., object]) -> Callable[[_Given], None]:
    def check(given: _Given) -> None:
        error = _refusal(options, **given)
        if error is not None:
            assert PASSWORD not in str(error), error
            assert type(error) in {OptionsError, TypeError}, repr(error)
            assert _is_named(given, str(error)), repr(error)

    return check


# URLs.

_REDIS: Final = ("redis", "rediss", "valkey", "unix", "redis+sentinel", "valkeys+cluster")
_MEMCACHED: Final = ("memcached", "memcached", "memcacheds", "unix")
_NO_SCHEMES: Final = ("http", "", "REDIS", "redi", "redis+", "+cluster", "memcache", "\ud800")
_HOSTS = st.lists(
    st.one_of(
        st.sampled_from(["localhost", "a:1", "[::1]:2", "[::1", "::1", "h:", ":6379", "h:99999"]),
        st.sampled_from(["h:" + "9" * 5000, "h:-1", "h:\u0661", "\u2100", "", "/run/x", "\ud800"]),
        st.text(max_size=5),
    ),
    max_size=3,
).map(",".join)
_CREDENTIALS = st.sampled_from(
    [
        *("", f":{PASSWORD}@", f"user:{PASSWORD}@", f"user:%ff{PASSWORD}@", f":{PASSWORD}/@", "u@"),
        *(f":{PASSWORD}#@", f":{PASSWORD}?@", f":[{PASSWORD}@", f":{PASSWORD}:@", f"@{PASSWORD}@"),
        *(f"{PASSWORD}\ud800:@", f"u:{PASSWORD}\ud800@", f"us er:{PASSWORD}\u2603@"),
    ]
)
_PATHS = st.one_of(
    st.sampled_from(
        ["", "/", "/0", "/15", "/name", "/name/0", "/" + "9" * 5000, "/run/redis.sock"]
    ),
    st.text(max_size=5).map(lambda said: "/" + said),
)
_OPTION_NAMES = st.sampled_from(
    [
        *("db", "socket_timeout", "max_connections", "retry", "retry_on_error", "ssl_cert_reqs"),
        *("health_check_interval", "protocol", "encoding", "decode_responses", "client_name"),
        *("ssl_ca_certs", "ssl_min_version", "credential_provider", "socket_keepalive", "host"),
        *("username", "path", "single_connection_client", "connection_class", "nonsense", "ssl"),
        *("ssl_check_hostname", "socket_keepalive_options", "parser_class", "unix_socket_path"),
    ]
)
_QUERIES = st.lists(
    st.tuples(
        _OPTION_NAMES,
        st.one_of(
            _TEXTS.map(lambda t: quote(t, errors="replace")),
            st.sampled_from(["1", "yes", "None", "9" * 400]),
        ),
    ),
    max_size=2,
).map(lambda pairs: "?" + "&".join(f"{name}={value}" for name, value in pairs) if pairs else "")

_HOST_TEXTS = st.one_of(st.sampled_from(["localhost", "a,b:1"]), _HOSTS)


def _urls(known: tuple[str, ...], paths: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    schemes = st.one_of(st.sampled_from(known), st.sampled_from((*known, *_NO_SCHEMES)))
    parts = (schemes, st.just("://"), _CREDENTIALS, _HOST_TEXTS, paths)
    return st.one_of(
        st.tuples(*parts).map("".join),
        st.tuples(*parts, _QUERIES).map("".join),
        st.tuples(st.sampled_from(["", "redis:", "unix:", "x"]), st.text(max_size=30)).map("".join),
        _VALUES,
    )


def _check_url(from_url: Callable[..., object]) -> Callable[[tuple[Any, _Given]], None]:
    def check(made: tuple[Any, _Given]) -> None:
        url, options = made
        error = _refusal(from_url, url, **options)
        if error is None:
            assert isinstance(options.get("prefix", ""), str), options
            return
        assert PASSWORD not in str(error), error
        is_named = any(name in str(error) for name in options)
        assert type(error) is OptionsError or is_named, repr(error)

    return check


def _quiet(check: Callable[[Any], None]) -> Callable[[Any], None]:
    """Leave warnings alone: an option that is old in redis-py may well warn."""

    def quiet(made: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check(made)

    return quiet


_CLIENT_OPTIONS: Final = (
    *("socket_timeout", "socket_connect_timeout", "max_connections", "retry", "retry_on_error"),
    *("db", "protocol", "client_name", "username", "encoding", "ssl", "health_check_interval"),
    "sentinel_kwargs",
)

TARGETS: Final = [
    Target(
        name="session-options",
        inputs=_given_to(SessionOptions, secret=_SECRETS),
        check=_check(SessionOptions),
        few=400,
    ),
    Target(
        name="cookie-options",
        inputs=_given_to(CookieOptions),
        check=_check(CookieOptions),
        few=300,
    ),
    Target(
        name="breaker-options",
        inputs=_given_to(BreakerOptions),
        check=_check(BreakerOptions),
        few=200,
    ),
    Target(
        name="redis-urls",
        inputs=st.tuples(
            _urls(_REDIS, _PATHS),
            st.fixed_dictionaries(
                {},
                optional={
                    "prefix": _VALUES,
                    "multiplex": st.booleans(),
                    **dict.fromkeys(_CLIENT_OPTIONS, _VALUES),
                },
            ),
        ),
        check=_quiet(_check_url(RedisStorage.from_url)),
        few=300,
    ),
    Target(
        name="memcached-urls",
        inputs=st.tuples(
            _urls(_MEMCACHED, st.one_of(st.just(""), _PATHS)),
            st.fixed_dictionaries({}, optional={"prefix": _VALUES, "timeout": _VALUES}),
        ),
        check=_quiet(_check_url(MemcachedStorage.from_url)),
        few=300,
    ),
]
