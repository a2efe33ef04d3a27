"""A few hostile inputs of each target, the same ones each time; ``make fuzz`` runs thousands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz.site import close
from tests.fuzz.target import Target, run
from tests.fuzz.targets import TARGETS


@pytest.fixture(scope="module", autouse=True)
def _sites() -> Iterator[None]:
    yield
    close()


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_no_hostile_input_shows_a_fault(target: Target) -> None:
    done = run(target, target.few)

    assert done >= target.few / 2
