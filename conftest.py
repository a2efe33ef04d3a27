"""Runs each Python block of the README, in order, in one namespace."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser


def _name_the_module(namespace: dict[str, Any]) -> None:
    # A web.AppKey or web.RequestKey asks where it is made.
    namespace["__name__"] = "page"


# Its code keeps something under a RequestKey, which came with aiohttp 3.14.
_NEWER = () if hasattr(web, "RequestKey") else ("docs/how-to/audit.md",)

pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
    excludes=_NEWER,
    setup=_name_the_module,
).pytest()
