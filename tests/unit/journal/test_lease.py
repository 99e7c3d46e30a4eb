"""Who may write a journal, with real files: one taker of many, fencing, and the waiting."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock.errors import JournalError, JournalLockedError
from penstock.journal import Lease, Log, RealDisk, Standby, dump, hold, verify
from penstock.journal.lease import newest_generation, take_over
from penstock.journal.standby import Watch

DEADLINE_S = 60.0
LEASE_S = 5.0

HOLDER = """
import sys
from pathlib import Path
from penstock.journal import Log

log, _ = Log.open(Path(sys.argv[1]))
log.append(b"from another process")
log.sync()
print("holding", flush=True)
sys.stdin.read()
"""


def start_holder(directory: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "holding\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=DEADLINE_S)


def take(directory: Path, generation: int) -> Lease:
    lease = take_over(RealDisk(), directory, generation)
    assert lease is not None
    return lease


def test_a_holder_that_was_replaced_can_make_nothing_durable_any_more(tmp_path: Path) -> None:
    log, _ = Log.open(tmp_path)
    log.append(b"acknowledged")
    log.sync()
    lease = take(tmp_path, 0)
    log.append(b"too late")
    with pytest.raises(JournalError, match=f"process {os.getpid()} on .* has taken over"):
        log.sync()
    assert log.durable_seq == 1
    with pytest.raises(JournalError, match="failed before"):
        log.check()
    log.close()
    log, recovered = Log.open(tmp_path, lease=lease)
    log.close()
    assert recovered.records[0] == (1, b"acknowledged")


def test_a_holder_notices_that_it_was_replaced_when_it_looks_renews_or_closes(
    tmp_path: Path,
) -> None:
    first, second = Log.open(tmp_path / "1")[0], Log.open(tmp_path / "2")[0]
    third = hold(tmp_path / "3")
    first.check()
    third.renew()
    second.append(b"not durable yet")
    leases = [take(tmp_path / name, 0) for name in "123"]
    for call in (first.check, second.close, third.renew):
        with pytest.raises(JournalError, match="has taken over"):
            call()
    for lease in leases:
        lease.check()


def test_who_keeps_a_lease_is_told_once_when_it_is_lost(tmp_path: Path) -> None:
    lease, told = hold(tmp_path), []
    lost = threading.Event()
    lease.keep(0.01, lambda error: (told.append(str(error)), lost.set()))
    before = RealDisk().stamp(tmp_path / "LOCK")
    while RealDisk().stamp(tmp_path / "LOCK") == before:  # it is renewed
        pass
    other = take(tmp_path, 0)
    assert lost.wait(DEADLINE_S)
    lease.close()
    assert len(told) == 1
    other.close()


def test_of_many_that_take_a_journal_over_one_gets_it(tmp_path: Path) -> None:
    for generation in range(20):
        begin = threading.Barrier(8)

        def race(_: int, begin: threading.Barrier = begin, at: int = generation) -> Lease | None:
            begin.wait(DEADLINE_S)
            return take_over(RealDisk(), tmp_path, at)

        tmp_path.joinpath(f"LOCK-{generation}" if generation else "LOCK").touch()
        with ThreadPoolExecutor(8) as pool:
            won = [lease for lease in pool.map(race, range(8)) if lease]
        assert len(won) == 1
        won[0].check()
        won[0].close()
        names = [path.name for path in tmp_path.iterdir()]
        assert names == [f"LOCK-{generation + 1}"], "older lock files are removed"


def test_a_journal_that_was_taken_over_is_whole_and_the_lock_files_are_its_own(
    tmp_path: Path,
) -> None:
    log, _ = Log.open(tmp_path)
    log.append(b"one")
    log.sync()
    log, _ = Log.open(tmp_path, lease=take(tmp_path, 0))
    log.append(b"two")
    log.snapshot(b"state", 1)
    assert verify(tmp_path).unknown == ()
    assert [entry.payload for entry in dump(tmp_path)] == [b"state", b"two"]
    log.close()
    # Started again it keeps its generation, also if somebody cleared the lock files away.
    for path in tmp_path.glob("LOCK*"):
        path.unlink()
    log, recovered = Log.open(tmp_path)
    assert list(recovered.records) == [(2, b"two")]
    assert newest_generation(os.listdir(tmp_path)) == 1
    with pytest.raises(JournalLockedError):
        Log.open(tmp_path)
    log.close()


def test_a_watch_counts_only_the_time_that_it_has_seen_pass() -> None:
    watch = Watch(8.0)
    assert not any(watch.silent(0, 1, now_s) for now_s in range(8))
    assert watch.silent(0, 1, 8.0)
    assert not watch.silent(0, 2, 9.0), "it was touched"
    assert not any(watch.silent(0, 2, now_s) for now_s in range(10, 17))
    assert not watch.silent(0, 2, 100.0), "the watcher itself was paused"
    assert not any(watch.silent(0, 2, now_s) for now_s in range(101, 108))
    assert not watch.silent(1, 2, 108.0), "another holder"
    assert not any(watch.silent(1, 2, now_s) for now_s in range(109, 116))
    assert watch.silent(1, 2, 116.0)


def test_a_standby_has_a_free_journal_at_once(tmp_path: Path) -> None:
    lease = Standby(tmp_path / "new", LEASE_S, LEASE_S).wait()
    assert lease is not None
    lease.check()
    lease.close()


def test_a_standby_that_is_stopped_has_nothing(tmp_path: Path) -> None:
    with Log.open(tmp_path)[0]:
        standby = Standby(tmp_path, LEASE_S, LEASE_S)
        assert standby.wait(standby.stop) is None


def test_a_standby_takes_over_at_once_when_the_holder_is_killed(tmp_path: Path) -> None:
    holder = start_holder(tmp_path)
    # With a lease of an hour it is only the end of the process that can be noticed.
    standby = Standby(tmp_path, 3600.0, 3600.0)
    kill = threading.Thread(target=lambda: (waits.wait(DEADLINE_S), end(holder)))
    waits = threading.Event()
    kill.start()
    lease = standby.wait(waits.set)
    kill.join(DEADLINE_S)
    assert lease is not None
    assert lease.generation == 0
    log, recovered = Log.open(tmp_path, lease=lease)
    log.close()
    assert list(recovered.records) == [(1, b"from another process")]


def test_two_standbys_of_a_paused_holder_take_over_one_after_the_other(tmp_path: Path) -> None:
    holder = start_holder(tmp_path)
    try:
        holder.send_signal(signal.SIGSTOP)
        standbys = [Standby(tmp_path, 0.5, LEASE_S) for _ in range(2)]
        leases: list[Lease] = []
        first_has_it = threading.Event()

        def wait(standby: Standby) -> None:
            lease = standby.wait()
            assert lease is not None
            lease.keep(0.5, lambda _: None)
            leases.append(lease)
            first_has_it.set()

        threads = [threading.Thread(target=wait, args=(standby,)) for standby in standbys]
        for thread in threads:
            thread.start()
        assert first_has_it.wait(DEADLINE_S)
        # The winner's file is touched, so the other one waits for its end, which is no death.
        leases[0].check()
        assert leases[0].generation == 1
        leases[0].close()
        for thread in threads:
            thread.join(DEADLINE_S)
        assert len(leases) == 2
        leases[1].check()
        leases[1].close()
    finally:
        holder.send_signal(signal.SIGCONT)
        end(holder)
