"""The harness: turns, medians and spread, comparison within a round, and what it leaves out."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.bench.harness import (
    Case,
    Contestant,
    CouldNot,
    Environment,
    Metrics,
    Ratio,
    Settings,
    Summary,
    document,
    run_case,
)
from penstock.bench.report import cell, failures, glossary, table, value
from penstock.bench.targets import Target
from penstock.errors import UsageError

NUMBERS = st.floats(-1e6, 1e6)


class Quiet:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def said(self, text: str) -> None:
        self.lines.append(text)

    def step(self, what: str, done: float, total: float) -> None:
        self.lines.append(f"{what} {done}/{total}")


class Clockwork:
    """A case whose contestants take the seconds they are told, and remember their turns."""

    def __init__(self, seconds: dict[str, list[float]], baseline: str = "") -> None:
        self.turns: list[str] = []
        self.tidied = False
        self._seconds = {name: list(values) for name, values in seconds.items()}
        self._baseline = baseline
        self.case = Case(
            "clockwork",
            "how long clockwork takes",
            repeat=1,
            metrics={"epoch_s": "seconds", "never": "a metric that nobody has"},
            contestants=self._contestants,
            compared=("epoch_s",),
        )

    @contextlib.contextmanager
    def _contestants(self, settings: Settings, show: object) -> Iterator[list[Contestant]]:
        def measure(name: str) -> Metrics:
            self.turns.append(name)
            return {"epoch_s": self._seconds[name].pop(0), "never": None}

        try:
            yield [
                Contestant(
                    name,
                    lambda name=name: measure(name),
                    baseline="" if name == self._baseline else self._baseline,
                )
                for name in self._seconds
            ]
        finally:
            self.tidied = True


def test_contestants_take_turns_and_every_second_round_goes_backwards(tmp_path: Path) -> None:
    made = Clockwork({"a": [1, 1, 1], "b": [1, 1, 1]})
    run_case(made.case, Settings(tmp_path), 3, Quiet())
    assert made.turns == ["a", "b", "b", "a", "a", "b"]
    assert made.tidied


def test_a_contestant_is_compared_with_its_baseline_of_the_same_round(tmp_path: Path) -> None:
    # The machine is twice as slow in the second round; the overhead is 10 % in each.
    made = Clockwork({"off": [10, 20, 10], "on": [11, 22, 11]}, baseline="off")
    off, on = run_case(made.case, Settings(tmp_path), 3, Quiet())
    assert on.summaries["epoch_s_overhead"].values == pytest.approx([0.1, 0.1, 0.1])
    assert on.summaries["epoch_s"].median == 11
    assert (on.summaries["epoch_s"].least, on.summaries["epoch_s"].most) == (11, 22)
    assert "epoch_s_overhead" not in off.summaries


def test_without_its_baseline_a_contestant_is_not_compared(tmp_path: Path) -> None:
    made = Clockwork({"off": [10], "on": [11]}, baseline="off")
    (on,) = run_case(made.case, Settings(tmp_path, only=("on",)), 1, Quiet())
    assert on.name == "on"
    assert set(on.summaries) == {"epoch_s"}


def test_patterns_choose_contestants(tmp_path: Path) -> None:
    settings = Settings(tmp_path, only=("jpeg/*", "cheap/off"))
    names = ["jpeg/off", "jpeg/1s", "cheap/off", "cheap/off-again"]
    assert [settings.wants(name) for name in names] == [True, True, True, False]


def test_a_pattern_that_fits_nobody_names_those_that_there_are(tmp_path: Path) -> None:
    made = Clockwork({"first": [1], "second": [1]})
    with pytest.raises(UsageError, match="first, second"):
        run_case(made.case, Settings(tmp_path, only=("third",)), 1, Quiet())
    assert made.turns == []
    assert made.tidied


def test_what_a_measurement_raises_ends_the_case_and_tidies_up(tmp_path: Path) -> None:
    made = Clockwork({"a": []})
    with pytest.raises(IndexError):
        run_case(made.case, Settings(tmp_path), 1, Quiet())
    assert made.tidied


class Race:
    """A case whose contestants have the rates that they are told, None where they cannot."""

    def __init__(self, rates: dict[str, list[float | None]], usual: tuple[str, ...] = ()) -> None:
        self.turns: list[str] = []
        self._rates = {name: list(values) for name, values in rates.items()}
        self.case = Case(
            "race",
            "who is faster",
            repeat=1,
            metrics={"elements_per_s": "elements a second"},
            contestants=self._contestants,
            ratios=(Ratio("times_stock", "elements_per_s", "stock", "times stock's"),),
            usual=usual,
            targets=(Target("times stock", "penstock", "times_stock", 4.0),),
        )

    @contextlib.contextmanager
    def _contestants(self, settings: Settings, show: object) -> Iterator[list[Contestant]]:
        def measure(name: str) -> Metrics | CouldNot:
            self.turns.append(name)
            rate = self._rates[name].pop(0)
            return CouldNot("it does not run") if rate is None else {"elements_per_s": rate}

        yield [
            Contestant(name, lambda name=name: measure(name), rivals={"stock": "stock"})
            for name in self._rates
        ]


def test_a_ratio_is_the_median_of_ratios_within_rounds(tmp_path: Path) -> None:
    # The machine is ten times slower in the second round: medians of rates would say 4.5.
    made = Race({"stock": [100, 10, 100], "penstock": [400, 50, 900]})
    _, penstock = run_case(made.case, Settings(tmp_path), 3, Quiet())
    assert penstock.summaries["times_stock"].values == pytest.approx([4, 5, 9])
    assert penstock.summaries["times_stock"].median == pytest.approx(5)


def test_what_a_contestant_cannot_do_is_told_and_not_asked_for_again(tmp_path: Path) -> None:
    made = Race({"stock": [None], "penstock": [400, 500]})
    shown = Quiet()
    stock, penstock = run_case(made.case, Settings(tmp_path), 2, shown)
    assert made.turns == ["stock", "penstock", "penstock"]
    assert (stock.could_not, penstock.could_not) == ("it does not run", "")
    assert "times_stock" not in penstock.summaries
    assert failures([stock, penstock]) == ["stock could not: it does not run"]
    assert any("stock could not: it does not run" in line for line in shown.lines)
    first_column = list(table(made.case, [stock, penstock]).columns[1].cells)
    assert str(first_column[0]) == "could not"


def test_one_that_fails_later_keeps_what_was_measured_and_stays_in_step(tmp_path: Path) -> None:
    made = Race({"stock": [100, None], "penstock": [400, 500]})
    stock, penstock = run_case(made.case, Settings(tmp_path), 2, Quiet())
    assert stock.summaries["elements_per_s"].values == (100,)
    assert stock.could_not
    assert penstock.summaries["times_stock"].values == pytest.approx([4])


def test_only_the_usual_contestants_run_unless_others_are_named(tmp_path: Path) -> None:
    made = Race({"stock": [1, 1], "penstock": [1, 1]}, usual=("stock",))
    run_case(made.case, Settings(tmp_path), 1, Quiet())
    assert made.turns == ["stock"]
    run_case(made.case, Settings(tmp_path, only=("penstock",)), 1, Quiet())
    assert made.turns == ["stock", "penstock"]


def test_the_document_has_failures_ratios_and_targets(tmp_path: Path) -> None:
    made = Race({"stock": [100], "penstock": [500], "other": [None]})
    results = run_case(made.case, Settings(tmp_path), 1, Quiet())
    told = json.loads(json.dumps(document(made.case, results)))
    assert [one["could_not"] for one in told["results"]] == [None, None, "it does not run"]
    assert told["results"][1]["rounds"][0]["times_stock"] == 5
    (target,) = told["targets"]
    assert (target["measured"], target["met"]) == (5, True)
    assert target["target"]["contestant"] == "penstock"


@given(st.lists(st.none() | NUMBERS, max_size=9))
def test_a_summary_is_of_what_is_known(values: list[float | None]) -> None:
    known = sorted(value for value in values if value is not None)
    summary = Summary.of(values)
    if not known:
        assert summary is None
        return
    assert summary is not None
    assert (summary.least, summary.most) == (known[0], known[-1])
    assert sum(value <= summary.median for value in known) * 2 >= len(known)
    assert sum(value >= summary.median for value in known) * 2 >= len(known)


def test_the_document_is_json_with_every_round(tmp_path: Path) -> None:
    made = Clockwork({"off": [10, 30], "on": [11, 33]}, baseline="off")
    results = run_case(made.case, Settings(tmp_path), 2, Quiet())
    told = json.loads(json.dumps(document(made.case, results, repeat=2)))
    assert told["repeat"] == 2
    off, on = told["results"]
    assert [one["epoch_s"] for one in off["rounds"]] == [10, 30]
    assert on["baseline"] == "off"
    assert on["summary"]["epoch_s"] == {"median": 22, "min": 11, "max": 33}


def test_the_table_leaves_out_columns_without_values(tmp_path: Path) -> None:
    made = Clockwork({"off": [10], "on": [11]}, baseline="off")
    results = run_case(made.case, Settings(tmp_path), 1, Quiet())
    shown = table(made.case, results)
    assert [str(column.header) for column in shown.columns] == ["", "epoch s", "epoch s overhead"]
    assert len(glossary(made.case, results)) == 2


@pytest.mark.parametrize(
    ("metric", "number", "text"),
    [
        ("outage_s", 1.234, "1.23"),
        ("epoch_s_overhead", 0.0123, "+1.2%"),
        ("checkpoint_bytes", 2_500_000, "2.5 MB"),
        ("appends_per_s", 9312.4, "9,312/s"),
        ("p50_ms", 0.1234, "0.12 ms"),
        ("recomputed", 1200.0, "1,200"),
        ("times_stock", 12.345, "12.3×"),
        ("times_local", 0.98765, "0.988×"),
        ("mb_per_s", 1234.5, "1,234"),
        ("worker_cpu_s_per_gb", 1.5, "1.5"),
    ],
)
def test_a_value_is_shown_with_the_unit_of_its_name(metric: str, number: float, text: str) -> None:
    assert value(metric, number) == text


def test_a_spread_is_shown_below_the_median_with_its_unit_once() -> None:
    rates, ratios = Summary.of([8791.0, 7577.0, 9000.0]), Summary.of([0.5, 0.25, 1.5])
    assert str(cell("elements_per_s", rates)) == "8,791/s\n7,577–9,000/s"
    assert str(cell("times_local", ratios)) == "0.5×\n0.25–1.5×"
    assert str(cell("first_s", Summary.of([0.1]))) == "0.10"
    assert str(cell("first_s", None)) == ""


def test_the_environment_says_where_and_with_what() -> None:
    here = Environment.now()
    assert here.cores >= 1
    assert here.memory_bytes > 0
    assert here.cpu
    assert here.tensorflow[0].isdigit()
