"""The session id as a cookie: read, written and cleared as express-session does."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import lru_cache
from typing import Final, TypeAlias

from aiohttp import hdrs, web

from aiosess.attributes import SECURE_PREFIXES, CookieOptions, SessionCookie, check_name
from aiosess.errors import OptionsError
from aiosess.events import Reason
from aiosess.records.decide import Action, Reply
from aiosess.records.state import SessionState
from aiosess.transports.base import Lines, SignedId, write_lines
from aiosess.transports.signing import Signer

__all__ = [
    "CookieFactory",
    "CookieTransport",
    "clearing_line",
    "cookie_line",
    "cookie_values",
    "is_secure",
    "is_under",
    "keep_out_of_caches",
    "vary_by_cookie",
    "way_to_tls",
]

# Browsers send less; each cookie header is read up to here, and all of them together.
_MOST_COOKIES: Final = 65_536

CookieFactory: TypeAlias = Callable[[web.Request], CookieOptions | Awaitable[CookieOptions]]


class CookieTransport:
    """Sends the signed session id as the cookie *name*, with the attributes in *given*.

    *proxy* says who is believed about the connection, as in is_secure(). *clock* gives Unix time.
    """

    def __init__(
        self,
        name: str,
        signer: Signer,
        given: CookieOptions | CookieFactory,
        *,
        proxy: bool | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.signer = signer
        self.proxy = proxy
        self._given = given
        self._clock = clock
        self._has_secure_name = name.lower().startswith(SECURE_PREFIXES)
        self.resolved: tuple[CookieOptions, CookieOptions] | None = None
        """The attributes without TLS and with, where they are the same for all requests."""
        if isinstance(given, CookieOptions):
            self.resolved = given.resolve(is_secure=False), given.resolve(is_secure=True)

    def is_secure(self, request: web.Request, /) -> bool:
        """Ask whether the browser's connection is encrypted."""
        return is_secure(request, proxy=self.proxy)

    async def attributes(self, request: web.Request, /, *, is_secure: bool) -> CookieOptions:
        """Return the cookie's attributes for this connection, each ``"auto"`` settled.

        Raise OptionsError where the application's function returns what cannot be this cookie.
        """
        if self.resolved is not None:
            return self.resolved[is_secure]
        return await self._asked(request, is_secure=is_secure)

    def is_sent(self, request: web.Request, cookie: CookieOptions, /) -> bool:
        """Ask whether the path of *request* is under the cookie's."""
        return is_under(request.rel_url.raw_path, cookie.path)

    def read(self, request: web.Request, /) -> Iterator[SignedId]:
        """Give the id in each cookie of our name whose signature holds."""
        return self.signer.held(cookie_values(request, self.name))

    def has_any(self, request: web.Request, /) -> bool:
        """Ask whether a cookie of our name came with *request*."""
        return any(True for _ in cookie_values(request, self.name))

    def withheld_because(self, state: SessionState, /, *, is_secure: bool) -> Reason | None:
        """Return why a browser would refuse the cookie; ``None`` where it would not."""
        if not state.cookie.secure:
            return Reason.SECURE_NAME_WITHHELD if self._has_secure_name else None
        return None if is_secure else Reason.SECURE_COOKIE_WITHHELD

    def is_for_host(self, request: web.Request, state: SessionState, /) -> bool:
        """Ask whether the host of *request* is the domain of the cookie, or below it.

        A Host header that is none says nothing against it.
        """
        domain = (state.cookie.domain or "").lower().lstrip(".")
        try:
            host = (request.url.host or "").lower()
        except ValueError:
            return True
        return not domain or host == domain or host.endswith(f".{domain}")

    def is_told_of(self, action: Action, _state: SessionState, /) -> bool:
        """Ask whether *action* gives the session an id that the browser does not have."""
        return action in {Action.CREATE, Action.RENEW}

    def tell(
        self, response: web.StreamResponse, reply: Reply, state: SessionState, told: Lines, /
    ) -> Lines:
        """Set or clear the cookie in *response*; a cookie *told* before makes way."""
        lines = self._lines(reply, state)
        if lines or told:
            write_lines(response, lines, told)
        if lines:
            keep_out_of_caches(response)
        return lines

    def vary(self, response: web.StreamResponse) -> None:
        """Tell caches that *response* differs from browser to browser."""
        vary_by_cookie(response)

    def _lines(self, reply: Reply, state: SessionState) -> Lines:
        match reply:
            case Reply.LEAVE:
                return ()
            case Reply.CLEAR:
                line = clearing_line(self.name, state.cookie)
            case Reply.SEND:
                value = self.signer.sign(state.session_id)
                line = cookie_line(self.name, value, state.cookie, now=self._clock())
        return ((hdrs.SET_COOKIE, line),)

    async def _asked(self, request: web.Request, *, is_secure: bool) -> CookieOptions:
        given = self._given
        cookie = given(request) if callable(given) else given
        if inspect.isawaitable(cookie):
            cookie = await cookie
        if not isinstance(cookie, CookieOptions):
            raise OptionsError(f"the cookie function returned {cookie!r}, not CookieOptions")
        check_name(self.name, cookie)
        return cookie.resolve(is_secure=is_secure)


def cookie_values(request: web.Request, name: str) -> Iterator[str]:
    """Give the values of all cookies called *name*, in the order in which they were sent.

    Only the first 64 kB of cookie headers are looked at, each character of them a fixed number of
    times, so that nobody holds the loop by planting cookies. Not by way of ``request.cookies``,
    which keeps the last of a name only: a cookie from a sibling domain would push ours aside.
    """
    room = _MOST_COOKIES
    for header in request.headers.getall(hdrs.COOKIE, ()):
        yield from _values_in(header[:room], name + "=")
        room -= len(header)
        if room <= 0:
            return


def _values_in(header: str, start: str) -> Iterator[str]:
    done = 0
    while (at := header.find(start, done)) >= 0:
        end = header.find(";", at)
        end = len(header) if end < 0 else end
        # Not the end of a longer name, nor a part of another cookie's value.
        first = max(header.rfind(";", done, at) + 1, done)
        if not header[first:at].strip():
            yield header[at + len(start) : end].strip(' \t"')
        done = end + 1


def is_secure(request: web.Request, *, proxy: bool | None) -> bool:
    """Ask whether the browser's connection is encrypted.

    *proxy* ``True`` believes the first value of ``X-Forwarded-Proto``, ``False`` only the
    transport, ``None`` asks ``request.secure``.
    """
    if proxy is None:
        return request.secure
    if request.get_extra_info("sslcontext") is not None:
        return True
    if not proxy:
        return False
    first = request.headers.get(hdrs.X_FORWARDED_PROTO, "").partition(",")[0]
    # A proxy may tell of a WebSocket by its own scheme, as Traefik does.
    return first.strip().lower() in {"https", "wss"}


def way_to_tls(request: web.Request | None, *, proxy: bool | None) -> str:
    """Return what to do where is_secure() said False and should not, in words without what came."""
    if not proxy:
        return "behind a TLS proxy, set proxy=True"
    if request is None or hdrs.X_FORWARDED_PROTO in request.headers:
        return (
            "proxy=True goes by X-Forwarded-Proto, and what came does not begin with https: send "
            "browsers to https, and let the proxy set the header to the scheme of theirs"
        )
    return (
        "proxy=True goes by X-Forwarded-Proto, and none came: let the proxy set it, or see who "
        "reaches the application past the proxy"
    )


def is_under(path: str, cookie_path: str) -> bool:
    """Ask whether a browser sends a cookie of *cookie_path* with *path* (RFC 6265, 5.1.4)."""
    if cookie_path in {"/", path}:
        return True
    return path.startswith(cookie_path if cookie_path.endswith("/") else cookie_path + "/")


def cookie_line(name: str, value: str, cookie: SessionCookie, *, now: float) -> str:
    """Return the ``Set-Cookie`` line for a cookie that is sent *now*; *value* is signed already."""
    expires_at = cookie.expires_at(now)
    lifetime = ""
    if expires_at is not None:
        age = max(0, math.ceil(expires_at - now))
        lifetime = f"; Max-Age={age}; Expires={_http_date(math.floor(expires_at))}"
    return f"{name}={value}{lifetime}{_attributes(cookie)}"


def clearing_line(name: str, cookie: SessionCookie) -> str:
    """Return the ``Set-Cookie`` line that removes the cookie from the browser."""
    return f"{name}=; Max-Age=0; Expires={_http_date(0)}{_attributes(cookie)}"


def keep_out_of_caches(response: web.StreamResponse) -> None:
    """Keep ``Set-Cookie`` out of caches, unless the handler has told them what to do.

    RFC 9111, section 5.2.2.4: a cache that does not know the form with a field name may take it
    for ``no-cache`` alone, or pass it by. ``private`` keeps it out of those that are shared.
    """
    response.headers.setdefault(hdrs.CACHE_CONTROL, 'private, no-cache="Set-Cookie"')


def vary_by_cookie(response: web.StreamResponse) -> None:
    """Tell caches that *response* differs from browser to browser."""
    headers = response.headers
    if headers.setdefault(hdrs.VARY, "Cookie") == "Cookie":
        return
    vary = ", ".join(filter(None, headers.getall(hdrs.VARY)))
    if not vary:
        headers[hdrs.VARY] = "Cookie"
    elif not {"*", "cookie"} & {each.strip().lower() for each in vary.split(",")}:
        headers[hdrs.VARY] = f"{vary}, Cookie"


def _attributes(cookie: SessionCookie) -> str:
    parts = [f"; Path={cookie.path}"]
    if cookie.domain is not None:
        parts.append(f"; Domain={cookie.domain}")
    if cookie.httponly:
        parts.append("; HttpOnly")
    if cookie.secure:
        parts.append("; Secure")
    if cookie.partitioned:
        parts.append("; Partitioned")
    if cookie.priority is not None:
        parts.append(f"; Priority={cookie.priority.capitalize()}")
    if cookie.samesite:
        parts.append(f"; SameSite={cookie.samesite.capitalize()}")
    return "".join(parts)


# The cookies that are sent in one second mostly end in one second, too.
@lru_cache(maxsize=64)
def _http_date(at: int) -> str:
    # RFC 9110, section 5.6.7; strftime would follow the locale.
    year, month, day, hour, minute, second, weekday, *_ = time.gmtime(at)
    return (
        f"{_WEEKDAYS[weekday]}, {day:02d} {_MONTHS[month - 1]} {year:04d} "
        f"{hour:02d}:{minute:02d}:{second:02d} GMT"
    )


_WEEKDAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)
