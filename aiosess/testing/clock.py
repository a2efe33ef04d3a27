"""A clock that stands still until it is moved."""

from __future__ import annotations

__all__ = ["FakeClock"]


class FakeClock:
    """Call it for the time, in seconds; ``advance`` moves it.

    Fits wherever aiosess takes a ``clock``: ``SessionOptions(clock=clock)`` for all that sessions
    measure, ``MemoryStorage(clock=clock)`` for the end of records.
    """

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now: float = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass."""
        self.now += seconds
