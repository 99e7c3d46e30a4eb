"""A bound that several pools of memory have in common."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Budget:
    """Bytes that several pools of memory may have together. Thread-safe.

    Args:
        limit: how many.
        lent: is told how many more there are, fewer if negative.
    """

    def __init__(self, limit: int, lent: Callable[[int], None] = lambda nbytes: None) -> None:
        self._lock = threading.Lock()
        self._left = limit
        self._lent = lent

    @property
    def left(self) -> int:
        """Bytes that are not taken at the moment."""
        with self._lock:
            return self._left

    def take(self, nbytes: int) -> bool:
        """Whether there is so much left; then it is taken."""
        with self._lock:
            if nbytes > self._left:
                return False
            self._left -= nbytes
        self._lent(nbytes)
        return True

    def give_back(self, nbytes: int) -> None:
        """So much was taken, and is not used any more."""
        with self._lock:
            self._left += nbytes
        self._lent(-nbytes)
