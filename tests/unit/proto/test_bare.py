"""Bare frames: nothing but the elements' hashes vouches for a payload, and that is enough."""

from __future__ import annotations

import io
import struct

import pytest

from penstock.errors import ChunkError, ProtocolError, VerificationError
from penstock.proto.chunk import Chunk, decode, encode
from penstock.proto.wire import (
    PREFIX_BYTES,
    PROTOCOL_VERSION,
    FrameLimits,
    FrameType,
    encode_frame,
    encode_head,
    parse_prefix,
    read_frame,
)

from .elements import mixed_chunk

#: A length that a flipped bit has made longer is refused before it is allocated.
LIMITS = FrameLimits(header_bytes_max=1 << 14, payload_bytes_max=1 << 14)


def sent(chunk: Chunk) -> bytes:
    header, buffers = encode(chunk, {"attempt": 1})
    return b"".join(encode_frame(FrameType.CHUNK, header, buffers, bare=True))


def received(data: bytes) -> Chunk:
    """What a client does with a chunk."""
    frame = read_frame(io.BytesIO(data).readinto, LIMITS, bare=True)
    assert frame is not None
    chunk = decode(frame.header, frame.payload)
    chunk.verify()
    return chunk


def test_a_bare_frame_is_the_same_but_for_its_flag_and_checksum() -> None:
    header, payload = {"attempt": 7}, [b"pay", b"load"]
    bare = b"".join(encode_frame(FrameType.CHUNK, header, payload, bare=True))
    covered = b"".join(encode_frame(FrameType.CHUNK, header, payload))
    assert bare[:7] == covered[:7]
    assert (bare[7], covered[7]) == (1, 0)
    assert (bare[8:24], bare[32:]) == (covered[8:24], covered[32:])
    assert bare[24:32].hex() == "ea38b4cd895cca32"
    assert b"".join(encode_head(FrameType.CHUNK, header, 7, None)) == bare[:-7]
    frame = read_frame(io.BytesIO(bare).readinto, bare=True)
    assert frame is not None
    assert (frame.header, bytes(frame.payload), frame.bare) == (header, b"payload", True)


def test_a_flipped_bit_is_found_wherever_it_is() -> None:
    chunk = mixed_chunk()
    data = sent(chunk)
    assert received(data).hashes.tolist() == chunk.hashes.tolist()
    for at in range(len(data)):
        spoiled = bytearray(data)
        spoiled[at] ^= 1 << at % 8
        with pytest.raises((ProtocolError, ChunkError, VerificationError)):
            received(bytes(spoiled))


def test_a_flipped_byte_of_an_element_is_named() -> None:
    data = bytearray(sent(mixed_chunk()))
    begin = PREFIX_BYTES + parse_prefix(data, bare=True).header_bytes
    data[begin + 2 * 24] ^= 0x10  # of the first component, which has 24 bytes an element
    with pytest.raises(VerificationError, match="element 102 is not what was sent"):
        received(bytes(data))


def test_a_bare_frame_that_nobody_asked_for_is_refused() -> None:
    with pytest.raises(ProtocolError, match="not asked for"):
        read_frame(io.BytesIO(sent(mixed_chunk())).readinto)


@pytest.mark.parametrize(("type_", "flags"), [(FrameType.HASHES, 1), (FrameType.CHUNK, 3)])
def test_only_the_payload_of_a_chunk_can_go_uncovered(type_: FrameType, flags: int) -> None:
    prefix = struct.pack("<4sHBBI4xQQ", b"PNSK", PROTOCOL_VERSION, type_, flags, 1, 8, 0)
    with pytest.raises(ProtocolError, match="not asked for"):
        parse_prefix(prefix, bare=True)
