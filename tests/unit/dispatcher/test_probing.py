"""Cross-probing, in the pure core: is it the worker, or the split?"""

from __future__ import annotations

import pytest

from penstock.dispatcher import events as ev
from penstock.dispatcher import failover, probing
from penstock.dispatcher.faults import Failed, attempt_faults
from penstock.dispatcher.snapshot import from_snapshot, to_snapshot
from penstock.dispatcher.state import InvalidEventError, State
from penstock.dispatcher.views import worker_view
from penstock.errors import UsageError
from penstock.proto import control_pb2 as pb
from penstock.recovery.extensions import Answer
from penstock.recovery.failover import Budgets
from penstock.recovery.strategy import FailoverStrategy

from .builders import build, dataset, delivered, job, schedule, worker

EPOCH = ev.EpochStarted("j1", 0, 0)
NORMAL, NODE, *_ = FailoverStrategy
GOOD = pb.Digest(count=10, total=101, chain=1)  # of split 1, as `delivered` has it


def running(*more: ev.Event) -> State:
    """Splits 0 to 7; worker 1 has the even ones, worker 2 the odd ones, of which 1 is delivered."""
    state = build(dataset(), job(), worker(1, slots=4), worker(2, slots=4), *more, EPOCH)
    schedule(state)
    assert [state.attempts[n].worker for n in (1, 2)] == ["w1", "w2"]
    state.apply(delivered(1))
    return state


def fail(state: State, split: int, answer: FailoverStrategy = NORMAL) -> list[ev.Event]:
    """A split's attempt fails, and it is decided what is done; the probe that this leads to."""
    attempt = state.jobs["j1"].epochs[0, 0].splits[split].attempt
    for event in attempt_faults(state, [Failed(attempt, "PIPELINE", "boom")]):
        state.apply(event)
    number = state.failover.next_fault - 1
    for event in failover.decide(state, number, Answer(answer, "m::C"), Budgets()):
        state.apply(event)
    return start(state)


def start(state: State) -> list[ev.Event]:
    """The probes that are started now."""
    probes = [event for event in probing.events(state) if isinstance(event, ev.ProbeStarted)]
    for event in probes:
        state.apply(event)
    schedule(state)
    return [*probes]


def tell(state: State, number: int = 1, **more: object) -> list[str]:
    """Worker 1 tells of a probe; the outcome."""
    events = probing.worker_events(state, "w1", [pb.ProbeResult(probe=number, **more)])  # type: ignore[arg-type]
    for event in events:
        state.apply(event)
    return [event.outcome for event in events]


def judge(state: State) -> list[str]:
    """The verdicts, applied, and the kinds of the faults that they raise."""
    events = probing.events(state)
    for event in events:
        state.apply(event)
    assert probing.events(state) == []
    return [
        event.verdict if isinstance(event, ev.CrossChecked) else event.failure for event in events
    ]


def test_a_worker_that_failed_gets_a_split_that_another_one_has_made() -> None:
    state = running()
    assert fail(state, 0) == [ev.ProbeStarted(1, "w1", "j1", 0, 0, 0, 1, 10, 101, 1)]
    state = from_snapshot(to_snapshot(state))
    (spec,) = worker_view(state, state.workers["w1"], 1).probes
    assert (spec.attempt, spec.split, spec.dataset, spec.seed) == (1, 1, "d1", 7)
    assert (spec.trial, spec.cache) == (1, "off")
    assert not worker_view(state, state.workers["w2"], 1).probes
    # The split that failed is tried on the other one.
    assert state.attempts[state.jobs["j1"].epochs[0, 0].splits[0].attempt].worker == "w2"
    assert fail(state, 2) == []  # one at a time
    assert judge(state) == []


def test_what_another_one_has_made_is_known_with_its_whole_digest_after_a_snapshot() -> None:
    state = from_snapshot(to_snapshot(running()))
    assert fail(state, 0) == [ev.ProbeStarted(1, "w1", "j1", 0, 0, 0, 1, 10, 101, 1)]


@pytest.mark.parametrize(
    ("made", "result", "wanted"),
    [
        (True, {"detail": "no disk"}, ["worker", "bad worker"]),
        (True, {"digest": pb.Digest(count=10, total=100, chain=1)}, ["worker", "bad worker"]),
        (True, {"digest": GOOD}, ["transient"]),
        (False, {"digest": GOOD}, ["split"]),
        (False, {"detail": "no disk"}, ["unclear"]),
    ],
)
def test_the_verdict_needs_both(made: bool, result: dict[str, object], wanted: list[str]) -> None:
    for order in (True, False):
        state = running()
        fail(state, 0)
        if order:
            tell(state, **result)
            assert judge(state) == []
        if made:
            state.apply(delivered(0))
        else:
            fail(state, 0)
        if not order:
            assert judge(state) == []
            state = from_snapshot(to_snapshot(state))
            tell(state, **result)
            tell(state, **result)  # reports are repeated
        assert not worker_view(state, state.workers["w1"], 1).probes
        assert judge(state) == wanted
        state = from_snapshot(to_snapshot(state))
        _, checked = state.failover.checked[1]
        assert (checked.worker, checked.verdict) == ("w1", wanted[0])
        assert not state.failover.probes


def test_a_bad_worker_is_retired_by_its_fault() -> None:
    state = running()
    fail(state, 0)
    assert tell(state, detail="OSError: no disk") == ["failed"]
    state.apply(delivered(0))
    judge(state)
    (fault,) = state.failover.open.values()
    for part in ("split 0", "made by another worker", "split 1", "failed here: OSError: no disk"):
        assert part in fault.detail
    for event in failover.decide(state, 2, Answer(NODE, "m::C"), Budgets()):
        state.apply(event)
    assert not failover.takes_work(state, state.workers["w1"])


def test_values_that_no_replay_repeats_prove_nothing_nor_does_their_count() -> None:
    stream = ev.DatasetRegistered("d1", 8, (), False, b"", 5)
    state = build(stream, job(), worker(1, slots=4), worker(2, slots=4), EPOCH)
    schedule(state)
    state.apply(delivered(1))
    fail(state, 0)
    other = from_snapshot(to_snapshot(state))
    assert tell(state, detail="boom") == ["failed"]
    assert tell(other, digest=pb.Digest(count=9, total=5, chain=5)) == ["fine"]  # a random filter


@pytest.mark.parametrize(
    ("result", "wanted"), [({"detail": "no disk"}, ["unclear"]), ({"digest": GOOD}, ["transient"])]
)
def test_who_made_the_split_himself_in_the_end_is_not_bad(
    result: dict[str, object], wanted: list[str]
) -> None:
    state = running()
    fail(state, 0)
    state.apply(ev.WorkerLost("w2", "silent"))
    schedule(state)  # there is nobody else who could make it
    state.apply(delivered(0))
    state = from_snapshot(to_snapshot(state))
    tell(state, **result)
    assert judge(state) == wanted


def test_who_made_the_split_himself_before_there_was_a_probe_gets_none() -> None:
    state = build(dataset(), job(), worker(1, slots=4), worker(2, slots=4), EPOCH)
    schedule(state)
    assert fail(state, 0) == []  # nothing was delivered yet
    state.apply(ev.WorkerLost("w2", "silent"))
    schedule(state)
    state.apply(delivered(0))
    state.apply(worker(3, slots=4))
    schedule(state)
    fail(state, 2, NODE)  # w3 gets what there is
    state.apply(ev.WorkerReadmitted("w1"))
    made = next(iter(state.workers["w3"].attempts))
    state.apply(delivered(state.attempts[made].split))
    assert start(state) == []


def test_what_is_gone_ends_a_probe_without_a_verdict() -> None:
    for gone in (
        ev.WorkerLost("w1", "silent"),
        ev.EpochAbandoned("j1", 0, 0),
        ev.JobClosed("j1", "done"),
    ):
        state = running()
        fail(state, 0)
        state.apply(gone)
        if "w1" in state.workers:
            assert not worker_view(state, state.workers["w1"], 1).probes
        assert judge(state) == ["void"]
        assert tell(state, digest=GOOD) == []


def test_nobody_is_probed_without_need() -> None:
    alone = build(dataset(), job(), worker(1, slots=8), EPOCH)
    schedule(alone)
    alone.apply(delivered(1))
    assert fail(alone, 0) == []  # nobody else: nothing is known to be sound
    state = build(dataset(), job(), worker(1, slots=4), worker(2, slots=4), EPOCH)
    schedule(state)
    assert fail(state, 0) == []  # nothing was delivered yet
    state = from_snapshot(to_snapshot(state))
    state.apply(delivered(1))
    assert len(start(state)) == 1  # and now something was
    assert start(state) == []
    state = running()
    assert fail(state, 0, NODE) == []  # it is retired
    for attempts_max in (1, 2):
        state = build(
            dataset(), job(attempts_max=attempts_max), worker(1, slots=4), worker(2, slots=4), EPOCH
        )
        schedule(state)
        state.apply(delivered(1))
        assert len(fail(state, 0)) == attempts_max - 1  # of a job that fails by it there is none
    state = running()
    for _ in range(probing.PROBES_MAX):
        state.failover.count("j1", "PROBE", "")
    assert fail(state, 0) == []


def test_a_probe_is_counted_once() -> None:
    state = running()
    fail(state, 0)
    assert state.failover.times("j1", "PROBE") == 1


def test_events_that_do_not_fit_are_refused() -> None:
    state = running()
    (started,) = fail(state, 0)
    assert isinstance(started, ev.ProbeStarted)
    before = to_snapshot(state)
    for wrong in (
        started,
        ev.ProbeStarted(1, "w9", "j1", 0, 0, 0, 1, 10, 101, 1),
        ev.ProbeStarted(1, "w2", "j1", 0, 9, 0, 1, 10, 101, 1),
        ev.ProbeEnded(1, "w1", "perhaps", ""),
        ev.ProbeEnded(2, "w1", "fine", ""),
        ev.CrossChecked(1, "w2", "worker", ""),
    ):
        with pytest.raises(InvalidEventError):
            state.apply(wrong)
    assert to_snapshot(state) == before
    with pytest.raises(UsageError, match="at most 1000"):
        tell(state, detail="x" * 1001)
