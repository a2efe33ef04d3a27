"""What a session takes in Redis, kept by aiosess and by others: the same data, 50,000 times.

    make bench-redis-bytes

Each library writes one session itself. Its value is then copied under keys that are as long and
live a day, in an empty Redis of the study's own; the figure is what ``used_memory`` grew by.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import redis

sys.path.insert(0, str(Path(__file__).parents[1]))
from processes import Process, cores, redis_server
from server import PERSON
from variants import ALL_SERVERS, Server

SERVERS = {
    "aiosess": "redis",
    "connect-redis (express-session)": "express-redis",
    "connect-redis (@fastify/session)": "fastify-redis",
    "aiohttp-session": "as-redis",
    "starsessions": "starsessions-redis",
}
COPIES = 50_000
# Seconds. By default aiohttp-session lets a record live for ever, which takes 43 bytes less.
DAY = 86_400
HEAD = "| library | key, bytes | value, bytes | Redis, bytes a session |\n| --- | --- | --- | --- |"


def written(server: Server, client: Any, folder: Path, port: int) -> tuple[bytes, bytes]:
    """Let *server* keep a session; return its key and its value."""
    client.flushdb()
    command = [part.replace("{redis}", str(port)) for part in server.command]
    process = Process(server.name, command, core=cores()[0], folder=folder)
    try:
        connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", "/person")
            answer = connection.getresponse()
            # Express keeps the last byte back until the session is saved.
            answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{server.name} answered {answer.status}")
    finally:
        process.stop()
    (key,) = client.keys()
    return key, client.get(key)


def bytes_a_session(client: Any, key: bytes, value: bytes, copies: int) -> float:
    """Return what each of many such sessions takes."""
    client.flushdb()
    before = client.info("memory")["used_memory"]
    pipeline = client.pipeline(transaction=False)
    for number in range(copies):
        # Redis keeps a key as it is: the end tells the copies apart.
        name = key[: len(key) - 8] + b"%08d" % number
        pipeline.set(name, value, ex=DAY)
        if number % 1000 == 999:
            pipeline.execute()
    pipeline.execute()
    return (client.info("memory")["used_memory"] - before) / copies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--copies", type=int, default=COPIES)
    parser.add_argument("--show", action="store_true", help="print the values, too")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aiosess-bench-")))
        process = redis_server(core=cores()[2], folder=folder)
        stack.callback(process.stop)
        client: Any = stack.enter_context(redis.Redis(port=process.port))
        version = client.info("server")["redis_version"]
        size = len(json.dumps(PERSON, separators=(",", ":")))
        print(f"{size} bytes of data, {arguments.copies:,} sessions, Redis {version}\n\n{HEAD}")
        for label, name in SERVERS.items():
            server = ALL_SERVERS[name]
            if (missing := server.missing()) is not None:
                print(f"left out: {label} needs {missing}", file=sys.stderr)
                continue
            key, value = written(server, client, folder, process.port)
            each = bytes_a_session(client, key, value, arguments.copies)
            print(f"| {label} | {len(key)} | {len(value)} | {each:.0f} |", flush=True)
            if arguments.show:
                print(f"    {value!r}")


if __name__ == "__main__":
    main()
