"""Links lead somewhere: those of the README, and those of the docs into the repository.

The links among the pages of the docs, and their anchors, are checked by ``make docs``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
# So that they also work on the package index, which shows the README without the files beside it.
REPOSITORY: Final = "https://github.com/aiosess/aiosess/"
IN_REPOSITORY: Final = re.compile(
    r"https://(?:github\.com/aiosess/aiosess/(?:blob|tree)|raw\.githubusercontent\.com/aiosess/aiosess)"
    r"/main/([^\s)>#\"]+)(?:#([\w-]+))?"
)
TARGET: Final = re.compile(r"\]\(([^)\s]+)\)")
PAGES: Final = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    words = (re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings)
    return {re.sub(r"\s", "-", each) for each in words}


def targets_in(text: str) -> list[str]:
    """Return where the links of a text lead, code left out."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return TARGET.findall(re.sub(r"`[^`\n]*`", "", prose))


def leads_nowhere(path: str, anchor: str | None) -> bool:
    target = ROOT / path
    return not target.exists() or bool(anchor and anchor not in anchors(target))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_links_in_the_repository_is_there(page: Path) -> None:
    links = IN_REPOSITORY.findall(page.read_text())

    assert [link for link in links if leads_nowhere(*link)] == []


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md"])
def test_no_link_needs_the_files_beside_a_page_that_is_shown_alone(page: str) -> None:
    targets = targets_in((ROOT / page).read_text())

    assert [each for each in targets if not each.startswith(("https://", "#"))] == []


def test_the_anchors_within_the_readme_are_there() -> None:
    within = [each[1:] for each in targets_in((ROOT / "README.md").read_text()) if each[0] == "#"]

    assert set(within) <= anchors(ROOT / "README.md")


def test_a_link_into_the_repository_names_its_main_branch() -> None:
    pages = {page: re.findall(rf"{REPOSITORY}(\S*?)[)\s>]", page.read_text()) for page in PAGES}

    odd = {
        (page.name, link)
        for page, links in pages.items()
        for link in links
        if not link.startswith(("blob/main/", "tree/main/", "raw/main/", "issues", "security"))
    }

    assert odd == set()
