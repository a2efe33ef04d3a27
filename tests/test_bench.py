"""What ``make bench`` says of a figure that it has measured in several processes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("figures")


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("report")


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(2.1, 3.0, "reached"), (1.0, 1.9, "**not reached**"), (1.5, 2.5, "cannot tell")],
)
def test_at_least_is_reached_where_the_whole_interval_is(
    figures: Any, report: Any, low: float, high: float, verdict: str
) -> None:
    expected = report.Expected("times", "redis-read", "rival", 2)

    assert report.verdict(expected, figures.Interval(2.0, low, high)) == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(1.0, 1.9, "reached"), (2.1, 3.0, "**not reached**"), (1.5, 2.5, "cannot tell")],
)
def test_at_most_is_reached_where_the_whole_interval_is(
    figures: Any, report: Any, low: float, high: float, verdict: str
) -> None:
    expected = report.Expected("p99", "redis-read", "p99", 2, is_most=True)

    assert report.verdict(expected, figures.Interval(2.0, low, high)) == verdict


def test_processes_that_are_far_apart_make_a_wide_interval(figures: Any) -> None:
    def samples(*rates: int) -> Any:
        return [figures.Sample(rate, 1.0, 0.0, 0.0, 0) for rate in rates]

    calm = figures.ratio(samples(*[100] * 10), samples(*[50] * 10), figures.per_second)
    wild = figures.ratio(samples(*[60, 140] * 5), samples(*[50] * 10), figures.per_second)

    assert (calm.low, calm.middle, calm.high) == (2.0, 2.0, 2.0)
    assert wild.low < 1.5
    assert wild.high > 2.5
