"""The in-situ case: its names, what it refuses to report, and small runs without a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.bench import insitu
from penstock.bench.harness import Settings
from penstock.cli.bench import CASES
from penstock.errors import VerificationError


def test_it_is_a_case_and_compares_with_whom_there_is(tmp_path: Path) -> None:
    assert insitu.CASE.name in CASES
    with insitu.contestants(Settings(tmp_path), None) as everybody:  # type: ignore[arg-type]
        names = [one.name for one in everybody]
    assert {rival for one in everybody for rival in one.rivals.values()} < set(names)
    assert {target.contestant for target in insitu.CASE.targets} < set(names)
    assert {target.metric for target in insitu.CASE.targets} < set(insitu.CASE.columns)


def test_every_fault_is_recovered_and_the_weights_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert 0 < (insitu.numpy_in_place(2)["restore_ms"] or 0) < 10_000
    monkeypatch.setattr(insitu.NumpyTraining, "restore", lambda self, state: None)
    with pytest.raises(VerificationError, match="other weights"):
        insitu.numpy_in_place(2)


def test_the_guard_is_timed() -> None:
    measured = insitu.guard(20_000)
    assert measured["guard_ns"] is not None
    assert 0 < measured["guard_ns"] < 1e6
    assert measured["guard_ppm"] == pytest.approx(measured["guard_ns"] / 10)
