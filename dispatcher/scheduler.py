"""Pure decisions: who gets which attempt, who is lost. Nothing here changes anything.

Placement never changes the order of delivery, only how soon data is there. The current split of
every lane gets an attempt at once, even on a worker whose slots are taken, because the consumer
waits for it or soon will. Free slots then go to later splits, depth by depth: no lane, and no job,
gets its second split ahead before every other one has its first. The least loaded worker comes
first; a retry goes to a worker that has not failed on that split, if there is one. A worker that
has a checkpoint of a split is asked before any other, then one that can read it from a cache; one
that the job's client cannot reach only if there is nobody else.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from ..recovery.failover import FailureKind
from . import probing
from .caching import stores_with
from .events import (
    AttemptAssigned,
    AttemptDropped,
    ClientLeft,
    JobClosed,
    WorkerLost,
    WorkerPromoted,
)
from .failover import takes_work
from .faults import STUCK, Failed, attempt_faults, trainer_faults, worker_faults
from .seats import Seats

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from .events import Event
    from .facts import Facts
    from .records import Epoch, Job
    from .state import State

#: A worker that keeps being taken for dead may be silent for 2 to this power timeouts.
_PATIENCE_BITS = 3


def assignments(state: State, facts: Facts, seats: Seats | None = None) -> list[AttemptAssigned]:
    """The attempts that are to be started now.

    Args:
        state: the state.
        facts: of the moment.
        seats: of this state and these facts, if the caller keeps them; what is started has its
            place in them afterwards.
    """
    if seats is None:
        seats = Seats(state, facts)
    if not seats:
        return []
    first_attempt = max(state.next_attempt, facts.first_attempt)
    wanted = _wanted(state)
    out: list[AttemptAssigned] = []
    while wanted:
        depth, lane, order, split, job, epoch, more = wanted[0]
        if depth > 0 and seats.free <= 0:
            break
        touched = epoch.splits.get(split)
        failed_on = touched.failed_on if touched else ()
        avoided = facts.avoided.get(job.job, ())
        offer = (job.streams[epoch.stream].dataset, job.seed, epoch.epoch, split)
        shunned = {*failed_on, *avoided} if failed_on or avoided else ()
        seat = seats.offering(offer, shunned, ahead=depth > 0)
        if seat is None and state.stores:
            stores = stores_with(state, job, epoch.stream, split)
            seat = seats.caching(stores, shunned, ahead=depth > 0)
        if seat is None:
            seat = seats.least(failed_on, avoided)
        if depth > 0 and avoided and not seat.free:
            seats.leave(seat)
            heapq.heappop(wanted)  # whoever is free is out of this client's reach
            continue
        following = next(more, None)
        if following is None:
            heapq.heappop(wanted)
        else:
            heapq.heapreplace(wanted, (following[1], lane, order, following[0], job, epoch, more))
        seats.take(seat)
        out.append(
            AttemptAssigned(
                attempt=first_attempt + len(out),
                job=job.job,
                stream=epoch.stream,
                epoch=epoch.epoch,
                split=split,
                worker=seat.worker.worker,
                trial=touched.failures + 1 if touched else 1,
            )
        )
    return out


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


def lost_workers(state: State, facts: Facts, now_s: float, timeout_s: float) -> list[Event]:
    """The workers that have been silent for too long, and the standbys that replace them.

    One that was taken for dead and was not gets twice the time, and twice again: on an overloaded
    machine a worker would else lose its work again and again before it is done.
    """
    out: list[Event] = []
    lost: set[str] = set()
    for worker in state.workers.values():
        heard_s = facts.heard_s.get(worker.worker, now_s)
        # The same sum as the timer's, so that it does not wake up for nothing.
        if now_s >= heard_s + timeout_s * patience(facts, worker.worker):
            lost.add(worker.worker)
            reason = f"no heartbeat for {now_s - heard_s:.1f} s"
            out += worker_faults(state, worker.worker, FailureKind.LOST_HEARTBEAT, reason)
            out.append(WorkerLost(worker.worker, reason))
    return out + promotions(state, lost)


def patience(facts: Facts, worker: str) -> int:
    """How many timeouts a worker may be silent for."""
    return 1 << min(facts.mistakes.get(worker, 0), _PATIENCE_BITS)


def silences_s(
    state: State, facts: Facts, worker_timeout_s: float, client_timeout_s: float
) -> list[float]:
    """When each worker and each job's client will have been silent for too long."""
    heard_s = facts.heard_s
    workers = [
        heard_s[name] + worker_timeout_s * patience(facts, name)
        for name in state.workers
        if name in heard_s
    ]
    return workers + [
        heard_s[job.job] + client_timeout_s
        for job in state.jobs.values()
        if job.attached and job.job in heard_s
    ]


def promotions(state: State, lost: Collection[str]) -> list[Event]:
    """A standby for each worker that is being lost, as far as there are any."""
    live = [worker for worker in state.workers.values() if worker.worker not in lost]
    retired = state.failover.retired
    standbys = [w.worker for w in live if w.standby and w.incarnation not in retired]
    vacant = [w.worker for w in state.workers.values() if w.worker in lost and takes_work(state, w)]
    return [WorkerPromoted(*pair) for pair in zip(standbys, vacant, strict=False)]


def follow_ups(state: State) -> list[Event]:
    """What follows from the state alone, before anything is assigned."""
    return [*probing.events(state), *late_promotion(state)]


def late_promotion(state: State) -> list[Event]:
    """A standby that came after the last worker was lost: there is nobody else to do the work."""
    retired = state.failover.retired
    # Those that were lost and have been replaced are the last choice, but one all the same.
    lost = [lost for lost in state.lost.values() if not lost.standby]
    vacant = [one.worker for one in sorted(lost, key=lambda one: one.replaced)]
    if retired:  # else there is no need to look at a thousand workers
        vacant += [w.worker for w in state.workers.values() if w.incarnation in retired]
    if not vacant:
        return []
    if any(takes_work(state, worker) for worker in state.workers.values()):
        return []
    standbys = [w.worker for w in state.workers.values() if w.incarnation not in retired]
    return [WorkerPromoted(worker, vacant[0]) for worker in standbys[:1]]


def stuck_attempts(state: State, facts: Facts, now_s: float, timeout_s: float) -> list[Event]:
    """The attempts that have made nothing for too long while their worker was heard of.

    Not those that are produced or wait for the client: they have a good reason. A failed trial
    each, so the split is attempted elsewhere, and after the last one the job fails by name.
    """
    failed = []
    for number, since_s in _standing_still(state, facts, timeout_s):
        attempt, progress = state.attempts[number], facts.progress[number]
        worker = state.workers[attempt.worker]
        detail = (
            f"split {attempt.split} of epoch {attempt.epoch}, stream {attempt.stream}: worker"
            f" {worker.worker} ({worker.address}) has made {progress.elements} elements and nothing"
            f" more for {now_s - since_s:.1f} s, though its heartbeats come; --progress-timeout is"
            f" {timeout_s:g} s"
        )
        failed.append(Failed(number, STUCK, detail, progress.elements))
    return [*attempt_faults(state, failed)]


def slow_attempts(state: State, facts: Facts, patience_s: float) -> list[int]:
    """The attempts of lanes' current splits, which a client waits for, that stand still."""
    out = []
    for number, _ in _standing_still(state, facts, patience_s):
        attempt = state.attempts[number]
        epoch = state.epoch(attempt.epoch_key)
        assert epoch is not None, "an attempt is of an open epoch"
        book = state.book(state.jobs[attempt.job], epoch)
        if book.current(book.lane_of(attempt.split)) == attempt.split:
            out.append(number)
    return out


def _standing_still(state: State, facts: Facts, timeout_s: float) -> list[tuple[int, float]]:
    """(attempt, since when) of those that had made nothing for `timeout_s` when last heard of."""
    out = []
    # Nearly all have made something lately: of thousands that is all that is looked at.
    latest_s = max(facts.heard_s.values(), default=float("-inf")) - timeout_s
    for number, progress in facts.progress.items():
        if progress.since_s > latest_s or progress.waiting:
            continue
        attempt = state.attempts.get(number)
        if attempt is None:
            continue
        if number in facts.produced.get(attempt.worker, ()):
            continue
        # A silent worker is judged by its silence, not by what it has not said.
        if facts.heard_s.get(attempt.worker, progress.since_s) - progress.since_s >= timeout_s:
            out.append((number, progress.since_s))
    return out


def detours(state: State, facts: Facts, standing: Mapping[int, str]) -> list[AttemptDropped]:
    """Attempts that are better made elsewhere, because their client cannot get at the worker.

    Args:
        state: the state.
        facts: of the moment.
        standing: why, by attempt, for those that a client has not reached for long although the
            worker is alive.
    """
    out: list[AttemptDropped] = []
    if not standing:
        return out
    live = {worker.worker for worker in state.workers.values() if takes_work(state, worker)}
    for number, why in standing.items():
        attempt = state.attempts.get(number)
        if attempt is None:
            continue
        if live - {attempt.worker} - set(facts.avoided.get(attempt.job, ())):
            reason = f"its client cannot reach worker {attempt.worker}, which is alive: {why}"
            out.append(AttemptDropped(number, reason))
    return out


def lost_clients(state: State, facts: Facts, now_s: float, timeout_s: float) -> list[Event]:
    """The clients that have been silent for too long; an unnamed job ends with its client."""
    out: list[Event] = []
    for job in state.jobs.values():
        heard_s = facts.heard_s.get(job.job, now_s)
        if job.attached and now_s >= heard_s + timeout_s:
            reason = f"its client {job.client} was silent for {now_s - heard_s:.1f} s"
            out += trainer_faults(job, reason)
            out.append(ClientLeft(job.job, reason) if job.name else JobClosed(job.job, reason))
    return out


def waits_for_workers(state: State) -> list[str]:
    """The jobs that want work done while there is nobody to do it."""
    if any(takes_work(state, worker) for worker in state.workers.values()):
        return []
    return [job.job for job in state.jobs.values() if job.epochs]
