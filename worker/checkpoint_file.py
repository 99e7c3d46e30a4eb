"""The bytes of a checkpoint file; checks everything before it believes anything.

    magic  lengths of header, hashes and state  checksum   48 bytes
    header                                                 msgpack
    hashes                                                 8 bytes an element, little-endian
    state                                                  what TensorFlow said its iterator is
    checksum of hashes and state                           8 bytes

The first checksum covers everything before it and the header, so that a directory can be listed
without reading the states; the last one is seeded by the first. Both are xxh3-64.
"""

from __future__ import annotations

import struct
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import msgpack
import numpy as np
import xxhash

from ..errors import PenstockError
from .checkpointing import CHECKPOINT_BYTES_MAX
from .messages import Key

if TYPE_CHECKING:
    from ..proto.hashing import Hashes

#: The last characters are the format's version.
MAGIC = b"pstkck02"
HEADER_BYTES_MAX = 1 << 16
_LENGTHS = struct.Struct("<8sQQQ")
_SUM = struct.Struct("<Q")
_HEAD_BYTES = _LENGTHS.size + _SUM.size
_TEXT_MAX = 1 << 12


class DamagedError(PenstockError):
    """A file is not a checkpoint, or not as it was written."""

    exit_code = 5


@dataclass(frozen=True, slots=True)
class Layout:
    """How an iterator's elements leave it: part of its graph, so its state fits no other.

    Attributes:
        kind: `stacked` in batches that tf.data makes, `ragged` in such of varying shapes,
            `collected` one by one, or `single`: one by one and sent so.
        size: elements of a batch; 1 where there are none.
        via: by which way of the cache they come: empty, or as `cached` names it.
    """

    kind: str
    size: int = 1
    via: str = ""


@dataclass(frozen=True, slots=True)
class Header:
    """What a checkpoint is of.

    Attributes:
        key: the split.
        elements: how many elements of it lie before the checkpoint.
        layout: of the iterator.
        tensorflow: the release that wrote the state.
        options: the tf.data options that the iterator was made with.
    """

    key: Key
    elements: int
    layout: Layout
    tensorflow: str
    options: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A place in a split from which it can be produced without its beginning.

    Attributes:
        header: what it is of.
        hashes: one for each element before it.
        state: of the iterator.
    """

    header: Header
    hashes: Hashes
    state: bytes

    @property
    def nbytes(self) -> int:
        """Size of its file, without the header."""
        return 8 * len(self.hashes) + len(self.state)


def encode(checkpoint: Checkpoint) -> list[bytes | memoryview]:
    """The file's content, in parts; states are not copied.

    Raises:
        ValueError: it is larger than a reader would accept.
    """
    header = msgpack.packb(asdict(checkpoint.header))
    hashes = np.ascontiguousarray(checkpoint.hashes, "<u8").view(np.uint8).data
    lengths = _LENGTHS.pack(MAGIC, len(header), len(hashes), len(checkpoint.state))
    if len(header) > HEADER_BYTES_MAX or checkpoint.nbytes > CHECKPOINT_BYTES_MAX:
        raise ValueError(f"a checkpoint of {checkpoint.nbytes} bytes")
    head_sum = xxhash.xxh3_64_intdigest(lengths + header)
    body = xxhash.xxh3_64(hashes, seed=head_sum)
    body.update(checkpoint.state)
    return [
        lengths + _SUM.pack(head_sum) + header,
        hashes,
        checkpoint.state,
        _SUM.pack(body.intdigest()),
    ]


def read_header(file: BinaryIO, size: int) -> Header:
    """Reads the first part of a file.

    Args:
        file: at its beginning; left where the hashes begin.
        size: of the whole file, bytes.

    Raises:
        DamagedError: it is not a checkpoint, or damaged so far.
        OSError: it cannot be read.
    """
    return _read_head(file, size)[0]


def read(file: BinaryIO, size: int) -> Checkpoint:
    """Reads a whole file; as `read_header`."""
    header, head_sum, hashes_bytes, state_bytes = _read_head(file, size)
    hashes = _exactly(file, hashes_bytes)
    state = _exactly(file, state_bytes)
    body = xxhash.xxh3_64(hashes, seed=head_sum)
    body.update(state)
    if _SUM.pack(body.intdigest()) != _exactly(file, _SUM.size):
        raise DamagedError("its checksum does not fit its content")
    return Checkpoint(header, np.frombuffer(hashes, "<u8").astype(np.uint64), state)


def _read_head(file: BinaryIO, size: int) -> tuple[Header, int, int, int]:
    head = _exactly(file, min(size, _HEAD_BYTES))
    if len(head) < _HEAD_BYTES or head[: len(MAGIC)] != MAGIC:
        raise DamagedError("it does not begin as a checkpoint of this version does")
    _, header_bytes, hashes_bytes, state_bytes = _LENGTHS.unpack_from(head)
    body = hashes_bytes + state_bytes
    if header_bytes > HEADER_BYTES_MAX or body > CHECKPOINT_BYTES_MAX:
        raise DamagedError(f"it announces {header_bytes} and {body} bytes, which is too much")
    announced = _HEAD_BYTES + header_bytes + body + _SUM.size
    if size != announced:
        raise DamagedError(f"it has {size} bytes and announces {announced}")
    packed = _exactly(file, header_bytes)
    (head_sum,) = _SUM.unpack_from(head, _LENGTHS.size)
    if xxhash.xxh3_64_intdigest(head[: _LENGTHS.size] + packed) != head_sum:
        raise DamagedError("its header's checksum does not fit")
    header = _header(packed)
    if hashes_bytes != 8 * header.elements:
        raise DamagedError(f"it has {hashes_bytes} bytes of hashes of {header.elements} elements")
    return header, head_sum, hashes_bytes, state_bytes


def _exactly(file: BinaryIO, nbytes: int) -> bytes:
    data = file.read(nbytes)
    if len(data) != nbytes:
        raise DamagedError(f"it ends {nbytes - len(data)} bytes early")
    return data


def _header(packed: bytes) -> Header:
    try:
        fields = msgpack.unpackb(packed)
        key, layout = fields["key"], fields["layout"]
        return Header(
            Key(_text(key["dataset"]), *(_natural(key[k]) for k in ("seed", "epoch", "split"))),
            _natural(fields["elements"]),
            Layout(_text(layout["kind"]), _natural(layout["size"]), _text(layout["via"])),
            _text(fields["tensorflow"]),
            _text(fields["options"]),
        )
    except (ValueError, KeyError, TypeError, msgpack.UnpackException) as error:
        raise DamagedError(f"its header is none: {error!r}") from error


def _natural(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r:.40} is not a number >= 0")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _TEXT_MAX:
        raise ValueError(f"{value!r:.40} is not a short text")
    return value
