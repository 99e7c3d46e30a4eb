"""Reads one segment, and tells a torn tail from damage.

The rule. Appending is not atomic: a crash may leave any prefix of what was not yet fsynced, and a
power loss may leave the file longer than what was written, filled up with zeros. So the first
record that is not intact is a *torn tail*, which was never acknowledged and may be cut, if

1. no intact record of this log begins anywhere after it, and
2. the file ends inside its head; or its length check is right and the file ends inside its
   payload; or its last byte (no record ends with 0), or all after its head if that is wrong,
   and everything from there to the end of the file is 0.

Everything else is *damage*. In particular a record of full length with a wrong checksum is damage
even at the very end of the newest segment: tearing does not leave such a thing, so it may have
been acknowledged. One flipped bit therefore never makes a record vanish, wherever it is. (A file
that something else cut short looks torn, and cannot be told from it: it is cut and reported.)
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

import xxhash

from ..errors import JournalCorruptError
from .format import (
    RECORD_CHECKED_OFFSET,
    RECORD_HEAD_BYTES,
    RECORD_OVERHEAD_BYTES,
    RECORD_SEQ_OFFSET,
    SEGMENT_HEAD_BYTES,
    decode_segment_head,
    encode_seal,
    length_check,
    unpack_record_head,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_RESTORE = (
    "Nothing was changed. Put an undamaged copy of the directory in place; "
    "`penstock journal dump` shows the records before the damage"
)


class DamageError(JournalCorruptError):
    """A file of the journal is damaged or missing.

    Attributes:
        path: the file.
        offset: where in it, in bytes.
        reason: what is wrong, without the file and the advice that the message has too.
    """

    def __init__(self, path: Path, offset: int, reason: str, advice: str = _RESTORE) -> None:
        super().__init__(f"{path}, byte {offset}: {reason}. {advice}.")
        self.path = path
        self.offset = offset
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Scanned:
    """A segment that was read: its intact records, and how it ends.

    Attributes:
        path: the file.
        log_id: from its head; 0 if that is damaged.
        first_seq: number of its first record, or of the one that would be its first.
        data: the whole content.
        starts: where each record begins, and last where the one after them would.
        sealed: a seal follows the records, so there must be a next segment.
        torn_bytes: how many bytes after the intact records are a torn tail.
        damage: what is wrong with the rest; None if nothing is.
    """

    path: Path
    log_id: int
    first_seq: int
    data: bytes
    starts: array[int]
    sealed: bool = False
    torn_bytes: int = 0
    damage: DamageError | None = None

    @property
    def count(self) -> int:
        """How many intact records there are."""
        return len(self.starts) - 1

    @property
    def next_seq(self) -> int:
        """The number after the last intact record's."""
        return self.first_seq + self.count

    @property
    def records_end(self) -> int:
        """The offset at which the intact records end."""
        return self.starts[-1]

    def payload(self, index: int) -> bytes:
        """The payload of the record number `first_seq + index`."""
        return self.data[self.starts[index] + RECORD_HEAD_BYTES : self.starts[index + 1] - 1]

    def records(self, after_seq: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yields (sequence number, payload) of every record numbered above `after_seq`."""
        for index in range(max(0, after_seq + 1 - self.first_seq), self.count):
            yield self.first_seq + index, self.payload(index)


def scan(path: Path, data: bytes, first_seq: int) -> Scanned:
    """Reads the segment at `path`, whose name says that it begins at `first_seq`; never raises
    for damage, so that the records before it can still be shown."""
    nothing = array("Q", [SEGMENT_HEAD_BYTES])
    try:
        head = decode_segment_head(data)
    except ValueError as error:
        damage = DamageError(path, 0, f"this is not an intact segment: {error}")
        return Scanned(path, 0, first_seq, data, nothing, damage=damage)
    if head.first_seq != first_seq:
        damage = DamageError(path, 0, f"this is the segment of record {head.first_seq}, misnamed")
        return Scanned(path, head.log_id, first_seq, data, nothing, damage=damage)
    starts = _intact_records(data, first_seq, head.log_id)
    end, seq = starts[-1], first_seq + len(starts) - 1
    seal = encode_seal(head.log_id, seq - 1)
    if data[end:] == seal and len(starts) > 1:
        return Scanned(path, head.log_id, first_seq, data, starts, sealed=True)
    reason = _damage_at(data, end, head.log_id, first_seq, seq)
    if reason:
        damage = DamageError(path, end, f"record {seq} is damaged: {reason}")
        return Scanned(path, head.log_id, first_seq, data, starts, damage=damage)
    return Scanned(path, head.log_id, first_seq, data, starts, torn_bytes=len(data) - end)


def _intact_records(data: bytes, first_seq: int, log_id: int) -> array[int]:
    # This loop is what recovery time is made of: locals, one hash and no copy for each record.
    starts = array("Q", [SEGMENT_HEAD_BYTES])
    view, end = memoryview(data), len(data)
    digest, unpack, add = xxhash.xxh3_64_intdigest, unpack_record_head, starts.append
    offset, expected = SEGMENT_HEAD_BYTES, first_seq
    while offset + RECORD_OVERHEAD_BYTES <= end:
        check, length, _, seq = unpack(data, offset)
        stop = offset + RECORD_OVERHEAD_BYTES + length
        if seq != expected or stop > end:
            break
        if digest(view[offset + RECORD_CHECKED_OFFSET : stop], log_id) != check:
            break
        add(stop)
        offset, expected = stop, expected + 1
    return starts


def _damage_at(data: bytes, offset: int, log_id: int, first_seq: int, seq: int) -> str:
    """Says why what is at `offset`, where record `seq` should be, is no torn tail; "" if it is."""
    rest = len(data) - offset
    if rest == 0:
        return ""
    other = _intact_record_at(data, offset, log_id)
    if other is not None:
        return "there is a seal" if other == 0 else f"record {other} is in its place"
    later = _intact_record_after(data, offset, log_id, first_seq, seq)
    if later is not None:
        return f"an intact record follows at byte {later}"
    if rest < RECORD_HEAD_BYTES:
        return ""
    zeros_from = offset + len(data[offset:].rstrip(b"\0"))
    _, length, check, found = unpack_record_head(data, offset)
    if check != length_check(log_id, length, found):
        if zeros_from < len(data) and zeros_from <= offset + RECORD_HEAD_BYTES:
            return ""
        return f"its head is wrong, and no torn append leaves the {rest} bytes that are there"
    # Cut short, or filled up with zeros: then the end byte, at least, was not written.
    if zeros_from < offset + RECORD_OVERHEAD_BYTES + length:
        return ""
    return "all its bytes are there, with a wrong checksum"


def _intact_record_at(data: bytes, offset: int, log_id: int) -> int | None:
    """The sequence number of the intact record at `offset`; None if there is none."""
    if offset + RECORD_OVERHEAD_BYTES > len(data):
        return None
    check, length, short_check, seq = unpack_record_head(data, offset)
    stop = offset + RECORD_OVERHEAD_BYTES + length
    if stop > len(data) or short_check != length_check(log_id, length, seq):
        return None
    body = memoryview(data)[offset + RECORD_CHECKED_OFFSET : stop]
    return int(seq) if xxhash.xxh3_64_intdigest(body, log_id) == check else None


def _intact_record_after(
    data: bytes, offset: int, log_id: int, first_seq: int, seq: int
) -> int | None:
    """Where an intact record or seal begins after `offset`; None if nowhere.

    The length at `offset` cannot be trusted, so every byte is tried. To do that at memory speed,
    one looks for what could be sequence numbers and only then for records around them.
    """
    import numpy as np  # only a damaged journal needs it

    seal_at = len(data) - len(encode_seal(log_id, 0))
    if seal_at > offset and _intact_record_at(data, seal_at, log_id) == 0:
        return seal_at
    seq_max = seq + (len(data) - offset) // RECORD_OVERHEAD_BYTES
    found: list[int] = []
    for shift in range(8):
        begin = offset + 1 + RECORD_SEQ_OFFSET + shift
        count = (len(data) - begin) // 8
        if count <= 0:
            continue
        numbers = np.frombuffer(data, "<u8", count, begin)
        hits = np.flatnonzero((numbers >= first_seq) & (numbers <= seq_max))
        starts = (begin - RECORD_SEQ_OFFSET + 8 * int(hit) for hit in hits)
        found += [at for at in starts if _intact_record_at(data, at, log_id) is not None][:1]
    return min(found, default=None)
