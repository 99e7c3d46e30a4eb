"""The decorator: a call is a step, its arguments are the batch."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.errors import UsageError
from penstock.recovery.steps import Step

RETRY = penstock.RecoveryPolicy((penstock.RecoveryRule(ValueError, "retry", attempts=2),))


def test_a_call_is_made_again_with_the_same_arguments() -> None:
    seen: list[Any] = []

    @penstock.in_situ(policy=RETRY)
    def train(batch: list[int], *, rate: float) -> float:
        """Trains."""
        seen.append((batch, rate))
        if len(seen) == 1:
            raise ValueError("not yet")
        return sum(batch) * rate

    assert train([1, 2], rate=2.0) == 6.0
    assert seen == [([1, 2], 2.0)] * 2
    assert (train.__name__, train.__doc__) == ("train", "Trains.")


def test_methods_and_plain_decoration() -> None:
    class Model:
        calls = 0

        @penstock.in_situ
        def step(self, batch: int) -> int:
            self.calls += 1
            if self.calls == 2:
                raise RuntimeError("once")
            return batch

    model = Model()
    assert [model.step(i) for i in range(4)] == list(range(4))
    assert model.calls == 5


def test_a_skipped_call_gives_what_it_was_told_and_keeps_its_arguments(tmp_path: Path) -> None:
    policy = penstock.RecoveryPolicy((penstock.RecoveryRule(ValueError, "skip"),))

    @penstock.in_situ(policy=policy, quarantine=tmp_path, skipped=-1.0)
    def train(batch: str) -> float:
        return float(batch)

    assert [train(text) for text in ("1", "x", "3")] == [1.0, -1.0, 3.0]
    (kept,) = tmp_path.iterdir()
    assert json.loads((kept / "error.json").read_text())["plain"] == {"batch[0][0]": "'x'"}


def test_a_commit_in_a_function_does_not_run_twice() -> None:
    applied = []

    @penstock.in_situ(policy=RETRY, pass_step=True)
    def train(batch: int, step: Step) -> None:
        with step.commit():
            applied.append(batch)
            raise ValueError("half done")

    with pytest.raises(ValueError, match="half done"):
        train(1)
    assert applied == [1]


def test_many_threads_may_call_it() -> None:
    failed: set[int] = set()

    @penstock.in_situ(
        policy=penstock.RecoveryPolicy(RETRY.rules, per_fingerprint=1000, overall=1000)
    )
    def train(batch: int) -> int:
        if batch not in failed:
            failed.add(batch)
            raise ValueError("the first time")
        return batch

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(train, range(200))) == list(range(200))


def test_what_runs_later_is_refused() -> None:
    async def later() -> None:
        pass

    def generator() -> Any:
        yield 1

    for function in (later, generator, 3):
        with pytest.raises(UsageError, match="in_situ is for an ordinary function"):
            penstock.in_situ(function)


def test_a_policy_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="policy must be a RecoveryPolicy, not 'retry'"):
        penstock.in_situ(int, policy="retry")  # type: ignore[arg-type]
