"""What a session costs a request: steps of the interpreter in aiosess itself, within a budget.

A step is one instruction of CPython's bytecode: the same number on any machine, however busy. Where
they are taken: ``make bench-steps ARGS="--only redis-write --functions 40 --of aiosess"``.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import RedisServer

COUNTER = Path(__file__).parents[1] / "benchmarks" / "steps.py"

IS_COUNTED_HERE = platform.python_implementation() == "CPython" and sys.version_info[:2] == (3, 11)

pytestmark = pytest.mark.skipif(
    not IS_COUNTED_HERE, reason="another Python has other instructions: these are CPython 3.11's"
)


def steps_in_aiosess(case: str, storage: str) -> float:
    """Return the steps of one request, in an interpreter that nothing else traces."""
    command = [sys.executable, str(COUNTER), "--run", case, "--storage", storage]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")
    }
    finished = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    by_function: dict[str, tuple[float, float]] = json.loads(finished.stdout)
    return sum(
        steps for name, (steps, _calls) in by_function.items() if name.startswith("aiosess/")
    )


def test_the_package_beside_the_tests_is_counted() -> None:
    assert steps_in_aiosess("unused", "memory:") > 0


@pytest.mark.parametrize(
    ("case", "budget"), [("unused", 110), ("memory-read", 590), ("memory-write", 1_020)]
)
def test_a_request_keeps_to_its_budget_of_steps_in_memory(case: str, budget: int) -> None:
    assert steps_in_aiosess(case, "memory:") <= budget


@pytest.mark.parametrize(
    ("case", "budget"),
    [("redis-read", 740), ("bound-read", 800), ("redis-write", 1_330), ("bound-write", 1_400)],
)
def test_a_request_keeps_to_its_budget_of_steps_on_redis(
    case: str, budget: int, own_redis_server: RedisServer
) -> None:
    assert steps_in_aiosess(case, own_redis_server.url) <= budget
