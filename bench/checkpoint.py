"""Case `checkpoint`: what checkpoints cost, as epoch time and CPU time with and without them.

One dispatcher and one worker process for each setting, all up from the beginning, so that every
round measures the same processes in turns; those that are not measured only send heartbeats. One
consumer reads each epoch as fast as it can, so the worker is what limits. The worker's CPU seconds
are reported too: on a machine that others use, they tell more than the time that passed.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..client.embedded import LocalCluster
from ..client.reader import Reader
from ..worker.checkpoints import SUFFIX
from .consume import read_epoch
from .harness import Case, Contestant
from .processes import process_cpu_s

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from .harness import Metrics, Settings, Show
    from .workloads import Workload

SETTINGS = {"off": "off", "5s": "5", "1s": "1", "auto": "auto"}
PIPELINES = ("cheap", "cheap-shuffle10000", "jpeg", "jpeg-shuffle10000")
SHUFFLE = 10_000
_BUFFER_BYTES = 64 << 20
_LOOK_S = 0.05

METRICS = {
    "epoch_s": "seconds from asking for the epoch until its end",
    "worker_cpu_s": "CPU seconds of the worker process meanwhile",
    "elements_per_s": "elements of the epoch a second",
    "checkpoints": "checkpoint files that were seen in the directory",
    "checkpoint_bytes": "their size together",
}


@contextlib.contextmanager
def contestants(settings: Settings, show: Show) -> Iterator[list[Contestant]]:
    """Every pipeline with every setting; "off" is what the others are compared with."""
    names = {name: [f"{name}/{setting}" for setting in SETTINGS] for name in PIPELINES}
    needed = {name for name in names if any(map(settings.wants, names[name]))}
    with contextlib.ExitStack() as stack:
        workloads = {workload.name: workload for workload in _workloads(settings, show, needed)}
        clusters = {
            setting: _cluster(setting, value, settings, stack)
            for setting, value in SETTINGS.items()
            if any(settings.wants(f"{name}/{setting}") for name in needed)
        }
        warm = next(iter(workloads.values()), None)
        for setting, cluster in clusters.items() if warm is not None else ():
            show.said(f"warming up the worker with checkpoints {setting}")
            assert warm is not None
            measure_epoch(cluster, warm, show)

        def measure(pipeline: str, setting: str) -> Metrics:
            return measure_epoch(clusters[setting], workloads[pipeline], show)

        yield [
            Contestant(
                f"{pipeline}/{setting}",
                partial(measure, pipeline, setting),
                baseline="" if setting == "off" else f"{pipeline}/off",
            )
            for pipeline in PIPELINES
            for setting in SETTINGS
        ]


CASE = Case(
    "checkpoint",
    "epoch time with worker checkpoints every second, every 5 s and auto, against none",
    repeat=3,
    metrics=METRICS,
    contestants=contestants,
    compared=("epoch_s", "worker_cpu_s"),
)


def measure_epoch(cluster: LocalCluster, workload: Workload, show: Show) -> Metrics:
    """One epoch of a new job, checked.

    Raises:
        PenstockError: it could not be read, or what came was wrong.
    """
    worker = cluster.workers[0]
    written = Written(cluster.directory / "checkpoints")
    with Reader(workload.dataset, cluster, seed=1, memory_limit=_BUFFER_BYTES) as reader, written:
        cpu_s = process_cpu_s(worker.pid)
        began_s = time.monotonic()
        read_epoch(reader, workload, show)
        epoch_s = time.monotonic() - began_s
        used_s = None if cpu_s is None else (process_cpu_s(worker.pid) or cpu_s) - cpu_s
    return {
        "epoch_s": epoch_s,
        "worker_cpu_s": used_s,
        "elements_per_s": workload.elements / epoch_s,
        "checkpoints": float(len(written.sizes)),
        "checkpoint_bytes": float(sum(written.sizes.values())),
    }


def _workloads(settings: Settings, show: Show, needed: set[str]) -> Iterator[Workload]:
    from .workloads import cheap, jpeg, write_pictures

    elements = 100_000 if settings.quick else 600_000
    for name, size in zip(PIPELINES[:2], (0, SHUFFLE), strict=True):
        if name in needed:
            yield cheap(elements, show, shuffle=size)
    if needed & set(PIPELINES[2:]):
        # Few files, and large ones: what a checkpoint saves, and costs, is a part of a split.
        records = 1500 if settings.quick else 15_000
        paths = write_pictures(settings.directory, show, files=8, records=records)
        yield from jpeg(paths, show, shuffles=(1024, SHUFFLE))


def _cluster(
    setting: str, interval: str, settings: Settings, stack: contextlib.ExitStack
) -> LocalCluster:
    """A dispatcher and a worker that end with `stack`."""
    directory = tempfile.TemporaryDirectory(prefix=f"{setting}-", dir=settings.directory)
    home = Path(stack.enter_context(directory))
    arguments = (
        f"--checkpoint-dir={home / 'checkpoints'}",
        f"--checkpoint-interval={interval}",
    )
    cluster = LocalCluster(
        workers=1,
        directory=home,
        worker_timeout_s=settings.worker_timeout_s,
        worker_arguments=arguments,
    )
    return stack.enter_context(cluster)


@dataclass(slots=True)
class Written:
    """Watches a directory for files that appear in it; a context.

    A file counts when it is seen under a name that is not temporary. Checkpoints replace each
    other after a second or more, and the directory is looked at more often than that.

    Attributes:
        directory: what is watched, with what is below; need not be there.
        sizes: bytes of every file seen, by its inode and time of change.
    """

    directory: Path
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    _before: set[tuple[int, int]] = field(default_factory=set)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Written:
        self.look()
        self._before = set(self.sizes)
        self.sizes.clear()
        self._thread = threading.Thread(target=self._watch, name="bench-written", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        assert self._thread is not None
        self._thread.join()

    def look(self) -> None:
        """Counts the files that are there now and were not before."""
        for folder, _, names in os.walk(self.directory):
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # it was replaced just now
                    facts = os.stat(os.path.join(folder, name))
                    seen = (facts.st_ino, facts.st_mtime_ns)
                    if name.endswith(SUFFIX) and seen not in self._before:
                        self.sizes[seen] = facts.st_size

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_S):
            self.look()
