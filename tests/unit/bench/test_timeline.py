"""Outages from times of delivery: which gap counts, and which does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.bench.recovery import Marks, figures
from penstock.bench.timeline import Gap, Timeline
from penstock.errors import PenstockError

STEPS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=2, max_size=30)


def timeline(*came_s: float) -> Timeline:
    """A consumer that asks as soon as it has got what it asked for before."""
    made = Timeline()
    asked_s = 0.0
    for at_s in came_s:
        made.add(asked_s, at_s, 10)
        asked_s = at_s
    return made


def test_the_outage_is_the_longest_gap_that_ends_after_the_kill() -> None:
    seen = timeline(1, 6, 7, 8, 12, 13, 15)
    assert seen.longest_gap(after_s=7.5) == Gap(8, 12)
    assert seen.longest_gap(until_s=7.5) == Gap(1, 6)


def test_a_gap_in_which_the_kill_falls_counts_from_the_last_delivery_before_it() -> None:
    assert timeline(1, 2, 7, 8).longest_gap(after_s=4) == Gap(2, 7)


def test_without_a_delivery_after_the_kill_there_is_no_outage_to_tell() -> None:
    assert timeline(1, 2, 3).longest_gap(after_s=3) is None
    with pytest.raises(PenstockError, match="too short"):
        figures(timeline(1, 2, 3), Marks(killed_s=3.0), {})


def test_a_consumer_that_works_between_deliveries_has_gaps_but_does_not_wait() -> None:
    seen = Timeline()
    for at_s in range(5):
        seen.add(at_s - 0.1, at_s, 1)  # asks shortly before it gets it; works in between
    assert seen.longest_gap() == Gap(0, 1)
    wait = seen.longest_wait()
    assert wait is not None
    assert wait.length_s == pytest.approx(0.1)


def test_the_parts_of_an_outage_add_up_to_it() -> None:
    seen = timeline(1.0, 2.0, 2.5, 9.0, 9.1)
    marks = Marks(killed_s=2.4, lost_s=7.0, up_s=8.5)
    told = figures(seen, marks, {"recomputed_elements": 12, "restored_attempts": 3})
    assert told["outage_s"] == pytest.approx(6.5)
    assert told["detection_s"] == pytest.approx(4.6)
    assert told["rest_s"] == pytest.approx(2.0)
    assert told["up_s"] == pytest.approx(6.1)
    assert told["up_to_first_s"] == pytest.approx(0.5)
    assert told["calm_gap_s"] == pytest.approx(1.0)
    assert (told["recomputed"], told["restored"]) == (12, 3)


@pytest.mark.parametrize("up_s", [2.5, 9.0])
def test_an_outage_in_which_no_process_came_up_did_not_wait_for_one(up_s: float) -> None:
    told = figures(timeline(1, 2, 3, 6), Marks(killed_s=1.5, up_s=up_s), {})
    assert told["outage_s"] == 3
    assert told["up_s"] == up_s - 1.5
    assert told["up_to_first_s"] is None


def test_the_rate_leaves_the_start_out() -> None:
    assert timeline(100, 101, 102).rate() == pytest.approx(10)
    assert timeline(100).rate() == 0


@given(STEPS, st.integers(0, 500))
def test_no_gap_after_the_kill_is_longer_than_the_outage(
    steps: list[tuple[int, int]], killed_s: int
) -> None:
    seen, now = Timeline(), 0
    for pause, wait in steps:
        seen.add(now + pause, now + pause + wait, 1)
        now += pause + wait
    after, before = seen.longest_gap(after_s=killed_s), seen.longest_gap(until_s=killed_s)
    lengths = {True: [0.0], False: [0.0]}
    for a, b in zip(seen.came_s, seen.came_s[1:], strict=False):
        lengths[b > killed_s].append(b - a)
    assert max(lengths[True]) == (after.length_s if after else 0)
    assert max(lengths[False]) == (before.length_s if before else 0)
    assert seen.total == len(steps)
