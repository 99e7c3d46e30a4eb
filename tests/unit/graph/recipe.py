"""A pipeline with every kind of thing whose name or number could differ between processes."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def make() -> Any:
    """The same pipeline at every call."""
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([1, 2], [3, 4]), 0)
    variable = tf.Variable(7, dtype=tf.int64)
    inner = tf.data.Dataset.range(3).shuffle(3)

    def parse(x: Any) -> Any:
        y = tf.cast(table.lookup(tf.cast(x, tf.int32)), tf.int64)
        return tf.cond(y > 2, lambda: y + variable, lambda: x)

    ds = tf.data.Dataset.range(100).map(parse, num_parallel_calls=4).shuffle(10)
    ds = ds.flat_map(lambda x: inner.map(lambda z: z + x)).batch(4).shuffle(3).repeat(2)
    return ds.map(lambda b: tf.ragged.stack([b, b]))


if __name__ == "__main__":
    from penstock.graph import analyse

    # Another past than the test's: numbers in TensorFlow's names are all shifted.
    tf.data.Dataset.range(3).map(lambda x: x + 1).filter(lambda x: x > 1)
    tf.random.uniform([])
    tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([1], [3]), 0)
    plan = analyse(make())
    print(plan.fingerprint, *[stream.fingerprint for stream in plan.streams])
