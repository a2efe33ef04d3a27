"""How many instructions the server's process executes for one request: exact, in two minutes.

    make bench-instructions
    python benchmarks/instructions.py --against HEAD~1
    python benchmarks/instructions.py --only redis-write --functions 30
    python benchmarks/instructions.py --check

valgrind counts them, in user space, for the requests of cases.py: all cases in one process, and
only while the requests are answered. Neighbours do not change it; a slow machine only takes longer.
Another build of CPython has other instructions, so that figures are compared on the same one only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import fnmatch
import gc
import importlib.metadata
import json
import logging
import operator
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from cases import CASES, Case, Connection, back_ends, begun
from goals import table
from revisions import ROOT, unpacked

HERE = Path(__file__).parent
KEPT = HERE / "instructions.json"

# The figure is the median of so many counts, each the difference between few and more requests on
# each connection: what it takes to begin and to end is left out.
COUNTS, FEW, MORE = 2, 2, 8
# By function each call is written down by itself: fewer will do.
FEW_CONNECTIONS = 8

# Thousand instructions: runs of the same code differ by up to 1.5, by where objects lie by more.
TOLERANCE = 2.0
# Of hashes: with each, objects lie elsewhere.
OTHER_SEEDS = (1, 2)

# Thousand instructions a request, by case.
Figures = dict[str, float]


# Inside valgrind.


async def answer(case: Case, counting: ctypes.PyDLL, *, is_by_function: bool) -> None:
    """Let the connections ask, and count."""
    connections = await begun(case)
    # What other cases and the start have left behind is not looked through in this one.
    gc.collect()
    gc.freeze()
    if is_by_function:
        await answer_by_function(case, connections[:FEW_CONNECTIONS], counting)
        return
    for times in (FEW, MORE) * COUNTS:
        gc.collect()
        counting.begin_counting()
        await asyncio.gather(*(connection.get(case.path, times) for connection in connections))
        counting.end_counting(case.name.encode())


async def answer_by_function(
    case: Case, connections: Sequence[Connection], counting: ctypes.PyDLL
) -> None:
    """Let a few connections ask, and count for each function."""
    counting.begin_counting_by_function()
    await asyncio.gather(*(connection.get(case.path, 2) for connection in connections))
    counting.end_counting_by_function()


async def answer_all(cases: Sequence[Case], counter: Path, *, is_by_function: bool) -> None:
    counting = ctypes.PyDLL(str(counter))
    for case in cases:
        await answer(case, counting, is_by_function=is_by_function)


# Outside of it.


class Counting:
    """Runs cases in valgrind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._counter = folder / "counting.so"
        compile_command = ["cc", "-O1", "-shared", "-fPIC", "-o", str(self._counter)]
        subprocess.run([*compile_command, str(HERE / "counting.c")], check=True)

    def figures(self, cases: Sequence[Case], package: Path, *, seed: int = 0) -> Figures:
        """Return the thousand instructions of a request, with the aiosess in *package*.

        Another *seed* of hashes lays objects elsewhere in memory, where other names share a place
        in the interpreter's caches: that is worth up to three thousand instructions.
        """
        found: dict[str, list[int]] = {}
        for name, count in self._run(cases, package, is_by_function=False, seed=seed):
            found.setdefault(name, []).append(count)
        figures = {}
        for case in cases:
            counts = found[case.name]
            differences = map(operator.sub, counts[1::2], counts[::2])
            requests = (MORE - FEW) * case.connections
            figures[case.name] = statistics.median(differences) / requests / 1e3
        return figures

    def by_function(self, case: Case, package: Path) -> Counter[str]:
        """Return the instructions of a request in each Python function and the C that it calls."""
        found: Counter[str] = Counter()
        for name, count in self._run([case], package, is_by_function=True):
            # What begins and ends the counting is not the request's.
            if not name.startswith((__file__, "outside")):
                found[name] += count
        return Counter({name: round(count / 2 / FEW_CONNECTIONS) for name, count in found.items()})

    def _run(
        self, cases: Sequence[Case], package: Path, *, is_by_function: bool, seed: int = 0
    ) -> Iterator[tuple[str, int]]:
        target = self._folder / "counted"
        target.unlink(missing_ok=True)
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--combine-dumps=yes"]
        command += [f"--callgrind-out-file={target}", sys.executable, __file__]
        command += ["--run", json.dumps([asdict(case) for case in cases])]
        command += ["--counter", str(self._counter)]
        command += ["--functions", "1"] if is_by_function else []
        environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": str(package)}
        finished = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )
        if finished.returncode:
            raise SystemExit(f"valgrind: {finished.stderr}{finished.stdout}")
        yield from _parts(target)


def _parts(file: Path) -> Iterator[tuple[str, int]]:
    """Yield what was asked to be written down, and its instructions."""
    name = None
    with file.open() as lines:
        for line in lines:
            if line.startswith("desc: Trigger:"):
                found = re.search(r"Client Request: (.*)", line)
                name = None if found is None else found[1].strip()
            elif line.startswith(("summary:", "totals:")) and name is not None:
                yield name, int(line.split()[1])
                name = None


def interpreter() -> str:
    """Return what the instructions depend on besides the package: other builds have others."""
    packages = ("aiohttp", "msgspec", "hiredis", "redis")
    versions = (f"{name} {importlib.metadata.version(name)}" for name in packages)
    return ", ".join(
        [
            f"{platform.python_implementation()} {platform.python_version()}",
            f"{platform.python_compiler()} on {platform.machine()}",
            *versions,
        ]
    )


def beyond_empty(figures: Figures) -> Figures:
    """Return what is beyond an application with an empty middleware."""
    return {name: count - figures["empty-middleware"] for name, count in figures.items()}


def print_cases(figures: Figures, other: Figures | None, revision: str | None) -> None:
    """Print one row for each case."""
    against = f" {revision}: beyond an empty middleware |" if other is not None else ""
    print(f"| thousand instructions a request | now | beyond an empty middleware |{against}")
    print("| --- | --- | --- |" + (" --- |" if other is not None else ""))
    beyond = beyond_empty(figures)
    for name, count in figures.items():
        row = f"| {name} | {count:.1f} | {beyond[name]:+.1f} |"
        if other is not None:
            row += f" {beyond_empty(other)[name]:+.1f} |" if name in other else " |"
        print(row)


def compare(figures: Figures) -> bool:
    """Print where a case of ours has grown or fallen beyond the kept figures; False if it grew."""
    kept = json.loads(KEPT.read_text())
    if kept["interpreter"] != interpreter():
        print(f"Not compared: the figures in {KEPT.name} were counted with {kept['interpreter']}")
        print(f"and this is {interpreter()}: count with --against a revision instead.")
        return True
    before, now = beyond_empty(kept["thousand instructions a request"]), beyond_empty(figures)
    ours = [each.name for each in CASES if each.sessions == "aiosess" and each.name in now]
    grown = {name: now[name] - before[name] for name in ours if name in before}
    for name, more in grown.items():
        if more > TOLERANCE:
            print(f"GROWN: {name} by {more:.1f} thousand instructions, to {now[name]:+.1f}")
        elif more < -TOLERANCE:
            print(f"fallen: {name} by {-more:.1f}, to {now[name]:+.1f}: make bench-instructions")
            print('  ARGS=--write keeps the new figures, so that they are what "grown" means')
    for name in ours:
        if name not in before:
            print(f"new: {name} is not in {KEPT.name}: make bench-instructions ARGS=--write")
    is_good = all(more <= TOLERANCE for more in grown.values())
    print(f"Instructions a request: {len(grown)} cases, {'as kept' if is_good else 'more'}.")
    return is_good


def write(figures: Figures) -> None:
    """Keep *figures* for those who compare with them."""
    rounded = {name: round(count, 1) for name, count in figures.items()}
    kept = {"interpreter": interpreter(), "thousand instructions a request": rounded}
    KEPT.write_text(json.dumps(kept, indent=2) + "\n")


def print_functions(counting: Counting, case: Case, most: int, of: str) -> None:
    """Print the functions of a case that take the most."""
    counted: Counter[str] = Counter()
    for name, count in counting.by_function(case, ROOT).items():
        path, _, function = name.rpartition(":")
        counted[f"{'/'.join(Path(path).parts[-2:])}:{function}"] += count
    print(f"{case.name}: instructions a request, with the C that each function calls")
    print(f"(with this look at each call they are {sum(counted.values()):,} in all)")
    for name, count in [each for each in counted.most_common() if of in each[0]][:most]:
        print(f"  {count:8,}  {name}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", metavar="NAMES", help="these cases, * allowed, with commas")
    parser.add_argument("--against", metavar="REVISION", help="another revision beside it")
    parser.add_argument("--functions", metavar="N", type=int, help="show the first N of each case")
    parser.add_argument("--of", metavar="TEXT", default="", help="only functions whose name has it")
    parser.add_argument("--write", action="store_true", help=f"keep the figures in {KEPT.name}")
    parser.add_argument(
        "--check", action="store_true", help=f"fail where there are more than in {KEPT.name}"
    )
    parser.add_argument("--run", metavar="CASES", help=argparse.SUPPRESS)
    parser.add_argument("--counter", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def chosen(arguments: argparse.Namespace, placed: Callable[[Case], Case]) -> list[Case]:
    """Return the cases that are asked for, and the empty middleware beside them."""

    def is_wanted(case: Case) -> bool:
        # What is checked is ours.
        return case.sessions == "aiosess" or not arguments.check

    patterns = (arguments.only or "*").split(",")
    always = () if arguments.functions else ("empty-middleware",)
    return [
        placed(case)
        for case in CASES
        if case.name in always
        or (any(fnmatch.fnmatch(case.name, each) for each in patterns) and is_wanted(case))
    ]


def main() -> None:
    arguments = parse()
    logging.disable(logging.CRITICAL)
    if arguments.run:
        cases = [Case(**fields) for fields in json.loads(arguments.run)]
        is_by_function = arguments.functions is not None
        asyncio.run(answer_all(cases, arguments.counter, is_by_function=is_by_function))
        return
    if arguments.write and arguments.only:
        raise SystemExit("--write keeps all figures: leave --only out")

    with contextlib.ExitStack() as stack:
        placed = stack.enter_context(back_ends())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aiosess-bench-")))
        counting = Counting(folder)
        cases = chosen(arguments, placed)
        if arguments.functions:
            for case in cases:
                print_functions(counting, case, arguments.functions, arguments.of)
            return
        figures = counting.figures(cases, ROOT)
        if arguments.check:
            for seed in OTHER_SEEDS:
                if compare(figures):
                    return
                print("Counted once more, with objects elsewhere in memory: the least counts.")
                again = counting.figures(cases, ROOT, seed=seed)
                figures = {name: min(count, again[name]) for name, count in figures.items()}
            sys.exit(not compare(figures))
        other = None
        if arguments.against:
            known = [each for each in cases if each.sessions in ("aiosess", "empty-middleware")]
            other = counting.figures(known, unpacked(arguments.against, folder))
        print_cases(figures, other, arguments.against)
        print()
        print(table(beyond_empty(figures)))
        if arguments.write:
            write(figures)
            print(f"\nwritten: {KEPT}")


if __name__ == "__main__":
    if shutil.which("valgrind") is None or shutil.which("cc") is None:
        raise SystemExit("This takes valgrind and cc: make valgrind cc")
    main()
