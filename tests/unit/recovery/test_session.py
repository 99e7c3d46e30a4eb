"""Sessions: every batch trained once, whatever fails, on data of this process."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.errors import InSituError, RestartNeededError, UsageError
from penstock.recovery.decisions import Means, Stage
from penstock.recovery.guard import Guard
from penstock.recovery.policy import Action, RecoveryPolicy, RecoveryRule
from penstock.recovery.quarantine import load_arrays
from penstock.recovery.session import Session

from .loops import REFETCH, RETRY, REWIND, SKIP, Failing, train


def test_a_failing_step_runs_again_on_the_very_same_batch() -> None:
    batches = [np.arange(3) + i for i in range(5)]
    session = Session(batches, RETRY)
    trained = train(session, Failing(1, 2, 5))
    assert [id(one) for one in trained] == [id(one) for one in batches]
    report = session.report()
    assert (report.trained, report.faults, report.actions) == (5, 3, {"retry": 3})
    assert len(report.recovery_s) == 3


def test_an_error_is_raised_as_it_is_when_the_rules_are_used_up() -> None:
    session = Session(range(5), RETRY)
    with pytest.raises(ValueError, match="as it was told to") as caught:
        train(session, Failing(2, 3, 4, 5))
    assert caught.traceback[-1].name == "__call__", "the traceback is whole"
    assert session.position == "epoch 0, batch 2"
    assert session.report().trained == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_what_ends_a_process_is_not_retried(error: type[BaseException]) -> None:
    with pytest.raises(error):
        train(Session(range(5)), Failing(1, error=error))


def test_a_skipped_batch_is_kept_and_counted(tmp_path: Path) -> None:
    batches = [np.full(2, i) for i in range(4)]
    session = Session(batches, SKIP, quarantine=tmp_path)
    assert [int(one[0]) for one in train(session, Failing(2))] == [0, 1, 3]
    (skipped,) = session.report().skipped
    assert (skipped.step, skipped.position) == (2, "epoch 0, batch 2")
    assert skipped.error == "ValueError: as it was told to"
    assert skipped.quarantine is not None
    np.testing.assert_array_equal(load_arrays(skipped.quarantine)["batch"], batches[2])
    assert session.report().trained == 3


def test_a_batch_that_the_step_spoiled_is_fetched_again_and_named() -> None:
    class Fresh:
        def __iter__(self) -> Iterator[dict[str, Any]]:
            for number in range(4):
                yield {"x": np.full(3, float(number)), "y": number}

    trained = []
    session = Session(Fresh(), REFETCH)
    for step in session.steps():
        for attempt in step.attempts():
            with attempt:
                if step.number == 2 and attempt.attempt == 1:
                    step.batch["x"] *= 0
                    raise ValueError("half done")
                trained.append((step.batch["x"].tolist(), step.batch["y"]))
    assert trained == [([float(i)] * 3, i) for i in range(4)]
    assert session.report().altered == ("step 2: batch['x']",)
    assert session.report().refetched == 1


def test_data_that_differs_when_fetched_again_is_named_and_not_trained_on() -> None:
    class Drifting:
        visits = 0

        def __iter__(self) -> Iterator[Any]:
            self.visits += 1
            return iter([(i, np.array([i * self.visits])) for i in range(4)])

    with pytest.raises(Exception, match=r"not the one that was delivered: batch\[1\]"):
        train(Session(Drifting(), REFETCH), Failing(2))


@pytest.mark.parametrize("stage", ["in", "after"])
def test_a_commit_that_had_begun_does_not_run_twice(stage: str) -> None:
    applied = []

    def loop() -> None:
        for step in Session(range(4), RETRY).steps():
            for attempt in step.attempts():
                with attempt:
                    with step.commit():
                        applied.append(step.batch)
                        if step.batch == 2 and stage == "in":
                            raise ValueError("half")
                    if step.batch == 2 and stage == "after":
                        raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        loop()
    assert applied == [0, 1, 2]


def test_a_fault_after_the_commit_may_be_passed_over_and_the_batch_is_not_lost() -> None:
    applied = []
    session = Session(range(4), SKIP)
    for step in session.steps():
        for attempt in step.attempts():
            with attempt:
                with step.commit():
                    applied.append(step.batch)
                if step.batch == 2:
                    raise ValueError("the logging failed")
    assert applied == [0, 1, 2, 3]
    assert session.report().trained == 4
    assert session.report().skipped == ()


def test_a_snapshot_makes_half_a_commit_retryable() -> None:
    weights = np.zeros(2)
    fails = Failing(3)
    session = Session(
        range(5), RETRY, snapshot=weights.copy, restore=lambda old: np.copyto(weights, old)
    )
    for step in session.steps():
        for attempt in step.attempts():
            with attempt, step.commit():
                weights[0] += step.batch
                fails()
                weights[1] += step.batch
    assert weights.tolist() == [10, 10]


def test_a_rewind_goes_back_to_the_last_commit_even_into_the_epoch_before() -> None:
    weights, saved, seen = [0], [0], []

    def rewind() -> None:
        weights[0] = saved[0]

    session = Session(range(1, 5), REWIND, rewind=rewind)
    fails = Failing(5)
    for step in session.steps(2):
        for attempt in step.attempts():
            with attempt:
                seen.append((step.epoch, step.batch, step.number))
                fails()
                weights[0] += step.batch
        if step.number == 2 and step.over and saved[0] == 0:
            session.commit()
            saved[0] = weights[0]
    assert weights == [20], "two epochs of 1 + 2 + 3 + 4"
    assert [one[:2] for one in seen] == [
        (0, 1), (0, 2), (0, 3), (0, 4), (1, 1), (1, 2), (0, 4), (1, 1), (1, 2), (1, 3), (1, 4)
    ]  # fmt: skip
    assert seen[6] == (0, 4, 3), "a step that runs again has its number again"


def test_without_a_commit_there_is_no_rewind() -> None:
    with pytest.raises(ValueError, match="as it was told"):
        train(Session(range(4), REWIND, rewind=lambda: None), Failing(1))


def test_a_restart_is_asked_for_by_an_error_of_its_own() -> None:
    policy = RecoveryPolicy((RecoveryRule(ValueError, Action.RESTART),))
    with pytest.raises(RestartNeededError, match="the data is at epoch 0, batch 2") as caught:
        train(Session(range(4), policy), Failing(2))
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.exit_code == 75


def test_frames_are_let_go_before_the_retry() -> None:
    class Tensor:
        pass

    alive: list[weakref.ref[Tensor]] = []
    kept: list[BaseException] = []  # as whoever logs errors does

    def deep(first: bool) -> None:
        tensor = Tensor()
        alive.append(weakref.ref(tensor))
        if first:
            try:
                raise KeyError("inner")
            except KeyError as error:
                kept.append(ValueError("out of memory"))
                raise kept[0] from error

    session = Session(range(1), RETRY)
    gc.disable()
    try:
        for step in session.steps():
            for attempt in step.attempts():
                with attempt:
                    if alive:
                        assert alive[0]() is None, "the first attempt's tensor is still there"
                    deep(not alive)
    finally:
        gc.enable()
    assert len(alive) == 2


def test_a_loop_without_attempts_is_refused() -> None:
    with pytest.raises(UsageError, match="step 0 was not attempted"):
        list(Session(range(3)).steps())
    step = next(Session(range(3)).steps())
    with pytest.raises(UsageError, match="with attempt"):
        list(step.attempts())


def test_a_failing_restore_is_named() -> None:
    def restore(state: Any) -> None:
        raise RuntimeError("no room")

    session = Session(range(3), RETRY, snapshot=lambda: 1, restore=restore)
    with pytest.raises(InSituError, match="restore failed: RuntimeError: no room"):
        train(session, Failing(1))


class HalfASource:
    """Has no `end` and no `skipped`."""

    replays = True
    open = position = commit = print


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"batches": 3}, "batches"),
        ({"batches": HalfASource()}, "batches must be a sequence, an iterable, or a Source"),
        ({"policy": "retry"}, "policy"),
        ({"snapshot": lambda: 1}, "snapshot and restore"),
        ({"rewind": 3}, "rewind"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        Session(**{"batches": [1], **arguments})


@pytest.mark.parametrize("epochs", ["x", 1.5, None, -1, True])
def test_epochs_that_are_no_number_are_named(epochs: Any) -> None:
    with pytest.raises(UsageError, match="epochs must be"):
        next(Session([1]).steps(epochs))


def test_faults_whose_errors_are_caught_cost_a_bounded_memory() -> None:
    policy = RecoveryPolicy((RecoveryRule(ValueError, Action.SKIP),), overall=5)
    guard = Guard(policy)
    for number in range(50):
        action = guard.handle(
            ValueError(str(number)), step=number, attempt=1, stage=Stage.STEP, means=Means()
        )
        assert action is (Action.SKIP if number < 5 else Action.ABORT)
    assert len(guard.history) == 5
    assert guard.history[-1].step == 49
    assert guard.counts() == {"skip": 5, "abort": 45}
