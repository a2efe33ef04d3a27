"""Whether a text can leave this process: half of a character, a lone surrogate, cannot."""

from __future__ import annotations

from typing import TypeGuard

__all__ = ["is_text"]


def is_text(value: object) -> TypeGuard[str]:
    """Ask whether *value* is a str that UTF-8 has bytes for."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
