"""The demo's main job: train while a worker is killed, and compare every epoch with ground truth.

Ground truth is a plain local run of the same pipeline, without penstock. What is compared with
it is what the training step received: each element's id, and a hash of its image and label.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xxhash

from .. import distribute
from ..client.status import fetch_status
from .demo_data import pipeline, small_model

if TYPE_CHECKING:
    from collections.abc import Callable

    import tensorflow as tf

    from ..client.daemon import Daemon
    from ..client.embedded import LocalCluster

BATCH = 32
Truth = dict[int, int]


@dataclass(frozen=True, slots=True)
class EpochResult:
    """One epoch as the training step saw it, compared with ground truth."""

    epoch: int
    elements: int
    lost: int
    duplicated: int
    altered: int
    digest: str
    seconds: float

    @property
    def exact(self) -> bool:
        """Whether every element arrived exactly once and unaltered."""
        return self.lost == self.duplicated == self.altered == 0


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo measured; `docs/operations.md` describes the JSON form."""

    epochs: tuple[EpochResult, ...]
    kills: int
    recovery_s: float
    elements_per_s: float
    loss: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Observer:
    """What the demo tells whoever shows it, from the training thread and from the watch's."""

    trained: Callable[[int, int, float], None]  # epoch, elements so far, loss
    looked: Callable[[int, int, int], None]  # live workers, splits delivered, splits of an epoch
    said: Callable[[str], None]


def ground_truth(paths: list[str]) -> Truth:
    """Runs the pipeline here, without penstock: element id -> hash of its content."""
    truth: Truth = {}
    for batch in pipeline(paths).batch(BATCH):
        truth.update(_content_hashes(batch))
    return truth


class _ClusterWatch:
    """Looks at the cluster beside the training: shows it, and measures a recovery."""

    def __init__(self, address: str, observer: Observer) -> None:
        self._address = address
        self._observer = observer
        self._victim = ""
        self._killed_at = 0.0
        self._over = threading.Event()
        self.recovery_s = 0.0
        self._thread = threading.Thread(target=self._watch, name="cluster-watch", daemon=True)
        self._thread.start()

    def killed(self, worker: Daemon) -> None:
        """A worker was killed just now: the watch is for nobody waiting for it any more."""
        self._killed_at = time.monotonic()
        self._victim = worker.worker_id

    def finish(self) -> None:
        """Ends the watch."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            picture = fetch_status(self._address)
            streams = [stream for job in picture["jobs"] for stream in job["streams"]]
            live = {worker["id"] for worker in picture["workers"] if worker["state"] == "live"}
            delivered = sum(stream["delivered_splits"] for stream in streams)
            splits = sum(stream["splits"] for stream in streams)
            self._observer.looked(len(live), delivered, splits)
            holding = {attempt["worker"] for stream in streams for attempt in stream["attempts"]}
            if self._victim and self._victim not in live | holding:
                self.recovery_s = time.monotonic() - self._killed_at
                self._victim = ""
                text = f"recovered: every split is on a live worker after {self.recovery_s:.1f} s"
                self._observer.said(text)


def run(paths: list[str], cluster: LocalCluster, epochs: int, observer: Observer) -> DemoResult:
    """Trains for `epochs` epochs, and kills a worker in the middle of the second one.

    Args:
        paths: the TFRecord files of `demo_data.write_records`.
        cluster: a running cluster with at least two workers.
        epochs: number of epochs, >= 1.
        observer: is told of progress and events.

    Returns:
        The comparison with ground truth, and the figures.
    """
    observer.said("computing the ground truth locally, without penstock")
    truth = ground_truth(paths)
    served = pipeline(paths).apply(distribute(cluster.address, job_name="demo", seed=1))
    batches = served.batch(BATCH)
    model = small_model()
    results, losses, kills = [], [], 0
    watch = _ClusterWatch(cluster.address, observer)
    try:
        for epoch in range(epochs):
            victim = cluster.workers[1] if epoch == 1 else None
            started = time.monotonic()
            seen: Counter[tuple[int, int]] = Counter()
            loss = 0.0
            for number, batch in enumerate(batches):
                loss = float(model.train_on_batch(batch["image"], batch["label"]))
                seen.update(_content_hashes(batch))
                observer.trained(epoch, seen.total(), loss)
                if victim is not None and number == len(truth) // BATCH // 3:
                    victim.kill()
                    watch.killed(victim)
                    observer.said(f"kill -9 {victim.name} (pid {victim.pid}) in epoch {epoch}")
                    kills, victim = kills + 1, None
            seconds = time.monotonic() - started
            digest = f"{served.penstock.digests[epoch].total:016x}"
            results.append(_compare(epoch, seen, truth, digest, seconds))
            losses.append(loss)
    finally:
        watch.finish()  # before the cluster ends, however the training does
    elements = sum(result.elements for result in results)
    seconds = sum(result.seconds for result in results)
    return DemoResult(
        tuple(results),
        kills,
        round(watch.recovery_s, 3),
        round(elements / seconds, 1),
        tuple(losses),
    )


def _compare(
    epoch: int, seen: Counter[tuple[int, int]], truth: Truth, digest: str, seconds: float
) -> EpochResult:
    times_seen: Counter[int] = Counter()
    for (element, _), times in seen.items():
        times_seen[element] += times
    return EpochResult(
        epoch=epoch,
        elements=seen.total(),
        lost=sum(element not in times_seen for element in truth),
        duplicated=sum(times - 1 for times in times_seen.values()),
        altered=sum(truth.get(element) != content for element, content in seen),
        digest=digest,
        seconds=round(seconds, 2),
    )


def _content_hashes(batch: dict[str, tf.Tensor]) -> list[tuple[int, int]]:
    """(id, hash of image and label) of every element of a batch."""
    columns: list[Any] = [batch[name].numpy() for name in ("id", "image", "label")]
    return [
        (int(element), xxhash.xxh3_64_intdigest(image.tobytes(), int(label)))
        for element, image, label in zip(*columns, strict=True)
    ]
