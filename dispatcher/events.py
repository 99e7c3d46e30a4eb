"""The journal's vocabulary: everything that can happen to the dispatcher's state.

`event_records` writes them as records. Kinds and the order of fields are never changed for a given
version, because old journals must replay: a change is a new version, whose class reads the old ones
too.

The two kinds that a journal is full of are named tuples, which are made in a fifth of the time that
a frozen dataclass takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from .fault_events import (
    CrossChecked,
    DeathExplained,
    ElementRetried,
    ElementSkipped,
    FailoverDecided,
    FaultRaised,
    JobFailoverSet,
    JobPolicySet,
    ProbeEnded,
    ProbeStarted,
    SplitKilled,
    WorkerLimited,
    WorkerReadmitted,
)


@dataclass(frozen=True, slots=True)
class TermStarted:
    """A dispatcher process has taken over the journal."""

    term: int


@dataclass(frozen=True, slots=True)
class DatasetRegistered:
    """A stream's graph is stored; `weights` is empty when all splits are alike."""

    fingerprint: str
    num_splits: int
    weights: tuple[int, ...]
    replayable: bool
    components: bytes
    graph_bytes: int


@dataclass(frozen=True, slots=True)
class JobOpened:
    """A job was created; `name` is empty for one that ends with its client."""

    job: str
    name: str
    streams: tuple[str, ...]
    seed: int
    lanes: int
    block: int
    ordered: bool
    attempts_max: int


@dataclass(frozen=True, slots=True)
class ClientJoined:
    """A client owns the job from now on; what an older one had open is given up."""

    job: str
    client: str


@dataclass(frozen=True, slots=True)
class ClientLeft:
    """The job has no client any more; what it had open is given up."""

    job: str
    reason: str


@dataclass(frozen=True, slots=True)
class JobFailed:
    """The job cannot go on; what it had open is given up."""

    job: str
    reason: str


@dataclass(frozen=True, slots=True)
class JobClosed:
    """The job is over and forgotten."""

    job: str
    reason: str


@dataclass(frozen=True, slots=True)
class EpochStarted:
    """The client opened an epoch."""

    job: str
    stream: int
    epoch: int


@dataclass(frozen=True, slots=True)
class EpochFinished:
    """Every split of the epoch was delivered and proven; the digest is in delivered order."""

    job: str
    stream: int
    epoch: int
    count: int
    total: int
    chain: int


@dataclass(frozen=True, slots=True)
class EpochAbandoned:
    """The client gave the epoch up."""

    job: str
    stream: int
    epoch: int


@dataclass(frozen=True, slots=True)
class WorkerRegistered:
    """A worker process introduced itself."""

    worker: str
    incarnation: str
    address: str
    unix_path: str
    host_id: str
    slots: int
    standby: bool
    tensorflow_version: str
    pid: int


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker counts as dead; its attempts are void."""

    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerPromoted:
    """A standby gets work from now on, in the place of `instead`, which was lost or is retired.

    Version 1 did not say in whose place.
    """

    worker: str
    instead: str = ""


class AttemptAssigned(NamedTuple):
    """A worker is to run a split; `trial` is 1 for its first production in this epoch."""

    attempt: int
    job: str
    stream: int
    epoch: int
    split: int
    worker: str
    trial: int

    @property
    def epoch_key(self) -> tuple[str, int, int]:
        """The epoch that it belongs to: (job, stream, epoch)."""
        return self.job, self.stream, self.epoch


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """The worker could not produce the split."""

    attempt: int
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class AttemptDropped:
    """The attempt is void through no fault of the split; another one is needed."""

    attempt: int
    reason: str


class SplitDelivered(NamedTuple):
    """The client has the whole split, and its digest agreed with the worker's."""

    job: str
    stream: int
    epoch: int
    split: int
    count: int  # type: ignore[assignment]  # hides a method of tuples that nobody needs
    total: int
    chain: int


@dataclass(frozen=True, slots=True)
class DatasetCacheable:
    """Workers can cache splits of the dataset; datasets that share a key share the segments."""

    fingerprint: str
    key: str


@dataclass(frozen=True, slots=True)
class JobCaching:
    """How the job uses caches from now on: `off`, `put`, `on` or `auto`."""

    job: str
    mode: str


@dataclass(frozen=True, slots=True)
class StoreAttached:
    """A worker has a cache directory, which others may have, too."""

    worker: str
    store: str
    limit: int


@dataclass(frozen=True, slots=True)
class SplitsCached:
    """A store holds the segments of these splits."""

    store: str
    key: str
    splits: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SplitsUncached:
    """A store does not hold them any more."""

    store: str
    key: str
    splits: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PositionCommitted:
    """The trainer's word that a position is safe; `sequence` counts its client's commits."""

    job: str
    sequence: int
    epoch: int
    consumed: int
    position: str


@dataclass(frozen=True, slots=True)
class JobRewound:
    """The job's client resumes at a position: the epoch that comes next, for each stream."""

    job: str
    epochs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EpochResumed:
    """An epoch that was just started goes on after these splits, a bit each."""

    job: str
    stream: int
    epoch: int
    delivered: bytes
    count: int
    total: int


@dataclass(frozen=True, slots=True)
class GroupFormed:
    """So many consumers share the lanes of a group from now on, beginning at `position`.

    The jobs of its former generation are closed by it. `position` is empty for the very beginning.
    """

    group: str
    generation: int
    world: int
    streams: tuple[str, ...]
    seed: int
    lanes: int
    block: int
    ordered: bool
    position: str


@dataclass(frozen=True, slots=True)
class ConsumerSeated:
    """The job is that of one consumer of a group's present generation."""

    job: str
    group: str
    rank: int


@dataclass(frozen=True, slots=True)
class StepRuled:
    """What all ranks of a training do about a failed step, and which of them proposed it."""

    group: str
    step: int
    round: int
    action: str
    rank: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class CacheDecided:
    """Whether `auto` caches a dataset, and the sums of what was measured of its first splits."""

    key: str
    on: bool
    reason: str
    splits: int
    elements: int
    nbytes: int
    produce_us: int
    write_us: int
    read_us: int
    limit: int


Event: TypeAlias = (
    TermStarted
    | DatasetRegistered
    | JobOpened
    | ClientJoined
    | ClientLeft
    | JobFailed
    | JobClosed
    | EpochStarted
    | EpochFinished
    | EpochAbandoned
    | WorkerRegistered
    | WorkerLost
    | WorkerPromoted
    | AttemptAssigned
    | AttemptFailed
    | AttemptDropped
    | SplitDelivered
    | DatasetCacheable
    | JobCaching
    | StoreAttached
    | SplitsCached
    | SplitsUncached
    | CacheDecided
    | PositionCommitted
    | JobRewound
    | EpochResumed
    | FaultRaised
    | FailoverDecided
    | DeathExplained
    | WorkerReadmitted
    | JobFailoverSet
    | GroupFormed
    | ConsumerSeated
    | StepRuled
    | JobPolicySet
    | ElementSkipped
    | ElementRetried
    | WorkerLimited
    | SplitKilled
    | ProbeStarted
    | ProbeEnded
    | CrossChecked
)
