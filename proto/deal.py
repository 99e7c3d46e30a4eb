"""Dealing an epoch's splits to its lanes: the one rule that dispatcher and client must share.

A pure function of (splits, weights, seed, epoch, lanes), so both sides compute the same lanes
and nothing about them travels or is journaled (DESIGN 4.4). Splits are put in a pseudo-random
order by sorting keyed hashes, which needs no generator state and gives the same order on every
platform and library version; then each goes to the lane with the least work so far.
"""

from __future__ import annotations

import heapq
import struct
from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    from collections.abc import Sequence


def deal(
    num_splits: int,
    lanes: int,
    *,
    seed: int,
    epoch: int,
    weights: Sequence[int] | None = None,
    ordered: bool = False,
) -> list[list[int]]:
    """Deals splits `0 .. num_splits-1` to `lanes` lanes.

    Args:
        num_splits: number of splits, >= 0.
        lanes: number of lanes, >= 1.
        seed: the job's seed, an unsigned 64-bit integer.
        epoch: the epoch's number, >= 0.
        weights: relative sizes, one for each split; None or empty when they are equal.
        ordered: keep source order instead of permuting; the lanes then take turns.

    Returns:
        One list of split numbers for each lane, in the order in which the lane yields them.

    Raises:
        ValueError: a number is out of range, or `weights` has another length.
    """
    if num_splits < 0 or lanes < 1:
        raise ValueError(f"cannot deal {num_splits} splits to {lanes} lanes")
    if weights and len(weights) != num_splits:
        raise ValueError(f"{len(weights)} weights for {num_splits} splits")
    order: Sequence[int] = range(num_splits)
    if not ordered:
        order = permutation(num_splits, seed=seed, epoch=epoch)
    if ordered or not weights:
        return [list(order[lane::lanes]) for lane in range(lanes)]
    dealt: list[list[int]] = [[] for _ in range(lanes)]
    least = [(0, lane) for lane in range(lanes)]
    for split in order:
        load, lane = least[0]
        dealt[lane].append(split)
        heapq.heapreplace(least, (load + max(1, weights[split]), lane))
    return dealt


def permutation(count: int, *, seed: int, epoch: int) -> list[int]:
    """A reproducible permutation of `range(count)`, another one for every seed and epoch."""
    key = xxhash.xxh3_64_intdigest(struct.pack("<QQ", seed, epoch))
    pack = struct.Struct("<Q").pack
    digest = xxhash.xxh3_64_intdigest
    keys = [digest(pack(item), key) for item in range(count)]
    return sorted(range(count), key=keys.__getitem__)  # stable: equal keys keep their order
