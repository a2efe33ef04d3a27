"""Durations, and the two clocks of a session."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from aiosess import OptionsError
from aiosess.timeouts import LONGEST, Timeouts, seconds


@pytest.mark.parametrize(
    ("given", "expected"),
    [(1, 1.0), (0.5, 0.5), (timedelta(minutes=2), 120.0), (LONGEST, LONGEST)],
)
def test_a_duration_is_seconds_or_a_timedelta(given: object, expected: float) -> None:
    number = seconds(given, name="timeout")

    assert number == expected
    assert type(number) is float


@pytest.mark.parametrize("given", ["5", None, True, [1], 1j])
def test_what_is_not_a_duration_is_refused(given: object) -> None:
    with pytest.raises(OptionsError) as caught:
        seconds(given, name="timeout")

    assert str(caught.value) == f"timeout={given!r} is not a duration: give seconds or a timedelta"


@pytest.mark.parametrize(
    "given", [math.nan, math.inf, -math.inf, LONGEST + 1, 10**400, timedelta.max]
)
def test_a_duration_without_end_is_refused(given: object) -> None:
    with pytest.raises(OptionsError, match=r"^timeout=.* must be at most a hundred years$"):
        seconds(given, name="timeout")


@pytest.mark.parametrize("given", [0, 0.0, -1, timedelta(0), timedelta(seconds=-1)])
def test_a_duration_is_more_than_zero(given: object) -> None:
    with pytest.raises(OptionsError, match=r"^timeout=.* must be more than zero seconds$"):
        seconds(given, name="timeout")


def test_zero_is_a_duration_where_it_makes_sense() -> None:
    assert seconds(0, name="renew_grace", zero=True) == 0.0


def test_a_negative_duration_is_refused_where_zero_makes_sense() -> None:
    with pytest.raises(OptionsError, match=r"^renew_grace=-1 must be zero or more seconds$"):
        seconds(-1, name="renew_grace", zero=True)


@pytest.mark.asvs("7.1.1")
def test_an_absolute_timeout_shorter_than_the_idle_one_is_refused_with_the_way_out() -> None:
    with pytest.raises(OptionsError) as caught:
        Timeouts(idle=20, absolute=10)

    assert str(caught.value) == (
        "absolute_timeout=10 s is shorter than the idle timeout of 20 s: "
        "raise the one or lower the other (idle_timeout=)"
    )


def test_an_absolute_timeout_may_be_as_long_as_the_idle_one() -> None:
    assert Timeouts(idle=20, absolute=20).absolute == 20


@pytest.mark.parametrize("touch_after", [20, 21])
def test_touching_only_when_the_session_is_over_is_refused(touch_after: float) -> None:
    with pytest.raises(OptionsError, match=r"^touch_after=\d+ s is not shorter than the idle"):
        Timeouts(idle=20, touch_after=touch_after)


@pytest.mark.asvs("7.3.1", "7.3.2")
@pytest.mark.nist("5.2-b")
@pytest.mark.parametrize(
    ("absolute", "age", "idle", "expected"),
    [
        (None, 0, None, 20),
        (None, 1000, None, 20),
        (None, 0, 5, 5),
        (None, 0, 500, 500),
        (100, 0, None, 20),
        (100, 80, None, 20),
        (100, 81, None, 19),
        (100, 100, None, 0),
        (100, 130, None, -30),
        (100, 0, 500, 100),
        (100, 99, 5, 1),
    ],
)
def test_a_record_lives_its_idle_timeout_within_the_absolute_one(
    absolute: float | None, age: float, idle: float | None, expected: float
) -> None:
    timeouts = Timeouts(idle=20, absolute=absolute)

    assert timeouts.ttl(created_at=1000, now=1000 + age, idle=idle) == expected
