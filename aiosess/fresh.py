"""Handlers for which a login must be fresh: the password is asked for again before them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Final, ParamSpec, TypeAlias

from aiohttp import hdrs, web
from yarl import URL

from aiosess.errors import OptionsError
from aiosess.middleware import find_session
from aiosess.timeouts import Duration, seconds

__all__ = ["OnStale", "require_fresh", "return_path"]

P = ParamSpec("P")

OnStale: TypeAlias = (
    str | Callable[[web.Request], web.StreamResponse | Awaitable[web.StreamResponse]]
)
"""What a request gets whose login is not fresh: a page to go to, or what a function returns."""

# A form that was sent cannot be sent again by following a link.
_REPEATABLE: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})


def require_fresh(
    within: Duration, *, on_stale: OnStale | None = None, target: str = "next"
) -> Callable[
    [Callable[P, Awaitable[web.StreamResponse]]], Callable[P, Awaitable[web.StreamResponse]]
]:
    """Let a handler, or a method of a ``web.View``, run only where the login is fresh.

    ``@require_fresh(timedelta(minutes=10))`` asks for ``session.is_fresh(...)``. Where there is no
    session, nobody is logged in, or that was longer ago, the request gets *on_stale* instead.

    - *within*: seconds, or a ``timedelta``, since the last login or ``authenticated()``.
    - *on_stale*: ``None``: HTTPForbidden, which says why. A path or URL: HTTPSeeOther to it; of a
      GET request, the parameter *target* says where to return to, which is a path of this host.
      A function of the request, sync or async: what it returns, or raises.

    Raise OptionsError for what makes no sense, and what ``find_session`` raises.
    """
    age = seconds(within, name="within")
    is_page = isinstance(on_stale, str) and on_stale.startswith(("/", "http://", "https://"))
    if not (on_stale is None or is_page or callable(on_stale)):
        raise OptionsError(
            f"on_stale={on_stale!r} must be a path to go to, which begins with '/', a whole URL, "
            "or a function of the request"
        )

    def decorate(
        handler: Callable[P, Awaitable[web.StreamResponse]],
    ) -> Callable[P, Awaitable[web.StreamResponse]]:
        _check_handler(handler)

        @functools.wraps(handler)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> web.StreamResponse:
            request = _request_of(args)
            session = await find_session(request)
            if session is not None and session.is_fresh(age):
                reply = handler(*args, **kwargs)
                # As aiohttp does, take what a plain function returned.
                return await reply if inspect.isawaitable(reply) else reply
            if callable(on_stale):
                answer = on_stale(request)
                return await answer if inspect.isawaitable(answer) else answer
            if on_stale is None:
                raise web.HTTPForbidden(text=f"This takes a login in the last {age:g} seconds.")
            raise web.HTTPSeeOther(_with_target(on_stale, request, target))

        return guarded

    return decorate


def return_path(request: web.Request, *, target: str = "next", default: str = "/") -> str:
    """Return the path of this host that the parameter *target* names, to go back to.

    For the page that ``require_fresh`` sent the browser to. The parameter has been in the
    browser's hands: *default* where there is none, or where browsers could read another host in it.
    """
    given = request.query.get(target, "")
    if not given.startswith("/") or given.startswith("//"):
        return default
    # Browsers read a backslash as a slash, and leave tabs and ends of line out (WHATWG URL, 4.4).
    is_ambiguous = any(each == "\\" or each <= " " for each in given)
    return default if is_ambiguous else given


def _check_handler(handler: object) -> None:
    """Raise OptionsError for what cannot be called with a request, or cannot be awaited."""
    if not callable(handler) or isinstance(handler, type):
        raise OptionsError(
            f"require_fresh() is for handlers, and {handler!r} is none; of a View, decorate the "
            "methods"
        )
    if inspect.isfunction(handler) and not inspect.signature(handler).parameters:
        raise OptionsError(
            f"require_fresh() asks for the request's session, and {handler.__qualname__}() takes "
            "no request: give it one"
        )


def _request_of(args: tuple[object, ...]) -> web.Request:
    """Return the request that a handler, or a method, was called with."""
    for each in args:
        if isinstance(each, web.Request):
            return each
        if isinstance(each, web.View):
            return each.request
    raise TypeError("require_fresh() is for handlers of a request, and methods of a web.View")


def _with_target(page: str, request: web.Request, target: str) -> URL:
    """Return the URL of *page*, which is told where to return to."""
    url = URL(page)
    if request.method not in _REPEATABLE:
        return url
    # With two slashes it would name another host, and browsers take the other slash for one.
    back = "/" + request.path_qs.lstrip("/\\")
    return url.update_query({target: back})
