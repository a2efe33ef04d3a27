"""What ``import aiosess`` takes beside ``import aiohttp.web``, and what it brings along.

    make bench-import
    python benchmarks/imports.py --rounds 50

Each import runs in a fresh interpreter, in turn with the others; the figures are medians of the
processor time, which others on the machine disturb less than the time on a clock.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTHING, BEFORE, OURS = "pass", "import aiohttp.web", "import aiohttp.web, aiosess"


def milliseconds(code: str, environment: dict[str, str]) -> float:
    """Return the processor time of an interpreter that runs *code*."""
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{code!r} failed")
    return (usage.ru_utime + usage.ru_stime) * 1e3


def by_module(environment: dict[str, str], rounds: int) -> dict[str, float]:
    """Return the milliseconds of each module that only aiosess brings, without what it imports."""
    times: defaultdict[str, list[int]] = defaultdict(list)
    for _ in range(rounds):
        command = [sys.executable, "-X", "importtime", "-c", OURS]
        finished = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True
        )
        is_ours = False
        for line in finished.stderr.splitlines():
            alone, _, name = line.removeprefix("import time:").split("|")
            if is_ours:
                times[name.strip()].append(int(alone))
            is_ours = is_ours or name == " aiohttp.web"
    return {name: statistics.median(each) / 1e3 for name, each in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--modules", type=int, default=12, help="how many to list, default 12")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="aiosess-bench-") as folder:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        # The first run compiles.
        milliseconds(OURS, environment)
        times: defaultdict[str, list[float]] = defaultdict(list)
        for _ in range(arguments.rounds):
            for code in (NOTHING, BEFORE, OURS):
                times[code].append(milliseconds(code, environment))
        modules = by_module(environment, max(1, arguments.rounds // 3))
    nothing, before, ours = (statistics.median(times[code]) for code in (NOTHING, BEFORE, OURS))
    print(f"an interpreter alone      {nothing:6.1f} ms")
    print(f"import aiohttp.web        {before - nothing:6.1f} ms more")
    print(f"import aiosess after it   {ours - before:6.1f} ms more")
    print(f"together, beside aiohttp  {(ours - nothing) / (before - nothing):6.2f} times")
    print("\nwithout what they import (-X importtime, which takes time itself):")
    for name, each in sorted(modules.items(), key=lambda item: -item[1])[: arguments.modules]:
        print(f"  {each:5.2f} ms  {name}")
    print(f"  {sum(modules.values()):5.2f} ms  all {len(modules)}")


if __name__ == "__main__":
    main()
