"""What a back-end counted: its commands and the bytes that came and went."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import redis

# What the harness asks for itself, and what opens a connection.
_NOT_COUNTED = {"echo", "info", "monitor", "hello", "auth", "select", "client"}
_SCRIPTS = {"eval", "evalsha", "eval_ro", "evalsha_ro", "fcall", "fcall_ro"}


@dataclass
class Counts:
    """Commands by name, and bytes."""

    commands: Counter[str] = field(default_factory=Counter)
    bytes_in: int = 0
    bytes_out: int = 0

    def __sub__(self, other: Counts) -> Counts:
        return Counts(
            Counter(
                {
                    name: count - other.commands[name]
                    for name, count in self.commands.items()
                    if count != other.commands[name]
                }
            ),
            self.bytes_in - other.bytes_in,
            self.bytes_out - other.bytes_out,
        )


class BackEnd(Protocol):
    """A server that counts."""

    name: str
    port: int
    version: str

    def counts(self) -> Counts:
        """Return what was counted since the server began."""
        ...

    def between(self, before: Counts, after: Counts) -> Counts:
        """Return what the clients sent, without what was asked by us and done by scripts."""
        ...


class RedisCounter:
    """Reads ``INFO``."""

    name = "redis"

    def __init__(self, port: int) -> None:
        self.port = port
        self._client: Any = redis.Redis(port=port)
        self.version = f"Redis {self._client.info('server')['redis_version']}"
        self._inside: Counter[str] = Counter()
        self._scripts = 0
        first = self.counts()
        second = self.counts()
        # One of the two readings falls between before and after.
        self._asking = Counts(
            bytes_in=second.bytes_in - first.bytes_in, bytes_out=second.bytes_out - first.bytes_out
        )

    def counts(self) -> Counts:
        traffic = self._client.info("stats")
        calls = {
            name.removeprefix("cmdstat_"): figures["calls"]
            for name, figures in self._client.info("commandstats").items()
        }
        commands = Counter(
            {
                name: count
                for name, count in calls.items()
                if name.partition("|")[0] not in _NOT_COUNTED
            }
        )
        return Counts(commands, traffic["total_net_input_bytes"], traffic["total_net_output_bytes"])

    def learn_scripts(self, act: Callable[[], None]) -> None:
        """Watch (``MONITOR``) what scripts call while *act* runs: INFO counts that too."""
        marker = "the end of what is watched"
        with self._client.monitor() as monitor:
            act()
            self._client.echo(marker)
            for seen in monitor.listen():
                name = seen["command"].split(" ", 1)[0].lower()
                if seen["client_type"] == "lua":
                    self._inside[name] += 1
                elif name in _SCRIPTS:
                    self._scripts += 1
                elif marker in seen["command"]:
                    return

    def between(self, before: Counts, after: Counts) -> Counts:
        counts = after - before
        scripts = sum(counts.commands[name] for name in _SCRIPTS)
        for name, count in self._inside.items():
            counts.commands[name] -= round(scripts * count / self._scripts)
        counts.commands = +counts.commands
        return Counts(
            counts.commands,
            max(0, counts.bytes_in - self._asking.bytes_in),
            max(0, counts.bytes_out - self._asking.bytes_out),
        )


class MemcachedCounter:
    """Reads ``stats``."""

    name = "memcached"

    def __init__(self, port: int) -> None:
        self.port = port
        self._connection = socket.create_connection(("127.0.0.1", port))
        self._file = self._connection.makefile("rb")
        self.version = f"memcached {self._stats()['version']}"
        first = self.counts()
        self._asking = self.counts() - first

    def counts(self) -> Counts:
        stats = self._stats()
        commands = Counter(
            {
                "get": int(stats["cmd_get"]),
                # Compare-and-set and add as well.
                "set": int(stats["cmd_set"]),
                # Get-and-touch as well.
                "touch": int(stats["cmd_touch"]),
                "delete": int(stats["delete_hits"]) + int(stats["delete_misses"]),
            }
        )
        return Counts(commands, int(stats["bytes_read"]), int(stats["bytes_written"]))

    def between(self, before: Counts, after: Counts) -> Counts:
        counts = after - before
        return Counts(
            counts.commands,
            max(0, counts.bytes_in - self._asking.bytes_in),
            max(0, counts.bytes_out - self._asking.bytes_out),
        )

    def _stats(self) -> dict[str, str]:
        self._connection.sendall(b"stats\r\n")
        stats = {}
        while (line := self._file.readline().decode().strip()) != "END":
            _, name, value = line.split(" ", 2)
            stats[name] = value
        return stats
