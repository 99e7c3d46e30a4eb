"""Processes that meet to form a group: who is waited for, who sits where, what is asked twice."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.dispatcher.rendezvous import Rendezvous, Seat
from penstock.proto import control_pb2 as pb
from penstock.proto import control_pb2_grpc

from .cluster import QUICK, Client, announced, job_request, put_dataset, run, serving

LANES = 4


def meeting() -> Rendezvous:
    return Rendezvous(silent_s=5.0, settle_s=1.0)


def test_the_first_processes_wait_for_as_many_as_they_want() -> None:
    meets = meeting()
    assert meets.ask("g", "a", "", 2, 0.0)
    assert meets.missing("g", {}, LANES, 9.0) == ["1 more of 2 processes"]
    assert not meets.ask("g", "a", "", 2, 4.0)
    meets.ask("g", "b", "", 1, 8.0)
    assert meets.missing("g", {}, LANES, 8.5) == ["others who may come at the same time"]
    assert meets.missing("g", {}, LANES, 9.0) == []
    assert meets.form("g", {}, 1, LANES) == 2
    assert meets.seat("g", "a", 0) == meets.seat("g", "a", 1) == Seat(0, 2, 1)
    assert meets.seat("g", "b", 1) == Seat(1, 2, 1)
    assert meets.seat("g", "b", 2) is None, "a former generation's"


def test_who_is_alive_is_waited_for_and_keeps_its_order() -> None:
    meets = meeting()
    alive = {"j1": "consumer 0 of 2", "j2": "consumer 1 of 2"}
    meets.ask("g", "new", "", 1, 0.0)
    meets.ask("g", "second", "j2", 1, 0.0)
    assert meets.missing("g", alive, LANES, 2.0) == ["consumer 0 of 2 to commit"]
    assert meets.joining("g", 2.0) == 2
    meets.ask("g", "first", "j1", 1, 2.0)
    assert meets.missing("g", alive, LANES, 3.0) == []
    assert meets.form("g", {"j1": 0, "j2": 1}, 5, LANES) == 3
    seats = [meets.seat("g", member, 5) for member in ("first", "second", "new")]
    assert seats == [Seat(0, 3, 5), Seat(1, 3, 5), Seat(2, 3, 5)]
    assert meets.joining("g", 3.0) == 0


def test_who_does_not_ask_any_more_is_not_seated() -> None:
    meets = meeting()
    meets.ask("g", "gone", "", 1, 0.0)
    meets.ask("g", "here", "", 1, 6.0)
    assert meets.joining("g", 6.0) == 1
    assert meets.form("g", {}, 1, LANES) == 1


@given(st.integers(1, 9), st.integers(1, 6))
def test_no_more_are_seated_than_there_are_lanes(processes: int, lanes: int) -> None:
    meets = meeting()
    for number in range(processes):
        meets.ask("g", f"m{number}", "", 1, 0.0)
    world = meets.form("g", {}, 1, lanes)
    seats = [meets.seat("g", f"m{number}", 1) for number in range(processes)]
    assert world == min(processes, lanes)
    assert [seat for seat in seats if seat] == [Seat(rank, world, 1) for rank in range(world)]
    assert meets.joining("g", 0.0) == processes - world


def test_more_than_there_are_lanes_are_told() -> None:
    meets = meeting()
    for number in range(5):
        meets.ask("g", f"m{number}", "", 5, 0.0)
    assert meets.missing("g", {}, LANES, 9.0) == ["5 consumers, which 4 lanes are too few for"]


def asking(rank: int, world: int, generation: int = 0) -> pb.OpenJobRequest:
    """What a consumer of the group `train` opens its job with."""
    request = job_request(f"c{rank}of{world}", lanes=LANES)
    seat = pb.Consumer(rank=rank, world=world, restore=True, generation=generation)
    request.consumer.CopyFrom(seat)
    return request


def joining(member: str, job: str = "") -> pb.JoinGroupRequest:
    return pb.JoinGroupRequest(group="train", member=member, job=job, at_least=1)


async def seated(stub: Any, who: dict[str, str]) -> dict[str, tuple[int, int, int]]:
    """Asks for seats until all have one: (rank, world, generation) of each."""
    seats: dict[str, tuple[int, int, int]] = {}
    while len(seats) < len(who):
        for member, job in who.items():
            reply = await stub.JoinGroup(joining(member, job))
            if reply.seated:
                seats[member] = (reply.rank, reply.world, reply.generation)
    return seats


def test_consumers_and_a_newcomer_meet_at_the_dispatcher() -> None:
    async def story() -> None:
        async with serving(timing=QUICK) as (dispatcher, stub):
            await put_dataset(stub)
            opens = [await announced(stub, asking(rank, 2)) for rank in range(2)]
            jobs = [(await stub.OpenJob(request)).job for request in opens]
            channels = [grpc.aio.insecure_channel(dispatcher.address) for _ in range(2)]
            first, second = (
                Client(control_pb2_grpc.ControlStub(channel), f"c{rank}of2", job)
                for rank, (job, channel) in enumerate(zip(jobs, channels, strict=True))
            )
            for client in (first, second):
                reply = await client.sync()
                assert (reply.joining, list(reply.gone)) == (0, [])
            waits = await stub.JoinGroup(joining("new"))
            assert list(waits.waiting)[:2] == [
                "consumer 0 of 2 to commit",
                "consumer 1 of 2 to commit",
            ]
            assert (await second.sync(hold_ms=20_000)).joining == 1
            status = json.loads((await stub.GetStatus(pb.GetStatusRequest())).json)
            (said,) = [text for text in status["waiting"] if "seats" in text]
            assert said.startswith("1 of group 'train' wait for seats: consumer 0 of 2 to commit;")
            # One of them dies while it is told.
            held = asyncio.ensure_future(second.sync(hold_ms=20_000))
            await first.sync()
            await channels[1].close()
            await asyncio.gather(held, return_exceptions=True)
            reply = await first.sync()
            while not reply.gone:
                reply = await first.sync(hold_ms=50)
            assert list(reply.gone) == [1]
            seats = await seated(stub, {"new": "", "old": jobs[0]})
            assert seats == {"old": (0, 2, 2), "new": (1, 2, 2)}
            again = await stub.JoinGroup(joining("old", jobs[0]))
            assert (again.rank, again.generation) == (0, 2)
            opened = await stub.OpenJob(await announced(stub, asking(1, 2, 2)))
            assert opened.generation == 2
            later = Client(stub, "c1of2", opened.job, opened.term)
            reply = await later.sync()
            assert list(reply.gone) == []
            while not reply.gone:  # whoever was seated beside it does not come
                reply = await later.sync(hold_ms=50)
            assert list(reply.gone) == [0]
            await channels[0].close()

    run(story())


def test_who_comes_before_those_with_seats_have_begun_waits_for_them() -> None:
    async def story() -> None:
        async with serving(timing=QUICK) as (_, stub):
            await put_dataset(stub)
            assert await seated(stub, {"first": ""}) == {"first": (0, 1, 1)}
            waits = await stub.JoinGroup(joining("second"))
            assert not waits.seated
            assert list(waits.waiting) == ["those who have seats to begin"]
            job = (await stub.OpenJob(await announced(stub, asking(0, 1, 1)))).job
            first = Client(stub, "c0of1", job)
            assert (await first.sync()).joining == 1
            seats = await seated(stub, {"again": job, "second": ""})
            assert seats == {"again": (0, 2, 2), "second": (1, 2, 2)}

    run(story())


def test_those_who_read_do_not_meet_for_one_who_cannot_be_seated() -> None:
    async def story() -> None:
        async with serving(timing=QUICK) as (_, stub):
            await put_dataset(stub)
            request = asking(0, 1)
            request.lanes = 1
            job = (await stub.OpenJob(await announced(stub, request))).job
            waits = await stub.JoinGroup(joining("new"))
            assert list(waits.waiting) == ["a lane: 1 consumers have them all"]
            client = Client(stub, "c0of1", job)
            assert (await client.sync()).joining == 0
            with pytest.raises(grpc.aio.AioRpcError, match="at_least must be at most 1, not 2"):
                await stub.JoinGroup(pb.JoinGroupRequest(group="train", member="b", at_least=2))
            with pytest.raises(grpc.aio.AioRpcError, match="member must have 1 to 256 characters"):
                await stub.JoinGroup(joining("m" * 257))
            await stub.CloseClient(pb.CloseClientRequest(job=job, client="c0of1", leaving=True))
            assert await seated(stub, {"new": ""}) == {"new": (0, 1, 2)}

    run(story())
