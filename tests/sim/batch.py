"""Several seeds, and what they add up to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from .world import SimulationError, run_seed


@dataclass
class Batch:
    """The sums over many runs.

    Attributes:
        failed: what went wrong, by seed.
    """

    runs: int = 0
    events: int = 0
    virtual_s: float = 0.0
    elements: int = 0
    pieces: int = 0
    woven: int = 0
    restored: int = 0
    records: int = 0
    recoveries: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    strategies: Counter[str] = field(default_factory=Counter)
    failed: dict[int, str] = field(default_factory=dict)

    def add(self, other: Batch) -> None:
        """These runs, too."""
        self.runs += other.runs
        self.events += other.events
        self.virtual_s += other.virtual_s
        self.elements += other.elements
        self.pieces += other.pieces
        self.woven += other.woven
        self.restored += other.restored
        self.records += other.records
        self.recoveries += other.recoveries
        self.faults.update(other.faults)
        self.errors.update(other.errors)
        self.strategies.update(other.strategies)
        self.failed.update(other.failed)


def run_batch(first: int, end: int) -> Batch:
    """Runs the seeds from `first` to `end - 1`."""
    batch = Batch()
    for seed in range(first, end):
        batch.runs += 1
        try:
            result = run_seed(seed)
        except SimulationError as error:
            batch.failed[seed] = str(error)
            continue
        batch.events += result.events
        batch.virtual_s += result.virtual_s
        batch.elements += result.elements
        batch.pieces += result.pieces
        batch.woven += result.woven
        batch.restored += result.restored
        batch.records += result.records
        batch.recoveries += result.recoveries
        batch.faults.update(result.faults)
        batch.errors.update(result.errors)
        batch.strategies.update(result.strategies)
    return batch
