"""Real files, real processes, real kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.errors import JournalCorruptError, JournalError, JournalLockedError
from penstock.journal import Log, dump, verify

WRITER = """
import sys
from pathlib import Path
from penstock.journal import Log

log, recovered = Log.open(Path(sys.argv[1]), segment_bytes=2000)
print("open", recovered.last_seq, flush=True)
while True:
    for _ in range(3):
        seq = log.append(b"payload %d" % (log.last_seq + 1))
    log.sync()
    print(seq, flush=True)
    if seq % 100 < 3:
        log.snapshot(b"state of %d" % seq)
"""


def start_writer(directory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory)], stdout=subprocess.PIPE, text=True
    )


def read_line(writer: subprocess.Popen[str]) -> str:
    assert writer.stdout is not None
    return writer.stdout.readline()


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    acked = 0
    for round_number in range(5):
        writer = start_writer(tmp_path)
        assert int(read_line(writer).split()[1]) >= acked
        for _ in range(20 + 37 * round_number):
            acked = int(read_line(writer))
        writer.send_signal(signal.SIGKILL)
        rest, _ = writer.communicate(timeout=30)
        # The last line may have been cut by the kill; whole ones were acknowledged.
        acked = max([acked, *(int(line) for line in rest.split("\n")[:-1])])
        assert verify(tmp_path).last_seq >= acked
    log, recovered = Log.open(tmp_path)
    log.close()
    assert recovered.last_seq >= acked
    assert recovered.snapshot == b"state of %d" % recovered.snapshot_seq
    expected = range(recovered.snapshot_seq + 1, recovered.last_seq + 1)
    assert list(recovered.records) == [(seq, b"payload %d" % seq) for seq in expected]


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    writer = start_writer(tmp_path)
    try:
        read_line(writer)
        with pytest.raises(JournalLockedError, match=f"in use by process {writer.pid} on "):
            Log.open(tmp_path)
        assert verify(tmp_path).records >= 0, "looking needs no lock"
    finally:
        writer.kill()
        writer.communicate(timeout=30)
    Log.open(tmp_path)[0].close()


def test_a_second_writer_in_the_same_process_is_refused_too(tmp_path: Path) -> None:
    log, _ = Log.open(tmp_path)
    with pytest.raises(JournalLockedError, match=f"process {os.getpid()} "):
        Log.open(tmp_path)
    log.close()
    Log.open(tmp_path)[0].close()


def test_looking_at_a_journal_that_is_being_written_finds_it_whole(tmp_path: Path) -> None:
    writer = start_writer(tmp_path)
    try:
        read_line(writer)
        last_seq = 0
        while last_seq < 2000:
            survey = verify(tmp_path)
            assert survey.last_seq >= last_seq
            last_seq = survey.last_seq
    finally:
        writer.kill()
        writer.communicate(timeout=30)


def test_looking_changes_no_file(tmp_path: Path) -> None:
    with Log.open(tmp_path)[0] as log:
        log.append(b"x")
    (path,) = tmp_path.glob("*.log")
    path.write_bytes(path.read_bytes() + b"torn")
    (tmp_path / "LOCK").unlink()
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in tmp_path.iterdir()}
    assert verify(tmp_path).torn_bytes == 4
    assert [entry.payload for entry in dump(tmp_path)] == [b"x"]
    assert before == {
        file: (file.stat().st_mtime_ns, file.read_bytes()) for file in tmp_path.iterdir()
    }


def test_damage_on_a_real_disk_is_named_by_file_and_offset(tmp_path: Path) -> None:
    with Log.open(tmp_path)[0] as log:
        log.append(b"x")
    (path,) = tmp_path.glob("*.log")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(JournalCorruptError, match=f"{path}, byte 40: record 1 is damaged"):
        Log.open(tmp_path)


def test_a_directory_that_cannot_be_used_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="opening it failed"):
        Log.open(tmp_path / "file" / "journal")
    with pytest.raises(JournalError, match="listing its files failed"):
        verify(tmp_path / "none")
    with pytest.raises(JournalError, match="there is no journal"):
        verify(tmp_path)
