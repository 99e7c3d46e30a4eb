"""Many elements of varying shapes handed over at once, and cut apart inside TensorFlow.

Theory of operation. To take an element from Python costs TensorFlow 0.1 ms and more. So Python
hands over columns (`proto.columns`), each as a few arrays, and one op makes a vector of variants
of them: a variant is what datasets hold a ragged element in, so slices of that vector are ragged
elements already, and nothing runs for each. A dense component of varying shape is a row of such a
vector, too, and a map makes it dense again. Fixed components are sliced as they are.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import tensorflow as tf

from ..errors import UsageError
from ..proto.columns_join import shapes_of
from . import capture
from .spec import RAGGED_DTYPES, leaves, pack_element, parts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from ..proto.columns import Column
    from ..proto.spec import ComponentSpec


def is_cut(components: Sequence[ComponentSpec]) -> bool:
    """Whether such elements come as columns: some of them varies, and all can be cut."""
    varies = any(spec.static_shape is None for spec in components)
    return varies and all(spec.dtype in RAGGED_DTYPES for spec in components)


def cut(columns: Callable[[], Iterator[tuple[Column, ...]]], spec: Any) -> Any:
    """A dataset of elements of `spec`.

    Args:
        columns: begins an iteration: gives the elements' flat components, many elements at once.
        spec: of the elements. Their components are as `is_cut` says.
    """
    ways = [way for leaf in leaves(spec) for way in _ways(leaf)]
    signature = tuple(part for way in ways for part in way.signature)

    def arrays() -> Iterator[tuple[NDArray[Any], ...]]:
        for many in columns():
            rest = iter(many)
            yield tuple(array for way in ways for array in way.arrays(rest))

    runs = tf.data.Dataset.from_generator(arrays, output_signature=signature).prefetch(2)
    made = runs.flat_map(functools.partial(_slices, ways))
    if any(not way.whole for way in ways):
        made = made.map(functools.partial(_elements, ways, spec))
    result = capture.variant_dataset(capture.variant_of(made), spec)
    result._penstock_keep = made
    return result


def _slices(ways: Sequence[_Way], *arrays: Any) -> Any:
    rest = iter(arrays)
    return tf.data.Dataset.from_tensor_slices(
        tuple(part for way in ways for part in way.vectors(rest))
    )


def _elements(ways: Sequence[_Way], spec: Any, *slices: Any) -> Any:
    """The element, in the form that datasets hold."""
    rest = iter(slices)
    made = iter([way.element(rest) for way in ways])

    def leaf(part: Any) -> Any:
        if isinstance(part, tf.NoneTensorSpec):
            return None
        if _is_whole(part):
            return next(made)
        return pack_element(part, tuple(next(made) for _ in parts_of(part)))

    return tf.nest.map_structure(leaf, spec)


class _Way(Protocol):
    """How a part of an element gets through."""

    @property
    def whole(self) -> bool:
        """Whether a slice is the part already, in the form that datasets hold."""

    @property
    def signature(self) -> tuple[Any, ...]:
        """Of its arrays."""

    def arrays(self, columns: Iterator[Column]) -> Iterator[NDArray[Any]]:
        """What is handed over, of as many columns as it has components."""

    def vectors(self, arrays: Iterator[Any]) -> Iterator[Any]:
        """Tensors whose slices are the elements'."""

    def element(self, slices: Iterator[Any]) -> Any:
        """The part of one element."""


def _ways(leaf: Any) -> list[_Way]:
    """Of a leaf of the spec: one for the whole, or one for each component."""
    if isinstance(leaf, tf.RaggedTensorSpec) and _is_whole(leaf):
        return [_Ragged(tuple(parts_of(leaf)))]
    return [_Fixed(p) if p.shape.is_fully_defined() else _Row(p) for p in parts_of(leaf)]


def _is_whole(leaf: Any) -> bool:
    """Whether slices of variants are such leaves: ragged tensors of rows that are all alike."""
    if type(leaf) is tf.TensorSpec:
        return True
    if type(leaf) is not tf.RaggedTensorSpec:
        return False
    shape = parts_of(leaf)[0].shape
    return bool(shape.rank) and shape[0] is None and shape[1:].is_fully_defined()


@dataclass(frozen=True, slots=True)
class _Fixed:
    """A dense component of one shape."""

    spec: Any
    whole: bool = True

    @property
    def signature(self) -> tuple[Any, ...]:
        return (tf.TensorSpec([None, *self.spec.shape], self.spec.dtype),)

    def arrays(self, columns: Iterator[Column]) -> Iterator[NDArray[Any]]:
        column = next(columns)
        yield column.items.array(0, column.items.count, (column.count, *self.spec.shape))

    def vectors(self, arrays: Iterator[Any]) -> Iterator[Any]:
        yield next(arrays)

    def element(self, slices: Iterator[Any]) -> Any:
        return next(slices)


@dataclass(frozen=True, slots=True)
class _Row:
    """A dense component of varying shape: its items, and the shape if it has not one dimension."""

    spec: Any
    whole: bool = False

    @property
    def signature(self) -> tuple[Any, ...]:
        numbers = tf.TensorSpec([None], tf.int64)
        items = (tf.TensorSpec([None], self.spec.dtype), numbers)
        return items if self.spec.shape.rank == 1 else (*items, numbers, numbers)

    def arrays(self, columns: Iterator[Column]) -> Iterator[NDArray[Any]]:
        column = next(columns)
        yield column.items.array(0, column.items.count, (column.items.count,))
        shapes = shapes_of(column)
        yield _splits([column.shapes.first_item(i + 1) for i in range(column.count)])
        if self.spec.shape.rank != 1:
            yield np.array([size for shape in shapes for size in shape], np.int64)
            yield _splits(np.cumsum([len(shape) for shape in shapes]))

    def vectors(self, arrays: Iterator[Any]) -> Iterator[Any]:
        yield _variants(next(arrays), [next(arrays)])
        if self.spec.shape.rank != 1:
            yield _variants(next(arrays), [next(arrays)])

    def element(self, slices: Iterator[Any]) -> Any:
        found = _row(next(slices), self.spec.dtype)
        if self.spec.shape.rank != 1:
            found = tf.reshape(found, _row(next(slices), tf.int64))
        return tf.ensure_shape(found, self.spec.shape)


@dataclass(frozen=True, slots=True)
class _Ragged:
    """A ragged tensor: a slice of the ragged tensor of them all."""

    #: Of its flat values and row splits.
    parts: tuple[Any, ...]
    whole: bool = True

    @property
    def signature(self) -> tuple[Any, ...]:
        values, *splits = self.parts
        numbers = tf.TensorSpec([None], splits[0].dtype if splits else tf.int64)
        return (
            tf.TensorSpec([None, *values.shape[1:]], values.dtype),
            *([numbers] * (1 + len(splits))),
        )

    def arrays(self, columns: Iterator[Column]) -> Iterator[NDArray[Any]]:
        values, *splits = [next(columns) for _ in self.parts]
        rows = [_first_sizes(values), *[_first_sizes(column) - 1 for column in reversed(splits)]]
        inner = self.parts[0].shape[1:]
        yield values.items.array(0, values.items.count, (int(rows[0].sum()), *inner))
        rows.reverse()  # from the outermost to the innermost
        dtype = self.signature[1].dtype.as_numpy_dtype
        yield _splits(np.cumsum(rows[0])).astype(dtype)
        for column, sizes, below in zip(splits, rows[:-1], rows[1:], strict=True):
            yield joined_splits(column, sizes, below).astype(dtype, copy=False)

    def vectors(self, arrays: Iterator[Any]) -> Iterator[Any]:
        values = next(arrays)
        yield _variants(values, [next(arrays) for _ in self.parts])

    def element(self, slices: Iterator[Any]) -> Any:
        return next(slices)


def joined_splits(
    column: Column, sizes: NDArray[np.int64], below: NDArray[np.int64]
) -> NDArray[Any]:
    """The row splits of ragged tensors as those of one, in which they follow each other.

    Args:
        column: their row splits, one more than rows.
        sizes: how many rows each has.
        below: how many rows or values each has within these rows.

    Raises:
        UsageError: they are no row splits of so many values.
    """
    flat: NDArray[Any] = column.items.array(0, column.items.count, (column.items.count,))
    ends = np.cumsum(sizes + 1)
    firsts = ends - sizes - 1
    sums = np.cumsum(below)
    valid = (sizes >= 0).all() and not flat[firsts].any() and (flat[ends - 1] == below).all()
    whole = np.delete(flat + np.repeat(sums - below, sizes + 1), firsts) if valid else flat
    whole = np.concatenate([np.zeros(1, whole.dtype), whole])
    if not valid or (np.diff(whole) < 0).any():
        raise UsageError(
            "the dataset has ragged tensors whose row splits do not rise from 0 to the number of"
            " their values: make them with validate=True to find out where"
        )
    return whole


def _first_sizes(column: Column) -> NDArray[np.int64]:
    """The first dimension of each element."""
    return np.fromiter((shape[0] for shape in shapes_of(column)), np.int64, column.count)


def _splits(ends: Any) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.asarray(ends, np.int64)])


def _variants(values: Any, splits: Sequence[Any]) -> Any:
    """A variant for each row."""
    return tf.raw_ops.RaggedTensorToVariant(
        rt_nested_splits=splits, rt_dense_values=values, batched_input=True
    )


def _row(variant: Any, dtype: Any) -> Any:
    return tf.raw_ops.RaggedTensorFromVariant(
        encoded_ragged=variant,
        input_ragged_rank=-1,
        output_ragged_rank=0,
        Tvalues=dtype,
        Tsplits=tf.int64,
    ).output_dense_values
