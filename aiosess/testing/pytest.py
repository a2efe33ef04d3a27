"""The storage contract for pytest: one line, one test for each case."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from aiosess.testing.contract import CASES, Case, Harness

__all__ = ["storage_contract"]


def storage_contract(harness: Harness | str) -> Callable[..., None]:
    """Return a test function with one test for each case; *harness* may be a fixture's name.

    ``test_my_storage = storage_contract(Harness(MyStorage))``. No plugin is needed: each test
    has an event loop of its own, in which ``Harness.make`` is called.
    """

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_contract(case: Case, request: pytest.FixtureRequest) -> None:
        given: object = request.getfixturevalue(harness) if isinstance(harness, str) else harness
        if not isinstance(given, Harness):
            raise TypeError(f"{harness!r} gave {given!r}: it must give an aiosess.testing.Harness")
        asyncio.run(case.run(given))

    return test_contract
