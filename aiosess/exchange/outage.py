"""What a request gets while the storage does not answer."""

from __future__ import annotations

from typing import Protocol

from aiohttp import web

from aiosess.errors import StorageUnavailable
from aiosess.events import Events, Reason

__all__ = ["GoOn", "OutagePolicy", "Refuse"]


class OutagePolicy(Protocol):
    """Decides what becomes of a request whose storage does not answer."""

    def meet(self, error: StorageUnavailable, *, has_left: bool = False) -> None:
        """Return where the request goes on without its session, else raise what it gets.

        *has_left*: it is too late for another answer, because the headers are out.
        """
        ...


class GoOn:
    """Lets the handler decide: there is no session, and no error."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def meet(self, error: StorageUnavailable, *, has_left: bool = False) -> None:  # noqa: ARG002
        """Return: the request goes on without its session."""
        self._events.tell(Reason.WITHOUT_SESSION, error=error)


class Refuse:
    """Answers with an internal server error."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def meet(self, error: StorageUnavailable, *, has_left: bool = False) -> None:
        """Raise HTTPInternalServerError, or *error* itself where the headers have left."""
        if has_left:
            raise error
        self._events.tell(Reason.REFUSED, error=error)
        raise web.HTTPInternalServerError(text="The session storage does not answer.") from error
