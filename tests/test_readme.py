"""The README keeps its word: its blocks are run by Sybil, its claims are compared with the code."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path
from typing import Any

import aiohttp_session
import pytest
from pytest_aiohttp import AiohttpClient

from aiosess import CookieOptions, Session, SessionOptions

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def rows(start: str) -> dict[str, str]:
    """Return the first two cells of each row in the first table after *start*."""
    table = README.partition(start)[2].partition("| --- |")[2].partition("\n\n")[0]
    return dict(re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", table, re.MULTILINE))


OPTIONS = {SessionOptions: rows("`SessionOptions`."), CookieOptions: rows("`CookieOptions`:")}


def plain_defaults(options: type[Any]) -> list[tuple[str, Any]]:
    return [
        (field.name, field.default)
        for field in dataclasses.fields(options)
        if field.init and isinstance(field.default, str | int | float | tuple | type(None))
    ]


async def test_the_example_counts_views(aiohttp_client: AiohttpClient) -> None:
    namespace: dict[str, Any] = {}
    exec(BLOCKS[0], namespace)  # noqa: S102 - it is our own
    client = await aiohttp_client(namespace["app"])

    counts = [await (await client.get("/views")).json() for _ in range(3)]

    assert counts == [1, 2, 3]


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


def test_the_table_names_what_a_session_has_beyond_that_of_aiohttp_session() -> None:
    table = README.partition("| member |")[2].partition("\n\n")[0]
    told = re.findall(r"^\| `(?:await )?(\w+)", table, re.MULTILINE)

    members = {name for name in dir(Session) if not name.startswith("_")}

    assert set(told) == members - set(dir(aiohttp_session.Session))


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake (\w+)", README))))
def test_make_knows_the_target(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text()

    assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE)
