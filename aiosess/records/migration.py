"""Records that another version of the application wrote: older ones become what is read now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from aiosess.errors import UnserializableValue
from aiosess.records.format import (
    NOTHING,
    RESERVED_KEYS,
    VERSION,
    Record,
    check_value,
    version_of,
)

__all__ = ["MIGRATES", "Migrate", "Migration", "version_only"]

MIGRATES: Final = "takes data and version, and returns the data, or None to start anew"

Migrate: TypeAlias = Callable[[dict[str, Any], int], dict[str, Any] | None]
"""Takes the data of an older record and its version, 0 where it says none.

It returns the data as they are now, or ``None`` where the session is to start anew.
"""


class Migration:
    """Brings records up to *version*; ``None``: the application does not say which it is.

    A newer record is left as it is, and so is what it says of its version: whoever writes it again
    carries that along.
    """

    def __init__(self, version: int | None = None, migrate: Migrate | None = None) -> None:
        self.version: int = 0 if version is None else version
        self._migrate = migrate
        self.beginning: Mapping[str, Any] = NOTHING if version is None else {VERSION: version}
        """What the record of a session that begins says of it."""

    def __call__(self, record: Record) -> Record | None:
        """Return *record* as the application reads it; ``None`` where the session starts anew.

        Nothing is written. Raise what the application's function does, TypeError for what is no
        dict, UnserializableValue for a value that a record cannot hold.
        """
        was = version_of(record.unknown)
        if was >= self.version:
            return record
        data: Any = record.data
        if self._migrate is not None:
            data = self._migrate(record.data, was)
            if data is None:
                return None
            _check(data)
        return record._replace(data=data, unknown={**record.unknown, **self.beginning})


def version_only(unknown: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a record says of its version, and nothing else that stands beside its data."""
    return {VERSION: unknown[VERSION]} if VERSION in unknown else NOTHING


def _check(data: Any) -> None:
    if data.__class__ is not dict:
        raise TypeError(
            f"migrate returned {type(data).__name__}: it {MIGRATES}; the data are a dict"
        )
    for key, value in data.items():
        if not isinstance(key, str) or key in RESERVED_KEYS:
            raise UnserializableValue(
                f"migrate returned data with the key {key!r}: keys are str, and "
                f"{' and '.join(sorted(RESERVED_KEYS))} belong to the record",
                path=f"session[{key!r}]",
            )
        check_value(value, f"session[{key!r}]")
