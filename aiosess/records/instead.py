"""What a session can keep in the place of a value that JSON does not have."""

from __future__ import annotations

import enum
import inspect
import io
import types
from collections.abc import Awaitable, Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address, IPv6Address
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

import msgspec

from aiosess.records.typed import SessionKey

__all__ = ["instead_of"]

_ANY: Final = "str, int, float, bool, None, lists or dicts of them"

# An open file gives lines, and a request is a mapping, but neither is to be kept.
_NEVER: Final = (type, types.FunctionType, types.ModuleType, io.IOBase)
# The first that fits counts.
_INSTEAD: Final[tuple[tuple[type | tuple[type, ...], str], ...]] = (
    ((datetime, date, time), "value.isoformat()"),
    (timedelta, "value.total_seconds()"),
    ((UUID, Decimal, Fraction, PurePath, IPv4Address, IPv6Address), "str(value)"),
    ((bytes, bytearray, memoryview), "base64.b64encode(value).decode()"),
    (enum.Enum, "value.value"),
    (Awaitable, "what it returns: it was not awaited"),
    (Mapping, "dict(value)"),
    (AbstractSet, "sorted(value), or list(value)"),
    (msgspec.Struct, "msgspec.to_builtins(value)"),
    (SessionKey, "value.name"),
    ((Collection, Iterator), "list(value)"),
)


def instead_of(value: object) -> str:
    """Return, for people who tried to keep *value*, what to keep in its place."""
    kind: Any = type(value)
    if isinstance(value, _NEVER) or kind.__module__.startswith("aiohttp."):
        return _ANY
    if is_dataclass(kind):
        return "dataclasses.asdict(value)"
    if inspect.isfunction(getattr(kind, "model_dump", None)):
        return 'value.model_dump(mode="json")'
    return next((way_out for kinds, way_out in _INSTEAD if isinstance(value, kinds)), _ANY)
