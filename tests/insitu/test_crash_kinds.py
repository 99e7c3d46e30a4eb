"""DaiFu's seven kinds of crashes: each is repaired in place, and the weights are as without it.

Every program fails at some step, goes on in its living process, trains each batch exactly once, and
ends with the very bytes that the program without the fault ends with.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import penstock
from penstock import Backoff, InSituSession, RecoveryPolicy, RecoveryRule
from penstock.recovery.incidents import Incident, load_all
from penstock.recovery.operator_socket import request
from penstock.recovery.quarantine import load_arrays

from .programs import FEATURES, ROWS, STEPS, Batch, Loader, Program, fault_free

WAIT = RecoveryPolicy((RecoveryRule((Exception, MemoryError), "wait", 3),), operator_timeout_s=60)
QUICK = Backoff(first_s=0.001)
SCRIPT = Path(__file__).with_name("programs.py")


def train(program: Program, policy: RecoveryPolicy, batches: Any = None, **more: Any) -> Any:
    session = InSituSession(
        Loader() if batches is None else batches,
        policy,
        snapshot=program.snapshot,
        restore=program.restore,
        **more,
    )
    program.run(session)
    return session.report()


def check(program: Program) -> None:
    assert program.trained == list(range(STEPS))
    assert program.fingerprint() == fault_free().fingerprint()


def waiting(root: Path) -> Incident:
    """The incident that a program waits in."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for one in load_all(root):
            if one.waiting:
                return one
        threading.Event().wait(0.01)
    raise AssertionError("no program waits")


def repaired(program: Program, root: Path, **wanted: Any) -> Any:
    """Trains in a thread while an operator sets values, and retries."""
    with ThreadPoolExecutor(1) as pool:
        settable = {"config": program.config}
        report = pool.submit(lambda: train(program, WAIT, incidents=root, settable=settable))
        values = {f"config.{name}": value for name, value in wanted.items()}
        message = {"version": 1, "do": "retry", "set": values}
        assert request(waiting(root).directory, message)["done"]
        return report.result(60)


def once(number: int, error: Exception) -> Any:
    """A crash at the batch of that number, the first time only."""
    left = [error]

    def crash(program: Program, batch: Batch) -> None:
        if batch["number"] == number and left:
            raise left.pop()

    return crash


def test_api_misuse_is_repaired_by_an_operator(tmp_path: Path) -> None:
    program = Program()
    program.config.reduce = "avarage"
    assert repaired(program, tmp_path, reduce="mean").actions == {"wait": 1}
    check(program)
    (one,) = load_all(tmp_path)
    assert "has no attribute 'avarage'" in one.report["error"]
    assert one.report["settable"]["config.reduce"] == "'avarage'"


def test_a_tensor_mismatch_is_repaired_by_fetching_the_batch_again() -> None:
    wrong = [20]

    def preprocess(program: Program, batch: Batch) -> None:
        if batch["number"] in wrong:
            wrong.clear()
            batch["x"].shape = (FEATURES, ROWS)  # in place, as careless code does
            raise ValueError(f"matmul: {batch['x'].shape} does not fit")

    program = Program(preprocess)
    policy = RecoveryPolicy((RecoveryRule(ValueError, "refetch"),))
    report = train(program, policy)
    check(program)
    assert report.altered == ("step 20: batch['x']",)


def test_a_resource_bug_is_repaired_by_an_operator(tmp_path: Path) -> None:
    program = Program()
    program.config.scratch = 1 << 58  # no machine has that
    assert repaired(program, tmp_path, scratch=1 << 10).actions == {"wait": 1}
    check(program)
    (one,) = load_all(tmp_path)
    assert "Unable to allocate" in one.report["error"]
    assert any("make less of it" in hint for hint in one.report["suggestions"])


def test_contention_is_waited_out(tmp_path: Path) -> None:
    path = tmp_path / "device"
    with path.open("w") as other, path.open("w") as own:
        tries = []

        def need(program: Program, batch: Batch) -> None:
            if batch["number"] == 30:
                tries.append(batch)
                if len(tries) == 3:
                    fcntl.flock(other, fcntl.LOCK_UN)  # the other one has done its work
                fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)

        fcntl.flock(other, fcntl.LOCK_EX)
        program = Program(need)
        policy = RecoveryPolicy((RecoveryRule(BlockingIOError, "retry", 5, QUICK),))
        assert train(program, policy).actions == {"retry": 2}
    check(program)
    assert tries[0] is tries[2], "the very same batch"


def test_a_path_that_appears_later_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "shard-7"

    class Sharded(Loader):
        tries = 0

        def __iter__(self) -> Iterator[Batch]:
            for batch in super().__iter__():
                if batch["number"] == 7:
                    self.tries += 1
                    if self.tries == 4:
                        path.write_text("7")
                    batch["number"] = int(path.read_text())
                yield batch

    program = Program()
    policy = RecoveryPolicy((RecoveryRule(FileNotFoundError, "retry", 10, QUICK),))
    assert train(program, policy, Sharded()).actions == {"retry": 3}
    check(program)


def test_exceptional_data_is_skipped_and_kept(tmp_path: Path) -> None:
    class Spoiled(Loader):
        def __iter__(self) -> Iterator[Batch]:
            for batch in super().__iter__():
                if batch["number"] == 50:
                    batch["x"][3, 5] = np.nan
                yield batch

    program = Program()
    policy = RecoveryPolicy((RecoveryRule(FloatingPointError, "skip"),))
    report = train(program, policy, Spoiled(), quarantine=tmp_path)
    assert program.trained == [number for number in range(STEPS) if number != 50]
    assert program.fingerprint() == fault_free(without=50).fingerprint()
    (skipped,) = report.skipped
    assert skipped.quarantine is not None
    kept = load_arrays(skipped.quarantine)["batch['x']"]
    assert np.argwhere(np.isnan(kept)).tolist() == [[3, 5]]


@pytest.mark.parametrize("error", [RuntimeError("all_reduce: peer is gone"), OSError(5, "I/O")])
def test_a_transient_error_is_retried_by_default(error: Exception) -> None:
    program = Program(once(41, error))
    fast = tuple(
        RecoveryRule(rule.errors, rule.action, rule.attempts, QUICK)
        for rule in RecoveryPolicy().rules
    )
    report = train(program, RecoveryPolicy(fast))
    check(program)
    assert report.actions == {"retry": 1}


def test_a_process_without_a_terminal_is_repaired_from_the_command_line(tmp_path: Path) -> None:
    root = tmp_path / "incidents"
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(root)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    with process:
        try:
            identity = waiting(root).identity
            command = [sys.executable, "-m", "penstock", "repair", identity]
            subprocess.run(
                [*command, "--set", 'config.reduce="mean"', "--directory", str(root)],
                check=True,
                timeout=120,
                capture_output=True,
            )
            told, _ = process.communicate(timeout=120)
        finally:
            process.kill()
    assert told.split() == [str(STEPS), fault_free().fingerprint()]


def test_every_kind_of_crash_ends_an_unguarded_program(tmp_path: Path) -> None:
    """The faults are real: without a session each of them is the program's end."""
    misuse, resource = Program(), Program()
    misuse.config.reduce, resource.config.scratch = "avarage", 1 << 58
    for program, error in ((misuse, AttributeError), (resource, MemoryError)):
        with pytest.raises(error):
            program.step(next(iter(Loader())))
    policy = penstock.RecoveryPolicy((RecoveryRule(KeyError, "retry"),))
    with pytest.raises(RuntimeError, match="peer"):
        train(Program(once(41, RuntimeError("peer"))), policy)
