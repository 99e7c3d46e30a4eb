"""How well an order is mixed: pure functions over an array of source positions.

An order of n elements is an array in which the place is when an element came, and the value is
where it stood in the source, from 0 to n - 1. Every measure is a part of what a uniformly random
permutation gives on the average: 1 is as good as a full shuffle, 0 is no mixing at all, and a
little above 1 is possible, because taking turns spreads elements more evenly than chance does.
"""

from __future__ import annotations

from math import lgamma
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 128
PARTS = 64


def checked_order(positions: Any, elements: int) -> NDArray[np.int64]:
    """An order, each of whose elements is there once.

    Args:
        positions: source positions as they came.
        elements: how many there are in the source.

    Raises:
        UsageError: it is no permutation of `range(elements)`; the message counts what is wrong.
    """
    order = np.asarray(positions, np.int64).reshape(-1)
    if len(order) != elements or not np.array_equal(np.sort(order), np.arange(elements)):
        inside = order[(order >= 0) & (order < elements)]
        raise UsageError(
            f"positions must be each of 0 to {elements - 1} once: {len(order)} came, "
            f"{len(np.unique(inside))} different ones of these"
        )
    return order


def neighbour_distance(order: NDArray[np.int64]) -> float:
    """The mean distance in the source of two elements that came one after the other.

    A part of that of a random permutation, (n + 1) / 3. Sorted or reversed orders have about
    3 / n.

    Raises:
        UsageError: `order` has fewer than 2 elements.
    """
    if len(order) < 2:
        raise UsageError(f"order must have at least 2 elements, not {len(order)}")
    return float(np.abs(np.diff(order)).mean() / ((len(order) + 1) / 3))


def batch_coverage(order: NDArray[np.int64], *, batch: int = BATCH, parts: int = PARTS) -> float:
    """The mean number of equal parts of the source that a batch takes elements from.

    A part of that of a random permutation. Batches are consecutive; a short last one is left out.

    Args:
        order: of at least `batch` elements.
        batch: elements of a batch, at least 1.
        parts: into how many contiguous parts the source is divided, at most one an element.

    Raises:
        UsageError: an argument is out of range; the message names it.
    """
    elements = len(order)
    if not 1 <= batch <= elements:
        raise UsageError(f"batch must be from 1 to the order's {elements} elements, not {batch}")
    if not 1 <= parts <= elements:
        raise UsageError(f"parts must be from 1 to the order's {elements} elements, not {parts}")
    rows = order[: elements - elements % batch].reshape(-1, batch)
    part = np.sort(rows * parts // elements, axis=1)
    covered = 1 + (np.diff(part, axis=1) > 0).sum(axis=1)
    return float(covered.mean() / uniform_coverage(elements, batch=batch, parts=parts))


def uniform_coverage(elements: int, *, batch: int = BATCH, parts: int = PARTS) -> float:
    """How many parts a batch of a random permutation takes elements from, on the average."""
    bounds = -(-np.arange(parts + 1) * elements // parts)
    missed = 0.0
    for size, count in zip(*np.unique(np.diff(bounds), return_counts=True), strict=True):
        # None of a part's elements is in a batch with the probability C(n - m, b) / C(n, b).
        rest = elements - int(size)
        if rest >= batch:
            log = _log_choose(rest, batch) - _log_choose(elements, batch)
            missed += int(count) * float(np.exp(log))
    return parts - missed


def _log_choose(count: int, chosen: int) -> float:
    return lgamma(count + 1) - lgamma(chosen + 1) - lgamma(count - chosen + 1)
