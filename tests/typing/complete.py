"""Names each public symbol without a type: ``pyright --verifytypes aiosess --outputjson`` comes in.

Public is what can be imported from the modules that README and docs name. What is behind them is
checked by mypy and pyright, both strict, and may leave to them what they can infer.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

_BEHIND: Final = tuple(
    f"aiosess.{room}." for room in ("clients", "exchange", "interop", "records", "transports")
)


def main() -> int:
    """Print what is missing; return how many have no type, or 1 where none was looked at."""
    symbols: list[dict[str, Any]] = json.load(sys.stdin)["typeCompleteness"]["symbols"]
    public = [
        each for each in symbols if each["isExported"] and not each["name"].startswith(_BEHIND)
    ]
    untyped = [each for each in public if not each["isTypeKnown"] or each["isTypeAmbiguous"]]
    for each in untyped:
        print(each["name"], *(said["message"] for said in each["diagnostics"]), sep="\n  ")  # noqa: T201
    print(f"{len(public)} public symbols, {len(untyped)} without a type")  # noqa: T201
    return len(untyped) if public else 1


if __name__ == "__main__":
    sys.exit(min(main(), 1))
