"""Made-up elements: a pure function of (seed, epoch, split, index), and the truth about epochs."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from penstock.errors import VerificationError
from penstock.proto.deal import deal
from penstock.proto.hashing import Digest

_ELEMENT = struct.Struct("<QQQQ")
ELEMENT_BYTES = 100
FINGERPRINT = "00112233445566778899aabbccddee"


def value_of(seed: int, epoch: int, split: int, index: int) -> int:
    """The element there."""
    return xxhash.xxh3_64_intdigest(_ELEMENT.pack(seed, epoch, split, index))


def hash_of(value: int) -> int:
    """The hash of an element."""
    return xxhash.xxh3_64_intdigest(value.to_bytes(8, "little"), 1)


@dataclass(frozen=True, slots=True)
class SimChunk:
    """Consecutive elements; stands in for both a worker's piece and a client's chunk."""

    start: int
    values: tuple[int, ...]
    hashes: NDArray[np.uint64]

    @classmethod
    def of(cls, start: int, values: Sequence[int]) -> SimChunk:
        return cls(start, tuple(values), np.array([hash_of(v) for v in values], np.uint64))

    @property
    def count(self) -> int:
        return len(self.values)

    @property
    def stop(self) -> int:
        return self.start + len(self.values)

    @property
    def nbytes(self) -> int:
        return ELEMENT_BYTES * len(self.values)

    @property
    def memory(self) -> int:
        return self.nbytes

    @property
    def stored(self) -> None:
        return None

    @property
    def header(self) -> dict[str, Any]:
        return {}

    @property
    def buffers(self) -> Sequence[bytes]:
        return ()

    def slice(self, a: int, b: int) -> SimChunk:
        if not self.start <= a <= b <= self.stop:
            raise IndexError(f"elements {a}..{b} are not within {self.start}..{self.stop}")
        first, last = a - self.start, b - self.start
        return SimChunk(a, self.values[first:last], self.hashes[first:last])

    def verify(self) -> None:
        if [hash_of(value) for value in self.values] != self.hashes.tolist():
            raise VerificationError(f"elements {self.start}..{self.stop} were altered")


@dataclass(frozen=True)
class Pipeline:
    """One trainer's pipeline and settings.

    Attributes:
        sizes: elements of each split.
        bad: (split, number) of those that always raise, and are to be left out.
        weights: what the dispatcher is told of them; empty if nothing.
    """

    name: str
    seed: int
    sizes: tuple[int, ...]
    weights: tuple[int, ...]
    lanes: int
    block: int
    ordered: bool
    deterministic: bool
    attempts_max: int
    bad: frozenset[tuple[int, int]] = frozenset()

    @property
    def fingerprint(self) -> str:
        return FINGERPRINT + self.name.encode().hex()

    @property
    def total(self) -> int:
        return sum(self.sizes)

    def truth(self, epoch: int) -> list[tuple[int, int]]:
        """The epoch as (split, value) in its order, from the deal and the block alone."""
        dealt = deal(
            len(self.sizes),
            self.lanes,
            seed=self.seed,
            epoch=epoch,
            weights=self.weights,
            ordered=self.ordered,
        )
        queues = [
            [
                (split, i)
                for split in lane
                for i in range(self.sizes[split])
                if (split, i) not in self.bad
            ]
            for lane in dealt
        ]
        sequence: list[tuple[int, int]] = []
        while any(queues):
            for queue in queues:
                sequence += queue[: self.block]
                del queue[: self.block]
        return [(split, value_of(self.seed, epoch, split, index)) for split, index in sequence]


def digest_of(values: Sequence[int]) -> Digest:
    """The digest of elements in this order, without the builder that production uses."""
    hashes = [hash_of(value) for value in values]
    chain = xxhash.xxh3_64_intdigest(b"".join(h.to_bytes(8, "little") for h in hashes))
    return Digest(len(hashes), sum(hashes) % (1 << 64), chain)
