"""The parts of the path, one by one: what each cookie, record, decision and storage call takes.

    make bench-micro
    python benchmarks/micro.py --only 'cookie*,whole*'
    python benchmarks/micro.py --against HEAD~1

It takes the options of pyperf (--fast, --rigorous, -o FILE for ``pyperf compare_to``). With
--against, the working tree and another revision (or a folder that holds an aiosess) run in slices
of a few milliseconds, A B A B, on one core, and are compared slice by slice: that holds on a noisy
machine too, and shows differences of a few percent in half a minute.
"""

# Each part is imported where it is measured: another revision may not have it.
# ruff: noqa: PLC0415

from __future__ import annotations

import argparse
import asyncio
import fnmatch
import itertools
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pyperf  # type: ignore[import-untyped,unused-ignore]  # it has no types
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from processes import cores, pinned
from revisions import ROOT, unpacked

SECRET = "a secret for the benchmarks, longer than 32 bytes"
BROWSER = {"Host": "example.org", "User-Agent": "x" * 80, "Accept": "*/*"}
DAY = 86_400.0

Act = Callable[[], object]
AsyncAct = Callable[[], Awaitable[object]]
Cases = Iterator[tuple[str, Act | AsyncAct]]


def data(size: int) -> dict[str, Any]:
    """Return session data of about *size* bytes of JSON."""
    item = {"sku": "A-1234", "count": 2, "price": 9.95, "gift": False}
    return {"number": 1, "name": "alice", "cart": [dict(item) for _ in range(size // 60)]}


def cookies() -> Cases:
    from aiosess.transports.cookie import Signer, set_cookie

    signer = Signer(SECRET)
    session_id = "x" * 32
    signed = signer.sign(session_id)

    def request(value: str) -> web.Request:
        header = f"_ga=GA1.2.1234.5678; theme=dark; sid={value}; consent=yes"
        return make_mocked_request("GET", "/", headers={**BROWSER, "Cookie": header})

    ours, forged = request(signed), request(signed[:-1] + "!")
    without = make_mocked_request("GET", "/", headers=BROWSER)
    assert signer.read("sid", ours) is not None
    assert signer.read("sid", forged) is None
    yield "cookie: read and verify, the third of four", lambda: signer.read("sid", ours)
    yield "cookie: refuse a forged one", lambda: signer.read("sid", forged)
    yield "cookie: none", lambda: signer.read("sid", without)
    yield "cookie: sign", lambda: signer.sign(session_id)

    cookie = session_cookie()

    def write() -> None:
        set_cookie(web.Response(), "sid", signed, cookie, now=1_800_000_000.0)

    yield "cookie: a response", web.Response
    yield "cookie: a response and its Set-Cookie", write


def session_cookie() -> Any:
    from aiosess.attributes import CookieOptions, SessionCookie

    return SessionCookie(CookieOptions(max_age=DAY).resolve(is_secure=False))


def decisions() -> Cases:
    from aiosess.records.decide import Ending, Rules, decide, decide_reply

    rules = Rules()
    read, written = Ending(is_stored=True), Ending(is_stored=True, is_modified=True)

    def both(end: Ending) -> object:
        action = decide(end, rules)
        return decide_reply(action, end, rules, is_persistent=True, is_alias=False)

    yield "decide: after reading", lambda: both(read)
    yield "decide: after writing", lambda: both(written)


def records() -> Cases:
    from aiosess.records.format import decode, encode

    cookie = session_cookie()
    for size in (100, 1_000, 10_000):
        content = data(size)

        def write(content: dict[str, Any] = content) -> bytes:
            return encode("id", content, cookie, created_at=1_800_000_000.0, now=1_800_000_000.0)

        payload = write()
        yield f"record: encode {size} bytes", write
        yield f"record: decode {size} bytes", lambda payload=payload: decode(payload)


def merges() -> Cases:
    from aiosess.records.merge import freeze, is_same, merged

    base, theirs = data(1_000), {**data(1_000), "theirs": 1, "seen": 2}
    cart = base["cart"]
    frozen = freeze(cart)
    changes: Any = {"number": (1, 2), "seen": (1, 3), "cart": (frozen, [*cart, {"sku": "B"}])}
    yield "merge: freeze a list of 1000 bytes", lambda: freeze(cart)
    yield "merge: is it the same still", lambda: is_same(frozen, cart)
    yield "merge: three changes on top of theirs", lambda: merged(changes, theirs, "mine")


def storages() -> Cases:
    from aiosess.storages.memory import MemoryStorage

    storage = MemoryStorage()
    payload = b"x" * 300
    numbers = itertools.count()
    version: Any = asyncio.run(storage.create("known", payload, DAY))

    async def fill() -> None:
        for number in range(10_000):
            await storage.create(f"other {number}", payload, DAY)

    asyncio.run(fill())

    async def create_and_delete() -> None:
        session_id = f"new {next(numbers)}"
        await storage.create(session_id, payload, DAY)
        await storage.delete(session_id)

    async def replace() -> None:
        nonlocal version
        version = await storage.replace("known", payload, DAY, expected=version)

    yield "memory: create and delete", create_and_delete
    yield "memory: load", lambda: storage.load("known")
    yield "memory: load what is not there", lambda: storage.load("unknown")
    yield "memory: replace", replace
    yield "memory: touch", lambda: storage.touch("known", DAY)


def whole_requests() -> Cases:
    """The middleware around a handler, without aiohttp's server."""
    from aiosess import SessionOptions, get_session, session_middleware

    async def bare(_request: web.Request) -> web.StreamResponse:
        return web.Response(text="0")

    async def read(request: web.Request) -> web.StreamResponse:
        session: Any = await get_session(request)
        return web.Response(text=str(session["number"]))

    async def write(request: web.Request) -> web.StreamResponse:
        session: Any = await get_session(request)
        session["number"] = session.get("number", 0) + 1
        return web.Response(text=str(session["number"]))

    app = web.Application()
    app.router.add_get("/", bare)
    app.router.add_get("/excluded", bare)
    serve: Any = session_middleware(SessionOptions(secret=SECRET, exclude=["/excluded"]))

    async def request(path: str, cookie: str) -> web.Request:
        made = make_mocked_request("GET", path, headers={**BROWSER, "Cookie": cookie})
        match_info = await app.router.resolve(made)
        match_info.add_app(app)
        match_info.freeze()
        made._match_info = match_info  # noqa: SLF001 - as the application sets it
        made._transport_sslcontext = None  # noqa: SLF001 - the mock would be true
        return made

    async def prepare() -> list[web.Request]:
        first = await serve(await request("/", ""), write)
        cookie = first.headers["Set-Cookie"].partition(";")[0]
        return [await request(path, f"theme=dark; {cookie}") for path in ("/", "/excluded")]

    ours, excluded = asyncio.run(prepare())

    def run(made: web.Request, handler: Any) -> AsyncAct:
        async def act() -> object:
            # As good as new.
            made._state.clear()  # noqa: SLF001 - there is no other way
            return await serve(made, handler)

        return act

    yield "whole: the bare handler", lambda: bare(ours)
    yield "whole: route excluded", run(excluded, bare)
    yield "whole: not used", run(ours, bare)
    yield "whole: read, memory", run(ours, read)
    yield "whole: write, memory", run(ours, write)


GROUPS = [cookies, decisions, records, merges, storages, whole_requests]


def measure(arguments: list[str]) -> None:
    """Measure with pyperf, which runs this file again in processes of its own."""

    def pass_on(command: list[str], given: argparse.Namespace) -> None:
        if given.only:
            command += ["--only", given.only]

    runner = pyperf.Runner(
        values=5, processes=3, min_time=0.03, program_args=[__file__], add_cmdline_args=pass_on
    )
    runner.argparser.add_argument("--only", metavar="NAMES")
    given = runner.parse_args(arguments)
    for group in GROUPS:
        for name, act in cases(group):
            if not is_wanted(name, given.only):
                continue
            if is_async(act):
                runner.bench_async_func(name, act)
            else:
                runner.bench_func(name, act)


def cases(group: Callable[[], Cases]) -> Cases:
    """Yield the cases of *group* as far as this revision has what they call."""
    try:
        yield from group()
    except (ImportError, AttributeError, TypeError) as error:
        print(f"the rest of {group.__name__} is left out: {error}", file=sys.stderr)


def is_async(act: Callable[[], object]) -> bool:
    """Ask whether *act* returns something to await."""
    result = act()
    if asyncio.iscoroutine(result):
        result.close()
        return True
    return False


def compare(against: str, only: str | None, slices: int) -> None:
    """Measure the working tree and another revision in turn, and print the ratios."""
    with tempfile.TemporaryDirectory() as name, pinned(cores()[0]):
        other = Path(against) if Path(against).is_dir() else unpacked(against, Path(name))
        with Slicer(ROOT) as here, Slicer(other) as there:
            print(f"{'':44}   now ns   times {against} (quartiles)")
            for case in here.cases:
                if case not in there.cases or not is_wanted(case, only):
                    continue
                loops = here.loops_for(case)
                pairs = [(here.run(case, loops), there.run(case, loops)) for _ in range(slices)]
                lower, middle, upper = statistics.quantiles([now / then for now, then in pairs])
                now = statistics.median(each for each, _ in pairs) / loops * 1e9
                print(f"{case:44} {now:8.0f}   {middle:.2f} ({lower:.2f} to {upper:.2f})")


class Slicer:
    """A process that runs cases of the package in *tree* when it is told to."""

    def __init__(self, tree: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--slices-of", str(tree)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.cases: list[str] = self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()

    def run(self, case: str, loops: int) -> float:
        """Return the seconds that *loops* runs of *case* took."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([case, loops]) + "\n")
        self._process.stdin.flush()
        return float(self._answer())

    def loops_for(self, case: str) -> int:
        """Return how many runs take some milliseconds."""
        loops = 1
        while self.run(case, loops) < 0.005:
            loops *= 2
        return loops

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def run_slices(tree: str) -> None:
    """Be the process of a Slicer: say which cases there are, then run what is asked for."""
    import aiosess

    assert Path(aiosess.__file__).is_relative_to(Path(tree).resolve())
    acts = {name: act for group in GROUPS for name, act in cases(group)}
    awaited = {name for name, act in acts.items() if is_async(act)}
    loop = asyncio.new_event_loop()

    # Time on the processor: what others do on it meanwhile does not count.
    async def run_async(act: Any, loops: int) -> float:
        begun = time.thread_time()
        for _ in range(loops):
            await act()
        return time.thread_time() - begun

    def run(act: Any, loops: int) -> float:
        begun = time.thread_time()
        for _ in range(loops):
            act()
        return time.thread_time() - begun

    print(json.dumps(list(acts)), flush=True)
    for line in sys.stdin:
        name, loops = json.loads(line)
        if name in awaited:
            taken = loop.run_until_complete(run_async(acts[name], loops))
        else:
            taken = run(acts[name], loops)
        print(taken, flush=True)


def is_wanted(case: str, only: str | None) -> bool:
    return any(fnmatch.fnmatch(case, pattern) for pattern in (only or "*").split(","))


def main() -> None:
    # That MemoryStorage is for one process is known here.
    logging.getLogger("aiosess").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--against", metavar="REVISION")
    parser.add_argument("--slices", type=int, default=30)
    parser.add_argument("--slices-of", metavar="FOLDER")
    ours, theirs = parser.parse_known_args()
    if ours.slices_of is not None:
        run_slices(ours.slices_of)
    elif ours.against is not None:
        parser.add_argument("--only", metavar="NAMES")
        compare(ours.against, parser.parse_args().only, ours.slices)
    else:
        measure(theirs)


if __name__ == "__main__":
    main()
