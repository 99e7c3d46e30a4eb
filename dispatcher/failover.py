"""What is done about faults: pure functions of the state and of what an extension answers.

Theory of operation. A fault is raised by a record (`FaultRaised`), put to an extension outside of
the event loop (`deciding`), and closed by another record, `FailoverDecided`, which *is* the action:
applying it retires the worker, ends every attempt of the job, or fails the job. So a decision is
journaled before anything follows from it, acts whole or not at all, and never acts twice, whatever
dies in between; a fault that is still open when a dispatcher starts is put to the extension again.

An attempt that cannot be produced stays the split's current one until then, so nobody else gets the
split before it is decided that somebody shall. The death of a worker waits for nobody: its attempts
go to others at once, and the decision comes on top.

A retired worker is one process, named by its incarnation. It gets nothing, as whatever it
registers, until it is readmitted; a new process at its address is another worker.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from ..errors import NotFoundError
from ..recovery.failover import FailureKind
from ..recovery.strategy import FailoverStrategy
from . import events as ev
from . import quarantine
from .fault_events import (
    DeathExplained,
    FailoverDecided,
    FaultRaised,
    JobFailoverSet,
    WorkerReadmitted,
)
from .fault_texts import abortion_text, too_often

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..recovery.extensions import Answer
    from ..recovery.failover import Budgets, BudgetUse
    from .events import Event
    from .fault_events import CrossChecked, ProbeStarted
    from .probing import Probe
    from .records import Attempt, Job, Split, Worker
    from .state import State

NORMAL = FailoverStrategy.NORMAL_FAILOVER
NODE = FailoverStrategy.NODE_FAILOVER
GLOBAL = FailoverStrategy.GLOBAL_FAILOVER
ABORTION = FailoverStrategy.ABORTION_FAILOVER

FailoverEvent: TypeAlias = (
    FaultRaised | FailoverDecided | DeathExplained | WorkerReadmitted | JobFailoverSet
)

#: How many decisions are remembered.
DECIDED_MAX = 64
#: How many retired processes are remembered, besides those that are there.
RETIRED_MAX = 256
#: How many fingerprints of a job have a count of their own.
COUNTED_MAX = 256
_ALL = ""
#: The faults that are the end of a worker, as far as one can see.
_ENDS = (FailureKind.DEATH.value, FailureKind.LOST_HEARTBEAT.value)


@dataclass(frozen=True, slots=True)
class Retired:
    """A process that gets no work: the worker that it was registered as, where, and why."""

    worker: str
    host: str
    reason: str


@dataclass(slots=True)
class FailoverBook:
    """What the state knows of faults.

    Attributes:
        next_fault: the number that the next fault gets.
        open: faults that are not decided yet, by number.
        decided: the last decisions with their faults, by number, the oldest first.
        spent: by job, how often each (strategy, fingerprint) was decided; the empty fingerprint
            stands for all.
        retired: by incarnation.
        suspects: by worker, the number of the last fault of an attempt there that was simply to be
            made again, until the worker gets a probe; see `probing`.
        probes: by worker.
        checked: the last verdicts about probes, by number, the oldest first.
    """

    next_fault: int = 1
    open: dict[int, FaultRaised] = field(default_factory=dict)
    decided: dict[int, tuple[FaultRaised, FailoverDecided]] = field(default_factory=dict)
    spent: dict[str, dict[tuple[str, str], int]] = field(default_factory=dict)
    retired: dict[str, Retired] = field(default_factory=dict)
    suspects: dict[str, int] = field(default_factory=dict)
    probes: dict[str, Probe] = field(default_factory=dict)
    checked: dict[int, tuple[ProbeStarted, CrossChecked]] = field(default_factory=dict)

    def times(self, job: str, strategy: str, fingerprint: str = _ALL) -> int:
        """How often a strategy was decided for a job, or for its failures of that fingerprint."""
        return self.spent.get(job, {}).get((strategy, fingerprint), 0)

    def count(self, job: str, strategy: str, fingerprint: str) -> None:
        """A strategy was decided once more, for failures of that fingerprint or for none."""
        spent = self.spent.setdefault(job, {})
        for key in dict.fromkeys(((strategy, _ALL), (strategy, fingerprint))):
            spent[key] = spent.get(key, 0) + 1
        named = [key for key in spent if key[1] != _ALL]
        for key in named[: max(0, len(named) - COUNTED_MAX)]:
            del spent[key]


def takes_work(state: State, worker: Worker) -> bool:
    """Whether a worker may be given attempts."""
    return not worker.standby and worker.incarnation not in state.failover.retired


def apply(state: State, event: FailoverEvent) -> set[str]:
    """Carries an event out; returns the workers and jobs whose view changed.

    Raises:
        ValueError: the event does not fit the state, which is unchanged.
    """
    book = state.failover
    match event:
        case FaultRaised():
            _check_fault(state, event)
            book.open[book.next_fault] = event
            book.next_fault += 1
            return set()
        case FailoverDecided():
            return _carry_out(state, event)
        case DeathExplained():
            _explain(book, event)
            return set()
        case WorkerReadmitted(name):
            worker = state.workers.get(name)
            if worker is None or worker.incarnation not in book.retired:
                raise ValueError(f"worker {name} is not retired")
            del book.retired[worker.incarnation]
            return {name}
        case JobFailoverSet(job, extension):
            if job not in state.jobs:
                raise ValueError(f"there is no job {job}")
            state.jobs[job].failover = extension
            return set()


def _explain(book: FailoverBook, event: DeathExplained) -> None:
    """Writes down with the faults of a worker's death how it ended."""

    def ended(fault: FaultRaised) -> FaultRaised:
        return replace(fault, exit_code=event.exit_code, signal=event.signal)

    def is_of_it(fault: FaultRaised) -> bool:
        return fault.incarnation == event.incarnation and fault.failure in _ENDS

    for number, fault in book.open.items():
        if is_of_it(fault):
            book.open[number] = ended(fault)
    for number, (fault, made) in book.decided.items():
        if is_of_it(fault):
            book.decided[number] = ended(fault), made


def job_events(job: Job, extension: str) -> list[Event]:
    """What follows when a client names an extension that the job did not have so far."""
    return [JobFailoverSet(job.job, extension)] if job.failover != extension else []


def readmission(state: State, name: str) -> list[Event]:
    """What follows when a person says that a worker may work again.

    Raises:
        NotFoundError: there is no retired worker of that id.
    """
    worker = state.workers.get(name)
    if worker is None or worker.incarnation not in state.failover.retired:
        retired = [
            worker.worker
            for worker in state.workers.values()
            if worker.incarnation in state.failover.retired
        ]
        raise NotFoundError(
            f"worker {name[:80]!r} is not retired; retired are: {', '.join(retired) or 'none'}"
        )
    return [WorkerReadmitted(name)]


def _check_fault(state: State, fault: FaultRaised) -> None:
    if fault.job and fault.job not in state.jobs:
        raise ValueError(f"a fault of job {fault.job}, which is not there")
    if fault.attempt:
        if fault.attempt not in state.attempts:
            raise ValueError(f"a fault of attempt {fault.attempt}, which is not running")
        if is_open(state, fault.attempt):
            raise ValueError(f"attempt {fault.attempt} has a fault already")


def is_open(state: State, attempt: int) -> bool:
    """Whether it is not decided yet what is done about a failed attempt."""
    return any(fault.attempt == attempt for fault in state.failover.open.values())


def _carry_out(state: State, event: FailoverDecided) -> set[str]:
    book = state.failover
    fault = book.open.get(event.fault)
    if fault is None:
        raise ValueError(f"fault {event.fault} is not open")
    strategy = _strategy(event.strategy)
    del book.open[event.fault]
    book.decided[event.fault] = fault, event
    while len(book.decided) > DECIDED_MAX:
        del book.decided[next(iter(book.decided))]
    if not fault.job or fault.job in state.jobs:
        book.count(fault.job, event.strategy, fault.fingerprint)
    if fault.exact:
        _name(state, fault)
    if strategy is NODE:
        return _retire(state, fault, event)
    if strategy is GLOBAL:
        return _end_all(state, attempts_of(state, fault.job))
    if strategy is ABORTION:
        return _fail_jobs(state, fault, event)
    if fault.attempt and fault.worker in state.workers:
        book.suspects[fault.worker] = event.fault
    return set()


def _name(state: State, fault: FaultRaised) -> None:
    """Notes which element a failed attempt of a split has named."""
    epoch = state.epoch(fault.epoch_key)
    split = epoch.splits.get(fault.split) if epoch is not None else None
    if split is not None and not split.attempt:
        split.named += (fault.made,)


def learn(state: State, split: Split) -> None:
    """A split is delivered: who made it is sound, and who could not is suspect.

    That is the cross-check of split and worker: the split was made elsewhere, so it is not to
    blame; and a worker that makes another one is not to blame either.
    """
    maker = state.attempts[split.attempt].worker
    state.workers[maker].blamed = 0
    for name in split.failed_on:
        if name != maker and name in state.workers:
            state.workers[name].blamed += 1


def _strategy(text: str) -> FailoverStrategy:
    try:
        return FailoverStrategy(text)
    except ValueError:
        raise ValueError(f"{text[:80]!r} is no failover strategy") from None


def _retire(state: State, fault: FaultRaised, event: FailoverDecided) -> set[str]:
    book = state.failover
    reason = f"fault {event.fault} ({fault.failure}), decided by {event.source}"
    book.retired.pop(fault.incarnation, None)
    book.retired[fault.incarnation] = Retired(fault.worker, fault.host, reason)
    live = {worker.incarnation for worker in state.workers.values()}
    gone = [incarnation for incarnation in book.retired if incarnation not in live]
    for incarnation in gone[: max(0, len(gone) - RETIRED_MAX)]:
        del book.retired[incarnation]
    worker = state.workers.get(fault.worker)
    if worker is None or worker.incarnation != fault.incarnation:
        return set()  # it is dead: what it had is with others already
    return {worker.worker} | _end_all(state, [state.attempts[n] for n in worker.attempts])


def attempts_of(state: State, job: str) -> list[Attempt]:
    """The running attempts of a job, or of all for an empty one."""
    return [attempt for attempt in state.attempts.values() if job in ("", attempt.job)]


def _end_all(state: State, attempts: Iterable[Attempt]) -> set[str]:
    touched: set[str] = set()
    for attempt in attempts:
        touched |= state.end_attempt(attempt)
    return touched


def _fail_jobs(state: State, fault: FaultRaised, event: FailoverDecided) -> set[str]:
    touched: set[str] = set()
    for job in list(state.jobs.values()):
        if fault.job in ("", job.job) and not job.failure:
            touched |= state.close_epochs(job) | {job.job}
            job.failure = abortion_text(fault, event)
    return touched


def budgets_of(state: State, fault: FaultRaised, budgets: Budgets) -> tuple[BudgetUse, ...]:
    """What was spent and is left for a fault."""
    book = state.failover
    uses = [
        budgets.use(
            strategy,
            book.times(fault.job, strategy.value, fault.fingerprint),
            book.times(fault.job, strategy.value),
        )
        for strategy in FailoverStrategy
    ]
    return tuple(use for use in uses if use is not None)


def decide(state: State, number: int, answer: Answer, budgets: Budgets) -> list[Event]:
    """What follows from the answer to an open fault.

    Args:
        state: the state.
        number: of the fault.
        answer: what the extension says.
        budgets: how often a strategy may be used.
    """
    fault = state.failover.open[number]
    strategy, reason = answer.strategy, answer.problem
    why_not = _obstacle(state, fault, strategy, budgets)
    if why_not:
        strategy, reason = NORMAL, f"{reason}; {why_not}" if reason else why_not
    asked = "" if answer.problem else answer.strategy.value
    found = answer.diagnosis
    root_cause = found.root_cause if found is not None and found.confidence > 0 else ""
    decided = FailoverDecided(number, strategy.value, asked, answer.source, reason, root_cause)
    attempt = state.attempts.get(fault.attempt)
    if attempt is None or strategy is ABORTION:
        return [decided, *_replacement(state, fault, strategy)]
    out: list[Event] = [ev.AttemptFailed(fault.attempt, fault.code, fault.detail), decided]
    if attempt.trial >= state.jobs[attempt.job].attempts_max:
        why = too_often(state, attempt, fault.code, fault.detail)
        out += quarantine.last_resort(state, attempt, fault, number, why)
    return out + _replacement(state, fault, strategy)


def _obstacle(
    state: State, fault: FaultRaised, strategy: FailoverStrategy, budgets: Budgets
) -> str:
    """Why a strategy is not to be had; empty if it is."""
    for use in budgets_of(state, fault, budgets):
        if use.strategy is strategy and not use.left_here:
            return (
                f"the budget of {strategy.value} is exhausted: it was used {use.used_here} times"
                f" for failures like this one, {use.used} times for all"
            )
    if strategy is NODE:
        if not fault.worker:
            return "there is no worker to retire"
        live = state.workers.get(fault.worker)
        others = any(
            worker.worker != fault.worker and worker.incarnation not in state.failover.retired
            for worker in state.workers.values()
        )
        if live is not None and live.incarnation == fault.incarnation and not others:
            return f"worker {fault.worker} is not retired, because there is no other one"
    return ""


def _replacement(state: State, fault: FaultRaised, strategy: FailoverStrategy) -> list[Event]:
    """A standby for a worker that is being retired."""
    worker = state.workers.get(fault.worker)
    if strategy is not NODE or worker is None or worker.incarnation != fault.incarnation:
        return []
    if not takes_work(state, worker):
        return []
    retired = state.failover.retired
    standbys = [
        other.worker
        for other in state.workers.values()
        if other.standby and other.incarnation not in retired
    ]
    return [ev.WorkerPromoted(name, worker.worker) for name in standbys[:1]]
