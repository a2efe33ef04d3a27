"""For tests: the storage contract, sessions in the test client, a clock, a storage that fails."""

from aiosess.testing.client import session_for
from aiosess.testing.clock import FakeClock
from aiosess.testing.contract import (
    CASES,
    Case,
    Harness,
    Misbehaviour,
    Result,
    report,
    run_contract,
)
from aiosess.testing.faults import FaultyStorage

__all__ = [
    "CASES",
    "Case",
    "FakeClock",
    "FaultyStorage",
    "Harness",
    "Misbehaviour",
    "Result",
    "report",
    "run_contract",
    "session_for",
]
