"""Every option is checked when it is built; the message names the value and the way out."""

from __future__ import annotations

import base64
import dataclasses
import logging
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from aiosess import CookieOptions, MemoryStorage, OptionsError, SessionOptions
from aiosess.guard.retries import RetryPolicy, no_wait
from aiosess.options import random_id
from aiosess.records.decide import Rules
from aiosess.testing import FaultyStorage
from aiosess.timeouts import DAY, Timeouts
from tests.conftest import SECRET


def options(**given: Any) -> SessionOptions:
    return SessionOptions(**{"secret": SECRET, **given})


# Defaults


def test_the_defaults_are_those_of_the_documentation() -> None:
    given = options()

    assert (given.name, given.cookie, given.genid) == ("sid", CookieOptions(), random_id)
    assert (given.proxy, given.unset, given.load) == (None, "keep", None)
    assert given.plan.rules == Rules(resave=False, rolling=False, save_uninitialized=False)
    assert given.plan.retry_policy == RetryPolicy(retries=0, wait=no_wait, timeout=1.0)
    assert given.plan.records.timeouts == Timeouts(idle=DAY, absolute=None, touch_after=DAY * 0.05)
    assert (given.plan.records.merge, given.plan.records.renew_grace) == ("mine", 10.0)
    assert (given.for_routes, given.exclude, given.retries) == (None, (), None)


def test_the_default_storage_is_in_memory_and_not_shared() -> None:
    first, second = options().storage, options().storage

    assert isinstance(first, MemoryStorage)
    assert first is not second


@pytest.mark.asvs("7.2.2", "7.2.3")
@pytest.mark.nist("5.1-2")
def test_a_random_id_is_24_url_safe_bytes_and_never_the_same() -> None:
    request = make_mocked_request("GET", "/")

    first, second = random_id(request), random_id(request)

    assert len(base64.urlsafe_b64decode(first)) == 24
    assert first != second


@pytest.mark.asvs("7.2.3")
@pytest.mark.nist("5.1-2")
def test_a_random_id_owes_nothing_to_a_seed() -> None:
    request = make_mocked_request("GET", "/")

    random.seed(1)
    first = random_id(request)
    random.seed(1)
    second = random_id(request)

    assert first != second


def test_the_secret_is_not_in_the_representation() -> None:
    assert SECRET not in repr(options())


def test_options_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        options().name = "other"  # type: ignore[misc]


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="ttl"):
        options(ttl=5)


def test_options_are_given_by_name() -> None:
    with pytest.raises(TypeError, match=r"^SessionOptions takes names only: secret=\.\.\.$"):
        SessionOptions(SECRET)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("saveUninitialized", "save_uninitialized=..."),
        ("save_unitialized", "save_uninitialized=..."),
        ("forRoutes", "for_routes=..."),
        ("retriesStrategy", "retries_strategy=..."),
        ("store", "storage=..."),
        ("ttl", "idle_timeout=..."),
        ("maxAge", "cookie=CookieOptions(max_age=...), in seconds"),
        ("max_age", "cookie=CookieOptions(max_age=...)"),
        ("httpOnly", "cookie=CookieOptions(httponly=...)"),
        ("secure", "cookie=CookieOptions(secure=...)"),
    ],
)
def test_an_option_that_is_called_otherwise_elsewhere_is_told(given: str, meant: str) -> None:
    with pytest.raises(TypeError) as caught:
        options(**{given: 1})

    assert str(caught.value) == f"SessionOptions has no {given}: did you mean {meant}?"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("maxAge", "max_age=..., in seconds"),
        ("httpOnly", "httponly=..."),
        ("sameSite", "samesite=..."),
        ("same_site", "samesite=..."),
        ("patitioned", "partitioned=..."),
    ],
)
def test_an_attribute_that_is_called_otherwise_elsewhere_is_told(given: str, meant: str) -> None:
    wrong: dict[str, Any] = {given: 1}

    with pytest.raises(TypeError) as caught:
        CookieOptions(**wrong)

    assert str(caught.value) == f"CookieOptions has no {given}: did you mean {meant}?"


def test_a_name_like_no_other_is_told_without_a_guess() -> None:
    with pytest.raises(TypeError, match=r"^SessionOptions has no xyzzy$"):
        options(xyzzy=1)


@pytest.mark.parametrize("returned", [None, "5", -1, float("nan")])
def test_a_strategy_that_returns_no_duration_is_refused_when_built(returned: object) -> None:
    with pytest.raises(OptionsError, match=r"^retries_strategy\(1\)="):
        options(retries=1, retries_strategy=lambda _retry: returned)


@pytest.mark.parametrize(
    ("max_age", "is_told"), [(86_400_000, True), (401 * DAY, True), (400 * DAY, False)]
)
def test_a_max_age_that_seems_to_be_in_milliseconds_is_told(
    caplog: pytest.LogCaptureFixture, max_age: float, *, is_told: bool
) -> None:
    options(cookie=CookieOptions(max_age=max_age))

    assert ("are these milliseconds?" in caplog.text) is is_told


def test_what_is_no_storage_is_named_by_its_type_alone() -> None:
    class Client:
        def __repr__(self) -> str:
            return "a password"

    with pytest.raises(OptionsError, match="storage=an object of Client is not a storage"):
        options(storage=Client())


# What is refused


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"secret": []}, "secret must be a str, bytes or a list of them with at least one"),
        ({"secret": ""}, "secret is empty: give at least 32 random bytes"),
        ({"storage": None}, "storage=None is not a storage: give MemoryStorage(), "),
        ({"storage": "redis://:password@localhost"}, "storage=a str is not a storage: give "),
        ({"storage": MemoryStorage}, "is not a storage: give MemoryStorage(), "),
        ({"name": ""}, "name='' cannot be a cookie's name: use letters, digits"),
        ({"name": "a;b"}, "name='a;b' cannot be a cookie's name: use letters, digits"),
        (
            {"name": "__Host-sid", "cookie": CookieOptions(domain="example.org")},
            "name='__Host-sid' cannot have domain='example.org': leave it out",
        ),
        (
            {"name": "__Host-sid", "cookie": CookieOptions(path="/shop")},
            "name='__Host-sid' cannot have path='/shop': it must be '/'",
        ),
        (
            {"name": "__Secure-sid", "cookie": CookieOptions(secure=False)},
            "name='__Secure-sid' needs a secure cookie: CookieOptions(secure=True)",
        ),
        ({"cookie": {}}, "cookie={} must be CookieOptions(...) or a function of the request"),
        ({"cookie": None}, "cookie=None must be CookieOptions(...) or a function of the request"),
        ({"cookie": CookieOptions}, "must be CookieOptions(...) or a function of the request"),
        (
            {"genid": "id"},
            "genid='id' is not callable: give a function that takes the request and returns a str",
        ),
        ({"genid": None}, "genid=None is not callable: give a function"),
        ({"proxy": "yes"}, "proxy='yes' must be one of True, False, None"),
        ({"proxy": 1}, "proxy=1 must be one of True, False, None"),
        ({"resave": None}, "resave=None must be one of True, False"),
        ({"rolling": 1}, "rolling=1 must be one of True, False"),
        ({"save_uninitialized": "no"}, "save_uninitialized='no' must be one of True, False"),
        ({"unset": "delete"}, "unset='delete' must be one of 'keep', 'destroy'"),
        ({"unset": None}, "unset=None must be one of 'keep', 'destroy'"),
        ({"load": "later"}, "load='later' must be one of 'lazy', 'eager', None"),
        (
            {"merge": "yours"},
            "merge='yours' must be one of 'mine', 'theirs', 'raise' or a function",
        ),
        ({"merge": "a function"}, "merge='a function' must be one of 'mine', 'theirs', 'raise'"),
        ({"merge": None}, "merge=None must be one of 'mine', 'theirs', 'raise' or a function"),
        ({"whole": "address"}, "whole='address' must be a list of keys: whole=['address']"),
        ({"whole": [5]}, "whole=[5] must be a list of str"),
        ({"whole": [["a", "b"]]}, "whole=[['a', 'b']] must be a list of str"),
        ({"idle_timeout": -1}, "idle_timeout=-1 must be more than zero seconds"),
        ({"idle_timeout": 0}, "idle_timeout=0 must be more than zero seconds"),
        ({"idle_timeout": "1h"}, "idle_timeout='1h' is not a duration: give seconds"),
        ({"absolute_timeout": -1}, "absolute_timeout=-1 must be more than zero seconds"),
        ({"absolute_timeout": True}, "absolute_timeout=True is not a duration"),
        (
            {"absolute_timeout": 10, "idle_timeout": 20},
            "absolute_timeout=10 s is shorter than the idle timeout of 20 s: raise the one or",
        ),
        (
            {"absolute_timeout": 3600},
            "absolute_timeout=3600 s is shorter than the idle timeout of 86400 s",
        ),
        ({"for_routes": "views"}, "for_routes='views' must be a list: for_routes=['views']"),
        ({"for_routes": [5]}, "for_routes has 5: give a resource's name, a path, a Route"),
        ({"exclude": None}, "exclude=None must be a list: exclude=[None]"),
        ({"exclude": [""]}, "exclude has '': give a resource's name, a path, a Route"),
        ({"retries": -1}, "retries=-1 must be from 0 to 1000"),
        ({"retries": 1001}, "retries=1001 must be from 0 to 1000"),
        ({"retries": 1.5}, "retries=1.5 must be a whole number or None"),
        ({"retries": True}, "retries=True must be a whole number or None"),
        ({"retries": "3"}, "retries='3' must be a whole number or None"),
        (
            {"retries_strategy": 0.5},
            "retries_strategy=0.5 is not callable: give a function of the retry's number",
        ),
        ({"retries_strategy": None}, "retries_strategy=None is not callable"),
        ({"retries_strategy": float}, "has no effect without retries: give retries=... as well"),
        ({"timeout": 0}, "timeout=0 must be more than zero seconds"),
        ({"timeout": None}, "timeout=None is not a duration: give seconds or a timedelta"),
        ({"renew_grace": -1}, "renew_grace=-1 must be zero or more seconds"),
        ({"max_record_size": 0}, "max_record_size=0 must be a whole number of bytes, 1 or more"),
        ({"max_record_size": None}, "max_record_size=None must be a whole number of bytes"),
        ({"max_record_size": 1e6}, "max_record_size=1000000.0 must be a whole number of bytes"),
        ({"max_record_size": True}, "max_record_size=True must be a whole number of bytes"),
        ({"touch_after": -1}, "touch_after=-1 must be zero or more seconds"),
        ({"touch_after": "often"}, "touch_after='often' must be seconds, a timedelta, or a share"),
        ({"touch_after": "-5%"}, "touch_after='-5%' must be seconds, a timedelta, or a share"),
        ({"touch_after": "5"}, "touch_after='5' must be seconds, a timedelta, or a share"),
        ({"touch_after": None}, "touch_after=None is not a duration"),
        (
            {"touch_after": "100%"},
            "touch_after=86400 s is not shorter than the idle timeout of 86400 s",
        ),
        (
            {"touch_after": 60, "idle_timeout": 30},
            "touch_after=60 s is not shorter than the idle timeout of 30 s",
        ),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError) as caught:
        options(**given)

    assert message in str(caught.value)


# What is taken


@pytest.mark.parametrize(
    "given",
    [
        {"storage": FaultyStorage()},
        {"cookie": lambda _request: CookieOptions()},
        {"name": "__Host-sid"},
        {"name": "__Host-sid", "cookie": lambda _request: CookieOptions()},
        {"merge": lambda _path, _base, mine, _theirs: mine},
        {"whole": frozenset({"address"})},
        {"merge": "raise"},
        {"unset": "destroy"},
        {"retries": 1000},
        {"renew_grace": 0},
        {"touch_after": 0},
        {"secret": [SECRET, SECRET[::-1].encode()]},
    ],
)
def test_an_option_that_makes_sense_is_taken(given: dict[str, Any]) -> None:
    built = options(**given)

    assert {name: getattr(built, name) for name in given} == given


@pytest.mark.parametrize("given", [["address"], ("address",), {"address": "High Street"}])
def test_whole_takes_any_collection_of_keys(given: Any) -> None:
    assert "address" in options(whole=given).plan.records.whole


def test_the_keys_that_say_who_is_logged_in_are_whole() -> None:
    built = options(whole=["address"], renew_on=["user"])

    assert built.plan.records.whole == {"address", "user"}


@pytest.mark.asvs("7.1.1")
@pytest.mark.nist("5.2-d")
@pytest.mark.parametrize(
    ("given", "idle"),
    [
        ({}, DAY),
        ({"cookie": CookieOptions(max_age=60)}, 60),
        ({"cookie": CookieOptions(max_age=60), "idle_timeout": 30}, 30),
        ({"idle_timeout": timedelta(minutes=5)}, 300),
        ({"cookie": lambda _request: CookieOptions(max_age=60)}, DAY),
        ({"cookie": CookieOptions(expires=datetime(2030, 1, 1, tzinfo=UTC))}, DAY),
    ],
)
def test_the_idle_timeout_is_the_cookies_max_age_or_a_day(
    given: dict[str, Any], idle: float
) -> None:
    assert options(**given).plan.records.timeouts.idle == idle


@pytest.mark.parametrize(
    ("given", "idle"),
    [
        ({}, DAY),
        ({"cookie": CookieOptions(max_age=60)}, DAY),
        ({"cookie": CookieOptions(max_age=30 * DAY)}, DAY),
        ({"cookie": CookieOptions(max_age=60), "idle_timeout": 30}, 30),
    ],
)
def test_without_a_max_age_of_its_own_a_session_has_a_day_or_the_idle_timeout_that_was_given(
    given: dict[str, Any], idle: float
) -> None:
    assert options(**given).plan.records.timeouts.idle_without_max_age == idle


@pytest.mark.parametrize(
    ("touch_after", "expected"),
    [("5%", 5), ("0%", 0), ("12.5 %", 12.5), (0, 0), (7, 7), (timedelta(seconds=9), 9)],
)
def test_touch_after_is_a_duration_or_a_share_of_the_idle_timeout(
    touch_after: Any, expected: float
) -> None:
    built = options(idle_timeout=100, touch_after=touch_after)

    assert built.plan.records.timeouts.touch_after == expected


@pytest.mark.asvs("7.1.1")
@pytest.mark.nist("5.2-d")
def test_the_absolute_timeout_takes_a_timedelta() -> None:
    built = options(absolute_timeout=timedelta(days=2))

    assert built.plan.records.timeouts.absolute == 2 * DAY


def test_the_outage_options_make_the_retry_policy() -> None:
    built = options(retries=3, retries_strategy=float, timeout=timedelta(seconds=2))

    assert built.plan.retry_policy == RetryPolicy(retries=3, wait=float, timeout=2.0)


@pytest.mark.parametrize("rule", ["resave", "rolling", "save_uninitialized"])
def test_each_rule_reaches_the_end_of_the_request(rule: str) -> None:
    assert options(**{rule: True}).plan.rules == Rules(**{rule: True})


@pytest.mark.parametrize(
    ("given", "is_eager"),
    [
        ({}, False),
        ({"retries": 0}, True),
        ({"retries": 2}, True),
        ({"retries": 2, "load": "lazy"}, False),
        ({"load": "eager"}, True),
        ({"load": "lazy"}, False),
    ],
)
def test_sessions_are_loaded_before_the_handler_where_retries_are_set(
    *, given: dict[str, Any], is_eager: bool
) -> None:
    assert options(**given).plan.is_eager is is_eager


def test_a_short_secret_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    options(secret="keyboard cat")

    (record,) = caplog.records
    assert (record.name, record.levelno) == ("aiosess", logging.WARNING)
    assert "fewer than 32 bytes" in record.getMessage()
    assert "keyboard cat" not in record.getMessage()


# What ends in silence otherwise.


async def later(*_given: object) -> None:
    """Stand for a function that somebody would have to await."""


@pytest.mark.parametrize(
    "option", ["on_event", "on_storage_call", "on_unavailable", "merge", "clock"]
)
def test_a_coroutine_function_is_refused_where_nobody_would_await_it(option: str) -> None:
    with pytest.raises(OptionsError, match=f"{option}=.* is a coroutine function: give a plain"):
        options(**{option: later})


@pytest.mark.parametrize("option", ["for_routes", "exclude", "passive", "renew_on", "whole"])
def test_what_is_given_by_an_iterator_is_there_for_options_that_are_made_of_these(
    option: str,
) -> None:
    given = options(**{option: iter(["/views"])})

    other = dataclasses.replace(given, name="other")

    assert getattr(other, option) == ("/views",)
