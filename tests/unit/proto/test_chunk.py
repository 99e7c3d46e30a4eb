"""Chunks: what goes in comes out, whatever the types, shapes and encodings."""

from __future__ import annotations

import socket
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ChunkError, UsageError, VerificationError
from penstock.proto import columns_build
from penstock.proto.chunk import Chunk, decode, encode
from penstock.proto.columns import FixedShape, VaryingShapes
from penstock.proto.spec import STRING, ComponentSpec
from penstock.proto.wire import FrameType, read_frame, send_frame

from .elements import (
    DTYPES,
    arrays,
    assert_elements,
    mixed_chunk,
    random_array,
    runs_of_elements,
    same,
    sent,
)

starts = st.integers(0, 2**62)


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


@given(runs_of_elements(), starts)
def test_elements_come_back_as_they_were(run: tuple, start: int) -> None:
    specs, elements = run
    chunk = Chunk.from_elements(start, elements, specs)
    assert_elements(chunk, start, elements)
    arrived = sent(chunk)
    assert_elements(arrived, start, elements)
    arrived.verify()
    arrived.check_specs(specs)
    assert arrived.nbytes == chunk.nbytes


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.data(), st.integers(0, 5), st.lists(st.integers(0, 3), max_size=3))
def test_stacked_arrays_come_back_as_they_were(
    dtype: str, data: st.DataObject, count: int, shape: list[int]
) -> None:
    array = data.draw(arrays(dtype, (count, *shape)))
    chunk = Chunk.from_stacked(7, [array, np.arange(count)])
    arrived = sent(chunk)
    arrived.verify()
    assert_elements(
        arrived, 7, [(array[i : i + 1].reshape(shape), np.array(i)) for i in range(count)]
    )
    runs = list(arrived.runs())
    assert [start for start, _ in runs] == ([7] if count else [])
    assert all(same(stacked[0], array) for _, stacked in runs)


@given(runs_of_elements(), st.data())
def test_a_slice_has_those_elements(run: tuple, data: st.DataObject) -> None:
    specs, elements = run
    chunk = Chunk.from_elements(50, elements, specs)
    a = data.draw(st.integers(0, len(elements)))
    b = data.draw(st.integers(a, len(elements)))
    part = chunk.slice(50 + a, 50 + b)
    c = data.draw(st.integers(a, b))
    for piece, first, last in ((part, a, b), (part.slice(50 + c, 50 + b), c, b)):
        assert_elements(piece, 50 + first, elements[first:last])
        assert_elements(sent(piece), 50 + first, elements[first:last])
        sent(piece).verify()


@given(runs_of_elements(), st.one_of(st.none(), st.integers(1, 4)))
def test_runs_are_the_elements_stacked(run: tuple, max_len: int | None) -> None:
    specs, elements = run
    chunk = sent(Chunk.from_elements(3, elements, specs))
    index, before = 3, None
    for start, stacked in chunk.runs(max_len):
        assert start == index
        length = len(stacked[0])
        assert 1 <= length <= (max_len or length)
        for offset in range(length):
            element = elements[index - 3 + offset]
            for array, want in zip(stacked, element, strict=True):
                assert same(array[offset : offset + 1].reshape(want.shape), want)
        shapes = [array.shape[1:] for array in stacked]
        if max_len is None:
            assert shapes != before, "a run ended although the next one has the same shapes"
        index, before = index + length, shapes
    assert index == 3 + len(elements)


@pytest.mark.parametrize("apart", [True, False], ids=["apart", "together"])
@pytest.mark.parametrize("dtype", DTYPES)
@given(
    st.data(),
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
    st.lists(st.integers(1, 3), max_size=2),
)
def test_batches_that_follow_each_other_are_as_one(
    dtype: str, apart: bool, data: st.DataObject, lengths: list[int], shape: list[int]
) -> None:
    batches = [data.draw(arrays(dtype, (length, *shape))) for length in lengths]
    count, ends = sum(lengths), np.cumsum(lengths)
    numbers = np.split(np.arange(count), ends[:-1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns_build, "_APART_BYTES_MIN", 1 if apart else 1 << 20)
        chunk = Chunk.from_batches(7, [*zip(batches, numbers, strict=True)])
    whole = Chunk.from_stacked(7, [np.concatenate(batches), np.arange(count)])
    assert chunk.hashes.tolist() == whole.hashes.tolist()
    assert chunk.nbytes == whole.nbytes
    a = data.draw(st.integers(7, 7 + count))
    b = data.draw(st.integers(a, 7 + count))
    for one, other in ((chunk, whole), (chunk.slice(a, b), whole.slice(a, b))):
        (header, buffers), (wanted, others) = encode(one, {}), encode(other, {})
        assert header == wanted
        assert b"".join(buffers) == b"".join(others)
        one.verify()
        for index in range(one.start, one.stop):
            assert all(map(same, one.element(index), other.element(index)))


def test_large_batches_are_not_copied_to_be_in_one_place() -> None:
    batches = [(np.full((2, 16 << 10), n, np.float32), np.arange(2)) for n in range(3)]
    chunk = Chunk.from_batches(0, batches)
    _, buffers = encode(chunk, {})
    places = [address(np.frombuffer(buffer, np.uint8)) for buffer in buffers]
    assert places[:3] == [address(images) for images, _ in batches]
    assert len(places) == 4
    _, buffers = encode(chunk.slice(1, 4), {})
    assert len(buffers) == 3
    assert address(chunk.element(5)[0]) == address(batches[2][0][1])


def test_batches_of_other_types_do_not_follow_each_other() -> None:
    for other in (np.zeros((2, 4)), np.zeros((2, 3), np.float32), np.zeros((2, 3, 1))):
        with pytest.raises(ChunkError, match="component 0: batches of different types"):
            Chunk.from_batches(0, [[np.zeros((2, 3))], [other]])


def test_stacked_arrays_are_not_copied_on_either_side() -> None:
    images = np.ones((5, 16, 16, 3), np.uint8)
    labels = np.arange(5)
    chunk = Chunk.from_stacked(0, [images, labels])
    header, buffers = encode(chunk, {"attempt": 1})
    assert [address(np.frombuffer(buffer, np.uint8)) for buffer in buffers] == [
        address(images),
        address(labels),
    ]
    payload = memoryview(b"".join(buffers))
    arrived = decode(header, payload)
    base = address(np.frombuffer(payload, np.uint8))
    for stacked, part in zip(next(arrived.runs())[1], header["components"], strict=True):
        assert part["offset"] % 64 == 0
        assert address(stacked) == base + part["offset"]
    assert address(arrived.slice(2, 4).element(3)[1]) == base + 3840 + 3 * 8


def test_a_lone_element_is_not_copied() -> None:
    array = np.ones((3, 4))
    chunk = Chunk.from_elements(9, [(array,)], [ComponentSpec("float64", (None, None))])
    assert address(chunk.element(9)[0]) == address(array)


def test_runs_of_varying_shapes_are_views() -> None:
    specs = [ComponentSpec("int32", (None,))]
    elements = [(np.full(1 + i // 3, i, np.int32),) for i in range(9)]
    chunk = sent(Chunk.from_elements(0, elements, specs))
    assert isinstance(chunk.columns[0].shapes, VaryingShapes)
    runs = list(chunk.runs())
    assert [(start, arrays[0].shape) for start, arrays in runs] == [
        (0, (3, 1)),
        (3, (3, 2)),
        (6, (3, 3)),
    ]
    assert address(runs[1][1][0]) == address(runs[0][1][0]) + 3 * 4


def test_every_part_begins_at_a_multiple_of_64() -> None:
    header, _ = encode(mixed_chunk(), {})
    encodings = set()
    for component in header["components"]:
        encodings.add(component["encoding"])
        places = [component[key] for key in ("ranks", "dims", "offsets") if key in component]
        places.append([component["offset"], component["nbytes"]])
        assert all(offset % 64 == 0 for offset, nbytes in places if nbytes)
    assert encodings == {"stacked", "varying", "strings", "varying_strings"}


@pytest.mark.parametrize("dtype", ["int32", "float64", "complex128", "uint16"])
def test_big_endian_and_strided_arrays_are_put_right(dtype: str) -> None:
    array = random_array(dtype, (6, 4), 1)
    chunk = Chunk.from_stacked(0, [array])
    for other in (array.astype(np.dtype(dtype).newbyteorder(">")), np.asfortranarray(array)):
        assert Chunk.from_stacked(0, [other]).hashes.tolist() == chunk.hashes.tolist()
        spec = ComponentSpec(dtype, (4,))
        single = Chunk.from_elements(0, [(row,) for row in other], [spec])
        assert single.hashes.tolist() == chunk.hashes.tolist()


def test_scalars_as_a_tensor_gives_them() -> None:
    specs = [ComponentSpec("int64", ()), ComponentSpec(STRING, ())]
    chunk = Chunk.from_elements(0, [(np.int64(4), b"zeros\0\0")], specs)  # type: ignore[arg-type]
    number, text = sent(chunk).element(0)
    assert number.shape == text.shape == ()
    assert (number.item(), text.item()) == (4, b"zeros\0\0")


def test_one_byte_is_a_chunk() -> None:
    arrived = sent(Chunk.from_stacked(0, [np.array([7], np.uint8)]))
    assert arrived.nbytes == 1
    assert arrived.element(0)[0] == 7


def test_no_elements_are_a_chunk() -> None:
    specs = [ComponentSpec("int8", (2,)), ComponentSpec(STRING, None)]
    arrived = sent(Chunk.from_elements(4, [], specs))
    assert (arrived.start, arrived.count, list(arrived.runs())) == (4, 0, [])
    assert isinstance(arrived.columns[0].shapes, FixedShape)
    arrived.check_specs(specs)
    arrived.verify()


def test_a_changed_bit_is_found_in_the_element_that_it_is_in() -> None:
    header, buffers = encode(mixed_chunk(), {})
    payload = bytearray(b"".join(buffers))
    payload[5 * 24 + 3] ^= 1  # the floats come first, 24 bytes an element
    with pytest.raises(VerificationError, match="element 105 is not what was sent"):
        decode(header, memoryview(payload)).verify()


def test_what_is_not_in_a_chunk_is_refused() -> None:
    chunk = mixed_chunk()
    for index in (99, 112, -1):
        with pytest.raises(IndexError):
            chunk.element(index)
    for a, b in ((99, 101), (101, 113), (105, 104)):
        with pytest.raises(IndexError):
            chunk.slice(a, b)
    with pytest.raises(UsageError):
        list(chunk.runs(0))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ([], "at least one component"),
        ([np.arange(3), np.arange(4)], "different numbers"),
        ([np.array(3)], "component 0: an array of rank 0"),
        ([np.arange(2), np.array(["a", "b"])], "component 1: dtype <U1"),
        ([np.array(["a", "b"], object)], "of type str, not bytes"),
        ([np.array([b"a", b"b"])], "dtype |S1"),
        ([np.array([1], "datetime64[s]")], "datetime64"),
        ([np.array([1], np.longdouble)], "longdouble|float128"),
    ],
)
def test_stacked_arrays_that_cannot_travel(arrays: list, message: str) -> None:
    with pytest.raises(ChunkError, match=message):
        Chunk.from_stacked(0, arrays)


@pytest.mark.parametrize(
    ("element", "message"),
    [
        ((np.zeros(2, np.float32),), "element 6: 1 components of 2"),
        ((np.zeros(2, np.float64), b""), "element 6, component 0: float64"),
        ((np.zeros(3, np.float32), b""), "element 6, component 0: float32"),
        ((np.zeros(2, np.float32), "text"), "element 6, component 1"),
        ((np.zeros(2, np.float32), np.array("text", object)), "element 6, component 1: .*str"),
    ],
)
def test_elements_that_are_not_of_the_spec(element: tuple, message: str) -> None:
    specs = [ComponentSpec("float32", (2,)), ComponentSpec(STRING, ())]
    good = (np.zeros(2, np.float32), b"x")
    with pytest.raises(ChunkError, match=message):
        Chunk.from_elements(5, [good, element], specs)  # type: ignore[list-item]


def test_a_chunk_of_another_spec_is_refused() -> None:
    specs = [ComponentSpec("int32", (None,))]
    chunk = Chunk.from_elements(0, [(np.zeros(i, np.int32),) for i in (2, 2, 3)], specs)
    header, buffers = encode(chunk, {})
    payload = memoryview(b"".join(buffers))
    decode(header, payload, specs)
    with pytest.raises(ChunkError, match="element 2, component 0"):
        decode(header, payload, [ComponentSpec("int32", (2,))])
    for other in ([ComponentSpec("uint32", (None,))], [*specs, *specs], []):
        with pytest.raises(ChunkError, match="announced"):
            decode(header, payload, other)


@pytest.mark.slow
def test_an_element_of_one_gibibyte_travels_uncopied() -> None:
    array = np.zeros(1 << 28, np.float32)
    array[-1] = 3
    chunk = Chunk.from_elements(0, [(array,)], [ComponentSpec("float32", (None,))])
    header, (payload,) = encode(chunk, {"attempt": 1})
    assert len(payload) == 1 << 30
    assert address(np.frombuffer(payload, np.uint8)) == address(array)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(
            target=send_frame, args=(ours, FrameType.CHUNK, header, [payload])
        )
        sender.start()
        frame = read_frame(theirs.recv_into)
        sender.join()
    assert frame is not None
    arrived = decode(frame.header, frame.payload)
    arrived.verify()
    element = arrived.element(0)[0]
    assert address(element) == address(np.frombuffer(frame.payload, np.uint8))
    assert element[-1] == 3
