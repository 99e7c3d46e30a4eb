"""What ledger files say, ready for an audit: visits of epochs, lives, commits, elements."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..proto.hashing import Digest
from ..proto.position import Position
from .ledger import Life

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

#: Ground truth: a digest (of which the order is not compared), or the hash of every element.
Truth: TypeAlias = "Digest | ArrayLike"
#: (stream, epoch)
Key = tuple[int, int]
_NOTHING = Digest(0, 0, 0)


@dataclass(slots=True)
class Visit:
    """One client's run through one epoch of one stream, as its file has it."""

    stream: int
    epoch: int
    #: (split, start, count) of every run of elements, and their hashes, in delivered order.
    pieces: list[tuple[int, int, int]] = field(default_factory=list)
    hashes: list[NDArray[np.uint64]] = field(default_factory=list)
    #: What another life of the trainer consumed, and how much of which split.
    before: Digest = _NOTHING
    begun: dict[int, int] = field(default_factory=dict)
    counts: dict[int, int] | None = None
    proven: Digest | None = None

    def elements(self, most: int | None = None) -> Elements:
        """Its elements in delivered order, at most `most`."""
        splits = np.array([split for split, _, _ in self.pieces], np.int64)
        counts = np.array([count for _, _, count in self.pieces], np.int64)
        starts = np.array([start for _, start, _ in self.pieces], np.int64)
        firsts = np.cumsum(counts) - counts
        index = np.arange(counts.sum()) + np.repeat(starts - firsts, counts)
        hashes = np.concatenate([*self.hashes, np.empty(0, np.uint64)])
        return Elements(np.repeat(splits, counts), index, hashes).first(most)


@dataclass(frozen=True, slots=True)
class Elements:
    """Elements of one epoch of one stream: their splits, indices there, and hashes."""

    split: NDArray[np.int64]
    index: NDArray[np.int64]
    hash: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.split)

    def first(self, most: int | None) -> Elements:
        """The first of them."""
        return Elements(self.split[:most], self.index[:most], self.hash[:most])


def joined(parts: Iterable[Elements]) -> Elements:
    """Elements one after the other."""
    none = Elements(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint64))
    rows = [none, *parts]
    return Elements(
        np.concatenate([part.split for part in rows]),
        np.concatenate([part.index for part in rows]),
        np.concatenate([part.hash for part in rows]),
    )


@dataclass(slots=True)
class LifeRecord:
    """One file of a ledger: one life of one consumer."""

    life: Life | None = None
    seed: int = 0
    streams: tuple[str, ...] = ()
    visits: dict[Key, Visit] = field(default_factory=dict)
    #: (position, acknowledged), in order.
    commits: list[tuple[Position, bool]] = field(default_factory=list)
    #: How many elements splits have, by stream and epoch.
    counts: dict[Key, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))

    def opened(self, record: dict[str, Any]) -> None:
        """The file's first record."""
        known = record.get("life")
        self.seed, self.streams = int(record["seed"]), tuple(map(str, record["streams"]))
        if known is not None:
            known = {name: _frozen(value) for name, value in known.items()}
            self.life = Life(**known)

    def committed(self, record: dict[str, Any]) -> None:
        """A commit that was begun, or acknowledged."""
        self.commits.append((Position.parse(str(record["position"])), bool(record["done"])))
        for stream, epoch, split, count in record["splits"]:
            self.counts[int(stream), int(epoch)][int(split)] = int(count)

    @property
    def known(self) -> Life:
        """What the life said of itself; files of former versions of penstock say nothing."""
        assert self.life is not None
        return self.life

    @property
    def seat(self) -> tuple[int, int]:
        """(generation, rank); zeros for a trainer alone."""
        consumer = self.known.consumer
        return (0, 0) if consumer is None else (consumer[2], consumer[0])


def against(
    truth: Truth, parts: Sequence[NDArray[np.uint64]], digest: Digest, before: int = 0
) -> tuple[int, int]:
    """(missing, surplus) elements by value; `before` lie before what is compared."""
    if isinstance(truth, Digest):
        difference = truth.count - digest.count
        if difference == 0 and truth.total != digest.total:
            return 1, 1
        return max(0, difference), max(0, -difference)
    wanted, wanted_times = np.unique(np.asarray(truth, np.uint64), return_counts=True)
    hashes = np.concatenate([*parts, np.empty(0, np.uint64)])
    found, found_times = np.unique(hashes, return_counts=True)
    _, in_wanted, in_found = np.intersect1d(wanted, found, assume_unique=True, return_indices=True)
    common = int(np.minimum(wanted_times[in_wanted], found_times[in_found]).sum())
    missing = int(wanted_times.sum()) - common - before
    return max(0, missing), len(hashes) - common


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
