"""Answers of operators where threads share a function, and answers that are refused."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock.errors import PenstockError
from penstock.recovery.in_situ import in_situ
from penstock.recovery.incidents import load_all

from .test_waiting import WAIT, command, too_large, training, wait_for_incident


def double(batch: int) -> int:
    raise ZeroDivisionError(f"batch {batch}")


def test_threads_that_share_a_function_have_an_answer_each(tmp_path: Path) -> None:
    """What one thread's answer led to is not told by another thread's call that ends meanwhile."""
    root, path, old = tmp_path / "incidents", tmp_path / "fix.py", double.__code__
    path.write_text(f'MODULE = "{__name__}"\ndef double(batch): return missing(batch)\n')
    path.chmod(0o600)
    answered, over = threading.Event(), threading.Event()

    @in_situ(policy=WAIT, incidents=root, allow_patch=True)
    def step(batch: int) -> int:
        if batch == 0:
            return 0
        if double.__code__ is not old and not answered.is_set():  # patched: a new attempt
            answered.set()
            assert over.wait(20)
        return double(batch)

    with ThreadPoolExecutor(2) as pool:
        try:
            failing = pool.submit(step, 21)
            command(root, "repair", wait_for_incident(root), "--patch", str(path))
            assert answered.wait(20)
            assert pool.submit(step, 0).result(20) == 0
            assert double.__code__ is not old, "the patch is that other call's"
            over.set()
            second = wait_for_incident(root, 2)
            assert double.__code__ is old, "it did not help"
            command(root, "repair", second, "--skip")
            assert failing.result(20) is None
        finally:
            over.set()
            double.__code__ = old
    results = [one.outcome["result"] for one in load_all(root) if one.outcome]
    assert results == ["the step failed again", "the training went on"]


def test_what_is_not_finite_is_refused(tmp_path: Path) -> None:
    _, trained = training(tmp_path, too_large)
    identity = wait_for_incident(tmp_path)
    for value in ("NaN", "Infinity", "-Infinity"):
        with pytest.raises(PenstockError, match="is not JSON"):
            command(tmp_path, "repair", identity, "--set", f"config.size={value}")
    command(tmp_path, "repair", identity, "--skip")
    assert trained.result(20) == [0, 1, 3, 4]
