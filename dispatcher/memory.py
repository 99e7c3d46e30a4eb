"""Workers that died of memory: what they take on afterwards, and elements that kill them.

A worker that follows one that died of memory says what that one was running (`last_words` in
`worker`). From then on such a split is made one element at a time, so that the next death names the
element exactly. One that is named by death after death, four in all, is no accident: the job fails
and names it. Pure functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ..errors import UsageError
from .events import JobFailed
from .fault_events import SplitKilled, WorkerLimited

if TYPE_CHECKING:
    from ..proto import control_pb2
    from .events import Event
    from .records import Epoch, Worker
    from .state import State

MemoryEvent: TypeAlias = WorkerLimited | SplitKilled

#: So many workers may die of one element.
KILLS_MAX = 4
LIMIT_CHARS_MAX = 1000
KILLED_MAX = 4096
_ELEMENTS_MAX = (1 << 63) - 1


def apply(state: State, event: MemoryEvent) -> set[str]:
    """Carries an event out; returns the workers and jobs whose view changed: none.

    Raises:
        ValueError: the event does not fit the state, which is unchanged.
    """
    if isinstance(event, WorkerLimited):
        worker = state.workers.get(event.worker)
        if worker is None:
            raise ValueError(f"worker {event.worker} is not registered")
        worker.limited = event.limit
        return set()
    epoch = state.epoch((event.job, event.stream, event.epoch))
    if epoch is None:
        raise ValueError(f"{event}: the epoch is not open")
    # The first element that was not made, counted from 1, if it is known.
    element = event.elements + 1 if event.exact else 0
    epoch.kills[event.split] = (*epoch.kills.get(event.split, ()), element)[-KILLS_MAX:]
    return set()


def is_suspect(epoch: Epoch, split: int) -> bool:
    """Whether a worker died of memory while it made the split."""
    return split in epoch.kills


def check_request(request: control_pb2.RegisterWorkerRequest) -> None:
    """Refuses last words that are too long, or name what cannot be.

    Raises:
        UsageError: the message says what is accepted.
    """
    if len(request.limited) > LIMIT_CHARS_MAX or len(request.killed) > KILLED_MAX:
        raise UsageError(
            f"limited must have at most {LIMIT_CHARS_MAX} characters, killed {KILLED_MAX} splits"
        )
    if any(killed.elements > _ELEMENTS_MAX for killed in request.killed):
        raise UsageError(f"elements of a killed split must be at most {_ELEMENTS_MAX}")


def register_events(
    state: State, worker: Worker, request: control_pb2.RegisterWorkerRequest
) -> list[Event]:
    """What follows from the last words that a new worker has found."""
    out: list[Event] = []
    if request.limited:
        out.append(WorkerLimited(worker.worker, request.limited))
    dead_jobs: set[str] = set()
    for killed in request.killed:
        epoch = state.epoch((killed.job, killed.stream, killed.epoch))
        if epoch is None or killed.job in dead_jobs:
            continue
        num_splits = state.dataset_of(state.jobs[killed.job], epoch.stream).num_splits
        if killed.split >= num_splits or killed.split in epoch.delivered:
            continue
        out.append(
            SplitKilled(
                *(killed.job, killed.stream, killed.epoch, killed.split),
                *(worker.worker, killed.elements, killed.exact),
            )
        )
        element = killed.elements + 1 if killed.exact else 0
        named = (*epoch.kills.get(killed.split, ()), element)[-KILLS_MAX:]
        if len(named) == KILLS_MAX and element and set(named[1:]) == {element}:
            dead_jobs.add(killed.job)
            reason = (
                f"element {killed.elements} of split {killed.split} of epoch {killed.epoch},"
                f" stream {killed.stream}, was being made when each of {KILLS_MAX} workers died of"
                f" memory, one after the other; the last one was at {worker.address}"
            )
            out.append(JobFailed(killed.job, reason))
    return out
