"""Calls that are wrong in a usual way: the error says what was meant."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, ParamSpec, TypeVar

__all__ = ["called", "with_hints", "with_usage"]

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def with_hints(elsewhere: Mapping[str, str]) -> Callable[[type[T]], type[T]]:
    """Let a dataclass that takes names only say, in its TypeError, which one was meant.

    *elsewhere* has what others call an option, and what to write here.
    """

    def decorate(options: type[T]) -> type[T]:
        a_dataclass: Any = options
        known = [field.name for field in fields(a_dataclass) if field.init]
        init: Callable[..., None] = options.__init__

        @functools.wraps(init)
        def checked(self: T, *args: object, **given: Any) -> None:
            if args:
                raise TypeError(f"{options.__name__} takes names only: {known[0]}=...")
            for name in given:
                if name not in known:
                    raise TypeError(f"{options.__name__} has no {name}{_hint(name)}")
            init(self, **given)

        def _hint(name: str) -> str:
            meant = elsewhere.get(name) or _meant(name, known)
            return "" if meant is None else f": did you mean {meant}?"

        setattr(options, "__init__", checked)  # noqa: B010 - a type checker forbids it otherwise
        return options

    return decorate


def with_usage(usage: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let a function that is called with the wrong arguments say, in its TypeError, its *usage*."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{error}: write {usage}") from None
            return function(*args, **kwargs)

        return checked

    return decorate


def called(name: str) -> Callable[[F], F]:
    """Let a coroutine function go by the *name* that users know, where one is never awaited."""

    def decorate(function: F) -> F:
        function.__qualname__ = name
        return function

    return decorate


def _meant(name: str, known: list[str]) -> str | None:
    """Return which of the *known* names *name* is likely to mean."""
    plain = {each.replace("_", ""): each for each in known}
    close = get_close_matches(name.replace("_", "").lower(), plain, n=1, cutoff=0.75)
    return f"{plain[close[0]]}=..." if close else None
