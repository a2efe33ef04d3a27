"""Live sessions shared with NestJS: nestjs-session and connect-redis, on one Redis."""

from __future__ import annotations

from typing import ClassVar

from tests.interop.node.cases import ExpressSessions


class TestNestJS(ExpressSessions):
    script: ClassVar[str] = "nest.js"
