"""Batches of elements whose shapes vary, made by tf.data and taken apart without Python for each.

Theory of operation. Python pays 100 µs and more for each element that it takes out of an iterator,
so tf.data must batch here, too. A function before its `batch` makes one variant of each component
that varies, of its items in a row, and adds its shape where that is not said by their number. Of a
batch of such variants, one op makes items and row splits; it is run here and not by tf.data, where
a second function would cost each split's iterator 5 ms more. These are the ops that TensorFlow
batches ragged tensors with. What a batch is then, for each component (see `_Form`):

    fixed    the stacked elements
    row      items, row splits            one dimension: its size is the number of items
    ranked   items, dims (n, rank)
    any      items, all dims, row splits of these

The function is traced once for the types of a stream, not for every split.
"""

from __future__ import annotations

import enum
import functools
import itertools
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import tensorflow as tf

from ..errors import ChunkError
from ..graph import capture
from ..graph.spec import RAGGED_DTYPES
from ..proto.columns_build import flat_column, stacked_column

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from ..proto.columns import Column, Shape
    from ..proto.spec import ComponentSpec

    Arrays: TypeAlias = tuple[NDArray[Any], ...]

#: Types of streams whose functions are kept: a worker seldom has more at a time.
_KEPT = 32


class _Form(enum.Enum):
    """How a component is in a batch."""

    FIXED = "fixed"
    ROW = "row"
    RANKED = "ranked"
    ANY = "any"

    @classmethod
    def of(cls, shape: Sequence[int | None] | None) -> _Form:
        """That of a component of such a shape."""
        if shape is None:
            return cls.ANY
        if None not in shape:
            return cls.FIXED
        return cls.ROW if len(shape) == 1 else cls.RANKED

    @property
    def arrays(self) -> int:
        """How many arrays the component is there."""
        return {_Form.FIXED: 1, _Form.ROW: 2, _Form.RANKED: 2, _Form.ANY: 3}[self]


def batches_of(components: Sequence[ComponentSpec]) -> bool:
    """Whether such elements are batched here: some of them varies, and all can be batched."""
    varies = any(spec.static_shape is None for spec in components)
    return varies and all(spec.dtype in RAGGED_DTYPES for spec in components)


def batched(dataset: Any, size: int) -> Any:
    """A dataset's elements, flat tuples of dense tensors, in batches of at most `size`.

    What it gives is for `arrays_of`.
    """
    made = tf.data.Options()
    # The op that is both asks for all elements of a batch at once, those beyond the end of a split
    # as well: 30 ms of processor time for a split of 10 elements and batches of 1,024.
    made.experimental_optimization.map_and_batch_fusion = False
    apart = _mapped(dataset, _taking_apart(dataset.element_spec))
    return apart.batch(size).with_options(made)


def arrays_of(batch: Sequence[Any], components: Sequence[ComponentSpec]) -> Arrays:
    """What a batch is, in numpy."""
    rest, arrays = iter(batch), []
    for spec in components:
        form = _Form.of(spec.shape)
        if form is _Form.FIXED:
            arrays.append(next(rest))
            continue
        items, splits = _rows(next(rest), spec.dtype)
        if form is _Form.ROW:
            arrays += [items, splits]
        elif form is _Form.RANKED:
            arrays += [items, next(rest)]
        else:
            arrays += [items, *_rows(next(rest), "int64")]
    return tuple(map(np.asarray, arrays))


def columns_of(batches: Sequence[Arrays], components: Sequence[ComponentSpec]) -> list[Column]:
    """The columns of batches that follow each other, at least one.

    Raises:
        ChunkError: an element is not of the announced type.
    """
    columns, at = [], 0
    for number, spec in enumerate(components):
        form = _Form.of(spec.shape)
        parts = [batch[at : at + form.arrays] for batch in batches]
        columns.append(_column(form, parts, spec, f"component {number}"))
        at += form.arrays
    return columns


def count_of(batch: Arrays, components: Sequence[ComponentSpec]) -> int:
    """How many elements a batch has."""
    form = _Form.of(components[0].shape)
    return len(batch[form.arrays - 1]) - (form in (_Form.ROW, _Form.ANY))


def _column(form: _Form, parts: list[Arrays], spec: ComponentSpec, where: str) -> Column:
    if form is not _Form.FIXED:
        shapes: list[Shape] = []
        for part in parts:
            shapes += _SHAPES[form](*part[1:])
        return flat_column(_joined([part[0] for part in parts], where), shapes, spec, where)
    column = stacked_column([part[0] for part in parts], where)
    if not spec.accepts(column.dtype, column.shapes.of(0)):
        raise ChunkError(f"{where}: {list(column.shapes.of(0))} is not the announced {spec}")
    return column


def _row_shapes(splits: NDArray[Any]) -> Iterator[Shape]:
    return zip(np.diff(splits).tolist(), strict=True)


def _ranked_shapes(dims: NDArray[Any]) -> Iterator[Shape]:
    return map(tuple, dims.tolist())


def _any_shapes(dims: NDArray[Any], ends: NDArray[Any]) -> Iterator[Shape]:
    every = dims.tolist()
    return (tuple(every[a:b]) for a, b in itertools.pairwise(ends.tolist()))


_SHAPES: dict[_Form, Callable[..., Iterator[Shape]]] = {
    _Form.ROW: _row_shapes,
    _Form.RANKED: _ranked_shapes,
    _Form.ANY: _any_shapes,
}


def _joined(arrays: list[NDArray[Any]], where: str) -> NDArray[Any]:
    if len(arrays) == 1:
        return arrays[0]
    try:
        return np.concatenate(arrays)
    except ValueError as error:
        raise ChunkError(f"{where}: {error}") from error


@functools.lru_cache(maxsize=_KEPT)
def _taking_apart(specs: tuple[Any, ...]) -> Any:
    """What takes elements of those types apart, to be batched."""

    def apart(*element: Any) -> list[Any]:
        return [*itertools.chain.from_iterable(map(_parts_of, specs, element))]

    return tf.function(apart, autograph=False).get_concrete_function(*specs)


def _parts_of(spec: Any, tensor: Any) -> list[Any]:
    """What is batched of a component of one element."""
    form = _Form.of(None if spec.shape.rank is None else spec.shape.as_list())
    if form is _Form.FIXED:
        return [tensor]
    if form is _Form.ROW:
        return [_variant(tensor)]
    items, dims = _variant(tf.reshape(tensor, [-1])), tf.shape(tensor, tf.int64)
    return [items, dims if form is _Form.RANKED else _variant(dims)]


def _variant(row: Any) -> Any:
    return tf.raw_ops.RaggedTensorToVariant(
        rt_nested_splits=[], rt_dense_values=row, batched_input=False
    )


def _rows(variants: Any, dtype: Any) -> tuple[Any, Any]:
    """The items of all rows, and where each row ends."""
    rows = tf.raw_ops.RaggedTensorFromVariant(
        encoded_ragged=variants,
        input_ragged_rank=0,
        output_ragged_rank=1,
        Tvalues=dtype,
        Tsplits=tf.int64,
    )
    return rows.output_dense_values, rows.output_nested_splits[0]


def _mapped(dataset: Any, function: Any) -> Any:
    """`dataset.map` of a function that is traced already."""
    variant = tf.raw_ops.MapDataset(
        input_dataset=capture.variant_of(dataset),
        other_arguments=function.captured_inputs,
        f=function,
        output_types=[part.dtype for part in function.outputs],
        output_shapes=[part.shape for part in function.outputs],
        preserve_cardinality=True,
        force_synchronous=True,  # a change of thread costs more than it does
    )
    spec = tuple(tf.TensorSpec(part.shape, part.dtype) for part in function.outputs)
    made = capture.variant_dataset(variant, spec)
    made._penstock_keep = dataset  # what Python functions in it need
    return made
