"""Values that need not be JSON: what the storage's own encoder takes, compared by deep copies."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final, cast

from aiosess.records.changes import Values
from aiosess.records.merge import MISSING, Original

__all__ = ["COPIES", "SCALARS"]

SCALARS: Final = frozenset({str, bytes, int, float, bool, type(None)})
"""The types of values that cannot be changed from inside."""


class _Copies:
    """Any values: each is frozen as a deep copy of itself."""

    def freeze(self, value: object) -> Original:
        if value is MISSING:
            return value
        try:
            return copy.deepcopy(value)
        except Exception:  # noqa: BLE001 - what cannot be copied counts as changed
            return object()

    def thaw(self, original: Original) -> Any:
        return original

    def changed(
        self, originals: Mapping[str, Original], data: Mapping[str, Any]
    ) -> dict[str, Original]:
        found: dict[str, Original] = {}
        for key, original in originals.items():
            value = data.get(key, MISSING)
            if not _is_same(original, value):
                found[key] = self.freeze(value)
        return found

    def fill(self, held: dict[str, Any], wanted: dict[str, Any]) -> None:
        held.clear()
        held.update(wanted)


COPIES: Final[Values] = _Copies()
"""The values of a storage that was made for aiohttp-session."""


def _is_same(one: Any, other: Any) -> bool:
    """Ask whether both are the same, all the way down; 1, 1.0 and True are three things."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        mine, theirs = cast("Mapping[Any, Any]", one), cast("Mapping[Any, Any]", other)
        return mine.keys() == theirs.keys() and all(
            _is_same(value, theirs[key]) for key, value in mine.items()
        )
    if isinstance(one, list | tuple):
        some, others = cast("list[Any]", one), cast("list[Any]", other)
        return len(some) == len(others) and all(map(_is_same, some, others))
    return bool(one == other)
