"""What a handler can have done to its session."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp_session
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from aiosess import SESSION, CookieOptions, Session, SessionGone, Storage, StorageUnavailable
from aiosess.testing import FaultyStorage, put_session
from tests.web.conftest import Connect
from tests.web.handlers import (
    cookies_set,
    keep,
    kept,
    put,
    session_of,
    show,
    signed,
    views,
)


async def login(request: web.Request) -> web.Response:
    session = await session_of(request)
    old = session.id
    await session.renew_id()
    session["user"] = "Bob"
    return web.json_response({"old": old, "new": session.id})


# save


async def test_save_writes_at_once(connect: Connect, storage: Storage) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["n"] = 1
        answer = await session.save()
        return web.json_response([answer, await kept(storage, session.id)])

    client = await connect(handler)

    response = await client.get("/handler")

    assert await response.json() == [True, {"n": 1}]


async def test_what_save_wrote_is_not_written_again(
    connect: Connect, faulty: FaultyStorage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["n"] = session.get("n", 0) + 1
        await session.save()
        return web.Response()

    client = await connect(handler, storage=faulty)

    await client.get("/handler")
    await client.get("/handler")

    assert faulty.calls == ["create", "load", "replace"]


async def test_what_changes_after_save_is_written_at_the_end(
    connect: Connect, storage: Storage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["cart"] = cart = ["a"]
        await session.save()
        cart.append("b")
        session["n"] = 1
        return web.Response(text=session.id)

    client = await connect(handler)

    session_id = await (await client.get("/handler")).text()

    assert await kept(storage, session_id) == {"cart": ["a", "b"], "n": 1}


async def test_save_tells_that_the_record_went_and_does_not_bring_it_back(
    connect: Connect, storage: Storage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["n"] = 1
        await storage.delete("apple")
        return web.json_response(await session.save())

    await keep(storage, "apple")
    client = await connect(handler, forgets=True)

    response = await client.get("/handler", headers=signed("apple"))

    assert await response.json() is False
    assert await storage.load("apple") is None
    assert cookies_set(response)[0].startswith("sid=; Max-Age=0;")


async def test_save_raises_where_the_storage_does_not_answer(
    connect: Connect, faulty: FaultyStorage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["n"] = 1
        with pytest.raises(StorageUnavailable):
            await session.save()
        return web.Response(text="told")

    client = await connect(handler, storage=faulty)
    faulty.fail()

    response = await client.get("/handler")

    assert await response.text() == "told"


# reload and rollback


async def test_reload_reads_what_others_wrote_and_forgets_what_this_request_did(
    connect: Connect, storage: Storage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["mine"] = "lost"
        session["cart"].append("lost")
        stored = await storage.load("apple")
        assert stored is not None
        newer = stored.payload.replace(b'"theirs": 0', b'"theirs": 1')
        await storage.replace("apple", newer, 60, expected=stored.version)
        await session.reload()
        return web.json_response(dict(session))

    await keep(storage, "apple", theirs=0, cart=["a"])
    client = await connect(handler, forgets=True)

    response = await client.get("/handler", headers=signed("apple"))

    assert await response.json() == {"theirs": 1, "cart": ["a"]}
    assert await kept(storage, "apple") == {"theirs": 1, "cart": ["a"]}


async def reload_quietly(request: web.Request) -> web.Response:
    """Reload, take the loss, and go on."""
    session = await session_of(request)
    with pytest.raises(SessionGone):
        await session.reload()
    session["n"] = 1
    return web.Response(text=session.id)


async def test_reload_of_a_record_that_went_raises_and_clears_the_cookie(
    connect: Connect, storage: Storage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        await session_of(request)
        await storage.delete("apple")
        return await reload_quietly(request)

    await keep(storage, "apple")
    client = await connect(handler, forgets=True)

    response = await client.get("/handler", headers=signed("apple"))

    assert await storage.load("apple") is None
    assert cookies_set(response)[0].startswith("sid=; Max-Age=0;")


async def test_reload_of_a_new_session_raises_and_what_is_put_in_afterwards_is_kept(
    connect: Connect, storage: Storage
) -> None:
    client = await connect(reload_quietly)

    response = await client.get("/reload_quietly")

    assert await kept(storage, await response.text()) == {"n": 1}
    assert len(cookies_set(response)) == 1


async def test_a_reload_that_gets_no_answer_changes_neither_the_data_nor_the_cookie_nor_the_new_id(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.renew_id()
        session["n"] = 1
        session.cookie.max_age = 60
        faulty.fail(times=1, verbs=("load",))
        with pytest.raises(StorageUnavailable):
            await session.reload()
        return web.Response(text=session.id)

    await keep(storage, "apple", fruit="apple")
    client = await connect(handler, storage=faulty, forgets=True)

    response = await client.get("/handler", headers=signed("apple"))

    assert await response.text() != "apple"
    assert await kept(storage, await response.text()) == {"fruit": "apple", "n": 1}
    assert "; Max-Age=60;" in cookies_set(response)[0]


async def test_rollback_forgets_data_cookie_and_id(connect: Connect, storage: Storage) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["n"] = 2
        session["cart"].append("b")
        session.cookie.max_age = 60
        await session.renew_id()
        session["more"] = True
        session.rollback()
        return web.json_response([session.id, dict(session), session.cookie.max_age])

    await keep(storage, "apple", n=1, cart=["a"])
    client = await connect(handler, forgets=True)

    response = await client.get("/handler", headers=signed("apple"))

    assert await response.json() == ["apple", {"n": 1, "cart": ["a"]}, None]
    assert await kept(storage, "apple") == {"n": 1, "cart": ["a"]}
    assert cookies_set(response) == []


# touch


async def test_touch_extends_the_record_at_once(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response(await (await session_of(request)).touch())

    await keep(storage, "apple", ttl=0.5)
    client = await connect(handler, storage=faulty, forgets=True)

    response = await client.get("/handler", headers=signed("apple"))
    await asyncio.sleep(0.6)

    assert await response.json() is True
    # The second load finds out whether the id was renewed meanwhile.
    assert faulty.calls == ["load", "touch", "load"]
    assert await storage.load("apple") is not None


async def test_touch_tells_that_the_record_went(connect: Connect, storage: Storage) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        await storage.delete("apple")
        return web.json_response(await session.touch())

    await keep(storage, "apple")
    client = await connect(handler, forgets=True)

    response = await client.get("/handler", headers=signed("apple"))

    assert await response.json() is False
    assert cookies_set(response)[0].startswith("sid=; Max-Age=0;")


async def test_touch_tells_that_the_session_lives_on_under_another_id(connect: Connect) -> None:
    async def hold(request: web.Request) -> web.Response:
        session = await session_of(request)
        await client.get("/renew")
        return web.json_response([await session.touch() for _ in range(2)])

    async def renew(request: web.Request) -> web.Response:
        await (await session_of(request)).renew_id()
        return web.Response()

    client = await connect(put, hold, renew)
    await client.get("/put?n=1")

    assert await (await client.get("/hold")).json() == [False, False]


async def test_touch_of_a_new_session_creates_nothing(
    connect: Connect, faulty: FaultyStorage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response(await (await session_of(request)).touch())

    client = await connect(handler, storage=faulty)

    response = await client.get("/handler")

    assert await response.json() is True
    assert faulty.calls == []


# destroy


async def destroy(request: web.Request) -> web.Response:
    session = await session_of(request)
    await session.destroy()
    return web.json_response(dict(session))


@pytest.mark.asvs("7.4.1")
@pytest.mark.nist("5.1-3", "5.1-e")
async def test_destroy_deletes_the_record_and_clears_the_cookie(
    connect: Connect, storage: Storage
) -> None:
    cookie = CookieOptions(path="/destroy", domain="example.org", samesite="strict", priority="low")
    await keep(storage, "apple", n=1)
    client = await connect(destroy, cookie=cookie, forgets=True)

    response = await client.get("/destroy", headers=signed("apple"))

    assert await response.json() == {}
    assert await storage.load("apple") is None
    assert cookies_set(response)[0] == (
        "sid=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/destroy; "
        "Domain=example.org; HttpOnly; Priority=Low; SameSite=Strict"
    )


@pytest.mark.asvs("7.4.1")
@pytest.mark.nist("5.1-3")
async def test_after_destroy_the_next_request_begins_anew(connect: Connect) -> None:
    client = await connect(views, destroy)

    counts = [await (await client.get(p)).json() for p in ("/views", "/destroy", "/views")]

    assert counts == [1, {}, 1]


async def test_a_destroyed_session_cannot_be_used(connect: Connect, storage: Storage) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.destroy()
        await session.destroy()
        with pytest.raises(SessionGone, match="regenerate"):
            session["n"] = 1
        with pytest.raises(SessionGone):
            await session.save()
        return web.Response(text="refused")

    await keep(storage, "apple")
    client = await connect(handler, forgets=True)

    response = await client.get("/handler", headers=signed("apple"))

    assert await response.text() == "refused"
    assert await storage.load("apple") is None


async def test_destroy_of_a_session_that_was_never_sent_sets_no_cookie(
    connect: Connect, faulty: FaultyStorage
) -> None:
    client = await connect(destroy, storage=faulty)

    response = await client.get("/destroy")

    assert faulty.calls == []
    assert cookies_set(response) == []


@pytest.mark.asvs("7.4.1")
@pytest.mark.nist("5.1-3")
async def test_a_session_destroyed_by_another_request_stays_destroyed(
    connect: Connect, storage: Storage
) -> None:
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        session = await session_of(request)
        inside.set()
        await go_on.wait()
        session["slow"] = True
        return web.Response()

    await keep(storage, "apple")
    client = await connect(slow, destroy, forgets=True)
    task = asyncio.create_task(client.get("/slow", headers=signed("apple")))
    await inside.wait()

    await client.get("/destroy", headers=signed("apple"))
    go_on.set()
    response = await task

    assert response.status == 200
    assert await storage.load("apple") is None
    assert cookies_set(response)[0].startswith("sid=; Max-Age=0;")


# regenerate and renew_id


@pytest.mark.asvs("7.2.4")
async def test_regenerate_starts_over_under_a_new_id(connect: Connect, storage: Storage) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.regenerate()
        found = dict(session)
        session["fresh"] = True
        return web.json_response([session.id, found])

    await keep(storage, "apple", n=1)
    client = await connect(handler, forgets=True)

    response = await client.get("/handler", headers=signed("apple"))

    new_id, found = await response.json()
    assert found == {}
    assert new_id != "apple"
    assert await storage.load("apple") is None
    assert await kept(storage, new_id) == {"fresh": True}
    assert len(cookies_set(response)) == 1


async def test_regenerate_without_new_data_leaves_neither_record_nor_cookie(
    connect: Connect, storage: Storage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.regenerate()
        return web.Response(text=session.id)

    await keep(storage, "apple", n=1)
    client = await connect(handler, forgets=True)

    response = await client.get("/handler", headers=signed("apple"))

    assert await storage.load("apple") is None
    assert await storage.load(await response.text()) is None
    assert cookies_set(response)[0].startswith("sid=; Max-Age=0;")


async def test_regenerate_ends_the_old_session_even_where_the_new_one_cannot_be_kept(
    connect: Connect, storage: Storage, faulty: FaultyStorage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.regenerate()
        session["fresh"] = True
        return web.Response()

    await keep(storage, "apple", n=1)
    client = await connect(handler, storage=faulty, forgets=True)
    faulty.fail(verbs=("create",))

    response = await client.get("/handler", headers=signed("apple"))

    assert await kept(storage, "apple") is None
    assert cookies_set(response) == []


@pytest.mark.asvs("7.2.4")
@pytest.mark.nist("5.1-b", "5.1-d", "5.1-1")
async def test_renew_id_keeps_the_data_under_a_new_id(connect: Connect, storage: Storage) -> None:
    client = await connect(views, login)
    await client.get("/views")

    response = await client.get("/login")

    ids = await response.json()
    assert ids["new"] != ids["old"]
    assert await kept(storage, ids["new"]) == {"views": 1, "user": "Bob"}
    assert len(cookies_set(response)) == 1


async def rotate(request: web.Request) -> web.Response:
    session = await session_of(request)
    old = session.id
    await session.rotate_id()
    session["rotated"] = True
    return web.json_response({"old": old, "new": session.id})


@pytest.mark.nist("5.1-b")
async def test_an_id_that_was_rotated_leads_to_the_session_without_the_new_cookie(
    connect: Connect, storage: Storage
) -> None:
    await keep(storage, "apple", n=1)
    client = await connect(rotate, show, rolling=True, forgets=True)
    new_id = (await (await client.get("/rotate", headers=signed("apple"))).json())["new"]

    response = await client.get("/show", headers=signed("apple"))

    assert (await response.json())["data"] == {"n": 1, "rotated": True}
    assert (await response.json())["id"] == new_id
    assert cookies_set(response) == []


async def test_who_logs_in_with_an_id_from_before_a_login_gets_a_session_of_their_own(
    connect: Connect, storage: Storage
) -> None:
    await keep(storage, "apple", n=1)
    client = await connect(login, forgets=True)
    renewed_id = (await (await client.get("/login", headers=signed("apple"))).json())["new"]

    response = await client.get("/login", headers=signed("apple"))

    own_id = (await response.json())["new"]
    assert own_id not in {renewed_id, "apple"}
    assert len(cookies_set(response)) == 1
    # What was there before the login, as everybody could see it who had the old id.
    assert await kept(storage, own_id) == {"n": 1, "user": "Bob"}
    assert await kept(storage, renewed_id) == {"n": 1, "user": "Bob"}


@pytest.mark.asvs("7.2.4")
async def test_a_login_with_an_old_id_never_reaches_who_renewed_it(
    connect: Connect, storage: Storage
) -> None:
    async def renew(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.renew_id()
        return web.Response(text=session.id)

    await keep(storage, "planted", n=1)
    client = await connect(renew, login, forgets=True)
    attackers_id = await (await client.get("/renew", headers=signed("planted"))).text()

    await client.get("/login", headers=signed("planted"))

    assert await kept(storage, attackers_id) == {"n": 1}


async def test_a_rolling_cookie_does_not_put_an_id_back_that_was_renewed_meanwhile(
    connect: Connect, storage: Storage
) -> None:
    has_begun, may_end = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        await session_of(request)
        has_begun.set()
        await may_end.wait()
        return web.Response()

    await keep(storage, "apple", n=1)
    client = await connect(slow, login, rolling=True, forgets=True)

    pending = asyncio.ensure_future(client.get("/slow", headers=signed("apple")))
    await has_begun.wait()
    await client.get("/login", headers=signed("apple"))
    may_end.set()

    assert cookies_set(await pending) == []


@pytest.mark.asvs("7.4.1")
async def test_a_logout_that_began_before_a_rotation_ends_the_session(
    connect: Connect, storage: Storage
) -> None:
    has_begun, may_end = asyncio.Event(), asyncio.Event()

    async def logout(request: web.Request) -> web.Response:
        session = await session_of(request)
        has_begun.set()
        await may_end.wait()
        await session.destroy()
        return web.Response()

    await keep(storage, "apple", n=1)
    client = await connect(logout, rotate, forgets=True)

    pending = asyncio.ensure_future(client.get("/logout", headers=signed("apple")))
    await has_begun.wait()
    new_id = (await (await client.get("/rotate", headers=signed("apple"))).json())["new"]
    may_end.set()
    await pending

    assert await storage.load(new_id) is None


async def test_after_the_grace_period_the_old_id_is_refused(
    connect: Connect, storage: Storage
) -> None:
    await keep(storage, "apple", n=1)
    client = await connect(rotate, show, renew_grace=0.05, forgets=True)
    await client.get("/rotate", headers=signed("apple"))
    await asyncio.sleep(0.1)

    response = await client.get("/show", headers=signed("apple"))

    assert (await response.json())["data"] == {}


async def test_a_change_that_was_under_way_during_a_rotation_is_kept(
    connect: Connect, storage: Storage
) -> None:
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        session = await session_of(request)
        inside.set()
        await go_on.wait()
        session["slow"] = True
        return web.Response()

    await keep(storage, "apple", n=1)
    client = await connect(slow, rotate, forgets=True)
    task = asyncio.create_task(client.get("/slow", headers=signed("apple")))
    await inside.wait()

    new_id = (await (await client.get("/rotate", headers=signed("apple"))).json())["new"]
    go_on.set()
    await task

    assert await kept(storage, new_id) == {"n": 1, "rotated": True, "slow": True}


async def test_renewing_the_id_of_a_new_session_is_harmless(
    connect: Connect, storage: Storage
) -> None:
    client = await connect(login, show)

    ids = await (await client.get("/login")).json()
    found = await (await client.get("/show")).json()

    assert found == {"id": ids["new"], "new": False, "data": {"user": "Bob"}}


# atomic


async def increment(request: web.Request) -> web.Response:
    def one_more(session: Session) -> int:
        session["n"] = session.get("n", 0) + 1
        return int(session["n"])

    return web.json_response(await (await session_of(request)).atomic(one_more))


async def test_atomic_counts_right_under_load(connect: Connect, storage: Storage) -> None:
    await keep(storage, "apple")
    client = await connect(increment, forgets=True)

    responses = await asyncio.gather(
        *(client.get("/increment", headers=signed("apple")) for _ in range(50))
    )

    assert sorted([await response.json() for response in responses]) == list(range(1, 51))
    assert await kept(storage, "apple") == {"n": 50}


async def test_atomic_on_a_new_session_is_saved_at_the_end(connect: Connect) -> None:
    client = await connect(increment)

    counts = [await (await client.get("/increment")).json() for _ in range(2)]

    assert counts == [1, 2]


async def test_atomic_leaves_what_else_the_handler_changed_for_the_end(
    connect: Connect, storage: Storage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        (await session_of(request))["mine"] = 1
        await increment(request)
        return web.json_response(await kept(storage, "apple"))

    await keep(storage, "apple")
    client = await connect(handler, forgets=True)

    response = await client.get("/handler", headers=signed("apple"))

    assert await response.json() == {"n": 1}
    assert await kept(storage, "apple") == {"n": 1, "mine": 1}


async def test_atomic_after_a_renewal_works_under_the_new_id(
    connect: Connect, storage: Storage
) -> None:
    async def renew_and_count(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.renew_id()
        await increment(request)
        return web.Response(text=session.id)

    await keep(storage, "apple", n=1)
    client = await connect(renew_and_count, forgets=True)

    response = await client.get("/renew_and_count", headers=signed("apple"))

    assert await response.text() != "apple"
    assert await kept(storage, await response.text()) == {"n": 2}
    assert len(cookies_set(response)) == 1


async def test_a_container_in_hand_stays_part_of_the_session_after_atomic(
    connect: Connect, storage: Storage
) -> None:
    def add_two(newest: Session) -> None:
        newest["cart"].append(2)

    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        cart = session["cart"]
        await session.atomic(add_two)
        cart.append(3)
        return web.json_response(session.id)

    async def shop(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["cart"] = [1]
        return web.Response()

    client = await connect(handler, shop)
    await client.get("/shop")

    response = await client.get("/handler")

    assert await kept(storage, await response.json()) == {"cart": [1, 2, 3]}


async def test_atomic_refuses_a_function_that_returns_a_coroutine(connect: Connect) -> None:
    async def wait() -> None: ...

    def change(_newest: Session) -> object:
        return wait()

    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        with pytest.raises(TypeError, match="plain function"):
            await session.atomic(change)
        return web.Response()

    client = await connect(handler)

    response = await client.get("/handler")

    assert response.status == 200


async def test_invalidate_inside_atomic_deletes_the_record(
    connect: Connect, storage: Storage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.atomic(lambda newest: newest.invalidate())
        return web.json_response(session.id)

    client = await connect(handler, put)
    await client.get("/put?n=1")

    response = await client.get("/handler")

    assert await storage.load(await response.json()) is None


async def test_a_creation_that_got_no_answer_can_be_saved_again(
    connect: Connect, faulty: FaultyStorage, storage: Storage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["n"] = 1
        faulty.fail(times=1, lose_answer=True)
        with pytest.raises(StorageUnavailable):
            await session.save()
        session["n"] = 2
        return web.json_response(session.id)

    client = await connect(handler, storage=faulty)

    response = await client.get("/handler")

    assert await kept(storage, await response.json()) == {"n": 2}


async def test_atomic_on_a_record_that_went_raises_and_clears_the_cookie(
    connect: Connect, storage: Storage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        await storage.delete("apple")
        with pytest.raises(SessionGone):
            await session.atomic(lambda newest: newest.update(n=1))
        return web.Response(text="gone")

    await keep(storage, "apple")
    client = await connect(handler, forgets=True)

    response = await client.get("/handler", headers=signed("apple"))

    assert await response.text() == "gone"
    assert cookies_set(response)[0].startswith("sid=; Max-Age=0;")


async def test_atomic_refuses_a_coroutine_function(connect: Connect) -> None:
    async def change(session: Session) -> None:
        session["n"] = 1

    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        with pytest.raises(TypeError, match="plain function"):
            await session.atomic(change)  # type: ignore[unused-coroutine]
        return web.Response(text="refused")

    client = await connect(handler)

    response = await client.get("/handler")

    assert await response.text() == "refused"


# The members of aiohttp_session.Session.


async def test_the_session_is_one_of_aiohttp_session(connect: Connect) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        is_one = isinstance(session, aiohttp_session.Session)
        return web.json_response([is_one, session.new, session.identity, session.empty])

    client = await connect(handler)

    response = await client.get("/handler")

    assert await response.json() == [True, True, None, True]


async def test_created_stays_what_it_was_when_the_session_began(connect: Connect) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["n"] = session.get("n", 0) + 1
        return web.json_response(session.created)

    client = await connect(handler)
    before = int(time.time())

    first = await (await client.get("/handler")).json()
    await asyncio.sleep(1.1)
    second = await (await client.get("/handler")).json()

    assert before <= first <= before + 1
    assert second == first


async def test_invalidate_deletes_record_and_cookie(connect: Connect, storage: Storage) -> None:
    async def handler(request: web.Request) -> web.Response:
        (await session_of(request)).invalidate()
        return web.Response()

    await keep(storage, "apple", n=1)
    client = await connect(handler, forgets=True)

    response = await client.get("/handler", headers=signed("apple"))

    assert await storage.load("apple") is None
    assert cookies_set(response)[0].startswith("sid=; Max-Age=0;")


async def test_invalidate_keeps_what_is_put_in_afterwards(
    connect: Connect, storage: Storage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session.invalidate()
        session["fresh"] = True
        return web.Response()

    await keep(storage, "apple", n=1)
    client = await connect(handler, forgets=True)

    await client.get("/handler", headers=signed("apple"))

    assert await kept(storage, "apple") == {"fresh": True}


async def test_invalidate_after_a_renewal_leaves_no_record_under_either_id(
    connect: Connect, storage: Storage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.renew_id()
        session.invalidate()
        return web.Response(text=session.id)

    await keep(storage, "apple", n=1)
    client = await connect(handler, forgets=True)

    response = await client.get("/handler", headers=signed("apple"))

    assert await storage.load("apple") is None
    assert await storage.load(await response.text()) is None
    assert cookies_set(response)[0].startswith("sid=; Max-Age=0;")


async def test_data_put_in_after_a_renewal_and_invalidate_are_all_that_is_kept(
    connect: Connect, storage: Storage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.renew_id()
        session.invalidate()
        session["fresh"] = True
        return web.Response(text=session.id)

    await keep(storage, "apple", n=1)
    client = await connect(handler, forgets=True)

    response = await client.get("/handler", headers=signed("apple"))

    assert await storage.load("apple") is None
    assert await kept(storage, await response.text()) == {"fresh": True}


async def test_a_new_session_can_be_given_an_identity(connect: Connect, storage: Storage) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session.set_new_identity("chosen")
        session["n"] = 1
        return web.Response()

    client = await connect(handler, show)
    await client.get("/handler")

    found = await (await client.get("/show")).json()

    assert found["id"] == "chosen"
    assert await kept(storage, "chosen") == {"n": 1}


async def test_a_session_that_is_kept_cannot_be_given_another_identity(
    connect: Connect, storage: Storage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        with pytest.raises(RuntimeError, match="not new"):
            (await session_of(request)).set_new_identity("chosen")
        return web.Response(text="refused")

    await keep(storage, "apple")
    client = await connect(handler, forgets=True)

    response = await client.get("/handler", headers=signed("apple"))

    assert await response.text() == "refused"


@pytest.mark.parametrize("key", ["cookie", "__aiosess"])
async def test_keys_of_the_record_itself_are_refused(connect: Connect, key: str) -> None:
    async def handler(request: web.Request) -> web.Response:
        with pytest.raises(ValueError, match="use another key"):
            (await session_of(request))[key] = 1
        return web.Response(text="refused")

    client = await connect(handler)

    response = await client.get("/handler")

    assert await response.text() == "refused"


async def test_keys_that_are_no_str_are_refused(connect: Connect) -> None:
    async def handler(request: web.Request) -> web.Response:
        session: Any = await session_of(request)
        with pytest.raises(TypeError, match="use '1'"):
            session[1] = 1
        return web.Response(text="refused")

    client = await connect(handler)

    response = await client.get("/handler")

    assert await response.text() == "refused"


# The cookie of one session.


async def test_max_age_of_one_session_makes_its_cookie_persistent_for_good(
    connect: Connect,
) -> None:
    async def remember_me(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["user"] = "Bob"
        session.max_age = 30 * 86400
        return web.Response()

    client = await connect(remember_me, views)

    first = await client.get("/remember_me")
    second = await client.get("/views")

    assert "; Max-Age=2592000; Expires=" in cookies_set(first)[0]
    assert "; Max-Age=2592000; Expires=" in cookies_set(second)[0]


async def test_max_age_of_one_session_is_how_long_its_record_lives(
    connect: Connect, storage: Storage, until_expired: float
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session.cookie.max_age = timedelta(seconds=0.1)
        session["n"] = 1
        return web.Response(text=session.id)

    client = await connect(handler)

    session_id = await (await client.get("/handler")).text()
    await asyncio.sleep(until_expired)

    assert await storage.load(session_id) is None


async def test_max_age_of_one_session_can_be_taken_back(connect: Connect) -> None:
    async def forget_me(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["n"] = 1
        session.max_age = None
        return web.Response()

    client = await connect(forget_me, show, cookie=CookieOptions(max_age=60), rolling=True)

    await client.get("/forget_me")
    response = await client.get("/show")

    assert "Max-Age" not in cookies_set(response)[0]


async def test_each_attribute_can_be_set_for_one_session(connect: Connect) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["n"] = 1
        session.cookie.httponly = False
        session.cookie.samesite = "strict"
        session.cookie.path = "/handler"
        session.cookie.domain = "example.org"
        session.cookie.priority = "high"
        session.cookie.expires = datetime(2101, 1, 2, 3, 4, 5, tzinfo=UTC)
        return web.Response()

    client = await connect(handler, absolute_timeout=None)

    response = await client.get("/handler")

    attributes = cookies_set(response)[0].split("; ")[2:]
    assert attributes == [
        "Expires=Sun, 02 Jan 2101 03:04:05 GMT",
        "Path=/handler",
        "Domain=example.org",
        "Priority=High",
        "SameSite=Strict",
    ]


async def test_attributes_of_one_session_are_kept_with_it(connect: Connect) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["n"] = 1
        session.cookie.samesite = "strict"
        return web.Response()

    client = await connect(handler, show, rolling=True)
    await client.get("/handler")

    response = await client.get("/show")

    assert cookies_set(response)[0].endswith("; SameSite=Strict")


async def test_an_attribute_that_changes_reaches_the_browser(
    connect: Connect, storage: Storage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        (await session_of(request)).cookie.samesite = "strict"
        return web.Response()

    await keep(storage, "apple")
    client = await connect(handler, forgets=True)

    response = await client.get("/handler", headers=signed("apple"))

    assert cookies_set(response)[0].endswith("; SameSite=Strict")


async def test_two_browsers_do_not_share_objects(connect: Connect) -> None:
    client = await connect(put, show, forgets=True)
    first = await (await client.get("/put?fruit=apple")).text()
    second = await (await client.get("/put?fruit=pear")).text()

    found = [
        (await (await client.get("/show", headers=signed(session_id))).json())["data"]
        for session_id in (first, second)
    ]

    assert found == [{"fruit": "apple"}, {"fruit": "pear"}]


# As somebody writes it who comes from Express.


async def test_an_attribute_that_is_no_member_is_an_error_at_its_line(connect: Connect) -> None:
    async def handler(request: web.Request) -> web.Response:
        session: Any = await session_of(request)
        with pytest.raises(AttributeError) as error:
            session.user = "alice"
        return web.Response(text=str(error.value))

    client = await connect(handler)

    text = await (await client.get("/handler")).text()

    assert text == "session.user = ... would not be kept: write session['user'] = ..."


@pytest.mark.parametrize("is_changed", [False, True])
async def test_a_dict_in_the_place_of_the_session_is_an_error_with_the_way_out(
    connect: Connect, storage: Storage, caplog: pytest.LogCaptureFixture, *, is_changed: bool
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        if is_changed:
            session["n"] = 2
        replaced: Any = {"n": 3}
        request[SESSION] = replaced
        return web.Response()

    await keep(storage, "apple", n=1)
    client = await connect(handler, forgets=True)

    response = await client.get("/handler", headers=signed("apple"))

    assert response.status == 500
    assert await kept(storage, "apple") == {"n": 1}
    assert "request[SESSION] was set to a dict, which is not kept" in caplog.text


async def test_the_session_of_another_request_is_not_kept_in_the_place_of_ones_own(
    connect: Connect, storage: Storage
) -> None:
    async def mix_up(request: web.Request) -> web.Response:
        (await session_of(request))["n"] = 2
        request[SESSION] = put_session(make_mocked_request("GET", "/"), {"n": 3})
        return web.Response()

    await keep(storage, "apple", n=1)
    client = await connect(show, mix_up, forgets=True)
    await client.get("/show", headers=signed("apple"))

    await client.get("/mix_up", headers=signed("apple"))

    assert await kept(storage, "apple") == {"n": 1}
