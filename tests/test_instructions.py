"""When ``make instructions`` fails: a request takes more instructions than the figures kept."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

KEPT = {"empty-middleware": 195.0, "memory-read": 263.0, "redis-read": 290.0}


@pytest.fixture
def instructions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("instructions")
    monkeypatch.setattr(module, "KEPT", tmp_path / "instructions.json")
    module.write(KEPT)
    return module


def test_what_is_as_kept_passes(instructions: Any) -> None:
    assert instructions.compare(KEPT)


def test_what_has_grown_by_more_than_two_thousand_fails(
    instructions: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not instructions.compare({**KEPT, "redis-read": 292.1})

    assert "GROWN: redis-read by 2.1 thousand" in capsys.readouterr().out


def test_what_has_grown_by_less_is_noise(instructions: Any) -> None:
    assert instructions.compare({**KEPT, "redis-read": 291.9})


def test_what_has_fallen_passes_and_is_told(
    instructions: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert instructions.compare({**KEPT, "memory-read": 250.0})

    assert "fallen: memory-read by 13.0" in capsys.readouterr().out


def test_what_aiohttp_takes_for_any_middleware_is_not_the_sessions(instructions: Any) -> None:
    grown = {name: count + 10 for name, count in KEPT.items()}

    assert instructions.compare(grown)


def test_figures_of_another_interpreter_are_not_compared(
    instructions: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = json.loads(instructions.KEPT.read_text())
    instructions.KEPT.write_text(json.dumps({**kept, "interpreter": "CPython 3.9"}))

    assert instructions.compare({**KEPT, "redis-read": 400.0})

    assert "Not compared: the figures in" in capsys.readouterr().out
