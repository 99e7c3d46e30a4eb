"""What the pure core of an epoch takes in and gives out: plain values, no behaviour.

`Placed` comes from the dispatcher's views. Instructions are what the shell must do; `Taken` is
what asking for elements gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..errors import PenstockError
    from ..proto.chunk import Chunk
    from ..proto.hashing import Digest, Hashes
    from .runs import Arrays
    from .weave import Woven

#: Codes of problems that a client reports to the dispatcher.
UNREACHABLE = "UNREACHABLE"
GONE = "GONE"
MISMATCH = "MISMATCH"
#: Every other failure of an attempt is reported by its worker.
REPORTED = (UNREACHABLE, GONE, MISMATCH)


@dataclass(frozen=True, slots=True)
class Placed:
    """One line of the dispatcher's view of an epoch: this attempt of this split is there."""

    split: int
    attempt: int
    worker: str


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ask `worker` for an attempt's elements from `start` on; `verify`: first for all hashes."""

    worker: str
    attempt: int
    start: int
    credit: int
    verify: bool


@dataclass(frozen=True, slots=True)
class Credit:
    """Tell `worker` that elements before `received` arrived and that it may send more bytes."""

    worker: str
    attempt: int
    received: int
    credit: int


@dataclass(frozen=True, slots=True)
class Release:
    """Tell `worker` that the attempt is not wanted any more."""

    worker: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Done:
    """Report the split as received whole, with this digest."""

    split: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class Report:
    """Report a problem with an attempt; it stands until the dispatcher places the split anew."""

    attempt: int
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Fail:
    """The job cannot go on: tell the dispatcher, and raise this in the trainer."""

    error: PenstockError


Instruction: TypeAlias = Fetch | Credit | Release | Done | Report | Fail


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive elements of one split."""

    split: int
    chunk: Chunk

    @property
    def hashes(self) -> Hashes:
        """The elements' hashes."""
        return self.chunk.hashes

    def spans(self) -> list[list[int]]:
        """`[split, start, count]` of its elements."""
        return [[self.split, self.chunk.start, self.chunk.count]]

    def turns(self) -> Iterator[Piece]:
        """Itself: it is of one turn."""
        yield self

    def stacked(self) -> Iterator[Arrays]:
        """Runs of elements of equal shapes, one array `(n, *shape)` for each component."""
        for _, arrays in self.chunk.runs():
            yield arrays


@dataclass(frozen=True, slots=True)
class Delivery:
    """The elements that come next, in order."""

    pieces: tuple[Piece | Woven, ...]

    def each_piece(self) -> Iterator[Piece]:
        """The same elements, with a piece for each turn."""
        for piece in self.pieces:
            yield from piece.turns()


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be delivered until this split's worker sends something.

    Attributes:
        lane: the lane whose turn it is (the first unfinished one where order does not matter).
        split: its current split.
        attempt: the attempt it is placed at, 0 if it is placed nowhere.
        worker: that attempt's worker, or empty.
        reason: why, in words for the log.
    """

    lane: int
    split: int
    attempt: int
    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class EndOfEpoch:
    """Every split of every lane was delivered and proven; the digest is in delivered order."""

    digest: Digest


Taken: TypeAlias = Delivery | Wait | EndOfEpoch
