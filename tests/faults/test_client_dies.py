"""The trainer dies at each of the client's failpoints, starts again, and gets the whole epoch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penstock import LocalCluster
from penstock.client.audit import audit
from penstock.failpoints import VARIABLE

from .conftest import SEED, FreshDataset, Truth, read_calmly
from .points import CLIENT, Visit
from .trainer import write_stream

TRAINER = Path(__file__).with_name("trainer.py")
_DEADLINE_S = 120.0


def train(
    cluster: LocalCluster, truth: Truth, directory: Path, failpoint: str = ""
) -> tuple[list[str], subprocess.CompletedProcess[str]]:
    """Runs a trainer to its end; what it consumed, and how it ended."""
    stream, out = directory / "stream", directory / "consumed"
    write_stream(stream, truth.stream)
    arguments = [cluster.address, stream, SEED, out, directory / "ledger"]
    done = subprocess.run(
        [sys.executable, TRAINER, *map(str, arguments)],
        env={**os.environ, VARIABLE: failpoint},
        stderr=subprocess.PIPE,
        text=True,
        timeout=_DEADLINE_S,
        check=False,
    )
    return out.read_text().splitlines(), done


@pytest.mark.parametrize("visit", CLIENT, ids=str)
def test_an_epoch_is_exact_though_the_trainer_was_killed_at(
    cluster: LocalCluster,
    visit: Visit,
    known: Truth,
    calm_order: list[str],
    fresh_dataset: FreshDataset,
    tmp_path: Path,
) -> None:
    truth = fresh_dataset() if visit.during == "fresh" else known
    before, killed = train(cluster, truth, tmp_path, f"{visit.name}=kill@{visit.at}")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert f"failpoint {visit.name}: kill" in killed.stderr
    seen, done = train(cluster, truth, tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(seen) == truth.content
    assert seen == (calm_order if truth is known else read_calmly(cluster, truth))
    assert before == seen[: len(before)]
    report = audit(tmp_path / "ledger")
    assert report.clean, report
    assert [visit.elements for visit in report.visits if visit.finished][-1:] == [len(seen)]
