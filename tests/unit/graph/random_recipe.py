"""An augmented pipeline, and what another process makes of its blob."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import tensorflow as tf

from penstock.graph import analyse, load_stream
from penstock.worker.iterators import options


def make(parallel: int | None = None) -> Any:
    """The same pipeline at every call; `parallel` calls of its functions run at once."""

    @tf.function
    def noisy(x: Any) -> Any:
        return x + tf.random.normal([4])

    def augment(x: Any) -> Any:
        x = noisy(noisy(tf.fill([4], tf.cast(x, tf.float32))))
        x = tf.cond(tf.random.uniform([]) < 0.5, lambda: tf.random.shuffle(x), lambda: noisy(x))
        return tf.while_loop(
            lambda k, y: tf.random.uniform([]) < 0.7,
            lambda k, y: (k + 1, y + tf.random.uniform([4])),
            (0, x),
        )

    def copies(x: Any) -> Any:
        inner = tf.data.Dataset.range(3)
        return inner.map(lambda y: x * 10 + y + tf.random.uniform([], 0, 5, tf.int64))

    ds = tf.data.Dataset.range(640).shuffle(20)
    if parallel is None:
        ds = ds.interleave(copies, cycle_length=2)
    else:
        ds = ds.interleave(copies, cycle_length=2, num_parallel_calls=2)
    ds = ds.filter(lambda x: tf.random.uniform([]) < 0.8)
    ds = ds.map(augment, num_parallel_calls=parallel)
    return ds.shuffle(5).map(lambda k, x: (k, x, tf.random.uniform([])))


def elements(dataset: Any) -> list[Any]:
    """The elements of a split's dataset, comparable to the bit."""
    return [tuple(exact(part) for part in element) for element in dataset.as_numpy_iterator()]


def exact(value: Any) -> Any:
    """A tensor, comparable to the bit."""
    array = np.asarray(value)
    return array.shape, array.tolist() if array.dtype == object else array.tobytes()


if __name__ == "__main__":
    # Another past than the test's, and another machine: numbers in names, and threads.
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.random.uniform([])
    tf.data.Dataset.range(3).map(lambda x: tf.random.uniform([]))
    with open(sys.argv[1], "rb") as file:
        stream = load_stream(file.read())
    print(analyse(make()).fingerprint)
    for split in (0, 9):
        made = stream.split_dataset(split, seed=11, epoch=3).with_options(options())
        print(elements(made))
