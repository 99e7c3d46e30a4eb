"""Batches of elements whose shapes vary: the very chunks of elements that are taken one by one."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from penstock.errors import ChunkError
from penstock.proto.chunk import Chunk, encode
from penstock.proto.spec import STRING, ComponentSpec, numpy_dtype
from penstock.worker import ragged
from penstock.worker.checkpoint_file import Layout
from penstock.worker.iterators import Source
from penstock.worker.pipeline import _array

DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128", STRING),
)


def specs_of(dataset: Any) -> tuple[ComponentSpec, ...]:
    return tuple(
        ComponentSpec(
            spec.dtype.name, None if spec.shape.rank is None else tuple(spec.shape.as_list())
        )
        for spec in dataset.element_spec
    )


def taken(source: Source) -> list[tuple[Any, ...]]:
    return [tuple(map(_array, parts)) for parts in source]


def batches_of(source: Any, specs: tuple[ComponentSpec, ...]) -> list[Any]:
    return [ragged.arrays_of(batch, specs) for batch in source]


def chunk_of(dataset: Any, size: int) -> Chunk:
    specs = specs_of(dataset)
    batches = batches_of(Source(dataset, Layout("ragged", size)), specs)
    return Chunk.from_columns(0, ragged.columns_of(batches, specs))


def check(dataset: Any, size: int) -> None:
    """The chunk of all batches is, to the byte, that of the elements one by one."""
    specs = specs_of(dataset)
    assert ragged.batches_of(specs)
    batches = batches_of(Source(dataset, Layout("ragged", size)), specs)
    elements = taken(Source(dataset, Layout("collected")))
    counts = [ragged.count_of(batch, specs) for batch in batches]
    whole, rest = divmod(len(elements), size)
    assert counts == [size] * whole + [rest] * bool(rest)
    wanted = Chunk.from_elements(3, elements, specs)
    if not batches:
        return
    chunk = Chunk.from_columns(3, ragged.columns_of(batches, specs))
    assert encode(chunk, {})[0] == encode(wanted, {})[0]
    assert b"".join(encode(chunk, {})[1]) == b"".join(encode(wanted, {})[1])
    chunk.verify()


def made(dtype: str, shape: tuple[int, ...], seed: int) -> np.ndarray[Any, Any]:
    numbers = np.random.default_rng(seed).integers(0, 100, shape)
    if dtype == STRING:
        texts = np.empty(numbers.size, object)
        texts[:] = [b"\x00" * (int(n) % 4) for n in numbers.ravel()]
        return texts.reshape(shape)
    return numbers.astype(numpy_dtype(dtype))


def dataset_of(rows: list[list[Any]], specs: list[Any]) -> Any:
    return tf.data.Dataset.from_generator(
        lambda: iter([tuple(row) for row in rows]), output_signature=tuple(specs)
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype: str) -> None:
    kinds = (None, (None,), (None, 2), (2, None, None), (3,), ())
    shapes = [
        ((), (2,), (0, 2), (2, 1, 3), (3,), ()),
        ((2, 2), (0,), (3, 2), (2, 0, 3), (3,), ()),
        ((1,), (5,), (1, 2), (2, 4, 1), (3,), ()),
    ]
    rows = [[made(dtype, s, n) for n, s in enumerate(row)] for row in shapes]
    check(dataset_of(rows, [tf.TensorSpec(kind, dtype) for kind in kinds]), 2)


@st.composite
def elements(draw: DrawFn) -> tuple[list[list[Any]], list[Any]]:
    """Elements of some components each, with and without dimensions that are not known."""
    sizes = st.integers(0, 3)
    shapes = draw(st.lists(st.lists(sizes, max_size=3), min_size=1, max_size=3))
    specs: list[Any] = []
    for shape in shapes:
        known = draw(st.none() | st.just([draw(st.none() | st.just(n)) for n in shape]))
        specs.append(tf.TensorSpec(known, draw(st.sampled_from(DTYPES))))
    specs.append(tf.TensorSpec([None], "int8"))
    rows = []
    for number in range(draw(st.integers(0, 7))):
        row = []
        for spec in specs:
            dims = draw(st.lists(sizes, max_size=2)) if spec.shape.rank is None else spec.shape
            concrete = tuple(draw(sizes) if n is None else n for n in dims)
            name = STRING if spec.dtype == tf.string else spec.dtype.name
            row.append(made(name, concrete, number))
        rows.append(row)
    return rows, specs


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(elements(), st.integers(1, 4))
def test_any_elements(drawn: tuple[list[list[Any]], list[Any]], size: int) -> None:
    check(dataset_of(*drawn), size)


def test_what_has_no_kernel_or_does_not_vary_is_not_batched_here() -> None:
    varying = ComponentSpec("int64", (None,))
    assert ragged.batches_of([varying])
    assert ragged.batches_of([varying, ComponentSpec("float16", (2,))])
    assert not ragged.batches_of([varying, ComponentSpec("int4", (2,))])
    assert not ragged.batches_of([varying, ComponentSpec("float8_e5m2", (None,))])
    assert not ragged.batches_of([ComponentSpec("int64", (2,))])


def counted(count: int) -> Any:
    return tf.data.Dataset.range(count).map(lambda n: (tf.range(n % 5), tf.fill([n % 3, 2], n)))


def test_a_state_goes_on_in_another_process_where_functions_have_other_names() -> None:
    layout = Layout("ragged", 4)
    source = Source(counted(23), layout)
    specs = specs_of(counted(1))
    first = batches_of(itertools.islice(source, 2), specs)
    state = source.capture()
    ragged._taking_apart.cache_clear()
    again = Source(counted(23), layout)
    again.restore(state)
    rest = batches_of(again, specs)
    chunk = Chunk.from_columns(0, ragged.columns_of(first + rest, specs))
    wanted = Chunk.from_elements(0, taken(Source(counted(23), Layout("collected"))), specs)
    assert chunk.hashes.tolist() == wanted.hashes.tolist()
    assert len(rest) == 4


def test_types_are_traced_once() -> None:
    ragged._taking_apart.cache_clear()
    for _ in range(3):
        batches_of(Source(counted(5), Layout("ragged", 2)), specs_of(counted(5)))
    assert ragged._taking_apart.cache_info().misses == 1


@pytest.mark.parametrize(
    ("shape", "announced"), [((2, 3), (None,)), ((2, 3), (None, 4)), ((2,), (None, 2))]
)
def test_a_shape_that_was_not_announced_is_refused(
    shape: tuple[int, ...], announced: tuple[int | None, ...]
) -> None:
    def lie(n: Any) -> tuple[Any, ...]:
        (zeros,) = tf.numpy_function(lambda: np.zeros(shape, np.int64), [], [tf.int64])
        zeros.set_shape(announced)
        return (zeros,)

    dataset = tf.data.Dataset.range(3).map(lie)
    # Which of the two notices depends on what TensorFlow concludes from the lie.
    with pytest.raises((ChunkError, tf.errors.InvalidArgumentError)):
        chunk_of(dataset, 2)
