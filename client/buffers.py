"""Buffers for what is received, used again when nobody looks at them any more.

Fresh memory costs more than what is done with it: the kernel hands out zeroed pages, one fault at a
time, and receiving into pages that are there is about twice as fast. What becomes of a buffer is
not ours to know: a chunk's arrays go to the trainer as views, TensorFlow takes them over without a
copy, and lets go of them when it likes. All of them refer to the buffer, so it is free when nothing
but the pool does.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from ..proto.slots import capacity_of
from ..proto.wire import ALIGNMENT, aligned_empty

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ..proto.budget import Budget

    Allocate = Callable[[int], memoryview]

#: Smaller ones are no cheaper to pool than to make.
_POOLED_BYTES_MIN = 64 << 10
#: What `sys.getrefcount` says of a buffer that only the pool's list and the question refer to.
_FREE = 2


class BufferPool:
    """Buffers of one thread, which alone may allocate; anybody may let go of them.

    Args:
        budget: bytes that it may keep, with other pools, in use or not; beyond it buffers come
            and go.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._nbytes = 0
        self._buffers: dict[int, list[NDArray[Any]]] = {}

    def allocate(self, nbytes: int) -> memoryview:
        """A writable buffer of so many bytes that begins at a multiple of 64; not zeroed."""
        if nbytes < _POOLED_BYTES_MIN:
            return aligned_empty(nbytes)
        capacity = capacity_of(nbytes)
        known = self._buffers.setdefault(capacity, [])
        for place in range(len(known)):
            if sys.getrefcount(known[place]) == _FREE:
                buffer = known.pop(place)
                known.append(buffer)  # those behind it have been in use for longer
                return _aligned(buffer, nbytes)
        buffer = np.empty(capacity + ALIGNMENT, np.uint8)
        if self._budget.take(capacity):
            self._nbytes += capacity
            known.append(buffer)
        return _aligned(buffer, nbytes)

    def close(self) -> None:
        """Keeps nothing any more; buffers live on as long as somebody looks at them."""
        self._buffers.clear()
        self._budget.give_back(self._nbytes)
        self._nbytes = 0


def _aligned(buffer: NDArray[Any], nbytes: int) -> memoryview:
    skip = -buffer.ctypes.data % ALIGNMENT
    return buffer[skip : skip + nbytes].data
