"""`Session`: a training loop whose failing steps are recovered in place.

    session = Session(batches, policy)
    for step in session.steps():
        for attempt in step.attempts():
            with attempt:
                train(step.batch)

Theory of operation. The session is the only one that takes batches from the source, and counts a
batch as taken when its step is over. A fault in a step is answered on the batch that is in hand, so
the data stays where it is; a fault in the source's iterator opens a new one after what was taken.
So neither loses or repeats a batch. What is done about a fault is decided by `guard`; here it is
carried out. A session belongs to one thread; only `close` may be called from another.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InSituError, ReplayMismatchError, RestartNeededError, UsageError
from .batches import differences, hashes_of
from .decisions import Means, Stage
from .guard import Guard
from .policy import Action, check_count
from .quarantine import Quarantine
from .report import SessionReport, Skipped
from .sources import source_of
from .steps import Step
from .tracebacks import forget, summary_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from .arbitration import Arbiter
    from .guard import Operator
    from .policy import RecoveryPolicy
    from .sources import Source

_END = object()
_RECOVERIES_MAX = 100_000


@dataclass(frozen=True, slots=True)
class _Mark:
    """A place in the data, and the number of the step that begins there."""

    epoch: int
    taken: int
    number: int


class Session:
    """Recovers the steps of one training loop in place.

    Args:
        batches: a sequence, any iterable, or a `Source`. What can be iterated again is opened again
            after a fault of its iterator; it has to give the same batches then.
        policy: what is done about faults; by default `RecoveryPolicy()`.
        snapshot: gives the state that a half-done step may have touched; called before each step.
        restore: sets that state again; called before a retry.
        rewind: sets the model to what it was at the last `commit()` of this session.
        quarantine: a directory for batches that are skipped; None keeps none.
        operator: who can be asked while the program waits; None for nobody.
        arbiter: rules for all ranks of the training; None if there is one.

    Raises:
        UsageError: an argument is not accepted.
    """

    def __init__(
        self,
        batches: Any,
        policy: RecoveryPolicy | None = None,
        *,
        snapshot: Callable[[], Any] | None = None,
        restore: Callable[[Any], None] | None = None,
        rewind: Callable[[], None] | None = None,
        quarantine: str | os.PathLike[str] | None = None,
        operator: Operator | None = None,
        arbiter: Arbiter | None = None,
    ) -> None:
        if (snapshot is None) != (restore is None):
            raise UsageError("snapshot and restore belong together: give both or neither")
        for name, value in (("snapshot", snapshot), ("restore", restore), ("rewind", rewind)):
            if value is not None and not callable(value):
                raise UsageError(f"{name} must be a function, not {value!r:.80}")
        self._source: Source = source_of(batches)
        self._guard = Guard(policy, operator, arbiter=arbiter)
        self._snapshot, self._restore, self._rewind = snapshot, restore, rewind
        self._quarantine = None if quarantine is None else Quarantine(quarantine)
        self._hashing = self._source.replays and self._guard.policy.has(Action.REFETCH)
        self._iterator: Iterator[Any] | None = None
        #: What was handed out and is not over: a loop that was left gets its batch again.
        self._hand: Step | None = None
        self._place = _Mark(0, 0, 0)
        self._committed: _Mark | None = None
        self._first_epoch = 0
        self._doubt = ""
        self._failed_at_s: float | None = None
        self._trained = self._refetched = 0
        self._skipped: list[Skipped] = []
        self._altered: list[str] = []
        self._recovery_s: list[float] = []

    @property
    def position(self) -> str:
        """Where the next batch comes from, in words."""
        return self._source.position(self._place.epoch, self._place.taken)

    def steps(self, epochs: int = 1) -> Iterator[Step]:
        """The steps of so many epochs, or of the rest of one that was left in the middle.

        Args:
            epochs: iterations of the source. A rewind does not go back beyond the first of them.

        Raises:
            UsageError: a step was not attempted, or `epochs` is no number >= 0.
            InSituError: the data cannot go on after a fault of its iterator.
            RestartNeededError: the policy or the operator wants the process to be started again.
        """
        check_count("epochs", epochs, 0)
        self._first_epoch = self._place.epoch
        last = self._first_epoch + epochs
        while self._place.epoch < last:
            step = self.next_step()
            if step is None:
                continue
            yield step
            if not step.over:
                raise UsageError(
                    f"step {step.number} was not attempted: write"
                    " `for attempt in step.attempts(): with attempt: …` for each step"
                )

    def next_step(self) -> Step | None:
        """The next step, or None at the end of an epoch; `steps` is these, one after the other.

        Raises:
            InSituError, RestartNeededError: see `steps`.
        """
        step = self._next_step()
        if step is None:
            self.end_epoch()
        return step

    def end_epoch(self) -> None:
        """The next step is the first one of the next epoch, whatever is left of this one."""
        self._source.end()
        self._hand = None
        self._place = _Mark(self._place.epoch + 1, 0, self._place.number)
        self._iterator, self._doubt = None, ""

    def commit(self) -> None:
        """The trainer's checkpoint holds all steps that are over: a rewind goes back to here."""
        self._source.commit(self._place.epoch, self._place.taken)
        self._committed = self._place

    def report(self) -> SessionReport:
        """What happened so far."""
        counts = self._guard.counts()
        return SessionReport(
            trained=self._trained,
            faults=sum(counts.values()),
            actions=dict(counts),
            skipped=tuple(self._skipped),
            refetched=self._refetched,
            altered=tuple(self._altered),
            recovery_s=tuple(self._recovery_s),
        )

    def close(self) -> None:
        """Ends a pause, and asks no operator any more. Closing twice is fine."""
        self._guard.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # What steps call.

    def begin(self, step: Step) -> None:
        """See `steps.Steward`."""
        if step.attempt == 1 and self._snapshot is not None:
            step.state = self._snapshot()
        self._note_recovered()

    def done(self, step: Step) -> None:
        """See `steps.Steward`."""
        self._guard.settle(succeeded=True)
        self._trained += not step.skipped
        self._hand = None
        place = self._place
        self._place = _Mark(place.epoch, step.taken + 1, place.number + 1)

    def fault(self, step: Step, error: BaseException) -> bool:
        """See `steps.Steward`.

        Raises:
            InSituError: what was decided cannot be carried out.
            RestartNeededError: that was decided.
        """
        self._note_failed()
        summary = summary_of(error)
        action = self._decide(error, step.number, step.attempt, step.stage, step.batch)
        if action is Action.ABORT:
            step.over = True
            return False
        forget(error)
        if action is Action.REFETCH:
            action = self._refetch(step)
        if action is Action.REWIND:
            step.over = True
            self._go_back()
            return True
        if step.stage is not Stage.STEP and self._restore is None:
            # Only a skip after the commit comes here: its batch was trained on.
            step.over = True
            self.done(step)
            return True
        self._restore_state(step)
        if action is Action.SKIP:
            self._skip(step, summary)
        return True

    # What is carried out.

    def _decide(
        self, error: BaseException, number: int, attempt: int, stage: Stage, batch: Any
    ) -> Action:
        """An action that is neither WAIT nor RESTART.

        Raises:
            RestartNeededError: it is RESTART.
        """
        floor = self._committed
        action = self._guard.handle(
            error,
            step=number,
            attempt=attempt,
            stage=stage,
            means=Means(
                refetch=self._source.replays,
                rewind=self._rewind is not None
                and self._source.replays
                and floor is not None
                and floor.epoch >= self._first_epoch,
                operator=self._guard.operator,
                restore=self._restore is not None,
            ),
            position=self.position,
            batch=batch,
        )
        if action is Action.RESTART:
            raise RestartNeededError(
                f"step {number} cannot be recovered in this process ({summary_of(error)}): start it"
                f" again at its last commit; the data is at {self.position}"
            ) from error
        return action

    def _next_step(self) -> Step | None:
        """The next batch as a step, or None at the end of the epoch."""
        attempt = 0
        while True:
            place = self._place
            attempt += 1
            try:
                batch = self._take(place)
                break
            except Exception as error:
                self._note_failed()
                if isinstance(error, InSituError):
                    raise
                action = self._decide(error, place.number, attempt, Stage.FETCH, None)
                if action is Action.ABORT:
                    raise
                forget(error)
                if action is Action.REWIND:
                    self._go_back()
        self._note_recovered()
        if batch is _END:
            return None
        step = Step(self, place.number, batch, place.epoch, place.taken)
        if self._hand is not None:  # who had it may have changed it
            step.hashes = self._hand.hashes
        elif self._hashing:
            step.hashes = hashes_of(batch)
        self._hand = step
        return step

    def _take(self, place: _Mark) -> Any:
        if self._hand is not None:
            return self._hand.batch
        if self._iterator is None:
            self._iterator = self._source.open(place.epoch, place.taken)
        try:
            batch = next(self._iterator, _END)
        except BaseException as error:
            # Whatever becomes of the error: a generator that has raised only ends from now on.
            if self._source.replays:
                self._iterator = None
            else:
                self._doubt = summary_of(error)
            raise
        if batch is _END and self._doubt:
            raise InSituError(
                f"the iterator ended right after it had failed ({self._doubt}), so nobody knows"
                " whether that is the end of the data: give the session something that can be"
                " iterated again, not a generator"
            )
        self._doubt = ""
        return batch

    def _refetch(self, step: Step) -> Action:
        """Fetches the batch again; what is then to be done.

        Raises:
            Exception: what the fetch raised last, if no more can be done about it.
        """
        attempt = 0
        while True:
            attempt += 1
            self._iterator = None  # until the new one has given this batch
            try:
                iterator = self._source.open(step.epoch, step.taken)
                fresh = next(iterator, _END)
                now = hashes_of(fresh)
                given = step.hashes
                if fresh is _END or (given is not None and differences(given, now)):
                    raise ReplayMismatchError(
                        f"the batch of step {step.number} ({self.position}), fetched again, is not"
                        f" the one that was delivered: {_named(given, now, fresh is _END)}"
                    )
                break
            except Exception as error:
                action = self._decide(error, step.number, attempt, Stage.FETCH, None)
                if action is Action.ABORT:
                    raise
                forget(error)
                if action is not Action.RETRY:
                    return action
        self._iterator = iterator
        self._refetched += 1
        for name in differences(hashes_of(step.batch), now):
            self._altered.append(f"step {step.number}: {name}")
        step.batch = fresh
        return Action.RETRY

    def _go_back(self) -> None:
        assert self._rewind is not None
        assert self._committed is not None
        try:
            self._rewind()
        except Exception as failure:
            raise InSituError(f"rewind failed: {summary_of(failure)}") from failure
        self._place, self._iterator, self._hand = self._committed, None, None

    def _restore_state(self, step: Step) -> None:
        if self._restore is not None:
            try:
                self._restore(step.state)
            except Exception as failure:
                raise InSituError(f"restore failed: {summary_of(failure)}") from failure
            self._guard.restored(step.number)
        step.stage = Stage.STEP

    def _skip(self, step: Step, summary: str) -> None:
        kept = None
        if self._quarantine is not None:
            about = {"error": summary, "position": self.position, "attempts": step.attempt}
            kept = self._quarantine.store(step.number, step.batch, about)
        self._source.skipped(step.epoch, step.taken, summary)
        self._skipped.append(Skipped(step.number, self.position, summary, kept))
        step.over = step.skipped = True
        self.done(step)
        self._note_recovered()

    def _note_failed(self) -> None:
        if self._failed_at_s is None:
            self._failed_at_s = time.monotonic()

    def _note_recovered(self) -> None:
        if self._failed_at_s is not None:
            if len(self._recovery_s) < _RECOVERIES_MAX:
                self._recovery_s.append(time.monotonic() - self._failed_at_s)
            self._failed_at_s = None


def _named(given: dict[str, int | None] | None, now: dict[str, int | None], end: bool) -> str:
    return "there is none" if end else ", ".join(differences(given or {}, now))
