"""Medians as Markdown tables; what was expected, reached or not; the top of a profile."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from figures import (
    Interval,
    Results,
    Sample,
    Samples,
    Setting,
    commands,
    connections,
    cpu,
    median,
    p99,
    per_second,
    ratio,
)
from variants import ALL_SERVERS, ALL_VARIANTS, EMPTY, EXPECTED, Expected

HEAD = (
    "| variant | share of bare | of an empty middleware | of its rival | CPU, times bare's "
    "| requests/s | CPU µs | p50 ms | p99 ms | commands | bytes in / out | connections | bad |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)
AWAKE = "No core slept while it waited."
ASLEEP = (
    "Cores could sleep while they waited: each wake-up is charged to the server, "
    "to a slow one more often."
)

_ENOUGH = 5

ByVariant = Mapping[str, Samples]


@dataclass
class About:
    """Under what conditions the figures came about."""

    versions: str
    processes: int
    seconds: int
    is_awake: bool
    complaints: list[str] = field(default_factory=list)


def one_line(sample: Sample) -> str:
    """Return what is shown while the benchmark runs."""
    bad = f"  BAD {sample.bad}" if sample.bad else ""
    return (
        f"{sample.per_second:7.0f}/s {sample.cpu_us:5.0f} CPU µs p99 {sample.p99_ms:6.1f} ms{bad}"
    )


def markdown(results: Results, about: About) -> str:
    """Return the whole report."""
    count = os.cpu_count() or 1
    shared = {1: "one shared core", 2: "two shared cores"}.get(count, f"{count} shared cores")
    lines = [
        "# Results",
        "",
        f"Measured on {datetime.now(UTC):%Y-%m-%d} on {shared}: {about.versions}.",
        f"Medians over {about.processes} processes a variant, {about.seconds} s each, in shuffled",
        "order; in brackets what the figure lies between in 95 of 100 cases, by the bootstrap.",
        AWAKE if about.is_awake else ASLEEP,
        "How it is measured, and what the columns mean: [README.md](README.md). Time on a shared",
        "machine informs; what a session may cost is counted: `make bench-instructions`.",
        "",
    ]
    lines += [f"**Wrong:** {complaint}" for complaint in about.complaints]
    if not about.complaints:
        lines.append("Every write that was answered is in its session: the numbers add up.")
    # Few processes say little of how far apart more of them would be.
    is_enough = about.processes >= _ENOUGH
    first = results.get(Setting("asyncio", 32), {}) if is_enough else {}
    expected = [line for each in EXPECTED if (line := _expected(each, first)) is not None]
    if expected:
        lines += ["", "## Expected", "", "On asyncio, 32 connections.", ""]
        lines += ["| figure | variant | expected | measured | |", "| --- | --- | --- | --- | --- |"]
        lines += expected
    for setting, variants in results.items():
        if variants:
            lines += ["", f"## {setting.loop}, {_connections(setting)}", "", HEAD]
            lines += [_row(name, variants) for name in ALL_VARIANTS if name in variants]
    return "\n".join(lines) + "\n"


def bare_of(variant: str) -> str:
    """Return the variant with the bare handler of the same framework."""
    return ALL_SERVERS[ALL_VARIANTS[variant].server].bare


def _connections(setting: Setting) -> str:
    return f"{setting.connections} connection{'s' if setting.connections != 1 else ''}"


def _times(
    name: str,
    other: str | None,
    variants: ByVariant,
    of: Callable[[Sample], float] = per_second,
) -> str:
    if other is None or other not in variants or other == name:
        return ""
    return str(ratio(variants[name], variants[other], of))


def _row(name: str, variants: ByVariant) -> str:
    samples = variants[name]
    sent = ", ".join(f"{command} {count:.2f}" for command, count in commands(samples).items())
    traffic, links = "", connections(samples)
    if links is not None:
        traffic = (
            f"{median(samples, lambda each: each.bytes_in or 0):.0f} / "
            f"{median(samples, lambda each: each.bytes_out or 0):.0f}"
        )
    bare = bare_of(name)
    cells = [
        ALL_VARIANTS[name].label,
        _times(name, bare, variants),
        # The empty middleware is one of aiohttp's.
        _times(name, EMPTY if bare == "bare" else None, variants),
        _times(name, ALL_VARIANTS[name].rival, variants),
        _times(name, bare, variants, cpu),
        f"{median(samples, per_second):.0f}",
        f"{median(samples, cpu):.0f}",
        f"{median(samples, lambda each: each.p50_ms):.2f}",
        f"{median(samples, p99):.2f}",
        sent or ("" if links is None else "0"),
        traffic,
        "" if links is None else str(links),
        str(sum(each.bad for each in samples)),
    ]
    return f"| {' | '.join(cells)} |"


def _measured(expected: Expected, variants: ByVariant) -> Interval | None:
    """Return the figure that is expected, ``None`` where it was not measured."""
    samples = variants.get(expected.variant)
    if samples is None:
        return None
    match expected.figure:
        case "commands":
            exact = sum(commands(samples).values())
        case "connections":
            exact = float(connections(samples) or 0)
        case "p99":
            bare = variants.get(bare_of(expected.variant))
            return None if bare is None else ratio(samples, bare, p99)
        case "rival":
            rival = variants.get(ALL_VARIANTS[expected.variant].rival or "")
            return None if rival is None else ratio(samples, rival, cpu)
        case other:
            raise ValueError(other)
    return Interval(exact, exact, exact)


def _expected(expected: Expected, variants: ByVariant) -> str | None:
    found = _measured(expected, variants)
    if found is None:
        return None
    relation = "at most" if expected.is_most else "at least"
    shown = f"{found.middle:.2f}" if found.low == found.high else str(found)
    return (
        f"| {expected.what} | {ALL_VARIANTS[expected.variant].label} "
        f"| {relation} {expected.bound:g} | {shown} | {verdict(expected, found)} |"
    )


def verdict(expected: Expected, found: Interval) -> str:
    """Return whether a figure is what it should be, as far as the interval allows to say."""
    # Connecting costs commands as well: a hundredth is no second command.
    bound = expected.bound * 1.02 if expected.is_most else expected.bound
    is_reached, is_missed = found.low >= bound, found.high < bound
    if expected.is_most:
        is_reached, is_missed = found.high <= bound, found.low > bound
    if is_reached:
        return "reached"
    return "**not reached**" if is_missed else "cannot tell"


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
