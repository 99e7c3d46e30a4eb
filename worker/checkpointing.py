"""When to take a checkpoint, which to keep, which to begin from. Pure: no clock, no I/O.

Rules. 1. A run restores the newest checkpoint at or below the element that its client wants next.
So the newest one at or below what the client acknowledged is kept, and all after it: the buffer
may be far ahead of the client. 2. Time is production time: what a run waits for space, or for its
checkpoint, does not count. So at most one interval of production is ever done again. 3. `auto`
takes one only where producing has cost many times what the checkpoint does.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Checkpoints of one split that its client has not come to yet.
AHEAD_MAX = 8
#: `auto` takes none before a split has been produced for so long: replaying that is cheap.
AUTO_FIRST_S = 2.0
#: Share of the production time that `auto` spends on checkpoints.
AUTO_SHARE = 0.015
#: Bytes of one checkpoint beyond which `auto` takes none, and so many a second of production.
AUTO_BYTES_MAX = 256 << 20
AUTO_BYTES_PER_S = 16 << 20
#: Bytes of one checkpoint beyond which none is taken, whatever the interval.
CHECKPOINT_BYTES_MAX = 1 << 30


@dataclass(frozen=True, slots=True)
class Interval:
    """How often checkpoints are taken.

    Attributes:
        seconds: production time between two; infinite for `off`.
        auto: decide from what they cost; `seconds` means nothing then.
    """

    seconds: float = math.inf
    auto: bool = False

    @classmethod
    def parse(cls, text: str) -> Interval:
        """The interval that `--checkpoint-interval` names.

        Raises:
            UsageError: the text is not a number of seconds above 0, `auto` or `off`.
        """
        word = text.strip().lower()
        if word in ("auto", "off"):
            return cls(auto=word == "auto")
        try:
            seconds = float(word)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            raise UsageError(
                "--checkpoint-interval takes a number of seconds above 0, auto or off,"
                f" not {text!r}"
            )
        return cls(seconds)

    @property
    def off(self) -> bool:
        """Whether none are taken."""
        return not self.auto and self.seconds == math.inf

    def period_s(self, cost_s: float | None, nbytes: int | None) -> float:
        """Production time between two checkpoints; infinite: none are to be taken.

        Args:
            cost_s: seconds that taking one costs; None while unknown.
            nbytes: its size; None while unknown.
        """
        if nbytes is not None and nbytes > (AUTO_BYTES_MAX if self.auto else CHECKPOINT_BYTES_MAX):
            return math.inf
        if not self.auto:
            return self.seconds
        return max(AUTO_FIRST_S, (cost_s or 0.0) / AUTO_SHARE, (nbytes or 0) / AUTO_BYTES_PER_S)


@dataclass(slots=True)
class Cost:
    """What the checkpoints of one dataset cost, learned from those before. Thread-safe.

    Attributes:
        interval: how often they are wanted.
        refused: why the dataset's iterators have no state that could be kept; empty: they may.
    """

    interval: Interval
    refused: str = ""
    _seconds: float | None = None
    _nbytes: int | None = None
    _said_s: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def learn(self, seconds: float, nbytes: int) -> str:
        """Takes in one checkpoint; older ones fade, save for the size.

        Returns:
            What was decided, if it is news: how often they are taken from now on.
        """
        with self._lock:
            before = self._seconds
            self._seconds = seconds if before is None else 0.75 * before + 0.25 * seconds
            self._nbytes = nbytes
            period_s = self._period_s()
            if self._said_s is not None and _alike(self._said_s, period_s):
                return ""
            self._said_s = period_s
            price = f"one takes {1000 * self._seconds:.1f} ms and {nbytes} bytes"
        if period_s == math.inf:
            return f"no more checkpoints: {price}, which is too much"
        return f"a checkpoint every {period_s:.3g} s of production: {price}"

    def refuse(self, why: str) -> bool:
        """They cannot be had; whether that is news."""
        with self._lock:
            news, self.refused = not self.refused, why
            return news

    def period_s(self) -> float:
        """Production time between two; infinite: none."""
        with self._lock:
            return self._period_s()

    def _period_s(self) -> float:
        return math.inf if self.refused else self.interval.period_s(self._seconds, self._nbytes)


def _alike(a: float, b: float) -> bool:
    """Whether a decision is the same to a reader of the log: within a factor of two."""
    return a == b or (max(a, b) < math.inf and max(a, b) <= 2 * min(a, b))


class Schedule:
    """Says when a run's next checkpoint is due.

    Args:
        cost: of the run's dataset.
        now: monotonic seconds; the run begins to produce.
    """

    def __init__(self, cost: Cost, now: float) -> None:
        self._cost = cost
        self._since = now
        self._produced_s = 0.0

    def pause(self, now: float) -> None:
        """The run hands over what it made, and may have to wait."""
        self._produced_s += now - self._since

    def resume(self, now: float) -> None:
        """The run goes on."""
        self._since = now

    def due(self) -> bool:
        """Whether enough was produced since the last one, or the run's beginning."""
        return self._produced_s >= self._cost.period_s()

    def taken(self) -> None:
        """One was taken."""
        self._produced_s = 0.0


def may_take(held: Iterable[int], acknowledged: int) -> bool:
    """Whether one more checkpoint may be ahead of what the client acknowledged.

    Args:
        held: the elements before each checkpoint that there is.
        acknowledged: elements before it will not be asked for again.
    """
    return sum(elements > acknowledged for elements in held) < AHEAD_MAX


def kept(held: Iterable[int], acknowledged: int) -> list[int]:
    """Those that may still be needed: the newest that every client is past, and all after it."""
    ordered = sorted(set(held))
    past = [elements for elements in ordered if elements <= acknowledged]
    return past[-1:] + [elements for elements in ordered if elements > acknowledged]


def usable(held: Iterable[int], cursor: int) -> list[int]:
    """Those that a run may begin from for a client that wants element `cursor`; the best first."""
    return sorted((elements for elements in set(held) if 0 < elements <= cursor), reverse=True)
