"""Connections, nodes and clients of redis-py, by stand-ins for what a server seldom does."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from redis import exceptions

from aiosess.clients import redis, redis_clients


class Connection:
    """A connection of redis-py before 8, of a server that sent something unasked or not."""

    def __init__(self, *, is_readable: bool = False, error: Exception | None = None) -> None:
        self.done: list[str] = []
        self._is_readable = is_readable
        self._error = error

    async def connect(self) -> None:
        self.done.append("connect")

    async def disconnect(self, *, nowait: bool) -> None:
        assert nowait
        self.done.append("disconnect")

    async def can_read_destructive(self) -> bool:
        if self._error is not None:
            raise self._error
        return self._is_readable


class Node:
    """A node of a cluster, with one connection."""

    connection_class = Connection
    connection_kwargs: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def acquire_connection(self) -> Connection:
        return self._connection

    def release(self, connection: Connection) -> None:
        connection.done.append("release")


class Broken(Connection):
    async def connect(self) -> None:
        raise ConnectionRefusedError


@pytest.mark.parametrize(
    ("connection", "is_cut"),
    [
        (Connection(), False),
        (Connection(is_readable=True), True),
        (Connection(error=exceptions.ConnectionError("gone")), True),
        (Connection(error=OSError("gone")), True),
    ],
)
async def test_an_older_redis_py_says_whether_a_connection_is_cut(
    connection: Connection, *, is_cut: bool
) -> None:
    assert await redis._is_cut(connection) is is_cut


async def test_a_connection_to_a_node_that_was_cut_is_made_anew() -> None:
    connection = Connection(is_readable=True)

    await redis._NodePool(Node(connection)).get_connection()

    assert connection.done == ["connect", "disconnect", "connect"]


async def test_a_connection_to_a_node_that_cannot_be_made_is_given_back() -> None:
    connection = Broken()

    with pytest.raises(ConnectionRefusedError):
        await redis._NodePool(Node(connection)).get_connection()

    assert connection.done == ["release"]


def test_a_key_of_which_the_cluster_knows_no_node_has_none() -> None:
    class Client:
        def get_node_from_key(self, _key: str) -> None:
            raise exceptions.RedisClusterException

    assert redis._node_of(Client(), ("GET", "id")) is None


def test_what_ends_a_task_is_a_lost_connection_to_those_who_wait() -> None:
    ended = asyncio.CancelledError()

    failure = redis._as_failure(ended)

    assert isinstance(failure, exceptions.ConnectionError)
    assert failure.__cause__ is ended


async def test_the_error_of_a_task_for_which_nobody_waits_any_more_is_looked_at() -> None:
    async def fail() -> None:
        raise LookupError

    task = asyncio.create_task(fail())
    await asyncio.wait([task])

    redis._look_at(task)

    # asyncio logs at the end what nobody looked at.
    assert not task._log_traceback


def test_without_hiredis_there_is_no_connection_to_share() -> None:
    program = (
        "import sys; sys.modules['hiredis'] = None; "
        "from aiosess.clients import redis; print(redis._pack, redis._Reader, redis._Push)"
    )

    printed = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )

    assert printed.stdout == "None None ()\n"


class Knows:
    """The client of a cluster that knows the node of each key."""

    class Found:
        name = "127.0.0.1:7000"

    def get_node_from_key(self, _key: str) -> Knows.Found:
        return self.Found()


class KnowsNothing:
    def get_node_from_key(self, _key: str) -> None:
        raise exceptions.RedisClusterException


class WithoutPool:
    """A client that is not known here."""


@pytest.mark.parametrize(
    ("client", "name"),
    [(Knows(), "127.0.0.1:7000"), (KnowsNothing(), "cluster"), (WithoutPool(), "WithoutPool")],
)
def test_a_node_is_called_as_far_as_the_client_knows_it(client: Any, name: str) -> None:
    assert redis_clients.Clients(client).node_of("id") == name


def test_a_client_is_forgotten_with_its_event_loop() -> None:
    made: list[object] = []

    def make() -> Any:
        made.append(object())
        return made[-1]

    async def here() -> object:
        return clients.here()

    clients = redis_clients.Clients(make())
    clients.own(make)

    asyncio.run(here())
    asyncio.run(here())
    asyncio.run(here())

    assert len(made) == 3
    assert len(clients._by_loop) == 1


def test_a_client_that_was_handed_in_goes_along_to_the_next_event_loop() -> None:
    handed_in: Any = WithoutPool()
    clients = redis_clients.Clients(handed_in)

    async def here() -> object:
        return clients.here()

    assert [asyncio.run(here()) for _ in range(2)] == [handed_in, handed_in]


class Line:
    """The line of a wire, which notes what the wire leaves to another."""

    def __init__(self) -> None:
        self.wires: set[Any] = set()
        self.asked_again: list[Any] = []

    @staticmethod
    def meaning(error: Exception) -> Exception:
        return error

    def ask_again(self, calls: Any) -> None:
        self.asked_again.append(calls)


class Transport:
    """The transport of a connection, which may be about to close."""

    def __init__(self, *, is_closing: bool = False) -> None:
        self._is_closing = is_closing
        self.protocol: object = None

    def get_protocol(self) -> None:
        return None

    def set_protocol(self, protocol: object) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self._is_closing

    def get_extra_info(self, _name: str) -> None:
        return None

    def abort(self) -> None:
        self._is_closing = True

    def write(self, _data: bytes) -> None:
        raise AssertionError


class Pool:
    """A pool of redis-py with one connection, whose parser hears nothing that comes unasked."""

    class Parser:
        @staticmethod
        def parse_error(said: str) -> Exception:
            return exceptions.ResponseError(said)

    class Writer:
        def __init__(self, transport: Transport) -> None:
            self.transport = transport

    def __init__(self, transport: Transport) -> None:
        self._parser = self.Parser()
        self._writer = self.Writer(transport)

    async def get_connection(self) -> Pool:
        return self

    async def disconnect(self, *, nowait: bool) -> None:
        assert nowait

    async def release(self, _connection: object) -> None:
        pass


def wire_over(transport: Transport, line: Line | None = None) -> Any:
    """Return a wire that is not connected yet."""
    given: Any = line or Line(), Pool(transport)
    return redis._Wire(*given, abandoned=())


async def test_a_wire_that_never_connected_has_nothing_to_wait_for_when_it_is_closed() -> None:
    wire = wire_over(Transport())

    await wire.close()

    assert wire.is_closed


def test_a_wire_of_another_event_loop_that_still_runs_is_not_ours_to_close() -> None:
    async def made() -> Any:
        return wire_over(Transport())

    with asyncio.Runner() as runner:
        wire = runner.run(made())
        asyncio.run(wire.close())

        assert not wire.is_closed


async def test_a_connection_that_was_cut_while_idle_leaves_nothing_to_ask_again() -> None:
    line = Line()
    wire = wire_over(Transport(), line)
    wire._may_be_cut = True

    wire.end(exceptions.ConnectionError("cut"))

    assert line.asked_again == []


async def test_what_arrives_after_the_end_is_not_looked_at() -> None:
    wire = wire_over(Transport())
    wire.end(exceptions.ConnectionError("over"))

    wire.data_received(b"$4\r\ncart\r\n")

    assert wire.moved_at == 0.0


async def test_a_connection_that_redis_py_did_not_lend_can_be_lost() -> None:
    wire = wire_over(Transport())

    wire.connection_lost(None)

    assert wire.is_closed


async def test_a_wire_stands_though_nobody_limits_how_long_that_takes() -> None:
    transport = Transport()
    wire = wire_over(transport)

    await wire._connect()

    assert wire.transport is transport
    assert transport.protocol is wire


async def test_a_connection_that_closes_while_it_is_lent_is_lost() -> None:
    wire = wire_over(Transport(is_closing=True))

    await wire._connect()

    assert wire.is_closed
    assert wire.transport is None


async def test_what_comes_unasked_is_for_a_redis_py_that_hears_it() -> None:
    wire = wire_over(Transport())
    await wire._connect()

    await wire._hear([b"moving"])

    assert not wire.is_closed


async def test_what_was_given_back_is_not_given_back_again() -> None:
    wire = wire_over(Transport())

    await wire._give_back()

    assert wire._connection is None


class Own:
    """What asks by the cluster's client itself."""

    async def learn(self, _client: Any, _command: Any, _limit: float) -> None:
        pass

    async def ask(self, command: Any, _limit: float) -> Any:
        return "asked", command

    async def ask_afresh(self, command: Any, _limit: float, _agrees: Any) -> Any:
        return "asked afresh", command


async def test_where_the_cluster_knows_no_node_its_client_is_asked() -> None:
    class Handed:
        def here(self) -> KnowsNothing:
            return KnowsNothing()

    line: Any = object.__new__(redis.ClusterLine)
    line._clients, line._own, line._doubted = Handed(), Own(), set()
    command = ("GET", "id")

    assert await line.ask(command, 1.0, frozenset()) == ("asked", command)
    assert await line.ask_afresh(command, 1.0, bool) == ("asked afresh", command)


async def test_a_node_that_lends_no_connection_has_none_to_be_closed() -> None:
    line: Any = object.__new__(redis.ClusterLine)
    line._lines = {"client": {"node": (object(), None)}}
    line._own = redis.ClientLine(redis_clients.Clients(object()))

    await line.close()
