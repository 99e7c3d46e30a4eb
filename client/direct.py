"""The dataset of a stream whose elements are stacked on their way: tensors of fixed shapes.

It has whole runs of them where TensorFlow would first make single elements, so batches of it are
made of runs as well: by TensorFlow in a graph, by `batches` in an eager loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from ..graph import flat_specs, pack_element
from .batches import batched
from .eager import EagerDataset, assembled, elements_of, is_nested

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .runs import Arrays


class DistributedDataset(EagerDataset):
    """A dataset of the service whose elements are stacked on their way.

    Args:
        plain: the same elements, as a dataset that TensorFlow iterates.
        stacked: makes the dataset of their runs: flat tuples of components with a leading
            dimension.
        runs: begins an epoch.
    """

    def __init__(
        self,
        plain: tf.data.Dataset,
        stacked: Callable[[], tf.data.Dataset],
        runs: Callable[[], Iterator[Arrays]],
    ) -> None:
        self._stacked = stacked
        self._runs = runs
        super().__init__(plain, lambda: elements_of(runs(), plain.element_spec))

    def as_numpy_iterator(self) -> Iterator[Any]:
        """Begins the next epoch; its elements in numpy, as views of what was received."""
        for run in self._runs():
            columns = iter([iter(array) for array in run])
            yield from assembled(self.element_spec, columns)

    def batch(
        self,
        batch_size: Any,
        drop_remainder: bool = False,
        num_parallel_calls: Any = None,
        deterministic: bool | None = None,
        name: str | None = None,
    ) -> tf.data.Dataset:
        """As `tf.data.Dataset.batch`.

        Nothing is computed for a batch, so `num_parallel_calls` and `deterministic` change nothing.
        """
        if not tf.executing_eagerly():  # inside a function, whose caller's epoch it is
            return super().batch(
                batch_size, drop_remainder, num_parallel_calls, deterministic, name
            )
        batches = self._stacked().rebatch(batch_size, drop_remainder=drop_remainder, name=name)
        spec = self.element_spec
        if spec != flat_specs(spec):
            batches = batches.map(lambda *flat: pack_element(spec, flat))
        count = self.plain.cardinality()
        if count >= 0:
            rest = 0 if drop_remainder else batch_size - 1
            count = (count + tf.cast(rest, tf.int64)) // tf.cast(batch_size, tf.int64)
            batches = batches.apply(tf.data.experimental.assert_cardinality(count))
        batches._penstock_keep = self
        size = tf.get_static_value(batch_size)
        if size is None or size < 1:
            return batches
        return batched(batches, self._runs, spec, int(size), drop_remainder=drop_remainder)


def is_direct(spec: Any) -> bool:
    """Whether a `DistributedDataset` can have elements of that spec.

    They must be tensors of fixed shapes with at least one item each, in tuples and dicts.
    """
    parts = flat_specs(spec) if is_nested(spec) else ()
    fixed = all(part.shape.is_fully_defined() and part.shape.num_elements() for part in parts)
    return bool(parts) and fixed
