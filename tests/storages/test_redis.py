"""RedisStorage beyond the contract: keys, ttl, round trips, errors and whose client it is."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
import traceback
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

import pytest
from redis import Redis as BlockingRedis
from redis.asyncio import Connection, ConnectionPool, Redis
from redis.exceptions import ResponseError
from valkey.asyncio import Valkey

from aiosess import Conflict, OptionsError, StorageError, StorageUnavailable
from aiosess.clients import redis_notices
from aiosess.clients.redis import in_words_of_a_storage
from aiosess.storages import Stored
from aiosess.storages.redis import RedisStorage
from aiosess.testing import Harness, report, run_contract
from tests.servers import RedisServer, free_port, redis_version

VERBS: Final = ("create", "load", "replace", "touch", "delete")


@pytest.fixture
def session_id() -> str:
    return str(uuid.uuid4())


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[RedisStorage]:
    async with RedisStorage.from_url(redis_server.url) as storage:
        yield storage


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[Redis]:
    """The server as redis-cli sees it."""
    async with Redis.from_url(redis_server.url) as client:
        yield client


def call(storage: RedisStorage, verb: str, session_id: str) -> Awaitable[object]:
    """Return the call of *verb*, whatever arguments it takes."""
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "create": lambda: storage.create(session_id, b"cart", 60),
        "load": lambda: storage.load(session_id),
        "replace": lambda: storage.replace(session_id, b"more", 60, expected=b"cart"),
        "touch": lambda: storage.touch(session_id, 60),
        "load_and_touch": lambda: storage.load_and_touch(session_id, 60),
        "delete": lambda: storage.delete(session_id),
    }
    return calls[verb]()


@asynccontextmanager
async def commands_seen(client: Redis) -> AsyncGenerator[list[str]]:
    """Give a list in which the commands stand that clients sent during the block."""
    seen: list[str] = []
    async with client.monitor() as monitor:
        await client.echo("the beginning")
        yield seen
        await client.echo("the end")
        async for command in monitor.listen():
            if command["command"] == "ECHO the beginning":
                seen.clear()
            elif command["command"] == "ECHO the end":
                return
            # What a script does is no round trip.
            elif command["client_type"] != "lua":
                seen.append(command["command"].split()[0].upper())


# What the server keeps.


async def test_a_record_is_one_string_under_sess_and_its_id(
    redis: RedisStorage, client: Redis, session_id: str
) -> None:
    await redis.create(session_id, b'{"cookie":{}}', 60)

    assert await client.get(f"sess:{session_id}") == b'{"cookie":{}}'
    assert await client.type(f"sess:{session_id}") == b"string"


async def test_the_prefix_can_be_another(
    redis_server: RedisServer, client: Redis, session_id: str
) -> None:
    async with RedisStorage.from_url(redis_server.url, prefix="shop/") as storage:
        await storage.create(session_id, b"cart", 60)

    assert await client.get(f"shop/{session_id}") == b"cart"


@pytest.mark.parametrize("prefix", [b"sess:", 5, None, "\ud800"])
def test_a_prefix_that_cannot_be_part_of_a_key_is_refused(prefix: Any) -> None:
    with pytest.raises(OptionsError, match=r"^prefix=.* must be a str"):
        RedisStorage.from_url("redis://127.0.0.1", prefix=prefix)


async def test_two_prefixes_are_two_storages(redis_server: RedisServer, session_id: str) -> None:
    async with (
        RedisStorage.from_url(redis_server.url, prefix="one:") as one,
        RedisStorage.from_url(redis_server.url, prefix="two:") as two,
    ):
        await one.create(session_id, b"cart", 60)

        assert await two.load(session_id) is None


async def test_the_ttl_counts_at_the_server_to_the_millisecond(
    redis: RedisStorage, client: Redis, session_id: str
) -> None:
    await redis.create(session_id, b"cart", 60.5)
    created = await client.pttl(f"sess:{session_id}")
    await redis.replace(session_id, b"more", 70.5, expected=b"cart")
    replaced = await client.pttl(f"sess:{session_id}")
    await redis.touch(session_id, 80.5)
    touched = await client.pttl(f"sess:{session_id}")

    assert 59_000 < created <= 60_500
    assert 69_000 < replaced <= 70_500
    assert 79_000 < touched <= 80_500


@pytest.mark.parametrize("verb", ["load", "touch", "load_and_touch", "replace"])
async def test_a_key_without_an_end_is_given_none(
    redis: RedisStorage, client: Redis, session_id: str, verb: str
) -> None:
    # As connect-redis keeps sessions with disableTTL.
    await client.set(f"sess:{session_id}", "cart")

    await call(redis, verb, session_id)

    assert await client.pttl(f"sess:{session_id}") == -1


async def test_a_record_without_an_end_need_not_be_touched(
    redis: RedisStorage, client: Redis, session_id: str
) -> None:
    await client.set(f"sess:{session_id}", "cart")

    loaded = await redis.load_and_touch(session_id, 60)

    assert loaded is not None
    assert loaded[1]
    assert await redis.touch(session_id, 60)


async def test_a_record_is_deleted_and_not_only_emptied(
    redis: RedisStorage, client: Redis, session_id: str
) -> None:
    await redis.create(session_id, b"cart", 60)

    await redis.delete(session_id)

    assert await client.exists(f"sess:{session_id}") == 0


async def test_what_express_wrote_can_be_loaded_and_replaced(
    redis: RedisStorage, client: Redis, session_id: str
) -> None:
    await client.set(f"sess:{session_id}", '{"cookie":{},"views":1}', ex=60)

    stored = await redis.load(session_id)
    assert stored is not None
    await redis.replace(session_id, b"by aiosess", 60, expected=stored.version)

    assert stored.payload == b'{"cookie":{},"views":1}'
    assert await client.get(f"sess:{session_id}") == b"by aiosess"


async def test_a_change_by_express_is_a_conflict(
    redis: RedisStorage, client: Redis, session_id: str
) -> None:
    version = await redis.create(session_id, b"cart", 60)
    await client.set(f"sess:{session_id}", "by express", ex=60)

    with pytest.raises(Conflict) as conflict:
        await redis.replace(session_id, b"more", 60, expected=version)

    assert conflict.value.current is not None
    assert conflict.value.current.payload == b"by express"


# Round trips.


@pytest.mark.parametrize(
    ("verb", "command"),
    [
        ("create", "SET"),
        ("load", "GET"),
        ("replace", "EVALSHA"),
        ("touch", "EVALSHA"),
        ("load_and_touch", "EVALSHA"),
        ("delete", "DEL"),
    ],
)
async def test_each_verb_is_one_command(
    redis: RedisStorage, client: Redis, session_id: str, verb: str, command: str
) -> None:
    version = await redis.create("warm " + session_id, b"cart", 60)
    await redis.replace("warm " + session_id, b"more", 60, expected=version)
    await redis.load_and_touch("warm " + session_id, 60)
    await redis.touch("warm " + session_id, 60)
    if verb != "create":
        await redis.create(session_id, b"cart", 60)

    async with commands_seen(client) as seen:
        await call(redis, verb, session_id)

    assert seen == [command]


async def test_a_conflict_is_one_command_too(
    redis: RedisStorage, client: Redis, session_id: str
) -> None:
    version = await redis.create(session_id, b"cart", 60)
    await redis.replace(session_id, b"more", 60, expected=version)

    async with commands_seen(client) as seen:
        with pytest.raises(Conflict):
            await redis.replace(session_id, b"again", 60, expected=version)

    assert seen == ["EVALSHA"]


async def test_a_server_that_forgot_the_script_is_sent_it_again_once(
    redis: RedisStorage, client: Redis, session_id: str
) -> None:
    version = await redis.create(session_id, b"one", 60)
    await client.script_flush()

    async with commands_seen(client) as seen:
        version = await redis.replace(session_id, b"two", 60, expected=version)
        await redis.replace(session_id, b"three", 60, expected=version)

    assert seen == ["EVALSHA", "EVAL", "EVALSHA"]
    assert await client.get(f"sess:{session_id}") == b"three"


async def test_a_server_that_forgot_how_to_read_and_touch_is_told_once(
    redis: RedisStorage, client: Redis, session_id: str
) -> None:
    await redis.create(session_id, b"one", 60)
    await client.script_flush()

    async with commands_seen(client) as seen:
        loaded = [await redis.load_and_touch(session_id, 600) for _ in range(2)]
        touched = [await redis.touch(session_id, 600) for _ in range(2)]

    assert seen == ["EVALSHA", "EVAL", "EVALSHA"] * 2
    assert [each and each[0].payload for each in loaded] == [b"one", b"one"]
    assert touched == [True, True]


async def test_a_conflict_is_noticed_by_a_server_that_forgot_the_script(
    redis: RedisStorage, client: Redis, session_id: str
) -> None:
    await redis.create(session_id, b"one", 60)
    await client.script_flush()

    with pytest.raises(Conflict) as conflict:
        await redis.replace(session_id, b"two", 60, expected=b"another")

    assert conflict.value.current is not None
    assert conflict.value.current.payload == b"one"


# Errors that say "not now".


@pytest.mark.parametrize("verb", VERBS)
async def test_a_server_that_is_not_there_is_unavailable(verb: str, session_id: str) -> None:
    async with RedisStorage.from_url(f"redis://127.0.0.1:{free_port()}") as storage:
        with pytest.raises(StorageUnavailable) as error:
            await call(storage, verb, session_id)

    assert isinstance(error.value.__cause__, Exception)
    assert session_id not in str(error.value)


async def test_a_host_that_has_no_address_is_unavailable(session_id: str) -> None:
    async with RedisStorage.from_url("redis://no-such-host.invalid") as storage:
        with pytest.raises(StorageUnavailable):
            await storage.load(session_id)


@pytest.mark.parametrize("verb", VERBS)
async def test_a_server_that_does_not_answer_in_time_is_unavailable(
    own_redis_server: RedisServer, verb: str, session_id: str
) -> None:
    own_redis_server.pause()

    async with RedisStorage.from_url(own_redis_server.url, socket_timeout=0.05) as storage:
        with pytest.raises(StorageUnavailable):
            await call(storage, verb, session_id)


async def test_a_pool_without_a_free_connection_is_unavailable(
    redis_server: RedisServer, session_id: str
) -> None:
    pool = ConnectionPool.from_url(redis_server.url, max_connections=1)
    async with Redis.from_pool(pool) as client, client.monitor():
        storage = RedisStorage(client)

        with pytest.raises(StorageUnavailable):
            await storage.load(session_id)


@pytest.mark.parametrize("verb", VERBS)
async def test_a_server_that_is_loading_its_data_is_unavailable(
    loading_redis_server: RedisServer, verb: str, session_id: str
) -> None:
    async with RedisStorage.from_url(loading_redis_server.url) as storage:
        with pytest.raises(StorageUnavailable):
            await call(storage, verb, session_id)


class SlowlyLoadingRedisServer(RedisServer):
    """A redis-server that keeps its data on disk, and reads it slowly at start-up."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._command += ["--key-load-delay", "20000"]
        self._command += ["--loading-process-events-interval-bytes", "1024"]


@pytest.fixture
async def loading_redis_server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    if redis_version() < (7, 0):
        pytest.skip("this redis-server cannot be made to say often enough that it is loading")
    server = SlowlyLoadingRedisServer(tmp_path)
    server.start()
    async with Redis.from_url(server.url) as client:
        for number in range(500):
            await client.set(str(number), bytes(2048) + str(number).encode())
        await client.config_set("rdbcompression", "no")
        await client.save()
    server.stop()
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("verb", ["create", "replace", "touch", "delete"])
async def test_a_read_only_replica_is_unavailable_for_writing(
    own_redis_server: RedisServer, redis_server: RedisServer, verb: str, session_id: str
) -> None:
    async with Redis.from_url(own_redis_server.url) as replica:
        await replica.replicaof("127.0.0.1", redis_server.port)

    async with RedisStorage.from_url(own_redis_server.url) as storage:
        with pytest.raises(StorageUnavailable):
            await call(storage, verb, session_id)


async def test_what_is_due_for_a_touch_is_read_where_nothing_can_be_written(
    own_redis_server: RedisServer, session_id: str
) -> None:
    async with (
        Redis.from_url(own_redis_server.url) as replica,
        RedisStorage.from_url(own_redis_server.url) as storage,
    ):
        await storage.create(session_id, b"cart", 60)
        await replica.replicaof("127.0.0.1", free_port())

        loaded = await storage.load_and_touch(session_id, 600)

    assert loaded == (Stored(b"cart", b"cart"), False)


@pytest.mark.parametrize("verb", VERBS)
async def test_a_replica_that_lost_its_primary_is_unavailable(
    own_redis_server: RedisServer, verb: str, session_id: str
) -> None:
    async with Redis.from_url(own_redis_server.url) as replica:
        await replica.config_set("replica-serve-stale-data", "no")
        await replica.replicaof("127.0.0.1", free_port())

    async with RedisStorage.from_url(own_redis_server.url) as storage:
        with pytest.raises(StorageUnavailable):
            await call(storage, verb, session_id)


@pytest.mark.parametrize("verb", ["create", "replace", "touch", "delete"])
async def test_a_primary_with_too_few_replicas_is_unavailable_for_writing(
    own_redis_server: RedisServer, verb: str, session_id: str
) -> None:
    if redis_version() < (7, 0) and verb in {"replace", "touch"}:
        pytest.skip("this redis-server lets scripts write all the same")
    async with Redis.from_url(own_redis_server.url) as client:
        await client.set(f"sess:{session_id}", "cart", ex=60)
        await client.config_set("min-replicas-to-write", 1)

    async with RedisStorage.from_url(own_redis_server.url) as storage:
        with pytest.raises(StorageUnavailable):
            await call(storage, verb, session_id)


async def test_an_error_inside_a_script_of_redis_6_is_read_too(session_id: str) -> None:
    class Redis6:
        async def execute_command(self, *_command: object, **_options: object) -> None:
            raise ResponseError(
                "Error running script (call to f_1): @user_script:7: @user_script: 7: "
                "-READONLY You can't write against a read only replica."
            )

    storage = RedisStorage(cast("Redis", Redis6()))

    with pytest.raises(StorageUnavailable):
        await storage.replace(session_id, b"more", 60, expected=b"cart")


# Errors that trying again would not mend, and what does so in a moment.


def is_refused(error: StorageError) -> bool:
    """Ask whether it is an outage that is not tried again, with its cause."""
    return (
        isinstance(error, StorageUnavailable)
        and not error.may_retry
        and isinstance(error.__cause__, Exception)
    )


def is_final(error: StorageError) -> bool:
    """Ask whether it is a plain StorageError, with its cause."""
    return type(error) is StorageError and isinstance(error.__cause__, Exception)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("login", ["", ":wrong@", "nobody:wrong@"])
async def test_a_wrong_password_is_an_outage_that_is_not_retried(
    own_redis_server: RedisServer, verb: str, login: str, session_id: str
) -> None:
    async with Redis.from_url(own_redis_server.url) as client:
        await client.config_set("requirepass", "right")
    url = own_redis_server.url.replace("redis://", f"redis://{login}")

    async with RedisStorage.from_url(url) as storage:
        with pytest.raises(StorageError) as error:
            await call(storage, verb, session_id)

    assert is_refused(error.value)
    assert "wrong" not in str(error.value).replace("WRONGPASS", "")


@pytest.mark.parametrize("verb", VERBS)
async def test_a_user_without_the_right_is_an_outage_that_is_not_retried(
    own_redis_server: RedisServer, verb: str, session_id: str
) -> None:
    async with Redis.from_url(own_redis_server.url) as client:
        await client.acl_setuser("guest", enabled=True, passwords=["+guest"])
    url = own_redis_server.url.replace("redis://", "redis://guest:guest@")

    async with RedisStorage.from_url(url) as storage:
        with pytest.raises(StorageError) as error:
            await call(storage, verb, session_id)

    assert is_refused(error.value)
    assert session_id not in str(error.value)


async def test_a_server_that_does_not_know_a_command_is_not_quoted_with_its_arguments(
    tmp_path: Path, session_id: str
) -> None:
    server = RedisServer(tmp_path, "--rename-command", "EVALSHA", "")
    server.start()

    try:
        async with RedisStorage.from_url(server.url) as storage:
            await storage.create(session_id, b"cart", 60)
            with pytest.raises(StorageError) as error:
                await storage.replace(session_id, b"more", 60, expected=b"cart")
    finally:
        server.stop()

    told = "".join(traceback.format_exception(error.value))
    assert re.search("unknown command [`']EVALSHA[`']", told)
    assert session_id not in told


@pytest.mark.parametrize("verb", ["load", "replace"])
async def test_a_key_of_another_type_is_an_error_that_is_not_retried(
    redis: RedisStorage, client: Redis, verb: str, session_id: str
) -> None:
    await client.rpush(f"sess:{session_id}", "a list")

    with pytest.raises(StorageError) as error:
        await call(redis, verb, session_id)

    assert is_final(error.value)
    assert session_id not in str(error.value)


@pytest.mark.parametrize("verb", ["create", "replace"])
async def test_a_server_without_memory_is_an_outage_that_is_not_retried(
    own_redis_server: RedisServer, verb: str, session_id: str
) -> None:
    async with Redis.from_url(own_redis_server.url) as client:
        if verb == "replace":
            await client.set(f"sess:{session_id}", "cart")
        await client.config_set("maxmemory", 1)

    async with RedisStorage.from_url(own_redis_server.url) as storage:
        with pytest.raises(StorageError) as error:
            await call(storage, verb, session_id)

    assert is_refused(error.value)


async def let_snapshots_fail(client: Redis) -> None:
    await client.config_set("save", "1 1")
    await client.config_set("dir", "/proc/self")
    async with asyncio.timeout(30):
        while (await client.info("persistence"))["rdb_last_bgsave_status"] == "ok":
            with contextlib.suppress(ResponseError):
                await client.bgsave()
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("verb", ["create", "replace", "delete"])
async def test_a_server_whose_disk_is_full_refuses_writes_and_still_reads(
    tmp_path: Path, verb: str, session_id: str
) -> None:
    # Before Redis 7, nobody asks.
    protected = ("--enable-protected-configs", "yes") if redis_version() >= (7, 0) else ()
    server = RedisServer(tmp_path, *protected)
    server.start()
    try:
        async with (
            Redis.from_url(server.url) as client,
            RedisStorage.from_url(server.url) as storage,
        ):
            await storage.create(session_id, b"cart", 60)
            await let_snapshots_fail(client)

            with pytest.raises(StorageUnavailable, match="MISCONF") as error:
                await call(storage, verb, "another" if verb == "create" else session_id)
            stored = await storage.load(session_id)
    finally:
        server.stop()

    assert is_refused(error.value)
    assert stored is not None


async def test_a_server_without_its_replicas_refuses_writes(
    tmp_path: Path, session_id: str
) -> None:
    server = RedisServer(tmp_path, "--min-replicas-to-write", "1")
    server.start()
    try:
        async with RedisStorage.from_url(server.url) as storage:
            with pytest.raises(StorageUnavailable, match="NOREPLICAS") as error:
                await storage.create(session_id, b"cart", 60)
    finally:
        server.stop()

    assert is_refused(error.value)


async def test_a_server_that_is_busy_with_a_script_is_asked_again(
    tmp_path: Path, session_id: str
) -> None:
    server = RedisServer(tmp_path, "--lua-time-limit", "50")
    server.start()
    try:
        async with (
            Redis.from_url(server.url) as client,
            RedisStorage.from_url(server.url) as storage,
        ):
            await storage.load(session_id)
            script = asyncio.ensure_future(client.eval("while true do end", 0))
            await asyncio.sleep(0.3)

            with pytest.raises(StorageUnavailable, match="BUSY") as error:
                await storage.load(session_id)
            async with Redis.from_url(server.url) as killer:
                await killer.script_kill()
            with pytest.raises(ResponseError):
                await script
    finally:
        server.stop()

    assert error.value.may_retry


@pytest.mark.parametrize(
    ("said", "may_retry"),
    [
        ("LOADING Redis is loading the dataset in memory", True),
        ("BUSY Redis is busy running a script.", True),
        ("TRYAGAIN Multiple keys request during rehashing of slot", True),
        ("CLUSTERDOWN The cluster is down", True),
        ("READONLY You can't write against a read only replica.", True),
        ("ERR max number of clients reached", True),
        ("OOM command not allowed when used memory > 'maxmemory'.", False),
        ("MISCONF Redis is configured to save RDB snapshots", False),
        ("NOREPLICAS Not enough good replicas to write.", False),
        ("NOPERM this user has no permissions to run the 'get' command", False),
        ("NOAUTH Authentication required.", False),
        ("WRONGPASS invalid username-password pair or user is disabled.", False),
        # Of a proxy.
        ("upstream failure", True),
        ("ERR Operation timed out", True),
        # In a script, before Redis 7.
        ("ERR Error running script: @user_script:7: -OOM command not allowed", False),
        ("ERR Error running script: @user_script:7: -READONLY You can't write", True),
    ],
)
def test_what_redis_says_instead_of_doing_it_is_an_outage(said: str, *, may_retry: bool) -> None:
    parser: Any = Connection()._parser

    error = in_words_of_a_storage(parser.parse_error(said))

    assert isinstance(error, StorageUnavailable)
    assert error.may_retry == may_retry


@pytest.mark.parametrize(
    "error", [AttributeError("'NoneType' object has no attribute 'writelines'"), EOFError()]
)
@pytest.mark.parametrize("multiplex", [True, False])
async def test_whatever_a_client_raises_that_is_no_answer_is_an_outage(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, error: Exception, *, multiplex: bool
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise error

    async with RedisStorage.from_url(redis_server.url, multiplex=multiplex) as storage:
        monkeypatch.setattr(storage._clients.first.connection_pool, "get_connection", fail)

        with pytest.raises(StorageUnavailable) as unavailable:
            await storage.load("k")

    assert unavailable.value.may_retry


# Whose client it is.


async def connections(client: Redis, name: str) -> int:
    """Return how many connections called *name* the server has."""
    clients: list[dict[str, Any]] = await client.client_list()
    return sum(each["name"] == name for each in clients)


async def open_connections(client: Redis, count: int) -> None:
    """Let the pool of *client* have so many connections at rest."""
    pool: Any = client.connection_pool
    opened = [await pool.get_connection() for _ in range(count)]
    for connection in opened:
        await pool.release(connection)


async def test_a_client_that_was_handed_in_stays_open(
    redis_server: RedisServer, client: Redis, session_id: str
) -> None:
    async with Redis.from_url(redis_server.url, client_name=session_id) as handed_in:
        await open_connections(handed_in, 3)
        storage = RedisStorage(handed_in)
        await storage.load(session_id)

        await storage.close()

        assert await connections(client, session_id) >= 2
        assert await storage.load(session_id) is None


async def test_a_client_that_was_handed_in_stays_open_after_async_with(
    redis_server: RedisServer, client: Redis, session_id: str
) -> None:
    async with Redis.from_url(redis_server.url, client_name=session_id) as handed_in:
        await open_connections(handed_in, 3)
        async with RedisStorage(handed_in) as storage:
            await storage.load(session_id)

        assert await connections(client, session_id) >= 2


async def test_a_client_of_its_own_is_closed(
    redis_server: RedisServer, client: Redis, session_id: str
) -> None:
    storage = RedisStorage.from_url(redis_server.url, client_name=session_id)
    await storage.load(session_id)
    opened = await connections(client, session_id)

    await storage.close()

    assert opened == 1
    assert await connections(client, session_id) == 0


async def test_leaving_async_with_by_an_error_closes_too(
    redis_server: RedisServer, client: Redis, session_id: str
) -> None:
    async def fail() -> None:
        async with RedisStorage.from_url(redis_server.url, client_name=session_id) as storage:
            await storage.load(session_id)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()

    assert await connections(client, session_id) == 0


async def test_closing_twice_is_harmless(redis_server: RedisServer, session_id: str) -> None:
    storage = RedisStorage.from_url(redis_server.url)
    await storage.load(session_id)

    await storage.close()
    await storage.close()


async def test_nothing_is_connected_before_the_first_call(
    redis_server: RedisServer, client: Redis, session_id: str
) -> None:
    async with RedisStorage.from_url(redis_server.url, client_name=session_id) as storage:
        before = await connections(client, session_id)
        await storage.load(session_id)

        assert (before, await connections(client, session_id)) == (0, 1)


async def test_closing_what_was_never_used_needs_no_server() -> None:
    storage = RedisStorage.from_url(f"redis://127.0.0.1:{free_port()}")

    await storage.close()


async def test_a_url_is_no_client() -> None:
    with pytest.raises(OptionsError, match=r"use RedisStorage\.from_url") as caught:
        RedisStorage("redis://:password@127.0.0.1")  # type: ignore[arg-type]

    assert "password" not in str(caught.value)


# Mistakes.


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("redis:/127.0.0.1", "begins with no known scheme"),
        ("127.0.0.1:6379", "begins with no known scheme"),
        ("http://127.0.0.1", "begins with no known scheme"),
        ("Redis+tls://127.0.0.1", "did you mean rediss://?"),
        ("redis://:hush@127.0.0.1/zero", "'zero' in the url is no database"),
        ("redis://127.0.0.1:port/0", "its port is not from 1 to 65535"),
        ("", "begins with no known scheme"),
        (None, "the url is of type NoneType"),
    ],
)
def test_a_url_with_a_mistake_is_refused_when_built(url: Any, complaint: str) -> None:
    with pytest.raises(OptionsError) as caught:
        RedisStorage.from_url(url)

    assert complaint in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1",
        "redis://127.0.0.1/",
        "rediss://user:pass@localhost:6380/2?socket_timeout=1",
        "unix:///run/redis.sock?db=1",
    ],
)
def test_a_url_without_a_mistake_is_taken(url: str) -> None:
    assert isinstance(RedisStorage.from_url(url), RedisStorage)


def test_a_client_that_blocks_is_refused_when_built() -> None:
    client: Any = BlockingRedis()

    with pytest.raises(OptionsError, match=r"blocks the event loop: take one of redis\.asyncio"):
        RedisStorage(client)


@pytest.mark.parametrize("module", ["aiosess.storages.redis", "aiosess.compat.redis_storage"])
def test_without_redis_py_the_error_says_what_to_install(module: str) -> None:
    program = f"import sys; sys.modules['redis'] = None; import {module}"

    finished = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )

    assert 'pip install "aiosess[redis]"' in finished.stderr.splitlines()[-1]


# What the guide says of rights.


@pytest.mark.parametrize("verb", [*VERBS, "load_and_touch"])
@pytest.mark.parametrize("multiplex", [True, False])
async def test_the_rights_that_the_guide_names_are_enough(
    own_redis_server: RedisServer, verb: str, session_id: str, *, multiplex: bool
) -> None:
    guide = Path(__file__).parents[2] / "docs" / "how-to" / "redis.md"
    [command] = re.findall(r"^ACL SETUSER .*$", guide.read_text(), re.MULTILINE)
    async with Redis.from_url(own_redis_server.url) as client:
        await client.execute_command(*command.split())  # type: ignore[no-untyped-call] # redis-py has no types
        if verb != "create":
            await client.set(f"sess:{session_id}", "cart", ex=30)
    url = own_redis_server.url.replace("redis://", "redis://sessions:password@")

    async with RedisStorage.from_url(
        url.removesuffix("/0"), multiplex=multiplex, client_name="web"
    ) as storage:
        answer = await call(storage, verb, session_id)

    assert answer not in {None, False}


async def test_the_rights_that_the_guide_names_are_enough_to_be_told(
    own_redis_server: RedisServer,
) -> None:
    guide = Path(__file__).parents[2] / "docs" / "how-to" / "redis.md"
    [command] = re.findall(r"^ACL SETUSER .*$", guide.read_text(), re.MULTILINE)
    async with Redis.from_url(own_redis_server.url) as client:
        await client.execute_command(*command.split())  # type: ignore[no-untyped-call] # redis-py has no types
    url = own_redis_server.url.replace("redis://", "redis://sessions:password@")

    async with RedisStorage.from_url(url) as storage, storage.subscribe() as notices:
        await storage.publish(b"notice")

        assert await anext(notices) == b"notice"


@pytest.mark.parametrize("right", ["+publish", "+subscribe", "&sess:ended"])
async def test_without_the_right_to_be_told_it_is_an_outage(
    own_redis_server: RedisServer, right: str
) -> None:
    guide = Path(__file__).parents[2] / "docs" / "how-to" / "redis.md"
    [command] = re.findall(r"^ACL SETUSER .*$", guide.read_text(), re.MULTILINE)
    words = [each for each in command.split() if each != right]
    async with Redis.from_url(own_redis_server.url) as client:
        await client.execute_command(*words)  # type: ignore[no-untyped-call] # redis-py has no types
    url = own_redis_server.url.replace("redis://", "redis://sessions:password@")

    async with RedisStorage.from_url(url) as storage:
        with pytest.raises(StorageUnavailable, match="refuses this user"):
            async with storage.subscribe():
                await storage.publish(b"notice")


async def test_what_listens_is_told_that_the_connection_is_lost(
    own_redis_server: RedisServer,
) -> None:
    async with RedisStorage.from_url(own_redis_server.url) as storage, storage.subscribe() as heard:
        own_redis_server.stop()

        with pytest.raises(StorageUnavailable):
            await anext(heard)


async def test_silence_is_no_fault_of_what_listens(redis_server: RedisServer) -> None:
    url = f"{redis_server.url}?socket_timeout=0.05"
    async with RedisStorage.from_url(url) as storage, storage.subscribe() as notices:
        waiting = asyncio.ensure_future(anext(notices))
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done

        await storage.publish(b"notice")

        assert await waiting == b"notice"


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_server_that_is_there_is_heard_after_any_silence(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    monkeypatch.setattr(redis_notices, "_SILENCE", 0.1)
    url = f"{redis_server.url}?protocol={protocol}"
    async with RedisStorage.from_url(url) as storage, storage.subscribe() as notices:
        waiting = asyncio.ensure_future(anext(notices))
        done, _ = await asyncio.wait([waiting], timeout=0.5)
        assert not done

        await storage.publish(b"notice")

        assert await waiting == b"notice"


async def test_a_user_that_may_not_ask_whether_the_server_is_there_hears_on(
    own_redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_notices, "_SILENCE", 0.1)
    guide = Path(__file__).parents[2] / "docs" / "how-to" / "redis.md"
    [command] = re.findall(r"^ACL SETUSER .*$", guide.read_text(), re.MULTILINE)
    assert "+ping" not in command
    async with Redis.from_url(own_redis_server.url) as client:
        await client.execute_command(*command.split())  # type: ignore[no-untyped-call] # redis-py has no types
    url = own_redis_server.url.replace("redis://", "redis://sessions:password@")

    async with RedisStorage.from_url(url) as storage, storage.subscribe() as notices:
        waiting = asyncio.ensure_future(anext(notices))
        done, _ = await asyncio.wait([waiting], timeout=0.5)
        assert not done

        await storage.publish(b"notice")

        assert await waiting == b"notice"


async def test_what_listens_is_told_that_the_server_hangs(
    own_redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_notices, "_SILENCE", 0.1)
    async with RedisStorage.from_url(own_redis_server.url) as storage, storage.subscribe() as heard:
        own_redis_server.pause()

        async with asyncio.timeout(5):
            with pytest.raises(StorageUnavailable, match="did not answer: TimeoutError"):
                await anext(heard)


async def test_what_a_server_says_unasked_is_no_notice(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [[b"MOVING", 1, 2], [b"message", b"sess:ended", b"notice"]]

    async def read(_connection: object, _limit: float) -> object:
        return said.pop(0)

    async with RedisStorage.from_url(redis_server.url) as storage, storage.subscribe() as notices:
        monkeypatch.setattr(redis_notices, "_read", read)

        assert await anext(notices) == b"notice"


async def test_nobody_listens_where_nothing_answers() -> None:
    async with RedisStorage.from_url(f"redis://127.0.0.1:{free_port()}") as storage:
        with pytest.raises(StorageUnavailable):
            await storage.subscribe().__aenter__()


async def test_nobody_listens_by_a_client_that_shows_no_connections() -> None:
    class Own:
        async def execute_command(self, *_command: object, **_options: object) -> None: ...

    storage = RedisStorage(cast("Any", Own()))

    with pytest.raises(StorageUnavailable, match="Own has no connections to listen on"):
        await storage.subscribe().__aenter__()


async def test_who_does_not_get_to_listen_in_time_is_told(own_redis_server: RedisServer) -> None:
    async with RedisStorage.from_url(own_redis_server.url) as storage:
        own_redis_server.pause()

        with pytest.raises(StorageUnavailable, match="TimeoutError"):
            await storage.within(0.1).subscribe().__aenter__()


# Clients of valkey-py, which was redis-py once.


@pytest.fixture
async def valkey_client(redis_server: RedisServer) -> AsyncIterator[Any]:
    async with Valkey.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
def valkey(valkey_client: Any) -> RedisStorage:
    return RedisStorage(valkey_client)


async def test_a_client_of_valkey_py_keeps_the_contract(valkey_client: Any) -> None:
    def make() -> RedisStorage:
        return RedisStorage(valkey_client, prefix=f"{uuid.uuid4()}:")

    results = await run_contract(Harness(make, unit=0.05))

    assert all(result.is_kept for result in results), report(results)


async def test_a_script_that_valkey_does_not_know_is_sent_again(
    valkey: RedisStorage, client: Redis, session_id: str
) -> None:
    await valkey.create(session_id, b"cart", 60)
    await client.script_flush()

    await valkey.replace(session_id, b"more", 60, expected=b"cart")

    stored = await valkey.load(session_id)
    assert stored is not None
    assert stored.payload == b"more"


async def test_an_outage_is_one_with_a_client_of_valkey_py_too() -> None:
    async with Valkey(port=free_port()) as client:
        with pytest.raises(StorageUnavailable) as unavailable:
            await RedisStorage(cast("Any", client)).within(1).load("k")

    assert unavailable.value.may_retry


async def test_a_refusal_is_one_with_a_client_of_valkey_py_too(
    own_redis_server: RedisServer, session_id: str
) -> None:
    async with Redis.from_url(own_redis_server.url) as client:
        await client.config_set("maxmemory", 1)

    async with Valkey.from_url(own_redis_server.url) as client:
        with pytest.raises(StorageUnavailable) as refused:
            await RedisStorage(client).create(session_id, b"cart", 60)

    assert is_refused(refused.value)
