"""Two changes to one session become one."""

from __future__ import annotations

from typing import Any

import pytest

from aiosess import MISSING, MergeConflict, UnserializableValue
from aiosess.records.merge import Merge, freeze, is_container, is_same, merged


@pytest.mark.parametrize(
    ("original", "value"),
    [
        (1, 1),
        ("a", "a"),
        (None, None),
        (MISSING, MISSING),
        ([1, {"a": [2]}], [1, {"a": [2]}]),
        ({}, {}),
        ((1, 2), [1, 2]),
    ],
)
def test_a_value_that_comes_back_alike_is_the_same(original: object, value: object) -> None:
    assert is_same(freeze(original), value)


@pytest.mark.parametrize(
    ("original", "value"),
    [
        (1, True),
        (1, 1.0),
        (True, 1),
        (0, False),
        (0.0, 0),
        (None, False),
        (None, MISSING),
        (MISSING, None),
        ("1", 1),
        ([1], [True]),
        ([1], [1.0]),
        ({"a": 0}, {"a": False}),
        ({"a": None}, {}),
        ([], {}),
        ([], None),
        ("[]", []),
        ([], "[]"),
    ],
)
def test_a_value_of_another_type_is_another_value(original: object, value: object) -> None:
    assert not is_same(freeze(original), value)


def test_a_change_inside_a_frozen_value_is_noticed() -> None:
    value: dict[str, Any] = {"items": [{"count": 1}]}
    original = freeze(value)

    value["items"][0]["count"] = 2

    assert not is_same(original, value)


@pytest.mark.parametrize("value", [[], {}, (), ((),)])
def test_lists_dicts_and_tuples_are_containers(value: object) -> None:
    assert is_container(value)


@pytest.mark.parametrize("value", ["text", 1, None, MISSING, b"bytes"])
def test_scalars_are_not_containers(value: object) -> None:
    assert not is_container(value)


ALL: list[Merge] = ["mine", "theirs", "raise", lambda *_: "asked"]


@pytest.mark.parametrize("merge", ALL)
@pytest.mark.parametrize(
    ("original", "mine", "theirs", "expected"),
    [
        (1, 2, 1, 2),
        (MISSING, 2, MISSING, 2),
        (1, MISSING, 1, MISSING),
        ([1], [1, 2], [1], [1, 2]),
        (1, 2, 2, 2),
        (1, MISSING, MISSING, MISSING),
        ([1], [2], [2], [2]),
    ],
)
def test_a_key_that_only_we_changed_or_both_alike_is_no_conflict(
    merge: Merge, original: object, mine: object, theirs: object, expected: object
) -> None:
    record = {} if theirs is MISSING else {"key": theirs}

    assert merged({"key": (freeze(original), mine)}, record, merge) == {"key": expected}


@pytest.mark.parametrize(
    ("original", "mine", "theirs"),
    [(1, 2, 3), (1, MISSING, 3), (1, 2, MISSING), (MISSING, 2, 3), (1, 2, True), (2, 1, True)],
)
class TestBothChangedIt:
    def test_mine_wins(self, original: object, mine: object, theirs: object) -> None:
        record = {} if theirs is MISSING else {"key": theirs}

        assert merged({"key": (original, mine)}, record, "mine")["key"] is mine

    def test_theirs_wins(self, original: object, mine: object, theirs: object) -> None:
        record = {} if theirs is MISSING else {"key": theirs}

        assert merged({"key": (original, mine)}, record, "theirs")["key"] is theirs

    def test_raise_names_the_key(self, original: object, mine: object, theirs: object) -> None:
        record = {} if theirs is MISSING else {"key": theirs}

        with pytest.raises(MergeConflict, match="another request changed 'key' as well") as caught:
            merged({"key": (original, mine)}, record, "raise")

        assert caught.value.keys == ("key",)

    def test_a_function_is_asked(self, original: object, mine: object, theirs: object) -> None:
        record = {} if theirs is MISSING else {"key": theirs}
        asked: list[object] = []

        def merge(*arguments: object) -> str:
            asked.append(arguments)
            return "both"

        kept = merged({"key": (original, mine)}, record, merge)

        assert asked == [("key", original, mine, theirs)]
        assert kept == {"key": "both"}


def test_a_function_gets_the_base_as_a_value() -> None:
    def union(_key: str, base: list[int], mine: list[int], theirs: list[int]) -> list[int]:
        return base + [item for item in mine + theirs if item not in base]

    kept = merged({"cart": (freeze([1]), [1, 2])}, {"cart": [1, 3]}, union)

    assert kept == {"cart": [1, 2, 3]}


def test_a_function_may_drop_the_key() -> None:
    assert merged({"key": (1, 2)}, {"key": 3}, lambda *_: MISSING) == {"key": MISSING}


def test_a_function_that_returns_what_cannot_be_kept_is_refused() -> None:
    with pytest.raises(UnserializableValue, match=r"^session\['key'\] is of type set") as caught:
        merged({"key": (1, 2)}, {"key": 3}, lambda *_: {2, 3})

    assert caught.value.path == "session['key']"


def test_keys_that_we_did_not_change_are_none_of_our_business() -> None:
    assert merged({}, {"key": 3}, "raise") == {}


def test_missing_says_what_it_is() -> None:
    assert repr(MISSING) == "MISSING"
