"""What workers say of their running attempts: how far they are, and since when they stand still.

Ephemeral: a new term begins with nothing and gives every attempt a fresh time. Reports are whole
and may come late or twice, so numbers only grow and what is produced stays produced: an overtaken
report changes nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..proto import control_pb2
    from .records import Attempt, EpochKey, Worker
    from .state import State

#: How many ended attempts may still be reported on: the last words of one may come after its end.
_ENDED_MAX = 4096
PRODUCED = 1  # of HeldAttempt.State


@dataclass(slots=True)
class Progress:
    """How far an attempt is.

    Attributes:
        attempt: which one it is.
        since_s: when it made an element last, or had a good reason not to (monotonic).
        elements: made so far.
        restored: the element that it began at, from a checkpoint; 0 if from the start.
        recomputed: made again though the client had them from an earlier attempt.
        waiting: its buffer was full when it was reported last.
        cached: it reads a segment of a cache.
        began_s: when it was given out, or found in the journal (monotonic).
    """

    attempt: Attempt
    since_s: float
    elements: int = 0
    restored: int = 0
    recomputed: int = 0
    waiting: bool = False
    cached: bool = False
    began_s: float = 0.0


@dataclass(slots=True)
class Totals:
    """What attempts add up to.

    Attributes:
        recomputed_elements: made again though the client had them.
        restored_attempts: how many began at a checkpoint.
        cached_attempts: how many read a segment of a cache.
    """

    recomputed_elements: int = 0
    restored_attempts: int = 0
    cached_attempts: int = 0

    def add(self, recomputed: int, restored: int, cached: int) -> None:
        """Counts further elements and attempts."""
        self.recomputed_elements += recomputed
        self.restored_attempts += restored
        self.cached_attempts += cached


@dataclass(slots=True)
class Reports:
    """The progress of every running attempt, and what those of this term add up to.

    Attributes:
        produced: by worker, those of its running attempts that it has produced whole.
        progress: by attempt, running ones only.
        totals: of each job that is there.
        total: of all jobs of this term.
        vain: by epoch and split, how often in a row an attempt was dropped that had made no more
            than those before it, and how much that was.
    """

    produced: dict[str, set[int]] = field(default_factory=dict)
    progress: dict[int, Progress] = field(default_factory=dict)
    totals: dict[str, Totals] = field(default_factory=dict)
    total: Totals = field(default_factory=Totals)
    vain: dict[tuple[EpochKey, int], tuple[int, int]] = field(default_factory=dict)
    _of: dict[str, set[int]] = field(default_factory=dict)
    _ended: dict[int, Progress] = field(default_factory=dict)
    _ended_order: deque[int] = field(default_factory=deque)

    def began(self, attempt: Attempt, now_s: float) -> None:
        """An attempt is given to a worker, or found in the journal."""
        self.progress[attempt.attempt] = Progress(attempt, now_s, began_s=now_s)
        self.totals.setdefault(attempt.job, Totals())
        self._of.setdefault(attempt.worker, set()).add(attempt.attempt)

    def take(self, worker: Worker, held: Iterable[control_pb2.HeldAttempt], now_s: float) -> bool:
        """A worker's whole report.

        Returns:
            Whether an attempt is produced that was not.
        """
        known = self.produced.get(worker.worker, set())
        now_produced = {number for number in known if number in worker.attempts}
        for item in held:
            progress = self.progress.get(item.attempt) or self._ended.get(item.attempt)
            if progress is None or progress.attempt.worker != worker.worker:
                continue
            self._count(progress, item)
            produced = item.state == PRODUCED
            if item.elements > progress.elements or item.waiting or produced:
                progress.since_s = now_s
            progress.elements = max(progress.elements, item.elements)
            progress.waiting = item.waiting
            if produced and item.attempt in worker.attempts:
                now_produced.add(item.attempt)
        if now_produced:
            self.produced[worker.worker] = now_produced
        return now_produced != known

    def read(self, worker: str, attempts: Iterable[int]) -> None:
        """Attempts of a worker that read a segment; each may be told of again."""
        for number in attempts:
            progress = self.progress.get(number) or self._ended.get(number)
            if progress is not None and progress.attempt.worker == worker and not progress.cached:
                progress.cached = True
                self._add(progress, 0, 0, 1)

    def ended(self, worker: str, running: Iterable[int]) -> None:
        """Only these attempts of a worker still run."""
        left = set(running)
        mine = self._of.get(worker, set())
        for number in sorted(mine - left):
            self._ended[number] = self.progress.pop(number)
            self._ended_order.append(number)
        while len(self._ended_order) > _ENDED_MAX:
            del self._ended[self._ended_order.popleft()]
        mine &= left
        if not mine:
            self._of.pop(worker, None)
        if worker in self.produced:
            self.produced[worker] &= left
            if not self.produced[worker]:
                del self.produced[worker]

    def dropped(self, number: int) -> None:
        """A client could not get the attempt from its worker, which does not hold it."""
        progress = self.progress.get(number)
        if progress is not None:
            key = (progress.attempt.epoch_key, progress.attempt.split)
            times, most = self.vain.get(key, (0, 0))
            made = progress.elements
            self.vain[key] = (1, made) if made > most else (times + 1, most)

    def prune(self, state: State) -> None:
        """Forgets the epochs that are over."""
        self.vain = {
            key: value for key, value in self.vain.items() if state.epoch(key[0]) is not None
        }

    def forgive(self, now_s: float) -> None:
        """Gives every attempt a fresh time: this process was paused, and has heard nobody."""
        for progress in self.progress.values():
            progress.since_s = now_s

    def forget_job(self, job: str) -> None:
        """The job is over; what it took stays in the total of all."""
        self.totals.pop(job, None)

    def _count(self, progress: Progress, item: control_pb2.HeldAttempt) -> None:
        recomputed = max(0, item.recomputed - progress.recomputed)
        restored = int(item.restored > 0 and progress.restored == 0)
        progress.recomputed += recomputed
        progress.restored = progress.restored or item.restored
        self._add(progress, recomputed, restored, 0)

    def _add(self, progress: Progress, recomputed: int, restored: int, cached: int) -> None:
        for totals in (self.total, self.totals.get(progress.attempt.job)):
            if totals is not None:
                totals.add(recomputed, restored, cached)
