"""The memcached client: ways in, and what it does when a server says something odd."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import trustme

from aiosess.clients import memcached
from aiosess.clients.memcached import MemcachedClient, Value
from aiosess.errors import OptionsError, StorageError, StorageUnavailable
from aiosess.guard.retries import RetryingStorage, RetryPolicy
from aiosess.storages import Version
from aiosess.storages import memcached as memcached_storage
from aiosess.storages.memcached import MemcachedStorage
from tests.servers import MemcachedServer, binary, free_port
from tests.storages.real_memcached import Memcached, running

GET = b"gets k\r\n"
FOUND = b"VALUE k 0 4 7\r\ncart\r\nEND\r\n"
FULL = b"ERROR Too many open connections\r\n"

Large: TypeAlias = asyncio.Task[Version]
Talk: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def pretending(
    talk: Talk, *, patience: float = 2, username: str | None = None, password: str | None = None
) -> AsyncIterator[MemcachedClient]:
    """Give the client of a server that says what no memcached says when one wants it to."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = MemcachedClient(
        f"127.0.0.1:{port}", timeout=patience, username=username, password=password
    )
    try:
        yield client
    finally:
        await client.close()
        server.close()
        await server.wait_closed()


def answering(*replies: bytes) -> Talk:
    """Give each line the next of *replies*, the last one to all that follow."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = list(replies)
        while await reader.readline():
            writer.write(left.pop(0) if len(left) > 1 else left[0])

    return talk


def causes(outcomes: Sequence[bytes | Value | BaseException]) -> list[type]:
    """Return what was the matter with each outcome; all must be outages."""
    assert {type(outcome) for outcome in outcomes} == {StorageUnavailable}
    return [type(outcome.__cause__) for outcome in outcomes if isinstance(outcome, BaseException)]


# Replies, and how they arrive


async def test_a_reply_may_come_in_any_pieces() -> None:
    async def byte_by_byte(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        await reader.readline()
        for byte in FOUND + b"END\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)

    async with pretending(byte_by_byte) as client:
        found, missing = await asyncio.gather(client.ask(b"k", GET), client.ask(b"k", GET))

    assert isinstance(found, Value)
    assert (found.payload, found.unique) == (b"cart", b"7")
    assert missing == b"END"


async def test_a_value_tells_its_unique() -> None:
    async with pretending(answering(FOUND)) as client:
        found = await client.ask(b"k", GET)

    assert isinstance(found, Value)
    assert (found.payload, found.unique) == (b"cart", b"7")


def test_values_are_equal_where_their_payloads_are() -> None:
    written, read, other = Value(b"cart"), Value(b"cart", b"7"), Value(b"other", b"7")

    assert written == read
    assert (written != read) is False
    assert hash(written) == hash(read)
    assert read != other
    assert read != b"cart"


@pytest.mark.parametrize("cut", range(1, len(FOUND)))
async def test_a_reply_may_be_cut_anywhere(cut: int) -> None:
    async def in_two_pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(3):
            await reader.readline()
        writer.write(FOUND + FOUND[:cut])
        await writer.drain()
        await asyncio.sleep(0.005)
        writer.write(FOUND[cut:] + FOUND)

    async with pretending(in_two_pieces) as client:
        replies = await asyncio.gather(*(client.ask(b"k", GET) for _ in range(3)))

    assert replies == [Value(b"cart", b"7")] * 3


async def test_a_payload_may_look_like_a_reply() -> None:
    payload = b"END\r\nVALUE k 0 1 1\r\nx\r\nEND\r\n"
    reply = b"VALUE k 0 %d 7\r\n%b\r\nEND\r\n" % (len(payload), payload)

    async with pretending(answering(reply)) as client:
        found = await client.ask(b"k", GET)

    assert found == Value(payload, b"7")


async def test_statistics_may_come_in_two_pieces() -> None:
    async def in_two_pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"STAT maxbytes 1\r\nSTAT item_si")
        await writer.drain()
        await asyncio.sleep(0.005)
        writer.write(b"ze_max 2\r\nEND\r\n")

    async with pretending(in_two_pieces) as client:
        reply = await client.ask(b"k", b"stats settings\r\n")

    assert reply == b"STAT maxbytes 1\r\nSTAT item_size_max 2"


async def test_the_commands_of_one_tick_leave_in_one_write() -> None:
    reads: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            reads.append(data)
            writer.write(b"END\r\n" * data.count(b"\r\n"))

    async with pretending(note) as client:
        await client.ask(b"k", GET)
        await asyncio.gather(*(client.ask(b"k", GET) for _ in range(100)))

    assert reads == [GET, GET * 100]


class Doorman:
    """Counts the connections, and answers each line with END after *pause* seconds."""

    def __init__(self, pause: float = 0) -> None:
        self.connections = 0
        self._pause = pause

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while await reader.readline():
            await asyncio.sleep(self._pause)
            writer.write(b"END\r\n")


async def test_all_who_ask_share_one_connection() -> None:
    doorman = Doorman()

    async with pretending(doorman) as client:
        await asyncio.gather(*(client.ask(b"k", GET) for _ in range(100)))
        await asyncio.gather(*(client.ask(b"k", GET) for _ in range(100)))

    assert doorman.connections == 1


async def test_a_client_that_was_handed_in_stays_open() -> None:
    doorman = Doorman()

    async with pretending(doorman) as client:
        async with MemcachedStorage(client) as storage:
            await storage.load("k")
        await MemcachedStorage(client).load("k")

    assert doorman.connections == 1


async def test_a_server_that_is_slow_but_speaks_is_not_given_up() -> None:
    doorman = Doorman(pause=0.1)

    async with pretending(doorman, patience=0.3) as client:
        # The last reply comes after three times the timeout.
        replies = await asyncio.gather(*(client.ask(b"k", GET) for _ in range(9)))

    assert replies == [b"END"] * 9
    assert doorman.connections == 1


# Whatever makes it doubtful which reply belongs to whom ends the connection


async def test_a_record_of_another_key_is_given_to_nobody() -> None:
    async with pretending(answering(FOUND)) as client:
        outcomes = await asyncio.gather(
            client.ask(b"other", b"gets other\r\n"),
            client.ask(b"k", GET),
            return_exceptions=True,
        )

        assert causes(outcomes) == [ConnectionResetError] * 2
        assert "another key" in str(outcomes[0])
        assert await client.ask(b"k", GET) == Value(b"cart", b"7")


@pytest.mark.parametrize("said", [b"CLIENT_ERROR bad data chunk", b"ERROR"])
async def test_after_a_command_that_was_not_understood_the_connection_is_new(said: bytes) -> None:
    connections = 0
    talk_odd, talk_well = answering(said + b"\r\n"), answering(b"END\r\n")

    async def odd_at_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await (talk_odd if connections == 1 else talk_well)(reader, writer)

    async with pretending(odd_at_first) as client:
        odd, next_in_line = await asyncio.gather(
            client.ask(b"k", GET), client.ask(b"k", GET), return_exceptions=True
        )
        after = await client.ask(b"k", GET)

    assert odd == said
    assert causes([next_in_line]) == [ConnectionResetError]
    assert after == b"END"


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 No\r\n",
        b"VALUE\r\n",
        b"VALUE k 0 x 7\r\n",
        b"VALUE k 0 -7 7\r\n",
        b"VALUE k 0 -40 7\r\n",
        b"VALUE k 0 0_4 7\r\ncart\r\nEND\r\n",
        b"VALUE k 0 4 7\r\ncarts\r\nEND\r\n",
        b"VALUE k 0 99999999999 7\r\n",
        b"VALUE k 0 4 x\ny\r\ncart\r\nEND\r\n",
        b"STAT a b\r\n" * 10_000,
        bytes(5_000),
    ],
)
async def test_what_is_not_of_the_protocol_is_no_answer_and_the_connection_is_new(
    garbage: bytes,
) -> None:
    connections = 0
    talk_odd, talk_well = answering(garbage), answering(b"END\r\n")

    async def odd_at_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await (talk_odd if connections == 1 else talk_well)(reader, writer)

    async with pretending(odd_at_first) as client:
        outcomes = await asyncio.gather(
            client.ask(b"k", GET), client.ask(b"k", GET), return_exceptions=True
        )
        after = await client.ask(b"k", GET)

    assert causes(outcomes) == [ConnectionResetError] * 2
    assert "HTTP" not in str(outcomes[0])
    assert after == b"END"


async def test_what_was_said_unasked_answers_nothing() -> None:
    async def talkative(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(FOUND + b"VALUE k 0 5 9\r\nstale\r\nEND\r\n")
        await reader.read()

    async with pretending(talkative) as client:
        first = await client.ask(b"k", GET)
        second = await client.ask(b"k", GET)

    assert first == second == Value(b"cart", b"7")


async def test_a_connection_that_ends_in_mid_reply_is_no_reply() -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(FOUND[:20])

    async with pretending(half) as client:
        outcomes = await asyncio.gather(
            *(client.ask(b"k", GET) for _ in range(3)), return_exceptions=True
        )

    assert causes(outcomes) == [ConnectionResetError] * 3


async def test_a_server_that_takes_no_more_connections_is_an_outage() -> None:
    async def full(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(FULL)

    async with pretending(full) as client:
        with pytest.raises(StorageUnavailable):
            await MemcachedStorage(client).load("k")


async def test_a_server_that_says_late_that_it_takes_no_more_is_an_outage() -> None:
    async with pretending(answering(FULL)) as client:
        with pytest.raises(StorageUnavailable, match="not ready: ERROR Too many open connections"):
            await MemcachedStorage(client).load("k")


@pytest.mark.parametrize("reply", [b"SERVER_ERROR out of memory storing object\r\n"])
async def test_a_server_that_is_full_is_an_outage_that_is_not_retried(reply: bytes) -> None:
    # The first line is the command, the second its data.
    async with pretending(answering(b"", reply)) as client:
        with pytest.raises(StorageUnavailable, match="out of memory") as full:
            await MemcachedStorage(client).create("k", b"cart", 60)

    assert not full.value.may_retry


async def test_a_reply_that_makes_no_sense_for_a_load_is_no_answer() -> None:
    async with pretending(answering(b"TOUCHED\r\n")) as client:
        with pytest.raises(StorageUnavailable, match="answers another command"):
            await MemcachedStorage(client).load("k")


async def test_a_reply_that_makes_no_sense_for_a_touch_is_no_answer() -> None:
    async with pretending(answering(FOUND)) as client:
        with pytest.raises(StorageUnavailable, match="answers another command"):
            await MemcachedStorage(client, prefix="").touch("k", 60)


async def test_where_the_limit_is_not_told_the_size_is() -> None:
    too_large = b"SERVER_ERROR object too large for cache\r\n"
    # The first line is the command, the second its data.
    async with pretending(answering(b"", too_large, b"END\r\n")) as client:
        with pytest.raises(StorageError, match=r"the record is 4 bytes, .* limit for an item"):
            await MemcachedStorage(client).create("k", b"cart", 60)


async def test_a_connection_that_does_not_come_about_is_an_outage() -> None:
    async def never(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with pretending(never) as pretended:
        (port,) = [node._port for node in pretended._nodes]
        client = MemcachedClient(f"127.0.0.1:{port}", timeout=0.1, tls=ssl.create_default_context())
        with pytest.raises(StorageUnavailable, match=r"did not answer within 0\.1 s"):
            await client.ask(b"k", GET)


async def test_a_record_that_is_asked_for_afresh_is_waited_for_within_the_time_limit() -> None:
    async def never(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with pretending(never, patience=60, username="alice", password="no") as client:
        storage = MemcachedStorage(client).within(0.1)
        with pytest.raises(StorageUnavailable, match=r"did not answer within 0\.1 s"):
            await storage.load_afresh("k", agrees=lambda _stored: True)


@pytest.mark.parametrize("patience", [0.1, 2.0])
@pytest.mark.parametrize("turns", [1, 2, 3])
async def test_while_the_event_loop_is_busy_a_connection_is_made_and_refuses_nobody(
    patience: float, turns: int, memcached_server: MemcachedServer
) -> None:
    async with MemcachedStorage.from_url(memcached_server.url, timeout=patience) as storage:
        asked = asyncio.create_task(storage.within(0.1).load("nobody's"))
        for _ in range(turns):
            await asyncio.sleep(0)

        time.sleep(0.3)  # noqa: ASYNC251 - it is the busy loop that is tried here

        assert await asked is None


async def test_closing_while_connecting_ends_the_wait() -> None:
    async def never(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with pretending(never) as pretended:
        (port,) = [node._port for node in pretended._nodes]
        client = MemcachedClient(f"127.0.0.1:{port}", tls=ssl.create_default_context())
        call = asyncio.ensure_future(client.ask(b"k", GET))
        await asyncio.sleep(0.05)

        await client.close()
        with pytest.raises(StorageUnavailable, match="the client was closed"):
            await call


# Ways in


@pytest.fixture
def locked_server(tmp_path: Path) -> Iterator[Memcached]:
    """A server that asks for a username and a password."""
    users = tmp_path / "users"
    users.write_text("alice:wonder/l@nd\n")
    with running("-Y", str(users)) as server:
        yield server


async def test_the_password_in_the_url_opens_the_door(locked_server: Memcached) -> None:
    url = f"memcached://alice:wonder%2Fl%40nd@127.0.0.1:{locked_server.port}"
    async with MemcachedStorage.from_url(url) as storage:
        await storage.create("k", b"cart", 60)

        stored = await storage.load("k")

    assert stored is not None
    assert stored.payload == b"cart"


async def test_a_wrong_password_is_an_outage_that_is_not_retried(locked_server: Memcached) -> None:
    url = f"memcached://alice:looking-glass@127.0.0.1:{locked_server.port}"
    async with MemcachedStorage.from_url(url) as storage:
        with pytest.raises(StorageUnavailable, match="the username or password") as refused:
            await storage.load("k")

    assert not refused.value.may_retry
    assert "looking-glass" not in str(refused.value)


async def test_no_password_where_one_is_asked_for_is_an_outage_that_is_not_retried(
    locked_server: Memcached,
) -> None:
    async with MemcachedStorage.from_url(locked_server.url) as storage:
        with pytest.raises(StorageUnavailable, match="unauthenticated") as refused:
            await storage.load("k")

    assert not refused.value.may_retry


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls_server(authority: trustme.CA, tmp_path: Path) -> Iterator[MemcachedServer]:
    certificate = tmp_path / "certificate.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    with running("-Z", "-o", f"ssl_chain_cert={certificate},ssl_key={certificate}") as server:
        yield server


async def test_tls_is_spoken(tls_server: Memcached, authority: trustme.CA) -> None:
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    url = f"memcacheds://127.0.0.1:{tls_server.port}"
    async with MemcachedStorage.from_url(url, tls=tls) as storage:
        await storage.create("k", b"x" * 500_000, 60)

        stored = await storage.load("k")

    assert stored is not None
    assert stored.payload == b"x" * 500_000


async def test_a_certificate_of_nobody_known_is_refused(tls_server: Memcached) -> None:
    async with MemcachedStorage.from_url(f"memcacheds://127.0.0.1:{tls_server.port}") as storage:
        with pytest.raises(StorageUnavailable) as refused:
            await storage.load("k")

    assert isinstance(refused.value.__cause__, ssl.SSLCertVerificationError)


@pytest.fixture
def socket_of_memcached(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "memcached.sock"
    command = [binary("memcached"), "-s", str(path)]
    command += ["-u", "root" if os.geteuid() == 0 else str(os.geteuid())]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield path
    process.kill()
    process.wait()


async def test_a_unix_socket_is_a_way_in(socket_of_memcached: Path) -> None:
    async with MemcachedStorage.from_url(f"unix://{socket_of_memcached}") as storage:
        await storage.create("k", b"cart", 60)

        stored = await storage.load("k")

    assert stored is not None
    assert stored.payload == b"cart"


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("memcached://a", [("a", 11211)]),
        ("memcached://a:1", [("a", 1)]),
        ("memcached://b:2,a", [("a", 11211), ("b", 2)]),
        ("memcached://[::1]", [("::1", 11211)]),
        ("memcached://[::1]:5", [("::1", 5)]),
        ("memcached://a/", [("a", 11211)]),
        ("memcached://a,a", [("a", 11211)]),
    ],
)
def test_a_url_names_its_nodes(url: str, addresses: list[tuple[str, int]]) -> None:
    client = MemcachedClient.from_url(url)

    assert [(node._host, node._port) for node in client._nodes] == addresses


@pytest.mark.parametrize(
    "url",
    [
        "redis://a:1",
        "memcached://",
        "memcached:a",
        "memcached://a/1",
        "memcached://a?timeout=1",
        "memcached://a:port",
        "memcached://a:0",
        "memcached://a:65536",
        "memcached://a:" + "9" * 5000,
        "memcached://a,",
        "memcached://:11211",
        "memcached://::1",
        "unix://run/memcached.sock",
    ],
)
def test_a_url_that_makes_no_sense_is_refused(url: str) -> None:
    with pytest.raises(OptionsError, match="is not"):
        MemcachedClient.from_url(url)


@pytest.mark.parametrize("url", [b"memcached://a", 5, None])
def test_a_url_that_is_no_text_is_refused(url: Any) -> None:
    with pytest.raises(OptionsError, match=rf"^the url is of type {type(url).__name__}, "):
        MemcachedClient.from_url(url)


@pytest.mark.parametrize("url", ["memcached://a\ud800", "memcached://u:wonderl\ud800nd@a"])
def test_a_url_with_half_of_a_character_is_refused(url: str) -> None:
    with pytest.raises(OptionsError, match=r"^the url has half of a character"):
        MemcachedClient.from_url(url)


@pytest.mark.parametrize("url", ["memcache://alice:wonderland@a", "memcached://a:wonderland@[::1"])
def test_a_refused_url_does_not_print_the_password(url: str) -> None:
    with pytest.raises(OptionsError) as refused:
        MemcachedClient.from_url(url)

    assert "wonderland" not in str(refused.value)


def test_no_node_at_all_is_refused() -> None:
    with pytest.raises(OptionsError, match="names no server"):
        MemcachedClient()


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_that_is_none_is_refused(timeout: float) -> None:
    with pytest.raises(OptionsError, match=f"timeout={timeout!r} must be"):
        MemcachedClient("a", timeout=timeout)


@pytest.mark.parametrize("timeout", ["2", True, None])
def test_a_timeout_that_is_no_number_is_refused(timeout: Any) -> None:
    with pytest.raises(OptionsError, match="is not a duration"):
        MemcachedClient("a", timeout=timeout)


def test_tls_to_a_socket_of_this_machine_is_refused() -> None:
    with pytest.raises(OptionsError, match="tls is for nodes of the network"):
        MemcachedClient.from_url("unix:///run/m.sock", tls=ssl.create_default_context())


async def test_each_call_that_waited_for_a_connection_gets_an_error_of_its_own() -> None:
    client = MemcachedClient(f"127.0.0.1:{free_port()}")
    asked = [client.ask(b"k", b"mg k v\r\n", 1.0) for _ in range(2)]

    first, second = await asyncio.gather(*asked, return_exceptions=True)

    assert isinstance(first, StorageUnavailable)
    assert isinstance(second, StorageUnavailable)
    assert first is not second


def test_a_username_without_a_password_is_refused() -> None:
    with pytest.raises(OptionsError, match="give both or none"):
        MemcachedClient("a", username="alice")


# The storage's own time limit


async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    while await reader.readline():
        pass


async def test_a_call_to_a_silent_server_ends_with_the_time_limit_of_the_storage() -> None:
    async with pretending(silent) as client:
        storage = MemcachedStorage(client).within(0.05)

        with pytest.raises(StorageUnavailable, match=r"did not answer within 0\.05 s"):
            await storage.load("k")


async def test_a_silent_server_is_connected_to_anew_after_the_time_limit() -> None:
    connections = 0
    talk_well = answering(FOUND)

    async def silent_at_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await (silent if connections == 1 else talk_well)(reader, writer)

    async with pretending(silent_at_first, patience=60) as client:
        storage = MemcachedStorage(client, prefix="").within(0.05)
        with pytest.raises(StorageUnavailable):
            await storage.load("k")

        stored = await storage.load("k")

    assert stored is not None
    assert connections == 2


async def test_a_connection_that_a_firewall_forgot_costs_a_try_and_refuses_nobody() -> None:
    is_forgotten = False

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_first = not is_forgotten
        while await reader.readline():
            if not (is_first and is_forgotten):
                writer.write(FOUND)

    async with pretending(talk, patience=60) as client:
        storage = MemcachedStorage(client, prefix="").within(0.05)
        policy = RetryPolicy(retries=1, timeout=0.05)
        retrying = RetryingStorage(storage, policy, is_punctual=True)
        before = await retrying.load("k")
        is_forgotten = True
        after = await retrying.load("k")

    assert before is not None
    assert before == after


async def log_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for _ in range(2):
        await reader.readline()
    writer.write(b"STORED\r\n")


@asynccontextmanager
async def stopping_to_read(*, then: Talk) -> AsyncIterator[tuple[Large, MemcachedStorage]]:
    """Give the task of a large record that a server has stopped to read, and its storage.

    The server's next connections are as *then* says, which begins with the login.
    """
    has_begun = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if has_begun.is_set():
            await then(reader, writer)
            return
        await log_in(reader, writer)
        await reader.read(1)
        has_begun.set()
        await is_over.wait()

    is_over = asyncio.Event()
    async with pretending(talk, username="alice", password="a secret") as client:
        storage = MemcachedStorage(client, prefix="")
        large = asyncio.create_task(storage.within(0.1).create("k", bytes(3 * 10**7), 60))
        await has_begun.wait()
        yield large, storage
        is_over.set()


async def test_what_a_server_that_stops_reading_was_not_sent_goes_to_another_connection() -> None:
    async def answering_well(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await log_in(reader, writer)
        await answering(FOUND)(reader, writer)

    async with stopping_to_read(then=answering_well) as (large, storage):
        small = asyncio.create_task(storage.within(60).load("k"))

        with pytest.raises(StorageUnavailable):
            await large
        async with asyncio.timeout(10):
            stored = await small

    assert stored is not None


async def test_what_was_not_sent_fails_where_no_other_connection_is_to_be_had() -> None:
    async with stopping_to_read(then=answering(b"", b"CLIENT_ERROR no\r\n")) as (large, storage):
        small = [asyncio.create_task(storage.within(60).load("k")) for _ in range(2)]

        with pytest.raises(StorageUnavailable):
            await large
        async with asyncio.timeout(10):
            outcomes = await asyncio.gather(*small, return_exceptions=True)

    assert {str(outcome) for outcome in outcomes} == {
        "memcached refused the username or password: CLIENT_ERROR no"
    }
    assert outcomes[0] is not outcomes[1]


async def test_closing_ends_what_waits_to_go_to_another_connection() -> None:
    async with stopping_to_read(then=silent) as (large, storage):
        small = asyncio.create_task(storage.within(60).load("k"))
        with pytest.raises(StorageUnavailable):
            await large

        await storage._client.close()

        async with asyncio.timeout(10):
            with pytest.raises(StorageUnavailable, match="the client was closed"):
                await small


async def test_who_cancels_all_tasks_leaves_nobody_waiting_for_another_connection() -> None:
    async with stopping_to_read(then=silent) as (large, storage):
        small = asyncio.create_task(storage.within(60).load("k"))
        with pytest.raises(StorageUnavailable):
            await large
        await asyncio.sleep(0)

        for task in asyncio.all_tasks() - {asyncio.current_task(), small}:
            task.cancel()

        async with asyncio.timeout(10):
            with pytest.raises(StorageUnavailable, match="its event loop ends"):
                await small


def cancelled_at_once(
    loop: asyncio.AbstractEventLoop, act: Any, **kwargs: Any
) -> asyncio.Task[Any]:
    """Return the task of *act*, which somebody cancels before its first step."""
    task = asyncio.Task(act, loop=loop, **kwargs)
    task.cancel()
    return task


async def test_who_is_cancelled_before_a_connection_is_looked_for_leaves_nobody_waiting() -> None:
    async with stopping_to_read(then=silent) as (large, storage):
        small = asyncio.create_task(storage.within(60).load("k"))
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        loop.set_task_factory(cancelled_at_once)

        with pytest.raises(StorageUnavailable):
            await large
        loop.set_task_factory(None)

        async with asyncio.timeout(10):
            with pytest.raises(StorageUnavailable, match="its event loop ends"):
                await small


async def test_a_large_record_that_arrives_slowly_delays_others_and_refuses_nobody() -> None:
    large = b"VALUE k 0 400 7\r\n" + b"x" * 400 + b"\r\nEND\r\n"

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await reader.readline()
        for start in range(0, len(large), 50):
            writer.write(large[start : start + 50])
            await asyncio.sleep(0.03)
        writer.write(FOUND)
        await reader.read()

    async with pretending(slow) as client:
        storage = MemcachedStorage(client, prefix="").within(0.1)
        stored = await asyncio.gather(storage.load("k"), storage.load("k"))

    assert [len(each.payload) for each in stored if each is not None] == [400, 4]


async def test_the_time_limit_counts_while_the_connection_is_made() -> None:
    async with pretending(silent, username="alice", password="a secret") as client:
        storage = MemcachedStorage(client).within(0.05)

        with pytest.raises(StorageUnavailable, match=r"did not answer within 0\.05 s"):
            await storage.load("k")


# A connection that nobody else uses.


async def test_who_waits_on_a_connection_that_is_out_of_step_gets_no_reply() -> None:
    is_asked, connections = asyncio.Event(), 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readline()
        is_asked.set()
        if connections > 1:
            writer.write(FOUND)
        await reader.readline()

    async with pretending(talk) as client:
        waiting = asyncio.ensure_future(client.ask(b"k", GET, 60))
        await is_asked.wait()
        found = await client.ask_afresh(b"k", GET, 60, lambda _reply: False)
        outcome = await asyncio.gather(waiting, return_exceptions=True)

    assert isinstance(found, Value)
    assert causes(outcome) == [ConnectionResetError]


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (GET, b"STORED\r\n"),
        (b"add k 0 1 1\r\nx\r\n", b"END\r\n"),
        (b"cas k 0 1 1 7\r\nx\r\n", b"TOUCHED\r\n"),
        (b"touch k 1\r\n", b"DELETED\r\n"),
        (b"delete k\r\n", FOUND),
    ],
)
async def test_a_reply_to_another_command_ends_the_connection(command: bytes, reply: bytes) -> None:
    async with pretending(answering(reply, FOUND, b"END\r\n")) as client:
        outcomes = await asyncio.gather(
            client.ask(b"k", command), client.ask(b"k", GET), return_exceptions=True
        )

    assert causes(outcomes) == [ConnectionResetError] * 2


# Connections, and replies that a server seldom gives


async def test_a_call_that_was_given_up_is_not_failed_as_well() -> None:
    given_up, waiting = (asyncio.get_running_loop().create_future() for _ in range(2))
    given_up.cancel()

    memcached._refuse(
        [(answer, b"", 0.0, 1.0, b"") for answer in (given_up, waiting)],
        StorageUnavailable("away"),
    )

    assert given_up.cancelled()
    assert isinstance(waiting.exception(), StorageUnavailable)


class Standing:
    """A connection to memcached that stands, or is over already."""

    def __init__(self, *, is_over: bool = False) -> None:
        self.is_over = is_over
        self.taken: list[Any] = []

    def take(self, calls: Any) -> None:
        self.taken.extend(calls)


@pytest.fixture
def node() -> Any:
    return memcached._Node("127.0.0.1:1", memcached._Dial(1.0, None, None))


async def test_what_one_connection_did_not_send_is_taken_by_the_next(node: Any) -> None:
    connection = Standing()

    async def connect(_limit: float) -> Standing:
        return connection

    node.connect = connect
    call = (asyncio.get_running_loop().create_future(), b"mg id", 0.0, 1.0, b"id")

    await node._connect_and_take([call])

    assert connection.taken == [call]


async def test_a_connection_that_was_closed_at_once_is_not_kept(node: Any) -> None:
    connection = Standing(is_over=True)

    async def dialled(_loop: object, _limit: float) -> Standing:
        return connection

    node._dialled = dialled

    assert await node._connect(asyncio.get_running_loop()) is connection
    assert node.wires.here() is None


def test_a_value_of_a_size_that_there_is_not_is_refused_before_it_is_waited_for() -> None:
    with pytest.raises(ValueError, match="no size that there is"):
        memcached._value_at(b"", 0, b"id", b"99999999999", b"1")


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (b"ERROR Too many open connections", StorageUnavailable, "is not ready"),
        (b"SERVER_ERROR out of memory storing object", StorageUnavailable, "refuses for now"),
        (b"SERVER_ERROR out of memory writing get response", StorageUnavailable, "for now"),
        (b"SERVER_ERROR backend failure", StorageUnavailable, "is not ready: SERVER_ERROR back"),
        (b"SERVER_ERROR proxy downstream timeout", StorageUnavailable, "is not ready"),
        (b"CLIENT_ERROR unauthenticated", StorageUnavailable, "refuses this user"),
        (b"CLIENT_ERROR bad data chunk", StorageError, "answered with an error"),
        (b"STORED", StorageUnavailable, "answers another command"),
    ],
)
def test_a_reply_that_is_not_the_one_says_what_it_means(
    reply: bytes, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        memcached_storage._is_done(reply, b"TOUCHED")
