"""Elements of every structure arrive as the user made them."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import pytest
import tensorflow as tf

from penstock.graph import analyse, load_stream

from .harness import check, listed, run_plan

Dataset = tf.data.Dataset
Point = namedtuple("Point", "x y")


def ragged(x: tf.Tensor) -> Any:
    return tf.RaggedTensor.from_row_lengths(tf.range(x + 2), [x, 2])


def sparse(x: tf.Tensor) -> Any:
    return tf.SparseTensor([[x]], [x * 2], [10])


MAKERS = {
    "none": lambda x: {"a": x, "b": None},
    "namedtuple": lambda x: Point(x, (x + 1, {"z": -x})),
    "one-tuple": lambda x: (x,),
    "ragged": ragged,
    "ragged in dict": lambda x: {"r": ragged(x), "x": x, "a": (sparse(x), None)},
    "sparse": sparse,
    "strings": lambda x: tf.strings.as_string(x),
    "string vector": lambda x: tf.fill([x], tf.strings.as_string(x)),
    "empty": lambda x: tf.zeros([0, x]),
    "bool": lambda x: (x > 3, tf.cast(x, tf.uint8)),
    "half": lambda x: (tf.cast(x, tf.float16), tf.cast(x, tf.bfloat16)),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
def test_elements_of_structure(make: Any) -> None:
    ds = Dataset.range(7).map(make)
    check(ds)
    check(ds.filter(lambda *e: True).take(4), order=True)
    check(ds.filter(lambda *e: True).skip(1).map(lambda *e: e), order=True)


def test_ragged_and_sparse_sources() -> None:
    source = {
        "r": tf.ragged.constant([[1], [], [2, 3], [4]]),
        "s": tf.sparse.from_dense([[0, 1], [2, 0], [0, 0], [3, 4]]),
    }
    ds = Dataset.from_tensor_slices(source)
    check(ds)
    check(ds.shuffle(4))
    check(ds.skip(1).take(2), order=False)
    check(ds.batch(3), lanes=1, order=True)
    check(ds.batch(2).map(lambda d: d["r"]), order=False)


def test_components_are_flat_and_dense() -> None:
    stream = analyse(Dataset.range(3).map(MAKERS["ragged in dict"])).streams[0]
    assert {c.dtype for c in stream.components} == {"int64"}
    assert [c.shape for c in stream.components][-1] == ()
    elements = load_stream(stream.blob).split_dataset(0, seed=0, epoch=0)
    assert all(isinstance(spec, tf.TensorSpec) for spec in elements.element_spec)


def test_fixed_element_bytes() -> None:
    def size_of(ds: Any) -> int | None:
        return load_stream(analyse(ds).streams[0].blob).fixed_element_bytes

    assert size_of(Dataset.from_tensor_slices((tf.zeros([4, 3]), tf.zeros([4], tf.bool)))) == 13
    assert size_of(Dataset.range(3).map(tf.strings.as_string)) is None
    assert size_of(Dataset.range(3).map(lambda x: tf.fill([x], 1))) is None


def test_elements_that_cannot_travel_stay_at_the_client() -> None:
    windows = Dataset.range(6).window(2, shift=1)
    plan = analyse(windows)
    assert [listed(w) for w in run_plan(plan)][:2] == [[0, 1], [1, 2]]
    optional = Dataset.range(6).map(lambda x: tf.experimental.Optional.from_value(x))
    plan = analyse(optional.map(lambda o: o.get_value()))
    assert plan.streams[0].num_splits == 6
    plan = analyse(optional)
    assert sorted(int(o.get_value()) for o in run_plan(plan)) == list(range(6))


def test_one_element() -> None:
    check(Dataset.range(1).map(lambda x: x + 1).shuffle(5).batch(3))
    check(Dataset.from_tensors(tf.constant(3)).map(lambda x: x + 1).repeat(3).batch(2))
