"""What a request gets while the storage does not answer."""

from __future__ import annotations

from typing import NoReturn, Protocol

from aiohttp import web

from aiosess.errors import StorageUnavailable
from aiosess.events import Events, Reason

__all__ = ["GoOn", "OutagePolicy", "Refuse"]


class OutagePolicy(Protocol):
    """Decides what becomes of a request whose storage does not answer."""

    def go_without(self, error: StorageUnavailable) -> None:
        """Return where a handler that can do without a session may run, else refuse()."""
        ...

    def refuse(self, error: StorageUnavailable, *, has_left: bool = False) -> NoReturn:
        """Raise what a request gets that needs its session, or whose session cannot be kept.

        *has_left*: it is too late for another answer, because the headers are out.
        """
        ...


class Refuse:
    """Answers with an internal server error."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def go_without(self, error: StorageUnavailable) -> None:
        """Raise HTTPInternalServerError: no handler runs without the session it was promised."""
        self.refuse(error)

    def refuse(self, error: StorageUnavailable, *, has_left: bool = False) -> NoReturn:
        """Raise HTTPInternalServerError, or *error* itself where the headers have left."""
        if has_left:
            raise error
        self._events.tell(Reason.REFUSED, error=error)
        raise web.HTTPInternalServerError(text="The session storage does not answer.") from error


class GoOn(Refuse):
    """Lets a handler decide that asks whether there is a session; refuses where one is needed."""

    def go_without(self, error: StorageUnavailable) -> None:
        """Return: there is no session, and no error."""
        self._events.tell(Reason.WITHOUT_SESSION, error=error)
