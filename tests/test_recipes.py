"""The recipes of docs/how-to do what they say: the tests that stand in each page pass there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

GUIDES: Final = Path(__file__).parents[1] / "docs" / "how-to"
BLOCK: Final = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TEST: Final = re.compile(r"^(?:async )?def test_", re.MULTILINE)
SETTINGS: Final = ("asyncio_mode=auto", "asyncio_default_fixture_loop_scope=function")


def code_of(page: Path) -> str:
    return "\n".join(BLOCK.findall(page.read_text(encoding="utf-8")))


# Beside those of storages/test_helpers.py, which has a number for testing.md.
PAGES: Final = sorted(
    page.stem
    for page in GUIDES.glob("*.md")
    if page.stem != "testing" and TEST.search(code_of(page))
)


def test_each_recipe_that_has_tests_is_found() -> None:
    assert set(PAGES) >= {"audit", "csrf", "flash", "remember-me"}


@pytest.mark.parametrize("name", PAGES)
def test_the_tests_in_the_recipe_pass_as_they_stand_there(name: str, tmp_path: Path) -> None:
    code = code_of(GUIDES / f"{name}.md")
    (tmp_path / "test_recipe.py").write_text(code, encoding="utf-8")
    options = [word for setting in SETTINGS for word in ("-o", setting)]

    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-W", "error", *options, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    last = finished.stdout.splitlines()[-1]
    assert re.fullmatch(r"\d+ passed in .*", last), finished.stdout
    assert int(last.partition(" ")[0]) >= len(TEST.findall(code))
