"""The contestants of speed cases: their names, whom they are compared with, how much they read."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.bench.entries import USUAL, Entry, entries, targets
from penstock.bench.harness import Settings
from penstock.bench.pipelines import RECORDS, by_name
from penstock.bench.scaling import CASE as SCALING
from penstock.bench.scaling import contestants as scaling_contestants
from penstock.bench.speed import RATIOS, case_of
from penstock.cli.bench import CASES, SPEED

NAMES = [entry.name for entry in entries()]


def test_names_are_unique_and_say_system_transport_way_workers_and_clients() -> None:
    assert len(set(NAMES)) == len(NAMES)
    systematic = (
        r"local/(eager|batched|numpy|reduce)"
        r"|(stock|stock-off|penstock)/(tcp|unix|tls)/(eager|batched|numpy|reduce)/w[124](/c4)?"
    )
    assert [name for name in NAMES if not re.fullmatch(systematic, name)] == []
    assert "penstock/tcp/batched/w1" in NAMES
    assert "penstock/unix/numpy/w4/c4" in NAMES


def test_the_usual_ones_are_one_worker_and_one_client() -> None:
    settings = Settings(Path(), only=USUAL)
    usual = [name for name in NAMES if settings.wants(name)]
    assert len(usual) == 4 + 4 + 8 + 1
    assert all(name.startswith("local/") or name.endswith("/w1") for name in usual)


def test_whoever_is_compared_is_compared_with_somebody_that_there_is() -> None:
    for entry in entries():
        assert set(entry.rivals.values()) <= set(NAMES)
        assert entry.name not in entry.rivals.values()


def test_penstock_is_compared_with_stock_of_as_many_workers_and_clients() -> None:
    entry = Entry("penstock", "numpy", "unix", workers=2)
    assert entry.rivals == {"stock": "stock/tcp/numpy/w2", "local": "local/numpy"}
    # One local run says nothing about four.
    assert replace(entry, clients=4).rivals == {"stock": "stock/tcp/numpy/w2/c4"}


def test_stock_reads_fewer_elements_and_several_clients_read_less_each() -> None:
    scalars = by_name()["scalars"]
    stock = Entry("stock", "batched", "tcp", workers=1)
    penstock = replace(stock, system="penstock")
    few, many = (one.elements(scalars, quick=False) for one in (stock, penstock))
    assert few * 100 < many
    assert replace(penstock, clients=4).elements(scalars, quick=False) == many // 4
    assert penstock.elements(scalars, quick=True) == many // 10


def test_a_pipeline_of_files_is_read_by_whole_files() -> None:
    for entry in entries():
        for quick in (False, True):
            elements = entry.elements(by_name()["jpeg"], quick=quick)
            assert elements >= RECORDS
            assert elements % RECORDS == 0


@pytest.mark.parametrize("name", SPEED)
def test_every_case_has_targets_about_what_it_usually_measures(name: str) -> None:
    case = case_of(name)
    usual = Settings(Path(), only=case.usual)
    assert case.name == name
    for target in targets(name):
        assert target.contestant in NAMES
        assert usual.wants(target.contestant)
        assert target.metric in case.columns


def test_every_pipeline_is_a_case() -> None:
    assert {*SPEED, "scaling"} == set(by_name())
    assert {*SPEED, "scaling"} < set(CASES)
    assert {ratio.metric for ratio in RATIOS} <= set(case_of("scalars").metrics)


def test_scaling_has_every_number_of_workers_with_8_and_16_lanes(tmp_path: Path) -> None:
    nobody = Settings(tmp_path, only=("nobody",))
    with scaling_contestants(nobody, None) as everybody:  # type: ignore[arg-type]
        names = [one.name for one in everybody]
        assert {one.rivals["one"] for one in everybody} <= set(names)
    assert len(names) == 10
    assert {target.contestant for target in SCALING.targets} == set(names)
