"""MemoryStorage at a million sessions: memory, time for each call, and the pauses of the loop.

A study of 2026-11-24; MEMORY.md beside it holds what came out.

    make bench-memory
    python benchmarks/studies/million.py --sessions 100000
    python benchmarks/studies/million.py --against HEAD~1

Each part runs in a process of its own, so that none finds the memory of another. Times are those on
the processor: what others do on it meanwhile does not count. With --against, another revision (or a
folder that holds an aiosess) is measured the same way, and stands beside.
"""

# The package is imported where it is measured: it may be that of another revision.
# ruff: noqa: PLC0415

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import logging
import os
import platform
import random
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from processes import cores, pinned
from revisions import ROOT, unpacked

DAY = 86_400.0
FEW = 1_000
WORKERS = 8

Figures = dict[str, float]


def new_id() -> str:
    """Return an id as the middleware makes them."""
    return secrets.token_urlsafe(24)


def payload(number: int) -> bytes:
    """Return the record of a small session that is logged in, as the middleware writes it."""
    return (
        b'{"cookie":{"originalMaxAge":86400000,"expires":"2027-01-16T08:00:00.000Z","httpOnly":true,'
        b'"path":"/","sameSite":"lax"},"user":%d,"name":"alice","csrf":"%016x",'
        b'"__aiosess":{"created":1800000000.0,"rev":"%016x"}}' % (number, number, number)
    )


async def fill(storage: Any, count: int) -> list[str]:
    """Create *count* sessions, and return their ids."""
    ids = [new_id() for _ in range(count)]
    for number, session_id in enumerate(ids):
        await storage.create(session_id, payload(number), DAY)
    return ids


def make_storage(**options: Any) -> Any:
    from aiosess.storages.memory import MemoryStorage

    return MemoryStorage(**options)


def make_clock() -> Any:
    from aiosess.testing import FakeClock

    return FakeClock()


# Memory, and what the garbage collector has to do with it.


def resident() -> int:
    """Return the bytes of this process that are in memory (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def collection_ms() -> float:
    """Return how long a collection of all generations takes."""
    gc.collect()
    begun = time.thread_time()
    gc.collect()
    return (time.thread_time() - begun) * 1e3


def memory(count: int) -> Figures:
    """Fill a storage with what nobody else holds, and let all of it expire."""
    clock = make_clock()

    async def run() -> Figures:
        storage = make_storage(max_records=2 * count, clock=clock)
        await storage.create("first", payload(0), 1)
        before, collect_before, tracked = resident(), collection_ms(), len(gc.get_objects())
        for number in range(count):
            await storage.create(new_id(), payload(number), DAY)
        each = (resident() - before) / count
        content = rounded(sys.getsizeof(new_id())) + rounded(sys.getsizeof(payload(count)))
        figures = {
            "bytes a session in all": each,
            "of these for its id and payload": content,
            "of these for keeping it": each - content,
            "full collection before, ms": collect_before,
            "full collection with them, ms": collection_ms(),
            "objects a session that the collector tracks": (len(gc.get_objects()) - tracked)
            / count,
        }
        clock.advance(DAY + 1_000)
        while len(storage):
            await storage.load("another")
        figures["MB left when all have expired"] = (resident() - before) / 1e6
        gc.collect()
        figures["MB left after a full collection"] = (resident() - before) / 1e6
        return figures

    return asyncio.run(run())


def rounded(size: int) -> int:
    """Return the bytes that CPython's allocator gives for *size*."""
    return (size + 15) // 16 * 16


# Time for each call, beside that with few sessions.


def calls(count: int, *, batches: int = 60, batch: int = 200) -> dict[str, dict[str, float]]:
    """Return the µs of each verb with FEW and with *count* sessions, measured in turn."""
    clocks = {size: make_clock() for size in (FEW, count)}
    content = payload(1)

    async def run() -> dict[str, dict[str, float]]:
        storages = {
            size: make_storage(max_records=2 * count, clock=clocks[size]) for size in clocks
        }
        ids = {size: await fill(storages[size], size) for size in clocks}
        times: dict[str, dict[int, list[float]]] = {}
        for _ in range(batches):
            for size, storage in storages.items():
                # Else each touch would find the end where it is already.
                clocks[size].advance(7)
                taken = await one_batch(storage, ids[size], content, batch)
                for verb, each in taken.items():
                    times.setdefault(verb, {}).setdefault(size, []).append(each)
        return {
            verb: {
                "few": statistics.median(found[FEW]),
                "many": statistics.median(found[count]),
                "ratio": statistics.median(
                    many / few for few, many in zip(found[FEW], found[count], strict=True)
                ),
            }
            for verb, found in times.items()
        }

    return asyncio.run(run())


async def one_batch(storage: Any, ids: list[str], content: bytes, batch: int) -> dict[str, float]:
    """Call each verb *batch* times on sessions taken by chance, and return the µs of one call."""
    # A request brings a copy of the id, whose hash is not known yet.
    known = [str(each.encode(), "ascii") for each in random.sample(ids, batch)]
    new = [new_id() for _ in range(batch)]
    taken: dict[str, float] = {}

    async def measured(verb: str, act: Callable[[str], Awaitable[Any]], of: list[str]) -> None:
        gc.collect(0)
        begun = time.thread_time()
        for each in of:
            await act(each)
        taken[verb] = (time.thread_time() - begun) / len(of) * 1e6

    await measured("create", lambda each: storage.create(each, content, DAY), new)
    await measured("delete", storage.delete, [str(each.encode(), "ascii") for each in new])
    await measured("load", storage.load, known)
    versions = {each: (await storage.load(each)).version for each in known}

    def replace(each: str) -> Awaitable[Any]:
        return storage.replace(each, content, DAY, expected=versions[each])

    await measured("replace", replace, [str(each.encode(), "ascii") for each in known])
    # Others than those that were just replaced, which are near the processor.
    others = [str(each.encode(), "ascii") for each in random.sample(ids, batch)]
    await measured("touch", lambda each: storage.touch(each, DAY), others)
    return taken


# The loop.


class Loop:
    """Runs calls on a loop that others need too, and sees for how long they had to wait."""

    def __init__(self) -> None:
        self._longest = 0.0
        self._is_over = False

    async def run(self, acts: Iterator[Callable[[], Awaitable[Any]]]) -> Figures:
        """Let some workers take *acts* in turn; return the longest pause, and µs for each."""
        self._longest, self._is_over, done = 0.0, False, 0
        gc.collect()

        async def work() -> None:
            nonlocal done
            for act in acts:
                await act()
                done += 1
                await asyncio.sleep(0)

        with seen_collections() as collections:
            ticking = asyncio.create_task(self._tick())
            begun = time.thread_time()
            await asyncio.gather(*(work() for _ in range(WORKERS)))
            taken = time.thread_time() - begun
            self._is_over = True
            await ticking
        return {
            "pause": self._longest * 1e3,
            "collection": max(collections, default=0.0) * 1e3,
            "calls": done,
            "us": taken / done * 1e6,
        }

    async def _tick(self) -> None:
        before = time.thread_time()
        while not self._is_over:
            await asyncio.sleep(0)
            now = time.thread_time()
            self._longest = max(self._longest, now - before)
            before = now


@contextmanager
def seen_collections() -> Iterator[list[float]]:
    """Give the list of the seconds that each collection of garbage inside takes."""
    found: list[float] = []
    begun = 0.0

    def see(phase: str, _: dict[str, int]) -> None:
        nonlocal begun
        if phase == "start":
            begun = time.thread_time()
        else:
            found.append(time.thread_time() - begun)

    gc.callbacks.append(see)
    try:
        yield found
    finally:
        gc.callbacks.remove(see)


def pauses(count: int) -> dict[str, Figures]:
    """Return the longest pause, and the cost of a call, in each chapter of a storage's life."""
    clock = make_clock()
    found: dict[str, Figures] = {}

    async def run() -> None:
        storage, loop = make_storage(max_records=count, clock=clock), Loop()
        ids = [new_id() for _ in range(count)]

        def create(session_id: str) -> Callable[[], Awaitable[Any]]:
            return lambda: storage.create(session_id, made, DAY)

        def load(session_id: str) -> Callable[[], Awaitable[Any]]:
            return lambda: storage.load(session_id)

        def some() -> Iterator[Callable[[], Awaitable[Any]]]:
            """Yield a create and nine loads, and so on."""
            for number in itertools.count():
                yield load(ids[number * 7919 % count]) if number % 10 else create(new_id())

        def until_all_are_gone() -> Iterator[Callable[[], Awaitable[Any]]]:
            """Yield the same until only those are there that were created meanwhile."""
            for number, act in enumerate(some()):
                if len(storage) <= number // 10 + WORKERS:
                    return
                yield act

        async def chapter(name: str, acts: Iterator[Callable[[], Awaitable[Any]]]) -> None:
            found[name] = await loop.run(acts)

        made = payload(1)
        await chapter("all are created", (create(each) for each in ids))
        clock.advance(600)
        await chapter("all are touched", (lambda e=e: storage.touch(e, DAY) for e in ids))
        clock.advance(DAY / 2)
        await chapter("it is full, and some are created", itertools.islice(some(), count // 10))
        clock.advance(DAY / 2 - 300)
        await chapter(
            "all were touched, and their first ends are over", itertools.islice(some(), count // 10)
        )
        clock.advance(DAY + 1_000)
        await chapter("all have expired", until_all_are_gone())
        clock.advance(2 * DAY)
        await chapter("nothing is there", itertools.islice(some(), count // 10))
        storage = make_storage(max_records=count, clock=clock)
        await fill_with(storage, ids, made)
        await chapter("all are deleted", (lambda e=e: storage.delete(e) for e in ids))

    asyncio.run(run())
    return found


async def fill_with(storage: Any, ids: list[str], content: bytes) -> None:
    for each in ids:
        await storage.create(each, content, DAY)


# The report.

PARTS: dict[str, Callable[[int], Any]] = {"memory": memory, "calls": calls, "pauses": pauses}


def in_a_process(part: str, count: int, tree: Path) -> Any:
    """Return what *part* finds with the package in *tree*."""
    with pinned(cores()[0]):
        answer = subprocess.run(
            [sys.executable, __file__, "--part", part, "--sessions", str(count)],
            env={**os.environ, "PYTHONPATH": str(tree)},
            check=True,
            stdout=subprocess.PIPE,
        )
    return json.loads(answer.stdout)


def markdown(trees: dict[str, Path], count: int, rounds: int) -> str:
    """Measure each of *trees*, and return the tables."""
    results = {
        name: {part: [in_a_process(part, count, tree) for _ in range(rounds)] for part in PARTS}
        for name, tree in trees.items()
    }
    lines = [
        f"# MemoryStorage with {count:,} sessions",
        "",
        f"Measured on {datetime.now(UTC):%Y-%m-%d} with CPython {platform.python_version()}.",
        f"Medians of {rounds} processes, by `make bench-memory`.",
        "How it is measured: [README.md](../README.md#a-million-sessions-in-memory).",
    ]
    for name, parts in results.items():
        if len(results) > 1:
            lines += ["", f"# {name}"]
        lines += ["", "## Memory", "", "| figure | |", "| --- | --- |"]
        for row in parts["memory"][0]:
            lines.append(f"| {row} | {middle(parts['memory'], row):.1f} |")
        lines += ["", "## Calls", ""]
        lines += [f"| call | µs with {FEW:,} | µs with {count:,} | ratio |"]
        lines += ["| --- | --- | --- | --- |"]
        for verb in parts["calls"][0]:
            few, many, ratio = (
                middle([each[verb] for each in parts["calls"]], column)
                for column in ("few", "many", "ratio")
            )
            lines.append(f"| {verb} | {few:.2f} | {many:.2f} | {ratio:.2f} |")
        lines += ["", "## Pauses", ""]
        lines += ["| while | longest pause, ms | longest collection, ms | calls | µs a call |"]
        lines += ["| --- | --- | --- | --- | --- |"]
        for chapter in parts["pauses"][0]:
            pause, collection, done, each_us = (
                middle([each[chapter] for each in parts["pauses"]], column)
                for column in ("pause", "collection", "calls", "us")
            )
            lines.append(
                f"| {chapter} | {pause:.2f} | {collection:.2f} | {done:,.0f} | {each_us:.2f} |"
            )
    return "\n".join(lines) + "\n"


def middle(found: list[Figures], name: str) -> float:
    return statistics.median(each[name] for each in found)


def main() -> None:
    # That MemoryStorage is for one process is known here.
    logging.getLogger("aiosess").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--against", metavar="REVISION")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="where MEMORY.md goes")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part is not None:
        print(json.dumps(PARTS[given.part](given.sessions)))
        return
    trees = {"the working tree": ROOT}
    with tempfile.TemporaryDirectory() as name:
        if given.against is not None:
            is_folder = Path(given.against).is_dir()
            trees[given.against] = (
                Path(given.against) if is_folder else unpacked(given.against, Path(name))
            )
        report = markdown(trees, given.sessions, given.rounds)
    print(report)
    if given.write is not None:
        (given.write / "MEMORY.md").write_text(report)


if __name__ == "__main__":
    main()
