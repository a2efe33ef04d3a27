"""Real servers on free loopback ports, started by the tests and stopped by process id."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

import pytest

ABOVE: Final = 10_000
_HIGHEST_PORT: Final = 65_535


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on.

    Ten thousand above is one too, by which nodes of a cluster of Redis 6 talk to each other.
    """
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port <= _HIGHEST_PORT - ABOVE:
            return port


@functools.cache
def redis_version() -> tuple[int, ...]:
    """Return the version of what is called redis-server here; Valkey's go on from 7.2."""
    found = shutil.which("redis-server")
    if found is None:
        return (0, 0)
    said = subprocess.run([found, "--version"], check=True, capture_output=True, text=True).stdout
    return tuple(int(number) for number in re.findall(r"v=(\d+)\.(\d+)", said)[0])


@functools.cache
def speaks_tls() -> bool:
    """Return whether what is called redis-server here was built with TLS."""
    # That is what it says, without a certificate, and ends.
    command = [binary("redis-server"), "--port", "0", "--tls-port", str(free_port())]
    said = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    return "Failed to configure TLS" in said.stdout


def binary(name: str) -> str:
    """Return where *name* is installed; without it skip, or fail where CI is set."""
    found = shutil.which(name)
    if found is not None:
        return found
    message = f"{name} is not installed: `make servers` installs it"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


class Server:
    """One process that listens on a loopback port; it can be stopped, started again and paused."""

    host = "127.0.0.1"

    def __init__(self, command: list[str], port: int) -> None:
        self.port = port
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and wait until it listens."""
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection((self.host, self.port)):
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self._command[0]} did not start")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop the process and wait until it is gone."""
        if self._process is not None:
            self.resume()
            self.kill()
            self._process = None

    def kill(self) -> None:
        """End at once, even while it is paused."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """Let the process hang: connections are accepted, nothing is answered."""
        self._signal(signal.SIGSTOP)
        if self._process is not None:
            # The signal is on its way only; until it arrives, the server still answers.
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)


class RedisServer(Server):
    """A redis-server that keeps nothing on disk; *options* are those of its command line."""

    def __init__(self, folder: Path, *options: str) -> None:
        port = free_port()
        command = [binary("redis-server"), "--port", str(port), "--bind", "127.0.0.1"]
        command += ["--save", "", "--appendonly", "no", "--dir", str(folder), *options]
        super().__init__(command, port)

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"redis://127.0.0.1:{self.port}/0"


class ReplicaServer(RedisServer):
    """A replica of *primary*, on the same port of another loopback address."""

    host = "127.0.0.2"

    def __init__(self, folder: Path, primary: RedisServer) -> None:
        super().__init__(folder, "--replicaof", primary.host, str(primary.port))
        self.port = primary.port
        self._command[self._command.index("--port") + 1] = str(self.port)
        self._command[self._command.index("--bind") + 1] = self.host

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"redis://{self.host}:{self.port}/0"


class ClusterServer(RedisServer):
    """A redis-server that belongs to a cluster."""

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder, "--cluster-enabled", "yes", *options)
        self.bus_port: int = self.port + ABOVE
        if redis_version() >= (7, 0):
            self.bus_port = free_port()
            self._command += ["--cluster-port", str(self.bus_port)]


class MemcachedServer(Server):
    """A memcached; *options* are those of its command line."""

    def __init__(self, *options: str) -> None:
        port = free_port()
        # As root, memcached insists on a user to become.
        command = [binary("memcached"), "-l", "127.0.0.1", "-p", str(port), "-U", "0"]
        command += ["-u", "root" if os.geteuid() == 0 else str(os.geteuid()), *options]
        super().__init__(command, port)

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"memcached://127.0.0.1:{self.port}"
