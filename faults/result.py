"""What a test found: compared with the ground truth, as a line for people, and as JSON. Pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..bench.timeline import Timeline
from ..soak.verdicts import verdict_of

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class EpochFound:
    """An epoch, compared; see `soak.verdicts.Verdict`.

    Attributes:
        in_order: whether each element is where an undisturbed reading of this epoch has it.
    """

    epoch: int
    elements: int
    lost: int
    duplicated: int
    altered: int
    in_order: bool

    @property
    def exact(self) -> bool:
        """Whether nothing is wrong."""
        return self.lost == self.duplicated == self.altered == 0 and self.in_order

    def __str__(self) -> str:
        order = "in order" if self.in_order else "NOT in the order of an undisturbed reading"
        return (
            f"epoch {self.epoch}: {self.elements} elements, {self.lost} lost, "
            f"{self.duplicated} duplicated, {self.altered} altered, {order}"
        )


@dataclass(frozen=True, slots=True)
class Delivery:
    """A batch as the trainer had it, with times on the monotonic clock."""

    epoch: int
    asked_s: float
    came_s: float
    elements: int


@dataclass(frozen=True, slots=True)
class TestResult:
    """What came of a test.

    Attributes:
        name: of the test.
        run: which repetition, from 0; None where there are none.
        seconds: from the start of its first process to the end of the last.
        epochs: those that were delivered whole.
        outage_s: the longest time between two deliveries in the epoch of the fault, the second of
            them after the fault; None where there was no fault, or nothing after it.
        replayed: elements that were made again though the client had them.
        story: what was done, in words.
        problems: what must not have happened; empty if all is well.
        directory: journal, checkpoints, logs.
    """

    __test__ = False  # no test of pytest's

    name: str
    run: int | None
    seconds: float
    epochs: tuple[EpochFound, ...]
    outage_s: float | None
    replayed: int
    story: str
    problems: tuple[str, ...]
    directory: Path

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return not self.problems

    @property
    def detail(self) -> str:
        """What was done; of a failure, what is wrong with it."""
        return self.story if self.ok else "; ".join(self.problems)


def epoch_of(
    epoch: int,
    truth: Counter[bytes],
    sequence: Sequence[bytes],
    reference: Sequence[bytes] | None,
    *,
    whole: bool = True,
) -> EpochFound:
    """Compares what was delivered of an epoch.

    Args:
        epoch: its number.
        truth: how often each element occurs in a plain local run.
        sequence: the hashes of what came, in order.
        reference: what an undisturbed reading gave; None where this is that.
        whole: False for an epoch that was broken off: then nothing that is missing counts.
    """
    verdict = verdict_of(truth, sequence, reference, whole=whole)
    in_order = verdict.misplaced == 0
    if reference is not None:
        in_order &= len(sequence) == len(reference) if whole else len(sequence) <= len(reference)
    return EpochFound(
        epoch, verdict.elements, verdict.lost, verdict.duplicated, verdict.altered, in_order
    )


def outage_of(
    deliveries: Sequence[Delivery], holds: Sequence[tuple[float, float]], struck_s: float
) -> float | None:
    """The longest time between two deliveries, the second of them after the fault.

    Args:
        deliveries: of the epoch with the fault.
        holds: (begin, end) of each time that the trainer was made to wait: they do not count.
        struck_s: when the fault came.

    Returns:
        Seconds; None if nothing came after the fault.
    """

    def trained_s(at_s: float) -> float:
        return at_s - sum(min(end, at_s) - begin for begin, end in holds if begin < at_s)

    timeline = Timeline()
    for one in deliveries:
        timeline.add(trained_s(one.asked_s), trained_s(one.came_s), one.elements)
    gap = timeline.longest_gap(after_s=trained_s(struck_s))
    return None if gap is None else gap.length_s


def line_of(result: TestResult) -> tuple[str, str]:
    """The result for people, in one line: the mark, and the rest."""
    name = result.name if result.run is None else f"{result.name} {result.run + 1}"
    outage = "outage -" if result.outage_s is None else f"outage {result.outage_s:.2f} s"
    mark = "[ OK ]" if result.ok else "[FAILED]"
    return mark, (
        f"{' ' * (9 - len(mark))}{name:<20} {result.seconds:6.1f} s   {outage:<16}"
        f" {result.replayed:5,} replayed"
    )


def as_json(result: TestResult) -> dict[str, Any]:
    """The result as the object that docs/operations.md describes."""
    return {
        "name": result.name,
        "ok": result.ok,
        "seconds": round(result.seconds, 2),
        "epochs": [dataclasses.asdict(epoch) for epoch in result.epochs],
        "outage_s": None if result.outage_s is None else round(result.outage_s, 3),
        "replayed": result.replayed,
        "detail": result.detail,
    }
