"""What is kept of one attempt: pieces until they are acknowledged, and hashes for verification.

Part of the pure core: no clock, no I/O, no threads.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..proto.hashing import Hashes
    from .messages import Piece

#: What a piece costs besides its payload, so that tiny pieces cannot fill the memory uncounted.
PIECE_OVERHEAD_BYTES = 1024
_HASHES_MIN = 1024


def held_bytes(piece: Piece) -> int:
    """What a piece counts against the memory limit."""
    return piece.memory + PIECE_OVERHEAD_BYTES + 8 * (piece.stop - piece.start)


class Buffer:
    """The pieces of one attempt that are not acknowledged, in order and without gaps.

    Attributes:
        base: elements before it are acknowledged: they are not here any more.
        made: number of elements made so far, acknowledged or not.
        nbytes: what the pieces count against the memory limit.
        last_bytes: what the piece made last counted: the best guess for the next one.
    """

    __slots__ = ("_by_start", "_hashes", "_pieces", "base", "last_bytes", "made", "nbytes")

    def __init__(self) -> None:
        self.base = 0
        self.made = 0
        self.nbytes = 0
        self.last_bytes = 0
        self._pieces: deque[Piece] = deque()
        self._by_start: dict[int, Piece] = {}
        self._hashes: Hashes = np.empty(0, np.uint64)

    def begin(self, hashes: Hashes) -> None:
        """What is made will follow elements that have these hashes and are not here.

        Raises:
            ValueError: something has been made already.
        """
        if self.made:
            raise ValueError(f"{self.made} elements are made already")
        self._hashes = hashes.copy()
        self.made = len(hashes)
        self.base = max(self.base, self.made)

    def append(self, piece: Piece) -> None:
        """Adds what was made next; it is dropped at once if nobody wants it any more.

        Raises:
            ValueError: the piece does not follow the one before.
        """
        if piece.start != self.made or piece.stop <= piece.start:
            raise ValueError(f"piece {piece.start}..{piece.stop} after element {self.made}")
        self._keep_hashes(piece)
        self.made = piece.stop
        self.last_bytes = held_bytes(piece)
        if piece.stop > self.base:
            self._pieces.append(piece)
            self._by_start[piece.start] = piece
            self.nbytes += self.last_bytes

    def acknowledge(self, received: int) -> None:
        """Forgets what lies wholly before element `received`."""
        self.base = max(self.base, received)
        while self._pieces and self._pieces[0].stop <= self.base:
            piece = self._pieces.popleft()
            del self._by_start[piece.start]
            self.nbytes -= held_bytes(piece)

    def piece_from(self, index: int) -> Piece | None:
        """The piece that begins at element `index`, cut if that is inside one; None if not made.

        Outside of the first piece, `index` has to be where a piece begins.
        """
        piece = self._by_start.get(index)
        if piece is not None or not self._pieces:
            return piece
        first = self._pieces[0]
        return first.slice(index, first.stop) if first.start < index < first.stop else None

    def hashes(self, start: int, stop: int) -> Hashes:
        """The hashes of elements `start .. stop-1`, acknowledged or not."""
        found: Hashes = self._hashes[start:stop].copy()
        return found

    def clear(self) -> None:
        """Frees everything; nothing can be served any more."""
        self._pieces.clear()
        self._by_start.clear()
        self._hashes = np.empty(0, np.uint64)
        self.nbytes = 0

    def _keep_hashes(self, piece: Piece) -> None:
        if piece.stop > len(self._hashes):  # doubles, so that all appends together stay linear
            grown = np.empty(max(_HASHES_MIN, 2 * len(self._hashes), piece.stop), np.uint64)
            grown[: self.made] = self._hashes[: self.made]
            self._hashes = grown
        self._hashes[piece.start : piece.stop] = piece.hashes

    def validate(self) -> None:
        """Checks that the fields agree with each other; for tests."""
        at = self._pieces[0].start if self._pieces else self.made
        assert not self._pieces or self._pieces[0].stop > self.base
        for piece in self._pieces:
            assert piece.start == at
            assert self._by_start[piece.start] is piece
            at = piece.stop
        assert at == self.made
        assert self.nbytes == sum(map(held_bytes, self._pieces))
        assert len(self._by_start) == len(self._pieces)
