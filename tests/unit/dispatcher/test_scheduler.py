"""Who gets what: exact assignments, fairness, retries, standbys, silence, and what it costs."""

from __future__ import annotations

import time

from penstock.dispatcher import events as ev
from penstock.dispatcher import scheduler
from penstock.dispatcher.facts import Facts
from penstock.dispatcher.liveness import Liveness
from penstock.dispatcher.scheduler import assignments

from .builders import acts, assigned, build, dataset, delivered, job, lanes, schedule, worker

EPOCH = ev.EpochStarted("j1", 0, 0)


def test_exact_events() -> None:
    state = build(dataset(splits=4), job(lanes=2), worker(1, slots=3), EPOCH)
    assert assignments(state, Facts()) == [
        ev.AttemptAssigned(1, "j1", 0, 0, 0, "w1", 1),
        ev.AttemptAssigned(2, "j1", 0, 0, 1, "w1", 1),
        ev.AttemptAssigned(3, "j1", 0, 0, 2, "w1", 1),
    ]


def test_lanes_follow_the_deal() -> None:
    state = build(dataset(splits=20), job(lanes=4, ordered=False), worker(1, slots=8), EPOCH)
    first, second = zip(*((lane[0], lane[1]) for lane in lanes(20, 4)), strict=True)
    assert [split for split, _ in assigned(schedule(state))] == [*first, *second]


def test_current_splits_are_assigned_above_all_slots() -> None:
    state = build(dataset(splits=8), job(lanes=6), worker(1, slots=1), worker(2, slots=1), EPOCH)
    assert assigned(schedule(state)) == [
        (0, "w1"),
        (1, "w2"),
        (2, "w1"),
        (3, "w2"),
        (4, "w1"),
        (5, "w2"),
    ]
    assert schedule(state) == []
    state.apply(delivered(3))
    assert assigned(schedule(state)) == []  # lane 3 has no other split
    state.apply(delivered(0))
    assert assigned(schedule(state)) == [(6, "w1")]  # a current split again


def test_free_slots_are_filled_depth_by_depth() -> None:
    state = build(dataset(splits=20), job(lanes=2), worker(1, slots=7), EPOCH)
    assert [split for split, _ in assigned(schedule(state))] == [0, 1, 2, 3, 4, 5, 6]


def test_a_produced_attempt_takes_no_slot() -> None:
    state = build(dataset(splits=20), job(lanes=2), worker(1, slots=2), EPOCH)
    assert assigned(schedule(state)) == [(0, "w1"), (1, "w1")]
    assert assigned(schedule(state, Facts(produced={"w1": {1}}))) == [(2, "w1")]
    assert assigned(schedule(state, Facts(produced={"w1": {1, 2, 3}}))) == [(3, "w1"), (4, "w1")]


def test_the_least_loaded_worker_comes_first_by_the_size_of_its_slots() -> None:
    state = build(dataset(splits=12), job(lanes=2), worker(1, slots=2), worker(2, slots=4), EPOCH)
    events = assigned(schedule(state))
    assert [on for _, on in events] == ["w1", "w2", "w2", "w1", "w2", "w2"]


def test_more_workers_than_lanes_still_help() -> None:
    state = build(dataset(splits=12), job(lanes=1), [worker(n, slots=1) for n in (1, 2, 3)], EPOCH)
    assert assigned(schedule(state)) == [(0, "w1"), (1, "w2"), (2, "w3")]


def test_jobs_share_depth_by_depth() -> None:
    state = build(
        dataset(splits=40),
        job(1, lanes=2),
        job(2, lanes=2),
        worker(1, slots=10),
        EPOCH,
        ev.EpochStarted("j2", 0, 0),
    )
    events = schedule(state)
    assert [(event.job, event.split) for event in events] == [
        ("j1", 0),
        ("j2", 0),
        ("j1", 1),
        ("j2", 1),
        ("j1", 2),
        ("j2", 2),
        ("j1", 3),
        ("j2", 3),
        ("j1", 4),
        ("j2", 4),
    ]


def test_a_job_that_is_far_ahead_yields_to_one_that_begins() -> None:
    state = build(dataset(splits=40), job(1, lanes=1), job(2, lanes=1), worker(1, slots=4), EPOCH)
    schedule(state)
    state.apply(ev.EpochStarted("j2", 0, 0))
    assert [e.job for e in schedule(state, Facts(produced={"w1": {1, 2}}))] == ["j2", "j2"]


def test_nothing_is_given_to_a_standby_until_it_is_promoted() -> None:
    state = build(dataset(splits=2), job(lanes=2), worker(1, standby=True), EPOCH)
    assert assignments(state, Facts()) == []
    state.apply(ev.WorkerPromoted("w1"))
    assert assigned(schedule(state)) == [(0, "w1"), (1, "w1")]


def test_a_retry_goes_to_a_worker_that_has_not_failed_on_it() -> None:
    state = build(
        dataset(splits=1),
        job(lanes=1, attempts_max=9),
        worker(1, slots=9),
        worker(2, slots=1),
        EPOCH,
    )
    seen = []
    for _ in range(4):
        (event,) = schedule(state)
        seen.append((event.worker, event.trial))
        state.apply(ev.AttemptFailed(event.attempt, "PIPELINE", "boom"))
    assert seen[:2] == [("w1", 1), ("w2", 2)]
    assert [trial for _, trial in seen] == [1, 2, 3, 4]


def test_the_splits_of_a_lost_worker_are_spread_over_all_others() -> None:
    state = build(dataset(splits=6), job(lanes=6), [worker(n, slots=2) for n in (1, 2, 3)], EPOCH)
    schedule(state)
    state.apply(ev.WorkerLost("w1", "silent"))
    assert assigned(schedule(state)) == [(0, "w2"), (3, "w3")]


def test_a_split_that_lost_its_attempt_comes_before_those_after_it() -> None:
    state = build(dataset(splits=20), job(lanes=1), worker(1, slots=5), worker(2, slots=5), EPOCH)
    schedule(state)
    state.apply(ev.WorkerLost("w1", "silent"))  # had 0, 2, 4, 6, 8
    assert assigned(schedule(state)) == [(0, "w2")]
    state.apply(delivered(0))
    assert assigned(schedule(state)) == []  # 1 runs
    state.apply(delivered(1))
    assert assigned(schedule(state)) == [(2, "w2")]
    state.apply(delivered(3))  # frees a slot: 4 is wanted before 10
    assert assigned(schedule(state)) == [(4, "w2")]


def test_silent_workers_are_lost_and_standbys_take_over() -> None:
    state = build(worker(1), worker(2), worker(3, standby=True), worker(4, standby=True), worker(5))
    facts = Facts(heard_s={"w1": 10.0, "w2": 14.0, "w3": 14.0, "w4": 9.0, "w5": 9.5})
    assert acts(scheduler.lost_workers(state, facts, 15.0, 5.0)) == [
        ev.WorkerLost("w1", "no heartbeat for 5.0 s"),
        ev.WorkerLost("w4", "no heartbeat for 6.0 s"),
        ev.WorkerLost("w5", "no heartbeat for 5.5 s"),
        ev.WorkerPromoted("w3", "w1"),
    ]
    assert scheduler.lost_workers(state, Facts(), 15.0, 5.0) == []  # never judged unheard


def test_who_is_silent_is_lost_at_the_very_moment_that_the_timer_is_set_for() -> None:
    heard_s, timeout_s = 1018.4677936934983, 10.0
    deadline_s = heard_s + timeout_s
    assert deadline_s - heard_s < timeout_s  # so does floating point round
    state = build(dataset(), worker(1), job())
    facts = Facts(heard_s={"w1": heard_s, "j1": heard_s})
    assert len(acts(scheduler.lost_workers(state, facts, deadline_s, timeout_s))) == 1
    assert len(acts(scheduler.lost_clients(state, facts, deadline_s, timeout_s))) == 1


def test_a_worker_that_was_taken_for_dead_by_mistake_gets_more_time_each_time() -> None:
    state = build(worker(1))
    limits = []
    for mistakes in range(6):
        facts = Facts(heard_s={"w1": 0.0}, mistakes={"w1": mistakes})
        limits.append(
            next(s for s in range(100) if scheduler.lost_workers(state, facts, float(s), 5.0))
        )
    assert limits == [5, 10, 20, 40, 40, 40]


def test_mistakes_about_a_worker_are_forgotten_after_a_while() -> None:
    liveness = Liveness()
    liveness.mistaken("w1", 10.0)
    liveness.mistaken("w1", 20.0)
    liveness.mistaken("w2", 15.0)
    liveness.forget_mistakes(18.0)
    assert liveness.mistakes == {"w1": 2}
    liveness.forget_mistakes(21.0)
    assert liveness.mistakes == {}


def test_a_standby_that_comes_after_the_last_worker_died_takes_over() -> None:
    state = build(worker(1), worker(2, standby=True))
    assert scheduler.late_promotion(state) == []
    state.apply(ev.WorkerLost("w2", "silent"))
    state.apply(ev.WorkerLost("w1", "silent"))
    assert scheduler.late_promotion(state) == []
    state.apply(worker(3, standby=True))
    state.apply(worker(4, standby=True))
    assert scheduler.late_promotion(state) == [ev.WorkerPromoted("w3", "w1")]
    only_standbys = build(worker(1, standby=True))
    assert scheduler.late_promotion(only_standbys) == []


def test_silent_clients_leave_and_take_unnamed_jobs_with_them() -> None:
    unnamed = [ev.JobOpened("j2", "", ("d1",), 1, 1, 1, False, 1), ev.ClientJoined("j2", "u")]
    state = build(dataset(), job(1), unnamed, job(3))
    facts = Facts(heard_s={"j1": 0.0, "j2": 1.0, "j3": 5.0})
    assert acts(scheduler.lost_clients(state, facts, 10.0, 8.0)) == [
        ev.ClientLeft("j1", "its client client-1 was silent for 10.0 s"),
        ev.JobClosed("j2", "its client u was silent for 9.0 s"),
    ]
    state.apply(ev.ClientLeft("j1", ""))
    assert [type(e) for e in scheduler.lost_clients(state, facts, 10.0, 8.0)] == [ev.JobClosed]


def test_jobs_wait_for_workers_only_while_they_have_an_epoch_open() -> None:
    state = build(dataset(), job(1), job(2), EPOCH)
    assert scheduler.waits_for_workers(state) == ["j1"]
    state.apply(worker(1, standby=True))
    assert scheduler.waits_for_workers(state) == ["j1"]
    state.apply(worker(2))
    assert scheduler.waits_for_workers(state) == []


def test_the_cost_does_not_grow_with_workers_times_splits() -> None:
    def seconds(splits: int, workers: int) -> float:
        state = build(dataset(splits=splits), job(lanes=16))
        for number in range(1, workers + 1):
            state.apply(worker(number, slots=4))
        state.apply(EPOCH)
        state.book(state.jobs["j1"], next(epoch for _, epoch in state.open_epochs()))
        best = float("inf")
        for _ in range(3):
            started = time.process_time()
            events = assignments(state, Facts())
            best = min(best, time.process_time() - started)
        assert len(events) == 4 * workers
        return best

    small, large = seconds(1_000, 100), seconds(100_000, 100)
    assert large < 5 * small  # the same assignments, a hundred times the splits
    assert seconds(100_000, 1_000) < 60 * small  # ten times the assignments
