"""One connection to Redis for all requests: shared, in order, and only where it can be."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from redis.asyncio import BlockingConnectionPool, Connection, ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.credentials import StreamingCredentialProvider, UsernamePasswordCredentialProvider

from aiosess import Storage, StorageError, StorageUnavailable
from aiosess.clients import redis as redis_line
from aiosess.storages.redis import RedisStorage
from aiosess.testing import Harness, report, run_contract
from tests.servers import RedisServer, free_port, speaks_tls

TASKS: Final = 256


@pytest.fixture
def name() -> str:
    """Name the connections of the test at the server."""
    return f"test-{uuid.uuid4()}"


@pytest.fixture
async def redis(redis_server: RedisServer, name: str) -> AsyncIterator[RedisStorage]:
    storage = RedisStorage.from_url(redis_server.url, prefix=f"{name}:", client_name=name)
    async with storage:
        yield storage


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[Redis]:
    """The server as redis-cli sees it."""
    async with Redis.from_url(redis_server.url) as client:
        yield client


async def connections(client: Redis, name: str) -> list[dict[str, Any]]:
    """Return what the server knows of each connection called *name*."""
    clients: list[dict[str, Any]] = await client.client_list()
    return [each for each in clients if each["name"] == name]


async def payload(storage: Storage, session_id: str) -> bytes | None:
    stored = await storage.load(session_id)
    return None if stored is None else stored.payload


async def create_records(storage: Storage, count: int) -> list[str]:
    """Create records that each hold their own id."""
    ids = [f"record {number}" for number in range(count)]
    await asyncio.gather(*(storage.create(i, i.encode(), 600) for i in ids))
    return ids


# Shared.


async def test_the_commands_of_one_tick_leave_in_one_write(
    redis: RedisStorage, client: Redis
) -> None:
    ids = await create_records(redis, 100)
    before: Any = await client.info("stats")

    await asyncio.gather(*(redis.load(session_id) for session_id in ids))

    after: Any = await client.info("stats")
    # What is short and written at once is read at once; the other read is that of INFO itself.
    assert after["total_reads_processed"] - before["total_reads_processed"] == 2
    assert after["total_commands_processed"] - before["total_commands_processed"] == 101


async def test_many_tasks_at_once_share_one_connection(
    redis: RedisStorage, client: Redis, name: str
) -> None:
    ids = await create_records(redis, TASKS)

    seen = await asyncio.gather(*(payload(redis, session_id) for session_id in ids))

    assert seen == [session_id.encode() for session_id in ids]
    assert len(await connections(client, name)) == 1


async def test_without_multiplex_tasks_do_not_share_a_connection(
    redis_server: RedisServer, client: Redis, name: str
) -> None:
    async with RedisStorage.from_url(
        redis_server.url, multiplex=False, prefix=f"{name}:", client_name=name
    ) as storage:
        ids = await create_records(storage, 10)

        seen = await asyncio.gather(*(payload(storage, session_id) for session_id in ids))

        assert seen == [session_id.encode() for session_id in ids]
        assert len(await connections(client, name)) > 1


@pytest.mark.parametrize("multiplex", [True, False])
@pytest.mark.parametrize("protocol", [2, 3])
async def test_the_contract_is_kept(
    redis_server: RedisServer, multiplex: Any, protocol: int
) -> None:
    def make() -> RedisStorage:
        prefix = f"{uuid.uuid4()}:"
        return RedisStorage.from_url(
            redis_server.url, prefix=prefix, multiplex=multiplex, protocol=protocol
        )

    results = await run_contract(Harness(make, unit=0.05))

    assert all(result.is_kept for result in results), report(results)


async def test_a_big_answer_comes_before_small_ones_and_each_to_its_caller(
    redis: RedisStorage,
) -> None:
    ids = await create_records(redis, 50)
    big = random.Random(1).randbytes(5_000_000)
    await redis.create("big", big, 60)

    seen = await asyncio.gather(*(payload(redis, session_id) for session_id in ["big", *ids]))

    assert seen == [big, *(session_id.encode() for session_id in ids)]


@pytest.mark.skipif(
    not hasattr(Connection, "mark_for_reconnect"), reason="older clients never want to"
)
async def test_a_connection_that_redis_py_wants_to_leave_is_left(
    redis: RedisStorage, client: Redis, name: str
) -> None:
    [session_id] = await create_records(redis, 1)
    [before] = await connections(client, name)
    redis._line.wires.latest._connection.mark_for_reconnect()  # type: ignore[union-attr]

    await redis.load(session_id)

    [after] = await connections(client, name)
    assert after["id"] != before["id"]


async def test_a_redis_py_that_asks_for_no_new_connection_is_good_enough(
    redis: RedisStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await redis.create("there", b"cart", 60)
    connection = redis._line.wires.latest._connection  # type: ignore[union-attr]
    # As before redis-py 7.0.
    monkeypatch.delattr(AbstractConnection, "should_reconnect", raising=False)

    assert not hasattr(connection, "should_reconnect")
    assert await payload(redis, "there") == b"cart"


# Cancelled.


@pytest.mark.parametrize("seed", range(10))
async def test_nobody_gets_anothers_answer_whoever_is_cancelled_whenever(
    redis: RedisStorage, seed: int
) -> None:
    chance = random.Random(seed)
    ids = await create_records(redis, 20)
    wrong: list[str] = []

    async def ask() -> None:
        await asyncio.sleep(chance.uniform(0, 0.02))
        session_id = chance.choice(ids)
        if await payload(redis, session_id) != session_id.encode():
            wrong.append(session_id)

    tasks = [asyncio.create_task(ask()) for _ in range(500)]
    for task in chance.sample(tasks, 250):
        await asyncio.sleep(chance.choice([0, 0, 0.0001]))
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert wrong == []
    assert {type(result) for result in results} == {type(None), asyncio.CancelledError}
    assert [await payload(redis, i) for i in ids] == [i.encode() for i in ids]


@pytest.mark.parametrize("is_connected", [False, True])
async def test_a_call_cancelled_before_it_was_sent_is_never_sent(
    redis: RedisStorage, client: Redis, is_connected: Any
) -> None:
    if is_connected:
        await redis.load("something")
    given_up = asyncio.create_task(redis.create("given up", b"cart", 600))
    other = asyncio.create_task(redis.create("other", b"cart", 600))
    await asyncio.sleep(0)

    given_up.cancel()
    await other

    assert await redis.load("given up") is None


async def test_a_call_cancelled_after_it_was_sent_holds_up_nobody(redis: RedisStorage) -> None:
    ids = await create_records(redis, 10)
    given_up = [asyncio.create_task(redis.load(session_id)) for session_id in ids]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    others = [asyncio.create_task(payload(redis, session_id)) for session_id in ids]

    for task in given_up:
        task.cancel()

    assert await asyncio.gather(*others) == [session_id.encode() for session_id in ids]


# Errors.


async def test_a_wrong_type_is_an_error_for_its_caller_alone(
    redis: RedisStorage, client: Redis, name: str
) -> None:
    first, last = await create_records(redis, 2)
    await client.rpush(f"{name}:list", "an element")

    results = await asyncio.gather(
        payload(redis, first),
        redis.load("list"),
        payload(redis, last),
        return_exceptions=True,
    )

    assert results[0] == first.encode()
    assert results[2] == last.encode()
    assert type(results[1]) is StorageError


async def test_a_forgotten_script_concerns_its_caller_alone(
    redis: RedisStorage, client: Redis
) -> None:
    first, last = await create_records(redis, 2)
    await client.script_flush()

    replaced, loaded = await asyncio.gather(
        redis.replace(first, b"more", 600, expected=first.encode()),
        payload(redis, last),
    )

    assert replaced == b"more"
    assert loaded == last.encode()
    assert await payload(redis, first) == b"more"


async def test_a_replica_refuses_the_writers_alone(
    own_redis_server: RedisServer,
) -> None:
    async with (
        RedisStorage.from_url(own_redis_server.url) as storage,
        Redis.from_url(own_redis_server.url) as client,
    ):
        await storage.create("there", b"cart", 600)
        await client.replicaof("127.0.0.1", free_port())

        results = await asyncio.gather(
            payload(storage, "there"),
            storage.create("new", b"cart", 600),
            payload(storage, "there"),
            return_exceptions=True,
        )

    assert results[0] == results[2] == b"cart"
    assert type(results[1]) is StorageUnavailable


# Ways to connect.


class RedisServerWith(RedisServer):
    """A redis-server with more options."""

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder)
        self._command += options


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    with contextlib.ExitStack() as servers:

        def start(*options: str) -> RedisServer:
            server = RedisServerWith(tmp_path, *options)
            servers.callback(server.stop)
            server.start()
            return server

        yield start


async def shares_one_connection(storage: RedisStorage, name: str) -> bool:
    """Ask at once for several records, and then the server how many connections there are."""
    ids = await create_records(storage, 10)
    seen = await asyncio.gather(*(payload(storage, session_id) for session_id in ids))
    assert seen == [session_id.encode() for session_id in ids]
    # The other one asks this very question.
    return len(await connections(storage._clients.first, name)) == 2


async def test_a_password_in_the_url(start_redis: Callable[..., RedisServer], name: str) -> None:
    server = start_redis("--requirepass", "p@ss")

    url = server.url.replace("redis://", "redis://:p%40ss@")
    async with RedisStorage.from_url(url, client_name=name) as storage:
        assert await shares_one_connection(storage, name)


async def test_an_acl_user_in_the_url(start_redis: Callable[..., RedisServer], name: str) -> None:
    server = start_redis("--user", "web", "on", ">p@ss", "~sess:*", "+@all")

    url = server.url.replace("redis://", "redis://web:p%40ss@")
    async with RedisStorage.from_url(url, client_name=name) as storage:
        assert await shares_one_connection(storage, name)


async def test_the_number_of_the_database_in_the_url(
    start_redis: Callable[..., RedisServer], name: str
) -> None:
    server = start_redis()

    async with RedisStorage.from_url(f"{server.url[:-1]}3", client_name=name) as storage:
        assert await shares_one_connection(storage, name)
        databases = {each["db"] for each in await connections(storage._clients.first, name)}

    assert databases == {"3"}


async def test_a_unix_socket(
    start_redis: Callable[..., RedisServer], tmp_path: Path, name: str
) -> None:
    start_redis("--unixsocket", str(tmp_path / "redis.sock"))

    url = f"unix://{tmp_path}/redis.sock"
    async with RedisStorage.from_url(url, client_name=name) as storage:
        assert await shares_one_connection(storage, name)


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls_url(start_redis: Callable[..., RedisServer], authority: trustme.CA, tmp_path: Path) -> str:
    """The URL of a server that speaks TLS."""
    if not speaks_tls():
        pytest.skip("this redis-server was built without TLS")
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    port = free_port()
    start_redis(
        *("--tls-port", str(port), "--tls-auth-clients", "no"),
        *("--tls-cert-file", str(tmp_path / "cert.pem")),
        *("--tls-key-file", str(tmp_path / "key.pem")),
        *("--tls-ca-cert-file", str(tmp_path / "ca.pem")),
    )
    return f"rediss://localhost:{port}"


async def test_tls(tls_url: str, tmp_path: Path, name: str) -> None:
    async with RedisStorage.from_url(
        tls_url, ssl_ca_certs=str(tmp_path / "ca.pem"), client_name=name
    ) as storage:
        assert await shares_one_connection(storage, name)
        big = random.Random(1).randbytes(5_000_000)
        await storage.create("big", big, 60)
        assert await payload(storage, "big") == big


async def test_a_certificate_of_nobody_known_is_not_trusted(tls_url: str) -> None:
    async with RedisStorage.from_url(tls_url) as storage:
        with pytest.raises(StorageUnavailable):
            await storage.load("something")


# Clients whose connections cannot be shared.


class LoggedRedis(Redis):
    """A client of the application's own, that sees each command."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: list[str] = []

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        self.seen.append(args[0])
        return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


async def test_a_client_with_an_execute_command_of_its_own_sees_each_command(
    redis_server: RedisServer, name: str
) -> None:
    async with LoggedRedis(port=redis_server.port) as client:
        storage = RedisStorage(client, prefix=f"{name}:")

        await storage.create("a", b"cart", 600)
        loaded = await payload(storage, "a")

        assert loaded == b"cart"
        assert client.seen == ["SET", "GET"]


async def test_a_client_of_one_connection_keeps_it(
    redis_server: RedisServer, client: Redis, name: str
) -> None:
    async with Redis.from_url(
        redis_server.url, single_connection_client=True, client_name=name
    ) as single:
        await single.ping()
        storage = RedisStorage(single, prefix=f"{name}:")

        ids = await create_records(storage, 10)

        assert [await payload(storage, i) for i in ids] == [i.encode() for i in ids]
        assert len(await connections(client, name)) == 1


class OwnConnection(Connection):
    """A connection that may write and read in a way of its own."""


async def test_connections_of_another_class_are_not_shared(
    redis_server: RedisServer, client: Redis, name: str
) -> None:
    pool = ConnectionPool(connection_class=OwnConnection, port=redis_server.port, client_name=name)
    async with Redis.from_pool(pool) as own:
        storage = RedisStorage(own, prefix=f"{name}:")

        await create_records(storage, 10)

        assert len(await connections(client, name)) > 1


async def test_without_hiredis_connections_are_not_shared(
    redis_server: RedisServer, client: Redis, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_line, "_pack", None)
    async with RedisStorage.from_url(
        redis_server.url, prefix=f"{name}:", client_name=name
    ) as storage:
        await create_records(storage, 10)

        assert len(await connections(client, name)) > 1


class Tokens(StreamingCredentialProvider, UsernamePasswordCredentialProvider):
    """Credentials that come anew now and then."""

    def __init__(self) -> None:
        UsernamePasswordCredentialProvider.__init__(self, "default", "")

    def on_next(self, callback: Any) -> None: ...

    def on_error(self, callback: Any) -> None: ...

    def is_streaming(self) -> bool:
        return True


async def test_connections_with_tokens_that_change_go_back_to_the_pool(
    redis_server: RedisServer, client: Redis, name: str
) -> None:
    async with Redis.from_url(
        redis_server.url, credential_provider=Tokens(), client_name=name
    ) as changing:
        storage = RedisStorage(changing, prefix=f"{name}:")

        await create_records(storage, 10)

        assert len(await connections(client, name)) > 1


async def test_a_pool_of_one_connection_serves_all(redis_server: RedisServer, name: str) -> None:
    pool = BlockingConnectionPool.from_url(redis_server.url, max_connections=1)
    async with Redis.from_pool(pool) as client:
        storage = RedisStorage(client, prefix=f"{name}:")

        ids = await create_records(storage, 50)
        seen = await asyncio.gather(*(payload(storage, session_id) for session_id in ids))
        await storage.close()

        assert seen == [session_id.encode() for session_id in ids]
        assert await client.ping()


async def test_a_pool_of_one_connection_gets_it_back_when_it_is_lost(
    redis_server: RedisServer, client: Redis, name: str
) -> None:
    async with Redis.from_url(redis_server.url, max_connections=1, client_name=name) as bounded:
        storage = RedisStorage(bounded, prefix=f"{name}:")
        [session_id] = await create_records(storage, 1)
        [connection] = await connections(client, name)
        await client.client_kill_filter(_id=connection["id"])

        seen = await asyncio.gather(*(payload(storage, session_id) for _ in range(10)))

        assert seen == [session_id.encode()] * 10
        await storage.close()


# The end.


async def test_closing_fails_the_calls_that_wait_and_gives_the_connection_back(
    own_redis_server: RedisServer, name: str
) -> None:
    async with Redis.from_url(own_redis_server.url, max_connections=2) as client:
        storage = RedisStorage(client)
        await storage.create("there", b"cart", 600)
        # A pause: after one, a lost call would be sent again.
        await asyncio.sleep(0.05)
        own_redis_server.pause()
        waiting = [asyncio.create_task(storage.load("there")) for _ in range(10)]
        await asyncio.sleep(0.01)

        await storage.close()
        _, pending = await asyncio.wait(waiting, timeout=1)
        results = await asyncio.gather(*waiting, return_exceptions=True)
        own_redis_server.resume()

        assert not pending
        assert {type(result) for result in results} == {StorageUnavailable}
        assert await asyncio.gather(client.get("sess:there"), client.get("sess:there"))


async def test_closing_while_it_connects_fails_the_calls_that_wait(
    own_redis_server: RedisServer,
) -> None:
    own_redis_server.pause()
    storage = RedisStorage.from_url(own_redis_server.url)
    waiting = [asyncio.create_task(storage.load("there")) for _ in range(10)]
    await asyncio.sleep(0.01)

    await storage.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)

    assert {type(result) for result in results} == {StorageUnavailable}


async def test_who_cancels_all_tasks_of_the_loop_leaves_nobody_waiting(
    own_redis_server: RedisServer,
) -> None:
    async with RedisStorage.from_url(own_redis_server.url) as storage:
        await storage.create("there", b"cart", 600)
        own_redis_server.pause()
        waiting = [asyncio.create_task(storage.load("there")) for _ in range(10)]
        await asyncio.sleep(0.01)

        for task in asyncio.all_tasks().difference(waiting, [asyncio.current_task()]):
            task.cancel()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        own_redis_server.resume()

        assert {type(result) for result in results} == {StorageUnavailable}
        assert await payload(storage, "there") == b"cart"


async def test_an_application_may_disconnect_its_client_while_calls_wait(
    own_redis_server: RedisServer,
) -> None:
    async with Redis.from_url(own_redis_server.url) as client:
        storage = RedisStorage(client)
        await storage.create("there", b"cart", 600)
        own_redis_server.pause()
        waiting = [asyncio.create_task(payload(storage, "there")) for _ in range(10)]
        await asyncio.sleep(0.01)

        disconnecting = asyncio.create_task(client.connection_pool.disconnect())
        waiting += [asyncio.create_task(payload(storage, "there")) for _ in range(10)]
        await asyncio.sleep(0.01)
        own_redis_server.resume()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        await disconnecting

        assert {type(result) for result in results} <= {bytes, StorageUnavailable}
        assert await payload(storage, "there") == b"cart"
        await storage.close()


# A loop that ends with an open connection says so when that is collected: rightly.
@pytest.mark.filterwarnings("ignore:unclosed")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_event_loop_after_the_other_may_use_the_same_storage(redis_server: RedisServer) -> None:
    seen = load_in_two_loops(redis_server.url)
    gc.collect()

    assert seen == [[b"cart"] * 10, [b"cart"] * 10]


def load_in_two_loops(url: str) -> list[list[bytes | None]]:
    storage = RedisStorage.from_url(url, prefix=f"{uuid.uuid4()}:", max_connections=1)

    async def create() -> None:
        await storage.create("there", b"cart", 600)

    async def load() -> list[bytes | None]:
        return list(await asyncio.gather(*(payload(storage, "there") for _ in range(10))))

    asyncio.run(create())
    seen = [asyncio.run(load()), asyncio.run(load())]
    asyncio.run(storage.close())
    return seen


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
async def test_tasks_that_start_eagerly_share_the_connection_too(redis: RedisStorage) -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - mypy looks at 3.11
    ids = await create_records(redis, 20)

    seen = await asyncio.gather(*(payload(redis, session_id) for session_id in ids))
    again = await asyncio.gather(*(payload(redis, session_id) for session_id in ids))

    assert seen == again == [session_id.encode() for session_id in ids]


FORGOTTEN = """
import asyncio, gc, sys
from aiosess.clients import redis as redis_line
from aiosess.storages.redis import RedisStorage
from tests.faults.odd_redis import odd_redis

async def talk(client):
    await client.greet()
    await client.command()
    client.say(b"$-1\\r\\n")
    while True:
        await client.command()

async def forget(url):
    storage = RedisStorage.from_url(url)
    await storage.load("answered")
    given_up = [asyncio.create_task(storage.load("never answered")) for _ in range(10)]
    await asyncio.sleep(0.05)
    for task in given_up:
        task.cancel()
    await asyncio.wait(given_up)

async def main():
    # A busy machine is slow, and asyncio would say so of a task that is pending.
    asyncio.get_running_loop().slow_callback_duration = 60
    async with odd_redis(talk) as url:
        await forget(url)
        for _ in range(5):
            gc.collect()
            await asyncio.sleep(0.01)
    print("done")

asyncio.run(main())
gc.collect()
"""


def test_a_storage_that_is_forgotten_unclosed_leaves_no_task_and_no_error_behind() -> None:
    ran = subprocess.run(
        [sys.executable, "-X", "dev", "-c", FORGOTTEN], capture_output=True, text=True, check=False
    )

    assert ran.stdout == "done\n"
    # Not "pending" alone: where something took long, the debug mode names tasks that are well.
    assert "Task was destroyed but it is pending" not in ran.stderr
    assert "never retrieved" not in ran.stderr
    assert "Traceback" not in ran.stderr
