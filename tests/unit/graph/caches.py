"""Pipelines with a cache point, and helpers that write and read what passes it."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from penstock.graph import LoadedStream, analyse, load_stream

from .harness import listed

Dataset = tf.data.Dataset
Pair = namedtuple("Pair", "left right")

#: Elements of most sources, and how many splits they make: 6 of 11.
N = 66
SPLITS = 6
INNER = Dataset.range(4)


def ragged(x: Any) -> Any:
    return tf.RaggedTensor.from_row_lengths(tf.range(x % 5), [x % 5, 0])


def nested(x: Any) -> Any:
    return {"r": ragged(x), "s": (tf.SparseTensor([[x % 7]], [x], [7]), None), "x": Pair(x, -x)}


def plus(x: Any) -> Any:
    return x + 1


def thrice(x: Any) -> Any:
    return x * 3


def odd(x: Any) -> Any:
    return x % 2 == 1


def shuffled_copies(x: Any) -> Any:
    return INNER.shuffle(4).map(lambda y: x * 10 + y)


def drawn(x: Any) -> Any:
    return x, tf.random.stateless_uniform([3], [1, x])


numbers = Dataset.range(N).map(plus)
table = tf.lookup.StaticHashTable(
    tf.lookup.KeyValueTensorInitializer(tf.range(N, dtype=tf.int64), tf.range(N) % 7), -1
)
variable = tf.Variable(5, dtype=tf.int32)

#: name -> (what is cached, what follows), given the names of six TFRecord files.
PIPELINES: dict[str, Callable[[list[str]], tuple[Any, Callable[[Any], Any]]]] = {
    "map": lambda files: (numbers, lambda ds: ds.map(thrice)),
    "parallel map": lambda files: (
        Dataset.range(N).map(drawn, num_parallel_calls=2).prefetch(2),
        lambda ds: ds.map(lambda x, y: (y, x), num_parallel_calls=2).prefetch(3),
    ),
    "filter": lambda files: (numbers.filter(odd), lambda ds: ds.map(thrice).filter(odd)),
    "shuffle in the tail": lambda files: (numbers, lambda ds: ds.shuffle(20).map(thrice)),
    "shuffle in the head": lambda files: (numbers.shuffle(20), lambda ds: ds.map(thrice)),
    "shuffles in both": lambda files: (numbers.shuffle(20), lambda ds: ds.shuffle(5).map(thrice)),
    "zip in the head": lambda files: (
        Dataset.zip((numbers, Dataset.from_tensor_slices(tf.range(N)))),
        lambda ds: ds.map(lambda x, y: {"sum": x + tf.cast(y, tf.int64)}),
    ),
    "zip in the tail": lambda files: (
        numbers,
        lambda ds: Dataset.zip((Dataset.from_tensor_slices(tf.range(N)), ds)).map(
            lambda x, y: y - tf.cast(x, tf.int64)
        ),
    ),
    "flat_map": lambda files: (numbers, lambda ds: ds.flat_map(lambda x: Dataset.range(x % 3))),
    "shuffles inside": lambda files: (
        Dataset.range(30).flat_map(shuffled_copies),
        lambda ds: ds.flat_map(shuffled_copies),
    ),
    "a table and a variable": lambda files: (
        numbers.map(lambda x: (x, table.lookup(x) + variable)),
        lambda ds: ds.map(lambda x, y: table.lookup(x) * variable - y),
    ),
    "strings": lambda files: (
        Dataset.from_tensor_slices([b"", b"\x00\xff", b"word"] * 10),
        lambda ds: ds.map(lambda s: (s, tf.strings.length(s))),
    ),
    "string vectors": lambda files: (
        numbers.map(lambda x: tf.fill([x % 3], tf.strings.as_string(x))),
        lambda ds: ds.map(lambda s: tf.strings.join([s, s])),
    ),
    "lone strings": lambda files: (
        numbers.map(lambda x: (tf.strings.as_string(x), tf.fill([x % 3], x > 9), x)),
        lambda ds: ds.map(lambda s, v, x: (x, tf.strings.join([s, "!"]), v)),
    ),
    "ragged": lambda files: (numbers.map(ragged), lambda ds: ds.map(lambda r: r * 2)),
    "nested": lambda files: (numbers.map(nested), lambda ds: ds.map(lambda e: (e["s"][0], e["r"]))),
    "ragged rows": lambda files: (
        Dataset.from_tensor_slices(tf.ragged.constant([[1], [], [2, 3]] * 10)),
        lambda ds: ds.map(lambda r: r + 1),
    ),
    "no bytes": lambda files: (
        numbers.map(lambda x: (tf.zeros([0, 3]), tf.zeros([x % 2], tf.bool))),
        lambda ds: ds.map(lambda x, y: (tf.size(x), y)),
    ),
    "no bytes, stacked": lambda files: (
        numbers.map(lambda x: (tf.zeros([0, 3]), x)),
        lambda ds: ds.map(lambda x, y: (tf.size(x), y)),
    ),
    "dtypes": lambda files: (
        numbers.map(lambda x: (x > 5, tf.cast(x, tf.bfloat16), tf.cast(x, tf.uint8), 1j)),
        lambda ds: ds.map(lambda a, b, c, d: (d, c, b, a)),
    ),
    "records": lambda files: (
        Dataset.from_tensor_slices(files).interleave(tf.data.TFRecordDataset, cycle_length=3),
        lambda ds: ds.map(lambda r: (r, tf.strings.length(r))),
    ),
    "records of mixed files": lambda files: (
        Dataset.from_tensor_slices(files).shuffle(6).interleave(tf.data.TFRecordDataset),
        lambda ds: ds.shuffle(3).map(tf.strings.length),
    ),
    "batches": lambda files: (numbers.batch(4), lambda ds: ds.map(tf.reduce_sum)),
    "whole batches": lambda files: (
        numbers.batch(4, drop_remainder=True),
        lambda ds: ds.map(thrice).unbatch(),
    ),
    "batches in the tail": lambda files: (numbers, lambda ds: ds.batch(4).map(thrice)),
    "one split": lambda files: (
        Dataset.random(seed=3).take(25).map(lambda x: x % 100),
        lambda ds: ds.shuffle(9).map(thrice),
    ),
    "one split, skipped": lambda files: (
        Dataset.random(seed=3).take(25).map(lambda x: x % 100),
        lambda ds: ds.skip(3).shard(3, 1).skip(1).map(thrice),
    ),
    "one split, skipped one by one": lambda files: (
        Dataset.random(seed=3).take(25).map(ragged),
        lambda ds: ds.skip(3).shard(3, 1).skip(1).map(lambda r: r * 2),
    ),
}


def marked(name: str, files: list[str]) -> Any:
    """A pipeline of the catalogue with `.cache()` at its point."""
    head, tail = PIPELINES[name](files)
    return tail(head.cache())


def loaded(ds: Any, **options: Any) -> LoadedStream:
    """The one stream of a pipeline, as a worker has it."""
    (stream,) = analyse(ds, **options).streams
    return load_stream(stream.blob)


@dataclass
class Segment:
    """What is written at the cache point of one split, to be read again."""

    stackable: bool
    written: list[tuple[int, tuple[Any, ...]]] = field(default_factory=list)
    reads: list[int] = field(default_factory=list)

    def write(self, start: int, arrays: tuple[Any, ...]) -> None:
        self.written.append((start, arrays))

    def read(self, chunk: int) -> tuple[Any, ...]:
        self.reads.append(chunk)
        return self.written[chunk][1]

    @property
    def starts(self) -> list[int]:
        return [start for start, _ in self.written]

    @property
    def counts(self) -> list[int]:
        return [len(arrays[0]) if self.stackable else 1 for _, arrays in self.written]

    def elements(self) -> list[Any]:
        """One tuple an element, comparable."""
        found: list[Any] = []
        for _, arrays in self.written:
            rows = zip(*arrays, strict=True) if self.stackable else [arrays]
            found += [tuple(map(as_plain, row)) for row in rows]
        return found


def as_plain(value: Any) -> Any:
    return value if isinstance(value, bytes) else np.asarray(value).tolist()


def put(stream: LoadedStream, split: int, size: int = 4, **key: int) -> tuple[Any, Segment]:
    """A split's dataset with a tee, and where that writes."""
    assert stream.cache is not None
    segment = Segment(stream.cache.stackable)
    return stream.put_dataset(split, size=size, write=segment.write, **key), segment


def got(stream: LoadedStream, split: int, segment: Segment, **key: int) -> list[Any]:
    """What the tail makes of a segment."""
    chunks = len(segment.written)
    return listed(stream.get_dataset(split, chunks=chunks, read=segment.read, **key))
