"""Frames: sent whole whatever the socket does, and refused unless whole and right."""

from __future__ import annotations

import dataclasses
import io
import os
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ProtocolError
from penstock.proto.chunk import decode, encode
from penstock.proto.wire import (
    DEFAULT_LIMITS,
    PREFIX_BYTES,
    PROTOCOL_VERSION,
    Frame,
    FrameLimits,
    FrameType,
    aligned_empty,
    encode_frame,
    encode_head,
    finish_frame,
    finish_head,
    parse_prefix,
    payload_digest,
    read_frame,
    send_frame,
)

from .elements import mixed_chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
headers = st.dictionaries(st.text(), values, max_size=5)


def frame_bytes(type_: FrameType, header: dict[str, Any], *buffers: bytes) -> bytes:
    return b"".join(encode_frame(type_, header, buffers))


def read(data: bytes, limits: FrameLimits = DEFAULT_LIMITS) -> Frame | None:
    return read_frame(io.BytesIO(data).readinto, limits)


def refuse_to_allocate(nbytes: int) -> memoryview:
    raise AssertionError(f"{nbytes} bytes were asked for")


@given(st.sampled_from(FrameType), headers, st.lists(st.binary(), max_size=5))
def test_a_frame_comes_back(type_: FrameType, header: dict, buffers: list[bytes]) -> None:
    frame = read(frame_bytes(type_, header, *buffers))
    assert frame is not None
    assert (frame.type, frame.header) == (type_, header)
    assert bytes(frame.payload) == b"".join(buffers)
    if frame.payload.nbytes:
        assert np.frombuffer(frame.payload, np.uint8).ctypes.data % 64 == 0


@given(st.lists(st.binary(max_size=50), max_size=4), st.integers(1, 40))
def test_frames_follow_each_other_however_few_bytes_arrive_at_once(
    payloads: list[bytes], step: int
) -> None:
    parts = [frame_bytes(FrameType.CHUNK, {"n": n}, data) for n, data in enumerate(payloads)]
    file = io.BytesIO(b"".join(parts))

    def few(buffer: memoryview) -> int:
        return file.readinto(buffer[:step])

    for number, data in enumerate(payloads):
        frame = read_frame(few)
        assert frame is not None
        assert frame.header == {"n": number}
        assert bytes(frame.payload) == data
    assert read_frame(few) is None


def test_the_parts_do_without_io() -> None:
    data = frame_bytes(FrameType.END, {"count": 3}, b"abc")
    prefix = parse_prefix(data[:PREFIX_BYTES])
    end = PREFIX_BYTES + prefix.header_bytes
    frame = finish_frame(prefix, data[PREFIX_BYTES:end], memoryview(data)[end:])
    assert (frame.type, frame.header, bytes(frame.payload)) == (FrameType.END, {"count": 3}, b"abc")


def test_these_are_the_bytes_of_version_2() -> None:
    data = frame_bytes(FrameType.CHUNK, {"attempt": 7}, b"pay", b"load")
    covered = bytes.fromhex("504e534b 0200 04 00 0a000000 00000000 0700000000000000")
    packed = b"\x81\xa7attempt\x07"
    assert data == b"".join(
        [covered, struct.pack("<Q", checksum(covered, packed, b"payload")), packed, b"payload"]
    )
    assert data[24:32].hex() == "a27f4eb1efdbca34"


@given(headers, headers, st.lists(st.binary(max_size=90), max_size=4))
def test_a_payload_goes_under_another_header_without_being_read(
    one: dict, other: dict, buffers: list[bytes]
) -> None:
    digest = payload_digest(buffers)
    assert digest == payload_digest([b"".join(buffers)])
    nbytes = sum(map(len, buffers))
    for header in (one, other):
        head = b"".join(encode_head(FrameType.CHUNK, header, nbytes, digest))
        assert head + b"".join(buffers) == frame_bytes(FrameType.CHUNK, header, *buffers)
        prefix = parse_prefix(head)
        assert finish_head(prefix, head[PREFIX_BYTES:], digest) == header
        with pytest.raises(ProtocolError, match="wrong checksum"):
            finish_head(prefix, head[PREFIX_BYTES:], digest ^ 1)


def test_parts_of_a_payload_may_have_any_shape() -> None:
    array = np.arange(12, dtype=np.int32).reshape(3, 4)
    parts = [array.data, b"", np.empty((0, 3)).data, array.data]
    assert payload_digest(parts) == payload_digest([array.tobytes() * 2])
    assert payload_digest([]) == xxhash.xxh3_64_intdigest(b"")


@pytest.mark.parametrize("nbytes", [0, 1, 63, 64, 65, 1 << 20])
def test_buffers_are_aligned(nbytes: int) -> None:
    buffers = [aligned_empty(nbytes) for _ in range(5)]
    for buffer in buffers:
        assert (buffer.nbytes, buffer.format, buffer.readonly) == (nbytes, "B", False)
        assert nbytes == 0 or np.frombuffer(buffer, np.uint8).ctypes.data % 64 == 0


def test_payload_memory_is_not_copied_for_sending() -> None:
    array = np.zeros((100, 10), np.float64)
    parts = encode_frame(FrameType.CHUNK, {}, [array.data, b"", np.empty((0, 3)).data])
    assert len(parts) == 3
    assert np.frombuffer(parts[2], np.uint8).ctypes.data == array.ctypes.data


# --- what is refused ----------------------------------------------------------------------------


def test_every_cut_is_noticed() -> None:
    data = frame_bytes(FrameType.CHUNK, {"attempt": 1}, b"payload")
    assert read(b"") is None
    for length in range(1, len(data)):
        with pytest.raises(ProtocolError, match="the stream ended"):
            read(data[:length])


def test_every_changed_bit_is_noticed() -> None:
    data = frame_bytes(FrameType.CHUNK, {"attempt": 1}, b"payload")
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ProtocolError):
            read(bytes(damaged))


def test_another_version_is_named_with_ours() -> None:
    data = bytearray(frame_bytes(FrameType.HELLO, {}))
    data[4] = 77
    with pytest.raises(ProtocolError, match=rf"version 77 .* {PROTOCOL_VERSION}:"):
        read(bytes(data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"GET / HTTP/1.1\r\nHost: example\r\n\r\n", "not a penstock data stream"),
        (b"PNSK\x02\x00\x63\x00" + bytes(24), "no frame of type 99"),
        (b"PNSK\x02\x00\x04\x02" + bytes(24), "flags 0x02"),
        (b"PNSK\x02\x00\x04\x00" + b"\xff" * 24, "header of a CHUNK frame has 4294967295"),
        (b"PNSK\x02\x00\x04\x00" + bytes(8) + b"\xff" * 16, "payload of a CHUNK frame has 1844"),
    ],
)
def test_what_is_no_frame_is_refused_before_anything_is_allocated(
    data: bytes, message: str
) -> None:
    with pytest.raises(ProtocolError, match=message):
        read_frame(io.BytesIO(data).readinto, DEFAULT_LIMITS, refuse_to_allocate)


def test_limits_hold_on_both_sides() -> None:
    limits = FrameLimits(header_bytes_max=20, payload_bytes_max=10)
    with pytest.raises(ProtocolError, match="payload of a CHUNK frame has 11 bytes, 10"):
        encode_frame(FrameType.CHUNK, {}, [b"12345", b"678901"], limits=limits)
    with pytest.raises(ProtocolError, match="header of a FAIL frame has"):
        encode_frame(FrameType.FAIL, {"detail": "x" * 30}, limits=limits)
    with pytest.raises(ProtocolError, match="payload of a CHUNK frame has 11 bytes, 10"):
        encode_head(FrameType.CHUNK, {}, 11, 0, limits=limits)
    read(frame_bytes(FrameType.CHUNK, {}, b"1234567890"), limits)
    for data in (b"12345678901", b""):
        with pytest.raises(ProtocolError, match="are allowed"):
            read(frame_bytes(FrameType.CHUNK, {"detail": "x" * (0 if data else 30)}, data), limits)


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\x00",  # an integer
        b"\x90",  # a list
        b"\xc0",
        b"\x81\x01\x02",  # a key that is an integer
        b"\x81\xc4\x01a\x02",  # a key of bytes
        b"\x80\x80",  # more than one value
        b"\x81\xa1\xff\x01",  # no UTF-8
        b"\x81\xa1a\xd6\xff\x00\x00\x00\x00",  # an extension: a time stamp
        b"\x81\xa1a\xdd\xff\xff\xff\xff",  # a list that announces 2**32 items
        b"\x81\xa1a" + b"\xdc\x0f\xff" * 5000,  # lists in lists in lists
        b"\x81\xa1a" + b"\xdf\xff\xff\xff\xff",
    ],
)
def test_a_header_is_a_map_with_string_keys(packed: bytes) -> None:
    data = with_header(packed)
    with pytest.raises(ProtocolError, match="header is not"):
        read(data)


def with_header(packed: bytes) -> bytes:
    """A frame with right lengths and checksum around any header."""
    covered = struct.pack("<4sHBBI4xQ", b"PNSK", PROTOCOL_VERSION, 4, 0, len(packed), 0)
    return covered + struct.pack("<Q", checksum(covered, packed, b"")) + packed


def checksum(covered: bytes, packed: bytes, payload: bytes) -> int:
    """The definition of a frame's checksum, word for word."""
    digest = struct.pack("<Q", xxhash.xxh3_64_intdigest(payload))
    return xxhash.xxh3_64_intdigest(covered + packed + digest)


# --- sockets ------------------------------------------------------------------------------------


def through_sockets(send: Callable[[socket.socket], Any], frames: int = 1) -> list[Frame]:
    """What arrives at the other end of a socket pair with small buffers."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for end in (ours, theirs):
            end.settimeout(60)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        thread = threading.Thread(target=send, args=(ours,))
        thread.start()
        got = [read_frame(theirs.recv_into) for _ in range(frames)]
        thread.join()
        ours.close()
        assert read_frame(theirs.recv_into) is None
    assert all(frame is not None for frame in got)
    return [frame for frame in got if frame is not None]


def test_partial_sends_and_more_buffers_than_one_call_takes() -> None:
    random = np.random.default_rng(1)
    buffers = [random.bytes(int(random.integers(0, 2000))) for _ in range(5000)]
    sent = []

    def send(sock: socket.socket) -> None:
        sent.append(send_frame(sock, FrameType.CHUNK, {"a": 1}, buffers))
        sent.append(send_frame(sock, FrameType.END, {"b": 2}))

    first, second = through_sockets(send, 2)
    assert bytes(first.payload) == b"".join(buffers)
    assert (second.type, second.header, len(second.payload)) == (FrameType.END, {"b": 2}, 0)
    assert sent == [
        len(frame_bytes(FrameType.CHUNK, {"a": 1}, *buffers)),
        len(frame_bytes(FrameType.END, {"b": 2})),
    ]


def test_a_chunk_goes_through_a_socket_and_its_parts_arrive_aligned() -> None:
    chunk = mixed_chunk()
    header, buffers = encode(chunk, {"epoch": 2, "split": 3, "attempt": 4})
    (frame,) = through_sockets(lambda sock: send_frame(sock, FrameType.CHUNK, header, buffers))
    assert frame.header["attempt"] == 4
    arrived = decode(frame.header, frame.payload)
    arrived.verify()
    assert arrived.hashes.tolist() == chunk.hashes.tolist()
    assert arrived.columns[0].stack(0, 12).ctypes.data % 64 == 0


class StutteringSocket:
    """Takes at most `step` bytes in a call, and as many buffers as the system allows."""

    def __init__(self, step: int, buffers_max: int) -> None:
        self.step, self.buffers_max, self.taken = step, buffers_max, bytearray()

    def sendmsg(self, buffers: Iterable[bytes | memoryview], /) -> int:
        buffers = list(buffers)
        assert 0 < len(buffers) <= self.buffers_max
        part = b"".join(buffers)[: self.step]
        self.taken += part
        return len(part)

    def sendall(self, data: bytes | memoryview, /) -> None:
        raise AssertionError("not wanted")


class TlsLikeSocket:
    """Can only send one buffer at a time, as `ssl.SSLSocket`."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def sendmsg(self, buffers: Iterable[bytes | memoryview], /) -> int:
        raise NotImplementedError  # as the real one does

    def sendall(self, data: bytes | memoryview, /) -> None:
        self.sent.append(bytes(data))


@given(st.lists(st.binary(max_size=20), max_size=60), st.integers(1, 30))
def test_any_partial_send(buffers: list[bytes], step: int) -> None:
    sock = StutteringSocket(step, 1024)
    send_frame(sock, FrameType.CHUNK, {}, buffers)
    assert bytes(sock.taken) == frame_bytes(FrameType.CHUNK, {}, *buffers)


def test_never_more_buffers_than_the_system_takes() -> None:
    sock = StutteringSocket(100, os.sysconf("SC_IOV_MAX"))
    buffers = [bytes([n % 256]) for n in range(3000)]
    send_frame(sock, FrameType.CHUNK, {}, buffers)
    assert bytes(sock.taken) == frame_bytes(FrameType.CHUNK, {}, *buffers)


@given(st.lists(st.sampled_from([0, 1, 64, 1000, 65_535, 65_536, 100_000]), max_size=12))
def test_small_buffers_are_joined_where_vectors_cannot_be_sent(sizes: list[int]) -> None:
    sock, buffers = TlsLikeSocket(), [bytes([n]) * size for n, size in enumerate(sizes)]
    send_frame(sock, FrameType.CHUNK, {}, buffers)
    assert b"".join(sock.sent) == frame_bytes(FrameType.CHUNK, {}, *buffers)
    assert all(sock.sent)


def test_limits_are_values() -> None:
    assert dataclasses.replace(DEFAULT_LIMITS, items_max=7).items_max == 7
