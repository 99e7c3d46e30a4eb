"""Case `shuffle`: how well an epoch is mixed, and what a training makes of it.

Every element of a pipeline is its own source position; one epoch is read in order, by plain
tf.data and through penstock, with the default lanes and block. Measures are parts of what a
uniformly random permutation gives (`orders`). Then a classifier is trained in one pass over
scikit-learn's digits, sorted by class, with `shuffle(100)`. Every round has other seeds, the same
ones in every run; the machine's speed does not matter.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from ..client.dataset import distribute
from ..client.embedded import LocalCluster
from ..errors import VerificationError
from . import digits, mixing
from .harness import Case, Contestant, CouldNot, Ratio
from .orders import BATCH, PARTS, batch_coverage, checked_order, neighbour_distance
from .targets import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .harness import Metrics, Settings, Show

LOCAL, PENSTOCK = "local", "penstock"
SYSTEMS = (LOCAL, PENSTOCK)
PIPELINES = tuple(mixing.pipelines())
DIGITS = ("digits-index", "digits-classes", "digits-files")
UNIFORM = "digits-uniform"
NAMES = tuple(f"{name}/{system}" for name in (*PIPELINES, *DIGITS) for system in SYSTEMS)

METRICS = {
    "neighbours_part": "mean distance in the source of elements that follow each other, as a part "
    "of that of a uniform permutation, a third of the source",
    "batches_part": f"how many of {PARTS} equal parts of the source a batch of {BATCH} covers, as "
    "a part of what a batch of a uniform permutation does",
    "accuracy_part": "held-out digits that are recognised after one pass in this order",
}
RATIOS = (
    Ratio("times_local_neighbours", "neighbours_part", LOCAL, "neighbours over the local run's"),
    Ratio("times_local_batches", "batches_part", LOCAL, "batches over the local run's"),
)


@contextlib.contextmanager
def contestants(settings: Settings, show: Show) -> Iterator[list[Contestant]]:
    """Every pipeline locally and through penstock."""
    files, records = (32, 125) if settings.quick else (32, 500)
    source = mixing.Source(settings.directory / "files", files, records)
    with contextlib.ExitStack() as stack:
        orders = _Orders(source)
        if any(map(settings.wants, NAMES)):
            show.said(f"writing {source.elements:,} records in {files} files")
            source.write()
        if any(settings.wants(name) for name in NAMES if name.endswith(PENSTOCK)):
            cluster = LocalCluster(workers=2, directory=settings.directory / "cluster")
            orders.address = stack.enter_context(cluster).address
        trainings = _Trainings(settings, orders)
        yield [
            *(
                Contestant(name, partial(orders.measure, *name.split("/")), rivals=_rivals(name))
                for name in NAMES
                if not name.startswith("digits-")
            ),
            *(
                Contestant(name, partial(trainings.measure, *name.split("/")))
                for name in (*NAMES, UNIFORM)
                if name.startswith("digits-")
            ),
        ]


CASE = Case(
    "shuffle",
    "how well an epoch is mixed, and what a training makes of it",
    repeat=3,
    metrics=METRICS,
    contestants=contestants,
    ratios=RATIOS,
    targets=tuple(
        Target(ratio.meaning, f"{name}/{PENSTOCK}", ratio.column, 1.0)
        for name in PIPELINES
        for ratio in RATIOS
    ),
)


def _rivals(name: str) -> dict[str, str]:
    pipeline, system = name.split("/")
    return {LOCAL: f"{pipeline}/{LOCAL}"} if system == PENSTOCK else {}


@dataclass(slots=True)
class _Orders:
    """Reads epochs; each measurement of a contestant has the next seed."""

    source: mixing.Source
    address: str = ""
    _seeds: dict[str, count[int]] = field(default_factory=dict)

    def seed(self, contestant: str) -> int:
        return next(self._seeds.setdefault(contestant, count(1)))

    def measure(self, name: str, system: str) -> Metrics:
        seed = self.seed(f"{name}/{system}")
        dataset = mixing.pipelines()[name](self.source, seed)
        with self.served(dataset, system, seed) as served:
            came = mixing.read_order(served)
        return measured(came, self.source.elements)

    @contextlib.contextmanager
    def served(self, dataset: Any, system: str, seed: int) -> Iterator[Any]:
        """The dataset itself, or through penstock until the end of the block."""
        if system == LOCAL:
            yield dataset
            return
        served = dataset.apply(distribute(self.address, seed=seed))
        try:
            yield served
        finally:
            served.penstock.close()


def measured(positions: Any, elements: int) -> Metrics:
    """The metrics of an epoch.

    Raises:
        UsageError: not every element came once.
    """
    order = checked_order(positions, elements)
    return {
        "neighbours_part": neighbour_distance(order),
        "batches_part": batch_coverage(order),
    }


class _Trainings:
    """The digits, which are loaded and written when they are first asked for."""

    def __init__(self, settings: Settings, orders: _Orders) -> None:
        self._directory = settings.directory / "digits"
        self._orders = orders
        self._digits: digits.Digits | None = None
        self._paths: dict[str, list[str]] = {}

    def measure(self, name: str, system: str = LOCAL) -> Metrics | CouldNot:
        if self._digits is None:
            try:
                self._digits = digits.Digits.load()
            except ImportError:
                return CouldNot("scikit-learn is not installed: pip install 'penstock[demo]'")
            self._paths = self._digits.write(self._directory)
        samples = self._read(self._digits, name, self._orders.seed(f"{name}/{system}"), system)
        return {"accuracy_part": digits.accuracy(samples, self._digits.held_out)}

    def _read(self, loaded: digits.Digits, name: str, seed: int, system: str) -> Any:
        if name == UNIFORM:
            return np.random.default_rng(seed).permutation(loaded.train)
        made = digits.pipelines(loaded, self._paths)[name.removeprefix("digits-")]
        with self._orders.served(made(digits.SMALL, seed), system, seed) as served:
            samples = np.concatenate(list(served.batch(BATCH).as_numpy_iterator()))
        if not np.array_equal(_sorted(samples), _sorted(loaded.train)):
            raise VerificationError(f"{name}/{system}: {len(samples)} samples came, or others")
        return samples


def _sorted(rows: Any) -> Any:
    return rows[np.lexsort(rows.T)]
