"""`Position`: how far a trainer is, as a small object that is printed, stored and parsed.

The order of a job's elements follows from (dataset, seed, epoch, lanes, block), so a position is
those, and for each stream of the pipeline one *cursor* for each lane: how many of the lane's splits
were consumed whole, and how many elements of the next one, with their digest. So whoever goes on
there need not have made again what was consumed, and can prove that what a split's replay makes
before the cursor is what the trainer got in its former life. It does not grow with the dataset.

The text is one line that is safe in a URL or a file's name: `penstock.1.LENGTH.DATA.CHECK`, DATA
being LENGTH characters of base64 (of zlib, of msgpack), CHECK the xxh3-64 of all that precedes.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from dataclasses import dataclass
from typing import Any

import msgpack
import xxhash

from ..errors import PositionError
from ..proto.hashing import Digest

VERSION = 1
#: A text is at most this long: it has to fit where one writes down a number.
TEXT_CHARS_MAX = 4096
_PREFIX = "penstock"
_CONTENT_BYTES_MAX = 1 << 20
_NONE = Digest(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a lane goes on.

    Attributes:
        splits: how many of its splits were consumed whole.
        elements: how many elements of the next one were.
        digest: of these; None in a position of so many lanes that it would be too long.
    """

    splits: int = 0
    elements: int = 0
    digest: Digest | None = _NONE


@dataclass(frozen=True, slots=True)
class StreamPosition:
    """Where a stream of the pipeline goes on.

    Attributes:
        fingerprint: the first digits of its dataset's.
        num_splits: of the dataset.
        weight: sum of the splits' sizes, as far as they differ; 0 if they are alike.
        sizes: a hash of them.
        epoch: its number within the job.
        digest: of what was consumed of the epoch, in that order.
        whole: (count, total) of the splits that were consumed whole.
        turn: the lane whose turn it is.
        left: how many elements it has left in its block.
        cursors: one for each lane; empty at the beginning of an epoch.
    """

    fingerprint: str
    num_splits: int
    weight: int
    sizes: int
    epoch: int
    digest: Digest = _NONE
    whole: tuple[int, int] = (0, 0)
    turn: int = 0
    left: int = 0
    cursors: tuple[Cursor, ...] = ()

    @property
    def started(self) -> bool:
        """Whether anything of the epoch was consumed."""
        return bool(self.cursors)


@dataclass(frozen=True, slots=True, repr=False)
class Position:
    """How far a trainer is in a job: made by `Reader.position`, taken by `Reader.restore`.

    `str(position)` is its text, `Position.parse(text)` the inverse.

    Attributes:
        dataset: fingerprint of the whole pipeline.
        seed, lanes, block, ordered, deterministic: of the job; they decide the order.
        epoch: the epoch, counted from the job's first.
        consumed: elements of the distributed dataset that were taken of that epoch.
        replayed: the end of the pipeline cannot begin in the middle: the epoch is read from its
            beginning, and `consumed` elements are dropped here.
        streams: where each stream goes on.
    """

    dataset: str
    seed: int
    lanes: int
    block: int
    ordered: bool
    deterministic: bool
    epoch: int
    consumed: int
    replayed: bool
    streams: tuple[StreamPosition, ...]

    def __repr__(self) -> str:
        """For people; `str` is the whole."""
        return (
            f"<Position epoch {self.epoch}, {self.consumed} elements, seed {self.seed},"
            f" dataset {self.dataset[:12]}>"
        )

    def __str__(self) -> str:
        """The text.

        Raises:
            PositionError: there are so many lanes that it would be too long.
        """
        text = _text(self, digests=True)
        if len(text) > TEXT_CHARS_MAX:
            text = _text(self, digests=False)
        if len(text) > TEXT_CHARS_MAX:
            raise PositionError(
                f"a position in {self.lanes} lanes takes {len(text)} characters, more than"
                f" {TEXT_CHARS_MAX}: use fewer lanes"
            )
        return text

    @classmethod
    def parse(cls, text: str) -> Position:
        """The inverse of `str`.

        Args:
            text: what `str(position)` gave.

        Raises:
            PositionError: it is damaged, or of another version; the message says what is wrong.
        """
        if not isinstance(text, str):
            raise PositionError(f"a position is a text, not {type(text).__name__} {text!r:.40}")
        return _position(_content(text.strip()))


def _text(position: Position, *, digests: bool) -> str:
    content = [
        position.dataset,
        position.seed,
        position.lanes,
        position.block,
        position.ordered,
        position.deterministic,
        position.epoch,
        position.consumed,
        position.replayed,
        [_stream_row(stream, digests=digests) for stream in position.streams],
    ]
    data = base64.urlsafe_b64encode(zlib.compress(msgpack.packb(content), 9)).decode().rstrip("=")
    text = f"{_PREFIX}.{VERSION}.{len(data)}.{data}"
    return f"{text}.{_check(text)}"


def _stream_row(stream: StreamPosition, *, digests: bool) -> list[Any]:
    row: list[Any] = [
        stream.fingerprint,
        stream.num_splits,
        stream.weight,
        stream.sizes,
        stream.epoch,
        _digest_row(stream.digest),
        list(stream.whole),
        stream.turn,
        stream.left,
        [cursor.splits for cursor in stream.cursors],
        [cursor.elements for cursor in stream.cursors],
    ]
    proofs = [cursor.digest for cursor in stream.cursors]
    if not digests or None in proofs:
        return [*row, None]
    return [*row, [[p.total, p.chain] if p.count else None for p in proofs if p is not None]]


def _digest_row(digest: Digest) -> list[int]:
    return [digest.count, digest.total, digest.chain]


def _check(text: str) -> str:
    return f"{xxhash.xxh3_64_intdigest(text.encode()):016x}"


def _content(text: str) -> Any:
    """What a text holds, once its outside is known to be whole."""
    parts = text[: 4 * TEXT_CHARS_MAX].split(".")
    if parts[0] != _PREFIX or len(parts) < 3:
        raise PositionError(f"this is not a position: it begins with {text[:20]!r}")
    if parts[1] != str(VERSION):
        raise PositionError(
            f"the position is of version {parts[1][:20]!r}; this penstock knows {VERSION}"
        )
    if len(text) > TEXT_CHARS_MAX:
        raise PositionError(f"the position is longer than {TEXT_CHARS_MAX} characters")
    if not parts[2].isascii() or not parts[2].isdigit():
        raise PositionError(f"the position is damaged: its length is {parts[2][:20]!r}")
    if len(parts) != 5 or len(parts[3]) != int(parts[2]) or len(parts[4]) != 16:
        have = len(parts[3]) if len(parts) > 3 else 0
        raise PositionError(
            f"the position is cut or has grown: {have} characters of {parts[2]}, and a check of"
            f" {len(parts[4]) if len(parts) > 4 else 0} of 16"
        )
    if _check(text.rpartition(".")[0]) != parts[4]:
        raise PositionError("the position is damaged: its check does not fit what it says")
    try:
        packed = base64.b64decode(parts[3] + "=" * (-len(parts[3]) % 4), b"-_", validate=True)
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(packed, _CONTENT_BYTES_MAX)
        if not unpacker.eof or unpacker.unused_data:
            raise PositionError(f"the position holds more than {_CONTENT_BYTES_MAX} bytes")
        return msgpack.unpackb(content)
    except (binascii.Error, zlib.error, ValueError, msgpack.UnpackException) as error:
        if isinstance(error, PositionError):
            raise
        raise PositionError(f"the position is damaged: {error}") from None


def _position(content: Any) -> Position:
    fields = _list(content, "the position", 10)
    position = Position(
        dataset=_of(fields[0], str, "dataset"),
        seed=_number(fields[1], "seed"),
        lanes=_number(fields[2], "lanes", least=1),
        block=_number(fields[3], "block", least=1),
        ordered=_of(fields[4], bool, "ordered"),
        deterministic=_of(fields[5], bool, "deterministic"),
        epoch=_number(fields[6], "epoch"),
        consumed=_number(fields[7], "consumed"),
        replayed=_of(fields[8], bool, "replayed"),
        streams=tuple(_stream(row) for row in _list(fields[9], "streams")),
    )
    for stream in position.streams:
        if stream.cursors and len(stream.cursors) != position.lanes:
            raise PositionError(
                f"the position is damaged: {len(stream.cursors)} cursors for {position.lanes} lanes"
            )
        if stream.turn >= position.lanes or stream.left > position.block:
            raise PositionError("the position is damaged: it names a lane or block that is none")
    return position


def _stream(row: Any) -> StreamPosition:
    fields = _list(row, "a stream", 12)
    splits, elements = (_list(fields[at], "cursors") for at in (9, 10))
    proofs = [None] * len(splits) if fields[11] is None else _list(fields[11], "digests")
    if not len(splits) == len(elements) == len(proofs):
        raise PositionError("the position is damaged: its lanes do not agree")
    whole = _list(fields[6], "whole", 2)
    cursors = []
    for split, count, proof in zip(splits, elements, proofs, strict=True):
        taken = _number(count, "elements")
        digest = None
        if fields[11] is not None:
            sums = [0, 0] if proof is None else _list(proof, "a digest", 2)
            digest = Digest(taken, _number(sums[0], "total"), _number(sums[1], "chain"))
        cursors.append(Cursor(_number(split, "splits"), taken, digest))
    return StreamPosition(
        fingerprint=_of(fields[0], str, "fingerprint"),
        num_splits=_number(fields[1], "num_splits"),
        weight=_number(fields[2], "weight"),
        sizes=_number(fields[3], "sizes"),
        epoch=_number(fields[4], "epoch"),
        digest=Digest(*(_number(part, "digest") for part in _list(fields[5], "a digest", 3))),
        whole=(_number(whole[0], "whole"), _number(whole[1], "whole")),
        turn=_number(fields[7], "turn"),
        left=_number(fields[8], "left"),
        cursors=tuple(cursors),
    )


def _list(value: Any, name: str, length: int | None = None) -> list[Any]:
    if type(value) is not list or (length is not None and len(value) != length):
        raise PositionError(f"the position is damaged: {name} is not what it should be")
    return value


def _number(value: Any, name: str, least: int = 0) -> int:
    if type(value) is not int or not least <= value < 1 << 64:
        raise PositionError(f"the position is damaged: {name} is {value!r:.40}")
    return value


def _of(value: Any, kind: type[Any], name: str) -> Any:
    if type(value) is not kind or (kind is str and len(value) > 128):
        raise PositionError(f"the position is damaged: {name} is {value!r:.40}")
    return value
