"""Writes the files of a journal; one thread at a time, and no second try after an error.

Rules. 1. Nothing is written over: a file is appended to, or replaced whole by a rename. 2. A name
means something only after its content is durable, and a file is deleted only after what replaces
it is. 3. What was merely read is not built upon. After a failed fsync the kernel may call the pages
clean: they can still be read, and are gone after the next power loss. So opening makes durable what
it found: it syncs the directory before anything else, and writes a segment anew if the last fsync
of that may have failed.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .format import SEGMENT_HEAD_BYTES, SegmentHead, encode_seal, encode_segment_head
from .recovery import TEMPORARY_SUFFIX, segment_path, snapshot_path, take_inventory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .disk import Disk, File
    from .recovery import Inventory
    from .scan import Scanned


@dataclass(slots=True)
class _Segment:
    """The segment that is being written."""

    file: File
    first_seq: int
    size_bytes: int


class Writer:
    """The files of one journal, and how far they are durable. All methods may raise OSError.

    Attributes:
        log_id: what seeds the checks of the records.
        durable_seq: the last sequence number that is durable.
    """

    def __init__(self, disk: Disk, directory: Path, log_id: int, segment_bytes: int) -> None:
        self.log_id = log_id
        self.durable_seq = 0
        self._disk = disk
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._segment: _Segment | None = None

    def resume(self, segments: Sequence[Scanned], inventory: Inventory, snapshot_seq: int) -> None:
        """Brings the directory into the state that an orderly end would have left.

        Args:
            segments: those that were recovered, whole and in order; none in a new journal.
            inventory: the names in the directory.
            snapshot_seq: the last number covered by the snapshot that was recovered, or 0.
        """
        # The last writer may have died between a rename and this: what a name that was only seen
        # replaces must not be deleted.
        self._disk.fsync_dir(self._directory)
        for name in inventory.temporary:
            self._disk.remove(self._directory / name)
        for position, segment in enumerate(segments, 1):
            last = position == len(segments)
            # A seal is durable if its successor has records; else it may have been just read.
            settled = segment.sealed and (position < len(segments) - 1 or segments[-1].count > 0)
            if settled or (last and not segment.count and not segment.torn_bytes):
                continue
            content = segment.data[: segment.records_end]
            if not last:
                content += encode_seal(self.log_id, segment.next_seq - 1)
            file = self._write_beside(segment.path, content)
            if last:
                self._segment = _Segment(file, segment.first_seq, len(content))
            else:
                file.close()
        if not segments:
            self._segment = self._begin_segment(1)
        elif self._segment is None:
            file = self._disk.open(segments[-1].path)
            self._segment = _Segment(file, segments[-1].first_seq, SEGMENT_HEAD_BYTES)
        self.durable_seq = segments[-1].next_seq - 1 if segments else 0
        if snapshot_seq:
            self._prune(snapshot_seq)

    def commit(self, data: bytes, last_seq: int) -> None:
        """Appends encoded records, the last of which is number `last_seq`, and makes them durable.

        Begins a new segment first if the records would make this one too long.
        """
        if self._writing.size_bytes + len(data) > self._segment_bytes:
            self.begin_segment()
        segment = self._writing
        segment.file.append(data)
        segment.file.fsync()
        segment.size_bytes += len(data)
        self.durable_seq = last_seq

    def begin_segment(self) -> None:
        """Seals the segment that is being written and begins its successor, unless it is empty."""
        full = self._writing
        if full.first_seq > self.durable_seq:
            return
        # The successor comes first: then a seal without a successor proves that a file is gone.
        # All that was written is durable here, so only the seal itself can be torn.
        self._segment = self._begin_segment(self.durable_seq + 1)
        full.file.append(encode_seal(self.log_id, self.durable_seq))
        full.file.fsync()
        full.file.close()

    def store_snapshot(self, seq: int, content: bytes) -> None:
        """Makes the file of a snapshot durable, then deletes what it replaces.

        May run while another thread is in `commit`: they touch different files.
        """
        self._write_beside(snapshot_path(self._directory, seq), content).close()
        self._prune(seq)

    def close(self) -> None:
        """Closes the files; never raises, because what matters was fsynced."""
        with contextlib.suppress(OSError):
            if self._segment:
                self._segment.file.close()

    @property
    def _writing(self) -> _Segment:
        assert self._segment is not None, "resume comes first"
        return self._segment

    def _begin_segment(self, first_seq: int) -> _Segment:
        head = encode_segment_head(SegmentHead(self.log_id, first_seq))
        file = self._write_beside(segment_path(self._directory, first_seq), head)
        return _Segment(file, first_seq, len(head))

    def _write_beside(self, path: Path, content: bytes) -> File:
        """Writes a whole file so that after a crash it is there as a whole or not at all."""
        beside = path.with_name(path.name + TEMPORARY_SUFFIX)
        file = self._disk.create(beside)
        try:
            file.append(content)
            file.fsync()
            self._disk.rename(beside, path)
            self._disk.fsync_dir(self._directory)
        except BaseException:
            file.close()
            raise
        return file

    def _prune(self, seq: int) -> None:
        """Deletes what a durable snapshot of record `seq` makes superfluous."""
        inventory = take_inventory(self._disk.names(self._directory))
        needed = max(first for first in inventory.segments if first <= seq + 1)
        old = [segment_path(self._directory, n) for n in inventory.segments if n < needed]
        old += [snapshot_path(self._directory, n) for n in inventory.snapshots if n < seq]
        for path in old:
            self._disk.remove(path)
        if old:
            self._disk.fsync_dir(self._directory)
