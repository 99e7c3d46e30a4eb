"""The shuffle case without a cluster: its names, its sources, and the training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from penstock.bench import digits, mixing
from penstock.bench.harness import Settings
from penstock.bench.orders import checked_order
from penstock.bench.report import value
from penstock.bench.shuffle import CASE, NAMES, UNIFORM, contestants, measured
from penstock.cli.bench import CASES


@pytest.fixture(scope="module")
def loaded() -> digits.Digits:
    return digits.Digits.load()


def test_it_is_a_case_and_compares_with_whom_there_is(tmp_path: Path) -> None:
    assert CASE.name in CASES
    with contestants(Settings(tmp_path, only=("nobody",)), None) as everybody:  # type: ignore[arg-type]
        names = [one.name for one in everybody]
    assert sorted(names) == sorted([*NAMES, UNIFORM])
    assert {rival for one in everybody for rival in one.rivals.values()} < set(names)
    assert {target.contestant for target in CASE.targets} < set(names)
    assert {target.metric for target in CASE.targets} < set(CASE.columns)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", mixing.pipelines())
def test_every_pipeline_gives_each_position_once_and_repeats_itself(
    name: str, tmp_path: Path
) -> None:
    source = mixing.Source(tmp_path / "files", files=20, records=10)
    source.write()
    make = mixing.pipelines()[name]
    order = checked_order(mixing.read_order(make(source, 1)), 200)
    assert mixing.read_order(make(source, 1)).tolist() == order.tolist()
    figures = measured(order, 200)
    assert set(figures) < set(CASE.metrics)
    assert all(0 < figure < 1.3 for figure in figures.values() if figure is not None)


def test_parts_are_shown_in_percent() -> None:
    assert value("neighbours_part", 0.979) == "97.9%"


def test_digits_are_sorted_and_no_sample_is_in_both_parts(loaded: digits.Digits) -> None:
    classes = loaded.train[:, digits.PIXELS]
    assert (np.diff(classes.astype(int)) >= 0).all()
    assert set(classes) == set(loaded.held_out[:, digits.PIXELS]) == set(range(10))
    assert len(loaded.train) + len(loaded.held_out) == 1797


def test_files_hold_every_sample_in_order(loaded: digits.Digits, tmp_path: Path) -> None:
    paths = loaded.write(tmp_path / "digits")
    assert {name: len(some) for name, some in paths.items()} == {"classes": 10, "files": 40}
    for make in digits.pipelines(loaded, paths).values():
        rows = np.stack(list(make(1, 0).as_numpy_iterator()))
        assert rows.tolist() == loaded.train.tolist()


def test_what_is_learnt_depends_on_the_order_alone(loaded: digits.Digits) -> None:
    mixed = np.random.default_rng(1).permutation(loaded.train)
    learnt = digits.accuracy(mixed, loaded.held_out)
    assert learnt > 0.8
    assert digits.accuracy(mixed, loaded.held_out) == learnt
    # Sorted by class, only the last one is remembered.
    assert digits.accuracy(loaded.train, loaded.held_out) < 0.2
