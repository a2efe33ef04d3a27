"""Runs each Python block of the README, in order, in one namespace."""

from __future__ import annotations

from typing import Any

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser


def _name_the_module(namespace: dict[str, Any]) -> None:
    # A web.AppKey asks where it is made.
    namespace["__name__"] = "page"


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
    setup=_name_the_module,
).pytest()
