"""Damage is found, named and never repaired; only a torn tail is cut (the rule is in scan.py)."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import JournalCorruptError, JournalError
from penstock.journal import DamageError, Log, dump, verify
from penstock.journal.format import SegmentHead, encode_record, encode_segment_head
from penstock.journal.recovery import segment_path, snapshot_path
from penstock.testing.disk import SimDisk

DIRECTORY = Path("/journal")


def payload_of(seq: int) -> bytes:
    return b"record %d" % seq


def written(records: int = 6, *, segment_bytes: int = 1 << 20, snapshot_at: int = 0) -> SimDisk:
    """A journal whose every record was synced by itself, closed in good order."""
    disk = SimDisk()
    log, _ = Log.open(DIRECTORY, disk=disk, segment_bytes=segment_bytes)
    for seq in range(1, records + 1):
        log.append(payload_of(seq))
        log.sync()
        if seq == snapshot_at:
            log.snapshot(b"state")
    log.close()
    return disk


def segments_of(disk: SimDisk) -> list[Path]:
    return sorted(path for path in disk.files() if path.suffix == ".log")


def assert_refused(disk: SimDisk, match: str = "Nothing was changed") -> DamageError:
    """Open, verify and dump all refuse the journal, in the same words, and change nothing."""
    before = disk.files()
    with pytest.raises(DamageError, match=match) as caught:
        Log.open(DIRECTORY, disk=disk)
    with pytest.raises(JournalCorruptError) as from_verify:
        verify(DIRECTORY, disk=disk)
    with pytest.raises(JournalCorruptError) as from_dump:
        list(dump(DIRECTORY, disk=disk))
    assert str(caught.value) == str(from_verify.value) == str(from_dump.value)
    assert disk.files() == before
    return caught.value


def flip(content: bytes, index: int, bit: int) -> bytes:
    return content[:index] + bytes([content[index] ^ 1 << bit]) + content[index + 1 :]


@pytest.mark.parametrize("segment_bytes", [100, 1 << 20])
def test_one_flipped_bit_anywhere_in_a_segment_is_refused(segment_bytes: int) -> None:
    disk = written(4, segment_bytes=segment_bytes)
    for path in segments_of(disk):
        content = disk.files()[path]
        for index in range(len(content)):
            for bit in range(8):
                disk.put(path, flip(content, index, bit))
                error = assert_refused(disk)
                assert error.path == path
                assert error.offset <= index
        disk.put(path, content)


def test_one_flipped_bit_anywhere_in_the_only_snapshot_is_refused() -> None:
    disk = written(4, snapshot_at=3)
    path = snapshot_path(DIRECTORY, 3)
    content = disk.files()[path]
    for index in range(len(content)):
        disk.put(path, flip(content, index, index % 8))
        assert assert_refused(disk, "snapshot is damaged").path == path


def test_a_damaged_snapshot_is_no_loss_while_its_records_are_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk = written(4)
    disk.put(snapshot_path(DIRECTORY, 3), b"not a snapshot")
    log, recovered = Log.open(DIRECTORY, disk=disk)
    assert recovered.snapshot is None
    assert [seq for seq, _ in recovered.records] == [1, 2, 3, 4]
    assert recovered.damaged_snapshots == (snapshot_path(DIRECTORY, 3),)
    assert "is damaged" in caplog.text
    log.snapshot(b"state of 4")
    log.close()
    assert snapshot_path(DIRECTORY, 3) not in disk.files()


def test_records_that_end_before_a_damaged_snapshot_are_refused() -> None:
    disk = written(4)
    disk.put(snapshot_path(DIRECTORY, 5), b"not a snapshot")
    assert_refused(disk, "end at 4, but there is a snapshot of record 5")


@pytest.mark.parametrize("position", range(3))
def test_a_missing_segment_is_refused_whichever_it_is(position: int) -> None:
    disk = written(7, segment_bytes=140)
    paths = segments_of(disk)
    assert len(paths) == 3
    disk.drop(paths[position])
    error = assert_refused(disk, "is missing")
    assert error.path == paths[position]
    assert "Put the missing file back" in str(error)


def test_a_missing_segment_after_a_snapshot_is_refused() -> None:
    disk = written(4, snapshot_at=4)
    (path,) = segments_of(disk)
    disk.drop(path)
    assert_refused(disk, "records from 5 onwards")


def test_two_segments_that_changed_names_are_refused() -> None:
    disk = written(7, segment_bytes=140)
    first, second = segments_of(disk)[:2]
    contents = disk.files()
    disk.put(first, contents[second])
    disk.put(second, contents[first])
    assert_refused(disk, "misnamed")


def test_a_copy_of_a_segment_under_another_number_is_refused() -> None:
    disk = written(7, segment_bytes=140)
    first = segments_of(disk)[0]
    disk.put(segment_path(DIRECTORY, 2), disk.files()[first])
    assert_refused(disk, "holds record 2 as well")


def test_a_segment_of_another_journal_is_refused() -> None:
    disk = written(7, segment_bytes=140)
    path = segments_of(disk)[1]
    disk.put(path, written(7, segment_bytes=140).files()[path])
    assert_refused(disk, "another journal")


def swapped(records: list[bytes]) -> list[bytes]:
    return [records[1], records[0], *records[2:]]


@pytest.mark.parametrize(
    "rearrange",
    [
        lambda records: [records[0], *records],
        lambda records: [*records, records[-1]],
        swapped,
        lambda records: [records[0], *records[2:]],
        lambda records: records[1:],
        lambda records: [*records[:2], records[2][:-3], *records[3:]],
    ],
    ids=["doubled-first", "doubled-last", "swapped", "hole", "beheaded", "shortened"],
)
def test_records_out_of_order_are_refused(rearrange: Callable[[list[bytes]], list[bytes]]) -> None:
    records = [encode_record(7, seq, payload_of(seq)) for seq in range(1, 6)]
    disk = SimDisk()
    path = segment_path(DIRECTORY, 1)
    head = encode_segment_head(SegmentHead(7, 1))
    disk.put(path, head + b"".join(records))
    assert verify(DIRECTORY, disk=disk).last_seq == 5
    disk.put(path, head + b"".join(rearrange(records)))
    assert_refused(disk)


def test_a_damaged_length_does_not_hide_the_records_after_it() -> None:
    disk = written(6)
    (path,) = segments_of(disk)
    content = disk.files()[path]
    at = content.index(encode_tail(content, 3))
    disk.put(path, content[: at + 8] + b"\xff\xff\xff\x7f" + content[at + 12 :])
    error = assert_refused(disk, "an intact record follows")
    assert error.offset == at


def encode_tail(content: bytes, seq: int) -> bytes:
    """The bytes of record `seq` in a segment, by the log id in its head."""
    return encode_record(int.from_bytes(content[16:24], "little"), seq, payload_of(seq))


def test_a_page_of_zeros_in_the_middle_is_refused() -> None:
    disk = written(600)
    (path,) = segments_of(disk)
    content = disk.files()[path]
    disk.put(path, content[:4096] + bytes(4096) + content[8192:])
    assert_refused(disk, "an intact record follows")


def test_garbage_at_the_end_is_refused_unless_it_is_too_short_to_be_a_record() -> None:
    disk = written(3)
    (path,) = segments_of(disk)
    content = disk.files()[path]
    disk.put(path, content + b"\x5a" * 24)
    assert_refused(disk, "no torn append leaves")
    disk.put(path, content + b"\x5a" * 23)
    assert verify(DIRECTORY, disk=disk).torn_bytes == 23


def test_a_record_that_announces_more_than_there_is_allocates_nothing() -> None:
    disk = written(3)
    (path,) = segments_of(disk)
    content = disk.files()[path]
    disk.put(path, content + (b"\xff" * 12).ljust(100, b"\x01"))
    assert_refused(disk)


def test_an_older_segment_that_was_cut_short_is_refused() -> None:
    disk = written(7, segment_bytes=140)
    path = segments_of(disk)[1]
    content = disk.files()[path]
    for length in range(len(content)):
        disk.put(path, content[:length])
        assert_refused(disk)


def test_the_newest_segment_cut_short_in_its_head_is_refused() -> None:
    disk = written(3)
    (path,) = segments_of(disk)
    content = disk.files()[path]
    for length in range(40):
        disk.put(path, content[:length])
        assert_refused(disk, "not an intact segment")


def test_a_bit_flipped_in_an_acknowledged_record_before_a_torn_one_is_refused() -> None:
    disk = written(3)
    (path,) = segments_of(disk)
    content = disk.files()[path]
    last = len(content) - len(encode_tail(content, 3))
    for torn in (b"", encode_tail(content, 3)[:20], bytes(50)):
        for index in range(last, len(content)):
            disk.put(path, flip(content, index, 0) + torn)
            assert_refused(disk)


def test_another_version_of_the_format_is_named() -> None:
    head = struct.pack("<8sIIQQ", b"PNSKJRNL", 2, 0, 7, 1)
    disk = SimDisk()
    disk.put(segment_path(DIRECTORY, 1), head + struct.pack("<Q", xxhash.xxh3_64_intdigest(head)))
    with pytest.raises(JournalError, match="format version 2"):
        Log.open(DIRECTORY, disk=disk)


def test_dump_shows_what_stands_before_the_damage() -> None:
    disk = written(6)
    (path,) = segments_of(disk)
    content = disk.files()[path]
    disk.put(path, flip(content, content.index(b"record 4"), 0))
    entries = dump(DIRECTORY, disk=disk)
    assert [next(entries).payload for _ in range(3)] == [payload_of(seq) for seq in (1, 2, 3)]
    with pytest.raises(JournalCorruptError, match="record 4 is damaged"):
        next(entries)


@given(payloads=st.lists(st.binary(max_size=60), max_size=12), data=st.data())
def test_any_log_cut_anywhere_gives_a_prefix_of_its_records(
    payloads: list[bytes], data: st.DataObject
) -> None:
    disk = SimDisk()
    with Log.open(DIRECTORY, disk=disk)[0] as log:
        for payload in payloads:
            log.append(payload)
    (path,) = disk.files()
    content = disk.files()[path]
    length = data.draw(st.integers(40, len(content)))
    disk.put(path, content[:length])
    with Log.open(DIRECTORY, disk=disk)[0]:
        entries = [entry.payload for entry in dump(DIRECTORY, disk=disk)]
    assert entries == payloads[: len(entries)]


@given(payloads=st.lists(st.binary(max_size=60), min_size=1, max_size=8), data=st.data())
def test_any_bytes_written_over_a_log_never_yield_other_records(
    payloads: list[bytes], data: st.DataObject
) -> None:
    disk = SimDisk()
    with Log.open(DIRECTORY, disk=disk)[0] as log:
        for payload in payloads:
            log.append(payload)
    (path,) = disk.files()
    content = disk.files()[path]
    at = data.draw(st.integers(0, len(content)))
    junk = data.draw(st.binary(max_size=80))
    disk.put(path, content[:at] + junk + content[at + len(junk) :])
    found: list[bytes] = []
    with contextlib.suppress(JournalCorruptError):
        found.extend(entry.payload for entry in dump(DIRECTORY, disk=disk))
    assert found == payloads[: len(found)]
