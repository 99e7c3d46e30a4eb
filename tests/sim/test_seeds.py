"""Many short lives of whole clusters, each from one seed, on virtual time (G1, G3, G5, G7, G8)."""

from __future__ import annotations

import os

import pytest

from penstock.recovery.strategy import FailoverStrategy

from .batch import run_batch
from .consumers import GroupWorld
from .setup import FAULTS
from .world import run_seed

SEEDS = 500
GROUPS = 150
GROUP = 10


@pytest.mark.parametrize("first", range(0, SEEDS, GROUP))
def test_every_epoch_is_delivered_exactly_once_whatever_fails(first: int) -> None:
    batch = run_batch(first, first + GROUP)
    assert not batch.failed, "\n\n".join(batch.failed.values())


def test_one_seed_again() -> None:
    seed = int(os.environ.get("PENSTOCK_SIM_SEED", "1"))
    first, second = run_seed(seed), run_seed(seed)
    assert first == second, "a run follows from its seed"


def test_the_seeds_bring_every_kind_of_fault() -> None:
    batch = run_batch(1000, 1040)
    assert not batch.failed, "\n\n".join(batch.failed.values())
    assert set(batch.faults) == {kind for kind, _ in FAULTS}
    assert set(batch.strategies) == {strategy.value for strategy in FailoverStrategy}
    assert batch.recoveries > 0
    assert batch.elements > 0
    assert batch.woven > 0


@pytest.mark.parametrize("first", range(0, GROUPS, GROUP))
def test_consumers_that_are_resized_account_for_every_lane(first: int) -> None:
    for seed in range(first, first + GROUP):
        run_seed(seed, GroupWorld)


def test_one_group_again() -> None:
    seed = int(os.environ.get("PENSTOCK_SIM_SEED", "1"))
    assert run_seed(seed, GroupWorld) == run_seed(seed, GroupWorld), "a run follows from its seed"
