"""Logs that are followed while they are written: what is told, when, and of which file."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.errors import UsageError
from penstock.recovery.diagnosis.entry import builtin_rules
from penstock.recovery.diagnosis.follow import Tail, follow
from penstock.recovery.diagnosis.incidents import Incidents
from penstock.recovery.diagnosis.watch import PATIENCE, Watch

from .model_server import Reply, serving

SETTLE_S = 2.0
OOM = b"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"
TIMEOUT = (
    b"[rank1]: Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1) ran for"
    b" 600021 milliseconds before timing out."
)


def watch_of(logs: int = 1) -> Watch:
    return Watch(logs, builtin_rules(), (), settle_s=SETTLE_S)


def steps(first: int, count: int) -> list[bytes]:
    return [b"step %d loss 0.5" % n for n in range(first, first + count)]


def test_a_failure_is_told_once_it_is_quiet_and_its_root_wins_across_logs() -> None:
    watch = watch_of(2)
    watch.feed(1, steps(0, 3), 0.0)
    assert watch.due(100.0) is None
    watch.feed(1, [b"", TIMEOUT], 100.0)
    watch.feed(0, [OOM], 101.0)
    assert watch.due(102.5) is None
    told = watch.due(103.0)
    assert told is not None
    assert (told.diagnosis.root_cause, told.log, told.line) == ("OutOfMemoryError", 0, 1)
    assert told.diagnosis.contributing == ("NCCLTimeoutError",)
    assert watch.due(200.0) is None


def test_a_failure_without_a_pause_is_told_all_the_same() -> None:
    watch = watch_of()
    now_s = 0.0
    while watch.due(now_s) is None:
        watch.feed(0, [OOM], now_s)
        now_s += SETTLE_S / 2
    assert now_s == PATIENCE * SETTLE_S


def test_what_training_survived_is_not_told() -> None:
    watch = watch_of()
    watch.feed(0, [b"ConnectionResetError: [Errno 104] Connection reset by peer"], 0.0)
    watch.feed(0, steps(0, 20), 1.0)
    assert watch.due(9.0) is None
    assert watch.survived == 1


def test_a_warning_waits_for_longer() -> None:
    watch = watch_of()
    watch.feed(0, [b"WARNING Connection refused, retrying in 1 s"], 0.0)
    assert watch.due(2 * SETTLE_S) is None
    told = watch.due(PATIENCE * SETTLE_S)
    assert told is not None
    assert told.diagnosis.confidence < 0.5


def test_a_storm_of_one_failure_is_told_at_each_doubling() -> None:
    watch = watch_of()
    times = []
    for n in range(1, 70):
        watch.feed(0, [b"KeyError: 'x%d'" % n], 10.0 * n)
        if told := watch.due(10.0 * n + 5):
            times.append(told.times)
    assert times == [1, 2, 4, 8, 16, 32, 64]


def test_a_traceback_that_no_rule_explains_is_told_as_unknown() -> None:
    watch = watch_of()
    watch.feed(0, [b"Traceback (most recent call last):", b'  File "t.py", line 1, in f'], 0.0)
    watch.feed(0, [b"acme.FluxTrouble: the flux is off"], 0.5)
    told = watch.finish()
    assert told is not None
    assert told.diagnosis.source == "none"
    assert "FluxTrouble" in told.diagnosis.evidence[-1]


def test_memory_is_bounded_for_as_long_as_it_follows() -> None:
    watch = watch_of(4)
    tracemalloc.start()
    for n in range(3000):
        unique = [b"reader %d of %s failed" % (n, b"%c" % (97 + k) * (n % 90)) for k in range(4)]
        watch.feed(n % 4, [*unique, b"KeyError: '%s'" % (b"k" * (n % 400))], float(n))
        watch.due(float(n))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 << 20


def lines_now(tail: Tail) -> list[bytes]:
    """All that is there, until there is nothing new at two looks (see `Tail._begins_anew`)."""
    found: list[bytes] = []
    quiet = 0
    while quiet < 2:
        lines, anew = tail.read()
        found += lines + ([b"--- anew"] if anew else [])
        quiet = 0 if lines or anew else quiet + 1
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.log"


@pytest.fixture
def tail(path: Path) -> Iterator[Tail]:
    with contextlib.closing(Tail(path)) as made:
        yield made


def test_a_file_may_come_later_and_grow_in_pieces(path: Path, tail: Tail) -> None:
    assert lines_now(tail) == []
    path.write_bytes(b"one\ntw")
    assert lines_now(tail) == [b"one"]
    with path.open("ab") as file:
        file.write(b"o\n")
    assert lines_now(tail) == [b"two"]


def test_what_is_written_to_a_file_that_was_renamed_is_not_lost(path: Path, tail: Tail) -> None:
    path.write_bytes(b"one\n")
    assert lines_now(tail) == [b"one"]
    with path.open("ab") as old:
        path.rename(path.with_suffix(".1"))
        path.write_bytes(b"three\n")
        assert tail.read() == ([], False)
        old.write(b"two, unended")
    assert lines_now(tail) == [b"two, unended", b"--- anew", b"three"]


def test_a_file_that_is_cut_is_read_from_its_beginning(path: Path, tail: Tail) -> None:
    path.write_bytes(b"one\ntwo\n")
    assert lines_now(tail) == [b"one", b"two"]
    os.truncate(path, 0)
    assert lines_now(tail) == [b"--- anew"]
    with path.open("ab") as file:
        file.write(b"3\n")
    assert lines_now(tail) == [b"3"]


def test_a_file_that_vanishes_may_come_back(path: Path, tail: Tail) -> None:
    path.write_bytes(b"one\n")
    assert lines_now(tail) == [b"one"]
    path.unlink()
    assert lines_now(tail) == []
    path.write_bytes(b"two\n")
    assert lines_now(tail) == [b"--- anew", b"two"]


def test_a_directory_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be read: it is a directory"):
        Tail(tmp_path)


def test_a_pipe_ends_and_its_last_line_counts() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb"):
        os.write(writing, b"step 1 loss 0.5\nKeyError: 'x'")
        os.close(writing)
        tail = Tail(Path("-"), reading)
        (told,) = follow([tail], watch_of(), interval_s=0.01)
    assert (told.diagnosis.root_cause, told.line) == ("KeyError", 2)


@contextlib.contextmanager
def following(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "penstock", "diagnose", "--follow", "--json", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


def next_line(process: subprocess.Popen[bytes]) -> dict[str, object]:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 60)[0], "nothing was told within 60 s"
    found = json.loads(process.stdout.readline())
    assert isinstance(found, dict)
    return found


def test_the_command_tells_of_each_failure_and_ends_cleanly_with_ctrl_c(tmp_path: Path) -> None:
    one, other = tmp_path / "rank0.log", tmp_path / "rank1.log"
    one.write_bytes(b"step 1 loss 0.5\n")
    with following("--settle", "0.2", str(one), str(other)) as process:
        other.write_bytes(b"KeyError: 'x'\n")
        first = next_line(process)
        assert (first["root_cause"], first["log"], first["times"]) == ("KeyError", str(other), 1)
        one.rename(tmp_path / "rank0.log.1")
        one.write_bytes(OOM + b"\n")
        second = next_line(process)
        assert (second["root_cause"], second["log"], second["line"]) == (
            "OutOfMemoryError",
            str(one),
            1,
        )
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert (process.returncode, rest) == (130, b"")
    assert b"Traceback" not in errors


def test_each_failure_that_is_told_is_posted_and_stored(tmp_path: Path) -> None:
    log, url, store = tmp_path / "a.log", tmp_path / "url", tmp_path / "incidents.db"
    log.write_bytes(b"KeyError: 'x'\n")
    with serving() as serve:
        server = serve(Reply(200))
        url.write_text(server.url)
        options = ("--settle", "0.2", "--alert-url-file", str(url), "--incidents", str(store))
        with following(*options, str(log)) as process:
            next_line(process)
            process.send_signal(signal.SIGINT)  # what is told is posted all the same
            process.communicate(timeout=60)
    (posted,) = server.received
    assert posted["text"] == f"penstock: KeyError in {log}:1"
    assert posted["needs_operator"] is True
    assert Incidents(store, full_text=False).newest()[0].root_cause == "KeyError"


def test_what_is_not_told_yet_is_told_when_it_is_ended() -> None:
    with following("--settle", "3600", "-") as process:
        assert process.stdin is not None
        # More than a pipe holds: when all of it is written, the first line was read.
        process.stdin.write(b"KeyError: 'x'\n" + b"all is well\n" * 100_000)
        process.stdin.flush()
        process.send_signal(signal.SIGTERM)
        told, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert json.loads(told)["root_cause"] == "KeyError"
