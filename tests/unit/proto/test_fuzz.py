"""Hostile bytes: only our errors, and no memory out of proportion to what was sent."""

from __future__ import annotations

import contextlib
import copy
import io
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ChunkError, ProtocolError
from penstock.proto.chunk import Chunk, decode, encode
from penstock.proto.wire import (
    PREFIX_BYTES,
    FrameLimits,
    FrameType,
    aligned_empty,
    encode_frame,
    read_frame,
)

from .elements import mixed_chunk

LIMITS = FrameLimits(header_bytes_max=1 << 20, payload_bytes_max=1 << 20)
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(
        [0, 1, 2, -1, 63, 64, 65, 255, 2**31, 2**60, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
    ),
    st.sampled_from([[], [0], [2**62, 2**62], [-1], [0, 0], [0, -8], [1] * 70, {}, b"", b"x" * 96]),
    st.sampled_from(["", "object", "string", "int8", "stacked", "varying", "strings", "pickle"]),
    st.floats(),
)


def read_all(data: bytes) -> None:
    """Reads frames, and chunks in them, until the end or an error of ours."""
    asked = 0

    def allocate(nbytes: int) -> memoryview:
        nonlocal asked
        asked += nbytes
        assert nbytes <= LIMITS.payload_bytes_max
        return aligned_empty(nbytes)

    recv_into = io.BytesIO(data).readinto
    with contextlib.suppress(ProtocolError, ChunkError):
        while (frame := read_frame(recv_into, LIMITS, allocate)) is not None:
            use(decode(frame.header, frame.payload))


def use(chunk: Chunk) -> None:
    """Whatever has been decoded must be usable to the end."""
    for index in range(chunk.start, min(chunk.stop, chunk.start + 20)):
        chunk.element(index)
    for _ in chunk.runs():
        pass
    assert len(chunk.compute_hashes()) == chunk.count


def resealed(data: bytearray) -> bytes:
    """The frame with a right checksum, so that the mutation gets past it."""
    end = PREFIX_BYTES - 8
    split = PREFIX_BYTES + struct.unpack_from("<I", data, 8)[0]
    digest = struct.pack("<Q", xxhash.xxh3_64_intdigest(bytes(data[split:])))
    checksum = xxhash.xxh3_64_intdigest(bytes(data[:end] + data[PREFIX_BYTES:split]) + digest)
    return bytes(data[:end]) + struct.pack("<Q", checksum) + bytes(data[PREFIX_BYTES:])


def valid_frame() -> bytes:
    header, buffers = encode(mixed_chunk(), {"attempt": 1})
    return b"".join(encode_frame(FrameType.CHUNK, header, buffers))


@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    read_all(data)
    read_all(b"PNSK\x02\x00\x04\x00" + data)


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8), st.booleans())
def test_mutated_frames(changes: list[tuple[int, int]], reseal: bool) -> None:
    data = bytearray(valid_frame())
    for position, value in changes:
        data[position % len(data)] = value
    read_all(resealed(data) if reseal else bytes(data))


@given(st.integers(0, 10_000), st.binary(max_size=30), st.integers(0, 30))
def test_spliced_frames(position: int, middle: bytes, skipped: int) -> None:
    data = valid_frame()
    position %= len(data)
    read_all(data[:position] + middle + data[position + skipped :] + data)


@st.composite
def mutated_headers(draw: st.DrawFn) -> dict[str, Any]:
    """The header of a valid chunk with odd values in odd places."""
    header = copy.deepcopy(encode(mixed_chunk(), {"attempt": 1})[0])
    for _ in range(draw(st.integers(1, 3))):
        target = draw(st.sampled_from([header, *header["components"]]))
        if not isinstance(target, dict):
            continue
        key = draw(st.sampled_from(sorted(target)))
        if draw(st.booleans()) and isinstance(target[key], list) and target[key]:
            position = draw(st.integers(0, len(target[key]) - 1))
            target[key] = [*target[key]]
            target[key][position] = draw(ODD)
        else:
            target[key] = draw(ODD)
        if not isinstance(header["components"], list):
            break
    return header


@given(mutated_headers())
def test_mutated_chunk_headers(header: dict[str, Any]) -> None:
    payload = b"".join(encode(mixed_chunk(), {})[1])
    with contextlib.suppress(ChunkError):
        use(decode(header, memoryview(payload)))


@given(st.data())
def test_mutated_payloads(data: st.DataObject) -> None:
    """Ranks, dims and offsets stand in the payload."""
    header, buffers = encode(mixed_chunk(), {})
    payload = bytearray(b"".join(buffers))
    for _ in range(data.draw(st.integers(1, 3))):
        at = 8 * data.draw(st.integers(0, len(payload) // 8 - 1))
        value = data.draw(st.sampled_from([0, 1, 2**31, 2**62, 2**63, 2**64 - 1, 2**64 - 8]))
        payload[at : at + 8] = struct.pack("<Q", value)
    with contextlib.suppress(ChunkError):
        use(decode(header, memoryview(payload)))


def component(**changes: Any) -> dict[str, Any]:
    return {
        "dtype": "int8",
        "shape": [],
        "encoding": "stacked",
        "offset": 0,
        "nbytes": 0,
        **changes,
    }


def chunk_header(count: int, *components: object, **changes: Any) -> dict[str, Any]:
    hashes = bytes(8 * count) if count < 1000 else b""
    return {"start": 0, "count": count, "components": [*components], "hashes": hashes, **changes}


VARYING = {"encoding": "varying", "shape": None, "offset": 128}


@pytest.mark.parametrize(
    ("header", "payload", "message"),
    [
        ({}, b"", "not a range"),
        (chunk_header(2**60, component(shape=[0])), b"", "hashes are not those of"),
        ({**chunk_header(2, component(nbytes=2)), "count": 3}, b"ab", "hashes are not those of 3"),
        (chunk_header(1, component(nbytes=1), start=2**63 - 1), b"a", "is beyond"),
        (chunk_header(True, component(nbytes=1)), b"a", "not a range"),
        (chunk_header(1), b"", "list of at least one"),
        (chunk_header(1, "x"), b"", "component 0 is not a map"),
        (chunk_header(1, component(dtype="object", nbytes=8)), bytes(8), "object"),
        (chunk_header(1, component(dtype="string")), b"", "cannot be stacked"),
        (chunk_header(1, component(encoding="strings")), b"", "cannot be strings"),
        # An encoding that must never be one.
        (chunk_header(1, component(encoding="pickle")), b"", "pickle"),
        (chunk_header(1, component(encoding=[])), b"", r"\[\]"),
        (chunk_header(1, component(shape=[2**40, 2**40])), b"", "impossible size"),
        (chunk_header(1, component(shape=[0, 2**40, 2**40])), b"", "impossible size"),
        (chunk_header(1, component(shape=[2**64])), b"", "impossible size"),
        (chunk_header(1, component(shape=[2**40])), b"", "0 bytes are not 1099511627776"),
        (chunk_header(1, component(shape=[-1, -1], nbytes=1)), b"a", "no size"),
        (chunk_header(1, component(shape=[1] * 64, nbytes=1)), b"a", "at most 63"),
        (chunk_header(1, component(offset=1, nbytes=1)), b"ab", "do not follow"),
        (chunk_header(1, component(nbytes=2**62)), b"ab", "do not follow"),
        (chunk_header(1, component(nbytes=-1)), b"ab", "do not follow"),
        (chunk_header(1, component(nbytes=1)), b"ab", "1 bytes follow the last"),
        (
            chunk_header(1, component(nbytes=1), component(offset=64, nbytes=1)),
            b"a" + b"x" * 63 + b"b",
            "padding before 64",
        ),
        (chunk_header(1, component(nbytes=1), component(nbytes=1)), b"a", "component 1"),
        (
            chunk_header(1, component(**VARYING, ranks=[0, 1], dims=[64, 8], nbytes=1)),
            b"\x01" + bytes(63) + struct.pack("<q", -1) + bytes(56) + b"a",
            "negative",
        ),
        (
            chunk_header(1, component(**VARYING, ranks=[0, 1], dims=[64, 16], nbytes=1)),
            b"\x02" + bytes(63) + struct.pack("<QQ", 2**32, 2**32) + bytes(48) + b"a",
            "impossible size",
        ),
        (
            chunk_header(1, component(**VARYING, ranks=[0, 1], dims=[64, 8], nbytes=1)),
            b"\x02" + bytes(63) + bytes(8) + bytes(56) + b"a",
            "do not agree",
        ),
        (
            chunk_header(1, component(**VARYING, ranks=[0, 1], dims=[64, 8], nbytes=1)),
            b"\x01" + bytes(63) + struct.pack("<q", 2**40) + bytes(56) + b"a",
            "1 bytes are not 1099511627776 items",
        ),
    ],
)
def test_hostile_chunks(header: dict[str, Any], payload: bytes, message: str) -> None:
    with pytest.raises(ChunkError, match=message):
        decode(header, memoryview(payload))


@pytest.mark.parametrize(
    "offsets", [[0, 3, 2, 4], [1, 2, 3, 4], [0, 1, 2, 3], [0, 5, 5, 4], [0, 2**63 - 1, -1, 4]]
)
def test_hostile_offsets(offsets: list[int]) -> None:
    part = component(dtype="string", encoding="strings", offsets=[0, 32], offset=64, nbytes=4)
    payload = np.array(offsets, "<i8").tobytes() + bytes(32) + b"abcd"
    with pytest.raises(ChunkError, match="do not rise"):
        decode(chunk_header(3, part), memoryview(payload))


def test_small_frames_never_cost_much_memory() -> None:
    """Announced lengths, counts and shapes do not become allocations."""
    claims = [
        chunk_header(2**60, component(shape=[0])),
        chunk_header(999, component(shape=[2**50])),
        chunk_header(999, component(shape=[0, 2**50])),
        chunk_header(9, component(dtype="string", encoding="strings", shape=[2**40])),
        chunk_header(9, component(**VARYING, ranks=[0, 9], dims=[64, 2**40])),
    ]
    nested = bytearray(b"".join(encode_frame(FrameType.HELLO, {})))
    packed = b"\x81\xa1a" + b"\xdc\x0f\xff" * 5000
    nested[8:12] = struct.pack("<I", len(packed))
    nested[PREFIX_BYTES:] = packed
    frames = [b"".join(encode_frame(FrameType.CHUNK, claim)) for claim in claims]
    tracemalloc.start()
    try:
        for frame in (*frames, resealed(nested)):
            read_all(frame)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 48 << 20, "nested lists of the longest length that is allowed take 32 MiB"
