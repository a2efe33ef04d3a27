"""The pytest plugin of aiosess: a clock, the session of a test client, a client that is logged in.

pytest loads a plugin in each suite, also in one that has no sessions. So the plugin stands outside
of the package, and imports it only for a test that asks for a fixture: aiohttp is not loaded for
nothing, and a suite that measures its coverage of aiosess sees each line of it run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from aiosess.testing import FakeClock, LogIn, SessionOf

__all__ = ["aiosess_clock", "logged_in", "session_of"]


@pytest.fixture
def aiosess_clock() -> FakeClock:
    """Return a clock that stands still until it is moved.

    ``SessionOptions(clock=aiosess_clock)``, and ``MemoryStorage(clock=aiosess_clock)``.
    """
    from aiosess.testing import FakeClock

    return FakeClock()


@pytest.fixture
def session_of() -> SessionOf:
    """Return what gives the session of a client's browser.

    ``async with session_of(client) as session: session["cart"] = []``.
    """
    from aiosess.testing import session_for

    return session_for


@pytest.fixture
def logged_in() -> LogIn:
    """Return what logs a client's browser in.

    ``await logged_in(client, user="ann")``.
    """
    from aiosess.testing import logged_in

    return logged_in
