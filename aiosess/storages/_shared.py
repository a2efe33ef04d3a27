"""What the storages of this package have in common; one of your own needs none of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self, TypeVar

from aiosess.storages.base import Stored, Version

__all__ = ["Closing", "copied", "new_stored"]

T = TypeVar("T")

new_stored: Final[Callable[[type[Stored], tuple[bytes, Version]], Stored]] = tuple[
    bytes | Version, ...
].__new__
"""``new_stored(Stored, (payload, version))`` is ``Stored(payload, version)``, made in C alone."""


def copied(storage: T) -> T:
    """Return a copy of *storage* with the same attributes.

    Those of a ``copy.copy()`` CPython finds in more steps: it fills a dict with them.
    """
    other = object.__new__(type(storage))
    for name, value in vars(storage).items():
        setattr(other, name, value)
    return other


class Closing(ABC):
    """A storage to be used in ``async with``, which closes it."""

    async def __aenter__(self) -> Self:
        """Return the storage itself; leaving closes it."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close what the storage opened itself."""
        await self.close()

    @abstractmethod
    async def close(self) -> None:
        """Close what the storage opened itself."""
