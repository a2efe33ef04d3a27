"""docs/reference/asvs.md says what the marks of the tests say, and nothing is left out."""

from __future__ import annotations

import pytest

from tests.asvs.page import PAGE, Shown, marks_in, page, shown
from tests.asvs.requirements import REQUIREMENTS

HELD = [
    (mark, number)
    for mark, requirements in REQUIREMENTS.items()
    for number, requirement in requirements.items()
    if requirement.provided
]


def test_the_page_is_what_the_tests_say() -> None:
    written = PAGE.read_text(encoding="utf-8")

    assert written == page(), "the page is stale: run python -m tests.asvs.page"


@pytest.fixture(scope="module")
def tests_of() -> Shown:
    return shown()


@pytest.mark.parametrize(("mark", "number"), HELD)
def test_what_aiosess_does_has_a_test(tests_of: Shown, mark: str, number: str) -> None:
    assert tests_of[mark, number]


@pytest.mark.parametrize("mark", REQUIREMENTS)
def test_each_requirement_is_somebodys(mark: str) -> None:
    nobodys = [
        number
        for number, each in REQUIREMENTS[mark].items()
        if not (each.provided or each.application)
    ]

    assert nobodys == []


def test_no_number_of_chapter_7_is_missing() -> None:
    counts = {1: 3, 2: 4, 3: 2, 4: 5, 5: 3, 6: 2}

    numbers = [f"7.{part}.{n}" for part, count in counts.items() for n in range(1, count + 1)]

    assert list(REQUIREMENTS["asvs"]) == numbers


def test_no_item_of_section_5_is_missing() -> None:
    bindings = [f"5.1-{item}" for item in "abcd123456efgh"]
    cookies = [f"5.1.1-{item}" for item in range(1, 8)]
    reauthentication = [f"5.2-{item}" for item in "abcde"]

    assert list(REQUIREMENTS["nist"]) == [*bindings, *cookies, "5.1.2", *reauthentication, "5.3"]


def test_each_number_of_a_mark_is_read() -> None:
    source = """
@pytest.mark.asvs("7.2.1", "7.2.3")
@pytest.mark.parametrize("n", [1])
@pytest.mark.nist("5.1-2")
async def test_an_id() -> None: ...
"""

    assert list(marks_in(source)) == [
        ("test_an_id", "asvs", "7.2.1"),
        ("test_an_id", "asvs", "7.2.3"),
        ("test_an_id", "nist", "5.1-2"),
    ]


@pytest.mark.parametrize(
    ("number", "problem"),
    [("7.9.9", "lists no such number"), ("7.4.4", "say there what aiosess does")],
)
def test_a_mark_that_shows_nothing_is_refused(number: str, problem: str) -> None:
    source = f"@pytest.mark.asvs({number!r})\ndef test_it() -> None: ...\n"

    with pytest.raises(ValueError, match=problem):
        list(marks_in(source))
