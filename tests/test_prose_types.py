"""The Python in README and docs passes mypy and pyright, both strict, as it stands there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
PAGES: Final = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK: Final = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SWITCHED_OFF: Final = re.compile(r"#\s*(type:\s*ignore|pyright:|mypy:)")


def code_of(page: str) -> str:
    """Return the blocks of *page* in the lines where they stand there, and nothing else."""
    lines = [""] * page.count("\n")
    for block in BLOCK.finditer(page):
        first = page.count("\n", 0, block.start(1))
        code = block[1].splitlines()
        lines[first : first + len(code)] = code
    return "\n".join(lines) + "\n"


def checker(name: str) -> str:
    """Return the path of a checker beside this Python; skip where it is not installed."""
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"{name} is not installed: make check installs it")
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the Python of each page that has some, one file a page."""
    folder = tmp_path_factory.mktemp("prose")
    for page in PAGES:
        code = code_of(page.read_text())
        if code.strip():
            name = "_".join(page.relative_to(ROOT).with_suffix("").parts).replace("-", "_")
            (folder / f"{name}.py").write_text(code)
    return folder


def test_the_blocks_of_a_page_keep_their_lines() -> None:
    page = "# A\n\n```python\na = 1\n```\n\nText.\n\n```sh\nls\n```\n\n```python\nb = a\n```\n"

    lines = code_of(page).splitlines()

    assert {number: line for number, line in enumerate(lines, 1) if line} == {
        4: "a = 1",
        14: "b = a",
    }


def test_the_readme_and_pages_of_each_kind_are_checked(folder: Path) -> None:
    names = {path.stem for path in folder.iterdir()}

    assert names >= {
        "README",
        "docs_explanation_lost_updates",
        "docs_how_to_outages",
        "docs_migrating_from_django",
        "docs_reference_options",
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_check_is_switched_off_in_a_page(page: Path) -> None:
    assert SWITCHED_OFF.findall(code_of(page.read_text())) == []


@pytest.mark.parametrize("example", sorted((ROOT / "examples").rglob("*.py")), ids=lambda e: e.name)
def test_no_check_is_switched_off_in_an_example(example: Path) -> None:
    assert SWITCHED_OFF.findall(example.read_text()) == []


def test_mypy_finds_nothing(folder: Path) -> None:
    command = [checker("mypy"), "--strict", "--config-file=", "--no-error-summary", str(folder)]

    checked = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT)},
    )

    assert (checked.stdout, checked.stderr, checked.returncode) == ("", "", 0)


def test_pyright_finds_nothing(folder: Path) -> None:
    settings = {"typeCheckingMode": "strict", "extraPaths": [str(ROOT)]}
    project = folder / "pyrightconfig.json"
    project.write_text(json.dumps(settings))
    command = [checker("pyright"), "--pythonpath", sys.executable, "--project", str(project)]

    checked = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder)

    assert (checked.stdout.splitlines()[-1:], checked.returncode) == (
        ["0 errors, 0 warnings, 0 informations"],
        0,
    ), checked.stdout
