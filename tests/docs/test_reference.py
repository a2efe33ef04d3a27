"""The reference has every public name, and its tables are what the code says."""

from __future__ import annotations

import importlib
import re
from functools import reduce
from pathlib import Path
from typing import Final

import pytest

from aiosess.records import format as record_format
from tests.docs import reasons
from tests.test_package import PROMISED

PAGES: Final = sorted((Path(__file__).parents[2] / "docs" / "reference").glob("*.md"))
TEXT: Final = "\n".join(page.read_text() for page in PAGES)
# What is written out from its docstring, and what is handed on from elsewhere.
WRITTEN_OUT: Final = re.findall(r"^::: (aiosess[\w.]+)$", TEXT, re.MULTILINE)
HANDED_ON: Final = set(re.findall(r"`(aiosess\.compat[\w.]+)`", TEXT))


def found(path: str) -> object:
    """Return what *path* leads to; the longest part of it that is a module is imported."""
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        return reduce(getattr, parts[count:], module)
    raise LookupError(path)


def public_names() -> list[str]:
    return sorted(
        f"{module}.{name}"
        for module in PROMISED
        for name in importlib.import_module(module).__all__
    )


@pytest.mark.parametrize("name", public_names())
def test_a_public_name_is_in_the_reference(name: str) -> None:
    is_written_out = any(found(each) is found(name) for each in WRITTEN_OUT)

    assert is_written_out or name in HANDED_ON


def test_nothing_is_written_out_twice() -> None:
    assert len(set(WRITTEN_OUT)) == len(WRITTEN_OUT)


def test_the_reasons_are_those_of_the_enum() -> None:
    assert reasons.PAGE.read_text(encoding="utf-8") == reasons.page()


def test_the_formats_name_all_that_is_remembered_in_a_record() -> None:
    page = (PAGES[0].parent / "formats.md").read_text()
    table = page.partition("| key | what it is |")[2].partition("\n\n")[0]

    told = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))

    assert told == record_format._KNOWN_KEYS | {record_format.VERSION}
