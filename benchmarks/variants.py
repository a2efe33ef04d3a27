"""What is measured by the clock: the servers, their variants, and what is expected of them."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Server:
    """One application in one process; ``{redis}`` and ``{memcached}`` stand for their ports."""

    name: str
    command: tuple[str, ...]
    bare: str = "bare"
    """The server with the bare handler of the same framework."""
    back_end: str | None = None
    needs: tuple[str, ...] = ()
    keeps_counting: bool = True
    """Whether the number grows on the server, which a cookie that is replayed does not."""
    has_sessions: bool = True
    is_ours: bool = True
    """Whether it is server.py: an application for aiohttp."""

    def missing(self) -> str | None:
        """Return what is not there to run it, or ``None``."""
        for need in self.needs:
            if need.startswith("node:"):
                folder = HERE / "peers" / "node_modules" / need.removeprefix("node:")
                if shutil.which("node") is None or not folder.is_dir():
                    return f"{need.removeprefix('node:')} (npm install in benchmarks/peers)"
            elif importlib.util.find_spec(need) is None:
                return need
        return None

    def started(self, loop: str, options: Sequence[str]) -> Server:
        """Return the same on another event loop, with more *options*; peers have their own."""
        if not self.is_ours:
            return self
        needs = (*self.needs, "uvloop") if loop == "uvloop" else self.needs
        return replace(self, command=(*self.command, "--loop", loop, *options), needs=needs)


@dataclass(frozen=True)
class Variant:
    """One route of a server."""

    name: str
    label: str
    server: str
    path: str
    rival: str | None = None
    """The variant whose requests per second it is compared with."""


def _python(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, str(HERE / "server.py"), "--port", "{port}", *arguments)


def _node(framework: str, storage: str) -> tuple[str, ...]:
    return ("node", str(HERE / "peers" / "server.js"), framework, storage, "{port}")


def _starlette(storage: str) -> tuple[str, ...]:
    return (sys.executable, str(HERE / "peers" / "starlette_server.py"), storage, "{port}")


REDIS = "redis://127.0.0.1:{redis}/0"
MEMCACHED = "memcached://127.0.0.1:{memcached}"

SERVERS = [
    Server("bare", _python("--sessions", "none"), has_sessions=False),
    Server("empty-middleware", _python("--sessions", "empty-middleware"), has_sessions=False),
    Server("sketch", _python("--sessions", "sketch")),
    Server("memory", _python("--storage", "memory:")),
    Server("redis", _python("--storage", REDIS), back_end="redis", needs=("redis",)),
    Server(
        "redis-eager", _python("--storage", REDIS, "--eager"), back_end="redis", needs=("redis",)
    ),
    Server(
        "memcached",
        _python("--storage", MEMCACHED),
        back_end="memcached",
        needs=("aiosess.storages.memcached",),
    ),
    Server(
        "as-redis",
        _python("--sessions", "aiohttp-session", "--storage", REDIS),
        back_end="redis",
        needs=("redis",),
    ),
    Server(
        "as-memcached",
        _python("--sessions", "aiohttp-session", "--storage", MEMCACHED),
        back_end="memcached",
        needs=("aiomcache",),
    ),
    Server(
        "as-cookie",
        _python("--sessions", "aiohttp-session", "--storage", "cookie:"),
        needs=("cryptography",),
        keeps_counting=False,
    ),
]

BARE, EMPTY = "bare", "empty-middleware"

VARIANTS = [
    Variant(BARE, "the bare handler", "bare", "/read"),
    # What this one shows beside 1.00 is noise, and what memory-read-again shows beside memory-read.
    Variant("bare-again", "the bare handler, once more", "bare", "/read"),
    # aiohttp does more as soon as there is a middleware: what is beyond this one is the session's.
    Variant(EMPTY, "a middleware that does nothing", "empty-middleware", "/read"),
    Variant("excluded", "aiosess, route excluded", "memory", "/excluded"),
    Variant("unused", "aiosess, not used", "memory", "/plain"),
    *(
        Variant(f"{name}-{act}", f"{label}, {act}", name, f"/{act}", rival and f"{rival}-{act}")
        for name, label, rival in (
            ("memory", "aiosess, memory", None),
            ("redis", "aiosess, Redis", "as-redis"),
            ("as-redis", "aiohttp-session, Redis", None),
            ("memcached", "aiosess, memcached", "as-memcached"),
            ("as-memcached", "aiohttp-session, memcached", None),
        )
        for act in ("read", "write")
    ),
    Variant(
        "memory-read-again", "aiosess, memory, read, once more", "memory", "/read", "memory-read"
    ),
]

# Measured where they are asked for by name.
MORE_VARIANTS = [
    # The least that a session can do: see sketch.py.
    Variant("sketch-read", "a sketch, memory, read", "sketch", "/read"),
    Variant("sketch-write", "a sketch, memory, write", "sketch", "/write"),
    Variant("redis-eager-read", "aiosess, Redis, eager, read", "redis-eager", "/read"),
    Variant("as-cookie-read", "aiohttp-session, encrypted cookie, read", "as-cookie", "/read"),
    Variant("as-cookie-write", "aiohttp-session, encrypted cookie, write", "as-cookie", "/write"),
]
QUICK = ["unused", "memory-read", "memory-write", "redis-read", "redis-write"]

_EXPRESS = ("node:express", "node:express-session", "node:connect-redis")
_FASTIFY = ("node:fastify", "node:@fastify/session", "node:connect-redis")
_STARSESSIONS = ("starsessions", "uvicorn", "redis")
PEER_SERVERS = [
    replace(each, is_ours=False)
    for each in (
        Server("express-bare", _node("express", "none"), needs=_EXPRESS, has_sessions=False),
        Server("express-memory", _node("express", "memory"), "express-bare", None, _EXPRESS),
        Server("express-redis", _node("express", REDIS), "express-bare", "redis", _EXPRESS),
        Server("fastify-bare", _node("fastify", "none"), needs=_FASTIFY, has_sessions=False),
        Server("fastify-memory", _node("fastify", "memory"), "fastify-bare", None, _FASTIFY),
        Server("fastify-redis", _node("fastify", REDIS), "fastify-bare", "redis", _FASTIFY),
        Server("starlette-bare", _starlette("none"), needs=_STARSESSIONS, has_sessions=False),
        Server("starsessions-redis", _starlette(REDIS), "starlette-bare", "redis", _STARSESSIONS),
    )
]
PEER_VARIANTS = [
    *(
        Variant(f"{name}-bare", f"the bare handler of {label}", f"{name}-bare", "/read")
        for name, label in (
            ("express", "Express"),
            ("fastify", "fastify"),
            ("starlette", "Starlette"),
        )
    ),
    *(
        Variant(f"{server}-{act}", f"{label}, {act}", server, f"/{act}")
        for server, label in (
            ("express-memory", "express-session, memory"),
            ("express-redis", "express-session, connect-redis"),
            ("fastify-memory", "@fastify/session, memory"),
            ("fastify-redis", "@fastify/session, connect-redis"),
            ("starsessions-redis", "starsessions, Redis"),
        )
        for act in ("read", "write")
    ),
]
BESIDE_PEERS = [BARE, EMPTY, "memory-read", "memory-write", "redis-read", "redis-write"]

ALL_SERVERS = {each.name: each for each in (*SERVERS, *PEER_SERVERS)}
ALL_VARIANTS = {each.name: each for each in (*VARIANTS, *MORE_VARIANTS, *PEER_VARIANTS)}


@dataclass(frozen=True)
class Expected:
    """A figure of one variant, and what it should be; *is_most*: it should be no more.

    What a session may cost is counted in instructions: see goals.py.
    """

    what: str
    variant: str
    figure: str
    bound: float
    is_most: bool = False


EXPECTED = [
    Expected("commands a request", "redis-read", "commands", 1, is_most=True),
    Expected("commands a request", "redis-write", "commands", 2, is_most=True),
    Expected("connections to Redis", "redis-read", "connections", 1, is_most=True),
    Expected("CPU, times aiohttp-session's", "redis-read", "rival", 0.5, is_most=True),
    Expected("CPU, times aiohttp-session's", "redis-write", "rival", 0.4, is_most=True),
    *(
        Expected("p99, times the bare handler's", name, "p99", 2, is_most=True)
        for name in ("excluded", "unused", *(f"{each}-read" for each in ("memory", "redis")))
    ),
]
