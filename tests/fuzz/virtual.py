"""An event loop whose time passes only while nothing is to be done: an hour takes no time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any, Final
from unittest import mock

from aiosess.clients import memcached, pipeline, redis

__all__ = ["run"]

# So often one input may look for what has arrived: one that looks more often goes round in circles.
_MOST_LOOKS: Final = 20_000
# Virtual seconds after which an input hangs.
_LONGEST: Final = 1000.0


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.now = 0.0
        self.looks = 0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now


class _Selector(selectors.DefaultSelector):
    """Never waits: what goes by way of a socket in the file system has arrived when it is sent."""

    def __init__(self, loop: _Loop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._loop.looks += 1
        if self._loop.looks > _MOST_LOOKS:
            self._loop.looks = 0
            raise AssertionError("work without end")
        ready = super().select(0)
        if not ready and timeout is None:
            raise AssertionError("nothing will ever happen")
        if not ready and timeout is not None:
            self._loop.now += timeout
        return ready


def run(act: Callable[[], Awaitable[None]]) -> None:
    """Run *act* in virtual time; an AssertionError where it hangs."""

    async def in_time() -> None:
        async with asyncio.timeout(_LONGEST):
            await act()

    with asyncio.Runner(loop_factory=_Loop) as runner:
        loop: Any = runner.get_loop()
        unhandled: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: unhandled.append(context))
        with (
            mock.patch.object(pipeline, "clock", loop.time),
            mock.patch.object(memcached, "clock", loop.time),
            mock.patch.object(redis, "clock", loop.time),
        ):
            runner.run(in_time())
    assert unhandled == []
