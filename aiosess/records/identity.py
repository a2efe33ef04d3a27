"""What a session id can be."""

from __future__ import annotations

import re
from typing import Final

from aiosess.text import is_text

__all__ = ["complaint_of"]

# In a cookie, a byte may take three; browsers keep 4,096 for name, value and attributes.
_LONGEST_ID: Final = 1000
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def complaint_of(session_id: str) -> str | None:
    """Return why *session_id*, which is not empty, cannot be one; ``None`` where it can."""
    if not is_text(session_id):
        return "with a lone surrogate, which UTF-8 does not have: leave it out"
    size = len(session_id.encode())
    if size > _LONGEST_ID:
        return f"of {size} bytes: {_LONGEST_ID} at the most, so that its cookie is sent and kept"
    if _CONTROLS.search(session_id):
        return (
            "with a control character, which logs and back-ends may take for theirs: leave it out"
        )
    return None
