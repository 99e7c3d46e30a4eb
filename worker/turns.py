"""Who goes first of the runs that make again what their client has. Part of the pure core.

After a failure all lanes' splits are made again at once, and the client can go on when the first of
them has caught up. If all get an equal part of the processors, the first is done no sooner than
the last. So they take turns, in the order in which the client asked: it asks first for what it
wants next. One goes on at a time, and more as soon as that leaves the processors idle, because it
can use only one of them, waits for files or is stuck.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .attempt import Attempt


class Turns:
    """The turns of one worker's replays."""

    def __init__(self) -> None:
        self._width = 1  # how many go on at once
        self._now: frozenset[int] = frozenset()
        self._waiting = False

    def has(self, attempt: Attempt) -> bool:
        """Whether it is the attempt's turn; one that replays nothing needs none."""
        return not attempt.replaying or attempt.run in self._now

    def deal(self, attempts: Iterable[Attempt]) -> None:
        """Deals the turns again: something has begun, caught up or ended."""
        replaying = [(a.fetch.number, a.run) for a in attempts if a.replaying and a.fetch]
        if not replaying:
            self._width = 1
        first = sorted(replaying)[: self._width]
        self._now = frozenset(run for _, run in first)
        self._waiting = len(first) < len(replaying)

    def widen(self) -> bool:
        """The processors are idle: twice as many go on; whether there are so many."""
        if self._waiting:
            self._width *= 2
        return self._waiting
