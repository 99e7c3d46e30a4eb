"""Elements at a cache point: written into a partial segment, read from a segment.

Both are called from TensorFlow's threads, in the middle of a pipeline, once for each batch of
elements; where the shapes of elements vary, once for each element. They never raise for the sake
of the cache itself: a writer gives up, and a reader says that its segment is damaged.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import PenstockError
from ..proto.chunk import Chunk, decode, encode
from .pieces import EncodedPiece
from .segment_file import DamagedSegmentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..proto.hashing import Digest, Hashes
    from ..proto.spec import ComponentSpec
    from .messages import Piece
    from .partial import PartialSegment
    from .segment import Segment

    Arrays = tuple[NDArray[Any], ...]

logger = logging.getLogger(__name__)

#: A frame of elements that come one by one is done at so many, or at so many bytes.
_LONE_ELEMENTS = 256
_LONE_BYTES = 1 << 20


class CachePoint(Protocol):
    """What is used of `graph.LoadedCache`."""

    @property
    def key(self) -> str:
        """Names what is cached."""

    @property
    def whole(self) -> bool:
        """Nothing follows the cache point."""

    @property
    def components(self) -> tuple[ComponentSpec, ...]:
        """The types of an element at the cache point."""

    @property
    def fixed_element_bytes(self) -> int | None:
        """The size of every element there, if they are all the same."""

    @property
    def stackable(self) -> bool:
        """Whether elements there are written and read in batches."""


class SegmentReader:
    """Reads a segment for the tail of a pipeline; called from TensorFlow's threads.

    Args:
        segment: to be read.
        point: the stream's cache point.

    Attributes:
        damaged: why the last read failed, if the segment is damaged.
        chunks: how many there are to be read.
    """

    def __init__(self, segment: Segment, point: CachePoint) -> None:
        self.damaged: DamagedSegmentError | None = None
        self.chunks = len(segment.frames) if point.stackable else segment.digest.count
        self._segment = segment
        self._point = point
        self._last: Chunk | None = None

    def read(self, index: int) -> Arrays:
        """The elements of chunk `index`, stacked; or element `index`, where they are not."""
        try:
            if self._point.stackable:
                ((_, arrays),) = self._chunk(index).runs()
                return arrays
            last = self._last
            if last is None or not last.start <= index < last.stop:
                last = self._last = self._chunk(self._segment.frame_at(index))
            return last.element(index)
        except DamagedSegmentError as error:
            self.damaged = error
            raise
        except PenstockError as error:  # a frame that is whole, but no chunk of this kind
            self.damaged = DamagedSegmentError(f"segment {self._segment.name}: {error}")
            raise self.damaged from error

    def _chunk(self, frame: int) -> Chunk:
        segment = self._segment
        return decode(segment.header(frame), segment.payload(frame), self._point.components)


class SegmentWriter:
    """Writes what passes the cache point into a partial segment. Thread-safe.

    Args:
        partial: to be written; from the first element on that is handed over.
        point: the stream's cache point.

    Attributes:
        seconds: what writing has taken.
    """

    def __init__(self, partial: PartialSegment, point: CachePoint) -> None:
        self.seconds = 0.0
        self._partial: PartialSegment | None = partial
        self._point = point
        self._lock = threading.Lock()
        self._begun = False
        self._pending: list[Arrays] = []
        self._pending_bytes = 0
        self._first = 0

    def write(self, start: int, arrays: Arrays) -> None:
        """Takes stacked elements from `start` on; or one element, where they are not stacked."""
        with self._lock:
            if self._partial is None:
                return
            if self._point.stackable:
                self._append(Chunk.from_stacked(start, arrays))
                return
            if not self._pending:
                self._first = start
            self._pending.append(arrays)
            self._pending_bytes += sum(array.nbytes for array in arrays)
            if len(self._pending) >= _LONE_ELEMENTS or self._pending_bytes >= _LONE_BYTES:
                self._flush()

    def put(self, piece: Piece) -> None:
        """Takes a piece that is sent as it is."""
        with self._lock:
            if self._partial is not None and isinstance(piece, EncodedPiece):
                header = {key: piece.header[key] for key in piece.header if key not in piece.ids}
                hashes = piece.hashes
                self._store(header, piece.buffers, piece.start, piece.stop - piece.start, hashes)

    def sync(self) -> None:
        """Makes durable what was written so far."""
        with self._lock:
            if self._partial is not None:
                self._partial.sync()

    def release(self, *, keep: bool) -> None:
        """The run ends before its split; `keep` what is written for one that may go on."""
        with self._lock:
            partial, self._partial = self._partial, None
        if partial is not None and keep:
            partial.release()
        elif partial is not None:
            partial.discard()

    def finish(self, *, restored: bool) -> Digest | None:
        """Everything has passed; the digest of what is written, None if that is not all."""
        with self._lock:
            if self._partial is not None and self._pending:
                self._flush()
            if self._partial is not None and not self._begun:
                # A run that began at its end cannot know that what is there is all of it.
                whole = not restored and self._partial.cut(0)
                if not whole:
                    self._give_up("it began after the last element")
            partial, self._partial = self._partial, None
            return partial.digest if partial is not None else None

    def _flush(self) -> None:
        elements, self._pending, self._pending_bytes = self._pending, [], 0
        self._append(Chunk.from_elements(self._first, elements, self._point.components))

    def _append(self, chunk: Chunk) -> None:
        header, buffers = encode(chunk, {})
        self._store(header, buffers, chunk.start, chunk.count, chunk.hashes)

    def _store(
        self, header: dict[str, Any], buffers: Any, start: int, count: int, hashes: Hashes
    ) -> None:
        began = time.monotonic()
        assert self._partial is not None
        try:
            # A run that was restored goes on where its checkpoint was: what is after it goes.
            if not self._begun and not self._partial.cut(start):
                self._give_up(f"the run goes on at element {start}")
                return
            self._begun = True
            self._partial.append(header, buffers, start, count, hashes)
        except (OSError, PenstockError, ValueError) as error:
            self._give_up(str(error))
        finally:
            self.seconds += time.monotonic() - began

    def _give_up(self, why: str) -> None:
        partial, self._partial = self._partial, None
        self._pending.clear()
        if partial is not None:
            logger.info("segment %s is not written: %s", partial.name, why)
            partial.discard()
