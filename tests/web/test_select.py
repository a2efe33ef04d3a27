"""Which requests get a session: routes, sub-applications, and what is installed where."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from aiohttp.typedefs import Handler
from pytest_aiohttp import AiohttpClient

from aiosess import (
    SESSION,
    CookieOptions,
    MemoryStorage,
    OptionsError,
    Route,
    SessionError,
    SessionOptions,
    find_session,
    get_session,
    session_middleware,
    setup,
)
from aiosess.testing import FaultyStorage
from tests.conftest import SECRET, MakeOptions
from tests.web.conftest import Connect
from tests.web.handlers import cookies_set, kind, leave_alone, session_of, signed, start, views


async def count(request: web.Request) -> web.Response:
    """Count like ``views``, under another name."""
    return await views(request)


class CountView(web.View):
    async def get(self) -> web.Response:
        return await views(self.request)

    async def post(self) -> web.Response:
        return await views(self.request)


@web.middleware
async def note_kind(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell in a header what a middleware inside sessions gets."""
    session = await find_session(request)
    try:
        response = await handler(request)
    except web.HTTPException as error:
        error.headers["X-Session"] = type(session).__name__
        raise
    response.headers["X-Session"] = type(session).__name__
    return response


async def refusal(request: web.Request) -> web.Response:
    """Answer the error of ``get_session``."""
    with pytest.raises(RuntimeError) as error:
        await get_session(request)
    return web.Response(text=str(error.value))


async def test_views_are_counted_for_one_browser(connect: Connect) -> None:
    client = await connect(views)

    counts = [await (await client.get("/views")).json() for _ in range(3)]

    assert counts == [1, 2, 3]


async def test_each_browser_has_a_session_of_its_own(
    connect: Connect, aiohttp_client: AiohttpClient
) -> None:
    first = await connect(views)
    second: TestClient[web.Request, None] = await aiohttp_client(first.server)

    await first.get("/views")
    response = await second.get("/views")

    assert await response.json() == 1


async def test_the_request_holds_its_session_once_it_is_loaded(connect: Connect) -> None:
    async def compare(request: web.Request) -> web.Response:
        before = SESSION in request
        session = await get_session(request)
        return web.json_response([before, request[SESSION] is session])

    client = await connect(compare)

    response = await client.get("/compare")

    assert await response.json() == [False, True]


async def test_get_session_without_a_middleware_says_how_to_install_one(
    aiohttp_client: AiohttpClient,
) -> None:
    app = web.Application()
    app.router.add_get("/", refusal)
    client = await aiohttp_client(app)

    response = await client.get("/")

    assert "session_middleware(options)" in await response.text()


@pytest.mark.parametrize("ask", [get_session, find_session])
@pytest.mark.parametrize(
    ("stands", "missing"),
    [
        ("nowhere", "no session middleware is installed, or it stands behind the middleware that"),
        ("behind", "the session middleware stands behind the middleware that asks: "),
    ],
)
async def test_without_our_middleware_in_front_both_ways_to_ask_are_an_error_with_the_way_out(
    make_options: MakeOptions, aiohttp_client: AiohttpClient, ask: Any, stands: str, missing: str
) -> None:
    said: list[str] = []

    @web.middleware
    async def asks(request: web.Request, handler: Handler) -> web.StreamResponse:
        with pytest.raises(RuntimeError) as error:
            await ask(request)
        said.append(str(error.value))
        return await handler(request)

    ours = [session_middleware(make_options())] if stands == "behind" else []
    app = web.Application(middlewares=[asks, *ours])
    app.router.add_get("/", leave_alone)
    client = await aiohttp_client(app)

    await client.get("/")

    assert said[0].startswith(missing)
    assert "setup(app, options)" in said[0]


async def test_get_session_on_a_route_that_is_not_selected_names_the_ways_out(
    connect: Connect,
) -> None:
    client = await connect(refusal, exclude=["refusal"])

    text = await (await client.get("/refusal")).text()

    assert "this route gets no session: see for_routes and exclude" in text
    assert "find_session()" in text


async def test_get_session_outside_the_cookies_path_names_the_path_and_the_ways_out(
    connect: Connect,
) -> None:
    async def outside(request: web.Request) -> web.Response:
        with pytest.raises(SessionError) as error:
            await get_session(request)
        return web.Response(text=str(error.value))

    client = await connect(outside, cookie=CookieOptions(path="/shop"))

    text = await (await client.get("/outside")).text()

    assert "'/outside', which is not under '/shop', the path of the cookie" in text
    assert "find_session()" in text


@pytest.mark.parametrize(
    "entry",
    [
        "count",
        "c*t",
        "/count",
        "/{any:c.*}",
        Route("count"),
        Route("/count", method="GET"),
        Route("count", method="get"),
        count,
    ],
    ids=repr,
)
async def test_only_the_routes_that_are_named_get_a_session(connect: Connect, entry: Any) -> None:
    client = await connect(count, kind, for_routes=[entry])

    counts = [await (await client.get("/count")).json() for _ in range(2)]
    other = await (await client.get("/kind")).text()

    assert counts == [1, 2]
    assert other == "NoneType"


@pytest.mark.parametrize(
    "entry",
    ["count", "/count", Route("count"), Route("/count", method="GET"), count],
    ids=repr,
)
async def test_an_excluded_route_gets_none(connect: Connect, entry: Any) -> None:
    async def count_or_not(request: web.Request) -> web.Response:
        return await kind(request)

    count_or_not.__name__ = "count"
    given = count_or_not if entry is count else entry
    client = await connect(count_or_not, views, exclude=[given])

    excluded = await (await client.get("/count")).text()
    other = await (await client.get("/views")).json()

    assert excluded == "NoneType"
    assert other == 1


async def test_exclude_wins_over_for_routes(connect: Connect) -> None:
    client = await connect(kind, for_routes=["kind"], exclude=["kind"])

    response = await client.get("/kind")

    assert await response.text() == "NoneType"


async def test_no_routes_at_all_attaches_nowhere(connect: Connect) -> None:
    client = await connect(kind, for_routes=[])

    response = await client.get("/kind")

    assert await response.text() == "NoneType"


@pytest.mark.parametrize(("method", "expected"), [("POST", "Session"), ("GET", "NoneType")])
async def test_a_route_may_be_named_for_one_method_only(
    connect: Connect, method: str, expected: str
) -> None:
    client = await connect(kind, for_routes=[Route("kind", method="POST")])

    response = await client.request(method, "/kind")

    assert await response.text() == expected


async def test_a_resource_object_and_a_route_object_can_be_named(
    make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    app = web.Application()
    resource = app.router.add_resource("/resource")
    resource.add_route("GET", kind)
    route = app.router.add_get("/route", kind)
    app.router.add_get("/other", kind)
    setup(app, make_options(for_routes=[resource, route]))
    client = await aiohttp_client(app)

    kinds = [await (await client.get(path)).text() for path in ("/resource", "/route", "/other")]

    assert kinds == ["Session", "Session", "NoneType"]


async def test_a_view_class_can_be_named(
    make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    app = web.Application()
    app.router.add_view("/count", CountView)
    app.router.add_get("/other", kind)
    setup(app, make_options(for_routes=[CountView]))
    client = await aiohttp_client(app)

    first = await (await client.get("/count")).json()
    second = await (await client.post("/count")).json()
    other = await (await client.get("/other")).text()

    assert (first, second, other) == (1, 2, "NoneType")


async def test_a_route_that_is_not_selected_costs_no_storage_call_and_no_header(
    connect: Connect, faulty: FaultyStorage
) -> None:
    client = await connect(kind, exclude=["kind"], storage=faulty, forgets=True)

    response = await client.get("/kind", headers=signed("apple"))

    assert faulty.calls == []
    assert "Vary" not in response.headers
    assert cookies_set(response) == []


@pytest.mark.parametrize(
    ("for_routes", "expected"), [(None, "Session"), (["kind"], "NoneType")], ids=["all", "named"]
)
@pytest.mark.parametrize("asked", ["GET /nowhere", "DELETE /only-get"])
async def test_404_and_405_get_a_session_unless_routes_are_named(
    make_options: MakeOptions,
    aiohttp_client: AiohttpClient,
    for_routes: Any,
    expected: str,
    asked: str,
) -> None:
    app = web.Application()
    app.router.add_get("/only-get", kind, name="kind")
    setup(app, make_options(for_routes=for_routes))
    app.middlewares.append(note_kind)
    client = await aiohttp_client(app)

    response = await client.request(*asked.split())

    assert response.status in {404, 405}
    assert response.headers["X-Session"] == expected


@pytest.mark.parametrize(
    ("for_routes", "expected"), [(None, "NoneType"), (["files"], "Session")], ids=["all", "named"]
)
async def test_static_files_get_a_session_only_when_named(
    make_options: MakeOptions,
    aiohttp_client: AiohttpClient,
    tmp_path: Path,
    for_routes: Any,
    expected: str,
) -> None:
    (tmp_path / "style.css").write_text("body {}")
    app = web.Application()
    app.router.add_static("/static", tmp_path, name="files")
    setup(app, make_options(for_routes=for_routes))
    app.middlewares.append(note_kind)
    client = await aiohttp_client(app)

    response = await client.get("/static/style.css")

    assert response.status == 200
    assert response.headers["X-Session"] == expected


async def test_a_sub_application_uses_the_session_of_its_parent(
    make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    app, admin = web.Application(), web.Application()
    setup(app, make_options())
    app.router.add_get("/views", views)
    admin.router.add_get("/views", views)
    app.add_subapp("/admin", admin)
    client = await aiohttp_client(app)

    counts = [await (await client.get(path)).json() for path in ("/views", "/admin/views")]

    assert counts == [1, 2]


async def test_a_session_of_a_sub_application_stays_inside_it(
    make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    app, admin = web.Application(), web.Application()
    app.router.add_get("/refusal", refusal)
    setup(admin, make_options())
    admin.router.add_get("/views", views)
    app.add_subapp("/admin", admin)
    client = await aiohttp_client(app)

    counts = [await (await client.get("/admin/views")).json() for _ in range(2)]
    outside = await (await client.get("/refusal")).text()

    assert counts == [1, 2]
    assert "no session middleware is installed" in outside


async def test_parent_and_sub_application_may_each_have_a_session(
    make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    app, admin = web.Application(), web.Application()
    setup(app, make_options(exclude=["/admin/{any:.*}"]))
    setup(admin, make_options(name="admin_sid"))
    app.router.add_get("/views", views)
    admin.router.add_get("/views", views)
    app.add_subapp("/admin", admin)
    client = await aiohttp_client(app)

    outer = await client.get("/views")
    inner = await client.get("/admin/views")

    assert await outer.json() == await inner.json() == 1
    assert list(outer.cookies) == ["sid"]
    assert list(inner.cookies) == ["admin_sid"]


@pytest.mark.parametrize("place", ["beside", "below"])
async def test_a_second_setup_with_other_options_for_the_same_route_stops_the_start(
    make_options: MakeOptions, place: str
) -> None:
    app, admin = web.Application(), web.Application()
    setup(app, make_options())
    setup(app if place == "beside" else admin, make_options(name="admin_sid"))
    app.router.add_get("/views", views)
    admin.router.add_get("/views", views)
    app.add_subapp("/admin", admin)

    with pytest.raises(OptionsError, match=r"views' would get two sessions, .* exclude=\["):
        await start(app)


def test_a_start_that_is_stopped_says_why_and_nothing_else(
    make_options: MakeOptions, caplog: pytest.LogCaptureFixture
) -> None:
    app = web.Application()
    setup(app, make_options())
    setup(app, make_options(name="admin_sid"))
    app.router.add_get("/views", views)

    with pytest.raises(OptionsError, match="would get two sessions"):
        # What was begun and not ended is closed with the loop.
        asyncio.run(web.AppRunner(app).setup())

    assert [record for record in caplog.records if record.name == "asyncio"] == []


async def test_the_same_options_for_an_application_and_one_below_it_are_harmless(
    make_options: MakeOptions,
) -> None:
    app, admin = web.Application(), web.Application()
    options = make_options()
    setup(app, options)
    setup(admin, options)
    admin.router.add_get("/views", views)
    app.add_subapp("/admin", admin)

    await start(app)


async def test_two_setups_may_share_a_route_by_its_methods(make_options: MakeOptions) -> None:
    app = web.Application()
    app.router.add_route("*", "/views", views)
    setup(app, make_options(for_routes=[Route("/views", method="GET")]))
    setup(app, make_options(for_routes=[Route("/views", method="POST")], name="other"))

    await start(app)


async def test_a_route_of_a_sub_application_can_be_named_on_the_parent(
    make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    app, admin = web.Application(), web.Application()
    admin.router.add_get("/one", kind, name="admin.one")
    admin.router.add_get("/two", kind, name="admin.two")
    admin.router.add_get("/three", kind)
    app.add_subapp("/admin", admin)
    setup(app, make_options(for_routes=["admin.one", "/admin/three"]))
    client = await aiohttp_client(app)

    paths = ("/admin/one", "/admin/two", "/admin/three")
    kinds = [await (await client.get(path)).text() for path in paths]

    assert kinds == ["Session", "NoneType", "Session"]


async def test_of_a_middleware_that_is_installed_twice_the_inner_one_does_nothing(
    make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    options = make_options()
    app = web.Application(middlewares=[session_middleware(options), session_middleware(options)])
    app.router.add_get("/views", views)
    client = await aiohttp_client(app)

    first = await client.get("/views")
    second = await client.get("/views")

    assert [await first.json(), await second.json()] == [1, 2]
    assert len(cookies_set(first)) == 1


async def test_two_middlewares_with_other_options_for_one_route_are_an_error_in_each_request(
    make_options: MakeOptions, aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    both = [session_middleware(make_options(name=name)) for name in ("one", "two")]
    app = web.Application(middlewares=both)
    app.router.add_get("/views", views)
    client = await aiohttp_client(app)

    response = await client.get("/views")
    nowhere = await client.get("/nowhere")

    assert (response.status, nowhere.status) == (500, 404)
    assert "'/views' would get two sessions" in caplog.text


async def test_for_routes_with_nothing_in_it_is_told_once(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = await connect(kind, for_routes=[])

    await client.get("/kind")

    assert caplog.text.count("for_routes=[] gives no route a session") == 1


async def test_setup_after_the_start_is_an_error_with_the_way_out(
    make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    app = web.Application()
    await aiohttp_client(app)

    with pytest.raises(RuntimeError, match=r"call setup\(\) before it is run"):
        setup(app, make_options())


def test_setup_of_what_is_a_part_of_another_application_is_an_error_with_the_way_out(
    make_options: MakeOptions,
) -> None:
    part = web.Application()
    web.Application().add_subapp("/part", part)

    with pytest.raises(RuntimeError, match=r"call setup\(\) .* before add_subapp\(\)"):
        setup(part, make_options())


async def test_setup_twice_sets_one_cookie(
    make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    app = web.Application()
    options = make_options()
    setup(app, options)
    setup(app, options)
    app.router.add_get("/views", views)
    client = await aiohttp_client(app)

    response = await client.get("/views")

    assert len(cookies_set(response)) == 1


@pytest.mark.parametrize("option", ["for_routes", "exclude"])
@pytest.mark.parametrize(
    "entry",
    ["veiws", "admin.*", "/veiws", Route("views", method="POST"), kind],
    ids=["name", "wildcard", "path", "method", "handler"],
)
async def test_with_setup_a_route_that_does_not_exist_stops_the_start(
    option: str, entry: Any, make_options: MakeOptions
) -> None:
    app = web.Application()
    app.router.add_get("/views", views, name="views")
    setup(app, make_options(**{option: [entry]}))

    with pytest.raises(OptionsError, match=f"{option} has .* no route .* there are: views"):
        await start(app)


async def test_with_the_middleware_only_an_unknown_route_fails_each_request(
    connect_bare: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = await connect_bare(views, for_routes=["veiws"])

    statuses = [(await client.get("/views")).status for _ in range(2)]

    assert statuses == [500, 500]
    assert "for_routes has 'veiws'" in caplog.text


async def test_routes_that_are_added_after_setup_are_known_at_start_up(
    make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    app = web.Application()
    setup(app, make_options(for_routes=["later"]))
    app.router.add_get("/later", kind, name="later")
    client = await aiohttp_client(app)

    response = await client.get("/later")

    assert await response.text() == "Session"


async def test_an_application_can_be_served_by_two_runners_one_after_another(
    aiohttp_client: AiohttpClient,
) -> None:
    storage = MemoryStorage()
    counts = []

    async def serve_once(cookies: dict[str, str]) -> dict[str, str]:
        app = web.Application()
        setup(app, SessionOptions(secret=SECRET, storage=storage))
        app.router.add_get("/views", views)
        client = await aiohttp_client(app, cookies=cookies)
        response = await client.get("/views")
        counts.append(await response.json())
        return {name: morsel.coded_value for name, morsel in response.cookies.items()}

    cookies = await serve_once({})
    await serve_once(cookies)

    assert counts == [1, 2]


async def test_a_cloned_request_has_the_same_session(
    make_options: MakeOptions, aiohttp_client: AiohttpClient
) -> None:
    @web.middleware
    async def clone(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await handler(request.clone(remote="203.0.113.9"))

    async def compare(request: web.Request) -> web.Response:
        session = await session_of(request)
        session["cloned"] = session.get("cloned", 0) + 1
        return web.json_response(session["cloned"])

    app = web.Application()
    setup(app, make_options())
    app.middlewares.append(clone)
    app.router.add_get("/", compare)
    client = await aiohttp_client(app)

    counts = [await (await client.get("/")).json() for _ in range(2)]

    assert counts == [1, 2]
