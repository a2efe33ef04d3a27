"""One connection to Redis for all requests of a process: what they ask in one tick goes together.

redis-py's pool gives each command a connection of its own, and each a write and a read. Here the
commands of all requests share one connection. Those of one tick of the event loop leave in one
write, and the answers, which Redis gives in order, are handed out as they come. redis-py still
makes the connection (URL, TLS, credentials, Sentinel) and lends it; hiredis reads the protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from asyncio import get_running_loop
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

from redis import exceptions
from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.connection import (
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.sentinel import (
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.credentials import StreamingCredentialProvider

from aiosess.clients.pipeline import STALL, Call, Pipeline, Wires, clock, hang_up, keep_alive
from aiosess.clients.redis_clients import Clients
from aiosess.clients.redis_urls import QuickSentinel, put_quickest_first
from aiosess.errors import StorageError, StorageUnavailable
from aiosess.timeouts import seconds

__all__ = [
    "ClientLine",
    "ClusterLine",
    "RedisLine",
    "ScriptUnknown",
    "connected",
    "in_words_of_a_storage",
    "line_of",
    "saying",
]

# redis-py leaves much of its connections untyped.
_Connection: TypeAlias = Any
_Pool: TypeAlias = Any
_Command: TypeAlias = tuple[str | bytes | int, ...]

try:
    import hiredis
except ImportError:
    _pack: Any = None
    _Reader: Any = None
    _Push: Any = ()
else:
    _pack = getattr(hiredis, "pack_command", None)
    _Reader = hiredis.Reader
    _Push = getattr(hiredis, "PushNotification", ())

_NOT_YET: Final = object()

# The time limit of a call in seconds, where neither the storage nor the client has one.
_PATIENCE: Final = 5.0
# A connection that is not made in so many seconds, or in the time limit of a call, is given up.
_CONNECT: Final = 2.0
# A connection that nobody used for so many seconds may have been cut by the server meanwhile.
_IDLE: Final = 0.01

# For so many seconds a cluster is asked who has a key, with so many between two questions.
_LOOK_FOR: Final = 10.0
_BETWEEN_LOOKS: Final = 0.25

# Of which class an answer is, where nobody looks.
_ANY: Final = frozenset[type]()

# Connections that are known to read and write as redis-py's do; one of the application's own
# class may not.
_SHAREABLE: Final = frozenset(
    {
        Connection,
        SSLConnection,
        UnixDomainSocketConnection,
        SentinelManagedConnection,
        SentinelManagedSSLConnection,
    }
)


# What Redis says when it does not do what it was asked: the class of redis-py's error, or words of
# the message. Before Redis 7, the word for an error inside a script stands somewhere in the middle.
# https://redis.io/docs/latest/develop/reference/protocol-spec/
_NOT_NOW: Final = frozenset({"ReadOnlyError", "TryAgainError", "ClusterDownError"})
_NOT_NOW_WORDS: Final = (
    "LOADING ",
    "BUSY ",
    "TRYAGAIN ",
    "CLUSTERDOWN ",
    "MASTERDOWN ",
    "READONLY ",
)
# What Envoy and twemproxy say when the server behind them gave no answer.
_NOT_REACHED: Final = frozenset(
    {
        "no upstream host",
        "upstream failure",
        "upstream protocol error",
        "Connection refused",
        "Connection reset by peer",
        "Connection timed out",
        "Operation timed out",
        "Host is down",
    }
)
# Trying again does not help until there is room, a disk or a replica.
_NOT_AS_IT_IS: Final = frozenset({"OutOfMemoryError"})
_NOT_AS_IT_IS_WORDS: Final = ("OOM ", "MISCONF ", "NOREPLICAS ")
# Nor until somebody mends the password or the rights.
_FORBIDDEN: Final = frozenset(
    {
        "AuthenticationError",
        "AuthorizationError",
        "AuthenticationWrongNumberOfArgsError",
        "NoPermissionError",
    }
)
_FORBIDDEN_WORDS: Final = (
    "NOPERM ",
    "NOAUTH ",
    "WRONGPASS ",
    "DENIED ",
    "ACL failure in script",
    "The user executing the script",
)

# What a node of a cluster says instead of doing what it was asked.
_NOT_DONE: Final = (
    exceptions.AskError,  # a MovedError too
    exceptions.TryAgainError,
    exceptions.ClusterDownError,  # a MasterDownError too
)


class ScriptUnknown(StorageUnavailable):
    """Redis was given the digest of a script that it does not have: send the script itself."""


def in_words_of_a_storage(error: Exception) -> Exception:
    """Return what *error*, of a client or the network, means to a caller of a storage.

    What is no answer of the server is StorageUnavailable, whatever its class. ScriptUnknown is
    for whoever ran the script and knows its text.
    """
    kinds, said = {kind.__name__ for kind in type(error).__mro__}, str(error)
    if _is_among(kinds, said, _FORBIDDEN, _FORBIDDEN_WORDS):
        name = type(error).__name__
        refused = f"redis refuses this user ({name}): see its password and its rights (ACL)"
        return _unavailable(refused, error, may_retry=False, is_answer=True)
    if "MasterNotFoundError" in kinds:
        return _without_primary(error)
    if "ResponseError" not in kinds:
        return _unavailable(f"redis did not answer: {_reason(error)}", error)
    if said in _NOT_REACHED:
        return _unavailable(f"redis did not answer the proxy before it: {said}", error)
    if "NoScriptError" in kinds:
        return _because(ScriptUnknown("redis does not know the script", is_answer=True), error)
    # Redis repeats the arguments of a command that it does not know: session id and payload.
    said, has_arguments, _ = said.partition(", with args beginning with")
    if has_arguments:
        return _because(StorageError(f"redis answered with an error: {said}"), None)
    if _is_among(kinds, said, _NOT_NOW, _NOT_NOW_WORDS):
        return _unavailable(f"redis is not ready: {said}", error, is_answer=True)
    if _is_among(kinds, said, _NOT_AS_IT_IS, _NOT_AS_IT_IS_WORDS):
        refused = f"redis refuses for now: {said}"
        return _unavailable(refused, error, may_retry=False, is_answer=True)
    return _because(StorageError(f"redis answered with an error: {said}"), error)


def _without_primary(error: Exception) -> StorageError:
    """Return what it means that no sentinel named a primary; what each of them said stays here."""
    said, _, each = str(error).partition(" : ")
    name = said.removeprefix("No master found for ")
    if "AuthenticationError" in each:
        refused = "the sentinels refuse this user: give sentinel_kwargs={'password': ...} of theirs"
        return _unavailable(refused, error, may_retry=False)
    why = "not all answer" if each else "see the name in the url, and whether that primary is well"
    return _unavailable(f"no sentinel names a primary for {name}: {why}", error)


def _is_read_only(error: Exception) -> bool:
    # Before Redis 7, an error inside a script has no class of its own.
    return isinstance(error, exceptions.ReadOnlyError) or "-READONLY " in str(error)


def _is_among(
    kinds: set[str], said: str, known: frozenset[str], known_words: tuple[str, ...]
) -> bool:
    return not kinds.isdisjoint(known) or any(words in said for words in known_words)


def _unavailable(
    said: str, cause: Exception, *, may_retry: bool = True, is_answer: bool = False
) -> StorageError:
    return _because(StorageUnavailable(said, may_retry=may_retry, is_answer=is_answer), cause)


def _reason(error: Exception) -> str:
    """Return the class of *error*, and what the system said of it, which holds no secret."""
    kind = type(error).__name__
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    said = cause.strerror if isinstance(cause, OSError) else None
    return f"{kind} ({said})" if said else kind


@contextlib.contextmanager
def saying(
    meaning: Callable[[Exception], Exception], *, but: tuple[type[Exception], ...] = ()
) -> Generator[None]:
    """Raise what *meaning* makes of an error, whatever it is; those in *but* stay."""
    try:
        yield
    except Exception as error:
        if isinstance(error, (StorageUnavailable, *but)):
            raise
        said = meaning(error)
        raise said from said.__cause__


def _because(error: StorageError, cause: Exception | None) -> StorageError:
    error.__cause__ = cause
    return error


def line_of(clients: Clients) -> RedisLine | ClusterLine | ClientLine:
    """Return a line over connections of *clients*, or their own where those cannot be shared."""
    own, client = ClientLine(clients), clients.first
    if _pack is None or not _is_lent() or "execute_command" in _overridden(client):
        return own
    if isinstance(client, RedisCluster):
        # Where replicas may answer, no one connection is that of a key.
        reads_elsewhere = client.read_from_replicas or client.load_balancing_strategy
        return own if reads_elsewhere else ClusterLine(clients)
    if not isinstance(client, Redis) or client.single_connection_client:
        return own
    pool = client.connection_pool
    if not isinstance(pool, ConnectionPool) or not _is_shareable(pool):
        return own
    return RedisLine(lambda: clients.here().connection_pool, patience=_patience_of(pool))


def _patience_of(pool: _Pool) -> float:
    limit = pool.connection_kwargs.get("socket_timeout") or _PATIENCE
    return seconds(limit, name="socket_timeout")


def _is_shareable(pool: _Pool) -> bool:
    credentials = pool.connection_kwargs.get("credential_provider")
    # New tokens reach a connection only when that comes back to its pool.
    return pool.connection_class in _SHAREABLE and not isinstance(
        credentials, StreamingCredentialProvider
    )


class RedisLine:
    """Sends the commands of many tasks over one connection of a pool, one for each event loop.

    *pool_here* returns the pool of the running loop. A call may be cancelled at any time, and
    nobody gets another's answer. When the connection is lost, every call that waits fails, and the
    next one connects anew. A call fails with what *meaning* makes of an error of redis-py or the
    network. *patience* is the time limit, in seconds, for callers that have none.
    """

    def __init__(
        self,
        pool_here: Callable[[], _Pool],
        *,
        patience: float = _PATIENCE,
        meaning: Callable[[Exception], Exception] = in_words_of_a_storage,
    ) -> None:
        self.meaning = meaning
        self.patience = patience
        self.wires: Wires[_Wire] = Wires()
        self._pool_here = pool_here

    def ask(self, command: _Command, timeout: float, fits: frozenset[type]) -> asyncio.Future[Any]:
        """Send *command* at the end of this tick.

        The future is its answer, strings as bytes, or an error; StorageUnavailable when Redis says
        nothing for *timeout* seconds. An answer of a class that is not among *fits* belongs to
        another command: the connection ends.
        """
        wire = self.wires.latest
        if wire is None or wire.is_over or wire.loop is not get_running_loop():
            wire = self._wire_here()
        return wire.ask(_pack(command), timeout, fits)

    async def ask_afresh(
        self, command: _Command, limit: float, agrees: Callable[[Any], bool]
    ) -> Any:
        """Send *command* on a connection that nobody else uses, and return its answer.

        Where *agrees* says that the shared connection answered something else, that one ends.
        """
        suspect = self.wires.here()
        with saying(self.meaning):
            answer = await _asked_alone(self._pool_here(), command, limit)
        if suspect is not None and not agrees(answer):
            suspect.end(_out_of_step())
        return answer

    def ask_again(self, calls: Sequence[Call]) -> None:
        """Let another connection do what the last one was asked and did not do."""
        self._wire_here().take(calls)

    async def close(self) -> None:
        """Give back the connection of this event loop, and those of closed ones.

        Calls that wait in this event loop fail.
        """
        for wire in self.wires.take():
            await wire.close()

    def _wire_here(self) -> _Wire:
        wire = self.wires.here()
        if wire is None:
            wire = _Wire(self, self._pool_here(), abandoned=self.wires.take_abandoned())
            self.wires.add(wire)
        return wire


class ClientLine:
    """Sends each command as the client does it by itself, over a connection of its pool."""

    # Without a time limit, that of the client counts.
    patience: Final = math.inf

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        # By the client of a cluster: what lets it find out who has a key now.
        self._looking: WeakKeyDictionary[Any, asyncio.Task[None]] = WeakKeyDictionary()

    async def ask(self, command: _Command, limit: float, _fits: frozenset[type] = _ANY) -> Any:
        """Send *command* and return its answer; raise its error in the words of a storage.

        StorageUnavailable when there is none after *limit* seconds.
        """
        client = self._clients.here()
        call = client.execute_command(*command, NEVER_DECODE=True)
        return await self._asked(client, command, call, limit)

    async def learn(self, client: Any, command: _Command, limit: float) -> None:
        """Let the *client* of a cluster find out which nodes there are, for all who ask at once.

        StorageUnavailable when none says so within *limit* seconds.
        """
        await self._asked(client, command, client.initialize(), limit)

    async def ask_afresh(
        self, command: _Command, limit: float, agrees: Callable[[Any], bool]
    ) -> Any:
        """Send *command* on a connection that nobody else uses, and return its answer.

        Where *agrees* says that a connection of the pool answered something else, those that are
        not in use are closed. A client that has no such pool is asked once more. Where it says
        something else then, that cannot be believed either: StorageUnavailable.
        """
        pool: _Pool = getattr(self._clients.here(), "connection_pool", None)
        if not hasattr(pool, "connection_class"):
            answer = await self.ask(command, limit)
            if not agrees(answer):
                raise StorageUnavailable("redis did not answer: its replies are mixed up")
            return answer
        answer = await self._in_time(_asked_alone(pool, command, math.inf), limit)
        if not agrees(answer):
            await pool.disconnect(inuse_connections=False)
        return answer

    async def _asked(
        self, client: Any, command: _Command, call: Coroutine[Any, Any, Any], limit: float
    ) -> Any:
        try:
            return await self._in_time(call, limit)
        except StorageUnavailable as error:
            if not error.is_answer and hasattr(client, "get_node_from_key"):
                self._look(client, _key_of(command))
            raise

    async def _in_time(self, call: Coroutine[Any, Any, Any], limit: float) -> Any:
        with saying(in_words_of_a_storage):
            return await (within(limit, call) if limit < math.inf else call)

    def _look(self, client: Any, key: str | bytes | int) -> None:
        """Let *client* find out who has *key* now, however long that takes it.

        A call that is given up is cancelled, and nothing is learnt from it.
        """
        looking = self._looking.get(client)
        if looking is None or looking.done():
            self._looking[client] = get_running_loop().create_task(_until_answered(client, key))

    async def close(self) -> None:
        """End what this event loop does in the background."""
        loop = get_running_loop()
        looking = [task for task in list(self._looking.values()) if task.get_loop() is loop]
        for task in looking:
            task.cancel()
        if looking:
            await asyncio.wait(looking)


async def _until_answered(client: Any, key: str | bytes | int) -> None:
    """Ask *client* about *key* until it has an answer, for some seconds at the most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LOOK_FOR):
            while True:
                try:
                    await client.execute_command("PTTL", key)
                except Exception:  # noqa: BLE001 - whatever it was, the next calls tell of it
                    await asyncio.sleep(_BETWEEN_LOOKS)
                else:
                    return


async def within(limit: float, call: Coroutine[Any, Any, Any]) -> Any:
    """Return what *call* returns; StorageUnavailable when it takes more than *limit* seconds.

    Redis' clients may take seconds to obey a cancellation, so that nobody waits for that.
    """
    loop = get_running_loop()
    task, due_at = loop.create_task(call), loop.time() + limit
    try:
        await asyncio.wait([task], timeout=limit)
        # While the event loop was busy, an answer may have come that nobody could read.
        stalled = loop.time() - due_at
        if not task.done() and stalled > STALL:
            await asyncio.wait([task], timeout=stalled)
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(_look_at)
    if not task.done():
        raise StorageUnavailable.after(limit)
    return task.result()


def _look_at(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


class ClusterLine:
    """Sends each command over the line of the node that has its key.

    redis-py knows which node that is. Where the key has moved, and after a connection was lost or
    a call given up, the cluster's client is asked instead. So what the node did not do is done,
    and the client learns which node has the key now.
    """

    def __init__(self, clients: Clients) -> None:
        self.patience: float = _patience_of(clients.first)
        self._clients = clients
        self._own = ClientLine(clients)
        # By the client that knows the node, and the node's name: those of a client go with it.
        self._lines: WeakKeyDictionary[Any, dict[str, tuple[Any, RedisLine | None]]]
        self._lines = WeakKeyDictionary()
        self._doubted: set[str] = set()

    async def ask(self, command: _Command, limit: float, fits: frozenset[type]) -> Any:
        """Send *command* and return its answer; raise its error in the words of a storage.

        StorageUnavailable when the node says nothing for *limit* seconds.
        """
        client = self._clients.here()
        node = _node_of(client, command)
        if node is None:
            # By itself, redis-py would make a connection for each call of a process that has just
            # started, and close them all where one of them fails.
            began = clock()
            await self._own.learn(client, command, limit)
            limit -= clock() - began
            node = _node_of(client, command)
        line = None if node is None else self._line_to(client, node)
        if node is None or line is None or node.name in self._doubted:
            answer = await self._own.ask(command, limit)
            if node is not None:
                self._doubted.discard(node.name)
            return answer
        try:
            return await line.ask(command, limit, fits)
        except _NOT_DONE:
            return await self._own.ask(command, limit)
        except StorageUnavailable:
            self._doubted.add(node.name)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, no caller should see it
            if not isinstance(error, exceptions.ResponseError):
                self._doubted.add(node.name)
            meaning = in_words_of_a_storage(error)
            raise meaning from meaning.__cause__
        except BaseException:
            self._doubted.add(node.name)
            raise

    async def ask_afresh(
        self, command: _Command, limit: float, agrees: Callable[[Any], bool]
    ) -> Any:
        """Send *command* on a connection that nobody else uses; see RedisLine."""
        client = self._clients.here()
        node = _node_of(client, command)
        line = None if node is None else self._line_to(client, node)
        if line is None:
            return await self._own.ask_afresh(command, limit, agrees)
        try:
            with saying(in_words_of_a_storage, but=_NOT_DONE):
                return await line.ask_afresh(command, limit, agrees)
        except _NOT_DONE:
            return await self._own.ask_afresh(command, limit, agrees)

    async def close(self) -> None:
        """Give back the connections of this event loop; calls that wait in it fail."""
        await self._own.close()
        for lines in list(self._lines.values()):
            for _, line in list(lines.values()):
                if line is not None:
                    await line.close()

    def _line_to(self, client: Any, node: Any) -> RedisLine | None:
        lines = self._lines.setdefault(client, {})
        known, line = lines.get(node.name, (None, None))
        # A node that left the cluster and came back is another one, with other connections.
        if known is not node:
            # Nodes of older redis-py keep their connections to themselves.
            can_lend = hasattr(node, "release") and _is_shareable(node)
            line = _line_to_node(node) if can_lend else None
            lines[node.name] = (node, line)
        return line


def _node_of(client: Any, command: _Command) -> Any:
    """Return the node that has the key of *command*; ``None`` when that is not known."""
    try:
        return client.get_node_from_key(_key_of(command))
    except exceptions.RedisClusterException:
        return None


def _key_of(command: _Command) -> str | bytes | int:
    return command[3] if command[0] in {"EVAL", "EVALSHA"} else command[1]


def _line_to_node(node: Any) -> RedisLine:
    pool = _NodePool(node)
    # What redis-py's errors are tells the cluster's line what to do next.
    return RedisLine(lambda: pool, meaning=lambda error: error)


class _NodePool:
    """The connections of one node of a cluster, as a pool has them."""

    def __init__(self, node: Any) -> None:
        self.connection_class: Any = node.connection_class
        self.connection_kwargs: dict[str, Any] = node.connection_kwargs
        self._node = node

    async def get_connection(self) -> _Connection:
        connection = self._node.acquire_connection()
        try:
            await connection.connect()
            if await _is_cut(connection):
                await connection.disconnect(nowait=True)
                await connection.connect()
        except BaseException:
            await self.release(connection)
            raise
        return connection

    async def release(self, connection: _Connection) -> None:
        self._node.release(connection)


class _Wire(Pipeline):
    """One connection, from the first call until it is lost; then another takes its place."""

    def __init__(self, line: RedisLine, pool: _Pool, *, abandoned: Sequence[_Wire]) -> None:
        super().__init__(get_running_loop())
        self._line = line
        self._pool = pool
        # Those of closed event loops: their places in the pool are to be had again.
        self._abandoned = abandoned
        self._connection: _Connection = None
        self._lender: asyncio.BaseProtocol | None = None
        self._reader: Any = None
        self._connecting: asyncio.Task[None] | None = None
        self._connect_timer: asyncio.TimerHandle | None = None
        # Giving back, and hearing what Redis says unasked.
        self._tasks: set[asyncio.Task[Any]] = set()
        self._may_be_cut = False

    async def close(self) -> None:
        if self.loop is get_running_loop():
            self._may_be_cut = False
            self.end(exceptions.ConnectionError("the storage was closed"))
            tasks = [task for task in (self._connecting, *self._tasks) if task is not None]
            if tasks:
                await asyncio.wait(tasks)
        elif self.loop.is_closed():
            hang_up(self.transport)
            await self._give_back()

    def send(self) -> None:
        if self.transport is None:
            if self._connecting is None and not self.is_over:
                self._connecting = asyncio.Task(self._connect(), loop=self.loop)
                limit = max([_CONNECT, *(timeout for _, _, _, timeout, _ in self._outbox[:1])])
                self._connect_by(limit, limit)
            return
        if not self.waiting and not self.is_over:
            self._may_be_cut = clock() - self.moved_at > _IDLE
            if self._is_to_be_replaced():
                self._may_be_cut = True
                self.end(exceptions.ConnectionError("the connection is to be replaced"))
        super().send()

    def data_received(self, data: bytes) -> None:
        if self.is_closed:
            return
        self.moved_at = clock()
        self._may_be_cut = False
        gets, waiting = self._reader.gets, self.waiting
        try:
            self._reader.feed(data)
            while (reply := gets(False)) is not _NOT_YET:
                if not waiting or reply.__class__ not in waiting[0][4]:
                    self._take_unusual(reply)
                    continue
                answer = waiting.popleft()[0]
                if not answer.done():
                    answer.set_result(reply)
        except Exception as error:  # noqa: BLE001 - whatever it was, no call may wait for ever
            # Also an answer that nobody asked for: it is doubtful then which belongs to whom.
            self.end(error)

    def connection_lost(self, exc: Exception | None) -> None:
        lost = exceptions.ConnectionError("the connection was lost")
        lost.__cause__ = exc
        self.end(lost)
        if self._lender is not None:
            # redis-py, or who asked it to disconnect, may be waiting for that.
            self._lender.connection_lost(exc)

    def ended(self, calls: Sequence[Call], error: BaseException) -> None:
        self._line.wires.discard(self)
        if self._connect_timer is not None:
            self._connect_timer.cancel()
        if self.transport is not None:
            # What a server that hangs has not taken yet goes, with what is in it.
            self.transport.abort()
        connecting = self._connecting
        if connecting is not None and connecting is not asyncio.current_task(self.loop):
            connecting.cancel()
        if self._connection is not None:
            self._begin(self._give_back())
        if self._may_be_cut and type(error) is exceptions.ConnectionError:
            # The server had cut the connection while nobody used it: that is no outage yet.
            if calls:
                self._line.ask_again(calls)
            return
        lost = _as_failure(error)
        for answer, *_ in calls:
            # One error each: an error that is raised twice collects both tracebacks.
            answer.set_exception(self._line.meaning(lost))

    def pass_on(self, calls: Sequence[Call]) -> None:
        self._line.ask_again(calls)

    async def _connect(self) -> None:
        try:
            abandoned, self._abandoned = self._abandoned, ()
            for wire in abandoned:
                await wire.close()
            await _prepare(self._pool)
            self._connection = connection = await self._pool.get_connection()
            # From here on what arrives is ours; redis-py has read the answers to what it asked.
            self._reader = _Reader(
                protocolError=exceptions.InvalidResponse,
                replyError=connection._parser.parse_error,  # noqa: SLF001 - no API lends a connection: see _is_lent()
                notEnoughData=_NOT_YET,
            )
            transport = connection._writer.transport  # noqa: SLF001 - no API lends a connection: see _is_lent()
            self._lender = transport.get_protocol()
            transport.set_protocol(self)
            if transport.is_closing():
                raise exceptions.ConnectionError("the connection was lost")
        except BaseException as error:
            self.end(error)
            if not isinstance(error, Exception):
                raise
            return
        if self._connect_timer is not None:
            self._connect_timer.cancel()
        keep_alive(transport)
        self.moved_at = clock()
        self.transport = transport
        self.send()

    def _connect_by(self, left: float, limit: float) -> None:
        due_at = self.loop.time() + left
        self._connect_timer = self.loop.call_at(due_at, self._give_up_connecting, due_at, limit)

    def _give_up_connecting(self, due_at: float, limit: float) -> None:
        stalled = self.loop.time() - due_at
        if stalled > STALL:
            # The event loop was busy: nothing was done for the connection meanwhile.
            self._connect_by(stalled, limit)
            return
        calls, self._outbox = [call for call in self._outbox if not call[0].done()], []
        self.end(TimeoutError(f"the connection was not made within {limit:g} s"))
        if calls:
            # Nothing of it was sent, and who asked just now has time left.
            self._line.ask_again(calls)

    def _is_to_be_replaced(self) -> bool:
        """Ask whether redis-py was told so by the server; before 7.0, it did not listen."""
        asks = getattr(self._connection, "should_reconnect", None)
        return asks is not None and asks()

    def _take_unusual(self, reply: Any) -> None:
        """Hear what was said unasked, and give an error to the call that it answers.

        Raise an error of redis-py that says of the connection that it is of no use.
        """
        if isinstance(reply, _Push):
            self._begin(self._hear(reply))
            return
        if not isinstance(reply, Exception):
            raise _out_of_step()
        # The primary was demoted, and the sentinel knows the new one.
        is_demoted = _is_read_only(reply) and isinstance(
            self._connection, SentinelManagedConnection
        )
        if is_demoted or not isinstance(reply, exceptions.ResponseError):
            raise reply
        answer = self.waiting.popleft()[0]
        if not answer.done():
            answer.set_exception(self._line.meaning(reply))

    async def _hear(self, push: Any) -> None:
        """Tell redis-py what Redis said unasked: the connection may have to be replaced."""
        parser = self._connection._parser  # noqa: SLF001 - no API lends a connection: see _is_lent()
        if not hasattr(parser, "handle_push_response"):
            return
        try:
            await parser.handle_push_response(push)
        except Exception as error:  # noqa: BLE001 - what redis-py does not understand
            self.end(error)

    def _begin(self, act: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.Task(act, loop=self.loop)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _give_back(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        # RuntimeError: the connection's event loop is closed. KeyError: the pool was reset.
        with contextlib.suppress(exceptions.RedisError, OSError, RuntimeError):
            await connection.disconnect(nowait=True)
        with contextlib.suppress(exceptions.RedisError, OSError, RuntimeError, KeyError):
            await self._pool.release(connection)


async def _asked_alone(pool: _Pool, command: _Command, limit: float) -> Any:
    """Return the answer to *command* on a new connection, as those of *pool* are made.

    It is none of the pool, which may have no room left. StorageUnavailable after *limit* seconds.
    """

    async def asked() -> Any:
        connection = await connected(pool)
        try:
            await connection.send_command(*command)
            return await connection.read_response(disable_decoding=True)
        finally:
            await connection.disconnect(nowait=True)

    return await (within(limit, asked()) if limit < math.inf else asked())


async def connected(pool: _Pool, **other: Any) -> _Connection:
    """Return a new connection, as those of *pool* are made but for what is *other*; it is none."""
    await _prepare(pool)
    connection = pool.connection_class(**{**pool.connection_kwargs, **other})
    try:
        await connection.connect()
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection


def _out_of_step() -> Exception:
    """Return the error for a connection of which it is doubtful which answer belongs to whom."""
    return exceptions.InvalidResponse("an answer belongs to another command")


async def _prepare(pool: _Pool) -> None:
    """Let a sentinel that hangs be asked last; those of a URL see to it themselves."""
    sentinel = getattr(pool, "sentinel_manager", None)
    if sentinel is not None and not isinstance(sentinel, QuickSentinel):
        await put_quickest_first(sentinel, pool.service_name)


def _as_failure(error: BaseException) -> Exception:
    if isinstance(error, Exception):
        return error
    lost = exceptions.ConnectionError(f"the connection was lost: {type(error).__name__}")
    lost.__cause__ = error
    return lost


def _is_lent() -> bool:
    """Ask whether connections of this redis-py can be lent; how is not a part of its API."""
    connection = Connection()
    return hasattr(connection, "_writer") and hasattr(connection, "_parser")


async def _is_cut(connection: _Connection) -> bool:
    """Ask whether the server closed the connection, is about to, or sent what nobody asked for."""
    try:
        if hasattr(connection, "can_read"):
            return connection.should_reconnect() or bool(await connection.can_read())
        # Before redis-py 8.
        return bool(await connection.can_read_destructive())
    except (exceptions.RedisError, OSError):
        return True


def _overridden(client: Redis | RedisCluster) -> set[str]:
    """Return the names that the client's class and its parents define on top of redis-py's."""
    own = [kind for kind in type(client).__mro__ if kind.__module__.partition(".")[0] != "redis"]
    return {name for kind in own for name in vars(kind)}
