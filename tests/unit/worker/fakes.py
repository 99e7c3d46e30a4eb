"""Stand-ins: pieces without elements, and the assignments they are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.proto.hashing import Digest, DigestBuilder
from penstock.worker.messages import Assignment


@dataclass(frozen=True)
class FakePiece:
    """A piece whose elements have `size` bytes each and whose hashes are made of their indices."""

    start: int
    stop: int
    size: int = 10
    attempt: int = 1
    fill: bytes = b""

    @property
    def nbytes(self) -> int:
        return (self.stop - self.start) * self.size

    @property
    def memory(self) -> int:
        return self.nbytes

    @property
    def stored(self) -> None:
        return None

    @property
    def hashes(self) -> NDArray[np.uint64]:
        return hashes(self.start, self.stop)

    @property
    def header(self) -> dict[str, Any]:
        return {"attempt": self.attempt, "start": self.start, "count": self.stop - self.start}

    @property
    def buffers(self) -> Sequence[bytes | memoryview]:
        return [self.fill or bytes(self.nbytes)]

    def slice(self, a: int, b: int) -> FakePiece:
        assert self.start <= a <= b <= self.stop
        return FakePiece(a, b, self.size, self.attempt)


def hashes(start: int, stop: int) -> NDArray[np.uint64]:
    """What `FakePiece`s say that the hashes of these elements are."""
    return np.arange(start, stop, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def digest(count: int) -> Digest:
    """The digest of a split of `count` such elements."""
    builder = DigestBuilder()
    builder.update(hashes(0, count))
    return builder.digest()


def assignment(attempt: int, **changed: Any) -> Assignment:
    """An assignment of which only the number matters."""
    fields = {"job": "j1", "stream": 0, "epoch": 0, "split": attempt, "dataset": "d1"}
    return Assignment(attempt=attempt, **{**fields, **changed})
