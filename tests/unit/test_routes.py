"""Which requests get a session: every form of for_routes and exclude, on a real router."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from aiohttp.web_urldispatcher import SystemRoute

from aiosess import OptionsError, Route
from aiosess.routes import RouteSelector, _names_and_paths


async def views(request: web.Request) -> web.Response:
    return web.Response()


async def other(request: web.Request) -> web.Response:
    return web.Response()


class Profile(web.View):
    async def get(self) -> web.Response:
        return web.Response()


class Desk:
    async def answer(self, _request: web.Request) -> web.Response:
        return web.Response()


DESK = Desk()


@pytest.fixture
def app(tmp_path: Path) -> web.Application:
    """An application with one of each: names, paths, methods, a view, files, a sub-application."""
    admin = web.Application()
    admin.router.add_get("/users", other, name="admin.users")
    admin.router.add_get("/users/{id}", other, name="admin.user")
    app = web.Application()
    app.router.add_get("/views", views, name="views")
    app.router.add_post("/views", other, name="views")
    app.router.add_get("/unnamed", other)
    app.router.add_get("/users/{id}", other, name="user")
    app.router.add_get(r"/orders/{id:\d+}", other, name="order")
    app.router.add_route("*", "/any", other, name="any")
    app.router.add_view("/profile", Profile, name="profile")
    app.router.add_get("/desk", DESK.answer, name="desk")
    app.router.add_static("/static", tmp_path, name="static")
    app.add_subapp("/admin", admin)
    return app


async def selects(
    app: web.Application,
    method: str,
    path: str,
    *,
    for_routes: Iterable[Any] | None = None,
    exclude: Iterable[Any] = (),
) -> bool:
    selector = RouteSelector(for_routes, exclude)
    selector.check(app)
    return selector.selects(await matched(app, method, path))


async def matched(app: web.Application, method: str, path: str) -> web.Request:
    request = make_mocked_request(method, path)
    request._match_info = await app.router.resolve(request)
    return request


# Each form


@pytest.mark.parametrize(
    ("entry", "method", "path", "expected"),
    [
        # A resource's name.
        ("views", "GET", "/views", True),
        ("views", "HEAD", "/views", True),
        ("views", "POST", "/views", True),
        ("views", "GET", "/unnamed", False),
        ("user", "GET", "/users/5", True),
        ("user", "GET", "/admin/users/5", False),
        # With wildcards.
        ("admin.*", "GET", "/admin/users", True),
        ("admin.*", "GET", "/admin/users/5", True),
        ("admin.*", "GET", "/views", False),
        ("admin.user?", "GET", "/admin/users", True),
        ("admin.user?", "GET", "/admin/users/5", False),
        ("[vp]*", "GET", "/views", True),
        ("[vp]*", "GET", "/any", False),
        ("*", "GET", "/views", True),
        ("*", "GET", "/unnamed", False),
        # A path, as it was declared.
        ("/views", "GET", "/views", True),
        ("/views", "POST", "/views", True),
        ("/views", "GET", "/unnamed", False),
        ("/unnamed", "GET", "/unnamed", True),
        ("/users/{id}", "GET", "/users/5", True),
        ("/users/{id}", "GET", "/admin/users/5", False),
        (r"/orders/{id:\d+}", "GET", "/orders/5", True),
        ("/admin/users", "GET", "/admin/users", True),
        ("/admin/users/{id}", "GET", "/admin/users/5", True),
        # A path with a pattern takes in what is below.
        ("/admin/{tail:.*}", "GET", "/admin/users", True),
        ("/admin/{tail:.*}", "GET", "/admin/users/5", True),
        ("/admin/{tail:.*}", "GET", "/views", False),
        ("/{tail:.*}", "GET", "/views", True),
        # One method of a path or name.
        (Route("/views", method="POST"), "POST", "/views", True),
        (Route("/views", method="POST"), "GET", "/views", False),
        (Route("/views", method="get"), "GET", "/views", True),
        (Route("/views", method="GET"), "HEAD", "/views", True),
        (Route("/views", method="GET"), "POST", "/views", False),
        (Route("views", method="HEAD"), "HEAD", "/views", True),
        (Route("views", method="HEAD"), "GET", "/views", False),
        (Route("views"), "POST", "/views", True),
        (Route("any", method="PUT"), "PUT", "/any", True),
        (Route("any", method="PUT"), "GET", "/any", False),
        (Route("any", method="GET"), "HEAD", "/any", True),
        (Route("admin.*", method="GET"), "GET", "/admin/users", True),
        # A handler.
        (views, "GET", "/views", True),
        (views, "HEAD", "/views", True),
        (views, "POST", "/views", False),
        (other, "GET", "/admin/users", True),
        (Profile, "GET", "/profile", True),
        (Profile, "POST", "/profile", True),
        (Profile, "GET", "/views", False),
        (DESK.answer, "GET", "/desk", True),
        (DESK.answer, "GET", "/views", False),
    ],
)
class TestForms:
    async def test_included(
        self, *, app: web.Application, entry: Any, method: str, path: str, expected: bool
    ) -> None:
        assert await selects(app, method, path, for_routes=[entry]) is expected

    async def test_excluded(
        self, *, app: web.Application, entry: Any, method: str, path: str, expected: bool
    ) -> None:
        assert await selects(app, method, path, exclude=[entry]) is not expected


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/views", True),
        ("HEAD", "/views", True),
        ("POST", "/views", False),
        ("GET", "/unnamed", False),
    ],
)
async def test_a_route_object_stands_for_itself_and_its_head(
    *, app: web.Application, method: str, path: str, expected: bool
) -> None:
    route = next(route for route in app.router["views"] if route.method == "GET")

    assert await selects(app, method, path, for_routes=[route]) is expected


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [("GET", "/views", True), ("POST", "/views", True), ("GET", "/unnamed", False)],
)
async def test_a_resource_object_stands_for_all_its_routes(
    *, app: web.Application, method: str, path: str, expected: bool
) -> None:
    resource = app.router["views"]

    assert await selects(app, method, path, for_routes=[resource]) is expected


@pytest.mark.parametrize(
    ("path", "expected"), [("/admin/users", True), ("/admin/users/5", True), ("/views", False)]
)
async def test_a_sub_applications_resource_stands_for_all_its_routes(
    *, app: web.Application, path: str, expected: bool
) -> None:
    resource = next(
        each for each in app.router.resources() if isinstance(each, web.PrefixedSubAppResource)
    )

    assert await selects(app, "GET", path, for_routes=[resource]) is expected


@pytest.mark.parametrize(
    ("entry", "expected"),
    [("static", True), ("/static", True), ("s*", True), ("/{tail:.*}", False), ("*", True)],
)
async def test_files_get_a_session_only_when_they_are_named(
    *, app: web.Application, entry: str, expected: bool
) -> None:
    assert await selects(app, "GET", "/static/a.css", for_routes=[entry]) is expected


# All together


@pytest.mark.parametrize(
    ("path", "expected"), [("/views", True), ("/unnamed", True), ("/static/a.css", False)]
)
async def test_by_default_every_route_but_files_gets_a_session(
    *, app: web.Application, path: str, expected: bool
) -> None:
    assert await selects(app, "GET", path) is expected


@pytest.mark.parametrize("path", ["/views", "/static/a.css", "/missing"])
async def test_an_empty_list_attaches_nowhere(app: web.Application, path: str) -> None:
    assert not await selects(app, "GET", path, for_routes=[])


@pytest.mark.parametrize(
    ("path", "expected"), [("/admin/users", False), ("/admin/users/5", True), ("/views", False)]
)
async def test_exclude_wins(*, app: web.Application, path: str, expected: bool) -> None:
    chosen = await selects(
        app, "GET", path, for_routes=["admin.*"], exclude=["/admin/users", "views"]
    )

    assert chosen is expected


async def test_one_entry_of_several_is_enough(app: web.Application) -> None:
    assert await selects(app, "GET", "/views", for_routes=["any", "/unnamed", views])


async def test_entries_may_come_from_a_generator(app: web.Application) -> None:
    assert await selects(app, "GET", "/views", for_routes=(name for name in ["any", "views"]))


@pytest.mark.parametrize(("method", "path"), [("GET", "/missing"), ("DELETE", "/views")])
@pytest.mark.parametrize(
    ("for_routes", "expected"), [(None, True), (["views"], False), (["*"], False), ([], False)]
)
async def test_404_and_405_get_a_session_only_where_every_route_does(
    *,
    app: web.Application,
    method: str,
    path: str,
    for_routes: list[str] | None,
    expected: bool,
) -> None:
    assert await selects(app, method, path, for_routes=for_routes) is expected


# The decision is kept


async def test_the_decision_is_kept_for_each_route(app: web.Application) -> None:
    selector = RouteSelector(["users.*", "views"], ["any"])

    decisions = [selector.selects(await matched(app, "GET", f"/users/{n}")) for n in range(100)]

    assert decisions == [False] * 100
    assert len(selector.decided) == 1


async def test_a_kept_decision_is_the_same_decision(app: web.Application) -> None:
    selector = RouteSelector(["views"], [])
    first = selector.selects(await matched(app, "GET", "/views"))

    again = selector.selects(await matched(app, "GET", "/views"))

    assert (first, again) == (True, True)


async def test_routes_that_do_not_exist_leave_nothing_behind(app: web.Application) -> None:
    selector = RouteSelector(None, [])

    decisions = [selector.selects(await matched(app, "GET", f"/missing/{n}")) for n in range(100)]

    assert decisions == [True] * 100
    assert len(selector.decided) == 0


@pytest.mark.parametrize("methods", [("GET", "PUT"), ("PUT", "GET")])
async def test_a_route_for_any_method_is_decided_by_the_method_of_each_request(
    app: web.Application, methods: tuple[str, str]
) -> None:
    selector = RouteSelector([Route("any", method="PUT")], [])

    chosen = {method: selector.selects(await matched(app, method, "/any")) for method in methods}

    assert chosen == {"GET": False, "PUT": True}


class BareRoute(web.AbstractRoute):
    """A route of a router that is not aiohttp's: it has no resource and no name."""

    @property
    def name(self) -> None:
        return None

    def get_info(self) -> Any:
        return {}

    def url_for(self, *_args: str, **_kwargs: str) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("for_routes", "expected"),
    [(None, True), ([views], True), (["/views"], False), (["views"], False), (["*"], False)],
)
def test_a_route_of_a_router_of_ones_own_is_known_by_its_handler(
    *, for_routes: list[Any] | None, expected: bool
) -> None:
    request = make_mocked_request("GET", "/views")
    request._match_info = web.UrlMappingMatchInfo({}, BareRoute("GET", views))

    assert RouteSelector(for_routes, ()).selects(request) is expected


# What is refused


@pytest.mark.parametrize(
    "entry",
    [
        "vews",
        "admin",
        "Views",
        "shop.*",
        "/view",
        "/views/",
        "/users/{name}",
        "/shop/{tail:.*}",
        "/users",
        Route("/views", method="DELETE"),
        Route("nowhere"),
        functools.partial(views),
    ],
    ids=repr,
)
@pytest.mark.parametrize("option", ["for_routes", "exclude"])
def test_what_no_route_bears_is_refused(app: web.Application, option: str, entry: Any) -> None:
    given: dict[str, Any] = {"for_routes": None, "exclude": (), option: [entry]}
    selector = RouteSelector(**given)

    with pytest.raises(OptionsError) as caught:
        selector.check(app)

    message = str(caught.value)
    assert message.startswith(f"{option} has {entry!r}, which no route of the application bears; ")


def test_the_message_lists_what_there_is(app: web.Application) -> None:
    with pytest.raises(OptionsError) as caught:
        RouteSelector(["vews"], []).check(app)

    assert str(caught.value).endswith(
        "there are: /unnamed, admin.user, admin.users, any, desk, order, profile, static, user, "
        "views"
    )


def test_an_application_without_routes_says_so() -> None:
    with pytest.raises(OptionsError, match=r"there are: no routes at all$"):
        RouteSelector(["views"], []).check(web.Application())


def test_a_route_or_resource_of_another_application_is_refused(app: web.Application) -> None:
    route = web.Application().router.add_get("/views", views)

    with pytest.raises(OptionsError, match="which no route of the application bears"):
        RouteSelector([route], []).check(app)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("views", "for_routes='views' must be a list: for_routes=['views']"),
        (Route("views"), "must be a list"),
        (5, "for_routes=5 must be a list"),
        ([5], "for_routes has 5: give a resource's name, a path, a Route, a resource, a route"),
        ([None], "for_routes has None: give a resource's name"),
        ([""], "for_routes has '': give a resource's name"),
        ([b"views"], "for_routes has b'views': give a resource's name"),
        (["/users/{id"], "'/users/{id' is not a path that aiohttp takes"),
        (["/users/{id:[}"], "'/users/{id:[}' is not a path that aiohttp takes"),
    ],
)
def test_an_entry_that_cannot_be_one_is_refused(given: Any, message: str) -> None:
    with pytest.raises(OptionsError) as caught:
        RouteSelector(given, ())

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("",), "Route('') needs a path or a resource's name"),
        ((5,), "Route(5) needs a path or a resource's name"),
        (("views", ""), "Route(method='') needs a method such as 'POST'"),
        (("views", None), "Route(method=None) needs a method such as 'POST'"),
    ],
)
def test_a_route_that_makes_no_sense_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(OptionsError) as caught:
        Route(*arguments)

    assert str(caught.value) == message


def test_what_is_of_no_resource_is_called_nothing() -> None:
    assert list(_names_and_paths([SystemRoute(web.HTTPNotFound())])) == []


@pytest.mark.parametrize("method", ["post", "POST", "Post"])
def test_a_routes_method_is_written_large(method: str) -> None:
    assert Route("views", method=method) == Route("views", method="POST")


def test_a_method_that_the_resource_takes_by_another_route_is_known(app: web.Application) -> None:
    RouteSelector([Route("any", method="PATCH")], []).check(app)


@pytest.mark.parametrize(
    ("method", "meant"), [("GTE", "GET"), ("psot", "POST"), ("DELTE", "DELETE")]
)
def test_a_method_that_http_does_not_have_is_refused(method: str, meant: str) -> None:
    with pytest.raises(OptionsError) as caught:
        Route("/cart", method=method)

    assert str(caught.value) == (
        f"Route(method={method!r}) is no method of HTTP: did you mean {meant!r}?"
    )


@pytest.mark.parametrize("method", ["get", "PROPFIND", "PURGE", "QUERY", "*"])
def test_a_method_that_http_has_is_taken(method: str) -> None:
    assert Route("/cart", method=method).method == method.upper()
