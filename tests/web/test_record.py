"""What requests make of records that are another's, too large, or by a newer version."""

from __future__ import annotations

import json
import logging

import pytest
from aiohttp import web

from aiosess import Reason, RecordTooLarge, SessionEvent, Storage, Stored
from aiosess.records.format import RESERVED_KEY, decode_value, mark_of
from aiosess.testing import FakeClock, FaultyStorage
from tests.web.conftest import Connect
from tests.web.handlers import kept, put, session_of, show, signed, views


async def reserved(storage: Storage, session_id: str) -> dict[str, object]:
    """Return what aiosess remembers of a session, beside its data."""
    stored = await storage.load(session_id)
    assert stored is not None
    meta: dict[str, object] = decode_value(stored.payload)[RESERVED_KEY]
    return meta


async def copy(storage: Storage, session_id: str, copied_to: str) -> None:
    """Copy a record as Node code does that keeps a session at a login: the old one is gone."""
    stored = await storage.load(session_id)
    assert stored is not None
    await storage.delete(session_id)
    await storage.create(copied_to, stored.payload, 60)


async def write_as_newer(storage: Storage, session_id: str) -> None:
    """Let a newer version of aiosess remember more of a session."""
    stored = await storage.load(session_id)
    assert stored is not None
    content = decode_value(stored.payload)
    content[RESERVED_KEY] = {"later": [1], **content[RESERVED_KEY]}
    payload = json.dumps(content, separators=(",", ":")).encode()
    await storage.replace(session_id, payload, 60, expected=stored.version)


async def test_a_record_holds_the_mark_of_its_id(connect: Connect, storage: Storage) -> None:
    client = await connect(put)

    session_id = await (await client.get("/put?a=1")).text()
    await client.get("/put?a=2")

    assert (await reserved(storage, session_id))["mark"] == mark_of(session_id)


async def test_a_session_that_was_copied_under_another_id_goes_on(
    connect: Connect, storage: Storage
) -> None:
    client = await connect(put, show, forgets=True)
    session_id = await (await client.get("/put?a=1")).text()
    await copy(storage, session_id, "copy")

    shown = await (await client.get("/show", headers=signed("copy"))).json()

    assert (shown["id"], shown["data"]) == ("copy", {"a": "1"})


async def test_a_session_that_was_copied_gets_its_own_mark_with_the_next_write(
    connect: Connect, storage: Storage
) -> None:
    client = await connect(put, show, forgets=True)
    session_id = await (await client.get("/put?a=1")).text()
    await copy(storage, session_id, "copy")

    await client.get("/show", headers=signed("copy"))
    between = (await reserved(storage, "copy"))["mark"]
    await client.get("/put?b=2", headers=signed("copy"))

    assert between == mark_of(session_id)
    assert (await reserved(storage, "copy"))["mark"] == mark_of("copy")
    assert await kept(storage, "copy") == {"a": "1", "b": "2"}


@pytest.mark.one_lane("a listener takes the whole way")
async def test_a_session_that_was_copied_is_told_of_once(
    connect: Connect, storage: Storage
) -> None:
    heard: list[SessionEvent] = []
    client = await connect(put, show, forgets=True, on_event=heard.append)
    session_id = await (await client.get("/put?a=1")).text()
    await copy(storage, session_id, "copy")

    for _ in range(3):
        await client.get("/show", headers=signed("copy"))

    told = [each for each in heard if each.reason is Reason.RECORD_COPIED]
    assert [(each.kind, each.reason.level) for each in told] == [("session", logging.INFO)]


class Confused(FaultyStorage):
    """A storage whose next answer about one record is another one's."""

    answer: Stored | None = None

    async def load(self, session_id: str) -> Stored | None:
        answer, self.answer = self.answer, None
        return answer or await super().load(session_id)


async def test_the_record_of_another_session_is_not_shown(
    connect: Connect, storage: Storage, caplog: pytest.LogCaptureFixture, clock: FakeClock
) -> None:
    confused = Confused(storage)
    client = await connect(put, show, forgets=True, storage=confused, clock=clock)
    ann = await (await client.get("/put?name=Ann")).text()
    clock.advance(1)
    bob = await (await client.get("/put?name=Bob")).text()
    await client.get("/show", headers=signed(ann))
    confused.answer = await storage.load(bob)

    shown = await (await client.get("/show", headers=signed(ann))).json()

    assert shown["data"] == {"name": "Ann"}
    [line] = [each for each in caplog.records if "mixed up" in each.getMessage()]
    assert line.levelno == logging.ERROR


async def test_what_a_newer_version_remembers_survives_reads_and_writes(
    connect: Connect, storage: Storage
) -> None:
    client = await connect(put, show)
    session_id = await (await client.get("/put?a=1")).text()
    await write_as_newer(storage, session_id)

    await client.get("/show")
    await client.get("/put?b=2")
    await client.get("/put?c=3")

    assert (await reserved(storage, session_id))["later"] == [1]
    assert await kept(storage, session_id) == {"a": "1", "b": "2", "c": "3"}


async def test_what_a_newer_version_remembers_goes_along_to_a_new_id(
    connect: Connect, storage: Storage
) -> None:
    async def log_in(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.renew_id()
        return web.Response(text=session.id)

    client = await connect(put, log_in, show)
    await write_as_newer(storage, await (await client.get("/put?a=1")).text())

    session_id = await (await client.get("/log_in")).text()
    await client.get("/show")

    assert (await reserved(storage, session_id))["later"] == [1]


# How large a record may be.


async def fill(request: web.Request) -> web.Response:
    """Put a text of so many characters into the session."""
    session = await session_of(request)
    session["text"] = "x" * int(request.query["size"])
    return web.Response(text=session.id)


async def test_a_record_above_the_limit_is_an_error_and_the_one_before_stays(
    connect: Connect, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    client = await connect(fill, views, max_record_size=1000)
    session_id = await (await client.get("/fill?size=100")).text()

    response = await client.get("/fill?size=5000")

    assert response.status == 500
    assert await kept(storage, session_id) == {"text": "x" * 100}
    [error] = [each.exc_info[1] for each in caplog.records if each.exc_info]
    assert isinstance(error, RecordTooLarge)
    assert "xx" not in str(error)
    assert error.keys == (("text", 5009),)


async def test_a_session_goes_on_after_a_record_above_the_limit(connect: Connect) -> None:
    client = await connect(fill, views, max_record_size=1000)
    await client.get("/views")
    await client.get("/fill?size=5000")

    response = await client.get("/views")

    assert await response.json() == 2


async def test_a_handler_can_do_something_about_a_record_above_the_limit(connect: Connect) -> None:
    async def careful(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["text"] = "x" * 5000
        try:
            await session.save()
        except RecordTooLarge as error:
            session.rollback()
            return web.json_response([key for key, _ in error.keys])
        return web.Response()

    client = await connect(careful, views, max_record_size=1000)
    await client.get("/views")

    response = await client.get("/careful")

    assert await response.json() == ["text", "views"]


async def test_a_record_that_is_too_large_already_is_read_and_may_shrink(
    connect: Connect, storage: Storage
) -> None:
    session_id = await (await (await connect(fill)).get("/fill?size=5000")).text()
    client = await connect(fill, show, forgets=True, max_record_size=1000)

    shown = await (await client.get("/show", headers=signed(session_id))).json()
    response = await client.get("/fill?size=4000", headers=signed(session_id))

    assert len(shown["data"]["text"]) == 5000
    assert response.status == 200
    assert await kept(storage, session_id) == {"text": "x" * 4000}


async def test_by_default_a_record_has_a_million_bytes_at_the_most(connect: Connect) -> None:
    client = await connect(fill)

    statuses = [(await client.get(f"/fill?size={size}")).status for size in (999_000, 1_000_000)]

    assert statuses == [200, 500]
