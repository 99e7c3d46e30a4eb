"""A schedule of faults: a function of its seed that hits nobody twice and leaves nobody down."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import UsageError
from penstock.soak.chaos import (
    DISPATCHER,
    Shape,
    Step,
    Verb,
    begun,
    last_fault_s,
    postponed,
    schedule,
)

BEGINNINGS = {Verb.KILL, Verb.TERMINATE, Verb.PAUSE}
ENDINGS = {Verb.RESUME, Verb.RESTART, Verb.REPLACE}

shapes = st.builds(
    Shape,
    workers=st.integers(1, 6),
    trainers=st.integers(0, 3),
    worker_timeout_s=st.floats(0.5, 5.0),
    client_timeout_s=st.floats(2.0, 20.0),
    lease_s=st.floats(0.5, 5.0),
)
seeds = st.integers(0, 1 << 32)
durations = st.floats(5.0, 1000.0)
SHAPE = Shape(workers=4, trainers=2, worker_timeout_s=2.0, client_timeout_s=10.0, lease_s=2.0)


def by_node(steps: tuple[Step, ...]) -> dict[str, list[Step]]:
    found: dict[str, list[Step]] = {}
    for step in steps:
        found.setdefault(step.node, []).append(step)
    return found


@given(seeds, durations, shapes)
def test_the_same_seed_gives_the_same_schedule(seed: int, seconds: float, shape: Shape) -> None:
    assert schedule(seed, seconds, shape) == schedule(seed, seconds, shape)


def test_other_seeds_give_other_schedules() -> None:
    assert len({schedule(seed, 60.0, SHAPE) for seed in range(20)}) == 20


@given(seeds, durations, shapes)
def test_steps_come_in_order_and_before_the_end(seed: int, seconds: float, shape: Shape) -> None:
    times = [step.at_s for step in schedule(seed, seconds, shape)]
    assert times == sorted(times)
    assert all(0 < at_s < seconds for at_s in times)


@given(seeds, durations, shapes)
def test_a_node_has_one_fault_at_a_time_and_all_of_them_end(
    seed: int, seconds: float, shape: Shape
) -> None:
    steps = schedule(seed, seconds, shape)
    lost = 0
    for own in by_node(steps).values():
        joined = [step for step in own if step.verb is Verb.ADD]
        assert joined == own[: len(joined)]
        rest = own[len(joined) :]
        for begin, end in itertools.zip_longest(rest[::2], rest[1::2]):
            assert begin.verb in BEGINNINGS
            if end is None:
                lost += 1
                assert begin.kind == "kill -9 of a worker for good"
                continue
            assert end.verb in ENDINGS
            assert (end.verb is Verb.RESUME) == (begin.verb is Verb.PAUSE)
            assert end.fault == begin.fault
    # Whoever is lost for good had been replaced before by one that joined.
    assert lost <= sum(step.verb is Verb.ADD for step in steps)


@given(seeds, durations, shapes)
def test_only_nodes_that_exist_are_hit(seed: int, seconds: float, shape: Shape) -> None:
    known = {DISPATCHER}
    known |= {f"worker-{number}" for number in range(shape.workers)}
    known |= {f"trainer-{number}" for number in range(shape.trainers)}
    for step in schedule(seed, seconds, shape):
        if step.verb is Verb.ADD:
            assert step.node not in known
            known.add(step.node)
        assert step.node in known


@given(seeds, st.floats(30.0, 1000.0))
def test_every_run_of_half_a_minute_has_a_kill(seed: int, seconds: float) -> None:
    assert any(step.verb is Verb.KILL for step in schedule(seed, seconds, SHAPE))


@given(seeds, durations, shapes)
def test_every_fault_has_one_name(seed: int, seconds: float, shape: Shape) -> None:
    steps = schedule(seed, seconds, shape)
    named = [step.fault for step in steps if step.kind]
    assert sorted(named) == sorted({step.fault for step in steps})


def test_an_hour_has_every_kind_of_fault() -> None:
    kinds = {step.kind for step in schedule(1, 3600.0, SHAPE) if step.kind}
    assert len(kinds) == 10


@given(seeds, st.integers(0, 60), st.floats(0.1, 50.0))
def test_what_has_begun_is_not_postponed(seed: int, done: int, by_s: float) -> None:
    steps = schedule(seed, 120.0, SHAPE)[done:]
    started = {step.fault for step in begun(steps)}
    moved = postponed(steps, by_s)
    assert [step.at_s for step in moved] == sorted(step.at_s for step in moved)
    assert {(step.fault, step.verb, step.node) for step in moved} == {
        (step.fault, step.verb, step.node) for step in steps
    }
    before = {(step.fault, step.verb, step.node): step.at_s for step in steps}
    for step in moved:
        delay_s = 0.0 if step.fault in started else by_s
        assert step.at_s == before[step.fault, step.verb, step.node] + delay_s


@given(seeds, st.integers(0, 60))
def test_what_has_not_begun_can_be_dropped(seed: int, done: int) -> None:
    steps = schedule(seed, 120.0, SHAPE)
    left = begun(steps[done:])
    begun_already = {step.fault for step in steps[:done]}
    assert left == [step for step in steps[done:] if step.fault in begun_already]


@given(seeds, durations)
def test_no_fault_begins_when_the_run_is_to_be_quiet(seed: int, seconds: float) -> None:
    for step in schedule(seed, seconds, SHAPE):
        assert step.at_s < last_fault_s(seconds)


def test_a_schedule_needs_somebody_and_some_time() -> None:
    with pytest.raises(UsageError):
        schedule(1, 0.0, SHAPE)
    with pytest.raises(UsageError):
        schedule(1, 10.0, Shape(0, 1, 1.0, 1.0, 1.0))


def test_every_kind_of_fault_is_in_a_schedule_of_twenty_minutes() -> None:
    shape = Shape(workers=4, trainers=2, worker_timeout_s=5.0, client_timeout_s=15.0, lease_s=3.0)
    for seed in range(20):
        kinds = {step.kind for step in schedule(seed, 1200.0, shape) if step.kind}
        assert len(kinds) == 10, f"seed {seed}: {sorted(kinds)}"
