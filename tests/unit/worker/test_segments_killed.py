"""Processes that share a cache, and are killed at its failpoints: real ones, by SIGKILL."""

from __future__ import annotations

import ast
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.failpoints import VARIABLE
from penstock.worker.segment import verify
from penstock.worker.segment_file import SegmentName

from ...faults.points import CACHE, Visit
from .segment_kit import (
    KEY,
    ONE,
    OWNER,
    Opened,
    begun,
    holds,
    names,
    opening,
    part,
    put,
    seg,
    split_of,
)

DEADLINE_S = 60.0
#: Puts and gets the splits of its arguments, once it is told to, and says what came of it.
WORKER = """
import sys
from pathlib import Path
import numpy as np
from penstock.proto.chunk import Chunk, encode
from penstock.worker.segment_file import SegmentName
from penstock.worker.segments import SegmentStore

root, owner, key, splits = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
print("ready", flush=True)
sys.stdin.readline()
store = SegmentStore(Path(root), owner, 1 << 30, "2.0")
made = []
for split in range(1, splits + 1):
    partial = store.put(SegmentName(key, split, "5a"))
    if partial is None:
        continue
    for start, count in ((0, 4), (4, 3), (7, 5)):
        index = np.arange(start, start + count)
        numbers = np.outer(index, np.arange(3)).astype(np.float32)
        chunk = Chunk.from_stacked(start, [numbers, index])
        header, buffers = encode(chunk, {"attempt": 7})
        partial.append(header, buffers, chunk.start, chunk.count, chunk.hashes)
    if partial.commit(partial.digest):
        made.append(split)
    with store.get(SegmentName(key, split, "5a")) as segment:
        assert segment.digest.count == 12
print((store.store_id, made))
"""


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    with opening(tmp_path) as open_:
        yield open_


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts workers that have loaded everything and wait to be told; none outlives the test."""
    with contextlib.ExitStack() as stack:

        def start_(root: Path, owner: str, splits: int, points: str = "") -> Any:
            process = stack.enter_context(worker(root, owner, splits, points))
            stack.callback(process.kill)  # a stopped one, too
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            return process

        yield start_


def worker(root: Path, owner: str, splits: int, points: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(root), owner, KEY, str(splits)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, VARIABLE: points},
    )


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


@pytest.mark.parametrize("visit", CACHE, ids=str)
def test_after_a_kill_at(visit: Visit, opened: Opened, tmp_path: Path, start: Start) -> None:
    point = visit.name
    process = start(tmp_path, OWNER, 1, f"{point}=kill@{visit.at}")
    _, said = process.communicate("go\n", DEADLINE_S)
    assert process.returncode == -signal.SIGKILL, said
    assert f"failpoint {point}: kill" in said
    there = holds(opened("h:2").get(ONE), split_of())
    assert there == (point in ("worker.put.after_rename", "worker.get.before_read"))
    # What was whole but for its name gets it now; what was not is gone on with.
    store = opened()
    if point == "worker.put.after_append":
        partial = begun(store)
        assert partial.elements == 7
        partial.release()
        assert put(store, ONE)
    assert holds(store.get(ONE), split_of())
    assert names(tmp_path) == [f"{KEY}/1-5a.seg"]
    assert verify(seg(tmp_path)).damage == ""


def test_many_who_begin_at_once_agree_and_make_each_segment_once(
    tmp_path: Path, start: Start
) -> None:
    root, splits = tmp_path / "new", 12
    processes = [start(root, f"h:{number}", splits) for number in range(4)]
    for process in processes:
        go(process)
    said = []
    for process in processes:
        out, errors = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, errors
        said.append(ast.literal_eval(out))
    assert len({store_id for store_id, _ in said}) == 1
    made = [split for _, splits_made in said for split in splits_made]
    assert sorted(made) == list(range(1, splits + 1)), "one of them made each"
    assert [path.suffix for path in (root / KEY).iterdir()] == [".seg"] * splits
    with opening(root) as open_:
        store = open_("h:9")
        for split in range(1, splits + 1):
            assert holds(store.get(SegmentName(KEY, split, "5a")), split_of())


def test_what_another_process_writes_is_not_put(
    opened: Opened, tmp_path: Path, start: Start
) -> None:
    process = start(tmp_path, OWNER, 1, "worker.put.after_append=stop")
    go(process)
    assert os.waitid(os.P_PID, process.pid, os.WSTOPPED) is not None
    for owner in (OWNER, "h:2"):
        assert opened(owner).put(ONE) is None
    assert part(tmp_path).exists()
    process.send_signal(signal.SIGCONT)
    out, errors = process.communicate(timeout=DEADLINE_S)
    assert ast.literal_eval(out)[1] == [1], errors
    assert holds(opened().get(ONE), split_of())
