"""A worker's cache, runs of a pipeline with it, and pipelines with cache points."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from penstock.graph import LoadedStream, analyse, load_stream
from penstock.proto.chunk import decode
from penstock.proto.hashing import Digest
from penstock.worker.cache import Cache, open_cache
from penstock.worker.cached import run_cached
from penstock.worker.checkpointing import Cost, Interval
from penstock.worker.checkpoints import CheckpointStore
from penstock.worker.keeper import Keeper
from penstock.worker.messages import Piece
from penstock.worker.rate import Rate
from penstock.worker.recorder import Recorder

from .fakes import assignment

TENSORFLOW = tf.__version__
GIB = 1 << 30


class FakeOutlet:
    """A run's outlet that keeps what it is handed, and may stop the run."""

    def __init__(self, *, wanted: int = 0, stop_after: int | None = None) -> None:
        self.pieces: list[Piece] = []
        self.stopped = threading.Event()
        self.before: Any = np.empty(0, np.uint64)
        self.cached_as: bool | None = None
        self.after_piece: Callable[[int], None] = lambda _: None
        self._wanted = wanted
        self._stop_after = stop_after

    def hold(self, iterator: object) -> None:
        del iterator

    def wanted(self) -> int:
        return self._wanted

    def cursor(self, *, patient: bool) -> int:
        del patient
        return self._wanted

    def reads(self, reads: bool) -> None:
        self.cached_as = reads

    def begin(self, hashes: Any) -> None:
        self.before = hashes

    def save(self, elements: int, take: Callable[[int, Any], None]) -> None:
        hashes = [self.before, *(piece.hashes for piece in self.pieces)]
        take(0, np.concatenate(hashes)[:elements])

    def put(self, piece: Piece) -> bool:
        if self._stop_after is not None and len(self.pieces) >= self._stop_after:
            self.stopped.set()
            return False
        self.pieces.append(piece)
        self.after_piece(len(self.pieces))
        return True

    @property
    def first(self) -> int:
        return len(self.before)

    def elements(self) -> list[Any]:
        """What was handed over, element by element, each checked by its hash."""
        found: list[Any] = []
        at = self.first
        for piece in self.pieces:
            assert piece.start == at
            at = piece.stop
            payload = memoryview(b"".join(piece.buffers))
            chunk = decode(piece.header, payload)
            chunk.verify()
            found += [
                tuple(array.tolist() for array in chunk.element(index))
                for index in range(chunk.start, chunk.stop)
            ]
        return found


class Bench:
    """A worker's cache, and runs of one pipeline with it."""

    def __init__(self, root: Path, dataset: Any, *, limit: int = GIB) -> None:
        self.root = root
        self.limit = limit
        self.stream: LoadedStream = load_stream(analyse(dataset, cache=True).streams[0].blob)
        self.rate = Rate()
        self.reports = 0
        self.cache = self._open()

    def _open(self) -> Cache:
        self.keeper = Keeper(CheckpointStore(self.root / "checkpoints", "h:1", TENSORFLOW))
        self.keeper.start()
        made = open_cache(self.root / "cache", "h:1", self.limit, TENSORFLOW, self._report)
        made.start()
        return made

    def _report(self) -> None:
        self.reports += 1

    def die(self) -> None:
        """The process goes, and another one of its address comes."""
        self.cache.leaving = True
        self.close()
        self.cache = self._open()

    def close(self) -> None:
        assert self.keeper.close(30)
        assert self.cache.close(30)

    def run(
        self,
        outlet: FakeOutlet,
        split: int = 0,
        *,
        mode: str = "on",
        epoch: int = 0,
        interval: str = "off",
        trial: int = 1,
    ) -> Digest | None:
        at = assignment(7, split=split, epoch=epoch, seed=5, cache=mode, trial=trial)
        cost = Cost(Interval.parse(interval))
        make = functools.partial(Recorder, self.keeper, cost, outlet, at)
        return run_cached(self.cache, self.stream, at, outlet, self.rate, make)  # type: ignore[arg-type]

    def truth(self, split: int = 0, epoch: int = 0) -> list[Any]:
        """The split's elements without the cache."""
        dataset = self.stream.split_dataset(split, seed=5, epoch=epoch)
        return [tuple(np.asarray(part).tolist() for part in element) for element in iter(dataset)]

    def segments(self) -> list[Path]:
        return sorted((self.root / "cache").rglob("*.seg"))

    def committed(self, count: int = 1) -> list[Path]:
        """The segments, once the thread that finishes them has nothing to do."""
        with self.cache._changed:
            assert self.cache._changed.wait_for(lambda: not self.cache._finishing, 30)
        found = self.segments()
        assert len(found) == count
        return found

    def left(self, pattern: str) -> list[str]:
        return [path.name for path in (self.root / "cache").rglob(f"*.{pattern}")]


def squares(count: int = 640) -> Any:
    return tf.data.Dataset.range(count).map(lambda x: (x, x * x))


def wide(count: int = 640) -> Any:
    """Elements of 256 KiB, so that a split has several frames."""
    return tf.data.Dataset.range(count).map(lambda x: tf.fill([1 << 15], x))


WHOLE = {
    "numbers": squares().cache(),
    "wide": wide(640 * 4).cache(),
    "strings": tf.data.Dataset.range(640).map(lambda x: tf.strings.as_string(x) + "é").cache(),
    "varying": tf.data.Dataset.range(640).map(lambda x: tf.range(x % 7)).cache(),
    "shuffled": squares().shuffle(16).cache(),
}
WITH_TAIL = {
    "mapped": squares().cache().map(lambda x, y: x + y),
    "wide": wide(640 * 4).cache().map(lambda x: x * 2),
    "shuffled": squares().cache().shuffle(7).map(lambda x, y: y),
    "filtered": squares().cache().filter(lambda x, y: x % 3 == 0),
    "nothing": squares().cache().filter(lambda x, y: x < 0),
    "varying": tf.data.Dataset.range(640)
    .map(lambda x: tf.range(x % 7))
    .cache()
    .map(lambda r: r + 1),
    "flat": squares().cache().flat_map(lambda x, y: tf.data.Dataset.from_tensors(x).repeat(3)),
}
ALL = {f"whole-{k}": v for k, v in WHOLE.items()} | {f"tail-{k}": v for k, v in WITH_TAIL.items()}
