"""How many requests per second an application has left with a session, and what each one costs.

    make bench
    python benchmarks/bench.py --quick
    python benchmarks/bench.py --only 'redis-*,memory-read' --processes 20 --loops uvloop

Each variant is measured in ten processes, or as many as are asked for, each of them new and with
another hash seed, in shuffled order: what a process has by luck, as the places of its objects, it
has once. It has a core to itself; wrk loads it from another, where Redis and memcached are too.
Every connection brings sessions of its own. The figures are medians over the processes; what they
mean is in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import http.client
import json
import os
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import plot
import report
from counters import BackEnd, Counts, MemcachedCounter, RedisCounter
from figures import Results, Sample, Setting
from processes import (
    Process,
    cores,
    kept_awake,
    memcached,
    pinned,
    redis_server,
    wait_until_idle,
)
from variants import (
    ALL_SERVERS,
    ALL_VARIANTS,
    BARE,
    BESIDE_PEERS,
    EMPTY,
    HERE,
    PEER_VARIANTS,
    QUICK,
    VARIANTS,
    Server,
    Variant,
)

# So many for each connection, so that they take turns without meeting.
SESSIONS_A_CONNECTION = 4
LEAST_SESSIONS = 128
# Seconds. CPython 3.11 specializes what has run a few times, and Node compiles for longer.
WARM_UP = 0.3


@dataclass
class Running:
    """A process that is up, with sessions that were begun in it."""

    server: Server
    process: Process
    processes: list[Process]
    """Its own, and the back-end's."""
    back_end: BackEnd | None
    cookies: list[str] = field(default_factory=list)
    written: int = 0
    most_unfinished: int = 0


class Bench:
    """What is up during a benchmark."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack, *, seconds: int) -> None:
        self._folder = folder
        self._stack = stack
        self._seconds = seconds
        self._server_core, self._load_core, self._back_end_core = cores()
        self._back_ends: dict[str, BackEnd] = {}
        self._back_end_processes: dict[str, Process] = {}

    @property
    def versions(self) -> list[str]:
        """Return the back-ends' versions."""
        return [back_end.version for back_end in self._back_ends.values()]

    @contextlib.contextmanager
    def started(self, server: Server, sessions: int) -> Iterator[Running]:
        """Start *server* in a new process, and begin *sessions* in it; RuntimeError if it fails."""
        back_end = None if server.back_end is None else self._back_end(server.back_end)
        ports = {name: str(each.port) for name, each in self._back_ends.items()}
        command = [
            part.replace("{redis}", ports.get("redis", "")).replace(
                "{memcached}", ports.get("memcached", "")
            )
            for part in server.command
        ]
        environment = {**os.environ, "PYTHONHASHSEED": str(random.randrange(2**32))}
        process = Process(
            server.name, command, core=self._server_core, folder=self._folder, env=environment
        )
        try:
            processes = [process]
            if server.back_end is not None:
                processes.append(self._back_end_processes[server.back_end])
            running = Running(server, process, processes, back_end)
            self._begin_sessions(running, sessions)
            yield running
        finally:
            process.stop()

    def sample(self, variant: Variant, server: Server, connections: int) -> tuple[Sample, str]:
        """Measure *variant* in a new process; return what is wrong with its sessions as well."""
        sessions = max(LEAST_SESSIONS, SESSIONS_A_CONNECTION * connections)
        with self.started(server, sessions) as running:
            self._warm_up(running, variant.path, connections)
            sample = self._measure(running, variant.path, connections)
            return sample, self._check(running)

    def profile(self, variant: Variant, server: Server, connections: int, seconds: int) -> Path:
        """Record with py-spy what a server does under load; return the file of stacks."""
        target = Path(tempfile.gettempdir()) / f"profile-{variant.name}.txt"
        with self.started(server, SESSIONS_A_CONNECTION * connections) as running:
            load = self._wrk_command(running, variant.path, connections, seconds + 2)
            recorder = [_tool("py-spy"), "record", "--pid", str(running.process.pid)]
            recorder += ["--rate", "250", "--duration", str(seconds)]
            recorder += ["--format", "raw", "--output", str(target)]
            with pinned(self._load_core), subprocess.Popen(load, stdout=subprocess.DEVNULL) as wrk:
                time.sleep(0.5)
                subprocess.run(recorder, check=True, stdout=subprocess.DEVNULL)
                wrk.wait()
        return target

    def _begin_sessions(self, running: Running, sessions: int) -> None:
        if not running.server.has_sessions:
            # The bare handler is sent as much.
            running.cookies = [
                f"sid={secrets.token_urlsafe(24)}.{secrets.token_urlsafe(32)}"
                for _ in range(sessions)
            ]
        else:
            with contextlib.closing(_connect(running.process.port)) as connection:
                running.cookies = [_begin(connection) for _ in range(sessions)]
                self._check_counting(connection, running)
            if isinstance(running.back_end, RedisCounter):
                running.back_end.learn_scripts(lambda: self._try(running))
        self._cookie_file(running).write_text("".join(f"{each}\n" for each in running.cookies))

    def _warm_up(self, running: Running, path: str, connections: int) -> None:
        if not running.server.is_ours:
            self._measure(running, path, connections)
            return
        deadline = time.monotonic() + WARM_UP
        with contextlib.closing(_connect(running.process.port)) as connection:
            while time.monotonic() < deadline:
                _get(connection, path, running.cookies[0])
                running.written += path == "/write"

    def _measure(self, running: Running, path: str, connections: int) -> Sample:
        """Run wrk against one route."""
        back_end = running.back_end
        before = Counts() if back_end is None else back_end.counts()
        cpu = running.process.cpu_seconds()
        figures = self._wrk(running, path, connections)
        wait_until_idle(running.processes)
        # Requests that were under way when wrk stopped were served as well, one a connection.
        served = figures["requests"] + connections
        cpu = (running.process.cpu_seconds() - cpu) / served * 1e6
        if path == "/write":
            running.written += int(figures["requests"])
            running.most_unfinished += connections
        sample = Sample(
            requests=int(figures["requests"]),
            seconds=figures["seconds"],
            p50_ms=figures["p50_ms"],
            p99_ms=figures["p99_ms"],
            bad=int(figures["bad"]),
            cpu_us=cpu,
        )
        if back_end is not None:
            counts = back_end.between(before, back_end.counts())
            sample.connections = running.process.connections_to(back_end.port)
            sample.commands = {
                name: count / served
                for name, count in sorted(counts.commands.items())
                if count / served > 0.02
            }
            sample.bytes_in = counts.bytes_in / served
            sample.bytes_out = counts.bytes_out / served
        return sample

    def _check(self, running: Running) -> str:
        """Add up all numbers in all sessions: has every write been counted? Say where not."""
        if not running.written or not running.server.keeps_counting:
            return ""
        if not running.server.has_sessions:
            return ""
        with contextlib.closing(_connect(running.process.port)) as connection:
            total = sum(int(_get(connection, "/read", each)[0]) for each in running.cookies)
        most = running.written + running.most_unfinished
        if running.written <= total <= most:
            return ""
        return (
            f"{running.server.name}: {running.written} writes were answered, "
            f"but the sessions counted {total}"
        )

    def _back_end(self, name: str) -> BackEnd:
        if name not in self._back_ends:
            start = {"redis": redis_server, "memcached": memcached}[name]
            process = start(core=self._back_end_core, folder=self._folder)
            self._stack.callback(process.stop)
            self._back_end_processes[name] = process
            self._back_ends[name] = (
                RedisCounter(process.port) if name == "redis" else MemcachedCounter(process.port)
            )
        return self._back_ends[name]

    def _check_counting(self, connection: http.client.HTTPConnection, running: Running) -> None:
        """Raise RuntimeError unless the sessions are kept apart and counted."""
        first, other = running.cookies[0], running.cookies[-1]
        requests = [("/write", first), ("/write", first), ("/read", first), ("/read", other)]
        seen = [_get(connection, path, cookie)[0] for path, cookie in requests]
        wanted = ["1", "2", "2", "0"] if running.server.keeps_counting else ["1", "1", "0", "0"]
        if seen != wanted:
            raise RuntimeError(f"{running.server.name} does not count: {seen}, not {wanted}")
        running.written = 2

    def _try(self, running: Running) -> None:
        with contextlib.closing(_connect(running.process.port)) as connection:
            for cookie in running.cookies[1:11]:
                _get(connection, "/write", cookie)
                running.written += 1

    def _cookie_file(self, running: Running) -> Path:
        return self._folder / f"{running.process.pid}.cookies"

    def _wrk(self, running: Running, path: str, connections: int) -> dict[str, float]:
        command = self._wrk_command(running, path, connections, self._seconds)
        with pinned(self._load_core):
            finished = subprocess.run(command, capture_output=True, text=True, check=True)
        for line in finished.stdout.splitlines():
            if line.startswith("FIGURES "):
                figures: dict[str, float] = json.loads(line.removeprefix("FIGURES "))
                return figures
        raise RuntimeError(f"wrk said: {finished.stdout}{finished.stderr}")

    def _wrk_command(
        self, running: Running, path: str, connections: int, seconds: int
    ) -> list[str]:
        command = [_tool("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
        command += ["-s", str(HERE / "replay.lua")]
        command += [f"http://127.0.0.1:{running.process.port}{path}"]
        return [*command, "--", str(self._cookie_file(running))]


def _tool(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} is not installed")
    return found


def _connect(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=10)


def _get(connection: http.client.HTTPConnection, path: str, cookie: str = "") -> tuple[str, str]:
    """Return the text and the cookie of the answer; RuntimeError where it is not a success."""
    connection.request("GET", path, headers={"Cookie": cookie} if cookie else {})
    response = connection.getresponse()
    text = response.read().decode()
    if response.status != 200:
        raise RuntimeError(f"GET {path} was answered with {response.status}")
    return text, (response.headers["Set-Cookie"] or "").partition(";")[0]


def _begin(connection: http.client.HTTPConnection) -> str:
    cookie = _get(connection, "/new")[1]
    if not cookie:
        raise RuntimeError("no session was begun: there is no cookie")
    return cookie


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    processes: int
    settings: Sequence[Setting]
    options: Sequence[str] = ()
    """For the servers."""


def run(bench: Bench, chosen: Sequence[Variant], plan: Plan) -> tuple[Results, list[str]]:
    """Measure all in shuffled order, once a round, each in a new process.

    What there is when interrupted is returned, with what was wrong.
    """
    results: Results = {setting: {} for setting in plan.settings}
    complaints: list[str] = []
    left_out: set[str] = set()
    with contextlib.suppress(KeyboardInterrupt):
        for number in range(plan.processes):
            print(f"round {number + 1} of {plan.processes}")
            turns = [(each, setting) for each in chosen for setting in plan.settings]
            random.shuffle(turns)
            for variant, setting in turns:
                server = ALL_SERVERS[variant.server].started(setting.loop, plan.options)
                if server.name in left_out:
                    continue
                try:
                    if (missing := server.missing()) is not None:
                        raise RuntimeError(f"it needs {missing}")
                    sample, wrong = bench.sample(variant, server, setting.connections)
                except (RuntimeError, OSError, http.client.HTTPException) as error:
                    print(f"left out: {variant.name}: {error}")
                    # One that has worked works again: somebody else took its port.
                    if variant.name not in results[setting]:
                        left_out.add(server.name)
                    continue
                results[setting].setdefault(variant.name, []).append(sample)
                if wrong:
                    complaints.append(wrong)
                where = f"{setting.loop} {setting.connections:3}"
                print(f"  {where}  {variant.name:22} {report.one_line(sample)}", flush=True)
    return results, complaints


def choose(arguments: argparse.Namespace) -> list[Variant]:
    """Return what is asked for, and what it is compared with."""
    if arguments.profile or arguments.only:
        patterns = (arguments.profile or arguments.only).split(",")
        names = [
            name
            for name in ALL_VARIANTS
            if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
        ]
        if not names:
            raise SystemExit(f"no variant is called {','.join(patterns)}: see --help")
    elif arguments.quick:
        names = [*QUICK]
    elif arguments.peers:
        names = [*BESIDE_PEERS, *(each.name for each in PEER_VARIANTS)]
    else:
        names = [each.name for each in VARIANTS]
    wanted = {*names, *(() if arguments.profile else (BARE, EMPTY))}
    wanted |= {report.bare_of(name) for name in names if not arguments.profile}
    return [each for name, each in ALL_VARIANTS.items() if name in wanted]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], epilog=f"variants: {' '.join(ALL_VARIANTS)}"
    )
    parser.add_argument(
        "--quick", action="store_true", help="the most telling variants in less than a minute"
    )
    parser.add_argument("--only", metavar="NAMES", help="these variants, * allowed, with commas")
    parser.add_argument("--processes", type=int, help="for each variant, default 10, quick 3")
    parser.add_argument("--seconds", type=int, default=1, help="for one run of wrk, default 1")
    parser.add_argument("--connections", default="32", help="default 32; several with commas")
    parser.add_argument("--loops", default="asyncio", help="asyncio,uvloop; default asyncio")
    parser.add_argument(
        "--freeze", action="store_true", help="each server calls gc.freeze() when it has started"
    )
    parser.add_argument(
        "--let-sleep",
        action="store_true",
        help="let a core that waits go to sleep, as without this benchmark: see README.md",
    )
    parser.add_argument(
        "--peers", action="store_true", help="Express, fastify and Starlette beside aiosess"
    )
    parser.add_argument(
        "--write", metavar="FOLDER", type=Path, help="write RESULTS.md and results.svg there"
    )
    parser.add_argument(
        "--profile", metavar="VARIANT", help="show where its time goes instead (py-spy)"
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    chosen = choose(arguments)
    plan = Plan(
        processes=arguments.processes or (3 if arguments.quick else 10),
        settings=[
            Setting(loop, int(connections))
            for connections in arguments.connections.split(",")
            for loop in arguments.loops.split(",")
        ],
        options=["--freeze"] if arguments.freeze else [],
    )
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aiosess-bench-")))
        is_awake = not arguments.let_sleep and stack.enter_context(kept_awake())
        if not is_awake:
            print(report.ASLEEP)
        bench = Bench(folder, stack, seconds=arguments.seconds)
        if arguments.profile:
            variant, setting = chosen[0], plan.settings[0]
            server = ALL_SERVERS[variant.server].started(setting.loop, plan.options)
            seconds = max(5, arguments.seconds)
            report.print_profile(bench.profile(variant, server, setting.connections, seconds))
            return
        results, complaints = run(bench, chosen, plan)
        about = report.About(
            versions=report.versions(bench.versions),
            processes=plan.processes,
            seconds=arguments.seconds,
            is_awake=is_awake,
            complaints=complaints,
        )
    if not any(results.values()):
        print("nothing was measured")
        return
    text = report.markdown(results, about)
    print(text)
    print(f"({time.monotonic() - begun:.0f} seconds)")
    if arguments.write:
        name = "PEERS" if arguments.peers else "RESULTS"
        (arguments.write / f"{name}.md").write_text(text)
        picture = plot.svg(results, with_peers=arguments.peers)
        (arguments.write / f"{name.lower()}.svg").write_text(picture)
        print(f"written: {arguments.write / name}.md and {name.lower()}.svg")


if __name__ == "__main__":
    main()
