"""Cross-probing: is it the worker, or the split? A state machine, pure functions of the state.

Theory of operation. A split that failed on a worker is made by another one, as ever. Beside that
the worker gets a *probe*: a split of the same epoch that another worker has made, of which count
and digest are known. What it makes of it is compared and never delivered. When both are known, the
verdict is journaled:

    split made elsewhere, probe failed      the worker is bad: a fault, which retires it by default
    split failed elsewhere, probe fine      the split is bad: `attempts_max`, `on_bad_element`
    split made elsewhere, probe fine        neither: it was the moment
    split failed elsewhere, probe failed    neither can be told: what both need may be away
    split made here in the end              the same: `transient` if the probe is fine, or unclear

A worker is a *suspect* from the decision that its failed attempt is simply made again; it gets its
probe once another worker has made something. A worker has at most one probe, and a job at most
`PROBES_MAX` over its life. An epoch or a worker that is gone ends a probe without a verdict.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from ..errors import UsageError
from ..recovery.failover import FailureKind
from .failover import takes_work
from .fault_events import CrossChecked, FaultRaised, ProbeEnded, ProbeStarted
from .faults import fault_of_worker

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..proto import control_pb2
    from .events import Event, SplitDelivered
    from .failover import FailoverBook
    from .records import Epoch
    from .state import State

ProbeEvent: TypeAlias = ProbeStarted | ProbeEnded | CrossChecked

#: So many probes a job may cost.
PROBES_MAX = 16
#: Of so many workers an epoch remembers a split that they have made.
PROVEN_MAX = 8
#: How many verdicts are remembered.
CHECKED_MAX = 16
TEXT_CHARS_MAX = 1000
FINE, FAILED, DIFFERS = "fine", "failed", "differs"
WORKER, SPLIT, TRANSIENT, UNCLEAR, VOID = "worker", "split", "transient", "unclear", "void"
_SPENT = "PROBE"


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe, and what came of it: empty as long as that is not known.

    `made_here` says that the worker has made the suspect split itself in the end.
    """

    started: ProbeStarted
    outcome: str = ""
    detail: str = ""
    made_here: bool = False


def apply(state: State, event: ProbeEvent) -> set[str]:
    """Carries an event out; returns the worker whose view changed.

    Raises:
        ValueError: the event does not fit the state, which is unchanged.
    """
    book = state.failover
    if isinstance(event, ProbeStarted):
        worker = state.workers.get(event.worker)
        if event.worker in book.probes or worker is None or state.epoch(event.epoch_key) is None:
            raise ValueError(f"{event}: the worker has a probe, or worker or epoch are not there")
        book.probes[event.worker] = Probe(event)
        book.suspects.pop(event.worker, None)
        book.count(event.job, _SPENT, "")
        return {event.worker}
    probe = book.probes.get(event.worker)
    if probe is None or probe.started.probe != event.probe:
        raise ValueError(f"worker {event.worker} has no probe {event.probe}")
    if isinstance(event, ProbeEnded):
        if probe.outcome or event.outcome not in (FINE, FAILED, DIFFERS):
            raise ValueError(f"probe {event.probe} has ended, or cannot end so")
        book.probes[event.worker] = replace(probe, outcome=event.outcome, detail=event.detail)
    else:
        del book.probes[event.worker]
        book.checked[event.probe] = probe.started, event
        while len(book.checked) > CHECKED_MAX:
            del book.checked[next(iter(book.checked))]
    return {event.worker}


def learn(state: State, epoch: Epoch, maker: str, event: SplitDelivered) -> None:
    """A split is proven; a part of `State.apply`. Of each worker the latest one is remembered."""
    book = state.failover
    if maker in book.suspects or maker in book.probes:
        _made_here(book, maker, (*epoch.key, event.split))
    if event.count:  # who makes nothing of nothing proves nothing
        epoch.proven.pop(maker, None)
        epoch.proven[maker] = event
        if len(epoch.proven) > PROVEN_MAX:
            del epoch.proven[next(iter(epoch.proven))]


def _made_here(book: FailoverBook, maker: str, split: tuple[str, int, int, int]) -> None:
    """A worker that failed before has made a split: if it is the same one, nobody else has."""
    fault, _ = book.decided.get(book.suspects.get(maker, 0), (None, None))
    if fault is not None and (*fault.epoch_key, fault.split) == split:
        del book.suspects[maker]
    probe = book.probes.get(maker)
    if probe is not None and (*probe.started.epoch_key, probe.started.suspect) == split:
        book.probes[maker] = replace(probe, made_here=True)


def events(state: State) -> list[Event]:
    """What follows from the state: verdicts, with the faults that they raise, and probes."""
    return [*_verdicts(state), *_starts(state)]


def _starts(state: State) -> list[ProbeStarted]:
    """The probes of workers that are suspects, as far as something is known to be sound."""
    book, out = state.failover, []
    spent: dict[str, int] = {}
    for name, number in book.suspects.items():
        fault, _ = book.decided.get(number, (None, None))
        worker, epoch = state.workers.get(name), state.epoch(fault.epoch_key) if fault else None
        if fault is None or epoch is None or worker is None or name in book.probes:
            continue
        if worker.incarnation != fault.incarnation or not takes_work(state, worker):
            continue
        known = [made for maker, made in epoch.proven.items() if maker != name]
        spent.setdefault(fault.job, book.times(fault.job, _SPENT))
        if not known or spent[fault.job] >= PROBES_MAX:
            continue
        spent[fault.job] += 1
        good, key = known[-1], fault.epoch_key
        digest = (good.count, good.total, good.chain)
        out.append(ProbeStarted(number, name, *key, fault.split, good.split, *digest))
    return out


def worker_events(
    state: State, worker: str, told: Iterable[control_pb2.ProbeResult]
) -> list[ProbeEnded]:
    """What follows from the probes that a worker reports; those that are over change nothing.

    Raises:
        UsageError: a text is too long.
    """
    out: dict[int, ProbeEnded] = {}
    probe = state.failover.probes.get(worker)
    for result in told:
        if len(result.detail) > TEXT_CHARS_MAX:
            raise UsageError(f"detail of a probe must have at most {TEXT_CHARS_MAX} characters")
        if probe is None or probe.outcome or probe.started.probe != result.probe:
            continue
        outcome, detail = _outcome(state, probe.started, result)
        out[result.probe] = ProbeEnded(result.probe, worker, outcome, detail)
    return list(out.values())


def _outcome(
    state: State, started: ProbeStarted, result: control_pb2.ProbeResult
) -> tuple[str, str]:
    if not result.HasField("digest"):
        return FAILED, result.detail
    made = (result.digest.count, result.digest.total, result.digest.chain)
    known = (started.count, started.total, started.chain)
    job = state.jobs.get(started.job)
    # What no replay repeats proves nothing, nor how many there are: a filter may be random.
    if made == known or job is None or not state.dataset_of(job, started.stream).replayable:
        return FINE, ""
    return (
        DIFFERS,
        f"{made[0]} elements with the sum {made[1]:016x}, not {known[0]}, {known[1]:016x}",
    )


def _verdicts(state: State) -> list[Event]:
    """The verdicts that can be given now, each with the fault that it raises."""
    out: list[Event] = []
    for probe in state.failover.probes.values():
        verdict = _verdict(state, probe)
        if verdict:
            started = probe.started
            out.append(CrossChecked(started.probe, started.worker, verdict, probe.detail))
            if verdict == WORKER:
                out.append(_fault(state, probe))
    return out


def _verdict(state: State, probe: Probe) -> str:
    """The verdict about a probe; empty as long as there is none."""
    started = probe.started
    epoch = state.epoch(started.epoch_key)
    worker = state.workers.get(started.worker)
    if worker is None or not takes_work(state, worker):
        return VOID
    made = epoch is not None and started.suspect in epoch.delivered
    if epoch is None or (started.suspect not in epoch.splits and not made):
        return VOID
    failed_on = () if made else epoch.splits[started.suspect].failed_on
    elsewhere = any(name != started.worker for name in failed_on)
    if not probe.outcome or not (made or elsewhere):
        return ""
    if probe.outcome == FINE:
        return TRANSIENT if made else SPLIT
    return WORKER if made and not probe.made_here else UNCLEAR


def _fault(state: State, probe: Probe) -> FaultRaised:
    started, worker = probe.started, state.workers[probe.started.worker]
    detail = (
        f"split {started.suspect} of epoch {started.epoch}, stream {started.stream}, failed here"
        f" and was made by another worker; split {started.split}, which another one had made,"
        f" {probe.outcome} here: {probe.detail}"
    )
    return fault_of_worker(worker, started.job, FailureKind.BAD_WORKER, detail, probe.outcome)


def text_of(started: ProbeStarted) -> str:
    """What a probe is, in words."""
    return (
        f"worker {started.worker} makes split {started.split} of epoch {started.epoch}, stream"
        f" {started.stream} of job {started.job}, because split {started.suspect} failed there"
        f" (fault {started.probe})"
    )
