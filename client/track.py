"""What was delivered of an epoch, so that any recent count of elements can be made a position.

The trainer says how many elements it took, which is fewer than it was handed: prefetching and
batching are between. So every delivery is remembered until a later position has passed it: lane,
split, and the hash of each element. What is older than the newest `KEPT_MAX` elements is forgotten,
too. Works for any order of delivery, since each lane yields its own elements in order.
"""

from __future__ import annotations

import copy
from array import array
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import PositionError
from ..proto.hashing import Digest, DigestBuilder
from ..proto.position import Cursor
from .weave import Woven

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ..proto.hashing import Hashes
    from ..proto.position import StreamPosition
    from .events import Piece

    #: The digest of a split, once it is known.
    Proven = Callable[[int], Digest | None]

#: A position can be made of so many elements that were delivered last; 8 bytes each.
KEPT_MAX = 1 << 22
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Reached:
    """Where a number of consumed elements ends; the parts of a `StreamPosition`."""

    digest: Digest
    whole: tuple[int, int]
    turn: int
    left: int
    cursors: tuple[Cursor, ...]


@dataclass(frozen=True, slots=True)
class _Run:
    """Consecutive elements of one split; `prefix`: see `Track`."""

    lane: int
    split: int
    hashes: Hashes
    prefix: DigestBuilder | None = None

    def part(self, first: int, stop: int) -> _Run:
        """Some of its elements."""
        return _Run(self.lane, self.split, self.hashes[first:stop], self.prefix)


@dataclass(frozen=True, slots=True)
class _Weave:
    """Runs of equal length, `block` elements of each in turn; `hashes` in delivered order."""

    runs: tuple[_Run, ...]
    block: int
    hashes: Hashes

    def parts(self, count: int) -> Iterator[_Run | _Weave]:
        """The same: whole rounds of at most `count` elements, a round of single runs, the rest."""
        width = self.block * len(self.runs)
        first = count // width * self.block
        last = first + self.block
        if first:
            yield self._rounds(0, first)
        for run in self.runs:
            yield run.part(first, last)
        if last < len(self.runs[0].hashes):
            yield self._rounds(last, len(self.runs[0].hashes))

    def _rounds(self, first: int, stop: int) -> _Weave:
        width = len(self.runs)
        runs = tuple(run.part(first, stop) for run in self.runs)
        return _Weave(runs, self.block, self.hashes[first * width : stop * width])


class _LaneState:
    """How far a lane is; `builder` is None as long as all there is is what a position said."""

    __slots__ = ("builder", "consumed", "index")

    def __init__(self, index: int, consumed: Digest | None, elements: int) -> None:
        self.index = index
        self.consumed = Cursor(index, elements, consumed)
        self.builder = None if elements else DigestBuilder()

    def __copy__(self) -> _LaneState:
        other = _LaneState(self.index, self.consumed.digest, self.consumed.elements)
        other.builder = None if self.builder is None else self.builder.copy()
        return other

    def cursor(self) -> Cursor:
        if self.builder is None:
            return self.consumed
        digest = self.builder.digest()
        return Cursor(self.index, digest.count, digest if digest.count else Digest(0, 0, 0))

    def next_split(self) -> None:
        self.index += 1
        self.consumed = Cursor()
        self.builder = DigestBuilder()


class _State:
    """The sum of all runs up to a point."""

    def __init__(self, lanes: int, block: int, start: StreamPosition | None) -> None:
        self.block = block
        self.lanes = [_LaneState(0, None, 0) for _ in range(lanes)]
        self.builder = DigestBuilder()
        self.count, self.whole, self.turn, self.left = 0, (0, 0), 0, block
        if start is not None and start.started:
            self.lanes = [_LaneState(c.splits, c.digest, c.elements) for c in start.cursors]
            self.builder = DigestBuilder.after(start.digest)
            self.count, self.whole = start.digest.count, start.whole
            self.turn, self.left = start.turn, start.left

    def __copy__(self) -> _State:
        other = _State(0, self.block, None)
        other.lanes = [copy.copy(lane) for lane in self.lanes]
        other.builder, other.count, other.whole = self.builder.copy(), self.count, self.whole
        other.turn, other.left = self.turn, self.left
        return other

    def add(self, run: _Run, dealt: Sequence[Sequence[int]], proven: Proven) -> None:
        """A run, or the first part of one."""
        self._add_to_lane(run, dealt[run.lane], proven)
        self.builder.update(run.hashes)
        count = len(run.hashes)
        self.count += count
        used = count + (self.block - self.left if run.lane == self.turn else 0)
        self.turn, self.left = run.lane, self.block - ((used - 1) % self.block + 1)

    def add_rounds(self, weave: _Weave, dealt: Sequence[Sequence[int]], proven: Proven) -> None:
        """Whole rounds, which begin and end between two turns."""
        for run in weave.runs:
            self._add_to_lane(run, dealt[run.lane], proven)
        self.builder.update(weave.hashes)
        self.count += len(weave.hashes)
        self.turn, self.left = weave.runs[-1].lane, 0

    def _add_to_lane(self, run: _Run, dealt: Sequence[int], proven: Proven) -> None:
        lane = self.lanes[run.lane]
        while dealt[lane.index] != run.split:
            self._over(lane, proven(dealt[lane.index]))
        if lane.builder is None:
            assert run.prefix is not None, "a resumed split delivers after its replay"
            lane.builder = run.prefix.copy()
        lane.builder.update(run.hashes)

    def settle(self, dealt: Sequence[Sequence[int]], proven: Proven) -> None:
        """Leaves every split that is known to have no more elements."""
        for lane, splits in zip(self.lanes, dealt, strict=True):
            while lane.index < len(splits):
                digest = proven(splits[lane.index])
                if digest is None or digest.count != lane.cursor().elements:
                    break
                self._over(lane, digest)

    def _over(self, lane: _LaneState, proven: Digest | None) -> None:
        known = proven or lane.cursor().digest
        if known is None:
            raise PositionError("the epoch was given up, and what its splits held is not known")
        count, total = self.whole
        self.whole = count + known.count, (total + known.total) & _MASK
        lane.next_split()


class Track:
    """The deliveries of one epoch of one stream.

    Args:
        lanes: the splits of each lane, as dealt.
        block: of the job.
        start: where the epoch was begun, if not at its beginning.
        proven: the digest of a split, once it is known.
        prefix: a builder of what was consumed of a split in another life, once it is known.

    Attributes:
        base: elements that were consumed before this life.
        delivered: elements up to the last delivery, those of other lives included.
        floor: the least number that can be made a position.
        total: elements of the epoch; None until it was delivered whole.
    """

    def __init__(
        self,
        lanes: Sequence[Sequence[int]],
        block: int,
        start: StreamPosition | None,
        *,
        proven: Proven,
        prefix: Callable[[int], DigestBuilder | None],
    ) -> None:
        self._dealt = lanes
        self._lane_of = array("I", bytes(4 * sum(map(len, lanes))))
        for number, splits in enumerate(lanes):
            for split in splits:
                self._lane_of[split] = number
        self._proven = proven
        self._prefix = prefix
        self._state = _State(len(lanes), block, start)
        self._runs: deque[_Run | _Weave] = deque()
        # Splits that were begun in another life, and have delivered nothing in this one.
        self._begun = {
            splits[cursor.splits]
            for splits, cursor in zip(lanes, start.cursors if start else (), strict=False)
            if cursor.elements
        }
        self.base = self.floor = self.delivered = self._state.count
        self.total: int | None = None

    @property
    def kept(self) -> int:
        """Elements that are remembered one by one."""
        return self.delivered - self.floor

    def add(self, pieces: Iterable[Piece | Woven]) -> None:
        """A delivery, before the trainer gets it."""
        for piece in pieces:
            if isinstance(piece, Woven):
                runs = tuple(self._run(part) for part in piece.pieces)
                self._runs.append(_Weave(runs, piece.block, piece.hashes))
            else:
                self._runs.append(self._run(piece))
            self.delivered += len(piece.hashes)
        while self.delivered - self.floor > KEPT_MAX:
            self.forget(self.floor + len(self._runs[0].hashes))

    def at(self, consumed: int) -> Reached:
        """Where `consumed` elements end, from `floor` to `delivered`."""
        assert self.floor <= consumed <= self.delivered
        self.forget(consumed)
        state = copy.copy(self._state)
        state.settle(self._dealt, self._proven)
        return Reached(
            state.builder.digest(),
            state.whole,
            state.turn,
            state.left,
            tuple(lane.cursor() for lane in state.lanes),
        )

    def forget(self, consumed: int) -> None:
        """No position before this one will be asked for."""
        while self.floor < consumed:
            run = self._runs.popleft()
            wanted, length = consumed - self.floor, len(run.hashes)
            if isinstance(run, _Weave):
                if wanted < length:
                    self._runs.extendleft(reversed(list(run.parts(wanted))))
                    continue
                self._state.add_rounds(run, self._dealt, self._proven)
            else:
                if wanted < length:
                    self._runs.appendleft(run.part(wanted, length))
                    run = run.part(0, wanted)
                self._state.add(run, self._dealt, self._proven)
            self.floor += len(run.hashes)

    def _run(self, piece: Piece) -> _Run:
        resumed = self._prefix(piece.split) if piece.split in self._begun else None
        self._begun.discard(piece.split)
        # Hashes lie in the frame's header, not in the buffer that its payload was received into.
        return _Run(self._lane_of[piece.split], piece.split, piece.hashes, resumed)
