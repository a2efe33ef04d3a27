"""Which memcached client: speed, cancellation, restart, hanging connect, side by side.

A study of 2026-11-23; docs/explanation/memcached-client.md says what came out.

    pip install aiomcache emcache memcache memcachio meta-memcache
    python benchmarks/studies/memcached_clients.py [--rounds 5] [--seconds 0.4]

Prints the tables of docs/explanation/memcached-client.md. Starts its own memcached. The rounds
are interleaved (each client in turn, then again); the figures are medians.
"""

# ruff: noqa: PLC0415 - each client is imported where it is used, so that one may be missing

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.metadata
import itertools
import logging
import socket
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.servers import MemcachedServer

HOST = "127.0.0.1"
VALUE = b"x" * 300
KEYS = [b"key:%d" % number for number in range(512)]


class Client:
    """What is asked of each: the record with its cas unique, and compare-and-set."""

    package = ""
    connections = 1

    async def open(self, port: int) -> None: ...

    async def gets(self, key: bytes) -> tuple[bytes, Any] | None: ...

    async def cas(self, key: bytes, value: bytes, unique: Any) -> bool: ...

    async def set(self, key: bytes, value: bytes) -> None: ...

    async def close(self) -> None: ...


class Aiomcache(Client):
    package = "aiomcache"

    def __init__(self, connections: int = 2) -> None:
        self.connections = connections

    async def open(self, port: int) -> None:
        import aiomcache

        self.client = aiomcache.Client(HOST, port, pool_size=self.connections)

    async def gets(self, key: bytes) -> tuple[bytes, Any] | None:
        value, unique = await self.client.gets(key)
        return None if value is None else (value, unique)

    async def cas(self, key: bytes, value: bytes, unique: Any) -> bool:
        return await self.client.cas(key, value, unique)

    async def set(self, key: bytes, value: bytes) -> None:
        await self.client.set(key, value)

    async def close(self) -> None:
        await self.client.close()


class Emcache(Client):
    package = "emcache"

    def __init__(self, connections: int = 2) -> None:
        self.connections = connections

    async def open(self, port: int) -> None:
        import emcache

        self.errors = emcache
        address = emcache.MemcachedHostAddress(HOST, port)
        self.client = await emcache.create_client(
            [address], max_connections=self.connections, min_connections=self.connections
        )

    async def gets(self, key: bytes) -> tuple[bytes, Any] | None:
        item = await self.client.gets(key)
        return None if item is None else (item.value, item.cas)

    async def cas(self, key: bytes, value: bytes, unique: Any) -> bool:
        try:
            await self.client.cas(key, value, unique)
        except self.errors.StorageCommandError:
            return False
        return True

    async def set(self, key: bytes, value: bytes) -> None:
        await self.client.set(key, value)

    async def close(self) -> None:
        await self.client.close()


class Memcachio(Client):
    package = "memcachio"

    def __init__(self, connections: int = 2) -> None:
        self.connections = connections

    async def open(self, port: int) -> None:
        import memcachio

        self.client = memcachio.Client(
            (HOST, port),
            max_connections=self.connections,
            max_inflight_requests_per_connection=1000,
        )

    async def gets(self, key: bytes) -> tuple[bytes, Any] | None:
        item = (await self.client.gets(key)).get(key)
        return None if item is None else (item.value, item.cas)

    async def cas(self, key: bytes, value: bytes, unique: Any) -> bool:
        return bool(await self.client.cas(key, value, unique))

    async def set(self, key: bytes, value: bytes) -> None:
        await self.client.set(key, value)

    async def close(self) -> None:
        self.client.connection_pool.close()


class Memcache(Client):
    package = "memcache"
    connections = 23

    async def open(self, port: int) -> None:
        import memcache

        self.error = memcache.MemcacheError
        self.client = memcache.AsyncMemcache(
            (HOST, port),
            dump_func=lambda _key, value: (value, 0),
            load_func=lambda _key, value, _flags: value,
        )

    async def gets(self, key: bytes) -> tuple[bytes, Any] | None:
        return await self.client.gets(key)

    async def cas(self, key: bytes, value: bytes, unique: Any) -> bool:
        try:
            await self.client.cas(key, value, unique)
        except self.error:
            return False
        return True

    async def set(self, key: bytes, value: bytes) -> None:
        await self.client.set(key, value)


class MetaMemcache(Client):
    """Synchronous: each call in a thread."""

    package = "meta-memcache"
    connections = 16

    async def open(self, port: int) -> None:
        from meta_memcache import CacheClient, Key, ServerAddress, connection_pool_factory_builder
        from meta_memcache.serializer import MixedSerializer

        self.client = CacheClient.cache_client_from_servers(
            servers=[ServerAddress(HOST, port)],
            connection_pool_factory_fn=connection_pool_factory_builder(max_pool_size=16),
            serializer=MixedSerializer(),
        )
        self.key = Key

    async def gets(self, key: bytes) -> tuple[bytes, Any] | None:
        return await asyncio.to_thread(self.client.get_cas, key.decode())

    async def cas(self, key: bytes, value: bytes, unique: Any) -> bool:
        return await asyncio.to_thread(
            lambda: self.client.set(key.decode(), value, 0, cas_token=unique)
        )

    async def set(self, key: bytes, value: bytes) -> None:
        await asyncio.to_thread(self.client.set, key.decode(), value, 0)


class Ours(Client):
    """MemcachedStorage of this package, its key prefix and error handling included."""

    package = "aiosess"

    async def open(self, port: int) -> None:
        from aiosess.storages.memcached import MemcachedStorage

        self.storage = MemcachedStorage.from_url(f"memcached://{HOST}:{port}")

    async def gets(self, key: bytes) -> tuple[bytes, Any] | None:
        stored = await self.storage.load(key.decode())
        return None if stored is None else (stored.payload, stored.version)

    async def cas(self, key: bytes, value: bytes, unique: Any) -> bool:
        from aiosess import Conflict

        try:
            await self.storage.replace(key.decode(), value, 3600, expected=unique)
        except Conflict:
            return False
        return True

    async def set(self, key: bytes, value: bytes) -> None:
        from aiosess import IdTaken

        try:
            await self.storage.create(key.decode(), value, 3600)
        except IdTaken:
            stored = await self.storage.load(key.decode())
            assert stored is not None
            await self.storage.replace(key.decode(), value, 3600, expected=stored.version)

    async def close(self) -> None:
        await self.storage.close()


BASE = "aiomcache, 2 connections"

CLIENTS: dict[str, Callable[[], Client]] = {
    BASE: Aiomcache,
    "aiomcache, 32": lambda: Aiomcache(32),
    "emcache, 2": Emcache,
    "emcache, 32": lambda: Emcache(32),
    "memcachio, 2": Memcachio,
    "memcache, 23": Memcache,
    "meta-memcache, 16 threads": MetaMemcache,
    "aiosess, 1": Ours,
}


async def _throughput(
    call: Callable[[bytes], Awaitable[object]], tasks: int, seconds: float
) -> tuple[float, float]:
    """Return calls a second and microseconds of CPU a call."""
    end = time.perf_counter() + seconds
    done = 0

    async def work(key: bytes) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await call(key)
            done += 1

    begin, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work(KEYS[number]) for number in range(tasks)))
    return done / (time.perf_counter() - begin), (time.process_time() - cpu) / done * 1e6


async def speed(port: int, rounds: int, seconds: float) -> None:
    """Reads, then reads with a compare-and-set, by each client in turn."""
    figures: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
    for _, (name, make) in itertools.product(range(rounds), CLIENTS.items()):
        client = make()
        await client.open(port)
        for key in KEYS[:256]:
            await client.set(key, VALUE)

        async def update(key: bytes, client: Client = client) -> None:
            found = await client.gets(key)
            assert found is not None
            assert await client.cas(key, VALUE, found[1])

        for tasks in (1, 32, 256):
            for what, call in (("read", client.gets), ("read and write", update)):
                try:
                    async with asyncio.timeout(seconds * 20 + 5):
                        figure = await _throughput(call, tasks, seconds)
                except Exception as error:  # noqa: BLE001 - any client, any error
                    print(f"{name}: {what}, {tasks} tasks: {type(error).__name__} {error}")
                    continue
                figures.setdefault((what, name, tasks), []).append(figure)
        await client.close()
    _print_speed(figures)


def _print_speed(figures: dict[tuple[str, str, int], list[tuple[float, float]]]) -> None:
    for what in ("read", "read and write"):
        print(f"\n| {what} | 1 task | 32 tasks | 256 tasks |\n| --- | --- | --- | --- |")
        for name in CLIENTS:
            cells = []
            for tasks in (1, 32, 256):
                runs = figures.get((what, name, tasks))
                if not runs:
                    cells.append("failed")
                    continue
                base = figures[what, BASE, tasks]
                # Round by round, so that what else the machine did meanwhile falls out.
                ratio = statistics.median(
                    rate / rate_of_base
                    for (rate, _), (rate_of_base, _) in zip(runs, base, strict=False)
                )
                cpu = statistics.median(cost for _, cost in runs)
                cells.append(f"{cpu:.0f} µs, {ratio:.1f} x")
            print(f"| {name} | {' | '.join(cells)} |")


async def cancelled_calls(client: Client, server: MemcachedServer) -> str:
    """Cancel 100 reads in mid-call, then read 200 other keys: each its own value?"""
    await client.open(server.port)
    for key in KEYS:
        await client.set(key, b"value of " + key)
    for key in KEYS[:100]:
        task = asyncio.ensure_future(client.gets(key))
        for _ in range(KEYS.index(key) % 6):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    wrong = missing = failed = 0
    for key in KEYS[200:400]:
        try:
            found = await asyncio.wait_for(client.gets(key), 2)
        except Exception:  # noqa: BLE001 - any client, any error
            failed += 1
            continue
        missing += found is None
        wrong += found is not None and found[0] != b"value of " + key
    await client.close()
    return f"{wrong} wrong, {missing} missing, {failed} failed"


async def killed_server(client: Client, server: MemcachedServer) -> str:
    """Seconds until a call in flight fails when the server is killed, and until it is back."""
    await client.open(server.port)
    await client.set(KEYS[0], VALUE)
    await client.gets(KEYS[0])
    server.pause()
    call = asyncio.ensure_future(asyncio.wait_for(client.gets(KEYS[0]), 10))
    await asyncio.sleep(0.1)
    begin = time.perf_counter()
    # stop() would let the paused server go on first, and answer.
    server.kill()
    (outcome,) = await asyncio.gather(call, return_exceptions=True)
    in_flight = time.perf_counter() - begin
    server.stop()
    begin = time.perf_counter()
    with contextlib.suppress(Exception):
        await asyncio.wait_for(client.gets(KEYS[0]), 10)
    refused = time.perf_counter() - begin
    for _ in range(8):
        with contextlib.suppress(Exception):
            await asyncio.wait_for(client.gets(KEYS[0]), 1)
        await asyncio.sleep(0.2)
    server.start()
    begin = time.perf_counter()
    back: float | None = None
    while time.perf_counter() - begin < 30:
        try:
            await asyncio.wait_for(client.gets(KEYS[0]), 1)
        except Exception:  # noqa: BLE001 - any client, any error
            await asyncio.sleep(0.05)
            continue
        back = time.perf_counter() - begin
        break
    with contextlib.suppress(Exception):
        await client.close()
    said = type(outcome).__name__ if isinstance(outcome, BaseException) else "a wrong miss"
    after = "not within 30 s" if back is None else f"{back:.2f} s"
    return f"{said} after {in_flight:.2f} s; refused after {refused:.2f} s; back after {after}"


async def hanging_connect(client: Client, server: MemcachedServer) -> str:
    """Cancel ten calls that wait for a connection, then let the server listen: does it work?"""
    server.stop()
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, server.port))
        listener.listen(0)
        # A full queue of connections: further ones wait for their handshake.
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((HOST, server.port))
        with contextlib.suppress(Exception):
            await asyncio.wait_for(client.open(server.port), 2)
        for _ in range(10):
            with contextlib.suppress(Exception):
                await asyncio.wait_for(client.gets(KEYS[0]), 0.05)
    server.start()
    begin = time.perf_counter()
    while time.perf_counter() - begin < 15:
        try:
            await asyncio.wait_for(client.gets(KEYS[0]), 1)
        except Exception:  # noqa: BLE001 - any client, any error
            await asyncio.sleep(0.05)
            continue
        with contextlib.suppress(Exception):
            await client.close()
        return f"works after {time.perf_counter() - begin:.2f} s"
    with contextlib.suppress(Exception):
        await client.close()
    return "does not work within 15 s"


async def behaviour(server: MemcachedServer) -> None:
    """Everything that goes wrong, by each client in turn."""
    print("\n| client | after 100 cancelled calls, of 200 | the server is killed | connect hangs |")
    print("| --- | --- | --- | --- |")
    for name, make in CLIENTS.items():
        cells = []
        for case in (cancelled_calls, killed_server, hanging_connect):
            try:
                cells.append(await asyncio.wait_for(case(make(), server), 120))
            except Exception as error:  # noqa: BLE001 - any client, any error
                cells.append(f"{type(error).__name__}: {error}")
            server.stop()
            server.start()
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.4)
    parser.add_argument("--only", default="", help="clients whose name contains this")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    for name in [name for name in CLIENTS if arguments.only not in name]:
        del CLIENTS[name]
    for package in dict.fromkeys(make().package for make in CLIENTS.values()):
        print(f"{package} {importlib.metadata.version(package)}")
    server = MemcachedServer()
    server.start()
    try:
        if BASE in CLIENTS:
            asyncio.run(speed(server.port, arguments.rounds, arguments.seconds))
        asyncio.run(behaviour(server))
    finally:
        server.stop()


if __name__ == "__main__":
    main()
