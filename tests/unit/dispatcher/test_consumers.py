"""Groups of consumers at the dispatcher: seats, resizes, refusals, and names in the status."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from penstock.dispatcher import admission, consumers
from penstock.dispatcher import events as ev
from penstock.dispatcher.group_status import late_texts, pictures
from penstock.dispatcher.snapshot import from_snapshot, to_snapshot
from penstock.dispatcher.state import InvalidEventError, State
from penstock.errors import PositionError, RefusedError, ResizedError, SeatTakenError, UsageError
from penstock.proto import control_pb2 as pb
from penstock.proto import control_pb2_grpc
from penstock.proto.hashing import Digest
from penstock.proto.position import Consumer, Cursor, Position, StreamPosition
from penstock.proto.seats import GroupPosition
from penstock.timing import Timing

from .builders import build, dataset
from .cluster import FINGERPRINT, QUICK, Client, announced, job_request, put_dataset, run, serving

LANES = 4


def asking(rank: int, world: int, client: str = "", **more: Any) -> pb.OpenJobRequest:
    """What a consumer of the group `train` asks for."""
    consumer = {key: more.pop(key) for key in ("restore", "generation") if key in more}
    request = job_request(client or f"c{rank}of{world}", lanes=LANES, **more)
    request.consumer.CopyFrom(pb.Consumer(rank=rank, world=world, **consumer))
    return request


def seat(state: State, request: pb.OpenJobRequest) -> str:
    """Opens a consumer's job as the service does; returns its id."""
    for event in consumers.group_events(state, request, 99):
        state.apply(event)
    as_job = consumers.as_job(state, request)
    for event in admission.open_job(state, as_job, 1):
        state.apply(event)
    job = admission.find_job(state, as_job)
    assert job is not None
    for event in consumers.seat_events(state, job, request):
        state.apply(event)
    return job.job


def position(consumer: Consumer, cursors: tuple[Cursor, ...], *, epoch: int = 0) -> Position:
    """Where a consumer of that group is."""
    stream = StreamPosition("f", 8, 0, 0, epoch, cursors=cursors)
    return Position("d", 99, LANES, 1, False, True, epoch, 0, False, (stream,), consumer)


def commit(state: State, job: str, at: Position) -> None:
    consumers.check_commit(state, state.jobs[job], str(at))
    state.apply(ev.PositionCommitted(job, state.jobs[job].commits + 1, at.epoch, 0, str(at)))


def test_consumers_are_jobs_of_one_group_with_one_seed() -> None:
    state = build(dataset(FINGERPRINT))
    jobs = [seat(state, asking(rank, 2)) for rank in range(2)]
    assert [state.jobs[job].name for job in jobs] == [
        "train [consumer 0 of 2]",
        "train [consumer 1 of 2]",
    ]
    assert {state.jobs[job].seed for job in jobs} == {99}
    group = state.groups["train"]
    assert (group.generation, group.world, group.jobs) == (1, 2, jobs)
    assert seat(state, asking(1, 2)) == jobs[1]  # the same call once more
    assert to_snapshot(from_snapshot(to_snapshot(state))) == to_snapshot(state)


def test_a_resize_goes_on_at_what_was_committed_and_closes_the_former_jobs() -> None:
    state = build(dataset(FINGERPRINT))
    first, second = (seat(state, asking(rank, 2)) for rank in range(2))
    state.apply(ev.EpochStarted(first, 0, 0))
    digest = Digest(3, 30, 5)
    mine, others = Cursor(1, 3, digest), Cursor(2)
    commit(state, first, position(Consumer(0, 2, 1), (mine, others, mine, others), epoch=4))
    with pytest.raises(UsageError, match='has 2 consumers, not 1: pass restore="committed"'):
        seat(state, asking(0, 1))
    alone = seat(state, asking(0, 1, restore=True))
    group = state.groups["train"]
    assert (group.generation, group.world, group.jobs) == (2, 1, [alone])
    assert set(state.jobs) == {alone}
    places = GroupPosition.parse(group.position).places
    assert [(place.epoch, place.cursor.splits) for place in places] == [(4, 1), (0, 0)] * 2
    assert state.jobs[alone].streams[0].next_epoch == 0  # what the second one left comes first
    for former in (first, second):
        with pytest.raises(ResizedError, match="1 consumers since generation 2"):
            admission.owned_job(state, former, "c0of2")
    again = from_snapshot(to_snapshot(state))
    with pytest.raises(ResizedError):
        admission.owned_job(again, first, "c0of2")
    assert to_snapshot(again) == to_snapshot(state)


def test_what_was_left_out_is_left_out_after_a_resize_too() -> None:
    state = build(dataset(FINGERPRINT))
    jobs = [seat(state, asking(rank, 2)) for rank in range(2)]
    for rank, job in enumerate(jobs):
        state.apply(ev.EpochStarted(job, 0, 0))
        state.apply(ev.ElementSkipped(job, 0, 0, 3 + rank, 5, "w1", "boom", 1))
    state.apply(ev.ElementSkipped(jobs[0], 0, 0, 3, 6, "w1", "boom", 2))
    state = from_snapshot(to_snapshot(state))
    (job,) = (seat(state, asking(0, 1, restore=True)),)
    assert {key: sorted(known) for key, known in state.jobs[job].bad.items()} == {
        (0, 0, 3): [5, 6],
        (0, 0, 4): [5],
    }
    # And what a person has made again is not left out by the next seat.
    state.apply(ev.ElementRetried(job, 0, 0, 4, 5))
    seat(state, asking(0, 1, "another", restore=True))
    assert sorted(state.jobs[job].bad) == [(0, 0, 3)]
    # Nor after a resize, whoever of them had it.
    jobs = [seat(state, asking(rank, 2, restore=True)) for rank in range(2)]
    assert [sorted(state.jobs[job].bad) for job in jobs] == [[(0, 0, 3)]] * 2
    state.apply(ev.ElementRetried(jobs[1], 0, 0, 3, 5))
    state.apply(ev.ElementRetried(jobs[1], 0, 0, 3, 6))
    job = seat(state, asking(0, 1, restore=True))
    assert not state.jobs[job].bad


def test_an_older_journal_leaves_an_element_out_again_after_a_resize() -> None:
    # Its dispatcher did not hand on what was left out, so the next job found it, by another fault.
    state = build(dataset(FINGERPRINT))
    former = seat(state, asking(0, 1))
    state.apply(ev.EpochStarted(former, 0, 0))
    state.apply(ev.ElementSkipped(former, 0, 0, 3, 5, "w1", "boom", 1))
    job = seat(state, asking(0, 1, "another", restore=True))
    state.apply(ev.EpochStarted(job, 0, 0))
    again = ev.ElementSkipped(job, 0, 0, 3, 5, "w2", "boom", 2)
    state.apply(again)
    assert state.jobs[job].bad[0, 0, 3][5].worker == "w2"
    with pytest.raises(InvalidEventError, match="left out already"):
        state.apply(again)


def test_a_resize_with_nothing_committed_begins_where_the_last_one_did() -> None:
    state = build(dataset(FINGERPRINT))
    job = seat(state, asking(0, 1))
    commit(state, job, position(Consumer(0, 1, 1), (Cursor(1),) * LANES, epoch=2))
    seat(state, asking(1, 3, restore=True))
    known = state.groups["train"].position
    assert known
    seat(state, asking(0, 2, restore=True))
    assert state.groups["train"].position == known
    with pytest.raises(UsageError, match="was resized, and its consumers go on in the middle"):
        seat(state, asking(1, 2))


@pytest.mark.parametrize(
    ("request_", "error", "said"),
    [
        (asking(0, 5), UsageError, "5 consumers cannot share 4 lanes: set lanes=5 or more, under"),
        (asking(2, 2), UsageError, "rank < world"),
        (asking(0, 2, block=8), RefusedError, "block=1, not 8"),
        (asking(0, 2, seed=1), RefusedError, "seed=99, not 1"),
        (asking(0, 2, generation=7), ResizedError, "generation 7 of 'train', which is in gener"),
        (asking(0, 1, generation=1, restore=True), ResizedError, "generation 1 of 'train' has 2"),
        (asking(0, 2, streams=[FINGERPRINT, "ff" * 8]), UsageError, "share one stream, not 2"),
    ],
)
def test_what_is_no_consumer_of_the_group_is_told_why(
    request_: pb.OpenJobRequest, error: type[Exception], said: str
) -> None:
    state = build(dataset(FINGERPRINT), dataset("ff" * 8))
    seat(state, asking(1, 2))
    before = to_snapshot(state)
    with pytest.raises(error, match=said):
        seat(state, request_)
    assert to_snapshot(state) == before


def test_more_consumers_than_lanes_are_told_the_number_to_set() -> None:
    state = build(dataset(FINGERPRINT))
    with pytest.raises(UsageError, match=r"share 4 lanes: set lanes=5 or more$"):
        seat(state, asking(0, 5))
    request = asking(0, 5)
    request.lanes = 129
    with pytest.raises(UsageError, match="lanes must be at most 128"):
        seat(state, request)


def test_a_group_and_a_job_do_not_share_a_name() -> None:
    state = build(dataset(FINGERPRINT))
    for event in admission.open_job(state, job_request("alone", lanes=LANES), 1):
        state.apply(event)
    with pytest.raises(RefusedError, match="is read by one client"):
        seat(state, asking(0, 2))
    other = build(dataset(FINGERPRINT))
    seat(other, asking(0, 2))
    with pytest.raises(RefusedError, match=r"say which of them .* consumer=\(rank, 2\)"):
        consumers.check_plain(other, job_request("alone"))


def test_only_a_position_that_a_resize_can_go_by_is_committed() -> None:
    state = build(dataset(FINGERPRINT))
    job = seat(state, asking(0, 2))
    known = state.jobs[job]
    whole = (Cursor(1),) * LANES
    with pytest.raises(PositionError, match="not one of train"):
        consumers.check_commit(state, known, str(position(Consumer(1, 2, 1), whole)))
    with pytest.raises(PositionError, match="not one of train"):
        consumers.check_commit(state, known, str(position(Consumer(0, 2, 2), whole)))
    with pytest.raises(PositionError, match="not a position"):
        consumers.check_commit(state, known, "x")
    second = seat(state, asking(1, 2))
    commit(state, second, position(Consumer(1, 2, 1), whole))
    stranger = dataclasses.replace(position(Consumer(0, 2, 1), whole), dataset="other")
    with pytest.raises(PositionError, match="another pipeline"):
        consumers.check_commit(state, known, str(stranger))
    bare = (Cursor(1, 3, None),) * LANES
    with pytest.raises(PositionError, match="no digests"):
        consumers.check_commit(state, known, str(position(Consumer(0, 2, 1), bare)))


def test_a_seat_is_free_when_its_consumer_left_or_its_connection_broke_long_enough_ago() -> None:
    state = build(dataset(FINGERPRINT))
    job = state.jobs[seat(state, asking(0, 2))]
    timing = Timing(heartbeat_s=0.5, retry_max_s=1.0, client_timeout_s=60.0)
    consumers.check_seat(None, "other", 0.0, timing)
    consumers.check_seat(job, job.client, 0.0, timing)
    for broken_s in (0.0, 2.9):
        with pytest.raises(SeatTakenError, match=r"read by client c0of2.* 3 s after"):
            consumers.check_seat(job, "other", broken_s, timing)
    consumers.check_seat(job, "other", 3.1, timing)
    state.apply(ev.ClientLeft(job.job, "silent"))
    consumers.check_seat(job, "other", 0.0, timing)


def test_events_that_do_not_fit_are_refused() -> None:
    state = build(dataset(FINGERPRINT))
    job = seat(state, asking(0, 2))
    before = to_snapshot(state)
    formed = ev.GroupFormed("train", 2, 2, (FINGERPRINT,), 99, LANES, 1, False, "")
    for event in (
        dataclasses.replace(formed, generation=3),
        dataclasses.replace(formed, world=5),
        ev.ConsumerSeated(job, "train", 2),
        ev.ConsumerSeated(job, "other", 0),
        ev.ConsumerSeated("j9", "train", 0),
    ):
        with pytest.raises(InvalidEventError):
            state.apply(event)
    assert to_snapshot(state) == before


def test_status_names_who_is_missing_dead_late_or_slow() -> None:
    state = build(dataset(FINGERPRINT, splits=8))
    jobs = [seat(state, asking(rank, 4)) for rank in range(3)]
    for job in jobs:
        state.apply(ev.EpochStarted(job, 0, 0))
    lanes = state.book(state.jobs[jobs[0]], state.jobs[jobs[0]].epochs[0, 0])
    assert lanes.length(0) == 2
    for job, splits in zip(jobs, (range(8), range(7), range(6)), strict=True):
        for split in splits:
            state.apply(ev.SplitDelivered(job, 0, 0, split, 1, 1, 1))
    state.apply(ev.ClientLeft(jobs[2], "silent"))
    timing = Timing(heartbeat_s=0.5)
    heard_s = {jobs[0]: 100.0 - 2.1, jobs[1]: 100.0}
    (picture,) = pictures(state, heard_s, timing, 100.0)
    states = [consumer["state"] for consumer in picture["consumers"]]
    assert states == ["late", "slow", "dead", "missing"]
    assert [consumer["progress"] for consumer in picture["consumers"][:2]] == [1.0, 0.5]
    assert late_texts([picture]) == [
        "consumer 1 of 4 of 'train' is 0.50 epochs behind the furthest one",
        "consumer 2 of 4 of 'train' is gone; its lanes wait for it",
        "consumer 3 of 4 of 'train' has not come",
    ]


async def _open(stub: Any, request: pb.OpenJobRequest) -> pb.OpenJobReply:
    reply: pb.OpenJobReply = await stub.OpenJob(await announced(stub, request))
    return reply


def test_a_late_call_of_a_former_consumer_does_not_resize_the_group_back() -> None:
    async def story() -> None:
        async with serving() as (_, stub):
            await put_dataset(stub)
            late = await announced(stub, asking(1, 2, restore=True))
            await _open(stub, asking(0, 2))
            resized = await _open(stub, asking(0, 1, "new", restore=True))
            assert resized.generation == 2
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.OpenJob(late)
            assert dict(refused.value.trailing_metadata())["penstock-error"] == "ResizedError"

    run(story())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"streams": ["ff" * 8]}, "is not registered"),
        ({"attempts_max": 0}, "attempts_max must be"),
        ({"name": "n" * 250}, "job_name must have at most 256 characters"),
    ],
)
def test_no_group_is_left_of_a_request_that_is_refused(more: dict[str, Any], said: str) -> None:
    async def story() -> None:
        async with serving() as (dispatcher, stub):
            await put_dataset(stub)
            with pytest.raises(grpc.aio.AioRpcError, match=said):
                await _open(stub, asking(0, 2, **more))
            assert dispatcher.engine.state.groups == {}
            assert (await _open(stub, asking(0, 2))).generation == 1

    run(story())


def test_a_resize_ends_the_jobs_of_the_last_generation_and_not_those_before_it_again() -> None:
    async def story() -> None:
        async with serving() as (dispatcher, stub):
            await put_dataset(stub)
            first = (await _open(stub, asking(0, 1))).job
            second = (await _open(stub, asking(0, 2, restore=True))).job
            other = (await _open(stub, job_request("alone", "other"))).job
            await stub.CloseClient(pb.CloseClientRequest(job=other, client="alone"))
            await _open(stub, asking(0, 3, restore=True))
            assert list(dispatcher.engine.state.groups["train"].former) == [first, second]
            assert list(dispatcher.engine.endings) == [first, other, second]

    run(story())


def test_resizes_survive_the_dispatcher(tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(tmp_path, timing=QUICK) as (_, stub):
            await put_dataset(stub)
            first = await _open(stub, asking(0, 2))
            at = position(Consumer(0, 2, 1), (Cursor(1),) * LANES, epoch=1)
            at = dataclasses.replace(at, seed=first.seed)
            await stub.CommitPosition(
                pb.CommitPositionRequest(
                    job=first.job, client="c0of2", term=first.term, sequence=1, position=str(at)
                )
            )
            resized = await _open(stub, asking(0, 1, restore=True))
        async with serving(tmp_path, timing=QUICK) as (_, stub):
            again = await _open(stub, asking(0, 1, restore=True))
            assert (again.job, again.generation) == (resized.job, 2)
            assert again.group_position == resized.group_position != ""
            assert list(again.next_epoch) == [0]
            with pytest.raises(grpc.aio.AioRpcError, match="goes on at what was committed"):
                await Client(stub, "c0of2", first.job).sync()
            status = json.loads((await stub.GetStatus(pb.GetStatusRequest())).json)
            assert status["groups"][0]["consumers"][0]["client"] == "c0of1"

    run(story())


def test_a_process_that_ended_is_followed_at_once_and_a_live_one_is_not() -> None:
    timing = dataclasses.replace(QUICK, client_timeout_s=60.0, retry_max_s=0.05)

    async def story() -> None:
        async with serving(timing=timing) as (dispatcher, stub):
            await put_dataset(stub)
            reply = await _open(stub, asking(0, 2))
            async with grpc.aio.insecure_channel(dispatcher.address) as channel:
                own = Client(control_pb2_grpc.ControlStub(channel), "c0of2", reply.job, reply.term)
                await own.sync()
                held = asyncio.ensure_future(own.sync(hold_ms=20_000))
                with pytest.raises(grpc.aio.AioRpcError, match="two consumers cannot have one"):
                    await _open(stub, asking(0, 2, "later"))
            await asyncio.gather(held, return_exceptions=True)  # its process is gone
            again = None
            while again is None:  # a refusal is what says that it is too early
                with contextlib.suppress(grpc.aio.AioRpcError):
                    again = await _open(stub, asking(0, 2, "later"))
            assert again.job == reply.job

    run(story())
