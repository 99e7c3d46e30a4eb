"""One real cluster for the whole matrix, its pipelines, and what plain tf.data makes of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import tensorflow as tf

from penstock import LocalCluster
from penstock.client.epoch import StreamInfo
from penstock.graph import analyse

from .points import SNAPSHOT_RECORDS
from .trainer import elements

SEED = 7
_FILES = 8
_LINES = 50
#: Holds a whole split: nothing of it is there before all of it is made.
_BUFFER = 64
#: About a millisecond for each element, so that a split is made in several pieces.
_WORK = 60


@dataclass(frozen=True)
class Truth:
    """A pipeline: how penstock is to read it, and what it consists of.

    Attributes:
        stream: what a client registers.
        content: the elements, sorted, as plain tf.data makes them.
    """

    stream: StreamInfo
    content: list[str]


FreshDataset = Callable[..., Truth]


def pipeline(paths: list[str], mark: str, buffer: int) -> tf.data.Dataset:
    """The lines of files, shuffled in a buffer of that size, each with `mark` at its end."""

    def worked(line: tf.Tensor) -> tf.Tensor:
        matrix = tf.eye(64) * tf.cast(tf.strings.length(line), tf.float32)
        for _ in range(_WORK):
            matrix = matrix @ tf.eye(64)
        zero = tf.cast(tf.reduce_sum(matrix) * 0.0, tf.int64)
        return tf.strings.join([line, tf.strings.as_string(zero), mark], "-")

    return tf.data.TextLineDataset(paths).map(worked, num_parallel_calls=2).shuffle(buffer)


@pytest.fixture(scope="session")
def fresh_dataset(tmp_path_factory: pytest.TempPathFactory) -> FreshDataset:
    """Makes datasets that no dispatcher or worker has heard of."""
    marks = itertools.count()

    def make(lines: int = _LINES, buffer: int = _BUFFER) -> Truth:
        directory = tmp_path_factory.mktemp("lines")
        paths = []
        for number in range(_FILES):
            path = directory / f"{number}.txt"
            path.write_text("".join(f"{number}:{line}\n" for line in range(lines)))
            paths.append(str(path))
        dataset = pipeline(paths, f"mark{next(marks)}", buffer)
        (stream,) = analyse(dataset, lanes=4).streams
        info = StreamInfo(
            stream.fingerprint,
            stream.num_splits,
            stream.weights,
            stream.replayable,
            tuple(stream.components),
            stream.blob,
        )
        return Truth(info, sorted(line.numpy().decode() for line in dataset))

    return make


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Two workers that outlive the dispatcher, whose snapshots are frequent."""
    with LocalCluster(
        workers=2,
        directory=tmp_path_factory.mktemp("cluster"),
        worker_timeout_s=1.0,
        worker_arguments=["--time-scale=0.3"],
        dispatcher_arguments=[
            f"--snapshot-records={SNAPSHOT_RECORDS}",
            "--client-timeout=20",
            "--lease=2",
        ],
    ) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def known(fresh_dataset: FreshDataset) -> Truth:
    """A dataset that is registered, once it has been read."""
    return fresh_dataset()


@pytest.fixture(scope="session")
def calm_order(cluster: LocalCluster, known: Truth) -> list[str]:
    """The order of the known dataset's first epoch when nothing happens."""
    return read_calmly(cluster, known)


def read_calmly(cluster: LocalCluster, truth: Truth) -> list[str]:
    """An undisturbed first epoch, whose content was compared with plain tf.data's."""
    order = list(elements(cluster, truth.stream, seed=SEED))
    assert sorted(order) == truth.content
    return order
