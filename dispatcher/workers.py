"""Workers in the state: they register, are lost and remembered for a while, and are promoted.

A worker that is lost may register again under its id, for as long as it is remembered. A standby
that is promoted, or a process at its address, takes its place: then it comes back as a standby.
`apply` is the part of `State.apply` that is about the events here.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, TypeAlias

from . import event_records
from .events import WorkerLost, WorkerPromoted, WorkerRegistered
from .records import LostWorker, Worker

if TYPE_CHECKING:
    from .state import State

WorkerEvent: TypeAlias = WorkerRegistered | WorkerLost | WorkerPromoted

#: How many lost workers are remembered.
LOST_MAX = 32


def apply(state: State, event: WorkerEvent) -> set[str]:
    """Carries an event out; returns the ids of the workers and jobs whose view changed.

    Raises:
        ValueError: the event does not fit the state, which is unchanged.
    """
    if isinstance(event, WorkerRegistered):
        return _register(state, event)
    worker = state.workers.get(event.worker)
    if worker is None:
        raise ValueError(f"worker {event.worker} is not registered")
    if isinstance(event, WorkerLost):
        return _lose(state, worker, event.reason)
    if not worker.standby:
        raise ValueError(f"worker {event.worker} is no standby")
    worker.standby = False
    vacant = [lost for lost in state.lost.values() if not lost.standby and not lost.replaced]
    if event.instead:
        vacant = [lost for lost in vacant if lost.worker == event.instead]
    for lost in vacant[:1]:
        state.lost[lost.worker] = dataclasses.replace(lost, replaced=True)
    return set()


def number_of(identifier: str, prefix: str) -> int:
    """The number of an id.

    Raises:
        ValueError: it is none of that prefix.
    """
    digits = identifier.removeprefix(prefix)
    if not identifier.startswith(prefix) or not digits.isdecimal():
        raise ValueError(f"{identifier!r} is not an id {prefix}1, {prefix}2, …")
    return int(digits)


def _register(state: State, event: WorkerRegistered) -> set[str]:
    number = number_of(event.worker, "w")
    if number < state.next_worker and event.worker not in state.lost:
        raise ValueError(f"worker {event.worker} is neither new nor lost")
    if event.slots < 1:
        raise ValueError(f"worker {event.worker} has no slots")
    state.next_worker = max(state.next_worker, number + 1)
    state.lost.pop(event.worker, None)
    for lost in state.lost.values():
        if lost.address == event.address:
            state.lost[lost.worker] = dataclasses.replace(lost, replaced=True)
    state.workers[event.worker] = Worker(*event_records.values(event))
    return {event.worker}


def _lose(state: State, worker: Worker, reason: str) -> set[str]:
    touched = {worker.worker}
    for number in list(worker.attempts):
        touched |= state.end_attempt(state.attempts[number])
    del state.workers[worker.worker]
    state.failover.suspects.pop(worker.worker, None)
    state.lost[worker.worker] = LostWorker(
        worker.worker, worker.incarnation, worker.address, worker.standby, reason
    )
    while len(state.lost) > LOST_MAX:
        del state.lost[next(iter(state.lost))]
    return touched
