"""Makes the tables of docs/reference/events.md: ``python -m tests.docs.reasons``."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from aiosess import Reason

__all__ = ["PAGE", "page"]

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "events.md"

_BEGIN: Final = "<!-- reasons: made by `python -m tests.docs.reasons` -->\n"
_END: Final = "<!-- end of reasons -->\n"
_HEAD: Final = "| reason | level | words |\n| --- | --- | --- |\n"


def page() -> str:
    """Return the page as the enum would have it."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    decisions = [each for each in Reason if each.level == logging.DEBUG and each.kind != "watch"]
    parts = [before, _BEGIN]
    for kind, title in (
        ("session", "Reasons that concern the session"),
        ("cookie", "Reasons that concern the cookie"),
        ("storage", "Reasons that concern the storage"),
        ("watch", "Reasons that end what is open"),
    ):
        told = (each for each in Reason if each.kind == kind and each not in decisions)
        parts.append(f"\n## {title}\n\n{_table(told)}")
    parts.append(f"\n## What was decided in a single request\n\n{_table(decisions)}")
    return "".join([*parts, "\n", _END, after])


def _table(reasons: Iterable[Reason]) -> str:
    return _HEAD + "".join(
        f"| `{each.name}` | {logging.getLevelName(each.level)} | {_escaped(each.words)} |\n"
        for each in reasons
    )


def _escaped(words: str) -> str:
    # What is filled in, such as {key!r}, is shown by its name.
    named = words.replace("|", r"\|")
    named = named.replace("{words}", "{what is away}").replace("{way_out}", "{what to do}")
    return re.sub(r"\{([\w ]+)[^}]*\}", r"*\1*", named)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
