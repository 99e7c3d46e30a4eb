"""Frames: what stands on a data stream between a client and a worker (DESIGN section 5).

    prefix (32 bytes)   magic, version, type, flags, header length, payload length, checksum
    header              a msgpack map
    payload             raw bytes; where a chunk's components are, its header says

All integers are little-endian. The checksum is xxh3-64 over the rest of the prefix, the header
and the xxh3-64 of the payload (8 bytes). The payload enters by its own hash only, so that whoever
keeps that beside a stored payload can put the payload under another header without reading it.
The payload of a *bare* CHUNK frame (flag 1, for a client that asked for it) does not enter at all:
the hashes of its elements, which the checksum covers, vouch for it, and the client checks these
anyway.

A payload is read straight into its own 64-byte aligned buffer, so what is in it at a multiple of
64 can become a tensor with no copy. Lengths are checked before anything is allocated.

`encode_frame` and `encode_head`, `parse_prefix`, `finish_frame` and `finish_head` do no I/O;
`send_frame` and `read_frame` drive them over a blocking socket, or a file. After any exception
from those two a stream is out of step and must be closed.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
import xxhash

from ..errors import ProtocolError
from .sending import send_buffers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .sending import SendSocket

PROTOCOL_VERSION = 2
MAGIC = b"PNSK"
#: The code of a FAIL frame that answers a HELLO without an acceptable token, or a plain one.
UNAUTHENTICATED = "UNAUTHENTICATED"
ALIGNMENT = 64

_PREFIX = struct.Struct("<4sHBBI4xQ")
_CHECKSUM = struct.Struct("<Q")
PREFIX_BYTES = _PREFIX.size + _CHECKSUM.size
#: A flag: the checksum does not cover the payload.
_BARE = 1
_NO_PAYLOAD = xxhash.xxh3_64_intdigest(b"")
#: Small enough for every TLS library's counters; larger payloads are read in several calls.
_READ_BYTES_MAX = 1 << 28


class FrameType(enum.IntEnum):
    """What a frame says; the headers are listed in docs/protocol.md."""

    HELLO = 1
    WELCOME = 2
    FETCH = 3
    CHUNK = 4
    HASHES = 5
    END = 6
    FAIL = 7
    CREDIT = 8
    RELEASE = 9
    SLOT = 10
    RETURN = 11


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """How much a peer may announce; beyond it a frame is refused before any allocation.

    Attributes:
        header_bytes_max: longest msgpack header.
        payload_bytes_max: longest payload.
        text_bytes_max: longest string in a header.
        items_max: longest list or map in a header. Kept low because msgpack allocates lists by
            their announced length, at every level of nesting.
    """

    header_bytes_max: int = 16 << 20
    payload_bytes_max: int = 4 << 30
    text_bytes_max: int = 1 << 20
    items_max: int = 4096


DEFAULT_LIMITS = FrameLimits()


@dataclass(frozen=True, slots=True)
class Prefix:
    """A checked prefix: what follows it, and the checksum that it must have.

    Attributes:
        type: the frame's type.
        header_bytes: length of the header that follows.
        payload_bytes: length of the payload that follows the header.
        checksum: announced xxh3-64.
        covered: the bytes of the prefix that the checksum covers.
        bare: the checksum does not cover the payload.
    """

    type: FrameType
    header_bytes: int
    payload_bytes: int
    checksum: int
    covered: bytes
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame.

    Attributes:
        type: what it says.
        header: decoded msgpack map; its keys are strings, its values are the peer's word only.
        payload: raw bytes, 64-byte aligned if `aligned_empty` made them.
        bare: only the hashes in the header vouch for the payload.
    """

    type: FrameType
    header: dict[str, Any]
    payload: memoryview = field(repr=False)
    bare: bool = False


def aligned_empty(nbytes: int) -> memoryview:
    """A writable buffer of `nbytes` uninitialised bytes that begins at a multiple of 64."""
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    skip = -raw.ctypes.data % ALIGNMENT
    return raw[skip : skip + nbytes].data


def encode_frame(
    type_: FrameType,
    header: dict[str, Any],
    buffers: Sequence[bytes | memoryview] = (),
    *,
    limits: FrameLimits = DEFAULT_LIMITS,
    bare: bool = False,
) -> list[bytes | memoryview]:
    """A frame as buffers to be sent one after the other; the payload's memory is not copied.

    Args:
        type_: what the frame says.
        header: a map with string keys, of values that msgpack packs.
        buffers: the payload, in C-contiguous parts.
        limits: what the peer accepts.
        bare: of a CHUNK frame: the checksum does not cover the payload.

    Raises:
        ProtocolError: header or payload are longer than the limits.
    """
    payload = [view for view in map(_as_bytes, buffers) if view.nbytes]
    nbytes = sum(view.nbytes for view in payload)
    digest = None if bare else payload_digest(payload)
    return [*encode_head(type_, header, nbytes, digest, limits=limits), *payload]


def payload_digest(buffers: Iterable[bytes | memoryview]) -> int:
    """The xxh3-64 of a payload, by which it enters its frame's checksum.

    Args:
        buffers: the payload, in C-contiguous parts.
    """
    digest = xxhash.xxh3_64()
    for view in map(_as_bytes, buffers):
        digest.update(view)
    return digest.intdigest()


def encode_head(
    type_: FrameType,
    header: dict[str, Any],
    payload_bytes: int,
    payload_digest: int | None,
    *,
    limits: FrameLimits = DEFAULT_LIMITS,
) -> list[bytes]:
    """What stands before a payload in its frame: the prefix and the packed header.

    Args:
        type_: what the frame says.
        header: a map with string keys, of values that msgpack packs.
        payload_bytes: length of the payload that will follow.
        payload_digest: its xxh3-64, as the function of that name has it; None for a bare frame.
        limits: what the peer accepts.

    Raises:
        ProtocolError: header or payload are longer than the limits.
    """
    packed: bytes = msgpack.packb(header, use_bin_type=True)
    _check_lengths(type_, len(packed), payload_bytes, limits)
    flags, digest = (_BARE, _NO_PAYLOAD) if payload_digest is None else (0, payload_digest)
    covered = _PREFIX.pack(MAGIC, PROTOCOL_VERSION, type_, flags, len(packed), payload_bytes)
    return [covered + _CHECKSUM.pack(_checksum(covered, packed, digest)), packed]


def parse_prefix(
    data: bytes | bytearray | memoryview,
    limits: FrameLimits = DEFAULT_LIMITS,
    *,
    bare: bool = False,
) -> Prefix:
    """Checks the first `PREFIX_BYTES` bytes of a frame.

    Args:
        data: begins with them.
        limits: what is accepted.
        bare: whether bare CHUNK frames are; whoever takes them has to check the elements' hashes.

    Raises:
        ProtocolError: not a frame, another version, an unknown type or flag, or too long.
    """
    if len(data) < PREFIX_BYTES:
        raise ProtocolError(f"{len(data)} bytes are not a frame's prefix of {PREFIX_BYTES}")
    magic, version, type_, flags, header_bytes, payload_bytes = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        if magic[:2] == b"\x16\x03":
            raise ProtocolError("the peer speaks TLS, and this side has no certificate for it")
        raise ProtocolError(f"this is not a penstock data stream: it begins with {magic!r}")
    if version != PROTOCOL_VERSION:
        raise ProtocolError(
            f"the peer speaks version {version} of the data protocol, this side"
            f" {PROTOCOL_VERSION}: run the same release of penstock on both"
        )
    if flags and (flags != _BARE or type_ != FrameType.CHUNK or not bare):
        raise ProtocolError(f"flags {flags:#04x} of a frame of type {type_} were not asked for")
    try:
        known = FrameType(type_)
    except ValueError:
        raise ProtocolError(f"there is no frame of type {type_}") from None
    _check_lengths(known, header_bytes, payload_bytes, limits)
    (checksum,) = _CHECKSUM.unpack_from(data, _PREFIX.size)
    covered = bytes(data[: _PREFIX.size])
    return Prefix(known, header_bytes, payload_bytes, checksum, covered, bool(flags))


def finish_frame(
    prefix: Prefix,
    header: bytes | bytearray | memoryview,
    payload: memoryview,
    limits: FrameLimits = DEFAULT_LIMITS,
) -> Frame:
    """Checks and decodes what followed `prefix`.

    Raises:
        ProtocolError: the checksum is wrong or the header is not a msgpack map with string keys.
    """
    digest = _NO_PAYLOAD if prefix.bare else payload_digest([payload])
    return Frame(prefix.type, finish_head(prefix, header, digest, limits), payload, prefix.bare)


def finish_head(
    prefix: Prefix,
    header: bytes | bytearray | memoryview,
    payload_digest: int,
    limits: FrameLimits = DEFAULT_LIMITS,
) -> dict[str, Any]:
    """The decoded header of a frame whose payload is known by its xxh3-64 only.

    Raises:
        ProtocolError: as `finish_frame`.
    """
    if _checksum(prefix.covered, header, payload_digest) != prefix.checksum:
        raise ProtocolError(f"a {prefix.type.name} frame was damaged on its way: wrong checksum")
    return _unpack_header(header, limits)


def send_frame(
    sock: SendSocket,
    type_: FrameType,
    header: dict[str, Any],
    buffers: Sequence[bytes | memoryview] = (),
    *,
    limits: FrameLimits = DEFAULT_LIMITS,
    bare: bool = False,
) -> int:
    """Sends one frame over a blocking socket, straight from the buffers' memory.

    Returns:
        The number of bytes sent.

    Raises:
        ProtocolError: as `encode_frame`; nothing has been sent.
        OSError: from the socket.
    """
    return send_buffers(sock, encode_frame(type_, header, buffers, limits=limits, bare=bare))


def read_frame(
    recv_into: Callable[[memoryview], int],
    limits: FrameLimits = DEFAULT_LIMITS,
    allocate: Callable[[int], memoryview] = aligned_empty,
    *,
    bare: bool = False,
) -> Frame | None:
    """Reads one frame, blocking.

    Args:
        recv_into: fills a buffer at least in part and returns how much, 0 at the end; a blocking
            socket's `recv_into`, or a file's `readinto`.
        limits: what is accepted.
        allocate: makes the payload's buffer: writable, of exactly the length asked for.
        bare: as `parse_prefix`.

    Returns:
        The frame, or None if the stream ended before its first byte.

    Raises:
        ProtocolError: not a frame of this version within the limits, or the stream ended in it.
        OSError: from the socket. A TimeoutError may be retried only if it came between frames.
    """
    start = bytearray(PREFIX_BYTES)
    got = recv_into(memoryview(start))
    if got == 0:
        return None
    _fill(recv_into, memoryview(start)[got:], "prefix")
    prefix = parse_prefix(start, limits, bare=bare)
    header = bytearray(prefix.header_bytes)
    _fill(recv_into, memoryview(header), "header")
    payload = allocate(prefix.payload_bytes) if prefix.payload_bytes else memoryview(b"")
    _fill(recv_into, payload, "payload")
    return finish_frame(prefix, header, payload, limits)


def _as_bytes(buffer: bytes | memoryview) -> memoryview:
    view = memoryview(buffer)
    # A view of no bytes cannot always be cast, and is left out anyway.
    return view.cast("B") if view.nbytes else memoryview(b"")


def _checksum(covered: bytes, header: bytes | bytearray | memoryview, payload_digest: int) -> int:
    checksum = xxhash.xxh3_64(covered)
    checksum.update(header)
    checksum.update(_CHECKSUM.pack(payload_digest))
    return checksum.intdigest()


def _check_lengths(
    type_: FrameType, header_bytes: int, payload_bytes: int, limits: FrameLimits
) -> None:
    if header_bytes > limits.header_bytes_max:
        raise ProtocolError(
            f"the header of a {type_.name} frame has {header_bytes} bytes,"
            f" {limits.header_bytes_max} are allowed"
        )
    if payload_bytes > limits.payload_bytes_max:
        raise ProtocolError(
            f"the payload of a {type_.name} frame has {payload_bytes} bytes,"
            f" {limits.payload_bytes_max} are allowed"
        )


def _unpack_header(data: bytes | bytearray | memoryview, limits: FrameLimits) -> dict[str, Any]:
    try:
        header = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_str_len=limits.text_bytes_max,
            max_bin_len=limits.header_bytes_max,
            max_array_len=limits.items_max,
            max_map_len=limits.items_max,
            max_ext_len=0,
        )
    # RecursionError is what the pure-Python fallback of msgpack raises for deep nesting.
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        reason = str(error) or type(error).__name__
        raise ProtocolError(f"a frame's header is not msgpack: {reason}") from error
    if not isinstance(header, dict) or not all(isinstance(key, str) for key in header):
        raise ProtocolError("a frame's header is not a map with string keys")
    return header


def _fill(recv_into: Callable[[memoryview], int], buffer: memoryview, what: str) -> None:
    done = 0
    while done < len(buffer):
        got = recv_into(buffer[done : done + _READ_BYTES_MAX])
        if got == 0:
            missing = len(buffer) - done
            raise ProtocolError(f"the stream ended {missing} bytes before the end of a {what}")
        done += got
