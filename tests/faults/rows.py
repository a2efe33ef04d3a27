"""Each fault that is done to a back-end, and the back-end to which it is done."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import aiohttp
from redis import Redis as BlockingRedis
from redis.asyncio import Redis

from aiosess.transports.signing import Signer
from tests.faults.app import NAME, SECRET
from tests.faults.clusters import cluster_in
from tests.faults.harness import Act, Fault, Found, Size, acts_on, application, found_by
from tests.faults.proxy import Proxy, proxy_to
from tests.faults.sentinels import NAME as PRIMARY
from tests.faults.sentinels import Watched, wait_until_a_failover_is_possible
from tests.servers import MemcachedServer, RedisServer, ReplicaServer, Server

__all__ = ["ROWS", "Row"]

Row: TypeAlias = Callable[[Path, Size], Awaitable[Found]]

_ASYNCHRONOUS: Final = "replication is asynchronous: what was acknowledged last may be lost"
# A back-end that loses its memory, and tells nobody.
_KEEPS_NOTHING: Final = "the server keeps nothing on disk: its sessions end with it"


async def nothing() -> None:
    """Do nothing."""


@asynccontextmanager
async def redis_in(folder: Path, *options: str) -> AsyncGenerator[RedisServer]:
    """Give a Redis of its own."""
    home = folder / "redis"
    home.mkdir()
    server = RedisServer(home, *options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


async def ask(server: RedisServer, *command: str | int, within: float = 30.0) -> Any:
    """Send *command* to *server*, and return its answer."""
    async with asyncio.timeout(within), Redis.from_url(server.url) as client:
        answer: Any = await client.execute_command(*command)  # type: ignore[no-untyped-call]
        return answer


def on_redis(
    name: str,
    begin: Callable[[RedisServer], Act],
    end: Callable[[RedisServer], Act],
    *options: str,
    note: str = "",
    is_theirs: bool = False,
    **sizes: Any,
) -> Row:
    """Return the row of a fault that is done to a Redis."""

    async def row(folder: Path, size: Size) -> Found:
        async with (
            redis_in(folder, *options) as server,
            application(server.url, folder, is_theirs=is_theirs) as app,
        ):
            sized = replace(size, **sizes)
            return await found_by(app, Fault(name, begin(server), end(server), note, sized))

    return row


def behind_proxy(
    name: str,
    begin: Callable[[Proxy], Act],
    end: Callable[[Proxy], Act],
    *,
    is_theirs: bool = False,
    on_memcached: bool = False,
    **sizes: Any,
) -> Row:
    """Return the row of a fault of the network between the application and its back-end."""

    async def row(folder: Path, size: Size) -> Found:
        async with contextlib.AsyncExitStack() as stack:
            if on_memcached:
                server = MemcachedServer()
                server.start()
                stack.callback(server.stop)
                port = server.port
            else:
                port = (await stack.enter_async_context(redis_in(folder))).port
            proxy = await stack.enter_async_context(proxy_to(port))
            scheme = "memcached" if on_memcached else "redis"
            url = f"{scheme}://127.0.0.1:{proxy.port}"
            app = await stack.enter_async_context(application(url, folder, is_theirs=is_theirs))
            sized = replace(size, **sizes)
            return await found_by(app, Fault(name, begin(proxy), end(proxy), size=sized))

    return row


def on_memcached(
    name: str,
    begin: Callable[[MemcachedServer], Act],
    end: Callable[[MemcachedServer], Act],
    *,
    nodes: int = 1,
    note: str = "",
) -> Row:
    """Return the row of a fault that is done to the first of some memcached servers."""

    async def row(folder: Path, size: Size) -> Found:
        servers = [MemcachedServer() for _ in range(nodes)]
        with contextlib.ExitStack() as stack:
            for server in servers:
                server.start()
                stack.callback(server.stop)
            hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
            async with application(f"memcached://{hosts}", folder) as app:
                fault = Fault(name, begin(servers[0]), end(servers[0]), note, size)
                return await found_by(app, fault)

    return row


def by_name(name: str, said: str, *, on_memcached: bool = False, is_theirs: bool = False) -> Row:
    """Return the row of a resolver that says *said* of the back-end, and of a reset."""

    async def row(folder: Path, size: Size) -> Found:
        async with contextlib.AsyncExitStack() as stack:
            if on_memcached:
                server = MemcachedServer()
                server.start()
                stack.callback(server.stop)
                port = server.port
            else:
                port = (await stack.enter_async_context(redis_in(folder))).port
            proxy = await stack.enter_async_context(proxy_to(port))
            names = folder / "names"
            names.write_text("127.0.0.1")
            url = f"{'memcached' if on_memcached else 'redis'}://{NAME}:{proxy.port}"
            app = await stack.enter_async_context(
                application(url, folder, is_theirs=is_theirs, names=names)
            )

            async def begin() -> None:
                names.write_text(said)
                proxy.reset()

            async def end() -> None:
                names.write_text("127.0.0.1")

            return await found_by(app, Fault(name, begin, end, size=size))

    return row


async def move(folder: Path, size: Size) -> Found:
    """Let a primary hang; its name leads to the replica, which was promoted, a second later."""
    home = folder / "replica"
    home.mkdir()
    async with redis_in(folder) as primary:
        replica, names = ReplicaServer(home, primary), folder / "names"
        names.write_text(primary.host)
        replica.start()
        try:
            await asyncio.to_thread(wait_until_it_follows, replica)
            url = f"redis://{NAME}:{primary.port}"
            async with application(url, folder, names=names) as app:

                async def begin() -> None:
                    primary.pause()
                    await ask(replica, "REPLICAOF", "NO", "ONE")
                    await asyncio.sleep(1)
                    names.write_text(replica.host)

                name = "the primary hangs, and its name leads to the replica a second later"
                fault = Fault(name, begin, nothing, _ASYNCHRONOUS, size, replaced=nothing)
                return await found_by(app, fault)
        finally:
            replica.stop()


def wait_until_it_follows(replica: ReplicaServer) -> None:
    """Wait until *replica* has what its primary has."""
    client: Any = BlockingRedis.from_url(replica.url)
    with client:
        while client.role()[3] != b"connected":
            time.sleep(0.05)


async def memcached_full(folder: Path, size: Size) -> Found:
    """Fill a memcached that may drop nothing, and make room again."""
    server = MemcachedServer("-M", "-m", "4")
    server.start()
    try:
        async with application(server.url, folder) as app:
            kept: list[bytes] = []

            async def begin() -> None:
                kept.extend(await filled(server))

            async def end() -> None:
                await said_by(server, [b"delete %b\r\n" % key for key in kept])

            fault = Fault("memcached is out of memory (-M)", begin, end, size=size)
            return await found_by(app, fault)
    finally:
        server.stop()


async def filled(server: MemcachedServer) -> list[bytes]:
    """Fill *server* with values of many sizes until it takes no more; return their keys."""
    keys: list[bytes] = []
    for length in range(20, 1000, 20):
        is_full = False
        while not is_full:
            tried = [b"junk-%d-%d" % (length, len(keys) + each) for each in range(500)]
            value = b"x" * length
            commands = [b"set %b 0 0 %d\r\n%b\r\n" % (key, length, value) for key in tried]
            answers = await said_by(server, commands)
            keys += [key for key, said in zip(tried, answers, strict=True) if said == b"STORED"]
            is_full = any(said != b"STORED" for said in answers)
    return keys


async def said_by(server: MemcachedServer, commands: list[bytes]) -> list[bytes]:
    """Return what *server* answers to each of *commands*, a line each."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write(b"".join(commands))
        return [(await reader.readline()).strip() for _ in commands]
    finally:
        writer.close()
        await writer.wait_closed()


def command(*words: str | int) -> Callable[[RedisServer], Act]:
    """Return what sends *words* to a Redis."""

    def of(server: RedisServer) -> Act:
        async def act() -> None:
            await ask(server, *words)

        return act

    return of


def do(name: str) -> Callable[[Any], Act]:
    """Return what does *name* to a server."""
    return lambda server: acts_on(server)[name]


def idle(_server: object) -> Act:
    """Return what does nothing."""
    return nothing


def again_and_again(*words: str | int) -> Callable[[RedisServer], Act]:
    """Return what sends *words* to a Redis some ten times."""

    def of(server: RedisServer) -> Act:
        async def act() -> None:
            for _ in range(10):
                await ask(server, *words)
                await asyncio.sleep(0.1)

        return act

    return of


def busy(server: RedisServer) -> Act:
    """Return what has a Redis run somebody's slow script, three seconds long."""
    script = "local till = redis.call('TIME')[1] + 3 while redis.call('TIME')[1] + 0 < till do end"

    async def act() -> None:
        task = asyncio.create_task(ask(server, "EVAL", script, 0))
        await asyncio.wait([task], timeout=0.1)

    return act


def fill(server: RedisServer) -> Act:
    """Return what leaves a Redis no room."""

    async def act() -> None:
        used = (await ask(server, "INFO", "memory"))["used_memory"]
        await ask(server, "CONFIG", "SET", "maxmemory", int(used) // 2)

    return act


def refuse_writes(server: RedisServer) -> Act:
    """Return what keeps a Redis from saving to its disk, so that it takes no writes."""

    async def act() -> None:
        await ask(server, "CONFIG", "SET", "dir", "/proc")
        await ask(server, "CONFIG", "SET", "save", "1 1")
        await ask(server, "BGSAVE")

    return act


def save_again(server: RedisServer) -> Act:
    """Return what ends refuse_writes()."""

    async def act() -> None:
        await ask(server, "CONFIG", "SET", "stop-writes-on-bgsave-error", "no")

    return act


def restart(server: RedisServer) -> Act:
    """Return what stops a Redis and starts it again."""

    async def act() -> None:
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)

    return act


def crowd_out(server: RedisServer) -> Act:
    """Return what takes the last place that a Redis has for clients, and ends all others."""

    async def act() -> None:
        # This client is the one; the place is free again when it goes.
        async with Redis.from_url(server.url, single_connection_client=True) as client:
            await client.config_set("maxclients", 1)
            await client.client_kill_filter(_type="normal", skipme=True)
            await asyncio.sleep(2)

    return act


def change_password(server: RedisServer) -> Act:
    """Return what gives a Redis a password that its clients do not know, and ends them."""

    async def act() -> None:
        async with Redis.from_url(server.url, single_connection_client=True) as client:
            await client.config_set("requirepass", "another")
            await client.client_kill_filter(_type="normal", skipme=True)

    return act


def take_password_back(server: RedisServer) -> Act:
    """Return what ends change_password()."""

    async def act() -> None:
        async with Redis.from_url(server.url, password="another") as client:
            await client.config_set("requirepass", "")

    return act


def set_to(proxy_attribute: str, value: object) -> Callable[[Proxy], Act]:
    """Return what sets an attribute of a proxy."""

    def of(proxy: Proxy) -> Act:
        async def act() -> None:
            setattr(proxy, proxy_attribute, value)

        return act

    return of


def to_proxy(name: str) -> Callable[[Proxy], Act]:
    """Return what a proxy is told to do once."""

    def of(proxy: Proxy) -> Act:
        async def act() -> None:
            getattr(proxy, name)()

        return act

    return of


async def slow_record(folder: Path, size: Size) -> Found:
    """Read a record of 5 MB that somebody else wrote, over 100 Mbit/s, while the others write."""
    async with redis_in(folder) as server, proxy_to(server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        async with application(url, folder) as app:
            cookie = {"originalMaxAge": None, "expires": None, "httpOnly": True, "path": "/"}
            large = json.dumps({"cookie": cookie, "text": "x" * 5_000_000})
            await ask(server, "SET", "sess:large", large, "EX", 600)
            value = Signer(SECRET).sign("large")
            reading: list[asyncio.Task[None]] = []

            async def read() -> None:
                async with (
                    aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client,
                    client.get(f"{app.base}/read", headers={"Cookie": f"sid={value}"}) as response,
                ):
                    await response.read()

            async def begin() -> None:
                proxy.rate = 12_500_000
                reading.append(asyncio.create_task(read()))

            async def end() -> None:
                proxy.rate = None
                await asyncio.gather(*reading)

            fault = Fault("a record of 5 MB on 100 Mbit/s", begin, end, size=size)
            return await found_by(app, fault)


async def hang_up(folder: Path, size: Size) -> Found:
    """Let a crowd hang up in the middle of their requests, while the others write."""
    async with (
        redis_in(folder) as server,
        proxy_to(server.port) as proxy,
        application(f"redis://127.0.0.1:{proxy.port}", folder) as app,
    ):
        crowd: list[asyncio.Task[None]] = []

        async def come_and_go(number: int) -> None:
            soon = aiohttp.ClientTimeout(total=0.01 + 0.002 * number)
            while True:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with aiohttp.ClientSession(timeout=soon) as client:
                        for n in range(10):
                            await client.get(f"{app.base}/write?key=n&n={n}")
                await asyncio.sleep(0.02)

        async def begin() -> None:
            proxy.delay = 0.02
            crowd.extend(asyncio.create_task(come_and_go(each)) for each in range(10))

        async def end() -> None:
            proxy.delay = 0.0
            for each in crowd:
                each.cancel()
            await asyncio.wait(crowd)

        return await found_by(app, Fault("a crowd hangs up all the time", begin, end, size=size))


async def deploy(folder: Path, size: Size) -> Found:
    """End the application with SIGTERM while it serves, and start it again."""
    async with redis_in(folder) as server, proxy_to(server.port) as proxy:
        proxy.delay = 0.02
        async with application(f"redis://127.0.0.1:{proxy.port}", folder) as app:

            async def begin() -> None:
                await app.stop()
                await app.start()

            note = "while it is away, connections are refused"
            fault = Fault("SIGTERM with requests under way", begin, nothing, note, size)
            return await found_by(app, fault)


async def fail_over(folder: Path, size: Size) -> Found:
    """Let the first sentinel hang, and then the primary."""
    watched = Watched(folder / "watched")
    with contextlib.ExitStack() as stack:
        for server in watched.servers:
            server.start()
            stack.callback(server.stop)
        await asyncio.to_thread(wait_until_a_failover_is_possible, watched)
        async with application(watched.url, folder) as app:

            async def begin() -> None:
                watched.sentinels[0].pause()
                watched.primary.pause()

            name = f"the first sentinel and the primary {PRIMARY!r} hang: a failover"
            replaced = until_it_is_primary(watched.replica)
            fault = Fault(name, begin, nothing, _ASYNCHRONOUS, size, replaced)
            return await found_by(app, fault)


def on_cluster(name: str, do_to_primary: str, *, note: str = "") -> Row:
    """Return the row of a fault that is done to one of three primaries, which have replicas."""

    async def row(folder: Path, size: Size) -> Found:
        with cluster_in(folder / "cluster") as cluster:
            async with application(cluster.url, folder) as app:
                begin = acts_on(cluster.nodes[0])[do_to_primary]
                replaced = until_it_is_primary(cluster.replicas[0])
                fault = Fault(name, begin, nothing, note, size, replaced)
                return await found_by(app, fault)

    return row


def until_it_is_primary(replica: Server) -> Act:
    """Return the act that waits until *replica* has taken the place of its primary."""

    async def wait() -> None:
        async with asyncio.timeout(30), Redis(port=replica.port) as client:
            while True:
                role, *_ = await client.role()
                if role == b"master":
                    return
                await asyncio.sleep(0.01)

    return wait


ROWS: Final[dict[str, Row]] = {
    "hang": on_redis("Redis hangs", do("pause"), do("resume")),
    "hang-open": on_redis(
        "Redis hangs for 5 s, 100 requests a second",
        do("pause"),
        do("resume"),
        lasts=5.0,
        pause=0.2,
        after=8.0,
        has_open_loop=True,
    ),
    "kill": on_redis(
        "Redis is killed and started again", do("stop"), do("start"), note=_KEEPS_NOTHING
    ),
    "restart": on_redis(
        "Redis restarts and keeps its data",
        restart,
        idle,
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
    ),
    "loading": on_redis(
        "LOADING: Redis restarts and takes seconds to read its data",
        restart,
        idle,
        *("--appendonly", "yes", "--appendfsync", "always"),
        *("--key-load-delay", "5000", "--loading-process-events-interval-bytes", "1024"),
    ),
    "busy": on_redis("BUSY: somebody's slow script", busy, idle, "--lua-time-limit", "100"),
    "full": on_redis("OOM: Redis is full", fill, command("CONFIG", "SET", "maxmemory", 0)),
    "disk": on_redis(
        "MISCONF: its disk is full", refuse_writes, save_again, "--enable-protected-configs", "yes"
    ),
    "readonly": on_redis(
        "READONLY: it was demoted",
        command("REPLICAOF", "127.0.0.1", 1),
        command("REPLICAOF", "NO", "ONE"),
    ),
    "replicas": on_redis(
        "NOREPLICAS: too few replicas",
        command("CONFIG", "SET", "min-replicas-to-write", 1),
        command("CONFIG", "SET", "min-replicas-to-write", 0),
    ),
    "rights": on_redis(
        "NOPERM: a right is taken away",
        command("ACL", "SETUSER", "default", "-evalsha", "-eval", "-get"),
        command("ACL", "SETUSER", "default", "+@all"),
    ),
    "password": on_redis(
        "NOAUTH: another password, and all connections closed",
        change_password,
        take_password_back,
    ),
    "crowd": on_redis(
        "max clients: for two seconds another has the last place",
        crowd_out,
        command("CONFIG", "SET", "maxclients", 1000),
        lasts=1.0,
    ),
    "kick": on_redis(
        "CLIENT KILL, ten times", again_and_again("CLIENT", "KILL", "TYPE", "normal"), idle
    ),
    "scripts": on_redis("SCRIPT FLUSH, ten times", again_and_again("SCRIPT", "FLUSH"), idle),
    "reset": behind_proxy("all connections are reset", to_proxy("reset"), idle),
    "half-open": behind_proxy("a firewall forgets the connections", to_proxy("forget"), idle),
    "swallow": behind_proxy("one reply is lost", to_proxy("swallow_next"), idle),
    "garbage": behind_proxy(
        "replies are garbage", set_to("garbles", value=True), set_to("garbles", value=False)
    ),
    "cut": behind_proxy(
        "replies are cut off", set_to("cuts", value=True), set_to("cuts", value=False)
    ),
    "large": slow_record,
    "hot": behind_proxy(
        "50 writes a second of one session, answers take 0.02 s",
        set_to("delay", 0.02),
        set_to("delay", 0.0),
        browsers=1,
        pause=0.02,
        has_open_loop=True,
    ),
    "hang-up": hang_up,
    "deploy": deploy,
    "failover": fail_over,
    "cluster-hang": on_cluster(
        "one of three primaries of a cluster hangs for good",
        "pause",
        note=_ASYNCHRONOUS,
    ),
    "cluster-kill": on_cluster(
        "one of three primaries of a cluster is killed",
        "stop",
        note=_ASYNCHRONOUS,
    ),
    "name-gone": by_name("DNS: the name is gone, and all connections are reset", ""),
    "name-hangs": by_name("DNS: the resolver hangs, and all connections are reset", "hangs"),
    "name-moves": move,
    "memcached-name-gone": by_name(
        "memcached, DNS: the name is gone, and all connections are reset", "", on_memcached=True
    ),
    "memcached-full": memcached_full,
    "memcached-hang": on_memcached("memcached hangs", do("pause"), do("resume")),
    "memcached-one": on_memcached(
        "one of two memcached servers hangs", do("pause"), do("resume"), nodes=2
    ),
    "memcached-away": on_memcached(
        "one of two memcached servers is killed and started again",
        do("stop"),
        do("start"),
        nodes=2,
        note="its sessions end with it",
    ),
    "memcached-reset": behind_proxy(
        "memcached: all connections are reset", to_proxy("reset"), idle, on_memcached=True
    ),
    "memcached-swallow": behind_proxy(
        "memcached: one reply is lost", to_proxy("swallow_next"), idle, on_memcached=True
    ),
    "their-hang": on_redis(
        "aiohttp-session: Redis hangs", do("pause"), do("resume"), is_theirs=True
    ),
    "their-kill": on_redis(
        "aiohttp-session: Redis is killed and started again",
        do("stop"),
        do("start"),
        note=_KEEPS_NOTHING,
        is_theirs=True,
    ),
    "their-name-gone": by_name(
        "aiohttp-session, DNS: the name is gone, and all connections are reset",
        "",
        is_theirs=True,
    ),
    "their-reset": behind_proxy(
        "aiohttp-session: all connections are reset", to_proxy("reset"), idle, is_theirs=True
    ),
}
