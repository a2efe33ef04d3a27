"""The shared connection to Redis when something goes wrong: nobody gets another's answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis, Sentinel
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import ResponseError

from aiosess import StorageUnavailable
from aiosess.clients import redis as redis_line
from aiosess.guard.retries import RetryingStorage, RetryPolicy
from aiosess.storages.redis import RedisStorage
from tests.faults.odd_redis import Conversation, bulk, odd_redis
from tests.servers import RedisServer, Server, binary, free_port

LIMIT: Final = 0.1
PATIENCE: Final = 0.3
LONGER_THAN_A_TICK: Final = 0.05


@pytest.fixture
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_line, "_PATIENCE", PATIENCE)


async def payload(storage: RedisStorage | RetryingStorage, session_id: str) -> bytes | None:
    stored = await storage.load(session_id)
    return None if stored is None else stored.payload


async def outcomes(storage: RedisStorage | RetryingStorage, ids: list[str]) -> list[Any]:
    """Load *ids* at once, and return each payload, or what was raised, by its type."""
    results = await asyncio.gather(*(payload(storage, i) for i in ids), return_exceptions=True)
    return [type(each) if isinstance(each, BaseException) else each for each in results]


def until_asked(storage: RedisStorage, session_id: str) -> asyncio.Task[bytes | None]:
    return asyncio.create_task(payload(storage, session_id))


# Lost in the middle.


async def test_a_connection_cut_in_mid_reply_fails_all_who_wait_and_is_replaced() -> None:
    async def talk(client: Conversation) -> None:
        await client.greet()
        if client.number == 1:
            for _ in range(3):
                await client.command()
            client.say(bulk(b"sess:a")[:-4])
            await client.flush()
            return
        await client.echo()

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        lost = await outcomes(storage, ["a", "b", "c"])
        then = await outcomes(storage, ["b", "c"])

    assert lost == [StorageUnavailable] * 3
    assert then == [b"sess:b", b"sess:c"]


async def test_who_was_answered_before_the_cut_has_the_answer_and_nothing_is_sent_again() -> None:
    commands: list[bytes] = []

    async def talk(client: Conversation) -> None:
        await client.greet()
        commands.extend([(await client.command())[1] for _ in range(4)])
        client.say(bulk(commands[0]) + bulk(commands[1]) + b"$6\r\nse")
        await client.flush()

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        results = await outcomes(storage, ["a", "b", "c", "d"])

    assert results == [b"sess:a", b"sess:b", StorageUnavailable, StorageUnavailable]
    assert commands == [b"sess:a", b"sess:b", b"sess:c", b"sess:d"]


async def test_an_answer_that_comes_byte_by_byte_is_whole_in_the_end() -> None:
    async def talk(client: Conversation) -> None:
        await client.greet()
        while True:
            for byte in bulk((await client.command())[1]):
                client.say(bytes([byte]))
                await client.flush()
                await asyncio.sleep(0)

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        results = await outcomes(storage, ["a", "b", "c"])

    assert results == [b"sess:a", b"sess:b", b"sess:c"]


@pytest.mark.parametrize("multiplex", [True, False])
async def test_a_server_that_speaks_another_protocol_is_unavailable(*, multiplex: bool) -> None:
    async def talk(client: Conversation) -> None:
        await client.greet()
        await client.command()
        client.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await client.command()

    async with (
        odd_redis(talk) as url,
        RedisStorage.from_url(url, multiplex=multiplex) as storage,
    ):
        results = await outcomes(storage, ["a", "b", "c"])

    assert results == [StorageUnavailable] * 3


CALLS: Final[dict[str, Callable[[RedisStorage], Awaitable[object]]]] = {
    "create": lambda storage: storage.create("k", b"cart", 60),
    "load": lambda storage: storage.load("k"),
    "load_and_touch": lambda storage: storage.load_and_touch("k", 60),
    "replace": lambda storage: storage.replace("k", b"more", 60, expected=b"cart"),
    "touch": lambda storage: storage.touch("k", 60),
    "delete": lambda storage: storage.delete("k"),
}


@pytest.mark.parametrize("multiplex", [True, False])
@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("create", bulk(b"cart")),
        ("create", b":1\r\n"),
        ("load", b":1\r\n"),
        ("load", b"*0\r\n"),
        ("load_and_touch", bulk(b"cart")),
        ("load_and_touch", b":1\r\n"),
        ("replace", b":0\r\n"),
        ("replace", b"*0\r\n"),
        ("touch", bulk(b"cart")),
        ("touch", b"$-1\r\n"),
        ("delete", bulk(b"cart")),
    ],
)
async def test_what_answers_another_command_is_no_answer(
    verb: str, said: bytes, *, multiplex: bool
) -> None:
    async def talk(client: Conversation) -> None:
        await client.greet()
        while await client.command():
            client.say(said)

    async with odd_redis(talk) as url, RedisStorage.from_url(url, multiplex=multiplex) as storage:
        with pytest.raises(StorageUnavailable) as unavailable:
            await CALLS[verb](storage)

    assert unavailable.value.may_retry
    assert "cart" not in str(unavailable.value)


async def test_a_server_that_closes_after_accepting_is_unavailable() -> None:
    async def talk(client: Conversation) -> None:
        client.close()

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        results = await outcomes(storage, ["a", "b"])

    assert results == [StorageUnavailable] * 2


async def test_an_answer_that_its_command_cannot_have_ends_the_connection() -> None:
    async def talk(client: Conversation) -> None:
        await client.greet()
        if client.number == 1:
            for _ in range(3):
                await client.command()
            client.say(bulk(b"sess:a") + b":1\r\n" + bulk(b"sess:b"))
            await client.flush()
            await client.command()
            return
        await client.echo()

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        mixed = await outcomes(storage, ["a", "b", "c"])
        then = await outcomes(storage, ["b", "c"])

    assert mixed == [b"sess:a", StorageUnavailable, StorageUnavailable]
    assert then == [b"sess:b", b"sess:c"]


async def test_who_waits_on_a_connection_that_is_out_of_step_gets_no_answer() -> None:
    is_asked = asyncio.Event()

    async def talk(client: Conversation) -> None:
        await client.greet()
        if client.number == 1:
            await client.command()
            is_asked.set()
            await client.command()
        await client.echo()

    async with odd_redis(talk) as url, RedisStorage.from_url(url).within(60) as storage:
        waiting = until_asked(storage, "a")
        await is_asked.wait()
        stored = await storage.load_afresh("b", agrees=lambda _stored: False)
        outcome = await asyncio.gather(waiting, return_exceptions=True)
        then = await outcomes(storage, ["c"])

    assert stored is not None
    assert stored.payload == b"sess:b"
    assert [type(each) for each in outcome] == [StorageUnavailable]
    assert then == [b"sess:c"]


async def test_who_waits_on_a_connection_that_is_in_step_goes_on_waiting() -> None:
    is_asked, may_answer = asyncio.Event(), asyncio.Event()

    async def talk(client: Conversation) -> None:
        await client.greet()
        if client.number == 1:
            _, key = await client.command()
            is_asked.set()
            await may_answer.wait()
            client.say(bulk(key))
        await client.echo()

    async with odd_redis(talk) as url, RedisStorage.from_url(url).within(60) as storage:
        waiting = until_asked(storage, "a")
        await is_asked.wait()
        await storage.load_afresh("b", agrees=lambda _stored: True)
        may_answer.set()

        assert await waiting == b"sess:a"


async def test_a_record_in_the_place_of_an_ok_is_no_answer() -> None:
    async def talk(client: Conversation) -> None:
        await client.greet()
        await client.echo()

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        with pytest.raises(StorageUnavailable, match="answers another command"):
            await storage.create("a", b"cart", 60)


async def test_what_nobody_asked_for_is_given_to_nobody() -> None:
    async def talk(client: Conversation) -> None:
        await client.greet()
        client.say(bulk((await client.command())[1]) + bulk(b"another's"))
        await client.echo()

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        results = [await payload(storage, session_id) for session_id in ["a", "b", "c"]]

    assert results == [b"sess:a", b"sess:b", b"sess:c"]


# Cut while nobody used it.


async def test_a_connection_cut_while_idle_is_replaced_without_an_error(
    redis_server: RedisServer,
) -> None:
    async with (
        RedisStorage.from_url(redis_server.url, client_name="cut-while-idle") as storage,
        Redis.from_url(redis_server.url) as client,
    ):
        await storage.create("idle", b"cart", 60)
        [line] = [c for c in await client.client_list() if c["name"] == "cut-while-idle"]
        await client.client_kill_filter(_id=line["id"])

        results = await outcomes(storage, ["idle"] * 3)

    assert results == [b"cart"] * 3


async def test_what_is_lost_with_the_first_call_after_a_pause_is_sent_again_once() -> None:
    commands: list[tuple[int, bytes]] = []

    async def talk(client: Conversation) -> None:
        await client.greet()
        if client.number == 1:
            client.say(bulk((await client.command())[1]))
        commands.append((client.number, (await client.command())[1]))

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        first = await payload(storage, "a")
        await asyncio.sleep(LONGER_THAN_A_TICK)
        then = await outcomes(storage, ["b"])

    assert first == b"sess:a"
    assert then == [StorageUnavailable]
    assert commands == [(1, b"sess:b"), (2, b"sess:b")]


async def test_nothing_is_sent_again_once_something_was_answered_since_the_pause() -> None:
    commands: list[tuple[int, bytes]] = []

    async def talk(client: Conversation) -> None:
        await client.greet()
        client.say(bulk((await client.command())[1]))
        commands.append((client.number, (await client.command())[1]))
        client.say(bulk(commands[-1][1]))
        commands.append((client.number, (await client.command())[1]))

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        await storage.load("a")
        await asyncio.sleep(LONGER_THAN_A_TICK)
        results = await outcomes(storage, ["b", "c"])

    assert results == [b"sess:b", StorageUnavailable]
    assert commands == [(1, b"sess:b"), (1, b"sess:c")]


async def test_nothing_is_sent_again_where_there_was_no_pause() -> None:
    commands: list[tuple[int, bytes]] = []

    async def talk(client: Conversation) -> None:
        await client.greet()
        client.say(bulk((await client.command())[1]))
        commands.append((client.number, (await client.command())[1]))

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        await storage.load("a")
        results = await outcomes(storage, ["b"])

    assert results == [StorageUnavailable]
    assert commands == [(1, b"sess:b")]


# No answer.


async def test_a_connection_that_owes_an_answer_for_too_long_is_replaced(
    little_patience: None,
) -> None:
    async def talk(client: Conversation) -> None:
        await client.greet()
        if client.number == 1:
            while True:
                await client.command()
        await client.echo()

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        started = time.monotonic()
        late = await outcomes(storage, ["a", "b"])
        took = time.monotonic() - started
        then = await outcomes(storage, ["a", "b"])

    assert late == [StorageUnavailable] * 2
    assert PATIENCE <= took < 5 * PATIENCE
    assert then == [b"sess:a", b"sess:b"]


async def test_a_connection_that_is_not_made_in_time_is_given_up(
    little_patience: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_line, "_CONNECT", PATIENCE)

    async def talk(client: Conversation) -> None:
        if client.number == 1:
            while True:
                await client.command()
        await client.greet()
        await client.echo()

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        late = await outcomes(storage, ["a", "b"])
        then = await outcomes(storage, ["a", "b"])

    assert late == [StorageUnavailable] * 2
    assert then == [b"sess:a", b"sess:b"]


async def test_a_connection_that_answers_slowly_but_steadily_is_kept(little_patience: None) -> None:
    numbers: set[int] = set()

    async def talk(client: Conversation) -> None:
        numbers.add(client.number)
        await client.greet()
        while True:
            command = await client.command()
            await asyncio.sleep(PATIENCE / 2)
            client.say(bulk(command[1]))

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        results = await outcomes(storage, ["a", "b", "c", "d"])

    assert results == [b"sess:a", b"sess:b", b"sess:c", b"sess:d"]
    assert numbers == {1}


async def test_the_clients_socket_timeout_is_how_long_an_answer_may_take() -> None:
    async def talk(client: Conversation) -> None:
        await client.greet()
        while True:
            await client.command()

    async with odd_redis(talk) as url, RedisStorage.from_url(url, socket_timeout=LIMIT) as storage:
        started = time.monotonic()
        results = await outcomes(storage, ["a"])
        took = time.monotonic() - started

    assert results == [StorageUnavailable]
    assert LIMIT <= took < 10 * LIMIT


async def test_a_paused_server_is_waited_for_within_the_limits_and_used_again_when_it_goes_on(
    own_redis_server: RedisServer, little_patience: None
) -> None:
    async with RedisStorage.from_url(own_redis_server.url) as storage:
        impatient = RetryingStorage(storage, RetryPolicy(timeout=LIMIT))
        await storage.create("there", b"cart", 60)
        own_redis_server.pause()
        given_up = [await outcomes(impatient, ["there"] * 5) for _ in range(8)]
        own_redis_server.resume()

        then = await outcomes(storage, ["there"] * 5)

    assert given_up == [[StorageUnavailable] * 5] * 8
    assert then == [b"cart"] * 5


# What an outage may cost.


async def test_twelve_thousand_calls_at_once_are_all_answered(
    own_redis_server: RedisServer,
) -> None:
    async with RedisStorage.from_url(own_redis_server.url) as storage:
        await storage.create("there", b"cart", 60)

        found = await asyncio.gather(*(payload(storage, "there") for _ in range(12_000)))

        assert found == [b"cart"] * 12_000


async def test_calls_given_up_before_they_were_sent_leave_nothing_behind() -> None:
    answer = asyncio.Event()

    async def talk(client: Conversation) -> None:
        await answer.wait()
        await client.greet()
        await client.echo()

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        impatient = RetryingStorage(storage, RetryPolicy(timeout=0.02))
        given_up = [await outcomes(impatient, ["a"] * 10) for _ in range(3)]
        waiting = asyncio.create_task(outcomes(storage, ["b"] * 10))
        await asyncio.sleep(0)
        answer.set()

        results = await waiting

    assert given_up == [[StorageUnavailable] * 10] * 3
    assert results == [b"sess:b"] * 10


async def test_calls_given_up_after_they_were_sent_keep_their_place_until_they_are_answered() -> (
    None
):
    answer = asyncio.Event()

    async def talk(client: Conversation) -> None:
        await client.greet()
        await client.command()
        await answer.wait()
        client.say(bulk(b"sess:a"))
        await client.echo()

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        impatient = RetryingStorage(storage, RetryPolicy(timeout=0.02))
        given_up = await outcomes(impatient, ["a"] * 10)
        waiting = asyncio.create_task(outcomes(storage, ["b"]))
        await asyncio.sleep(0)
        answer.set()

        results = await waiting

    assert given_up == [StorageUnavailable] * 10
    assert results == [b"sess:b"]


@pytest.mark.skipif(
    (3, 12) <= sys.version_info < (3, 12, 9) or (3, 13) <= sys.version_info < (3, 13, 2),
    reason="writelines() of this Python buffers without end: CVE-2024-12254",
)
async def test_while_a_server_does_not_read_what_is_asked_stays_here_and_can_be_cancelled() -> None:
    read_on = asyncio.Event()
    read: list[bytes] = []

    async def talk(client: Conversation) -> None:
        await client.greet()
        while True:
            read.append((await client.command())[1])
            client.say(b"+OK\r\n")
            await read_on.wait()

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        creating: list[asyncio.Task[Any]] = []
        for number in range(20):
            creating.append(asyncio.create_task(storage.create(f"{number}", bytes(10**6), 60)))
            await asyncio.sleep(0.005)
        creating.pop().cancel()
        read_on.set()
        await asyncio.gather(*creating)

    assert read == [f"sess:{number}".encode() for number in range(19)]


# Sentinel.


class SentinelServer(Server):
    """A redis-sentinel that watches one primary by itself."""

    def __init__(self, folder: Path, primary: RedisServer) -> None:
        port = free_port()
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor sessions 127.0.0.1 {primary.port} 1\n"
            "sentinel down-after-milliseconds sessions 500\n"
            "sentinel failover-timeout sessions 2000\n"
        )
        super().__init__([binary("redis-server"), str(config), "--sentinel"], port)


async def until(is_so: Callable[[], Awaitable[object]]) -> None:
    for _ in range(400):
        if await is_so():
            return
        await asyncio.sleep(0.05)
    pytest.fail("it did not become so in 20 s")


async def demote(sentinel: Any) -> bool:
    """Ask for a failover; False while the replica is not good enough."""
    try:
        await sentinel.sentinels[0].execute_command("SENTINEL", "FAILOVER", "sessions")
    except ResponseError:
        return False
    return True


async def is_primary(sentinel: Any, server: RedisServer) -> bool:
    # Valkey's says for a moment that it knows of none.
    with contextlib.suppress(MasterNotFoundError):
        _, port = await sentinel.discover_master("sessions")
        return bool(port == server.port)
    return False


async def has_the_record(server: RedisServer) -> bool:
    async with Redis.from_url(server.url) as client:
        return bool(await client.exists("sess:there"))


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer, SentinelServer]]:
    """A primary, its replica, and who watches over them."""
    for name in ("primary", "replica", "sentinel"):
        (tmp_path / name).mkdir()
    primary = RedisServer(tmp_path / "primary")
    replica = RedisServer(tmp_path / "replica")
    replica._command += ["--replicaof", "127.0.0.1", str(primary.port)]
    replica._command += ["--repl-diskless-sync-delay", "0"]
    primary._command += ["--repl-diskless-sync-delay", "0"]
    sentinel = SentinelServer(tmp_path / "sentinel", primary)
    everybody: list[Server] = [primary, replica, sentinel]
    try:
        for server in everybody:
            server.start()
        yield primary, replica, sentinel
    finally:
        for server in everybody:
            server.stop()


@pytest.fixture
async def sentinel(servers: tuple[RedisServer, RedisServer, SentinelServer]) -> AsyncIterator[Any]:
    """The client of the sentinel, once that knows the replica."""
    client: Any = Sentinel([("127.0.0.1", servers[2].port)])  # type: ignore[no-untyped-call]
    await until(lambda: client.discover_slaves("sessions"))
    yield client
    for each in client.sentinels:
        await each.aclose()


async def test_after_a_failover_by_sentinel_the_new_primary_is_used(
    servers: tuple[RedisServer, RedisServer, SentinelServer], sentinel: Any
) -> None:
    primary, replica, _ = servers
    async with sentinel.master_for("sessions") as client:
        storage = RedisStorage(client)
        lasting = RetryingStorage(storage, RetryPolicy(retries=150, wait=lambda _: 0.1))
        await lasting.create("there", b"cart", 600)
        await until(lambda: has_the_record(servers[1]))
        primary.stop()

        version = await lasting.replace("there", b"more", 600, expected=b"cart")
        loaded = await payload(lasting, "there")

        assert version == b"more"
        assert loaded == b"more"
        async with Redis.from_url(replica.url) as seen:
            assert await seen.get("sess:there") == b"more"
        await storage.close()


async def test_a_primary_that_was_demoted_is_left_for_the_new_one(
    servers: tuple[RedisServer, RedisServer, SentinelServer], sentinel: Any
) -> None:
    async with sentinel.master_for("sessions") as client:
        storage = RedisStorage(client)
        lasting = RetryingStorage(storage, RetryPolicy(retries=150, wait=lambda _: 0.1))
        await lasting.create("there", b"cart", 600)
        await until(lambda: has_the_record(servers[1]))
        await until(lambda: demote(sentinel))
        await until(lambda: is_primary(sentinel, servers[1]))
        # The sentinel does so too, some seconds later.
        async with Redis.from_url(servers[0].url) as demoted:
            await demoted.replicaof("127.0.0.1", servers[1].port)

        await lasting.replace("there", b"more", 600, expected=b"cart")

        async with Redis.from_url(servers[1].url) as seen:
            assert await seen.get("sess:there") == b"more"
        await storage.close()


# What answers another command

NO_SCRIPT: Final = b"-NOSCRIPT No matching script.\r\n"


@pytest.mark.parametrize("multiplex", [True, False])
async def test_a_load_that_is_answered_as_a_script_is_an_outage(multiplex: bool) -> None:  # noqa: FBT001 - a parameter of a test
    async def talk(client: Conversation) -> None:
        await client.greet()
        while await client.command():
            client.say(NO_SCRIPT)

    async with odd_redis(talk) as url, RedisStorage.from_url(url, multiplex=multiplex) as storage:
        with pytest.raises(StorageUnavailable, match="does not know the script"):
            await storage.load("a")


async def test_a_script_that_redis_never_knows_is_an_outage() -> None:
    async def talk(client: Conversation) -> None:
        await client.greet()
        while await client.command():
            client.say(NO_SCRIPT)

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        with pytest.raises(StorageUnavailable, match="does not know the script"):
            await storage.touch("a", 60)


@pytest.mark.parametrize(
    "reply", [b"*0\r\n", b"*1\r\n$1\r\na\r\n", b"*3\r\n$1\r\na\r\n:1\r\n:1\r\n"]
)
@pytest.mark.parametrize("multiplex", [True, False])
async def test_a_record_and_touch_of_another_length_is_an_outage(
    reply: bytes,
    multiplex: bool,  # noqa: FBT001 - a parameter of a test
) -> None:
    async def talk(client: Conversation) -> None:
        await client.greet()
        while await client.command():
            client.say(reply)

    async with odd_redis(talk) as url, RedisStorage.from_url(url, multiplex=multiplex) as storage:
        with pytest.raises(StorageUnavailable, match="answers another command"):
            await storage.load_and_touch("a", 60)


async def test_a_push_that_redis_py_does_not_understand_ends_the_connection() -> None:
    async def talk(client: Conversation) -> None:
        await client.greet()
        if client.number == 1:
            await client.command()
            client.say(b">0\r\n")
        await client.echo()

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        with pytest.raises(StorageUnavailable, match="did not answer: IndexError"):
            await storage.load("a")

        assert await payload(storage, "b") == b"sess:b"


# The storage's own time limit


async def test_a_call_to_a_silent_server_ends_with_the_time_limit_of_the_storage() -> None:
    async def talk(client: Conversation) -> None:
        await client.greet()
        while True:
            await client.command()

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        limited = storage.within(LIMIT)

        assert limited is not None
        with pytest.raises(StorageUnavailable, match=rf"did not answer within {LIMIT:g} s"):
            await limited.load("a")


async def test_the_time_limit_counts_while_the_connection_is_made() -> None:
    async def talk(client: Conversation) -> None:
        await client.command()
        await asyncio.Event().wait()

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        limited = storage.within(LIMIT)

        assert limited is not None
        with pytest.raises(StorageUnavailable, match=rf"did not answer within {LIMIT:g} s"):
            await limited.load("a")


async def test_a_call_that_was_late_does_not_cost_the_others_their_answer() -> None:
    async def talk(client: Conversation) -> None:
        await client.greet()
        if client.number > 1:
            await client.echo()
        late, other = await client.command(), await client.command()
        await asyncio.sleep(2 * LIMIT)
        client.say(bulk(late[1]) + bulk(other[1]))
        await client.echo()

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        limited = storage.within(LIMIT)
        assert limited is not None

        results = await asyncio.gather(*(outcomes(each, ["a"]) for each in (limited, storage)))

        then = await outcomes(limited, ["b"])

    assert results == [[StorageUnavailable], [b"sess:a"]]
    assert then == [b"sess:b"]


async def test_without_a_shared_connection_the_time_limit_is_kept_too() -> None:
    async def talk(client: Conversation) -> None:
        await client.greet()
        while True:
            await client.command()

    async with (
        odd_redis(talk) as url,
        RedisStorage.from_url(url, multiplex=False) as storage,
    ):
        with pytest.raises(StorageUnavailable, match=rf"did not answer within {LIMIT:g} s"):
            await storage.within(LIMIT).load("a")


@pytest.mark.parametrize("limit", [LIMIT, 2 * LIMIT])
async def test_a_silent_connection_is_replaced_after_the_time_limit_of_the_storage(
    limit: float,
) -> None:
    async def talk(client: Conversation) -> None:
        await client.greet()
        while client.number == 1:
            await client.command()
        await client.echo()

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        limited = storage.within(limit)
        started = time.monotonic()
        late = await outcomes(limited, ["a", "b"])
        took = time.monotonic() - started
        then = await outcomes(limited, ["a", "b"])

    assert late == [StorageUnavailable] * 2
    assert took >= limit
    assert then == [b"sess:a", b"sess:b"]


async def test_what_a_server_that_stops_reading_was_not_sent_goes_to_another_connection() -> None:
    has_begun = asyncio.Event()

    async def talk(client: Conversation) -> None:
        await client.greet()
        if client.number == 1:
            await client.hear()
            has_begun.set()
            await asyncio.sleep(60)
        await client.echo()

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        large = asyncio.create_task(storage.within(LIMIT).create("a", bytes(3 * 10**7), 60))
        await has_begun.wait()
        small = asyncio.create_task(payload(storage.within(60), "b"))

        with pytest.raises(StorageUnavailable):
            await large
        async with asyncio.timeout(10):
            assert await small == b"sess:b"


@pytest.mark.parametrize("limit", [LIMIT, 2 * LIMIT])
async def test_a_connection_that_a_firewall_forgot_costs_a_try_and_refuses_nobody(
    limit: float,
) -> None:
    is_forgotten = asyncio.Event()

    async def talk(client: Conversation) -> None:
        await client.greet()
        while True:
            key = (await client.command())[1]
            if client.number == 1 and is_forgotten.is_set():
                await asyncio.sleep(60)
            client.say(bulk(key))

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        policy = RetryPolicy(retries=1, timeout=limit)
        retrying = RetryingStorage(storage.within(limit), policy, is_punctual=True)
        before = await outcomes(retrying, ["a", "b"])
        is_forgotten.set()
        after = await outcomes(retrying, ["a", "b"])

    assert before == after == [b"sess:a", b"sess:b"]


async def test_a_time_limit_above_those_of_the_clients_is_kept(little_patience: None) -> None:
    async def talk(client: Conversation) -> None:
        await client.greet()
        key = (await client.command())[1]
        await asyncio.sleep(1.5 * PATIENCE)
        client.say(bulk(key))
        await client.echo()

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        results = await outcomes(storage.within(20 * PATIENCE), ["a"])

    assert results == [b"sess:a"]


async def test_a_large_answer_delays_the_others_and_refuses_nobody() -> None:
    numbers: set[int] = set()

    async def talk(client: Conversation) -> None:
        numbers.add(client.number)
        await client.greet()
        large, small = await client.command(), await client.command()
        answer = bulk(large[1] * 100)
        for start in range(0, len(answer), 100):
            client.say(answer[start : start + 100])
            await asyncio.sleep(LIMIT / 2)
        client.say(bulk(small[1]))
        await client.echo()

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        patient = RetryingStorage(storage.within(LIMIT), RetryPolicy(retries=2), is_punctual=True)
        results = await outcomes(patient, ["a", "b"])

    assert results == [b"sess:a" * 100, b"sess:b"]
    assert numbers == {1}


@asynccontextmanager
async def dribbling() -> AsyncGenerator[RedisStorage]:
    """Give a storage on a server whose answers have no end, and come a byte at a time."""

    async def talk(client: Conversation) -> None:
        await client.greet()
        await client.command()
        client.say(b"$1000000\r\n")
        while True:
            client.say(b"x")
            await client.flush()
            await asyncio.sleep(LIMIT / 10)

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        yield storage


@pytest.mark.parametrize("policy", [{"retries": 2}, {"budget": 2 * LIMIT}], ids=str)
async def test_an_answer_that_has_no_end_is_waited_for_within_the_budget(
    policy: dict[str, Any],
) -> None:
    async with dribbling() as storage:
        patient = RetryingStorage(
            storage.within(LIMIT), RetryPolicy(timeout=LIMIT, **policy), is_punctual=True
        )

        with pytest.raises(StorageUnavailable, match="the budget of an act was spent"):
            await patient.load("a")


async def test_an_answer_that_has_no_end_is_given_up_after_ten_time_limits() -> None:
    async with dribbling() as storage:
        with pytest.raises(StorageUnavailable, match="did not answer within"):
            await storage.within(LIMIT / 5).load("a")


async def test_who_asks_while_a_connection_is_given_up_that_was_not_made_has_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_line, "_CONNECT", PATIENCE)

    async def talk(client: Conversation) -> None:
        if client.number == 1:
            await asyncio.Event().wait()
        await client.greet()
        await client.echo()

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        limited = storage.within(PATIENCE)
        first = until_asked(limited, "a")
        await asyncio.sleep(PATIENCE / 2)
        second = until_asked(limited, "b")

        results = await asyncio.gather(first, second, return_exceptions=True)

    assert isinstance(results[0], StorageUnavailable)
    assert results[1] == b"sess:b"


@pytest.mark.parametrize("patience", [LIMIT, 2.0])
async def test_while_the_event_loop_is_busy_a_connection_is_made_and_refuses_nobody(
    patience: float, monkeypatch: pytest.MonkeyPatch, redis_server: RedisServer
) -> None:
    monkeypatch.setattr(redis_line, "_CONNECT", patience)
    async with RedisStorage.from_url(redis_server.url) as storage:
        asked = until_asked(storage.within(LIMIT), "nobody's")
        await asyncio.sleep(0)

        time.sleep(3 * LIMIT)  # noqa: ASYNC251 - it is the busy loop that is tried here

        assert await asked is None


async def test_a_connection_is_kept_alive(redis_server: RedisServer) -> None:
    async with RedisStorage.from_url(redis_server.url) as storage:
        await storage.load("a")

        end = storage._line.wires.latest.transport.get_extra_info("socket")  # type: ignore[union-attr]
        assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


# What Redis says unasked


async def test_what_redis_says_unasked_is_no_answer() -> None:
    async def talk(client: Conversation) -> None:
        await client.greet()
        key = (await client.command())[1]
        client.say(b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n" + bulk(key))
        await client.echo()

    async with odd_redis(talk) as url, RedisStorage.from_url(url, protocol=3) as storage:
        results = await outcomes(storage, ["a"])

    assert results == [b"sess:a"]


async def test_an_answer_that_nobody_asked_for_ends_the_connection() -> None:
    async def talk(client: Conversation) -> None:
        await client.greet()
        key = (await client.command())[1]
        if client.number == 1:
            client.say(bulk(key) + bulk(b"of somebody else"))
            await client.echo()
        client.say(bulk(b"from the second connection"))

    async with odd_redis(talk) as url, RedisStorage.from_url(url) as storage:
        first = await outcomes(storage, ["a"])
        then = await outcomes(storage, ["b"])

    assert (first, then) == ([b"sess:a"], [b"from the second connection"])
