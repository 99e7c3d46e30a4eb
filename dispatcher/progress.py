"""What workers and clients report while an epoch runs: the events that follow.

Pure functions, like `admission`. Reports are whole and may be repeated or late: what is journaled
already, or names an attempt that is not current, leads to no event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import RefusedError, UsageError
from .events import (
    AttemptDropped,
    EpochAbandoned,
    EpochFinished,
    EpochStarted,
    JobFailed,
    SplitDelivered,
)
from .faults import CHAIN_CHARS_MAX, CHAIN_MAX, MISMATCH, Failed, attempt_faults
from .positions import resumed_event
from .splitset import SplitSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..proto import control_pb2
    from .events import EpochResumed, Event
    from .records import Epoch, EpochKey, Job
    from .state import State

UNREACHABLE, GONE = "UNREACHABLE", "GONE"
TEXT_CHARS_MAX = 4000
#: So often a split's attempt may be gone in a row, without having made more than before.
GONE_MAX = 20
_MASK = (1 << 64) - 1


def worker_events(
    state: State, worker: str, failed: Iterable[control_pb2.HeldAttempt]
) -> list[Event]:
    """What follows from the failed attempts that a worker reports."""
    found: list[Failed] = []
    for held in failed:
        attempt = state.attempts.get(held.attempt)
        if attempt is not None and attempt.worker == worker:
            code, detail = _cut(held.code), _cut(held.detail)
            exact = held.HasField("element")
            made = held.element if exact else held.elements
            chain = tuple(text[:CHAIN_CHARS_MAX] for text in held.exceptions[:CHAIN_MAX])
            found.append(Failed(held.attempt, code, detail, made, exact, chain))
    return [*attempt_faults(state, found)]


def client_events(
    state: State,
    job: Job,
    request: control_pb2.SyncClientRequest,
    vain: Mapping[tuple[EpochKey, int], tuple[int, int]] | None = None,
) -> list[Event]:
    """What follows from what a client has.

    Args:
        state: the state.
        job: the client's.
        request: what it says.
        vain: by epoch and split, how often in a row its attempt was gone; see `Reports`.

    Raises:
        UsageError: a number is out of range.
        RefusedError: an epoch is over, or is said to be finished while it is not.
    """
    if job.failure:
        return []
    if request.failure:
        return [JobFailed(job.job, f"its client failed it: {_cut(request.failure)}")]
    listed = {(progress.stream, progress.epoch) for progress in request.epochs}
    if len(listed) < len(request.epochs):
        raise UsageError("epochs must list each (stream, epoch) once")
    out: list[Event] = []
    if request.term == state.term:
        # One of an older term may have been on its way since before the epoch was opened. Who is
        # alive learns the new term from the reply, and then says again what it does not want.
        out += [EpochAbandoned(job.job, *key) for key in job.epochs if key not in listed]
    done: set[int] = set()  # attempts of splits that this very request delivers
    for progress in request.epochs:
        events = _epoch_events(state, job, progress, done)
        out += events
        if any(isinstance(event, JobFailed) for event in events):
            return out
    return out + _problem_events(state, job, request.problems, listed, done, vain or {})


def _epoch_events(
    state: State, job: Job, progress: control_pb2.EpochProgress, done: set[int]
) -> list[Event]:
    if progress.stream >= len(job.streams):
        raise UsageError(f"stream must be 0 to {len(job.streams) - 1}, not {progress.stream}")
    stream = job.streams[progress.stream]
    epoch = job.epochs.get((progress.stream, progress.epoch))
    if epoch is None and progress.epoch < stream.next_epoch:
        if progress.finished:
            return []  # the reply that acknowledged it was lost
        raise RefusedError(
            f"epoch {progress.epoch} of stream {progress.stream} of job {job.label} is over;"
            f" the next one is {stream.next_epoch}"
        )
    out: list[Event] = []
    resumed: EpochResumed | None = None
    if epoch is not None and any(progress.resumed.splits) and not epoch.delivered:
        # The journal of a former term ended between the records of its beginning.
        out.append(EpochAbandoned(job.job, progress.stream, progress.epoch))
        epoch = None
    if epoch is None:
        out.append(EpochStarted(job.job, progress.stream, progress.epoch))
        resumed = resumed_event(state, job, progress)
        out += [resumed] if resumed else []
    delivered = _deliveries(state, job, epoch, progress)
    for event in delivered:
        touched = epoch.splits.get(event.split) if epoch else None
        if touched is not None:
            done.add(touched.attempt)
    out += delivered
    if progress.finished:
        out.append(_finish(state, job, epoch or _Before.of(resumed), progress, delivered))
    return out


def _deliveries(
    state: State, job: Job, epoch: Epoch | None, progress: control_pb2.EpochProgress
) -> list[SplitDelivered]:
    num_splits = state.dataset_of(job, progress.stream).num_splits
    found: dict[int, SplitDelivered] = {}
    for done in progress.done:
        if done.split >= num_splits:
            raise UsageError(f"split must be below {num_splits}, not {done.split}")
        if epoch is None or done.split not in epoch.delivered:
            found[done.split] = SplitDelivered(
                job.job,
                progress.stream,
                progress.epoch,
                done.split,
                done.digest.count,
                done.digest.total,
                done.digest.chain,
            )
    return list(found.values())


@dataclass(frozen=True, slots=True)
class _Before:
    """What an epoch has when it is opened."""

    delivered: SplitSet
    count: int = 0
    total: int = 0

    @classmethod
    def of(cls, resumed: EpochResumed | None) -> _Before:
        if resumed is None:
            return cls(SplitSet())
        return cls(SplitSet.from_bytes(resumed.delivered), resumed.count, resumed.total)


def _finish(
    state: State,
    job: Job,
    epoch: Epoch | _Before,
    progress: control_pb2.EpochProgress,
    delivered: list[SplitDelivered],
) -> EpochFinished | JobFailed:
    """The end of an epoch, which is a proof (G5): every split is there and the sums agree."""
    num_splits = state.dataset_of(job, progress.stream).num_splits
    have = len(delivered) + len(epoch.delivered)
    where = f"epoch {progress.epoch} of stream {progress.stream}"
    if have != num_splits:
        raise RefusedError(
            f"{where} of job {job.label} is not finished: {num_splits - have} of its {num_splits}"
            " splits are not reported as delivered"
        )
    count = sum(event.count for event in delivered) + epoch.count
    total = sum(event.total for event in delivered) + epoch.total
    digest = progress.digest
    if (count, total & _MASK) != (digest.count, digest.total):
        return JobFailed(
            job.job,
            f"{where} does not add up: its splits have {count} elements with the sum"
            f" {total & _MASK:016x}, its client delivered {digest.count} with {digest.total:016x}",
        )
    return EpochFinished(
        job.job, progress.stream, progress.epoch, digest.count, digest.total, digest.chain
    )


def _problem_events(
    state: State,
    job: Job,
    problems: Iterable[control_pb2.Problem],
    listed: set[tuple[int, int]],
    done: set[int],
    vain: Mapping[tuple[EpochKey, int], tuple[int, int]],
) -> list[Event]:
    out: list[Event] = []
    dropped: set[int] = set()
    for problem in problems:
        if problem.code not in (UNREACHABLE, GONE, MISMATCH):
            raise UsageError(
                f"code of a problem must be {UNREACHABLE}, {GONE} or {MISMATCH},"
                f" not {problem.code[:80]!r}"
            )
        attempt = state.attempts.get(problem.attempt)
        if attempt is None or attempt.job != job.job or problem.attempt in done | dropped:
            continue
        if (attempt.stream, attempt.epoch) not in listed:
            continue  # given up in this very request
        if problem.code == MISMATCH:
            detail = f"it is not what it should be: {_cut(problem.detail)}"
            out += attempt_faults(state, [Failed(problem.attempt, MISMATCH, detail)])
        if problem.code == GONE:
            dropped.add(problem.attempt)
            times, _ = vain.get((attempt.epoch_key, attempt.split), (0, 0))
            if times >= GONE_MAX:
                reason = (
                    f"split {attempt.split} of epoch {attempt.epoch}, stream {attempt.stream}, was"
                    f" not at the worker that had it {times + 1} times in a row; the last one was"
                    f" {attempt.worker}: {_cut(problem.detail)}"
                )
                return [*out, JobFailed(job.job, reason)]
            out.append(AttemptDropped(problem.attempt, f"{GONE}: {_cut(problem.detail)}"))
    return out


def is_gone(event: AttemptDropped) -> bool:
    """Whether the attempt was dropped because its worker does not hold it."""
    return event.reason.startswith(f"{GONE}: ")


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_CHARS_MAX else text[:TEXT_CHARS_MAX] + " …"
