"""For tests: a clock that can be moved, a storage that fails on request."""

from aiosess.testing.clock import FakeClock
from aiosess.testing.faults import FaultyStorage

__all__ = ["FakeClock", "FaultyStorage"]
