"""The dataset that a trainer gets is TensorFlow's own, element for element, however it is read."""

from __future__ import annotations

import collections
import gc
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorflow as tf

from penstock.client.buffers import BufferPool
from penstock.client.direct import DistributedDataset, is_direct
from penstock.client.eager import EagerIterator, elements_of
from penstock.graph import flat_specs
from penstock.proto.budget import Budget
from penstock.proto.wire import aligned_empty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COUNT = 2500
NUMBERS = np.arange(COUNT)
PARTS: dict[str, Callable[[], Any]] = {
    "scalars": lambda: NUMBERS,
    "a tuple": lambda: (np.arange(COUNT * 6, dtype=np.float32).reshape(COUNT, 2, 3), NUMBERS % 7),
    "a tuple of one": lambda: (NUMBERS,),
    "a dict": lambda: {"z": NUMBERS, "a": NUMBERS % 2 == 0, "m": NUMBERS.astype(np.uint8)},
    "nested": lambda: ({"b": NUMBERS, "a": (NUMBERS * 2.5,)}, NUMBERS.astype(np.complex64)),
    "strings": lambda: (np.array([b"text %d" % n for n in NUMBERS], object), NUMBERS),
    "bfloat16": lambda: NUMBERS.astype(tf.bfloat16.as_numpy_dtype),
    "rows of 64 bytes": lambda: np.arange(COUNT * 8).reshape(COUNT, 8),
}


def stacked_runs(value: Any, *, shift: int = 0) -> list[tuple[Any, ...]]:
    """Runs of changing lengths, in memory as a client has it; `shift` bytes off its alignment."""

    def placed(array: Any) -> Any:
        if array.dtype == object:
            return array
        memory = np.frombuffer(aligned_empty(array.nbytes + 64), np.uint8)
        copy = memory[shift : shift + array.nbytes].view(array.dtype).reshape(array.shape)
        copy[...] = array
        return copy

    bounds = [0, 1, 8, 64, 1300, COUNT]
    flat = tf.nest.flatten(value)
    return [tuple(placed(array[a:b]) for array in flat) for a, b in itertools.pairwise(bounds)]


def distributed(value: Any, runs: Callable[[], Iterator[Any]] | None = None) -> DistributedDataset:
    """What a reader of those elements would give."""
    plain = tf.data.Dataset.from_tensor_slices(value)
    signature = tuple(
        tf.TensorSpec((None, *spec.shape), spec.dtype) for spec in flat_specs(plain.element_spec)
    )
    stacked = tf.data.Dataset.from_generator(
        lambda: iter(stacked_runs(value)), output_signature=signature
    )
    return DistributedDataset(plain, lambda: stacked, runs or (lambda: iter(stacked_runs(value))))


def same(ours: Any, theirs: Any) -> None:
    """Equal structures of equal values and dtypes."""
    tf.nest.assert_same_structure(ours, theirs)
    for a, b in zip(tf.nest.flatten(ours), tf.nest.flatten(theirs), strict=True):
        assert type(a) is type(b)
        assert getattr(a, "dtype", None) == getattr(b, "dtype", None)
        assert getattr(a, "shape", None) == getattr(b, "shape", None)
        a, b = (x.numpy() if isinstance(x, tf.Tensor) else x for x in (a, b))
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", PARTS)
def test_a_loop_gives_what_tensorflow_gives(name: str) -> None:
    dataset = distributed(PARTS[name]())
    assert is_direct(dataset.element_spec)
    for ours, theirs in zip(dataset, dataset.plain, strict=True):
        same(ours, theirs)


@pytest.mark.parametrize("name", ["a tuple", "rows of 64 bytes", "strings"])
@pytest.mark.parametrize("shift", [4, 8, 32])
def test_memory_of_another_alignment_is_copied_and_not_lent(name: str, shift: int) -> None:
    value = PARTS[name]()
    dataset = distributed(value)
    elements = elements_of(iter(stacked_runs(value, shift=shift)), dataset.element_spec)
    for ours, theirs in zip(elements, dataset.plain, strict=True):
        same(ours, theirs)
        for part in tf.nest.flatten(ours):
            tf.identity(part) if part.dtype == tf.string else part + part  # a kernel reads it


def test_elements_can_be_written_to_by_no_other() -> None:
    rows = PARTS["rows of 64 bytes"]()
    for index, row in enumerate(distributed(rows)):
        negated = tf.negative(row)
        del row
        assert negated.numpy().tolist() == (-rows[index]).tolist()
    np.testing.assert_array_equal(rows, PARTS["rows of 64 bytes"]())


@pytest.mark.parametrize("name", PARTS)
def test_numpy_gives_what_tensorflow_gives(name: str) -> None:
    dataset = distributed(PARTS[name]())
    pairs = zip(dataset.as_numpy_iterator(), dataset.plain.as_numpy_iterator(), strict=True)
    for ours, theirs in pairs:
        same(ours, theirs)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("size", [1, 7, 128, 4000])
@pytest.mark.parametrize("drop", [False, True])
def test_batches_are_those_of_tensorflow(name: str, size: int, drop: bool) -> None:
    dataset = distributed(PARTS[name]())
    ours = dataset.batch(size, drop_remainder=drop, num_parallel_calls=2)
    theirs = dataset.plain.batch(size, drop_remainder=drop)
    assert ours.element_spec == theirs.element_spec
    assert ours.cardinality() == theirs.cardinality()
    for a, b in zip(ours, theirs, strict=True):
        same(a, b)


def test_a_batch_of_no_elements_is_refused() -> None:
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        list(distributed(NUMBERS).batch(0))


def test_other_transformations_and_graphs_see_a_normal_dataset() -> None:
    dataset = distributed(NUMBERS)
    assert isinstance(dataset, tf.data.Dataset)
    assert len(dataset) == COUNT
    assert int(dataset.map(lambda n: n + 1).reduce(np.int64(0), lambda a, b: a + b)) == sum(
        range(1, COUNT + 1)
    )

    @tf.function
    def total(given: Any) -> Any:
        result = tf.constant(0, tf.int64)
        for number in given:
            result += number
        return result

    assert int(total(dataset)) == sum(range(COUNT))


@tf.function
def take_two(iterator: Any) -> Any:
    """A step of a training that fetches for itself, as Keras' does."""
    return next(iterator) + 1000 * next(iterator)


def test_an_iterator_can_be_given_to_a_function() -> None:
    iterator = iter(distributed(NUMBERS))
    assert isinstance(iterator, tf.data.Iterator)
    assert iterator.element_spec == tf.TensorSpec((), tf.int64)
    assert [int(take_two(iterator)) for _ in range(2)] == [1000, 3002]
    assert int(next(iterator)) == 4


def test_a_function_goes_on_where_a_loop_has_stopped() -> None:
    iterator = iter(distributed(NUMBERS))
    assert [int(next(iterator)) for _ in range(5)] == list(range(5))
    assert int(take_two(iterator)) == 5 + 6000
    assert [int(next(iterator)) for _ in range(3)] == [7, 8, 9]
    assert int(iterator.get_next_as_optional().get_value()) == 10
    assert [int(number) for number in iterator] == list(range(11, COUNT))
    assert not iterator.get_next_as_optional().has_value()


def test_batches_can_be_made_inside_a_function() -> None:
    dataset = distributed(NUMBERS)

    @tf.function
    def largest() -> Any:
        return dataset.batch(100).reduce(np.int64(0), lambda a, b: tf.maximum(a, b[-1]))

    assert int(largest()) == COUNT - 1


def test_memory_is_lent_until_the_last_element_is_gone() -> None:
    """A buffer that came back too early would change what the trainer holds."""
    pool = BufferPool(Budget(64 << 20))

    def runs() -> Iterator[Any]:
        for number in range(6):
            rows = np.frombuffer(pool.allocate(16 << 16), np.int64).reshape(16, -1)
            rows[:] = number
            yield (rows,)
            del rows

    spec = (tf.TensorSpec((1 << 13,), tf.int64),)
    held = []
    for index, (row,) in enumerate(elements_of(runs(), spec)):
        if index % 16 == 5:
            held.append(row)
    assert [set(row.numpy().tolist()) for row in held] == [{number} for number in range(6)]
    places = {np.asarray(row).ctypes.data for row in held}
    assert len(places) == 6
    held.clear()
    del row
    gc.collect()
    again = {np.frombuffer(pool.allocate(16 << 16), np.uint8).ctypes.data for _ in range(2)}
    begins = {place - 5 * (1 << 16) for place in places}
    assert again & begins, "lent memory never comes back"


def test_the_end_is_told_as_tensorflow_tells_it() -> None:
    iterator = iter(distributed(NUMBERS[:0], lambda: iter(())))
    with pytest.raises(tf.errors.OutOfRangeError):
        iterator.get_next()
    with pytest.raises(StopIteration):
        next(iterator)


def test_each_loop_is_an_epoch_and_one_that_is_left_gives_its_epoch_up() -> None:
    closed = []

    def runs() -> Iterator[Any]:
        try:
            yield from stacked_runs(NUMBERS)
        finally:
            closed.append(True)

    dataset = distributed(NUMBERS, runs)
    for number in dataset:
        if number == 3:
            break
    gc.collect()
    assert closed == [True]
    assert len(list(dataset)) == COUNT
    assert closed == [True, True]


def test_an_error_of_the_service_comes_as_it_is() -> None:
    def runs() -> Iterator[Any]:
        yield (NUMBERS[:2],)
        raise ConnectionError("the job failed")

    with pytest.raises(ConnectionError, match="the job failed"):
        list(distributed(NUMBERS, runs))


Pair = collections.namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    "spec",
    [
        tf.TensorSpec((None,), tf.int64),
        tf.TensorSpec(None, tf.int64),
        tf.TensorSpec((3, 0), tf.int64),
        tf.RaggedTensorSpec((None,), tf.int64, ragged_rank=0),
        tf.SparseTensorSpec((3,), tf.int64),
        Pair(tf.TensorSpec((), tf.int64), tf.TensorSpec((), tf.int64)),
        (tf.TensorSpec((), tf.int64), None),
        (),
    ],
    ids=str,
)
def test_what_cannot_be_cut_from_runs_is_left_to_tensorflow(spec: Any) -> None:
    assert not is_direct(spec)


def test_an_iterator_keeps_its_dataset_alive() -> None:
    iterator = iter(distributed(NUMBERS))
    gc.collect()
    assert isinstance(iterator, EagerIterator)
    assert [int(number) for number in iterator] == list(range(COUNT))
