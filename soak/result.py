"""What a soak is asked to do, and what it found: plain values."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .chaos import Shape

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .trainers import Tally
    from .verdicts import Outage


@dataclass(frozen=True, slots=True)
class SoakOptions:
    """What a soak is to do; `penstock soak --help` says more.

    Attributes:
        seconds: how long faults go on.
        seed: decides the schedule and what is read.
        workers: workers at the start, >= 1.
        standbys: standby workers at the start.
        trainers: trainer processes, >= 1.
        directory: where everything goes; must be empty.
        worker_timeout_s: of the dispatcher.
        client_timeout_s: of the dispatcher.
        lease_s: of the dispatchers.
        patience_s: an epoch that stands still for so long has failed; also the time for the last
            epochs to end after the last fault.
    """

    seconds: float
    seed: int
    workers: int
    standbys: int
    trainers: int
    directory: Path
    worker_timeout_s: float = 5.0
    client_timeout_s: float = 15.0
    lease_s: float = 3.0
    patience_s: float = 120.0

    @property
    def shape(self) -> Shape:
        """What a schedule must know."""
        return Shape(
            workers=self.workers + self.standbys,
            trainers=self.trainers,
            worker_timeout_s=self.worker_timeout_s,
            client_timeout_s=self.client_timeout_s,
            lease_s=self.lease_s,
        )


@dataclass(slots=True)
class SoakResult:
    """What a soak found, so far.

    Attributes:
        seconds: how long faults went on.
        faults: how many were injected, by kind.
        pipelines: what was checked, by name.
        outages: the longest waits of trainers, longest first.
        recomputed_elements: made again though they had been delivered before, in all terms.
        restored_attempts: attempts that went on at a checkpoint, in all terms.
        refused_trainers: trainers that slept for too long and were told so.
        problems: what must not have happened; empty if all went well.
        evidence: the cluster's status and the ends of the logs when the first problem was found.
        interrupted: whether it was ended early by the user.
    """

    seed: int
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    pipelines: dict[str, Tally] = field(default_factory=dict)
    outages: list[Outage] = field(default_factory=list)
    recomputed_elements: int = 0
    restored_attempts: int = 0
    refused_trainers: int = 0
    problems: list[str] = field(default_factory=list)
    evidence: str = ""
    interrupted: bool = False

    @property
    def exact(self) -> bool:
        """Whether all went well."""
        return not self.problems and all(tally.exact for tally in self.pipelines.values())

    @property
    def epochs(self) -> int:
        """Epochs that were checked whole."""
        return sum(tally.epochs for tally in self.pipelines.values())

    @property
    def elements(self) -> int:
        """Elements that were checked."""
        return sum(tally.elements for tally in self.pipelines.values())


@dataclass(frozen=True, slots=True)
class Observer:
    """What a soak tells whoever shows it, from its deciding thread."""

    said: Callable[[str], None]
    looked: Callable[[float, SoakResult, str], None]  # seconds gone, result so far, the cluster
