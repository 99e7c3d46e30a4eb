"""Numbers that depend on nothing but names: seeds for (job seed, epoch, split, op), permutations.

Workers derive the same values from the same identifiers, in any process, any order and with any
release of TensorFlow: a restarted job must see the order that it saw before.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

_MASK = (1 << 63) - 1
_ROUNDS = 6


def derive(*key: int | str) -> tuple[int, int]:
    """Two non-negative int64, the first not zero (zeros would mean "pick any" to TensorFlow)."""
    text = "/".join(str(part) for part in key).encode()
    digest = hashlib.blake2b(text, digest_size=16, person=b"penstock-seed").digest()
    first = int.from_bytes(digest[:8], "little") & _MASK
    second = int.from_bytes(digest[8:], "little") & _MASK
    return first or 1, second


def permuted(size: int, start: int, stop: int, seed: int, epoch: int) -> Any:
    """Positions start..stop of the permutation of range(size) that (seed, epoch) names.

    A Feistel network over the smallest even number of bits that holds `size`, walked until the
    value falls in range: any part of the permutation costs only its own length.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    keys = [derive("permutation", seed, epoch, k)[0] for k in range(_ROUNDS)]
    values = _feistel(np.arange(start, stop, dtype=np.uint64), half, keys)
    while (outside := np.flatnonzero(values >= np.uint64(size))).size:
        values[outside] = _feistel(values[outside], half, keys)
    return values.astype(np.int64)


def _feistel(values: Any, half: int, keys: list[int]) -> Any:
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right + np.uint64(key)) & mask)
    return (left << shift) | right


def _mix(values: Any) -> Any:
    """The finaliser of splitmix64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
