"""Whose turn it is: the order in which lanes hand elements over. Pure, as the core it belongs to.

Each lane yields its splits in order. Lanes take turns, a block of elements each; a lane whose split
ended goes on with its next one within the same block; finished lanes are skipped. Where every lane
has elements at hand, whole rounds are handed over at once (see `weave`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .events import Piece
from .weave import weave

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .splits import Lane, SplitState
    from .weave import Woven


@dataclass(slots=True)
class Taking:
    """What one request for elements has come to so far.

    Attributes:
        budget: elements that are still wanted.
        pieces: what is handed over, in order.
        relieved: splits that gave something up, whose workers may send more.
        moved: a split ended, so that another one is its lane's current one now.
    """

    budget: int
    pieces: list[Piece | Woven] = field(default_factory=list)
    relieved: dict[SplitState, None] = field(default_factory=dict)
    moved: bool = False


class Turns:
    """The lanes of an epoch, and which of them is next.

    Args:
        lanes: all of them.
        block: elements of a turn, >= 1.
        turn: the lane that is next.
        left: elements that are left of its turn; by default all.

    Attributes:
        lanes: as given.
        block: as given.
        unfinished: how many lanes have a split left.
        turn: the lane that is next.
    """

    def __init__(
        self, lanes: Sequence[Lane], block: int, turn: int = 0, left: int | None = None
    ) -> None:
        self.lanes = lanes
        self.block = block
        self.unfinished = sum(lane.current is not None for lane in lanes)
        self.turn = turn
        self._left = block if left is None else left

    def is_current(self, state: SplitState) -> bool:
        """Whether it is the split that its lane yields now."""
        return self.lanes[state.lane].current is state

    def until(self, state: SplitState) -> int:
        """How many turns there are before its lane's."""
        return (state.lane - self.turn) % len(self.lanes)

    def clear(self) -> None:
        """Frees what is there. The lanes are not finished by this: an end would be a lie (G5)."""
        self.lanes = ()

    def take_in_order(self, budget: int) -> Taking:
        """At most so many elements, in the order that is the epoch's."""
        taking = Taking(budget)
        weaves = True
        while taking.budget > 0 and self.unfinished:
            if weaves and self._left == self.block:
                weaves = self._weave(taking)
                if weaves:
                    continue
            state = self._settle(self.lanes[self.turn], taking)
            if state is None or self._left == 0:
                self.turn = (self.turn + 1) % len(self.lanes)
                self._left = self.block
                weaves = weaves or self.turn == 0  # it looks at every lane: once in a round
                continue
            count = min(state.available, self._left, taking.budget)
            if count == 0:
                break
            self._pop(state, count, taking)
            self._left -= count
        return taking

    def take_any(self, budget: int) -> Taking:
        """At most so many elements, of whichever lanes have some."""
        taking = Taking(budget)
        idle = 0
        while taking.budget > 0 and idle < len(self.lanes):
            self.turn = (self.turn + 1) % len(self.lanes)
            state = self._settle(self.lanes[self.turn], taking)
            count = min(state.available, taking.budget) if state is not None else 0
            if state is None or count == 0:
                idle += 1
                continue
            self._pop(state, count, taking)
            idle = 0
        return taking

    def _weave(self, taking: Taking) -> bool:
        """Hands over whole rounds, if that can be."""
        order = [*self.lanes[self.turn :], *self.lanes[: self.turn]]
        current = [self._settle(lane, taking) for lane in order]
        states = [state for state in current if state is not None]
        woven = weave(states, self.block, taking.budget)
        if woven is None:
            return False
        taking.pieces.append(woven)
        taking.budget -= len(woven.hashes)
        taking.relieved.update(dict.fromkeys(states))
        return True

    def _settle(self, lane: Lane, taking: Taking) -> SplitState | None:
        """Leaves the splits of a lane that are over, and returns the current one."""
        state = lane.current
        if state is None:
            return None
        while state is not None and state.exhausted:
            lane.advance()
            state, taking.moved = lane.current, True
        if state is None:
            self.unfinished -= 1
        return state

    def _pop(self, state: SplitState, count: int, taking: Taking) -> None:
        taking.pieces.extend(Piece(state.split, chunk) for chunk in state.pop(count))
        taking.budget -= count
        taking.relieved[state] = None
