"""Stands in for aiohttp_session.log: the logger to which the storages of aiosess.compat write."""

from __future__ import annotations

import logging
from typing import Final

__all__ = ["log"]

log: Final = logging.getLogger("aiosess")
