"""Eager iteration of elements of varying shapes: as `eager`, of columns instead of runs.

One op cuts a column into tensors, and what is no plain tensor is put together of its components
by its spec, as TensorFlow's own iterator does it; the rest of what that one does for each element,
some 100 µs of Python, is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from ..graph import capture
from ..graph.spec import leaves, parts_of
from ..proto.columns import FixedShape
from .eager import EagerDataset, assembled, cut_rows, is_nested, lent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..proto.columns import Column, Shape
    from .columns import Columns

#: Elements that are cut at once: more would keep the trainer waiting for the first of them.
_CUT_MAX = 256
_LEAVES = (tf.TensorSpec, tf.RaggedTensorSpec, tf.SparseTensorSpec)


def varying_dataset(
    plain: tf.data.Dataset, columns: Callable[[], Iterator[Columns]]
) -> tf.data.Dataset:
    """A dataset of the service whose elements come as columns.

    Args:
        plain: the same elements, as a dataset that TensorFlow iterates.
        columns: begins an epoch.
    """
    return EagerDataset(plain, lambda: elements_of(columns(), plain.element_spec))


def is_varying(spec: Any) -> bool:
    """Whether `varying_dataset` can have elements of that spec, if their dtypes can be cut."""
    return is_nested(spec, _LEAVES)


def elements_of(runs: Iterator[Columns], spec: Any) -> Iterator[Any]:
    """The elements of columns as eager tensors, ragged and sparse ones in the structure of `spec`.

    Args:
        runs: what the elements' flat components are.
        spec: of the elements.
    """
    parts = leaves(spec)
    for run in runs:
        for first in range(0, run[0].count, _CUT_MAX):
            stop = min(first + _CUT_MAX, run[0].count)
            # Elements are in the memory of this machine, whatever else there is to compute on.
            with tf.device("CPU:0"):
                tensors = iter([cut_column(column.slice(first, stop)) for column in run])
                made = [iter(_leaf(part, tensors)) for part in parts]
            yield from assembled(spec, iter(made))


def _leaf(spec: Any, tensors: Iterator[list[Any]]) -> list[Any]:
    """One leaf of each element, of the tensors of its components."""
    columns = [next(tensors) for _ in parts_of(spec)]
    if type(spec) is tf.TensorSpec:
        return columns[0]
    spec = _unshaped(spec)
    return [capture.of_components(spec, parts) for parts in zip(*columns, strict=True)]


def _unshaped(spec: Any) -> Any:
    """The spec without a shape, where that says nothing that the components do not say.

    To compare each element with it takes TensorFlow 10 µs.
    """
    if type(spec) is not tf.RaggedTensorSpec or not spec.ragged_rank or spec.shape.rank is None:
        return spec
    if any(size is not None for size in spec.shape[: spec.ragged_rank + 1]):
        return spec
    return tf.RaggedTensorSpec(None, spec.dtype, spec.ragged_rank, spec.row_splits_dtype)


def cut_column(column: Column) -> list[Any]:
    """A tensor for each element of a column, which has some."""
    shapes = column.shapes
    if isinstance(shapes, FixedShape):
        return cut_rows(column.stack(0, column.count))
    inner = _inner(shapes.shapes)
    whole = column.items.array(0, column.items.count, (column.items.count,))
    if inner is not None:
        rows = [shape[0] for shape in shapes.shapes]
        return _split(whole.reshape((sum(rows), *inner)), rows)
    counts = [shapes.first_item(i + 1) - shapes.first_item(i) for i in range(column.count)]
    flat = _split(whole, counts)
    return [tf.reshape(part, shape) for part, shape in zip(flat, shapes.shapes, strict=True)]


def _inner(shapes: Sequence[Shape]) -> Shape | None:
    """The dimensions below the first one, if they are the same everywhere."""
    found = {shape[1:] if shape else None for shape in shapes}
    return found.pop() if len(found) == 1 else None


def _split(stacked: Any, rows: list[int]) -> list[Any]:
    """Tensors of so many rows each."""
    if len(rows) == 1:
        return [lent(stacked)]
    cut: list[Any] = tf.raw_ops.SplitV(
        value=lent(stacked), size_splits=rows, axis=0, num_split=len(rows)
    )
    return cut
