"""The proof in a small size; ``make proof`` runs it in full."""

from __future__ import annotations

import pytest

from tests.proof.__main__ import BACK_ENDS, SMALL, print_table, prove_on


@pytest.mark.asvs("7.4.1")
@pytest.mark.parametrize("backend", BACK_ENDS)
async def test_nothing_is_lost_revived_or_shared(backend: str) -> None:
    found = await prove_on(backend, SMALL)

    print_table(found)
    assert [line for line in found if not line.is_right] == []
