"""Case `cache`: epochs computed, put and got, beside a raw sendfile and TensorFlow's own caches.

One dispatcher and one worker process with a cache directory. `put` begins with an empty directory
every time. What `get` reads is compared with the bytes of the same segments sent by `os.sendfile`
over a Unix socket into a buffer, with nothing looked at: what the way from page cache to process
can carry. TensorFlow's ways, `.cache(file)` and `save`/`load`, are read in this process, batched;
both have nothing to send, so they have an advantage. Everything is in the page cache: disks differ.
"""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from ..client.embedded import LocalCluster
from ..client.reader import Reader
from ..errors import VerificationError
from ..worker.cache_files import name_of
from ..worker.segment import Segment
from .consume import read_epoch
from .harness import Case, Contestant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .harness import Metrics, Settings, Show
    from .workloads import Workload

PIPELINES = ("jpeg", "cheap")
WAYS = ("computed", "put", "get", "sendfile", "tf-cache", "tf-load", "seek")
_BATCH = 64
_SEEKS = 200

METRICS = {
    "epoch_s": "seconds from asking for the epoch until its end",
    "mb_per_s": "megabytes (10^6) of the elements a second",
    "elements_per_s": "elements of the epoch a second",
    "seek_ms": "milliseconds from opening a segment to having a frame in its middle, checked",
}


@contextlib.contextmanager
def contestants(settings: Settings, show: Show) -> Iterator[list[Contestant]]:
    """Every pipeline in every way."""
    names = {name: [f"{name}/{way}" for way in WAYS] for name in PIPELINES}
    needed = {name for name in names if any(map(settings.wants, names[name]))}
    home = settings.directory / "cluster"
    with contextlib.ExitStack() as stack:
        loads = {load.name: load for load in _workloads(settings, show, needed)}
        cluster = LocalCluster(workers=1, directory=home, worker_timeout_s=5.0)
        stack.enter_context(cluster)
        subjects = {name: _Subject(load, cluster, settings, show) for name, load in loads.items()}
        for subject in subjects.values():
            subject.prepare()

        def measure(name: str, way: str) -> Metrics:
            return subjects[name].measure(way)

        yield [
            Contestant(f"{name}/{way}", partial(measure, name, way), _baseline(name, way))
            for name in PIPELINES
            for way in WAYS
        ]


CASE = Case(
    "cache",
    "epochs computed, put and got, beside raw sendfile and TensorFlow's caches",
    repeat=3,
    metrics=METRICS,
    contestants=contestants,
    compared=("epoch_s",),
)


def _baseline(name: str, way: str) -> str:
    """`put` is compared with computing, and what reads with raw sendfile."""
    if way == "put":
        return f"{name}/computed"
    return f"{name}/sendfile" if way in ("get", "tf-cache", "tf-load") else ""


def _workloads(settings: Settings, show: Show, needed: set[str]) -> Iterator[Workload]:
    from .workloads import cheap, jpeg, write_pictures

    if "jpeg" in needed:
        records = 500 if settings.quick else 6000
        paths = write_pictures(settings.directory, show, files=8, records=records)
        yield from jpeg(paths, show)
    if "cheap" in needed:
        yield cheap(50_000 if settings.quick else 1_000_000, show)


class _Subject:
    """A pipeline that is cached at its end.

    Args:
        load: the pipeline and what it has to give.
        cluster: runs it.
        settings: of the run.
        show: is told of progress.
    """

    def __init__(
        self, load: Workload, cluster: LocalCluster, settings: Settings, show: Show
    ) -> None:
        self._load = load
        self._cluster = cluster
        self._scratch = settings.directory / f"tf-{load.name}"
        self._show = show
        self._dataset = load.dataset.cache()
        self._local: dict[str, Any] = {}
        self._nbytes = 0
        self._key = ""

    def prepare(self) -> None:
        """Fills every cache, and warms the worker up."""
        self._show.said(f"{self._load.name}: filling the caches")
        self._read("off")
        self._read("on")
        self._read("on")
        with contextlib.ExitStack() as stack:
            segments = [stack.enter_context(segment) for segment in self._segments()]
            for segment in segments:
                self._nbytes += sum(entry.payload_bytes for entry in segment.frames)
            elements = sum(segment.digest.count for segment in segments)
        if elements != self._load.elements:
            raise VerificationError(
                f"the cache holds {elements} elements of {self._load.elements}: was there time"
                " to write them?"
            )
        self._scratch.mkdir()
        plain = self._load.dataset
        self._local["tf-cache"] = plain.cache(str(self._scratch / "cache")).batch(_BATCH)
        for _ in self._local["tf-cache"].as_numpy_iterator():
            pass
        plain.save(str(self._scratch / "saved"))

    def measure(self, way: str) -> Metrics:
        """One epoch in one way, or the seeks."""
        if way == "seek":
            return {"seek_ms": self._seek_ms()}
        if way == "put":
            self._forget()
        began_s, epoch_s = time.monotonic(), 0.0
        match way:
            case "computed" | "put":
                epoch_s = self._read("off" if way == "computed" else "put")
            case "get":
                epoch_s = self._read("on", epochs=2)
            case "sendfile":
                self._send()
            case _:
                self._iterate(way)
        epoch_s = epoch_s or time.monotonic() - began_s
        if way == "put":
            self._read("on")  # what is in the middle of an fsync, and the next round's segments
        return {
            "epoch_s": epoch_s,
            "mb_per_s": self._nbytes / 1e6 / epoch_s,
            "elements_per_s": self._load.elements / epoch_s,
        }

    def _read(self, mode: str, epochs: int = 1) -> float:
        """Reads epochs of a new job; how long the last one took, in seconds."""
        took_s = 0.0
        with Reader(self._dataset, self._cluster, seed=1, cache=mode) as reader:
            for _ in range(epochs):
                began_s = time.monotonic()
                read_epoch(reader, self._load, self._show)
                took_s = time.monotonic() - began_s
            self._key = reader.plan.streams[0].cache.key
        return took_s

    def _segments(self) -> list[Segment]:
        found = []
        for path in sorted((self._cluster.directory / "cache" / self._key).glob("*.seg")):
            name = name_of(path)
            assert name is not None
            found.append(Segment(path, name))
        return found

    def _forget(self) -> None:
        for path in (self._cluster.directory / "cache" / self._key).glob("*.seg"):
            path.unlink()

    def _send(self) -> None:
        """Sends the bytes of all payloads to a thread that reads them into one buffer."""
        ours, theirs = socket.socketpair()
        sent, got = 0, [0]
        with ours, theirs, contextlib.ExitStack() as stack:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
            reader = threading.Thread(target=_receive, args=(theirs, got))
            reader.start()
            for segment in [stack.enter_context(one) for one in self._segments()]:
                for entry in segment.frames:
                    _send_range(ours, segment.fileno(), entry.payload_offset, entry.payload_bytes)
                    sent += entry.payload_bytes
            ours.shutdown(socket.SHUT_WR)
            reader.join()
        if got[0] != sent:
            raise VerificationError(f"{got[0]} bytes arrived of {sent}")

    def _iterate(self, way: str) -> None:
        import tensorflow as tf

        if way == "tf-cache":
            batches = self._local[way]
        else:
            batches = tf.data.Dataset.load(str(self._scratch / "saved")).batch(_BATCH)
        elements = 0
        for batch in batches.as_numpy_iterator():
            elements += len(tf.nest.flatten(batch)[0])
        if elements != self._load.elements:
            raise VerificationError(f"{way} gave {elements} elements of {self._load.elements}")

    def _seek_ms(self) -> float:
        taken = []
        paths = [segment.path for segment in self._segments()]
        for number in range(_SEEKS):
            path = paths[number % len(paths)]
            name = name_of(path)
            assert name is not None
            began_s = time.monotonic()
            with Segment(path, name) as segment:
                segment.payload(segment.frame_at(segment.digest.count * number // _SEEKS))
            taken.append(time.monotonic() - began_s)
        return 1e3 * statistics.median(taken)


def _send_range(sock: socket.socket, descriptor: int, offset: int, nbytes: int) -> None:
    end = offset + nbytes
    while offset < end:
        offset += os.sendfile(sock.fileno(), descriptor, offset, end - offset)


def _receive(sock: socket.socket, got: list[int]) -> None:
    buffer = memoryview(bytearray(1 << 20))
    while nbytes := sock.recv_into(buffer):
        got[0] += nbytes
