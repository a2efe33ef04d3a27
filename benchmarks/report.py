"""Medians as Markdown tables; the goals, reached or not; the top of a profile."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import statistics
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from figures import Measured, Results, Setting, commands, connections, figure, median
from variants import GOALS, Goal

HEAD = (
    "| variant | share of bare (least to most) | CPU, share | requests/s | CPU µs | added | p50 ms "
    "| p99 ms | commands | bytes in / out | connections | bad |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)
AWAKE = "No core slept while it waited."
ASLEEP = (
    "Cores could sleep while they waited: each wake-up is charged to the server, "
    "to a slow one more often."
)


@dataclass
class About:
    """Under what conditions the figures came about."""

    versions: str
    rounds: int
    seconds: int
    is_awake: bool
    complaints: list[str] = field(default_factory=list)


def one_line(measured: Measured) -> str:
    """Return what is shown while the benchmark runs."""
    sample = measured.sample
    bad = f"  BAD {sample.bad}" if sample.bad else ""
    return (
        f"{measured.ratio:5.2f} of bare {sample.per_second:7.0f}/s {sample.cpu_us:5.0f} µs "
        f"({measured.cpu_share:.2f}) p99 {sample.p99_ms:6.1f} ms{bad}"
    )


def markdown(results: Results, labels: dict[str, str], about: About) -> str:
    """Return the whole report."""
    count = os.cpu_count() or 1
    shared = {1: "one shared core", 2: "two shared cores"}.get(count, f"{count} shared cores")
    lines = [
        "# Results",
        "",
        f"Measured on {datetime.now(UTC):%Y-%m-%d} on {shared}: {about.versions}.",
        f"Medians of {about.rounds} interleaved rounds, {about.seconds} s each.",
        AWAKE if about.is_awake else ASLEEP,
        "How it is measured, and what the columns mean: [README.md](README.md).",
        "",
    ]
    lines += [f"**Wrong:** {complaint}" for complaint in about.complaints]
    if not about.complaints:
        lines.append("Every write that was answered is in its session: the numbers add up.")
    goals = [line for goal in GOALS if (line := _goal(goal, results, labels)) is not None]
    if goals:
        lines += ["", "## Goals", "", "On asyncio. The stretch goal is in brackets."]
        lines += ["", "| figure | variant | connections | goal | measured | |"]
        lines += ["| --- | --- | --- | --- | --- | --- |", *goals]
    for setting, variants in results.items():
        if variants:
            lines += ["", f"## {setting.loop}, {_connections(setting)}", "", HEAD]
            lines += _bare_rows(variants)
            lines += [_row(labels[name], variants[name]) for name in labels if name in variants]
    return "\n".join(lines) + "\n"


def _connections(setting: Setting) -> str:
    return f"{setting.connections} connection{'s' if setting.connections != 1 else ''}"


def _bare_rows(variants: dict[str, list[Measured]]) -> list[str]:
    """Return one row for the bare handlers of each framework, told apart by their figures."""
    # The same samples stand beside several variants.
    by_framework: dict[str, dict[int, tuple[float, float, float, float, int]]] = {}
    for rounds in variants.values():
        for each in rounds:
            for bare in each.bare:
                figures = (bare.per_second, bare.cpu_us, bare.p50_ms, bare.p99_ms, bare.bad)
                by_framework.setdefault(each.bare_name, {})[id(bare)] = figures
    rows = []
    for name, samples in by_framework.items():
        per_second, cpu, p50, p99, _ = (
            statistics.median(column) for column in zip(*samples.values(), strict=True)
        )
        bad = sum(figures[4] for figures in samples.values())
        rows.append(
            f"| {name} | 1 | 1 | {per_second:.0f} | {cpu:.0f} | | {p50:.2f} | {p99:.2f} "
            f"| | | | {bad} |"
        )
    return rows


def _row(label: str, rounds: list[Measured]) -> str:
    ratios = [each.ratio for each in rounds]
    sent = ", ".join(f"{name} {count:.2f}" for name, count in commands(rounds).items())
    traffic, links = "", connections(rounds)
    if links is not None:
        traffic = (
            f"{median(rounds, lambda each: each.sample.bytes_in or 0):.0f} / "
            f"{median(rounds, lambda each: each.sample.bytes_out or 0):.0f}"
        )
    cells = [
        label,
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        f"{median(rounds, lambda each: each.cpu_share):.2f}",
        f"{median(rounds, lambda each: each.sample.per_second):.0f}",
        f"{median(rounds, lambda each: each.sample.cpu_us):.0f}",
        f"{median(rounds, lambda each: each.cpu_added_us):+.0f}",
        f"{median(rounds, lambda each: each.sample.p50_ms):.2f}",
        f"{median(rounds, lambda each: each.sample.p99_ms):.2f}",
        sent or ("" if links is None else "0"),
        traffic,
        "" if links is None else str(links),
        str(sum(each.sample.bad for each in rounds)),
    ]
    return f"| {' | '.join(cells)} |"


def _goal(goal: Goal, results: Results, labels: dict[str, str]) -> str | None:
    rounds = results.get(Setting("asyncio", goal.connections), {}).get(goal.variant)
    measured = None if rounds is None else figure(rounds, goal.figure)
    if measured is None:
        return None
    row = f"| {goal.what} | {labels[goal.variant]} | {goal.connections} "
    if goal.bound is None:
        return f"{row}| | {measured:.2f} | for comparison |"
    # Connecting costs commands as well: a hundredth is no second command.
    is_reached = measured <= goal.bound * 1.02 if goal.is_most else measured >= goal.bound
    stretch = f" ({goal.stretch:.2f})" if goal.stretch is not None else ""
    verdict = "reached" if is_reached else "**not reached**"
    if goal.stretch is not None and measured >= goal.stretch:
        verdict = "reached, stretch too"
    relation = "at most" if goal.is_most else "at least"
    return f"{row}| {relation} {goal.bound:.2f}{stretch} | {measured:.2f} | {verdict} |"


def versions(back_ends: list[str]) -> str:
    """Return what was measured, by name and version."""
    packages = ["aiohttp", "aiohttp-session", "redis", "hiredis", "aiomcache", "uvloop"]
    found = [f"CPython {platform.python_version()}"]
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{package} {importlib.metadata.version(package)}")
    wrk = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout
    if len(wrk.split()) > 1:
        found.append(f"wrk {wrk.split()[1].removeprefix('debian/')}")
    return ", ".join(found + back_ends)


# The profile.


def print_profile(stacks: Path) -> None:
    """Print which functions took the time: by themselves, and with all that they called."""
    alone: Counter[str] = Counter()
    together: Counter[str] = Counter()
    for line in stacks.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [_short(frame) for frame in stack.split(";")]
        alone[frames[-1]] += int(count)
        for frame in set(frames):
            together[frame] += int(count)
    total = sum(alone.values()) or 1
    for title, counter in (("by themselves", alone), ("with what they called", together)):
        print(f"\n{title}:")
        for frame, count in counter.most_common(40):
            print(f"  {count / total:6.1%}  {frame}")
    print(f"\nall stacks, for speedscope.app or flamegraph.pl: {stacks}")


def _short(frame: str) -> str:
    """Return ``function (package/file.py)``, without the line, so that one function is one row."""
    name, _, place = frame.partition(" (")
    file = place.rstrip(")").partition(":")[0]
    return f"{name} ({'/'.join(Path(file).parts[-2:])})" if file else name
