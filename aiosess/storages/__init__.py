"""Anything that can keep a session: the contract here, a back-end a file."""

from aiosess.storages.base import (
    Closeable,
    FreshStorage,
    NodeStorage,
    NotifyingStorage,
    PunctualStorage,
    Storage,
    Stored,
    TouchingStorage,
    Version,
)
from aiosess.storages.memory import MemoryStorage

__all__ = [
    "Closeable",
    "FreshStorage",
    "MemoryStorage",
    "NodeStorage",
    "NotifyingStorage",
    "PunctualStorage",
    "Storage",
    "Stored",
    "TouchingStorage",
    "Version",
]
