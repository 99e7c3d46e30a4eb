"""Chunks as the frames that they are sent as: encoded here, or stored in a segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..proto.chunk import Chunk, decode, encode
from ..proto.wire import DEFAULT_LIMITS
from .messages import Stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..proto.hashing import Hashes
    from .messages import Assignment, Piece
    from .segment import Segment


def ids_of(assignment: Assignment) -> dict[str, int]:
    """What the header of each of an attempt's chunks says besides the chunk itself."""
    return {
        "epoch": assignment.epoch,
        "split": assignment.split,
        "attempt": assignment.attempt,
    }


@dataclass(frozen=True, slots=True)
class EncodedPiece:
    """A chunk, and the frame that it is sent as: encoded once, where it is made."""

    chunk: Chunk
    ids: dict[str, int]
    header: dict[str, Any]
    buffers: Sequence[bytes | memoryview]
    nbytes: int

    @classmethod
    def of(cls, chunk: Chunk, ids: dict[str, int]) -> EncodedPiece:
        """Encodes a chunk; numeric components stay in the tensors' memory.

        Raises:
            UsageError: it is too large to be sent.
        """
        header, buffers = encode(chunk, ids)
        nbytes = sum(memoryview(part).nbytes for part in buffers)
        if nbytes > DEFAULT_LIMITS.payload_bytes_max:  # no client would accept the frame
            raise UsageError(
                f"elements {chunk.start}..{chunk.stop} have {nbytes} bytes together,"
                f" {DEFAULT_LIMITS.payload_bytes_max} can be sent at once"
            )
        return cls(chunk, ids, header, buffers, nbytes)

    @property
    def start(self) -> int:
        """Index in the split of the first element."""
        return self.chunk.start

    @property
    def stop(self) -> int:
        """Index in the split of the element after the last."""
        return self.chunk.stop

    @property
    def memory(self) -> int:
        """All of its payload is in memory."""
        return self.nbytes

    @property
    def stored(self) -> Stored | None:
        """Its payload is in no file."""
        return None

    @property
    def hashes(self) -> Hashes:
        """One hash an element."""
        return self.chunk.hashes

    def slice(self, a: int, b: int) -> Piece:
        """Elements `a .. b-1` as a piece of their own."""
        return EncodedPiece.of(self.chunk.slice(a, b), self.ids)


@dataclass(frozen=True, slots=True)
class SegmentPiece:
    """A frame of a segment, with the numbers of the attempt that it is sent for.

    All of it was checked when this was made: whoever sends it can only send it.
    """

    segment: Segment
    frame: int
    ids: dict[str, int]
    header: dict[str, Any]
    start: int
    stop: int
    stored: Stored

    @classmethod
    def of(cls, segment: Segment, frame: int, ids: dict[str, int]) -> SegmentPiece:
        """Checks a frame's header and payload, which need not be read again to be sent.

        Raises:
            DamagedSegmentError: it is not what was written.
        """
        entry = segment.frames[frame]
        header = {**segment.header(frame), **ids}
        segment.payload(frame)
        stored = Stored(
            segment.fileno(), entry.payload_offset, entry.payload_bytes, entry.payload_digest
        )
        return cls(segment, frame, ids, header, entry.start, entry.start + entry.count, stored)

    @property
    def nbytes(self) -> int:
        """Length of the frame's payload."""
        return self.stored.nbytes

    @property
    def memory(self) -> int:
        """It stays in the file."""
        return 0

    @property
    def hashes(self) -> Hashes:
        """One hash an element."""
        return self.segment.hashes[self.start : self.stop]

    @property
    def buffers(self) -> Sequence[bytes | memoryview]:
        """The payload, read from the file."""
        return [self.segment.payload(self.frame)]

    def slice(self, a: int, b: int) -> Piece:
        """Elements `a .. b-1` as a piece of their own, in memory."""
        chunk = decode(self.header, self.segment.payload(self.frame))
        return EncodedPiece.of(chunk.slice(a, b), self.ids)
