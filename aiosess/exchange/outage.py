"""What becomes of a request whose storage does not answer."""

from __future__ import annotations

from typing import NoReturn, Protocol

from aiohttp import web

from aiosess.errors import StorageUnavailable
from aiosess.events import Events, Reason
from aiosess.outages import OnUnavailable, answer_to, unavailable

__all__ = ["AsOptionsSay", "OutagePolicy"]


class OutagePolicy(Protocol):
    """Decides what becomes of a request whose storage does not answer."""

    def opens_anonymously(
        self, request: web.Request | None, error: StorageUnavailable, *, required: bool
    ) -> bool:
        """Return whether an empty session stands in; False: there is none.

        Raise what the request gets where it cannot go on. *required*: None will not do.
        """
        ...

    def lose(
        self, request: web.Request | None, error: StorageUnavailable, *, has_left: bool
    ) -> None:
        """Return where what could not be kept may be lost, else refuse()."""
        ...

    def refuse(
        self, request: web.Request | None, error: StorageUnavailable, *, has_left: bool
    ) -> NoReturn:
        """Raise what a request gets that is not to be answered as if it had been done.

        *has_left*: it is too late for another answer, because the headers are out.
        """
        ...


class AsOptionsSay:
    """Does what *on_unavailable* says; *finds_none*: find_session() may return ``None``."""

    def __init__(self, on_unavailable: OnUnavailable, events: Events, *, finds_none: bool) -> None:
        self._on_unavailable: OnUnavailable = on_unavailable
        self._events = events
        self._finds_none = finds_none

    def opens_anonymously(
        self, request: web.Request | None, error: StorageUnavailable, *, required: bool
    ) -> bool:
        """Return whether an empty session stands in, or raise what the request gets."""
        if self._finds_none and not required:
            self._events.tell(Reason.WITHOUT_SESSION, request=request, error=error)
            return False
        answer = answer_to(self._on_unavailable, request, error)
        if answer is not None:
            self._raise(answer, request, error, has_left=False)
        self._events.tell(Reason.ANONYMOUS, request=request, error=error)
        return True

    def lose(
        self, request: web.Request | None, error: StorageUnavailable, *, has_left: bool
    ) -> None:
        """Return where the options allow that a change is lost, else refuse()."""
        answer = answer_to(self._on_unavailable, request, error)
        if answer is not None:
            self._raise(answer, request, error, has_left=has_left)
        self._events.tell(Reason.NOT_KEPT, request=request, error=error)

    def refuse(
        self, request: web.Request | None, error: StorageUnavailable, *, has_left: bool
    ) -> NoReturn:
        """Raise the answer, 503 where the options say anonymous; *error* where it has left."""
        answer = answer_to(self._on_unavailable, request, error)
        self._raise(answer or unavailable(error), request, error, has_left=has_left)

    def _raise(
        self,
        answer: web.HTTPException,
        request: web.Request | None,
        error: StorageUnavailable,
        *,
        has_left: bool,
    ) -> NoReturn:
        if has_left:
            raise error
        self._events.tell(Reason.REFUSED, request=request, error=error)
        raise answer from error
