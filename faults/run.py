"""Plays the chosen tests one after the other, and judges what each trainer was given."""

from __future__ import annotations

import dataclasses
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..client.embedded import LocalCluster
from ..errors import PenstockError, UnavailableError, VerificationError
from .catalog import UNDISTURBED, UNDISTURBED_CACHED, FaultTest
from .consumer import Consumer, Received
from .data import ELEMENTS, FILES, truth_of, write_records
from .moments import FIXED, holds_of, share_of
from .result import EpochFound, TestResult, epoch_of, outage_of
from .stage import EPOCHS, Scene, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from .data import Truth

#: Seconds of production between two checkpoints of a split: one after every chunk, if the disk can.
_CHECKPOINT_INTERVAL_S = 0.001
#: Little, so that a worker is not done with the epoch long before the trainer.
_WORKER_MEMORY = "8MiB"


@dataclass(frozen=True, slots=True)
class Options:
    """What is to be played; `penstock faults --help` says more.

    Attributes:
        tests: in order.
        repeat: how often each is played, at moments drawn from the seed; None for once, at a fixed
            moment.
        seed: of the moments, and of the jobs.
        directory: where everything goes; must be empty.
        keep: leave the files of tests that went well, too.
        worker_timeout_s: of the dispatchers.
        patience_s: how long anything is waited for.
    """

    tests: tuple[FaultTest, ...]
    repeat: int | None
    seed: int
    directory: Path
    keep: bool
    worker_timeout_s: float = 5.0
    patience_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Observer:
    """What whoever shows a run is told."""

    said: Callable[[str], None]
    looked: Callable[[str, int, int, str], None]  # label, elements, of so many, what was done
    ended: Callable[[TestResult], None]


class Run:
    """All of it; iterate over `results`.

    Args:
        options: what is to be played.
        observer: is told what happens.
    """

    def __init__(self, options: Options, observer: Observer) -> None:
        self._options = options
        self._observer = observer
        self._consumer = Consumer(options.directory / "trainer.log")

    def results(self) -> Iterator[TestResult]:
        """Plays the tests, one for each result.

        Raises:
            PenstockError: the undisturbed reading failed.
        """
        options = self._options
        self._consumer.start()  # it loads TensorFlow meanwhile
        try:
            scene = self._prepare()
            for test in options.tests:
                for run in [None] if options.repeat is None else range(options.repeat):
                    result = self._play(scene, test, run)
                    self._observer.ended(result)
                    yield result
        finally:
            self._consumer.kill()

    def _prepare(self) -> Scene:
        options = self._options
        self._observer.said(f"writing {ELEMENTS:,} JPEG records in {FILES} TFRecord files")
        paths = write_records(options.directory / "data")
        self._observer.said("computing the ground truth without penstock, by plain tf.data")
        truth = truth_of(paths)
        scene = Scene(
            tuple(paths), truth, {}, options.seed, options.worker_timeout_s, options.patience_s
        )
        orders = {}
        for cached in sorted({bool(test.cache) for test in options.tests}):
            orders[cached] = self._undisturbed(scene, UNDISTURBED_CACHED if cached else UNDISTURBED)
        return dataclasses.replace(scene, orders=orders)

    def _undisturbed(self, scene: Scene, test: FaultTest) -> tuple[tuple[bytes, ...], ...]:
        """The elements of each epoch, in the order in which they come without any fault."""
        what = " of the cached pipeline, without a cache" if test.cache else ""
        self._observer.said(f"reading {EPOCHS} epochs{what} undisturbed, for their order")
        directory = self._options.directory / test.name
        result = self._play(scene, test, None)
        if not result.ok:
            raise VerificationError(
                f"the reading without any fault, which orders are compared with, failed: "
                f"{result.detail}; its files are in {directory}"
            )
        order = tuple(tuple(one.sequence()) for one in self._consumer.received)
        self._clean(directory)
        return order

    def _play(self, scene: Scene, test: FaultTest, run: int | None) -> TestResult:
        label = test.name if run is None else f"{test.name}-{run + 1}"
        directory = self._options.directory / label
        share = share_of(scene.seed, test.name, run) if test.strikes else FIXED
        started_s = time.monotonic()
        self._observer.looked(label, 0, EPOCHS * ELEMENTS, "starting")
        problems: list[str] = []
        stage: Stage | None = None
        try:
            with cluster_of(test, directory, scene.worker_timeout_s) as cluster:
                self._consumer.forget()
                holds = holds_of(share, test.strikes, ELEMENTS)
                stage = Stage(
                    scene,
                    label,
                    directory,
                    cluster,
                    self._consumer,
                    holds,
                    test.struck,
                    test.cache,
                    test.commits,
                    self._looked,
                )
                try:
                    self._ready_consumer(scene.patience_s)
                    stage.begin()
                    test.act(stage)
                    stage.finish()
                    problems += stage.problems
                except PenstockError:
                    stage.save_picture()
                    raise
        except PenstockError as error:
            problems += [*(stage.problems if stage else []), str(error)]
            self._consumer.kill()  # it may be waiting for what never comes
        epochs: list[EpochFound] = []
        if stage is not None:
            orders = scene.orders.get(bool(test.cache), ())
            epochs, wrong = judged(scene.truth, orders, self._consumer)
            problems += wrong
        result = TestResult(
            name=test.name,
            run=run,
            seconds=time.monotonic() - started_s,
            epochs=tuple(epochs),
            outage_s=None if stage is None else _outage_s(stage),
            replayed=0 if stage is None else stage.recomputed,
            story="; ".join(stage.told) if stage and stage.told else test.title,
            problems=tuple(problems),
            directory=directory,
        )
        if result.ok and test not in (UNDISTURBED, UNDISTURBED_CACHED):
            self._clean(directory)
        return result

    def _ready_consumer(self, patience_s: float) -> None:
        if self._consumer.down:
            self._consumer.start()
        end_s = time.monotonic() + patience_s
        while not self._consumer.ready:
            if time.monotonic() > end_s:
                raise UnavailableError(
                    f"waited {patience_s:.0f} s in vain for the training process to start"
                )
            self._consumer.hear(0.1)

    def _looked(self, stage: Stage) -> None:
        received = stage.consumer.received
        elements = sum(one.elements for one in received if one.digest is not None)
        if received and received[-1].digest is None:
            elements += received[-1].elements
        told = stage.told[-1] if stage.told else ""
        self._observer.looked(stage.name, elements, EPOCHS * ELEMENTS, told)

    def _clean(self, directory: Path) -> None:
        if not self._options.keep:
            shutil.rmtree(directory, ignore_errors=True)


def cluster_of(test: FaultTest, directory: Path, worker_timeout_s: float) -> LocalCluster:
    """The cluster that a test needs."""
    arguments = [f"--memory-limit={_WORKER_MEMORY}"]
    if test.checkpoints:
        arguments.append(f"--checkpoint-dir={directory / 'checkpoints'}")
        arguments.append(f"--checkpoint-interval={_CHECKPOINT_INTERVAL_S}")
    return LocalCluster(
        test.workers,
        test.standbys,
        directory=directory,
        standby_dispatcher=test.standby_dispatcher,
        worker_timeout_s=worker_timeout_s,
        worker_arguments=arguments,
    )


def judged(
    truth: Truth, orders: Sequence[Sequence[bytes]], consumer: Consumer
) -> tuple[list[EpochFound], list[str]]:
    """Compares all that the trainer was given with the ground truth.

    Args:
        truth: what a plain local run gives.
        orders: the elements of each epoch in order; empty if they are not known yet.
        consumer: has read.

    Returns:
        The epochs that were delivered whole, and what is wrong, in words.
    """
    epochs, problems = [], []
    kept: dict[int, tuple[list[bytes], list[int]]] = {}
    for one in consumer.received:
        whole = one.digest is not None
        reference = orders[one.epoch] if one.epoch < len(orders) else None
        sequence, batches = kept[one.epoch] = _with_before(one, kept.get(one.epoch, ([], [])))
        found = epoch_of(one.epoch, truth.elements, sequence, reference, whole=whole)
        if whole:
            epochs.append(found)
        if not found.exact:
            problems.append(str(found) if whole else f"{found}, before it was broken off")
        if whole and one.digest != (truth.digest.count, truth.digest.total):
            problems.append(f"epoch {one.epoch}: its digest is not that of a local run")
        expected = truth.batches if whole else truth.batches[: len(batches)]
        if tuple(batches) != expected:
            problems.append(
                f"epoch {one.epoch}: the batches have {_runs(batches)} elements, those of a "
                f"local run {_runs(expected)}"
            )
    numbers = [epoch.epoch for epoch in epochs]
    if numbers != list(range(EPOCHS)):
        problems.append(f"epochs {numbers} were delivered whole, not {list(range(EPOCHS))}")
    return epochs, problems


def _with_before(
    one: Received, before: tuple[list[bytes], list[int]]
) -> tuple[list[bytes], list[int]]:
    """What the training had of an epoch: what a former trainer had up to the commit comes first."""
    sequence, batches = before
    committed = [size for at, size in enumerate(batches) if sum(batches[: at + 1]) <= one.start]
    return sequence[: one.start] + list(one.sequence()), committed + one.batches


def _runs(sizes: Sequence[int]) -> str:
    """Sizes in short: 15 × 192, 120."""
    parts: list[tuple[int, int]] = []
    for size in sizes:
        times = parts.pop()[0] + 1 if parts and parts[-1][1] == size else 1
        parts.append((times, size))
    return ", ".join(f"{times} × {size}" if times > 1 else f"{size}" for times, size in parts)


def _outage_s(stage: Stage) -> float | None:
    if stage.struck_s is None:
        return None
    deliveries = [one for one in stage.consumer.deliveries if one.epoch == stage.struck]
    return outage_of(deliveries, stage.consumer.holds, stage.struck_s)
