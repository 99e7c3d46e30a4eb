"""What workers say of their attempts: whole, late or twice, and what it adds up to."""

from __future__ import annotations

from penstock.dispatcher import events as ev
from penstock.dispatcher.reports import Reports, Totals
from penstock.dispatcher.state import State
from penstock.proto import control_pb2 as pb

from .builders import build, dataset, job, schedule, worker
from .cluster import PRODUCED, RUNNING


def running() -> tuple[State, Reports]:
    """Attempts 1 and 2 on w1, 3 and 4 on w2, all known since 100.0."""
    state = build(
        dataset(splits=4), job(lanes=4), worker(1), worker(2), ev.EpochStarted("j1", 0, 0)
    )
    reports = Reports()
    for event in schedule(state):
        reports.began(state.attempts[event.attempt], 100.0)
    assert {at.worker for at in state.attempts.values() if at.attempt in (1, 3)} == {"w1"}
    return state, reports


def held(attempt: int, elements: int = 0, **more: int) -> pb.HeldAttempt:
    return pb.HeldAttempt(attempt=attempt, elements=elements, **more)


def test_new_elements_a_full_buffer_and_the_end_are_progress_and_nothing_else_is() -> None:
    state, reports = running()
    w1 = state.workers["w1"]
    reports.take(w1, [held(1, 5), held(3)], 110.0)
    reports.take(w1, [held(1, 5), held(3)], 120.0)
    assert [reports.progress[at].since_s for at in (1, 3)] == [110.0, 100.0]
    reports.take(w1, [held(1, 5, waiting=True), held(3, state=PRODUCED)], 130.0)
    assert [reports.progress[at].since_s for at in (1, 3)] == [130.0, 130.0]
    reports.take(w1, [held(1, 5), held(3, state=PRODUCED)], 140.0)
    assert [reports.progress[at].since_s for at in (1, 3)] == [130.0, 140.0]
    assert not reports.progress[1].waiting


def test_a_report_that_was_overtaken_changes_nothing() -> None:
    state, reports = running()
    w1 = state.workers["w1"]
    newer = [held(1, 50, restored=10, recomputed=4), held(3, 9, state=PRODUCED)]
    older = [held(1, 20, recomputed=2), held(3, 3)]
    assert reports.take(w1, newer, 110.0)
    assert not reports.take(w1, older, 120.0)
    assert reports.produced == {"w1": {3}}
    assert (reports.progress[1].elements, reports.progress[1].since_s) == (50, 110.0)
    assert reports.totals == {"j1": Totals(recomputed_elements=4, restored_attempts=1)}


def test_nobody_reports_on_the_attempts_of_another() -> None:
    state, reports = running()
    assert not reports.take(state.workers["w1"], [held(2, 9, state=PRODUCED), held(77, 1)], 110.0)
    assert reports.progress[2].elements == 0
    assert reports.produced == {}


def test_what_was_recomputed_is_counted_once_however_often_it_is_said() -> None:
    state, reports = running()
    w1 = state.workers["w1"]
    for recomputed in (0, 3, 3, 8):
        reports.take(w1, [held(1, 20, restored=12, recomputed=recomputed), held(3, 20)], 110.0)
    state.apply(ev.AttemptDropped(1, "GONE"))
    reports.ended("w1", w1.attempts)
    assert 1 not in reports.progress
    # Its last words come after its end.
    reports.take(w1, [held(1, 30, restored=12, recomputed=10), held(3, 25)], 120.0)
    assert reports.total == Totals(recomputed_elements=10, restored_attempts=1)
    reports.forget_job("j1")
    reports.take(w1, [held(3, 25, recomputed=1)], 130.0)
    assert reports.totals == {}
    assert reports.total.recomputed_elements == 11


def test_an_ended_attempt_is_not_produced_any_more() -> None:
    state, reports = running()
    reports.take(state.workers["w1"], [held(1, state=PRODUCED), held(3, state=PRODUCED)], 110.0)
    state.apply(ev.AttemptDropped(1, "GONE"))
    assert reports.take(state.workers["w1"], [held(3, state=RUNNING)], 111.0)
    reports.ended("w1", state.workers["w1"].attempts)
    assert reports.produced == {"w1": {3}}
    reports.ended("w1", ())
    assert reports.produced == {}
    assert set(reports.progress) == {2, 4}


def test_after_a_pause_every_attempt_gets_a_fresh_time() -> None:
    _, reports = running()
    reports.forgive(500.0)
    assert {progress.since_s for progress in reports.progress.values()} == {500.0}


def test_drops_count_in_a_row_only_while_no_attempt_gets_further() -> None:
    state, reports = running()
    key = (("j1", 0, 0), state.attempts[1].split)
    for made, times in ((0, 1), (0, 2), (5, 1), (5, 2), (3, 3), (6, 1)):
        reports.progress[1].elements = made
        reports.dropped(1)
        assert reports.vain[key][0] == times
    reports.dropped(99)
    reports.prune(state)
    assert list(reports.vain) == [key]
    state.apply(ev.EpochAbandoned("j1", 0, 0))
    reports.prune(state)
    assert reports.vain == {}
