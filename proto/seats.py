"""Consumers that share one job's lanes: who owns which, and where a group of them goes on.

The splits of an epoch are dealt to the lanes of the *group*, in the same way whatever the number of
consumers; consumer `c` of `N` owns the lanes `l` with `l mod N = c` (DESIGN 4.4). To the dispatcher
and its workers each consumer is a job of its own, in which the lanes of the others are delivered
already.

A *group position* says of every lane in which epoch it is and how far. It is what resizing goes by:
each consumer's committed position puts forward the lanes that it owned, and whoever owns a lane
next goes on there. A lane only ever goes forward, so putting together is taking the further of two
places: in any order, any number of times, over any number of resizes. It does not count elements or
steps, which mean something else for every number of consumers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import PositionError
from .hashing import Digest
from .position import (
    BOTH,
    TOTALS,
    Consumer,
    Cursor,
    Position,
    StreamPosition,
    cursor_of,
    proofs_of,
)
from .sealed import TEXT_CHARS_MAX, as_list, as_number, seal, unseal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: A group position is to fit into a text, with the digests that prove its replays.
LANES_MAX = 128
VERSION = 1
_KIND = "penstock-group"
_MASK = (1 << 64) - 1
_BEGINNING = Cursor()


def name_of_job(group: str, consumer: Consumer) -> str:
    """The name of the job of one consumer of a group."""
    return f"{group} [{consumer}]"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a lane goes on: in which epoch, and where there."""

    epoch: int = 0
    cursor: Cursor = _BEGINNING

    @property
    def order(self) -> tuple[int, int, int]:
        """More for what is further."""
        return self.epoch, self.cursor.splits, self.cursor.elements


@dataclass(frozen=True, slots=True)
class GroupPosition:
    """Where all lanes of a group go on. `str(position)` is its text, `parse` the inverse.

    Attributes:
        base: what the order follows from, and the stream; it is in no epoch.
        places: one for each lane.
    """

    base: Position
    places: tuple[Place, ...]

    @classmethod
    def of(cls, position: Position) -> GroupPosition:
        """The beginning of what a consumer's position is one of."""
        stream = position.streams[0]
        begin = StreamPosition(
            stream.fingerprint, stream.num_splits, stream.weight, stream.sizes, epoch=0
        )
        base = replace(
            position, epoch=0, consumed=0, replayed=False, streams=(begin,), consumer=None
        )
        return cls(base, (Place(),) * position.lanes)

    @classmethod
    def parse(cls, text: str) -> GroupPosition:
        """The inverse of `str`.

        Raises:
            PositionError: it is damaged, or of another version; the message says what is wrong.
        """
        base, epoch, *columns = as_list(unseal(_KIND, VERSION, text.strip()), "the group", 6)
        if not isinstance(base, str):
            raise PositionError("the position is damaged: its base is no text")
        position, first = Position.parse(base), as_number(epoch, "epoch")
        if len(position.streams) != 1:
            raise PositionError("the position is damaged: a group reads one stream")
        ahead, splits, elements, proofs = (
            as_list(column, "the places", position.lanes) for column in columns
        )
        places = [
            Place(first + as_number(row[0], "epoch"), cursor_of(*row[1:], proven=True))
            for row in zip(ahead, splits, elements, proofs, strict=True)
        ]
        return cls(position, tuple(places))

    def __str__(self) -> str:
        """The text.

        Raises:
            PositionError: there are so many lanes that it would be too long.
        """
        for proof in (BOTH, TOTALS):
            text = self._text(proof)
            if len(text) <= TEXT_CHARS_MAX:
                return text
        raise PositionError(
            f"a position in {len(self.places)} lanes takes {len(text)} characters, more than"
            f" {TEXT_CHARS_MAX}: use fewer lanes"
        )

    def _text(self, proof: int) -> str:
        first = min(place.epoch for place in self.places)
        cursors = [place.cursor for place in self.places]
        content = [
            str(self.base),
            first,
            [place.epoch - first for place in self.places],
            [cursor.splits for cursor in cursors],
            [cursor.elements for cursor in cursors],
            proofs_of(cursors, proof),
        ]
        return seal(_KIND, VERSION, content)

    def joined(self, position: Position) -> GroupPosition:
        """The same, put forward to where one of its consumers is.

        Raises:
            PositionError: it is the position of no consumer, or of one of another group.
        """
        consumer = position.consumer
        if consumer is None:
            raise PositionError("it is not the position of one of several consumers")
        if GroupPosition.of(position).base != self.base:
            raise PositionError("the position is one of another pipeline, or of other settings")
        (stream,) = position.streams
        cursors = stream.cursors or (Cursor(),) * len(self.places)
        if any(cursor.digest is None for cursor in cursors):
            raise PositionError("the position is in so many lanes that it has no digests")
        places = list(self.places)
        for lane, cursor in enumerate(cursors):
            if consumer.owns(lane):
                places[lane] = max(
                    places[lane], Place(stream.epoch, cursor), key=lambda place: place.order
                )
        return replace(self, places=tuple(places))

    def first_epoch(self, consumer: Consumer) -> int:
        """The earliest epoch that a consumer has something left to read of."""
        return min(self.places[lane].epoch for lane in owned(consumer, len(self.places)))

    def last_epoch(self, consumer: Consumer) -> int:
        """The latest epoch that one of its lanes has begun, or will begin next."""
        return max(self.places[lane].epoch for lane in owned(consumer, len(self.places)))


def owned(consumer: Consumer, lanes: int) -> range:
    """The lanes that a consumer reads."""
    return range(consumer.rank, lanes, consumer.world)


def share(
    place: StreamPosition,
    lanes: Sequence[Sequence[int]],
    block: int,
    consumer: Consumer,
    places: Iterable[Place] = (),
) -> StreamPosition:
    """Where a consumer begins an epoch: at its lanes' places, all other lanes at their ends.

    Its digest is that of what was consumed of splits that are not over, since these count as a
    whole when they are delivered.

    Args:
        place: the beginning of the epoch.
        lanes: the splits of each lane, as dealt.
        block: of the job.
        consumer: whose share.
        places: where each lane of the group is; by default at the beginning of everything.
    """
    known = tuple(places)
    cursors = []
    for lane, splits in enumerate(lanes):
        end = Cursor(len(splits))
        at = known[lane] if known else Place()
        if not consumer.owns(lane) or at.epoch > place.epoch:
            cursors.append(end)
        else:
            cursors.append(at.cursor if at.epoch == place.epoch else Cursor())
    count = sum(cursor.elements for cursor in cursors)
    total = sum(cursor.digest.total for cursor in cursors if cursor.digest is not None) & _MASK
    return replace(
        place,
        digest=Digest(count, total, 0),
        whole=(0, 0),
        turn=consumer.rank,
        left=block,
        cursors=tuple(cursors),
    )


def regrouped(start: str, committed: Sequence[str]) -> str:
    """Where a group goes on: its last beginning, put forward by what its consumers committed.

    Args:
        start: the text of the position that its generation began at; empty for the very beginning.
        committed: the texts of the positions that its consumers committed last; empty for none.

    Returns:
        The text of the group position; empty while nothing was ever committed.

    Raises:
        PositionError: one is damaged, or they do not belong together.
    """
    positions = [Position.parse(text) for text in committed if text]
    if not positions:
        return start
    group = GroupPosition.parse(start) if start else GroupPosition.of(positions[0])
    for position in positions:
        group = group.joined(position)
    return str(group)
