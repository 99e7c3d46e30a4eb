"""`Position`: how far a trainer is, as a small object that is printed, stored and parsed.

The order of a job's elements follows from (dataset, seed, epoch, lanes, block), so a position is
those, and for each stream of the pipeline one *cursor* for each lane: how many of the lane's splits
were consumed whole, and how many elements of the next one, with their digest. So whoever goes on
there need not have made again what was consumed, and can prove that what a split's replay makes
before the cursor is what the trainer got in its former life. It does not grow with the dataset.

The text is one line, sealed as `sealed` says: `penstock.1.LENGTH.DATA.CHECK`. The position of one
consumer of several says so in an eleventh field, which others do not have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import PositionError
from .hashing import Digest
from .sealed import TEXT_CHARS_MAX, as_kind, as_list, as_number, seal, unseal

if TYPE_CHECKING:
    from collections.abc import Iterable

VERSION = 1
#: How much of a cursor's digest a text holds: total and chain, the total, nothing.
BOTH, TOTALS, NEITHER = 2, 1, 0
_PREFIX = "penstock"
_NONE = Digest(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a lane goes on.

    Attributes:
        splits: how many of its splits were consumed whole.
        elements: how many elements of the next one were.
        digest: of these; None in a position of so many lanes that it would be too long, and with
            a chain of 0 if only that would be.
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


@dataclass(frozen=True, slots=True)
class Consumer:
    """One of the consumers that share a group's lanes.

    Attributes:
        rank: its number, from 0.
        world: how many there are.
        generation: of the group, which grows with every resize; 0 if that is not known yet.
    """

    rank: int
    world: int
    generation: int = 0

    def __str__(self) -> str:
        return f"consumer {self.rank} of {self.world}"

    def row(self) -> tuple[int, int, int]:
        """As plain values."""
        return self.rank, self.world, self.generation

    def owns(self, lane: int) -> bool:
        """Whether a lane is one of its."""
        return lane % self.world == self.rank


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
        consumer: whose it is, where several share the lanes: those of others are at their ends.
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
    consumer: Consumer | None = None

    def __repr__(self) -> str:
        """For people; `str` is the whole."""
        of = "" if self.consumer is None else f"{self.consumer}, "
        return (
            f"<Position {of}epoch {self.epoch}, {self.consumed} elements, seed {self.seed},"
            f" dataset {self.dataset[:12]}>"
        )

    def __str__(self) -> str:
        """The text.

        Raises:
            PositionError: there are so many lanes that it would be too long.
        """
        for proof in (BOTH, TOTALS, NEITHER):
            text = _text(self, proof)
            if len(text) <= TEXT_CHARS_MAX:
                break
        else:
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
        return _position(unseal(_PREFIX, VERSION, text.strip()))


def _text(position: Position, proof: int) -> str:
    content: list[Any] = [
        position.dataset,
        position.seed,
        position.lanes,
        position.block,
        position.ordered,
        position.deterministic,
        position.epoch,
        position.consumed,
        position.replayed,
        [_stream_row(stream, proof) for stream in position.streams],
    ]
    if position.consumer is not None:
        content.append(list(position.consumer.row()))
    return seal(_PREFIX, VERSION, content)


def _stream_row(stream: StreamPosition, proof: int) -> list[Any]:
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
    return [*row, proofs_of(stream.cursors, proof)]


def proofs_of(cursors: Iterable[Cursor], proof: int) -> list[Any] | None:
    """The digests of cursors as plain values: `BOTH` sums of each, `TOTALS` only, or `NEITHER`."""
    digests = [cursor.digest for cursor in cursors]
    if proof == NEITHER or None in digests:
        return None
    return [
        [digest.total, digest.chain][:proof] if digest.count else None
        for digest in digests
        if digest is not None
    ]


def cursor_of(splits: Any, elements: Any, proof: Any, *, proven: bool) -> Cursor:
    """The inverse, for one cursor; `proven` says that there are digests at all.

    Raises:
        PositionError: the values are not those of a cursor.
    """
    taken, digest = as_number(elements, "elements"), None
    if proven:
        sums = [] if proof is None else [as_number(s, "a sum") for s in as_list(proof, "a digest")]
        if len(sums) > BOTH:
            raise PositionError("the position is damaged: a digest is not what it should be")
        digest = Digest(taken, *sums, *[0] * (BOTH - len(sums)))
    return Cursor(as_number(splits, "splits"), taken, digest)


def _digest_row(digest: Digest) -> list[int]:
    return [digest.count, digest.total, digest.chain]


def _position(content: Any) -> Position:
    fields = as_list(content, "the position")
    consumer = _consumer(fields.pop()) if len(fields) == 11 else None
    as_list(fields, "the position", 10)
    position = Position(
        dataset=as_kind(fields[0], str, "dataset"),
        seed=as_number(fields[1], "seed"),
        lanes=as_number(fields[2], "lanes", least=1),
        block=as_number(fields[3], "block", least=1),
        ordered=as_kind(fields[4], bool, "ordered"),
        deterministic=as_kind(fields[5], bool, "deterministic"),
        epoch=as_number(fields[6], "epoch"),
        consumed=as_number(fields[7], "consumed"),
        replayed=as_kind(fields[8], bool, "replayed"),
        streams=tuple(_stream(row) for row in as_list(fields[9], "streams")),
        consumer=consumer,
    )
    for stream in position.streams:
        if stream.cursors and len(stream.cursors) != position.lanes:
            raise PositionError(
                f"the position is damaged: {len(stream.cursors)} cursors for {position.lanes} lanes"
            )
        if stream.turn >= position.lanes or stream.left > position.block:
            raise PositionError("the position is damaged: it names a lane or block that is none")
    return position


def _consumer(row: Any) -> Consumer:
    rank, world, generation = (as_number(part, "consumer") for part in as_list(row, "consumer", 3))
    if rank >= world:
        raise PositionError(f"the position is damaged: it is of consumer {rank} of {world}")
    return Consumer(rank, world, generation)


def _stream(row: Any) -> StreamPosition:
    fields = as_list(row, "a stream", 12)
    splits, elements = (as_list(fields[at], "cursors") for at in (9, 10))
    proofs = [None] * len(splits) if fields[11] is None else as_list(fields[11], "digests")
    if not len(splits) == len(elements) == len(proofs):
        raise PositionError("the position is damaged: its lanes do not agree")
    whole = as_list(fields[6], "whole", 2)
    proven = fields[11] is not None
    cursors = [cursor_of(*row, proven=proven) for row in zip(splits, elements, proofs, strict=True)]
    return StreamPosition(
        fingerprint=as_kind(fields[0], str, "fingerprint"),
        num_splits=as_number(fields[1], "num_splits"),
        weight=as_number(fields[2], "weight"),
        sizes=as_number(fields[3], "sizes"),
        epoch=as_number(fields[4], "epoch"),
        digest=Digest(*(as_number(part, "digest") for part in as_list(fields[5], "a digest", 3))),
        whole=(as_number(whole[0], "whole"), as_number(whole[1], "whole")),
        turn=as_number(fields[7], "turn"),
        left=as_number(fields[8], "left"),
        cursors=tuple(cursors),
    )
