"""What the storages of this package have in common; one of your own needs none of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from aiosess.storages.base import Stored, Version

__all__ = ["Closing", "new_stored"]

new_stored: Final[Callable[[type[Stored], tuple[bytes, Version]], Stored]] = tuple[
    bytes | Version, ...
].__new__
"""``new_stored(Stored, (payload, version))`` is ``Stored(payload, version)``, made in C alone."""


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
