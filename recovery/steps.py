"""A training step that may be attempted several times.

    for attempt in step.attempts():
        with attempt:
            gradients = compute(step.batch)
            with step.commit():
                optimizer.apply(gradients)

Theory of operation. A step is its own attempt: entering it begins one, leaving it without an error
ends the step, and an error goes to `Steward.fault`, which says whether the step runs again, is
over, or the error is raised. What must not run twice is inside `commit()`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ..errors import UsageError
from .decisions import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType


class Steward(Protocol):
    """Who looks after a step."""

    def begin(self, step: Step) -> None:
        """An attempt is about to begin."""

    def fault(self, step: Step, error: BaseException) -> bool:
        """An attempt failed. Returns False if the error is to be raised."""

    def done(self, step: Step) -> None:
        """The step is over: trained, or skipped."""


class Step:
    """One step; made by a session.

    Attributes:
        number: of the step within the session, from 0; a step that runs again after a rewind has
            its number again.
        batch: what to train on; the same object in each attempt unless it was fetched again.
        epoch: number of the epoch within the session.
        taken: batches of the epoch that were done with when this one was handed out.
        attempt: number of the attempt that runs, from 1; 0 before the first.
        stage: how far the attempt has got.
        over: it was trained, skipped or given up.
        skipped: its batch is in quarantine, or was left out.
    """

    __slots__ = (
        "_entered",
        "_steward",
        "attempt",
        "batch",
        "epoch",
        "hashes",
        "number",
        "over",
        "skipped",
        "stage",
        "state",
        "taken",
    )

    def __init__(
        self, steward: Steward, number: int, batch: Any, epoch: int = 0, taken: int = 0
    ) -> None:
        self._steward = steward
        self.number, self.batch, self.epoch, self.taken = number, batch, epoch, taken
        self.attempt = 0
        self.stage = Stage.STEP
        self.over = self.skipped = False
        self.state: Any = None
        self.hashes: dict[str, int | None] | None = None
        self._entered = True

    def attempts(self) -> Iterator[Step]:
        """Attempts, each to be entered by `with`, until one succeeds or it is given up.

        Raises:
            UsageError: the one before was not entered.
        """
        while not self.over:
            if not self._entered:
                raise UsageError("an attempt was not entered: write `with attempt:` in the loop")
            self._entered = False
            yield self

    def commit(self) -> _Commit:
        """A context for what must not run twice, such as the optimizer's update.

        An error inside it, or after it, is only retried if the session has a snapshot to restore.
        """
        return _Commit(self)

    def __enter__(self) -> Step:
        self.attempt += 1
        self._entered = True
        self._steward.begin(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if error is None:
            self.over = True
            self._steward.done(self)
            return False
        del trace  # would keep the frames that a retry has to let go
        return self._steward.fault(self, error)


class _Commit:
    """The part of an attempt that must not run twice."""

    __slots__ = ("_step",)

    def __init__(self, step: Step) -> None:
        self._step = step

    def __enter__(self) -> None:
        self._step.stage = Stage.COMMITTING

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._step.stage = Stage.COMMITTED
