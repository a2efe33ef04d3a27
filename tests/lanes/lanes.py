"""The lanes that are compared, and how an application is made to drive on one of them.

This is the only file that knows which classes they are, and who chooses one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, Final, TypeAlias
from unittest import mock

from aiohttp import web

from aiosess import Session, middleware
from aiosess.attributes import CookieOptions
from aiosess.exchange import exchange
from aiosess.exchange.exchange import Visit
from aiosess.records.repository import Keeper

__all__ = ["FAST", "SHORTCUTS", "WHOLE", "Lane", "driving", "lane_of", "timed"]

Lane: TypeAlias = Mapping[str, object]
"""What stands for which names in the module that chooses the lane of an application."""

SHORTCUTS: Final = exchange
"""The module in which the shortcuts stand."""


class _Whole(Visit):
    """A visit that never takes a shortcut."""

    def end(self, response: web.StreamResponse) -> Any:
        return self.commit(response)

    def is_ready(self, response: web.StreamResponse) -> bool:
        return super().is_ready(response) if not self.is_asked else False

    async def _open(self, request: web.Request, cookie: CookieOptions) -> Session | None:
        is_first = not self._is_opened and self._session is None
        session = await super()._open(request, cookie)
        if self._state is not None and is_first:
            self._state.is_plain = False
        return session


WHOLE: Final[Lane] = {"Visit": _Whole}
FAST: Final[Lane] = {}


def lane_of(shortcuts: ModuleType) -> Lane:
    """Return the fast lane of a module that stands in the place of SHORTCUTS."""
    return {"Visit": shortcuts.Visit}


@contextlib.contextmanager
def driving(lane: Lane) -> Iterator[None]:
    """Let every application that is made inside drive on *lane*."""
    with mock.patch.dict(vars(middleware), lane):
        yield


@contextlib.contextmanager
def timed(clock: Callable[[], float]) -> Iterator[None]:
    """Let every application that is made inside tell the time by *clock*."""
    defaults: Any = Keeper.__init__.__kwdefaults__
    with mock.patch.dict(defaults, clock=clock):
        yield
