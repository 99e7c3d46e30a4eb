"""What a consumer saw, as times; and the gaps in it. No clock, I/O or threads.

Outage, defined: the consumer reads as fast as it can. The outage of a fault is the longest time
between two deliveries that follow each other, of which the second came after the fault. Nothing is
subtracted: not the detection, not the start of a process, not what the consumer would have waited
anyway. How long that is without a fault is measured beside it: the longest such time before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Gap:
    """The time between two deliveries that follow each other, on the monotonic clock."""

    begin_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        """How long it is."""
        return self.end_s - self.begin_s


@dataclass(slots=True)
class Timeline:
    """The deliveries of one epoch, in order.

    Attributes:
        asked_s: when the consumer asked for each.
        came_s: when it had it.
        elements: how many elements it was.
    """

    asked_s: list[float] = field(default_factory=list)
    came_s: list[float] = field(default_factory=list)
    elements: list[int] = field(default_factory=list)

    def add(self, asked_s: float, came_s: float, elements: int) -> None:
        """The consumer asked at `asked_s` and got `elements` (> 0) at `came_s`."""
        self.asked_s.append(asked_s)
        self.came_s.append(came_s)
        self.elements.append(elements)

    @property
    def total(self) -> int:
        """Elements delivered so far."""
        return sum(self.elements)

    def longest_gap(
        self, *, after_s: float | None = None, until_s: float | None = None
    ) -> Gap | None:
        """The longest time between two deliveries that follow each other.

        Args:
            after_s: only gaps that end after this.
            until_s: only gaps that end at this or before.

        Returns:
            The first of the longest ones; None if there is no gap there.
        """
        gaps = [Gap(a, b) for a, b in zip(self.came_s, self.came_s[1:], strict=False)]
        return _longest(gaps, after_s, until_s)

    def longest_wait(
        self, *, after_s: float | None = None, until_s: float | None = None
    ) -> Gap | None:
        """The longest time from asking to having, likewise; a consumer's own work is not in it."""
        waits = [Gap(a, b) for a, b in zip(self.asked_s, self.came_s, strict=True)]
        return _longest(waits, after_s, until_s)

    def rate(self) -> float:
        """Elements a second, from the first delivery to the last; 0 if there is only one."""
        if len(self.came_s) < 2:
            return 0.0
        return sum(self.elements[1:]) / max(1e-9, self.came_s[-1] - self.came_s[0])


def _longest(gaps: list[Gap], after_s: float | None, until_s: float | None) -> Gap | None:
    fitting = [
        gap
        for gap in gaps
        if (after_s is None or gap.end_s > after_s) and (until_s is None or gap.end_s <= until_s)
    ]
    return max(fitting, key=lambda gap: gap.length_s, default=None)
