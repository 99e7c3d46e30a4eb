"""Who goes first when much has to be made again. Part of the pure core.

After a failure all lanes' splits are made again at once, and the client can go on when the first of
them has caught up. If all get an equal part of the processors, the first is done no sooner than
the last. So they take turns, in the order in which the client asked: it asks first for what it
wants next. What only adds to what its client has not taken yet comes after them; whoever has
nothing ready for its client needs no turn. One goes on at a time, and more as soon as that leaves
the processors idle, because it can use only one of them, waits for files or is stuck.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .messages import State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .attempt import Attempt

_LAST = 1 << 62


class Turns:
    """The turns of one worker's runs, as long as some of them replay."""

    def __init__(self) -> None:
        self._width = 1  # how many go on at once
        self._replaying = False
        self._now: frozenset[int] = frozenset()
        self._waiting = False

    def has(self, attempt: Attempt) -> bool:
        """Whether it is the attempt's turn, or it needs none."""
        if not self._replaying or attempt.read or attempt.run in self._now:
            return True
        return not attempt.replaying and not attempt.buffer.nbytes

    def deal(self, attempts: Iterable[Attempt]) -> None:
        """Deals the turns again: something has begun, caught up or ended."""
        waiting = [
            (not attempt.replaying, attempt.fetch.number if attempt.fetch else _LAST, attempt.run)
            for attempt in attempts
            if attempt.replaying
            or (attempt.buffer.nbytes and attempt.state is State.RUNNING and not attempt.read)
        ]
        waiting.sort()
        self._replaying = bool(waiting) and not waiting[0][0]
        if not self._replaying:
            self._width, self._waiting = 1, False
            return
        self._now = frozenset(run for _, _, run in waiting[: self._width])
        self._waiting = self._width < len(waiting)

    def widen(self) -> bool:
        """The processors are idle: twice as many go on; whether there are so many."""
        if self._waiting:
            self._width *= 2
        return self._waiting
