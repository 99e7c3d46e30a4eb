"""Dealing splits to lanes: complete, balanced, reproducible, different in every epoch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.proto.deal import deal, permutation

seeds = st.integers(0, 2**64 - 1)


@given(st.integers(0, 200), st.integers(1, 40), seeds, st.integers(0, 1000), st.booleans())
def test_every_split_is_dealt_to_exactly_one_lane(
    splits: int, lanes: int, seed: int, epoch: int, ordered: bool
) -> None:
    dealt = deal(splits, lanes, seed=seed, epoch=epoch, ordered=ordered)
    assert len(dealt) == lanes
    assert sorted(split for lane in dealt for split in lane) == list(range(splits))
    sizes = [len(lane) for lane in dealt]
    assert max(sizes) - min(sizes) <= 1


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=100), st.integers(1, 10), seeds)
def test_lanes_are_balanced_by_weight(weights: list[int], lanes: int, seed: int) -> None:
    dealt = deal(len(weights), lanes, seed=seed, epoch=0, weights=weights)
    assert sorted(split for lane in dealt for split in lane) == list(range(len(weights)))
    loads = [sum(max(1, weights[split]) for split in lane) for lane in dealt]
    assert max(loads) - min(loads) <= max(max(1, weight) for weight in weights)


def test_ordered_splits_in_one_lane_keep_the_order_of_the_source() -> None:
    assert deal(5, 1, seed=9, epoch=4, ordered=True) == [[0, 1, 2, 3, 4]]


def test_another_epoch_or_seed_has_another_order() -> None:
    first = deal(64, 4, seed=1, epoch=0)
    assert first == deal(64, 4, seed=1, epoch=0)
    assert first != deal(64, 4, seed=1, epoch=1)
    assert first != deal(64, 4, seed=2, epoch=0)


def test_the_permutation_is_the_same_on_every_platform_and_release() -> None:
    # A golden value: a change here would reorder the data of every running job.
    assert permutation(10, seed=0, epoch=0) == GOLDEN


GOLDEN = [5, 8, 2, 1, 6, 4, 3, 0, 9, 7]


@pytest.mark.parametrize(("splits", "lanes"), [(-1, 1), (1, 0)])
def test_impossible_numbers_are_refused(splits: int, lanes: int) -> None:
    with pytest.raises(ValueError, match="cannot deal"):
        deal(splits, lanes, seed=0, epoch=0)


def test_weights_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="2 weights for 3 splits"):
        deal(3, 1, seed=0, epoch=0, weights=[1, 2])
