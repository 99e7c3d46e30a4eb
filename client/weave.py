"""Turns of many lanes handed over at once: what they cost must not grow with short blocks.

Theory of operation. Where lanes have to mix, a block may be a single element, and taking turns is
work for each of them. But as long as every lane has elements in hand, the next `rounds` rounds are
known: a slice of each lane's chunk, and the elements alternate. `Woven` is these slices with the
hashes in delivered order. Whoever wants the elements stacked gets them by one copy (`stacked`);
whoever keeps account of splits goes by slices, and by `turns` only where a woven piece ends within.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..proto.wire import aligned_empty
from .events import Piece

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ..proto.hashing import Hashes
    from .buffers import Allocate
    from .runs import Arrays
    from .splits import SplitState

#: Blocks of so many bytes are handed over one by one: copying them costs more than a hand-over.
_BLOCK_BYTES_MAX = 128 << 10


@dataclass(frozen=True, slots=True, eq=False)
class Woven:
    """Elements of several splits, a block of each in turn.

    Attributes:
        pieces: one for each split, in the order of their turns, all of the same length.
        block: elements of a turn; divides that length.
        hashes: the elements' hashes, in delivered order.
    """

    pieces: tuple[Piece, ...]
    block: int
    hashes: Hashes

    @classmethod
    def of(cls, pieces: Sequence[Piece], block: int) -> Woven:
        """Pieces that are woven together."""
        return cls(tuple(pieces), block, woven([piece.chunk.hashes for piece in pieces], block))

    def turns(self) -> Iterator[Piece]:
        """The same elements as a piece for each turn."""
        for first in range(0, self.pieces[0].chunk.count, self.block):
            for piece in self.pieces:
                start = piece.chunk.start + first
                yield Piece(piece.split, piece.chunk.slice(start, start + self.block))

    def spans(self) -> list[list[int]]:
        """`[split, start, count]` of each turn."""
        count = self.pieces[0].chunk.count
        table = np.empty((count // self.block, len(self.pieces), 3), np.int64)
        table[:, :, 0] = [piece.split for piece in self.pieces]
        table[:, :, 1] = [piece.chunk.start for piece in self.pieces]
        table[:, :, 1] += np.arange(0, count, self.block)[:, None]
        table[:, :, 2] = self.block
        spans: list[list[int]] = table.reshape(-1, 3).tolist()
        return spans

    def stacked(self, allocate: Allocate = aligned_empty) -> Iterator[Arrays]:
        """Runs of elements of equal shapes, one array `(n, *shape)` for each component.

        Args:
            allocate: gives a buffer of so many bytes, that begins at a multiple of 64.
        """
        runs = [next(piece.stacked()) for piece in self.pieces]
        shapes = [array.shape for array in runs[0]]
        whole = shapes[0][0] == self.pieces[0].chunk.count
        if whole and all([array.shape for array in run] == shapes for run in runs):
            yield tuple(woven(column, self.block, allocate) for column in zip(*runs, strict=True))
            return
        for piece in self.turns():
            yield from piece.stacked()


def woven(
    arrays: Sequence[NDArray[Any]], block: int, allocate: Allocate = aligned_empty
) -> NDArray[Any]:
    """Rows of arrays of equal shapes, `block` of each in turn."""
    rows, *shape = arrays[0].shape
    shaped = [array.reshape(rows // block, block, *shape) for array in arrays]
    whole = (rows // block, len(arrays), block, *shape)
    dtype, nbytes = arrays[0].dtype, arrays[0].nbytes * len(arrays)
    if dtype.hasobject or not nbytes:
        out = np.empty(whole, dtype)
    else:
        # TensorFlow borrows memory that is aligned, and has to copy other.
        out = np.frombuffer(allocate(nbytes), dtype).reshape(whole)
    np.stack(shaped, axis=1, out=out)
    rowwise: NDArray[Any] = out.reshape(rows * len(arrays), *shape)
    return rowwise


def weave(states: Sequence[SplitState], block: int, budget: int) -> Woven | None:
    """Takes whole rounds of elements out of splits, if that is better than one by one.

    Args:
        states: current splits of the lanes, one each, in the order of their turns.
        block: elements of a turn.
        budget: elements that are wanted.
    """
    if len(states) < 2:
        return None
    rounds = budget // (block * len(states))
    for state in states:
        elements, element_bytes = state.at_hand
        if element_bytes * block > _BLOCK_BYTES_MAX:
            return None
        rounds = min(rounds, elements // block)
    if rounds < 2:
        return None
    # Of its first chunk each: a single slice.
    return Woven.of([Piece(s.split, *s.pop(rounds * block)) for s in states], block)
