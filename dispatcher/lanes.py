"""In which order an epoch's splits are wanted: each lane's next splits, cheaply.

A `LaneBook` is derived from the deal, the delivered splits and the running attempts; it is never
journaled, and is built when it is first needed, so that replaying a journal deals nothing. After
that it is kept up to date, and a question costs the logarithm of what runs, not the number of
splits.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .splitset import SplitSet


class _Lane:
    """A lane: positions before `frontier` are delivered, in `flight` or in `redo`."""

    __slots__ = ("flight", "frontier", "redo", "splits")

    def __init__(self, splits: Sequence[int]) -> None:
        self.splits = array("I", splits)
        self.frontier = 0
        self.flight: list[int] = []  # positions that an attempt runs for, ascending
        self.redo: list[int] = []  # positions that lost their attempt, ascending


class LaneBook:
    """Which splits of an epoch are wanted next.

    Args:
        dealt: the splits of each lane in order, as `proto.deal` gives them.
        delivered: the delivered splits; shared with the state, which fills it.
        running: the splits that have an attempt.
    """

    def __init__(
        self, dealt: Sequence[Sequence[int]], delivered: SplitSet, running: Iterable[int]
    ) -> None:
        self._lanes = [_Lane(splits) for splits in dealt]
        self._delivered = delivered
        count = sum(map(len, dealt))
        self._lane_of = array("I", bytes(4 * count))
        self._position_of = array("I", bytes(4 * count))
        for number, splits in enumerate(dealt):
            for position, split in enumerate(splits):
                self._lane_of[split] = number
                self._position_of[split] = position
        for split in running:
            self.assigned(split)

    @property
    def num_lanes(self) -> int:
        """The number of lanes, those without splits too."""
        return len(self._lanes)

    def length(self, lane_number: int) -> int:
        """How many splits a lane has."""
        return len(self._lanes[lane_number].splits)

    def assigned(self, split: int) -> None:
        """An attempt runs for the split."""
        lane, position = self._at(split)
        if position < lane.frontier:
            _remove(lane.redo, position)
        else:
            # Usually nothing is passed over: splits are assigned in the lane's order.
            passed = range(lane.frontier, position)
            lane.redo += [at for at in passed if lane.splits[at] not in self._delivered]
            lane.frontier = position + 1
        insort(lane.flight, position)

    def dropped(self, split: int) -> None:
        """The split's attempt is void."""
        lane, position = self._at(split)
        _remove(lane.flight, position)
        insort(lane.redo, position)

    def delivered(self, split: int) -> None:
        """The split is delivered, and in the set of delivered ones already."""
        lane, position = self._at(split)
        _remove(lane.flight, position)
        _remove(lane.redo, position)

    def candidates(self, lane_number: int) -> Iterator[tuple[int, int]]:
        """The splits of a lane that want an attempt, in its order.

        Yields:
            (split, depth): the depth is the number of splits that the lane delivers before this
            one, if those yielded before get their attempts; 0 for the lane's current split.
        """
        lane = self._lanes[lane_number]
        yielded = 0
        for position in lane.redo:
            yield lane.splits[position], bisect_left(lane.flight, position) + yielded
            yielded += 1
        position = self._advance(lane)
        while position < len(lane.splits):
            split = lane.splits[position]
            if split not in self._delivered:
                yield split, len(lane.flight) + yielded
                yielded += 1
            position += 1

    def lane_of(self, split: int) -> int:
        """The lane that delivers the split."""
        return self._lane_of[split]

    def ahead(self, split: int) -> int:
        """How many splits that have an attempt its lane delivers before this one."""
        lane, position = self._at(split)
        return bisect_left(lane.flight, position)

    def running_at(self, lane_number: int, place: int) -> int | None:
        """Of a lane's splits that have an attempt, the one with `place` of them before it."""
        lane = self._lanes[lane_number]
        return lane.splits[lane.flight[place]] if place < len(lane.flight) else None

    def current(self, lane_number: int) -> int | None:
        """The lane's first split that is not delivered, or None at its end."""
        lane = self._lanes[lane_number]
        firsts = [*lane.redo[:1], *lane.flight[:1], self._advance(lane)]
        position = min(firsts)
        return lane.splits[position] if position < len(lane.splits) else None

    def wanted(self) -> list[list[int]]:
        """All splits that want an attempt, by lane; for checking, it costs all splits."""
        return [
            [split for split, _ in self.candidates(number)] for number in range(len(self._lanes))
        ]

    def _at(self, split: int) -> tuple[_Lane, int]:
        return self._lanes[self._lane_of[split]], self._position_of[split]

    def _advance(self, lane: _Lane) -> int:
        while lane.frontier < len(lane.splits) and lane.splits[lane.frontier] in self._delivered:
            lane.frontier += 1
        return lane.frontier


def _remove(ordered: list[int], value: int) -> None:
    at = bisect_left(ordered, value)
    if at < len(ordered) and ordered[at] == value:
        del ordered[at]
