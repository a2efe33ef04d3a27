"""What a request gets while the storage does not answer, as the options say it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias, cast

from aiohttp import hdrs, web
from msgspec import Struct

from aiosess.errors import OptionsError, StorageUnavailable

__all__ = [
    "ANONYMOUS",
    "OnUnavailable",
    "Outage",
    "answer_to",
    "check_on_unavailable",
    "unavailable",
]

ANONYMOUS: Final = "anonymous"

# What a client is told that comes too early; those who tell no time are told one second.
_LEAST_RETRY_AFTER: Final = 1
_WITH_RETRY_AFTER: Final = frozenset({429, 503})
_TEXT: Final = "The session storage does not answer."


class Outage(Struct, frozen=True):
    """What failed, for a function that decides what a request gets.

    - ``operation``: the verb that the storage was asked for: ``"load"``, ``"create"``,
      ``"replace"``, ``"touch"`` or ``"delete"``; ``None`` where that is not known.
    - ``reason``: why, in words without a session id.
    - ``node``: the server, as ``host:port``; ``None`` where that is not known.
    - ``retry_after``: the seconds until it is asked again; 0 where any request may ask it.
    """

    operation: str | None
    reason: str
    node: str | None
    retry_after: float


OnUnavailable: TypeAlias = (
    type[web.HTTPException]
    | web.HTTPException
    | Literal["anonymous"]
    | Callable[[web.Request, Outage], "web.HTTPException | Literal['anonymous']"]
)
"""What ``SessionOptions.on_unavailable`` takes."""


def check_on_unavailable(given: object) -> None:
    """Raise OptionsError unless *given* is something that a request can get."""
    if given == ANONYMOUS:
        return
    if isinstance(given, type) and issubclass(given, web.HTTPException):
        try:
            given()
        except (TypeError, ValueError) as error:
            raise OptionsError(
                f"on_unavailable={given.__name__} cannot be made without arguments ({error}): "
                "give one that is made, or a function that returns one"
            ) from None
        return
    if isinstance(given, web.HTTPException):
        _fresh(given)
        return
    if isinstance(given, type) or not callable(given):
        raise OptionsError(
            f"on_unavailable={given!r} must be an HTTP error, such as "
            "web.HTTPServiceUnavailable, 'anonymous', or a function of request and outage"
        )
    if inspect.iscoroutinefunction(given):
        raise OptionsError(f"on_unavailable={given!r} is a coroutine function: give a plain one")


def answer_to(
    given: OnUnavailable, request: web.Request | None, error: StorageUnavailable
) -> web.HTTPException | None:
    """Return what *request* gets, as *given* says; ``None``: it goes on anonymously."""
    decided: object = given
    if not isinstance(given, str | type | web.HTTPException):
        outage = Outage(error.operation, str(error), error.node, error.retry_after)
        decided = given(cast("web.Request", request), outage)
    if decided == ANONYMOUS:
        return None
    if isinstance(decided, type) and issubclass(decided, web.HTTPException):
        answer = decided(text=_TEXT)
    elif isinstance(decided, web.HTTPException):
        answer = _fresh(decided)
    else:
        raise OptionsError(
            f"on_unavailable returned {decided!r}: return an HTTP error or 'anonymous', or raise"
        )
    return _until_then(answer, error)


def unavailable(error: StorageUnavailable) -> web.HTTPException:
    """Return 503, for what is not to be answered as if it had been done."""
    return _until_then(web.HTTPServiceUnavailable(text=_TEXT), error)


def _until_then(answer: web.HTTPException, error: StorageUnavailable) -> web.HTTPException:
    """Say in *answer* when to come again, and that nobody is to keep it."""
    answer.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
    if answer.status in _WITH_RETRY_AFTER:
        seconds = max(_LEAST_RETRY_AFTER, math.ceil(error.retry_after))
        answer.headers.setdefault(hdrs.RETRY_AFTER, str(seconds))
    return answer


def _fresh(given: web.HTTPException) -> web.HTTPException:
    """Return an answer like *given*, which is sent once only."""
    kind = cast("Any", type(given))
    known: dict[str, Any] = {"headers": given.headers, "reason": given.reason}
    if given.body is not None:
        known["text"] = given.text
    arguments = (given.location,) if isinstance(given, web.HTTPMove) else ()
    try:
        return cast("web.HTTPException", kind(*arguments, **known))
    except (TypeError, ValueError) as error:
        raise OptionsError(
            f"on_unavailable={given!r} cannot be made again for each request ({error}): "
            "give a function that returns one"
        ) from None
