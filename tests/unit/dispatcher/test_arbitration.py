"""One decision for all ranks about a failed step: voted on, journaled, the same for ever."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from penstock.dispatcher import events as ev
from penstock.dispatcher.arbitration import GROUPS_MAX, RULINGS_MAX
from penstock.dispatcher.snapshot import from_snapshot, to_snapshot
from penstock.dispatcher.state import InvalidEventError, State
from penstock.proto import control_pb2 as pb

from .cluster import run, serving


def request(rank: int, action: str, **more: Any) -> pb.RuleStepRequest:
    fields: dict[str, Any] = {
        "group": "run-1",
        "ranks": 3,
        "step": 50,
        "vote_ms": 20_000,
        "hold_ms": 20_000,
        "fingerprint": f"f{rank}",
    }
    return pb.RuleStepRequest(rank=rank, action=action, **{**fields, **more})


def test_the_gravest_proposal_is_everybodys_once_all_have_voted(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (_, stub):
            calls = [request(0, "retry"), request(1, "skip"), request(2, "retry")]
            replies = await asyncio.gather(*map(stub.RuleStep, calls))
            assert {(one.action, one.rank, one.fingerprint) for one in replies} == {
                ("skip", 1, "f1")
            }
        # The rest of the story is the journal's: another process gives the same answer.
        async with serving(tmp_path) as (_, stub):
            late = await stub.RuleStep(request(0, "abort"))
            assert (late.action, late.rank, late.term) == ("skip", 1, 2)
            other = await stub.RuleStep(request(0, "abort", round=1, ranks=1))
            assert other.action == "abort"

    run(test())


def test_a_vote_ends_with_its_time_and_who_comes_late_gets_its_ruling() -> None:
    async def test() -> None:
        async with serving() as (_, stub):
            began_s = time.monotonic()
            first = await stub.RuleStep(request(2, "refetch", vote_ms=50))
            assert (first.action, first.rank) == ("refetch", 2)
            assert time.monotonic() - began_s < 10
            assert (await stub.RuleStep(request(0, "abort"))).action == "refetch"

    run(test())


def test_a_call_that_is_not_answered_in_time_is_repeated_and_votes_once() -> None:
    async def test() -> None:
        async with serving() as (_, stub):
            early = await stub.RuleStep(request(0, "skip", ranks=2, hold_ms=20))
            assert early.action == ""
            again = asyncio.ensure_future(stub.RuleStep(request(0, "retry", ranks=2)))
            await asyncio.sleep(0)
            other = await stub.RuleStep(request(1, "retry", ranks=2))
            assert (other.action, (await again).action) == ("skip", "skip")

    run(test())


def test_who_listens_hears_what_the_one_that_asks_the_operator_says() -> None:
    async def test() -> None:
        async with serving() as (_, stub):
            began_s = time.monotonic()
            listening = [asyncio.ensure_future(stub.RuleStep(request(n, ""))) for n in (0, 2)]
            # One whose call ends meanwhile takes nothing from the others.
            assert (await stub.RuleStep(request(0, "", hold_ms=50))).action == ""
            said = await stub.RuleStep(request(1, "rewind", alone=True))
            assert said.action == "rewind"
            assert [(await one).action for one in listening] == ["rewind", "rewind"]
            assert time.monotonic() - began_s < 10, "they heard it when it was said"

    run(test())


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"group": ""}, "group"),
        ({"group": "x" * 129}, "group"),
        ({"ranks": 1}, "rank must be less than ranks"),
        ({"action": "explode"}, "action must be one of retry"),
        ({"step": (1 << 64) - 1}, "step and round"),
        ({"fingerprint": "x" * 129}, "fingerprint"),
    ],
)
def test_what_cannot_be_is_refused(more: dict[str, Any], named: str) -> None:
    async def test() -> None:
        async with serving() as (_, stub):
            fields = {"action": "retry", **more}
            with pytest.raises(grpc.aio.AioRpcError, match=named):
                await stub.RuleStep(request(1, **fields))

    run(test())


def test_rulings_are_state_and_bounded() -> None:
    state = State()
    for number in range(RULINGS_MAX + 10):
        state.apply(ev.StepRuled("run-1", number, 0, "skip", 0, "f"))
    for number in range(GROUPS_MAX - 1):
        state.apply(ev.StepRuled(f"other-{number}", 1, 0, "retry", 0, "f"))
    state.apply(ev.StepRuled("run-1", 9999, 0, "skip", 0, "f"))
    before = to_snapshot(state)
    with pytest.raises(InvalidEventError, match="ruled already"):
        state.apply(ev.StepRuled("run-1", 9999, 0, "retry", 0, "f"))
    assert to_snapshot(state) == before
    assert len(state.rulings["run-1"]) == RULINGS_MAX
    assert (0, 0) not in state.rulings["run-1"]
    state.apply(ev.StepRuled("newest", 1, 0, "retry", 0, "f"))
    assert len(state.rulings) == GROUPS_MAX
    assert "other-0" not in state.rulings
    assert "run-1" in state.rulings, "what was used last stays"
    assert to_snapshot(from_snapshot(to_snapshot(state))) == to_snapshot(state)
