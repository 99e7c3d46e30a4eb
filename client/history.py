"""The epochs that a session has opened, and what it delivered of each: where trainers can go on.

Guarded by its own lock: deliveries come on tf.data's threads, questions on the trainer's.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import xxhash

from ..errors import PositionError, UsageError
from ..proto.deal import deal
from ..proto.position import StreamPosition
from .lanes import EpochCore
from .resumed import ResumedCore
from .track import KEPT_MAX, Track

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..proto.hashing import DigestBuilder
    from .epoch import StreamInfo
    from .events import Piece
    from .opened import OpenedJob
    from .starts import Start
    from .weave import Woven

#: So many epochs are remembered with what was delivered of them; the others by their length.
_TRACKS_MAX = 64


@dataclass(frozen=True, slots=True)
class Visit:
    """An epoch that was opened.

    Attributes:
        epoch: its number.
        base: elements that were consumed of it before.
        delivered: elements up to the last one that was delivered.
        total: its elements; None unless it was delivered whole.
    """

    epoch: int
    base: int
    delivered: int
    total: int | None


def dealt(job: OpenedJob, stream: int, epoch: int) -> list[list[int]]:
    """The splits of each lane of a job's epoch, in order."""
    info = job.streams[stream]
    return deal(
        info.num_splits,
        job.lanes,
        seed=job.seed,
        epoch=epoch,
        weights=info.weights,
        ordered=job.ordered,
    )


def place_of(info: StreamInfo, epoch: int) -> StreamPosition:
    """The beginning of an epoch of a stream."""
    weights = info.weights or ()
    packed = b"".join(weight.to_bytes(8, "little") for weight in weights)
    return StreamPosition(
        fingerprint=info.fingerprint[:32],
        num_splits=info.num_splits,
        weight=sum(weights),
        sizes=xxhash.xxh3_64_intdigest(packed) if weights else 0,
        epoch=epoch,
    )


class History:
    """What was opened and delivered in one life of a session.

    Args:
        job: what was opened.
        start: where the client goes on.
    """

    def __init__(self, job: OpenedJob, start: Start) -> None:
        self._job = job
        self._start = start
        self._lock = threading.Lock()
        self._tracks: list[dict[int, Track]] = [{} for _ in job.streams]
        self._visits: list[dict[int, Visit]] = [{} for _ in job.streams]

    @property
    def job(self) -> OpenedJob:
        """The job."""
        return self._job

    def open(self, stream: int, epoch: int) -> tuple[EpochCore, StreamPosition | None]:
        """The core of an epoch that is opened, and where it begins if not at its beginning."""
        job, info = self._job, self._job.streams[stream]
        lanes = dealt(job, stream, epoch)
        start = self._start.at(stream, place_of(info, epoch), lanes, job.block)
        core = EpochCore(
            lanes, job.block, deterministic=job.deterministic, replayable=info.replayable
        )
        prefix: Callable[[int], DigestBuilder | None] = _nothing
        if start is not None:
            core = resumed = ResumedCore(
                lanes,
                job.block,
                start,
                deterministic=job.deterministic,
                replayable=info.replayable,
            )
            prefix = resumed.prefix_of
        track = Track(lanes, job.block, start, proven=core.proven, prefix=prefix)
        with self._lock:
            self._tracks[stream][epoch] = track
            while len(self._tracks[stream]) > _TRACKS_MAX:
                self._close(stream, next(iter(self._tracks[stream])))
        return core, start

    def resumes(self, stream: int, epoch: int) -> bool:
        """Whether an epoch, or this consumer's part of it, was begun in another life."""
        return self._start.resumes(stream, epoch)

    def delivered(self, stream: int, epoch: int, pieces: Sequence[Piece | Woven]) -> None:
        """Elements that the trainer's side gets now."""
        with self._lock:
            tracks = self._tracks[stream]
            if (track := tracks.get(epoch)) is not None:
                track.add(pieces)
                while len(tracks) > 1 and sum(one.kept for one in tracks.values()) > KEPT_MAX:
                    self._close(stream, next(iter(tracks)))

    def finished(self, stream: int, epoch: int) -> None:
        """An epoch was delivered whole."""
        with self._lock:
            if (track := self._tracks[stream].get(epoch)) is not None:
                track.total = track.delivered

    def visits(self, stream: int) -> list[Visit]:
        """Every epoch that was opened, in that order."""
        with self._lock:
            for epoch in self._tracks[stream]:
                self._visits[stream][epoch] = self._visit(stream, epoch)
            return list(self._visits[stream].values())

    def first_epoch(self, stream: int) -> int:
        """The epoch that this life began with, or will."""
        return self._job.next_epoch[stream]

    def place(self, stream: int, epoch: int, consumed: int) -> StreamPosition:
        """Where `consumed` elements of an epoch end.

        Raises:
            UsageError: that cannot be told (any more); the message says what can.
        """
        begin = place_of(self._job.streams[stream], epoch)
        with self._lock:
            track = self._tracks[stream].get(epoch)
            if track is None and consumed == 0:
                return begin
            if track is None:
                known = ", ".join(map(str, self._tracks[stream])) or "none"
                raise UsageError(f"epoch {epoch} was not read lately; {known} can be asked for")
            if not track.floor <= consumed <= track.delivered:
                raise UsageError(
                    f"a position in epoch {epoch} must be from element {track.floor} (the last one"
                    f" that was asked for) to {track.delivered} (delivered so far), not {consumed}"
                )
            if consumed == 0:
                return begin
            reached = track.at(consumed)
            for other in [number for number in self._tracks[stream] if number < epoch]:
                self._close(stream, other)
        return StreamPosition(
            begin.fingerprint,
            begin.num_splits,
            begin.weight,
            begin.sizes,
            epoch,
            reached.digest,
            reached.whole,
            reached.turn,
            reached.left,
            reached.cursors,
        )

    def _close(self, stream: int, epoch: int) -> None:
        self._visits[stream][epoch] = self._visit(stream, epoch)
        del self._tracks[stream][epoch]

    def _visit(self, stream: int, epoch: int) -> Visit:
        track = self._tracks[stream][epoch]
        return Visit(epoch, track.base, track.delivered, track.total)


def _nothing(split: int) -> None:
    """There was no other life."""


def differences(info: StreamInfo, position: StreamPosition, stream: int) -> list[str]:
    """What about a stream is not as a position says; empty if all is."""
    have = place_of(info, position.epoch)
    out = []
    if have.fingerprint != position.fingerprint:
        out.append(
            f"stream {stream} is another one: {have.fingerprint[:12]},"
            f" the position is of {position.fingerprint[:12]}"
        )
    if (have.num_splits, have.weight) != (position.num_splits, position.weight):
        out.append(
            f"stream {stream} has {have.num_splits} splits of size {have.weight} altogether,"
            f" it had {position.num_splits} of {position.weight}: the files have changed"
        )
    elif have.sizes != position.sizes:
        out.append(f"the sizes of stream {stream}'s files are other ones: they have changed")
    return out


def refuse(found: Sequence[str]) -> None:
    """Raises what is different, if anything is."""
    if found:
        raise PositionError(f"the position is one of something else: {'; '.join(found)}")
