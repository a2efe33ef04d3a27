"""Makes docs/reference/asvs.md from the marks of the tests: ``python -m tests.asvs.page``.

The tests are read and not imported, so that the page can be made without a server. A test says
``@pytest.mark.asvs("7.2.1")`` or ``@pytest.mark.nist("5.1-2", "5.1.1-3")``.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

from tests.asvs.requirements import ASVS, NIST, REQUIREMENTS, Requirement

__all__ = ["PAGE", "Shown", "marks_in", "page", "shown"]

Shown: TypeAlias = dict[tuple[str, str], list[str]]

_TESTS: Final = Path(__file__).parents[1]
PAGE: Final = _TESTS.parent / "docs" / "reference" / "asvs.md"

_INTRODUCTION: Final = """\
# What OWASP ASVS and NIST ask of sessions

<!-- Made by `python -m tests.asvs.page` from the tests; do not edit. -->

Chapter 7 of [OWASP ASVS 5.0](https://github.com/OWASP/ASVS/tree/v5.0.0/5.0/en) and section 5 of
[NIST SP 800-63B-4](https://pages.nist.gov/800-63-4/sp800-63b.html), number by number: what each
asks, in our words; what aiosess does, with the tests that show it; what is left to the application;
and what aiosess has not yet. Tests are named from the folder `tests`. A library alone fulfils no
standard: what the application has to do stands with each number.

"""

_OF_ASVS: Final = """\
## OWASP ASVS 5.0, chapter 7

The level in brackets is the one from which the requirement counts.
"""

_OF_NIST: Final = """
## NIST SP 800-63B-4, section 5

The publication numbers its sections and the items of its lists: 5.1.1-3 is item 3 of the list in
5.1.1. Letters count the requirements outside of lists. The word in brackets says how binding it is.
"""


def shown() -> Shown:
    """Return, for each mark and number, the tests that have it."""
    found: Shown = defaultdict(list)
    for path in sorted(_TESTS.rglob("test_*.py")):
        file = path.relative_to(_TESTS).as_posix()
        for test, mark, number in marks_in(path.read_text(encoding="utf-8")):
            found[mark, number].append(f"{file}::{test}")
    return found


def marks_in(source: str) -> Iterator[tuple[str, str, str]]:
    """Give each test in *source* that has a mark, with the mark and each of its numbers.

    Raise ValueError for a number that is not listed, or of which aiosess has nothing to show.
    """
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for decorator in function.decorator_list:
            match decorator:
                case ast.Call(
                    func=ast.Attribute(
                        value=ast.Attribute(value=ast.Name(id="pytest"), attr="mark"),
                        attr="asvs" | "nist" as mark,
                    ),
                    args=numbers,
                ):
                    for number in map(ast.literal_eval, numbers):
                        _check(mark, number)
                        yield function.name, mark, number
                case _:
                    pass


def page() -> str:
    """Return the page as the marks of the tests would have it."""
    found = shown()
    parts = [_INTRODUCTION, _OF_ASVS, _count("asvs"), *_sections("asvs", ASVS, found)]
    parts += [_OF_NIST, _count("nist"), *_sections("nist", NIST, found)]
    return "".join(parts)


def _count(mark: str) -> str:
    requirements = REQUIREMENTS[mark].values()
    done = sum(1 for each in requirements if each.provided and not each.missing)
    partly = sum(1 for each in requirements if each.provided and each.missing)
    waiting = sum(1 for each in requirements if not each.provided and each.missing)
    theirs = sum(1 for each in requirements if not each.provided and not each.missing)
    partly_done = f", and some of it for {partly}" if partly else ""
    missing = f"; {waiting} wait for what is not there yet" if waiting else ""
    return (
        f"\nOf {len(requirements)}, aiosess does its part of {done}{partly_done}{missing}; "
        f"{theirs} are the application's alone.\n"
    )


def _sections(mark: str, groups: dict[str, tuple[Requirement, ...]], found: Shown) -> Iterator[str]:
    for title, requirements in groups.items():
        yield f"\n### {title}\n"
        for each in requirements:
            tests = [f"`{test}`" for test in found.get((mark, each.number), ())]
            yield f"\n#### {each.number} ({each.level})\n\n{each.asks}\n\n"
            yield from _line("aiosess", each.provided)
            yield from _line("The application", each.application)
            yield from _line("Not there yet", each.missing)
            yield from _line("Tests", ", ".join(tests))


def _line(title: str, text: str) -> Iterator[str]:
    if text:
        yield f"- **{title}:** {text}\n"


def _check(mark: str, number: str) -> None:
    requirement = REQUIREMENTS[mark].get(number)
    if requirement is None:
        raise ValueError(f"{mark}({number!r}): tests/asvs/requirements.py lists no such number")
    if not requirement.provided:
        raise ValueError(f"{mark}({number!r}): say there what aiosess does, or take the mark")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
