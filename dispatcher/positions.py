"""Where trainers go on: committed positions, epochs that begin in the middle, jobs that step back.

A position is the client's affair: to the dispatcher it is a text that it keeps. What it has to know
of one is which epoch comes next, and which of that epoch's splits nobody wants any more. Pure
functions, like `admission`; `apply` is the part of `State.apply` that is about the events here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ..errors import UsageError
from ..proto.deal import deal
from .events import EpochResumed, JobRewound, PositionCommitted
from .splitset import SplitSet

if TYPE_CHECKING:
    from ..proto import control_pb2
    from .events import Event
    from .records import Job
    from .state import State

PositionEvent: TypeAlias = PositionCommitted | EpochResumed | JobRewound

#: A position's text is at most this long.
POSITION_CHARS_MAX = 4096
_EPOCH_MAX = (1 << 63) - 1


def apply(state: State, event: PositionEvent) -> set[str]:
    """Carries an event out; returns the jobs whose view changed.

    Raises:
        ValueError: the event does not fit the state, which is unchanged.
    """
    job = state.jobs.get(event.job)
    if job is None:
        raise ValueError(f"there is no job {event.job}")
    if isinstance(event, PositionCommitted):
        if event.sequence <= job.commits:
            raise ValueError(f"commit {event.sequence} of {event.job} does not follow")
        job.commits = event.sequence
        job.position, job.position_at = event.position, (event.epoch, event.consumed)
        return set()
    if isinstance(event, JobRewound):
        if job.epochs or len(event.epochs) != len(job.streams):
            raise ValueError(f"job {event.job} cannot step back to epochs {event.epochs}")
        for stream, epoch in zip(job.streams, event.epochs, strict=True):
            stream.next_epoch = epoch
        return set()
    return _resume(state, job, event)


def _resume(state: State, job: Job, event: EpochResumed) -> set[str]:
    epoch = job.epochs.get((event.stream, event.epoch))
    if epoch is None or epoch.splits or epoch.delivered:
        raise ValueError(f"epoch {event.epoch} of stream {event.stream} of {job.job} is not new")
    num_splits = state.dataset_of(job, event.stream).num_splits
    delivered = SplitSet.from_bytes(event.delivered)
    if len(delivered.to_bytes()) > (num_splits + 7) // 8 or any(
        split >= num_splits for split in delivered
    ):
        raise ValueError(f"epoch {epoch.key} goes on after splits that it does not have")
    epoch.delivered, epoch.count, epoch.total = delivered, event.count, event.total
    epoch.book = None
    return {job.job}


def rewind_events(job: str, request: control_pb2.OpenJobRequest) -> list[Event]:
    """What follows from a client's word that it resumes, when it takes the job over.

    Raises:
        UsageError: it does not name one epoch for each stream.
    """
    if not request.rewind:
        return []
    if len(request.rewind) != len(request.streams) or max(request.rewind) > _EPOCH_MAX:
        raise UsageError(
            f"rewind must name an epoch for each of {len(request.streams)} streams,"
            f" not {list(request.rewind)[:16]}"
        )
    return [JobRewound(job, tuple(request.rewind))]


def resumed_event(
    state: State, job: Job, progress: control_pb2.EpochProgress
) -> EpochResumed | None:
    """What an epoch that is opened begins with; None for its very beginning.

    Raises:
        UsageError: it names lanes or splits that there are not.
    """
    if not progress.HasField("resumed"):
        return None
    dataset = state.dataset_of(job, progress.stream)
    lanes = deal(
        dataset.num_splits,
        job.lanes,
        seed=job.seed,
        epoch=progress.epoch,
        weights=dataset.weights,
        ordered=job.ordered,
    )
    consumed = progress.resumed.splits
    if len(consumed) != len(lanes):
        raise UsageError(f"resumed must name {len(lanes)} lanes, not {len(consumed)}")
    delivered = SplitSet()
    for number, (splits, count) in enumerate(zip(lanes, consumed, strict=True)):
        if count > len(splits):
            raise UsageError(f"lane {number} has {len(splits)} splits, not {count}")
        for split in splits[:count]:
            delivered.add(split)
    return EpochResumed(
        job.job,
        progress.stream,
        progress.epoch,
        delivered.to_bytes(),
        progress.resumed.count,
        progress.resumed.total,
    )


def commit_events(job: Job, request: control_pb2.CommitPositionRequest) -> list[Event]:
    """What follows from a client's word that a position is safe; a late one changes nothing.

    Raises:
        UsageError: the text is none that a position can have.
    """
    text = request.position
    if not text or len(text) > POSITION_CHARS_MAX or not text.isascii():
        raise UsageError(
            f"position must be 1 to {POSITION_CHARS_MAX} ASCII characters, not {len(text)}"
        )
    if request.sequence <= job.commits:
        return []
    return [
        PositionCommitted(job.job, request.sequence, request.epoch, request.consumed, text),
    ]
