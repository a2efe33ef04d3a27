"""Two changes to one session become one."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import pytest

from aiosess import MISSING, MergeConflict, UnserializableValue
from aiosess.records.changes import JSON
from aiosess.records.merge import (
    KeyPath,
    Lost,
    Merge,
    Merged,
    freeze,
    is_alike,
    is_container,
    merged,
)


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
    assert not JSON.changed({"key": freeze(original)}, {"key": value})


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
    assert JSON.changed({"key": freeze(original)}, {"key": value}) == {"key": freeze(value)}


def test_a_change_inside_a_frozen_value_is_noticed() -> None:
    value: dict[str, Any] = {"items": [{"count": 1}]}
    original = freeze(value)

    value["items"][0]["count"] = 2

    assert JSON.changed({"key": original}, {"key": value})


@pytest.mark.parametrize("value", [[], {}, (), ((),)])
def test_lists_dicts_and_tuples_are_containers(value: object) -> None:
    assert is_container(value)


@pytest.mark.parametrize("value", ["text", 1, None, MISSING, b"bytes"])
def test_scalars_are_not_containers(value: object) -> None:
    assert not is_container(value)


# What means the same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1),
        (MISSING, MISSING),
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}),
        ([{"a": 1, "b": 2}], [{"b": 2, "a": 1}]),
        ([1, (2,)], (1, [2])),
        ({"a": "\ud800", "b": 1}, {"b": 1, "a": "\ud800"}),
    ],
)
def test_values_that_mean_the_same_are_alike(one: object, other: object) -> None:
    assert is_alike(one, other)
    assert is_alike(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (1, 1.0),
        ("1", 1),
        (None, MISSING),
        ([1, 2], [2, 1]),
        ([1], [1, 1]),
        ({"a": 1}, {"a": 1, "b": None}),
        ({"a": [True]}, {"a": [1]}),
        ({}, []),
        ([], None),
    ],
)
def test_values_that_mean_different_things_are_not_alike(one: object, other: object) -> None:
    assert not is_alike(one, other)
    assert not is_alike(other, one)


# One value, and who changed it


def merge_one(
    base: object,
    mine: object,
    theirs: object,
    merge: Merge = "raise",
    whole: frozenset[str] = frozenset(),
) -> Merged:
    """Merge what stands under the one key that we changed; ask for no decision by default."""
    record = {} if theirs is MISSING else {"key": theirs}
    return merged({"key": (freeze(base), mine)}, record, merge, whole)


def kept(base: object, mine: object, theirs: object, merge: Merge = "raise") -> Any:
    """Return what becomes of the value, where nothing may be lost."""
    values, lost = merge_one(base, mine, theirs, merge)
    assert lost == []
    return values["key"]


ALL: list[Merge] = ["mine", "theirs", "raise", lambda *_: pytest.fail("asked")]


@pytest.mark.parametrize("merge", ALL)
@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "merged"])
@pytest.mark.parametrize(
    ("base", "mine", "theirs", "expected"),
    [
        (1, 2, 1, 2),
        (1, 1, 2, 2),
        (MISSING, 2, MISSING, 2),
        (1, MISSING, 1, MISSING),
        (1, 1, MISSING, MISSING),
        ([1], [1, 2], [1], [1, 2]),
        ([1], [1], [], []),
        ([1], [1], MISSING, MISSING),
        ({"a": 1}, MISSING, {"a": 1}, MISSING),
        ({"a": 1}, {"a": 1}, MISSING, MISSING),
        ({"a": 1}, [1], {"a": 1}, [1]),
        ({"a": 1}, {"a": 1}, {}, {}),
        ({}, {}, MISSING, MISSING),
        (1, 2, 2, 2),
        (1, MISSING, MISSING, MISSING),
        ([1], [2], [2], [2]),
        ([1], [1, 2], [1, 2], [1, 2]),
        ({"a": 1}, {"b": 1}, {"b": 1}, {"b": 1}),
        ({"a": 1}, {}, {}, {}),
        ({"a": 1}, MISSING, MISSING, MISSING),
    ],
)
def test_what_one_side_changed_or_both_alike_is_no_conflict(
    merge: Merge, base: object, mine: object, theirs: object, expected: object, *, is_whole: bool
) -> None:
    whole = frozenset({"key"}) if is_whole else frozenset[str]()

    assert merge_one(base, mine, theirs, merge, whole) == Merged({"key": expected}, [])


def test_keys_that_we_did_not_change_are_none_of_our_business() -> None:
    assert merged({}, {"key": 3}, "raise") == Merged({}, [])


# What both changed


@pytest.mark.parametrize(
    ("base", "mine", "theirs"),
    [
        (1, 2, 3),
        (1, MISSING, 3),
        (1, 2, MISSING),
        (MISSING, 2, 3),
        (1, 2, True),
        (2, 1, True),
        (2, 1, 1.0),
        ({"a": 1}, [1], {"a": 2}),
        ({"a": 1}, {"a": 2}, "text"),
        ([1], {"a": 1}, [1, 2]),
        (None, [1], {"a": 1}),
        ("text", MISSING, {"a": 1}),
        ({"a": 1}, {}, MISSING),
        ({"a": 1}, MISSING, {}),
        ([1], [], MISSING),
        ([1, 2], [0, 1, 2], [1, 2, 3]),
        ([1, 2], [1], [1, 2, 3]),
        ([1, 2], [3], [4]),
        ([1, 2], [2, 1], MISSING),
    ],
)
class TestBothChangedIt:
    def test_mine_wins(self, base: object, mine: object, theirs: object) -> None:
        values, lost = merge_one(base, mine, theirs, "mine")

        assert is_alike(values["key"], mine)
        assert lost == [Lost(("key",), "theirs")]

    def test_theirs_wins(self, base: object, mine: object, theirs: object) -> None:
        values, lost = merge_one(base, mine, theirs, "theirs")

        assert is_alike(values["key"], theirs)
        assert lost == [Lost(("key",), "mine")]

    def test_raise_names_the_key(self, base: object, mine: object, theirs: object) -> None:
        with pytest.raises(MergeConflict, match="another request changed 'key' as well") as caught:
            merge_one(base, mine, theirs, "raise")

        assert caught.value.keys == (("key",),)

    def test_a_function_is_asked(self, base: object, mine: object, theirs: object) -> None:
        asked: list[object] = []

        def merge(*arguments: object) -> str:
            asked.append(arguments)
            return "both"

        assert merge_one(base, mine, theirs, merge) == Merged({"key": "both"}, [])
        assert asked == [(("key",), base, mine, theirs)]


# Dicts


def test_different_keys_of_a_dict_are_both_kept() -> None:
    assert kept({}, {"apple": 1}, {"pear": 1}) == {"apple": 1, "pear": 1}


def test_a_dict_is_merged_at_any_depth() -> None:
    base = {"cart": {"items": {"apple": 1, "pear": 1}, "note": ""}}
    mine = {"cart": {"items": {"apple": 2, "pear": 1}, "note": ""}}
    theirs = {"cart": {"items": {"apple": 1}, "note": "a gift"}}

    assert kept(base, mine, theirs) == {"cart": {"items": {"apple": 2}, "note": "a gift"}}


@pytest.mark.parametrize("base", [MISSING, None, "none yet", [1]])
def test_a_dict_that_both_put_where_there_was_none_is_merged(base: object) -> None:
    assert kept(base, {"a": {"x": 1}}, {"a": {"y": 2}, "b": 3}) == {"a": {"x": 1, "y": 2}, "b": 3}


def test_what_they_added_to_a_dict_stays_where_we_emptied_it() -> None:
    assert kept({"old": 1}, {}, {"old": 1, "new": 2}) == {"new": 2}


def test_what_they_added_to_a_dict_stays_where_we_removed_it() -> None:
    assert kept({"old": 1}, MISSING, {"old": 1, "new": 2}) == {"new": 2}


def test_what_we_added_to_a_dict_stays_where_they_removed_it() -> None:
    assert kept({"old": 1}, {"old": 1, "new": 2}, MISSING) == {"new": 2}


@pytest.mark.parametrize(
    ("merge", "expected", "side"),
    [("mine", {"new": 3}, "theirs"), ("theirs", {"old": 2, "new": 3}, "mine")],
)
def test_what_they_changed_in_a_dict_that_we_removed_is_decided_for_that_key(
    merge: Merge, expected: object, side: str
) -> None:
    values, lost = merge_one({"old": 1}, MISSING, {"old": 2, "new": 3}, merge)

    assert values["key"] == expected
    assert lost == [(("key", "old"), side)]


def test_a_dict_of_which_nothing_is_left_after_one_side_removed_it_is_removed() -> None:
    values, lost = merge_one({"a": 1, "b": 1}, {"b": 2}, MISSING, "theirs")

    assert values == {"key": MISSING}
    assert lost == [Lost(("key", "b"), "mine")]


def test_a_dict_that_one_side_removed_and_the_other_only_made_smaller_is_removed() -> None:
    assert kept({"a": 1, "b": 1}, {"b": 1}, MISSING) is MISSING


def test_a_conflict_inside_is_decided_there_alone() -> None:
    base = {"a": {"x": 1, "y": 1, "z": 1}}
    mine = {"a": {"x": 2, "y": 2, "z": 1}}
    theirs = {"a": {"x": 3, "y": 1, "z": 3}}

    values, lost = merge_one(base, mine, theirs, "theirs")

    assert values["key"] == {"a": {"x": 3, "y": 2, "z": 3}}
    assert lost == [Lost(("key", "a", "x"), "mine")]


def test_raise_names_each_path() -> None:
    changes: Any = {"a": (freeze({"x": {"y": 1}}), {"x": {"y": 2}}), "b": (1, 2)}

    with pytest.raises(MergeConflict, match=r"changed 'a\.x\.y' and 'b' as well") as caught:
        merged(changes, {"a": {"x": {"y": 3}}, "b": 3}, "raise")

    assert caught.value.keys == (("a", "x", "y"), ("b",))


def test_raise_names_a_few_of_many_paths_in_its_message() -> None:
    names = [f"k{number}" for number in range(5)]

    with pytest.raises(MergeConflict, match="changed 'k0' and 'k1' and 'k2' and 2 more as well"):
        merged(dict.fromkeys(names, (1, 2)), dict.fromkeys(names, 3), "raise")


# The order of a dict's keys


def test_a_dict_that_we_sorted_takes_what_they_changed() -> None:
    base = {"b": 1, "a": 1}

    assert kept(base, {"a": 1, "b": 1}, {"b": 2, "a": 1}) == {"a": 1, "b": 2}


def test_the_order_of_keys_is_ours_where_they_left_it() -> None:
    merged_dict = kept({"b": 1, "a": 1}, {"a": 1, "b": 1}, {"b": 2, "a": 1})

    assert list(merged_dict) == ["a", "b"]


def test_the_order_of_keys_is_theirs_where_they_changed_it() -> None:
    merged_dict = kept({"b": 1, "a": 1}, {"b": 1, "new": 1, "a": 2}, {"a": 1, "b": 1, "last": 1})

    assert list(merged_dict) == ["a", "b", "last", "new"]


# Lists


def test_a_list_to_which_both_added_keeps_both_additions_theirs_first() -> None:
    assert kept(["base"], ["base", "mine"], ["base", "theirs"]) == ["base", "theirs", "mine"]


@pytest.mark.parametrize("base", [MISSING, None, {"a": 1}])
def test_a_list_that_both_put_where_there_was_none_keeps_both_additions(base: object) -> None:
    assert kept(base, ["mine"], ["theirs"]) == ["theirs", "mine"]


def test_a_list_inside_a_dict_keeps_both_additions() -> None:
    base: Any = {"cart": {"items": []}}

    merged_dict = kept(base, {"cart": {"items": [1]}}, {"cart": {"items": [2]}, "note": ""})

    assert merged_dict == {"cart": {"items": [2, 1]}, "note": ""}


@pytest.mark.parametrize("mine", [[], MISSING])
def test_what_they_added_stays_where_we_emptied_or_removed_the_list(mine: object) -> None:
    assert kept(["old"], mine, ["old", "new"]) == ["new"]


@pytest.mark.parametrize("theirs", [[], MISSING])
def test_what_we_added_stays_where_they_emptied_or_removed_the_list(theirs: object) -> None:
    assert kept(["old"], ["old", "new"], theirs) == ["new"]


def test_what_they_added_stays_where_we_removed_the_empty_list() -> None:
    assert kept([], MISSING, ["new"]) == ["new"]


def test_what_we_added_stays_where_they_emptied_the_list_and_added_as_well() -> None:
    assert kept(["old"], ["old", "mine"], ["theirs"]) == ["theirs", "mine"]


def test_what_they_added_stays_where_we_emptied_the_list_and_added_as_well() -> None:
    assert kept(["old"], ["mine"], ["old", "theirs"]) == ["theirs", "mine"]


def test_a_list_from_which_one_side_took_all_and_the_other_a_part_is_empty() -> None:
    assert kept([1, 2], [2], []) == []


def test_a_list_that_one_side_removed_and_the_other_only_made_smaller_is_removed() -> None:
    assert kept([1, 2], [2], MISSING) is MISSING


def test_what_one_side_took_from_the_beginning_is_gone_and_what_was_added_stays() -> None:
    assert kept([1, 2, 3], [2, 3, "mine"], [3, "theirs"]) == [3, "theirs", "mine"]
    assert kept([1, 2, 3], [3, "mine"], [1, 2, 3, "theirs"]) == [3, "theirs", "mine"]


def test_an_item_that_was_added_again_is_there_as_often() -> None:
    assert kept([1, 2], [1, 2, 1], [2, 2]) == [2, 2, 1]


def test_an_item_that_moved_to_the_end_was_not_added() -> None:
    with pytest.raises(MergeConflict):
        merge_one([1, 2], [2, 1], [1, 2, 3])


@pytest.mark.parametrize("mine", [[], MISSING])
def test_what_they_added_after_emptying_the_list_stays_where_we_emptied_it_too(mine: Any) -> None:
    assert kept(["old"], mine, ["new"]) == ["new"]


def test_what_is_left_of_a_list_that_both_emptied_is_what_was_saved_before_and_more() -> None:
    assert kept(["old"], ["saved before"], ["saved before", "new"]) == ["saved before", "new"]


def test_an_addition_that_is_the_beginning_of_both_was_made_once() -> None:
    assert kept([], ["saved before", "mine"], ["saved before", "theirs"]) == [
        "saved before",
        "theirs",
        "mine",
    ]


def test_the_items_before_an_addition_are_compared_by_meaning() -> None:
    base = [{"a": 1, "b": 2}]

    assert kept(base, [{"b": 2, "a": 1}, "mine"], [{"a": 1, "b": 2}, "theirs"]) == [
        {"a": 1, "b": 2},
        "theirs",
        "mine",
    ]


def test_an_item_that_changed_its_type_is_no_beginning() -> None:
    with pytest.raises(MergeConflict):
        merge_one([1, 0], [True, 0, 2], [1, 0, 3])


def test_what_changed_inside_an_item_is_decided_for_the_list() -> None:
    base = [{"n": 1}, {"n": 2}]

    values, lost = merge_one(base, [{"n": 1}, {"n": 3}], [*base, {"n": 4}], "mine")

    assert values["key"] == [{"n": 1}, {"n": 3}]
    assert lost == [Lost(("key",), "theirs")]


def test_a_list_inside_a_list_is_part_of_its_one_value() -> None:
    with pytest.raises(MergeConflict) as caught:
        merge_one({"a": [[1], 0]}, {"a": [[1, 2], 0]}, {"a": [[1, 3], 0]})

    assert caught.value.keys == (("key", "a"),)


# What is one value by option


def test_what_is_whole_is_not_merged_inside() -> None:
    base = {"street": "Mill Lane", "town": "Ash"}
    mine = {"street": "High Street", "town": "Ash"}
    theirs = {"street": "Mill Lane", "town": "Elm"}

    values, lost = merge_one(base, mine, theirs, "theirs", frozenset({"key"}))

    assert values["key"] == theirs
    assert lost == [Lost(("key",), "mine")]


def test_a_list_that_is_whole_takes_no_additions_from_both() -> None:
    values, _ = merge_one([], [1], [2], "mine", frozenset({"key"}))

    assert values["key"] == [1]


def test_whole_names_keys_at_the_top_only() -> None:
    values, _ = merge_one(
        {"in": {}}, {"in": {"a": 1}}, {"in": {"b": 1}}, "raise", frozenset({"in"})
    )

    assert values["key"] == {"in": {"a": 1, "b": 1}}


# A function that decides


def test_a_function_is_asked_at_the_deepest_key_that_differs() -> None:
    asked: list[object] = []

    def merge(path: KeyPath, base: Any, mine: Any, theirs: Any) -> Any:
        asked.append((path, base, mine, theirs))
        return mine + theirs - base

    values, _ = merge_one(
        {"a": {"n": 1, "m": 1}}, {"a": {"n": 2, "m": 1}}, {"a": {"n": 3, "m": 2}}, merge
    )

    assert asked == [(("key", "a", "n"), 1, 2, 3)]
    assert values["key"] == {"a": {"n": 4, "m": 2}}


def test_a_function_gets_a_list_as_a_whole() -> None:
    def union(path: KeyPath, base: list[int], mine: list[int], theirs: list[int]) -> list[int]:
        assert path == ("key", "seen")
        return sorted({*base, *mine, *theirs})

    values, _ = merge_one({"seen": [2]}, {"seen": [1, 2]}, {"seen": [2, 3]}, union)

    assert values["key"] == {"seen": [1, 2, 3]}


@pytest.mark.parametrize(
    ("merge", "lost"),
    [
        (lambda _path, _base, mine, _theirs: mine, [Lost(("key",), "theirs")]),
        (lambda _path, _base, _mine, theirs: theirs, [Lost(("key",), "mine")]),
        (lambda _path, _base, mine, theirs: mine + theirs, []),
    ],
    ids=["mine", "theirs", "both"],
)
def test_a_change_loses_where_a_function_returns_the_other_as_it_stands(
    merge: Merge, lost: list[Lost]
) -> None:
    assert merge_one(1, 2, 3, merge).lost == lost


def test_a_function_may_drop_the_key() -> None:
    assert merge_one(1, 2, 3, lambda *_: MISSING).values == {"key": MISSING}


def test_a_function_may_drop_a_key_inside() -> None:
    values, _ = merge_one({"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 3, "b": 1}, lambda *_: MISSING)

    assert values["key"] == {"b": 1}


def test_a_function_may_change_what_it_is_given() -> None:
    mine, theirs = [2], [3]

    def joined(_path: KeyPath, base: list[int], ours: list[int], others: list[int]) -> list[int]:
        base += ours
        base += others
        ours.clear()
        others.clear()
        return base

    values, _ = merge_one([1], mine, theirs, joined)

    assert values["key"] == [1, 2, 3]
    assert (mine, theirs) == ([2], [3])


def test_what_a_function_holds_on_to_is_no_part_of_the_session() -> None:
    shared: list[int] = []

    values, _ = merge_one(1, 2, 3, lambda *_: shared)
    values["key"].append(1)

    assert shared == []


@pytest.mark.parametrize(
    ("returned", "path"),
    [({2, 3}, "session['key']['a']"), ([{2, 3}], "session['key']['a'][0]")],
)
def test_a_function_that_returns_what_cannot_be_kept_is_refused(
    returned: object, path: str
) -> None:
    with pytest.raises(UnserializableValue, match=" is of type set") as caught:
        merge_one({"a": 1}, {"a": 2}, {"a": 3}, lambda *_: returned)

    assert caught.value.path == path


def test_a_function_cannot_nest_deeper_than_a_record_can_hold() -> None:
    with pytest.raises(UnserializableValue, match=r"session\['key'\] .* nested more than 200 deep"):
        merge_one(nested(150, 1), nested(150, 2), nested(150, 3), lambda *_: nested(100, 4))


def test_as_deep_as_a_record_can_hold_is_merged() -> None:
    base, mine, theirs = (nested(198, {"n": 1, name: 1}) for name in ("n", "mine", "theirs"))

    assert kept(base, mine, theirs) == nested(198, {"n": 1, "mine": 1, "theirs": 1})


def nested(levels: int, value: Any) -> Any:
    for _ in range(levels):
        value = {"deeper": value}
    return value


# What is given is left alone


def test_the_values_returned_are_no_part_of_those_given() -> None:
    mine, theirs = {"a": [1]}, {"b": [2]}

    values, _ = merge_one({}, mine, theirs)
    values["key"]["a"].append(3)
    values["key"]["b"].append(3)

    assert (mine, theirs) == ({"a": [1]}, {"b": [2]})


def test_values_of_our_own_types_are_merged_as_what_they_come_back_as() -> None:
    class Colour(StrEnum):
        RED = "red"

    base = {"colours": ["red"], "size": 1}
    mine = {"colours": (Colour.RED, "blue"), "size": 1}
    theirs = {"colours": ["red", "green"], "size": 2}

    assert kept(base, mine, theirs) == {"colours": ["red", "green", "blue"], "size": 2}


def test_text_that_is_no_unicode_is_merged_too() -> None:
    assert kept(["\ud800"], ["\ud800", "mine"], ["\ud800", {"b": "\udfff", "a": 1}]) == [
        "\ud800",
        {"b": "\udfff", "a": 1},
        "mine",
    ]


def test_missing_says_what_it_is() -> None:
    assert repr(MISSING) == "MISSING"
