"""New content for data that somebody holds: whoever holds a part of it goes on with that part."""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiosess.records.merge import Data, is_alike
from aiosess.records.refill import refill


def test_a_dict_keeps_being_the_object_that_it_was_at_every_depth() -> None:
    held: Data = {"cart": {"items": {"apple": 1}}}
    cart, items = held["cart"], held["cart"]["items"]

    refill(held, {"cart": {"items": {"pear": 2}}, "new": 1})

    assert held == {"cart": {"items": {"pear": 2}}, "new": 1}
    assert held["cart"] is cart
    assert held["cart"]["items"] is items


def test_a_list_keeps_being_the_object_that_it_was() -> None:
    held: Data = {"cart": {"items": [1]}}
    items = held["cart"]["items"]

    refill(held, {"cart": {"items": [1, 2, 3]}})

    assert held["cart"]["items"] is items
    assert items == [1, 2, 3]


@pytest.mark.parametrize("kind", [OrderedDict, lambda data: defaultdict(int, data)])
def test_a_dict_of_another_class_keeps_being_the_object_that_it_was(kind: Any) -> None:
    held: Data = {"count": kind({"a": 1})}
    count = held["count"]

    refill(held, {"count": {"b": 2}})

    assert held["count"] is count
    assert count == {"b": 2}


def test_the_keys_stand_in_the_order_that_is_wanted() -> None:
    held: Data = {"a": 1, "b": 2}

    refill(held, {"b": 2, "c": 3, "a": 1})

    assert list(held) == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        ([1], {"a": 1}),
        ({"a": 1}, [1]),
        ([1], None),
        ("text", [1]),
        ((1, 2), [1, 2]),
    ],
)
def test_what_is_of_another_kind_is_replaced(held: Any, wanted: Any) -> None:
    data = {"key": held}
    before = copy.deepcopy(held)

    refill(data, {"key": wanted})

    assert data == {"key": wanted}
    assert held == before


# The items of a list


def items(*names: str) -> list[dict[str, Any]]:
    return [{"name": name} for name in names]


@pytest.mark.parametrize(
    ("wanted", "place"),
    [
        (["theirs", "apple", "pear"], 1),
        (["apple"], 0),
        (["pear", "apple"], 1),
        (["theirs", "apple"], 1),
    ],
    ids=["inserted", "removed", "moved", "one in and one out"],
)
def test_an_item_of_a_list_stays_the_same_object_wherever_it_stands(
    wanted: list[str], place: int
) -> None:
    held: Data = {"cart": items("apple", "pear")}
    apple = held["cart"][0]

    refill(held, {"cart": items(*wanted)})

    assert held["cart"] == items(*wanted)
    assert held["cart"][place] is apple


def test_an_item_of_a_list_that_changed_in_its_place_is_the_same_object() -> None:
    held: Data = {"cart": items("apple", "pear")}
    pear = held["cart"][1]

    refill(held, {"cart": [{"name": "apple"}, {"name": "pear", "count": 2}]})

    assert held["cart"][1] is pear
    assert pear == {"name": "pear", "count": 2}


def test_an_item_of_a_list_never_becomes_another_one_that_moved() -> None:
    held: Data = {"recent": items("a", "b", "c")}
    a, b, c = held["recent"]

    refill(held, {"recent": items("new", "a", "b")})

    assert held["recent"] == items("new", "a", "b")
    assert held["recent"][1] is a
    assert held["recent"][2] is b
    assert (a, b, c) == tuple(items("a", "b", "c"))


def test_equal_items_of_a_list_stay_as_many_objects() -> None:
    held: Data = {"cart": items("apple", "apple")}
    both = list(held["cart"])

    refill(held, {"cart": items("apple", "pear", "apple")})

    assert held["cart"][0] is both[0]
    assert held["cart"][2] is both[1]


# One object at several paths


def test_an_object_at_two_paths_gets_the_content_of_the_first() -> None:
    shared = [1]
    held: Data = {"a": shared, "b": shared}

    refill(held, {"a": [1, 2], "b": [1, 3]})

    assert held == {"a": [1, 2], "b": [1, 3]}
    assert held["a"] is shared


def test_an_object_at_two_paths_stays_at_both_where_both_want_the_same() -> None:
    shared = [1]
    held: Data = {"a": shared, "b": shared}

    refill(held, {"a": [1, 2], "b": [1, 2]})

    assert held["a"] is held["b"] is shared


def test_an_object_twice_in_one_list_is_two_items_where_two_are_wanted() -> None:
    shared = {"n": 1}
    held: Data = {"a": [shared, shared]}

    refill(held, {"a": [{"n": 2}, {"n": 3}]})

    assert held == {"a": [{"n": 2}, {"n": 3}]}


# Whatever is held, and whatever is wanted


KEYS = st.sampled_from("abc")
SCALARS = st.sampled_from([None, True, 0, 1, 1.0, "", "1"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner),
    max_leaves=8,
)
DATA = st.dictionaries(KEYS, VALUES)


@settings(deadline=None)
@given(held=DATA, wanted=DATA, shared=st.lists(KEYS, max_size=3))
def test_what_is_held_has_the_content_that_is_wanted(
    held: Data, wanted: Data, shared: list[str]
) -> None:
    # One object at several paths, at the top and inside.
    held.update({key: held.get("a") for key in shared})
    held["list"] = [held.get("a"), {"in": held.get("b")}, held.get("a")]
    expected = copy.deepcopy(wanted)

    refill(held, wanted)

    assert is_alike(held, expected)
    assert list(held) == list(expected)


@settings(deadline=None)
@given(held=DATA, wanted=DATA)
def test_each_container_at_a_path_of_keys_stays_the_same_object(held: Data, wanted: Data) -> None:
    before = containers(held)

    refill(held, wanted)

    after = containers(held)
    in_both = [path for path in before if type(before[path]) is type(after.get(path))]
    assert [path for path in in_both if after[path] is not before[path]] == []


def containers(data: Data) -> dict[tuple[str, ...], Any]:
    """Return each dict and list that has a path, by its path."""
    found: dict[tuple[str, ...], Any] = {}
    for key, value in data.items():
        if isinstance(value, dict | list):
            found[(key,)] = value
        if isinstance(value, dict):
            found |= {(key, *path): each for path, each in containers(value).items()}
    return found
