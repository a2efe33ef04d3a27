"""Cases C1 to C18: the cookie's attributes as an object, CookieOptions and SessionCookie."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aiosess import CookieOptions, OptionsError, SessionCookie, SessionOptions
from tests.conftest import SECRET
from tests.parity.marks import parity

AN_END = datetime(2040, 2, 29, 12, tzinfo=UTC)
NOW = AN_END.timestamp() - 60


@parity("C1", "C6")
def test_attributes_can_be_built_from_nothing() -> None:
    assert isinstance(CookieOptions(), CookieOptions)


@parity("C2")
def test_there_is_no_fixed_end_by_default() -> None:
    assert CookieOptions().expires is None


@parity("C3")
def test_httponly_is_the_default() -> None:
    assert CookieOptions().httponly is True


@parity("C4")
def test_the_path_is_the_root_by_default() -> None:
    assert CookieOptions().path == "/"


@parity("C5")
def test_there_is_no_max_age_by_default() -> None:
    assert CookieOptions().max_age is None


@parity("C7")
@pytest.mark.parametrize("cookie", [42, "foo", True])
def test_what_is_no_set_of_attributes_is_refused(cookie: Any) -> None:
    with pytest.raises(TypeError):
        CookieOptions(cookie)  # type: ignore[call-arg]
    with pytest.raises(OptionsError, match="cookie"):
        SessionOptions(secret=SECRET, cookie=cookie)


@parity("C8", differs="an option that does not exist is refused, so that a typing mistake shows")
def test_an_attribute_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError, match="data"):
        CookieOptions(data={}, path="/foo")  # type: ignore[call-arg]


@parity("C9")
def test_a_fixed_end_is_kept_as_it_is_given() -> None:
    assert CookieOptions(expires=AN_END).expires == AN_END


@parity(
    "C10",
    differs="`max_age` is what was set, and does not shrink; the end at a given time is "
    "`expires_at(now)`",
)
def test_a_fixed_end_is_an_instant_and_no_age() -> None:
    cookie = SessionCookie(CookieOptions(expires=AN_END))

    assert cookie.max_age is None
    assert cookie.expires_at(NOW) == NOW + 60


@parity("C11")
def test_httponly_can_be_turned_off() -> None:
    assert CookieOptions(httponly=False).httponly is False


@parity("C12")
def test_max_age_puts_the_end_that_many_seconds_from_now() -> None:
    cookie = SessionCookie(CookieOptions(max_age=60))

    assert cookie.expires_at(NOW) == NOW + 60


@parity("C13")
@pytest.mark.parametrize("minute", [60, 60.0, timedelta(minutes=1)])
def test_max_age_reads_back_as_a_number_of_seconds(minute: Any) -> None:
    assert CookieOptions(max_age=minute).max_age == 60


@parity("C14", differs="refused, as it is deprecated in Express: a date goes into `expires`")
def test_max_age_cannot_be_a_date() -> None:
    with pytest.raises(OptionsError, match="max_age"):
        CookieOptions(max_age=AN_END)  # type: ignore[arg-type]


@parity("C15")
@pytest.mark.parametrize("max_age", ["42", True, len])
def test_max_age_of_another_type_is_refused(max_age: Any) -> None:
    with pytest.raises(OptionsError, match="max_age"):
        CookieOptions(max_age=max_age)


@parity("C16")
def test_partitioned_is_kept() -> None:
    assert CookieOptions(partitioned=True).partitioned is True


@parity("C17")
def test_the_path_is_kept() -> None:
    assert CookieOptions(path="/foo").path == "/foo"


@parity("C18")
def test_the_priority_is_kept() -> None:
    assert CookieOptions(priority="high").priority == "high"
