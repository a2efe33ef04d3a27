"""Replies in the text protocol of memcached, and what is none."""

from __future__ import annotations

import asyncio
import re
from typing import Final

from aiosess.storages.memcached import MemcachedStorage
from tests.fuzz import virtual
from tests.fuzz.replies import IDS, PREFIX, Fake, Fault, Line, Script, payload, play, scripts
from tests.fuzz.target import Target

__all__ = ["TARGETS"]

_KEYS: Final = [(PREFIX + each).encode() for each in IDS]


def _value(key: bytes, kept: bytes, unique: bytes = b"1") -> bytes:
    return b"VALUE %b 0 %d %b\r\n%b\r\nEND\r\n" % (key, len(kept), unique, kept)


_PIECES: Final = (
    *(
        b"END\r\n",
        b"STORED\r\n",
        b"NOT_STORED\r\n",
        b"EXISTS\r\n",
        b"NOT_FOUND\r\n",
        b"TOUCHED\r\n",
    ),
    *(b"DELETED\r\n", b"ERROR\r\n", b"CLIENT_ERROR bad\r\n", b"CLIENT_ERROR unauthenticated\r\n"),
    *(b"SERVER_ERROR out of memory storing object\r\n", b"SERVER_ERROR object too large\r\n"),
    *(b"SERVER_ERROR object too large for cache\r\n", b"ERROR Too many open connections\r\n"),
    *(b"STAT a b\r\nEND\r\n", b"STAT a b\r\n", b"STAT\r\n", b"STAT a b\r\n" * 300, b"VALUE\r\n"),
    *(b"\r\n", b"\n", b"\r", b" ", b"A" * 3000, b"END", b"\xff\xfe\r\n", b"SERVER_ERROR \xff\r\n"),
    b"VALUE {key} 0 4\r\nabcd\r\nEND\r\n",
    b"VALUE {key} 0 4 7\r\nabcdefEND\r\n",
    b"VALUE {key} 0 4 7\r\nabcdEND\r\n\r\n\r\n",
    b"VALUE {key} 0 -4 7\r\nabcd\r\nEND\r\n",
    b"VALUE {key} 0 -40 7\r\n",
    b"VALUE {key} 0 -7 7\r\n",
    b"VALUE {key} 0 1_0 7\r\n0123456789\r\nEND\r\n",
    b"VALUE {key} 0 999999999999 7\r\n",
    b"VALUE {key} 0 " + b"9" * 1500 + b" 7\r\n",
    b"VALUE {key} 0 4 x\ny\r\nabcd\r\nEND\r\n",
    b"VALUE {key} 0 {size} \r\n{kept}\r\nEND\r\n",
    b"VALUE {key} 0 {size} -1\r\n{kept}\r\nEND\r\n",
    b"VALUE {key} 0 {size} 9 noreply\r\n{kept}\r\nEND\r\n",
    b"VALUE {key} 0 {size} x\ny\r\n{kept}\r\nEND\r\n",
    *(_value(key, payload(IDS[0], 0)) for key in _KEYS),
)


class _Memcached(Fake):
    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self._uniques = dict.fromkeys(_KEYS, 1)

    def storage(self, path: str) -> MemcachedStorage:
        return MemcachedStorage.from_url(f"unix://{path}", prefix=PREFIX)

    async def talk(self, reader: asyncio.StreamReader, line: Line) -> None:
        while True:
            command = (await reader.readuntil(b"\r\n"))[:-2].split(b" ")
            data = b""
            if command[0] in {b"add", b"cas"}:
                data = (await reader.readexactly(int(command[4]) + 2))[:-2]
            # Nothing that a server said comes back as a command of its own.
            assert all(re.fullmatch(rb"[!-~]+", word) for word in command), command
            assert command[0] in {b"add", b"cas", b"gets", b"touch", b"stats"}, command
            assert len(command) == {b"add": 5, b"cas": 6, b"gets": 2, b"touch": 3}.get(
                command[0], 2
            )
            key = command[1]
            fault = self._about(key, self.next())
            if command[0] == b"stats":
                await line.say(b"STAT item_size_max 1\r\nEND\r\n", b"END\r\n", fault)
                continue
            reply = self._reply(command, key, data)
            others = self._reply(command, self.other(key), data) if data == b"" else b"EXISTS\r\n"
            await line.say(reply, others, fault)

    def _about(self, key: bytes, fault: Fault) -> Fault:
        """Return *fault* with a piece that is about *key*."""
        kept = self.records.get(key, b"")
        piece = fault.piece.replace(b"{key}", key).replace(b"{kept}", kept)
        return fault._replace(piece=piece.replace(b"{size}", b"%d" % len(kept)))

    def _reply(self, command: list[bytes], key: bytes, data: bytes) -> bytes:
        if command[0] == b"gets":
            return _value(key, self.records[key], b"%d" % self._uniques[key])
        if command[0] == b"touch":
            return b"TOUCHED\r\n"
        if command[0] == b"add":
            return b"NOT_STORED\r\n"
        if command[5] != b"%d" % self._uniques[key]:
            return b"EXISTS\r\n"
        self._uniques[key] += 1
        self.write(key, data)
        return b"STORED\r\n"


def _check(script: Script) -> None:
    async def played() -> None:
        await play(_Memcached(script), script)

    virtual.run(played)


TARGETS: Final = [
    Target(name="memcached-replies", inputs=scripts(_PIECES), check=_check, few=100),
]
