"""A primary with a replica, and three sentinels that watch them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import redis as blocking

from tests.servers import RedisServer, Server, binary, free_port

__all__ = [
    "NAME",
    "SentinelServer",
    "Watched",
    "wait_until",
    "wait_until_a_failover_is_possible",
]

NAME: Final = "sessions"


class SentinelServer(Server):
    """A redis-sentinel that watches *primary* with others; two must agree."""

    def __init__(self, folder: Path, primary: RedisServer) -> None:
        folder.mkdir()
        port = free_port()
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor {NAME} 127.0.0.1 {primary.port} 2\n"
            f"sentinel down-after-milliseconds {NAME} 500\n"
            f"sentinel failover-timeout {NAME} 2000\n"
        )
        super().__init__([binary("redis-server"), str(config), "--sentinel"], port)


class Watched:
    """A primary with a replica, and three sentinels."""

    def __init__(self, folder: Path) -> None:
        (folder / "primary").mkdir(parents=True)
        (folder / "replica").mkdir()
        quickly = ("--repl-diskless-sync-delay", "0")
        self.primary = RedisServer(folder / "primary", *quickly)
        of_primary = ("--replicaof", "127.0.0.1", str(self.primary.port))
        self.replica = RedisServer(folder / "replica", *quickly, *of_primary)
        self.sentinels = [SentinelServer(folder / f"sentinel-{n}", self.primary) for n in range(3)]

    @property
    def servers(self) -> list[Server]:
        return [self.primary, self.replica, *self.sentinels]

    @property
    def hosts(self) -> list[tuple[str, int]]:
        return [("127.0.0.1", sentinel.port) for sentinel in self.sentinels]

    @property
    def url(self) -> str:
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"redis+sentinel://{hosts}/{NAME}"


def wait_until_a_failover_is_possible(watched: Watched) -> None:
    """Wait until all sentinels know each other and the replica."""
    for sentinel in watched.sentinels:
        with blocking.Redis(port=sentinel.port) as client:
            wait_until(partial(is_complete, client))


def wait_until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_complete(sentinel: Any) -> bool:
    state = sentinel.sentinel_masters()[NAME]
    return bool(state["num-other-sentinels"] == 2 and state["num-slaves"] == 1)
