"""Pure decisions: who gets which attempt, who is lost. Nothing here changes anything.

Placement never changes the order of delivery, only how soon data is there. The current split of
every lane gets an attempt at once, even on a worker whose slots are taken, because the consumer
waits for it or soon will. Free slots then go to later splits, depth by depth: no lane, and no job,
gets its second split ahead before every other one has its first. The least loaded worker comes
first; a retry goes to a worker that has not failed on that split, if there is one.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .events import (
    AttemptAssigned,
    ClientLeft,
    JobClosed,
    WorkerLost,
    WorkerPromoted,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from .events import Event
    from .records import Epoch, Job, Worker
    from .state import State


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the moment, beyond the state.

    Attributes:
        heard_s: when each worker and each job's client was heard of last, by worker or job id.
        produced: by worker, those of its running attempts that it has produced whole.
    """

    heard_s: Mapping[str, float] = field(default_factory=dict)
    produced: Mapping[str, Collection[int]] = field(default_factory=dict)


@dataclass(slots=True, order=True)
class _Seat:
    """A worker in the heap: the least loaded first, then the one that registered first."""

    fill: float
    order: int
    load: int = field(compare=False)
    worker: Worker = field(compare=False)

    @property
    def free(self) -> bool:
        return self.load < self.worker.slots

    def taken(self) -> _Seat:
        load = self.load + 1
        return _Seat(load / self.worker.slots, self.order, load, self.worker)


def assignments(state: State, facts: Facts) -> list[AttemptAssigned]:
    """The attempts that are to be started now."""
    seats = _seats(state, facts)
    if not seats:
        return []
    free = sum(max(0, seat.worker.slots - seat.load) for seat in seats)
    wanted = _wanted(state)
    out: list[AttemptAssigned] = []
    while wanted:
        depth, lane, order, split, job, epoch, more = wanted[0]
        if depth > 0 and free <= 0:
            break
        following = next(more, None)
        if following is None:
            heapq.heappop(wanted)
        else:
            heapq.heapreplace(wanted, (following[1], lane, order, following[0], job, epoch, more))
        touched = epoch.splits.get(split)
        seat = _choose(seats, touched.failed_on if touched else ())
        free -= seat.free
        heapq.heappush(seats, seat.taken())
        out.append(
            AttemptAssigned(
                attempt=state.next_attempt + len(out),
                job=job.job,
                stream=epoch.stream,
                epoch=epoch.epoch,
                split=split,
                worker=seat.worker.worker,
                trial=touched.failures + 1 if touched else 1,
            )
        )
    return out


def _seats(state: State, facts: Facts) -> list[_Seat]:
    seats = []
    for order, worker in enumerate(state.workers.values()):
        if not worker.standby:
            load = len(worker.attempts) - len(facts.produced.get(worker.worker, ()))
            seats.append(_Seat(load / worker.slots, order, load, worker))
    heapq.heapify(seats)
    return seats


#: (depth, lane, order of the epoch, split, job, epoch, the lane's further candidates): lanes that
#: are equally deep take turns over the epochs. The first three differ, so no more is compared.
_Wanted = tuple[int, int, int, int, "Job", "Epoch", "Iterator[tuple[int, int]]"]


def _wanted(state: State) -> list[_Wanted]:
    """The first candidate of every lane, as a heap."""
    wanted: list[_Wanted] = []
    for order, (job, epoch) in enumerate(state.open_epochs()):
        book = state.book(job, epoch)
        for lane in range(book.num_lanes):
            candidates = book.candidates(lane)
            first = next(candidates, None)
            if first is not None:
                wanted.append((first[1], lane, order, first[0], job, epoch, candidates))
    heapq.heapify(wanted)
    return wanted


def _choose(seats: list[_Seat], failed_on: tuple[str, ...]) -> _Seat:
    """Takes the least loaded worker out of the heap; one that has not failed, if there is one."""
    passed: list[_Seat] = []
    seat = heapq.heappop(seats)
    while seat.worker.worker in failed_on and seats:
        passed.append(seat)
        seat = heapq.heappop(seats)
    if seat.worker.worker in failed_on and passed:
        passed.append(seat)
        seat = passed.pop(0)
    for other in passed:
        heapq.heappush(seats, other)
    return seat


def lost_workers(state: State, facts: Facts, now_s: float, timeout_s: float) -> list[Event]:
    """The workers that have been silent for too long, and the standbys that replace them."""
    out: list[Event] = []
    lost: set[str] = set()
    for worker in state.workers.values():
        silent_s = now_s - facts.heard_s.get(worker.worker, now_s)
        if silent_s >= timeout_s:
            lost.add(worker.worker)
            out.append(WorkerLost(worker.worker, f"no heartbeat for {silent_s:.1f} s"))
    return out + promotions(state, lost)


def promotions(state: State, lost: Collection[str]) -> list[Event]:
    """A standby for each worker that is being lost, as far as there are any."""
    live = [worker for worker in state.workers.values() if worker.worker not in lost]
    standbys = [worker.worker for worker in live if worker.standby]
    vacant = sum(not state.workers[worker].standby for worker in lost)
    return [WorkerPromoted(worker) for worker in standbys[:vacant]]


def late_promotion(state: State) -> list[Event]:
    """A standby that came after the last worker was lost: there is nobody else to do the work."""
    failed = any(not lost.standby for lost in state.lost.values())
    if not failed or any(not worker.standby for worker in state.workers.values()):
        return []
    return [WorkerPromoted(worker) for worker in list(state.workers)[:1]]


def lost_clients(state: State, facts: Facts, now_s: float, timeout_s: float) -> list[Event]:
    """The clients that have been silent for too long; an unnamed job ends with its client."""
    out: list[Event] = []
    for job in state.jobs.values():
        silent_s = now_s - facts.heard_s.get(job.job, now_s)
        if job.attached and silent_s >= timeout_s:
            reason = f"its client {job.client} was silent for {silent_s:.1f} s"
            out.append(ClientLeft(job.job, reason) if job.name else JobClosed(job.job, reason))
    return out


def waits_for_workers(state: State) -> list[str]:
    """The jobs that want work done while there is nobody to do it."""
    if any(not worker.standby for worker in state.workers.values()):
        return []
    return [job.job for job in state.jobs.values() if job.epochs]
