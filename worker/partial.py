"""A segment while it is written: frames are appended, and it gets its name when it is whole.

Theory of operation. The file is written under a name of this worker, so nobody reads it, and a
worker that is restarted at its address finds it. Its frames are whole and checked, or cut off, so
a run that begins at a checkpoint goes on with the file at the checkpoint's element. `commit`
writes the footer, fsyncs, and links the file to the name that it is read under: whoever does that
first has made the segment, and those who come later remove theirs. What a crash leaves on the way,
`leftover` puts right. After an fsync that failed nobody knows what is on the disk, so it is not
tried again: nothing is done with such a file but to remove it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..failpoints import failpoint
from ..proto.hashing import DigestBuilder
from ..proto.wire import PREFIX_BYTES, FrameType, encode_head, payload_digest
from .cache_files import sync_directory
from .leftover import Leftover, examine, publish
from .segment_file import FrameEntry, Head, elements_of, footer_bytes, pack_footer, pack_head
from .segment_frames import place

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..proto.hashing import Digest, Hashes
    from .segment_file import SegmentName

logger = logging.getLogger(__name__)


class Claims(Protocol):
    """Who gave a segment to be written, and wants it back."""

    def charge(self, name: SegmentName, nbytes: int) -> None:
        """Makes room, so that the segment may have so many bytes; raises CapacityError."""

    def ended(self, name: SegmentName, *, present: bool) -> None:
        """Nobody writes it any more; whether it is there now because of us."""


class PartialSegment:
    """A segment that is being written, by one thread; another one may end that.

    Args:
        claims: asked for room, and told when this ends.
        path: of the file.
        target: the name that it is to get.
        descriptor: of the file, locked; closed in the end.
        left: what the file holds, and nothing beyond.

    Attributes:
        name: what it is to hold.
        id: 16 hexadecimal digits that no other file has.
    """

    def __init__(
        self, claims: Claims, path: Path, target: Path, descriptor: int, left: Leftover
    ) -> None:
        self.name = left.opening.head.name
        self.id = left.opening.head.id
        self._claims = claims
        self._path = path
        self._target = target
        self._descriptor = descriptor
        self._opening = left.opening
        self._entries = left.entries
        self._hashes = left.hashes
        self._lock = threading.Lock()
        self._ended = False
        self._failed = False
        self._named = False

    @property
    def elements(self) -> int:
        """How many elements there are, in whole frames."""
        return self._entries[-1].stop if self._entries else 0

    @property
    def nbytes(self) -> int:
        """Length of the file so far."""
        return self._entries[-1].end if self._entries else self._opening.nbytes

    @property
    def digest(self) -> Digest:
        """Of the elements so far."""
        builder = DigestBuilder()
        for hashes in self._hashes:
            builder.update(hashes)
        return builder.digest()

    def finished_bytes(self, *more: FrameEntry) -> int:
        """Length that the file would have if it ended after these frames and were finished."""
        last = (*self._entries[-1:], *more)[-1:]
        end, elements = (last[0].end, last[0].stop) if last else (self._opening.nbytes, 0)
        return end + footer_bytes(len(self._entries) + len(more), elements)

    def append(
        self,
        header: dict[str, Any],
        buffers: Sequence[bytes | memoryview],
        start: int,
        count: int,
        hashes: Hashes,
    ) -> None:
        """Appends a chunk, as the frame that it is on the wire.

        Args:
            header: of the CHUNK frame; it has to say the same of its elements as what follows.
            buffers: the payload, in C-contiguous parts.
            start: index in the split of its first element: those before have been appended.
            count: number of its elements, at least one.
            hashes: of these, uint64.

        Raises:
            ValueError: it does not follow what there is, or contradicts its header.
            ProtocolError: it is larger than a frame may be.
            CapacityError: there is no room for it; what there is stays as it is.
            OSError: the disk refuses, and what there is stays; or nobody writes it any more.
        """
        if start != self.elements:
            raise ValueError(f"a chunk from element {start} cannot follow {self.elements} elements")
        said_start, said_count, said_hashes = elements_of(header)
        if (said_start, said_count) != (start, count) or not np.array_equal(said_hashes, hashes):
            raise ValueError(f"the header of elements {start}..{start + count} says otherwise")
        payload = [memoryview(buffer) for buffer in buffers]
        payload_bytes = sum(view.nbytes for view in payload)
        digest = payload_digest(payload)
        head = b"".join(encode_head(FrameType.CHUNK, header, payload_bytes, digest))
        with self._lock:
            descriptor, end = self._writable(), self.nbytes
            offset = place(end, len(head) - PREFIX_BYTES)
            entry = FrameEntry(
                offset,
                offset + len(head),
                payload_bytes,
                start,
                count,
                digest,
                len(head) - PREFIX_BYTES,
            )
            self._claims.charge(self.name, self.finished_bytes(entry))
            try:
                _write(descriptor, end, [bytes(offset - end) + head, *payload])
            except OSError:
                self._claims.charge(self.name, self.finished_bytes())
                self._failed = True  # unless what was written of it is gone
                os.ftruncate(descriptor, end)
                self._failed = False
                raise
            self._entries.append(entry)
            self._hashes.append(said_hashes)
        failpoint("worker.put.after_append")

    def cut(self, elements: int) -> bool:
        """Cuts the file back, so that it holds this many elements.

        Returns:
            False if no frame ends there, or there are fewer; nothing has changed then.

        Raises:
            OSError: the disk refuses.
        """
        with self._lock:
            descriptor = self._writable()
            stops = [0, *(entry.stop for entry in self._entries)]
            if elements not in stops:
                return False
            kept = stops.index(elements)
            if kept < len(self._entries):
                end = self._entries[kept - 1].end if kept else self._opening.nbytes
                os.ftruncate(descriptor, end)
                del self._entries[kept:], self._hashes[kept:]
                self._claims.charge(self.name, self.finished_bytes())
            return True

    def sync(self) -> None:
        """Makes what was appended durable, and the file's name: a checkpoint may rely on it.

        Raises:
            OSError: the disk refuses; nothing can be done with it but `discard`.
        """
        with self._lock:
            self._sync(self._writable())
            if not self._named:
                sync_directory(self._path.parent)
                sync_directory(self._path.parent.parent)
                self._named = True

    def commit(self, digest: Digest) -> bool:
        """Finishes the segment and gives it the name that it is read under.

        Args:
            digest: of the whole split.

        Returns:
            False if somebody else's is there already; this one is removed.

        Raises:
            ValueError: the elements have another digest; nothing has changed.
            OSError: the disk refuses; nothing can be done with it but `discard`.
        """
        with self._lock:
            descriptor = self._writable()
            if self.digest != digest:
                raise ValueError(f"{self.name} has the digest {self.digest}, not {digest}")
            hashes = np.concatenate([np.empty(0, np.uint64), *self._hashes])
            footer = pack_footer(self._opening, self.nbytes, self._entries, hashes, digest)
            # Whatever happens from now on, nothing may be appended to it any more.
            self._failed = True
            _write(descriptor, self.nbytes, [footer])
            self._sync(descriptor)
            failpoint("worker.put.before_commit")
            present = publish(self._path, self._target)
            self._close()
        self._claims.ended(self.name, present=present)
        return present

    def discard(self) -> None:
        """Removes the file and gives the claim up; never raises."""
        self._end(remove=True)

    def release(self) -> None:
        """Gives the claim up but leaves the file for the next life; never raises."""
        self._end(remove=self._failed)

    def _end(self, *, remove: bool) -> None:
        with self._lock:
            if self._ended:
                return
            if remove:
                try:
                    self._path.unlink(missing_ok=True)
                except OSError as error:
                    logger.warning("%s cannot be removed: %s", self._path, error)
            self._close()
        self._claims.ended(self.name, present=False)

    def _close(self) -> None:
        self._ended = True
        os.close(self._descriptor)

    def _writable(self) -> int:
        if self._ended:
            raise OSError(errno.EBADF, "nobody writes this segment any more", str(self._path))
        if self._failed:
            raise OSError(errno.EIO, "writing this segment has failed before", str(self._path))
        return self._descriptor

    def _sync(self, descriptor: int) -> None:
        try:
            os.fsync(descriptor)
        except OSError:
            self._failed = True
            raise


def begin(
    claims: Claims, path: Path, target: Path, descriptor: int, head: Head
) -> PartialSegment | None:
    """Goes on with what an earlier life left in a file, or begins anew.

    Args:
        claims: asked for room, and told when the writing ends.
        path: of the file.
        target: the name that it is to get.
        descriptor: of the file, locked; closed when the writing ends, or here.
        head: of the file, if it is begun anew.

    Returns:
        None if nothing but the name was missing; it has that now.

    Raises:
        CapacityError: there is no room for it.
        OSError: the disk refuses.
    """
    left = None
    try:
        left = examine(path, descriptor, head.name, head.tensorflow)
        if left is not None and left.finished:
            os.fsync(descriptor)
            publish(path, target)
            os.close(descriptor)
            return None
        packed, opening = pack_head(head)
        found = left or Leftover(opening, [], [])
        partial = PartialSegment(claims, path, target, descriptor, found)
        claims.charge(head.name, partial.finished_bytes())
        if left is None:
            os.ftruncate(descriptor, 0)
            _write(descriptor, 0, [packed])
        else:
            os.ftruncate(descriptor, left.end)
        return partial
    except BaseException:
        if left is None:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        os.close(descriptor)
        raise


def _write(descriptor: int, offset: int, parts: Sequence[bytes | memoryview]) -> None:
    for part in parts:
        view = memoryview(part)
        view = view.cast("B") if view.nbytes else memoryview(b"")
        while view:
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written
