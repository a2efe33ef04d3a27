"""For tests: sessions in a test client or request, a clock, a storage that fails, the contract."""

from aiosess.testing.client import LogIn, SessionOf, logged_in, session_for
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
from aiosess.testing.requests import put_session

__all__ = [
    "CASES",
    "Case",
    "FakeClock",
    "FaultyStorage",
    "Harness",
    "LogIn",
    "Misbehaviour",
    "Result",
    "SessionOf",
    "logged_in",
    "put_session",
    "report",
    "run_contract",
    "session_for",
]
