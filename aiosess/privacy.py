"""What is not shown: ids, data and secrets, in tracebacks, logs and error trackers."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TypeVar

__all__ = ["forget_locals", "private"]

T = TypeVar("T")


def private(*shown: str) -> Callable[[type[T]], type[T]]:
    """Let ``repr()`` of a class, and what trackers make of it, tell no attributes but these."""

    def decorate(holder: type[T]) -> type[T]:
        def told(self: T) -> str:
            attributes = (f" {name}={getattr(self, name)!r}" for name in shown)
            return f"<{type(self).__name__}{''.join(attributes)}>"

        # Sentry's own look into what is a tuple or a mapping, and show each item.
        for name in ("__repr__", "__sentry_repr__"):
            setattr(holder, name, told)
        return holder

    return decorate


def forget_locals(error: BaseException) -> None:
    """Take the local variables of what is over out of the tracebacks of *error* and its causes.

    The lines stay. Calls that are still under way keep their variables.
    """
    seen: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in seen:
        traceback.clear_frames(each.__traceback__)
        seen.append(each)
        each = each.__cause__ or each.__context__
