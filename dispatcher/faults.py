"""Faults: how each kind is raised, and the record of one that extensions are shown. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..recovery.failover import LOG_LINES_MAX, Budgets, Decision, FailureInfo, FailureKind
from ..recovery.fingerprints import fingerprint
from ..recovery.strategy import FailoverStrategy
from .failover import budgets_of, is_open
from .fault_events import FaultRaised

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .fault_events import FailoverDecided
    from .records import Job
    from .reports import Progress
    from .state import State

#: The code of an attempt that made nothing for too long.
STUCK = "STUCK"
#: The code of one whose bytes are not what they should be.
MISMATCH = "MISMATCH"
EARLIER_MAX = 16
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
    """

    attempt: int
    code: str
    detail: str
    made: int = 0
    exact: bool = False


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
        )
    return list(out.values())


def worker_faults(state: State, name: str, kind: FailureKind, detail: str) -> list[FaultRaised]:
    """The faults of a worker that is dead: one for each job that it worked for, at least one."""
    worker = state.workers[name]
    jobs = dict.fromkeys(state.attempts[number].job for number in worker.attempts)
    return [
        FaultRaised(
            failure=kind.value,
            job=job,
            worker=name,
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
            fingerprint=fingerprint(f"{kind.value} {detail}"),
        )
        for job in jobs or ("",)
    ]


def trainer_faults(job: Job, detail: str) -> list[FaultRaised]:
    """The fault of a job whose trainer is gone; none for a job that ends with it."""
    kind = FailureKind.TRAINER_CRASH.value
    empty = ("", "", "", 0, 0, 0, 0, 0, 0, False, "")
    return [FaultRaised(kind, job.job, *empty, detail, fingerprint(kind))] if job.name else []


def info_of(
    state: State,
    number: int,
    now_s: float,
    progress: Mapping[int, Progress],
    heard_s: Mapping[str, float],
    budgets: Budgets,
) -> FailureInfo:
    """The record of an open fault.

    Args:
        state: the state.
        number: of the fault.
        now_s: monotonic.
        progress: how far each running attempt is.
        heard_s: when each worker and each job's client was heard of last, monotonic.
        budgets: how often a strategy may be used.
    """
    fault = state.failover.open[number]
    job = state.jobs.get(fault.job)
    known = progress.get(fault.attempt)
    heard = heard_s.get(fault.worker or fault.job)
    since_s = known.since_s if known is not None else heard
    earlier = [
        _decision(at, *made)
        for at, made in state.failover.decided.items()
        if made[0].job == fault.job
    ]
    running = fault.attempt > 0
    worker = state.workers.get(fault.worker)
    epoch = state.epoch(fault.epoch_key) if running else None
    split = epoch.splits.get(fault.split) if epoch is not None else None
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
        exceptions=(_without_split(fault.detail),) if fault.failure == "exception" else (),
        failed_on=split.failed_on if split is not None else (),
        blamed=worker.blamed if worker and worker.incarnation == fault.incarnation else 0,
        log=tuple(fault.detail.splitlines()[-LOG_LINES_MAX:]),
        since_start_s=None if known is None else now_s - known.began_s,
        since_progress_s=None if since_s is None else now_s - since_s,
        fingerprint=fault.fingerprint,
        earlier=tuple(earlier[-EARLIER_MAX:]),
        budgets=budgets_of(state, fault, budgets),
    )


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
    )


def _without_split(detail: str) -> str:
    """The detail without what a worker says of where it happened: the cause is what looks alike."""
    head, colon, tail = detail.partition(": ")
    return tail if colon and head.startswith("split ") else detail
