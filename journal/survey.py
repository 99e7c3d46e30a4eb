"""Looks at a journal without its lock and without changing anything; a writer may be at work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import JournalError
from .disk import Disk, RealDisk
from .recovery import choose_start, explained, read_segments, take_inventory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .recovery import Inventory

#: How often to look when a writer changes the files under our eyes.
_TRIES_MAX = 10


@dataclass(frozen=True, slots=True)
class Survey:
    """A journal that is whole, in figures.

    Attributes:
        directory: where it is.
        snapshot_seq: the last sequence number that the snapshot covers; 0 without one.
        snapshot_bytes: size of the snapshot's payload; 0 without one.
        last_seq: the newest sequence number; 0 in an empty journal.
        records: how many records follow the snapshot.
        segments: how many segments hold them.
        bytes: size of those segments.
        torn_bytes: bytes of an unfinished record at the end: they are cut when the journal is
            opened, or a writer is writing them now.
        damaged_snapshots: snapshots that are not intact, and that the records replace.
        unknown: names in the directory that are not of the journal.
    """

    directory: Path
    snapshot_seq: int
    snapshot_bytes: int
    last_seq: int
    records: int
    segments: int
    bytes: int
    torn_bytes: int
    damaged_snapshots: tuple[Path, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A snapshot or a record, as `dump` finds it.

    Attributes:
        kind: "snapshot" or "record".
        seq: its sequence number; a snapshot's is that of the last record it covers.
        payload: what the writer gave.
    """

    kind: str
    seq: int
    payload: bytes


def verify(directory: Path, *, disk: Disk | None = None) -> Survey:
    """Reads a whole journal and checks all of it that a recovery would rely on.

    Args:
        directory: the journal's.
        disk: what does the I/O; the file system of this machine by default.

    Raises:
        JournalCorruptError: it is damaged; the message has file, offset and what to do.
        JournalError: there is no journal, or it cannot be read.
    """
    disk = disk or RealDisk()
    before = ""
    for tries_left in reversed(range(_TRIES_MAX)):
        try:
            return _survey(disk, directory, _inventory(disk, directory))
        except JournalError as error:
            problem = error
        except OSError as error:
            problem = explained(directory, "reading it", error)
        # A roll or a snapshot between two of our reads looks like damage, but not twice the same.
        if str(problem) == before or not tries_left:
            raise problem
        before = str(problem)
    raise AssertionError("the last try returns or raises")


def dump(directory: Path, *, disk: Disk | None = None) -> Iterator[Entry]:
    """Yields the newest intact snapshot, then every record after it, in order.

    Args:
        directory: the journal's.
        disk: what does the I/O; the file system of this machine by default.

    Raises:
        JournalCorruptError: it is damaged; raised when the entries before the damage are out.
        JournalError: there is no journal, it cannot be read, or a writer was faster.
    """
    disk = disk or RealDisk()
    inventory = _inventory(disk, directory)
    try:
        start = choose_start(disk, directory, inventory)
        if start.snapshot:
            yield Entry("snapshot", start.seq, start.snapshot.payload)
        for segment in read_segments(disk, directory, start):
            for seq, payload in segment.records(start.seq):
                yield Entry("record", seq, payload)
    except (OSError, JournalError) as error:
        verify(directory, disk=disk)
        raise JournalError(
            f"journal {directory} was changed while it was read; dump it again"
        ) from error


def _inventory(disk: Disk, directory: Path) -> Inventory:
    try:
        inventory = take_inventory(disk.names(directory))
    except OSError as error:
        raise explained(directory, "listing its files", error) from error
    if not inventory.segments and not inventory.snapshots:
        raise JournalError(f"there is no journal in {directory}")
    return inventory


def _survey(disk: Disk, directory: Path, inventory: Inventory) -> Survey:
    start = choose_start(disk, directory, inventory)
    last_seq, segment_bytes, torn_bytes = start.seq, 0, 0
    for segment in read_segments(disk, directory, start):  # one in memory at a time
        last_seq = segment.next_seq - 1
        segment_bytes += len(segment.data)
        torn_bytes += segment.torn_bytes
    return Survey(
        directory=directory,
        snapshot_seq=start.seq,
        snapshot_bytes=len(start.snapshot.payload) if start.snapshot else 0,
        last_seq=last_seq,
        records=last_seq - start.seq,
        segments=len(start.segments),
        bytes=segment_bytes,
        torn_bytes=torn_bytes,
        damaged_snapshots=start.damaged_snapshots,
        unknown=inventory.unknown,
    )
