"""Two changes to one session become one: three-way, by path."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping
from itertools import takewhile
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec

from aiosess.errors import MergeConflict
from aiosess.privacy import private
from aiosess.records.format import check_value, decode_value, encode_value
from aiosess.records.shapes import ANYTHING, ONE, Array, Shape, in_order

__all__ = [
    "MISSING",
    "NO_SHAPES",
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
    "meaning",
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
"""Which side wins when two requests changed one value: a word, or ``f(path, base, mine, theirs)``.

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


@private()
class Merged(NamedTuple):
    """The value to keep for each key (MISSING: none), and the changes that lost."""

    values: Data
    lost: list[Lost]


NO_SHAPES: Final[Mapping[str, Shape]] = MappingProxyType({})
"""Where all values are merged as any JSON."""

SCALARS: Final = frozenset({str, int, float, bool, type(None)})
"""The types of values that cannot be changed from inside."""

# A tuple is asked quicker than a union.
_CONTAINERS: Final = (dict, list, tuple)
_encode_sorted: Final = msgspec.json.Encoder(order="sorted").encode
# How many paths the message of an error names.
_MOST_NAMED: Final = 3


def is_container(value: object) -> bool:
    """Ask whether *value* can be changed from inside, or may hold what can."""
    return isinstance(value, _CONTAINERS)


def freeze(value: object) -> Original:
    """Return *value* so that later changes inside it can be noticed."""
    return encode_value(value) if is_container(value) else value


def is_alike(one: object, other: object) -> bool:
    """Ask whether two values that a record can hold mean the same; 1, 1.0 and True are three.

    The order of a dict's keys means nothing, and a tuple is the list that it comes back as.
    """
    if is_container(one) and is_container(other):
        return meaning(one) == meaning(other)
    return one.__class__ is other.__class__ and one == other


def meaning(value: object) -> bytes:
    """Return bytes that are the same for all values that are alike."""
    try:
        return _encode_sorted(value)
    except (TypeError, ValueError):
        # As encode_value() does for what is rare.
        return json.dumps(value, sort_keys=True).encode()


def merged(
    changes: Changes,
    theirs: Mapping[str, Any],
    merge: Merge,
    whole: frozenset[str] = frozenset(),
    shapes: Mapping[str, Shape] = NO_SHAPES,
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
    - A set, as *shapes* say by key what values look like, is merged by membership. A tuple, or
      what has fields, is one value where they say so.
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
        shape = ONE if key in whole else shapes.get(key, ANYTHING)
        other = _plain(theirs.get(key, MISSING))
        values[key] = merging.anything((key,), base, _plain(mine), other, shape)
    if merging.refused:
        raise MergeConflict(
            f"another request changed {_listed(merging.refused)} as well",
            keys=tuple(merging.refused),
        )
    if callable(merge):
        _check(values)
    return Merged(values, merging.lost)


class _Merging:
    """The rules of one merge, and what came of it so far. Each method returns what to keep."""

    def __init__(self, merge: Merge) -> None:
        self._merge: Merge = merge
        self.lost: list[Lost] = []
        self.refused: list[KeyPath] = []

    def anything(self, path: KeyPath, base: Any, mine: Any, theirs: Any, shape: Shape) -> Any:
        """Merge whatever stands at *path*, inside as well, but for what is one by its *shape*."""
        kind = _kind_of_both(base, mine, theirs)
        if kind is dict and not shape.is_one:
            return self._dicts(path, base, mine, theirs, shape)
        if is_alike(theirs, base) or is_alike(theirs, mine):
            return mine
        if is_alike(mine, base):
            return theirs
        kept = _merged_arrays(base, mine, theirs, shape.array) if kind is list else None
        if kept is None:
            return self._conflict(path, base, mine, theirs)
        return self._left(kept, path, base, mine, theirs)

    def _dicts(self, path: KeyPath, base: Any, mine: Any, theirs: Any, shape: Shape) -> Any:
        was, ours, others = _as_dict(base), _as_dict(mine), _as_dict(theirs)
        order = ours | others if list(was) == list(others) else others | ours
        kept: Data = {}
        for key in order:
            value = self.anything(
                (*path, key),
                was.get(key, MISSING),
                ours.get(key, MISSING),
                others.get(key, MISSING),
                shape.member(key),
            )
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
            if kept is not MISSING:
                check_value(kept, _named(path))
                kept = _plain(kept)
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
    our, their = base if mine is MISSING else mine, base if theirs is MISSING else theirs
    return our.__class__ if our.__class__ is their.__class__ else None


def _merged_arrays(base: Any, mine: Any, theirs: Any, array: Array) -> list[Any] | None:
    """Return what both sides made of an array; ``None`` where that is a conflict."""
    was, ours, others = (_as_list(each) for each in (base, mine, theirs))
    match array:
        case Array.QUEUE:
            return _merged_lists(was, ours, others)
        case Array.SET:
            return _merged_sets(was, ours, others)
        case Array.ONE:
            return None


def _merged_sets(was: list[Any], ours: list[Any], others: list[Any]) -> list[Any]:
    """Return the members that both sides left there, and those that one of them added."""
    before, mine, theirs = ({meaning(item): item for item in each} for each in (was, ours, others))
    added = (mine.keys() | theirs.keys()) - before.keys()
    kept = (before.keys() & mine.keys() & theirs.keys()) | added
    return in_order([(before | theirs | mine)[each] for each in kept])


def _merged_lists(was: list[Any], ours: list[Any], others: list[Any]) -> list[Any] | None:
    """Return the list with what both sides added; ``None`` where a side did something else."""
    meant, our_meant, their_meant = (list(map(meaning, each)) for each in (was, ours, others))
    we_took, they_took = _taken(our_meant, meant), _taken(their_meant, meant)
    if we_took is None or they_took is None:
        return None
    our_new, their_new = len(was) - we_took, len(was) - they_took
    # A save of ours whose answer was lost may be in theirs already.
    both = zip(our_meant[our_new:], their_meant[their_new:], strict=False)
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], both))
    is_replaced = bool(was) and our_new == their_new == 0
    if is_replaced and common < min(len(ours), len(others)):
        # Each put something else in its place.
        return None
    return was[max(we_took, they_took) :] + others[their_new:] + ours[our_new + common :]


def _taken(value: list[bytes], was: list[bytes]) -> int | None:
    """Return how many items were taken from the beginning of *was*, and *value* is left and more.

    Return ``None`` where it was changed in another way.
    """
    least = max(0, len(was) - len(value))
    begins = (taken for taken in range(least, len(was)) if was[taken] == value[0])
    fits = (taken for taken in begins if was[taken:] == value[: len(was) - taken])
    taken = next(fits, len(was))
    # What stands further back now was not taken.
    has_moved = not set(was[:taken]).isdisjoint(value[len(was) - taken :])
    return None if has_moved else taken


def _as_dict(value: Any) -> Data:
    return value if value.__class__ is dict else {}


def _as_list(value: Any) -> list[Any]:
    return value if value.__class__ is list else []


def _plain(value: Any) -> Any:
    """Return what comes back from JSON for *value*, which nobody else holds."""
    return decode_value(encode_value(value)) if is_container(value) else value


def _check(values: Data) -> None:
    """Raise UnserializableValue where what a function returned is too deep where it stands."""
    for key, value in values.items():
        if value is not MISSING:
            check_value(value, _named((key,)))


def _named(path: KeyPath) -> str:
    return "session" + "".join(f"[{key!r}]" for key in path)


def _listed(paths: list[KeyPath]) -> str:
    shown = [repr(".".join(path)) for path in paths[:_MOST_NAMED]]
    if len(paths) > _MOST_NAMED:
        shown.append(f"{len(paths) - _MOST_NAMED} more")
    return " and ".join(shown)
