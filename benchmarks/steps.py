"""How many steps the interpreter takes for one request, and in which functions: exact, in minutes.

    make bench-steps
    python benchmarks/steps.py --only 'redis-*' --functions 40
    python benchmarks/steps.py --only memory-write --functions 20 --of aiosess

A step is one instruction of CPython's bytecode. What C code does within a step is not seen: that
is what instructions.py counts. But each step costs about the same in a server whose requests find
the processor's caches full of other things, and here it has a name. On memcached, which sends its
answers in a varying number of pieces, a request differs by two steps or three from run to run.
"""

from __future__ import annotations

import argparse
import asyncio
import fnmatch
import itertools
import json
import logging
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from revisions import ROOT

# The package that is counted is the one beside this file, whichever is installed.
sys.path.insert(0, str(ROOT))
from cases import CASES, CONNECTIONS, Case, back_ends, begun

TIMES = 2


class Steps:
    """Counts steps and calls, by function."""

    def __init__(self) -> None:
        self.steps: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def __call__(self, frame: FrameType, event: str, _argument: object) -> Any:
        """Be what sys.settrace() calls."""
        name = _name(frame)
        if event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            self.calls[name] += 1
        elif event == "opcode":
            self.steps[name] += 1
        return self


def _name(frame: FrameType) -> str:
    path = Path(frame.f_code.co_filename)
    if path.is_relative_to(ROOT / "aiosess"):
        where = path.relative_to(ROOT).as_posix()
    else:
        where = "/".join(path.parts[-2:])
    return f"{where}:{frame.f_code.co_qualname}"


async def counted(case: Case) -> Steps:
    """Let each of the connections ask a few times, while the clock of the loop stands still."""
    connections = await begun(case)
    steps = Steps()
    # Counting is slow, and a timer that fell due meanwhile would be counted as well.
    loop: Any = asyncio.get_running_loop()
    loop.time = itertools.repeat(loop.time()).__next__
    sys.settrace(steps)
    await asyncio.gather(*(connection.get(case.path, TIMES) for connection in connections))
    sys.settrace(None)
    return steps


def ask(case: Case) -> dict[str, list[float]]:
    """Return steps and calls for one request, by function; each case has a process of its own."""
    command = [sys.executable, __file__, "--run", case.name, "--storage", case.storage]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, list[float]] = json.loads(finished.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", metavar="NAMES", help="these cases, * allowed, with commas")
    parser.add_argument("--functions", metavar="N", type=int, default=0, help="show the first N")
    parser.add_argument("--of", metavar="TEXT", default="", help="only functions whose name has it")
    parser.add_argument("--run", metavar="NAME", help="count this case, and print all as JSON")
    parser.add_argument("--storage", metavar="URL", help="where --run finds its storage")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if arguments.run:
        (case,) = (each for each in CASES if each.name == arguments.run)
        steps = asyncio.run(counted(replace(case, storage=arguments.storage or case.storage)))
        times = TIMES * CONNECTIONS
        print(
            json.dumps(
                {
                    name: [count / times, steps.calls[name] / times]
                    for name, count in steps.steps.items()
                }
            )
        )
        return

    patterns = (arguments.only or "*").split(",")
    with back_ends() as placed:
        print("| steps a request | all | beyond bare | of bare | aiosess | its calls |")
        print("| --- | --- | --- | --- | --- | --- |")
        bare = 0.0
        for case in CASES:
            if case.name != "bare" and not any(fnmatch.fnmatch(case.name, p) for p in patterns):
                continue
            found = ask(placed(case))
            total = sum(steps for steps, _ in found.values())
            bare = bare or total
            ours = [each for name, each in found.items() if name.startswith("aiosess/")]
            print(
                f"| {case.name} | {total:.0f} | {total - bare:+.0f} | {bare / total:.2f} "
                f"| {sum(steps for steps, _ in ours):.0f} "
                f"| {sum(calls for _, calls in ours):.0f} |",
                flush=True,
            )
            chosen = [name for name in found if arguments.of in name]
            chosen.sort(key=lambda name: -found[name][0])
            for name in chosen[: arguments.functions]:
                print(f"    {found[name][0]:7.1f} in {found[name][1]:4.1f} calls  {name}")


if __name__ == "__main__":
    main()
