"""A stream with a cache point, in a worker: its split's dataset with a writer or a reader in it.

The graphs are made once for each stream. What differs from split to split are constants, and the
writer or reader of a dataset is one, too: a number under which `_Calls` knows it, from when the
dataset is made until it is dropped. So the state of an iterator, which knows nothing of constants,
fits the dataset of the same split in any process.
"""

from __future__ import annotations

import itertools
import weakref
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from ..errors import PenstockError
from ..proto.spec import STRING, numpy_dtype
from . import capture, tee
from .forms import Form, joined
from .spec import components_of, fixed_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ..proto.spec import ComponentSpec
    from .forms import Half
    from .split import SplitTable

    Arrays = tuple[NDArray[Any], ...]


#: Of tensors' memory, in bytes.
_ALIGNMENT = 64


@dataclass(frozen=True)
class LoadedCache:
    """What is cached of a stream."""

    #: Names what its head makes; see `CachePoint`.
    key: str
    #: Nothing follows the cache point: the stream's own elements are what is cached.
    whole: bool
    #: The flat dense components of the head's elements.
    components: tuple[ComponentSpec, ...]
    #: The size of every element of the head, where dtypes and shapes fix it.
    fixed_element_bytes: int | None
    #: Every shape is known, so the head's elements are written and read in batches.
    stackable: bool


class _Calls:
    """The writers and readers of open datasets, by number: what a graph can name.

    TensorFlow knows one function for all of them, and forgets it with the last dataset.
    """

    def __init__(self) -> None:
        held: dict[int, Callable[..., Any]] = {}

        def call(handle: Any, *arguments: Any) -> Any:
            function = held.get(int(handle))
            if function is None:
                raise RuntimeError("the dataset that this iterator is of has been dropped")
            try:
                return function(*arguments)
            except (StopIteration, tf.errors.OutOfRangeError) as error:
                # TensorFlow would take these for the end of the data.
                raise RuntimeError(f"{type(error).__name__}: {error}") from error

        self._held = held
        self._numbers = itertools.count(1)
        self._call = call
        self.token = capture.register_python(call)

    def dataset(self, function: Callable[..., Any], make: Callable[[int], Any]) -> Any:
        """A dataset made for the number of a function, which is known as long as the dataset is.

        Datasets derived from it, and iterators of those, keep it.
        """
        number = next(self._numbers)
        self._held[number] = function
        try:
            dataset = make(number)
        except BaseException:
            del self._held[number]
            raise
        weakref.finalize(dataset, self._held.pop, number, None).atexit = False
        dataset._penstock_keep = self._call
        return dataset


class CachedStream:
    """Makes the datasets of a stream that is not cached whole. Thread-safe.

    Args:
        head: the stream's graph up to its cache point.
        tail: what follows.
        table: how the source is divided.
        cache: what is cached.
    """

    def __init__(self, head: Half, tail: Half, table: SplitTable, cache: LoadedCache) -> None:
        self._head = head
        self._tail = tail
        self._table = table
        self._cache = cache
        self._calls = _Calls()

    @cached_property
    def _putting(self) -> Form:
        head, tail = self._head, self._tail
        stacked = self._cache.stackable
        above = tee.writing(head.graph, head.spec, self._calls.token, stacked=stacked)
        return Form(joined(above, tail.graph), [head, tail], self._table)

    @cached_property
    def _getting(self) -> Form:
        head, tail = self._head, self._tail
        stacked = self._cache.stackable
        above = tee.reading(head.graph.versions, head.spec, self._calls.token, stacked=stacked)
        return Form(joined(above, tail.graph), [tail], self._table)

    def put(
        self, split: int, *, seed: int, epoch: int, size: int, write: Callable[[int, Arrays], None]
    ) -> Any:
        """See `LoadedStream.put_dataset`."""
        components, stacked = self._cache.components, self._cache.stackable

        def call(start: Any, *parts: Any) -> Any:
            # A lone string comes as bytes.
            arrays = tuple(
                np.asarray(part, object if spec.dtype == STRING else None)
                for part, spec in zip(parts, components, strict=True)
            )
            write(int(start), arrays)
            return np.int64(start + (len(arrays[0]) if stacked else 1))

        def make(handle: int) -> Any:
            numbers = {tee.HANDLE: handle, **({tee.SIZE: size} if stacked else {})}
            spec = self._tail.spec
            return self._putting.dataset(spec, split, seed=seed, epoch=epoch, numbers=numbers)

        return self._calls.dataset(call, make)

    def get(
        self, split: int, *, seed: int, epoch: int, chunks: int, read: Callable[[int], Arrays]
    ) -> Any:
        """See `LoadedStream.get_dataset`."""

        def call(chunk: Any) -> list[Any]:
            return _checked(read(int(chunk)), self._cache, int(chunk))

        def make(handle: int) -> Any:
            numbers = {tee.HANDLE: handle, tee.CHUNKS: chunks}
            spec = self._tail.spec
            return self._getting.dataset(spec, split, seed=seed, epoch=epoch, numbers=numbers)

        return self._calls.dataset(call, make)


def load_cache(key: str, whole: bool, spec: Any) -> LoadedCache:
    """What is cached of a stream whose head has elements of `spec`."""
    components = components_of(spec)
    stackable = all(component.static_shape is not None for component in components)
    return LoadedCache(key, whole, components, fixed_bytes(spec), stackable)


def _checked(arrays: Arrays, cache: LoadedCache, chunk: int) -> list[Any]:
    """What was read, if it is what the tail expects: TensorFlow would not look at its shapes."""
    if len(arrays) != len(cache.components):
        raise PenstockError(
            f"chunk {chunk} was read as {len(arrays)} components, not {len(cache.components)}"
        )
    for k, (array, spec) in enumerate(zip(arrays, cache.components, strict=True)):
        long = array.ndim > 0 and array.shape[:1] == arrays[0].shape[:1]
        shape = array.shape[1:] if cache.stackable else array.shape
        if (
            array.dtype != numpy_dtype(spec.dtype)
            or (cache.stackable and not long)
            or not spec.accepts(spec.dtype, shape)
        ):
            raise PenstockError(
                f"component {k} of chunk {chunk} was read as {array.dtype} {array.shape}, which is "
                f"not {'several of ' if cache.stackable else ''}{spec.dtype} {spec.shape}"
            )
    return [_own(array) for array in arrays] if cache.stackable else list(arrays)


def _own(array: NDArray[Any]) -> NDArray[Any]:
    """An array whose memory TensorFlow may write to.

    TensorFlow (2.21) takes over aligned arrays as they are, and ops that work in place then write
    into the memory behind their slices: into a reader's buffer, or a file that is mapped. Other
    arrays it copies itself.
    """
    if array.dtype == object or array.ctypes.data % _ALIGNMENT or not array.flags.c_contiguous:
        return array
    memory = np.empty(array.nbytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
