"""A cached pipeline in a process of its own: names and an iterator's state, for the test's."""

from __future__ import annotations

import sys
from typing import Any

import tensorflow as tf

from penstock.graph import analyse, load_stream
from penstock.worker.checkpoint_file import Layout
from penstock.worker.iterators import Source


def make() -> Any:
    """The same pipeline at every call, with things whose names differ between processes."""
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([1, 2], [3, 4]), 0)
    variable = tf.Variable(7, dtype=tf.int64)
    inner = tf.data.Dataset.range(3).shuffle(3)

    def parse(x: Any) -> Any:
        y = tf.cast(table.lookup(tf.cast(x, tf.int32)), tf.int64)
        return tf.cond(y > 2, lambda: y + variable, lambda: x)

    ds = tf.data.Dataset.range(640).map(parse, num_parallel_calls=4).shuffle(10)
    ds = ds.flat_map(lambda x: inner.map(lambda z: z + x)).cache()
    return ds.shuffle(7).map(lambda x: x * 3, num_parallel_calls=2).prefetch(4)


def take(dataset: Any, count: int) -> tuple[list[int], Source, bytes]:
    """So many elements of a dataset, its iterator, and the state of that."""
    source = Source(dataset, Layout("collected"))
    elements = [int(next(iter(source))[0]) for _ in range(count)]
    return elements, source, source.capture()


if __name__ == "__main__":
    # Another past than the test's: numbers in names, tokens and handles are all shifted.
    tf.data.Dataset.range(3).map(lambda x: tf.numpy_function(lambda y: y, [x], tf.int64))
    (stream,) = analyse(make()).streams
    loaded = load_stream(stream.blob)
    written: list[Any] = []
    old = loaded.put_dataset(
        1, seed=4, epoch=2, size=3, write=lambda start, arrays: written.append(arrays)
    )
    for _ in old:
        pass
    taken, _, state = take(
        loaded.get_dataset(1, seed=4, epoch=2, chunks=len(written), read=written.__getitem__), 5
    )
    assert stream.cache is not None
    print(stream.fingerprint, stream.cache.key, state.hex(), *taken)
    sys.stdout.flush()
