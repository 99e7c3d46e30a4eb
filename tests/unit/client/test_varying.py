"""Eager loops over elements of varying shapes give what TensorFlow's own iterator gives."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from penstock.client import varying
from penstock.client.varying import is_varying, varying_dataset
from penstock.graph.spec import components_of, flatten_element
from penstock.proto.chunk import Chunk

COUNT = 13


def ragged(n: Any, *tail: int) -> Any:
    return tf.RaggedTensor.from_row_lengths(tf.fill([n % 4 * 3, *tail], n), [n % 4, n % 4 * 2])


MAKE: dict[str, Any] = {
    "row": lambda n: tf.range(n % 3),
    "rows of 16": lambda n: tf.fill([n % 3, 16], tf.cast(n, tf.float32)),
    "of nothing": lambda n: tf.zeros([n % 3, 0]),
    "any dimension": lambda n: tf.fill([n % 3, 2, n % 2 + 1], n),
    "any rank": lambda n: tf.cond(n % 2 == 0, lambda: tf.fill([n, 1], n), lambda: n),
    "texts": lambda n: (tf.strings.as_string(tf.range(n % 4)), n, tf.zeros([0, 3])),
    "ragged": ragged,
    "ragged of 32": lambda n: ragged(n).with_row_splits_dtype(tf.int32),
    "ragged of pairs": lambda n: ragged(n, 2),
    "ragged rows": lambda n: tf.RaggedTensor.from_row_lengths(tf.range(n), tf.fill([n], 1)),
    "rows of pairs": lambda n: tf.RaggedTensor.from_row_lengths(
        tf.fill([n, 2], n), tf.fill([n], 1)
    ),
    "ragged texts": lambda n: tf.strings.as_string(ragged(n)),
    "sparse": lambda n: {"b": tf.sparse.from_dense(tf.eye(3) * 2), "a": (ragged(n), n)},
    "bool": lambda n: (tf.fill([n % 3], True), tf.cast(tf.range(n), tf.bfloat16)),
}


def columns_of(dataset: Any) -> Iterator[Any]:
    spec = dataset.element_spec
    elements = [
        tuple(
            np.array(part.numpy(), object if part.dtype == tf.string else None)
            for part in flatten_element(spec, element)
        )
        for element in dataset
    ]
    whole = Chunk.from_elements(0, elements, components_of(spec))
    for a, b in itertools.pairwise((0, 0, 1, 7, COUNT)):
        yield whole.slice(a, b).columns


def local(name: str) -> Any:
    return tf.data.Dataset.range(COUNT).map(MAKE[name])


def same(ours: Any, theirs: Any) -> None:
    tf.nest.assert_same_structure(ours, theirs)
    for a, b in zip(tf.nest.flatten(ours), tf.nest.flatten(theirs), strict=True):
        assert type(a) is type(b)
        assert (a.dtype, a.shape.as_list()) == (b.dtype, b.shape.as_list())
        parts = zip(*(tf.nest.flatten(x, expand_composites=True) for x in (a, b)), strict=True)
        for one, other in parts:
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize("cut", [2, 256])
@pytest.mark.parametrize("name", MAKE)
def test_a_loop_gives_what_tensorflow_gives(
    name: str, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(varying, "_CUT_MAX", cut)
    plain = local(name)
    assert is_varying(plain.element_spec)
    dataset = varying_dataset(plain, lambda: columns_of(plain))
    assert dataset.element_spec == plain.element_spec
    for ours, theirs in zip(dataset, plain, strict=True):
        same(ours, theirs)


def test_ragged_elements_can_be_computed_with() -> None:
    plain = local("ragged")
    for ours, theirs in zip(varying_dataset(plain, lambda: columns_of(plain)), plain, strict=True):
        same(tf.concat([ours, ours + 1], axis=0), tf.concat([theirs, theirs + 1], axis=0))
        assert ours.to_list() == theirs.to_list()


@pytest.mark.parametrize("name", ["row", "ragged", "sparse"])
def test_a_function_goes_on_where_the_loop_stopped(name: str) -> None:
    plain = local(name)
    iterator = iter(varying_dataset(plain, lambda: columns_of(plain)))
    first = [next(iterator) for _ in range(4)]

    @tf.function
    def following(rest: Any) -> Any:
        return next(rest)

    for ours, theirs in zip(
        [*first, *(following(iterator) for _ in range(3))], plain, strict=False
    ):
        same(ours, theirs)


def test_numpy_and_what_is_built_on_it_work() -> None:
    plain = local("row")
    dataset = varying_dataset(plain, lambda: columns_of(plain))
    found = [row.tolist() for row in dataset.as_numpy_iterator()]
    assert found == [row.tolist() for row in plain.as_numpy_iterator()]
    batches = [batch.to_list() for batch in dataset.ragged_batch(5)]
    assert batches == [batch.to_list() for batch in plain.ragged_batch(5)]


def test_other_structures_are_tensorflows_to_iterate() -> None:
    assert not is_varying((tf.TensorSpec([None], tf.int64), tf.NoneTensorSpec()))
    assert not is_varying([tf.TensorSpec([None], tf.int64)])
