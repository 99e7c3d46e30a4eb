"""What figures are wished to be, and whether they are: told, never an exit code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .harness import Result


@dataclass(frozen=True, slots=True)
class Target:
    """A wish.

    Attributes:
        text: for people.
        contestant: whose figure it is about.
        metric: which figure.
        bound: what it should be at least.
        at_most: it is what it should be at most.
    """

    text: str
    contestant: str
    metric: str
    bound: float
    at_most: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target and what was measured: the median, None if it was not; then `met` is None, too."""

    target: Target
    measured: float | None
    met: bool | None

    @property
    def word(self) -> str:
        """The verdict in words."""
        return {True: "met", False: "not met", None: "not measured"}[self.met]


def judge(targets: Iterable[Target], results: Sequence[Result]) -> list[Verdict]:
    """Holds the medians against the targets, in their order."""
    by_name = {result.name: result for result in results}
    return [_verdict(target, by_name.get(target.contestant)) for target in targets]


def _verdict(target: Target, result: Result | None) -> Verdict:
    summary = result.summaries.get(target.metric) if result is not None else None
    if summary is None:
        return Verdict(target, None, None)
    within = summary.median <= target.bound if target.at_most else summary.median >= target.bound
    return Verdict(target, summary.median, within)
