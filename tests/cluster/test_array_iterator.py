"""`ArrayIterator`: what a JAX trainer takes, with a state that goes on anywhere."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from penstock import ArrayIterator, LocalCluster, Reader
from penstock.errors import PositionError, UsageError

from .pipelines import numbers

STRUCTURE = {"number": 0, "both": (0, 1)}


@pytest.fixture(scope="module")
def fingerprint(shared_cluster: LocalCluster) -> str:
    """A registered dataset of 50 pairs."""
    with Reader(numbers(50), shared_cluster, seed=1) as reader:
        sum(1 for _ in reader)
        found: str = reader.plan.streams[0].fingerprint
    return found


def test_a_state_goes_on_over_epochs(shared_cluster: LocalCluster, fingerprint: str) -> None:
    def batches(reader: Reader) -> ArrayIterator:
        return ArrayIterator(reader, structure=STRUCTURE, batch=8, epochs=2)

    with Reader(fingerprint, shared_cluster, seed=1) as reader:
        expected = [batch["number"].tolist() for batch in batches(reader)]
    assert [len(batch) for batch in expected] == 2 * [8, 8, 8, 8, 8, 8, 2]
    assert sorted(number for batch in expected[:7] for number in batch) == list(range(50))
    for steps in (0, 1, 6, 7, 8, 13, 14):
        with Reader(fingerprint, shared_cluster, seed=1) as reader:
            iterator = batches(reader)
            for _ in range(steps):
                next(iterator)
            state = json.loads(json.dumps(iterator.state_dict()))
        with Reader(fingerprint, shared_cluster) as reader:
            iterator = batches(reader)
            iterator.load_state_dict(state)
            rest = []
            for batch in iterator:
                assert isinstance(batch["number"], np.ndarray)
                assert np.array_equal(batch["both"][1], batch["number"] ** 2)
                rest.append(batch["number"].tolist())
        assert rest == expected[steps:], steps


def test_a_pipeline_keeps_its_structure(shared_cluster: LocalCluster) -> None:
    local = tf.data.Dataset.range(20).map(lambda i: {"a": i, "b": (i, tf.strings.as_string(i))})
    with Reader(local, shared_cluster, seed=1) as reader:
        batch = next(ArrayIterator(reader, batch=4))
    assert batch["a"].shape == (4,)
    assert batch["b"][1].tolist() == [str(i).encode() for i in batch["a"]]


def test_what_is_no_state_is_refused(shared_cluster: LocalCluster, fingerprint: str) -> None:
    with Reader(fingerprint, shared_cluster, seed=1) as reader:
        with pytest.raises(PositionError, match="has the key 'penstock_position'"):
            ArrayIterator(reader).load_state_dict({})
        with pytest.raises(UsageError, match="batch must be"):
            ArrayIterator(reader, batch=0)
        with pytest.raises(UsageError, match="numbers from 0 to 1"):
            next(ArrayIterator(reader, structure=[0, 2]))


def test_no_tensorflow_is_loaded(fingerprint: str, shared_cluster: LocalCluster) -> None:
    script = f"""
import sys
import penstock
with penstock.Reader({fingerprint!r}, {shared_cluster.address!r}, seed=1) as reader:
    iterator = penstock.ArrayIterator(reader, batch=10)
    next(iterator)
    iterator.load_state_dict(iterator.state_dict())
    print(len(list(zip(range(4), iterator))), "tensorflow" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["4", "False"]
