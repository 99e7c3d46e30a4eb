"""Workers that die of memory, in the pure core: suspects, and the element that kills four."""

from __future__ import annotations

import pytest

from penstock.dispatcher import events as ev
from penstock.dispatcher import memory
from penstock.dispatcher.snapshot import from_snapshot, to_snapshot
from penstock.dispatcher.state import InvalidEventError, State
from penstock.dispatcher.views import worker_view
from penstock.errors import UsageError
from penstock.proto import control_pb2 as pb

from .builders import build, dataset, delivered, job, schedule, worker

EPOCH = ev.EpochStarted("j1", 0, 0)


def running() -> State:
    state = build(dataset(splits=4), job(), worker(1, slots=4), EPOCH)
    schedule(state)
    return state


def killed(split: int, elements: int, *, exact: bool = True, job: str = "j1") -> pb.KilledSplit:
    return pb.KilledSplit(job=job, epoch=0, split=split, elements=elements, exact=exact)


def follows(state: State, *splits: pb.KilledSplit, limited: str = "") -> list[ev.Event]:
    """The worker is followed by one that knows what it was making; what comes of that."""
    request = pb.RegisterWorkerRequest(limited=limited, killed=splits)
    events = memory.register_events(state, state.workers["w1"], request)
    for event in events:
        state.apply(event)
    return events


def test_a_split_that_a_worker_died_of_is_made_one_element_at_a_time() -> None:
    state = running()
    follows(state, killed(1, 0, exact=False))
    view = worker_view(state, state.workers["w1"], 1)
    assert {spec.split: spec.trial for spec in view.attempts} == {0: 1, 1: 2, 2: 1, 3: 1}
    state.apply(delivered(1))
    assert state.jobs["j1"].epochs[0, 0].kills == {}


def test_the_element_that_kills_four_workers_fails_the_job_by_name() -> None:
    state = running()
    follows(state, killed(1, 0, exact=False), killed(2, 0, exact=False))
    for _ in range(2):
        state = from_snapshot(to_snapshot(state))
        assert len(follows(state, killed(1, 17), killed(2, 3, exact=False))) == 2
    *_, failed = follows(state, killed(1, 17), killed(2, 3))
    assert isinstance(failed, ev.JobFailed)
    for part in ("element 17 of split 1 of epoch 0", "4 workers", "host:1"):
        assert part in failed.reason


def test_a_split_that_gets_on_between_the_deaths_is_no_killer() -> None:
    state = running()
    for elements in range(12):
        assert len(follows(state, killed(1, elements))) == 1
    assert not state.jobs["j1"].failure


def test_what_is_over_kills_nobody() -> None:
    state = running()
    state.apply(delivered(1))
    assert follows(state, killed(1, 3), killed(99, 3), killed(0, 3, job="j9")) == []
    with pytest.raises(InvalidEventError, match="not open"):
        state.apply(ev.SplitKilled("j9", 0, 0, 0, "w1", 0, True))


def test_a_worker_says_that_it_takes_on_less() -> None:
    state = running()
    follows(state, limited="1 deaths of memory")
    assert from_snapshot(to_snapshot(state)).workers["w1"].limited == "1 deaths of memory"
    with pytest.raises(UsageError, match="limited must have at most"):
        memory.check_request(pb.RegisterWorkerRequest(limited="x" * 1001))


def test_more_elements_than_a_journal_can_number_are_refused() -> None:
    with pytest.raises(UsageError, match="elements of a killed split must be at most"):
        memory.check_request(pb.RegisterWorkerRequest(killed=[killed(1, (1 << 64) - 1)]))
