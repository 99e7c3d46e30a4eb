"""Hashes of elements, and digests of runs of elements (DESIGN sections 1 and 5).

The hash of an element is xxh3-64, folded over its components in spec order:

    h = 0
    for each component:  h = xxh3_64(its bytes, seed = h ^ signature(dtype, shape))

The bytes are little-endian and in C order. Those of a string component are the lengths of its
strings as unsigned 64-bit integers, then the strings. Nothing else enters, so a hash does not
depend on how elements were put into chunks, nor on how a chunk holds them.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from itertools import chain, repeat
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import xxhash

from ..errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Hashes: TypeAlias = NDArray[np.uint64]
    Bytes: TypeAlias = NDArray[np.uint8]

_MASK = (1 << 64) - 1
#: Up to this size, rows are cut out as `bytes` all at once; longer ones cost more to copy than
#: a view costs to make.
_COPIED_ROW_BYTES_MAX = 256
#: Up to this mean size, a string component is copied to be hashed in one call with its lengths.
_JOINED_BYTES_MAX = 1 << 12


@functools.lru_cache(maxsize=1 << 14)
def signature(dtype: str, shape: tuple[int, ...]) -> int:
    """The 64-bit signature of a component's dtype and exact shape, such as `float32[28,28]`."""
    return xxhash.xxh3_64_intdigest(f"{dtype}[{','.join(map(str, shape))}]".encode())


def fold_rows(before: Hashes, data: Bytes, row_bytes: int, sign: int) -> Hashes:
    """Folds one component of equally long elements into their hashes.

    Args:
        before: hashes over the components before this one, `(n,)`; zeros for the first.
        data: the component's bytes, `(n * row_bytes,)`, C-contiguous.
        row_bytes: bytes of one element's component.
        sign: `signature` of the component.

    Returns:
        The new hashes, `(n,)`.
    """
    count = len(before)
    rows: Iterable[bytes | memoryview]
    if row_bytes == 0:
        rows = repeat(b"", count)
    elif row_bytes <= _COPIED_ROW_BYTES_MAX:
        rows = data.view(f"V{row_bytes}").tolist()
    else:
        view = data.data
        rows = [view[at : at + row_bytes] for at in range(0, count * row_bytes, row_bytes)]
    seeds = (before ^ np.uint64(sign)).tolist()
    return np.fromiter(map(xxhash.xxh3_64_intdigest, rows, seeds), np.uint64, count)


def fold_spans(
    before: Hashes, data: Bytes, ends: Sequence[int], shapes: Sequence[tuple[int, ...]], dtype: str
) -> Hashes:
    """Folds a component whose elements have a shape each; as `fold_rows` otherwise.

    Args:
        before: hashes so far, `(n,)`.
        data: the elements' bytes one after the other.
        ends: where each element's bytes end in `data`; they begin where the one before ends.
        shapes: each element's shape.
        dtype: name of the dtype.
    """
    view = data.data
    begins = chain((0,), ends)
    rows = [view[begin:end] for begin, end in zip(begins, ends, strict=False)]
    seeds = [h ^ signature(dtype, shape) for h, shape in zip(before.tolist(), shapes, strict=True)]
    return np.fromiter(map(xxhash.xxh3_64_intdigest, rows, seeds), np.uint64, len(seeds))


def fold_strings(
    before: Hashes,
    data: Bytes,
    offsets: NDArray[np.int64],
    firsts: Sequence[int],
    signs: Iterable[int],
) -> Hashes:
    """Folds a string component; as `fold_rows` otherwise.

    Args:
        before: hashes so far, `(n,)`.
        data: all strings one after the other.
        offsets: where each string begins in `data`, and where the last one ends.
        firsts: which string is each element's first, and how many there are: `n + 1` numbers.
        signs: each element's `signature`.
    """
    lengths = np.diff(offsets).astype("<u8").tobytes()
    small = len(data) <= len(before) * _JOINED_BYTES_MAX
    source = data.tobytes() if small else data.data
    at = offsets[np.asarray(firsts, np.int64)].tolist()
    hashes = []
    for index, (seed, sign) in enumerate(zip(before.tolist(), signs, strict=True)):
        sizes = lengths[8 * firsts[index] : 8 * firsts[index + 1]]
        strings = source[at[index] : at[index + 1]]
        if isinstance(strings, bytes):
            hashes.append(xxhash.xxh3_64_intdigest(sizes + strings, seed ^ sign))
            continue
        streaming = xxhash.xxh3_64(sizes, seed ^ sign)
        streaming.update(strings)
        hashes.append(streaming.intdigest())
    return np.array(hashes, np.uint64)


@dataclass(frozen=True, slots=True)
class Digest:
    """What a run of elements was, in 24 bytes.

    Attributes:
        count: number of elements.
        total: sum of their hashes modulo 2**64, which does not depend on their order.
        chain: xxh3-64 of their hashes one after the other (little-endian), which does.
    """

    count: int
    total: int
    chain: int

    def __str__(self) -> str:
        """The digest as `count:total:chain`, the last two as 16 hexadecimal digits."""
        return f"{self.count}:{self.total:016x}:{self.chain:016x}"

    @classmethod
    def parse(cls, text: str) -> Digest:
        """The inverse of `str`.

        Raises:
            ProtocolError: the text is not a digest.
        """
        match = re.fullmatch(r"([0-9]{1,20}):([0-9a-f]{16}):([0-9a-f]{16})", text)
        if match is None:
            raise ProtocolError(f"{text[:80]!r} is not a digest: count:total:chain")
        count, total, chained = match.groups()
        return cls(int(count), int(total, 16), int(chained, 16))


def combine(digests: Iterable[Digest]) -> Digest:
    """The digest of runs as a whole: of an epoch from its splits.

    `count` and `total` are those of all the elements, in whatever order; `chain` is xxh3-64 of
    the runs' chains one after the other, so it tells their order but is not the elements' chain.
    """
    count = total = 0
    chained = xxhash.xxh3_64()
    for digest in digests:
        count += digest.count
        total = (total + digest.total) & _MASK
        chained.update(digest.chain.to_bytes(8, "little"))
    return Digest(count, total, chained.intdigest())


class DigestBuilder:
    """Accumulates the digest of elements as they come, whatever the chunks.

    Its state cannot be saved (xxh3's cannot): a worker that continues a split from a checkpoint
    feeds it the hashes before, which it has to have anyway for a client that verifies a replay.
    """

    __slots__ = ("_chain", "_count", "_total")

    def __init__(self) -> None:
        self._count = 0
        self._total = 0
        self._chain = xxhash.xxh3_64()

    def update(self, hashes: Hashes) -> None:
        """Appends elements, given their hashes (uint64, one-dimensional)."""
        ordered = np.ascontiguousarray(hashes, "<u8")
        self._count += len(ordered)
        self._total = (self._total + int(ordered.sum(dtype=np.uint64))) & _MASK
        self._chain.update(ordered.view(np.uint8).data)

    def digest(self) -> Digest:
        """The digest of everything so far."""
        return Digest(self._count, self._total, self._chain.intdigest())

    @classmethod
    def after(cls, digest: Digest) -> DigestBuilder:
        """A builder that goes on after elements of which only the digest is known.

        Count and total are those of all; the chain is xxh3-64 of the chain so far (8 bytes) and
        the hashes that follow, so it is not the one that all hashes in a row would give.
        """
        other = cls()
        other._count, other._total = digest.count, digest.total
        if digest.count:
            other._chain.update(digest.chain.to_bytes(8, "little"))
        return other

    def copy(self) -> DigestBuilder:
        """An independent builder with the same past."""
        other = DigestBuilder()
        other._count, other._total, other._chain = self._count, self._total, self._chain.copy()
        return other
