"""Checks the files of a journal against each other, and puts together what they hold. Only reads.

A journal is whole if the newest valid snapshot is followed by segments that hold every later
number once: each begins where the one before it ends, each but the last is sealed, and the last is
not. A crash while a segment is being sealed leaves one exception: the last but one may lack its
seal if the last has no records. Older segments and snapshots may be there or not, because a crash
may keep any part of a deletion. Whether the newest snapshot can be read, the records must reach at
least to its number.

The files of a holder carry its generation (`lease`) in their names. Who takes a journal from a
holder that may wake up again writes the last segment anew under its own generation, and goes on in
there. So what begins at or after a segment of a higher generation is *superseded*: it was replaced,
or a holder wrote it that had been replaced. The generations of what counts never fall from one
segment to the next. Where they rise, the earlier segment counts up to the later one's first number,
and needs no seal: whatever else is in it was acknowledged to nobody.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, overload

from ..errors import JournalError
from .format import Snapshot, decode_snapshot
from .lease import lock_generation
from .scan import DamageError, Scanned, scan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .disk import Disk

TEMPORARY_SUFFIX = ".tmp"
_SEGMENT_NAME = re.compile(r"records-([0-9]{20})(?:-([1-9][0-9]{0,17}))?\.log")
_SNAPSHOT_NAME = re.compile(r"snapshot-([0-9]{20})(?:-([1-9][0-9]{0,17}))?\.snap")
_PUT_BACK = "Nothing was changed. Put the missing file back, or a whole copy of the directory"


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """A segment or a snapshot, as its name tells.

    Attributes:
        seq: the first sequence number of a segment, the last one that a snapshot covers.
        generation: of the holder that wrote it.
    """

    seq: int
    generation: int = 0


def segment_path(directory: Path, first_seq: int, generation: int = 0) -> Path:
    """The segment whose first record is, or will be, number `first_seq`."""
    return directory / f"records-{first_seq:020d}{_suffix(generation)}.log"


def snapshot_path(directory: Path, seq: int, generation: int = 0) -> Path:
    """The snapshot that stands for the records up to number `seq`."""
    return directory / f"snapshot-{seq:020d}{_suffix(generation)}.snap"


def _suffix(generation: int) -> str:
    return f"-{generation}" if generation else ""


@dataclass(frozen=True, slots=True)
class Inventory:
    """The names in a journal's directory, sorted by what they are.

    Attributes:
        segments: those that count, ascending.
        snapshots: ascending.
        superseded: segments that do not count, because one of a higher generation does.
        temporary: name and generation of files that are being written, or were when a writer died.
        unknown: files that are none of the journal's business.
    """

    segments: tuple[Part, ...]
    snapshots: tuple[Part, ...]
    superseded: tuple[Part, ...]
    temporary: tuple[tuple[str, int], ...]
    unknown: tuple[str, ...]


def take_inventory(names: Sequence[str]) -> Inventory:
    """Sorts file names by what they say they are; looks at no file."""
    segments: list[Part] = []
    snapshots: list[Part] = []
    temporary: list[tuple[str, int]] = []
    unknown: list[str] = []
    for name in names:
        final = name.removesuffix(TEMPORARY_SUFFIX)
        segment, snapshot = _SEGMENT_NAME.fullmatch(final), _SNAPSHOT_NAME.fullmatch(final)
        match = segment or snapshot
        if match and final != name:
            temporary.append((name, int(match[2] or 0)))
        elif match:
            (segments if segment else snapshots).append(Part(int(match[1]), int(match[2] or 0)))
        elif lock_generation(name) is None:
            unknown.append(name)
    counting: list[Part] = []
    superseded: list[Part] = []
    highest = 0
    for part in sorted(segments, key=lambda part: (part.seq, -part.generation)):
        (counting if part.generation >= highest else superseded).append(part)
        highest = max(highest, part.generation)
    return Inventory(
        tuple(counting),
        tuple(sorted(snapshots)),
        tuple(sorted(superseded)),
        tuple(sorted(temporary)),
        tuple(sorted(unknown)),
    )


@dataclass(frozen=True, slots=True)
class Start:
    """Where reading begins.

    Attributes:
        snapshot: the newest one that is intact; None if there is none.
        segments: those that are needed, ascending.
        damaged_snapshots: newer snapshots that are not intact.
        reach_seq: the highest number that any snapshot's name tells to have been durable.
    """

    snapshot: Snapshot | None
    segments: tuple[Part, ...]
    damaged_snapshots: tuple[Path, ...]
    reach_seq: int

    @property
    def seq(self) -> int:
        """The last sequence number that the snapshot covers; 0 without one."""
        return self.snapshot.seq if self.snapshot else 0


def choose_start(disk: Disk, directory: Path, inventory: Inventory) -> Start:
    """Finds the newest intact snapshot and the segments that follow it.

    Raises:
        DamageError: there is no intact snapshot that the existing segments continue.
    """
    damaged: list[Path] = []
    reasons: list[str] = []
    snapshot: Snapshot | None = None
    for part in reversed(inventory.snapshots):
        path = snapshot_path(directory, part.seq, part.generation)
        try:
            snapshot = decode_snapshot(disk.read(path))
            if snapshot.seq == part.seq:
                break
            raise ValueError(f"it is the snapshot of record {snapshot.seq}, misnamed")
        except ValueError as error:
            snapshot = None
            damaged.append(path)
            reasons.append(str(error))
    after = snapshot.seq if snapshot else 0
    first = max((part.seq for part in inventory.segments if part.seq <= after + 1), default=None)
    if first is None and damaged:
        raise DamageError(damaged[0], 0, f"the snapshot is damaged: {reasons[0]}")
    if first is None and (inventory.segments or snapshot):
        last = inventory.segments[0].seq - 1 if inventory.segments else None
        raise _missing(directory, after + 1, last)
    chain = tuple(part for part in inventory.segments if first is not None and part.seq >= first)
    reach_seq = inventory.snapshots[-1].seq if inventory.snapshots else 0
    return Start(snapshot, chain, tuple(damaged), reach_seq)


def read_segments(disk: Disk, directory: Path, start: Start) -> Iterator[Scanned]:
    """Yields the segments that `start` names, each checked against those before it.

    A damaged segment is yielded, with the records before its damage, before the error is raised.

    Raises:
        DamageError: a segment is damaged, missing, misplaced or not of this log.
    """
    log_id = start.snapshot.log_id if start.snapshot else None
    before: Scanned | None = None
    for at, part in enumerate(start.segments):
        path = segment_path(directory, part.seq, part.generation)
        if before and part.seq > before.next_seq:
            raise _missing(directory, before.next_seq, part.seq - 1)
        if before and part.seq < before.next_seq:
            raise DamageError(path, 0, f"{before.path.name} holds record {part.seq} as well")
        segment = scan(path, disk.read(path), part.seq)
        if segment.damage is None and log_id not in (None, segment.log_id):
            raise DamageError(path, 0, "this segment belongs to another journal")
        if before and not before.sealed and (segment.count or segment.torn_bytes or segment.damage):
            raise DamageError(
                before.path, before.records_end, f"it lacks its seal, and {path.name} has records"
            )
        after = start.segments[at + 1] if at + 1 < len(start.segments) else None
        if after and after.generation > part.generation and segment.next_seq >= after.seq:
            segment = _ended_at(segment, after.seq)
        yield segment
        if segment.damage:
            raise segment.damage
        log_id, before = segment.log_id, segment
    if before and before.sealed:
        raise _missing(directory, before.next_seq, None)
    if before and before.next_seq <= start.reach_seq:
        raise DamageError(
            before.path,
            before.records_end,
            f"the records end at {before.next_seq - 1}, but there is a snapshot of "
            f"record {start.reach_seq}",
        )


def _ended_at(segment: Scanned, next_seq: int) -> Scanned:
    """A segment up to the record before number `next_seq`, where another holder went on."""
    starts = segment.starts[: next_seq - segment.first_seq + 1]
    return replace(segment, starts=starts, sealed=True, torn_bytes=0, damage=None)


def _missing(directory: Path, first_seq: int, last_seq: int | None) -> DamageError:
    upto = "onwards" if last_seq is None else f"to {last_seq}"
    return DamageError(
        segment_path(directory, first_seq),
        0,
        f"this segment is missing, with the records from {first_seq} {upto}",
        _PUT_BACK,
    )


class Records(Sequence[tuple[int, bytes]]):
    """The records after the snapshot, in order, as (sequence number, payload).

    Payloads are cut from the segments' content when they are asked for, so that a million records
    cost their bytes and eight more each; all of that is freed with this object.
    """

    def __init__(self, segments: Sequence[Scanned], after_seq: int) -> None:
        self._segments = tuple(segments)
        self._first = after_seq + 1
        self._count = max(0, segments[-1].next_seq - self._first) if segments else 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        for segment in self._segments:
            yield from segment.records(self._first - 1)

    @overload
    def __getitem__(self, index: int) -> tuple[int, bytes]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[int, bytes]]: ...
    def __getitem__(self, index: int | slice) -> tuple[int, bytes] | Sequence[tuple[int, bytes]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        seq = self._first + range(self._count)[index]
        segment = next(part for part in self._segments if seq < part.next_seq)
        return seq, segment.payload(seq - segment.first_seq)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was found in a journal when it was opened.

    Attributes:
        snapshot: payload of the newest intact snapshot; None if there is none.
        snapshot_seq: the last sequence number that it covers; 0 without one.
        records: every record after it, as (sequence number, payload), in order.
        last_seq: the newest sequence number; the next record appended gets the one after it.
        cut_bytes: bytes of a torn tail that were cut; 0 after an orderly end.
        cut_path: the segment that they were cut from; None if none were.
        damaged_snapshots: newer snapshots that were not intact, and that the records replace.
        unknown: names in the directory that are not of the journal and were left alone.
    """

    snapshot: bytes | None
    snapshot_seq: int
    records: Records
    last_seq: int
    cut_bytes: int = 0
    cut_path: Path | None = None
    damaged_snapshots: tuple[Path, ...] = ()
    unknown: tuple[str, ...] = ()


def put_together(start: Start, segments: Sequence[Scanned], inventory: Inventory) -> Recovered:
    """Makes the result of a recovery from its parts; `segments` are all that `start` names."""
    torn = next((segment for segment in segments if segment.torn_bytes), None)
    return Recovered(
        snapshot=start.snapshot.payload if start.snapshot else None,
        snapshot_seq=start.seq,
        records=Records(segments, start.seq),
        last_seq=segments[-1].next_seq - 1 if segments else start.seq,
        cut_bytes=torn.torn_bytes if torn else 0,
        cut_path=torn.path if torn else None,
        damaged_snapshots=start.damaged_snapshots,
        unknown=inventory.unknown,
    )


def explained(directory: Path, what: str, error: OSError) -> JournalError:
    """Says in one sentence that the operating system refused `what`, and what stays true."""
    return JournalError(
        f"journal {directory}: {what} failed: {error}. What was acknowledged before is safe; "
        f"see to the disk, then start again"
    )
