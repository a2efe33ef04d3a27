"""How a session id travels: the seam between an exchange and its request and response."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol, TypeAlias

from aiohttp import web

from aiosess.attributes import CookieOptions
from aiosess.events import Reason
from aiosess.privacy import private
from aiosess.records.decide import Action, Reply
from aiosess.records.state import SessionState

__all__ = ["Lines", "SignedId", "Transport", "write_lines"]


@private("is_current")
class SignedId(NamedTuple):
    """A session id whose signature holds; *is_current*: it was made with the first secret."""

    session_id: str
    is_current: bool


Lines: TypeAlias = tuple[tuple[str, str], ...]
"""Header lines, each with its name and its value."""


class Transport(Protocol):
    """Reads the session id from requests, and tells the client by responses which it is now."""

    def is_secure(self, request: web.Request, /) -> bool:
        """Ask whether the client's connection is encrypted."""
        ...

    async def attributes(self, request: web.Request, /, *, is_secure: bool) -> CookieOptions:
        """Return the cookie's attributes for this connection, each ``"auto"`` settled."""
        ...

    def is_sent(self, request: web.Request, cookie: CookieOptions, /) -> bool:
        """Ask whether clients send the id along with requests to the path of *request*."""
        ...

    def read(self, request: web.Request, /) -> Iterable[SignedId]:
        """Give the ids that came with *request* and can be used, one after another."""
        ...

    def has_any(self, request: web.Request, /) -> bool:
        """Ask whether anything came with *request* that may have been an id."""
        ...

    def withheld_because(self, state: SessionState, /, *, is_secure: bool) -> Reason | None:
        """Return why the client would refuse the id of *state*; ``None`` where it would not."""
        ...

    def is_for_host(self, request: web.Request, state: SessionState, /) -> bool:
        """Ask whether clients take the id of *state* from the host of *request*."""
        ...

    def is_told_of(self, action: Action, state: SessionState, /) -> bool:
        """Ask whether *action* is of use only where the client can still be told of it."""
        ...

    def tell(
        self, response: web.StreamResponse, reply: Reply, state: SessionState, told: Lines, /
    ) -> Lines:
        """Tell the client what *reply* says, in the headers of *response*.

        *told* is what it was told before, perhaps on another response; it makes way. Return what it
        is told now.
        """
        ...

    def vary(self, response: web.StreamResponse) -> None:
        """Tell caches that *response* differs from client to client."""
        ...


def write_lines(response: web.StreamResponse, lines: Lines, told: Lines) -> None:
    """Put *lines* into the headers of *response*, in the place of those *told* before."""
    headers = response.headers
    for name in {name for name, _ in (*told, *lines)}:
        ours = {line for each, line in told if each == name}
        others = [value for value in headers.popall(name, ()) if value not in ours]
        _add(response, name, (*others, *(line for each, line in lines if each == name)))


def _add(response: web.StreamResponse, name: str, values: Iterable[str]) -> None:
    for value in values:
        response.headers.add(name, value)
