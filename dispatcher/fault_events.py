"""The part of the journal's vocabulary that is about faults and what was done about them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FaultRaised:
    """Something failed, and what is done about it is not decided yet.

    Faults are numbered from 1 in the order of these records. `failure` is a `FailureKind`. What
    does not apply is empty or 0: an empty job stands for all of them. `made` is the number of the
    element that failed if it is known (`exact`), else how many were made. `exceptions` is the chain
    of a pipeline's or a trainer's exception, the outermost first; `exit_code` (0: not known) and
    `signal` (empty: none) say how a process ended. Version 1 had not these three.
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
    exceptions: tuple[str, ...] = ()
    exit_code: int = 0
    signal: str = ""

    @property
    def epoch_key(self) -> tuple[str, int, int]:
        """The epoch that it belongs to: (job, stream, epoch)."""
        return self.job, self.stream, self.epoch


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
class DeathExplained:
    """How a worker's process ended that was lost: its successor's supervisor told it afterwards."""

    incarnation: str
    exit_code: int
    signal: str


@dataclass(frozen=True, slots=True)
class WorkerReadmitted:
    """A retired worker may get work again."""

    worker: str


@dataclass(frozen=True, slots=True)
class JobFailoverSet:
    """The job's faults are put to this extension from now on; empty: to the dispatcher's."""

    job: str
    extension: str


@dataclass(frozen=True, slots=True)
class JobPolicySet:
    """What the job does about bad elements from now on, and how many an epoch may lose."""

    job: str
    policy: str
    max_bad: int


@dataclass(frozen=True, slots=True)
class ElementSkipped:
    """A bad element is left out of its split; the split's attempts are counted anew.

    `element` counts those that are left out. Worker and error are empty if they are not kept.
    """

    job: str
    stream: int
    epoch: int
    split: int
    element: int
    worker: str
    error: str
    fault: int


@dataclass(frozen=True, slots=True)
class ElementRetried:
    """An element is not left out any more, should its split be made again."""

    job: str
    stream: int
    epoch: int
    split: int
    element: int


@dataclass(frozen=True, slots=True)
class WorkerLimited:
    """A worker takes on less than it was told to, for this reason."""

    worker: str
    limit: str


@dataclass(frozen=True, slots=True)
class SplitKilled:
    """A worker died of memory while it made a split; `worker` is the one that followed it."""

    job: str
    stream: int
    epoch: int
    split: int
    worker: str
    elements: int
    exact: bool
