"""Writes the files of a journal; one thread at a time, and no second try after an error.

Rules. 1. Nothing is written over: a file is appended to, or replaced whole by a rename. 2. A name
means something only after its content is durable, and a file is deleted only after what replaces
it is. 3. What was merely read is not built upon. After a failed fsync the kernel may call the pages
clean: they can still be read, and are gone after the next power loss. So opening makes durable what
it found: it syncs the directory before anything else, and writes a segment anew if the last fsync
of that may have failed. 4. A writer makes and replaces only names of its own generation, and
removes none of a higher one, so that it can wake up at any point and do no harm to the one who took
its place. A name that is to be removed may be gone already, because such a writer removed it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..failpoints import failpoint
from .format import SEGMENT_HEAD_BYTES, SegmentHead, encode_seal, encode_segment_head
from .recovery import TEMPORARY_SUFFIX, segment_path, snapshot_path, take_inventory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .disk import Disk, File
    from .lease import Lease
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

    Args:
        disk: what does the I/O.
        lease: the right to write; what it says is asked after every fsync of records.
        log_id: what seeds the checks of the records.
        segment_bytes: size at which a new segment is begun.

    Attributes:
        log_id: what seeds the checks of the records.
        durable_seq: the last sequence number that is durable, and that a successor would read.
    """

    def __init__(self, disk: Disk, lease: Lease, log_id: int, segment_bytes: int) -> None:
        self.log_id = log_id
        self.durable_seq = 0
        self._disk = disk
        self._lease = lease
        self._directory = lease.directory
        self._generation = lease.generation
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
        for name, generation in inventory.temporary:
            if generation <= self._generation:
                self._remove(self._directory / name)
        for position, segment in enumerate(segments, 1):
            last = position == len(segments)
            # A seal is durable if its successor has records; else it may have been just read.
            settled = segment.sealed and (position < len(segments) - 1 or segments[-1].count > 0)
            # An older holder may still write what is there. Its successor begins with a file of
            # its own, behind which no seal is needed.
            own = self._segment_path(segment.first_seq) == segment.path
            if settled or (not own and not last):
                continue
            if last and own and not segment.count and not segment.torn_bytes:
                continue
            content = segment.data[: segment.records_end]
            if not last:
                content += encode_seal(self.log_id, segment.next_seq - 1)
            file = self._write_beside(self._segment_path(segment.first_seq), content)
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
        self._prune(snapshot_seq)

    def commit(self, data: bytes, last_seq: int) -> None:
        """Appends encoded records, the last of which is number `last_seq`, and makes them durable.

        Begins a new segment first if the records would make this one too long.
        """
        if self._writing.size_bytes + len(data) > self._segment_bytes:
            self.begin_segment()
        segment = self._writing
        failpoint("journal.before_write")
        segment.file.append(data)
        failpoint("journal.before_fsync")
        segment.file.fsync()
        failpoint("journal.after_fsync")
        # Only now is it known that a successor, should there be one, reads these records.
        self._lease.check()
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
        failpoint("journal.segment.after_create")
        full.file.append(encode_seal(self.log_id, self.durable_seq))
        full.file.fsync()
        full.file.close()

    def store_snapshot(self, seq: int, content: bytes) -> None:
        """Makes the file of a snapshot durable, then deletes what it replaces.

        May run while another thread is in `commit`: they touch different files.
        """
        failpoint("journal.snapshot.before_write")
        path = snapshot_path(self._directory, seq, self._generation)
        self._write_beside(path, content).close()
        failpoint("journal.snapshot.after_write")
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
        file = self._write_beside(self._segment_path(first_seq), head)
        return _Segment(file, first_seq, len(head))

    def _segment_path(self, first_seq: int) -> Path:
        return segment_path(self._directory, first_seq, self._generation)

    def _write_beside(self, path: Path, content: bytes) -> File:
        """Writes a whole file so that after a crash it is there as a whole or not at all."""
        beside = path.with_name(path.name + TEMPORARY_SUFFIX)
        file = self._disk.create(beside)
        try:
            file.append(content)
            file.fsync()
            failpoint("journal.file.before_rename")
            self._disk.rename(beside, path)
            failpoint("journal.file.after_rename")
            self._disk.fsync_dir(self._directory)
        except BaseException:
            file.close()
            raise
        return file

    def _prune(self, seq: int) -> None:
        """Deletes what a durable snapshot of record `seq`, or a higher generation, replaces."""
        directory = self._directory
        inventory = take_inventory(self._disk.names(directory))
        needed = max((part.seq for part in inventory.segments if part.seq <= seq + 1), default=0)
        segments = [part for part in inventory.segments if seq and part.seq < needed]
        segments += inventory.superseded
        snapshots = [part for part in inventory.snapshots if part.seq < seq]
        old = [
            path_of(directory, part.seq, part.generation)
            for parts, path_of in ((segments, segment_path), (snapshots, snapshot_path))
            for part in parts
            if part.generation <= self._generation
        ]
        for path in old:
            failpoint("journal.prune.before_remove")
            self._remove(path)
            failpoint("journal.prune.after_remove")
        if old:
            self._disk.fsync_dir(directory)

    def _remove(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._disk.remove(path)
