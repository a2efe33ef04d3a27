"""The threat model names tests that are there, and says the figures that the code has."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Final

import pytest

from aiosess import MemoryStorage, SessionOptions
from tests.conftest import SECRET

TESTS: Final = Path(__file__).parent
ROOT: Final = TESTS.parent
PAGE: Final = (ROOT / "docs" / "explanation" / "threat-model.md").read_text(encoding="utf-8")
NAMED: Final = sorted(set(re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", PAGE)))
LINKED: Final = {
    (name, target)
    for name in ("SECURITY.md", "docs/explanation/threat-model.md", "docs/reference/asvs.md")
    for target in re.findall(r"\]\(([^):]+\.md)\)", (ROOT / name).read_text(encoding="utf-8"))
}


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_what_it_names_is_there(file: str, test: str) -> None:
    source = (TESTS / file).read_text(encoding="utf-8")

    assert re.search(rf"^(async )?def {test or 'test_'}", source, re.MULTILINE)


def test_each_answer_says_what_is_not_done() -> None:
    answers = PAGE.split("\n## ")[1:]

    silent = [answer.partition("\n")[0] for answer in answers if "*Not done:*" not in answer]

    assert silent == []


def test_it_says_the_bounds_that_there_are() -> None:
    memory = inspect.signature(MemoryStorage).parameters
    options = SessionOptions(secret=SECRET)

    bounds = {
        f"{memory['max_records'].default:,} records and {memory['max_bytes'].default:,} bytes",
        f"{options.max_record_size:,} bytes, then `RecordTooLarge`",
        f"`renew_grace` ({options.renew_grace:.0f} s)",
    }

    assert [bound for bound in bounds if bound not in PAGE] == []


@pytest.mark.parametrize(("page", "target"), sorted(LINKED))
def test_its_links_and_those_to_it_lead_somewhere(page: str, target: str) -> None:
    assert (ROOT / page).parent.joinpath(target).is_file()
