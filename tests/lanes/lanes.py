"""The lanes that are compared, and how an application is made to drive on one of them.

This is the only file that knows which classes they are, and who chooses one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Final, TypeAlias
from unittest import mock

from aiosess.exchange import fast, manager
from aiosess.exchange.exchange import Exchange

__all__ = ["FAST", "SHORTCUTS", "WHOLE", "Lane", "driving", "lane_of"]

Lane: TypeAlias = Mapping[str, object]
"""What stands for which names in the module that chooses the lane of an application."""

SHORTCUTS: Final = fast
"""The module in which the shortcuts stand."""

WHOLE: Final[Lane] = {"lane_of": lambda _options, **_: Exchange}
FAST: Final[Lane] = {}


def lane_of(shortcuts: ModuleType) -> Lane:
    """Return the fast lane of a module that stands in the place of SHORTCUTS."""
    names = ("FastExchange", "UntoldFastExchange", "Shortcuts")
    return {name: getattr(shortcuts, name) for name in names}


@contextlib.contextmanager
def driving(lane: Lane) -> Iterator[None]:
    """Let every application that is made inside drive on *lane*."""
    with mock.patch.dict(vars(manager), lane):
        yield
