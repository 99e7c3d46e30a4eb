"""`TorchDataset` and `TorchLoader`, in this process and in two: each element once, resumed exactly.

Without PyTorch, only what needs none is tried.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import Any

import pytest

from penstock import LocalCluster, Reader, TorchDataset, TorchLoader
from penstock.errors import PositionError, UsageError

from .pipelines import numbers

COUNT = 90
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)


@pytest.fixture(scope="module")
def fingerprint(shared_cluster: LocalCluster) -> str:
    """A registered dataset of pairs."""
    with Reader(numbers(COUNT), shared_cluster, seed=1) as reader:
        sum(1 for _ in reader)
        found: str = reader.plan.streams[0].fingerprint
    return found


def made(cluster: LocalCluster, fingerprint: str, **more: Any) -> TorchDataset:
    return TorchDataset(fingerprint, cluster.address, seed=5, lanes=6, block=2, **more)


def test_iterating_it_alone_has_a_state(shared_cluster: LocalCluster, fingerprint: str) -> None:
    dataset = made(shared_cluster, fingerprint, structure=0)
    epochs = [[int(x) for x in dataset] for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(COUNT))
    assert epochs[0] != epochs[1]
    for taken in (0, 1, 33, COUNT):
        former = made(shared_cluster, fingerprint, structure=0)
        elements = iter(former)
        for _ in range(taken):
            next(elements)
        state = json.loads(json.dumps(former.state_dict()))
        elements.close()  # type: ignore[attr-defined]
        later = made(shared_cluster, fingerprint, structure=0)
        later.load_state_dict(state)
        rest = [int(x) for x in later]
        assert rest == (epochs[0] + epochs[1])[taken : COUNT if taken < COUNT else None]


def test_what_cannot_be_sent_or_loaded_is_refused(
    shared_cluster: LocalCluster, fingerprint: str
) -> None:
    with pytest.raises(UsageError, match="job_name: not for several"):
        made(shared_cluster, fingerprint, job_name="x")
    dataset = made(shared_cluster, fingerprint)
    state = dataset.state_dict()
    with pytest.raises(PositionError, match="seed is 5, it was 6"):
        dataset.load_state_dict({**state, "seed": 6})
    with pytest.raises(PositionError, match="no state of a loader"):
        dataset.load_state_dict({})


_SCRIPT = """
import json, sys
import penstock

def main():
    address, fingerprint, workers, taken, state = json.loads(sys.argv[1])
    dataset = penstock.TorchDataset(fingerprint, address, seed=5, structure=0, lanes=6, block=2)
    loader = penstock.TorchLoader(dataset, batch_size=7, num_workers=workers)
    if state is not None:
        loader.load_state_dict(state)
    seen = []
    for _ in range(2):
        for batch in loader:
            seen.append(batch.tolist())
            if len(seen) == taken:
                break
        if len(seen) == taken:
            break
    print(json.dumps([seen, loader.state_dict(), "tensorflow" in sys.modules]))

if __name__ == "__main__":
    main()
"""


@needs_torch
@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_goes_on_at_the_very_next_batch(
    tmp_path: Any, shared_cluster: LocalCluster, fingerprint: str, workers: int
) -> None:
    script = tmp_path / "trainer.py"  # spawned workers import the main module
    script.write_text(_SCRIPT)

    def run(taken: int, state: dict[str, Any] | None) -> tuple[list[list[int]], dict[str, Any]]:
        arguments = json.dumps([shared_cluster.address, fingerprint, workers, taken, state])
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(script), arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=240,
        )
        seen, after, tensorflow = json.loads(done.stdout.splitlines()[-1])
        assert not tensorflow
        return seen, after

    expected, _ = run(-1, None)
    flat = [number for batch in expected for number in batch]
    assert sorted(flat[:COUNT]) == sorted(flat[COUNT:]) == list(range(COUNT))
    for taken in (1, 5):
        seen, state = run(taken, None)
        assert seen == expected[:taken]
        rest, _ = run(len(expected) // 2 - taken, state)
        assert rest == expected[taken : len(expected) // 2]


@needs_torch
def test_a_loader_names_what_differs(shared_cluster: LocalCluster, fingerprint: str) -> None:
    loader = TorchLoader(made(shared_cluster, fingerprint))
    state = loader.state_dict()
    with pytest.raises(PositionError, match="workers is 2, it was 1"):
        TorchLoader(made(shared_cluster, fingerprint), num_workers=2).load_state_dict(state)
    with pytest.raises(UsageError, match="persistent_workers"):
        TorchLoader(made(shared_cluster, fingerprint), num_workers=2, persistent_workers=True)
