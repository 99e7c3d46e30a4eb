"""Hypothesis strategies for what can travel: specs, elements, stacked arrays; and a slow oracle."""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash
from hypothesis import strategies as st

from penstock.proto.chunk import Chunk, decode, encode
from penstock.proto.spec import NUMERIC_DTYPES, STRING, ComponentSpec, numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypothesis.strategies import DrawFn
    from numpy.typing import NDArray

    Element = tuple[NDArray[Any], ...]

DTYPES = (*NUMERIC_DTYPES, STRING)


def random_array(dtype: str, shape: tuple[int, ...], seed: int) -> NDArray[Any]:
    """Any bytes are an item of any dtype (but bool): NaNs, odd nibbles and all."""
    random = np.random.default_rng(seed)
    count = int(np.prod(shape, dtype=np.int64))
    if dtype == STRING:
        array = np.empty(count, object)
        array[:] = [random.bytes(int(random.integers(0, 9))) for _ in range(count)]
        return array.reshape(shape)
    kind = numpy_dtype(dtype)
    raw = np.frombuffer(random.bytes(count * kind.itemsize), np.uint8)
    return (raw & 1 if dtype == "bool" else raw).view(kind).reshape(shape)


@st.composite
def arrays(draw: DrawFn, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    return random_array(dtype, shape, draw(st.integers(0, 2**32)))


@st.composite
def component_specs(draw: DrawFn) -> ComponentSpec:
    sizes = st.one_of(st.none(), st.integers(0, 3))
    shape = st.one_of(st.none(), st.lists(sizes, max_size=3).map(tuple))
    return ComponentSpec(draw(st.sampled_from(DTYPES)), draw(shape))


@st.composite
def shapes_of(draw: DrawFn, spec: ComponentSpec) -> tuple[int, ...]:
    if spec.shape is None:
        return tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    return tuple(draw(st.integers(0, 3)) if size is None else size for size in spec.shape)


@st.composite
def runs_of_elements(draw: DrawFn, max_count: int = 8) -> tuple[list[ComponentSpec], list[Element]]:
    """Specs, and elements of them; neighbours often have equal shapes, and now and then all."""
    specs = draw(st.lists(component_specs(), min_size=1, max_size=3))
    elements: list[Element] = []
    shapes = [draw(shapes_of(spec)) for spec in specs]
    for _ in range(draw(st.integers(0, max_count))):
        if draw(st.integers(0, 3)) == 0:
            shapes = [draw(shapes_of(spec)) for spec in specs]
        pairs = zip(specs, shapes, strict=True)
        elements.append(tuple(draw(arrays(spec.dtype, shape)) for spec, shape in pairs))
    return specs, elements


def same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Equal in dtype, shape and every bit."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return one.tolist() == other.tolist() if one.dtype == object else same_bits(one, other)


def same_bits(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.tobytes() == other.tobytes()


def assert_elements(chunk: Chunk, start: int, elements: Sequence[Element]) -> None:
    assert (chunk.start, chunk.count, chunk.stop) == (start, len(elements), start + len(elements))
    for index, element in enumerate(elements, start):
        got = chunk.element(index)
        assert len(got) == len(element)
        assert all(map(same, got, element))


def oracle_hash(specs: Sequence[ComponentSpec], element: Element) -> int:
    """The definition of the element hash, word for word, for one element."""
    h = 0
    for spec, array in zip(specs, element, strict=True):
        text = f"{spec.dtype}[{','.join(str(size) for size in array.shape)}]"
        if spec.dtype == STRING:
            strings = array.reshape(-1).tolist()
            data = b"".join(struct.pack("<Q", len(item)) for item in strings) + b"".join(strings)
        else:
            data = array.tobytes()
        h = xxhash.xxh3_64_intdigest(data, h ^ xxhash.xxh3_64_intdigest(text.encode()))
    return h


def sent(chunk: Chunk) -> Chunk:
    """The chunk as it arrives."""
    header, buffers = encode(chunk, {"attempt": 1})
    return decode(header, memoryview(b"".join(buffers)))


@functools.cache
def mixed_chunk() -> Chunk:
    """Twelve elements with every encoding, whatever Hypothesis comes up with elsewhere."""
    specs = [
        ComponentSpec("float32", (2, 3)),
        ComponentSpec("int16", None),
        ComponentSpec(STRING, ()),
        ComponentSpec(STRING, (None,)),
        ComponentSpec("bfloat16", (0,)),
    ]
    elements = [
        (
            random_array("float32", (2, 3), i),
            random_array("int16", (i % 3,) * (i % 2), i),
            random_array(STRING, (), i),
            random_array(STRING, (i // 4,), i),
            random_array("bfloat16", (0,), i),
        )
        for i in range(12)
    ]
    return Chunk.from_elements(100, elements, specs)
