"""Elements that are left out: what a job says of bad ones, and which there are. Pure functions.

Theory of operation. An element is bad when its production raises again and again: the last attempts
that a job allows for a split name the same element. A job may have it left out instead of failing.
That is journaled by (job, stream, epoch, split, element), before any attempt leaves it out, and
sent with every later attempt of the split, so that every replay leaves out the same ones and
chunks, digests and positions agree. An element's number counts those that are left out.

A split that has lost an element begins to count its attempts anew. How many elements an epoch of a
stream may lose is bounded; past that the job fails and names them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import NotFoundError, RefusedError, UsageError
from .events import JobFailed
from .fault_events import ElementRetried, ElementSkipped, FaultRaised, JobPolicySet

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..proto import control_pb2
    from .events import Event
    from .records import Attempt, Job
    from .state import State

FAIL, SKIP, QUARANTINE = "fail", "skip", "quarantine"
POLICIES = (FAIL, SKIP, QUARANTINE)
MAX_BAD = 10_000
#: Beyond so many, a job forgets those of epochs that are not open.
KEPT_MAX = 20_000
ERROR_CHARS_MAX = 1000
_NAMED_MAX = 100

QuarantineEvent: TypeAlias = JobPolicySet | ElementSkipped | ElementRetried
#: (stream, epoch, split)
SplitKey = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class BadElement:
    """An element that is left out; of a job that only skips, worker and error are empty."""

    element: int
    worker: str
    error: str
    fault: int


#: What is left out, by split and element.
Bad = dict[SplitKey, dict[int, BadElement]]


def apply(state: State, event: QuarantineEvent) -> set[str]:
    """Carries an event out; returns the jobs whose view changed.

    Raises:
        ValueError: the event does not fit the state, which is unchanged.
    """
    job = state.jobs.get(event.job)
    if job is None:
        raise ValueError(f"there is no job {event.job}")
    match event:
        case JobPolicySet(_, policy, max_bad):
            if policy not in POLICIES:
                raise ValueError(f"job {event.job} cannot treat bad elements by {policy!r}")
            job.on_bad, job.max_bad = policy, max_bad
        case ElementSkipped():
            _skip(job, event)
        case ElementRetried(_, stream, epoch, split, element):
            key = (stream, epoch, split)
            if element not in job.bad.get(key, {}) or key[:2] in job.epochs:
                raise ValueError(f"{event} is not possible")
            _forget(job.bad, key, element)
            _forget_in_groups(state, event)
    return set()


def _forget(bad: Bad, key: SplitKey, element: int) -> None:
    known = bad.get(key, {})
    known.pop(element, None)
    if not known:
        bad.pop(key, None)


def _forget_in_groups(state: State, event: ElementRetried) -> None:
    """What a consumer has made again the others have, too: else a resize would bring it back."""
    key = (event.stream, event.epoch, event.split)
    for group in state.groups.values():
        if event.job in group.jobs:
            _forget(group.bad, key, event.element)
            for other in (state.jobs.get(name) for name in group.jobs):
                # Where the epoch is open, the trainer has the split without it.
                if other is not None and key[:2] not in other.epochs:
                    _forget(other.bad, key, event.element)


def _skip(job: Job, event: ElementSkipped) -> None:
    epoch = job.epochs.get((event.stream, event.epoch))
    key = (event.stream, event.epoch, event.split)
    known = job.bad.get(key, {}).get(event.element)
    # By another fault: journals written before groups kept this have it again after each resize.
    if epoch is None or (known is not None and known.fault == event.fault):
        raise ValueError(f"{event}: the epoch is not open, or it is left out already")
    split = epoch.splits.get(event.split)
    if split is not None:
        if split.attempt:
            raise ValueError(f"split {event.split} has attempt {split.attempt}")
        del epoch.splits[event.split]
    bad = BadElement(event.element, event.worker, event.error, event.fault)
    job.bad.setdefault(key, {})[event.element] = bad
    extra = sum(map(len, job.bad.values())) - KEPT_MAX
    for old in [old for old in job.bad if old[:2] not in job.epochs] if extra > 0 else []:
        extra -= len(job.bad.pop(old))
        if extra <= 0:
            break


def merged(parts: Iterable[Mapping[SplitKey, Mapping[int, BadElement]]]) -> Bad:
    """All that several jobs have left out; of very many the latest."""
    out: Bad = {}
    for part in parts:
        for key, known in part.items():
            out[key] = {**out.pop(key, {}), **known}
    extra = sum(map(len, out.values())) - KEPT_MAX
    for key in list(out) if extra > 0 else []:
        extra -= len(out.pop(key))
        if extra <= 0:
            break
    return out


def left_out(job: Job, key: SplitKey) -> list[int]:
    """The elements of a split that are left out, ascending."""
    return sorted(job.bad.get(key, ()))


def job_events(job: Job, request: control_pb2.OpenJobRequest) -> list[Event]:
    """What follows when a client treats bad elements in a way that the job did not so far."""
    policy, max_bad = request.on_bad_element or FAIL, request.max_bad
    if (job.on_bad, job.max_bad) == (policy, max_bad):
        return []
    return [JobPolicySet(job.job, policy, max_bad)]


def check_request(request: control_pb2.OpenJobRequest) -> None:
    """Refuses a policy that there is not.

    Raises:
        UsageError: the message says what is accepted.
    """
    policy = request.on_bad_element or FAIL
    if policy not in POLICIES:
        raise UsageError(
            f"on_bad_element must be one of {', '.join(POLICIES)}, not {policy[:40]!r}"
        )
    if request.max_bad > MAX_BAD:
        raise UsageError(f"max_bad must be at most {MAX_BAD}, not {request.max_bad}")
    if policy != FAIL and request.attempts_max < 2:
        raise UsageError(f"on_bad_element={policy!r} needs attempts_max of 2 or more")


def last_resort(
    state: State, attempt: Attempt, fault: FaultRaised, number: int, why: str
) -> list[Event]:
    """What follows when a split has used its last attempt.

    Args:
        state: the state, before that attempt has ended.
        attempt: the last one.
        fault: its fault.
        number: of the fault.
        why: what a job that leaves nothing out fails with.
    """
    job = state.jobs[attempt.job]
    epoch = state.epoch(attempt.epoch_key)
    assert epoch is not None, "an attempt is of an open epoch"
    named = epoch.splits[attempt.split].named
    # The first attempt names none; each later one has to, or the cause may have been another.
    often = len(named) >= attempt.trial - 2
    same = fault.exact and often and all(element == fault.made for element in named)
    if job.on_bad == FAIL or not same:
        return [JobFailed(job.job, why)]
    told = job.on_bad == QUARANTINE
    skipped = ElementSkipped(
        job.job,
        attempt.stream,
        attempt.epoch,
        attempt.split,
        fault.made,
        fault.worker if told else "",
        fault.detail[:ERROR_CHARS_MAX] if told else "",
        number,
    )
    before = [
        (split, bad)
        for (stream, of, split), known in job.bad.items()
        if (stream, of) == (attempt.stream, attempt.epoch)
        for bad in known.values()
    ]
    if len(before) < job.max_bad:
        return [skipped]
    return [JobFailed(job.job, _too_many(job, before, why))]


def _too_many(job: Job, before: list[tuple[int, BadElement]], why: str) -> str:
    names = [
        f"element {bad.element} of split {split}{f' ({bad.error})' if bad.error else ''}"
        for split, bad in before[:_NAMED_MAX]
    ]
    more = f" and {len(before) - _NAMED_MAX} more" if len(before) > _NAMED_MAX else ""
    left = f"; left out already: {'; '.join(names)}{more}" if names else ""
    return f"more than max_bad={job.max_bad} elements of an epoch are bad: {why}{left}"


def retry_events(state: State, request: control_pb2.RetryElementRequest) -> list[Event]:
    """What follows when a person says that an element is sound by now.

    Raises:
        NotFoundError: it is not left out.
        RefusedError: its epoch is open, and others have its split without it.
    """
    job = state.jobs.get(request.job)
    key = (request.stream, request.epoch, request.split)
    if job is None or request.element not in job.bad.get(key, ()):
        raise NotFoundError(
            f"job {request.job[:80]!r} leaves out no element {request.element} of split"
            f" {request.split}, epoch {request.epoch}, stream {request.stream}"
        )
    if key[:2] in job.epochs:
        raise RefusedError(
            f"epoch {request.epoch} of job {job.label} is open: a replay with the element would"
            " not be what its trainer has; retry it when the epoch is over"
        )
    return [ElementRetried(job.job, *key, request.element)]


def notice(job: Job) -> list[str]:
    """What the job's client is told of open epochs."""
    count = sum(len(known) for key, known in job.bad.items() if key[:2] in job.epochs)
    if not count:
        return []
    return [f"{count} bad elements of open epochs are left out (`penstock quarantine ls`)"]


def picture(job: Job) -> dict[str, Any]:
    """What `penstock status` shows of a job's bad elements."""
    return {
        "policy": job.on_bad,
        "max_bad": job.max_bad,
        "elements": [
            {
                "stream": stream,
                "epoch": epoch,
                "split": split,
                "element": bad.element,
                "worker": bad.worker or None,
                "error": bad.error or None,
                "fault": bad.fault,
            }
            for (stream, epoch, split), known in job.bad.items()
            for bad in known.values()
        ],
    }
