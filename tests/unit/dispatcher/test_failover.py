"""What decisions do, in the pure core: each acts whole, once, and survives a restart."""

from __future__ import annotations

import pytest

from penstock.dispatcher import events as ev
from penstock.dispatcher import failover, fault_texts, faults, scheduler
from penstock.dispatcher.facts import Facts
from penstock.dispatcher.faults import Failed, attempt_faults, info_of, worker_faults
from penstock.dispatcher.reports import Progress
from penstock.dispatcher.snapshot import from_snapshot, to_snapshot
from penstock.dispatcher.state import InvalidEventError, State
from penstock.errors import NotFoundError
from penstock.recovery.extensions import Answer
from penstock.recovery.failover import Budgets, FailureKind
from penstock.recovery.strategy import FailoverStrategy

from .builders import answered, assigned, build, dataset, delivered, job, schedule, worker

EPOCH = ev.EpochStarted("j1", 0, 0)
NORMAL, NODE, GLOBAL, ABORTION = FailoverStrategy


def running(*workers: ev.Event, splits: int = 4, **more: int) -> State:
    """An epoch whose splits are assigned."""
    state = build(dataset(splits=splits), job(**more), list(workers), EPOCH)
    schedule(state)
    return state


def fail(state: State, attempt: int, detail: str = "boom") -> int:
    """A worker reports a failed attempt; the fault's number."""
    for event in attempt_faults(state, [Failed(attempt, "PIPELINE", detail, 3, True)]):
        state.apply(event)
    return state.failover.next_fault - 1


def die(state: State, name: str) -> None:
    """A worker dies."""
    promoted = scheduler.promotions(state, {name})
    gone = worker_faults(state, name, FailureKind.DEATH, "refused")
    for event in (*gone, ev.WorkerLost(name, "refused"), *promoted):
        state.apply(event)


def test_nobody_gets_the_split_before_it_is_decided_and_then_another_worker_does() -> None:
    state = running(worker(1), worker(2), splits=2)
    fail(state, 1)
    assert attempt_faults(state, [Failed(1, "PIPELINE", "boom")]) == []
    assert schedule(state) == []
    failed, decided = answered(state, NORMAL)
    assert isinstance(failed, ev.AttemptFailed)
    assert (decided.strategy, decided.asked) == ("NORMAL_FAILOVER", "NORMAL_FAILOVER")
    assert assigned(schedule(state)) == [(0, "w2")]


def test_node_failover_retires_the_worker_and_uses_the_standby() -> None:
    state = running(worker(1), worker(2), worker(3, standby=True), splits=4)
    attempt = next(iter(state.workers["w1"].attempts))
    fail(state, attempt)
    events = answered(state, NODE)
    assert events[-1] == ev.WorkerPromoted("w3", "w1")
    assert not state.workers["w1"].attempts
    schedule(state)
    assert not state.workers["w1"].attempts
    assert state.workers["w3"].attempts


def test_a_retired_process_comes_back_retired_and_a_new_one_at_its_address_does_not() -> None:
    state = running(worker(1), worker(2))
    die(state, "w1")
    answered(state, NODE)
    state.apply(worker(1))
    assert not failover.takes_work(state, state.workers["w1"])
    assert scheduler.late_promotion(state) == []
    state.apply(ev.WorkerLost("w1", "again"))
    state.apply(ev.WorkerRegistered("w3", "new", "host:1", "", "h", 2, False, "2.21", 9))
    assert failover.takes_work(state, state.workers["w3"])


def test_a_person_readmits_a_retired_worker() -> None:
    state = running(worker(1), worker(2))
    fail(state, next(iter(state.workers["w1"].attempts)))
    answered(state, NODE)
    with pytest.raises(NotFoundError, match="retired are: w1"):
        failover.readmission(state, "w2")
    for event in failover.readmission(state, "w1"):
        state.apply(event)
    assert failover.takes_work(state, state.workers["w1"])
    with pytest.raises(InvalidEventError, match="w1 is not retired"):
        state.apply(ev.WorkerReadmitted("w1"))


def test_the_only_worker_is_not_retired() -> None:
    state = running(worker(1))
    fail(state, 1)
    _, decided = answered(state, NODE)
    assert (decided.strategy, decided.asked) == ("NORMAL_FAILOVER", "NODE_FAILOVER")
    assert "there is no other one" in decided.reason
    assert failover.takes_work(state, state.workers["w1"])


def test_a_standby_works_when_everybody_else_is_retired() -> None:
    state = running(worker(1), worker(2, standby=True), splits=2)
    number = fail(state, 1)
    failed, decided, promoted = failover.decide(state, number, Answer(NODE, "m::C"), Budgets())
    for event in (failed, decided):  # the journal ends before the standby's promotion
        state.apply(event)
    assert promoted == ev.WorkerPromoted("w2", "w1")
    assert scheduler.late_promotion(state) == [ev.WorkerPromoted("w2", "w1")]


def test_global_failover_begins_every_attempt_of_the_job_again() -> None:
    state = build(dataset(splits=4), job(1), job(2), [worker(1, slots=9), worker(2, slots=9)])
    for name in ("j1", "j2"):
        state.apply(ev.EpochStarted(name, 0, 0))
    schedule(state)
    others = {n for n, attempt in state.attempts.items() if attempt.job == "j2"}
    mine = set(state.attempts) - others
    fail(state, min(mine))
    answered(state, GLOBAL)
    assert set(state.attempts) == others
    again = schedule(state)
    assert {event.split for event in again} == set(range(4))
    assert min(event.attempt for event in again) > max(mine | others)


def test_abortion_fails_the_job_at_once_and_says_why() -> None:
    state = running(worker(1), worker(2))
    fail(state, 2, "element 7: KeyError: 'label'")
    (decided,) = answered(state, ABORTION)
    assert decided.strategy == "ABORTION_FAILOVER"
    assert not state.attempts
    for part in ("split 1", "epoch 0", "KeyError: 'label'", "w2 (host:2)", "m::C", "fault 1"):
        assert part in state.jobs["j1"].failure


def test_the_bound_of_attempts_holds_whatever_is_decided() -> None:
    state = running(worker(1), worker(2), attempts_max=1)
    fail(state, 1)
    *_, last = answered(state, GLOBAL)
    assert isinstance(last, ev.JobFailed)
    assert "could not be produced in 1 attempt" in last.reason


def test_a_death_is_decided_for_each_job_that_the_worker_worked_for() -> None:
    state = build(dataset(), job(1), job(2), worker(1, slots=20), worker(2, slots=1))
    for name in ("j1", "j2"):
        state.apply(ev.EpochStarted(name, 0, 0))
    schedule(state)
    die(state, "w1")
    assert [fault.job for fault in state.failover.open.values()] == ["j1", "j2"]
    schedule(state)  # waits for nobody
    number = next(iter(state.failover.open))
    for event in failover.decide(state, number, Answer(ABORTION, "m::C"), Budgets()):
        state.apply(event)
    assert state.jobs["j1"].failure
    assert not state.jobs["j2"].failure


def test_the_death_of_an_idle_worker_concerns_all_jobs() -> None:
    state = build(dataset(), job(1), job(2), worker(1), worker(2))
    die(state, "w1")
    (fault,) = state.failover.open.values()
    assert fault.job == ""
    answered(state, ABORTION)
    assert all(job.failure for job in state.jobs.values())


def test_a_person_is_told_of_what_needs_one() -> None:
    state = running(worker(1), worker(2), splits=40, lanes=8)
    told = []
    for strategy in (NORMAL, NODE, NODE, ABORTION):
        number = fail(state, next(iter(state.attempts)))
        events = answered(state, strategy)
        told.append(fault_texts.summary_of(state, number, events))
        schedule(state)
    assert told == [
        "",
        "worker w2 at host:2 is retired",
        "NODE_FAILOVER was not to be had for job j1 ('job-1'): worker w1 is not retired, because"
        " there is no other one",
        "job j1 ('job-1') was failed by m::C",
    ]


def test_a_person_is_told_when_the_last_attempt_has_failed() -> None:
    state = running(worker(1), worker(2), attempts_max=1)
    number = fail(state, 1)
    summary = fault_texts.summary_of(state, number, answered(state, NORMAL))
    assert "job j1 ('job-1') has failed: split 0 of epoch 0" in summary


def test_a_fault_is_decided_once() -> None:
    state = running(worker(1), worker(2))
    fail(state, 1)
    _, decided = answered(state, GLOBAL)
    with pytest.raises(InvalidEventError, match="fault 1 is not open"):
        state.apply(decided)
    (again, *_) = schedule(state)
    number = fail(state, again.attempt)
    with pytest.raises(InvalidEventError, match="no failover strategy"):
        state.apply(ev.FailoverDecided(number, "SAD", "", "", "", ""))


def test_a_decision_about_an_attempt_that_is_over_changes_only_what_it_says() -> None:
    state = running(worker(1), worker(2), splits=2)
    fail(state, 1)
    state.apply(delivered(0))
    (decided,) = answered(state, NORMAL)
    assert isinstance(decided, ev.FailoverDecided)
    state.apply(ev.JobClosed("j1", "over"))
    assert state.failover.spent == {}


def test_budgets_survive_a_restart_and_end_in_normal_failover() -> None:
    state = running(worker(1), worker(2), splits=40, lanes=8, attempts_max=100)
    reasons = []
    for _ in range(5):
        schedule(state)
        fail(state, next(iter(state.attempts)))
        decided = next(e for e in answered(state, GLOBAL) if isinstance(e, ev.FailoverDecided))
        reasons.append((decided.strategy, decided.reason))
        state = from_snapshot(to_snapshot(state))
    assert [strategy for strategy, _ in reasons] == 3 * [GLOBAL.value] + 2 * [NORMAL.value]
    assert "exhausted: it was used 3 times" in reasons[-1][1]


def test_faults_that_look_the_same_have_one_fingerprint() -> None:
    state = running(worker(1), worker(2), splits=4)
    one, two, other = (
        attempt_faults(state, [Failed(number, "PIPELINE", detail)])[0].fingerprint
        for number, detail in (
            (1, "split 0 (range 0..5), after 3 elements: KeyError: 17"),
            (2, "split 1 (a.tfrecord), element 4: KeyError: 18"),
            (2, "split 1 (a.tfrecord), element 4: OSError: 18"),
        )
    )
    assert one == two != other


def test_what_an_extension_is_told() -> None:
    state = running(worker(1), worker(2), splits=2, attempts_max=9)
    fail(state, 1)
    answered(state, NODE)
    again = schedule(state)[0]
    number = fail(state, again.attempt, "split 0, element 3: MemoryError: no room\nsecond line")
    made = Progress(again, since_s=8.0, elements=3, began_s=5.0)
    info = info_of(state, number, 10.0, {again.attempt: made}, {}, Budgets())
    assert (info.kind, info.job, info.job_name) == (FailureKind.EXCEPTION, "j1", "job-1")
    assert (info.worker, info.host, info.attempt) == ("w2", "host:2", again.attempt)
    assert (info.stream, info.epoch, info.split, info.element) == (0, 0, 0, 3)
    assert (info.trial, info.attempts_max, info.elements_made) == (2, 9, 3)
    assert (info.since_start_s, info.since_progress_s) == (5.0, 2.0)
    assert info.log == ("split 0, element 3: MemoryError: no room", "second line")
    assert [(e.fault, e.strategy, e.worker) for e in info.earlier] == [(1, NODE, "w1")]
    assert {use.strategy: use.used for use in info.budgets} == {NODE: 1, GLOBAL: 0}


def make(state: State, attempt: int) -> None:
    """An attempt's split is delivered."""
    state.apply(delivered(state.attempts[attempt].split))


def test_a_worker_is_blamed_for_what_others_make_until_it_makes_something_itself() -> None:
    state = running(worker(1, slots=9), worker(2, slots=9), splits=12, attempts_max=9)
    for _ in range(2):
        failed = next(iter(state.workers["w1"].attempts))
        fail(state, failed)
        answered(state, NORMAL)
        (again,) = (e for e in schedule(state) if e.trial == 2)
        assert again.worker == "w2"
        make(state, again.attempt)
    assert (state.workers["w1"].blamed, state.workers["w2"].blamed) == (2, 0)
    number = fail(state, next(iter(state.workers["w1"].attempts)))
    info = info_of(state, number, 1.0, {}, {}, Budgets())
    assert (info.blamed, info.failed_on) == (2, ())
    answered(state, NORMAL)
    make(state, next(iter(state.workers["w1"].attempts)))
    assert state.workers["w1"].blamed == 0


def test_a_split_that_fails_everywhere_puts_no_blame_on_workers() -> None:
    state = running(worker(1), worker(2), splits=1, lanes=1, attempts_max=9)
    for _ in range(4):
        (attempt,) = state.attempts
        fail(state, attempt)
        answered(state, NORMAL)
        schedule(state)
    assert [w.blamed for w in state.workers.values()] == [0, 0]


def test_hangs_and_mismatches_are_kinds_of_their_own() -> None:
    state = running(worker(1), worker(2), splits=4)
    codes = {1: faults.STUCK, 2: faults.MISMATCH}
    raised = attempt_faults(state, [Failed(n, code, "") for n, code in codes.items()])
    assert [fault.failure for fault in raised] == ["hang", "hash mismatch"]


def test_a_trainer_that_vanishes_from_a_named_job_is_a_fault() -> None:
    state = running(worker(1))
    for event in scheduler.lost_clients(state, Facts({"j1": 0.0}), 10.0, 5.0):
        state.apply(event)
    (fault,) = state.failover.open.values()
    assert (fault.failure, fault.job, fault.worker) == ("trainer crash", "j1", "")
    answered(state, NODE)  # there is no worker to retire
    (_, decided), *_ = state.failover.decided.values()
    assert decided.strategy == NORMAL.value


def test_open_faults_decisions_and_retired_workers_are_in_the_snapshot() -> None:
    state = running(worker(1), worker(2))
    fail(state, next(iter(state.workers["w1"].attempts)))
    answered(state, NODE)
    schedule(state)
    fail(state, next(iter(state.attempts)))
    state.apply(ev.JobFailoverSet("j1", "m::C"))
    again = from_snapshot(to_snapshot(state))
    assert again.failover == state.failover
    assert again.jobs["j1"].failover == "m::C"


def test_a_fault_keeps_the_chain_and_how_the_process_ended() -> None:
    state = running(worker(1), worker(2))
    chain = ("InvalidArgumentError: ValueError: bad", "ValueError: bad", "KeyError: 'label'")
    for event in attempt_faults(state, [Failed(1, "PIPELINE", "boom", exceptions=chain)]):
        state.apply(event)
    name = state.attempts[1].worker
    for event in worker_faults(state, name, FailureKind.DEATH, "refused", -11):
        state.apply(event)
    state = from_snapshot(to_snapshot(state))
    pipeline = info_of(state, 1, 0.0, {}, {}, Budgets(), 41)
    assert (pipeline.exceptions, pipeline.exit_code, pipeline.trainer_step) == (chain, None, 41)
    death = info_of(state, 2, 0.0, {}, {}, Budgets())
    assert (death.exceptions, death.exit_code, death.signal) == ((), None, "SIGSEGV")
    assert fault_texts.text_of(state.failover.open[2]).endswith("refused (SIGSEGV)")


def test_who_takes_a_retired_workers_place_takes_none_of_a_lost_one() -> None:
    state = running(worker(1), worker(2), worker(3))
    state.apply(ev.WorkerLost("w3", "silent"))
    state.apply(worker(4, standby=True))
    fail(state, next(iter(state.workers["w1"].attempts)))
    assert answered(state, NODE)[-1] == ev.WorkerPromoted("w4", "w1")
    assert not state.lost["w3"].replaced  # it comes back as what it was
