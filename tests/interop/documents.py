"""The code of a page of the documentation, to be run as an application."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

__all__ = ["code_of"]

_DOCS: Final = Path(__file__).parents[2] / "docs"


def code_of(page: str) -> dict[str, Any]:
    """Return the names that the Python blocks of *page* define, run one after the other."""
    blocks = re.findall(
        r"^```python\n(.*?)^```$", (_DOCS / page).read_text(), re.MULTILINE | re.DOTALL
    )
    namespace: dict[str, Any] = {"__name__": page}
    exec("\n".join(blocks), namespace)  # noqa: S102 - it is our own
    return namespace
