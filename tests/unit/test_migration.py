"""Records of another version of the application: brought up, left alone, or given up."""

from __future__ import annotations

from typing import Any

import pytest

from aiosess import OptionsError, SessionOptions, UnserializableValue
from aiosess.records.format import Record, version_of
from aiosess.records.migration import Migration

SECRET = "a secret of the tests that is long enough to be quiet"


def record(version: object = None, **data: Any) -> Record:
    unknown = {} if version is None else {"version": version}
    return Record(data, None, {}, 0.0, unknown=unknown)


def noted(data: dict[str, Any], was: int) -> dict[str, Any]:
    return {**data, "was": was}


def test_an_older_record_is_brought_up_and_says_so() -> None:
    migrated = Migration(3, noted)(record(2, n=1))

    assert migrated is not None
    assert (migrated.data, migrated.unknown) == ({"n": 1, "was": 2}, {"version": 3})


def test_a_record_that_says_no_version_is_older_than_all() -> None:
    migrated = Migration(1, noted)(record(n=1))

    assert migrated is not None
    assert migrated.data == {"n": 1, "was": 0}


@pytest.mark.parametrize("version", [3, 4])
def test_a_record_that_is_as_new_or_newer_is_left_as_it_is(version: int) -> None:
    kept = record(version, n=1)

    assert Migration(3, noted)(kept) is kept


def test_without_a_version_no_record_is_touched() -> None:
    kept = record(4, n=1)

    assert Migration()(kept) is kept


def test_without_a_function_the_data_stay_and_the_version_is_said() -> None:
    migrated = Migration(1)(record(n=1))

    assert migrated is not None
    assert (migrated.data, migrated.unknown) == ({"n": 1}, {"version": 1})


def test_what_a_newer_aiosess_remembers_is_carried_along() -> None:
    migrated = Migration(1)(Record({}, None, {}, 0.0, unknown={"newer": 1}))

    assert migrated is not None
    assert migrated.unknown == {"newer": 1, "version": 1}


def test_of_an_older_record_nothing_may_be_left() -> None:
    assert Migration(1, lambda _data, _was: None)(record(n=1)) is None


@pytest.mark.parametrize("version", [None, "2", 2.0, True, 0, -1])
def test_what_is_no_version_counts_as_none(version: object) -> None:
    assert version_of({"version": version}) == 0


def test_what_is_no_dict_is_refused() -> None:
    returns_a_list: Any = lambda _data, _was: []  # noqa: E731

    with pytest.raises(TypeError, match="migrate returned list: it takes data and version"):
        Migration(1, returns_a_list)(record())


@pytest.mark.parametrize("key", [1, "cookie", "__aiosess"])
def test_keys_that_a_session_cannot_have_are_refused(key: Any) -> None:
    with pytest.raises(UnserializableValue, match="migrate returned data with the key"):
        Migration(1, lambda _data, _was: {key: 1})(record())


def test_values_that_a_session_cannot_keep_are_refused() -> None:
    with pytest.raises(UnserializableValue, match=r"session\['a'\] is of type set"):
        Migration(1, lambda _data, _was: {"a": {1}})(record())


async def later(data: dict[str, Any], _was: int) -> dict[str, Any]:
    return data


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"migrate": noted}, "has no effect without version"),
        ({"version": 0}, "version=0 must be a whole number, 1 or more"),
        ({"version": True}, "version=True must be"),
        ({"version": "2"}, "version='2' must be"),
        ({"version": 1, "migrate": 3}, "migrate=3 is not callable: give a function that takes"),
        ({"version": 1, "migrate": later}, "is a coroutine function: give a plain one"),
    ],
    ids=lambda each: str(each)[:30],
)
def test_options_that_make_no_sense_say_what_to_do(options: Any, words: str) -> None:
    with pytest.raises(OptionsError, match=words):
        SessionOptions(secret=SECRET, **options)
