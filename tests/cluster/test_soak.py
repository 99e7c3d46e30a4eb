"""`penstock soak`, for two minutes in pieces: random faults, and every epoch exact all the same."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from penstock.proto.hashing import Digest
from penstock.soak.data import HASH_BYTES, hash_of
from penstock.soak.trainer import Reading
from penstock.soak.trainers import Judge
from penstock.soak.verdicts import Checker

ELEMENTS = [bytes([i]) * HASH_BYTES for i in range(20)]
DIGEST = Digest(20, 1, 2)


@pytest.mark.slow
@pytest.mark.timeout(600)  # its own bounds end it before
@pytest.mark.parametrize("seed", [11, 12, 14])  # in 14 everything dies together
def test_random_faults_lose_repeat_alter_and_misplace_nothing(seed: int, tmp_path: Path) -> None:
    directory = tmp_path / "soak"
    command = [sys.executable, "-m", "penstock", "soak", "--seconds", "40", "--json"]
    command += ["--seed", str(seed), "--directory", str(directory)]
    command += ["--workers", "2", "--trainers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["exact"]
    assert not found["problems"]
    assert sum(times for kind, times in found["faults"].items() if "kill -9" in kind) >= 1
    assert sum(found["faults"].values()) >= 3
    checked = found["pipelines"].values()
    assert sum(pipeline["epochs"] for pipeline in checked) >= 2
    assert sum(pipeline["elements"] for pipeline in checked) > 2000
    for wrong in ("lost", "duplicated", "altered", "misplaced"):
        assert sum(pipeline[wrong] for pipeline in checked) == 0


def test_ctrl_c_ends_a_soak_and_shows_what_was_checked(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "penstock", "soak", "--seconds", "600", "--workers", "1"]
    command += ["--standbys", "0", "--trainers", "1", "--directory", str(tmp_path / "soak")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = ""
        for line in process.stdout:
            seen += line
            if "s  worker-0" in line:  # the first fault: all runs
                os.kill(process.pid, signal.SIGINT)
                break
        rest = process.stdout.read()
    assert process.returncode == 130, seen + rest
    assert "Against a plain local run" in rest
    assert "interrupted" in rest


def test_a_directory_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    command = [sys.executable, "-m", "penstock", "soak", "--directory", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--directory must be an empty directory" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


@pytest.fixture
def judge() -> Judge:
    """Knows one pipeline of 20 elements."""
    return Judge(Checker({"p": Counter(ELEMENTS)}), {"p": DIGEST})


def judged(judge: Judge, folder: Path, sequence: list[bytes], digest: Digest = DIGEST) -> list[str]:
    reading = Reading(0, "p", 1, 4, "", 0, 1, 1 << 20, str(folder))
    reading.path(0).write_bytes(b"".join(sequence))
    return judge.whole(reading, 0, {"number": 0, "count": digest.count, "total": digest.total})


def test_the_judge_finds_nothing_wrong_with_what_is_right(judge: Judge, tmp_path: Path) -> None:
    assert judged(judge, tmp_path, ELEMENTS) == []
    assert judged(judge, tmp_path, ELEMENTS) == []
    assert dataclasses.asdict(judge.tallies["p"]) == {
        **{"epochs": 2, "reread": 1, "broken_off": 0, "elements": 40},
        **{"lost": 0, "duplicated": 0, "altered": 0, "misplaced": 0},
    }


@pytest.mark.parametrize(
    ("sequence", "complaint"),
    [
        (ELEMENTS[:-1], "1 lost, 0 duplicated, 0 altered, 0 misplaced"),
        ([*ELEMENTS, ELEMENTS[3]], "0 lost, 1 duplicated, 0 altered, 0 misplaced"),
        ([*ELEMENTS[:-1], b"?" * HASH_BYTES], "0 lost, 0 duplicated, 1 altered, 1 misplaced"),
        ([ELEMENTS[1], ELEMENTS[0], *ELEMENTS[2:]], "0 lost, 0 duplicated, 0 altered, 2 misplaced"),
    ],
    ids=["lost", "repeated", "altered", "misplaced"],
)
def test_the_judge_names_what_is_wrong(
    judge: Judge, tmp_path: Path, sequence: list[bytes], complaint: str
) -> None:
    assert judged(judge, tmp_path, ELEMENTS) == []
    (problem,) = judged(judge, tmp_path, sequence)
    assert complaint in problem
    assert "pipeline p, seed 1, epoch 0" in problem


def test_the_judge_does_not_believe_a_digest_that_is_not_the_local_one(
    judge: Judge, tmp_path: Path
) -> None:
    (problem,) = judged(judge, tmp_path, ELEMENTS, Digest(20, 3, 2))
    assert "that of a local run" in problem


def test_the_hash_tells_type_shape_and_content_apart() -> None:
    different = [
        np.int64(1),
        np.int32(1),
        np.array([1], np.int64),
        np.array([[1]], np.int64),
        np.array([1, 0], np.int64),
        b"1",
        np.array([b"1"], object),
        np.array([b"1", b""], object),
        np.array([b"", b"1"], object),
        (np.int64(1), np.int64(2)),
        (np.int64(2), np.int64(1)),
    ]
    assert len({hash_of(element) for element in different}) == len(different)
    assert hash_of((np.int64(1), b"a")) == hash_of((np.int64(1), b"a"))
