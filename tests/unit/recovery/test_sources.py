"""Where batches come from: faults of iterators, data with a state, loops that are left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from penstock.errors import InSituError
from penstock.recovery.policy import Action, RecoveryPolicy, RecoveryRule
from penstock.recovery.session import Session
from penstock.recovery.steps import Step

from .loops import REFETCH, RETRY, REWIND, SKIP, Failing, Loader, train


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


@pytest.mark.parametrize("make", [range, lambda n: Loader(Failing()), lambda n: iter(range(n))])
def test_a_step_that_was_given_up_is_handed_out_again(make: Any) -> None:
    session, fails = Session(make(6), SKIP), Failing(2, error=KeyError)
    with pytest.raises(KeyError):
        train(session, fails)
    assert session.report().trained == 2
    assert train(session, fails) == [2, 3, 4, 5]


def test_a_fault_of_the_iterator_may_be_rewound() -> None:
    weights, saved = [0], [0]
    session = Session(Loader(Failing(4)), REWIND, rewind=lambda: weights.__setitem__(0, saved[0]))
    for step in session.steps():
        for attempt in step.attempts():
            with attempt:
                weights[0] += step.batch
        if step.number == 1:
            session.commit()
            saved[0] = weights[0]
    assert weights == [15]
    assert session.report().actions == {"rewind": 1}
    assert session.report().trained == 6 + 2


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


def finished(step: Step) -> Any:
    with step:
        return step.batch


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_loop_that_a_fault_of_the_iterator_ended_goes_on_where_it_was(
    error: type[BaseException],
) -> None:
    # A generator that has raised only ends, which must not be taken for the end of the epoch.
    session = Session(Loader(Failing(3, error=error)), RecoveryPolicy(()))
    steps = session.steps()
    trained = [finished(next(steps)) for _ in range(3)]
    with pytest.raises(error):
        next(steps)
    assert trained == [0, 1, 2]
    assert train(session, Failing()) == [3, 4, 5]


def test_a_loop_that_a_failed_refetch_ended_goes_on_where_it_was() -> None:
    session = Session(Loader(Failing(3)), REFETCH)
    with pytest.raises(ValueError, match="as it was told to"):
        train(session, Failing(1))
    assert train(session, Failing()) == [1, 2, 3, 4, 5]


def test_a_batch_that_is_handed_out_again_is_compared_with_what_was_delivered() -> None:
    class Fresh:
        def __iter__(self) -> Iterator[Any]:
            return iter([np.arange(3), np.arange(3)])

    session = Session(Fresh(), REFETCH)
    step = next(session.steps())
    step.batch *= 0
    assert [one.tolist() for one in train(session, Failing(0))] == [[0, 1, 2]] * 2
    assert session.report().altered == ("step 0: batch",)


def test_a_commit_within_a_step_is_at_its_beginning() -> None:
    saved: list[int] = []
    data = Stateful(Failing())
    session = Session(data, REWIND, rewind=lambda: trained.__delitem__(slice(saved[-1], None)))
    fails, trained = Failing(4), list[int]()
    for step in session.steps():
        if step.number == 2:
            session.commit()
            saved.append(len(trained))
        for attempt in step.attempts():
            with attempt:
                fails()
                trained.append(step.batch)
    assert trained == list(range(5))
