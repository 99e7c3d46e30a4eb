"""What makes a thousand workers affordable: kept seats, views encoded once, quiet news."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.dispatcher import events as ev
from penstock.dispatcher.alarm import Alarm
from penstock.dispatcher.facts import Facts
from penstock.dispatcher.liveness import worker_hold_s
from penstock.dispatcher.news import News
from penstock.dispatcher.scheduler import assignments
from penstock.dispatcher.seats import Seats
from penstock.dispatcher.state import State
from penstock.dispatcher.views import Placements, gap_s
from penstock.proto import control_pb2 as pb
from penstock.timing import Timing

from .builders import build, dataset, delivered, job, schedule, worker
from .cluster import Worker, opened, placed, progress, run, serving

EPOCH = ev.EpochStarted("j1", 0, 0)
PRODUCED = pb.HeldAttempt.PRODUCED
HOLD_MS = 400


def crowd(workers: int, *, splits: int, slots: int = 2) -> State:
    state = build(dataset(splits=splits), job(lanes=4))
    for number in range(1, workers + 1):
        state.apply(worker(number, slots=slots))
    state.apply(EPOCH)
    return state


# Seats.


@given(st.lists(st.tuples(st.sampled_from(["produce", "deliver", "fail"]), st.integers(0, 9))))
def test_kept_seats_are_those_that_would_be_made_anew(steps: list[tuple[str, int]]) -> None:
    state = crowd(3, splits=40)
    produced: dict[str, set[int]] = {}
    facts = Facts(produced=produced)
    seats, touched = Seats(state, facts), set(state.workers)
    for step, place in steps:
        seats.update(facts, touched)
        fresh = Seats(state, facts)
        assert (seats.loads(), seats.free) == (fresh.loads(), fresh.free)
        events = assignments(state, facts, seats)
        assert events == assignments(state, facts, fresh)
        touched = {name for event in events for name in state.apply(event)}
        running = list(state.attempts.values())
        if not running:
            break
        attempt = running[place % len(running)]
        touched.add(attempt.worker)
        if step == "produce":
            produced.setdefault(attempt.worker, set()).add(attempt.attempt)
            continue
        produced.get(attempt.worker, set()).discard(attempt.attempt)
        failed = ev.AttemptFailed(attempt.attempt, "PIPELINE", "boom")
        touched |= state.apply(failed if step == "fail" else delivered(attempt.split))


def test_a_decision_does_not_cost_more_with_more_workers() -> None:
    def seconds(workers: int) -> float:
        state, facts = crowd(workers, splits=100_000), Facts()
        seats = Seats(state, facts)
        for event in assignments(state, facts, seats):
            state.apply(event)
        best = float("inf")
        for _ in range(20):
            attempt = next(iter(state.attempts.values()))
            touched = state.apply(delivered(attempt.split))
            started = time.perf_counter()
            seats.update(facts, touched)
            (event,) = assignments(state, facts, seats)
            best = min(best, time.perf_counter() - started)
            state.apply(event)
        return best

    small, large = seconds(20), seconds(2_000)
    assert large < 20 * small  # 100 times as many


# Views.


def direct_view(state: State) -> list[pb.Placement]:
    return [
        pb.Placement(
            split=attempt.split,
            attempt=attempt.attempt,
            worker=attempt.worker,
            address=state.workers[attempt.worker].address,
            host_id="h",
        )
        for attempt in state.attempts.values()
    ]


def test_a_client_is_told_every_placement_and_nothing_that_is_over() -> None:
    state, placements = crowd(3, splits=40), Placements()
    schedule(state)
    for _ in range(10):
        view = placements.client_view(state, state.jobs["j1"], 7, ["nobody is there"])
        (epoch,) = view.epochs
        assert (view.version, list(view.notices)) == (7, ["nobody is there"])
        assert (epoch.stream, epoch.epoch) == (0, 0)
        by_attempt = sorted(epoch.placements, key=lambda place: place.attempt)
        assert by_attempt == sorted(direct_view(state), key=lambda place: place.attempt)
        state.apply(delivered(next(iter(state.attempts.values())).split))
        schedule(state)


def test_only_views_of_many_splits_are_paced() -> None:
    assert gap_s(crowd(3, splits=40).jobs["j1"]) == 0
    large = crowd(1_000, splits=5_000, slots=4)
    schedule(large)
    assert 0.02 <= gap_s(large.jobs["j1"]) <= 0.25


# News.


def test_quiet_news_waits_for_the_next_answer() -> None:
    async def test() -> None:
        news = News()
        news.bump({"w1"})
        held = asyncio.ensure_future(news.hold("w1", 1, 60.0))
        await asyncio.sleep(0)
        news.bump({"w1"}, quietly=True)
        await asyncio.sleep(0)
        assert not held.done()
        news.bump({"w1"})
        await asyncio.wait_for(held, 5.0)
        assert news.version("w1") == 3

    run(test())


def test_a_peer_is_not_told_twice_within_its_gap() -> None:
    async def test() -> None:
        news, loop = News(), asyncio.get_running_loop()
        news.bump({"j1"})
        began_s = loop.time()
        await news.pace("j1", 0.1)
        assert loop.time() - began_s < 0.09
        await news.pace("j1", 0.1)
        assert loop.time() - began_s >= 0.09
        await news.pace("nobody", 60.0)  # is gone: there is nothing to wait for

    run(test())


def test_a_delivered_split_that_was_produced_wakes_no_worker(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (dispatcher, stub):
            client = await opened(stub, splits=2, lanes=2)
            one = Worker(stub)
            await one.register()
            view = await client.sync(progress())
            attempts = placed(view)
            await one.sync(dict.fromkeys(attempts.values(), PRODUCED))
            held = asyncio.ensure_future(
                one.sync(dict.fromkeys(attempts.values(), PRODUCED), hold_ms=HOLD_MS)
            )
            began_s = asyncio.get_running_loop().time()
            while dispatcher.engine.news._peers[one.name].held is None:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await client.sync(progress(done=[0]))
            reply = await held
            assert asyncio.get_running_loop().time() - began_s >= 0.9 * HOLD_MS / 1000
            assert [spec.split for spec in reply.attempts] == [1]

    run(test())


# The timer.


def test_an_alarm_rings_for_what_comes_before_its_moment_only() -> None:
    async def test() -> None:
        alarm = Alarm()
        sleeping = asyncio.ensure_future(alarm.sleep_until(time.monotonic() + 60.0))
        await asyncio.sleep(0)
        alarm.ring_if_before(time.monotonic() + 90.0)
        await asyncio.sleep(0.01)
        assert not sleeping.done()
        alarm.ring_if_before(time.monotonic() + 30.0)
        await asyncio.wait_for(sleeping, 5.0)

    run(test())


# Heartbeats.


def test_many_workers_are_held_longer_than_they_ask_for() -> None:
    timing = Timing(worker_timeout_s=5.0)
    assert worker_hold_s(timing, 500, 10) == 0.5
    assert worker_hold_s(timing, 500, 900) == pytest.approx(0.9)
    assert worker_hold_s(timing, 500, 100_000) == 1.25  # four heartbeats in its timeout


def test_who_does_not_ask_to_be_held_is_not() -> None:
    assert worker_hold_s(Timing(), 0, 100_000) == 0.0


def test_nobody_is_held_for_more_than_half_of_its_timeout() -> None:
    assert worker_hold_s(Timing(worker_timeout_s=5.0), 60_000, 10) == 2.5
