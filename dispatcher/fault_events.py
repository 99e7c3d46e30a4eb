"""The part of the journal's vocabulary that is about faults and what was done about them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FaultRaised:
    """Something failed, and what is done about it is not decided yet.

    Faults are numbered from 1 in the order of these records. `failure` is a `FailureKind`. What
    does not apply is empty or 0: an empty job stands for all of them. `made` counts elements;
    `exact` says that the next one is the one that failed.
    """

    failure: str
    job: str
    worker: str
    incarnation: str
    host: str
    attempt: int
    stream: int
    epoch: int
    split: int
    trial: int
    made: int
    exact: bool
    code: str
    detail: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class FailoverDecided:
    """What is done about a fault: this record is the action.

    `asked` is the strategy that the extension `source` answered, empty if it gave none; `strategy`
    is another one if that was not to be had, for `reason`.
    """

    fault: int
    strategy: str
    asked: str
    source: str
    reason: str
    root_cause: str


@dataclass(frozen=True, slots=True)
class WorkerReadmitted:
    """A retired worker may get work again."""

    worker: str


@dataclass(frozen=True, slots=True)
class JobFailoverSet:
    """The job's faults are put to this extension from now on; empty: to the dispatcher's."""

    job: str
    extension: str
