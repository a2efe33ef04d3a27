"""A real memcached with options of its own, into which a test can look."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.servers import MemcachedServer


class Memcached(MemcachedServer):
    """A memcached with command line options of its own, and a way to look into it."""

    def __init__(self, *options: str) -> None:
        super().__init__()
        self._command += options

    def ask(self, command: str) -> str:
        """Send one command over a connection of its own, and return the whole reply."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(f"{command}\r\nquit\r\n".encode())
            with connection.makefile("rb") as reply:
                return reply.read().decode()

    def seconds_left(self, key: str) -> int:
        found = re.match(r"HD t(-?\d+)", self.ask(f"mg {key} t"))
        assert found is not None
        return int(found[1])

    def statistic(self, name: str) -> int:
        found = re.search(rf"STAT {name} (\d+)", self.ask("stats"))
        assert found is not None
        return int(found[1])


@contextmanager
def running(*options: str) -> Iterator[Memcached]:
    server = Memcached(*options)
    server.start()
    try:
        yield server
    finally:
        server.stop()
