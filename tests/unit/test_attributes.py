"""The cookie's attributes: the options' and a session's own."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aiosess import CookieOptions, OptionsError, SessionCookie
from aiosess.attributes import check_name, restored

IN_2030 = datetime(2030, 1, 1, tzinfo=UTC)


def test_the_defaults_are_the_safe_ones() -> None:
    cookie = CookieOptions()

    assert cookie == CookieOptions(
        path="/",
        domain=None,
        max_age=None,
        expires=None,
        httponly=True,
        secure="auto",
        samesite="lax",
        partitioned=False,
        priority=None,
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"path": "a"}, "cookie path='a' must start with '/'"),
        ({"path": ""}, "cookie path='' must start with '/'"),
        ({"path": "/a;b"}, "cookie path='/a;b' must start with '/'"),
        ({"path": "/a\n"}, "cookie path='/a\\n' must start with '/'"),
        ({"path": "/ä"}, "cookie path='/ä' must start with '/'"),
        ({"path": None}, "cookie path=None must start with '/'"),
        ({"domain": "a;b"}, "cookie domain='a;b' is not a host name"),
        ({"domain": ""}, "cookie domain='' is not a host name"),
        ({"domain": "bücher.example"}, "cookie domain='bücher.example' is not a host name"),
        ({"domain": 1}, "cookie domain=1 is not a host name"),
        ({"max_age": 0}, "cookie max_age=0 must be more than zero"),
        ({"max_age": -1}, "cookie max_age=-1 must be more than zero"),
        ({"max_age": "1"}, "cookie max_age='1' is not a duration"),
        ({"expires": 5}, "cookie expires=5 must be a datetime with a time zone"),
        ({"expires": datetime(2030, 1, 1)}, "must be a datetime with a time zone"),  # noqa: DTZ001 - naive
        (
            {"expires": datetime.max.replace(tzinfo=UTC)},
            "must be in the years 1970 to 9998",
        ),
        (
            {"expires": datetime.min.replace(tzinfo=UTC)},
            "must be in the years 1970 to 9998",
        ),
        ({"expires": IN_2030, "max_age": 1}, "max_age or expires, not both: leave one out"),
        ({"httponly": 1}, "cookie httponly=1 must be True or False"),
        ({"secure": "yes"}, "cookie secure='yes' must be True, False or 'auto'"),
        ({"secure": None}, "cookie secure=None must be True, False or 'auto'"),
        ({"samesite": "loose"}, "cookie samesite='loose' must be 'lax', 'strict', 'none'"),
        ({"samesite": None}, "cookie samesite=None must be 'lax', 'strict', 'none'"),
        ({"samesite": "none", "secure": False}, "refused by browsers: set secure=True"),
        ({"partitioned": 1}, "cookie partitioned=1 must be True or False"),
        ({"partitioned": True, "secure": False}, "refused by browsers: set secure=True"),
        ({"priority": "urgent"}, "cookie priority='urgent' must be 'low', 'medium', 'high'"),
        ({"priority": ["low"]}, "cookie priority=['low'] must be 'low', 'medium', 'high'"),
    ],
)
def test_attributes_that_make_no_sense_are_refused_with_the_way_out(
    option: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionsError) as caught:
        CookieOptions(**option)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(True, "strict"), (False, False), ("Strict", "strict"), ("LAX", "lax"), ("None", "none")],
)
def test_samesite_takes_the_words_of_express(given: Any, expected: object) -> None:
    assert CookieOptions(samesite=given).samesite == expected


def test_max_age_takes_a_timedelta() -> None:
    assert CookieOptions(max_age=timedelta(hours=1)).max_age == 3600


@pytest.mark.parametrize(
    ("options", "is_secure", "secure", "samesite"),
    [
        ({}, True, True, "lax"),
        ({}, False, False, "lax"),
        ({"samesite": "auto"}, True, True, "none"),
        ({"samesite": "auto"}, False, False, "lax"),
        ({"samesite": "auto", "secure": True}, False, True, "none"),
        ({"samesite": "auto", "secure": False}, True, False, "lax"),
        ({"samesite": "none"}, True, True, "none"),
        ({"samesite": "none"}, False, False, "lax"),
        ({"samesite": "strict", "secure": True}, False, True, "strict"),
        ({"samesite": False}, True, True, False),
    ],
)
def test_auto_is_settled_by_the_connection(
    *, options: dict[str, Any], is_secure: bool, secure: bool, samesite: object
) -> None:
    settled = CookieOptions(**options).resolve(is_secure=is_secure)

    assert (settled.secure, settled.samesite) == (secure, samesite)


@pytest.mark.parametrize("is_secure", [True, False])
def test_a_partitioned_cookie_is_one_only_where_it_is_secure(*, is_secure: bool) -> None:
    settled = CookieOptions(partitioned=True).resolve(is_secure=is_secure)

    assert settled.partitioned is is_secure


# One session's own


def session_cookie(**options: Any) -> SessionCookie:
    return SessionCookie(CookieOptions(**{"secure": True, **options}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("path", "/shop"),
        ("domain", "example.org"),
        ("max_age", 60.0),
        ("expires", IN_2030),
        ("httponly", False),
        ("secure", False),
        ("samesite", "strict"),
        ("partitioned", True),
        ("priority", "high"),
    ],
)
def test_an_attribute_can_be_set_for_one_session(name: str, value: object) -> None:
    cookie = session_cookie()

    setattr(cookie, name, value)

    assert getattr(cookie, name) == value
    assert name in cookie.own
    assert getattr(cookie.base, name) != value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("path", "shop"),
        ("domain", "a b"),
        ("max_age", -1),
        ("expires", 5),
        ("httponly", None),
        ("secure", "auto"),
        ("samesite", "loose"),
        ("partitioned", 1),
        ("priority", "urgent"),
    ],
)
def test_a_value_that_makes_no_sense_changes_nothing(name: str, value: object) -> None:
    cookie = session_cookie()

    with pytest.raises(OptionsError):
        setattr(cookie, name, value)

    assert cookie.own == {}


def test_what_equals_the_options_is_not_the_sessions_own() -> None:
    cookie = session_cookie(max_age=60)
    cookie.max_age = 5

    cookie.max_age = 60

    assert cookie.own == {}


@pytest.mark.parametrize(("secure", "expected"), [(True, "none"), (False, "lax")])
def test_samesite_auto_is_settled_at_once_for_one_session(*, secure: bool, expected: str) -> None:
    cookie = session_cookie(secure=secure, samesite="strict")

    cookie.samesite = "auto"  # type: ignore[assignment]

    assert cookie.samesite == expected


def test_own_max_age_wins_over_the_options_expires() -> None:
    cookie = session_cookie(expires=IN_2030)

    cookie.max_age = 60

    assert cookie.expires is None
    assert cookie.expires_at(1000) == 1060


def test_own_expires_wins_over_the_options_max_age() -> None:
    cookie = session_cookie(max_age=60)

    cookie.expires = IN_2030

    assert cookie.max_age is None
    assert cookie.expires_at(1000) == IN_2030.timestamp()


def test_own_expires_takes_the_place_of_own_max_age() -> None:
    cookie = session_cookie()
    cookie.max_age = 60

    cookie.expires = IN_2030

    assert cookie.expires_at(1000) == IN_2030.timestamp()


def test_own_max_age_takes_the_place_of_own_expires() -> None:
    cookie = session_cookie()
    cookie.expires = IN_2030

    cookie.max_age = 60

    assert cookie.expires_at(1000) == 1060


@pytest.mark.parametrize("options", [{}, {"max_age": 60}, {"expires": IN_2030}])
@pytest.mark.parametrize("name", ["max_age", "expires"])
def test_a_session_can_end_with_the_browser_whatever_the_options_say(
    options: dict[str, Any], name: str
) -> None:
    cookie = session_cookie(**options)

    setattr(cookie, name, None)

    assert cookie.expires_at(1000) is None


def test_the_representation_shows_what_is_the_sessions_own() -> None:
    cookie = session_cookie()
    cookie.max_age = 60

    assert repr(cookie) == f"SessionCookie({cookie.base!r}, own={{'max_age': 60.0}})"


# What a record kept


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"expires": IN_2030.timestamp(), "path": "/shop"},
        {"expires": None},
        {"samesite": "lax", "secure": True, "httponly": True, "partitioned": True},
        {"samesite": False},
    ],
)
def test_own_attributes_come_back_as_they_were_kept(own: dict[str, Any]) -> None:
    assert restored(dict(own)) == own


@pytest.mark.parametrize(
    "own",
    [
        {"expires": "tomorrow"},
        {"expires": 1e300},
        {"expires": 10**400},
        {"expires": float("nan")},
        {"expires": -1e11},
        {"path": 5},
        {"path": "/;Domain=evil.example"},
        {"domain": {"a": 1}},
        {"priority": []},
        {"secure": None},
        {"unheard_of": 1},
    ],
)
def test_own_attributes_that_make_no_sense_are_dropped(own: dict[str, Any]) -> None:
    assert restored(own) == {}


def test_own_attributes_from_elsewhere_are_settled_as_a_cookie_can_be_sent() -> None:
    assert restored({"secure": "auto", "samesite": True}) == {"secure": True, "samesite": "strict"}


# Names


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a;b", "ä", "a\n", None, 5])
def test_what_cannot_be_a_cookies_name_is_refused(name: object) -> None:
    with pytest.raises(OptionsError) as caught:
        check_name(name, None)

    assert str(caught.value) == (
        f"name={name!r} cannot be a cookie's name: use letters, digits, '-', '_' and '.'"
    )


@pytest.mark.nist("5.1.1-5")
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("__Host-sid", {"domain": "example.org"}, "cannot have domain='example.org': leave it out"),
        ("__Host-sid", {"path": "/shop"}, "cannot have path='/shop': it must be '/'"),
        ("__Host-sid", {"secure": False}, "needs a secure cookie: CookieOptions(secure=True)"),
        ("__host-sid", {"path": "/shop"}, "cannot have path='/shop': it must be '/'"),
        ("__Secure-sid", {"secure": False}, "needs a secure cookie: CookieOptions(secure=True)"),
        ("__Http-sid", {"secure": False}, "needs a secure cookie: CookieOptions(secure=True)"),
        ("__Http-sid", {"httponly": False}, "needs CookieOptions(httponly=True), the default"),
        ("__Host-Http-sid", {"path": "/shop"}, "cannot have path='/shop': it must be '/'"),
        ("__host-http-sid", {"httponly": False}, "needs CookieOptions(httponly=True), the default"),
    ],
)
def test_a_prefix_that_browsers_check_is_checked(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionsError) as caught:
        check_name(name, CookieOptions(**options))

    assert str(caught.value) == f"name={name!r} {message}"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("__Host-sid", {"secure": True}),
        ("__Host-sid", {}),
        ("__Host-sid", {"httponly": False}),
        ("__Http-sid", {"domain": "example.org", "path": "/shop"}),
        ("__Host-Http-sid", {}),
        ("__Secure-sid", {"secure": True, "domain": "example.org", "path": "/shop"}),
        ("connect.sid", {"secure": False, "path": "/shop"}),
    ],
)
def test_a_name_that_fits_its_cookie_is_taken(name: str, options: dict[str, Any]) -> None:
    check_name(name, CookieOptions(**options))


@given(st.floats(-6e10, 2e11))
@example(1_800_000_000.0)
@example(1_800_000_000.123)
@example(1_799_999_999.999_999_8)
def test_a_record_tells_the_end_of_its_cookie_in_utc_to_the_millisecond(now: float) -> None:
    cookie = SessionCookie(CookieOptions(secure=False, max_age=60))

    expires = cookie.as_express(now)["expires"]

    moment = datetime.fromtimestamp(now + 60, UTC).isoformat(timespec="milliseconds")
    assert expires == moment.replace("+00:00", "Z")


@pytest.mark.parametrize("field", dataclasses.fields(CookieOptions), ids=lambda field: field.name)
def test_the_class_has_each_attribute_to_be_looked_at(field: dataclasses.Field[Any]) -> None:
    assert hasattr(SessionCookie, field.name)
