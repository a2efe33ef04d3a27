"""Replies in the protocol of Redis, and what is none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import hiredis

from aiosess.storages import redis as ours
from aiosess.storages.redis import RedisStorage
from tests.fuzz import virtual
from tests.fuzz.replies import IDS, PREFIX, Fake, Line, Script, payload, play, scripts
from tests.fuzz.target import Target

__all__ = ["TARGETS"]

_NIL: Final = b"$-1\r\n"
_GREETING: Final = frozenset({b"HELLO", b"CLIENT", b"AUTH", b"SELECT", b"PING", b"COMMAND"})


def _bulk(value: bytes | None) -> bytes:
    return _NIL if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


_PIECES: Final = (
    *(b"+OK\r\n", b":1\r\n", b":0\r\n", b":7\r\n", _NIL, b"*-1\r\n", b"*0\r\n", b"_\r\n"),
    *(
        b"*1\r\n:1\r\n",
        b"*1\r\n$-1\r\n",
        b"*2\r\n:1\r\n:1\r\n",
        b"*2\r\n*0\r\n*0\r\n",
        b"*1\r\n*0\r\n",
    ),
    *(
        b"*2\r\n$1\r\na\r\n-ERR no\r\n",
        b"*2\r\n-ERR no\r\n:1\r\n",
        b"*3\r\n$1\r\na\r\n:1\r\n:1\r\n",
    ),
    *(
        b"#t\r\n",
        b",1.5\r\n",
        b",nan\r\n",
        b"(12345678901234567890123\r\n",
        b"(x\r\n",
        b"~1\r\n:1\r\n",
    ),
    *(b"%1\r\n+a\r\n+b\r\n", b">2\r\n+a\r\n+b\r\n", b">1\r\n$10\r\ninvalidate\r\n", b">0\r\n"),
    *(b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n", b"=15\r\ntxt:Some string\r\n"),
    *(
        b"|1\r\n+a\r\n+b\r\n",
        b"$5\r\nab",
        b"$-2\r\n",
        b"$999999999999\r\n",
        b"$x\r\n",
        b"$0\r\n\r\n",
    ),
    *(b"*1\r\n" * 50, b":99999999999999999999\r\n", b"\r\n", b"-\r\n", b":\r\n", b"$", b"*2\r\n$1"),
    *(
        b"-ERR no\r\n",
        b"-ERR \xff\xfe\r\n",
        b"-NOSCRIPT No matching script.\r\n",
        b"-LOADING x\r\n",
    ),
    *(
        b"-MOVED 1 127.0.0.1:1\r\n",
        b"-MOVED x\r\n",
        b"-ASK\r\n",
        b"-READONLY x\r\n",
        b"-NOAUTH x\r\n",
    ),
    *(b"-WRONGPASS x\r\n", b"-MISCONF x\r\n", b"-OOM x\r\n", b"-BUSY x\r\n", b"-TRYAGAIN x\r\n"),
    *(b"-CLUSTERDOWN x\r\n", b"-MASTERDOWN x\r\n", b"-ERR max number of clients reached\r\n"),
    *(b"-EXECABORT x\r\n", b"-NOREPLICAS x\r\n", b"-WRONGTYPE x\r\n", b"!3\r\nERR\r\n"),
    *map(_bulk, (payload(each, 0) for each in IDS)),
    *(b"*2\r\n%b:1\r\n" % _bulk(payload(each, 0)) for each in IDS),
    b"+%b\r\n" % payload(IDS[0], 0),
    b"*1\r\n%b" % _bulk(payload(IDS[1], 0)),
)


class _Redis(Fake):
    def __init__(self, script: Script, *, multiplex: bool) -> None:
        super().__init__(script)
        self._multiplex = multiplex

    def storage(self, path: str) -> RedisStorage:
        return RedisStorage.from_url(f"unix://{path}", prefix=PREFIX, multiplex=self._multiplex)

    async def talk(self, reader: asyncio.StreamReader, line: Line) -> None:
        commands = hiredis.Reader()
        while data := await reader.read(65536):
            commands.feed(data)
            while (command := commands.gets()) is not False:
                await self._answer(command, line)
        raise EOFError

    async def _answer(self, command: Any, line: Line) -> None:
        if command[0] in _GREETING:
            is_refused = b"MAINT_NOTIFICATIONS" in command
            reply = b"-ERR no\r\n" if is_refused else b"+OK\r\n"
            await line.greet(reply, self.next(is_greeting=True))
            return
        fault = self.next()
        is_script = command[0] in {b"EVALSHA", b"EVAL"}
        place = 3 if is_script else 1
        reply = self._reply(command, command[place])
        others = self._seen(command, self.other(command[place]))
        await line.say(reply, others, fault)

    def _seen(self, command: Any, key: bytes) -> bytes:
        """Return the reply about *key*, in whose place nothing is written."""
        if command[0] == b"GET":
            return _bulk(self.records[key])
        if command[0] in {b"EVALSHA", b"EVAL"} and command[1] in _LOADS:
            return b"*2\r\n%b:1\r\n" % _bulk(self.records[key])
        return _bulk(self.records[key]) if command[1] in _REPLACES else b":1\r\n"

    def _reply(self, command: Any, key: bytes) -> bytes:
        kept = self.records[key]
        if command[0] == b"SET":
            return _NIL
        if command[0] not in {b"EVALSHA", b"EVAL"} or command[1] not in _REPLACES:
            return self._seen(command, key)
        if ours._sha1(kept).hexdigest().encode() != command[4]:
            return _bulk(kept)
        self.write(key, command[5])
        return b":1\r\n"


_REPLACES: Final = frozenset({ours._REPLACE_SHA.encode(), ours._REPLACE.encode()})
_LOADS: Final = frozenset({ours._LOAD_AND_TOUCH_SHA.encode(), ours._LOAD_AND_TOUCH.encode()})


def _check(*, multiplex: bool) -> Callable[[Script], None]:
    def check(script: Script) -> None:
        async def played() -> None:
            await play(_Redis(script, multiplex=multiplex), script)

        virtual.run(played)

    return check


TARGETS: Final = [
    Target(name="redis-replies", inputs=scripts(_PIECES), check=_check(multiplex=True), few=60),
    Target(
        name="redis-replies-alone", inputs=scripts(_PIECES), check=_check(multiplex=False), few=40
    ),
]
