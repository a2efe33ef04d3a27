"""Whatever two requests do to one session: what is merged, what is decided, what is told."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aiosess import MISSING, MergeConflict
from aiosess.records.format import check_value
from aiosess.records.merge import Changes, Data, KeyPath, Lost, Merge, freeze, is_alike, merged
from tests.edits import DATA, OWN_EDITS, SCRIPTS, Edit, OwnEdit, edited, items, leaves, own_edit

SETTINGS = settings(deadline=None, max_examples=300)
WORDS = st.sampled_from(["mine", "theirs"])
OTHER: dict[str, Any] = {"mine": "theirs", "theirs": "mine"}
WHOLE = st.frozensets(st.sampled_from(["a", "b", "user"]), max_size=1)
NOTHING: frozenset[str] = frozenset()


def merge_all(
    base: Data, mine: Data, theirs: Data, merge: Merge = "raise", whole: frozenset[str] = NOTHING
) -> tuple[Data, list[Lost]]:
    """Return all data after the merge, as SessionState.rebase puts them together."""
    changes: Changes = {
        key: (freeze(base.get(key, MISSING)), mine.get(key, MISSING))
        for key in [*base, *(key for key in mine if key not in base)]
        if freeze(base.get(key, MISSING)) != freeze(mine.get(key, MISSING))
        or type(base.get(key)) is not type(mine.get(key))
    }
    values, lost = merged(changes, theirs, merge, whole)
    data = {**theirs, **values}
    return {key: value for key, value in data.items() if value is not MISSING}, lost


def is_below(path: KeyPath, other: KeyPath) -> bool:
    """Ask whether one of the paths leads through the other."""
    shorter = min(len(path), len(other))
    return path[:shorter] == other[:shorter]


# Two edits that have nothing to do with each other


@SETTINGS
@given(begin=OWN_EDITS, also=OWN_EDITS, mine=OWN_EDITS, theirs=OWN_EDITS)
def test_edits_of_different_keys_both_survive_whatever_the_order(
    begin: list[OwnEdit], also: list[OwnEdit], mine: list[OwnEdit], theirs: list[OwnEdit]
) -> None:
    base = owned(owned({}, begin, "mine"), also, "theirs")
    ours, others = owned(base, mine, "mine"), owned(base, theirs, "theirs")

    one_way = merge_all(base, ours, others)
    other_way = merge_all(base, others, ours)

    expected = owned(others, mine, "mine")
    assert (is_alike(one_way[0], expected), one_way[1]) == (True, [])
    assert (is_alike(other_way[0], expected), other_way[1]) == (True, [])


def owned(data: Data, edits: list[OwnEdit], side: str) -> Data:
    """Return a copy in which *side* has changed what is its own."""
    changed = copy.deepcopy(data)
    for number, edit in enumerate(edits):
        own_edit(changed, edit, side, number)
    return changed


@SETTINGS
@given(base=DATA, script=SCRIPTS, whole=WHOLE)
def test_a_side_that_changed_nothing_changes_nothing(
    base: Data, script: list[Edit], whole: frozenset[str]
) -> None:
    changed = edited(base, script, "x")

    assert merge_all(base, copy.deepcopy(base), changed, "raise", whole) == (changed, [])
    assert is_alike(merge_all(base, changed, copy.deepcopy(base), "raise", whole)[0], changed)


@SETTINGS
@given(base=DATA, mine=SCRIPTS, theirs=SCRIPTS, merge=WORDS)
def test_a_merge_on_top_of_what_was_merged_already_changes_nothing(
    base: Data, mine: list[Edit], theirs: list[Edit], merge: Merge
) -> None:
    others = edited(base, theirs, "t")
    first, _ = merge_all(base, edited(base, mine, "m"), others, merge)

    again, lost = merge_all(others, first, copy.deepcopy(others), merge)

    assert is_alike(again, first)
    assert lost == []


# Additions


ACTS = st.sampled_from(["leave", "add", "add two", "empty", "remove", "empty and add"])
LISTS = st.dictionaries(
    st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map(lambda p: (*p, "list")),
    st.tuples(st.integers(-1, 2), ACTS, ACTS),
    max_size=4,
)


def with_lists(lists: dict[KeyPath, list[str] | None]) -> Data:
    """Return nested dicts that hold *lists*."""
    data: Data = {}
    for path, value in lists.items():
        node = data
        for key in path[:-1]:
            node = node.setdefault(key, {})
        if value is not None:
            node[path[-1]] = value
    return data


def acted(base: list[str] | None, act: str, side: str) -> list[str] | None:
    """Return the list after *side* did *act*; ``None``: there is none."""
    if act == "leave":
        return base
    if act == "remove":
        return None
    rest = [] if "empty" in act else base or []
    return rest + added(act, side)


def added(act: str, side: str) -> list[str]:
    return [f"{side}1", f"{side}2"][: ("add" in act) + ("two" in act)]


@SETTINGS
@given(plan=LISTS)
def test_all_additions_to_lists_are_there_exactly_once_whatever_the_order(
    plan: dict[KeyPath, tuple[int, str, str]],
) -> None:
    before = {
        path: None if length < 0 else [f"b{number}" for number in range(length)]
        for path, (length, _, _) in plan.items()
    }
    base = with_lists(before)
    mine = with_lists({path: acted(before[path], act, "m") for path, (_, act, _) in plan.items()})
    theirs = with_lists({path: acted(before[path], act, "t") for path, (_, _, act) in plan.items()})

    one_way, _ = merge_all(base, mine, theirs, "mine")
    other_way, _ = merge_all(base, theirs, mine, "mine")

    for path, (_, ours, others) in plan.items():
        if before[path] and ours == others == "empty and add":
            # Each has put something else in its place: one of them wins.
            continue
        was_left = {ours, others} <= {"leave", "add", "add two"}
        expected = Counter(
            [*((was_left and before[path]) or []), *added(ours, "m"), *added(others, "t")]
        )
        assert Counter(list_at(one_way, path)) == expected
        assert Counter(list_at(other_way, path)) == expected


QUEUED = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=4)


def queued(value: list[str], taken: int, count: int, side: str) -> list[str]:
    """Return the list after so many items were taken from the beginning, and added at the end."""
    return [*value[taken:], *(f"{side}{number}" for number in range(count))]


@SETTINGS
@given(
    length=st.integers(0, 3), mine=st.tuples(st.integers(0, 3), st.integers(0, 2)), theirs=QUEUED
)
def test_one_merge_after_many_saves_of_others_gives_what_one_after_each_gives(
    length: int, mine: tuple[int, int], theirs: list[tuple[int, int]]
) -> None:
    saved = [[f"b{number}" for number in range(length)]]
    for number, (taken, count) in enumerate(theirs):
        saved.append(queued(saved[-1], taken, count, f"t{number}."))
    ours = queued(saved[0], *mine, "m")
    # Who took all that there was and added something may have put another list in its place.
    assume(not length or mine[0] < length or not mine[1])

    step_by_step = ours
    for before, after in itertools.pairwise(saved):
        step_by_step = merge_all({"list": before}, {"list": step_by_step}, {"list": after})[0][
            "list"
        ]

    assert merge_all({"list": saved[0]}, {"list": ours}, {"list": saved[-1]})[0] == {
        "list": step_by_step
    }


def at(data: Any, path: KeyPath) -> Any:
    """Return what stands at *path*, or MISSING."""
    for key in path:
        data = data.get(key, MISSING) if isinstance(data, dict) else MISSING
    return data


def list_at(data: Data, path: KeyPath) -> list[str]:
    value = at(data, path)
    return value if isinstance(value, list) else []


@SETTINGS
@given(base=DATA, mine=SCRIPTS, theirs=SCRIPTS, merge=WORDS)
def test_nothing_appears_that_neither_side_had(
    base: Data, mine: list[Edit], theirs: list[Edit], merge: Merge
) -> None:
    ours, others = edited(base, mine, "m"), edited(base, theirs, "t")

    data, _ = merge_all(base, ours, others, merge)

    our_leaves, their_leaves = leaves(ours), leaves(others)
    for path, leaf in leaves(data).items():
        sides = (our_leaves.get(path), their_leaves.get(path))
        in_either = Counter(items(sides[0])) | Counter(items(sides[1]))
        assert leaf in sides or (items(leaf) and Counter(items(leaf)) <= in_either)


@SETTINGS
@given(base=DATA, mine=SCRIPTS, theirs=SCRIPTS, merge=WORDS)
def test_what_a_side_changed_is_there_or_told_as_lost(
    base: Data, mine: list[Edit], theirs: list[Edit], merge: Merge
) -> None:
    ours, others = edited(base, mine, "m"), edited(base, theirs, "t")

    data, lost = merge_all(base, ours, others, merge)

    for side, changed in (("mine", ours), ("theirs", others)):
        told = [path for path, whose in lost if whose == side]
        assert [
            path
            for path in silent(base, changed, data)
            if not any(is_below(path, each) for each in told)
        ] == []


def silent(base: Data, changed: Data, kept: Data) -> list[KeyPath]:
    """Return where *changed* differs from *base*, and that is not to be seen in *kept*."""
    before, after, now = leaves(base), leaves(changed), leaves(kept)
    states = {path: (before.get(path), after.get(path), now.get(path)) for path in before | after}
    return [path for path, leaf in states.items() if leaf[0] != leaf[1] and not is_kept(*leaf)]


def is_kept(before: str | None, after: str | None, now: str | None) -> bool:
    """Ask whether *now* shows what was done; to a list, the other side may have added."""
    if now == after or not is_list(now or "[]") or not is_list(after or before):
        return now == after
    old, new, there = (set(items(leaf)) for leaf in (before, after, now))
    return new - old <= there and not (old - new) & there


def is_list(leaf: str | None) -> bool:
    return leaf is not None and leaf.startswith("[")


# Decisions


@SETTINGS
@given(base=DATA, mine=SCRIPTS, theirs=SCRIPTS, merge=WORDS, whole=WHOLE)
def test_it_makes_no_difference_who_is_called_mine(
    base: Data, mine: list[Edit], theirs: list[Edit], merge: Any, whole: frozenset[str]
) -> None:
    ours, others = edited(base, mine, "m"), edited(base, theirs, "t")

    one_way, lost = merge_all(base, ours, others, merge, whole)
    other_way, also_lost = merge_all(base, others, ours, OTHER[merge], whole)

    assert in_any_order(one_way) == in_any_order(other_way)
    assert {(path, OTHER[side]) for path, side in lost} == set(also_lost)


def in_any_order(data: Data) -> dict[KeyPath, object]:
    return {path: Counter(items(leaf)) or leaf for path, leaf in leaves(data).items()}


@SETTINGS
@given(base=DATA, mine=SCRIPTS, theirs=SCRIPTS, whole=WHOLE)
def test_what_is_refused_is_what_would_be_lost(
    base: Data, mine: list[Edit], theirs: list[Edit], whole: frozenset[str]
) -> None:
    ours, others = edited(base, mine, "m"), edited(base, theirs, "t")
    _, lost = merge_all(base, ours, others, "mine", whole)

    assert refused(base, ours, others, whole) == [path for path, _ in lost]


def refused(base: Data, mine: Data, theirs: Data, whole: frozenset[str]) -> list[KeyPath]:
    """Return the paths that ``"raise"`` names."""
    try:
        merge_all(base, mine, theirs, "raise", whole)
    except MergeConflict as conflict:
        return list(conflict.keys)
    return []


@SETTINGS
@given(base=DATA, mine=SCRIPTS, theirs=SCRIPTS, whole=WHOLE)
def test_a_function_is_asked_only_where_three_values_differ(
    base: Data, mine: list[Edit], theirs: list[Edit], whole: frozenset[str]
) -> None:
    ours, others = edited(base, mine, "m"), edited(base, theirs, "t")
    asked: list[tuple[KeyPath, Any, Any, Any]] = []

    def merge(path: KeyPath, was: Any, our: Any, their: Any) -> Any:
        asked.append((path, was, our, their))
        return our

    _, lost = merge_all(base, ours, others, merge, whole)

    assert [path for path, _, _, _ in asked] == [path for path, _ in lost]
    for path, was, our, their in asked:
        assert all(
            is_alike(*each)
            for each in ((at(base, path), was), (at(ours, path), our), (at(others, path), their))
        )
        assert not any(is_alike(*each) for each in ((was, our), (was, their), (our, their)))


@SETTINGS
@given(
    base=DATA, mine=SCRIPTS, theirs=SCRIPTS, merge=WORDS, key=st.sampled_from(["a", "b", "user"])
)
def test_what_is_whole_is_one_side_s_as_it_stands(
    base: Data, mine: list[Edit], theirs: list[Edit], merge: Merge, key: str
) -> None:
    ours, others = edited(base, mine, "m"), edited(base, theirs, "t")

    data, _ = merge_all(base, ours, others, merge, frozenset({key}))

    assert is_alike(at(data, (key,)), at(ours, (key,))) or is_alike(
        at(data, (key,)), at(others, (key,))
    )


# Depth


@settings(deadline=None, max_examples=50)
@given(
    kinds=st.lists(st.booleans(), max_size=197),
    mine=st.sampled_from(["set", "append", "delete"]),
    theirs=st.sampled_from(["set", "append", "delete"]),
    merge=WORDS,
)
def test_what_was_as_deep_as_a_record_may_be_still_is_after_the_merge(
    kinds: list[bool], mine: str, theirs: str, merge: Merge
) -> None:
    base, ours, others = ({"a": deep(kinds, verb)} for verb in ("leave", mine, theirs))
    assume(not is_alike(ours, others))

    data, _ = merge_all(base, ours, others, merge)

    check_value(data, "data")


def deep(kinds: list[bool], verb: str) -> Any:
    """Return a list inside lists (where *kinds* say so) and dicts, the innermost changed."""
    changes: dict[str, Any] = {"set": [2], "append": [1, [verb]], "delete": []}
    value = changes.get(verb, [1])
    for is_list in kinds:
        value = [value] if is_list else {"a": value}
    return value
