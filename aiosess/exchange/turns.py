"""One task of a request at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

__all__ = ["Turns", "this_task"]

P = ParamSpec("P")
T = TypeVar("T")


class Turns:
    """Lets the tasks of a request have their say one at a time, in the order in which they came.

    Most requests have one task only: what nobody waits for is a flag on the class, and costs no
    object. A task must not ask for its turn while it has it.
    """

    is_busy: bool = False
    """Whether somebody has the turn."""

    waiters: deque[asyncio.Future[None]] | None = None
    """Those who wait for it, first come first; ``None`` where nobody ever did."""

    async def alone(
        self, act: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return what *act* returns, while no other task has its turn."""
        if self.is_busy:
            await self.wait()
        self.is_busy = True
        try:
            return await act(*args, **kwargs)
        finally:
            self.pass_on()

    async def wait(self) -> None:
        """Wait for the turn; afterwards it is taken by whoever waited."""
        if self.waiters is None:
            self.waiters = deque()
        waiter = asyncio.get_running_loop().create_future()
        self.waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                # The turn came just then, and is not taken.
                self.pass_on()
            raise

    def pass_on(self) -> None:
        """Hand the turn to the first who waits for it."""
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self.is_busy = False


def this_task() -> asyncio.Task[Any] | None:
    """Return the task that runs now; ``None`` outside of one, as in a test of a handler alone."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
