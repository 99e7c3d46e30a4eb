"""An epoch that goes on where another life of the trainer was: the pure core, begun in the middle.

What lies before the position is not wanted, and what was consumed whole is not even made. A split
that was consumed in part has to be made again from its start, but of what lies before the cursor
only the hashes are sent. They must have the digest that the position carries (G4), and from then on
the split is like any other: later attempts are compared with them, and its END proves all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import PositionError, ProtocolError, ReplayMismatchError
from ..proto.hashing import Digest, DigestBuilder
from .lanes import EpochCore
from .splits import Lane, SplitState
from .turns import Turns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..proto.hashing import Hashes
    from ..proto.position import Cursor, StreamPosition


class ResumedSplit(SplitState):
    """A split of which the first elements were consumed in another life.

    Attributes:
        prefix: once their hashes are known, a builder of their digest.
    """

    __slots__ = ("_consumed", "_replayable", "prefix")

    def __init__(self, split: int, lane: int, cursor: Cursor, *, replayable: bool) -> None:
        super().__init__(split, lane, replayable=replayable)
        self.received = self.delivered = cursor.elements
        self.prefix: DigestBuilder | None = None
        self._consumed = cursor.digest

    def compare(self, start: int, hashes: Hashes) -> None:
        """As in `SplitState`; the first attempt is compared with what the position says."""
        fetch = self.fetch
        assert fetch is not None
        if self.prefix is not None:
            super().compare(start, hashes)
            return
        stop = start + len(hashes)
        if not fetch.verify or start != fetch.verified or stop > fetch.start:
            raise ProtocolError(
                f"{self.name(fetch)} sent hashes {start}..{stop}, wanted were those from "
                f"{fetch.verified} to {fetch.start}"
            )
        if start == 0:  # whatever an attempt sent that was lost meanwhile is sent again
            self._hashes.clear()
        self._hashes.append(np.array(hashes))
        fetch.verified = stop
        if stop == fetch.start:
            self._check_prefix()
            self._agreed(fetch)

    def prove(self, digest: Digest) -> None:
        """As in `SplitState`; what was delivered of values that differ counts, here as there."""
        super().prove(digest)
        if self._consumed is None or self.prefix is None or self._replayable:
            return
        own, made = self.proven, self.prefix.digest()
        assert own is not None
        total = (own.total - made.total + self._consumed.total) % (1 << 64)
        self.proven = Digest(own.count, total, own.chain)

    def _check_prefix(self) -> None:
        builder = DigestBuilder()
        for hashes in self._hashes:
            builder.update(hashes)
        assert self.fetch is not None
        made, consumed = builder.digest(), self._consumed
        # A position in many lanes has no room for the chain.
        differs = consumed is not None and (
            made != consumed if consumed.chain else made.total != consumed.total
        )
        if self._replayable and differs:
            raise ReplayMismatchError(
                f"{self.name(self.fetch)} begins with other elements than those that were consumed"
                f" up to the position: their digest is {made}, it was"
                f" {consumed}; were the files changed?"
            )
        self.prefix = builder
        self._digest = builder.copy()


class ResumedCore(EpochCore):
    """The core of an epoch that goes on at a position.

    Args:
        lanes: the splits of each lane, in order, those that were consumed too.
        block: elements that one lane yields before the next one's turn.
        start: the position.
        deterministic: see `EpochCore`.
        replayable: see `EpochCore`.

    Raises:
        PositionError: the position does not fit the lanes.
    """

    def __init__(
        self,
        lanes: Sequence[Sequence[int]],
        block: int,
        start: StreamPosition,
        *,
        deterministic: bool,
        replayable: bool,
    ) -> None:
        check_fit(lanes, start)
        rest = [dealt[cursor.splits :] for dealt, cursor in zip(lanes, start.cursors, strict=True)]
        super().__init__(rest, block, deterministic=deterministic, replayable=replayable)
        self._digest = DigestBuilder.after(start.digest)
        order = list(self._turns.lanes)
        self._begun: dict[int, int] = {}
        for number, cursor in enumerate(start.cursors):
            if cursor.elements:
                first = ResumedSplit(rest[number][0], number, cursor, replayable=replayable)
                self._splits[first.split] = first
                self._begun[first.split] = cursor.elements
                order[number] = Lane([self._splits[split] for split in rest[number]])
        self._turns = Turns(order, block, start.turn, start.left)

    @property
    def begun(self) -> dict[int, int]:
        """How much of which splits was consumed before."""
        return dict(self._begun)

    def prefix_of(self, split: int) -> DigestBuilder | None:
        """A copy of the builder of what was consumed of a split, once its hashes are known."""
        state = self._splits.get(split)
        known = state.prefix if isinstance(state, ResumedSplit) else None
        return None if known is None else known.copy()


def check_fit(lanes: Sequence[Sequence[int]], start: StreamPosition) -> None:
    """Whether a position can be one in these lanes.

    Raises:
        PositionError: it cannot; the message says why.
    """
    if len(start.cursors) != len(lanes):
        raise PositionError(f"the position has {len(start.cursors)} lanes, the job {len(lanes)}")
    for number, (dealt, cursor) in enumerate(zip(lanes, start.cursors, strict=True)):
        if cursor.splits + bool(cursor.elements) > len(dealt):
            raise PositionError(
                f"the position is in split {cursor.splits} of lane {number}, which has {len(dealt)}"
            )
