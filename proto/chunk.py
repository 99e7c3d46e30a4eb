"""Chunks: consecutive elements of one split, held and sent together (DESIGN section 5)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ChunkError, UsageError, VerificationError
from .columns_build import gathered_column, stacked_column
from .columns_codec import PayloadReader, PayloadWriter, read_column, write_column

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from .columns import Column
    from .hashing import Hashes
    from .spec import ComponentSpec

_INDEX_MAX = (1 << 63) - 1


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Elements `start .. start+count-1` of a split, column by column.

    Attributes:
        start: index in the split of the first element.
        count: number of elements, >= 0.
        columns: one for each component, in spec order; at least one.
        hashes: the elements' hashes, uint64 `(count,)`: computed here if the chunk was made here,
            the sender's word (see `verify`) if it was decoded.
    """

    start: int
    count: int
    columns: tuple[Column, ...]
    hashes: Hashes

    @classmethod
    def from_stacked(cls, start: int, arrays: Sequence[NDArray[Any]]) -> Chunk:
        """A chunk of elements that are stacked already, one array `(n, *shape)` a component.

        Numeric arrays that are C-contiguous and little-endian are not copied and must not be
        written to afterwards; strings are object arrays of `bytes`, and are copied.

        Raises:
            ChunkError: no array, unequal lengths, or a dtype that cannot travel.
        """
        return cls.from_batches(start, [arrays])

    @classmethod
    def from_batches(cls, start: int, batches: Sequence[Sequence[NDArray[Any]]]) -> Chunk:
        """A chunk of batches that follow each other, at least one; as `from_stacked` otherwise.

        Large arrays are not copied to be in one place: what sends or stores them does it.

        Raises:
            ChunkError: also if batches differ in their types.
        """
        if not batches[0]:
            raise ChunkError("a chunk needs at least one component")
        columns = [
            stacked_column(arrays, f"component {number}")
            for number, arrays in enumerate(zip(*batches, strict=True))
        ]
        return cls.from_columns(start, columns)

    @classmethod
    def from_columns(cls, start: int, columns: Sequence[Column]) -> Chunk:
        """A chunk of columns that are made already, at least one; their hashes are computed.

        Raises:
            ChunkError: they have different numbers of elements.
        """
        counts = {column.count for column in columns}
        if len(counts) > 1:
            raise ChunkError(f"components have different numbers of elements: {sorted(counts)}")
        return cls._hashed(start, tuple(columns))

    @classmethod
    def from_elements(
        cls,
        start: int,
        elements: Sequence[tuple[NDArray[Any], ...]],
        specs: Sequence[ComponentSpec],
    ) -> Chunk:
        """A chunk of single elements; a numeric component of a lone element is not copied.

        Raises:
            ChunkError: an element is not of the spec; the message says which.
        """
        for index, element in enumerate(elements, start):
            if len(element) != len(specs):
                raise ChunkError(f"element {index}: {len(element)} components of {len(specs)}")
        if not specs:
            raise ChunkError("a chunk needs at least one component")
        columns = tuple(
            gathered_column(elements, number, spec, start) for number, spec in enumerate(specs)
        )
        return cls._hashed(start, columns)

    @classmethod
    def _hashed(cls, start: int, columns: tuple[Column, ...]) -> Chunk:
        count = columns[0].count
        return cls(start, count, columns, _hash(columns, count))

    @property
    def stop(self) -> int:
        """Index in the split of the element after the last."""
        return self.start + self.count

    @property
    def nbytes(self) -> int:
        """Bytes of all columns, without padding and hashes."""
        return sum(column.nbytes for column in self.columns)

    def slice(self, a: int, b: int) -> Chunk:
        """Elements `a .. b-1`, by index in the split, sharing memory with this chunk.

        Raises:
            IndexError: the range is not within the chunk.
        """
        if not self.start <= a <= b <= self.stop:
            raise IndexError(f"elements {a}..{b} are not within {self.start}..{self.stop}")
        first, last = a - self.start, b - self.start
        columns = tuple(column.slice(first, last) for column in self.columns)
        return Chunk(a, b - a, columns, self.hashes[first:last])

    def element(self, index: int) -> tuple[NDArray[Any], ...]:
        """The element at that index in the split, as views; strings as object arrays.

        Raises:
            IndexError: it is not in the chunk.
        """
        if not self.start <= index < self.stop:
            raise IndexError(f"element {index} is not within {self.start}..{self.stop}")
        return tuple(column.element(index - self.start) for column in self.columns)

    def runs(self, max_len: int | None = None) -> Iterator[tuple[int, tuple[NDArray[Any], ...]]]:
        """Longest runs of elements with equal shapes, of at most `max_len`, stacked.

        Yields:
            The index in the split of the run's first element, and for each component an array
            `(n, *shape)`: a view if numeric, an object array of `bytes` if strings.
        """
        if max_len is not None and max_len < 1:
            raise UsageError(f"runs of at most {max_len} elements would never end")
        changes = {change for column in self.columns for change in column.shapes.changes()}
        if not changes and max_len is None:
            if self.count:
                yield self.start, tuple(column.stack(0, self.count) for column in self.columns)
            return
        bounds = sorted(changes | {0, self.count})
        for begin, end in itertools.pairwise(bounds):
            step = max_len or end - begin
            for first in range(begin, end, step):
                last = min(first + step, end)
                yield self.start + first, tuple(col.stack(first, last) for col in self.columns)

    def check_specs(self, specs: Sequence[ComponentSpec]) -> None:
        """Checks that every element is of the announced type.

        Raises:
            ChunkError: it is not; the message says which element and component.
        """
        if len(specs) != len(self.columns):
            raise ChunkError(f"{len(self.columns)} components where {len(specs)} were announced")
        for number, (column, spec) in enumerate(zip(self.columns, specs, strict=True)):
            for index in {0, *column.shapes.changes()} if self.count else ():
                shape = column.shapes.of(index)
                if not spec.accepts(column.dtype, shape):
                    raise ChunkError(
                        f"element {self.start + index}, component {number}: {column.dtype}"
                        f" {list(shape)} is not the announced {spec}"
                    )

    def compute_hashes(self) -> Hashes:
        """The elements' hashes, computed from their bytes; uint64 `(count,)`."""
        return _hash(self.columns, self.count)

    def verify(self) -> None:
        """Checks that the bytes have the hashes that the chunk says.

        Raises:
            VerificationError: they have not; the message names the first such element.
        """
        different = np.flatnonzero(self.compute_hashes() != self.hashes)
        if len(different):
            raise VerificationError(
                f"element {self.start + int(different[0])} is not what was sent: its bytes do not"
                f" have the announced hash ({len(different)} such of {self.count} in its chunk)"
            )


def encode(chunk: Chunk, ids: Mapping[str, int]) -> tuple[dict[str, Any], list[bytes | memoryview]]:
    """A chunk as the header and payload of a CHUNK frame.

    Args:
        chunk: what to send.
        ids: further keys of the header: epoch, split, attempt.

    Returns:
        The header `{**ids, start, count, components, hashes}` and the payload's parts, which are
        the columns' own memory with padding between.
    """
    writer = PayloadWriter()
    header: dict[str, Any] = {
        **ids,
        "start": chunk.start,
        "count": chunk.count,
        "components": [write_column(column, writer) for column in chunk.columns],
        "hashes": chunk.hashes.astype("<u8", copy=False).tobytes(),
    }
    return header, writer.buffers


def decode(
    header: Mapping[str, Any],
    payload: memoryview,
    specs: Sequence[ComponentSpec] | None = None,
) -> Chunk:
    """The inverse of `encode`, for bytes from outside; the columns are views of `payload`.

    The hashes are not checked: see `Chunk.verify`.

    Args:
        header: of the frame; further keys are ignored.
        payload: of the frame; any alignment will do, but only what begins at a multiple of 64
            bytes will be adopted by TensorFlow without a copy.
        specs: what the elements have to be. Without it a peer chooses the number of components,
            and with it how much work the chunk is for its size.

    Raises:
        ChunkError: header and payload do not describe a chunk, or not one of those specs.
    """
    start, count = header.get("start"), header.get("count")
    components, hashes = header.get("components"), header.get("hashes")
    if type(start) is not int or type(count) is not int or start < 0 or count < 0:
        raise ChunkError(f"start {start!r:.80} and count {count!r:.80} are not a range")
    # Eight bytes an element that did arrive: so `count` cannot be larger than what the peer sent,
    # even if its elements have no bytes.
    if not isinstance(hashes, bytes) or len(hashes) != 8 * count:
        raise ChunkError(f"the hashes are not those of {count} elements")
    if start + count > _INDEX_MAX:
        raise ChunkError(f"index {start + count} is beyond {_INDEX_MAX}")
    if not isinstance(components, list) or not components:
        raise ChunkError("the components are not a list of at least one")
    if specs is not None and len(components) != len(specs):
        raise ChunkError(f"{len(components)} components where {len(specs)} were announced")
    reader = PayloadReader(payload)
    columns = tuple(
        read_column(component, count, reader, f"component {number}")
        for number, component in enumerate(components)
    )
    reader.finish()
    announced = np.frombuffer(hashes, "<u8").astype(np.uint64, copy=False)
    chunk = Chunk(start, count, columns, announced)
    if specs is not None:
        chunk.check_specs(specs)
    return chunk


def _hash(columns: tuple[Column, ...], count: int) -> Hashes:
    hashes = np.zeros(count, np.uint64)
    for column in columns:
        hashes = column.fold(hashes)
    return hashes
