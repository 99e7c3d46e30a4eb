"""The dataset that a trainer gets, and its eager iteration without TensorFlow's per-element work.

Theory of operation. `DistributedDataset` is a normal `tf.data.Dataset`: in a graph, below another
transformation or in `model.fit` it is the dataset that it wraps. Two things it does itself, because
it has whole runs of stacked elements where TensorFlow would first make single ones of them:

- an eager `for` loop takes runs from the service, lends their memory to TensorFlow (DLPack: no
  copy), lets one op cut each into elements, and puts the elements' structure together; TensorFlow's
  own iterator takes some 100 µs of Python for each element;
- `batch(n)` makes batches of runs by slicing.

The iterator can still be handed to a `tf.function`. It then becomes one of TensorFlow's, which goes
on where the loop has stopped.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, TypeAlias

import tensorflow as tf

from ..graph import flat_specs, pack_element

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from .runs import Arrays

    #: One iterator for each component of the elements, in flat order.
    Columns: TypeAlias = Iterator[Iterator[Any]]

#: Elements that are cut at once: more would keep the trainer waiting for the first of them.
_CUT_MAX = 1024
#: Where TensorFlow's kernels expect the memory of a tensor to begin; other memory ends the process.
_ALIGNMENT = 64


class DistributedDataset(tf.data.Dataset):  # type: ignore[misc]  # TensorFlow has no types
    """A dataset of the service whose elements are stacked on their way.

    Attributes:
        plain: as given.

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
        self.plain = plain
        self._stacked = stacked
        self._runs = runs
        super().__init__(plain._variant_tensor)

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self.plain]

    @property
    def element_spec(self) -> Any:
        """The spec of an element."""
        return self.plain.element_spec

    def __iter__(self) -> Any:
        """Begins the next epoch."""
        if not tf.executing_eagerly():
            return super().__iter__()
        return EagerIterator(self, lambda: elements_of(self._runs(), self.element_spec))

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
        return batches


def is_direct(spec: Any) -> bool:
    """Whether a `DistributedDataset` can have elements of that spec.

    They must be tensors of fixed shapes with at least one item each, in tuples and dicts.
    """
    parts = flat_specs(spec) if is_nested(spec) else ()
    fixed = all(part.shape.is_fully_defined() and part.shape.num_elements() for part in parts)
    return bool(parts) and fixed


class EagerIterator(tf.data.Iterator):  # type: ignore[misc]
    """Elements of runs, one by one; becomes an iterator of TensorFlow's where a graph wants one.

    Args:
        dataset: what it iterates; lives as long as this. Its `plain` is what TensorFlow iterates.
        begin: begins an epoch of it, element by element.
    """

    def __init__(self, dataset: Any, begin: Callable[[], Iterator[Any]]) -> None:
        super().__init__()
        self._dataset = dataset
        self._begin = begin
        self._elements: Iterator[Any] | None = None
        self._graph: Any = None

    @property
    def element_spec(self) -> Any:
        """The spec of an element."""
        return self._dataset.element_spec

    def __next__(self) -> Any:
        if self._graph is not None:
            return next(self._graph)
        if self._elements is None:
            self._elements = self._begin()
        return next(self._elements)

    def get_next(self) -> Any:
        """The next element.

        Raises:
            tf.errors.OutOfRangeError: the epoch is over.
        """
        try:
            return next(self)
        except StopIteration:
            raise tf.errors.OutOfRangeError(None, None, "End of sequence") from None

    def get_next_as_optional(self) -> Any:
        """The next element as a `tf.experimental.Optional`, empty at the end."""
        return self._of_tensorflow().get_next_as_optional()

    @property
    def _type_spec(self) -> Any:
        return self._of_tensorflow()._type_spec

    @property
    def _iterator_resource(self) -> Any:
        return self._of_tensorflow()._iterator_resource

    def _of_tensorflow(self) -> Any:
        """An iterator that a graph can use; from now on it is the only one."""
        if self._graph is None and self._elements is None:
            self._graph = iter(self._dataset.plain)
        elif self._graph is None:
            # TensorFlow never lets go of a generator's function.
            alive = weakref.ref(self)

            def rest() -> Iterator[Any]:
                kept = alive()
                if kept is not None and kept._elements is not None:
                    yield from kept._elements

            spec = self.element_spec
            self._graph = iter(tf.data.Dataset.from_generator(rest, output_signature=spec))
        return self._graph


def elements_of(runs: Iterator[Arrays], spec: Any) -> Iterator[Any]:
    """The elements of runs as eager tensors in the structure of `spec`."""
    for run in runs:
        for first in range(0, len(run[0]), _CUT_MAX):
            # Elements are in the memory of this machine, whatever else there is to compute on.
            with tf.device("CPU:0"):
                cut = [iter(cut_rows(array[first : first + _CUT_MAX])) for array in run]
            yield from assembled(spec, iter(cut))


def cut_rows(stacked: NDArray[Any]) -> list[Any]:
    """A tensor for each row."""
    if len(stacked) == 1:
        return [lent(stacked.reshape(stacked.shape[1:]))]
    cut: list[Any] = tf.raw_ops.Unpack(value=lent(stacked), num=len(stacked), axis=0)
    return cut


def lent(array: NDArray[Any]) -> Any:
    """A tensor of the array's own memory where that can be, or a copy."""
    lendable = array.flags.writeable and array.dtype.kind in "biufc"
    if not lendable or array.ctypes.data % _ALIGNMENT:
        return tf.convert_to_tensor(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def is_nested(spec: Any, kinds: tuple[type, ...] = (tf.TensorSpec,)) -> bool:
    """Whether a spec is made of tuples and dicts, and of those kinds of leaves."""
    if type(spec) is tuple:
        return all(is_nested(part, kinds) for part in spec)
    if type(spec) is dict:
        return all(is_nested(part, kinds) for part in spec.values())
    return type(spec) in kinds


def assembled(spec: Any, columns: Columns) -> Iterator[Any]:
    """Zips columns, which come in flat order, into elements."""
    if type(spec) is tuple:
        return zip(*[assembled(part, columns) for part in spec], strict=True)
    if type(spec) is dict:
        # Flat order is that of the sorted keys; the element has the keys in the spec's own order.
        parts = {key: assembled(spec[key], columns) for key in sorted(spec)}
        rows = zip(*[parts[key] for key in spec], strict=True)
        return (dict(zip(spec, row, strict=True)) for row in rows)
    return next(columns)
