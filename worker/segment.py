"""One finished segment, open for reading: any frame of it, in any order, from any thread."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..errors import ChunkError, VerificationError
from ..proto.chunk import decode
from .cache_files import name_of, read_at
from .segment_file import (
    DamagedSegmentError,
    Source,
    read_footer,
    read_frame_at,
    read_header,
    read_opening,
    read_trailer,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .segment_file import FrameEntry, Opening, SegmentName

T = TypeVar("T")


class Descriptor:
    """A file's descriptor, closed when nobody has a reference to this any more.

    A thread that reads while another one closes the segment would otherwise read from whatever
    file got the same number meanwhile.

    Attributes:
        number: of the descriptor.
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)

    def read_at(self, offset: int, nbytes: int) -> bytes:
        """So many bytes from there on, fewer at the file's end."""
        return read_at(self.number, offset, nbytes)


class Segment:
    """A finished segment. Thread-safe, save for `close`, and readable though the file is removed.

    Args:
        path: of the file.
        name: what it has to hold.

    Attributes:
        path: of the file when it was opened.
        name: what it holds.
        id: 16 hexadecimal digits that no other file has.
        tensorflow: the release that made the elements.
        nbytes: length of the file.
        frames: where its frames are.
        hashes: of all its elements, uint64.
        digest: of all its elements.

    Raises:
        DamagedSegmentError: it is not that segment, or not as it was written.
        OSError: it cannot be opened or read.
    """

    def __init__(self, path: Path, name: SegmentName) -> None:
        self.path = path
        descriptor, source, opening = _open(path, name)
        trailer = read_trailer(source, opening)
        self.name = name
        self.id = opening.head.id
        self.tensorflow = opening.head.tensorflow
        self.nbytes = source.size
        self.digest = trailer.digest
        self.frames, self.hashes = read_footer(source, opening, trailer)
        self._begin = opening.nbytes
        self._source: Source | None = source
        self._descriptor: Descriptor | None = descriptor
        self._map: mmap.mmap | None = mmap.mmap(
            descriptor.number, source.size, access=mmap.ACCESS_READ
        )

    def __enter__(self) -> Segment:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the file. What `payload` returned stays readable until its last view is gone."""
        self._source = self._descriptor = self._map = None

    def fileno(self) -> int:
        """The file's descriptor, for `os.sendfile`; valid until the segment is closed.

        Raises:
            ValueError: it is closed.
        """
        return _still(self._descriptor, self.path).number

    def frame_at(self, element: int) -> int:
        """The number of the frame that holds an element, given by its index in the split.

        Raises:
            IndexError: there is no such element.
        """
        return self.frames.at(element)

    def header(self, frame: int) -> dict[str, Any]:
        """The header of a frame as it was written; its payload is not read.

        Raises:
            DamagedSegmentError: it is not as it was written.
            OSError: it cannot be read.
        """
        return read_header(_still(self._source, self.path), self.frames[frame])

    def payload(self, frame: int) -> memoryview:
        """The payload of a frame, a view of the file that begins at a multiple of 64.

        It is read and compared before: by calls, which can fail, since a disk's error under a
        mapping ends the process. What is looked at afterwards is in memory then.

        Raises:
            DamagedSegmentError: it is not as it was written.
            OSError: it cannot be read.
        """
        entry, source = self.frames[frame], _still(self._source, self.path)
        if source.digest(entry.payload_offset, entry.payload_bytes) != entry.payload_digest:
            raise source.damaged(f"the payload at byte {entry.payload_offset} is not what it was")
        return self._view(entry)

    def check(self, advanced: Callable[[int], None] = lambda nbytes: None) -> None:
        """Reads all of it and checks every byte, and every element by its hash.

        Args:
            advanced: told of the bytes of each frame when they have been read.

        Raises:
            DamagedSegmentError: it is not as it was written; the first place is named.
            OSError: it cannot be read.
        """
        source, end = _still(self._source, self.path), self._begin
        for entry in self.frames:
            found, hashes = read_frame_at(source, end, entry.start)
            if found != entry or not np.array_equal(hashes, self.hashes[entry.start : entry.stop]):
                raise source.damaged(
                    f"the frame at byte {found.offset} is not the one that its footer has there"
                )
            try:
                decode(read_header(source, entry), self._view(entry)).verify()
            except (ChunkError, VerificationError) as error:
                raise source.damaged(f"the frame at byte {entry.offset}: {error}") from error
            advanced(entry.end - end)
            end = entry.end

    def _view(self, entry: FrameEntry) -> memoryview:
        return memoryview(_still(self._map, self.path))[entry.payload_offset : entry.end]


@dataclass(frozen=True, slots=True)
class SegmentReport:
    """What `verify` found in a file.

    Attributes:
        path: of the file.
        nbytes: its length.
        damage: what is wrong with it; empty if nothing is.
        id: of the segment, as far as it could be read.
        tensorflow: the release that made the elements.
        frames: how many there are.
        elements: how many there are.
        digest: of all elements.
    """

    path: Path
    nbytes: int
    damage: str = ""
    id: str = ""
    tensorflow: str = ""
    frames: int = 0
    elements: int = 0
    digest: str = ""


def verify(path: Path, advanced: Callable[[int], None] = lambda nbytes: None) -> SegmentReport:
    """Reads all of a segment's file and checks everything that can be checked without TensorFlow.

    Args:
        path: of the file; its name tells what it has to hold.
        advanced: told of the bytes that have been read since the last time.

    Raises:
        OSError: it cannot be read.
    """
    nbytes = path.stat().st_size
    name = name_of(path)
    if name is None:
        return SegmentReport(path, nbytes, f"segment {path}: its name is not that of a segment")
    try:
        with Segment(path, name) as segment:
            segment.check(advanced)
            return SegmentReport(
                path,
                segment.nbytes,
                "",
                segment.id,
                segment.tensorflow,
                len(segment.frames),
                segment.digest.count,
                str(segment.digest),
            )
    except DamagedSegmentError as error:
        return SegmentReport(path, nbytes, str(error))


def elements_in(path: Path, name: SegmentName) -> int:
    """How many elements a finished segment says it holds; the elements are not read.

    Raises:
        DamagedSegmentError: it is none, or not of that name.
        OSError: it cannot be read.
    """
    _, source, opening = _open(path, name)
    return read_trailer(source, opening).digest.count


def _open(path: Path, name: SegmentName) -> tuple[Descriptor, Source, Opening]:
    descriptor = Descriptor(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    source = Source(path, os.fstat(descriptor.number).st_size, descriptor.read_at)
    opening = read_opening(source)
    if opening.head.name != name:
        raise source.damaged(f"it is of {opening.head.name}")
    return descriptor, source, opening


def _still(resource: T | None, path: Path) -> T:
    """What a segment has while it is open.

    Raises:
        ValueError: it is closed.
    """
    if resource is None:
        raise ValueError(f"segment {path} is closed")
    return resource
