"""What a Redis or Valkey URL says, as a function that makes the client it means."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import SplitResult, unquote

from redis import exceptions
from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from aiosess.clients.addresses import address, is_number, split
from aiosess.errors import OptionsError
from aiosess.privacy import private
from aiosess.timeouts import seconds

__all__ = ["QuickSentinel", "maker", "put_quickest_first"]

_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379

_SERVERS: Final = ("redis", "rediss", "valkey", "valkeys")
_OVER_TLS: Final = ("rediss", "valkeys")
_KINDS: Final = ("", "+sentinel", "+cluster")
_SCHEMES: Final = (*(server + kind for kind in _KINDS for server in _SERVERS), "unix")

# A sentinel that says nothing for so many seconds is not waited for.
_SENTINEL_TIMEOUT: Final = 0.25
# The cluster's client asks the next node who has which key when one says nothing for so long.
_NODE_TIMEOUT: Final = 0.5


# What the clients of redis-py raise for options that they do not take.
_REFUSALS: Final = (
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
    exceptions.RedisError,
    exceptions.RedisClusterException,
)


@private("kind", "has_tls")
@dataclass(frozen=True, slots=True)
class _Parts:
    """A URL that was understood; *nodes* are as they stand there."""

    kind: str
    has_tls: bool
    nodes: list[str]
    path: str
    credentials: dict[str, str]
    query: str

    def options(self) -> dict[str, Any]:
        """Return what the URL says of each connection."""
        try:
            said: dict[str, Any] = dict(parse_url(f"redis://host/?{self.query}"))
        except ValueError as error:
            raise OptionsError(f"the url has a value that makes no sense: {error}") from None
        said.pop("host", None)
        return {**said, **self.credentials}


def maker(url: str, options: dict[str, Any]) -> Callable[[], Any]:
    """Return a function that makes a client of *url*, with *options* of ``redis.asyncio``.

    OptionsError, which shows no password, when the URL or an option makes no sense.
    """
    parts = _parts_of(url)
    # The time limit is that of the storage; a second one in the client only costs. Nor does the
    # client try again by itself, beyond a connection that was cut while idle.
    plain = {
        "retry": Retry(NoBackoff(), 1),
        "socket_timeout": None,
        **parts.options(),
        **options,
    }
    limit = plain["socket_timeout"]
    if limit is not None and limit != 0:
        plain["socket_timeout"] = seconds(limit, name="socket_timeout")
    makers = {"": _single, "+sentinel": _of_sentinels, "+cluster": _of_cluster, "unix": _socket}
    if parts.kind != "unix":
        plain.setdefault("socket_keepalive", True)
    try:
        make = makers[parts.kind](parts, plain)
        _try(make())
    except OptionsError:
        raise
    except _REFUSALS as error:
        # These messages name an option and not its value.
        said = str(error).rpartition("__init__() ")[2]
        raise OptionsError(
            f"the client cannot be made as the url and options say: {said}"
        ) from None
    return make


def _parts_of(url: str) -> _Parts:
    parts = split(url)
    scheme, colon, _ = url.partition("://")
    if not colon or scheme not in _SCHEMES:
        raise OptionsError(_unknown(scheme if colon else ""))
    # Half of a password would else pass for a host, which messages show.
    if "#" in url or "@" in parts.path + parts.query:
        raise OptionsError(
            "the url is cut in the middle of a password: write '#', '/', '?' and '@' in it as "
            "%23, %2F, %3F and %40"
        )
    server, _, kind = scheme.partition("+")
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    if scheme == "unix" and (hosts or not parts.path):
        raise OptionsError("the url names no socket: write unix:///run/redis.sock")
    if scheme != "unix" and not hosts:
        raise OptionsError(f"the url names no host: write {scheme}://host")
    return _Parts(
        "unix" if scheme == "unix" else f"+{kind}" if kind else "",
        server in _OVER_TLS,
        hosts.split(","),
        unquote(parts.path),
        {
            name: unquote(value)
            for name, value in (("username", username), ("password", password))
            if value
        },
        _query_of(parts),
    )


def _query_of(parts: SplitResult) -> str:
    if any("=" not in each for each in parts.query.split("&") if each):
        raise OptionsError("the url has an option without a value after '?'")
    return parts.query


def _unknown(scheme: str) -> str:
    # Without "://", what stands there may be a password.
    near = difflib.get_close_matches(scheme, _SCHEMES, 1)
    meant = f" (did you mean {near[0]}://?)" if near else ""
    known = ", ".join(f"{each}://" for each in _SCHEMES)
    return f"the url begins with no known scheme{meant}: there are {known}"


def _single(parts: _Parts, options: dict[str, Any]) -> Callable[[], Any]:
    if len(parts.nodes) > 1:
        raise OptionsError(
            "the url names several hosts: write redis+sentinel:// or redis+cluster:// for them"
        )
    host, port = address(parts.nodes[0], port=_PORT)
    db = _database(parts.path.strip("/"))
    return partial(Redis, **{"host": host, "port": port, "db": db, "ssl": parts.has_tls, **options})


def _socket(parts: _Parts, options: dict[str, Any]) -> Callable[[], Any]:
    return partial(Redis, unix_socket_path=parts.path, **options)


def _of_sentinels(parts: _Parts, options: dict[str, Any]) -> Callable[[], Any]:
    name, _, database = parts.path.strip("/").partition("/")
    if not name:
        raise OptionsError(
            "the url names no primary: write redis+sentinel://host1,host2/name, with the name that "
            "the sentinels know it by"
        )
    hosts = [address(node, port=_SENTINEL_PORT) for node in parts.nodes]
    connection: dict[str, Any] = {"db": _database(database), "ssl": parts.has_tls, **options}
    of_sentinels = {
        "socket_timeout": _SENTINEL_TIMEOUT,
        "socket_connect_timeout": _SENTINEL_TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
        **{key: value for key, value in connection.items() if key.startswith("ssl")},
        **connection.pop("sentinel_kwargs", {}),
    }

    def make() -> Any:
        sentinels: Callable[..., Any] = QuickSentinel  # redis-py does not say what it takes
        sentinel: Any = sentinels(hosts, sentinel_kwargs=of_sentinels)
        return sentinel.master_for(name, redis_class=_OfSentinels, **connection)

    return make


def _of_cluster(parts: _Parts, options: dict[str, Any]) -> Callable[[], Any]:
    if _database(parts.path.strip("/")):
        raise OptionsError("a cluster has no other database than 0: leave it out of the url")
    hosts = [address(node, port=_PORT) for node in parts.nodes]
    connection: dict[str, Any] = {
        "ssl": parts.has_tls,
        **options,
        "socket_timeout": options["socket_timeout"] or _NODE_TIMEOUT,
    }
    connection.setdefault("socket_connect_timeout", _NODE_TIMEOUT)

    def make() -> Any:
        nodes = [ClusterNode(host, port) for host, port in hosts]
        return RedisCluster(startup_nodes=nodes, **connection)

    return make


def _database(said: str) -> int:
    if said and not is_number(said):
        raise OptionsError(f"{said!r} in the url is no database: write its number, as in /0")
    return int(said or 0)


def _try(client: Any) -> None:
    """Let *client* make a connection, which is not connected, so that it sees all options."""
    pool = getattr(client, "connection_pool", None)
    if pool is not None:
        pool.make_connection()


class _OfSentinels(Redis):
    """The client of a primary, which closes those of its sentinels too."""

    async def aclose(
        self,
        close_connection_pool: bool | None = None,  # noqa: FBT001 - as redis-py's own method
    ) -> None:
        await super().aclose(close_connection_pool)
        pool: Any = self.connection_pool
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()


class QuickSentinel(Sentinel):
    """Sentinels of which the quickest is asked first."""

    async def discover_master(self, service_name: str) -> Any:
        """Return host and port of the primary that the sentinels call *service_name*."""
        await put_quickest_first(self, service_name)
        return await super().discover_master(service_name)  # pyright: ignore[reportUnknownVariableType] - redis-py has no types


async def put_quickest_first(sentinel: Any, name: str) -> None:
    """Ask all at once who the primary is, and let redis-py ask first whoever said it first.

    redis-py asks them one after the other, and waits for each.
    """
    asked = {
        asyncio.ensure_future(_knows(sentinel, each, name)): each for each in sentinel.sentinels
    }
    waiting = set(asked)
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task.result():
                    sentinel.sentinels.remove(asked[task])
                    sentinel.sentinels.insert(0, asked[task])
                    return
    finally:
        for task in waiting:
            # One that hangs may take its time to obey; nobody waits for that.
            task.cancel()


async def _knows(sentinel: Any, client: Any, name: str) -> bool:
    """Ask whether *client*, one of the sentinels, knows a primary that is well."""
    try:
        state = (await client.sentinel_masters()).get(name)
    except Exception:  # noqa: BLE001 - redis-py says why when it asks them itself
        return False
    return bool(state and sentinel.check_master_state(state, name))
