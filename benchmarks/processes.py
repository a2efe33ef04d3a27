"""Servers of a benchmark: on free loopback ports, each on its core, stopped by process id."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path


def cores() -> tuple[int, int, int]:
    """Return the cores for the server, for the load, and for the back-ends.

    With two cores the back-ends share that of the load, so that the server has its own.
    """
    available = sorted(os.sched_getaffinity(0))
    return available[-1], available[0], available[1 if len(available) > 2 else 0]


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """Start what is started inside on *core* alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


LATENCY = Path("/dev/cpu_dma_latency")
IDLE_DRIVER = Path("/sys/devices/system/cpu/cpuidle/current_driver")


@contextlib.contextmanager
def kept_awake() -> Iterator[bool]:
    """Let no core go to sleep while it has nothing to do; False where that is not for us to say.

    It holds as long as the file is open, and ends with this process at the latest; see
    <https://docs.kernel.org/power/pm_qos_interface.html>.
    """
    if not IDLE_DRIVER.exists() or IDLE_DRIVER.read_text().strip() == "none":
        yield False
        return
    try:
        latency = LATENCY.open("wb", buffering=0)
    except OSError:
        yield False
        return
    with latency:
        latency.write((0).to_bytes(4, sys.byteorder))
        yield True


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """One server on its core; *command* has ``{port}`` where the port goes."""

    def __init__(
        self,
        name: str,
        command: list[str],
        *,
        core: int,
        folder: Path,
        env: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self.port = free_port()
        self._log = folder / f"{name}.log"
        filled = [part.replace("{port}", str(self.port)) for part in command]
        with self._log.open("wb") as log, pinned(core):
            self._process = subprocess.Popen(
                filled, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=env
            )
        self.pid = self._process.pid
        try:
            self._wait_until_it_listens()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it, and wait until it is gone."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()

    def log(self) -> str:
        """Return what it printed."""
        return self._log.read_text(errors="replace").strip()

    def cpu_seconds(self) -> float:
        """Return how long it was on a processor since it began, threads and kernel included.

        The clock of clock_getcpuclockid(3); /proc/PID/stat says the same in steps of 10 ms.
        """
        return time.clock_gettime((~self.pid << 3) | 2)

    def is_asleep(self) -> bool:
        """Ask whether it waits for something; one that waits for its core does not."""
        status = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return status == "S"

    def connections_to(self, port: int) -> int:
        """Count its open connections to *port*, as the kernel lists them."""
        folder = Path(f"/proc/{self.pid}/fd")
        own = set()
        for entry in folder.iterdir():
            with contextlib.suppress(OSError):
                own.add(entry.readlink().name)
        established = "01"
        count = 0
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{self.pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                remote_port = int(fields[2].rpartition(":")[2], 16)
                if remote_port == port and fields[3] == established:
                    count += f"socket:[{fields[9]}]" in own
        return count

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not start: {self.log()[-2000:]}")
            time.sleep(0.01)


def wait_until_idle(processes: list[Process]) -> None:
    """Wait until *processes* have done what was under way when the load stopped."""
    deadline = time.monotonic() + 5
    used, calm = 0.0, 0
    while calm < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
        before, used = used, sum(each.cpu_seconds() for each in processes)
        is_calm = used - before < 0.001 and all(each.is_asleep() for each in processes)
        calm = calm + 1 if is_calm else 0


def redis_server(*, core: int, folder: Path) -> Process:
    """Start a Redis that keeps nothing on disk."""
    command = [_binary("redis-server"), "--port", "{port}", "--bind", "127.0.0.1"]
    command += ["--save", "", "--appendonly", "no", "--dir", str(folder)]
    return Process("redis-server", command, core=core, folder=folder)


def memcached(*, core: int, folder: Path) -> Process:
    """Start a memcached."""
    # As root, memcached insists on a user to become.
    user = "root" if os.geteuid() == 0 else str(os.geteuid())
    command = [_binary("memcached"), "-l", "127.0.0.1", "-p", "{port}", "-U", "0"]
    command += ["-t", "1", "-u", user]
    return Process("memcached", command, core=core, folder=folder)


def _binary(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is not installed")
    return found
