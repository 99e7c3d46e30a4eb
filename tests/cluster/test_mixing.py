"""Splitting does not narrow a shuffle: penstock mixes at least as widely as the local pipeline."""

from __future__ import annotations

import numpy as np
import pytest

import penstock
from penstock import LocalCluster
from penstock.bench import digits
from penstock.bench.mixing import Source, pipelines, read_order
from penstock.bench.shuffle import measured

#: In both there is chance, but with these seeds always the same.
_ROUNDING = 0.99


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    made = Source(tmp_path_factory.mktemp("mixing") / "files", files=32, records=300)
    made.write()
    return made


@pytest.mark.parametrize("name", pipelines())
def test_an_epoch_is_mixed_at_least_as_widely_as_locally(
    name: str, source: Source, shared_cluster: LocalCluster
) -> None:
    make = pipelines()[name]
    local = measured(read_order(make(source, 1)), source.elements)
    served = make(source, 1).apply(penstock.distribute(shared_cluster.address, seed=1))
    through = measured(read_order(served), source.elements)
    served.penstock.close()
    for metric, figure in local.items():
        assert figure is not None
        reached = through[metric]
        assert reached is not None
        assert reached >= _ROUNDING * figure, (metric, through, local)


def test_what_is_sorted_by_class_can_be_learnt(shared_cluster: LocalCluster) -> None:
    loaded = digits.Digits.load()
    dataset = digits.pipelines(loaded, {})["index"](digits.SMALL, 1)
    served = dataset.apply(penstock.distribute(shared_cluster.address, seed=1))
    samples = np.concatenate(list(served.batch(128).as_numpy_iterator()))
    served.penstock.close()
    assert digits.accuracy(samples, loaded.held_out) > 0.75
