"""Measures of an order, against orders whose values are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.bench.orders import (
    batch_coverage,
    checked_order,
    neighbour_distance,
    uniform_coverage,
)
from penstock.errors import UsageError

SIZES = st.integers(2, 300)


@st.composite
def permutations(draw: st.DrawFn) -> np.ndarray:
    seed, size = draw(st.integers(0, 1 << 32)), draw(SIZES)
    return np.random.default_rng(seed).permutation(size)


@given(SIZES)
def test_sorted_and_reversed_neighbours_are_one_apart(size: int) -> None:
    order = np.arange(size)
    assert neighbour_distance(order) == pytest.approx(3 / (size + 1))
    assert neighbour_distance(order[::-1]) == pytest.approx(3 / (size + 1))


@given(permutations())
def test_the_distance_does_not_see_which_end_is_the_first(order: np.ndarray) -> None:
    same = neighbour_distance(order)
    assert neighbour_distance(order[::-1]) == pytest.approx(same)
    assert neighbour_distance(len(order) - 1 - order) == pytest.approx(same)
    assert 3 / (len(order) + 1) <= same * (1 + 1e-9)


def test_the_mean_of_all_permutations_is_one() -> None:
    from itertools import permutations as every

    orders = [np.array(order) for order in every(range(6))]
    assert np.mean([neighbour_distance(order) for order in orders]) == pytest.approx(1)
    covered = [batch_coverage(order, batch=2, parts=3) for order in orders]
    assert np.mean(covered) == pytest.approx(1)
    uneven = [batch_coverage(order, batch=3, parts=4) for order in orders]
    assert np.mean(uneven) == pytest.approx(1)


def test_a_large_random_order_is_near_one() -> None:
    order = np.random.default_rng(1).permutation(64 * 500)
    assert neighbour_distance(order) == pytest.approx(1, abs=0.02)
    assert batch_coverage(order) == pytest.approx(1, abs=0.02)


def test_sorted_batches_cover_what_they_span() -> None:
    order = np.arange(64 * 128)
    assert batch_coverage(order) * uniform_coverage(len(order)) == pytest.approx(1)
    strided = order.reshape(128, 64).T.reshape(-1)  # 0, 64, 128, …: two elements of each part
    assert batch_coverage(strided) * uniform_coverage(len(order)) == pytest.approx(64)


@given(permutations(), st.data())
def test_coverage_is_what_counting_gives(order: np.ndarray, data: st.DataObject) -> None:
    size = len(order)
    batch, parts = (data.draw(st.integers(1, size)) for _ in range(2))
    whole = range(0, size - batch + 1, batch)
    counted = [len({int(x) * parts // size for x in order[k : k + batch]}) for k in whole]
    expected = uniform_coverage(size, batch=batch, parts=parts)
    assert 0 < expected <= min(batch, parts) * (1 + 1e-9)
    assert batch_coverage(order, batch=batch, parts=parts) == pytest.approx(
        np.mean(counted) / expected
    )


@pytest.mark.parametrize(
    "positions", [[0, 1], [0, 1, 1], [0, 1, 3], [-1, 0, 1], [0, 1, 2, 2]], ids=str
)
def test_what_is_no_order_is_refused(positions: list[int]) -> None:
    with pytest.raises(UsageError, match=f"0 to 2 once: {len(positions)} came"):
        checked_order(positions, 3)


def test_arguments_are_checked() -> None:
    with pytest.raises(UsageError, match="order must have at least 2"):
        neighbour_distance(np.arange(1))
    for wrong in ({"batch": 0}, {"batch": 9}, {"parts": 0}, {"parts": 9}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            batch_coverage(np.arange(8), **{"batch": 2, "parts": 2, **wrong})
