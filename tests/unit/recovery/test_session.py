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
from penstock.recovery.policy import Action, RecoveryPolicy, RecoveryRule
from penstock.recovery.quarantine import load_arrays
from penstock.recovery.session import Session

RETRY = RecoveryPolicy((RecoveryRule(Exception, Action.RETRY, attempts=3),))
SKIP = RecoveryPolicy((RecoveryRule(ValueError, Action.SKIP),))
REFETCH = RecoveryPolicy((RecoveryRule(ValueError, Action.REFETCH),))
REWIND = RecoveryPolicy((RecoveryRule(ValueError, Action.REWIND),))


class Failing:
    """Raises `error` at the given calls, counted from 0."""

    def __init__(self, *calls: int, error: type[BaseException] = ValueError) -> None:
        self._calls, self._error, self.count = set(calls), error, 0

    def __call__(self) -> None:
        self.count += 1
        if self.count - 1 in self._calls:
            raise self._error("as it was told to")


class Loader:
    """Batches 0 to 5 in a fresh iterator each time; `broken` raises before some of them."""

    def __init__(self, broken: Failing) -> None:
        self._broken = broken

    def __iter__(self) -> Iterator[int]:
        for number in range(6):
            self._broken()
            yield number


def train(session: Session, fails: Failing, epochs: int = 1) -> list[Any]:
    trained = []
    for step in session.steps(epochs):
        for attempt in step.attempts():
            with attempt:
                fails()
                trained.append(step.batch)
    return trained


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


@pytest.mark.parametrize("call", range(6))
def test_a_fault_of_the_iterator_loses_and_repeats_nothing(call: int) -> None:
    session = Session(Loader(Failing(call)), RETRY)
    assert train(session, Failing()) == list(range(6))
    assert session.report().actions == {"retry": 1}


def test_a_sequence_is_not_passed_over_from_its_beginning() -> None:
    asked: list[int] = []

    class Rows(list[int]):
        def __getitem__(self, index: Any) -> Any:
            asked.append(index)
            if len(asked) == 4:
                raise OSError("not now")
            return super().__getitem__(index)

    rows = Rows(range(6))
    policy = RecoveryPolicy((RecoveryRule(OSError, Action.RETRY),))
    assert train(Session(rows, policy), Failing()) == list(range(6))
    assert asked == [0, 1, 2, 3, 3, 4, 5]


def test_the_end_of_a_generator_that_failed_is_not_believed() -> None:
    session = Session(iter(Loader(Failing(3))), RETRY)
    with pytest.raises(InSituError, match=r"ended right after it had failed \(ValueError: as it"):
        train(session, Failing())


def test_an_iterator_that_goes_on_after_a_fault_is_believed() -> None:
    class Numbers(Iterator[int]):
        def __init__(self) -> None:
            self.fails, self.next = Failing(3), 0

        def __next__(self) -> int:
            self.fails()
            if self.next == 5:
                raise StopIteration
            self.next += 1
            return self.next - 1

    assert train(Session(Numbers(), RETRY), Failing()) == list(range(5))


def test_data_that_shrinks_when_opened_again_is_found_out() -> None:
    class Shrinking:
        rows, fails = 6, Failing(5)

        def __iter__(self) -> Iterator[int]:
            for number in range(self.rows):
                self.fails()
                self.rows = 3
                yield number

    # The first visit goes on to 6, because its range() was made before `rows` shrank.
    with pytest.raises(InSituError, match="at least 5 batches in epoch 0, and opened again it has"):
        train(Session(Shrinking(), RETRY), Failing())


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


def test_a_loop_that_is_left_goes_on_where_it_was() -> None:
    session = Session(range(6))
    seen = []
    for step in session.steps():
        for attempt in step.attempts():
            with attempt:
                seen.append(step.batch)
        if step.batch == 2:
            break
    assert seen + train(session, Failing()) == list(range(6))


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


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"batches": 3}, "batches"),
        ({"policy": "retry"}, "policy"),
        ({"snapshot": lambda: 1}, "snapshot and restore"),
        ({"rewind": 3}, "rewind"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        Session(**{"batches": [1], **arguments})


class Stateful:
    """Goes on where its state says; what it has in its hands when it fails is lost."""

    def __init__(self, broken: Failing) -> None:
        self.next, self._broken = 0, broken

    def __iter__(self) -> Iterator[int]:
        while self.next % 6 < 5 or self.next == 0:
            self.next += 1
            self._broken()
            yield self.next - 1
        self.next = 0

    def state_dict(self) -> dict[str, int]:
        return {"next": self.next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.next = state["next"]


def test_an_object_with_a_state_goes_on_where_that_says() -> None:
    policy = RecoveryPolicy(
        (RecoveryRule(OSError, Action.RETRY), RecoveryRule(ValueError, Action.REFETCH))
    )
    session = Session(Stateful(Failing(0, 3, error=OSError)), policy)
    assert train(session, Failing(1, 4), epochs=2) == [*range(5), *range(5)]
    assert session.report().actions == {"retry": 2, "refetch": 2}
    weights = [0]
    rewound = Session(Stateful(Failing()), REWIND, rewind=lambda: weights.__setitem__(0, 3))
    fails = Failing(4)
    for step in rewound.steps():
        for attempt in step.attempts():
            with attempt:
                fails()
                weights[0] += step.batch
        if step.number == 2:
            rewound.commit()
    assert weights == [10]
