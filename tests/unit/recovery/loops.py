"""What the tests of sessions share: policies, faults, data, and a loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock.recovery.policy import Action, RecoveryPolicy, RecoveryRule
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
