"""Redis Cluster: one connection to each node, whatever moves between them."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import redis as blocking
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.cluster import LoadBalancingStrategy

from aiosess import StorageUnavailable
from aiosess.guard.retries import RetryingStorage, RetryPolicy
from aiosess.storages.redis import RedisStorage
from tests.servers import ClusterServer

pytestmark = pytest.mark.skipif(
    not hasattr(ClusterNode, "release"), reason="nodes of this redis-py lend no connections"
)

TASKS: Final = 256
SLOTS: Final = 16384


class Node(ClusterServer):
    """A redis-server that belongs to a cluster."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "--cluster-node-timeout", "2000")

    def ask(self, *command: str | int) -> str:
        """Send *command* and return the answer."""
        with blocking.Redis.from_url(self.url) as client:
            answer: Any = client.execute_command(*command)
            return answer.decode() if isinstance(answer, bytes) else str(answer)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """Two nodes, each with half of the slots."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = Node(tmp_path / "one"), Node(tmp_path / "two")
    try:
        one.start()
        two.start()
        one.ask("CLUSTER", "ADDSLOTS", *range(SLOTS // 2))
        two.ask("CLUSTER", "ADDSLOTS", *range(SLOTS // 2, SLOTS))
        one.ask("CLUSTER", "MEET", "127.0.0.1", two.port, two.bus_port)
        wait_until_up(one, two)
        yield one, two
    finally:
        one.stop()
        two.stop()


def wait_until_up(*nodes: Node) -> None:
    deadline = time.monotonic() + 30
    while not all("cluster_state:ok" in str(node.ask("CLUSTER", "INFO")) for node in nodes):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def name() -> str:
    """Name the connections of the test at the servers."""
    return f"test-{uuid.uuid4()}"


@pytest.fixture
async def client(nodes: tuple[Node, Node], name: str) -> AsyncIterator[RedisCluster]:
    async with RedisCluster(port=nodes[0].port, host="127.0.0.1", client_name=name) as client:
        yield client


@pytest.fixture
async def storage(client: RedisCluster) -> AsyncIterator[RedisStorage]:
    async with RedisStorage(client) as storage:
        yield storage


async def payload(storage: RedisStorage, session_id: str) -> bytes | None:
    stored = await storage.load(session_id)
    return None if stored is None else stored.payload


async def connections(node: Node, name: str) -> int:
    async with Redis.from_url(node.url) as client:
        clients: list[dict[str, Any]] = await client.client_list()
        return sum(each["name"] == name for each in clients)


async def test_of_many_who_ask_a_cluster_first_none_has_a_connection_of_its_own(
    nodes: tuple[Node, Node],
) -> None:
    before = sum(connections_made(node) for node in nodes)
    async with RedisStorage.from_url(f"redis+cluster://127.0.0.1:{nodes[0].port}") as storage:
        calls = (storage.load(f"id-{number}") for number in range(TASKS))
        answers = await asyncio.gather(*calls, return_exceptions=True)

    assert set(answers) == {None}
    assert sum(connections_made(node) for node in nodes) - before < TASKS / 10


def connections_made(node: Node) -> int:
    with blocking.Redis.from_url(node.url) as client:
        stats: Any = client.info("stats")
        return int(stats["total_connections_received"])


@pytest.mark.parametrize("multiplex", [True, False])
async def test_a_node_that_hangs_for_good_is_left_for_the_one_that_has_its_keys_now(
    nodes: tuple[Node, Node],
    multiplex: bool,  # noqa: FBT001 - a parameter of a test
) -> None:
    one, two = nodes
    one.ask("CONFIG", "SET", "cluster-node-timeout", 60_000)
    async with RedisCluster(
        host="127.0.0.1", port=one.port, socket_timeout=0.5, socket_connect_timeout=0.5
    ) as client:
        storage = RedisStorage(client, multiplex=multiplex)
        await storage.load("the first call asks who has which key")
        session_id = key_on(client, two)
        two.pause()
        slot = one.ask("CLUSTER", "KEYSLOT", f"sess:{session_id}")
        one.ask("CLUSTER", "SETSLOT", slot, "NODE", one.ask("CLUSTER", "MYID"))
        policy = RetryPolicy(timeout=0.1, retries=60)

        patient = RetryingStorage(storage.within(0.1), policy, is_punctual=True)
        found = await patient.load(session_id)

        assert found is None
        await storage.close()


def searches() -> int:
    """Return how many tasks wait until somebody has a key."""
    return sum("_until_answered" in repr(task.get_coro()) for task in asyncio.all_tasks())


async def test_closing_ends_the_search_for_a_node_that_is_away(
    nodes: tuple[Node, Node],
) -> None:
    _, two = nodes
    async with RedisCluster(host="127.0.0.1", port=two.port) as client:
        storage = RedisStorage(client, multiplex=False)
        await storage.load("the first call asks who has which key")
        two.pause()
        with pytest.raises(StorageUnavailable):
            await storage.within(0.05).load(key_on(client, two))
        before = searches()

        await storage.close()

        assert (before, searches()) == (1, 0)
        two.resume()


async def errors(node: Node) -> Any:
    """Return how often *node* has answered with which error."""
    async with Redis.from_url(node.url) as client:
        return await client.info("errorstats")


def key_on(client: RedisCluster, node: Node) -> str:
    """Return a session id whose record *node* keeps."""
    for number in range(1000):
        if client.get_node_from_key(f"sess:{number}").port == node.port:  # type: ignore[union-attr]
            return str(number)
    raise AssertionError("no such key")


async def test_more_tasks_than_a_node_takes_connections_share_one_each(
    nodes: tuple[Node, Node], storage: RedisStorage, name: str
) -> None:
    ids = [f"record {number}" for number in range(TASKS)]
    await storage.load("the first call asks who has which key")
    await asyncio.gather(*(storage.create(i, i.encode(), 600) for i in ids))

    seen = await asyncio.gather(*(payload(storage, session_id) for session_id in ids))

    assert seen == [session_id.encode() for session_id in ids]
    # The other one is redis-py's, which asked who has which key.
    assert [await connections(node, name) <= 2 for node in nodes] == [True, True]


async def test_a_record_is_found_where_it_has_moved_and_asked_for_there_from_then_on(
    nodes: tuple[Node, Node], client: RedisCluster, storage: RedisStorage
) -> None:
    one, two = nodes
    await client.initialize()
    session_id = key_on(client, one)
    await storage.create(session_id, b"cart", 600)
    slot = client.keyslot(f"sess:{session_id}")
    two.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", one.ask("CLUSTER", "MYID"))
    one.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", two.ask("CLUSTER", "MYID"))
    one.ask("MIGRATE", "127.0.0.1", two.port, f"sess:{session_id}", 0, 5000)

    while_it_moves = await payload(storage, session_id)
    for node in (two, one):
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", two.ask("CLUSTER", "MYID"))
    moved = await payload(storage, session_id)
    turned_away = await errors(one)
    version = await storage.replace(session_id, b"more", 600, expected=b"cart")

    assert while_it_moves == moved == b"cart"
    assert version == b"more"
    assert turned_away["errorstat_ASK"]["count"] >= 1
    assert turned_away["errorstat_MOVED"]["count"] >= 1
    assert (await errors(one))["errorstat_MOVED"] == turned_away["errorstat_MOVED"]


async def test_a_node_that_hangs_holds_up_only_who_asks_for_its_records(
    nodes: tuple[Node, Node],
) -> None:
    one, two = nodes
    async with (
        RedisCluster(port=one.port, host="127.0.0.1", socket_timeout=0.3) as client,
        RedisStorage(client) as storage,
    ):
        here, away = key_on(client, one), key_on(client, two)
        await asyncio.gather(*(storage.create(i, b"cart", 600) for i in (here, away)))
        two.pause()

        results = await asyncio.gather(
            payload(storage, here), payload(storage, away), return_exceptions=True
        )
        two.resume()

        assert results[0] == b"cart"
        assert type(results[1]) is StorageUnavailable
        assert await payload(storage, away) == b"cart"


async def test_after_a_lost_connection_redis_py_is_asked_once_who_has_the_key(
    nodes: tuple[Node, Node],
    client: RedisCluster,
    storage: RedisStorage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two = nodes
    gone = key_on(client, two)
    await storage.create(gone, b"cart", 600)
    two.stop()
    with pytest.raises(StorageUnavailable):
        await storage.load(gone)
    two.start()
    wait_until_up(one, two)
    asked: list[Any] = []
    execute_command = client.execute_command

    async def logged(*args: Any, **options: Any) -> Any:
        asked.append(args[0])
        return await execute_command(*args, **options)

    monkeypatch.setattr(client, "execute_command", logged)

    await storage.create(gone, b"new", 600)
    loaded = await payload(storage, gone)

    assert loaded == b"new"
    assert asked == ["SET"]


async def test_connections_that_were_lost_do_not_use_up_those_of_the_node(
    nodes: tuple[Node, Node], name: str
) -> None:
    async with (
        RedisCluster(
            port=nodes[0].port, host="127.0.0.1", client_name=name, max_connections=2
        ) as client,
        RedisStorage(client) as storage,
        Redis.from_url(nodes[0].url) as killer,
    ):
        here = key_on(client, nodes[0])
        await storage.create(here, b"cart", 600)

        for _ in range(5):
            for each in await killer.client_list():
                if each["name"] == name:
                    await killer.client_kill_filter(_id=each["id"])
            await asyncio.sleep(0.02)
            assert await payload(storage, here) == b"cart"


async def test_closing_gives_the_connections_back_to_the_client(
    nodes: tuple[Node, Node], client: RedisCluster, name: str
) -> None:
    storage = RedisStorage(client)
    here = key_on(client, nodes[0])
    await storage.create(here, b"cart", 600)
    before = await connections(nodes[0], name)

    await storage.close()

    assert await connections(nodes[0], name) == before - 1
    assert await client.get(f"sess:{here}") == b"cart"


class LoggedCluster(RedisCluster):
    """A client of the application's own, that sees each command."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: list[str] = []

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        self.seen.append(args[0])
        return await super().execute_command(*args, **options)


async def test_a_client_with_an_execute_command_of_its_own_sees_each_command(
    nodes: tuple[Node, Node],
) -> None:
    client = LoggedCluster(port=nodes[0].port, host="127.0.0.1")
    async with client:
        storage = RedisStorage(client)

        await storage.create("a", b"cart", 600)
        await storage.load("a")

        assert client.seen == ["SET", "GET"]


async def test_where_replicas_may_answer_no_connection_is_shared(
    nodes: tuple[Node, Node], name: str
) -> None:
    async with RedisCluster(
        port=nodes[0].port,
        host="127.0.0.1",
        client_name=name,
        load_balancing_strategy=LoadBalancingStrategy.ROUND_ROBIN,
    ) as client:
        storage = RedisStorage(client)
        here = key_on(client, nodes[0])

        await asyncio.gather(*(storage.load(here) for _ in range(10)))

        assert await connections(nodes[0], name) > 2


async def test_a_record_is_read_on_a_connection_of_its_own_wherever_it_has_moved(
    storage: RedisStorage, client: RedisCluster, nodes: tuple[Node, Node], name: str
) -> None:
    one, two = nodes
    session_id = key_on(client, one)
    await storage.create(session_id, b"cart", 60)
    before = await connections(one, name)

    stored = await storage.load_afresh(session_id, agrees=lambda _stored: True)

    assert stored is not None
    assert stored.payload == b"cart"
    assert await connections(one, name) == before
    slot = one.ask("CLUSTER", "KEYSLOT", f"sess:{session_id}")
    two.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", one.ask("CLUSTER", "MYID"))
    one.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", two.ask("CLUSTER", "MYID"))
    one.ask("MIGRATE", "127.0.0.1", two.port, f"sess:{session_id}", 0, 1000)

    moved = await storage.load_afresh(session_id, agrees=lambda _stored: True)

    assert moved == stored
