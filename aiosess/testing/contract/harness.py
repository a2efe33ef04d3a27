"""How the cases of the contract get a storage, and let time pass for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

from aiosess.errors import OptionsError
from aiosess.storages import Closeable, Storage
from aiosess.testing.clock import FakeClock

__all__ = ["Harness", "MakeStorage", "Timeline", "TooSlow"]

MakeStorage: TypeAlias = Callable[[], Storage | AbstractAsyncContextManager[Storage]]
"""Return a storage, or an asynchronous context manager that gives one and closes it."""

# Below that, the way to a server on this machine takes a share of the time that is measured.
_REAL_UNIT = 0.1
_FAKE_UNIT = 10.0


@dataclass(frozen=True, slots=True)
class Harness:
    """A storage on the test bench.

    - ``make``: called for each case, in its event loop. Records of other cases may be there: each
      case uses ids of its own.
    - ``clock``: the clock that the storage goes by, if it can be moved. Without one, the cases
      really wait, a few seconds all in all.
    - ``unit``: the seconds of which the cases' ttls are multiples; at least as long as a record
      may outlive its ttl. 2 for a back-end that counts in whole seconds.
    - ``patience``: how many real seconds one case may take.
    """

    make: MakeStorage
    clock: FakeClock | None = None
    unit: float | None = None
    patience: float = 60.0

    def __post_init__(self) -> None:
        if not callable(self.make):
            raise OptionsError(
                f"make={self.make!r} is not callable: give a function that returns a storage"
            )

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Storage]:
        """Give a storage, and close it at the end."""
        made = self.make()
        if isinstance(made, AbstractAsyncContextManager):
            async with made as storage:
                yield storage
            return
        try:
            yield made
        finally:
            if isinstance(made, Closeable):
                await made.close()

    def timeline(self, *, slowness: int = 1) -> Timeline:
        """Return the time as it passes for the storage; *slowness* multiplies the unit."""
        usual = _REAL_UNIT if self.clock is None else _FAKE_UNIT
        return Timeline(self.clock, (self.unit or usual) * slowness)


class Timeline:
    """Time as it passes for the storage: moved where there is a clock to move, else waited for."""

    def __init__(self, clock: FakeClock | None, unit: float) -> None:
        self.unit = unit
        self._clock = clock

    def now(self) -> float:
        """Return the seconds since some instant."""
        return time.monotonic() if self._clock is None else self._clock()

    async def wait(self, seconds: float) -> None:
        """Let *seconds* pass."""
        if self._clock is None:
            await asyncio.sleep(seconds)
        else:
            self._clock.advance(seconds)

    def still_before(self, instant: float) -> None:
        """Raise TooSlow when it is *instant* already, so that what was seen proves nothing."""
        if self.now() >= instant:
            raise TooSlow


class TooSlow(Exception):
    """The machine was so busy that the case could not look in time: it is tried again."""
