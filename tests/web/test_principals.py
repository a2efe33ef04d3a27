"""A session belongs to a principal: devices are listed, limited, and ended one by one or all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import unquote

import pytest
from aiohttp import DummyCookieJar, web
from aiohttp_session import SimpleCookieStorage
from pytest_aiohttp import AiohttpClient

from aiosess import (
    MemoryStorage,
    OptionsError,
    Reason,
    Session,
    SessionError,
    SessionEvent,
    SessionOptions,
    Storage,
    StorageUnavailable,
    TooManySessions,
    find_session,
    setup,
)
from aiosess.principals import Principals
from aiosess.records import bonding
from aiosess.records.format import Alias, encode_alias
from aiosess.records.indexes import key_of_label, key_of_principal
from aiosess.testing import FakeClock, FaultyStorage
from tests.conftest import MakeOptions
from tests.web.conftest import Client
from tests.web.handlers import cookies_set, session_of

ANN: Final = key_of_principal("ann")
HOUR: Final = 3600.0


class Site:
    """An application whose sessions belong to principals, and browsers that come to it."""

    def __init__(self, client: Client, principals: Principals) -> None:
        self.client = client
        self.principals = principals

    async def get(self, path: str, cookie: str | None = None) -> tuple[Any, str | None]:
        """Return the JSON answer, and the cookie that the browser has from here on."""
        headers = {} if cookie is None else {"Cookie": cookie}
        async with self.client.get(path, headers=headers) as response:
            answer = await response.json() if response.status == 200 else response.status
            told = cookies_set(response)
            if told:
                cookie = told[0].partition(";")[0]
                cookie = cookie if cookie.partition("=")[2] else None
            return answer, cookie

    async def log_in(self, principal: str = "ann", **query: str) -> str:
        """Return the cookie of a browser that has logged in."""
        terms = "&".join(f"{key}={value}" for key, value in query.items())
        _, anonymous = await self.get("/cart")
        answer, cookie = await self.get(f"/log_in?as={principal}&{terms}", anonymous)
        assert answer == principal
        assert cookie is not None
        return cookie

    async def who(self, cookie: str) -> str | None:
        """Return the principal of the session that *cookie* leads to."""
        (principal, _), _ = await self.get("/who", cookie)
        return None if principal is None else str(principal)

    async def handle(self, cookie: str) -> str | None:
        """Return the handle of the session that *cookie* leads to."""
        (_, handle), _ = await self.get("/who", cookie)
        return None if handle is None else str(handle)

    async def handles(self, principal: str = "ann") -> list[str]:
        """Return the handles of *principal*'s sessions."""
        return [info.handle for info in await self.principals.sessions_of(principal)]


async def cart(request: web.Request) -> web.Response:
    """Begin a session of nobody's."""
    (await session_of(request)).setdefault("cart", []).append("tea")
    return web.json_response([])


async def log_in(request: web.Request) -> web.Response:
    """Bind the session to whoever the query says."""
    session = await session_of(request)
    labels = {"oidc_sid": request.query["sid"]} if "sid" in request.query else None
    await session.bind(request.query["as"], label=request.query.get("label"), labels=labels)
    return web.json_response(session.principal)


async def who(request: web.Request) -> web.Response:
    """Answer whose the session is, and what it is called."""
    session = await find_session(request)
    found = (None, None) if session is None else (session.principal, session.handle)
    return web.json_response(found)


async def note(request: web.Request) -> web.Response:
    """Change the session."""
    session = await session_of(request)
    session["note"] = session.get("note", 0) + 1
    return web.json_response([session.principal, session.handle])


async def renew(request: web.Request) -> web.Response:
    """Take new ids, each in its way."""
    session = await session_of(request)
    way = {"renew": session.renew_id, "rotate": session.rotate_id, "prove": session.authenticated}
    await way[request.query["by"]]()
    return web.json_response([session.principal, session.handle])


async def unbind(request: web.Request) -> web.Response:
    session = await session_of(request)
    await session.unbind()
    return web.json_response([session.principal, session.handle, session.authenticated_at])


async def destroy(request: web.Request) -> web.Response:
    await (await session_of(request)).destroy()
    return web.json_response([])


async def regenerate(request: web.Request) -> web.Response:
    session = await session_of(request)
    await session.regenerate()
    session["cart"] = []
    return web.json_response([session.principal, session.handle])


async def invalidate(request: web.Request) -> web.Response:
    session = await session_of(request)
    session.invalidate()
    session["flash"] = "bye"
    return web.json_response([])


async def fail_after_login(request: web.Request) -> web.Response:
    await (await session_of(request)).bind("ann")
    raise RuntimeError("the handler failed")


HANDLERS: Final = (
    *(cart, log_in, who, note, renew, unbind, destroy, regenerate, invalidate, fail_after_login),
)

Serve = Callable[..., Awaitable[Site]]


@pytest.fixture
def serve(make_options: MakeOptions, aiohttp_client: AiohttpClient) -> Serve:
    """Serve the handlers above, and more, with options and limits as they are given."""

    async def serve(*handlers: Any, limits: dict[str, Any] | None = None, **options: Any) -> Site:
        given = make_options(idle_timeout=HOUR, **options)
        principals = Principals(given, **(limits or {}))
        app = web.Application()
        setup(app, given)
        for handler in (*HANDLERS, *handlers):
            app.router.add_get(f"/{handler.__name__}", handler)
        return Site(await aiohttp_client(app, cookie_jar=DummyCookieJar()), principals)

    return serve


@pytest.fixture(name="site")
async def usual_site(serve: Serve) -> Site:
    return await serve()


# Whose a session is.


async def test_a_login_says_whose_the_session_is_and_gives_it_a_handle(site: Site) -> None:
    cookie = await site.log_in()

    (principal, handle), _ = await site.get("/who", cookie)

    assert principal == "ann"
    assert len(handle) == 16
    assert handle not in cookie


async def test_a_login_gets_a_new_id_and_leaves_the_old_one_to_nobody(site: Site) -> None:
    _, anonymous = await site.get("/cart")
    assert anonymous is not None

    _, cookie = await site.get("/log_in?as=ann", anonymous)

    assert cookie != anonymous
    assert await site.who(anonymous) is None


async def test_a_session_that_begins_with_its_login_is_bound(site: Site) -> None:
    _, cookie = await site.get("/log_in?as=ann")

    assert cookie is not None
    assert await site.handles() == [await site.handle(cookie)]


@pytest.mark.parametrize("by", ["renew", "rotate", "prove"])
async def test_the_handle_stays_through_each_new_id(site: Site, by: str) -> None:
    cookie = await site.log_in()
    handle = await site.handle(cookie)

    _, newer = await site.get(f"/renew?by={by}", cookie)

    assert newer is not None
    assert newer != cookie
    assert await site.handle(newer) == handle
    assert await site.handles() == [handle]


async def test_a_second_login_of_the_same_principal_keeps_the_handle(site: Site) -> None:
    cookie = await site.log_in()
    handle = await site.handle(cookie)

    _, newer = await site.get("/log_in?as=ann&label=again", cookie)

    assert newer is not None
    assert await site.handle(newer) == handle
    assert [info.label for info in await site.principals.sessions_of("ann")] == ["again"]


async def test_a_login_of_another_principal_gets_another_handle(site: Site) -> None:
    cookie = await site.log_in()
    handle = await site.handle(cookie)

    _, newer = await site.get("/log_in?as=bob", cookie)

    assert newer is not None
    assert await site.handle(newer) != handle
    assert await site.handles() == []
    assert await site.handles("bob") == [await site.handle(newer)]


class Key(str):
    """A text of the application's, as those of many libraries are."""

    __slots__ = ()


@pytest.mark.parametrize("by_key", [False, True], ids=["bind", "key"])
async def test_a_principal_of_a_class_of_the_application_is_what_its_text_says(
    serve: Serve, *, by_key: bool
) -> None:
    async def log_in_by_class(request: web.Request) -> web.Response:
        session = await session_of(request)
        if by_key:
            session["user"] = Key("ann")
        else:
            await session.bind(Key("ann"))
        return web.json_response([])

    site = await serve(log_in_by_class, renew_on=["user"])

    _, cookie = await site.get("/log_in_by_class")

    assert cookie is not None
    assert await site.who(cookie) == "ann"
    assert await site.handles(Key("ann")) == [await site.handle(cookie)]


@pytest.mark.asvs("7.2.4")
async def test_a_new_id_is_not_given_to_who_comes_with_the_one_before_a_proof(site: Site) -> None:
    before = await site.log_in()
    _, cookie = await site.get("/renew?by=prove", before)

    _, after = await site.get("/renew?by=renew", before)

    assert cookie is not None
    assert after == before
    assert await site.handles() == [await site.handle(cookie)]


async def test_a_new_id_asked_for_by_one_that_was_rotated_away_loses_nothing(site: Site) -> None:
    before = await site.log_in()
    _, cookie = await site.get("/renew?by=rotate", before)

    _, after = await site.get("/renew?by=renew", before)

    assert cookie is not None
    assert after == before
    assert await site.get("/note", before) == (["ann", await site.handle(cookie)], before)


@pytest.mark.parametrize("first", ["rotate", "prove"])
async def test_a_proof_that_comes_with_the_id_before_is_a_session_of_the_same_principal(
    serve: Serve, first: str
) -> None:
    async def has_cart(request: web.Request) -> web.Response:
        return web.json_response((await session_of(request)).get("cart"))

    site = await serve(has_cart)
    before = await site.log_in(sid="s1")
    _, cookie = await site.get(f"/renew?by={first}", before)

    (principal, handle), after = await site.get("/renew?by=prove", before)

    assert cookie is not None
    assert after not in {before, cookie, None}
    assert principal == "ann"
    assert sorted(await site.handles()) == sorted([handle, str(await site.handle(cookie))])
    assert await site.get("/has_cart", after) == (["tea"], after)
    assert await site.principals.revoke_label("oidc_sid", "s1") == 2


@pytest.mark.asvs("7.5.2")
@pytest.mark.parametrize("way", ["prove", "bind"])
async def test_two_proofs_at_once_are_two_sessions_and_each_can_be_ended(
    serve: Serve, way: str
) -> None:
    has_begun, may_end = asyncio.Event(), asyncio.Event()

    async def proved_late(request: web.Request) -> web.Response:
        session = await session_of(request)
        has_begun.set()
        await may_end.wait()
        await (session.authenticated() if way == "prove" else session.bind("ann"))
        return web.json_response([])

    site = await serve(proved_late)
    before = await site.log_in()
    late = asyncio.create_task(site.get("/proved_late", before))
    await has_begun.wait()
    _, early = await site.get("/renew?by=prove", before)
    may_end.set()
    _, cookie = await late

    assert early is not None
    assert cookie is not None
    handles = [str(await site.handle(each)) for each in (early, cookie)]
    assert sorted(await site.handles()) == sorted(handles)
    assert await site.principals.end("ann", handles[1])
    assert [await site.who(each) for each in (early, cookie)] == ["ann", None]


async def test_a_session_that_is_unbound_is_nobodys_and_goes_on(site: Site) -> None:
    cookie = await site.log_in()

    said, newer = await site.get("/unbind", cookie)

    assert said == [None, None, None]
    assert newer is not None
    assert newer != cookie
    assert await site.who(newer) is None
    assert await site.handles() == []


async def test_unbinding_what_is_nobodys_changes_nothing(site: Site) -> None:
    _, cookie = await site.get("/cart")

    _, after = await site.get("/unbind", cookie)

    assert after == cookie


@pytest.mark.parametrize("way", ["destroy", "regenerate", "invalidate"])
async def test_a_session_that_ends_is_listed_no_more(
    site: Site, storage: Storage, way: str
) -> None:
    cookie = await site.log_in(sid="s1")

    await site.get(f"/{way}", cookie)

    assert await site.handles() == []
    await gone(storage, ANN)
    await gone(storage, key_of_label("oidc_sid", "s1"))


async def gone(storage: Storage, key: str) -> None:
    """Wait until the record under *key* has ended, whose time is over."""
    # memcached counts in whole seconds.
    for _ in range(80):
        if await storage.load(key) is None:
            return
        await asyncio.sleep(0.05)
    pytest.fail("the record is still there")


async def test_what_is_put_in_after_invalidate_is_nobodys(site: Site) -> None:
    cookie = await site.log_in()

    await site.get("/invalidate", cookie)

    assert await site.who(cookie) is None


async def test_a_bound_session_that_is_written_stays_bound(site: Site) -> None:
    cookie = await site.log_in()
    handle = await site.handle(cookie)

    await asyncio.gather(*(site.get("/note", cookie) for _ in range(5)))

    assert (await site.get("/note", cookie))[0] == ["ann", handle]


async def test_a_handler_that_fails_after_the_login_leaves_nothing(
    site: Site, storage: Storage
) -> None:
    status, cookie = await site.get("/fail_after_login")

    assert (status, cookie) == (500, None)
    await gone(storage, ANN)


# An index.


async def test_a_session_that_is_to_be_kept_and_has_ended_takes_no_place(serve: Serve) -> None:
    held: list[Session] = []

    async def hold(request: web.Request) -> web.Response:
        held.append(await session_of(request))
        return web.json_response([])

    site = await serve(hold, limits={"max_sessions": 1, "evict": "reject"})
    cookie = await site.log_in()
    await site.get("/hold", cookie)
    await site.get("/destroy", cookie)

    await site.principals.revoke("ann", keep=held[0])
    answer, _ = await site.get("/log_in?as=ann")

    assert answer == "ann"


async def test_an_index_that_somebody_wrote_into_stands_in_nobodys_way(
    site: Site, storage: Storage
) -> None:
    await site.log_in()
    index = await storage.load(ANN)
    assert index is not None
    head, _, _ = index.payload.partition(b'"index":')
    entry = b'{"sessions":{"h":["x",1,1,1e308]},"revoked":1,"remembers":1e308}}'
    await storage.replace(ANN, head + b'"index":' + entry, HOUR, expected=index.version)

    cookie = await site.log_in()

    assert await site.handles() == [await site.handle(cookie)]


async def test_what_a_clock_saw_that_was_ahead_is_corrected(serve: Serve, clock: FakeClock) -> None:
    ahead = FakeClock(clock() + 24 * HOUR)
    cookie = await (await serve(clock=ahead)).log_in()
    site = await serve(clock=clock)

    await site.get("/who", cookie)

    assert [info.last_seen_at for info in await site.principals.sessions_of("ann")] == [clock()]


async def test_a_session_takes_no_place_that_a_clock_saw_which_was_ahead(
    serve: Serve, clock: FakeClock, storage: Storage
) -> None:
    ahead = FakeClock(clock() + 24 * HOUR)
    cookie = await (await serve(clock=ahead)).log_in()
    await storage.delete(unquote(cookie).partition("s:")[2].partition(".")[0])
    site = await serve(clock=clock, limits={"max_sessions": 1, "evict": "reject"})

    answer, _ = await site.get("/log_in?as=ann")

    assert answer == "ann"


# Devices.


async def test_a_session_is_listed_with_what_is_known_of_it(serve: Serve, clock: FakeClock) -> None:
    site = await serve(clock=clock)
    cookie = await site.log_in(label="phone", sid="s1")

    (info,) = await site.principals.sessions_of("ann")

    assert info.handle == await site.handle(cookie)
    assert (info.created_at, info.authenticated_at, info.last_seen_at) == (clock(),) * 3
    assert (info.label, info.labels) == ("phone", {"oidc_sid": "s1"})
    assert info.address == "127.0.0.1"
    assert info.user_agent is not None
    assert "aiohttp" in info.user_agent
    assert not info.is_current


@pytest.mark.asvs("7.5.2")
async def test_the_current_session_is_marked(serve: Serve) -> None:
    async def devices(request: web.Request) -> web.Response:
        session = await session_of(request)
        found = await site.principals.sessions_of("ann", current=session)
        return web.json_response({info.handle: info.is_current for info in found})

    site = await serve(devices)
    mine, other = await site.log_in(), await site.log_in()

    listed, _ = await site.get("/devices", mine)

    assert listed == {await site.handle(mine): True, await site.handle(other): False}


async def test_those_come_first_that_were_last_seen(serve: Serve, clock: FakeClock) -> None:
    site = await serve(clock=clock)
    first = await site.log_in()
    clock.advance(10)
    second = await site.log_in()
    clock.advance(HOUR / 2)

    await site.get("/who", first)

    assert await site.handles() == [await site.handle(first), await site.handle(second)]


async def test_long_descriptions_are_cut(serve: Serve) -> None:
    async def describe(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.bind("ann", label="l" * 1000, labels={"n": "v" * 1000})
        return web.json_response([])

    site = await serve(describe)

    await site.client.get("/describe", headers={"User-Agent": "u" * 1000})

    (info,) = await site.principals.sessions_of("ann")
    assert (info.label, info.user_agent) == ("l" * 200, "u" * 200)
    assert await site.principals.revoke_label("n", "v" * 1000) == 1


@pytest.mark.asvs("7.5.2")
async def test_one_session_is_ended_by_its_handle(site: Site) -> None:
    lost, kept = await site.log_in(), await site.log_in()

    assert await site.principals.end("ann", str(await site.handle(lost)))

    assert await site.who(lost) is None
    assert await site.who(kept) == "ann"
    assert await site.handles() == [await site.handle(kept)]


async def test_a_handle_of_somebody_elses_session_ends_nothing(site: Site) -> None:
    cookie = await site.log_in("bob")
    handle = str(await site.handle(cookie))

    assert not await site.principals.end("ann", handle)

    assert await site.who(cookie) == "bob"


async def test_an_unknown_principal_or_handle_is_no_error(site: Site) -> None:
    await site.log_in()

    assert await site.principals.sessions_of("nobody") == []
    assert not await site.principals.end("nobody", "x" * 16)
    assert not await site.principals.end("ann", "x" * 16)
    assert await site.principals.revoke("nobody") == 0
    assert await site.principals.revoke_label("oidc_sid", "none") == 0


@pytest.mark.asvs("7.4.2", "7.4.5")
async def test_all_sessions_of_a_principal_are_revoked(site: Site) -> None:
    cookies = [await site.log_in() for _ in range(3)]
    other = await site.log_in("bob")

    assert await site.principals.revoke("ann") == 3

    assert [await site.who(cookie) for cookie in cookies] == [None] * 3
    assert await site.who(other) == "bob"
    assert await site.principals.revoke("ann") == 0


@pytest.mark.parametrize("by", ["renew", "rotate", "prove"])
async def test_a_session_is_revoked_under_whatever_id_it_goes_on(site: Site, by: str) -> None:
    cookie = await site.log_in()
    _, newer = await site.get(f"/renew?by={by}", cookie)
    assert newer is not None

    assert await site.principals.revoke("ann") == 1

    assert await site.who(newer) is None


@pytest.mark.parametrize("way", ["revoke", "end"])
@pytest.mark.parametrize("by", ["renew", "prove"])
async def test_nothing_is_shown_under_an_old_id_once_the_session_has_ended(
    site: Site, by: str, way: str
) -> None:
    cookie = await site.log_in()
    handle = str(await site.handle(cookie))
    _, newer = await site.get(f"/renew?by={by}", cookie)
    assert newer is not None
    assert await site.who(newer) == "ann"
    assert await site.who(cookie) == "ann"

    await (site.principals.revoke("ann") if way == "revoke" else site.principals.end("ann", handle))

    assert await site.who(cookie) is None


async def test_what_was_before_a_logout_is_shown_until_it_is_revoked(site: Site) -> None:
    cookie = await site.log_in()
    await site.get("/unbind", cookie)
    before = await site.who(cookie)

    await site.principals.revoke("ann")

    assert (before, await site.who(cookie)) == ("ann", None)


@pytest.mark.asvs("7.4.1")
@pytest.mark.parametrize("path", ["/unbind", "/log_in?as=bob"])
async def test_what_was_before_a_logout_is_not_shown_for_long_though_nobody_comes(
    serve: Serve, clock: FakeClock, path: str
) -> None:
    site = await serve(clock=clock)
    cookie = await site.log_in()
    await site.who(cookie)
    await site.get(path, cookie)
    at_once = await site.who(cookie)
    clock.advance(11)

    assert (at_once, await site.who(cookie)) == ("ann", None)


@pytest.mark.asvs("7.4.3")
async def test_a_session_can_be_kept_when_all_others_are_revoked(
    serve: Serve, clock: FakeClock
) -> None:
    async def revoke_others(request: web.Request) -> web.Response:
        session = await session_of(request)
        return web.json_response(await site.principals.revoke("ann", keep=session))

    site = await serve(revoke_others, clock=clock)
    mine, other = await site.log_in(), await site.log_in()

    ended, _ = await site.get("/revoke_others", mine)

    assert ended == 1
    assert await site.who(other) is None
    clock.advance(HOUR / 2)
    assert await site.who(mine) == "ann"
    assert await site.handles() == [await site.handle(mine)]


async def test_who_logs_in_after_a_revocation_stays(serve: Serve, clock: FakeClock) -> None:
    site = await serve(clock=clock)
    await site.log_in()
    await site.principals.revoke("ann")

    cookie = await site.log_in()

    clock.advance(HOUR / 2)
    assert await site.who(cookie) == "ann"


@pytest.mark.asvs("7.6.1")
async def test_a_label_ends_the_sessions_that_have_it(site: Site, storage: Storage) -> None:
    first, second = await site.log_in(sid="s1"), await site.log_in(sid="s2")

    assert await site.principals.revoke_label("oidc_sid", "s1") == 1

    assert await site.who(first) is None
    assert await site.who(second) == "ann"
    assert await site.handles() == [await site.handle(second)]
    assert await storage.load(key_of_label("oidc_sid", "s2")) is not None


async def test_a_label_ends_no_session_that_has_another_since(
    serve: Serve, storage: Storage
) -> None:
    site = await serve()
    cookie = await site.log_in(sid="s1")

    _, newer = await site.get("/log_in?as=ann&sid=s2", cookie)

    await gone(storage, key_of_label("oidc_sid", "s1"))
    assert await site.principals.revoke_label("oidc_sid", "s1") == 0
    assert await site.who(str(newer)) == "ann"
    assert await site.principals.revoke_label("oidc_sid", "s2") == 1


async def test_a_label_of_a_login_that_was_never_kept_ends_nothing(serve: Serve) -> None:
    async def fail_to_log_in(request: web.Request) -> web.Response:
        await (await session_of(request)).bind("ann", labels={"oidc_sid": "s2"})
        raise RuntimeError("the handler failed")

    site = await serve(fail_to_log_in)
    cookie = await site.log_in(sid="s1")
    await site.get("/fail_to_log_in", cookie)

    assert await site.principals.revoke_label("oidc_sid", "s2") == 0
    assert await site.who(cookie) == "ann"


# A limit.


@pytest.mark.asvs("7.1.2")
async def test_a_login_too_many_ends_the_oldest(serve: Serve, clock: FakeClock) -> None:
    site = await serve(clock=clock, limits={"max_sessions": 2})
    cookies = []
    for _ in range(3):
        cookies.append(await site.log_in())
        clock.advance(1)

    assert [await site.who(cookie) for cookie in cookies] == [None, "ann", "ann"]


async def test_a_login_too_many_ends_the_one_that_was_idle_for_longest(
    serve: Serve, clock: FakeClock
) -> None:
    site = await serve(clock=clock, limits={"max_sessions": 2, "evict": "idle"})
    busy = await site.log_in()
    clock.advance(1)
    idle = await site.log_in()
    clock.advance(HOUR / 2)
    await site.who(busy)

    await site.log_in()

    assert (await site.who(busy), await site.who(idle)) == ("ann", None)


@pytest.mark.asvs("7.1.2")
async def test_a_login_too_many_is_refused_where_the_options_say_so(serve: Serve) -> None:
    async def try_to_log_in(request: web.Request) -> web.Response:
        session = await session_of(request)
        try:
            await session.bind("ann")
        except TooManySessions as error:
            return web.json_response([error.most, session.principal, session.authenticated_at])
        return web.json_response("in")

    site = await serve(try_to_log_in, limits={"max_sessions": 2, "evict": "reject"})
    cookies = [await site.log_in() for _ in range(2)]

    refused, _ = await site.get("/try_to_log_in")
    await site.get("/destroy", cookies[0])
    let_in, _ = await site.get("/try_to_log_in")

    assert refused == [2, None, None]
    assert let_in == "in"
    assert await site.who(cookies[1]) == "ann"


@pytest.mark.parametrize("evict", ["oldest", "reject"])
@pytest.mark.parametrize("most", [1, 2])
async def test_a_login_in_the_place_of_its_own_session_is_not_one_too_many(
    serve: Serve, clock: FakeClock, evict: str, most: int
) -> None:
    async def log_in_anew(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.regenerate()
        await session.bind("ann")
        return web.json_response([])

    site = await serve(log_in_anew, clock=clock, limits={"max_sessions": most, "evict": evict})
    cookies = []
    for _ in range(most):
        cookies.append(await site.log_in())
        clock.advance(1)

    answer, newest = await site.get("/log_in_anew", cookies.pop())

    assert answer == []
    assert [await site.who(cookie) for cookie in (*cookies, str(newest))] == ["ann"] * most
    assert len(await site.handles()) == most


@pytest.mark.parametrize("how", ["rollback", "reload", "other", "fail", "unbind", "destroy"])
@pytest.mark.parametrize("is_new", [True, False])
async def test_a_login_that_comes_to_nothing_takes_no_place(
    serve: Serve, how: str, *, is_new: bool
) -> None:
    async def log_in_in_vain(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.bind("ann", labels={"oidc_sid": "s1"})
        match how:
            case "rollback":
                session.rollback()
            case "reload" if not is_new:
                await session.reload()
            case "fail":
                raise RuntimeError("the handler failed")
            case "unbind":
                await session.unbind()
            case "destroy":
                await session.destroy()
            case _:
                await session.bind("bob")
        return web.json_response([])

    site = await serve(log_in_in_vain, limits={"max_sessions": 1, "evict": "reject"})
    cookie = None if is_new else (await site.get("/cart"))[1]
    await site.get("/log_in_in_vain", cookie)

    assert await site.log_in()


async def test_a_session_that_makes_room_leaves_the_index_of_its_label(
    serve: Serve, storage: Storage
) -> None:
    site = await serve(limits={"max_sessions": 1})
    await site.log_in(sid="s1")

    await site.log_in(sid="s2")

    await gone(storage, key_of_label("oidc_sid", "s1"))
    assert await storage.load(key_of_label("oidc_sid", "s2")) is not None


async def test_a_label_names_so_many_sessions_at_the_most(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bonding, "MOST_SESSIONS", 2)
    site = await serve()

    cookies = [await site.log_in(principal, sid="all") for principal in ("ann", "bob", "eve")]

    assert [await site.who(cookie) for cookie in cookies] == [None, "bob", "eve"]
    assert await site.principals.revoke_label("oidc_sid", "all") == 2


async def test_an_entry_that_leads_in_a_circle_names_nothing(
    serve: Serve, storage: Storage
) -> None:
    site = await serve(genid=lambda _request: "apple")
    await site.get("/log_in?as=ann")
    await storage.delete("apple")
    await storage.create("apple", encode_alias("apple", Alias("apple", 2e9)), 60)

    assert await site.handles() == []


async def test_sessions_that_have_ended_unseen_count_no_more(
    serve: Serve, storage: Storage, clock: FakeClock
) -> None:
    ids = [f"id{n}" for n in range(20)]
    site = await serve(
        clock=clock,
        limits={"max_sessions": 2, "evict": "reject"},
        genid=lambda _request: ids.pop(0),
    )
    for cookie in (await site.log_in(), await site.log_in()):
        await storage.delete(cookie.partition("s%3A")[2].partition(".")[0])
    clock.advance(61)

    cookie = await site.log_in()

    assert await site.handles() == [await site.handle(cookie)]


@pytest.mark.parametrize(("most", "expected"), [(1000, 200), (5, 5)])
async def test_of_many_logins_at_once_none_is_lost_and_the_limit_holds(
    serve: Serve, most: int, expected: int
) -> None:
    site = await serve(limits={"max_sessions": most})

    logins = await asyncio.gather(*(site.get("/log_in?as=ann") for _ in range(200)))

    cookies = [cookie for _, cookie in logins if cookie is not None]
    alive = [await site.who(cookie) for cookie in cookies]
    assert alive.count("ann") == expected
    assert len(await site.handles()) == expected


# What the back-end loses, and what happens at once.


async def test_a_session_that_the_index_forgot_is_entered_when_it_is_next_looked_at(
    serve: Serve, storage: Storage, clock: FakeClock
) -> None:
    site = await serve(clock=clock)
    cookie = await site.log_in(label="phone", sid="s1")
    await storage.delete(ANN)
    await storage.delete(key_of_label("oidc_sid", "s1"))
    assert await site.handles() == []

    clock.advance(HOUR / 10)
    await site.who(cookie)

    assert [info.label for info in await site.principals.sessions_of("ann")] == ["phone"]
    assert await site.principals.revoke_label("oidc_sid", "s1") == 1


async def test_a_session_that_the_index_forgot_does_not_outlive_a_revocation(
    serve: Serve, storage: Storage, clock: FakeClock
) -> None:
    site = await serve(clock=clock)
    cookie = await site.log_in()
    await storage.delete(ANN)

    assert await site.principals.revoke("ann") == 0

    clock.advance(HOUR / 10)
    assert await site.who(cookie) is None
    assert await site.handles() == []


async def test_an_index_that_cannot_be_read_counts_as_lost(
    serve: Serve, storage: Storage, clock: FakeClock
) -> None:
    site = await serve(clock=clock)
    cookie = await site.log_in()
    await storage.delete(ANN)
    await storage.create(ANN, b'{"cookie":{}}', 60)

    clock.advance(HOUR / 10)
    await site.who(cookie)

    assert await site.handles() == [await site.handle(cookie)]


async def test_a_login_that_is_revoked_before_it_is_kept_is_refused(serve: Serve) -> None:
    async def log_in_slowly(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.bind("ann")
        await site.principals.revoke("ann")
        return web.json_response([])

    site = await serve(log_in_slowly)
    _, anonymous = await site.get("/cart")

    for before in (None, anonymous):
        _, cookie = await site.get("/log_in_slowly", before)
        assert cookie is None

    assert await site.handles() == []


@pytest.mark.parametrize("waits", [(0, 120), (30, 70), (120, 0)])
async def test_a_login_of_a_handler_that_takes_long_is_revoked_as_any_other(
    serve: Serve, clock: FakeClock, waits: tuple[float, float]
) -> None:
    async def log_in_slowly(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.bind("ann")
        clock.advance(waits[0])
        await site.principals.revoke("ann")
        clock.advance(waits[1])
        return web.json_response([])

    site = await serve(log_in_slowly, clock=clock)
    _, anonymous = await site.get("/cart")

    for before in (None, anonymous):
        _, cookie = await site.get("/log_in_slowly", before)
        assert cookie is None


async def test_a_login_of_a_handler_that_takes_long_is_listed_anew(
    serve: Serve, clock: FakeClock
) -> None:
    async def log_in_slowly(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.bind("ann")
        clock.advance(120)
        await site.principals.sessions_of("ann")
        return web.json_response([])

    site = await serve(log_in_slowly, clock=clock)

    _, cookie = await site.get("/log_in_slowly")

    assert cookie is not None
    assert await site.handles() == [await site.handle(cookie)]


async def test_a_login_that_is_kept_while_it_is_looked_for_stays_listed(
    serve: Serve, faulty: FaultyStorage, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_bound, is_looked_for, real = asyncio.Event(), asyncio.Event(), faulty.load

    async def log_in_slowly(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.bind("ann")
        is_bound.set()
        await is_looked_for.wait()
        return web.json_response([])

    async def load(key: str) -> Any:
        stored = await real(key)
        if key == "apple":
            monkeypatch.setattr(faulty, "load", real)
            is_looked_for.set()
            await login
        return stored

    site = await serve(log_in_slowly, storage=faulty, clock=clock, genid=lambda _request: "apple")
    login = asyncio.ensure_future(site.get("/log_in_slowly"))
    await is_bound.wait()
    clock.advance(61)
    monkeypatch.setattr(faulty, "load", load)

    await site.principals.sessions_of("ann")

    assert len(await site.handles()) == 1


async def test_whoever_changes_the_id_after_the_login_is_listed(serve: Serve) -> None:
    async def log_in_and_renew(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.bind("ann")
        await session.renew_id()
        return web.json_response([])

    site = await serve(log_in_and_renew)
    _, anonymous = await site.get("/cart")

    for before in (None, anonymous):
        _, cookie = await site.get("/log_in_and_renew", before)
        assert cookie is not None
        assert await site.handle(cookie) in await site.handles()


async def test_a_session_is_listed_while_its_principal_logs_in_again(serve: Serve) -> None:
    async def log_in_again(request: web.Request) -> web.Response:
        await (await session_of(request)).bind("ann")
        return web.json_response(await site.handles())

    site = await serve(log_in_again)
    cookie = await site.log_in()

    listed, _ = await site.get("/log_in_again", cookie)

    assert listed == [await site.handle(cookie)]


async def test_a_login_that_is_rolled_back_is_none(serve: Serve) -> None:
    async def log_in_and_think_better(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.bind("ann")
        session.rollback()
        return web.json_response([session.principal, session.handle])

    site = await serve(log_in_and_think_better)
    _, anonymous = await site.get("/cart")

    bound, cookie = await site.get("/log_in_and_think_better", anonymous)

    assert bound == [None, None]
    assert cookie == anonymous
    assert await site.handles() == []


async def test_a_session_that_is_held_long_and_written_is_revoked_as_well(
    serve: Serve, storage: Storage, clock: FakeClock
) -> None:
    async def hold(request: web.Request) -> web.Response:
        session = await session_of(request)
        await storage.delete(ANN)
        await site.principals.revoke("ann")
        clock.advance(HOUR / 10)
        session["held"] = True
        return web.json_response(await session.save())

    site = await serve(hold, clock=clock)
    cookie = await site.log_in()

    is_kept, _ = await site.get("/hold", cookie)

    assert not is_kept
    assert await site.who(cookie) is None


async def test_a_passive_request_meets_a_revocation_and_is_no_activity(
    serve: Serve, storage: Storage, clock: FakeClock
) -> None:
    async def poll(request: web.Request) -> web.Response:
        session = await find_session(request, passive=True)
        return web.json_response(session is not None and session.principal)

    site = await serve(poll, clock=clock)
    cookie, forgotten = await site.log_in(), await site.log_in()
    (seen, _) = [info.last_seen_at for info in await site.principals.sessions_of("ann")]
    clock.advance(HOUR / 10)

    assert (await site.get("/poll", cookie))[0] == "ann"
    assert {info.last_seen_at for info in await site.principals.sessions_of("ann")} == {seen}

    await storage.delete(ANN)
    await site.principals.revoke("ann")
    assert (await site.get("/poll", forgotten))[0] is None


async def test_a_session_is_found_however_often_its_id_was_rotated(site: Site) -> None:
    cookie = await site.log_in()
    handle = await site.handle(cookie)
    for _ in range(25):
        _, newer = await site.get("/renew?by=rotate", cookie)
        cookie = str(newer)

    assert await site.handles() == [handle]
    assert await site.principals.revoke("ann") == 1
    assert await site.who(cookie) is None


async def test_a_session_that_has_ended_unseen_leaves_the_list(
    serve: Serve, storage: Storage, clock: FakeClock
) -> None:
    site = await serve(clock=clock, genid=lambda _request: "apple")
    await site.get("/log_in?as=ann")
    handle = (await site.handles())[0]
    await storage.delete("apple")
    assert await site.handles() == []
    assert not await site.principals.end("ann", "another")

    clock.advance(61)

    assert await site.handles() == []
    assert not await site.principals.end("ann", handle)
    await gone(storage, ANN)


@pytest.mark.parametrize(
    ("evict", "who_stays"), [("reject", "newer"), ("oldest", "newer"), ("idle", "forgotten")]
)
async def test_a_forgotten_session_comes_back_within_the_limit(
    serve: Serve, storage: Storage, clock: FakeClock, evict: str, who_stays: str
) -> None:
    site = await serve(clock=clock, limits={"max_sessions": 1, "evict": evict})
    forgotten = await site.log_in()
    await storage.delete(ANN)
    clock.advance(HOUR / 10)
    newer = await site.log_in()
    clock.advance(1)

    principals = {"forgotten": await site.who(forgotten), "newer": await site.who(newer)}

    assert [name for name, principal in principals.items() if principal == "ann"] == [who_stays]
    assert len(await site.handles()) == 1


async def test_two_processes_enter_sessions_at_once(serve: Serve) -> None:
    sites = [await serve(limits={"max_sessions": 5}) for _ in range(2)]

    logins = await asyncio.gather(
        *(site.get("/log_in?as=ann") for _ in range(20) for site in sites)
    )

    alive = [await sites[0].who(cookie) for _, cookie in logins if cookie is not None]
    assert alive.count("ann") == 5
    assert len(await sites[1].handles()) == 5


async def test_a_record_that_comes_while_its_login_is_revoked_ends(
    serve: Serve, faulty: FaultyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def log_in_meanwhile(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.bind("ann")
        real = faulty.create

        async def create(key: str, *rest: Any) -> Any:
            # Between the look for the record, and the barring of its id.
            monkeypatch.setattr(faulty, "create", real)
            await session.save()
            return await real(key, *rest)

        monkeypatch.setattr(faulty, "create", create)
        return web.json_response(await site.principals.revoke("ann"))

    site = await serve(log_in_meanwhile, storage=faulty)

    ended, cookie = await site.get("/log_in_meanwhile")

    assert ended == 1
    assert await site.who(str(cookie)) is None


async def test_a_session_that_becomes_somebody_elses_while_it_is_ended_goes_on(
    serve: Serve, faulty: FaultyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await serve(storage=faulty)
    cookie = await site.log_in()
    handle, real, others = str(await site.handle(cookie)), faulty.load, list[str | None]()

    async def load(key: str) -> Any:
        stored = await real(key)
        if key in cookie:
            monkeypatch.setattr(faulty, "load", real)
            _, newer = await site.get("/log_in?as=bob", cookie)
            others.append(newer)
        return stored

    monkeypatch.setattr(faulty, "load", load)

    assert not await site.principals.end("ann", handle)
    assert await site.who(str(others[0])) == "bob"


# Sessions that live longer than most.

DAY: Final = 24 * HOUR


async def remember(request: web.Request) -> web.Response:
    """Let the session live for a month, as where somebody wants to be remembered."""
    session = await session_of(request)
    if request.query.get("way") == "log in":
        await session.bind("ann")
    if request.query.get("way") == "atomic":
        await session.atomic(lambda newest: setattr(newest.cookie, "max_age", 30 * DAY))
    else:
        session.cookie.max_age = 30 * DAY
    if request.query.get("way") == "rotate":
        await session.rotate_id()
    return web.json_response([])


@pytest.mark.parametrize("way", ["log in", "later", "rotate", "atomic"])
async def test_a_session_that_is_to_live_for_long_is_listed_and_revoked_as_long(
    serve: Serve, clock: FakeClock, way: str
) -> None:
    site = await serve(remember, clock=clock)
    _, cookie = await site.get("/cart")
    if way != "log in":
        cookie = await site.log_in()
    _, cookie = await site.get(f"/remember?way={way}", cookie)
    clock.advance(2 * DAY)

    assert len(await site.handles()) == 1
    assert await site.principals.revoke("ann") == 1

    clock.advance(DAY)
    assert await site.who(str(cookie)) is None


async def test_a_session_that_lives_for_long_is_found_after_another_login(
    serve: Serve, clock: FakeClock
) -> None:
    site = await serve(remember, clock=clock, storage=MemoryStorage(clock=clock))
    _, cookie = await site.get("/remember?way=log in")
    assert cookie is not None
    await site.who(cookie)
    _, newer = await site.get("/log_in?as=ann", cookie)
    assert newer is not None
    await site.who(newer)
    clock.advance(2 * DAY)

    assert await site.handles() == [await site.handle(newer)]


async def test_what_is_left_of_a_session_that_lives_for_long_leads_on_as_long(
    serve: Serve, clock: FakeClock
) -> None:
    async def poll(request: web.Request) -> web.Response:
        await find_session(request, passive=True)
        return web.json_response([])

    site = await serve(remember, poll, clock=clock, storage=MemoryStorage(clock=clock))
    _, cookie = await site.get("/remember?way=log in")
    _, newer = await site.get("/log_in?as=ann", cookie)
    await site.get("/poll", newer)
    clock.advance(2 * DAY)

    assert len(await site.handles()) == 1


async def test_a_session_whose_end_was_put_off_by_a_proof_is_listed_until_then(
    serve: Serve, clock: FakeClock
) -> None:
    site = await serve(clock=clock, absolute_timeout=2 * HOUR)
    cookie = await site.log_in()
    clock.advance(1.9 * HOUR)
    _, newer = await site.get("/renew?by=prove", cookie)
    clock.advance(HOUR / 2)

    assert await site.handles() == [await site.handle(str(newer))]


async def test_what_is_open_hears_of_a_revocation_at_once(serve: Serve) -> None:
    async def wait(request: web.Request) -> web.Response:
        session = await session_of(request)
        waiting.set()
        await session.ended()
        return web.json_response("over")

    waiting = asyncio.Event()
    site = await serve(wait)
    cookie = await site.log_in()
    open_request = asyncio.ensure_future(site.get("/wait", cookie))
    await waiting.wait()

    await site.principals.revoke("ann")

    # Nobody looks for fifteen seconds.
    answer, _ = await asyncio.wait_for(open_request, 10)
    assert answer == "over"


@pytest.mark.parametrize(
    ("path", "reason"), [("/renew?by=renew", "ENDED"), ("/log_in?as=bob", "TAKEN_OVER")]
)
async def test_what_is_open_ends_with_the_principal_and_not_with_an_id(
    serve: Serve, path: str, reason: str
) -> None:
    async def wait(request: web.Request) -> web.Response:
        session = await session_of(request)
        waiting.set()
        return web.json_response((await session.ended()).name)

    waiting = asyncio.Event()
    site = await serve(wait)
    cookie = await site.log_in()
    open_request = asyncio.ensure_future(site.get("/wait", cookie))
    await waiting.wait()

    _, newer = await site.get(path, cookie)
    await site.who(str(newer))
    await site.principals.revoke("ann")

    answer, _ = await asyncio.wait_for(open_request, 10)
    assert answer == reason


# Costs, and outages.


async def test_a_login_costs_two_commands_more_and_a_read_none(
    serve: Serve, faulty: FaultyStorage
) -> None:
    site = await serve(storage=faulty)
    _, anonymous = await site.get("/cart")
    faulty.calls.clear()
    _, renewed = await site.get("/renew?by=renew", anonymous)
    renewing = len(faulty.calls)
    faulty.calls.clear()

    _, cookie = await site.get("/log_in?as=ann", renewed)
    logging_in = len(faulty.calls)
    faulty.calls.clear()
    # The first use of the new id begins the grace of the old one.
    await site.get("/who", cookie)
    faulty.calls.clear()
    await site.get("/who", cookie)

    assert faulty.calls == ["load"]
    assert logging_in == renewing + 2 + 2  # And the first use of the id before.


async def test_a_look_that_is_due_costs_two_commands(
    serve: Serve, faulty: FaultyStorage, clock: FakeClock
) -> None:
    site = await serve(storage=faulty, clock=clock)
    cookie = await site.log_in()
    await site.get("/who", cookie)
    clock.advance(HOUR / 10)
    faulty.calls.clear()

    await site.get("/who", cookie)

    assert faulty.calls == ["load", "load", "replace", "touch"]


async def test_a_look_costs_one_command_where_another_process_was_there(
    serve: Serve, faulty: FaultyStorage, clock: FakeClock
) -> None:
    site, other = [await serve(storage=faulty, clock=clock) for _ in range(2)]
    cookie = await site.log_in()
    await site.who(cookie)
    faulty.calls.clear()

    await other.who(cookie)

    assert faulty.calls == ["load", "load", "touch"]


async def test_what_was_before_is_shown_though_the_index_cannot_be_read(
    serve: Serve, faulty: FaultyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await serve(storage=faulty)
    cookie = await site.log_in()
    await site.get("/renew?by=renew", cookie)
    real = faulty.load

    async def load(key: str) -> Any:
        if key == ANN:
            raise StorageUnavailable("told to fail")
        return await real(key)

    monkeypatch.setattr(faulty, "load", load)

    assert await site.who(cookie) == "ann"


async def test_calls_for_principals_are_told_as_well(serve: Serve) -> None:
    told: list[str] = []
    site = await serve(on_storage_call=lambda call: told.append(call.operation))

    await site.principals.sessions_of("ann")

    assert told == ["load"]


async def test_a_login_whose_index_cannot_be_written_fails_as_the_options_say(
    serve: Serve, faulty: FaultyStorage
) -> None:
    site = await serve(storage=faulty, on_unavailable=web.HTTPServiceUnavailable)
    _, anonymous = await site.get("/cart")
    assert anonymous is not None
    faulty.fail(verbs=("create",))

    status, cookie = await site.get("/log_in?as=ann", anonymous)

    faulty.recover()
    assert (status, cookie) == (503, anonymous)
    assert await site.who(anonymous) is None
    assert await site.handles() == []


async def test_a_login_that_is_too_large_to_be_kept_takes_no_place(serve: Serve) -> None:
    async def log_in_with_much(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.bind("ann")
        session["much"] = "x" * 2_000
        return web.json_response([])

    limits = {"max_sessions": 1, "evict": "reject"}
    site = await serve(log_in_with_much, limits=limits, max_record_size=1_000)

    assert (await site.get("/log_in_with_much"))[0] == 500
    assert await site.log_in()


@pytest.mark.parametrize("is_saved", [True, False], ids=["saved", "left"])
@pytest.mark.parametrize("fails", [False, True])
async def test_a_login_in_a_session_that_ends_meanwhile_takes_no_place(
    serve: Serve, *, is_saved: bool, fails: bool
) -> None:
    async def log_in_late(request: web.Request) -> web.Response:
        session = await session_of(request)
        await site.get("/destroy", request.headers["Cookie"])
        await session.bind("ann")
        if is_saved:
            assert not await session.save()
        if fails:
            raise RuntimeError("the handler failed")
        return web.json_response([])

    site = await serve(log_in_late, limits={"max_sessions": 1, "evict": "reject"})
    _, cookie = await site.get("/cart")

    await site.get("/log_in_late", cookie)
    again, _ = await site.get("/log_in?as=ann")

    assert again == "ann"


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_a_login_that_fails_halfway_takes_no_place(
    serve: Serve, faulty: FaultyStorage, monkeypatch: pytest.MonkeyPatch, *, is_cancelled: bool
) -> None:
    real, label = faulty.create, key_of_label("oidc_sid", "s1")

    async def create(key: str, *args: Any) -> Any:
        if key != label:
            return await real(key, *args)
        if is_cancelled:
            raise asyncio.CancelledError
        raise StorageUnavailable("told to fail")

    async def try_to_log_in(request: web.Request) -> web.Response:
        session = await session_of(request)
        with pytest.raises((StorageUnavailable, asyncio.CancelledError)):
            await session.bind("ann", labels={"oidc_sid": "s1"})
        return web.json_response([])

    limits = {"max_sessions": 1, "evict": "reject"}
    site = await serve(try_to_log_in, storage=faulty, limits=limits)
    monkeypatch.setattr(faulty, "create", create)
    await site.get("/try_to_log_in")

    assert await site.log_in()


async def test_a_look_that_fails_refuses_nobody(
    serve: Serve, faulty: FaultyStorage, clock: FakeClock
) -> None:
    site = await serve(storage=faulty, clock=clock)
    cookie = await site.log_in()
    clock.advance(HOUR / 10)
    faulty.fail(verbs=("replace",))

    assert await site.who(cookie) == "ann"


async def test_a_logout_happens_though_the_index_cannot_be_written(
    serve: Serve, faulty: FaultyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await serve(storage=faulty)
    cookie = await site.log_in()
    await site.who(cookie)
    # The record takes one, and the index fails.
    real, calls = faulty.replace, []

    async def replace(key: str, *args: Any, **options: Any) -> Any:
        calls.append(key)
        if key == ANN:
            raise StorageUnavailable("told to fail")
        return await real(key, *args, **options)

    monkeypatch.setattr(faulty, "replace", replace)

    answer, cleared = await site.get("/destroy", cookie)

    assert ANN in calls
    assert (answer, cleared) == ([], None)
    assert await site.who(cookie) is None


async def test_a_revocation_that_fails_says_how_far_it_came_and_can_be_repeated(
    serve: Serve, faulty: FaultyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await serve(storage=faulty)
    cookies = [await site.log_in() for _ in range(3)]
    real, is_away = faulty.load, True

    async def load(key: str) -> Any:
        if is_away and key in cookies[1]:
            raise StorageUnavailable("told to fail")
        return await real(key)

    monkeypatch.setattr(faulty, "load", load)
    with pytest.raises(StorageUnavailable) as raised:
        await site.principals.revoke("ann")
    is_away = False

    assert raised.value.__notes__ == ["2 sessions have ended, and 1 may not"]
    assert await site.principals.revoke("ann") == 1
    assert [await site.who(cookie) for cookie in cookies] == [None] * 3


# By itself, and told.


async def put_user(request: web.Request) -> web.Response:
    session = await session_of(request)
    user = request.query.get("user")
    if user is None:
        session.pop("user", None)
    else:
        session["user"] = int(user) if user.isdecimal() else user
    return web.json_response([])


@pytest.mark.parametrize("user", ["ann", "42"])
async def test_a_key_that_says_who_is_logged_in_binds_and_unbinds_by_itself(
    serve: Serve, user: str
) -> None:
    site = await serve(put_user, renew_on=["user"])
    _, cookie = await site.get("/cart")

    _, cookie = await site.get(f"/put_user?user={user}", cookie)
    assert cookie is not None
    assert await site.who(cookie) == user
    assert await site.handles(user) == [await site.handle(cookie)]

    await site.get("/put_user", cookie)
    assert await site.who(cookie) is None
    assert await site.handles(user) == []


@pytest.mark.parametrize("nobody", ["null", '""', "{}", "[]", "false"])
async def test_a_key_whose_value_is_nobody_is_a_logout(serve: Serve, nobody: str) -> None:
    async def put_user(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["user"] = json.loads(request.query["user"])
        return web.json_response([])

    async def fresh(request: web.Request) -> web.Response:
        return web.json_response((await session_of(request)).is_fresh(HOUR))

    site = await serve(put_user, fresh, renew_on=["user"])
    _, cookie = await site.get('/put_user?user="ann"')
    assert await site.handles() != []

    _, cookie = await site.get(f"/put_user?user={nobody}", cookie)

    assert cookie is not None
    assert await site.who(cookie) is None
    assert await site.handles() == []
    assert await site.get("/fresh", cookie) == (False, cookie)


@pytest.mark.parametrize(
    ("way", "who_was"),
    [(way, who) for way in ("regenerate", "invalidate") for who in ("ann", "bob")]
    + [("unbind", "bob")],
)
async def test_a_key_binds_a_session_that_begins_anew_as_well(
    serve: Serve, way: str, who_was: str
) -> None:
    async def log_in_anew(request: web.Request) -> web.Response:
        session = await session_of(request)
        match way:
            case "regenerate":
                await session.regenerate()
            case "invalidate":
                session.invalidate()
            case _:
                await session.unbind()
        session["user"] = "ann"
        session["flash"] = "welcome"
        return web.json_response([])

    site = await serve(put_user, log_in_anew, renew_on=["user"])
    _, cookie = await site.get(f"/put_user?user={who_was}")

    _, newer = await site.get("/log_in_anew", cookie)

    assert await site.who(str(newer)) == "ann"
    assert await site.handles() == [await site.handle(str(newer))]
    assert await site.handles("bob") == []


async def test_whoever_logs_in_to_a_new_session_that_was_emptied_is_bound(serve: Serve) -> None:
    async def log_in_anew(request: web.Request) -> web.Response:
        session = await session_of(request)
        session.invalidate()
        await session.bind("ann")
        return web.json_response([])

    site = await serve(log_in_anew)

    _, cookie = await site.get("/log_in_anew")

    assert await site.who(str(cookie)) == "ann"


@pytest.mark.parametrize("is_new", [True, False])
async def test_a_session_that_is_emptied_after_the_login_is_nobodys(
    serve: Serve, *, is_new: bool
) -> None:
    async def think_better(request: web.Request) -> web.Response:
        session = await session_of(request)
        await session.bind("ann")
        session.invalidate()
        session["flash"] = "bye"
        return web.json_response([session.principal, session.authenticated_at])

    site = await serve(think_better)
    cookie = None if is_new else (await site.get("/cart"))[1]

    answer, newer = await site.get("/think_better", cookie)

    assert answer == [None, None]
    assert await site.who(str(newer)) is None
    assert await site.handles() == []


async def test_what_the_handler_binds_has_precedence_over_the_key(serve: Serve) -> None:
    async def both(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["user"] = {"name": "Ann"}
        await session.bind("ann")
        return web.json_response([])

    site = await serve(both, renew_on=["user"])

    _, cookie = await site.get("/both")

    assert cookie is not None
    assert await site.who(cookie) == "ann"


async def test_a_key_that_names_no_principal_is_an_error_that_says_so(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async def odd(request: web.Request) -> web.Response:
        (await session_of(request))["user"] = {"name": "Ann"}
        return web.json_response([])

    site = await serve(odd, renew_on=["user"])

    status, _ = await site.get("/odd")

    assert status == 500
    assert "session['user'] is in renew_on, and a dict names no principal" in caplog.text


@pytest.mark.parametrize("is_nested", [True, False])
async def test_a_change_inside_what_says_who_is_logged_in_leaves_the_principal(
    serve: Serve, *, is_nested: bool
) -> None:
    async def log_in_with_roles(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["user"] = {"id": 42, "roles": []}
        await session.bind("42")
        return web.json_response([])

    async def add_role(request: web.Request) -> web.Response:
        session = await session_of(request)
        if is_nested:
            session["user"]["roles"].append("editor")
        else:
            session["user"] = {"id": 42, "roles": ["editor"]}
        return web.json_response([])

    site = await serve(log_in_with_roles, add_role, renew_on=["user"])
    _, cookie = await site.get("/log_in_with_roles")

    answer, newer = await site.get("/add_role", cookie)

    assert (answer, await site.who(str(newer))) == ([], "42")
    assert await site.handles("42") == [await site.handle(str(newer))]


@pytest.mark.parametrize("way", ["end", "revoke"])
async def test_a_session_is_ended_whose_rights_have_just_changed(serve: Serve, way: str) -> None:
    async def take_role(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["role"] = request.query["role"]
        return web.json_response([])

    site = await serve(put_user, take_role, renew_on=["user", "role"])
    _, cookie = await site.get("/put_user?user=ann")
    _, cookie = await site.get("/take_role?role=reader", cookie)
    handle = await site.handle(str(cookie))
    _, newer = await site.get("/take_role?role=editor", cookie)
    assert newer != cookie

    ended: Any = await (
        site.principals.end("ann", str(handle)) if way == "end" else site.principals.revoke("ann")
    )

    assert ended == 1
    assert await site.who(str(newer)) is None


async def test_events_say_what_happened_to_which_session(serve: Serve, clock: FakeClock) -> None:
    told: list[SessionEvent] = []
    site = await serve(on_event=told.append, clock=clock, limits={"max_sessions": 1})
    first = await site.log_in()
    handle = await site.handle(first)
    clock.advance(1)
    second = await site.log_in()
    newer = await site.handle(second)
    await site.get("/unbind", second)
    third = await site.handle(await site.log_in())
    await site.principals.revoke("ann")

    reasons = {Reason.BOUND, Reason.UNBOUND, Reason.EVICTED, Reason.REVOKED}
    chosen = [each for each in told if each.reason in reasons]
    assert [(each.reason, each.handle) for each in chosen] == [
        (Reason.BOUND, handle),
        (Reason.EVICTED, handle),
        (Reason.BOUND, newer),
        (Reason.UNBOUND, newer),
        (Reason.BOUND, third),
        (Reason.REVOKED, third),
    ]
    assert {each.principal for each in chosen} == {"ann"}
    opened = [(each.handle, each.principal) for each in told if each.reason is Reason.OPENED]
    assert (handle, "ann") in opened
    assert (None, None) in opened


async def test_a_session_that_ends_by_an_old_id_of_it_is_listed_no_more(
    serve: Serve, clock: FakeClock, storage: Storage
) -> None:
    site = await serve(clock=clock, on_reuse="end")
    old = await site.log_in()
    await site.get("/renew?by=rotate", old)
    clock.advance(11)

    await site.get("/who", old)

    await gone(storage, ANN)


@pytest.mark.one_lane("a listener takes the whole way")
async def test_an_event_says_whose_session_ended_by_an_old_id_of_it(
    serve: Serve, clock: FakeClock
) -> None:
    told: list[SessionEvent] = []
    site = await serve(clock=clock, on_reuse="end", on_event=told.append)
    old = await site.log_in()
    handle = await site.handle(old)
    await site.get("/renew?by=rotate", old)
    clock.advance(11)

    await site.get("/who", old)

    [event] = [each for each in told if each.reason is Reason.REUSE_ENDED]
    assert (event.principal, event.handle) == ("ann", handle)
    assert event.request.remote == "127.0.0.1"


async def test_events_name_the_principal_and_show_it_to_nobody_else(serve: Serve) -> None:
    told: list[SessionEvent] = []
    site = await serve(on_event=told.append)
    cookie = await site.log_in("ann@example.org")

    await site.principals.revoke("ann@example.org")
    await site.who(cookie)

    named = [(each.reason, each.principal) for each in told if each.handle is not None]
    assert (Reason.BOUND, "ann@example.org") in named
    assert (Reason.REVOKED, "ann@example.org") in named
    assert {each.principal for each in told if each.handle is None} == {None}
    assert "ann@" not in repr(told)


async def forget(request: web.Request) -> web.Response:
    (await session_of(request)).invalidate()
    return web.json_response([])


@pytest.mark.parametrize("way", ["destroy", "forget"])
async def test_an_event_says_whose_session_was_ended(serve: Serve, way: str) -> None:
    told: list[SessionEvent] = []
    site = await serve(forget, on_event=told.append)
    cookie = await site.log_in()
    handle = await site.handle(cookie)
    told.clear()

    await site.get(f"/{way}", cookie)

    [event] = [each for each in told if each.reason is Reason.DELETED]
    assert (event.handle, event.principal) == (handle, "ann")


# What makes no sense.


@pytest.mark.parametrize(
    ("principal", "described", "kind", "words"),
    [
        (42, {}, "TypeError", "a principal is a str, not int"),
        ("", {}, "ValueError", "a principal is 1 to 256 characters"),
        ("x" * 257, {}, "ValueError", "this has 257"),
        ("half \ud800", {}, "ValueError", "a principal is 1 to 256 characters"),
        ("ann", {"label": 7}, "TypeError", "label is a str, not int"),
        ("ann", {"labels": ["sid"]}, "TypeError", "labels is a dict of str, not list"),
        ("ann", {"labels": {"sid": 7}}, "TypeError", "labels['sid'] is a str, not int"),
        ("ann", {"labels": {"sid": ""}}, "ValueError", "labels['sid'] is ''"),
        ("ann", {"labels": dict.fromkeys("abcdefghi", "x")}, "ValueError", "9 entries: 8 can"),
    ],
)
@pytest.mark.one_lane("nothing is asked of the lane")
async def test_what_can_be_bound_to_nobody_is_an_error_that_says_so(
    serve: Serve, principal: Any, described: dict[str, Any], kind: str, words: str
) -> None:
    async def try_to_bind(request: web.Request) -> web.Response:
        session = await session_of(request)
        try:
            await session.bind(principal, **described)
        except (TypeError, ValueError) as error:
            return web.json_response([type(error).__name__, str(error), session.principal])
        return web.json_response([])

    site = await serve(try_to_bind)

    (name, text, bound), _ = await site.get("/try_to_bind")

    assert name == kind
    assert words in text
    assert bound is None


@pytest.mark.one_lane("no request gets as far")
async def test_a_bind_without_principals_says_what_is_missing(
    make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    async def try_to_bind(request: web.Request) -> web.Response:
        with pytest.raises(SessionError, match=r"principals = Principals\(options\)"):
            await (await session_of(request)).bind("ann")
        return web.Response()

    app = web.Application()
    app.router.add_get("/", try_to_bind)
    setup(app, make_options())
    client = await aiohttp_client(app)

    assert (await client.get("/")).status == 200


@pytest.mark.one_lane("there is no request")
@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_sessions": 0}, "max_sessions=0 must be a whole number from 1 to 1,000"),
        ({"max_sessions": 1001}, "max_sessions=1001 must be"),
        ({"max_sessions": True}, "max_sessions=True must be"),
        ({"evict": "newest"}, "evict='newest' must be one of 'oldest', 'idle', 'reject'"),
    ],
)
def test_a_limit_that_makes_no_sense_is_an_error_that_says_so(
    make_options: MakeOptions, limits: dict[str, Any], words: str
) -> None:
    with pytest.raises(OptionsError) as raised:
        Principals(make_options(), **limits)

    assert words in str(raised.value)


@pytest.mark.one_lane("there is no request")
def test_a_storage_of_aiohttp_session_keeps_no_principals() -> None:
    options = SessionOptions(storage=SimpleCookieStorage())

    with pytest.raises(OptionsError, match="SimpleCookieStorage is a storage of aiohttp-session"):
        Principals(options)


@pytest.mark.one_lane("there is no request")
def test_options_have_principals_once_and_before_they_are_in_use() -> None:
    options = SessionOptions(secret="s" * 40, storage=MemoryStorage())
    Principals(options)
    with pytest.raises(OptionsError, match="have Principals already"):
        Principals(options)

    options = SessionOptions(secret="s" * 40, storage=MemoryStorage())
    setup(web.Application(), options)
    with pytest.raises(OptionsError, match=r"before setup\(app, options\)"):
        Principals(options)
