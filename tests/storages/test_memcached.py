"""Sessions in memcached: keys, ttls, limits, several servers, and a server that goes away."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from aiosess.errors import Conflict, OptionsError, StorageError, StorageUnavailable
from aiosess.storages.memcached import MemcachedClient, MemcachedStorage
from aiosess.testing import FakeClock, Harness, report, run_contract
from tests.servers import free_port
from tests.storages.real_memcached import Memcached, running

ID = "VpkG-u7Xw2nQ_aLr"
DAY = 24 * 60 * 60
LAST_DATE = 2**31 - 1


@pytest.fixture(scope="module")
def server() -> Iterator[Memcached]:
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def second_server() -> Iterator[Memcached]:
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def third_server() -> Iterator[Memcached]:
    with running() as server:
        yield server


@pytest.fixture
def own_server() -> Iterator[Memcached]:
    """A server of this test alone, to be stopped and paused."""
    with running() as server:
        yield server


@pytest.fixture
def prefix() -> str:
    return f"{uuid.uuid4()}:"


@pytest.fixture
async def storage(server: Memcached, prefix: str) -> AsyncIterator[MemcachedStorage]:
    async with MemcachedStorage.from_url(server.url, prefix=prefix) as storage:
        yield storage


@pytest.fixture
async def own_storage(own_server: Memcached) -> AsyncIterator[MemcachedStorage]:
    async with MemcachedStorage.from_url(own_server.url) as storage:
        yield storage


async def kept(storage: MemcachedStorage, session_id: str = ID) -> bytes | None:
    stored = await storage.load(session_id)
    return None if stored is None else stored.payload


# The contract, and what it costs


async def test_one_server_and_two_keep_the_contract(
    server: Memcached, second_server: Memcached
) -> None:
    urls = [server.url, f"{server.url},127.0.0.1:{second_server.port}"]

    def harness(url: str, limit: float) -> Harness:
        def make() -> MemcachedStorage:
            return MemcachedStorage.from_url(url, prefix=f"{uuid.uuid4()}:").within(limit)

        return Harness(make, unit=2)

    on_one, on_two, on_one_in_time = await asyncio.gather(
        *(run_contract(harness(url, math.inf)) for url in urls),
        run_contract(harness(server.url, 60)),
    )

    assert all(result.is_kept for result in on_one), report(on_one)
    assert all(result.is_kept for result in on_two), report(on_two)
    assert all(result.is_kept for result in on_one_in_time), report(on_one_in_time)


async def test_a_read_is_one_command_and_a_write_another(
    own_server: Memcached, own_storage: MemcachedStorage
) -> None:
    await own_storage.create(ID, b"cart", 60)
    reads, writes = own_server.statistic("cmd_get"), own_server.statistic("cmd_set")

    stored = await own_storage.load(ID)
    assert stored is not None
    await own_storage.replace(ID, b"bigger cart", 60, expected=stored.version)

    assert own_server.statistic("cmd_get") - reads == 1
    assert own_server.statistic("cmd_set") - writes == 1


# Keys


async def test_a_record_can_be_found_by_its_id(
    server: Memcached, storage: MemcachedStorage, prefix: str
) -> None:
    await storage.create(ID, b"cart", 60)

    assert "\r\ncart\r\n" in server.ask(f"get {prefix}{ID}")


async def test_the_prefix_is_that_of_express(own_server: Memcached) -> None:
    async with MemcachedStorage.from_url(own_server.url) as storage:
        await storage.create(ID, b"cart", 60)

    assert "\r\ncart\r\n" in own_server.ask(f"get sess:{ID}")


@pytest.mark.parametrize("session_id", ["a.b~!", "sha256", "user:7"])
async def test_an_id_of_other_characters_that_a_key_may_have_is_not_hashed(
    session_id: str, server: Memcached, storage: MemcachedStorage, prefix: str
) -> None:
    await storage.create(session_id, b"cart", 60)

    assert "\r\ncart\r\n" in server.ask(f"get {prefix}{session_id}")
    assert await kept(storage, session_id) == b"cart"


async def test_an_empty_key_is_hashed(own_server: Memcached) -> None:
    async with MemcachedStorage.from_url(own_server.url, prefix="") as storage:
        await storage.create("", b"cart", 60)

        assert await kept(storage, "") == b"cart"


@pytest.mark.parametrize(
    "session_id",
    ["a b", "a\r\nflush_all", "a\0b", "a\x7fb", "größer", "\ud800", "sha256:plain", "x" * 214],
)
async def test_an_id_that_is_no_legal_key_is_hashed(
    session_id: str, server: Memcached, storage: MemcachedStorage, prefix: str
) -> None:
    await storage.create(session_id, b"cart", 60)

    digest = hashlib.sha256(session_id.encode("utf-8", "surrogatepass")).hexdigest()
    assert "\r\ncart\r\n" in server.ask(f"get {prefix}sha256:{digest}")
    assert await kept(storage, session_id) == b"cart"


async def test_the_longest_key_is_not_hashed(server: Memcached, prefix: str) -> None:
    session_id = "x" * (250 - len(prefix))
    async with MemcachedStorage.from_url(server.url, prefix=prefix) as storage:
        await storage.create(session_id, b"cart", 60)

    assert "\r\ncart\r\n" in server.ask(f"get {prefix}{session_id}")


@pytest.mark.parametrize("prefix", ["my app:", "größe:", "a\n", "x" * 151, b"a", None])
def test_a_prefix_that_cannot_be_part_of_a_key_is_refused(prefix: Any) -> None:
    with pytest.raises(OptionsError, match=r"prefix=.* must be at most 150 ASCII characters"):
        MemcachedStorage.from_url("memcached://127.0.0.1", prefix=prefix)


async def test_a_prefix_may_be_empty(own_server: Memcached) -> None:
    async with MemcachedStorage.from_url(own_server.url, prefix="") as storage:
        await storage.create(ID, b"cart", 60)

    assert "\r\ncart\r\n" in own_server.ask(f"get {ID}")


# How long a record lives


@pytest.mark.parametrize("ttl", [0.001, 0.9, 1, 59.5, 60, 30 * DAY, 31 * DAY, 400 * DAY])
async def test_a_record_lives_its_ttl_and_less_than_three_seconds_more(
    ttl: float, server: Memcached, storage: MemcachedStorage, prefix: str
) -> None:
    await storage.create(ID, b"cart", ttl)

    assert ttl <= server.seconds_left(f"{prefix}{ID}") < ttl + 3


@pytest.mark.parametrize("ttl", [0.001, 60, 31 * DAY])
async def test_touch_sets_the_same_end(
    ttl: float, server: Memcached, storage: MemcachedStorage, prefix: str
) -> None:
    await storage.create(ID, b"cart", 3600)

    await storage.touch(ID, ttl)

    assert ttl <= server.seconds_left(f"{prefix}{ID}") < ttl + 3


@pytest.mark.parametrize("ttl", [0.001, 60, 31 * DAY])
async def test_replace_sets_the_same_end(
    ttl: float, server: Memcached, storage: MemcachedStorage, prefix: str
) -> None:
    version = await storage.create(ID, b"cart", 3600)

    await storage.replace(ID, b"bigger cart", ttl, expected=version)

    assert ttl <= server.seconds_left(f"{prefix}{ID}") < ttl + 3


async def test_a_time_above_thirty_days_is_counted_from_the_clock(
    server: Memcached, prefix: str
) -> None:
    client = MemcachedClient(f"127.0.0.1:{server.port}")
    in_an_hour = FakeClock(time.time() + 3600)
    storage = MemcachedStorage(client, prefix=prefix, clock=in_an_hour)

    await storage.create(ID, b"cart", 31 * DAY)
    await client.close()

    left = server.seconds_left(f"{prefix}{ID}")
    assert 31 * DAY + 3590 < left < 31 * DAY + 3610


async def test_a_time_after_the_last_date_of_memcached_ends_there(
    server: Memcached, storage: MemcachedStorage, prefix: str
) -> None:
    await storage.create(ID, b"cart", 10_000 * DAY)

    left = server.seconds_left(f"{prefix}{ID}")
    assert abs(left - (LAST_DATE - time.time())) < 5


# What is too much


async def test_a_record_above_the_limit_is_refused_with_both_sizes(
    storage: MemcachedStorage,
) -> None:
    with pytest.raises(StorageError, match=r"is 1,100,000 bytes.* limit of 1,048,576 bytes"):
        await storage.create(ID, b"x" * 1_100_000, 60)


async def test_the_limit_that_is_named_is_the_server_s_own() -> None:
    with running("-I", "2m") as server:
        async with MemcachedStorage.from_url(server.url) as storage:
            with pytest.raises(StorageError, match=r"limit of 2,097,152 bytes"):
                await storage.create(ID, b"x" * 3_000_000, 60)


async def test_a_record_above_the_limit_leaves_the_one_before(storage: MemcachedStorage) -> None:
    version = await storage.create(ID, b"cart", 60)

    with pytest.raises(StorageError, match=r"is 1,100,000 bytes") as refused:
        await storage.replace(ID, b"x" * 1_100_000, 60, expected=version)

    assert not isinstance(refused.value, StorageUnavailable)
    assert await kept(storage) == b"cart"


async def test_a_record_just_below_the_limit_is_kept(storage: MemcachedStorage) -> None:
    payload = b"x" * (1024 * 1024 - 200)

    await storage.create(ID, payload, 60)

    assert await kept(storage) == payload


@pytest.fixture
def small_server() -> Iterator[Memcached]:
    with running("-m", "2") as server:
        yield server


async def evict(server: Memcached, storage: MemcachedStorage) -> None:
    await asyncio.gather(*(storage.create(f"{n}", b"x" * 100_000, 600) for n in range(200)))
    assert server.statistic("evictions") > 0


async def test_a_record_that_was_evicted_is_absent(small_server: Memcached) -> None:
    async with MemcachedStorage.from_url(small_server.url) as storage:
        await storage.create(ID, b"x" * 100_000, 600)

        await evict(small_server, storage)

        assert await storage.load(ID) is None
        assert await storage.touch(ID, 600) is False


async def test_a_record_that_was_evicted_is_not_revived(small_server: Memcached) -> None:
    async with MemcachedStorage.from_url(small_server.url) as storage:
        await storage.create(ID, b"x" * 100_000, 600)
        stored = await storage.load(ID)
        assert stored is not None

        await evict(small_server, storage)

        with pytest.raises(Conflict) as conflict:
            await storage.replace(ID, b"cart", 600, expected=stored.version)
    assert conflict.value.current is None


async def test_a_memory_that_is_full_and_may_not_evict_is_an_outage_that_is_not_retried() -> None:
    with running("-m", "2", "-M") as server:
        async with MemcachedStorage.from_url(server.url) as storage:
            results = await asyncio.gather(
                *(storage.create(f"{n}", b"x" * 100_000, 600) for n in range(200)),
                return_exceptions=True,
            )

    errors = [result for result in results if isinstance(result, BaseException)]
    assert {type(error) for error in errors} == {StorageUnavailable}
    assert not any(getattr(error, "may_retry", True) for error in errors)
    assert "out of memory" in str(errors[0])


# A server that goes away


async def test_nobody_listening_is_an_outage() -> None:
    async with MemcachedStorage.from_url(f"memcached://127.0.0.1:{free_port()}") as storage:
        with pytest.raises(StorageUnavailable) as outage:
            await storage.load(ID)

    assert isinstance(outage.value.__cause__, ConnectionRefusedError)


async def test_a_server_that_ends_in_mid_call_is_an_outage_at_once(
    own_server: Memcached, own_storage: MemcachedStorage
) -> None:
    await own_storage.create(ID, b"cart", 60)
    own_server.pause()
    calls = [asyncio.ensure_future(own_storage.load(ID)) for _ in range(10)]
    await asyncio.sleep(0.05)

    own_server.kill()
    async with asyncio.timeout(1):
        outcomes = await asyncio.gather(*calls, return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} == {StorageUnavailable}
    causes = {
        type(outcome.__cause__) for outcome in outcomes if isinstance(outcome, StorageUnavailable)
    }
    assert causes == {ConnectionResetError}


async def test_a_server_that_is_back_is_used_at_once(
    own_server: Memcached, own_storage: MemcachedStorage
) -> None:
    await own_storage.create(ID, b"cart", 60)
    await asyncio.to_thread(own_server.stop)
    for _ in range(5):
        with pytest.raises(StorageUnavailable):
            await own_storage.load(ID)

    await asyncio.to_thread(own_server.start)

    assert await own_storage.load(ID) is None


async def test_a_restart_is_no_way_to_revive_a_record(
    own_server: Memcached, own_storage: MemcachedStorage
) -> None:
    await own_storage.create(ID, b"cart", 60)
    stored = await own_storage.load(ID)
    assert stored is not None

    await asyncio.to_thread(own_server.stop)
    await asyncio.to_thread(own_server.start)

    with pytest.raises(Conflict) as conflict:
        await own_storage.replace(ID, b"bigger cart", 60, expected=stored.version)
    assert conflict.value.current is None


async def test_a_server_that_hangs_is_given_up_after_the_timeout(own_server: Memcached) -> None:
    async with MemcachedStorage.from_url(own_server.url, timeout=0.2) as storage:
        await storage.create(ID, b"cart", 60)
        own_server.pause()

        async with asyncio.timeout(5):
            with pytest.raises(StorageUnavailable) as outage:
                await storage.load(ID)
        own_server.resume()

        assert "within 0.2 s" in str(outage.value)
        assert await kept(storage) == b"cart"


# Calls that are cancelled


async def test_a_call_that_was_cancelled_before_the_server_ended_stays_cancelled(
    own_server: Memcached, own_storage: MemcachedStorage
) -> None:
    await own_storage.load(ID)
    own_server.pause()
    cancelled, other = (asyncio.ensure_future(own_storage.load(ID)) for _ in range(2))
    await asyncio.sleep(0.05)
    cancelled.cancel()

    own_server.kill()
    await asyncio.wait([cancelled, other])

    assert cancelled.cancelled()
    assert isinstance(other.exception(), StorageUnavailable)


async def test_the_answer_to_a_cancelled_call_is_nobody_else_s(
    own_server: Memcached, own_storage: MemcachedStorage
) -> None:
    ids = [f"{number}" for number in range(200)]
    await asyncio.gather(*(own_storage.create(each, each.encode(), 60) for each in ids))
    own_server.pause()
    calls = [asyncio.ensure_future(own_storage.load(each)) for each in ids[:100]]
    await asyncio.sleep(0.05)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)

    own_server.resume()
    found = await asyncio.gather(*(kept(own_storage, each) for each in ids[100:]))

    assert found == [each.encode() for each in ids[100:]]


async def test_a_call_that_is_cancelled_before_the_end_of_the_tick_is_never_sent(
    storage: MemcachedStorage,
) -> None:
    await storage.load(ID)
    call = asyncio.ensure_future(storage.create(ID, b"cart", 60))
    await asyncio.sleep(0)

    call.cancel()
    await asyncio.gather(call, return_exceptions=True)

    assert await storage.load(ID) is None


async def test_calls_that_are_cancelled_while_connecting_do_no_harm(
    own_server: Memcached,
) -> None:
    async with MemcachedStorage.from_url(own_server.url) as storage:
        calls = [asyncio.ensure_future(storage.load(ID)) for _ in range(10)]
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()

        await storage.create(ID, b"cart", 60)

        assert await kept(storage) == b"cart"


async def test_a_big_record_and_small_ones_at_once_stay_apart(storage: MemcachedStorage) -> None:
    big = bytes(range(256)) * 3500
    await storage.create("big", big, 60)
    await storage.create("small", b"cart", 60)

    found = await asyncio.gather(*(kept(storage, each) for each in ["big", "small"] * 20))

    assert found == [big, b"cart"] * 20


async def jam(server: Memcached, storage: MemcachedStorage) -> list[asyncio.Future[object]]:
    """Ask a server that reads nothing to keep so much that no more can be written."""
    await storage.load(ID)
    server.pause()
    calls: list[asyncio.Future[object]] = [
        asyncio.ensure_future(storage.create(f"{number}", b"x" * 500_000, 60))
        for number in range(20)
    ]
    await asyncio.sleep(0.05)
    return calls


async def test_what_cannot_be_written_yet_is_written_later(
    own_server: Memcached, own_storage: MemcachedStorage
) -> None:
    calls = await jam(own_server, own_storage)
    late = asyncio.ensure_future(own_storage.create("late", b"cart", 60))
    await asyncio.sleep(0.05)

    own_server.resume()
    await asyncio.gather(*calls, late)

    assert await kept(own_storage, "19") == b"x" * 500_000
    assert await kept(own_storage, "late") == b"cart"


async def test_a_call_that_is_cancelled_before_it_could_be_written_is_never_sent(
    own_server: Memcached, own_storage: MemcachedStorage
) -> None:
    calls = await jam(own_server, own_storage)
    late = asyncio.ensure_future(own_storage.create("late", b"cart", 60))
    await asyncio.sleep(0.05)

    late.cancel()
    own_server.resume()
    await asyncio.gather(*calls)

    assert await own_storage.load("late") is None


# Several servers


IDS = [f"session-{number}" for number in range(300)]


async def found_of(storage: MemcachedStorage) -> set[str]:
    stored = await asyncio.gather(*(storage.load(each) for each in IDS))
    return {each for each, record in zip(IDS, stored, strict=True) if record is not None}


async def fill(storage: MemcachedStorage) -> None:
    await asyncio.gather(*(storage.create(each, b"cart", 60) for each in IDS))


def on(*servers: Memcached, prefix: str) -> MemcachedStorage:
    nodes = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    return MemcachedStorage.from_url(f"memcached://{nodes}", prefix=prefix)


async def test_records_are_spread_over_the_servers(
    server: Memcached, second_server: Memcached, prefix: str
) -> None:
    async with on(server, second_server, prefix=prefix) as storage:
        await fill(storage)

    async with on(server, prefix=prefix) as first, on(second_server, prefix=prefix) as second:
        on_first, on_second = await found_of(first), await found_of(second)
    assert on_first | on_second == set(IDS)
    assert not on_first & on_second
    assert 75 < len(on_first) < 225


async def test_the_order_of_the_servers_does_not_matter(
    server: Memcached, second_server: Memcached, prefix: str
) -> None:
    async with on(server, second_server, prefix=prefix) as storage:
        await fill(storage)

    async with on(second_server, server, prefix=prefix) as turned:
        found = await found_of(turned)

    assert found == set(IDS)


async def test_one_more_server_moves_its_own_share_only(
    server: Memcached, second_server: Memcached, third_server: Memcached, prefix: str
) -> None:
    async with on(server, second_server, prefix=prefix) as two:
        await fill(two)

    async with on(server, second_server, third_server, prefix=prefix) as three:
        found = await found_of(three)

    # A third is expected to move; with the remainder of a division it would be two thirds.
    assert 150 < len(found) < 250


async def test_where_one_server_is_away_the_records_of_the_others_are_there(
    server: Memcached, own_server: Memcached, prefix: str
) -> None:
    async with on(server, own_server, prefix=prefix) as storage:
        await fill(storage)
        await asyncio.to_thread(own_server.stop)

        outcomes = await asyncio.gather(
            *(storage.load(each) for each in IDS), return_exceptions=True
        )

    away = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert {type(outcome) for outcome in away} == {StorageUnavailable}
    assert 75 < len(away) < 225
    assert None not in outcomes


# Ways in


def test_something_else_than_a_client_is_refused_with_the_way_out() -> None:
    client: Any = object()

    with pytest.raises(OptionsError, match=r"use MemcachedStorage\.from_url"):
        MemcachedStorage(client)


async def test_closing_ends_the_connection_and_the_calls_on_it(
    own_server: Memcached, own_storage: MemcachedStorage
) -> None:
    await own_storage.load(ID)
    own_server.pause()
    call = asyncio.ensure_future(own_storage.load(ID))
    await asyncio.sleep(0.05)

    await own_storage.close()
    with pytest.raises(StorageUnavailable, match="the client was closed"):
        await call


async def test_a_storage_that_was_closed_connects_again(own_storage: MemcachedStorage) -> None:
    await own_storage.create(ID, b"cart", 60)
    await own_storage.close()

    found = await kept(own_storage)

    assert found == b"cart"
