"""Case `scaling`: an input that only waits, on 1 to 16 workers, with 16 lanes and with 8.

Every element takes 20 ms in which nothing is computed (TensorFlow's `SleepDataset`), so processors
do not limit, only who runs what and when. The ideal is what each worker gives that runs one
iterator, as a worker of stock tf.data service does: 50 elements a second. A worker of penstock
runs several splits at once where the consumer waits for them, so with few workers it is far above
that; what is to be seen is whether 16 are kept busy, by 8 lanes, too.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

from ..client.embedded import LocalCluster
from ..errors import PenstockError, VerificationError
from .children import Child, one_line
from .harness import Case, Contestant, CouldNot, Ratio
from .pipelines import SLEEP_S, by_name
from .speed import check
from .targets import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .harness import Metrics, Settings, Show

WORKERS = (1, 2, 4, 8, 16)
LANES = (16, 8)
_NAME = "scaling"
_DEADLINE_S = 180.0
#: What is read at first, so that every process has done everything once.
_WARM_ELEMENTS = 64

METRICS = {
    "elements_per_s": "elements a second, from the first request to the end of the epoch",
    "ideal_per_s": "50 a second for each worker",
    "times_ideal": "elements a second, times the ideal",
    "first_s": "seconds from the first request until it was answered, on a cluster that runs",
}


@contextlib.contextmanager
def contestants(settings: Settings, show: Show) -> Iterator[list[Contestant]]:
    """Every number of workers with every number of lanes; of clusters, those that these need."""
    names = {(lanes, workers): name_of(lanes, workers) for lanes in LANES for workers in WORKERS}
    wanted = {workers for (_, workers), name in names.items() if settings.wants(name)}
    with contextlib.ExitStack() as stack:
        stage = Stage(settings, stack)
        for workers in sorted(wanted):
            show.said(f"starting a cluster of {workers}, and running it once")
            stage.start(workers)
        yield [
            Contestant(
                name,
                partial(stage.measure, lanes, workers),
                rivals={"one": name_of(lanes, 1)},
            )
            for (lanes, workers), name in names.items()
        ]


def name_of(lanes: int, workers: int) -> str:
    """What a contestant is called."""
    return f"penstock/unix/lanes{lanes}/w{workers}"


CASE = Case(
    _NAME,
    "elements that take 20 ms of waiting each, on more and more workers",
    repeat=3,
    metrics=METRICS,
    contestants=contestants,
    ratios=(Ratio("times_one", "elements_per_s", "one", "elements a second, times one worker's"),),
    targets=tuple(
        Target("times the ideal", name_of(lanes, workers), "times_ideal", 0.9)
        for lanes in LANES
        for workers in WORKERS
    ),
)


class Stage:
    """A trainer, and clusters of several sizes.

    Args:
        settings: of the run.
        stack: ends the processes.
    """

    def __init__(self, settings: Settings, stack: contextlib.ExitStack) -> None:
        self._directory = settings.directory
        self._stack = stack
        self._elements = by_name()[_NAME].sizes.loop // (10 if settings.quick else 1)
        self._clusters: dict[int, LocalCluster] = {}
        self._trainer = Child("trainer", settings.directory)
        stack.callback(self._trainer.end)

    def start(self, workers: int) -> None:
        """Starts a cluster of that size, and has it work once.

        Raises:
            UnavailableError: it did not start.
        """
        cluster = LocalCluster(workers=workers, directory=self._directory / f"cluster-{workers}")
        self._clusters[workers] = self._stack.enter_context(cluster)
        self._ask("read", _WARM_ELEMENTS, pipeline=_NAME, **self._how(LANES[0], workers))

    def measure(self, lanes: int, workers: int) -> Metrics | CouldNot:
        """One epoch.

        Raises:
            VerificationError: what came is not what a plain local run gives.
        """
        try:
            how = self._how(lanes, workers)
            answer = self._ask("read", self._elements, pipeline=_NAME, **how)
        except VerificationError:
            raise
        except PenstockError as error:
            return CouldNot(one_line(str(error)))
        # The same numbers, without the waiting.
        check(name_of(lanes, workers), answer, self._ask("truth", self._elements, "scalars"))
        rate = self._elements / (answer["end_s"] - answer["begin_s"])
        ideal = workers / SLEEP_S
        return {
            "elements_per_s": rate,
            "ideal_per_s": ideal,
            "times_ideal": rate / ideal,
            "first_s": answer["first_s"],
        }

    def _how(self, lanes: int, workers: int) -> dict[str, Any]:
        address = self._clusters[workers].address
        return {"system": "penstock", "way": "eager", "address": address, "lanes": lanes}

    def _ask(self, what: str, elements: int, pipeline: str, **more: Any) -> dict[str, Any]:
        return self._trainer.ask(
            _DEADLINE_S,
            do=what,
            elements=elements,
            pipeline=pipeline,
            directory=str(self._directory),
            **more,
        )
