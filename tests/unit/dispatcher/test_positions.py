"""Committed positions, jobs that step back, epochs that begin in the middle: pure decisions."""

from __future__ import annotations

import pytest

from penstock.dispatcher import admission, positions, progress
from penstock.dispatcher import events as ev
from penstock.dispatcher.snapshot import from_snapshot, to_snapshot
from penstock.dispatcher.splitset import SplitSet
from penstock.dispatcher.state import InvalidEventError, State
from penstock.errors import RefusedError, UsageError
from penstock.proto import control_pb2 as pb
from penstock.proto.wire import PROTOCOL_VERSION

from .builders import acts, assigned, build, dataset, delivered, job, lanes, schedule, worker

NAME = "d1d1d1d1"


def opening(client: str, *, rewind: tuple[int, ...] = (), seed: int = 7) -> pb.OpenJobRequest:
    return pb.OpenJobRequest(
        protocol_version=PROTOCOL_VERSION,
        job_name="job-1",
        client=client,
        streams=[NAME],
        seed=seed,
        lanes=2,
        block=1,
        ordered=True,
        attempts_max=3,
        rewind=rewind,
    )


def open_job(state: State, request: pb.OpenJobRequest) -> list[ev.Event]:
    """Opens, and returns what was journaled for it."""
    events = admission.open_job(state, request, 1)
    for event in events:
        state.apply(event)
    return events


def syncing(epoch: int, *, splits: tuple[int, ...], **more: object) -> pb.SyncClientRequest:
    resumed = pb.Resumed(splits=splits, count=20, total=201)
    one = pb.EpochProgress(stream=0, epoch=epoch, resumed=resumed, **more)
    return pb.SyncClientRequest(job="j1", client="later", term=0, epochs=[one])


def committing(sequence: int, text: str) -> pb.CommitPositionRequest:
    return pb.CommitPositionRequest(
        job="j1", client="client-1", sequence=sequence, epoch=2, consumed=30, position=text
    )


def test_a_client_that_resumes_steps_its_job_back_once() -> None:
    finished = [
        ev.EpochStarted("j1", 0, 0),
        *(delivered(split) for split in range(8)),
        ev.EpochFinished("j1", 0, 0, 80, 828, 5),
    ]
    state = build(dataset(NAME), job(streams=(NAME,)), finished)
    assert state.jobs["j1"].streams[0].next_epoch == 1
    request = opening("later", rewind=(0,))
    assert acts(open_job(state, request)) == [
        ev.ClientJoined("j1", "later"),
        ev.JobRewound("j1", (0,)),
    ]
    assert state.jobs["j1"].streams[0].next_epoch == 0
    state.apply(ev.EpochStarted("j1", 0, 0))
    assert open_job(state, request) == []  # the same call once more
    assert (0, 0) in state.jobs["j1"].epochs
    with pytest.raises(RefusedError, match="taken over"):
        admission.open_job(state, opening("client-1", rewind=(0,)), 1)
    with pytest.raises(UsageError, match="an epoch for each of 1 streams"):
        admission.open_job(state, opening("third", rewind=(0, 1)), 1)


def test_a_new_job_begins_where_its_client_resumes() -> None:
    state = build(dataset(NAME))
    opened, joined, rewound = open_job(state, opening("later", rewind=(5,)))
    assert isinstance(opened, ev.JobOpened)
    assert joined == ev.ClientJoined("j1", "later")
    assert rewound == ev.JobRewound("j1", (5,))
    assert state.jobs["j1"].streams[0].next_epoch == 5


def test_what_was_consumed_whole_is_not_made_again_and_counts() -> None:
    state = build(dataset(NAME, splits=8), [worker(1, slots=8)])
    open_job(state, opening("later", rewind=(1,)))
    (first, second) = ([0, 2, 4, 6], [1, 3, 5, 7])
    started, resumed = progress.client_events(state, state.jobs["j1"], syncing(1, splits=(2, 1)))
    assert started == ev.EpochStarted("j1", 0, 1)
    consumed = SplitSet()
    for split in (*first[:2], *second[:1]):
        consumed.add(split)
    assert resumed == ev.EpochResumed("j1", 0, 1, consumed.to_bytes(), 20, 201)
    for event in (started, resumed):
        state.apply(event)
    assert sorted(split for split, _ in assigned(schedule(state))) == [3, 4, 5, 6, 7]
    again = from_snapshot(to_snapshot(state))
    assert to_snapshot(again) == to_snapshot(state)
    rest = [pb.SplitDone(split=s, digest=pb.Digest(count=10, total=s)) for s in (3, 4, 5, 6, 7)]
    digest = pb.Digest(count=70, total=201 + 25, chain=9)
    request = syncing(1, splits=(2, 1), done=rest, finished=True, digest=digest)
    *_, finish = progress.client_events(state, state.jobs["j1"], request)
    assert finish == ev.EpochFinished("j1", 0, 1, 70, 226, 9)


def test_an_epoch_may_be_resumed_at_its_very_end() -> None:
    state = build(dataset(NAME, splits=8))
    open_job(state, opening("later", rewind=(1,)))
    digest = pb.Digest(count=20, total=201, chain=9)
    request = syncing(1, splits=(4, 4), finished=True, digest=digest)
    events = progress.client_events(state, state.jobs["j1"], request)
    for event in events:
        state.apply(event)
    assert isinstance(events[-1], ev.EpochFinished)
    assert progress.client_events(state, state.jobs["j1"], request) == []  # the reply was lost


def test_an_epoch_whose_beginning_was_torn_off_the_journal_begins_again() -> None:
    state = build(dataset(NAME, splits=8), [worker(1, slots=8)])
    open_job(state, opening("later", rewind=(1,)))
    request = syncing(1, splits=(2, 1))
    started, resumed = progress.client_events(state, state.jobs["j1"], request)
    state.apply(started)  # and the dispatcher died before the next record
    schedule(state)
    events = progress.client_events(state, state.jobs["j1"], request)
    assert events == [ev.EpochAbandoned("j1", 0, 1), started, resumed]
    for event in events:
        state.apply(event)
    assert progress.client_events(state, state.jobs["j1"], request) == []


@pytest.mark.parametrize(
    ("splits", "said"), [((1,), "must name 2 lanes"), ((1, 5), "lane 1 has 4 splits, not 5")]
)
def test_a_resumed_epoch_must_fit_the_lanes(splits: tuple[int, ...], said: str) -> None:
    state = build(dataset(NAME, splits=8))
    open_job(state, opening("later"))
    with pytest.raises(UsageError, match=said):
        progress.client_events(state, state.jobs["j1"], syncing(0, splits=splits))


def test_events_that_do_not_fit_are_refused() -> None:
    state = build(dataset(splits=8), job(), ev.EpochStarted("j1", 0, 0))
    before = to_snapshot(state)
    for event in (
        ev.JobRewound("j1", (0,)),  # an epoch is open
        ev.JobRewound("j2", (0,)),
        ev.EpochResumed("j1", 0, 1, b"", 0, 0),  # it is not open
        ev.EpochResumed("j1", 0, 0, b"\x00\x01", 0, 0),  # there is no split 8
        ev.PositionCommitted("j1", 0, 0, 0, "x"),
    ):
        with pytest.raises(InvalidEventError):
            state.apply(event)
    assert to_snapshot(state) == before
    assert lanes(8, 2)  # the deal is not what fails


def test_commits_replace_each_other_in_the_order_of_their_numbers() -> None:
    state = build(dataset(), job())
    known = state.jobs["j1"]
    for sequence, text in ((1, "penstock.1.a"), (3, "penstock.1.c"), (2, "penstock.1.b")):
        for event in positions.commit_events(known, committing(sequence, text)):
            state.apply(event)
    assert (known.position, known.position_at, known.commits) == ("penstock.1.c", (2, 30), 3)
    assert positions.commit_events(known, committing(3, "penstock.1.c")) == []
    assert to_snapshot(from_snapshot(to_snapshot(state))) == to_snapshot(state)
    state.apply(ev.ClientJoined("j1", "later"))  # whose commits are counted from 1
    assert (known.position, known.commits) == ("penstock.1.c", 0)


@pytest.mark.parametrize("text", ["", "x" * 4097, "ü"])
def test_a_text_that_is_no_position_is_refused(text: str) -> None:
    state = build(dataset(), job())
    with pytest.raises(UsageError, match="1 to 4096 ASCII"):
        positions.commit_events(state.jobs["j1"], committing(1, text))
