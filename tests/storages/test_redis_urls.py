"""What a URL of Redis or Valkey says, and what it is told where it makes no sense."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import Connection, SSLConnection

from aiosess import OptionsError
from aiosess.clients.redis import ClusterLine, RedisLine
from aiosess.storages.redis import RedisStorage
from tests.servers import RedisServer


def client_of(url: str, **options: Any) -> Any:
    return RedisStorage.from_url(url, **options)._clients.first


def options_of(url: str, **options: Any) -> dict[str, Any]:
    """Return what a connection to *url* is made with."""
    made: dict[str, Any] = client_of(url, **options).connection_pool.connection_kwargs
    return made


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://cache", {"host": "cache", "port": 6379, "db": 0}),
        ("redis://cache:6380/3", {"host": "cache", "port": 6380, "db": 3}),
        ("redis://[::1]:6380", {"host": "::1", "port": 6380}),
        ("redis://alice:w%2Fl%40nd@cache", {"username": "alice", "password": "w/l@nd"}),
        ("redis://:wonder@cache", {"password": "wonder"}),
        ("redis://cache?client_name=web&health_check_interval=7", {"health_check_interval": 7}),
        ("unix:///run/redis.sock", {"path": "/run/redis.sock"}),
        ("unix://alice:wonder@/run/redis.sock", {"username": "alice", "password": "wonder"}),
        ("valkey://cache:6380/3", {"host": "cache", "port": 6380, "db": 3}),
        ("redis+sentinel://one,two:26380/shop/3", {"db": 3}),
        ("valkey+sentinel://alice:wonder@one,two/shop", {"username": "alice"}),
    ],
)
def test_a_url_says_where_the_server_is(url: str, said: dict[str, Any]) -> None:
    options = options_of(url)

    assert {name: options[name] for name in said} == said


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_an_s_in_the_scheme_is_tls(scheme: str) -> None:
    kinds = [client_of(f"{scheme}{s}://h").connection_pool.connection_class for s in ("", "s")]
    cluster = client_of(f"{scheme}s+cluster://h", ssl_ca_certs="ca.pem")
    sentinel = client_of(f"{scheme}s+sentinel://h/name", ssl_ca_certs="ca.pem").connection_pool

    assert kinds == [Connection, SSLConnection]
    assert cluster.connection_kwargs["ssl_ca_certs"] == "ca.pem"
    [watcher] = sentinel.sentinel_manager.sentinels
    assert issubclass(sentinel.connection_class, SSLConnection)
    assert watcher.connection_pool.connection_class is SSLConnection
    assert watcher.connection_pool.connection_kwargs["ssl_ca_certs"] == "ca.pem"


def test_a_url_of_sentinels_says_where_they_are_and_whom_they_watch() -> None:
    pool = client_of("redis+sentinel://one,two:26380/shop").connection_pool

    watchers = [each.connection_pool.connection_kwargs for each in pool.sentinel_manager.sentinels]
    assert [(each["host"], each["port"]) for each in watchers] == [("one", 26379), ("two", 26380)]
    assert pool.service_name == "shop"


def test_sentinels_have_options_of_their_own() -> None:
    own = {"password": "of the sentinels", "socket_timeout": 3}
    pool = client_of("redis+sentinel://:wonder@one/shop", sentinel_kwargs=own).connection_pool

    [watcher] = [each.connection_pool.connection_kwargs for each in pool.sentinel_manager.sentinels]
    assert (watcher["password"], watcher["socket_timeout"]) == ("of the sentinels", 3)
    assert pool.connection_kwargs["password"] == "wonder"


def test_a_url_of_a_cluster_names_some_of_its_nodes() -> None:
    client = client_of("redis+cluster://alice:wonder@one,two:6380")

    assert isinstance(client, RedisCluster)
    assert set(client.nodes_manager.startup_nodes) == {"one:6379", "two:6380"}
    assert client.connection_kwargs["password"] == "wonder"


@pytest.mark.parametrize(
    ("url", "way_out"),
    [
        ("secret@h", "there are redis://"),
        ("redis//:secret@h", "there are redis://"),
        ("redi://:secret@h", r"did you mean redis://\?"),
        ("http://:secret@h", "no known scheme"),
        ("redis+sentinal://:secret@h/n", r"did you mean redis\+sentinel://\?"),
        ("redis://", "names no host: write redis://host"),
        ("redis://:secret@", "names no host"),
        ("redis://:secret@:6379", "write 'host:port'"),
        ("redis://:secret@h:port", "its port is not from 1 to 65535"),
        ("redis://:secret@h:70000", "its port is not from 1 to 65535"),
        ("redis://:secret@[::1", "IPv6"),
        ("redis://:sec#ret@h", "%23"),
        ("redis://u:sec/ret@h", "%2F"),
        ("redis://u:sec?ret@h", "%3F"),
        ("redis://:secret@h/sessions", "write its number, as in /0"),
        ("redis://:secret@h/" + "9" * 5000, "write its number, as in /0"),
        ("redis://:sec\ud800ret@h", "half of a character"),
        ("redis://:secret@one,two", r"write redis\+sentinel:// or redis\+cluster://"),
        ("redis://:secret@h?db", "an option without a value"),
        ("redis://:secret@h?socket_timeout=soon", "'socket_timeout'"),
        ("redis://:secret@h?foo=1", "'foo'"),
        ("redis+sentinel://:secret@one,two", "the name that the sentinels know it by"),
        ("redis+sentinel://:secret@one/name/db", "write its number, as in /0"),
        ("redis+cluster://:secret@one/3", "no other database than 0"),
        ("redis+cluster://:secret@one?db=4", "'db'"),
        ("unix://", "write unix:///run/redis.sock"),
        ("unix://run/redis.sock", "write unix:///run/redis.sock"),
    ],
)
def test_a_url_that_makes_no_sense_is_refused_with_the_way_out_and_without_the_password(
    url: str, way_out: str
) -> None:
    with pytest.raises(OptionsError, match=way_out) as refused:
        RedisStorage.from_url(url)

    assert "sec" not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


@pytest.mark.parametrize("url", ["redis://h", "redis+cluster://h"])
def test_a_time_limit_of_the_client_is_that_of_each_call(url: str) -> None:
    storage = RedisStorage.from_url(url, socket_timeout=0.3)

    assert isinstance(storage._line, RedisLine | ClusterLine)
    assert storage._line.patience == 0.3


@pytest.mark.parametrize(
    "url", ["redis://h", "unix:///s", "redis+sentinel://h/n", "redis+cluster://h"]
)
def test_an_option_that_no_client_has_is_refused_at_once(url: str) -> None:
    with pytest.raises(OptionsError, match="'soket_timeout'"):
        RedisStorage.from_url(url, soket_timeout=1)


async def test_a_url_of_valkey_is_understood(redis_server: RedisServer) -> None:
    url = redis_server.url.replace("redis://", "valkey://")
    async with RedisStorage.from_url(url) as storage:
        assert await storage.load("k") is None


@pytest.mark.parametrize("given", ["soon", -1, 10**400, b"1", [5]])
@pytest.mark.parametrize("multiplex", [True, False])
def test_a_time_limit_that_is_none_is_refused_at_once(
    given: Any,
    multiplex: bool,  # noqa: FBT001 - a parameter of a test
) -> None:
    with pytest.raises(OptionsError, match=r"^socket_timeout="):
        RedisStorage.from_url("redis://h", socket_timeout=given, multiplex=multiplex)


@pytest.mark.parametrize("given", ["soon", -1])
async def test_a_time_limit_of_a_client_that_is_none_is_refused_at_once(given: Any) -> None:
    client = Redis(socket_timeout=given)

    with pytest.raises(OptionsError, match=r"^socket_timeout="):
        RedisStorage(client)


@pytest.mark.parametrize(
    ("url", "given"),
    [("redis://h", {"retry": "5"}), ("redis+sentinel://h/n", {"sentinel_kwargs": ""})],
)
def test_an_option_of_another_kind_is_refused_at_once(url: str, given: dict[str, Any]) -> None:
    with pytest.raises(
        OptionsError, match=r"^the client cannot be made as the url and options say"
    ):
        RedisStorage.from_url(url, **given)
