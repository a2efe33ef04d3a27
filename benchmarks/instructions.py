"""How many instructions the server's process executes for one request: exact on any machine.

    make bench-instructions
    python benchmarks/instructions.py --against HEAD~1
    python benchmarks/instructions.py --only 'memory-*,redis-read'

valgrind counts them, in user space; cases.py says for which requests. Each case runs with few and
with more requests, and the difference is what the requests took. Neighbours do not change it; a
slow machine only takes longer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fnmatch
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cases import CASES, CONNECTIONS, Case, back_ends, begun
from revisions import ROOT, unpacked

FEW, MORE = 10, 40


async def answer(case: Case, times: int) -> None:
    """Let each connection ask *times* times."""
    connections = await begun(case)
    await asyncio.gather(*(connection.get(case.path, times) for connection in connections))


def count(case: Case, times: int, package: Path) -> int:
    """Return the instructions of a whole process, with the aiosess in *package*."""
    command = ["valgrind", "--tool=cachegrind", "--cache-sim=no"]
    command += ["--cachegrind-out-file=/dev/null", sys.executable, __file__]
    command += ["--run", json.dumps([case.name, case.sessions, case.storage, case.path, times])]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(package)}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = re.search(r"I\s+refs:\s+([\d,]+)", finished.stderr)
    if finished.returncode or found is None:
        raise SystemExit(f"{case.name}: {finished.stderr}")
    return int(found[1].replace(",", ""))


def per_request(case: Case, package: Path) -> float:
    """Return the instructions of one request, with the aiosess in *package*."""
    with ThreadPoolExecutor(2) as both:
        few, more = both.map(lambda times: count(case, times, package), (FEW, MORE))
    return (more - few) / (MORE - FEW) / CONNECTIONS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", metavar="NAMES", help="these cases, * allowed, with commas")
    parser.add_argument("--against", metavar="REVISION", help="another revision beside it")
    parser.add_argument("--run", metavar="CASE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if arguments.run:
        *fields, times = json.loads(arguments.run)
        asyncio.run(answer(Case(*fields), times))
        return

    patterns = (arguments.only or "*").split(",")
    chosen = [
        case
        for case in CASES
        if case.name == "bare" or any(fnmatch.fnmatch(case.name, each) for each in patterns)
    ]
    with contextlib.ExitStack() as stack:
        placed = stack.enter_context(back_ends())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aiosess-bench-")))
        other = unpacked(arguments.against, folder) if arguments.against else None
        against = f" {arguments.against} |" if other is not None else ""
        print(f"| thousand instructions a request | now | beyond bare | of bare |{against}")
        print("| --- | --- | --- | --- |" + (" --- |" if other is not None else ""))
        bare = 0.0
        for case in chosen:
            now = per_request(placed(case), ROOT)
            bare = bare or now
            row = (
                f"| {case.name} | {now / 1e3:.0f} | {(now - bare) / 1e3:+.0f} | {bare / now:.2f} |"
            )
            if other is not None and case.sessions == "aiosess":
                row += f" {per_request(placed(case), other) / 1e3:.0f} |"
            elif other is not None:
                row += " |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
