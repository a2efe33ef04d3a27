"""The lanes that are compared, and how an application is made to drive on one of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias
from unittest import mock

from aiohttp import web

from aiosess import Session
from aiosess.attributes import CookieOptions
from aiosess.exchange.exchange import Visit
from aiosess.records.repository import Keeper

__all__ = ["FAST", "WHOLE", "Lane", "driving", "timed"]

Lane: TypeAlias = type[Visit]


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


WHOLE: Lane = _Whole
FAST: Lane = Visit


@contextlib.contextmanager
def driving(lane: Lane) -> Iterator[None]:
    """Let every application that is made inside drive on *lane*."""
    with mock.patch("aiosess.middleware.Visit", lane):
        yield


@contextlib.contextmanager
def timed(clock: Callable[[], float]) -> Iterator[None]:
    """Let every application that is made inside tell the time by *clock*."""
    defaults: Any = Keeper.__init__.__kwdefaults__
    with mock.patch.dict(defaults, clock=clock):
        yield
