"""Elements of varying shapes that are handed over as columns, and cut apart in TensorFlow."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from penstock.errors import UsageError
from penstock.graph import cut, is_cut
from penstock.graph.cutting import joined_splits
from penstock.graph.spec import components_of, flatten_element
from penstock.proto.chunk import Chunk
from penstock.proto.columns import Column
from penstock.proto.spec import ComponentSpec

Columns = tuple[Column, ...]


def ragged(n: Any) -> Any:
    return tf.RaggedTensor.from_row_lengths(tf.range(n % 4 * 3), [n % 4, n % 4 * 2])


def twice_ragged(n: Any) -> Any:
    inner = tf.RaggedTensor.from_row_lengths(tf.fill([3 + n, 2], n), [1, 0, 2, n], validate=False)
    return tf.RaggedTensor.from_row_lengths(inner, [2, 0, 2], validate=False)


def sparse(n: Any) -> Any:
    return tf.sparse.from_dense(tf.eye(3, dtype=tf.int64) * n)


MAKE: dict[str, Any] = {
    "row": lambda n: tf.range(n % 3),
    "rows": lambda n: tf.fill([n % 3, 2, n % 2], n),
    "any": lambda n: tf.cond(n % 2 == 0, lambda: tf.fill([n, 1], n), lambda: tf.range(n)),
    "ragged": ragged,
    "twice": twice_ragged,
    "ragged of 32": lambda n: ragged(n).with_row_splits_dtype(tf.int32),
    "ragged texts": lambda n: tf.strings.as_string(ragged(n)),
    "texts": lambda n: (tf.strings.as_string(tf.range(n % 4)), n),
    "sparse": lambda n: {"b": sparse(n), "a": (n, tf.range(n % 2))},
    "named": lambda n: {"tokens": ragged(n), "label": n, "none": None},
    "bfloat16": lambda n: (tf.cast(tf.range(n), tf.bfloat16), tf.cast(n, tf.bool)),
}


def dataset_of(name: str) -> Any:
    dataset = tf.data.Dataset.range(9).map(MAKE[name])
    if name == "row":  # a row of a ragged tensor is a variant in datasets
        spec = tf.RaggedTensorSpec([None], tf.int64, 0)
        dataset = tf.data.Dataset.from_tensor_slices(
            tf.ragged.constant([[1], [], [2, 3]], tf.int64)
        )
        assert dataset.element_spec == spec
    return dataset


def columns_of(dataset: Any, cuts: tuple[int, ...]) -> list[Columns]:
    """The columns of all elements, in runs that end at `cuts`."""
    spec = dataset.element_spec
    elements = [
        tuple(
            np.array(part.numpy(), object if part.dtype == tf.string else None)
            for part in flatten_element(spec, element)
        )
        for element in dataset
    ]
    whole = Chunk.from_elements(0, elements, components_of(spec))
    bounds = [0, *(min(cut, len(elements)) for cut in cuts), len(elements)]
    return [whole.slice(a, b).columns for a, b in itertools.pairwise(bounds)]


def plain(value: Any) -> Any:
    """An element as values that can be compared."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(map(plain, value))
    if isinstance(value, tf.RaggedTensor):
        return value.shape.as_list(), value.row_splits.dtype, value.to_list()
    if isinstance(value, tf.SparseTensor):
        return tf.sparse.to_dense(value).numpy().tolist()
    return None if value is None else (value.dtype, value.numpy().tolist())


def cut_of(dataset: Any, cuts: tuple[int, ...] = (2, 2, 5)) -> Any:
    spec = dataset.element_spec
    assert is_cut(components_of(spec))
    runs = columns_of(dataset, cuts)
    made = cut(lambda: iter(runs), spec)
    assert made.element_spec == spec
    return made


@pytest.mark.parametrize("name", sorted(MAKE))
def test_elements_are_those_that_were_handed_over(name: str) -> None:
    dataset = dataset_of(name)
    assert [*map(plain, cut_of(dataset))] == [*map(plain, dataset)]


@pytest.mark.parametrize("name", sorted(MAKE))
def test_what_follows_in_the_graph_takes_them(name: str) -> None:
    dataset = dataset_of(name)

    def digest(*parts: Any) -> Any:
        whole = parts if len(parts) > 1 else parts[0]
        flat = flatten_element(dataset.element_spec, whole)
        return sum(tf.size(part) for part in flat)

    found = cut_of(dataset).map(digest)
    assert [int(n) for n in found] == [int(n) for n in dataset.map(digest)]


@pytest.mark.parametrize("name", ["ragged", "twice", "ragged texts", "named", "row"])
def test_ragged_elements_are_batched(name: str) -> None:
    dataset = dataset_of(name)
    found = cut_of(dataset).batch(4)
    assert found.element_spec == dataset.batch(4).element_spec
    assert [*map(plain, found)] == [*map(plain, dataset.batch(4))]


def test_no_elements_come_through() -> None:
    dataset = dataset_of("named")
    assert [*cut_of(dataset.take(0), (0, 0))] == []


def test_row_splits_that_are_none_are_refused() -> None:
    def splits(*values: list[int]) -> Column:
        elements = [(np.array(v, np.int64),) for v in values]
        return Chunk.from_elements(0, elements, [ComponentSpec("int64", (None,))]).columns[0]

    sizes = np.array([2, 0, 1])
    good = splits([0, 1, 3], [0], [0, 2])
    assert joined_splits(good, sizes, np.array([3, 0, 2])).tolist() == [0, 1, 3, 5]
    for bad, below in (
        (splits([0, 1, 3], [0], [0, 2]), [3, 1, 2]),
        (splits([0, 4, 3], [0], [0, 2]), [3, 0, 2]),
        (splits([1, 1, 3], [0], [0, 2]), [3, 0, 2]),
    ):
        with pytest.raises(UsageError, match="row splits"):
            joined_splits(bad, sizes, np.array(below))


def test_what_is_fixed_or_has_no_kernel_is_not_cut() -> None:
    assert not is_cut([ComponentSpec("int64", (2,))])
    assert not is_cut([ComponentSpec("int4", (None,)), ComponentSpec("int64", (None,))])
    assert is_cut([ComponentSpec("int64", (None,)), ComponentSpec("string", ())])
