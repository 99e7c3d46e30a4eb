"""The ways of consuming a dataset that are measured, each from the first request to the end.

`eager`: a Python loop over the dataset, element by element. `batched`: the same over
`dataset.batch(n)`. `numpy`: what is the most direct way to numpy: penstock's `Reader.runs`; for
others, which have nothing like it, `dataset.batch(n).as_numpy_iterator()`. `reduce`: a count
inside TensorFlow's graph, without Python for each element. Nothing looks at the elements: what
they hold is proven by their digest.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

WAYS = ("eager", "batched", "numpy", "reduce")


@dataclass(frozen=True, slots=True)
class Consumed:
    """One consumption of one epoch.

    Attributes:
        elements: that came.
        begin_s: when the first was asked for, on the monotonic clock, which processes share.
        first_s: seconds until it was there; None where there is only the end.
        end_s: when the end of the epoch was there.
        cpu_s: CPU seconds, of every thread, that this process used meanwhile.
    """

    elements: int
    begin_s: float
    first_s: float | None
    end_s: float
    cpu_s: float

    def as_json(self) -> dict[str, Any]:
        """As an object for `json`."""
        return asdict(self)


def consume_batches(made: Iterable[Any], length: Callable[[Any], int] | None) -> Consumed:
    """Iterates, and counts.

    Args:
        made: anything whose iteration gives what is counted.
        length: how many elements one item of it is; None if it is one.
    """
    cpu_s, begin_s = time.process_time(), time.monotonic()
    count, first_s = 0, None
    rest = iter(made)
    for item in rest:
        count += 1 if length is None else length(item)
        first_s = time.monotonic() - begin_s
        break
    if length is None:
        for _ in rest:
            count += 1
    else:
        for item in rest:
            count += length(item)
    return Consumed(count, begin_s, first_s, time.monotonic(), time.process_time() - cpu_s)


def consume_dataset(dataset: Any, way: str, *, batch: int, inner: bool) -> Consumed:
    """Consumes a `tf.data.Dataset`.

    Args:
        dataset: what is read.
        way: one of `WAYS`.
        batch: elements that `batched` and `numpy` put together.
        inner: the dataset's elements are batches themselves; what is counted is theirs.
    """
    if way == "reduce":
        return _reduced(dataset, inner=inner)
    if way == "eager":
        return consume_batches(dataset, _rows if inner else None)
    batches = dataset if inner else dataset.batch(batch)
    return consume_batches(batches if way == "batched" else batches.as_numpy_iterator(), _rows)


def _reduced(dataset: Any, *, inner: bool) -> Consumed:
    import tensorflow as tf

    def add(total: Any, element: Any) -> Any:
        if not inner:
            return total + 1
        return total + tf.shape(tf.nest.flatten(element)[0], tf.int64)[0]

    cpu_s, begin_s = time.process_time(), time.monotonic()
    count = int(dataset.reduce(np.int64(0), add).numpy())
    return Consumed(count, begin_s, None, time.monotonic(), time.process_time() - cpu_s)


def _rows(batch: Any) -> int:
    """Elements of a batch of tensors, ragged tensors or arrays."""
    while isinstance(batch, tuple):
        batch = batch[0]
    if hasattr(batch, "nrows"):
        return int(batch.nrows())
    return int(batch.shape[0])
