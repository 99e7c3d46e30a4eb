"""Faults: how each kind is raised, and the record of one that extensions are shown. Pure."""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..recovery.failover import LOG_LINES_MAX, Budgets, Decision, FailureInfo, FailureKind
from ..recovery.fingerprints import fingerprint
from ..recovery.strategy import FailoverStrategy
from .failover import budgets_of, is_open
from .fault_events import DeathExplained, FaultRaised

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .fault_events import FailoverDecided
    from .records import Job, Worker
    from .reports import Progress
    from .state import State

#: The code of an attempt that made nothing for too long.
STUCK = "STUCK"
#: The code of one whose bytes are not what they should be.
MISMATCH = "MISMATCH"
EARLIER_MAX = 16
#: Of a chain of exceptions: how many, and characters of each.
CHAIN_MAX = 16
CHAIN_CHARS_MAX = 500
_KINDS = {STUCK: FailureKind.HANG, MISMATCH: FailureKind.HASH_MISMATCH}


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt that cannot be produced.

    Attributes:
        attempt: its number.
        code: penstock's word for it.
        detail: what happened, in words.
        made: elements that were made before, or the number of the one that failed.
        exact: it is the number of the one that failed.
        exceptions: what led to it, the outermost exception first.
    """

    attempt: int
    code: str
    detail: str
    made: int = 0
    exact: bool = False
    exceptions: tuple[str, ...] = ()


def attempt_faults(state: State, failed: Iterable[Failed]) -> list[FaultRaised]:
    """The faults of failed attempts, each once; none of those that have one or are over."""
    out: dict[int, FaultRaised] = {}
    for item in failed:
        attempt = state.attempts.get(item.attempt)
        if attempt is None or item.attempt in out or is_open(state, item.attempt):
            continue
        worker = state.workers[attempt.worker]
        kind = _KINDS.get(item.code, FailureKind.EXCEPTION)
        out[item.attempt] = FaultRaised(
            failure=kind.value,
            job=attempt.job,
            worker=worker.worker,
            incarnation=worker.incarnation,
            host=worker.address,
            attempt=item.attempt,
            stream=attempt.stream,
            epoch=attempt.epoch,
            split=attempt.split,
            trial=attempt.trial,
            made=item.made,
            exact=item.exact,
            code=item.code,
            detail=item.detail,
            fingerprint=fingerprint(f"{kind.value} {item.code} {_without_split(item.detail)}"),
            exceptions=item.exceptions,
        )
    return list(out.values())


def ending(exit_code: int) -> tuple[int, str]:
    """(exit code, signal) of what a supervisor says of a process; 0 and empty for not known.

    As Python, shells and containers say it: a signal is negative, or 128 more.
    """
    number = -exit_code if exit_code < 0 else exit_code - 128
    with contextlib.suppress(ValueError):
        return max(0, exit_code), signal.Signals(number).name
    return max(0, exit_code), ""


def fault_of_worker(
    worker: Worker, job: str, kind: FailureKind, detail: str, about: str
) -> FaultRaised:
    """A fault of a worker, and of none of its attempts.

    Args:
        worker: whose it is.
        job: that it did harm to; empty for none.
        kind: what it is.
        detail: what happened, in words.
        about: faults of the kind that agree in this are the same one.
    """
    return FaultRaised(
        failure=kind.value,
        job=job,
        worker=worker.worker,
        incarnation=worker.incarnation,
        host=worker.address,
        attempt=0,
        stream=0,
        epoch=0,
        split=0,
        trial=0,
        made=0,
        exact=False,
        code="",
        detail=detail,
        fingerprint=fingerprint(f"{kind.value} {about}"),
    )


def worker_faults(
    state: State, name: str, kind: FailureKind, detail: str, exit_code: int = 0
) -> list[FaultRaised]:
    """The faults of a worker that is dead: one for each job that it worked for, at least one.

    Args:
        state: the state.
        name: the worker's id.
        kind: how its death was seen.
        detail: the same, in words.
        exit_code: how its process ended, if a supervisor has told; see `ending`.
    """
    code, ended_by = ending(exit_code)
    worker = state.workers[name]
    jobs = dict.fromkeys(state.attempts[number].job for number in worker.attempts)
    told = fault_of_worker(worker, "", kind, detail, detail)
    told = replace(told, exit_code=code, signal=ended_by)
    return [replace(told, job=job) for job in jobs or ("",)]


def explained(state: State, address: str, exit_code: int) -> list[DeathExplained]:
    """How the worker ended that was lost last at an address, if a supervisor tells it now."""
    lost = [one for one in state.lost.values() if one.address == address]
    if not exit_code or not lost:
        return []
    return [DeathExplained(lost[-1].incarnation, *ending(exit_code))]


def trainer_faults(
    job: Job, detail: str, exceptions: tuple[str, ...] = (), exit_code: int = 0
) -> list[FaultRaised]:
    """The fault of a job whose trainer is gone; none for a job that ends with it.

    Args:
        job: the job.
        detail: what is known, in words.
        exceptions: that ended it, the outermost first.
        exit_code: that it ends with, if it has told; 0 if not.
    """
    kind = FailureKind.TRAINER_CRASH.value
    empty = ("", "", "", 0, 0, 0, 0, 0, 0, False, "")
    looks = fingerprint(f"{kind} {exceptions[0]}" if exceptions else kind)
    more = (exceptions, exit_code)
    return [FaultRaised(kind, job.job, *empty, detail, looks, *more)] if job.name else []


def info_of(
    state: State,
    number: int,
    now_s: float,
    progress: Mapping[int, Progress],
    heard_s: Mapping[str, float],
    budgets: Budgets,
    trainer_step: int | None = None,
) -> FailureInfo:
    """The record of an open fault.

    Args:
        state: the state.
        number: of the fault.
        now_s: monotonic.
        progress: how far each running attempt is.
        heard_s: when each worker and each job's client was heard of last, monotonic.
        budgets: how often a strategy may be used.
        trainer_step: that the job's trainer has told of last.
    """
    fault = state.failover.open[number]
    job = state.jobs.get(fault.job)
    known = progress.get(fault.attempt)
    heard = heard_s.get(fault.worker or fault.job)
    since_s = known.since_s if known is not None else heard
    decided = state.failover.decided.items()
    earlier = [_decision(at, *made) for at, made in decided if made[0].job == fault.job]
    running = fault.attempt > 0
    worker = state.workers.get(fault.worker)
    return FailureInfo(
        fault=number,
        kind=FailureKind(fault.failure),
        job=fault.job,
        job_name=job.name if job else "",
        worker=fault.worker,
        host=fault.host,
        attempt=fault.attempt or None,
        trial=fault.trial,
        attempts_max=job.attempts_max if job else 0,
        stream=fault.stream if running else None,
        epoch=fault.epoch if running else None,
        split=fault.split if running else None,
        element=fault.made if fault.exact else None,
        elements_made=fault.made,
        committed=job.position_at if job and job.position else None,
        code=fault.code,
        message=fault.detail,
        exceptions=_exceptions(fault),
        exit_code=fault.exit_code or None,
        signal=fault.signal or None,
        trainer_step=trainer_step,
        failed_on=_failed_on(state, fault),
        blamed=worker.blamed if worker and worker.incarnation == fault.incarnation else 0,
        log=tuple(fault.detail.splitlines()[-LOG_LINES_MAX:]),
        since_start_s=None if known is None else now_s - known.began_s,
        since_progress_s=None if since_s is None else now_s - since_s,
        fingerprint=fault.fingerprint,
        earlier=tuple(earlier[-EARLIER_MAX:]),
        budgets=budgets_of(state, fault, budgets),
    )


def _failed_on(state: State, fault: FaultRaised) -> tuple[str, ...]:
    """The workers on which the split of a fault has failed before in this epoch."""
    epoch = state.epoch(fault.epoch_key) if fault.attempt else None
    split = epoch.splits.get(fault.split) if epoch is not None else None
    return split.failed_on if split is not None else ()


def _exceptions(fault: FaultRaised) -> tuple[str, ...]:
    """The chain; of a former version's record, or a worker that sends none, what the text says."""
    if fault.exceptions or fault.failure != FailureKind.EXCEPTION.value:
        return fault.exceptions
    return (_without_split(fault.detail),)


def _decision(number: int, fault: FaultRaised, decided: FailoverDecided) -> Decision:
    return Decision(
        number,
        FailureKind(fault.failure),
        FailoverStrategy(decided.strategy),
        fault.fingerprint,
        fault.worker,
        (fault.stream, fault.epoch, fault.split) if fault.attempt else None,
        decided.source,
        decided.reason,
        fault.exit_code or None,
        fault.signal or None,
    )


def _without_split(detail: str) -> str:
    """The detail without what a worker says of where it happened: the cause is what looks alike."""
    head, colon, tail = detail.partition(": ")
    return tail if colon and head.startswith("split ") else detail
