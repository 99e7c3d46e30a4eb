"""A failed write or fsync is the end of the log, and is never tried again."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.errors import JournalError
from penstock.journal import Log
from penstock.testing.disk import Operation, SimDisk


def failing(kind: str, code: int = errno.EIO) -> Callable[[Operation], None]:
    def before(operation: Operation) -> None:
        if operation.kind == kind:
            raise OSError(code, "the disk says no")

    return before


@pytest.mark.parametrize("kind", ["append", "fsync"])
def test_after_a_failed_sync_every_call_fails_and_the_disk_is_left_alone(
    disk: SimDisk, directory: Path, kind: str
) -> None:
    log, _ = Log.open(directory, disk=disk)
    log.append(b"kept")
    log.sync()
    disk.before = failing(kind)
    log.append(b"lost")
    with pytest.raises(JournalError, match="the disk says no") as caught:
        log.sync()
    assert isinstance(caught.value.__cause__, OSError)
    disk.before = None  # the disk is well again, and would lie
    tried = len(disk.operations)
    for call in (log.sync, lambda: log.append(b"more"), lambda: log.snapshot(b"state")):
        with pytest.raises(JournalError, match="failed before and takes no more"):
            call()
    log.close()
    assert len(disk.operations) == tried
    assert log.durable_seq == 1


@pytest.mark.parametrize("kind", ["create", "append", "fsync", "rename", "fsync_dir"])
def test_a_snapshot_that_cannot_be_written_ends_the_log_too(
    disk: SimDisk, directory: Path, kind: str
) -> None:
    log, _ = Log.open(directory, disk=disk)
    log.append(b"kept")
    log.sync()
    disk.before = failing(kind)
    with pytest.raises(JournalError, match="the disk says no"):
        log.snapshot(b"state")
    disk.before = None
    with pytest.raises(JournalError, match="failed before"):
        log.sync()
    log.close()
    for state in disk.crash_states():
        _, recovered = Log.open(directory, disk=state)
        assert recovered.last_seq == 1


@pytest.mark.parametrize("kind", ["create", "append", "fsync", "rename", "fsync_dir"])
def test_opening_on_a_disk_that_fails_says_so_and_frees_the_lock(
    disk: SimDisk, directory: Path, kind: str
) -> None:
    disk.before = failing(kind)
    with pytest.raises(JournalError, match="the disk says no"):
        Log.open(directory, disk=disk)
    disk.before = None
    Log.open(directory, disk=disk)


def test_a_full_disk_is_a_clear_error_and_keeps_what_was_acknowledged(directory: Path) -> None:
    for capacity_bytes in range(40, 400):
        disk = SimDisk(capacity_bytes=capacity_bytes)
        log, _ = Log.open(directory, disk=disk, segment_bytes=150)
        acked = 0
        with pytest.raises(JournalError, match="no space left"):  # noqa: PT012
            while True:
                log.append(b"payload")
                acked = log.sync()
        with pytest.raises(JournalError, match="failed before"):
            log.append(b"more")
        log.close()
        disk.capacity_bytes = None
        for state in (*disk.crash_states(), disk.restarted()):
            _, recovered = Log.open(directory, disk=state)
            assert recovered.last_seq >= acked
            assert all(payload == b"payload" for _, payload in recovered.records)


def test_an_error_while_closing_frees_the_directory_nevertheless(
    disk: SimDisk, directory: Path
) -> None:
    log, _ = Log.open(directory, disk=disk)
    log.append(b"x")
    disk.before = failing("fsync")
    with pytest.raises(JournalError, match="the disk says no"):
        log.close()
    disk.before = None
    Log.open(directory, disk=disk)
