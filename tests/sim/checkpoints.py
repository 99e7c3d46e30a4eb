"""A simulated worker's checkpoints: on its host's disk, so that the next process there finds them.

Which are kept, and which one a run may begin from, is decided by the functions of production.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from penstock.worker.checkpointing import kept, may_take, usable
from penstock.worker.messages import Key

Hashes = NDArray[np.uint64]


class Checkpoints:
    """What is on one disk: for each split the checkpoints by the number of elements before them."""

    def __init__(self) -> None:
        self._held: dict[Key, dict[int, Hashes]] = {}

    def offered(self) -> list[tuple[Key, int]]:
        """Splits, and how many elements need not be made again."""
        return [(key, max(held)) for key, held in self._held.items()]

    def has(self, key: Key) -> bool:
        """Whether there is one of that split."""
        return key in self._held

    def find(self, key: Key, cursor: int) -> Hashes | None:
        """The hashes before the best one for a client that wants element `cursor`.

        Those after it are removed: the run will take new ones there.
        """
        held = self._held.get(key, {})
        found = usable(held, cursor)
        above = found[0] if found else -1
        self._keep(key, [elements for elements in held if elements <= above])
        return held[found[0]] if found else None

    def may_take(self, key: Key, acknowledged: int) -> bool:
        """Whether one more is worth its place."""
        return may_take(self._held.get(key, ()), acknowledged)

    def add(self, key: Key, hashes: Hashes, acknowledged: int) -> None:
        """One was written: after these elements."""
        self._held.setdefault(key, {})[len(hashes)] = hashes
        self._keep(key, kept(self._held[key], acknowledged))

    def forget(self, key: Key) -> None:
        """Removes those of a split."""
        self._held.pop(key, None)

    def _keep(self, key: Key, numbers: Iterable[int]) -> None:
        left = {elements: self._held[key][elements] for elements in numbers}
        self._held.pop(key, None)
        if left:
            self._held[key] = left
