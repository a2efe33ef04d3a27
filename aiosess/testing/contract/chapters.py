"""All cases, chapter by chapter."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Final

from aiosess.testing.contract import (
    creating,
    ending,
    loading,
    parting,
    replacing,
    telling,
    touching,
)
from aiosess.testing.contract.case import Case

__all__ = ["CASES", "CHAPTERS", "Chapter"]


@dataclass(frozen=True, slots=True)
class Chapter:
    """Cases that belong together, under the first line of their module."""

    title: str
    cases: tuple[Case, ...]


def _chapter(module: ModuleType, cases: tuple[Case, ...]) -> Chapter:
    return Chapter((module.__doc__ or "").rstrip("."), cases)


CHAPTERS: Final = (
    _chapter(creating, creating.CREATING),
    _chapter(loading, loading.LOADING),
    _chapter(replacing, replacing.REPLACING),
    _chapter(touching, touching.TOUCHING),
    _chapter(ending, ending.ENDING),
    _chapter(parting, parting.PARTING),
    _chapter(telling, telling.TELLING),
)

CASES: Final[tuple[Case, ...]] = tuple(case for chapter in CHAPTERS for case in chapter.cases)
