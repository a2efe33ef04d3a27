"""What strangers may send: never a 500, never another's session, never an adopted id."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_aiohttp import AiohttpClient

from aiosess import Storage
from aiosess.testing import FaultyStorage
from aiosess.transports.signing import Signer
from tests.conftest import SECRET, MakeApp
from tests.web.conftest import Connect
from tests.web.handlers import keep, kept, put, show, signed

GOOD = Signer(SECRET).sign("apple").encode()
# aiohttp itself answers 400 to control bytes in a header.
NOISE = random.Random(7).randbytes(600).translate(None, bytes([*range(32), 127]))

COOKIES = {
    "random bytes": NOISE,
    "non-ASCII": "sid=snow\u2603man".encode(),
    "Latin-1": b"sid=\xe9\xff\xfe",
    "only the name": b"sid",
    "an empty value": b"sid=",
    "equals signs": b"sid====;=;;=sid=",
    "quotes": b'sid="""; sid="s%3A',
    "percent signs": b"sid=%%%%; sid=s%3A%",
    "percent-encoded NULs": b"sid=s%3A%00%00.%00",
    "percent-encoded line breaks": b"sid=s%3Aa%0d%0aSet-Cookie:%20x=1.AAAA",
    "broken UTF-8": b"sid=s%3A%ff%fe." + b"A" * 43,
    "a non-ASCII signature": b"sid=s:apple." + "\u2603".encode() * 43,
    "a bare prefix": b"sid=s%3A",
    "an id with spaces": b"sid=s%3Ato be or not.AAAA",
    "many dots": b"sid=s%3A" + b"." * 500,
    "a signature with padding": GOOD.join([b"sid=", b"%3D"]),
    "something before the good value": b"sid=x" + GOOD,
    "something after the good value": b"sid=" + GOOD + b"x",
    "the good id in capitals": b"sid=" + GOOD.replace(b"apple", b"APPLE"),
    "hundreds of cookies of our name": b"; ".join(b"sid=s%%3A%d.x" % n for n in range(400)),
}


async def ask(client: TestClient[Any, Any], *headers: bytes, path: bytes = b"/put?mine=1") -> bytes:
    """Send *headers* byte by byte as they are, and return the whole answer."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    lines = [b"GET " + path + b" HTTP/1.1", b"Host: localhost", b"Connection: close", *headers]
    with contextlib.suppress(ConnectionError):
        writer.write(b"\r\n".join(lines) + b"\r\n\r\n")
        await writer.drain()
    answer = b""
    with contextlib.suppress(ConnectionError):
        answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return answer


def status(answer: bytes) -> int:
    """Return the status of an HTTP answer."""
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("cookie", COOKIES.values(), ids=COOKIES)
async def test_a_bad_cookie_is_a_new_browser_and_costs_no_load(
    connect: Connect, storage: Storage, faulty: FaultyStorage, cookie: bytes
) -> None:
    await keep(storage, "apple", secret="of somebody else")
    client = await connect(put, storage=faulty)

    answer = await ask(client, b"Cookie: " + cookie)

    assert status(answer) == 200
    assert faulty.calls == ["create"]
    assert await kept(storage, "apple") == {"secret": "of somebody else"}


@pytest.mark.parametrize("byte", [b"\x00", b"\x01", b"\x7f"], ids=repr)
async def test_a_control_byte_in_the_cookie_is_never_a_500(
    connect: Connect, faulty: FaultyStorage, byte: bytes
) -> None:
    client = await connect(put, storage=faulty)

    answer = await ask(client, b"Cookie: sid=" + byte + GOOD)

    assert status(answer) in {200, 400}
    assert "load" not in faulty.calls


async def test_a_thousand_cookies_of_our_name_in_many_headers_are_looked_through(
    connect: Connect, storage: Storage
) -> None:
    await keep(storage, "apple", fruit="apple")
    client = await connect(show)
    planted = b"Cookie: " + b"; ".join(b"sid=planted%d" % n for n in range(40))

    answer = await ask(client, *[planted] * 25, b"Cookie: sid=" + GOOD, path=b"/show")

    assert status(answer) == 200
    assert b'{"fruit": "apple"}' in answer


async def test_a_megabyte_of_cookie_is_refused_before_it_reaches_us(
    connect: Connect, faulty: FaultyStorage
) -> None:
    client = await connect(put, storage=faulty)

    answer = await ask(client, b"Cookie: sid=" + b"A" * 1_000_000)

    assert answer == b"" or status(answer) == 400
    assert faulty.calls == []


async def test_a_megabyte_of_cookie_is_a_new_browser_where_the_server_takes_it(
    make_app: MakeApp, aiohttp_client: AiohttpClient, faulty: FaultyStorage
) -> None:
    limits: Any = {"max_line_size": 2_000_000, "max_field_size": 2_000_000, "max_headers": 1000}
    server = TestServer(make_app(put, storage=faulty))
    await server.start_server(**limits)
    client: TestClient[Any, None] = await aiohttp_client(server)

    answer = await ask(client, b"Cookie: sid=s%3A" + b"A" * 1_000_000)

    assert status(answer) == 200
    assert faulty.calls == ["create"]


@pytest.mark.parametrize(
    "session_id",
    ["", " ", "a b", "\n", "\r\nSET x y", "\x00", "../../etc/passwd", "*", "sn\u2603w", "a" * 3000],
    ids=ascii,
)
async def test_a_well_signed_id_of_any_shape_is_never_a_500_and_never_adopted(
    connect: Connect, storage: Storage, session_id: str
) -> None:
    client = await connect(put, forgets=True)

    response = await client.get("/put?mine=1", headers=signed(session_id))

    assert response.status == 200
    assert await response.text() != session_id
    assert await kept(storage, await response.text()) == {"mine": "1"}


@pytest.mark.asvs("7.2.1")
async def test_an_answer_of_one_browser_never_holds_the_data_of_another(
    connect: Connect, storage: Storage
) -> None:
    await keep(storage, "apple", fruit="apple")
    await keep(storage, "pear", fruit="pear")
    client = await connect(show, forgets=True)

    async def fruit(session_id: str) -> str:
        response = await client.get("/show", headers=signed(session_id))
        return str((await response.json())["data"]["fruit"])

    asked = ["apple", "pear"] * 40
    answered = await asyncio.gather(*map(fruit, asked))

    assert answered == asked


@pytest.mark.asvs("7.2.1")
@given(value=st.binary(max_size=200))
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_bytes_but_our_own_pass_for_a_signature(value: bytes) -> None:
    text = value.decode("utf-8", "surrogateescape")

    found = Signer(SECRET).unsign(text)

    assert found is None
