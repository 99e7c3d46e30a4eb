"""What an earlier life left of a segment, and how a finished file gets its name.

A file that holds all of a segment may have both names, that of its writer and the one that it is
read under: a process may have died between giving it the one and taking the other from it. So such
a file is never written again, whoever may be reading it: it gets its name, or is removed.
"""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..failpoints import failpoint
from .cache_files import lock, read_at, sync_directory
from .segment_file import (
    DamagedSegmentError,
    Source,
    read_footer,
    read_frame_at,
    read_opening,
    read_trailer,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ..proto.hashing import Hashes
    from .segment_file import FrameEntry, Opening, SegmentName

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Leftover:
    """What there is of a segment that has not got its name.

    Attributes:
        opening: its head.
        entries: its whole frames.
        hashes: those of their elements, an array a frame.
        finished: whether nothing but the name is missing.
    """

    opening: Opening
    entries: list[FrameEntry]
    hashes: list[Hashes]
    finished: bool = False

    @property
    def end(self) -> int:
        """Where its last whole frame ends."""
        return self.entries[-1].end if self.entries else self.opening.nbytes


def claim(path: Path) -> int | None:
    """Opens and locks the file to be written, made if it is not there.

    Returns:
        Its descriptor; None if somebody else has it locked.

    Raises:
        OSError: it can be neither opened nor made.
    """
    while True:
        descriptor = lock(path, make=True)
        if descriptor is None or os.fstat(descriptor).st_nlink == 1:
            return descriptor
        try:
            path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def examine(path: Path, descriptor: int, name: SegmentName, tensorflow: str) -> Leftover | None:
    """Reads and checks what an earlier life left; None if nothing of it is of use.

    Args:
        path: of the file, for messages.
        descriptor: of the file, locked.
        name: what it has to hold.
        tensorflow: the release that has to have made it.

    Raises:
        OSError: its beginning or its end cannot be read.
    """
    source = _source(path, descriptor)
    try:
        left = Leftover(_opening(source, name, tensorflow), [], [])
    except DamagedSegmentError as error:
        if source.size:
            logger.info("%s; it is begun anew", error)
        return None
    with contextlib.suppress(DamagedSegmentError, OSError):  # what follows is cut off
        while left.end < source.size:
            start = left.entries[-1].stop if left.entries else 0
            entry, hashes = read_frame_at(source, left.end, start)
            left.entries.append(entry)
            left.hashes.append(hashes)
    return Leftover(left.opening, left.entries, left.hashes, _is_finished(source, left))


def settle(path: Path, target: Path, name: SegmentName, tensorflow: str) -> bool:
    """Puts right what an earlier life of this worker left of a segment.

    What can be gone on with stays, what was finished gets its name, the rest is removed.

    Args:
        path: of the file.
        target: the name that it was to get.
        name: what it has to hold.
        tensorflow: the release that has to have made it.

    Returns:
        Whether the segment is there now, and was not before.

    Raises:
        OSError: the disk refuses.
    """
    try:
        descriptor = lock(path)
    except FileNotFoundError:
        return False
    if descriptor is None:
        return False
    try:
        source = _source(path, descriptor)
        opening = _opening(source, name, tensorflow)
        if target.exists():
            raise source.damaged(f"{target.name} is there")
        try:
            read_trailer(source, opening)
        except DamagedSegmentError:
            return False  # among its frames; they are read when they are gone on with
        left = examine(path, descriptor, name, tensorflow)
        if left is None or not left.finished:
            raise source.damaged("it was finished, and is damaged")
        os.fsync(descriptor)
        return publish(path, target)
    except DamagedSegmentError as error:
        logger.info("%s; it is removed", error)
        path.unlink(missing_ok=True)
        return False
    finally:
        os.close(descriptor)


def publish(path: Path, target: Path) -> bool:
    """Gives a durable file the name that it is read under, and takes the other one from it.

    Returns:
        False if another file has that name; this one is removed.

    Raises:
        OSError: the disk refuses.
    """
    try:
        os.link(path, target)  # unlike a rename it replaces nothing
    except FileExistsError:
        path.unlink(missing_ok=True)
        return False
    failpoint("worker.put.after_rename")
    try:
        path.unlink(missing_ok=True)
        sync_directory(target.parent)
        sync_directory(target.parent.parent)
    except OSError as error:
        logger.warning("segment %s may not outlive a power cut: %s", target, error)
    return True


def _source(path: Path, descriptor: int) -> Source:
    size = os.fstat(descriptor).st_size
    return Source(path, size, lambda offset, nbytes: read_at(descriptor, offset, nbytes))


def _opening(source: Source, name: SegmentName, tensorflow: str) -> Opening:
    opening = read_opening(source)
    if opening.head.name != name:
        raise source.damaged(f"it is of {opening.head.name}")
    if opening.head.tensorflow != tensorflow:
        raise source.damaged(f"TensorFlow {opening.head.tensorflow} wrote it, {tensorflow} runs")
    return opening


def _is_finished(source: Source, left: Leftover) -> bool:
    try:
        frames, _ = read_footer(source, left.opening, read_trailer(source, left.opening))
    except DamagedSegmentError:
        return False
    return list(frames) == left.entries
