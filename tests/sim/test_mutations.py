"""The simulation can fail: every mistake of `mutations` is seen by one of the first seeds."""

from __future__ import annotations

import pytest

from .mutations import MUTATIONS
from .world import SimulationError, run_seed

SEEDS = 500


def is_caught_by(seed: int) -> bool:
    """Whether a run breaks an invariant."""
    try:
        run_seed(seed)
    except SimulationError:
        return True
    return False


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mistake_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTATIONS[name](monkeypatch)
    assert any(map(is_caught_by, range(SEEDS))), f"{SEEDS} seeds saw nothing wrong: {name}"
