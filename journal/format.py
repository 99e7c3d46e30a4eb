"""The bytes of the journal's files; no I/O. All integers are little-endian.

    segment    head, then records; a full one ends with a seal
    head       "PNSKJRNL", version u32, 0 u32, log id u64, first sequence number u64, check u64
    record     check u64, length u32, length check u32, sequence number u64, payload, end byte
    seal       a record with sequence number 0 whose payload is the last number, u64
    snapshot   "PNSKSNAP", version u32, 0 u32, log id u64, sequence number u64, length u64,
               check u64, payload

`check` is xxh3-64 over everything after it in a record, and over everything else in a head or a
snapshot. The log id is drawn at random once for each log: it seeds the checks of records, so that
bytes of another log, or a copy of them inside a payload, are never taken for records. The *length
check* covers length and number alone: with it a record that the end of the file cut short can be
told from one whose length was altered. The *end byte* is never 0, so that a file which ends in
zeros was extended but not written.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import xxhash

from ..errors import JournalError

VERSION = 1
#: Longest payload of one record, in bytes; the length field could say 4 GiB.
PAYLOAD_BYTES_MAX = 1 << 30
END = b"\xa5"

_SEGMENT_MAGIC = b"PNSKJRNL"
_SNAPSHOT_MAGIC = b"PNSKSNAP"
_SEGMENT = struct.Struct("<8sIIQQ")
_SNAPSHOT = struct.Struct("<8sIIQQQ")
_U64 = struct.Struct("<Q")
_RECORD = struct.Struct("<QIIQ")
_BODY = struct.Struct("<IIQ")
_LENGTH_AND_SEQ = struct.Struct("<IQ")

SEGMENT_HEAD_BYTES = _SEGMENT.size + _U64.size
SNAPSHOT_HEAD_BYTES = _SNAPSHOT.size + _U64.size
RECORD_HEAD_BYTES = _RECORD.size
#: Where the checked part of a record begins, and where its sequence number stands.
RECORD_CHECKED_OFFSET = _U64.size
RECORD_SEQ_OFFSET = _RECORD.size - _U64.size
#: Everything of a record that is not payload.
RECORD_OVERHEAD_BYTES = _RECORD.size + len(END)

#: (buffer, offset) -> (check, length, length check, sequence number).
unpack_record_head = _RECORD.unpack_from


@dataclass(frozen=True, slots=True)
class SegmentHead:
    """What a segment says about itself: the log it is of, and its first sequence number."""

    log_id: int
    first_seq: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot file: the log it is of, the last sequence number it covers, its payload."""

    log_id: int
    seq: int
    payload: bytes


def length_check(log_id: int, length: int, seq: int) -> int:
    """The 32-bit check of a record's length and sequence number."""
    return xxhash.xxh3_64_intdigest(_LENGTH_AND_SEQ.pack(length, seq), log_id) & 0xFFFFFFFF


def encode_record(log_id: int, seq: int, payload: bytes) -> bytes:
    """Returns the bytes of one record; `seq` >= 1, `payload` at most PAYLOAD_BYTES_MAX bytes."""
    length = len(payload)
    body = _BODY.pack(length, length_check(log_id, length, seq), seq) + payload + END
    return _U64.pack(xxhash.xxh3_64_intdigest(body, log_id)) + body


def encode_seal(log_id: int, last_seq: int) -> bytes:
    """Returns the bytes that end a full segment whose last record is number `last_seq`."""
    return encode_record(log_id, 0, _U64.pack(last_seq))


def encode_segment_head(head: SegmentHead) -> bytes:
    """Returns the SEGMENT_HEAD_BYTES bytes that a segment begins with."""
    data = _SEGMENT.pack(_SEGMENT_MAGIC, VERSION, 0, head.log_id, head.first_seq)
    return data + _U64.pack(xxhash.xxh3_64_intdigest(data))


def decode_segment_head(data: bytes) -> SegmentHead:
    """Reads the head of a segment from its first bytes.

    Raises:
        ValueError: these are not the first bytes of a segment; the message says why.
        JournalError: a version of the format that this penstock does not know.
    """
    if len(data) < SEGMENT_HEAD_BYTES:
        raise ValueError(f"it has {len(data)} bytes, a segment has at least {SEGMENT_HEAD_BYTES}")
    magic, version, _, log_id, first_seq = _SEGMENT.unpack_from(data)
    (check,) = _U64.unpack_from(data, _SEGMENT.size)
    if magic != _SEGMENT_MAGIC or check != xxhash.xxh3_64_intdigest(data[: _SEGMENT.size]):
        raise ValueError("its head does not have the right checksum")
    _refuse_other_versions(version)
    return SegmentHead(log_id, first_seq)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Returns the whole content of a snapshot file."""
    head = _SNAPSHOT.pack(
        _SNAPSHOT_MAGIC, VERSION, 0, snapshot.log_id, snapshot.seq, len(snapshot.payload)
    )
    return head + _U64.pack(_snapshot_check(head, snapshot.payload)) + snapshot.payload


def decode_snapshot(data: bytes) -> Snapshot:
    """Reads a whole snapshot file.

    Raises:
        ValueError: `data` is not an intact snapshot; the message says why.
        JournalError: a version of the format that this penstock does not know.
    """
    if len(data) < SNAPSHOT_HEAD_BYTES:
        raise ValueError(f"it has {len(data)} bytes, a snapshot has at least {SNAPSHOT_HEAD_BYTES}")
    magic, version, _, log_id, seq, length = _SNAPSHOT.unpack_from(data)
    if magic != _SNAPSHOT_MAGIC or length != len(data) - SNAPSHOT_HEAD_BYTES:
        raise ValueError("its head is not a snapshot's, or it has another length than that says")
    (check,) = _U64.unpack_from(data, _SNAPSHOT.size)
    payload = data[SNAPSHOT_HEAD_BYTES:]
    if check != _snapshot_check(data[: _SNAPSHOT.size], payload):
        raise ValueError("it does not have the right checksum")
    _refuse_other_versions(version)
    return Snapshot(log_id, seq, payload)


def _snapshot_check(head: bytes, payload: bytes) -> int:
    digest = xxhash.xxh3_64(head)
    digest.update(payload)
    return digest.intdigest()


def _refuse_other_versions(version: int) -> None:
    if version != VERSION:
        raise JournalError(
            f"this journal has format version {version}, and this penstock reads version "
            f"{VERSION}: use the penstock that wrote it"
        )
