"""A group of consumers without I/O: real cores, histories and positions, resized at will."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from penstock.client import ledger as ledgers
from penstock.client.epoch import StreamInfo
from penstock.client.events import Delivery, EndOfEpoch, Fail, Fetch, Placed
from penstock.client.history import History
from penstock.client.lanes import EpochCore
from penstock.client.ledger import Ledger
from penstock.client.opened import OpenedJob
from penstock.client.positions import Counting, Positions, Rate
from penstock.client.resumed import ResumedCore
from penstock.client.starts import Start
from penstock.proto.chunk import Chunk
from penstock.proto.deal import deal
from penstock.proto.hashing import DigestBuilder
from penstock.proto.position import Consumer, Position
from penstock.proto.seats import GroupPosition, regrouped

#: (epoch, split, index in the split)
Element = tuple[int, int, int]
_PER_SPLIT_MAX = 100_000


@dataclasses.dataclass(frozen=True)
class Data:
    """What a group reads: the sizes of the splits, and how they are dealt; `shift` changes them."""

    sizes: tuple[int, ...]
    lanes: int
    block: int = 2
    seed: int = 5
    shift: int = 0

    def chunk(self, split: int, start: int, stop: int) -> Chunk:
        first = (split + self.shift) * _PER_SPLIT_MAX
        return Chunk.from_stacked(start, [np.arange(first + start, first + stop)])

    def epoch(self, epoch: int) -> Counter[Element]:
        """The truth: every element of an epoch, once."""
        return Counter((epoch, s, i) for s, size in enumerate(self.sizes) for i in range(size))

    def dealt(self, epoch: int) -> list[list[int]]:
        return deal(len(self.sizes), self.lanes, seed=self.seed, epoch=epoch)

    def job(self, consumer: Consumer, epoch: int) -> OpenedJob:
        info = StreamInfo("f" * 32, len(self.sizes), None, True, ())
        return OpenedJob(
            "j", "c", 1, self.seed, self.lanes, self.block, False, True, (epoch,), (info,), consumer
        )


class Recorder:
    """Makes the ledgers of lives in a directory, in the order of their arrival."""

    def __init__(self, directory: Path, name: str = "train") -> None:
        self.directory, self.name = directory, name
        self._arrivals = itertools.count(1)
        self._made: list[Ledger] = []

    def __call__(self, data: Data, consumer: Consumer, start: str, own: Position | None) -> Ledger:
        arrival = next(self._arrivals)
        life = ledgers.Life(
            name=self.name,
            arrival=(1, arrival),
            start="" if own is None else str(own),
            consumer=consumer.row() if self.name else None,
            group_start=start,
            splits=(len(data.sizes),),
            weights=((),),
            replayable=(True,),
            lanes=data.lanes,
            block=data.block,
            ordered=False,
            deterministic=True,
        )
        ledger = Ledger(
            self.directory,
            job="j",
            client=f"c{arrival:03}",
            seed=data.seed,
            streams=["f" * 32],
            life=life,
        )
        self._made.append(ledger)
        return ledger

    def close(self) -> None:
        """Closes all files as the end of a process does: without a last word."""
        for ledger in self._made:
            ledger._file.close()


class Life:
    """One life of one consumer, served by a worker that has everything at once."""

    def __init__(
        self,
        data: Data,
        consumer: Consumer,
        start: str,
        own: Position | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        group = GroupPosition.parse(start) if start else None
        joined = regrouped(start, [] if own is None else [str(own)])
        first = GroupPosition.parse(joined).first_epoch(consumer) if joined else 0
        streams = None if own is None else own.streams
        job = data.job(consumer, first)
        self.data = data
        self.taken: list[Element] = []
        self._history = History(job, Start(streams, consumer, group))
        counting = Counting("d" * 32, (Rate(),))
        self._positions = Positions(self._history, counting, own, rebuilt=False)
        self._epoch = first
        self._core: EpochCore | None = None
        self.ledger = None if recorder is None else recorder(data, consumer, start, own)

    def take(self, count: int) -> list[Element]:
        """The next elements, over the ends of epochs."""
        before = len(self.taken)
        while len(self.taken) - before < count:
            self._some(count - (len(self.taken) - before))
        return self.taken[before:]

    def take_epochs(self, epochs: int) -> None:
        """All that is left for it of the epochs before `epochs`."""
        while self._epoch < epochs:
            self._some(1 << 20)

    def position(self, consumed: int) -> Position:
        """Where a trainer is that took so many, of those that were taken here."""
        return Position.parse(str(self._positions.at(consumed, None, 1)))

    def commit(self, consumed: int, *, done: bool = True) -> Position:
        """Has a position on record as committed; `done` as acknowledged, too."""
        position = self.position(consumed)
        if self.ledger is not None:
            counts = {} if self._core is None else {(0, self._epoch): self._core.counts()}
            self.ledger.commit(str(position), counts, done=False)
            if done:
                self.ledger.commit(str(position), {}, done=True)
        return position

    def _some(self, count: int) -> None:
        if self._core is None:
            self._core, at = self._history.open(0, self._epoch)
            if self.ledger is not None and isinstance(self._core, ResumedCore) and at is not None:
                self.ledger.resume(0, self._epoch, at.digest, self._core.begun)
            serve(self._core, self.data)
        result, _ = self._core.take(count)
        if isinstance(result, EndOfEpoch):
            if self.ledger is not None:
                self.ledger.finish(0, self._epoch, result.digest, self._core.counts())
            self._history.finished(0, self._epoch)
            self._core, self._epoch = None, self._epoch + 1
            return
        assert isinstance(result, Delivery)
        self._history.delivered(0, self._epoch, result.pieces)
        if self.ledger is not None:
            self.ledger.record(0, self._epoch, result.pieces)
        for piece in result.each_piece():
            first = piece.chunk.start
            self.taken += [(self._epoch, piece.split, first + i) for i in range(len(piece.hashes))]


def serve(core: EpochCore, data: Data) -> None:
    """Answers every fetch to its end."""
    core.connected("w")
    out = core.placements([Placed(split, split + 1, "w") for split in range(len(data.sizes))])
    for fetch in out:
        if not isinstance(fetch, Fetch):
            continue
        split, size = fetch.attempt - 1, data.sizes[fetch.attempt - 1]
        whole = DigestBuilder()
        if size:
            whole.update(data.chunk(split, 0, size).hashes)
        if fetch.verify:
            said = core.hashes(fetch.attempt, 0, data.chunk(split, 0, fetch.start).hashes)
            assert not said, said
        if fetch.start < size:
            core.chunk(fetch.attempt, data.chunk(split, fetch.start, size), 8)
        said = core.end(fetch.attempt, whole.digest())
        assert not any(isinstance(item, Fail) for item in said), said


@dataclasses.dataclass
class Group:
    """All generations of a group, and what its trainers' commits say was trained on."""

    data: Data
    world: int
    generation: int = 1
    start: str = ""
    trained: Counter[Element] = dataclasses.field(default_factory=Counter)
    committed: list[Position | None] = dataclasses.field(default_factory=list)
    recorder: Recorder | None = None

    def __post_init__(self) -> None:
        self.committed = self.committed or [None] * self.world

    def life(self, rank: int) -> Life:
        """A consumer that begins at what it, or the group, committed."""
        consumer = Consumer(rank, self.world, self.generation)
        return Life(self.data, consumer, self.start, self.committed[rank], self.recorder)

    def commit(self, rank: int, life: Life, consumed: int) -> None:
        """A consumer's trainer holds safe what it took first."""
        self.committed[rank] = life.commit(consumed)
        self.trained.update(life.taken[:consumed])

    def resize(self, world: int) -> None:
        """As the dispatcher does it."""
        self.start = regrouped(self.start, ["" if at is None else str(at) for at in self.committed])
        self.world, self.generation = world, self.generation + 1
        self.committed = [None] * world

    def finish(self, epochs: int) -> None:
        """All consumers read what is left of the epochs before `epochs`, and commit it."""
        for rank in range(self.world):
            life = self.life(rank)
            life.take_epochs(epochs)
            self.commit(rank, life, len(life.taken))


def expected(data: Data, epochs: Sequence[int]) -> Counter[Element]:
    """Every element of these epochs, once."""
    out: Counter[Element] = Counter()
    for epoch in epochs:
        out += data.epoch(epoch)
    return out
