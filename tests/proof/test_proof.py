"""The proof in a small size; ``make proof`` runs it in full."""

from __future__ import annotations

import pytest

from tests.proof.__main__ import SMALL, print_table, prove


@pytest.mark.asvs("7.4.1")
async def test_nothing_is_lost_revived_or_shared() -> None:
    found = await prove(SMALL)

    print_table(found)
    assert [line for line in found if not line.is_right] == []
