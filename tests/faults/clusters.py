"""A cluster of three primaries, each with a replica."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import redis as blocking

from tests.servers import ClusterServer

__all__ = ["Cluster", "cluster_in"]

_SLOTS: Final = 16384
_PRIMARIES: Final = 3


class Cluster:
    """Six servers: the first three are primaries, each of the others a replica of one of them.

    A primary that says nothing for *patience* seconds is replaced.
    """

    def __init__(self, folder: Path, patience: float) -> None:
        self.nodes: list[ClusterServer] = []
        for number in range(2 * _PRIMARIES):
            home = folder / f"node-{number}"
            home.mkdir(parents=True)
            patient = ("--cluster-node-timeout", f"{patience * 1000:.0f}")
            self.nodes.append(ClusterServer(home, *patient, "--repl-diskless-sync-delay", "0"))

    @property
    def url(self) -> str:
        """Where clients connect."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"redis+cluster://{hosts}"

    @property
    def replicas(self) -> list[ClusterServer]:
        """The replicas, in the order of their primaries."""
        return self.nodes[_PRIMARIES:]

    def form(self) -> None:
        """Share the slots among the primaries, and give each its replica."""
        first, *others = self.nodes
        for other in others:
            self._ask(first, "CLUSTER", "MEET", "127.0.0.1", other.port, other.bus_port)
        for number, node in enumerate(self.nodes[:_PRIMARIES]):
            begin, end = (_SLOTS * each // _PRIMARIES for each in (number, number + 1))
            self._ask(node, "CLUSTER", "ADDSLOTS", *range(begin, end))
        _wait_until(lambda: all(len(self._known(node)) == len(self.nodes) for node in self.nodes))
        for primary, replica in zip(self.nodes[:_PRIMARIES], self.replicas, strict=True):
            self._ask(replica, "CLUSTER", "REPLICATE", self._ask(primary, "CLUSTER", "MYID"))
        _wait_until(lambda: all(self._is_well(node) for node in self.nodes))
        # A replica that has not read its primary's data does not take its place.
        _wait_until(lambda: all(self._has_data(node) for node in self.replicas))

    def _is_well(self, node: ClusterServer) -> bool:
        roles = [line.split()[2] for line in self._known(node)]
        replicas = sum("slave" in role for role in roles)
        return "cluster_state:ok" in self._ask(node, "CLUSTER", "INFO") and replicas == _PRIMARIES

    def _has_data(self, replica: ClusterServer) -> bool:
        return "master_link_status:up" in self._ask(replica, "INFO", "replication")

    def _known(self, node: ClusterServer) -> list[str]:
        lines = self._ask(node, "CLUSTER", "NODES").splitlines()
        return [line for line in lines if "handshake" not in line]

    def _ask(self, node: ClusterServer, *command: str | int) -> str:
        with blocking.Redis(port=node.port, decode_responses=True) as client:
            answer: Any = client.execute_command(*command)
        if isinstance(answer, dict):
            # As redis-py reads CLUSTER NODES and INFO.
            return "\n".join(
                f"{each} - {value.get('flags')}" if isinstance(value, dict) else f"{each}:{value}"
                for each, value in answer.items()
            )
        return str(answer)


def _wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        if time.monotonic() > deadline:
            raise RuntimeError("the cluster did not form")
        time.sleep(0.05)


@contextlib.contextmanager
def cluster_in(folder: Path, *, patience: float = 1.0) -> Iterator[Cluster]:
    """Give a cluster that is well, and stop it afterwards."""
    cluster = Cluster(folder, patience)
    with contextlib.ExitStack() as stack:
        for node in cluster.nodes:
            node.start()
            stack.callback(node.stop)
        cluster.form()
        yield cluster
