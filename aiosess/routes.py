"""Which requests get a session: decided on the matched route, once for each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Final, TypeAlias, cast

from aiohttp import hdrs, web
from aiohttp.web_urldispatcher import DynamicResource, SystemRoute

from aiosess.errors import OptionsError

__all__ = ["Route", "RouteEntry", "RouteSelector"]

_ANY_METHOD: Final = hdrs.METH_ANY


# RFC 9110 and the registry of IANA, and what caches are told.
_METHODS: Final = hdrs.METH_ALL | {
    _ANY_METHOD,
    *("ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "COPY", "LABEL", "LINK", "LOCK"),
    *("MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MKREDIRECTREF", "MKWORKSPACE", "MOVE"),
    *("ORDERPATCH", "PROPFIND", "PROPPATCH", "PURGE", "QUERY", "REBIND", "REPORT", "SEARCH"),
    *("UNBIND", "UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE", "UPDATEREDIRECTREF"),
    "VERSION-CONTROL",
}


@dataclass(frozen=True, slots=True)
class Route:
    """A path or a resource's name, for one HTTP method only (``GET`` includes ``HEAD``).

    Raise OptionsError for what is no path or name, or no method of HTTP.
    """

    path_or_name: str
    method: str = _ANY_METHOD

    def __post_init__(self) -> None:
        if not isinstance(self.path_or_name, str) or not self.path_or_name:
            raise OptionsError(f"Route({self.path_or_name!r}) needs a path or a resource's name")
        if not isinstance(self.method, str) or not self.method:
            raise OptionsError(f"Route(method={self.method!r}) needs a method such as 'POST'")
        method = self.method.upper()
        if method not in _METHODS:
            close = get_close_matches(method, sorted(hdrs.METH_ALL), n=1)
            meant = f": did you mean {close[0]!r}?" if close else ""
            raise OptionsError(f"Route(method={self.method!r}) is no method of HTTP{meant}")
        object.__setattr__(self, "method", method)


RouteEntry: TypeAlias = (
    str | Route | web.AbstractResource | web.AbstractRoute | Callable[..., Any] | type[web.View]
)
"""What ``for_routes`` and ``exclude`` take: a name or path, a Route, or what was registered."""


class RouteSelector:
    """Asks whether the route that a request matched gets a session.

    *for_routes* ``None`` means every route but static ones, and those too *with_static*;
    *exclude* wins over it. *option* is what the first is called in errors. Raise OptionsError for
    an entry that cannot be one.
    """

    decided: dict[web.AbstractRoute, bool]
    """What was decided on a route, for all its requests; it need not be asked again."""

    def __init__(
        self,
        for_routes: Iterable[RouteEntry] | None,
        exclude: Iterable[RouteEntry],
        *,
        with_static: bool = False,
        option: str = "for_routes",
    ) -> None:
        self._with_static = with_static
        self._included = None if for_routes is None else _entries(for_routes, option)
        self._excluded = _entries(exclude, "exclude")
        self.decided = {}

    def selects(self, request: web.Request) -> bool:
        """Ask whether *request* gets a session."""
        route = request.match_info.route
        decision = self.decided.get(route)
        if decision is not None:
            return decision
        return self._decide(route, request.method)

    def check(self, app: web.Application) -> None:
        """Raise OptionsError for an entry that no route of *app* or its sub-applications bears."""
        routes = list(app.router.routes())
        for entry in (*(self._included or ()), *self._excluded):
            if not any(entry.bears(route) for route in routes):
                raise OptionsError(entry.complaint(routes))

    @property
    def is_empty(self) -> bool:
        """Whether no route can be selected: ``for_routes=[]``."""
        return self._included == ()

    def methods_of(self, route: web.AbstractRoute) -> frozenset[str]:
        """Return the methods with which *route* gets a session; none for 404 and 405."""
        if isinstance(route, SystemRoute):
            return frozenset()
        methods = hdrs.METH_ALL if route.method == _ANY_METHOD else {route.method}
        return frozenset(method for method in methods if self._selects(route, method))

    def _decide(self, route: web.AbstractRoute, method: str) -> bool:
        if isinstance(route, SystemRoute):
            # 404 and 405; such a route is made anew for each request, so nothing is kept.
            return self._included is None
        if route.method != _ANY_METHOD:
            method = route.method
        decision = self._selects(route, method)
        if route.method != _ANY_METHOD or not self._asks_for_methods():
            self.decided[route] = decision
        return decision

    def _selects(self, route: web.AbstractRoute, method: str) -> bool:
        if any(entry.matches(route, method) for entry in self._excluded):
            return False
        if self._included is None:
            return self._with_static or not isinstance(route.resource, web.StaticResource)
        return any(entry.matches(route, method) for entry in self._included)

    def _asks_for_methods(self) -> bool:
        entries = (*(self._included or ()), *self._excluded)
        return any(entry.method != _ANY_METHOD for entry in entries)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry, ready to be compared: *bears* asks about the route, whatever the method."""

    option: str
    given: object
    is_borne: Callable[[web.AbstractRoute], bool]
    method: str = _ANY_METHOD

    def bears(self, route: web.AbstractRoute) -> bool:
        return self.is_borne(route) and (route.method == _ANY_METHOD or self._takes(route.method))

    def matches(self, route: web.AbstractRoute, method: str) -> bool:
        return self._takes(method) and self.is_borne(route)

    def complaint(self, routes: list[web.AbstractRoute]) -> str:
        known = sorted({str(name) for name in _names_and_paths(routes)})
        return (
            f"{self.option} has {self.given!r}, which no route of the application bears; "
            f"there are: {', '.join(known) or 'no routes at all'}"
        )

    def _takes(self, method: str) -> bool:
        if self.method == hdrs.METH_GET:
            return method in {hdrs.METH_GET, hdrs.METH_HEAD}
        return self.method in {_ANY_METHOD, method}


def _entries(given: object, option: str) -> tuple[_Entry, ...]:
    if isinstance(given, str | Route) or not isinstance(given, Iterable):
        raise OptionsError(f"{option}={given!r} must be a list: {option}=[{given!r}]")
    return tuple(_entry(entry, option) for entry in cast("Iterable[object]", given))


def _entry(entry: object, option: str) -> _Entry:
    if isinstance(entry, Route):
        return _Entry(option, entry, _by_text(entry.path_or_name), entry.method)
    if isinstance(entry, str) and entry:
        return _Entry(option, entry, _by_text(entry))
    if isinstance(entry, web.AbstractRoute):
        return _Entry(option, entry, _by_route(entry))
    if isinstance(entry, web.AbstractResource):
        return _Entry(option, entry, _by_resource(entry))
    if callable(entry):
        return _Entry(option, entry, lambda route: route.handler == entry)
    raise OptionsError(
        f"{option} has {entry!r}: give a resource's name, a path, a Route, "
        "a resource, a route, or a handler"
    )


def _by_text(text: str) -> Callable[[web.AbstractRoute], bool]:
    return _by_path(text) if text.startswith("/") else _by_name(text)


def _by_name(pattern: str) -> Callable[[web.AbstractRoute], bool]:
    return lambda route: route.name is not None and fnmatchcase(route.name, pattern)


def _by_route(entry: web.AbstractRoute) -> Callable[[web.AbstractRoute], bool]:
    def is_borne(route: web.AbstractRoute) -> bool:
        if route is entry:
            return True
        # add_get() registers HEAD beside GET, and returns the latter only.
        return (
            (entry.method, route.method) == (hdrs.METH_GET, hdrs.METH_HEAD)
            and route.resource is entry.resource
            and route.handler == entry.handler
        )

    return is_borne


def _by_resource(entry: web.AbstractResource) -> Callable[[web.AbstractRoute], bool]:
    # A sub-application's resource holds the routes of all its own.
    return lambda route: route.resource is entry or any(route is each for each in entry)


def _by_path(path: str) -> Callable[[web.AbstractRoute], bool]:
    """Compare with the path that the resource was given, sub-application's prefix included.

    A placeholder with a pattern of its own, as in ``/admin/{tail:.*}``, takes in every resource
    whose path fits, but static ones. A placeholder without one, as in ``/users/{id}``, takes in
    only the resource that was declared so.
    """
    try:
        wanted = DynamicResource(path)
    except ValueError as error:
        raise OptionsError(f"{path!r} is not a path that aiohttp takes: {error}") from error
    exact = cast("re.Pattern[str]", wanted.get_info().get("pattern")).pattern
    has_own_pattern = re.search(r"\{\w+:", path) is not None
    subtree = re.compile(exact.replace(DynamicResource.GOOD, "[^/]+"))

    def is_borne(route: web.AbstractRoute) -> bool:
        resource = route.resource
        if resource is None:
            return False
        declared = resource.get_info().get("pattern")
        if (declared.pattern if declared else re.escape(resource.canonical)) == exact:
            return True
        if not has_own_pattern or isinstance(resource, web.StaticResource):
            return False
        return subtree.fullmatch(resource.canonical) is not None

    return is_borne


def _names_and_paths(routes: list[web.AbstractRoute]) -> Iterator[str]:
    for route in routes:
        if route.name is not None:
            yield route.name
        elif route.resource is not None:
            yield route.resource.canonical
