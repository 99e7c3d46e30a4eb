"""Targets: held against medians, both ways, and told when there is nothing to hold."""

from __future__ import annotations

import pytest

from penstock.bench.harness import Result, Summary
from penstock.bench.report import verdicts
from penstock.bench.targets import Target, judge


def result(name: str, **metrics: float) -> Result:
    summaries = {metric: Summary.of([value]) for metric, value in metrics.items()}
    return Result(name, (), summaries={k: v for k, v in summaries.items() if v is not None})


@pytest.mark.parametrize(
    ("measured", "at_most", "met"),
    [(4.0, False, True), (3.9, False, False), (4.0, True, True), (4.1, True, False)],
)
def test_a_median_meets_a_target_or_not(measured: float, at_most: bool, met: bool) -> None:
    target = Target("times stock", "penstock", "times_stock", 4.0, at_most)
    (verdict,) = judge([target], [result("penstock", times_stock=measured)])
    assert verdict.met is met
    assert verdict.measured == measured
    assert verdict.word == ("met" if met else "not met")


def test_the_median_counts_and_not_the_best_round() -> None:
    summary = Summary.of([1.0, 2.0, 9.0])
    assert summary is not None
    (verdict,) = judge(
        [Target("times stock", "penstock", "times_stock", 5.0)],
        [Result("penstock", (), summaries={"times_stock": summary})],
    )
    assert (verdict.measured, verdict.met) == (2.0, False)


@pytest.mark.parametrize("results", [[], [result("other", times_stock=9)], [result("penstock")]])
def test_what_was_not_measured_is_neither_met_nor_missed(results: list[Result]) -> None:
    (verdict,) = judge([Target("times stock", "penstock", "times_stock", 4.0)], results)
    assert (verdict.measured, verdict.met, verdict.word) == (None, None, "not measured")


def test_the_table_has_a_line_for_each_target() -> None:
    wished = [Target("a", "x", "times_stock", 4), Target("b", "y", "first_s", 1, at_most=True)]
    shown = verdicts(judge(wished, [result("y", first_s=0.25)]))
    assert [list(column.cells) for column in shown.columns] == [
        ["a", "b"],
        ["x", "y"],
        ["≥ 4", "≤ 1"],
        ["", "0.25"],
        ["not measured", "met"],
    ]
