"""Deliveries as columns: what elements of varying shapes are handed over as, many at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ..proto.columns import Column, FixedShape, NumericItems, StringItems, VaryingShapes
from ..proto.columns_join import joined, woven
from ..proto.spec import STRING, numpy_dtype
from .weave import Woven

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..proto.spec import ComponentSpec
    from .events import Piece

    #: One for each component, of the same elements.
    Columns: TypeAlias = tuple[Column, ...]

#: What is smaller than this is joined with what follows: each hand-over has its price.
_JOINED_BYTES = 1 << 20


class AsColumns:
    """The form of an epoch (`runs.Form`) that is handed over as columns."""

    def nothing(self, components: Sequence[ComponentSpec]) -> Columns:
        """Columns of no elements."""
        return tuple(map(_empty, components))

    def of(self, pieces: Iterable[Piece | Woven]) -> Iterator[Columns]:
        """The columns of a delivery."""
        return columns_of(pieces)

    def count(self, item: Columns) -> int:
        """Elements of columns."""
        return item[0].count


def columns_of(pieces: Iterable[Piece | Woven]) -> Iterator[Columns]:
    """Consecutive elements, whatever their shapes, in the order of their delivery."""
    pending: list[Columns] = []
    nbytes = 0
    for piece in pieces:
        columns = _woven(piece) if isinstance(piece, Woven) else piece.chunk.columns
        pending.append(columns)
        nbytes += sum(column.nbytes for column in columns)
        if nbytes >= _JOINED_BYTES:
            yield _joined(pending)
            pending, nbytes = [], 0
    if pending:
        yield _joined(pending)


def _woven(piece: Woven) -> Columns:
    parts = zip(*[part.chunk.columns for part in piece.pieces], strict=True)
    return tuple(woven(part, piece.block) for part in parts)


def _joined(pending: list[Columns]) -> Columns:
    return tuple(map(joined, zip(*pending, strict=True)))


def _empty(spec: ComponentSpec) -> Column:
    shape = spec.static_shape
    shapes = VaryingShapes.of_shapes([]) if shape is None else FixedShape(0, shape)
    if spec.dtype == STRING:
        return Column(spec.dtype, shapes, StringItems.of_list([]))
    return Column(spec.dtype, shapes, NumericItems((np.empty(0, numpy_dtype(spec.dtype)),)))
