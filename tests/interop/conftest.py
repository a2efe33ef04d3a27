"""What the tests of whole requests have: a client for an application, over each storage."""

from __future__ import annotations

from tests.web.conftest import connect, connect_bare, faulty

__all__ = ["connect", "connect_bare", "faulty"]
