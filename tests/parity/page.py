"""Makes docs/reference/parity.md from the tests: ``python -m tests.parity.page``."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

import tests.parity
from tests.parity import elsewhere
from tests.parity.cases import CASES, GROUPS, Case
from tests.parity.features import ABSENT
from tests.parity.marks import Answer, answers

__all__ = ["PAGE", "answered", "page"]

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "parity.md"

_INTRODUCTION: Final = """\
# What Express and NestJS do, and what aiosess does

<!-- Made by `python -m tests.parity.page` from the tests; do not edit. -->

Every test case of express-session 1.19 (E1 to E142, C1 to C18), of nestjs-session (N) and of
create-nestjs-middleware-module (M), and what stands only in the code of express-session (S), in our
words; beside it, whether aiosess does the same, and the test that shows it. Where a storage has a
part in it, the test runs over each storage. Tests are named from the folder `tests`.

"""

_FEATURES: Final = """\
## What the others have and aiosess has not

Beyond the cases above: what express-session (with connect-redis), nestjs-session or aiohttp-session
offers, and what there is in its place.

| there | in | here |
| --- | --- | --- |
"""


@dataclass(frozen=True, slots=True)
class _Answered:
    """An answer, and the test that gives it."""

    answer: Answer
    test: str


def answered() -> dict[str, list[_Answered]]:
    """Return, for each case, the tests that answer it."""
    found: dict[str, list[_Answered]] = defaultdict(list)
    for module in _modules():
        file = module.__name__.removeprefix("tests.").replace(".", "/")
        for name, test in inspect.getmembers(module, inspect.isfunction):
            for answer in answers(test):
                found[answer.number].append(_Answered(answer, f"{file}.py::{name}"))
    return found


def page() -> str:
    """Return the page as the tests would have it."""
    found = answered()
    differing = {
        number for number, tests in found.items() if any(each.answer.differs for each in tests)
    }
    node_only = sum(1 for case in CASES.values() if case.node_only)
    summary = (
        f"Of {len(CASES)} cases, {len(found) - len(differing)} are the same, {len(differing)} "
        f"differ on purpose, and {node_only} mean something in Node only.\n"
    )
    parts = [_INTRODUCTION, summary]
    for title, cases in GROUPS.items():
        parts.append(f"\n## {title}\n\n| case | there | here | test |\n| --- | --- | --- | --- |\n")
        parts += [_row(case, found.get(case.number, [])) for case in cases]
    parts.append("\n" + _FEATURES)
    parts += [f"| {each.feature} | {each.system} | {each.answer} |\n" for each in ABSENT]
    return "".join(parts)


def _row(case: Case, tests: list[_Answered]) -> str:
    differs = dict.fromkeys(each.answer.differs for each in tests if each.answer.differs)
    here = "same"
    if case.node_only:
        here = f"Node only. {case.node_only}"
    elif differs:
        here = "different: " + "; ".join(differs)
    listed = "<br>".join(f"`{each.test}`" for each in tests)
    return f"| {case.number} | {case.behaviour} | {here} | {listed} |\n"


def _modules() -> Iterator[ModuleType]:
    for module in pkgutil.iter_modules(tests.parity.__path__):
        if module.name.startswith("test_") and module.name != "test_page":
            yield importlib.import_module(f"tests.parity.{module.name}")
    yield from elsewhere.MODULES


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
