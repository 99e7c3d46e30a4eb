"""Bad elements: left out by a journaled decision, within a bound, the same in every replay."""

from __future__ import annotations

import pytest

from penstock.dispatcher import events as ev
from penstock.dispatcher import quarantine
from penstock.dispatcher.faults import Failed, attempt_faults
from penstock.dispatcher.snapshot import from_snapshot, to_snapshot
from penstock.dispatcher.state import InvalidEventError, State
from penstock.dispatcher.views import worker_view
from penstock.errors import NotFoundError, RefusedError, UsageError
from penstock.proto import control_pb2 as pb

from .builders import answered, build, dataset, delivered, job, schedule, worker

EPOCH = ev.EpochStarted("j1", 0, 0)


def running(policy: str = "quarantine", max_bad: int = 2, **more: int) -> State:
    """An epoch of one split, whose job leaves bad elements out."""
    state = build(
        dataset(splits=1),
        job(lanes=1, **more),
        worker(1),
        worker(2),
        ev.JobPolicySet("j1", policy, max_bad),
        EPOCH,
    )
    schedule(state)
    return state


def fail(state: State, element: int | None, detail: str = "boom") -> list[ev.Event]:
    """The running attempt fails, naming an element or none; what follows, scheduled."""
    (attempt,) = state.attempts
    exact = element is not None
    for event in attempt_faults(state, [Failed(attempt, "PIPELINE", detail, element or 0, exact)]):
        state.apply(event)
    events = answered(state)
    schedule(state)
    return events


def fail_thrice(state: State, *elements: int | None) -> ev.Event:
    """Three failed attempts in a row; the last thing that follows."""
    return [fail(state, element)[-1] for element in elements][-1]


def bad_of(state: State) -> list[int]:
    """What the worker is told to leave out."""
    (attempt,) = state.attempts.values()
    view = worker_view(state, state.workers[attempt.worker], 1)
    return list(view.attempts[0].bad)


def test_an_element_that_all_attempts_name_is_left_out_and_the_split_begins_anew() -> None:
    state = running()
    skipped = fail_thrice(state, None, 4, 4)
    assert isinstance(skipped, ev.ElementSkipped)
    assert (skipped.split, skipped.element, skipped.error) == (0, 4, "boom")
    (attempt,) = state.attempts.values()
    assert attempt.trial == 1
    assert bad_of(state) == [4]
    assert fail_thrice(state, 2, 2, 2) == ev.ElementSkipped("j1", 0, 0, 0, 2, "w1", "boom", 6)
    assert bad_of(state) == [2, 4]


@pytest.mark.parametrize(
    "elements",
    [(None, 4, 5), (None, None, None), (None, 4, None), (None, None, 4), (3, 4, 4)],
)
def test_what_is_not_named_again_and_again_fails_the_job(elements: tuple[int | None, ...]) -> None:
    state = running()
    failed = fail_thrice(state, *elements)
    assert isinstance(failed, ev.JobFailed)
    assert "could not be produced in 3 attempts" in failed.reason


def test_without_a_policy_the_job_fails() -> None:
    assert isinstance(fail_thrice(running("fail", 9), None, 4, 4), ev.JobFailed)


def test_past_the_bound_the_job_fails_and_names_all() -> None:
    state = running(max_bad=2)
    for element in (4, 6):
        fail_thrice(state, element, element, element)
    failed = fail_thrice(state, 8, 8, 8)
    assert isinstance(failed, ev.JobFailed)
    for part in ("max_bad=2", "element 4 of split 0 (boom)", "element 6 of split 0 (boom)"):
        assert part in failed.reason


def test_the_bound_is_for_one_epoch_and_the_next_one_finds_its_own() -> None:
    state = running(max_bad=1)
    fail_thrice(state, 4, 4, 4)
    state.apply(delivered(0))
    state.apply(ev.EpochFinished("j1", 0, 0, 10, 100, 0))
    state.apply(ev.EpochStarted("j1", 0, 1))
    schedule(state)
    assert bad_of(state) == []
    assert isinstance(fail_thrice(state, 4, 4, 4), ev.ElementSkipped)


def test_who_only_skips_keeps_no_error() -> None:
    skipped = fail_thrice(running("skip"), 4, 4, 4)
    assert isinstance(skipped, ev.ElementSkipped)
    assert (skipped.worker, skipped.error) == ("", "")


def test_a_replay_after_restart_and_takeover_leaves_out_the_same() -> None:
    state = running()
    fail_thrice(state, 4, 4, 4)
    state.apply(ev.ClientJoined("j1", "later"))
    state.apply(EPOCH)
    state = from_snapshot(to_snapshot(state))
    schedule(state)
    assert bad_of(state) == [4]
    assert quarantine.notice(state.jobs["j1"])
    (shown,) = quarantine.picture(state.jobs["j1"])["elements"]
    assert (shown["split"], shown["element"], shown["error"]) == (0, 4, "boom")


def request(element: int = 4) -> pb.RetryElementRequest:
    return pb.RetryElementRequest(job="j1", stream=0, epoch=0, split=0, element=element)


def test_an_element_is_retried_only_when_its_epoch_is_over() -> None:
    state = running()
    fail_thrice(state, 4, 4, 4)
    with pytest.raises(RefusedError, match="is open"):
        quarantine.retry_events(state, request())
    with pytest.raises(InvalidEventError):
        state.apply(ev.ElementRetried("j1", 0, 0, 0, 4))
    with pytest.raises(NotFoundError, match="leaves out no element 5"):
        quarantine.retry_events(state, request(5))
    state.apply(ev.EpochAbandoned("j1", 0, 0))
    for event in quarantine.retry_events(state, request()):
        state.apply(event)
    assert state.jobs["j1"].bad == {}


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ({"on_bad_element": "drop"}, "fail, skip, quarantine"),
        ({"on_bad_element": "skip", "max_bad": 10_001}, "at most 10000"),
        ({"on_bad_element": "skip", "attempts_max": 1}, "attempts_max of 2 or more"),
    ],
)
def test_a_policy_that_there_is_not_is_refused(more: dict[str, object], part: str) -> None:
    with pytest.raises(UsageError, match=part):
        quarantine.check_request(pb.OpenJobRequest(**{"attempts_max": 3, **more}))


def test_a_job_follows_what_its_client_says() -> None:
    known = build(dataset(), job()).jobs["j1"]
    assert quarantine.job_events(known, pb.OpenJobRequest()) == []
    asked = pb.OpenJobRequest(on_bad_element="skip", max_bad=7)
    assert quarantine.job_events(known, asked) == [ev.JobPolicySet("j1", "skip", 7)]
