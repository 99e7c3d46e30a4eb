"""The case `control`: what it replays is what can happen, and its simulated peers do their work."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from penstock.bench import control
from penstock.dispatcher import event_records
from penstock.dispatcher import events as ev
from penstock.dispatcher.recover import replay


def test_the_history_of_a_recovery_is_one_that_can_happen() -> None:
    events = list(islice(control.history(), 5_000))
    records = [(number, event_records.encode(event)) for number, event in enumerate(events, 1)]
    state = replay(None, records)
    finished = sum(isinstance(event, ev.EpochFinished) for event in events)
    assert finished == state.jobs["j1"].streams[0].epochs_finished >= 4


def test_targets_are_of_contestants_and_metrics_that_there_are(tmp_path: Path) -> None:
    names = {
        f"{load}/w{workers}"
        for load in ("heartbeats", "paced", "flood")
        for workers in control.WORKERS
    }
    for target in control.CASE.targets:
        assert target.contestant in names | {"epochs/w10", "recovery"}
        assert target.metric in control.METRICS


def test_simulated_peers_read_epochs_of_a_real_dispatcher(tmp_path: Path) -> None:
    figures = control.measure_load(
        tmp_path, workers=3, splits=200, slots=2, warm_s=0.5, seconds=1.0
    )
    assert (figures["splits_per_s"] or 0) > 0
    assert (figures["p99_ms"] or 0) >= (figures["p50_ms"] or 0) > 0
    assert (figures["heartbeats_per_s"] or 0) > 0
    epochs = control.measure_epochs(tmp_path, 10)
    assert (epochs["times_early"] or 0) > 0
    assert list(tmp_path.iterdir()) == []
