"""What a training was trained on, from the ledgers of all its lives and consumers.

A commit says that a checkpoint holds everything up to a position, and so does the position that the
next life is restored at; what was delivered after it was lost with the life. So, life by life in
the order of their arrival, for each *seat* (generation and rank; one for a trainer alone) a
sequence of elements grows, and is cut where the next life begins earlier; together these are what
was trained on. An epoch is *over* when all consumers of the last generation are past it: then
nothing may be missing of it, before only gaps are losses. A commit whose answer never came counts
if a later life goes on there.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from ..proto.deal import deal
from ..proto.hashing import Digest
from ..proto.position import Consumer, Cursor, Position
from ..proto.seats import GroupPosition, Place, owned
from .recorded import Elements, against, joined

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .recorded import Key, LifeRecord, Truth


@dataclass(frozen=True, slots=True)
class TrainingAudit:
    """What a training was trained on, of one epoch of one stream.

    Attributes:
        training: the name of the job or group; its seed, for an unnamed one.
        stream: index of the stream in the job.
        epoch: the epoch's number.
        over: all of it was to be trained.
        lives: how many lives of trainers had to do with it.
        elements: that were trained on.
        lost: elements that should have been, and were not.
        duplicated: elements that were once more.
        unexpected: elements that do not exist.
        altered: elements that came with other bytes than before, or than they should.
        reordered: elements that were not trained in the order that is the epoch's.
    """

    training: str
    stream: int
    epoch: int
    over: bool
    lives: int
    elements: int
    lost: int
    duplicated: int
    unexpected: int
    altered: int
    reordered: int

    @property
    def clean(self) -> bool:
        """Nothing is wrong with it."""
        wrong = self.lost + self.duplicated + self.unexpected + self.altered + self.reordered
        return not wrong


def trained(records: Sequence[LifeRecord], truth: Truth | None) -> list[TrainingAudit]:
    """What each training with commits or several consumers was trained on, epoch by epoch."""
    out: list[TrainingAudit] = []
    for lives in _trainings(records):
        if any(one.commits or one.known.consumer for one in lives):
            name = lives[0].known.name or f"unnamed, seed {lives[0].seed}"
            out += _Training(name, lives).audited(truth)
    return out


def _trainings(records: Sequence[LifeRecord]) -> list[list[LifeRecord]]:
    """The lives of each training, in the order of their arrival.

    An unnamed job ends with its client: one that is restored nowhere is another training.
    """
    known = [record for record in records if record.life is not None]
    out: list[list[LifeRecord]] = []
    latest: dict[tuple[str, int, tuple[str, ...]], list[LifeRecord]] = {}
    for record in sorted(known, key=lambda one: one.known.arrival):
        key = (record.known.name, record.seed, record.streams)
        if key not in latest or not (record.known.name or record.known.start):
            latest[key] = []
            out.append(latest[key])
        latest[key].append(record)
    return out


class _Training:
    """All lives of one training."""

    def __init__(self, name: str, lives: Sequence[LifeRecord]) -> None:
        self._name = name
        self._lives = lives
        #: By seat: what was trained of each epoch, and how much of it lies before the ledger.
        self._kept: dict[tuple[int, int], dict[Key, list[Elements]]] = defaultdict(dict)
        self._base: dict[tuple[int, int], dict[Key, int]] = defaultdict(dict)
        #: By seat: the epoch of each stream that comes next.
        self._reached: dict[tuple[int, int], list[int]] = {}
        for number, record in enumerate(lives):
            self._add(record, lives[number + 1 :])

    def audited(self, truth: Truth | None) -> Iterator[TrainingAudit]:
        """Its epochs."""
        keys = {key for record in self._lives for key in record.visits}
        for key in sorted(keys):
            yield self._epoch(key, truth)

    def _add(self, record: LifeRecord, later: Sequence[LifeRecord]) -> None:
        kept, base = self._kept[record.seat], self._base[record.seat]
        start = Position.parse(record.known.start) if record.known.start else None
        if start is not None:
            self._cut(record.seat, start)
        for key, visit in record.visits.items():
            base.setdefault(key, visit.before.count)
        reached = self._reached.setdefault(record.seat, _begins(record, start))
        position = _safe(record, later)
        if position is None:
            return
        for stream, place in enumerate(position.streams):
            reached[stream] = place.epoch
            for key, visit in record.visits.items():
                if key[0] == stream and key[1] <= place.epoch:
                    most = max(0, place.digest.count - visit.before.count)
                    part = visit.elements(None if key[1] < place.epoch else most)
                    kept.setdefault(key, []).append(part)

    def _cut(self, seat: tuple[int, int], at: Position) -> None:
        """A life goes on there: what came after is not trained."""
        kept, base = self._kept[seat], self._base[seat]
        for stream, place in enumerate(at.streams):
            for key in [key for key in kept if key[0] == stream and key[1] >= place.epoch]:
                most = place.digest.count - base.get(key, 0) if key[1] == place.epoch else 0
                kept[key] = [joined(kept[key]).first(max(0, most))]
            if seat in self._reached:
                self._reached[seat][stream] = place.epoch

    def _epoch(self, key: Key, truth: Truth | None) -> TrainingAudit:
        lives = [record for record in self._lives if key in record.visits]
        # A lane is one seat's in each generation: so it is in its order.
        all_of_it = joined([joined(self._kept[seat].get(key, ())) for seat in sorted(self._kept)])
        counts: dict[int, int] = {}
        for record in lives:
            counts.update(record.counts.get(key, {}))
            counts.update(record.visits[key].counts or {})
        over, whole = self._is_over(key), self._is_whole(key)
        lost, duplicated, unexpected = _amounts(all_of_it, counts, self._begun(key))
        life = lives[0].known
        if over and whole:
            lost += sum(
                counts.get(split, 1)
                for split in set(range(life.splits[key[0]])) - set(all_of_it.split.tolist())
            )
            lost += _ends(all_of_it, counts)
        altered = 0
        if life.replayable[key[0]]:
            altered = _altered([record.visits[key].elements() for record in lives])
        if truth is not None and over and whole:
            missing, surplus = against(truth, [all_of_it.hash], _digest(all_of_it))
            altered = max(altered, min(missing, surplus))
            lost = max(lost, missing - min(missing, surplus))
            unexpected = max(unexpected, surplus - min(missing, surplus) - duplicated)
        exact = over and whole and not (lost or duplicated or unexpected)
        return TrainingAudit(
            training=self._name,
            stream=key[0],
            epoch=key[1],
            over=over,
            lives=len(lives),
            elements=len(all_of_it),
            lost=lost,
            duplicated=duplicated,
            unexpected=unexpected,
            altered=altered,
            reordered=self._reordered(key, lives[0], all_of_it, counts if exact else {}),
        )

    def _is_over(self, key: Key) -> bool:
        """Whether all consumers of the last generation are past the epoch."""
        generation = max(generation for generation, _ in self._kept)
        consumer = next(r.known.consumer for r in self._lives if r.seat[0] == generation)
        ranks = range(1 if consumer is None else consumer[1])
        return all(
            self._reached.get((generation, rank), [0] * (key[0] + 1))[key[0]] > key[1]
            for rank in ranks
        )

    def _is_whole(self, key: Key) -> bool:
        """Whether the ledger has the epoch from its beginning."""
        first = self._lives[0].known
        if first.group_start:
            places = GroupPosition.parse(first.group_start).places
            return all(place.order <= (key[1], 0, 0) for place in places)
        return not first.start or not _before(Position.parse(first.start), key)

    def _begun(self, key: Key) -> dict[int, int]:
        """How much of which splits lies before the ledger."""
        first = self._lives[0].seat[0]
        begun: dict[int, int] = {}
        for record in self._lives:
            if record.seat[0] == first and key in record.visits:
                for split, elements in record.visits[key].begun.items():
                    begun[split] = min(begun.get(split, elements), elements)
        return begun

    def _reordered(
        self, key: Key, record: LifeRecord, elements: Elements, counts: dict[int, int]
    ) -> int:
        life = record.known
        dealt = deal(
            life.splits[key[0]],
            life.lanes,
            seed=record.seed,
            epoch=key[1],
            weights=life.weights[key[0]],
            ordered=life.ordered,
        )
        backwards = _backwards(elements, dealt)
        if not counts or life.consumer is not None or not life.deterministic:
            return backwards
        wanted = np.array(list(sequence(dealt, counts, life.block)), np.int64).reshape(-1, 2)
        differ = (elements.split != wanted[:, 0]) | (elements.index != wanted[:, 1])
        return max(backwards, int(differ.sum()))


def sequence(
    dealt: Sequence[Sequence[int]], counts: dict[int, int], block: int
) -> Iterator[tuple[int, int]]:
    """The order of an epoch: (split, index), a block of each lane in turn."""
    lanes = [iter([(s, i) for s in lane for i in range(counts.get(s, 0))]) for lane in dealt]
    while lanes:
        left = []
        for lane in lanes:
            some = list(islice(lane, block))
            yield from some
            if len(some) == block:
                left.append(lane)
        lanes = left


def _begins(record: LifeRecord, start: Position | None) -> list[int]:
    """The epoch of each stream that a life begins with, as far as it was told."""
    life = record.known
    if start is not None:
        return [stream.epoch for stream in start.streams]
    if life.consumer is not None and life.group_start:
        return [GroupPosition.parse(life.group_start).first_epoch(Consumer(*life.consumer))]
    return [0] * len(record.streams)


def _safe(record: LifeRecord, later: Sequence[LifeRecord]) -> Position | None:
    """Up to where a life's elements are in a checkpoint; None if none are."""
    following = next((other for other in later if other.seat == record.seat), None)
    if following is not None and following.known.start:
        return Position.parse(following.known.start)
    safe = [at for at, done in record.commits if done or _is_regrouped(record, at, later)]
    return safe[-1] if safe else None


def _is_regrouped(record: LifeRecord, at: Position, later: Sequence[LifeRecord]) -> bool:
    """Whether a commit whose answer never came is before where the next generation begins."""
    texts = [other.known.group_start for other in later if other.seat[0] > record.seat[0]]
    if at.consumer is None or not texts or not texts[0]:
        return False
    places = GroupPosition.parse(texts[0]).places
    (stream,) = at.streams
    cursors = stream.cursors or (Cursor(),) * at.lanes
    mine = [Place(stream.epoch, cursor).order for cursor in cursors]
    return all(places[lane].order >= mine[lane] for lane in owned(at.consumer, at.lanes))


def _before(position: Position, key: Key) -> bool:
    """Whether an epoch is over, or was begun, at a position."""
    place = position.streams[key[0]]
    return place.epoch > key[1] or (place.epoch == key[1] and place.started)


def _amounts(
    elements: Elements, counts: dict[int, int], begun: dict[int, int]
) -> tuple[int, int, int]:
    """(lost in gaps, duplicated, unexpected) by position."""
    rows = np.stack([elements.split, elements.index], axis=1)
    unique = np.unique(rows, axis=0)
    limits = np.array([counts.get(int(s), 1 << 62) for s in unique[:, 0]], np.int64)
    beyond = unique[:, 1] >= limits
    splits, first = np.unique(unique[~beyond, 0], return_index=True)
    inside = unique[~beyond]
    ends = np.append(first[1:], len(inside))[: len(first)]
    lost = 0
    for split, low, high in zip(splits.tolist(), first.tolist(), ends.tolist(), strict=True):
        lost += int(inside[high - 1, 1]) + 1 - (high - low) - begun.get(split, 0)
    return max(0, lost), len(rows) - len(unique), int(beyond.sum())


def _ends(elements: Elements, counts: dict[int, int]) -> int:
    """Elements that are missing at the ends of splits that were begun."""
    splits, place = np.unique(elements.split, return_inverse=True)
    ends = np.zeros(len(splits), np.int64)
    np.maximum.at(ends, place.reshape(-1), elements.index + 1)
    return sum(
        max(0, counts.get(split, end) - end)
        for split, end in zip(splits.tolist(), ends.tolist(), strict=True)
    )


def _altered(parts: Sequence[Elements]) -> int:
    """Elements that came more than once, with other bytes."""
    every = joined(parts)
    rows = np.unique(np.stack([every.split, every.index], axis=1), axis=0)
    values = np.stack([every.split.astype(np.uint64), every.index.astype(np.uint64), every.hash])
    return len(np.unique(values, axis=1).T) - len(rows)


def _backwards(elements: Elements, dealt: Sequence[Sequence[int]]) -> int:
    """Elements that come, for the first time, after a later one of their lane."""
    rows = np.stack([elements.split, elements.index], axis=1)
    firsts = np.sort(np.unique(rows, axis=0, return_index=True)[1])
    place = {split: (lane, at) for lane, row in enumerate(dealt) for at, split in enumerate(row)}
    last: dict[int, tuple[int, int]] = {}
    found = 0
    for split, index in rows[firsts].tolist():
        lane, at = place.get(split, (-1, 0))
        if (at, index) < last.get(lane, (0, 0)):
            found += 1
        else:
            last[lane] = (at, index)
    return found


def _digest(elements: Elements) -> Digest:
    total = int(elements.hash.sum(dtype=np.uint64)) if len(elements) else 0
    return Digest(len(elements), total, 0)
