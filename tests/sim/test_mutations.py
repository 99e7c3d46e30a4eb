"""The simulation can fail: every mistake of `mutations` is seen by one of the first seeds."""

from __future__ import annotations

import pytest

from .consumers import GroupWorld
from .mutations import MUTATIONS, OF_GROUPS
from .world import SimulationError, World, run_seed

SEEDS = 500


def is_caught_by(seed: int, kind: type[World] = World) -> bool:
    """Whether a run breaks an invariant."""
    try:
        run_seed(seed, kind)
    except SimulationError:
        return True
    return False


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mistake_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTATIONS[name](monkeypatch)
    assert any(map(is_caught_by, range(SEEDS))), f"{SEEDS} seeds saw nothing wrong: {name}"


@pytest.mark.parametrize("name", OF_GROUPS)
def test_a_mistake_about_consumers_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    OF_GROUPS[name](monkeypatch)
    caught = (is_caught_by(seed, GroupWorld) for seed in range(SEEDS))
    assert any(caught), f"{SEEDS} seeds saw nothing wrong: {name}"
