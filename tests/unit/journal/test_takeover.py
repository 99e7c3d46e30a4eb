"""Two writers of one journal: one stops anywhere, the other takes over, the first wakes up (G7).

The rule: whatever either of them was told to be durable is recovered, in order, and both what the
new one recovers and what the next start recovers is one history.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.errors import JournalError
from penstock.journal import Log, Recovered
from penstock.journal.lease import newest_generation, take_over
from penstock.testing.disk import Operation, SimDisk

DIRECTORY = Path("/journal")
SEGMENT_BYTES = 130


@dataclass
class Writer:
    """What one writer knows: the history that it recovered and went on with, and what is acked."""

    name: bytes
    history: list[bytes] = field(default_factory=list)
    acked: int = 0
    generation: int = 0
    finished: bool = False
    error: JournalError | None = None

    def write(self, disk: SimDisk, *, takes_over: bool = False) -> None:
        """Opens, appends, rolls, snapshots and deletes: every kind of operation that a log does."""
        lease = None
        if takes_over:
            lease = take_over(disk, DIRECTORY, newest_generation(disk.names(DIRECTORY)))
            if lease is None:
                raise JournalError("another one was faster")
            self.generation = lease.generation
        log, recovered = Log.open(DIRECTORY, disk=disk, segment_bytes=SEGMENT_BYTES, lease=lease)
        self.history = history_of(recovered)
        self.acked = len(self.history)
        for number in range(3):
            self.append(log, b"%s%d" % (self.name, number))
            self.append(log, b"%s%d" % (self.name, number) * 5)
            self.acked = log.sync()
            log.check()
        log.snapshot(b"|".join(self.history))
        self.append(log, self.name * 30)
        self.acked = log.sync()
        log.close()
        self.finished = True

    def append(self, log: Log, payload: bytes) -> None:
        self.history.append(payload)
        log.append(payload)

    def try_to_write(self, disk: SimDisk, *, takes_over: bool = False) -> None:
        try:
            self.write(disk, takes_over=takes_over)
        except JournalError as error:
            self.error = error


def history_of(recovered: Recovered) -> list[bytes]:
    found = recovered.snapshot.split(b"|") if recovered.snapshot else []
    assert len(found) == recovered.snapshot_seq
    for seq, payload in recovered.records:
        assert seq == len(found) + 1
        found.append(payload)
    return found


class Turns:
    """Runs writers in threads of their own, of which only one goes on at a time."""

    def __init__(self) -> None:
        self._wakes: dict[str, threading.Semaphore] = {}
        self._back = threading.Semaphore(0)
        self._left: dict[str, int] = {}
        self._threads: dict[str, threading.Thread] = {}
        self.errors: list[BaseException] = []

    def add(self, name: str, run: Callable[[], None]) -> None:
        def body() -> None:
            self._wakes[name].acquire()
            try:
                run()
            except BaseException as error:
                self.errors.append(error)
            self._left[name] = -1
            self._back.release()

        self._wakes[name], self._left[name] = threading.Semaphore(0), 0
        self._threads[name] = threading.Thread(target=body, daemon=True)
        self._threads[name].start()

    def before(self, name: str) -> Callable[[Operation], None]:
        """What a disk calls ahead of each operation of that writer."""

        def step(_: Operation) -> None:
            while not self._left[name]:
                self._back.release()
                self._wakes[name].acquire()
            self._left[name] -= 1

        return step

    def go_on(self, name: str, operations: int = 1 << 30) -> bool:
        """Lets a writer do so many operations; False if it came to its end before."""
        if self._left[name] < 0:
            return False
        self._left[name] = operations
        self._wakes[name].release()
        assert self._back.acquire(timeout=60)
        return self._left[name] >= 0


def old_journal(disk: SimDisk) -> None:
    """A journal with a torn tail, so that the recovery has something to do."""
    log, _ = Log.open(DIRECTORY, disk=disk, segment_bytes=SEGMENT_BYTES)
    for name in (b"x", b"y", b"z"):
        log.append(name * 20)
        log.sync()
    log.close()
    disk.before = None
    path = max(disk.files())
    disk.put(path, disk.files()[path] + b"torn")


def ends_of(disk: SimDisk) -> list[SimDisk]:
    """What all processes' end leaves, and what a power loss does, with most and least luck."""
    lost_power = list(disk.crash_states(step_bytes=1000))
    return [disk.restarted(), *lost_power[:1], *lost_power[1:][-1:]]


def check(states: list[SimDisk], *writers: Writer) -> None:
    """Everything acknowledged is there, and the next writer can go on."""
    for state in states:
        log, recovered = Log.open(DIRECTORY, disk=state, segment_bytes=SEGMENT_BYTES)
        found = history_of(recovered)
        for writer in writers:
            assert found[: writer.acked] == writer.history[: writer.acked]
            if writer.finished:
                assert found[: len(writer.history)] == writer.history
        # It goes on from there, and is whole afterwards.
        log.append(b"next")
        log.close()
        log, again = Log.open(DIRECTORY, disk=state)
        log.close()
        assert history_of(again) == [*found, b"next"]
        assert not recovered.unknown


def operations_of(write: Callable[[SimDisk], None]) -> int:
    disk = SimDisk()
    old_journal(disk)
    counted = disk.another_process(looks=True)
    write(counted)
    return len(counted.operations)


ALONE = operations_of(Writer(b"a").write)


@pytest.mark.parametrize("stopped_at", range(1, ALONE + 1))
def test_a_writer_that_stops_anywhere_and_wakes_up_at_any_time_harms_nobody(
    stopped_at: int,
) -> None:
    woken_at = 0
    while True:
        disk, turns = SimDisk(), Turns()
        old_journal(disk)
        stale, new = Writer(b"a"), Writer(b"b")
        disk_of_stale = disk.another_process(turns.before("stale"), looks=True)
        disk_of_new = disk.another_process(turns.before("new"), looks=True)
        turns.add("stale", lambda stale=stale, disk=disk_of_stale: stale.try_to_write(disk))
        turns.add(
            "new",
            lambda new=new, disk=disk_of_new: new.try_to_write(disk, takes_over=True),
        )
        stale_goes_on = turns.go_on("stale", stopped_at)
        new_goes_on = turns.go_on("new", woken_at)
        turns.go_on("stale")
        check([disk.restarted()], stale, new)  # the new one may be killed here, too
        turns.go_on("new")
        assert not turns.errors
        assert new.finished, f"woken at {woken_at}: {new.error}"
        assert stale.finished or stale.error
        if stale_goes_on and not new_goes_on and stale.finished:
            assert stale.history[: len(new.history)] == new.history, "it began after the other"
        check(ends_of(disk), stale, new)
        if not new_goes_on:
            break
        woken_at += 1


@example([("a", 1), ("a", 1), ("c", 7)])  # two remove the same lock file
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 40)), min_size=3, max_size=12),
)
def test_three_writers_in_any_turns_make_one_history(turns_taken: list[tuple[str, int]]) -> None:
    disk, turns = SimDisk(), Turns()
    old_journal(disk)
    writers = {name: Writer(name.encode()) for name in "abc"}
    for name, writer in writers.items():
        own = disk.another_process(turns.before(name), looks=True)
        takes_over = name != "a"
        turns.add(
            name,
            lambda writer=writer, own=own, takes_over=takes_over: writer.try_to_write(
                own, takes_over=takes_over
            ),
        )
    for name, operations in turns_taken:
        turns.go_on(name, operations)
    # Whoever came last is let go on first, or last: those before it must have no say any more.
    for name in [turns_taken[0][0], *"abc"]:
        turns.go_on(name)
    assert not turns.errors
    newest = max(writers.values(), key=lambda writer: writer.generation)
    assert newest.finished, newest.error
    check(ends_of(disk), *writers.values())
