"""A crash at every operation, with every state that it may leave on the disk (G7).

The rule: acknowledged ⊆ recovered ⊆ appended, in order and without a hole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from penstock.errors import JournalError
from penstock.journal import Log, Recovered
from penstock.testing.disk import Crash, Operation, SimDisk

SEGMENT_BYTES = 130


@dataclass
class Story:
    """What a writer knows of its log: everything it appended, and how much was acknowledged."""

    appended: list[bytes] = field(default_factory=list)
    acked: int = 0

    def append(self, log: Log, payload: bytes) -> None:
        self.appended.append(payload)
        log.append(payload)

    def sync(self, log: Log) -> None:
        self.acked = log.sync()

    def snapshot(self, log: Log) -> None:
        # A snapshot's payload lists all records that it replaces, so that it can be checked.
        log.snapshot(b"|".join(self.appended))
        self.acked = log.durable_seq

    def check(self, recovered: Recovered) -> None:
        found = recovered.snapshot.split(b"|") if recovered.snapshot else []
        assert len(found) == recovered.snapshot_seq
        for seq, payload in recovered.records:
            assert seq == len(found) + 1
            found.append(payload)
        assert len(found) == recovered.last_seq >= self.acked
        assert found == self.appended[: len(found)]


def write_everything(disk: SimDisk, directory: Path, story: Story) -> None:
    """Appends, rolls, snapshots and deletes: every kind of operation that a log does."""
    log, _ = Log.open(directory, disk=disk, segment_bytes=SEGMENT_BYTES)
    for name in (b"a", b"b", b"c"):
        story.append(log, name)
        story.append(log, name * 5)
        story.sync(log)
    story.snapshot(log)
    story.append(log, b"d")
    story.sync(log)
    story.append(log, b"e" * 30)
    story.snapshot(log)
    story.append(log, b"f")
    log.close()
    story.acked = len(story.appended)


def crash_at(index: int) -> SimDisk:
    def before(operation: Operation) -> None:
        if operation.index == index:
            raise Crash

    return SimDisk(before)


def operations_of_the_whole_story() -> list[Operation]:
    disk = SimDisk()
    write_everything(disk, Path("/journal"), Story())
    return disk.operations


def crashes() -> Iterator[tuple[int, str]]:
    for operation in operations_of_the_whole_story():
        yield operation.index, f"{operation.index}-{operation.kind}"


OPERATIONS = [pytest.param(index, id=name) for index, name in crashes()]


def crashed_story(index: int, directory: Path) -> tuple[SimDisk, Story]:
    disk, story = crash_at(index), Story()
    with pytest.raises(Crash):
        write_everything(disk, directory, story)
    return disk, story


def test_the_story_rolls_snapshots_and_deletes() -> None:
    kinds = [operation.kind for operation in operations_of_the_whole_story()]
    assert set(kinds) == {"create", "append", "fsync", "rename", "remove", "fsync_dir"}
    assert kinds.count("remove") >= 4
    assert kinds.count("create") >= 6


@pytest.mark.parametrize("index", OPERATIONS)
def test_a_power_loss_at_any_operation_loses_nothing_acknowledged(
    directory: Path, index: int
) -> None:
    disk, story = crashed_story(index, directory)
    states = list(disk.crash_states(zeros=True))
    assert states
    for state in states:
        log, recovered = Log.open(directory, disk=state, segment_bytes=SEGMENT_BYTES)
        story.check(recovered)
        # The log must go on from there, and be whole afterwards.
        after = Story(story.appended[: recovered.last_seq], recovered.last_seq)
        after.append(log, b"after the crash")
        log.close()
        log, again = Log.open(directory, disk=state)
        after.acked += 1
        after.check(again)
        assert again.cut_bytes == 0


@pytest.mark.parametrize("index", OPERATIONS)
def test_a_power_loss_at_any_operation_of_the_recovery_loses_nothing_either(
    directory: Path, index: int
) -> None:
    """kill -9 first, so that the recovery sees what is not durable yet; then the power goes."""
    disk, story = crashed_story(index, directory)
    for when in range(1000):
        second = disk.restarted()
        second.before = crash_at(when).before
        try:
            log, recovered = Log.open(directory, disk=second, segment_bytes=SEGMENT_BYTES)
        except Crash:
            for state in second.crash_states(step_bytes=9):
                story.check(Log.open(directory, disk=state)[1])
            continue
        # What was recovered is built upon from now on, so it must be durable already.
        story.check(recovered)
        log.append(b"not synced")
        seen = Story([*story.appended[: recovered.last_seq], b"not synced"], recovered.last_seq)
        for state in second.crash_states(step_bytes=9):
            seen.check(Log.open(directory, disk=state)[1])
        return
    pytest.fail("the recovery does not end")


def test_a_crash_at_every_byte_of_the_last_record_cuts_just_that_record(
    disk: SimDisk, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log, _ = Log.open(directory, disk=disk)
    log.append(b"first")
    log.sync()
    (path,) = disk.files()
    whole = len(disk.files()[path])
    log.append(b"second, long enough to have \0\0\0 zeros")
    log.sync()
    content = disk.files()[path]
    for length in range(whole, len(content)):
        for tail in (b"", bytes(len(content) - length)):
            state = SimDisk()
            state.put(path, content[:length] + tail)
            caplog.clear()
            opened, recovered = Log.open(directory, disk=state)
            opened.close()
            assert list(recovered.records) == [(1, b"first")]
            assert recovered.cut_bytes == length - whole + len(tail)
            assert recovered.cut_path == (path if recovered.cut_bytes else None)
            assert ("never acknowledged" in caplog.text) == bool(recovered.cut_bytes)


@pytest.mark.parametrize("index", OPERATIONS)
def test_an_error_of_any_operation_is_the_end_of_the_log_and_of_nothing_acknowledged(
    directory: Path, index: int
) -> None:
    def before(operation: Operation) -> None:
        if operation.index == index:
            raise OSError(5, "Input/output error")

    disk, story = SimDisk(before), Story()
    with pytest.raises(JournalError, match="Input/output error"):
        write_everything(disk, directory, story)
    disk.before = None
    for state in disk.crash_states():
        story.check(Log.open(directory, disk=state)[1])
    # Or the process alone ends, reads what the failed fsync left readable, and then power goes.
    second = disk.restarted()
    log, recovered = Log.open(directory, disk=second)
    story.check(recovered)
    seen = Story([*story.appended[: recovered.last_seq], b"more"], recovered.last_seq + 1)
    log.append(b"more")
    log.sync()
    for state in second.crash_states():
        seen.check(Log.open(directory, disk=state)[1])
