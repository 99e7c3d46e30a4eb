"""When a worker tells of what it has made. Pure; the simulated workers of `bench` use it too.

Telling is asking for more work. Who has told of nothing since before half of its work was done
still has the other half, and needs no call for each split: with many workers these calls are most
of what a dispatcher does. What is not told of at once goes with the next heartbeat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .messages import Report

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .attempt import Attempt


class Tidings:
    """Counts the splits that were produced since the dispatcher was told last."""

    def __init__(self) -> None:
        self._untold = 0

    def produced(self) -> None:
        """One more."""
        self._untold += 1

    def told(self) -> None:
        """All are told of."""
        self._untold = 0

    def is_due(self, making: int) -> bool:
        """Whether it is time to tell.

        Args:
            making: how many splits are being made and do not wait for their client.
        """
        return 0 < self._untold >= making

    def of(self, runs: Iterable[Attempt]) -> list[Report]:
        """The instruction to tell, if these are the attempts that run and it is time."""
        due = self._untold > 0 and self.is_due(sum(not attempt.waiting for attempt in runs))
        return [Report()] if due else []
