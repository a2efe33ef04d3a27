"""All cases in a row, and what came of them: no test framework needed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from aiosess.testing.contract.case import Case, Misbehaviour
from aiosess.testing.contract.chapters import CASES
from aiosess.testing.contract.harness import Harness

__all__ = ["Result", "report", "run_contract"]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one case; *error* is ``None`` where the promise was kept."""

    case: Case
    error: Exception | None = None

    @property
    def is_kept(self) -> bool:
        """Ask whether the storage keeps the promise."""
        return self.error is None

    def __str__(self) -> str:
        if self.error is None:
            return f"kept    {self.case.name}"
        if isinstance(self.error, Misbehaviour):
            reason = str(self.error)
        else:
            reason = f"{type(self.error).__name__} was raised: {self.error}"
        return f"BROKEN  {self.case.name}: {self.case.sentence}\n        {reason}"


async def run_contract(harness: Harness, cases: Iterable[Case] = CASES) -> list[Result]:
    """Run all cases and return what came of each.

    No case stops the others: an error of the storage is the result of its case. Where the cases
    really wait, they run at the same time, each with a storage and ids of its own.
    """
    if harness.clock is not None:
        return [await _run(case, harness) for case in cases]
    return await asyncio.gather(*(_run(case, harness) for case in cases))


def report(results: Iterable[Result]) -> str:
    """Return one line for each promise that was kept, and the reason for each that was not."""
    return "\n".join(str(result) for result in results)


async def _run(case: Case, harness: Harness) -> Result:
    try:
        await case.run(harness)
    except Exception as error:  # noqa: BLE001 - whatever a storage raises is the finding
        return Result(case, error)
    return Result(case)
