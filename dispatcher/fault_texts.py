"""Faults and decisions in words, for logs, people and the reasons of jobs that fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..recovery.strategy import FailoverStrategy
from .events import JobFailed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .events import Event
    from .fault_events import FailoverDecided, FaultRaised
    from .records import Attempt
    from .state import State


def text_of(fault: FaultRaised) -> str:
    """What a fault is, in words."""
    where = f"worker {fault.worker} ({fault.host}): " if fault.worker else ""
    if fault.attempt:
        where = (
            f"split {fault.split} of epoch {fault.epoch}, stream {fault.stream}, attempt"
            f" {fault.attempt} on {where}"
        )
    code = f"{fault.code}: " if fault.code else ""
    how = fault.signal or (f"exit code {fault.exit_code}" if fault.exit_code else "")
    return f"{fault.failure}: {where}{code}{fault.detail}{f' ({how})' if how else ''}"


def summary_of(state: State, number: int, events: Iterable[Event]) -> str:
    """What a person has to know of a decision that was just carried out; empty for nothing.

    Args:
        state: the state.
        number: of the fault.
        events: what `decide` made of the answer.
    """
    fault, made = state.failover.decided[number]
    job = state.jobs.get(fault.job)
    label = f"job {job.label}" if job else "every job"
    parts = []
    if made.strategy == FailoverStrategy.ABORTION_FAILOVER.value:
        parts.append(f"{label} was failed by {made.source}")
    parts += [
        f"{label} has failed: {event.reason}" for event in events if isinstance(event, JobFailed)
    ]
    if made.strategy == FailoverStrategy.NODE_FAILOVER.value:
        parts.append(f"worker {fault.worker} at {fault.host} is retired")
    if made.asked and made.asked != made.strategy:
        parts.append(f"{made.asked} was not to be had for {label}: {made.reason}")
    return "; ".join(parts)


def abortion_text(fault: FaultRaised, event: FailoverDecided) -> str:
    """Why a job was failed by a decision."""
    return (
        f"{text_of(fault)}; {event.strategy} was decided by {event.source} for fault {event.fault}"
    )


def too_often(state: State, attempt: Attempt, code: str, detail: str) -> str:
    """Why a job fails with the last attempt that it allows for a split."""
    trials = "1 attempt" if attempt.trial == 1 else f"{attempt.trial} attempts"
    worker = state.workers[attempt.worker]
    return (
        f"split {attempt.split} of epoch {attempt.epoch}, stream {attempt.stream},"
        f" could not be produced in {trials}; the last one, on worker {worker.worker}"
        f" ({worker.address}): {code}: {detail}"
    )
