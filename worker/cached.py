"""One run with the cache: it reads the split's segment, or writes it, or does neither.

A stream's cache point divides its pipeline into a head, whose elements are cached, and a tail. If
there is no tail, a run that *puts* writes the very chunks that it sends, and one that *gets* sends
them from the file, without TensorFlow. Otherwise the elements are written where they pass the
cache point inside the pipeline, and a run that gets runs the tail on what it reads.

The cache costs no run its life: a disk that refuses ends the putting, and a segment that is damaged
is set aside and the rest of the split made as if there had been none.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from .cache import Costs
from .checkpoint_file import Layout
from .iterators import Source
from .messages import AttemptError
from .pieces import SegmentPiece, ids_of
from .pipeline import Made, SplitStream, run_attempt
from .segment_file import DamagedSegmentError, SegmentName
from .segment_io import SegmentReader, SegmentWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..proto.hashing import Digest
    from .cache import Cache
    from .iterators import Elements
    from .messages import Assignment, Piece
    from .partial import PartialSegment
    from .producers import Outlet
    from .rate import Rate
    from .recorder import Recorder
    from .segment import Segment
    from .segment_io import Arrays, CachePoint

logger = logging.getLogger(__name__)

#: To measure what reading costs, so many chunks of a segment are read.
_MEASURED_CHUNKS = 8


class CachedStream(SplitStream, Protocol):
    """What is used of `graph.LoadedStream` besides."""

    @property
    def cache(self) -> CachePoint | None:
        """Its cache point, if it has one."""

    def stamp(self, split: int) -> str | None:
        """Names the state of the files that a split reads; None if that cannot be known."""

    def put_dataset(
        self,
        split: int,
        *,
        seed: int,
        epoch: int,
        size: int,
        write: Callable[[int, Arrays], None],
    ) -> Any:
        """The split's dataset; what passes the cache point is written, `size` elements at once."""

    def get_dataset(
        self, split: int, *, seed: int, epoch: int, chunks: int, read: Callable[[int], Arrays]
    ) -> Any:
        """The split's dataset, from what is read at the cache point."""


def run_cached(
    cache: Cache,
    stream: CachedStream,
    assignment: Assignment,
    outlet: Outlet,
    rate: Rate,
    recorder: Callable[[Callable[[], None]], Recorder],
) -> Digest | None:
    """Produces one split with the cache; see `run_attempt`.

    Args:
        cache: of this worker.
        stream: has a cache point.
        assignment: which split, and how it uses the cache.
        outlet: of the run.
        rate: of the stream.
        recorder: makes the run's recorder, given what makes durable what checkpoints rely on.
    """
    name = _name(stream, assignment)
    made = Made()
    if name is not None and assignment.cache in ("on", "measure"):
        segment = cache.get(name)
        if segment is not None:
            try:
                return _get(cache, segment, stream, assignment, outlet, rate, recorder, made)
            except DamagedSegmentError as error:
                cache.store.set_aside(name, str(error))
                outlet.reads(False)
    partial = None
    if name is not None and made.elements == 0 and assignment.trial == 1:
        partial = cache.store.put(name)
    if partial is None:
        plain = recorder(lambda: None) if made.elements == 0 else None
        return run_attempt(stream, assignment, outlet.put, rate, outlet.stopped, plain, made=made)
    return _put(cache, partial, stream, assignment, outlet, rate, recorder)


def _name(stream: CachedStream, assignment: Assignment) -> SegmentName | None:
    point = stream.cache
    assert point is not None
    stamp = stream.stamp(assignment.split)
    if stamp is None:
        logger.warning("%s: not cached, its files cannot be looked at", assignment)
        return None
    return SegmentName(point.key, assignment.split, stamp)


# Get.


def _get(
    cache: Cache,
    segment: Segment,
    stream: CachedStream,
    assignment: Assignment,
    outlet: Outlet,
    rate: Rate,
    recorder: Callable[[Callable[[], None]], Recorder],
    made: Made,
) -> Digest | None:
    """Makes the split from its segment.

    Raises:
        DamagedSegmentError: it cannot be read; `made` says how far the run has come.
        AttemptError: the pipeline's tail raised.
    """
    point = stream.cache
    assert point is not None
    logger.info("%s: from segment %s of %d elements", assignment, segment.id, segment.digest.count)
    cache.reading(assignment.attempt)
    outlet.reads(point.whole)
    if point.whole:
        return _send(segment, assignment, outlet, made)
    reader = SegmentReader(segment, point)
    origin = _Reading(stream, assignment, segment, reader)
    try:
        return run_attempt(
            stream,
            assignment,
            outlet.put,
            rate,
            outlet.stopped,
            recorder(lambda: None),
            origin,
            made,
        )
    except AttemptError:
        if reader.damaged is not None:
            raise reader.damaged from None
        raise


def _send(segment: Segment, assignment: Assignment, outlet: Outlet, made: Made) -> Digest | None:
    """Hands the frames of a segment over, from the one on that the client wants."""
    ids = ids_of(assignment)
    frames = len(segment.frames)
    wanted = min(outlet.wanted(), segment.digest.count)
    first = segment.frame_at(wanted) if wanted < segment.digest.count else frames
    start = segment.frames[first].start if first < frames else segment.digest.count
    before = segment.hashes[:start]
    made.digest.update(before)
    made.elements = start
    outlet.begin(before)
    for frame in range(first, frames):
        piece = SegmentPiece.of(segment, frame, ids)
        made.digest.update(piece.hashes)
        made.elements = piece.stop
        if not outlet.put(piece) or outlet.stopped.is_set():
            return None
    return None if outlet.stopped.is_set() else segment.digest


@dataclass(frozen=True, slots=True)
class _Reading:
    """The elements come from a segment, through the tail of the pipeline."""

    stream: CachedStream
    assignment: Assignment
    segment: Segment
    reader: SegmentReader

    def fits(self, via: str) -> bool:
        return via == self._via

    def elements(self, layout: Layout, *, fresh: bool) -> Elements:
        at = self.assignment
        dataset = self.stream.get_dataset(
            at.split,
            seed=at.seed,
            epoch=at.epoch,
            chunks=self.reader.chunks,
            read=self.reader.read,
        )
        return Source(dataset, replace(layout, via=self._via))

    @property
    def _via(self) -> str:
        # Another segment of the split may have other chunks.
        return f"get {self.segment.id}"


# Put.


def _put(
    cache: Cache,
    partial: PartialSegment,
    stream: CachedStream,
    assignment: Assignment,
    outlet: Outlet,
    rate: Rate,
    recorder: Callable[[Callable[[], None]], Recorder],
) -> Digest | None:
    """Makes the split, and its segment with it."""
    point = stream.cache
    assert point is not None
    writer = SegmentWriter(partial, point)
    watch = _Watch(outlet, writer if point.whole else None)
    origin = None if point.whole else _Writing(stream, assignment, rate, writer)
    digest: Digest | None = None
    try:
        run = recorder(writer.sync)
        digest = run_attempt(stream, assignment, watch.put, rate, outlet.stopped, run, origin)
    finally:
        if digest is None:
            writer.release(keep=cache.leaving)
    head = writer.finish(restored=run.restored > 0) if digest is not None else None
    if head is not None:
        costs = None
        if assignment.cache == "measure" and not run.restored:
            costs = watch.costs(writer, _Measure(stream, assignment, point).read)
        name = _name(stream, assignment)
        if name == partial.name:  # else its files changed while they were read
            cache.finish(partial, partial.name, head, costs)
        else:
            partial.discard()
    return digest


@dataclass(slots=True)
class _Writing:
    """The whole pipeline; its elements are written where they pass the cache point."""

    stream: CachedStream
    assignment: Assignment
    rate: Rate
    writer: SegmentWriter

    def fits(self, via: str) -> bool:
        return via.startswith("put ")

    def elements(self, layout: Layout, *, fresh: bool) -> Elements:
        point, at = self.stream.cache, self.assignment
        assert point is not None
        size = 1 if fresh else int(layout.via.removeprefix("put "))
        if fresh and point.stackable:
            size = self.rate.batch_size(point.fixed_element_bytes)
        dataset = self.stream.put_dataset(
            at.split, seed=at.seed, epoch=at.epoch, size=size, write=self.writer.write
        )
        return Source(dataset, replace(layout, via=f"put {size}"))


@dataclass(slots=True)
class _Watch:
    """Hands pieces on, writes them if they are what is cached, and sees how long making takes."""

    outlet: Outlet
    writer: SegmentWriter | None
    produced_s: float = 0.0
    _since: float = field(default_factory=time.monotonic)

    def put(self, piece: Piece) -> bool:
        """Takes the next piece."""
        self.produced_s += time.monotonic() - self._since
        if self.writer is not None:
            self.writer.put(piece)
        go_on = self.outlet.put(piece)
        self._since = time.monotonic()  # waiting for space is not the pipeline's time
        return go_on

    def costs(self, writer: SegmentWriter, read: Callable[[Segment], float]) -> Costs:
        """What the split has cost."""
        inside_s = 0.0 if self.writer is not None else writer.seconds
        return Costs(max(0.0, self.produced_s - inside_s), writer.seconds, read)


@dataclass(frozen=True, slots=True)
class _Measure:
    """Finds out what it costs to make a split from its segment."""

    stream: CachedStream
    assignment: Assignment
    point: CachePoint

    def read(self, segment: Segment) -> float:
        """Seconds, as far as the first chunks tell; the dataset's start is left out."""
        frames = min(len(segment.frames), _MEASURED_CHUNKS)
        if not frames:
            return 0.0
        if self.point.whole:
            began = time.monotonic()
            for frame in range(frames):
                segment.payload(frame)
            return (time.monotonic() - began) * len(segment.frames) / frames
        reader = SegmentReader(segment, self.point)
        some = max(1, reader.chunks * frames // len(segment.frames))
        at = self.assignment
        dataset = self.stream.get_dataset(
            at.split, seed=at.seed, epoch=at.epoch, chunks=some, read=reader.read
        )
        stacked = all(spec.static_shape is not None for spec in self.stream.components)
        source = Source(dataset, Layout("stacked", 64) if stacked else Layout("collected"))
        began = time.monotonic()
        for _ in source:
            pass
        return (time.monotonic() - began) * reader.chunks / some
