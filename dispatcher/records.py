"""What the state is made of: plain records, changed by `State.apply` only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..proto.deal import deal
from .events import AttemptAssigned, SplitDelivered
from .lanes import LaneBook
from .splitset import SplitSet

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .quarantine import BadElement

#: (job, stream, epoch)
EpochKey = tuple[str, int, int]
#: A running attempt is what was assigned, for as long as it runs.
Attempt = AttemptAssigned


@dataclass(slots=True)
class Dataset:
    """A registered stream; `cache_key` names what workers can cache of it."""

    fingerprint: str
    num_splits: int
    weights: tuple[int, ...]
    replayable: bool
    components: bytes
    graph_bytes: int
    cache_key: str = ""


@dataclass(slots=True)
class Worker:
    """A registered worker.

    Attributes:
        standby: false once it is promoted.
        store: its cache directory, which it may share; empty if it has none.
        cache_limit: bytes that the store may hold.
        limited: why it takes on less than it was told to; empty if it does not.
        blamed: how many splits that failed on it others have made, since it made one itself.
    """

    worker: str
    incarnation: str
    address: str
    unix_path: str
    host_id: str
    slots: int
    standby: bool
    tensorflow_version: str
    pid: int
    store: str = ""
    cache_limit: int = 0
    limited: str = ""
    blamed: int = 0
    attempts: dict[int, None] = field(default_factory=dict)  # an ordered set


@dataclass(frozen=True, slots=True)
class LostWorker:
    """One of the workers that were lost last; registering again, it gets its id back.

    `replaced` says that its place was taken: it comes back as a standby.
    """

    worker: str
    incarnation: str
    address: str
    standby: bool
    reason: str
    replaced: bool = False


@dataclass(slots=True)
class Split:
    """An undelivered split that was assigned at least once and is not back where it began.

    Attributes:
        attempt: number of the running attempt, 0 if there is none.
        failures: failed productions in this epoch.
        failed_on: workers that could not produce it, each once, the first one first.
        named: the elements that were named exactly by these failures.
    """

    attempt: int = 0
    failures: int = 0
    failed_on: tuple[str, ...] = ()
    named: tuple[int, ...] = ()


@dataclass(slots=True)
class Epoch:
    """An open epoch.

    Attributes:
        splits: those that are touched and not delivered.
        delivered: those that are delivered.
        count: delivered elements.
        total: sum of their hashes modulo 2**64.
        kills: by split, the element that was named each time that a worker died of memory while
            it made the split, from 1; 0 where none was. The last ones.
        proven: by worker, the last split that it has made and a client verified.
    """

    job: str
    stream: int
    epoch: int
    splits: dict[int, Split] = field(default_factory=dict)
    delivered: SplitSet = field(default_factory=SplitSet)
    count: int = 0
    total: int = 0
    kills: dict[int, tuple[int, ...]] = field(default_factory=dict)
    proven: dict[str, SplitDelivered] = field(default_factory=dict)
    book: LaneBook | None = None  # derived; None until somebody asks

    @property
    def key(self) -> EpochKey:
        """What names it."""
        return self.job, self.stream, self.epoch

    def running(self) -> Iterable[int]:
        """The splits that have an attempt."""
        return [number for number, split in self.splits.items() if split.attempt]


@dataclass(slots=True)
class Stream:
    """One stream of a job; epochs that are over are folded into three numbers."""

    dataset: str
    next_epoch: int = 0
    epochs_finished: int = 0
    last_digest: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class CacheDecision:
    """What `auto` does with a dataset, and the sums of what was measured; see `CacheDecided`."""

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


@dataclass(slots=True)
class Job:
    """A job.

    Attributes:
        client: incarnation of the client that owns it, or owned it last.
        attached: whether that client is there.
        former: the clients that owned it before and were replaced, the latest last.
        cache: `off`, `put`, `on` or `auto`.
        position: what was committed last, as its client wrote it; empty: nothing.
        position_at: (epoch, elements) of it, for people.
        commits: the number of the client's last commit.
        failover: the extension that its faults are put to; empty: the dispatcher's.
        failure: why the job cannot go on; empty while it can.
        on_bad: what is done about bad elements; see `quarantine`.
        max_bad: how many an epoch of a stream may lose.
        left: why its client left; empty while it is there.
        bad: those that are left out, by (stream, epoch, split) and number.
        epochs: open epochs by (stream, epoch).
    """

    job: str
    name: str
    seed: int
    lanes: int
    block: int
    ordered: bool
    attempts_max: int
    streams: list[Stream]
    client: str = ""
    attached: bool = False
    failure: str = ""
    former: tuple[str, ...] = ()
    cache: str = "off"
    position: str = ""
    position_at: tuple[int, int] = (0, 0)
    commits: int = 0
    failover: str = ""
    on_bad: str = "fail"
    max_bad: int = 0
    left: str = ""
    bad: dict[tuple[int, int, int], dict[int, BadElement]] = field(default_factory=dict)
    epochs: dict[tuple[int, int], Epoch] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The job for people: id, and its name if it has one."""
        return f"{self.job} ({self.name!r})" if self.name else f"{self.job} (unnamed)"


@dataclass(slots=True)
class Group:
    """Consumers that share lanes.

    Attributes:
        generation: how often it was formed; every other number of consumers is another one.
        world: how many consumers it has.
        streams: the datasets, as those of its jobs; so with the next ones.
        position: the text of where the generation began; empty: at the very beginning.
        jobs: the consumers' jobs, by rank; empty for one that never came.
        former: the jobs of former generations, the latest last.
        bad: what these jobs have left out, as `Job.bad`: later ones leave it out, too.
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
    jobs: list[str] = field(default_factory=list)
    former: tuple[str, ...] = ()
    bad: dict[tuple[int, int, int], dict[int, BadElement]] = field(default_factory=dict)


def deal_epoch(job: Job, dataset: Dataset, epoch: Epoch) -> LaneBook:
    """The lane book of an epoch, made anew."""
    dealt = deal(
        dataset.num_splits,
        job.lanes,
        seed=job.seed,
        epoch=epoch.epoch,
        weights=dataset.weights,
        ordered=job.ordered,
    )
    return LaneBook(dealt, epoch.delivered, epoch.running())
