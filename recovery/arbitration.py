"""One decision for all ranks: what several trainers that fail in the same step do about it.

Theory of operation. In a training on several ranks a step fails on some of them, often on all: one
with the cause, the others because it is gone from the collective. If one retried and another
skipped, they would no longer train the same batches. So each rank proposes what its policy says,
and takes what is ruled for (step, round): the gravest of the proposals that came in time. A ruling
stands for ever; who comes late, or asks again, gets the same. The round counts what was ruled about
a step so far, so the second fault of a step is a question of its own. Pure: votes are collected and
timed elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .policy import Action

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The gravest last: what a graver one does includes that the others' work is given up.
GRAVITY = (
    Action.RETRY,
    Action.REFETCH,
    Action.SKIP,
    Action.REWIND,
    Action.WAIT,
    Action.RESTART,
    Action.ABORT,
)


@dataclass(frozen=True, slots=True)
class Proposal:
    """What one rank wants to do.

    Attributes:
        rank: its number.
        action: what.
        fingerprint: of its fault.
    """

    rank: int
    action: Action
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Ruling:
    """What all ranks do.

    Attributes:
        action: what.
        rank: who proposed it; if that is to wait, this rank asks the operator.
        fingerprint: of that rank's fault.
    """

    action: Action
    rank: int
    fingerprint: str


class Arbiter(Protocol):
    """Rules for all ranks of a training; every method gives the same answer to every rank.

    Attributes:
        rank: number of this one.
    """

    rank: int

    def rule(self, step: int, round: int, fingerprint: str, action: Action) -> Ruling:
        """What is done about the fault of a step, given what this rank would do."""

    def answer(self, step: int, round: int, fingerprint: str, action: Action) -> Ruling:
        """Says for all ranks what the operator answered; only the rank that asks does."""

    def await_answer(self, step: int, round: int, timeout_s: float) -> Ruling | None:
        """What the operator answered to the rank that asks; None if nothing came in time."""


def gravest(proposals: Iterable[Proposal]) -> Ruling:
    """The ruling that follows from proposals, in whatever order they came.

    Raises:
        ValueError: there is none.
    """
    made = max(proposals, key=lambda one: (GRAVITY.index(one.action), -one.rank), default=None)
    if made is None:
        raise ValueError("nobody proposed anything")
    return Ruling(made.action, made.rank, made.fingerprint)
