"""What a session did about its faults, for the program and for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Skipped:
    """A batch that was left out.

    Attributes:
        step: its number.
        position: where it is in the data, in words.
        error: what it was left out for, one line.
        quarantine: where it is kept; None if there is no quarantine.
    """

    step: int
    position: str
    error: str
    quarantine: Path | None


@dataclass(frozen=True, slots=True)
class SessionReport:
    """What happened in a session so far.

    Attributes:
        trained: steps that went well; one that was rewound counts again.
        faults: attempts, or fetches, that failed.
        actions: how often each action was decided.
        skipped: the batches that were left out, in order.
        refetched: batches that were fetched again.
        altered: names of what differed in them from what the step was given, one for each leaf.
        recovery_s: seconds from each fault until the step ran again; waiting for an operator and
            pauses are in it.
    """

    trained: int
    faults: int
    actions: Mapping[str, int]
    skipped: tuple[Skipped, ...]
    refetched: int
    altered: tuple[str, ...]
    recovery_s: tuple[float, ...]
