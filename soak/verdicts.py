"""Was every element delivered exactly once, unaltered, and in the order it had before?

Pure: sequences of element hashes in, counts of what is wrong with them out. The hashes are the
caller's (any hashable value), and so is the ground truth: the multiset that a plain local run of
the same pipeline gives.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with a sequence; all 0 if nothing is.

    Attributes:
        elements: how many were delivered.
        lost: elements of the ground truth that are missing and not accounted for as altered.
        duplicated: deliveries of an element beyond those in the ground truth.
        altered: elements that the ground truth does not have.
        misplaced: positions at which another reading of the same epoch had another element.
        reread: whether there was another reading to compare the order with.
    """

    elements: int
    lost: int = 0
    duplicated: int = 0
    altered: int = 0
    misplaced: int = 0
    reread: bool = False

    @property
    def exact(self) -> bool:
        """Whether nothing is wrong."""
        return self.lost == self.duplicated == self.altered == self.misplaced == 0


def verdict_of(
    truth: Counter[bytes],
    sequence: Sequence[bytes],
    reference: Sequence[bytes] | None = None,
    *,
    whole: bool = True,
) -> Verdict:
    """Compares a sequence with the ground truth, and with another reading of the same epoch.

    Args:
        truth: how often each element occurs in a plain local run.
        sequence: the hashes of what was delivered, in order.
        reference: what the same epoch was when it was read before, whole or in part.
        whole: False for an epoch that was broken off: then nothing that is missing counts.
    """
    seen = Counter(sequence)
    unknown = sum(times for element, times in seen.items() if element not in truth)
    repeated = sum(
        max(0, times - truth[element]) for element, times in seen.items() if element in truth
    )
    missing = sum((truth - seen).values()) if whole else 0
    misplaced = 0
    if reference is not None:
        misplaced = sum(a != b for a, b in zip(sequence, reference, strict=False))
    return Verdict(
        elements=len(sequence),
        lost=max(0, missing - unknown),
        duplicated=repeated,
        altered=unknown,
        misplaced=misplaced,
        reread=reference is not None and len(reference) > 0,
    )


@dataclass(slots=True)
class Checker:
    """Judges every reading of every epoch, and remembers their orders.

    What was delivered of an epoch that was broken off is judged, too: it must be the beginning of
    what any other reading of that epoch gives.

    Args:
        truths: ground truth by the name of the pipeline.
    """

    truths: dict[str, Counter[bytes]]
    _orders: dict[tuple[str, int, int], tuple[bytes, ...]] = field(default_factory=dict)

    def judge(
        self, pipeline: str, seed: int, epoch: int, sequence: Sequence[bytes], *, whole: bool = True
    ) -> Verdict:
        """The verdict on one reading of epoch `epoch` of `pipeline` with job seed `seed`."""
        key = (pipeline, seed, epoch)
        known = self._orders.get(key)
        verdict = verdict_of(self.truths[pipeline], sequence, known, whole=whole)
        if len(sequence) > len(known or ()):
            self._orders[key] = tuple(sequence)
        return verdict

    def forget(self, pipeline: str, seed: int) -> None:
        """Frees what is kept of the orders of a seed that is not read again."""
        for key in [key for key in self._orders if key[:2] == (pipeline, seed)]:
            del self._orders[key]


@dataclass(frozen=True, slots=True)
class Injected:
    """A fault that began, and when (seconds on any one clock)."""

    kind: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Outage:
    """A trainer wanted an element and waited for it.

    Attributes:
        begin_s: when it began to wait.
        end_s: when it went on.
        cause: the faults that came shortly before and meanwhile, in words.
    """

    begin_s: float
    end_s: float
    cause: str = ""

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.end_s - self.begin_s


def cause_of(begin_s: float, end_s: float, faults: Sequence[Injected], before_s: float) -> str:
    """The faults that may have caused a wait: those during it and up to `before_s` ahead of it."""
    kinds = [f.kind for f in faults if begin_s - before_s <= f.at_s <= end_s]
    return ", then ".join(dict.fromkeys(kinds)) or "no fault"


def overlaps(begin_s: float, end_s: float, intervals: Sequence[tuple[float, float]]) -> bool:
    """Whether a time overlaps with one of `intervals` (begin, end)."""
    return any(begin_s < end and begin < end_s for begin, end in intervals)
