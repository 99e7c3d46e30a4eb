"""The dataset that a trainer gets, and its eager iteration without TensorFlow's per-element work.

Theory of operation. An `EagerDataset` is a normal `tf.data.Dataset`: in a graph, below another
transformation or in `model.fit` it is the dataset that it wraps. An eager `for` loop over it does
not need TensorFlow's iterator, which takes some 100 µs of Python for each element: it takes whole
runs of stacked elements from the service, lends their memory to TensorFlow (DLPack: no copy), lets
one op cut each into elements, and puts the elements' structure together. `direct`, `batches` and
`varying` make such datasets, of what comes in runs, of batches of that, and of columns.

The iterator can still be handed to a `tf.function`. It then becomes one of TensorFlow's, which goes
on where the loop has stopped.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, TypeAlias

import tensorflow as tf

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


class EagerDataset(tf.data.Dataset):  # type: ignore[misc]  # TensorFlow has no types
    """A dataset whose eager iteration is not TensorFlow's.

    Attributes:
        plain: as given.

    Args:
        plain: the same elements, as a dataset that TensorFlow iterates.
        begin: begins an epoch, element by element.
    """

    def __init__(self, plain: tf.data.Dataset, begin: Callable[[], Iterator[Any]]) -> None:
        self.plain = plain
        self._begin = begin
        super().__init__(plain._variant_tensor)

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self.plain]

    @property
    def element_spec(self) -> Any:
        """The spec of an element."""
        return self.plain.element_spec

    def __iter__(self) -> Any:
        """Begins the next epoch."""
        return EagerIterator(self, self._begin) if tf.executing_eagerly() else super().__iter__()


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
