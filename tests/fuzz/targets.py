"""All that is fuzzed."""

from __future__ import annotations

from typing import Final

from tests.fuzz import memcached_replies, options, records, redis_replies, requests
from tests.fuzz.target import Target

__all__ = ["TARGETS"]

TARGETS: Final[list[Target]] = [
    *options.TARGETS,
    *records.TARGETS,
    *requests.TARGETS,
    *redis_replies.TARGETS,
    *memcached_replies.TARGETS,
]
