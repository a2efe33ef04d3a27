"""Several tasks of one handler on one session: nothing is lost, nothing comes back to life."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from aiosess import Session, SessionGone, Storage, Version, get_session, setup
from aiosess.storages.redis import RedisStorage
from aiosess.testing import FaultyStorage
from tests.conftest import MakeOptions
from tests.servers import RedisServer
from tests.web.conftest import Connect
from tests.web.handlers import cookies_set, keep, kept, session_of, show, signed, views


async def test_what_is_changed_while_a_save_is_under_way_is_kept(
    connect: Connect, storage: Storage
) -> None:
    async def change_meanwhile(request: web.Request) -> web.Response:
        session = await session_of(request)
        cart = session["cart"]
        cart.append("early")
        saving = asyncio.create_task(session.save())
        await asyncio.sleep(0)
        cart.append("late")
        session["fruit"] = "pear"
        await saving
        return web.Response()

    await keep(storage, "apple", cart=[])
    client = await connect(change_meanwhile, forgets=True)

    await client.get("/change_meanwhile", headers=signed("apple"))

    assert await kept(storage, "apple") == {"cart": ["early", "late"], "fruit": "pear"}


async def test_tasks_of_a_websocket_that_save_at_once_each_keep_their_changes(
    connect: Connect, storage: Storage
) -> None:
    async def count(session: Session, task: str) -> None:
        for number in range(10):
            session[f"{task}{number}"] = number
            await session.save()

    async def socket(request: web.Request) -> web.WebSocketResponse:
        session = await session_of(request)
        response = web.WebSocketResponse()
        await response.prepare(request)
        await asyncio.gather(count(session, "a"), count(session, "b"), count(session, "c"))
        return response

    await keep(storage, "apple")
    client = await connect(socket, forgets=True)

    async with client.ws_connect("/socket", headers=signed("apple")) as connection:
        await connection.receive()
    data = await kept(storage, "apple")

    assert data == {f"{task}{number}": number for task in "abc" for number in range(10)}


async def test_two_tasks_may_save_a_new_session_at_once(connect: Connect) -> None:
    async def save_twice(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["n"] = 1
        return web.json_response(await asyncio.gather(session.save(), session.save()))

    client = await connect(save_twice, show)

    answers = await (await client.get("/save_twice")).json()
    found = await (await client.get("/show")).json()

    assert answers == [True, True]
    assert found["data"] == {"n": 1}


async def test_a_session_that_is_destroyed_while_it_is_saved_is_over(
    connect: Connect, storage: Storage
) -> None:
    async def destroy_meanwhile(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["n"] = 1
        saving = asyncio.create_task(session.save())
        await asyncio.sleep(0)
        await session.destroy()
        await saving
        return web.Response(text=session.id)

    client = await connect(destroy_meanwhile)

    response = await client.get("/destroy_meanwhile")

    assert await storage.load(await response.text()) is None
    assert not any(cookie.startswith("sid=s") for cookie in cookies_set(response))


async def test_a_counter_is_right_when_tasks_of_one_handler_count_at_once(
    connect: Connect, storage: Storage
) -> None:
    def one_more(session: Session) -> None:
        session["count"] = session.get("count", 0) + 1

    async def count(request: web.Request) -> web.Response:
        session = await session_of(request)
        await asyncio.gather(*(session.atomic(one_more) for _ in range(10)))
        return web.json_response(session["count"])

    await keep(storage, "apple")
    client = await connect(count, forgets=True)

    answer = await (await client.get("/count", headers=signed("apple"))).json()

    assert answer == 10
    assert await kept(storage, "apple") == {"count": 10}


async def test_an_id_that_is_renewed_while_the_session_is_saved_keeps_all(
    connect: Connect, storage: Storage
) -> None:
    async def renew_meanwhile(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["early"] = True
        saving = asyncio.create_task(session.save())
        await asyncio.sleep(0)
        await session.renew_id()
        session["late"] = True
        await saving
        return web.Response(text=session.id)

    await keep(storage, "apple", n=1)
    client = await connect(renew_meanwhile, forgets=True)

    response = await client.get("/renew_meanwhile", headers=signed("apple"))

    assert response.status == 200
    data = await kept(storage, await response.text())
    assert data == {"n": 1, "early": True, "late": True}


async def test_tasks_that_save_count_and_renew_at_once_lose_nothing(
    connect: Connect, storage: Storage
) -> None:
    async def save(session: Session) -> None:
        for number in range(5):
            session[f"n{number}"] = number
            await session.save()

    async def count(session: Session) -> None:
        for _ in range(5):
            await session.atomic(lambda newest: newest.update(count=newest.get("count", 0) + 1))

    async def all_at_once(request: web.Request) -> web.Response:
        session = await session_of(request)
        await asyncio.gather(save(session), count(session), session.renew_id())
        return web.Response(text=session.id)

    await keep(storage, "apple")
    client = await connect(all_at_once, forgets=True)

    response = await client.get("/all_at_once", headers=signed("apple"))
    data = await kept(storage, await response.text())

    assert data == {"count": 5, **{f"n{number}": number for number in range(5)}}


async def test_who_finds_the_record_gone_can_start_over(connect: Connect, storage: Storage) -> None:
    async def start_over(request: web.Request) -> web.Response:
        session = await session_of(request)
        await storage.delete(session.id)
        try:
            await session.reload()
        except SessionGone:
            await session.regenerate()
        session["begun"] = "anew"
        return web.Response(text=session.id)

    await keep(storage, "apple", n=1)
    client = await connect(start_over, forgets=True)

    response = await client.get("/start_over", headers=signed("apple"))
    session_id = await response.text()

    assert await kept(storage, session_id) == {"begun": "anew"}
    assert cookies_set(response)[0].startswith(f"sid=s%3A{session_id}.")
    assert await storage.load("apple") is None


async def test_a_new_session_whose_save_was_cancelled_halfway_can_be_saved_again(
    connect: Connect, own_redis_server: RedisServer
) -> None:
    async with RedisStorage.from_url(own_redis_server.url) as redis:

        async def save_in_haste(request: web.Request) -> web.Response:
            session = await session_of(request)
            session["n"] = 1
            await redis.load("a connection is there")
            own_redis_server.pause()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(session.save(), 0.05)
            own_redis_server.resume()
            # What was asked before is done before: then the record is there.
            await redis.load(session.id)
            session["n"] = 2
            return web.Response(text=session.id)

        client = await connect(save_in_haste, storage=redis)

        response = await client.get("/save_in_haste")

        assert response.status == 200
        assert await kept(redis, await response.text()) == {"n": 2}


class Slow(FaultyStorage):
    """A storage that takes its time to write, also in memory."""

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        await asyncio.sleep(0)
        return await super().replace(session_id, payload, ttl, expected=expected)


async def test_a_task_that_saves_all_the_time_lets_the_others_have_their_turn(
    connect: Connect, storage: Storage
) -> None:
    async def save_beside(request: web.Request) -> web.Response:
        session = await session_of(request)
        saves = 0

        async def save_all_the_time() -> None:
            nonlocal saves
            while saves < 1000:
                saves += 1
                session["saves"] = saves
                await session.save()

        saving = asyncio.create_task(save_all_the_time())
        await asyncio.sleep(0)
        await session.atomic(lambda newest: newest.update(fruit="pear"))
        seen = saves
        saving.cancel()
        await asyncio.wait([saving])
        return web.json_response(seen)

    await keep(storage, "apple")
    client = await connect(save_beside, storage=Slow(storage), forgets=True)

    response = await client.get("/save_beside", headers=signed("apple"))

    assert await response.json() < 10
    data = await kept(storage, "apple")
    assert data is not None
    assert data["fruit"] == "pear"


async def test_a_task_that_is_cancelled_in_the_queue_holds_up_nobody(
    connect: Connect, storage: Storage
) -> None:
    async def cancel_one(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["fruit"] = "pear"
        saves = [asyncio.create_task(session.save()) for _ in range(4)]
        await asyncio.sleep(0)
        saves[1].cancel()
        saves[2].cancel()
        await asyncio.wait(saves)
        return web.json_response([save.cancelled() for save in saves])

    await keep(storage, "apple")
    client = await connect(cancel_one, storage=Slow(storage), forgets=True)

    response = await client.get("/cancel_one", headers=signed("apple"))

    assert await response.json() == [False, True, True, False]
    assert await kept(storage, "apple") == {"fruit": "pear"}


async def test_what_is_changed_while_the_record_is_read_again_survives(
    connect: Connect, storage: Storage
) -> None:
    async def watch(session: Session, is_over: asyncio.Event) -> None:
        while not is_over.is_set():
            await session.reload()
            await asyncio.sleep(0)

    async def count(request: web.Request) -> web.Response:
        session = await session_of(request)
        is_over = asyncio.Event()
        watching = asyncio.create_task(watch(session, is_over))
        for _ in range(30):
            session["n"] = session.get("n", 0) + 1
            session.setdefault("list", []).append("x")
            await session.save()
            await asyncio.sleep(0)
        is_over.set()
        await watching
        return web.Response()

    await keep(storage, "apple")
    client = await connect(count, forgets=True)

    await client.get("/count", headers=signed("apple"))

    assert await kept(storage, "apple") == {"n": 30, "list": ["x"] * 30}


async def test_what_is_changed_while_a_reload_waits_for_its_turn_survives(
    connect: Connect, storage: Storage
) -> None:
    async def change_meanwhile(request: web.Request) -> web.Response:
        session = await session_of(request)
        saving = asyncio.create_task(session.save())
        reloading = asyncio.create_task(session.reload())
        await asyncio.sleep(0)
        session["fruit"] = "pear"
        await asyncio.gather(saving, reloading)
        return web.json_response(await session.save())

    await keep(storage, "apple", cart=[])
    client = await connect(change_meanwhile, forgets=True)

    await client.get("/change_meanwhile", headers=signed("apple"))

    assert await kept(storage, "apple") == {"cart": [], "fruit": "pear"}


async def test_what_was_changed_before_a_reload_that_waits_is_forgotten(
    connect: Connect, storage: Storage
) -> None:
    async def change_before(request: web.Request) -> web.Response:
        session = await session_of(request)
        first = asyncio.create_task(session.reload())
        await asyncio.sleep(0)
        session["fruit"] = "pear"
        await asyncio.gather(first, session.reload())
        return web.json_response(dict(session))

    await keep(storage, "apple", cart=[])
    client = await connect(change_before, forgets=True)

    response = await client.get("/change_before", headers=signed("apple"))

    assert await response.json() == {"cart": []}


async def test_a_task_that_counts_as_it_goes_loses_nothing_to_one_that_reloads(
    connect: Connect, storage: Storage
) -> None:
    async def watch(session: Session) -> None:
        while True:
            await session.reload()
            await asyncio.sleep(0)

    async def count(request: web.Request) -> web.Response:
        session = await session_of(request)
        watching = asyncio.create_task(watch(session))
        for _ in range(30):
            session["n"] = session.get("n", 0) + 1
            await session.save()
        watching.cancel()
        return web.Response()

    await keep(storage, "apple")
    client = await connect(count, forgets=True)

    await client.get("/count", headers=signed("apple"))

    assert await kept(storage, "apple") == {"n": 30}


async def test_a_list_in_somebodys_hands_stays_the_sessions_after_a_reload(
    connect: Connect, storage: Storage
) -> None:
    async def add(request: web.Request) -> web.Response:
        session = await session_of(request)
        lines = session["cart"]["lines"]
        await session.reload()
        lines.append("pear")
        await session.save()
        reloading = asyncio.create_task(session.reload())
        await asyncio.sleep(0)
        lines.append("plum")
        await reloading
        lines.append("fig")
        return web.Response()

    await keep(storage, "apple", cart={"lines": ["apple"]})
    client = await connect(add, forgets=True)

    await client.get("/add", headers=signed("apple"))

    lines = ["apple", "pear", "plum", "fig"]
    assert await kept(storage, "apple") == {"cart": {"lines": lines}}


# After the handler


async def test_what_a_task_changes_after_its_handler_has_failed_is_kept(
    connect: Connect, storage: Storage
) -> None:
    may_go_on = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def later(session: Session, _request: web.Request) -> None:
        await may_go_on.wait()
        session["late"] = True

    async def fail(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["early"] = True
        tasks.append(asyncio.create_task(later(session, request)))
        raise LookupError

    await keep(storage, "apple", n=1)
    client = await connect(fail, forgets=True)
    response = await client.get("/fail", headers=signed("apple"))
    may_go_on.set()
    await tasks[0]
    await client.server.close()

    assert response.status == 500
    assert await kept(storage, "apple") == {"n": 1, "late": True}


async def test_what_a_task_adds_to_a_list_after_the_response_is_kept(
    connect: Connect, storage: Storage
) -> None:
    may_go_on = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def later(session: Session, _request: web.Request) -> None:
        await may_go_on.wait()
        session["cart"].append("apple")

    async def answer(request: web.Request) -> web.Response:
        session = await session_of(request)
        tasks.append(asyncio.create_task(later(session, request)))
        return web.Response()

    await keep(storage, "apple", cart=["pear"])
    client = await connect(answer, forgets=True)
    await client.get("/answer", headers=signed("apple"))
    may_go_on.set()
    await tasks[0]
    await client.server.close()

    assert await kept(storage, "apple") == {"cart": ["pear", "apple"]}


# Turns


class Meeting(FaultyStorage):
    """A storage that takes its time, and says when it is asked to write."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self.is_writing = asyncio.Event()
        self.may_write = asyncio.Event()
        self.may_write.set()

    async def load(self, session_id: str) -> Any:
        await asyncio.sleep(0)
        return await super().load(session_id)

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        await self._meet()
        return await super().replace(session_id, payload, ttl, expected=expected)

    async def touch(self, session_id: str, ttl: float) -> bool:
        await self._meet()
        return await super().touch(session_id, ttl)

    async def _meet(self) -> None:
        self.is_writing.set()
        for _ in range(5):
            await asyncio.sleep(0)
        await self.may_write.wait()


async def test_two_tasks_that_ask_at_once_get_one_session(
    connect: Connect, storage: Storage
) -> None:
    async def twice(request: web.Request) -> web.Response:
        first, second = await asyncio.gather(get_session(request), get_session(request))
        return web.json_response(first is second)

    await keep(storage, "apple", n=1)
    meeting = Meeting(storage)
    client = await connect(show, twice, storage=meeting, forgets=True)
    await client.get("/show", headers=signed("apple"))
    meeting.calls.clear()

    response = await client.get("/twice", headers=signed("apple"))

    assert await response.json() is True
    assert meeting.calls.count("load") == 1


async def test_a_task_that_acts_while_the_session_is_kept_has_its_turn_afterwards(
    connect: Connect, storage: Storage
) -> None:
    meeting = Meeting(storage)
    tasks: list[asyncio.Task[bool]] = []

    async def touch(session: Session, _request: web.Request) -> bool:
        await meeting.is_writing.wait()
        return await session.touch()

    async def change(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["n"] = 2
        tasks.append(asyncio.create_task(touch(session, request)))
        await asyncio.sleep(0)
        return web.Response()

    await keep(storage, "apple", n=1)
    client = await connect(show, change, storage=meeting, forgets=True)
    await client.get("/show", headers=signed("apple"))
    meeting.calls.clear()
    meeting.is_writing.clear()

    await client.get("/change", headers=signed("apple"))

    assert await tasks[0]
    assert [each for each in meeting.calls if each != "load"] == ["replace", "touch"]
    assert await kept(storage, "apple") == {"n": 2}


async def test_a_logout_whose_client_goes_is_finished_by_itself(
    connect: Connect, storage: Storage
) -> None:
    meeting = Meeting(storage)

    async def hang_up(request: web.Request) -> web.Response:
        session = await session_of(request)
        meeting.may_write.clear()
        ending = asyncio.create_task(session.destroy())
        await meeting.is_writing.wait()
        ending.cancel()
        await asyncio.wait([ending])
        meeting.may_write.set()
        return web.json_response(ending.cancelled())

    await keep(storage, "apple", cart=["pear"])
    client = await connect(hang_up, storage=meeting, forgets=True, touch_after=60, timeout=30)

    response = await client.get("/hang_up", headers=signed("apple"))

    assert await response.json() is True
    await client.server.close()
    assert await storage.load("apple") is None


async def test_a_logout_that_nobody_waits_for_and_that_fails_is_told(
    connect: Connect, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    meeting = Meeting(storage)

    async def hang_up(request: web.Request) -> web.Response:
        session = await session_of(request)
        meeting.may_write.clear()
        ending = asyncio.create_task(session.destroy())
        await meeting.is_writing.wait()
        ending.cancel()
        await asyncio.wait([ending])
        meeting.fail()
        meeting.may_write.set()
        return web.Response()

    await keep(storage, "apple", cart=["pear"])
    client = await connect(hang_up, storage=meeting, forgets=True, touch_after=60, timeout=30)

    await client.get("/hang_up", headers=signed("apple"))
    await client.server.close()

    assert "the session that a cancelled request was ending may still be there" in caplog.text


async def look(request: web.Request) -> web.Response:
    session = await session_of(request)
    return web.json_response(len(session["cart"]))


@pytest.mark.parametrize(
    ("path", "views_kept"), [("/views", {"views": 2}), ("/look", {})], ids=["write", "touch"]
)
async def test_what_is_under_way_when_the_client_goes_is_finished_by_itself(
    path: str, views_kept: dict[str, int], make_options: MakeOptions, storage: Storage
) -> None:
    is_cancelled = asyncio.Event()

    @web.middleware
    async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except asyncio.CancelledError:
            is_cancelled.set()
            raise

    await keep(storage, "apple", cart=["pear"])
    meeting = Meeting(storage)
    app = web.Application(middlewares=[note])
    setup(app, make_options(storage=meeting, timeout=30, touch_after=0))
    app.router.add_get("/views", views)
    app.router.add_get("/look", look)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: localhost",
        f"Cookie: {signed('apple')['Cookie']}",
        "",
        "",
    ]
    request = "\r\n".join(lines).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
    writer.write(request)
    await reader.readuntil(b"\r\n\r\n1")
    meeting.is_writing.clear()
    meeting.may_write.clear()

    writer.write(request)
    await meeting.is_writing.wait()
    writer.close()
    await is_cancelled.wait()
    meeting.may_write.set()
    await runner.cleanup()

    assert await kept(storage, "apple") == {"cart": ["pear"], **views_kept}
