"""What is measured: the servers, their variants, and the figures that aiosess wants to reach."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).parent
SESSIONS_AT_LEAST = 1024


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

    def under(self, loop: str, *options: str) -> Server:
        """Return the same on another event loop, with more *options*."""
        needs = (*self.needs, "uvloop") if loop == "uvloop" else self.needs
        command = (*self.command, "--loop", loop, *options)
        return replace(
            self,
            name=f"{self.name}-{loop}",
            bare=f"{self.bare}-{loop}",
            command=command,
            needs=needs,
        )


@dataclass(frozen=True)
class Variant:
    """One route of a server."""

    name: str
    label: str
    server: str
    path: str


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
    Server("again", _python("--sessions", "none"), has_sessions=False),
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

# Two that stand together are measured one right after the other, between two runs of the bare
# handler; where they are rivals, their requests per second are compared directly.
PAIRS: list[tuple[Variant, ...]] = [
    (
        Variant("unused", "aiosess, not used", "redis", "/plain"),
        # The most that a middleware can leave: aiohttp does more as soon as there is one.
        Variant("empty-middleware", "a middleware that does nothing", "empty-middleware", "/read"),
    ),
    (
        # The least that a session can do: see sketch.py.
        Variant("sketch-read", "a sketch, memory, read", "sketch", "/read"),
        Variant("sketch-write", "a sketch, memory, write", "sketch", "/write"),
    ),
    (
        Variant("memory-read", "aiosess, memory, read", "memory", "/read"),
        Variant("as-cookie-read", "aiohttp-session, encrypted cookie, read", "as-cookie", "/read"),
    ),
    (
        Variant("memory-write", "aiosess, memory, write", "memory", "/write"),
        Variant(
            "as-cookie-write", "aiohttp-session, encrypted cookie, write", "as-cookie", "/write"
        ),
    ),
    (
        Variant("redis-read", "aiosess, Redis, read", "redis", "/read"),
        Variant("as-redis-read", "aiohttp-session, Redis, read", "as-redis", "/read"),
    ),
    (
        Variant("redis-write", "aiosess, Redis, write", "redis", "/write"),
        Variant("as-redis-write", "aiohttp-session, Redis, write", "as-redis", "/write"),
    ),
    (
        Variant("memcached-read", "aiosess, memcached, read", "memcached", "/read"),
        Variant("as-memcached-read", "aiohttp-session, memcached, read", "as-memcached", "/read"),
    ),
    (
        Variant("memcached-write", "aiosess, memcached, write", "memcached", "/write"),
        Variant(
            "as-memcached-write", "aiohttp-session, memcached, write", "as-memcached", "/write"
        ),
    ),
    (
        Variant("excluded", "aiosess, route excluded", "redis", "/excluded"),
        Variant("redis-eager-read", "aiosess, Redis, eager, read", "redis-eager", "/read"),
        # What it shows beside 1.00 is noise.
        Variant("bare-again", "the bare handler in another process", "again", "/read"),
    ),
]

# These say nothing new at 1 and 256 connections.
ONLY_AT_32 = {
    "empty-middleware",
    "sketch-read",
    "sketch-write",
    "excluded",
    "redis-eager-read",
    "bare-again",
    "as-cookie-read",
    "as-cookie-write",
}
QUICK = ["unused", "memory-*", "redis-read", "redis-write"]

_EXPRESS = ("node:express", "node:express-session", "node:connect-redis")
_FASTIFY = ("node:fastify", "node:@fastify/session", "node:connect-redis")
_STARSESSIONS = ("starsessions", "uvicorn", "redis")
PEER_SERVERS = [
    Server(
        "express-bare", _node("express", "none"), "express-bare", None, _EXPRESS, has_sessions=False
    ),
    Server("express-memory", _node("express", "memory"), "express-bare", None, _EXPRESS),
    Server("express-redis", _node("express", REDIS), "express-bare", "redis", _EXPRESS),
    Server(
        "fastify-bare", _node("fastify", "none"), "fastify-bare", None, _FASTIFY, has_sessions=False
    ),
    Server("fastify-memory", _node("fastify", "memory"), "fastify-bare", None, _FASTIFY),
    Server("fastify-redis", _node("fastify", REDIS), "fastify-bare", "redis", _FASTIFY),
    Server(
        "starlette-bare",
        _starlette("none"),
        "starlette-bare",
        None,
        _STARSESSIONS,
        has_sessions=False,
    ),
    Server("starsessions-redis", _starlette(REDIS), "starlette-bare", "redis", _STARSESSIONS),
]
PEER_PAIRS: list[tuple[Variant, ...]] = [
    tuple(
        Variant(f"{server}-{act}", f"{label}, {act}", server, f"/{act}")
        for act in ("read", "write")
    )
    for server, label in (
        ("express-memory", "express-session, memory"),
        ("express-redis", "express-session, connect-redis"),
        ("fastify-memory", "@fastify/session, memory"),
        ("fastify-redis", "@fastify/session, connect-redis"),
        ("starsessions-redis", "starsessions, Redis"),
    )
]


@dataclass(frozen=True)
class Goal:
    """A figure of one variant, and what it should be; *is_most*: it should be no more.

    Without a bound it is shown for comparison.
    """

    what: str
    variant: str
    figure: str
    bound: float | None
    stretch: float | None = None
    connections: int = 32
    is_most: bool = False


_SHARE = "requests per second, share of the bare handler's"
_SHARES = [
    ("unused", 0.97, 0.99),
    ("excluded", 0.97, 0.99),
    ("memory-read", 0.80, 0.92),
    ("memory-write", 0.70, 0.82),
    ("redis-read", 0.75, 0.87),
    ("redis-write", 0.55, 0.70),
    ("memcached-read", 0.65, 0.80),
    ("memcached-write", 0.50, 0.68),
]

GOALS = [
    Goal(_SHARE, "empty-middleware", "ratio", None),
    Goal(_SHARE, "sketch-read", "ratio", None),
    Goal(_SHARE, "sketch-write", "ratio", None),
    *(Goal(_SHARE, name, "ratio", bound, stretch) for name, bound, stretch in _SHARES),
    Goal("requests per second, times those behind an empty middleware", "unused", "rival", None),
    Goal("commands a request", "redis-read", "commands", 1, is_most=True),
    Goal("commands a request", "redis-write", "commands", 2, is_most=True),
    Goal("connections to Redis", "redis-read", "connections", 1, is_most=True),
    *(
        Goal(
            "requests per second, times aiohttp-session's", name, "rival", bound, None, connections
        )
        for name, most in (("redis-read", 2.5), ("redis-write", 3.5))
        for connections, bound in ((32, most), (256, most), (1, 1.0))
    ),
    *(
        Goal("p99, times the bare handler's", name, "p99_ratio", 2, is_most=True)
        for name, _, _ in _SHARES
    ),
]
