"""Two changes to one session become one: three-way, by top-level key."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

from aiosess.errors import MergeConflict
from aiosess.records.format import check_value, decode_value, encode_value

__all__ = [
    "MISSING",
    "SCALARS",
    "Changes",
    "Merge",
    "Missing",
    "Original",
    "freeze",
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

Merge: TypeAlias = Literal["mine", "theirs", "raise"] | Callable[[str, Any, Any, Any], Any]
"""Which change wins when two requests changed one key: a word, or ``f(key, base, mine, theirs)``.

The callable returns the value to keep; each argument may be MISSING, and so may the result.
"""

Original: TypeAlias = object
"""A value as it was read: a scalar itself, a container as the bytes of its JSON, or MISSING."""

Changes: TypeAlias = dict[str, tuple[Original, Any]]
"""What was changed: for each key the original, and the value now (MISSING when deleted)."""


SCALARS: Final = frozenset({str, int, float, bool, type(None)})
"""The types of values that cannot be changed from inside."""

# A tuple is asked quicker than a union.
_CONTAINERS: Final = (dict, list, tuple)


def is_container(value: object) -> bool:
    """Ask whether *value* can be changed from inside, or may hold what can."""
    return isinstance(value, _CONTAINERS)


def freeze(value: object) -> Original:
    """Return *value* so that later changes inside it can be noticed."""
    return encode_value(value) if is_container(value) else value


def is_same(original: Original, value: object) -> bool:
    """Ask whether *value* is what *original* was frozen from; 1, 1.0 and True are three things."""
    if value.__class__ is original.__class__:
        return value == original
    # Bytes are no value of a session's: a container was frozen into them.
    return original.__class__ is bytes and is_container(value) and encode_value(value) == original


def merged(changes: Changes, theirs: Mapping[str, Any], merge: Merge) -> dict[str, Any]:
    """Return the values to keep for the keys in *changes*, on top of *theirs*.

    A key that they left as it was takes our change. Where both changed it, *merge* decides;
    both having made the same change is no conflict. Raise MergeConflict when it is ``"raise"``,
    UnserializableValue when a function returned what a record cannot hold.
    """
    return {
        key: _settle(key, original, mine, theirs.get(key, MISSING), merge)
        for key, (original, mine) in changes.items()
    }


def _settle(key: str, original: Original, mine: Any, theirs: Any, merge: Merge) -> Any:
    if is_same(original, theirs):
        return mine
    if is_same(freeze(mine), theirs):
        return mine
    if callable(merge):
        base = decode_value(original) if isinstance(original, bytes) else original
        kept = merge(key, base, mine, theirs)
        if kept is not MISSING:
            check_value(kept, f"session[{key!r}]")
        return kept
    match merge:
        case "mine":
            return mine
        case "theirs":
            return theirs
        case "raise":
            raise MergeConflict(f"another request changed {key!r} as well", keys=(key,))
