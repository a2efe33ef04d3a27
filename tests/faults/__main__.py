"""Does each fault at full size, and writes what came of it: ``python -m tests.faults``."""

from __future__ import annotations

import argparse
import asyncio
import platform
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.faults.app import BUDGET, RETRIES, TIMEOUT
from tests.faults.harness import ACTS, Found, Size
from tests.faults.rows import ROWS

PAGE: Final = Path(__file__).parents[2] / "docs" / "explanation" / "faults.md"

HEAD: Final = Path(__file__).with_name("page_head.md")


def line_of(found: Found) -> str:
    """Return *found* as a line of the table."""
    statuses = ", ".join(f"{found.statuses[each]} x {each}" for each in sorted(found.statuses))
    lost = f"{found.lost_writes}, {found.lost_sessions}"
    name = f"{found.name} ({found.note})" if found.note else found.name
    return (
        f"| {name} | {statuses} | {found.slowest:.2f} ({found.late_by:.2f}) "
        f"| {found.median * 1e3:.2f} ({found.strangers_median * 1e3:.2f}) "
        f"| {found.piled_up} | {found.calls_a_request:.2f} | {lost} | {found.strangers_refused} "
        f"| {found.lines} | {found.well_after:.2f} |"
    )


def head() -> str:
    """Return what stands above the table."""
    machine = f"{platform.system()} on {platform.machine()}, Python {platform.python_version()}"
    size = Size()
    return HEAD.read_text().format(
        browsers=size.browsers,
        strangers=size.strangers,
        retries=RETRIES,
        timeout=TIMEOUT,
        budget=BUDGET,
        acts=ACTS * BUDGET,
        machine=machine,
        when=time.strftime("%Y-%m-%d"),
    )


async def run(names: list[str]) -> list[str]:
    """Do the faults called *names*, and print each line as it is found."""
    lines: list[str] = []
    for number, name in enumerate(names, 1):
        folder = Path(tempfile.mkdtemp(prefix="faults-"))
        try:
            found = await ROWS[name](folder, Size())
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        lines.append(line_of(found))
        print(f"{number} of {len(names)}: {lines[-1]}", flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(ROWS)}; all, if none is given")
    names: list[str] = parser.parse_args().names
    if unknown := set(names).difference(ROWS):
        parser.error(f"no fault is called {', '.join(sorted(unknown))}; see --help")
    lines = asyncio.run(run(names or list(ROWS)))
    if not names:
        PAGE.write_text(head() + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
