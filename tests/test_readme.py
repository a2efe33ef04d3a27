"""The README keeps its word: its blocks are run by Sybil, its claims are compared with the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pytest_aiohttp import AiohttpClient

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
GUIDES = README + "".join(page.read_text() for page in sorted((ROOT / "docs").rglob("*.md")))


async def test_the_example_counts_views(aiohttp_client: AiohttpClient) -> None:
    namespace: dict[str, Any] = {}
    exec(BLOCKS[0], namespace)  # noqa: S102 - it is our own
    client = await aiohttp_client(namespace["app"])

    counts = [await (await client.get("/views")).json() for _ in range(3)]

    assert counts == [1, 2, 3]


@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"`make ([\w-]+)|^make (\w+)", GUIDES, re.MULTILINE)))
)
def test_make_knows_the_target(target: tuple[str, str]) -> None:
    makefile = (ROOT / "Makefile").read_text()

    assert re.search(rf"^{''.join(target)}:.*## ", makefile, re.MULTILINE)


def test_each_dependency_is_named_with_what_it_is_for() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    names = {re.split(r"[<>=\[;]", each)[0] for each in settings["project"]["dependencies"]}
    [sentence] = re.findall(r"It depends on ([^.]*)\.", README)

    assert names == set(re.findall(r"aiohttp-session|aiohttp|msgspec", sentence))
