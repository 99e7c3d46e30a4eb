"""When a checkpoint is taken, which are kept, which one a run begins from: whatever the numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import UsageError
from penstock.worker.checkpointing import (
    AHEAD_MAX,
    AUTO_BYTES_MAX,
    AUTO_BYTES_PER_S,
    AUTO_FIRST_S,
    AUTO_SHARE,
    CHECKPOINT_BYTES_MAX,
    Cost,
    Interval,
    Schedule,
    kept,
    may_take,
    usable,
)

PLACES = st.lists(st.integers(1, 1000))
AUTO = Interval(auto=True)


def last(held: list[int], cursor: int) -> int:
    """Where a run begins whose client wants element `cursor`."""
    return (usable(held, cursor) or [0])[0]


@given(held=PLACES, acknowledged=st.integers(0, 1000), further=st.integers(0, 1000))
def test_dropping_what_is_not_kept_costs_no_client_anything(
    held: list[int], acknowledged: int, further: int
) -> None:
    cursor = acknowledged + further
    assert last(kept(held, acknowledged), cursor) == last(held, cursor)


@given(held=PLACES, acknowledged=st.integers(0, 1000))
def test_no_more_are_kept_than_may_be_needed(held: list[int], acknowledged: int) -> None:
    found = kept(held, acknowledged)
    assert set(found) <= set(held)
    assert sum(elements <= acknowledged for elements in found) <= 1
    assert found == sorted(set(found))


@given(held=PLACES, cursor=st.integers(0, 1000))
def test_a_run_begins_at_the_newest_that_leaves_nothing_out(held: list[int], cursor: int) -> None:
    found = usable(held, cursor)
    assert found == sorted(found, reverse=True)
    assert set(found) == {elements for elements in held if elements <= cursor}


@given(steps=st.lists(st.tuples(st.integers(1, 50), st.integers(0, 60)), max_size=60))
def test_however_far_ahead_a_run_is_few_are_held(steps: list[tuple[int, int]]) -> None:
    held: list[int] = []
    made = acknowledged = 0
    for produced, received in steps:
        made += produced
        acknowledged = min(made, acknowledged + received)
        if may_take(held, acknowledged):
            held = kept([*held, made], acknowledged)
        assert len(held) <= AHEAD_MAX + 1
        assert made == acknowledged or held  # there is always one, once there was something


@given(
    interval=st.floats(0.1, 10),
    steps=st.lists(st.tuples(st.floats(0.0, 3.0), st.floats(0.0, 100.0)), max_size=50),
)
def test_waiting_is_not_producing(interval: float, steps: list[tuple[float, float]]) -> None:
    now = produced = 0.0
    schedule = Schedule(Cost(Interval(interval)), now)
    for step, waited in steps:
        now, produced = now + step, produced + step
        schedule.pause(now)
        now += waited
        if abs(produced - interval) > 1e-6:
            assert schedule.due() == (produced > interval)
        if schedule.due():
            schedule.taken()
            produced = 0.0
        schedule.resume(now)


@given(cost_s=st.floats(0, 1000), nbytes=st.integers(0, 2 * AUTO_BYTES_MAX))
def test_auto_spends_little_and_writes_little(cost_s: float, nbytes: int) -> None:
    period_s = AUTO.period_s(cost_s, nbytes)
    assert period_s >= AUTO_FIRST_S
    assert cost_s <= AUTO_SHARE * period_s * (1 + 1e-9)
    assert nbytes <= AUTO_BYTES_PER_S * period_s * (1 + 1e-9)
    assert (period_s == math.inf) == (nbytes > AUTO_BYTES_MAX)


def test_a_given_interval_is_kept_whatever_it_costs_but_for_the_largest() -> None:
    fixed = Interval(5.0)
    assert fixed.period_s(None, None) == 5.0
    assert fixed.period_s(100.0, CHECKPOINT_BYTES_MAX) == 5.0
    assert fixed.period_s(0.0, CHECKPOINT_BYTES_MAX + 1) == math.inf
    assert Interval().period_s(None, None) == math.inf


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("auto", Interval(auto=True)),
        ("OFF", Interval()),
        ("5", Interval(5.0)),
        (" 0.25 ", Interval(0.25)),
    ],
)
def test_intervals_are_read(text: str, want: Interval) -> None:
    assert Interval.parse(text) == want
    assert want.off == (text == "OFF")


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "often", "5s"])
def test_what_is_no_interval_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match="--checkpoint-interval takes a number of seconds") as it:
        Interval.parse(text)
    assert repr(text) in str(it.value)


def test_a_decision_is_told_once_and_when_it_changes() -> None:
    cost = Cost(AUTO)
    assert cost.period_s() == AUTO_FIRST_S
    assert cost.learn(0.001, 100).startswith("a checkpoint every 2 s of production")
    assert cost.learn(0.001, 200) == ""
    assert cost.learn(1.0, 200).startswith("a checkpoint every 16.7 s of production")
    assert cost.learn(1e-9, AUTO_BYTES_MAX + 1).startswith("no more checkpoints: ")
    assert cost.period_s() == math.inf
    assert cost.learn(1e-9, AUTO_BYTES_MAX + 2) == ""


def test_what_cannot_be_checkpointed_is_told_once_and_never_due() -> None:
    cost = Cost(Interval(1.0))
    schedule = Schedule(cost, 0.0)
    schedule.pause(5.0)
    assert schedule.due()
    assert cost.refuse("RandomUniform is stateful")
    assert not cost.refuse("RandomUniform is stateful")
    assert not schedule.due()
