"""What was changed since a record was read: values frozen, compared, and taken note of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from msgspec import Struct

from aiosess.errors import UnserializableValue
from aiosess.privacy import private
from aiosess.records.format import check_value, decode_value
from aiosess.records.merge import MISSING, Original, freeze
from aiosess.records.refill import refill

__all__ = ["JSON", "Snapshot", "Values", "put"]

# Any record can hold a str, and any int that is smaller.
_LARGE: Final = 2**63


# Made in C, where a NamedTuple takes a function in Python.
@private()
class Snapshot(Struct):
    """What a payload that is under way holds: what changes from here on is not in it.

    - ``values``: of each key that was changed, the value as it was then, frozen.
    - ``own``: the cookie attributes that the session alone has.
    """

    values: dict[str, Original]
    own: dict[str, Any]


class Values(Protocol):
    """How the values of a session are compared; each kind of storage takes its own."""

    def freeze(self, value: object) -> Original:
        """Return *value* so that later changes inside it can be noticed."""
        ...

    def thaw(self, original: Original) -> Any:
        """Return the value that was frozen as *original*."""
        ...

    def changed(
        self, originals: Mapping[str, Original], data: Mapping[str, Any]
    ) -> dict[str, Original]:
        """Return the values in *data* that differ from their *originals*, frozen as they are now.

        A key that was deleted counts as MISSING. Raise UnserializableValue for a value that a
        record cannot hold.
        """
        ...

    def fill(self, held: dict[str, Any], wanted: dict[str, Any]) -> None:
        """Give *held* the content of *wanted*."""
        ...


class _Json:
    """The values that JSON has: a container is frozen as its bytes."""

    def freeze(self, value: object) -> Original:
        return freeze(value)

    def thaw(self, original: Original) -> Any:
        return decode_value(original) if isinstance(original, bytes) else original

    def changed(
        self, originals: Mapping[str, Original], data: Mapping[str, Any]
    ) -> dict[str, Original]:
        found: dict[str, Original] = {}
        for key, original in originals.items():
            value = data.get(key, MISSING)
            if value is original:
                continue
            kind = value.__class__
            if not (kind is str or (kind is int and -_LARGE < value < _LARGE) or value is MISSING):
                try:
                    check_value(value, f"session[{key!r}]")
                except UnserializableValue as error:
                    # Error trackers send what is left in this frame and in those below.
                    del originals, original, data, value, found
                    raise error.with_traceback(None) from None
                value = freeze(value)
            if value.__class__ is not original.__class__ or value != original:
                found[key] = value
        return found

    def fill(self, held: dict[str, Any], wanted: dict[str, Any]) -> None:
        refill(held, wanted)


JSON: Final[Values] = _Json()
"""The values of our own storages."""


def put(target: dict[str, Any], key: str, value: Any) -> None:
    """Set *key*, or remove it where *value* is MISSING."""
    if value is MISSING:
        target.pop(key, None)
    else:
        target[key] = value
