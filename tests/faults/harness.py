"""Does a fault to a back-end while browsers write, and counts what becomes of them."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
import re
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import aiohttp

from tests.faults.app import BUDGET
from tests.servers import Server, free_port

__all__ = ["ACTS", "Answer", "Fault", "Found", "Size", "application", "found_by"]

ACTS: Final = 2
"""A request that writes has two acts: the load and the commit."""

REFUSED: Final = 0
"""The status of a request for which no connection was made."""

BROKEN: Final = 1
"""The status of a request whose connection broke before its answer came."""

Act: TypeAlias = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Size:
    """How many browsers write, how often, and how many seconds before, in and after the fault."""

    browsers: int = 20
    strangers: int = 5
    pause: float = 0.1
    before: float = 1.0
    lasts: float = 3.0
    after: float = 6.0
    has_open_loop: bool = False


@dataclass(frozen=True)
class Fault:
    """What is done: *begin* and *end* it; *note* says what the back-end itself may lose.

    *replaced* waits until another server has taken the place of the one that is away. The back-end
    is whole by then, and not only at the end.
    """

    name: str
    begin: Act
    end: Act
    note: str = ""
    size: Size = Size()
    replaced: Act | None = None


@dataclass(frozen=True)
class Answer:
    """When a request began, how long it took, and its status, REFUSED or BROKEN."""

    at: float
    seconds: float
    status: int


@dataclass
class Found:
    """What became of the requests while and after a fault."""

    name: str
    note: str
    requests: int = 0
    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    slowest: float = 0.0
    median: float = 0.0
    strangers_median: float = 0.0
    piled_up: int = 0
    calls: int = 0
    lost_writes: int = 0
    lost_sessions: int = 0
    strangers_refused: int = 0
    lines: int = 0
    well_after: float = 0.0

    @property
    def late_by(self) -> float:
        """By how many seconds the slowest answer was later than its acts may take."""
        return max(0.0, self.slowest - ACTS * BUDGET)

    @property
    def calls_a_request(self) -> float:
        """How often the storage was called for each request during the fault."""
        return self.calls / max(1, self.requests)


@dataclass
class Application:
    """The process that serves, and what it logs."""

    base: str
    log: Path
    command: list[str]
    process: asyncio.subprocess.Process | None = None

    @property
    def lines(self) -> int:
        """How many lines it logged, a traceback counted as one."""
        text = self.log.read_text() if self.log.exists() else ""
        return len(re.findall(r"^(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) ", text, re.MULTILINE))

    async def start(self) -> None:
        """Start the process, and wait until it serves."""
        self.process = await asyncio.create_subprocess_exec(*self.command)
        async with aiohttp.ClientSession() as client, asyncio.timeout(30):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with client.get(f"{self.base}/alive"):
                        break
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Ask the process to end, as those who deploy do, and wait until it is gone."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
            await self.process.wait()


@asynccontextmanager
async def application(
    url: str, folder: Path, *, is_theirs: bool = False, names: Path | None = None
) -> AsyncGenerator[Application]:
    """Serve an application whose sessions are kept at *url*; *names* is for resolve_by()."""
    port = free_port()
    log = folder / f"app-{port}.log"
    command = [sys.executable, "-m", "tests.faults.app", url, str(port), "--log", str(log)]
    command += ["--theirs"] if is_theirs else []
    command += ["--names", str(names)] if names is not None else []
    app = Application(f"http://127.0.0.1:{port}", log, command)
    try:
        await app.start()
        yield app
    finally:
        await app.stop()


class Browsers:
    """Browsers that write rising numbers, and note what was acknowledged."""

    def __init__(self, app: Application, size: Size) -> None:
        self.app = app
        self.size = size
        self.answers: list[Answer] = []
        self.strangers: list[Answer] = []
        self.most = 0
        self.lost_sessions = 0
        self._under_way = 0
        self._cookies: list[str] = []
        self._acknowledged: list[dict[str, int]] = [{} for _ in range(size.browsers)]
        self._sent = [0] * size.browsers
        self._is_over = False
        self._random = random.Random(size.browsers)

    async def run(self, act: Act) -> None:
        """Begin a session for each browser, write until *act* is done, and wait for the last."""
        async with self._client() as client:
            for number in range(self.size.browsers):
                url = f"{self.app.base}/write?key=n&n=0"
                async with client.get(url) as response:
                    self._cookies.append(response.headers["Set-Cookie"].partition(";")[0])
                self._acknowledged[number]["n"] = 0
            acts = [
                *(self._write(client, number) for number in range(self.size.browsers)),
                *(self._be_strange(client) for _ in range(self.size.strangers)),
            ]
            writing = [asyncio.create_task(each) for each in acts]
            try:
                await act()
            finally:
                self._is_over = True
                await asyncio.gather(*writing)

    async def lost_writes(self) -> int:
        """Return how many browsers find less than what was acknowledged to them."""
        lost = 0
        async with self._client() as client:
            for number, cookie in enumerate(self._cookies):
                for _ in range(100):
                    url, headers = f"{self.app.base}/read", {"Cookie": cookie}
                    async with client.get(url, headers=headers) as response:
                        if response.status == 200:
                            held: dict[str, int] = await response.json()
                            acknowledged = self._acknowledged[number].items()
                            lost += any(held.get(key, -1) < n for key, n in acknowledged)
                            self.lost_sessions += "n" not in held
                            break
                    await asyncio.sleep(0.1)
                else:
                    raise RuntimeError("the application does not get well")
        return lost

    def _client(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), connector=aiohttp.TCPConnector(limit=0)
        )

    async def _write(self, client: aiohttp.ClientSession, number: int) -> None:
        waiting: set[asyncio.Task[None]] = set()
        while not self._is_over:
            write = asyncio.create_task(self._write_once(client, number))
            if self.size.has_open_loop:
                waiting.add(write)
                write.add_done_callback(waiting.discard)
            else:
                await write
            await self._pause()
        await asyncio.gather(*waiting)

    async def _write_once(self, client: aiohttp.ClientSession, number: int) -> None:
        self._sent[number] += 1
        sent = self._sent[number]
        # In an open loop, a later write may overtake an earlier one.
        key = f"{sent}" if self.size.has_open_loop else "n"
        url = f"{self.app.base}/write?key={key}&n={sent}"
        status = await self._ask(client, url, self.answers, {"Cookie": self._cookies[number]})
        if status == 200:
            self._acknowledged[number][key] = sent

    async def _be_strange(self, client: aiohttp.ClientSession) -> None:
        while not self._is_over:
            await self._ask(client, f"{self.app.base}/read", self.strangers, {})
            await self._pause()

    async def _pause(self) -> None:
        # Each another one, so that the browsers do not move in step and wait for one another.
        await asyncio.sleep(self.size.pause * self._random.uniform(0.5, 1.5))

    async def _ask(
        self,
        client: aiohttp.ClientSession,
        url: str,
        answers: list[Answer],
        headers: dict[str, str],
    ) -> int:
        began_at, status = time.monotonic(), BROKEN
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        try:
            async with client.get(url, headers=headers) as response:
                await response.read()
                status = response.status
        except aiohttp.ClientConnectorError:
            status = REFUSED
        except aiohttp.ClientError:
            pass
        finally:
            self._under_way -= 1
            answers.append(Answer(began_at, time.monotonic() - began_at, status))
        return status


async def found_by(app: Application, fault: Fault) -> Found:
    """Do *fault* to the back-end of *app*, and return what became of the requests."""
    size = fault.size
    browsers = Browsers(app, size)
    began_at = ended_at = whole_at = 0.0
    calls = [0, 0]

    async def act() -> None:
        nonlocal began_at, ended_at, whole_at
        await asyncio.sleep(size.before)
        calls[0] = await _calls(app)
        began_at = time.monotonic()
        await fault.begin()
        lasting = asyncio.create_task(asyncio.sleep(size.lasts))
        if fault.replaced is not None:
            await fault.replaced()
            whole_at = time.monotonic()
        await lasting
        ended_at = time.monotonic()
        whole_at = whole_at or ended_at
        calls[1] = await _calls(app)
        await fault.end()
        await asyncio.sleep(size.after)

    await browsers.run(act)
    found = Found(fault.name, fault.note)
    during = [each for each in browsers.answers if began_at <= each.at < ended_at]
    unwell = [each for each in browsers.answers if each.at >= began_at and each.status != 200]
    found.requests = len(during)
    found.statuses.update(each.status for each in during)
    found.slowest = max(each.seconds for each in browsers.answers)
    # Once it is known that the back-end is away.
    known_at = min((each.at + each.seconds for each in during if each.status != 200), default=0.0)
    found.median = _median([each for each in during if each.at >= known_at])
    found.strangers_median = _median(
        [each for each in browsers.strangers if max(began_at, known_at) <= each.at < ended_at]
    )
    found.piled_up = browsers.most
    found.calls = calls[1] - calls[0]
    well_at = max((each.at + each.seconds for each in unwell), default=0.0)
    found.well_after = max(0.0, well_at - whole_at)
    found.strangers_refused = sum(each.status != 200 for each in browsers.strangers)
    found.lost_writes = await browsers.lost_writes()
    found.lost_sessions = browsers.lost_sessions
    found.lines = app.lines
    return found


def _median(answers: list[Answer]) -> float:
    return statistics.median(each.seconds for each in answers) if answers else 0.0


async def _calls(app: Application) -> int:
    async with aiohttp.ClientSession() as client, client.get(f"{app.base}/stats") as response:
        count: Any = await response.json()
        return int(count)


def acts_on(server: Server) -> dict[str, Act]:
    """Return what can be done to *server*, as acts."""

    def act(do: Callable[[], None]) -> Act:
        async def done() -> None:
            await asyncio.to_thread(do)

        return done

    return {
        name: act(getattr(server, name)) for name in ("pause", "resume", "stop", "start", "kill")
    }
