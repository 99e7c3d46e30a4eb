"""A client's request that was on its way since before the dispatcher's term gives nothing up."""

from __future__ import annotations

from penstock.dispatcher import events as ev
from penstock.dispatcher import progress
from penstock.dispatcher.state import State
from penstock.proto import control_pb2 as pb

from .builders import build, dataset, delivered, job, worker


def state_of_term(term: int) -> State:
    """An open epoch with a delivered split."""
    return build(
        ev.TermStarted(term), dataset(), worker(1), job(), ev.EpochStarted("j1", 0, 0), delivered(3)
    )


def test_a_request_of_an_older_term_does_not_give_up_an_epoch_that_it_does_not_list() -> None:
    state = state_of_term(2)
    late = pb.SyncClientRequest(job="j1", client="client-1", term=1)
    assert progress.client_events(state, state.jobs["j1"], late) == []


def test_one_of_this_term_does() -> None:
    state = state_of_term(2)
    request = pb.SyncClientRequest(job="j1", client="client-1", term=2)
    events = progress.client_events(state, state.jobs["j1"], request)
    assert events == [ev.EpochAbandoned("j1", 0, 0)]
