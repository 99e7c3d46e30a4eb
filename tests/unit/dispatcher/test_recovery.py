"""Offers of checkpoints, peers that come back, attempts that stand still: pure decisions."""

from __future__ import annotations

import msgpack
import pytest

from penstock.dispatcher import admission, scheduler
from penstock.dispatcher import events as ev
from penstock.dispatcher.facts import Facts
from penstock.dispatcher.offers import Offer, Offers, wanted_places
from penstock.dispatcher.reports import Progress
from penstock.dispatcher.scheduler import STUCK
from penstock.dispatcher.snapshot import from_snapshot, to_snapshot
from penstock.dispatcher.state import State
from penstock.errors import NotFoundError, RefusedError
from penstock.proto import control_pb2 as pb
from penstock.proto.wire import PROTOCOL_VERSION

from .builders import acts, answered, assigned, build, dataset, delivered, job, schedule, worker

EPOCH = ev.EpochStarted("j1", 0, 0)


def offer(split: int, *, epoch: int = 0, seed: int = 7, name: str = "d1") -> Offer:
    return name, seed, epoch, split


def registering(number: int, *, incarnation: str = "", standby: bool = False) -> pb.Message:
    """What worker `w<number>` of the builders says when it registers again."""
    return pb.RegisterWorkerRequest(
        protocol_version=PROTOCOL_VERSION,
        incarnation=incarnation or f"inc{number}",
        address=f"host:{number}",
        slots=2,
        standby=standby,
    )


def register(state: State, request: pb.Message) -> list[ev.Event]:
    """Registers, and returns what was journaled for it."""
    events = admission.register_worker(state, request)
    for event in events:
        state.apply(event)
    return events


# Offers.


def test_a_split_goes_to_the_worker_that_has_its_checkpoint() -> None:
    state = build(dataset(splits=4), job(lanes=4), [worker(n) for n in (1, 2, 3)], EPOCH)
    facts = Facts(offers={"w3": {offer(0), offer(3)}, "w2": {offer(1)}})
    assert assigned(schedule(state, facts)) == [(0, "w3"), (1, "w2"), (2, "w1"), (3, "w3")]


def test_a_current_split_goes_to_its_checkpoint_above_all_slots_and_one_ahead_does_not() -> None:
    both = [worker(1, slots=1), worker(2, slots=1)]
    state = build(dataset(splits=8), job(lanes=2), both, EPOCH)
    facts = Facts(offers={"w1": {offer(split) for split in range(8)}})
    assert assigned(schedule(state, facts)) == [(0, "w1"), (1, "w1"), (2, "w2")]
    assert schedule(state, facts) == []
    state.apply(delivered(0))
    assert schedule(state, facts) == []  # w1 still has its one slot taken
    state.apply(delivered(1))
    assert assigned(schedule(state, facts)) == [(3, "w1")]


def test_an_offer_of_a_standby_or_of_one_that_failed_on_the_split_is_passed_over() -> None:
    state = build(
        dataset(splits=2), job(lanes=2), worker(1), worker(2, standby=True), worker(3), EPOCH
    )
    facts = Facts(offers={"w2": {offer(0)}, "w3": {offer(1)}, "w9": {offer(0)}})
    first = schedule(state, facts)
    assert assigned(first) == [(0, "w1"), (1, "w3")]
    state.apply(ev.AttemptFailed(first[1].attempt, "PIPELINE", "boom"))
    assert assigned(schedule(state, facts)) == [(1, "w1")]


def test_of_two_offers_the_less_loaded_worker_is_taken() -> None:
    state = build(dataset(splits=4), job(lanes=4), [worker(n) for n in (1, 2)], EPOCH)
    facts = Facts(offers={name: {offer(split) for split in range(4)} for name in ("w1", "w2")})
    assert [on for _, on in assigned(schedule(state, facts))] == ["w1", "w2", "w1", "w2"]


def test_an_offer_of_other_content_is_no_offer() -> None:
    state = build(dataset(splits=1), job(lanes=1), worker(1), worker(2), EPOCH)
    others = {offer(0, epoch=1), offer(0, seed=8), offer(0, name="d2"), offer(1)}
    assert assigned(schedule(state, Facts(offers={"w2": others}))) == [(0, "w1")]


def test_only_what_an_open_epoch_still_needs_is_wanted() -> None:
    state = build(
        dataset(splits=4), dataset("d2", splits=4), job(1), job(2, seed=9), EPOCH, delivered(2)
    )
    asked = [
        offer(1),
        offer(2),  # delivered
        offer(3),
        offer(4),  # there is no such split
        offer(0, epoch=1),
        offer(0, seed=9),  # a job that has nothing open
        offer(0, name="d2"),
        offer(0, name="d3"),
    ]
    assert wanted_places(state, asked) == [0, 2]
    state.apply(ev.EpochStarted("j2", 0, 0))
    assert wanted_places(state, asked) == [0, 2, 5]


def test_offers_go_with_their_worker_and_with_their_epoch() -> None:
    state = build(dataset(splits=4), job(), EPOCH)
    offers = Offers()
    assert offers.set(state, "w1", [offer(0), offer(9)]) == [0]
    assert offers.set(state, "w1", [offer(0), offer(9)]) == [0]
    assert offers.set(state, "w2", [offer(1), offer(2)]) == [0, 1]
    state.apply(delivered(1))
    offers.prune(state)
    assert offers.by_worker == {"w1": {offer(0)}, "w2": {offer(2)}}
    offers.forget("w1")
    state.apply(ev.EpochAbandoned("j1", 0, 0))
    offers.prune(state)
    assert offers.by_worker == {}


def test_the_attempts_of_a_restarted_worker_come_back_to_it_in_one_step() -> None:
    state = build(dataset(splits=6), job(lanes=3), [worker(n) for n in (1, 2, 3)], EPOCH)
    before = dict(assigned(schedule(state)))
    mine = [split for split, on in before.items() if on == "w2"]
    events = register(state, registering(2, incarnation="inc2-again"))
    assert [type(event) for event in acts(events)] == [ev.WorkerLost, ev.WorkerRegistered]
    facts = Facts(offers={"w4": {offer(split) for split in mine}})
    assert sorted(assigned(schedule(state, facts))) == [(split, "w4") for split in sorted(mine)]


# Workers that come back.


def test_a_worker_that_comes_back_late_is_a_standby_if_its_place_was_taken() -> None:
    state = build(worker(1), worker(2), worker(3, standby=True))
    for event in scheduler.lost_workers(state, Facts({"w1": 0.0, "w2": 9.0}), 10.0, 5.0):
        state.apply(event)
    assert not state.workers["w3"].standby
    assert state.lost["w1"].replaced
    (back,) = register(state, registering(1))
    assert isinstance(back, ev.WorkerRegistered)
    assert (back.worker, back.standby) == ("w1", True)
    assert register(state, registering(1)) == []


def test_a_worker_that_comes_back_late_takes_its_own_place_if_nobody_else_did() -> None:
    state = build(worker(1), worker(2), worker(3))
    for name in ("w1", "w2"):
        state.apply(ev.WorkerLost(name, "silent"))
    for number in (2, 1):
        (back,) = register(state, registering(number))
        assert isinstance(back, ev.WorkerRegistered)
        assert not back.standby


def test_one_standby_takes_the_place_of_one_worker() -> None:
    state = build(worker(1), worker(2), worker(3, standby=True))
    state.apply(ev.WorkerLost("w1", "silent"))
    state.apply(ev.WorkerLost("w2", "silent"))
    state.apply(ev.WorkerPromoted("w3"))
    assert [lost.replaced for lost in state.lost.values()] == [True, False]
    register(state, registering(1))
    register(state, registering(2))
    assert [(w.worker, w.standby) for w in state.workers.values()] == [
        ("w3", False),
        ("w1", True),
        ("w2", False),
    ]


def test_a_promoted_standby_that_comes_back_late_keeps_its_place_and_an_idle_one_does_not() -> None:
    state = build(worker(1, standby=True), worker(2, standby=True), ev.WorkerPromoted("w1"))
    for name in ("w1", "w2"):
        state.apply(ev.WorkerLost(name, "silent"))
    for number, standby in ((1, False), (2, True)):
        (back,) = register(state, registering(number, standby=True))
        assert isinstance(back, ev.WorkerRegistered)
        assert back.standby == standby


def test_a_restarted_process_takes_the_place_of_the_old_one_not_that_of_another() -> None:
    state = build(worker(1), worker(2), worker(3, standby=True))
    register(state, registering(1, incarnation="again"))
    assert state.lost["w1"].replaced
    for event in scheduler.lost_workers(state, Facts({"w2": 0.0}), 10.0, 5.0):
        state.apply(event)
    (back,) = register(state, registering(2))
    assert isinstance(back, ev.WorkerRegistered)
    assert back.standby  # w3 was promoted for w2, not for the old process of w1


@pytest.mark.parametrize("newer_is_lost", [False, True])
def test_a_process_that_was_followed_at_its_address_is_refused(newer_is_lost: bool) -> None:
    state = build(worker(1))
    register(state, registering(1, incarnation="newer"))
    if newer_is_lost:
        state.apply(ev.WorkerLost("w2", "silent"))
    before = to_snapshot(state)
    with pytest.raises(RefusedError, match=r"w1 was followed by worker w2 at its address host:1"):
        admission.register_worker(state, registering(1))
    assert to_snapshot(state) == before


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6])
def test_a_snapshot_of_a_version_before_is_read(version: int) -> None:
    state = build(dataset(), job(), worker(1), worker(2), EPOCH, ev.WorkerLost("w1", "silent"))
    content = msgpack.unpackb(to_snapshot(state))
    assert content["version"] == 7
    content["version"] = version
    content["jobs"] = [[*row[:-4], *row[-3:]] for row in content["jobs"]]
    if version == 6:
        assert to_snapshot(from_snapshot(msgpack.packb(content))) == to_snapshot(state)
        return
    content["workers"] = [row[:-2] for row in content["workers"]]
    for row in content["jobs"]:
        row[-1] = [epoch[:-1] for epoch in row[-1]]
    content["jobs"] = [[*row[:-5], *row[-2:]] for row in content["jobs"]]
    if version < 5:
        del content["failover"]
        content["jobs"] = [[*row[:-3], *row[-2:]] for row in content["jobs"]]
    if version < 4:
        content["jobs"] = [[*row[:-5], *row[-2:]] for row in content["jobs"]]
    if version >= 3:
        assert to_snapshot(from_snapshot(msgpack.packb(content))) == to_snapshot(state)
        return
    del content["stores"], content["decisions"]
    content["datasets"] = [row[:-1] for row in content["datasets"]]
    content["workers"] = [row[:-2] for row in content["workers"]]
    content["jobs"] = [[*row[:-3], *row[-2:]] for row in content["jobs"]]
    if version == 1:
        content["lost"] = [row[:-1] for row in content["lost"]]
        content["jobs"] = [[*row[:-3], *row[-2:]] for row in content["jobs"]]
    assert to_snapshot(from_snapshot(msgpack.packb(content))) == to_snapshot(state)


# Clients that come back.


def test_a_request_of_a_replaced_client_takes_nothing_back() -> None:
    state = build(dataset("00112233"), job(streams=("00112233",)), ev.ClientJoined("j1", "newer"))
    request = pb.OpenJobRequest(
        protocol_version=PROTOCOL_VERSION,
        job_name="job-1",
        client="client-1",
        streams=["00112233"],
        lanes=2,
        block=1,
        ordered=True,
        attempts_max=3,
    )
    for _ in range(2):
        with pytest.raises(RefusedError, match="taken over by client newer"):
            admission.open_job(state, request, 1)
        state = from_snapshot(to_snapshot(state))
    request.client = "newest"
    assert acts(admission.open_job(state, request, 1)) == [ev.ClientJoined("j1", "newest")]


def test_a_client_hears_why_its_job_was_closed_and_a_foreign_one_that_it_never_was() -> None:
    state = build(dataset(), job(), ev.JobClosed("j1", "silent"))
    with pytest.raises(RefusedError, match="closed: silent for 9 s") as refused:
        admission.owned_job(state, "j1", "client-1", {"j1": "silent for 9 s"})
    assert not isinstance(refused.value, NotFoundError)
    with pytest.raises(RefusedError, match="not kept") as forgotten:
        admission.owned_job(state, "j1", "client-1")
    assert not isinstance(forgotten.value, NotFoundError)
    for strange in ("j2", "j0x1", "k1", "", "j" + "9" * 5000):
        with pytest.raises(NotFoundError):
            admission.owned_job(state, strange, "client-1", {})


def test_why_a_client_left_survives_a_restart_of_the_dispatcher() -> None:
    state = build(dataset(), job(), ev.ClientLeft("j1", "its client closed it"))
    state = from_snapshot(to_snapshot(state))
    with pytest.raises(RefusedError, match="has left it: its client closed it"):
        admission.owned_job(state, "j1", "client-1")
    state.apply(ev.ClientJoined("j1", "client-1"))
    assert admission.owned_job(state, "j1", "client-1").left == ""


# Attempts that stand still.


def standing(state: State, since_s: dict[int, float], **more: bool) -> dict[int, Progress]:
    return {
        number: Progress(attempt, since_s.get(number, 100.0), elements=17, **more)
        for number, attempt in state.attempts.items()
    }


def test_an_attempt_that_makes_nothing_is_a_failed_trial_and_made_elsewhere() -> None:
    state = build(dataset(splits=2), job(lanes=2), worker(1), worker(2), EPOCH)
    schedule(state)
    facts = Facts({"w1": 99.5, "w2": 99.5}, progress=standing(state, {1: 30.0}))
    (event,) = scheduler.stuck_attempts(state, facts, 100.0, 60.0)
    assert isinstance(event, ev.FaultRaised)
    assert (event.failure, event.attempt, event.code) == ("hang", 1, STUCK)
    for part in ("split 0", "epoch 0", "w1 (host:1)", "17 elements", "70.0 s", "60 s"):
        assert part in event.detail
    assert "--progress-timeout" in event.detail
    state.apply(event)
    assert scheduler.stuck_attempts(state, facts, 100.0, 60.0) == []  # once is enough
    assert schedule(state) == []  # nobody gets it before that is decided
    answered(state)
    (again,) = schedule(state)
    assert (again.split, again.worker, again.trial) == (0, "w2", 2)


def test_what_has_a_reason_to_stand_still_is_not_stuck() -> None:
    state = build(dataset(splits=2), job(lanes=2), worker(1), EPOCH)
    schedule(state)
    old = standing(state, {1: 0.0, 2: 0.0})
    heard_s = {"w1": 100.0}
    assert scheduler.stuck_attempts(state, Facts(heard_s), 100.0, 60.0) == []
    produced = Facts(heard_s, {"w1": {1, 2}}, progress=old)
    assert scheduler.stuck_attempts(state, produced, 100.0, 60.0) == []
    full = Facts(heard_s, progress=standing(state, {1: 0.0, 2: 0.0}, waiting=True))
    assert scheduler.stuck_attempts(state, full, 100.0, 60.0) == []
    silent = Facts({"w1": 59.9}, progress=old)  # its silence is judged elsewhere
    assert scheduler.stuck_attempts(state, silent, 100.0, 60.0) == []
    assert len(scheduler.stuck_attempts(state, Facts(heard_s, progress=old), 100.0, 60.0)) == 2


def test_a_split_that_is_always_stuck_fails_the_job_by_name() -> None:
    state = build(dataset(splits=2), job(lanes=2, attempts_max=1), worker(1), EPOCH)
    schedule(state)
    facts = Facts({"w1": 100.0}, progress=standing(state, {1: 0.0, 2: 0.0}))
    for event in scheduler.stuck_attempts(state, facts, 100.0, 60.0):
        state.apply(event)
    failed, decided, job_failed, *late = answered(state)
    assert isinstance(failed, ev.AttemptFailed)
    assert isinstance(decided, ev.FailoverDecided)
    assert isinstance(job_failed, ev.JobFailed)
    assert [type(event) for event in late] == [ev.FailoverDecided]  # the other one's
    for part in ("split 0", "1 attempt;", "worker w1 (host:1)", STUCK, "--progress-timeout"):
        assert part in job_failed.reason


def test_only_what_a_client_waits_for_is_slow() -> None:
    state = build(dataset(splits=4), job(lanes=2), worker(1, slots=4), EPOCH)
    schedule(state)  # 0 and 1 are current, 2 and 3 behind them
    facts = Facts({"w1": 100.0}, progress=standing(state, dict.fromkeys(range(1, 5), 50.0)))
    assert scheduler.slow_attempts(state, facts, 10.0) == [1, 2]
    assert scheduler.slow_attempts(state, facts, 60.0) == []
    state.apply(delivered(0))
    assert scheduler.slow_attempts(state, facts, 10.0) == [2, 3]


# Workers out of a client's reach.


def test_an_attempt_out_of_reach_is_made_elsewhere_and_its_worker_avoided() -> None:
    two = [worker(1, slots=4), worker(2, slots=1)]
    state = build(dataset(splits=8), job(1, lanes=1), job(2, lanes=1), two, EPOCH)
    schedule(state)
    (first,) = [number for number, at in state.attempts.items() if at.split == 0]
    (event,) = scheduler.detours(state, Facts(), {first: "no route", 99: "stale"})
    assert event.attempt == first
    assert "no route" in event.reason
    state.apply(event)
    facts = Facts(avoided={"j1": {"w1"}})
    assert assigned(schedule(state, facts)) == [(0, "w2")]
    state.apply(ev.EpochAbandoned("j1", 0, 0))
    state.apply(ev.EpochStarted("j1", 0, 0))
    # w1's free slots are of no use to j1, and do not make w2 take more than its own.
    assert assigned(schedule(state, facts)) == [(0, "w2")]
    assert schedule(state, facts) == []
    state.apply(ev.EpochStarted("j2", 0, 0))
    assert {on for _, on in assigned(schedule(state, facts))} == {"w1"}


def test_there_is_no_detour_without_another_way() -> None:
    state = build(dataset(splits=1), job(lanes=1), worker(1), worker(2, standby=True), EPOCH)
    schedule(state)
    assert scheduler.detours(state, Facts(), {1: "no route"}) == []
    state.apply(ev.WorkerPromoted("w2"))
    assert scheduler.detours(state, Facts(avoided={"j1": {"w2"}}), {1: "no route"}) == []
    assert len(scheduler.detours(state, Facts(), {1: "no route"})) == 1
    state.apply(ev.WorkerLost("w2", "silent"))
    state.apply(ev.AttemptDropped(1, "GONE"))
    assert assigned(schedule(state, Facts(avoided={"j1": {"w1"}}))) == [(0, "w1")]
