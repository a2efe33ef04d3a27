"""The tables of options and of a session's members say what the code has."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path
from typing import Any, Final

import aiohttp_session
import pytest

from aiosess import CookieOptions, Session, SessionOptions

REFERENCE: Final = Path(__file__).parents[2] / "docs" / "reference"
OPTIONS_PAGE: Final = (REFERENCE / "options.md").read_text()
SESSIONS_PAGE: Final = (REFERENCE / "sessions.md").read_text()
OUTAGES_PAGE: Final = (REFERENCE / "outages.md").read_text()


def rows(start: str) -> dict[str, str]:
    """Return the first two cells of each row in the first table after *start*."""
    table = OPTIONS_PAGE.partition(start)[2].partition("| --- |")[2].partition("\n\n")[0]
    return dict(re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", table, re.MULTILINE))


OPTIONS: Final = {SessionOptions: rows("## All options"), CookieOptions: rows("## The cookie")}


def plain_defaults(options: type[Any]) -> list[tuple[str, Any]]:
    return [
        (field.name, field.default)
        for field in dataclasses.fields(options)
        if field.init and isinstance(field.default, str | int | float | tuple | type(None))
    ]


@pytest.mark.parametrize("options", [SessionOptions, CookieOptions])
def test_the_table_names_every_option(options: type[Any]) -> None:
    fields = [field.name for field in dataclasses.fields(options) if field.init]

    assert list(OPTIONS[options]) == fields


@pytest.mark.asvs("7.1.1")
@pytest.mark.parametrize(
    ("options", "name", "default"),
    [
        (options, name, default)
        for options in (SessionOptions, CookieOptions)
        for name, default in plain_defaults(options)
    ],
)
def test_the_table_tells_the_default(options: type[Any], name: str, default: object) -> None:
    told = OPTIONS[options][name]

    assert ast.literal_eval(told.strip("`")) == default


def test_the_options_of_outages_are_options() -> None:
    table = OUTAGES_PAGE.partition("| option |")[2].partition("\n\n")[0]

    named = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))

    assert named == {
        "retries",
        "retries_strategy",
        "timeout",
        "budget",
        "breaker",
        "on_unavailable",
    }
    assert named <= set(OPTIONS[SessionOptions])


def test_the_table_names_what_a_session_has_beyond_that_of_aiohttp_session() -> None:
    table = SESSIONS_PAGE.partition("| member |")[2].partition("\n\n")[0]
    told = re.findall(r"^\| `(?:await )?(\w+)", table, re.MULTILINE)

    members = {name for name in dir(Session) if not name.startswith("_")}

    assert set(told) == members - set(dir(aiohttp_session.Session))
