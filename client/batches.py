"""Batches made of runs by slicing, or by one copy: without TensorFlow's part in each of them.

An eager loop over batches that TensorFlow makes waits for it to take every run from Python, to put
elements together, and for Python to put the batch into its structure: 0.3 ms a batch and more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from ..proto.budget import Budget
from .buffers import BufferPool
from .eager import EagerDataset, assembled, lent
from .runs import join

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .buffers import Allocate
    from .runs import Arrays

#: What an iteration keeps of memory to put batches together in.
_POOL_BYTES = 64 << 20


def batched(
    plain: tf.data.Dataset,
    runs: Callable[[], Iterator[Arrays]],
    spec: Any,
    size: int,
    *,
    drop_remainder: bool,
) -> tf.data.Dataset:
    """A dataset of batches that an eager loop makes itself.

    Args:
        plain: the same batches, as a dataset that TensorFlow iterates.
        runs: begins an epoch of the elements.
        spec: of an element: tensors of fixed shapes in tuples and dicts.
        size: elements of a batch, at least 1.
        drop_remainder: leave out a last batch that is smaller.
    """

    def begin() -> Iterator[Any]:
        allocate = BufferPool(Budget(_POOL_BYTES)).allocate
        for batch in batches_of(runs(), size, drop_remainder, allocate):
            # A batch is in the memory of this machine, whatever else there is to compute on.
            with tf.device("CPU:0"):
                tensors = [iter([lent(array)]) for array in batch]
            yield from assembled(spec, iter(tensors))

    return EagerDataset(plain, begin)


def batches_of(
    runs: Iterable[Arrays], size: int, drop_remainder: bool, allocate: Allocate
) -> Iterator[Arrays]:
    """Runs of exactly so many elements, save the last one.

    Args:
        runs: of any lengths.
        size: elements of each.
        drop_remainder: leave out a last one that is smaller.
        allocate: gives memory for what has to be put together. What lies in one run is a view.
    """
    pending: list[Arrays] = []
    missing = size
    for run in runs:
        first, count = 0, len(run[0])
        while count - first >= missing:
            pending.append(tuple(array[first : first + missing] for array in run))
            first, missing = first + missing, size
            yield join(pending, allocate)
            pending = []
        if first < count:
            pending.append(tuple(array[first:] for array in run))
            missing -= count - first
    if pending and not drop_remainder:
        yield join(pending, allocate)
