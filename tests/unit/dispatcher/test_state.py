"""The state machine: each event, exactly; what does not fit; snapshots."""

from __future__ import annotations

import pytest

from penstock.dispatcher import events as ev
from penstock.dispatcher.records import LostWorker
from penstock.dispatcher.snapshot import digest, from_snapshot, to_snapshot
from penstock.dispatcher.splitset import SplitSet
from penstock.dispatcher.state import InvalidEventError, State
from penstock.dispatcher.validate import BrokenInvariantError, validate
from penstock.dispatcher.workers import LOST_MAX
from penstock.errors import JournalCorruptError

from .builders import build, dataset, delivered, job, worker

OPEN = [ev.TermStarted(1), dataset(), *job(), worker(1), worker(2), ev.EpochStarted("j1", 0, 0)]


def attempt(number: int, split: int, on: str = "w1", trial: int = 1) -> ev.AttemptAssigned:
    return ev.AttemptAssigned(number, "j1", 0, 0, split, on, trial)


def touched(*events: ev.Event) -> list[set[str]]:
    """Whose view each event changes, after `OPEN`."""
    state = build(OPEN)
    out = []
    for event in events:
        out.append(state.apply(event))
        validate(state, deal=True)
    return out


def test_each_event_names_exactly_those_whose_view_it_changes() -> None:
    assert touched(
        attempt(1, 0, "w1"),
        attempt(2, 1, "w2"),
        ev.AttemptFailed(1, "PIPELINE", "boom"),
        attempt(3, 0, "w2", trial=2),
        delivered(1),
        delivered(5),  # never assigned: nobody's view had it
        ev.AttemptDropped(3, "GONE"),
        attempt(4, 0, "w1", trial=2),
        worker(3),
        ev.WorkerLost("w1", "silent"),
        ev.EpochAbandoned("j1", 0, 0),
        ev.ClientLeft("j1", "silent"),
        ev.TermStarted(2),
    ) == [
        {"w1", "j1"},
        {"w2", "j1"},
        {"w1", "j1"},
        {"w2", "j1"},
        {"w2", "j1"},
        set(),
        {"w2", "j1"},
        {"w1", "j1"},
        {"w3"},
        {"w1", "j1"},
        {"j1"},
        {"j1"},
        set(),
    ]


def test_closing_an_epoch_ends_its_attempts_on_every_worker() -> None:
    for closing in (
        ev.EpochAbandoned("j1", 0, 0),
        ev.ClientJoined("j1", "another"),
        ev.ClientLeft("j1", "silent"),
        ev.JobFailed("j1", "why"),
        ev.JobClosed("j1", "done"),
    ):
        state = build(OPEN, attempt(1, 0, "w1"), attempt(2, 1, "w2"))
        assert state.apply(closing) == {"w1", "w2", "j1"}
        validate(state)
        assert not state.attempts
        assert not list(state.open_epochs())


def test_a_finished_epoch_is_three_numbers() -> None:
    events: list[ev.Event] = [*OPEN]
    state = build(events)
    sizes = []
    for epoch in range(0, 40):
        if epoch:
            state.apply(ev.EpochStarted("j1", 0, epoch))
        for split in range(8):
            state.apply(delivered(split, epoch=epoch))
        state.apply(ev.EpochFinished("j1", 0, epoch, 80, sum(range(100, 108)), 5))
        sizes.append(len(to_snapshot(state)))
    assert max(sizes) - min(sizes) <= 4  # integers that grew
    stream = state.jobs["j1"].streams[0]
    assert (stream.next_epoch, stream.epochs_finished) == (40, 40)
    assert stream.last_digest == (80, sum(range(100, 108)), 5)


def test_epochs_of_a_stream_may_be_open_together_and_end_in_any_order() -> None:
    state = build(OPEN, ev.EpochStarted("j1", 0, 1))
    for split in range(8):
        state.apply(delivered(split, epoch=1))
    state.apply(ev.EpochFinished("j1", 0, 1, 80, sum(range(100, 108)), 0))
    assert state.jobs["j1"].streams[0].next_epoch == 2
    state.apply(ev.EpochAbandoned("j1", 0, 0))
    with pytest.raises(InvalidEventError, match="over"):
        state.apply(ev.EpochStarted("j1", 0, 0))


def test_a_split_that_never_failed_leaves_no_trace_when_its_attempt_ends() -> None:
    before = build(OPEN, attempt(1, 0), ev.AttemptDropped(1, "GONE"))
    epoch = before.epoch(("j1", 0, 0))
    assert epoch is not None
    assert epoch.splits == {}
    before.apply(attempt(2, 0))
    before.apply(ev.AttemptFailed(2, "PIPELINE", ""))
    assert epoch.splits[0].failed_on == ("w1",)
    assert epoch.splits[0].failures == 1


def test_the_last_lost_workers_are_remembered_and_may_come_back() -> None:
    state = build(OPEN, ev.WorkerLost("w1", "silent"))
    assert state.lost == {"w1": LostWorker("w1", "inc1", "host:1", False, "silent")}
    state.apply(worker(1))
    assert not state.lost
    for number in range(10, 10 + LOST_MAX + 5):
        state.apply(worker(number))
        state.apply(ev.WorkerLost(f"w{number}", "gone"))
    assert len(state.lost) == LOST_MAX
    assert "w10" not in state.lost


@pytest.mark.parametrize(
    "event",
    [
        ev.TermStarted(1),
        dataset(),
        ev.JobOpened("j1", "again", ("d1",), 1, 1, 1, False, 1),
        ev.JobOpened("x9", "odd", ("d1",), 1, 1, 1, False, 1),
        ev.JobOpened("j9", "odd", ("d9",), 1, 1, 1, False, 1),
        ev.JobOpened("j9", "odd", ("d1",), 1, 0, 1, False, 1),
        ev.ClientJoined("j9", "c"),
        ev.ClientLeft("j9", ""),
        ev.JobFailed("j1", ""),
        ev.JobClosed("j9", ""),
        ev.EpochStarted("j1", 0, 0),
        ev.EpochStarted("j1", 1, 0),
        ev.EpochStarted("j9", 0, 0),
        ev.EpochAbandoned("j1", 0, 3),
        ev.EpochFinished("j1", 0, 0, 0, 0, 0),
        worker(1),
        ev.WorkerLost("w9", ""),
        ev.WorkerPromoted("w1"),
        ev.WorkerPromoted("w9"),
        attempt(1, 5),
        attempt(2, 0),
        attempt(2, 6),
        attempt(2, 8),
        attempt(2, 5, "w9"),
        attempt(2, 5, "w3"),
        attempt(2, 5, trial=2),
        ev.AttemptAssigned(2, "j1", 0, 1, 5, "w1", 1),
        ev.AttemptFailed(9, "", ""),
        ev.AttemptDropped(9, ""),
        delivered(6),
        delivered(8),
        delivered(1, epoch=1),
        delivered(1, stream=1),
    ],
)
def test_an_event_that_does_not_fit_changes_nothing(event: ev.Event) -> None:
    state = build(OPEN, worker(3, standby=True), attempt(1, 0), delivered(6))
    before = to_snapshot(state)
    with pytest.raises(InvalidEventError):
        state.apply(event)
    assert to_snapshot(state) == before
    validate(state, deal=True)


def test_a_snapshot_comes_back_as_the_same_state() -> None:
    state = build(
        OPEN,
        worker(3, standby=True),
        attempt(1, 0),
        ev.AttemptFailed(1, "PIPELINE", "boom"),
        attempt(2, 0, "w2", trial=2),
        attempt(3, 5),
        delivered(6),
        ev.WorkerLost("w1", "silent"),
    )
    copy = from_snapshot(to_snapshot(state))
    assert to_snapshot(copy) == to_snapshot(state)
    assert digest(copy) == digest(state)
    validate(copy, deal=True)
    for event in (attempt(4, 5, "w2"), delivered(0), ev.EpochAbandoned("j1", 0, 0)):
        assert copy.apply(event) == state.apply(event)
    assert digest(copy) == digest(state) != digest(State())


@pytest.mark.parametrize("damage", [b"", b"\x80", b"\x81\xa7version\x02", b"\xff" * 9])
def test_what_is_no_snapshot_is_corruption(damage: bytes) -> None:
    with pytest.raises(JournalCorruptError):
        from_snapshot(damage)


def test_validate_sees_a_broken_state() -> None:
    def damage(state: State, number: int) -> None:
        epoch = state.epoch(("j1", 0, 0))
        assert epoch is not None
        [
            lambda: state.workers["w1"].attempts.clear(),
            lambda: state.workers.pop("w1"),
            lambda: epoch.splits.pop(0),
            lambda: epoch.delivered.add(0),
            lambda: state.jobs["j1"].epochs.clear(),
            lambda: setattr(state, "next_attempt", 1),
            lambda: setattr(state.jobs["j1"], "failure", "x"),
            lambda: setattr(state.workers["w1"], "standby", True),
            lambda: state.book(state.jobs["j1"], epoch).dropped(0),
        ][number]()

    for number in range(9):
        state = build(OPEN, attempt(1, 0))
        damage(state, number)
        with pytest.raises(BrokenInvariantError):
            validate(state, deal=True)


def test_a_set_of_splits_is_the_same_in_whatever_order_it_was_filled() -> None:
    one, two = SplitSet(), SplitSet()
    for split in (3, 900, 17, 3):
        one.add(split)
    for split in (900, 17, 3):
        two.add(split)
    assert one.to_bytes() == two.to_bytes()
    assert list(one) == [3, 17, 900]
    assert len(one) == 3
    assert 17 in one
    assert 18 not in one
    assert 10**9 not in one
    assert list(SplitSet.from_bytes(one.to_bytes())) == [3, 17, 900]
