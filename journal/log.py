"""The one writer of a journal, for many threads: append, group commit, snapshot, fail-stop.

A write or fsync that failed is never tried again. The next fsync would succeed, without the data
that the first could not write; so the log fails for good, and the process has to start again from
what is on the disk. `writer` does the writing, and has the rules for what may be written when.
A log whose lease (`lease`) was taken by another process fails in the same way.

Locks, always taken in this order: `_snapshotting` (one snapshot at a time), `_committing` (one
thread appends to segments), `_mutex` (the buffer and the counters, never held during I/O).
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from typing import TYPE_CHECKING

from ..errors import JournalError
from .disk import Disk, RealDisk
from .format import PAYLOAD_BYTES_MAX, Snapshot, encode_record, encode_snapshot
from .lease import Lease, acquire
from .recovery import (
    Inventory,
    Recovered,
    choose_start,
    explained,
    put_together,
    read_segments,
    take_inventory,
)
from .writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from .recovery import Start
    from .scan import Scanned

#: A segment is closed when the next commit would make it longer than this.
SEGMENT_BYTES = 64 << 20
#: With this much not yet synced, `append` waits for the disk instead of taking more memory.
_BUFFER_BYTES_MAX = 64 << 20
#: How often to read what a replaced holder changes under our eyes, before it notices.
_TRIES_MAX = 10

logger = logging.getLogger(__name__)


class Log:
    """A journal open for appending; make one with `Log.open`. All methods are thread-safe.

    After the first failed write or fsync every method but `close` raises JournalError: the
    process should end, and start again from what is on the disk.
    """

    def __init__(self, lease: Lease, writer: Writer, recovered: Recovered, read_bytes: int) -> None:
        self._directory = lease.directory
        self._lease = lease
        self._writer = writer
        self._snapshotting = threading.Lock()
        self._committing = threading.Lock()
        self._mutex = threading.Lock()
        # A record has its number by its place here, so that one list operation is the whole
        # append: an interrupt between two would leave a hole, or a number used twice.
        self._buffer: list[bytes] = []
        self._buffer_bytes = 0
        self._taken_seq = recovered.last_seq  # the last that a commit took out of the buffer
        self._snapshot_seq = recovered.snapshot_seq
        self._bytes_since_snapshot = read_bytes
        self._failure: BaseException | None = None
        self._closed = False

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        disk: Disk | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        lease: Lease | None = None,
    ) -> tuple[Log, Recovered]:
        """Locks a journal's directory, recovers what is in it, and makes it ready for appending.

        Args:
            directory: where the journal is, or will be; created if it is missing.
            disk: what does the I/O; the file system of this machine by default.
            segment_bytes: size at which a new segment is begun.
            lease: of this directory, if the caller has it; it is closed with the log, and at once
                if this fails.

        Returns:
            The log, and what was found. All that was found is durable.

        Raises:
            JournalLockedError: another process holds the directory; the message has its id.
            JournalCorruptError: the journal is damaged; nothing was changed.
            JournalError: the operating system refused something.
        """
        disk = disk or RealDisk()
        try:
            disk.make_directory(directory)
            lease = lease or acquire(disk, directory)
        except OSError as error:
            raise explained(directory, "opening it", error) from error
        writer: Writer | None = None
        try:
            start, segments, inventory = _read(disk, lease)
            log_id = segments[0].log_id if segments else secrets.randbits(64)
            writer = Writer(disk, lease, log_id, segment_bytes)
            writer.resume(segments, inventory, start.seq)
        except BaseException as error:
            if writer:
                writer.close()
            lease.close()
            if isinstance(error, OSError):
                raise explained(directory, "recovering it", error) from error
            raise
        recovered = put_together(start, segments, inventory)
        log = cls(lease, writer, recovered, sum(part.records_end for part in segments))
        _report(directory, recovered)
        return log, recovered

    @property
    def last_seq(self) -> int:
        """The sequence number of the newest record, durable or not; 0 in an empty journal."""
        with self._mutex:
            return self._newest()

    @property
    def durable_seq(self) -> int:
        """The highest sequence number that is durable: up to it may be acknowledged."""
        return self._writer.durable_seq

    @property
    def snapshot_seq(self) -> int:
        """The last sequence number that the newest snapshot covers; 0 without one."""
        return self._snapshot_seq

    @property
    def bytes_since_snapshot(self) -> int:
        """How many bytes of records a recovery would have to read now; tells when to snapshot."""
        return self._bytes_since_snapshot

    def append(self, payload: bytes) -> int:
        """Adds a record to those that the next `sync` makes durable.

        Does no I/O, and so may be called from an event loop, unless 64 MiB are waiting already.

        Args:
            payload: at most PAYLOAD_BYTES_MAX bytes.

        Returns:
            The record's sequence number; acknowledge it only after `sync` returned it or more.

        Raises:
            JournalError: the payload is too long, or the log has failed or is closed.
        """
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise JournalError(
                f"journal {self._directory}: a record of {len(payload)} bytes is too long; "
                f"the most is {PAYLOAD_BYTES_MAX}"
            )
        if self._buffer_bytes > _BUFFER_BYTES_MAX:
            self.sync()
        with self._mutex:
            self._check_usable()
            seq = self._newest() + 1
            record = encode_record(self._writer.log_id, seq, payload)
            self._buffer_bytes += len(record)
            self._bytes_since_snapshot += len(record)
            self._buffer.append(record)
        return seq

    def sync(self) -> int:
        """Makes every record appended before this call durable, together with those of others.

        Blocks for one fsync, or for none if another thread's has covered the records meanwhile.

        Returns:
            The highest durable sequence number, at least that of the last record appended.

        Raises:
            JournalError: the log has failed, now or before, or is closed.
        """
        with self._mutex:
            self._check_usable()
            wanted = self._newest()
        with self._committing, self._failing_for_good("writing records"):
            if self._writer.durable_seq < wanted:
                with self._mutex:
                    batch, last_seq = self._buffer, self._newest()
                    self._buffer, self._buffer_bytes, self._taken_seq = [], 0, last_seq
                self._writer.commit(b"".join(batch), last_seq)
            return self._writer.durable_seq

    def check(self) -> None:
        """Returns if nobody has taken the journal over: what was made durable before still counts.

        Cheap enough for every answer that leaves: one stat.

        Raises:
            JournalError: another process has, or the log has failed before, or is closed.
        """
        with self._failing_for_good("looking whose it is"):
            self._lease.check()

    def snapshot(self, payload: bytes, seq: int | None = None) -> None:
        """Stores a snapshot, durably, and then deletes the segments and snapshots it replaces.

        Others may append and sync meanwhile.

        Args:
            payload: the state after record `seq`.
            seq: the last record that the state includes; by default the last one appended.

        Raises:
            ValueError: `seq` is not between the last snapshot's and the last record's.
            JournalError: the log has failed, now or before, or is closed.
        """
        with self._snapshotting:
            with self._mutex:
                self._check_usable()
                last_seq, read_bytes = self._newest(), self._bytes_since_snapshot
                seq = last_seq if seq is None else seq
                if not self._snapshot_seq <= seq <= last_seq:
                    raise ValueError(
                        f"a snapshot of record {seq} is not possible: the last snapshot is of "
                        f"{self._snapshot_seq}, the last record is {last_seq}"
                    )
            content = encode_snapshot(Snapshot(self._writer.log_id, seq, payload))
            self.sync()
            with self._committing, self._failing_for_good("beginning a segment"):
                self._writer.begin_segment()
            with self._failing_for_good("writing a snapshot"):
                self._writer.store_snapshot(seq, content)
            with self._mutex:
                self._snapshot_seq = seq
                self._bytes_since_snapshot -= read_bytes

    def close(self) -> None:
        """Makes what was appended durable, if the log has not failed, and frees the directory.

        Raises:
            JournalError: the last sync failed; the directory is free nevertheless.
        """
        if self._closed:
            return
        try:
            if self._failure is None:
                self.sync()
        finally:
            with self._snapshotting, self._committing, self._mutex:
                self._closed = True
                self._writer.close()
                self._lease.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _newest(self) -> int:
        return self._taken_seq + len(self._buffer)

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise JournalError(
                f"journal {self._directory} failed before and takes no more: {self._failure}"
            ) from self._failure
        if self._closed:
            raise JournalError(f"journal {self._directory} is closed")

    @contextlib.contextmanager
    def _failing_for_good(self, what: str) -> Iterator[None]:
        """Makes any exception from the body the log's end."""
        self._check_usable()
        try:
            yield
        except BaseException as error:
            # The first failure is the one to tell about; later ones follow from it.
            self._failure = self._failure or error
            if not isinstance(error, OSError):
                raise
            failure = explained(self._directory, what, error)
            logger.critical("%s", failure)
            raise failure from error


def _read(disk: Disk, lease: Lease) -> tuple[Start, list[Scanned], Inventory]:
    """Reads a whole journal.

    A holder that was replaced may still be at work until it notices. What it does between two of
    our reads looks like damage, but not twice the same.
    """
    before = ""
    tries = 0
    while True:
        found = _read_once(disk, lease)
        if not isinstance(found, Exception):
            return found
        tries += 1
        lease.check()  # else we are the one who was replaced, and what we see is another's work
        if not lease.generation or str(found) == before or tries == _TRIES_MAX:
            raise found
        before = str(found)


def _read_once(
    disk: Disk, lease: Lease
) -> tuple[Start, list[Scanned], Inventory] | JournalError | OSError:
    directory = lease.directory
    try:
        inventory = take_inventory(disk.names(directory))
        start = choose_start(disk, directory, inventory)
        return start, list(read_segments(disk, directory, start)), inventory
    except (JournalError, OSError) as error:
        return error


def _report(directory: Path, recovered: Recovered) -> None:
    for name in recovered.unknown:
        logger.warning(
            "journal %s: ignoring %s, which is not a file of the journal", directory, name
        )
    for path in recovered.damaged_snapshots:
        logger.error(
            "snapshot %s is damaged; all its records are there and were read instead", path
        )
    if recovered.cut_bytes:
        logger.warning(
            "%s ended in %d bytes of a record that was never acknowledged; they were cut",
            recovered.cut_path,
            recovered.cut_bytes,
        )
