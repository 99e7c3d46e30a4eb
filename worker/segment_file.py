"""The bytes of a segment file; checks everything before it believes anything.

    head      magic, length, checksum                        24 bytes
              what the file is of                            msgpack
    frames    CHUNK frames as they are on the wire, each after as few zeros as bring its payload
              to a multiple of 64
    footer    of each frame: lengths of header and payload, number of elements, and the xxh3-64
              of the payload                                 4 times 8 bytes
              of each element: its hash                      8 bytes
    trailer   where the footer begins, numbers of frames and elements, total and chain of their
              digest, the footer's checksum, its own, magic  64 bytes

Integers are little-endian, checksums xxh3-64. That of the head covers all of the head and is the
file's *seal*: it seeds those of footer and trailer. As the head holds a random id, no part of
another file fits. Frames have checksums of their own, into which payloads enter by the hashes
that the footer holds. Where frames are follows from their lengths, so there is one valid layout.
A file that is not finished ends among its frames, or in its footer.
"""

from __future__ import annotations

import re
import struct
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
import xxhash

from ..errors import PenstockError, ProtocolError, UsageError
from ..proto.hashing import Digest, DigestBuilder
from ..proto.wire import (
    ALIGNMENT,
    PREFIX_BYTES,
    PROTOCOL_VERSION,
    FrameType,
    finish_head,
    parse_prefix,
)
from .segment_frames import ROW_BYTES, Frames, place, rows_of
from .segment_frames import FrameEntry as FrameEntry  # it is a word of the format

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from ..proto.hashing import Hashes

#: The last characters are the format's version.
MAGIC = b"pstksg01"
END_MAGIC = b"pstkse01"
HEAD_BYTES_MAX = 1 << 12
#: Split numbers, and what else has to fit into a signed 64-bit integer.
_NUMBER_MAX = (1 << 63) - 1
_HASH_BYTES = 8
#: Payloads are read in pieces that stay in the processor's cache while they are hashed.
_PIECE_BYTES = 1 << 17
_BEGIN = struct.Struct("<8sQ")
_TRAILER = struct.Struct("<QQQQQQ")
_SUM = struct.Struct("<Q")
_HEAD_BYTES = _BEGIN.size + _SUM.size
TRAILER_BYTES = _TRAILER.size + _SUM.size + len(END_MAGIC)
_KEY = re.compile(r"[0-9a-f]{1,128}")
_STAMP = re.compile(r"[0-9a-f]{1,64}")
_ID = re.compile(r"[0-9a-f]{16}")
_TEXT_MAX = 256


class DamagedSegmentError(PenstockError):
    """A file is not a segment, or not as it was written; the message names it."""

    exit_code = 5


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """What a segment holds the elements of.

    Attributes:
        cache_key: of the cached part of a pipeline: hexadecimal, 128 digits at most.
        split: which split of it.
        stamp: of the split's sources, so that elements of older ones are not taken for theirs:
            hexadecimal, 64 digits at most; "0" where there are none.

    Raises:
        UsageError: one of them is not of that kind.
    """

    cache_key: str
    split: int
    stamp: str

    def __post_init__(self) -> None:
        """Names of files are made of these, so nothing else may be in them."""
        texts = isinstance(self.cache_key, str) and isinstance(self.stamp, str)
        if not texts or not _KEY.fullmatch(self.cache_key) or not _STAMP.fullmatch(self.stamp):
            raise UsageError(f"{self.cache_key!r:.80} and {self.stamp!r:.80} are not hexadecimal")
        if type(self.split) is not int or not 0 <= self.split <= _NUMBER_MAX:
            raise UsageError(f"{self.split!r:.40} is not a split's number")

    def __str__(self) -> str:
        return f"split {self.split} (sources {self.stamp}) of cache key {self.cache_key}"


@dataclass(frozen=True, slots=True)
class Source:
    """A file that can be read at any place; what is wrong with it is told with its name.

    Attributes:
        path: its name, for messages.
        size: its length; no more is read.
        read_at: returns so many bytes from there on, fewer at its end.
    """

    path: Path
    size: int
    read_at: Callable[[int, int], bytes]

    def read(self, offset: int, nbytes: int) -> bytes:
        """Exactly these bytes.

        Raises:
            DamagedSegmentError: it ends before; nothing was allocated for what it cannot have.
            OSError: it cannot be read.
        """
        missing = offset + nbytes - self.size
        if missing <= 0:
            data = self.read_at(offset, nbytes)
            missing = nbytes - len(data)
        if missing > 0:
            raise self.damaged(f"it ends {missing} bytes early")
        return data

    def digest(self, offset: int, nbytes: int) -> int:
        """The xxh3-64 of these bytes; raises as `read`."""
        digest, end = xxhash.xxh3_64(), offset + nbytes
        for at in range(offset, end, _PIECE_BYTES):
            digest.update(self.read(at, min(_PIECE_BYTES, end - at)))
        return digest.intdigest()

    def damaged(self, why: str) -> DamagedSegmentError:
        """The error that says so."""
        return DamagedSegmentError(f"segment {self.path}: {why}")


@dataclass(frozen=True, slots=True)
class Head:
    """What a file is of.

    Attributes:
        name: of its content.
        id: 16 random hexadecimal digits, which tell two files of one name apart.
        tensorflow: the release that made the elements.
        protocol: version of the data protocol whose frames these are.
    """

    name: SegmentName
    id: str
    tensorflow: str
    protocol: int = PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class Opening:
    """A head as it stands in a file.

    Attributes:
        head: what it says.
        nbytes: its length.
        seal: its checksum.
    """

    head: Head
    nbytes: int
    seal: int


def pack_head(head: Head) -> tuple[bytes, Opening]:
    """The first bytes of a file.

    Raises:
        ValueError: they are more than a reader would accept.
    """
    packed: bytes = msgpack.packb(asdict(head))
    if len(packed) > HEAD_BYTES_MAX or len(head.tensorflow) > _TEXT_MAX:
        raise ValueError(f"a head of {len(packed)} bytes")
    begin = _BEGIN.pack(MAGIC, len(packed))
    seal = xxhash.xxh3_64_intdigest(begin + packed)
    return begin + _SUM.pack(seal) + packed, Opening(head, _HEAD_BYTES + len(packed), seal)


def read_opening(source: Source) -> Opening:
    """Reads a file's head.

    Raises:
        DamagedSegmentError: it is not that of a segment that can be read.
        OSError: it cannot be read.
    """
    begin = source.read(0, min(source.size, _HEAD_BYTES))
    if len(begin) < _HEAD_BYTES or not begin.startswith(MAGIC):
        raise source.damaged("it does not begin as a segment of this version does")
    _, nbytes = _BEGIN.unpack_from(begin)
    (seal,) = _SUM.unpack_from(begin, _BEGIN.size)
    if nbytes > HEAD_BYTES_MAX:
        raise source.damaged(f"it announces a head of {nbytes} bytes, which is too much")
    packed = source.read(_HEAD_BYTES, nbytes)
    if xxhash.xxh3_64_intdigest(begin[: _BEGIN.size] + packed) != seal:
        raise source.damaged("its head's checksum does not fit")
    try:
        head = _head(msgpack.unpackb(packed))
    except (ValueError, KeyError, TypeError, msgpack.UnpackException) as error:
        raise source.damaged(f"its head is none: {error!r}") from error
    if head.protocol != PROTOCOL_VERSION:
        raise source.damaged(
            f"its frames are of version {head.protocol} of the data protocol, not"
            f" {PROTOCOL_VERSION}: another release of penstock wrote it"
        )
    return Opening(head, _HEAD_BYTES + nbytes, seal)


def _head(fields: Any) -> Head:
    name = fields["name"]
    id_, tensorflow, protocol = fields["id"], fields["tensorflow"], fields["protocol"]
    if not _ID.fullmatch(id_) or len(tensorflow) > _TEXT_MAX or type(protocol) is not int:
        raise ValueError(f"{fields!r:.200}")
    return Head(
        SegmentName(name["cache_key"], name["split"], name["stamp"]), id_, str(tensorflow), protocol
    )


@dataclass(frozen=True, slots=True)
class Trailer:
    """What stands at the end of a finished file.

    Attributes:
        offset: where the footer begins.
        frames: how many there are.
        digest: of all elements.
        footer_sum: the footer's checksum.
    """

    offset: int
    frames: int
    digest: Digest
    footer_sum: int


def footer_bytes(frames: int, elements: int) -> int:
    """Length of footer and trailer together."""
    return ROW_BYTES * frames + _HASH_BYTES * elements + TRAILER_BYTES


def pack_footer(
    opening: Opening, offset: int, entries: Sequence[FrameEntry], hashes: Hashes, digest: Digest
) -> bytes:
    """Footer and trailer of a file.

    Args:
        opening: its head.
        offset: where its last frame ends.
        entries: its frames.
        hashes: of all elements, uint64.
        digest: of all elements.
    """
    footer = rows_of(entries).tobytes() + np.ascontiguousarray(hashes, "<u8").tobytes()
    footer_sum = xxhash.xxh3_64_intdigest(footer, seed=opening.seal)
    trailer = _TRAILER.pack(
        offset, len(entries), digest.count, digest.total, digest.chain, footer_sum
    )
    own = _SUM.pack(xxhash.xxh3_64_intdigest(trailer, seed=opening.seal))
    return footer + trailer + own + END_MAGIC


def read_trailer(source: Source, opening: Opening) -> Trailer:
    """Reads the end of a finished file; as `read_opening`."""
    raw = source.read(max(opening.nbytes, source.size - TRAILER_BYTES), TRAILER_BYTES)
    if not raw.endswith(END_MAGIC):
        raise source.damaged("it does not end as a finished segment does")
    (own,) = _SUM.unpack_from(raw, _TRAILER.size)
    if xxhash.xxh3_64_intdigest(raw[: _TRAILER.size], seed=opening.seal) != own:
        raise source.damaged("its trailer's checksum does not fit")
    offset, frames, elements, total, chained, footer_sum = _TRAILER.unpack_from(raw)
    announced = offset + footer_bytes(frames, elements)
    if source.size != announced or offset < opening.nbytes:
        raise source.damaged(f"it has {source.size} bytes and announces {announced}")
    return Trailer(offset, frames, Digest(elements, total, chained), footer_sum)


def read_footer(source: Source, opening: Opening, trailer: Trailer) -> tuple[Frames, Hashes]:
    """Where the frames are, and the hashes of all elements, which have the trailer's digest.

    Raises:
        DamagedSegmentError: it is not a footer of that file.
        OSError: it cannot be read.
    """
    elements = trailer.digest.count
    footer = source.read(trailer.offset, footer_bytes(trailer.frames, elements) - TRAILER_BYTES)
    if xxhash.xxh3_64_intdigest(footer, seed=opening.seal) != trailer.footer_sum:
        raise source.damaged("its footer's checksum does not fit")
    begin = ROW_BYTES * trailer.frames
    try:
        frames = Frames(opening.nbytes, footer[:begin], source.size, elements)
    except ValueError as error:
        raise source.damaged(str(error)) from error
    if frames.end != trailer.offset or frames.elements != elements:
        raise source.damaged(
            f"its frames hold {frames.elements} elements and end at byte {frames.end}, not"
            f" {elements} and {trailer.offset}"
        )
    hashes = np.frombuffer(footer, "<u8", offset=begin).astype(np.uint64, copy=False)
    builder = DigestBuilder()
    builder.update(hashes)
    if builder.digest() != trailer.digest:
        raise source.damaged("its elements' hashes do not have its digest")
    return frames, hashes


def elements_of(header: Mapping[str, Any]) -> tuple[int, int, Hashes]:
    """Which elements a CHUNK header says its frame holds: the first, how many, and their hashes.

    Raises:
        ValueError: it does not say that.
    """
    start, count, hashes = header.get("start"), header.get("count"), header.get("hashes")
    if type(start) is not int or type(count) is not int or start < 0 or count < 1:
        raise ValueError(f"start {start!r:.40} and count {count!r:.40} are not a range")
    if not isinstance(hashes, bytes) or len(hashes) != _HASH_BYTES * count:
        raise ValueError(f"there are not the hashes of {count} elements")
    return start, count, np.frombuffer(hashes, "<u8").astype(np.uint64, copy=False)


def read_header(source: Source, entry: FrameEntry) -> dict[str, Any]:
    """The header of a frame that the footer knows; its payload is not read.

    Raises:
        DamagedSegmentError: it is not there, or not the one of that frame.
        OSError: it cannot be read.
    """
    data = source.read(entry.offset, entry.payload_offset - entry.offset)
    try:
        prefix = parse_prefix(data)
        header = finish_head(prefix, data[PREFIX_BYTES:], entry.payload_digest)
        start, count, _ = elements_of(header)
        found = (prefix.header_bytes, prefix.payload_bytes, start, count)
        if prefix.type is not FrameType.CHUNK or found != (
            entry.header_bytes,
            entry.payload_bytes,
            entry.start,
            entry.count,
        ):
            raise ValueError("it is not what the footer says")
    except (ProtocolError, ValueError) as error:
        raise source.damaged(f"the frame at byte {entry.offset}: {error}") from error
    return header


def read_frame_at(source: Source, end: int, start: int) -> tuple[FrameEntry, Hashes]:
    """Reads and checks all of a frame of which nothing is known.

    Args:
        source: the file.
        end: where what stands before the frame ends.
        start: index in the split of its first element.

    Returns:
        What a footer would say of it, and its elements' hashes.

    Raises:
        DamagedSegmentError: no whole frame is there, or not of these elements.
        OSError: it cannot be read.
    """
    window = source.read(end, min(ALIGNMENT + PREFIX_BYTES, source.size - end))
    offset = end + len(window) - len(window.lstrip(b"\0"))
    try:
        prefix = parse_prefix(window[offset - end :])
        if prefix.type is not FrameType.CHUNK or offset != place(end, prefix.header_bytes):
            raise ValueError("it is not one that belongs there")
        packed = source.read(offset + PREFIX_BYTES, prefix.header_bytes)
        payload_offset = offset + PREFIX_BYTES + prefix.header_bytes
        digest = source.digest(payload_offset, prefix.payload_bytes)
        found, count, hashes = elements_of(finish_head(prefix, packed, digest))
        if found != start:
            raise ValueError(f"it begins with element {found}, not {start}")
    except (ProtocolError, ValueError) as error:
        raise source.damaged(f"the frame at byte {offset}: {error}") from error
    entry = FrameEntry(
        offset, payload_offset, prefix.payload_bytes, start, count, digest, prefix.header_bytes
    )
    return entry, hashes
