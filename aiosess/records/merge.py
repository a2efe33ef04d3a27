"""Two changes to one session become one: three-way, by path."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any, Final, Literal, NamedTuple, TypeAlias, cast

from aiosess.errors import MergeConflict
from aiosess.records.format import check_value, decode_value, encode_value

__all__ = [
    "MISSING",
    "SCALARS",
    "Changes",
    "Data",
    "KeyPath",
    "Lost",
    "Merge",
    "Merged",
    "Missing",
    "Original",
    "freeze",
    "is_alike",
    "is_container",
    "is_same",
    "merged",
]


class Missing(enum.Enum):
    """The type of MISSING."""

    MISSING = "missing"

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing.MISSING
"""What stands for a key that is not there."""

KeyPath: TypeAlias = tuple[str, ...]
"""The keys that lead to a value, outermost first. The items of a list have none of their own."""

Merge: TypeAlias = Literal["mine", "theirs", "raise"] | Callable[[KeyPath, Any, Any, Any], Any]
"""Who wins when two requests changed one value: a word, or ``f(path, base, mine, theirs)``.

The callable returns the value to keep; each argument but the path may be MISSING, and so may the
result. The values are copies, which it may change.
"""

Original: TypeAlias = object
"""A value as it was read: a scalar itself, a container as the bytes of its JSON, or MISSING."""

Changes: TypeAlias = dict[str, tuple[Original, Any]]
"""What was changed: for each key the original, and the value now (MISSING when deleted)."""


Data: TypeAlias = dict[str, Any]
"""A dict in a session, or all its data."""


class Lost(NamedTuple):
    """A change that was dropped: where it had been made, and by whom."""

    path: KeyPath
    side: Literal["mine", "theirs"]


class Merged(NamedTuple):
    """The value to keep for each key (MISSING: none), and the changes that lost."""

    values: Data
    lost: list[Lost]


SCALARS: Final = frozenset({str, int, float, bool, type(None)})
"""The types of values that cannot be changed from inside."""

# A tuple is asked quicker than a union.
_CONTAINERS: Final = (dict, list, tuple)
# How many paths the message of an error names.
_MOST_NAMED: Final = 3


def is_container(value: object) -> bool:
    """Ask whether *value* can be changed from inside, or may hold what can."""
    return isinstance(value, _CONTAINERS)


def freeze(value: object) -> Original:
    """Return *value* so that later changes inside it can be noticed."""
    return encode_value(value) if is_container(value) else value


def is_same(original: Original, value: object) -> bool:
    """Ask whether *value* is what *original* was frozen from; 1, 1.0 and True are three things.

    The order of a dict's keys counts here, so that a dict that was only sorted is written.
    """
    if value.__class__ is original.__class__:
        return value == original
    # Bytes are no value of a session's: a container was frozen into them.
    return original.__class__ is bytes and is_container(value) and encode_value(value) == original


def is_alike(one: Any, other: Any) -> bool:
    """Ask whether two values mean the same; 1, 1.0 and True are three things.

    The order of a dict's keys means nothing, and a tuple is the list that it comes back as.
    """
    if isinstance(one, dict):
        return isinstance(other, dict) and _are_dicts_alike(cast("Data", one), cast("Data", other))
    if isinstance(one, list | tuple):
        some, others = cast("Sequence[Any]", one), cast("Sequence[Any]", other)
        return (
            isinstance(other, list | tuple)
            and len(some) == len(others)
            and all(map(is_alike, some, others))
        )
    return one.__class__ is other.__class__ and bool(one == other)


def _are_dicts_alike(one: Data, other: Data) -> bool:
    return one.keys() == other.keys() and all(is_alike(one[key], other[key]) for key in one)


def merged(
    changes: Changes,
    theirs: Mapping[str, Any],
    merge: Merge,
    whole: frozenset[str] = frozenset(),
) -> Merged:
    """Return what to keep for the keys in *changes*, on top of *theirs*, and what lost.

    - What only one side changed is kept. Both having made the same change is no conflict.
    - A dict is merged key by key, at any depth. One that both sides put where there was none
      counts as empty before.
    - A list to which both only added keeps both additions, theirs first; what is alike at the
      beginning of both additions was added once. What one side added also stays where the other
      took items from the beginning, emptied or removed the list, and perhaps added as well; what
      was taken stays away.
    - A dict that one side removed counts as emptied: what the other side changed in it is a
      conflict for each key, and what it added stays.
    - All else is one value, and so is whatever stands under a key in *whole*. Where both sides
      changed it, *merge* decides, at the deepest path that differs.

    The order of a dict's keys is no conflict: ours stays where they left theirs as it was, else
    theirs does, and our new keys come last.

    The values in *changes* must have passed check_value. Those returned are no part of the
    values given, but for scalars. Raise MergeConflict, with all paths, when *merge* is
    ``"raise"``, UnserializableValue when a function returned what a record cannot hold.
    """
    merging = _Merging(merge)
    values: Data = {}
    for key, (original, mine) in changes.items():
        base = decode_value(original) if isinstance(original, bytes) else original
        settle = merging.whole if key in whole else merging.anything
        values[key] = settle((key,), base, _plain(mine), _plain(theirs.get(key, MISSING)))
    if merging.refused:
        raise MergeConflict(
            f"another request changed {_named(merging.refused)} as well",
            keys=tuple(merging.refused),
        )
    if callable(merge):
        values = {key: _checked(key, value) for key, value in values.items()}
    return Merged(values, merging.lost)


class _Merging:
    """The rules of one merge, and what came of it so far. Each method returns what to keep."""

    def __init__(self, merge: Merge) -> None:
        self._merge: Merge = merge
        self.lost: list[Lost] = []
        self.refused: list[KeyPath] = []

    def anything(self, path: KeyPath, base: Any, mine: Any, theirs: Any) -> Any:
        """Merge whatever stands at *path*, inside as well."""
        kind = _kind_of_both(base, mine, theirs)
        if kind is dict:
            return self._dicts(path, base, mine, theirs)
        return self.whole(path, base, mine, theirs, may_add=kind is list)

    def whole(
        self, path: KeyPath, base: Any, mine: Any, theirs: Any, *, may_add: bool = False
    ) -> Any:
        """Merge what is one value, whatever is inside; or a list to which sides *may_add*."""
        if is_alike(theirs, base) or is_alike(theirs, mine):
            return mine
        if is_alike(mine, base):
            return theirs
        kept = _merged_lists(base, mine, theirs) if may_add else None
        if kept is None:
            return self._conflict(path, base, mine, theirs)
        return self._left(kept, path, base, mine, theirs)

    def _dicts(self, path: KeyPath, base: Any, mine: Any, theirs: Any) -> Any:
        was, ours, others = _as_dict(base), _as_dict(mine), _as_dict(theirs)
        order = ours | others if list(was) == list(others) else others | ours
        kept: Data = {}
        for key in order:
            states = (each.get(key, MISSING) for each in (was, ours, others))
            value = self.anything((*path, key), *states)
            if value is not MISSING:
                kept[key] = value
        return self._left(kept, path, base, mine, theirs)

    def _left(self, kept: Any, path: KeyPath, base: Any, mine: Any, theirs: Any) -> Any:
        """Return the container *kept*, unless nothing is in it and a side removed it."""
        if kept or (mine is not MISSING and theirs is not MISSING):
            return kept
        # That the other side emptied it is another thing.
        is_emptied = bool(base) and not all((mine, theirs))
        return self._conflict(path, base, mine, theirs) if is_emptied else MISSING

    def _conflict(self, path: KeyPath, base: Any, mine: Any, theirs: Any) -> Any:
        if callable(self._merge):
            kept = self._merge(path, base, mine, theirs)
            if is_alike(kept, mine):
                self.lost.append(Lost(path, "theirs"))
            elif is_alike(kept, theirs):
                self.lost.append(Lost(path, "mine"))
            return kept
        match self._merge:
            case "mine":
                self.lost.append(Lost(path, "theirs"))
                return mine
            case "theirs":
                self.lost.append(Lost(path, "mine"))
                return theirs
            case "raise":
                self.refused.append(path)
                return mine


def _kind_of_both(base: Any, mine: Any, theirs: Any) -> type | None:
    """Return the type of both sides, where it is one; a side that removed it counts as before."""
    mine, theirs = (base if each is MISSING else each for each in (mine, theirs))
    return mine.__class__ if mine.__class__ is theirs.__class__ else None


class _Queued(NamedTuple):
    """What a side did to a list: how many items it took from the beginning, how many it added."""

    taken: int
    added: int


def _merged_lists(base: Any, mine: Any, theirs: Any) -> list[Any] | None:
    """Return the list with what both sides added; ``None`` where a side did something else."""
    was, ours, others = _as_list(base), _as_list(mine), _as_list(theirs)
    our, their = _queued(ours, was), _queued(others, was)
    if our is None or their is None:
        return None
    our_new, their_new = ours[len(ours) - our.added :], others[len(others) - their.added :]
    # A save of ours whose answer was lost may be in theirs already.
    common = sum(1 for _ in takewhile(bool, map(is_alike, our_new, their_new)))
    is_replaced = bool(was) and our.taken == their.taken == len(was)
    if is_replaced and common < min(our.added, their.added):
        # Each put something else in its place.
        return None
    return was[max(our.taken, their.taken) :] + their_new + our_new[common:]


def _queued(value: list[Any], was: list[Any]) -> _Queued | None:
    """Return how *was* became *value*; ``None`` where it was changed in another way."""
    now, before = _meanings(value), _meanings(was)
    least = max(0, len(before) - len(now))
    begins = (taken for taken in range(least, len(before)) if before[taken] == now[0])
    fits = (taken for taken in begins if before[taken:] == now[: len(before) - taken])
    taken = next(fits, len(before))
    added = now[len(before) - taken :]
    # Whatever was taken is gone: it did not move.
    return _Queued(taken, len(added)) if set(before[:taken]).isdisjoint(added) else None


def _meanings(items: list[Any]) -> list[str]:
    """Return for each of *items* a text that is the same for all that is alike."""
    return [json.dumps(item, sort_keys=True) for item in items]


def _as_dict(value: Any) -> Data:
    return value if value.__class__ is dict else {}


def _as_list(value: Any) -> list[Any]:
    return value if value.__class__ is list else []


def _plain(value: Any) -> Any:
    """Return what comes back from JSON for *value*, which nobody else holds."""
    return decode_value(encode_value(value)) if is_container(value) else value


def _checked(key: str, value: Any) -> Any:
    """Return *value*, into which a function put something; UnserializableValue if it cannot be."""
    if value is MISSING:
        return value
    # The whole of it, since what fits at the top may be too deep where it stands.
    check_value(value, f"session[{key!r}]")
    return _plain(value)


def _named(paths: list[KeyPath]) -> str:
    shown = [repr(".".join(path)) for path in paths[:_MOST_NAMED]]
    if len(paths) > _MOST_NAMED:
        shown.append(f"{len(paths) - _MOST_NAMED} more")
    return " and ".join(shown)
