"""Prints the table of the proof: ``python -m tests.proof`` (``--small`` for a quick one)."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from redis.asyncio import Redis

from tests.faults.clusters import cluster_in
from tests.proof import lines, principals
from tests.proof.app import REPEATING_IDS
from tests.servers import MemcachedServer, RedisServer, Server, free_port

PROCESSES = 4
# A life of sessions in seconds, short enough to be waited for.
LIFE = 3


@dataclass(frozen=True)
class Size:
    """How many requests and rounds a line takes."""

    requests: int
    rounds: int
    creations: int


FULL = Size(requests=1000, rounds=500, creations=100_000)
SMALL = Size(requests=200, rounds=40, creations=2000)


BACK_ENDS = ("memory", "Redis", "memcached", "Redis Cluster")


@dataclass(frozen=True)
class Line:
    """One line of the table; *wanted* ``None``: shown for comparison, nothing is asked of it."""

    what: str
    backend: str
    found: int
    wanted: int | None = 0

    @property
    def is_right(self) -> bool:
        """Ask whether it is what it must be."""
        return self.wanted is None or self.found == self.wanted


async def prove(size: Size) -> list[Line]:
    """Run every line on every back-end."""
    return [line for backend in BACK_ENDS for line in await prove_on(backend, size)]


async def prove_on(backend: str, size: Size) -> list[Line]:
    """Run every line on one of BACK_ENDS."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        if backend == "Redis Cluster":
            # On a busy machine, none is taken for one that is away: what it has would be lost.
            cluster = stack.enter_context(cluster_in(Path(folder) / "cluster", patience=5.0))
            return await of_principals(backend, cluster.url, PROCESSES, size)
        url, processes = "memory", 1
        if backend != "memory":
            server = RedisServer(Path(folder)) if backend == "Redis" else MemcachedServer()
            server.start()
            stack.callback(server.stop)
            url, processes = server.url, PROCESSES
        found = await on_backend(backend, url, processes, size)
        found += await of_principals(backend, url, processes, size)
        if backend == "Redis":
            found.append(await theirs(url, size))
            found += await commands(url)
        return found


async def logins(browser: lines.Browser, rounds: int, backend: str, what: str) -> list[Line]:
    """Run the lines on logins."""
    seen, changed, overwritten = await lines.logins(browser, rounds)
    return [
        Line(f"data of a login seen through the old id in {rounds} ({what})", backend, seen),
        Line(
            f"sessions ended or changed through the old id in {rounds} ({what})", backend, changed
        ),
        Line(f"cookies of a login overwritten in {rounds} ({what})", backend, overwritten),
    ]


async def sockets(browser: lines.Browser, rounds: int, backend: str, how: str) -> list[Line]:
    """Run the line on sockets, which are to be closed within a second."""
    left, opened = await lines.sockets_left(browser, rounds, 1.0)
    what = f"sockets open 1 s after {rounds} logouts elsewhere, of {opened}{how}"
    return [Line(what, backend, left)]


async def on_backend(backend: str, url: str, processes: int, size: Size) -> list[Line]:
    """Run the lines on one back-end."""
    found: list[Line] = []
    with servers(url, processes) as ports:
        async with client() as http:
            browser = lines.Browser(http, ports)
            lost = await lines.keys_lost(browser, size.requests)
            found.append(Line(f"keys lost of {size.requests} set at once", backend, lost))
            lost, items_lost = await lines.parts_lost(browser, size.requests)
            found.append(Line(f"nested keys lost of {size.requests} set at once", backend, lost))
            what = f"list items lost or doubled of {size.requests} added at once"
            found.append(Line(what, backend, items_lost))
            lost = await lines.messages_lost(browser, size.requests)
            what = f"messages lost of {size.requests} added while others take them"
            found.append(Line(what, backend, lost))
            lost = await lines.increments_lost(browser, size.requests)
            found.append(Line(f"increments lost of {size.requests}", backend, lost))
            revived, reissued = await lines.logout_races(browser, size.rounds)
            found.append(Line(f"sessions revived in {size.rounds} logouts", backend, revived))
            found.append(Line(f"cookies re-issued in {size.rounds} logouts", backend, reissued))
            out, lost = await lines.rotations(browser, size.rounds)
            found.append(Line(f"requests logged out in {size.rounds} rotations", backend, out))
            found.append(Line(f"changes lost in {size.rounds} rotations", backend, lost))
            found += await logins(browser, size.rounds, backend, "a grace of 10 s")
            if backend != "memcached":
                found += await sockets(browser, size.rounds, backend, "")
    if backend == "memcached":
        # Nobody tells there, so that it takes a look of each process.
        with servers(url, processes, "--watch-every", "0.5") as ports:
            async with client() as http:
                browser = lines.Browser(http, ports)
                found += await sockets(browser, size.rounds, backend, ", looked at each 0.5 s")
    with servers(url, processes, "--brief") as ports:
        async with client() as http:
            browser = lines.Browser(http, ports)
            found += await logins(browser, size.rounds, backend, "requests slower than the grace")
    with servers(url, processes, "--repeating") as ports:
        async with client() as http:
            browser = lines.Browser(http, ports)
            shared, kept = await lines.ids_shared(browser, size.creations)
            what = f"sessions created with {REPEATING_IDS} ids that repeat"
            found.append(Line(what, backend, kept, wanted=None))
            found.append(Line(f"sessions shared in {size.creations} creations", backend, shared))
    return found


async def of_principals(backend: str, url: str, processes: int, size: Size) -> list[Line]:
    """Run the lines on principals."""
    found: list[Line] = []
    for most, expected in ((1000, principals.LOGINS), (principals.MOST, principals.MOST)):
        with servers(url, processes, "--most", str(most)) as ports:
            async with client() as http:
                browser = lines.Browser(http, ports)
                alive, listed = await principals.logins_at_once(browser, f"of-{most}")
                what = f"of {principals.LOGINS} logins at once, {most} allowed"
                found.append(Line(f"sessions alive {what}", backend, alive, wanted=expected))
                found.append(Line(f"sessions listed {what}", backend, listed, wanted=expected))
                if most > expected:
                    lived_on, unlisted = await principals.revocations(browser, size.rounds)
                    what = f"in {size.rounds} revocations"
                    found.append(Line(f"sessions that live on {what}", backend, lived_on))
                    found.append(Line(f"sessions alive and unlisted {what}", backend, unlisted))
    with servers(url, processes, "--most", "100", "--touch-after", "0%") as ports:
        async with client() as http:
            left = await principals.forgotten(lines.Browser(http, ports), size.rounds)
            what = f"sessions that outlive {size.rounds} revocations, the index lost before"
            found.append(Line(what, backend, left))
    with servers(url, processes, "--most", "100", "--idle", str(LIFE)) as ports:
        async with client() as http:
            left = await principals.indexes_left(lines.Browser(http, ports), size.rounds, 2 * LIFE)
            found.append(Line(f"indexes left of {size.rounds} principals", backend, left))
    return found


async def theirs(url: str, size: Size) -> Line:
    """Run the first line with aiohttp-session."""
    with servers(url, PROCESSES, "--theirs") as ports:
        async with client() as http:
            lost = await lines.keys_lost(lines.Browser(http, ports), size.requests)
    what = f"keys lost of {size.requests} set at once"
    return Line(what, "aiohttp-session, Redis", lost, wanted=None)


async def commands(url: str) -> list[Line]:
    """Count, at the server, what one save without conflict sends."""
    with servers(url, 1) as ports:
        async with client() as http, Redis.from_url(url) as redis, redis.monitor() as monitor:
            browser = lines.Browser(http, ports)
            cookie = await browser.start()
            for key in ("warm", "up"):
                await browser.get(f"/put?key={key}", cookie)
            await redis.ping()
            await _until(monitor, "PING")
            await browser.get("/put?key=counted", cookie)
            await redis.ping()
            sent = await _until(monitor, "PING")
    reads = sum(command.startswith("GET") for command in sent)
    return [
        Line("commands for a read", "Redis", reads, wanted=1),
        Line("commands for a save without conflict", "Redis", len(sent) - reads, wanted=1),
    ]


async def _until(monitor: object, last: str) -> list[str]:
    sent: list[str] = []
    async for seen in monitor.listen():  # type: ignore[attr-defined]
        if seen["client_type"] == "lua":
            continue
        if seen["command"].startswith(last):
            return sent
        sent.append(seen["command"])
    return sent


@contextlib.contextmanager
def servers(url: str, processes: int, *flags: str) -> Iterator[Sequence[int]]:
    """Start the application in *processes* processes; yield their ports."""
    with contextlib.ExitStack() as stack:
        ports = [free_port() for _ in range(processes)]
        for port in ports:
            command = [sys.executable, "-m", "tests.proof.app", "--backend", url]
            server = Server([*command, "--port", str(port), *flags], port)
            server.start()
            stack.callback(server.stop)
        yield ports


def client() -> aiohttp.ClientSession:
    """Return a client that keeps no cookies and opens as many connections as it needs."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=300),
    )


def print_table(found: Sequence[Line]) -> None:
    """Print *found* as a Markdown table."""
    print("| what is counted | where | must be | is |")
    print("| --- | --- | --- | --- |")
    for line in found:
        wanted = "" if line.wanted is None else line.wanted
        print(f"| {line.what} | {line.backend} | {wanted} | {line.found} |")


def main() -> int:
    """Print the table; fail where a line is not what it must be."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="fewer requests and rounds")
    size = SMALL if parser.parse_args().small else FULL
    found = asyncio.run(prove(size))
    print_table(found)
    return 0 if all(line.is_right for line in found) else 1


if __name__ == "__main__":
    sys.exit(main())
