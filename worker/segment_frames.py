"""Where the frames of a segment are: it follows from their lengths, which leave no choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..proto.wire import ALIGNMENT, PREFIX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

#: Bytes that a footer has for each frame.
ROW_BYTES = 32
_COLUMNS = 4


@dataclass(frozen=True, slots=True)
class FrameEntry:
    """Where one frame is, and which elements it holds.

    Attributes:
        offset: of its first byte, in the file.
        payload_offset: of its payload's first byte, in the file: a multiple of 64.
        payload_bytes: length of the payload.
        start: index in the split of its first element.
        count: number of its elements, at least one.
        payload_digest: xxh3-64 of the payload; see `proto.wire.encode_head`.
        header_bytes: length of the packed header, which ends where the payload begins.
    """

    offset: int
    payload_offset: int
    payload_bytes: int
    start: int
    count: int
    payload_digest: int
    header_bytes: int

    @property
    def end(self) -> int:
        """Where its last byte has been, in the file."""
        return self.payload_offset + self.payload_bytes

    @property
    def stop(self) -> int:
        """Index in the split of the element after its last."""
        return self.start + self.count


def place(end: int, header_bytes: int) -> int:
    """Where a frame begins so that its payload is aligned.

    Args:
        end: where what stands before it ends.
        header_bytes: length of its packed header.
    """
    return end + -(end + PREFIX_BYTES + header_bytes) % ALIGNMENT


def rows_of(entries: Sequence[FrameEntry]) -> NDArray[np.uint64]:
    """What a footer says of these frames."""
    rows = np.empty((len(entries), _COLUMNS), "<u8")
    for number, entry in enumerate(entries):
        rows[number] = (
            entry.header_bytes,
            entry.payload_bytes,
            entry.count,
            entry.payload_digest,
        )
    return rows


class Frames:
    """The frames of a finished segment, as a sequence; entries are made when they are asked for.

    Args:
        begin: where the first may begin.
        rows: what a footer says of them, of `ROW_BYTES` each.
        bytes_max: the length of the file, below 2**62.
        elements_max: how many elements there may be, below 2**62.

    Attributes:
        end: where the last one ends.
        elements: how many there are in all.

    Raises:
        ValueError: the rows are not of frames in such a file.
    """

    def __init__(self, begin: int, rows: bytes, bytes_max: int, elements_max: int) -> None:
        table = np.frombuffer(rows, "<u8").reshape(-1, _COLUMNS)
        lengths, counts = table[:, :2], table[:, 2]
        # Of floats, which do not overflow: so none of the sums below does.
        if (
            lengths.sum(dtype=float) > 1.5 * bytes_max
            or counts.sum(dtype=float) > 1.5 * elements_max
        ):
            raise ValueError("its footer has frames of impossible size")
        if (counts == 0).any():
            raise ValueError("its footer has a frame without elements")
        self._headers, self._payloads = lengths.astype(np.int64).T
        self._digests = table[:, 3]
        ends = np.concatenate(([begin], self._payloads[:-1])) if len(table) else self._payloads
        steps = ends + PREFIX_BYTES + self._headers + ALIGNMENT - 1
        self._offsets = np.cumsum(steps // ALIGNMENT * ALIGNMENT)
        self._stops = np.cumsum(counts.astype(np.int64))
        self.end = int(self._offsets[-1] + self._payloads[-1]) if len(table) else begin
        self.elements = int(self._stops[-1]) if len(table) else 0

    def __len__(self) -> int:
        return len(self._stops)

    def __getitem__(self, index: int) -> FrameEntry:
        number = range(len(self))[index]
        header_bytes, payload_offset = int(self._headers[number]), int(self._offsets[number])
        start = int(self._stops[number - 1]) if number else 0
        return FrameEntry(
            payload_offset - header_bytes - PREFIX_BYTES,
            payload_offset,
            int(self._payloads[number]),
            start,
            int(self._stops[number]) - start,
            int(self._digests[number]),
            header_bytes,
        )

    def __iter__(self) -> Iterator[FrameEntry]:
        return map(self.__getitem__, range(len(self)))

    def at(self, element: int) -> int:
        """The number of the frame that holds an element.

        Raises:
            IndexError: there is no such element.
        """
        if not 0 <= element < self.elements:
            raise IndexError(f"element {element} is not one of {self.elements}")
        return int(np.searchsorted(self._stops, element, side="right"))
