"""`InSituSession`: a training loop over a served dataset that is recovered in place.

Theory of operation. `recovery.session` does the work; here is where its batches come from. The
reader keeps what was delivered, so a place in the data (an epoch, and batches taken of it) becomes
a position at any time; opening the data at a place restores the reader there, in this process. What
is delivered again is verified by the reader as ever: a split's replay has to match what was
consumed. A step that only runs again touches nothing of this, because its batch is in hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import PenstockError, UsageError
from ..recovery.session import Session
from ..recovery.waiting import operator_for
from .reader import Reader
from .restoring import checked_consumed

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator

    from ..proto.position import Position
    from ..recovery.arbitration import Arbiter
    from ..recovery.policy import RecoveryPolicy
    from ..recovery.steps import Step


class ReaderSource:
    """Batches of a reader (see `recovery.sources.Source`).

    Args:
        reader: what delivers them.
        batches: what is iterated: the reader, or a dataset that was made of its own.
        batch: elements of the reader's that make one of them.

    Attributes:
        reader: what delivers them.
    """

    replays = True

    def __init__(self, reader: Reader, batches: Iterable[Any], batch: int) -> None:
        self.reader = self._reader = reader
        self._batches, self._batch = batches, batch
        #: For each epoch of the session: that of the job, and elements of it from former lives.
        self._begun: dict[int, tuple[int, int]] = {}
        self._committed: tuple[tuple[int, int], Position] | None = None
        self._opened = False
        self._ended = False

    def open(self, epoch: int, taken: int) -> Iterator[Any]:
        """See `Source`; restores the reader unless this is the beginning of its next epoch."""
        job_epoch, _ = self._begin(epoch)
        if self._opened and not (self._ended and taken == 0):
            at = self._position(epoch, taken)
            # Of an epoch of which all was taken nothing is left, which is not the next one.
            self._reader.passes_over = False
            self._reader.restore(at)
            if at.epoch > job_epoch:
                return iter(())
        self._opened, self._ended = True, False
        return self._iterate(epoch)

    def end(self) -> None:
        """See `Source`."""
        self._ended = True

    def position(self, epoch: int, taken: int) -> str:
        """See `Source`: with the text that `restore=` takes, where it can be told."""
        words = f"epoch {epoch}, batch {taken}"
        try:
            return f"{words}, {self._position(epoch, taken)}"
        except PenstockError:
            return words

    def commit(self, epoch: int, taken: int) -> None:
        """See `Source`: has the position journaled."""
        at = self._reader.commit(self._position(epoch, taken))
        self._committed = (epoch, taken), at

    def skipped(self, epoch: int, taken: int, why: str) -> None:
        """See `Source`: the ledger says it."""
        at, elements = self._element(epoch, taken)
        self._reader.record_skip(at, elements, self._batch, why)

    def _iterate(self, epoch: int) -> Iterator[Any]:
        batches, begun = iter(self._batches), False
        for batch in batches:
            if not begun and self._reader.epoch not in (None, self._begun[epoch][0]):
                # Of the epoch that a former life was in, nothing was left.
                self._begun[epoch] = (self._reader.epoch, 0)
            begun = True
            yield batch

    def _begin(self, epoch: int) -> tuple[int, int]:
        """The job's epoch, and elements of it from former lives."""
        if epoch not in self._begun:
            if epoch - 1 in self._begun:
                self._begun[epoch] = (self._begun[epoch - 1][0] + 1, 0)
            elif self._reader.epoch is None:
                at = self._reader.position(0)
                self._begun[epoch] = (at.epoch, at.consumed)
            else:
                self._begun[epoch] = (self._reader.epoch + 1, 0)
        return self._begun[epoch]

    def _position(self, epoch: int, taken: int) -> Position:
        if self._committed is not None and self._committed[0] == (epoch, taken):
            return self._committed[1]
        at, elements = self._element(epoch, taken)
        return self._reader.position(elements, epoch=at)

    def _element(self, epoch: int, taken: int) -> tuple[int, int]:
        """The job's epoch, and elements of it from its beginning."""
        job_epoch, before = self._begin(epoch)
        return job_epoch, before + taken * self._batch


class InSituSession(Session):
    """Recovers the steps of a training loop in place.

        session = penstock.InSituSession(served, policy, incidents=True)
        for step in session.steps(epochs=3):
            for attempt in step.attempts():
                with attempt:
                    train(step.batch)

    Args:
        batches: a dataset of `distribute(..., resumable=True)`, a `Reader`, or batches of this
            process: a sequence, an iterable, or an object with `state_dict` and
            `load_state_dict`.
        policy: what is done about faults; by default `RecoveryPolicy()`.
        reader: what `batches` was made of, if it is a dataset made after the service:
            `InSituSession(served.batch(32), reader=served.penstock, batch=32)`.
        batch: elements of the reader's that make one of `batches`.
        snapshot: gives the state that a half-done step may have touched; called before each step.
        restore: sets that state again; called before a retry.
        rewind: sets the model to what it was at the last `commit()` of this session.
        quarantine: a directory for batches that are skipped; None keeps none.
        incidents: a directory in which an operator finds what waits for an answer; True for the
            default one, None if nobody is to be asked.
        settable: what an operator may set, by name: `{"config": config}`.
        allow_patch: the operator may replace functions of the program (`penstock repair --patch`).
        arbiter: a `RankArbiter`, for a training on several ranks; None if there is one.

    Raises:
        UsageError: an argument is not accepted.
    """

    def __init__(
        self,
        batches: Any,
        policy: RecoveryPolicy | None = None,
        *,
        reader: Reader | None = None,
        batch: int = 1,
        snapshot: Callable[[], Any] | None = None,
        restore: Callable[[Any], None] | None = None,
        rewind: Callable[[], None] | None = None,
        quarantine: str | os.PathLike[str] | None = None,
        incidents: str | os.PathLike[str] | bool | None = None,
        settable: dict[str, Any] | None = None,
        allow_patch: bool = False,
        arbiter: Arbiter | None = None,
    ) -> None:
        source = _source(batches, reader, checked_consumed("batch", batch, 1))
        self._served = source if isinstance(source, ReaderSource) else None
        super().__init__(
            source,
            policy,
            snapshot=snapshot,
            restore=restore,
            rewind=rewind,
            quarantine=quarantine,
            operator=operator_for(incidents, settable, allow_patch),
            arbiter=arbiter,
        )

    def begin(self, step: Step) -> None:
        """See `recovery.steps.Steward`; the dispatcher is told which step it is."""
        if self._served is not None:
            self._served.reader.report_step(step.number)
        super().begin(step)


def _source(batches: Any, reader: Reader | None, batch: int) -> Any:
    """The source of what the user gave."""
    if reader is None:
        reader = batches if isinstance(batches, Reader) else getattr(batches, "penstock", None)
    if reader is None:
        if batch != 1:
            raise UsageError("batch belongs to a reader: pass reader=, too")
        return batches
    if not isinstance(reader, Reader):
        raise UsageError(f"reader must be a penstock.Reader, not {reader!r:.80}")
    if not reader.resumable:
        raise UsageError(
            "a dataset that is recovered in place has to be resumable: pass resumable=True to"
            " distribute (or Reader)"
        )
    return ReaderSource(reader, batches, batch)
