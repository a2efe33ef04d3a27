"""docs/reference/parity.md says what the tests say, and nothing is left out."""

from __future__ import annotations

import pytest

from tests.parity.cases import CASES, GROUPS
from tests.parity.marks import parity
from tests.parity.page import PAGE, answered, page

IN_PYTHON = [number for number, case in CASES.items() if not case.node_only]


def test_the_page_is_what_the_tests_say() -> None:
    written = PAGE.read_text(encoding="utf-8")

    assert written == page(), "the page is stale: run python -m tests.parity.page"


@pytest.mark.parametrize("number", IN_PYTHON)
def test_each_behaviour_has_a_test(number: str) -> None:
    assert answered()[number]


def test_no_case_of_the_node_packages_is_missing() -> None:
    expected = [f"E{n}" for n in range(1, 143)] + [f"C{n}" for n in range(1, 19)]
    expected += [f"N{n}" for n in range(1, 9)] + [f"M{n}" for n in range(1, 6)]
    expected += [f"S{n}" for n in range(1, 19)]

    assert [case.number for cases in GROUPS.values() for case in cases] == expected


def test_a_number_that_is_not_listed_cannot_be_answered() -> None:
    with pytest.raises(ValueError, match="E999"):
        parity("E999")
