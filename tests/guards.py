"""A storage as an application has it."""

from __future__ import annotations

from aiosess import Storage
from aiosess.guard.retries import RetryPolicy, guard_of, guarded_by


def guarded(storage: Storage, policy: RetryPolicy) -> Storage:
    """Return *storage* behind what it needs of the time limit and the retries of *policy*."""
    return guarded_by(guard_of(storage, policy), storage)
