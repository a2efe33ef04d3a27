"""The storage contract as runnable cases, for whoever writes a storage.

``await run_contract(Harness(MyStorage))`` says what MyStorage does wrong, all of it at once;
``storage_contract`` in ``aiosess.testing.pytest`` makes one test of each case. Reading order:
``harness``, ``case``, then the chapters of the contract: ``creating``, ``loading``,
``replacing``, ``touching``, ``ending``, ``parting``, ``telling``.
"""

from aiosess.testing.contract.case import Case, Misbehaviour
from aiosess.testing.contract.chapters import CASES, CHAPTERS
from aiosess.testing.contract.harness import Harness
from aiosess.testing.contract.runner import Result, report, run_contract

__all__ = [
    "CASES",
    "CHAPTERS",
    "Case",
    "Harness",
    "Misbehaviour",
    "Result",
    "report",
    "run_contract",
]
