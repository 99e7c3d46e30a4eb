"""Appending, group commit, rolling, snapshots and reopening, when nothing goes wrong."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock.errors import JournalError
from penstock.journal import PAYLOAD_BYTES_MAX, Log, Recovered, verify
from penstock.testing.disk import SimDisk


def reopen(disk: SimDisk, directory: Path) -> Recovered:
    log, recovered = Log.open(directory, disk=disk)
    log.close()
    return recovered


def kinds(disk: SimDisk, since: int) -> list[str]:
    return [operation.kind for operation in disk.operations[since:]]


def test_a_new_journal_is_empty_and_numbers_from_one(disk: SimDisk, directory: Path) -> None:
    log, recovered = Log.open(directory, disk=disk)
    assert (recovered.snapshot, recovered.snapshot_seq, recovered.last_seq) == (None, 0, 0)
    assert list(recovered.records) == []
    assert log.append(b"a") == 1
    assert (log.last_seq, log.durable_seq) == (1, 0)
    assert log.sync() == 1
    assert log.durable_seq == 1


def test_what_was_appended_comes_back_in_order(disk: SimDisk, directory: Path) -> None:
    payloads = [b"", b"one", bytes(1000), b"\xa5" * 7]
    with Log.open(directory, disk=disk)[0] as log:
        for payload in payloads:
            log.append(payload)
    recovered = reopen(disk, directory)
    assert list(recovered.records) == list(enumerate(payloads, 1))
    assert len(recovered.records) == 4
    assert recovered.records[1] == (2, b"one")
    assert recovered.records[-1] == (4, b"\xa5" * 7)
    assert recovered.records[1:3] == [(2, b"one"), (3, bytes(1000))]
    assert recovered.cut_bytes == 0
    with Log.open(directory, disk=disk)[0] as log:
        assert log.append(b"next") == 5


def test_append_does_no_io_and_a_sync_is_one_write_and_one_fsync(
    disk: SimDisk, directory: Path
) -> None:
    log, _ = Log.open(directory, disk=disk)
    before = len(disk.operations)
    for _ in range(100):
        log.append(b"x")
    assert kinds(disk, before) == []
    log.sync()
    assert kinds(disk, before) == ["append", "fsync"]
    log.sync()
    assert kinds(disk, before) == ["append", "fsync"], "nothing to do, nothing done"


def test_a_full_segment_is_followed_by_another(disk: SimDisk, directory: Path) -> None:
    log, _ = Log.open(directory, disk=disk, segment_bytes=200)
    for number in range(20):
        log.append(b"payload %d" % number)
        log.sync()
    log.close()
    survey = verify(directory, disk=disk)
    assert survey.segments > 3
    assert survey.records == survey.last_seq == 20
    assert [seq for seq, _ in reopen(disk, directory).records] == list(range(1, 21))


def test_a_batch_longer_than_a_segment_stays_together(disk: SimDisk, directory: Path) -> None:
    with Log.open(directory, disk=disk, segment_bytes=100)[0] as log:
        log.append(bytes(1000))
        log.append(bytes(1000))
    assert verify(directory, disk=disk).segments == 1


def test_a_snapshot_replaces_what_came_before(disk: SimDisk, directory: Path) -> None:
    log, _ = Log.open(directory, disk=disk, segment_bytes=100)
    for _ in range(10):
        log.append(b"old")
        log.sync()
    log.append(b"old, and not synced")
    log.snapshot(b"state of 11")
    assert (log.snapshot_seq, log.durable_seq, log.bytes_since_snapshot) == (11, 11, 0)
    log.append(b"new")
    assert log.bytes_since_snapshot > 0
    log.close()
    assert sorted(path.name for path in disk.files()) == [
        "records-00000000000000000012.log",
        "snapshot-00000000000000000011.snap",
    ]
    recovered = reopen(disk, directory)
    assert (recovered.snapshot, recovered.snapshot_seq) == (b"state of 11", 11)
    assert list(recovered.records) == [(12, b"new")]


def test_a_snapshot_may_be_of_an_earlier_record(disk: SimDisk, directory: Path) -> None:
    log, _ = Log.open(directory, disk=disk)
    for number in range(1, 6):
        log.append(b"%d" % number)
    log.snapshot(b"state of 3", seq=3)
    log.close()
    recovered = reopen(disk, directory)
    assert recovered.snapshot_seq == 3
    assert list(recovered.records) == [(4, b"4"), (5, b"5")]
    assert len(recovered.records) == 2
    assert recovered.records[0] == (4, b"4")


def test_a_snapshot_can_be_taken_again_at_the_same_record(disk: SimDisk, directory: Path) -> None:
    log, _ = Log.open(directory, disk=disk)
    log.append(b"1")
    log.snapshot(b"first")
    log.snapshot(b"second")
    log.close()
    assert reopen(disk, directory).snapshot == b"second"


def test_a_snapshot_of_nothing_is_a_snapshot(disk: SimDisk, directory: Path) -> None:
    log, _ = Log.open(directory, disk=disk)
    log.snapshot(b"")
    log.append(b"1")
    log.close()
    recovered = reopen(disk, directory)
    assert recovered.snapshot == b""
    assert list(recovered.records) == [(1, b"1")]


@pytest.mark.parametrize("seq", [-1, 1, 4])
def test_a_snapshot_of_a_record_that_is_not_there_is_refused(
    disk: SimDisk, directory: Path, seq: int
) -> None:
    log, _ = Log.open(directory, disk=disk)
    for _ in range(3):
        log.append(b"x")
    log.snapshot(b"", seq=2)
    with pytest.raises(ValueError, match=f"snapshot of record {seq}"):
        log.snapshot(b"", seq=seq)
    log.snapshot(b"", seq=3)


def test_unknown_files_are_left_alone_and_reported(
    disk: SimDisk, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reopen(disk, directory)
    disk.put(directory / "notes.txt", b"mine")
    disk.put(directory / "records-1.log", b"not one of ours either")
    recovered = reopen(disk, directory)
    assert recovered.unknown == ("notes.txt", "records-1.log")
    assert "ignoring notes.txt" in caplog.text
    assert disk.files()[directory / "notes.txt"] == b"mine"


def test_a_closed_log_takes_nothing_more(disk: SimDisk, directory: Path) -> None:
    log, _ = Log.open(directory, disk=disk)
    log.append(b"x")
    log.close()
    log.close()
    for call in (lambda: log.append(b"y"), log.sync, lambda: log.snapshot(b"")):
        with pytest.raises(JournalError, match="closed"):
            call()
    assert [seq for seq, _ in reopen(disk, directory).records] == [1]


def test_a_payload_that_is_too_long_is_refused_and_harms_nothing(
    disk: SimDisk, directory: Path
) -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return PAYLOAD_BYTES_MAX + 1

    log, _ = Log.open(directory, disk=disk)
    with pytest.raises(JournalError, match="too long"):
        log.append(Huge())
    assert log.append(b"fine") == 1


def test_append_waits_for_the_disk_rather_than_buffer_without_limit(
    disk: SimDisk, directory: Path
) -> None:
    log, _ = Log.open(directory, disk=disk)
    payload = bytes(32 << 20)
    for _ in range(4):
        log.append(payload)
    assert log.durable_seq == 2


def test_many_threads_append_sync_and_snapshot_at_once(tmp_path: Path) -> None:
    log, _ = Log.open(tmp_path / "journal", segment_bytes=4096)
    stop = threading.Event()

    def appender(name: int) -> list[tuple[int, bytes]]:
        done = []
        for number in range(50):
            payload = b"%d.%d" % (name, number)
            seq = log.append(payload)
            assert log.sync() >= seq
            done.append((seq, payload))
        return done

    def snapshotter() -> int:
        while not stop.is_set():
            log.snapshot(b"state")
        return log.snapshot_seq

    with ThreadPoolExecutor(9) as pool:
        snapshots = pool.submit(snapshotter)
        acked = [item for done in pool.map(appender, range(8)) for item in done]
        stop.set()
        snapshot_seq = snapshots.result()
    log.close()
    assert sorted(seq for seq, _ in acked) == list(range(1, 401))
    log, recovered = Log.open(tmp_path / "journal")
    log.close()
    assert recovered.snapshot_seq == snapshot_seq
    assert list(recovered.records) == sorted(acked)[snapshot_seq:]
