"""A few hostile inputs of each target, the same ones each time; ``make fuzz`` runs thousands."""

from __future__ import annotations

import pytest

from tests.fuzz.target import Target, run
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_no_hostile_input_shows_a_fault(target: Target) -> None:
    done = run(target, target.few)

    assert done >= target.few / 2
