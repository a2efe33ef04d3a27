"""What each error tells the one who catches it."""

from __future__ import annotations

import re

import pytest

from aiosess import errors
from aiosess.storages import Stored


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_drawn_in_the_tree(name: str) -> None:
    drawn = re.findall(r"^ *[│├└─ ]*(\w+)(?:\s|$)", str(errors.__doc__), re.MULTILINE)

    assert name in drawn


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_caught_by_the_root(name: str) -> None:
    error = getattr(errors, name)

    assert issubclass(error, errors.AiosessError)


def test_a_conflict_carries_the_record_that_is_kept_now() -> None:
    current = Stored(b"newer", 2)

    conflict = errors.Conflict(current)

    assert conflict.current is current
    assert str(conflict) == "the record changed since it was loaded"


def test_a_conflict_with_a_record_that_is_gone_says_so() -> None:
    conflict = errors.Conflict(None)

    assert conflict.current is None
    assert str(conflict) == "no such record"


def test_a_taken_id_is_refused_without_printing_it() -> None:
    assert str(errors.IdTaken()) == "there is a record under this session id already"


def test_a_merge_conflict_names_the_paths() -> None:
    assert errors.MergeConflict("both", keys=(("a", "b"), ("c",))).keys == (("a", "b"), ("c",))


def test_a_merge_conflict_after_too_many_tries_has_no_keys() -> None:
    assert errors.MergeConflict("too often").keys == ()


def test_a_record_that_is_too_large_names_size_limit_and_the_largest_keys() -> None:
    error = errors.RecordTooLarge(size=12_345, limit=10_000, keys=(("cart", 9_000), ("x" * 99, 5)))

    assert (error.size, error.limit) == (12_345, 10_000)
    assert error.keys == (("cart", 9_000), ("x" * 99, 5))
    assert str(error) == (
        "the record would be 12,345 bytes, more than max_record_size=10000: keep less in the "
        f"session, or raise the limit; its largest keys, in bytes: 'cart' (9,000), '{'x' * 60}' (5)"
    )


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.OptionsError("no"), ValueError),
        (errors.SessionNotSent("late"), RuntimeError),
        (errors.UnserializableValue("no", path="session['a']"), TypeError),
    ],
    ids=["OptionsError", "SessionNotSent", "UnserializableValue"],
)
def test_an_error_is_also_the_builtin_that_one_would_expect(
    error: Exception, builtin: type[Exception]
) -> None:
    assert isinstance(error, builtin)
