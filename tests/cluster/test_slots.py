"""Memory shared with workers on the same machine: nothing that the trainer holds ever changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from penstock import Reader

from .conftest import ClusterMaker

ROWS, WIDTH = 400, 50_000  # 200 KB a row, 80 MB together


def rows() -> tf.data.Dataset:
    return tf.data.Dataset.range(ROWS).map(
        lambda number: tf.cast(number, tf.float32) + tf.range(WIDTH, dtype=tf.float32)
    )


def row(number: int) -> np.ndarray:
    return np.float32(number) + np.arange(WIDTH, dtype=np.float32)


def assert_every_row_once(arrays: list[np.ndarray]) -> None:
    numbers = [int(array[0]) for array in arrays]
    assert sorted(numbers) == list(range(ROWS))
    assert all(map(np.array_equal, arrays, map(row, numbers)))


def slots_mapped() -> int:
    return Path("/proc/self/maps").read_text().count("penstock-slot")


def test_a_trainer_that_keeps_everything_gets_everything(make_cluster: ClusterMaker) -> None:
    cluster = make_cluster(workers=1, worker_arguments=("--memory-limit", "32MiB"))
    with Reader(rows(), cluster.address) as reader:
        kept = [array for run in reader.runs() for array in run[0]]
        assert slots_mapped()  # some of them came in slots, and the others when there were no more
        assert_every_row_once(kept)


def test_slots_are_used_again_while_the_trainer_reads_on(make_cluster: ClusterMaker) -> None:
    cluster = make_cluster(workers=1, worker_arguments=("--memory-limit", "32MiB"))
    with Reader(rows(), cluster.address) as reader:
        for _ in range(3):
            copies, most = [], 0
            for run in reader.runs():
                copies += [array.copy() for array in run[0]]
                most = max(most, slots_mapped())
            assert_every_row_once(copies)
            assert 0 < most <= 16  # 16 MiB in all, of 1.8 MB or more each, and what was dropped


def test_a_worker_that_dies_leaves_what_it_lent(make_cluster: ClusterMaker) -> None:
    cluster = make_cluster(workers=2)
    with Reader(rows(), cluster.address) as reader:
        kept: list[np.ndarray] = []
        for run in reader.runs():
            kept += list(run[0])
            if len(kept) >= ROWS // 3 and cluster.workers[0].alive:
                cluster.workers[0].kill()
        assert_every_row_once(kept)
