"""Live sessions shared with Express: express-session and connect-redis, on one Redis."""

from __future__ import annotations

from typing import ClassVar

from tests.interop.node.cases import SharedSessions


class TestExpress(SharedSessions):
    script: ClassVar[str] = "express.js"
