"""The clients behind a Redis storage: one for each event loop, because theirs is the first one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["Clients"]

# A client may be one of redis-py, of valkey-py, or of the application's own.
_Client: TypeAlias = Any


class Clients:
    """Gives each event loop its client: *first*, which serves one event loop at a time.

    Those that are our own may be made for each event loop.
    """

    def __init__(self, first: _Client) -> None:
        self.first = first
        self._make: Callable[[], _Client] | None = None
        self._by_loop: dict[asyncio.AbstractEventLoop, _Client] = {}
        self._lock = threading.Lock()

    def own(self, make: Callable[[], _Client]) -> None:
        """Give the next event loops a client that *make* makes; all of them are ours to close."""
        self._make = make

    def here(self) -> _Client:
        """Return the client of the running event loop.

        RuntimeError where the only client is in use in another event loop that runs now.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            client = self._by_loop.get(loop)
            if client is None:
                client = self._by_loop[loop] = self._next()
        return client

    def node_of(self, key: str) -> str:
        """Return the server that has *key*, as ``host:port``, as far as the client knows it."""
        client = self.first
        if hasattr(client, "get_node_from_key"):
            return _node_in_cluster(client, key)
        pool = getattr(client, "connection_pool", None)
        if pool is None:
            return type(client).__name__
        if hasattr(pool, "service_name"):
            return f"primary {pool.service_name!r}"
        known = pool.connection_kwargs
        return str(known.get("path") or f"{known.get('host')}:{known.get('port')}")

    async def close(self) -> None:
        """Close the client of this event loop, if *make* made it; others are not ours to close."""
        if self._make is None:
            return
        client = self._by_loop.get(asyncio.get_running_loop())
        if client is not None:
            await client.aclose()

    def _next(self) -> _Client:
        if not self._by_loop:
            return self.first
        if self._make is not None:
            self._forget(lambda loop: loop.is_closed())
            return self._make()
        # A client that was handed in goes along, as redis-py lets it, where that disturbs nobody.
        self._forget(lambda loop: not loop.is_running())
        if self._by_loop:
            raise RuntimeError(
                "the client of this storage is in use in another event loop: use "
                "RedisStorage.from_url(...), which has one for each, or a storage for each loop"
            )
        return self.first

    def _forget(self, is_over: Callable[[asyncio.AbstractEventLoop], bool]) -> None:
        self._by_loop = {
            loop: client for loop, client in self._by_loop.items() if not is_over(loop)
        }


def _node_in_cluster(client: _Client, key: str) -> str:
    try:
        return str(client.get_node_from_key(key).name)
    except Exception:  # noqa: BLE001 - the client has not asked its cluster yet
        return "cluster"
