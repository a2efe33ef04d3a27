"""How many requests per second sessions leave of the bare handler's, and what each one costs.

    make bench
    python benchmarks/bench.py --quick
    python benchmarks/bench.py --only 'redis-*,memory-read' --rounds 9 --loops uvloop

One server process has a core to itself; wrk loads it from another, which Redis and memcached use
as well. Every connection brings sessions of its own. The bare handler is measured before and after
each two variants, and all of it in turn over several rounds, so that a ratio compares neighbours in
time. The figures are medians over the rounds; what they mean is in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import http.client
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import plot
import report
from counters import BackEnd, Counts, MemcachedCounter, RedisCounter
from figures import Measured, Results, Sample, Setting
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
    HERE,
    ONLY_AT_32,
    PAIRS,
    PEER_PAIRS,
    PEER_SERVERS,
    QUICK,
    SERVERS,
    Server,
    Variant,
)

LOOPS = ("asyncio", "uvloop")
CONNECTIONS = (1, 32, 256)
# So many for each connection, so that they take turns without meeting.
SESSIONS_A_CONNECTION = 4
LEAST_SESSIONS = 256

Pairs = list[tuple[Variant, ...]]


@dataclass
class Running:
    """A server that is up, with sessions that were begun on it."""

    server: Server
    process: Process
    processes: list[Process]
    """Its own, and the back-end's."""
    back_end: BackEnd | None
    cookies: list[str] = field(default_factory=list)
    written: int = 0
    most_unfinished: int = 0


class Bench:
    """Everything that is up during a benchmark."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack, *, seconds: int) -> None:
        self._folder = folder
        self._stack = stack
        self._seconds = seconds
        self._server_core, self._load_core, self._back_end_core = cores()
        self._back_ends: dict[str, BackEnd] = {}
        self._back_end_processes: dict[str, Process] = {}
        self._running: dict[str, Running] = {}

    @property
    def versions(self) -> list[str]:
        """Return the back-ends' versions."""
        return [back_end.version for back_end in self._back_ends.values()]

    def start(self, server: Server, sessions: int) -> None:
        """Start *server* and begin *sessions* on it; RuntimeError where it does not work."""
        back_end = None if server.back_end is None else self._back_end(server.back_end)
        ports = {name: str(each.port) for name, each in self._back_ends.items()}
        command = [
            part.replace("{redis}", ports.get("redis", "")).replace(
                "{memcached}", ports.get("memcached", "")
            )
            for part in server.command
        ]
        process = Process(server.name, command, core=self._server_core, folder=self._folder)
        self._stack.callback(process.stop)
        processes = [process]
        if server.back_end is not None:
            processes.append(self._back_end_processes[server.back_end])
        running = Running(server, process, processes, back_end)
        self._running[server.name] = running
        if not server.has_sessions:
            return
        with contextlib.closing(_connect(process.port)) as connection:
            running.cookies = [_begin(connection) for _ in range(sessions)]
            self._check_counting(connection, running)
        if isinstance(back_end, RedisCounter):
            back_end.learn_scripts(lambda: self._try(running))
        cookies = "".join(f"{cookie}\n" for cookie in running.cookies)
        self._cookie_file(server.name).write_text(cookies)
        # The bare handler is sent the same.
        self._cookie_file(server.bare).write_text(cookies)

    def is_running(self, name: str) -> bool:
        return name in self._running

    def warm_up(self) -> None:
        """Let each server run its code a few thousand times: just-in-time compilers need it."""
        for name in self._running:
            self.measure(name, "/read", 32)

    def measure(self, server: str, path: str, connections: int) -> Sample:
        """Run wrk against one route."""
        running = self._running[server]
        back_end = running.back_end
        before = Counts() if back_end is None else back_end.counts()
        cpu = running.process.cpu_seconds()
        figures = self._wrk(running.process.port, server, path, connections)
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

    def check(self) -> list[str]:
        """Add up all numbers in all sessions: has every write been counted? Say where not."""
        complaints = []
        for running in self._running.values():
            if not running.written or not running.server.keeps_counting:
                continue
            with contextlib.closing(_connect(running.process.port)) as connection:
                total = sum(int(_get(connection, "/read", cookie)[0]) for cookie in running.cookies)
            most = running.written + running.most_unfinished
            if not running.written <= total <= most:
                complaints.append(
                    f"{running.server.name}: wrk had {running.written} writes answered, "
                    f"but the sessions counted {total}"
                )
        return complaints

    def profile(self, variant: Variant, server: str, connections: int, seconds: int) -> Path:
        """Record with py-spy what a server does under load; return the file of stacks."""
        running = self._running[server]
        target = Path(tempfile.gettempdir()) / f"profile-{variant.name}.txt"
        load = self._wrk_command(
            running.process.port, server, variant.path, connections, seconds + 2
        )
        recorder = [_tool("py-spy"), "record", "--pid", str(running.process.pid), "--rate", "250"]
        recorder += ["--duration", str(seconds), "--format", "raw", "--output", str(target)]
        with pinned(self._load_core), subprocess.Popen(load, stdout=subprocess.DEVNULL) as wrk:
            time.sleep(0.5)
            subprocess.run(recorder, check=True, stdout=subprocess.DEVNULL)
            wrk.wait()
        return target

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

    def _cookie_file(self, server: str) -> Path:
        return self._folder / f"{server}.cookies"

    def _wrk(self, port: int, server: str, path: str, connections: int) -> dict[str, float]:
        command = self._wrk_command(port, server, path, connections, self._seconds)
        with pinned(self._load_core):
            finished = subprocess.run(command, capture_output=True, text=True, check=True)
        for line in finished.stdout.splitlines():
            if line.startswith("FIGURES "):
                figures: dict[str, float] = json.loads(line.removeprefix("FIGURES "))
                return figures
        raise RuntimeError(f"wrk said: {finished.stdout}{finished.stderr}")

    def _wrk_command(
        self, port: int, server: str, path: str, connections: int, seconds: int
    ) -> list[str]:
        command = [_tool("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
        command += ["-s", str(HERE / "replay.lua"), f"http://127.0.0.1:{port}{path}"]
        known = self._running[server].server
        cookies = self._cookie_file(known.name if known.has_sessions else known.bare)
        if not cookies.exists():
            cookies.write_text("theme=dark\n")
        return [*command, "--", str(cookies)]


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

    rounds: int
    loops: Sequence[str]
    connections: Sequence[int]
    options: Sequence[str] = ()
    """For the servers."""


def measure_round(
    bench: Bench,
    pairs: Sequence[Sequence[Variant]],
    names: dict[str, Server],
    setting: Setting,
    into: dict[str, list[Measured]],
) -> None:
    """Measure bare, pair, bare, pair, bare: each pair stands between two runs of the bare one."""
    before: tuple[str, Sample] | None = None
    for pair in pairs:
        bare = names[pair[0].server].bare
        if before is None or before[0] != bare:
            before = bare, bench.measure(bare, "/read", setting.connections)
        samples = {
            each.name: bench.measure(names[each.server].name, each.path, setting.connections)
            for each in pair
        }
        after = bare, bench.measure(bare, "/read", setting.connections)
        for each in pair:
            rival = next((samples[other.name] for other in pair if other is not each), None)
            measured = Measured(samples[each.name], (before[1], after[1]), bare, rival)
            into.setdefault(each.name, []).append(measured)
            print(f"    {each.name:22} {report.one_line(measured)}", flush=True)
        before = after


def run(bench: Bench, pairs: Pairs, names: dict[str, dict[str, Server]], plan: Plan) -> Results:
    """Measure everything in turn, and again in each round; what there is when interrupted."""
    results: Results = {}
    with contextlib.suppress(KeyboardInterrupt):
        for number in range(plan.rounds):
            print(f"round {number + 1} of {plan.rounds}")
            for connections in plan.connections:
                for loop in plan.loops:
                    setting = Setting(loop, connections)
                    print(f"  {loop}, {connections} connections")
                    chosen = _usable(pairs, names[loop], bench, connections)
                    if number % 2:
                        chosen = [pair[::-1] for pair in chosen[::-1]]
                    into = results.setdefault(setting, {})
                    measure_round(bench, chosen, names[loop], setting, into)
    return results


def _usable(pairs: Pairs, names: dict[str, Server], bench: Bench, connections: int) -> Pairs:
    """Return the pairs without those whose server is not there or that are not asked for here."""
    kept = [
        tuple(
            each
            for each in pair
            if each.server in names
            and bench.is_running(names[each.server].name)
            and (connections == 32 or each.name not in ONLY_AT_32)
        )
        for pair in pairs
    ]
    return [pair for pair in kept if pair]


def start_servers(
    bench: Bench, pairs: Pairs, plan: Plan, *, with_peers: bool
) -> dict[str, dict[str, Server]]:
    """Start what *pairs* need on each loop; return the servers by loop and name."""
    wanted = {each.server for pair in pairs for each in pair}
    sessions = max(LEAST_SESSIONS, SESSIONS_A_CONNECTION * max(plan.connections))
    names: dict[str, dict[str, Server]] = {}
    for loop in plan.loops:
        names[loop] = {each.name: each.under(loop, *plan.options) for each in SERVERS}
        if with_peers and loop == "asyncio":
            names[loop] |= {each.name: each for each in PEER_SERVERS}
        needed = [each for name, each in names[loop].items() if name in wanted]
        bare = {each.bare for each in needed}
        for server in names[loop].values():
            if server not in needed and server.name not in bare:
                continue
            missing = server.missing()
            if missing is not None:
                print(f"left out: {server.name} needs {missing}")
                continue
            try:
                bench.start(server, sessions)
            except (RuntimeError, OSError, http.client.HTTPException) as error:
                print(f"left out: {server.name}: {error}")
    return names


def choose(patterns: Sequence[str], pairs: Pairs) -> Pairs:
    """Return the variants whose names match one of *patterns*, in their pairs."""
    kept = [
        tuple(
            each
            for each in pair
            if any(fnmatch.fnmatch(each.name, pattern) for pattern in patterns)
        )
        for pair in pairs
    ]
    return [pair for pair in kept if pair]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        epilog="variants: " + " ".join(each.name for pair in PAIRS + PEER_PAIRS for each in pair),
    )
    parser.add_argument(
        "--quick", action="store_true", help="the most telling variants in half a minute"
    )
    parser.add_argument("--only", metavar="NAMES", help="these variants, * allowed, with commas")
    parser.add_argument("--rounds", type=int, help="default 5, quick 3")
    parser.add_argument("--seconds", type=int, default=1, help="for one run of wrk, default 1")
    parser.add_argument("--connections", help="default 1,32,256; quick or chosen variants 32")
    parser.add_argument("--loops", help="default asyncio,uvloop; quick or chosen variants asyncio")
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
    pairs: Pairs = [*PAIRS, *PEER_PAIRS] if arguments.peers else [*PAIRS]
    only = arguments.profile or arguments.only
    if only:
        pairs = choose(only.split(","), [*PAIRS, *PEER_PAIRS])
        if not pairs:
            raise SystemExit(f"no variant is called {only}: see --help")
    elif arguments.quick:
        pairs = choose(QUICK, pairs)
    elif arguments.peers:
        pairs = choose(["memory-*", "redis-read", "redis-write"], PAIRS) + PEER_PAIRS
    is_short = bool(only or arguments.quick or arguments.peers)
    plan = Plan(
        rounds=arguments.rounds or (3 if arguments.quick else 5),
        loops=(arguments.loops or ("asyncio" if is_short else ",".join(LOOPS))).split(","),
        connections=[
            int(each)
            for each in (
                arguments.connections or ("32" if is_short else ",".join(map(str, CONNECTIONS)))
            ).split(",")
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
        names = start_servers(bench, pairs, plan, with_peers=True)
        if arguments.profile:
            variant = pairs[0][0]
            server = names[plan.loops[0]][variant.server].name
            report.print_profile(
                bench.profile(variant, server, plan.connections[0], max(5, arguments.seconds))
            )
            return
        bench.warm_up()
        results = run(bench, pairs, names, plan)
        complaints = bench.check()
        about = report.About(
            versions=report.versions(bench.versions),
            rounds=plan.rounds,
            seconds=arguments.seconds,
            is_awake=is_awake,
            complaints=complaints,
        )
    labels = {each.name: each.label for pair in pairs for each in pair}
    if not any(results.values()):
        print("nothing was measured")
        return
    text = report.markdown(results, labels, about)
    print(text)
    print(f"({time.monotonic() - begun:.0f} seconds)")
    if arguments.write:
        name = "PEERS" if arguments.peers else "RESULTS"
        (arguments.write / f"{name}.md").write_text(text)
        (arguments.write / f"{name.lower()}.svg").write_text(plot.svg(results, labels))
        print(f"written: {arguments.write / name}.md and {name.lower()}.svg")


if __name__ == "__main__":
    main()
