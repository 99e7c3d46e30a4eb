"""Failure records, and who says what is done about a failure.

Theory of operation. The dispatcher makes a `FailureInfo` of every failure and puts it to a
`FailoverExtension`, which answers with one of the four strategies. `DiagnosingFailover` is the one
that comes with penstock. Users subclass `FailoverExtension` and name their class `module::Class`
(`extensions`). Strategies that cost others something have budgets (`Budgets`), so that no answer,
however often it is given, keeps a job from ending. Everything here is pure.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from .strategy import FailoverStrategy

if TYPE_CHECKING:
    from .diagnosis.result import Diagnosis

#: A diagnosis with less confidence decides nothing by itself.
CONFIDENCE_MIN = 0.5
LOG_LINES_MAX = 50
#: A worker that fails after so many splits of its were made by others is to blame.
BLAMED_MAX = 3


class FailureKind(str, Enum):
    """What kind of failure it is.

    Attributes:
        EXCEPTION: a pipeline raised on a worker.
        DEATH: a worker's process has ended.
        HANG: an attempt makes nothing though its worker is alive.
        LOST_HEARTBEAT: nothing is heard of a worker.
        HASH_MISMATCH: what a client received of an attempt has other hashes than it should have.
        TRAINER_CRASH: a job's client fell silent, or was replaced while it seemed to be there.
    """

    EXCEPTION = "exception"
    DEATH = "death"
    HANG = "hang"
    LOST_HEARTBEAT = "lost heartbeat"
    HASH_MISMATCH = "hash mismatch"
    TRAINER_CRASH = "trainer crash"


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about an earlier failure.

    Attributes:
        fault: its number.
        kind: of the failure.
        strategy: what was done.
        fingerprint: of the failure.
        worker: that it was about; "" for none.
        split: (stream, epoch, split) of the attempt; None for none.
        source: the extension that decided.
        reason: why something else was done than it answered; "" if that was done.
        exit_code, signal: how the process ended, if that was told later, too.
    """

    fault: int
    kind: FailureKind
    strategy: FailoverStrategy
    fingerprint: str
    worker: str
    split: tuple[int, int, int] | None
    source: str
    reason: str
    exit_code: int | None = None
    signal: str | None = None


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """How often a strategy was used for a job, and may still be.

    Attributes:
        strategy: which one.
        used_here: for failures with this fingerprint.
        left_here: how often it may still be used for them.
        used: for any failure.
        left: how often it may still be used at all.
    """

    strategy: FailoverStrategy
    used_here: int
    left_here: int
    used: int
    left: int


@dataclass(frozen=True, slots=True)
class Budgets:
    """How often a strategy may be used for one job.

    `NORMAL_FAILOVER` is bounded by the job's `attempts_max`, and `ABORTION_FAILOVER` ends it.

    Attributes:
        node_each, node_all: times `NODE_FAILOVER`, for each fingerprint and for all failures.
        global_each, global_all: the same of `GLOBAL_FAILOVER`.
    """

    node_each: int = 3
    node_all: int = 16
    global_each: int = 3
    global_all: int = 8

    def use(self, strategy: FailoverStrategy, used_here: int, used: int) -> BudgetUse | None:
        """What is left of a strategy's budget; None for one that has none."""
        if strategy is FailoverStrategy.NODE_FAILOVER:
            each, total = self.node_each, self.node_all
        elif strategy is FailoverStrategy.GLOBAL_FAILOVER:
            each, total = self.global_each, self.global_all
        else:
            return None
        left_here, left = max(0, each - used_here), max(0, total - used)
        return BudgetUse(strategy, used_here, min(left_here, left), used, left)


@dataclass(frozen=True, slots=True)
class FailureInfo:
    """A failure, as an extension sees it. What is not known is None or empty.

    Attributes:
        fault: its number, unique over the life of the journal.
        kind: what kind of failure it is.
        job: id of the job that it concerns; "" if the worker had nothing to do for any.
        job_name: the job's name.
        worker: id of the worker.
        host: its address, `host:port`.
        attempt: number of the attempt.
        trial: which production of the split in this epoch it was, from 1.
        attempts_max: how many there may be before the job fails.
        stream, epoch, split: what the attempt was to make.
        element: the index in the split of the element that failed, if it is known exactly.
        elements_made: how many elements the attempt had made before.
        trainer_step: the step that the trainer was at when it was heard of last, if it says so.
        committed: (epoch, elements) of the position that the trainer committed last.
        code: penstock's word for the failure, such as "PIPELINE" or "STUCK".
        failed_on: workers on which the split has failed before in this epoch.
        blamed: how many splits failed on the worker and were made by others, since it made one.
        message: what happened, in words.
        exceptions: the chain, each `Type: message`, the outermost first: each came from the next.
        log: the last lines that tell of it, at most 50.
        exit_code, signal: how the process ended, as far as somebody has told by now.
        since_start_s: seconds since the attempt was given out.
        since_progress_s: seconds since it made an element last, or the peer was heard of.
        at_unix_s: when the record was made, in seconds since 1970.
        fingerprint: the same for failures that look the same.
        earlier: what was decided before about this job, oldest first, at most 16.
        budgets: of the strategies that have one.
        diagnosis: the root cause; None if it was not looked for.
    """

    fault: int
    kind: FailureKind
    job: str = ""
    job_name: str = ""
    worker: str = ""
    host: str = ""
    attempt: int | None = None
    trial: int = 0
    attempts_max: int = 0
    stream: int | None = None
    epoch: int | None = None
    split: int | None = None
    element: int | None = None
    elements_made: int = 0
    trainer_step: int | None = None
    committed: tuple[int, int] | None = None
    code: str = ""
    failed_on: tuple[str, ...] = ()
    blamed: int = 0
    message: str = ""
    exceptions: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    exit_code: int | None = None
    signal: str | None = None
    since_start_s: float | None = None
    since_progress_s: float | None = None
    at_unix_s: float = field(default_factory=time.time)
    fingerprint: str = ""
    earlier: tuple[Decision, ...] = ()
    budgets: tuple[BudgetUse, ...] = ()
    diagnosis: Diagnosis | None = None

    def left(self, strategy: FailoverStrategy) -> int | None:
        """How often a strategy may still be used for this failure; None: as often as one likes."""
        return next((use.left_here for use in self.budgets if use.strategy is strategy), None)


class FailoverExtension(ABC):
    """Says what is done about failures. Subclass it and name your class to penstock.

    One object is made when the dispatcher starts, or when the job is opened, without arguments. It
    is asked about one failure at a time, in a thread of its own.
    """

    @abstractmethod
    def get_user_failover_strategy(self, failure_info: FailureInfo) -> FailoverStrategy:
        """The strategy for a failure.

        An exception, another type of answer, or none before the deadline is a fault of the
        extension: it is logged, shown by `penstock status`, and the default is taken.
        """


class DiagnosingFailover(FailoverExtension):
    """The default: the diagnosis decides, and what it does not know is simply tried again.

    A split that cannot be produced is attempted `attempts_max` times, which names the exact record,
    before the job fails. A diagnosis that blames the worker retires it, once for failures that look
    the same: where a second worker fails in the same way, it is not the worker. So does the
    cross-check: a worker on which a split fails, after several that others have made, while it made
    none itself. Data that is not what it should be ends the job.
    """

    def get_user_failover_strategy(self, failure_info: FailureInfo) -> FailoverStrategy:
        """The strategy for a failure."""
        if failure_info.kind is FailureKind.HASH_MISMATCH:
            return FailoverStrategy.ABORTION_FAILOVER
        if failure_info.kind is not FailureKind.EXCEPTION:
            return FailoverStrategy.NORMAL_FAILOVER
        if failure_info.blamed >= BLAMED_MAX and not failure_info.failed_on:
            return FailoverStrategy.NODE_FAILOVER
        found = failure_info.diagnosis
        if found is None:
            return FailoverStrategy.NORMAL_FAILOVER
        suggested = found.strategy
        once = (FailoverStrategy.NODE_FAILOVER, FailoverStrategy.GLOBAL_FAILOVER)
        before = any(
            earlier.strategy is suggested and earlier.fingerprint == failure_info.fingerprint
            for earlier in failure_info.earlier
        )
        if suggested in once and found.confidence >= CONFIDENCE_MIN and not before:
            return suggested
        return FailoverStrategy.NORMAL_FAILOVER
