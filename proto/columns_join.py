"""Columns put together: one after the other, or woven, without Python for each item."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from .columns import Column, FixedShape, NumericItems, StringItems, VaryingShapes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .columns import Shape


def joined(columns: Sequence[Column]) -> Column:
    """The elements of columns of one component, at least one, one after the other.

    A lone column is returned as it is; others are copied.
    """
    first = columns[0]
    if len(columns) == 1:
        return first
    shapes: FixedShape | VaryingShapes
    count = sum(column.count for column in columns)
    if len({_alike(column) for column in columns}) == 1 and isinstance(first.shapes, FixedShape):
        shapes = FixedShape(count, first.shapes.shape)
    else:
        shapes = VaryingShapes.of_shapes([*chain.from_iterable(map(shapes_of, columns))])
    return Column(first.dtype, shapes, _joined_items([column.items for column in columns]))


def woven(columns: Sequence[Column], block: int) -> Column:
    """The elements of columns of equal lengths, `block` of each in turn."""
    whole = joined(columns)
    places = np.arange(whole.count).reshape(len(columns), -1, block)
    return _reordered(whole, places.transpose(1, 0, 2).reshape(-1))


def shapes_of(column: Column) -> Sequence[Shape]:
    """The shape of each element."""
    if isinstance(column.shapes, FixedShape):
        return [column.shapes.shape] * column.count
    return column.shapes.shapes


def _alike(column: Column) -> Shape | None:
    return column.shapes.shape if isinstance(column.shapes, FixedShape) else None


def _joined_items(parts: Sequence[NumericItems | StringItems]) -> NumericItems | StringItems:
    strings = [part for part in parts if isinstance(part, StringItems)]
    if not strings:
        numbers = [part.flat for part in parts if isinstance(part, NumericItems)]
        return NumericItems((np.concatenate(numbers),))
    lengths = np.concatenate([np.diff(part.offsets) for part in strings])
    return StringItems(_sums(lengths), np.concatenate([part.data for part in strings]))


def _reordered(column: Column, order: NDArray[np.int64]) -> Column:
    """The column's elements, those of the numbers `order`."""
    items = column.items
    if isinstance(column.shapes, FixedShape):
        shapes: FixedShape | VaryingShapes = FixedShape(len(order), column.shapes.shape)
        bounds = np.arange(column.count + 1) * (column.shapes.first_item(1))
    else:
        shapes = VaryingShapes.of_shapes([column.shapes.shapes[at] for at in order.tolist()])
        bounds = np.array(column.shapes.bounds, np.int64) - column.shapes.bounds[0]
    places = _ranges(bounds[:-1][order], np.diff(bounds)[order])
    if isinstance(items, NumericItems):
        return Column(column.dtype, shapes, NumericItems((items.flat[places],)))
    offsets = items.offsets - items.offsets[0]
    lengths = np.diff(offsets)[places]
    data = items.data[_ranges(offsets[:-1][places], lengths)]
    return Column(column.dtype, shapes, StringItems(_sums(lengths), data))


def _ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers of all ranges, one after the other."""
    ends = np.cumsum(lengths)
    found: NDArray[np.int64] = np.repeat(starts - (ends - lengths), lengths)
    found += np.arange(len(found))
    return found


def _sums(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
