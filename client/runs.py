"""Deliveries as stacked arrays: what is small is put together, what is large is not copied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from ..proto.budget import Budget
from ..proto.spec import numpy_dtype
from ..proto.wire import aligned_empty
from .buffers import BufferPool
from .events import EndOfEpoch
from .weave import Woven

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from ..proto.spec import ComponentSpec
    from .buffers import Allocate
    from .events import Piece
    from .session import Session

    Arrays = tuple[NDArray[Any], ...]

T = TypeVar("T")

#: A run of this size is worth its hand-over in Python alone; a copy would cost more than it saves.
LARGE_BYTES = 32 << 10
_MERGED_BYTES_MAX = 1 << 20
#: What an iteration keeps of memory to put small runs together in.
_POOL_BYTES = 32 << 20


def runs_of(
    pieces: Iterable[Piece | Woven],
    large_bytes: int = LARGE_BYTES,
    allocate: Allocate = aligned_empty,
) -> Iterator[Arrays]:
    """Consecutive elements of equal shapes, stacked: an array `(n, *shape)` for each component.

    Numeric arrays of large runs are views of what was received; those of small ones, of one
    block for instance, are joined into larger ones, because each hand-over has its price.

    Args:
        pieces: in the order of their elements.
        large_bytes: runs of so many bytes are not joined.
        allocate: gives a buffer of so many bytes for what is put together, that begins at a
            multiple of 64.
    """
    pending: list[Arrays] = []
    pending_bytes = 0
    shapes: list[tuple[int, ...]] = []
    for piece in pieces:
        runs = piece.stacked(allocate) if isinstance(piece, Woven) else piece.stacked()
        for arrays in runs:
            nbytes = sum(array.nbytes for array in arrays)
            own = [array.shape[1:] for array in arrays]
            if pending and (
                own != shapes or nbytes >= large_bytes or pending_bytes >= _MERGED_BYTES_MAX
            ):
                yield join(pending, allocate)
                pending, pending_bytes = [], 0
            if nbytes >= large_bytes:
                yield arrays
                continue
            pending.append(arrays)
            pending_bytes += nbytes
            shapes = own
    if pending:
        yield join(pending, allocate)


def rows_of(runs: Iterable[Arrays]) -> Iterator[Arrays]:
    """The same elements in runs of one each, as views; runs of no elements stay."""
    for run in runs:
        if len(run[0]) <= 1:
            yield run
            continue
        for row in range(len(run[0])):
            yield tuple(array[row : row + 1] for array in run)


def empty_run(components: Sequence[ComponentSpec]) -> Arrays:
    """A run of no elements."""
    return tuple(
        np.empty((0, *(size or 0 for size in spec.shape or ())), numpy_dtype(spec.dtype))
        for spec in components
    )


def join(pending: Sequence[Arrays], allocate: Allocate) -> Arrays:
    """Runs that follow each other, at least one, as one; `allocate` as for `runs_of`."""
    if len(pending) == 1:
        return pending[0]
    return tuple(_joined(column, allocate) for column in zip(*pending, strict=True))


def _joined(arrays: Sequence[NDArray[Any]], allocate: Allocate) -> NDArray[Any]:
    dtype, nbytes = arrays[0].dtype, sum(array.nbytes for array in arrays)
    if dtype.hasobject or not nbytes:
        return np.concatenate(arrays)
    shape = sum(len(array) for array in arrays), *arrays[0].shape[1:]
    out = np.frombuffer(allocate(nbytes), dtype).reshape(shape)
    return np.concatenate(arrays, out=out)


class Form(Protocol[T]):
    """As what an epoch is handed over."""

    def nothing(self, components: Sequence[ComponentSpec]) -> T:
        """No elements."""

    def of(self, pieces: Iterable[Piece | Woven]) -> Iterator[T]:
        """The elements of a delivery."""

    def count(self, item: T) -> int:
        """How many elements something is."""


class Stacked:
    """As runs of stacked elements of equal shapes; see `runs_of`."""

    def __init__(self, large_bytes: int = LARGE_BYTES) -> None:
        self._large_bytes = large_bytes
        self._allocate = BufferPool(Budget(_POOL_BYTES)).allocate

    def nothing(self, components: Sequence[ComponentSpec]) -> Arrays:
        """A run of no elements."""
        return empty_run(components)

    def of(self, pieces: Iterable[Piece | Woven]) -> Iterator[Arrays]:
        """The runs of a delivery."""
        return runs_of(pieces, self._large_bytes, self._allocate)

    def count(self, item: Arrays) -> int:
        """Elements of a run."""
        return len(item[0])


def epoch_runs(
    session: Session,
    stream: int,
    began: Callable[[int], int],
    form: Form[T],
    nothing: T | None,
    idle_s: float | None,
) -> Iterator[T]:
    """One epoch of a stream, in runs; or the next one, where too little is left of it.

    Args:
        session: reads it.
        stream: which one.
        began: is told the number of each epoch that begins; returns how many elements it has to
            have, else the next one follows.
        form: of the runs.
        nothing: a run of no elements, which comes while nothing comes.
        idle_s: how often, in seconds; None: never.
    """
    reader = session.read(stream)
    try:
        least = began(reader.epoch)
        kept: list[T] = []
        while True:
            taken = reader.take(timeout_s=idle_s)
            if isinstance(taken, EndOfEpoch):
                if not least:
                    return
                reader, least, kept = session.read(stream), 0, []
                began(reader.epoch)
            elif taken is None:
                if nothing is not None:
                    yield nothing
            elif least:
                kept += form.of(taken.pieces)
                if sum(map(form.count, kept)) >= least:
                    yield from kept
                    least = 0
            else:
                yield from form.of(taken.pieces)
    finally:
        reader.close()
