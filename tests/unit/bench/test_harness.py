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
    Environment,
    Metrics,
    Settings,
    Summary,
    document,
    run_case,
)
from penstock.bench.report import glossary, table, value
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
    ],
)
def test_a_value_is_shown_with_the_unit_of_its_name(metric: str, number: float, text: str) -> None:
    assert value(metric, number) == text


def test_the_environment_says_where_and_with_what() -> None:
    here = Environment.now()
    assert here.cores >= 1
    assert here.memory_bytes > 0
    assert here.cpu
    assert here.tensorflow[0].isdigit()
