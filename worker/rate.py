"""How fast the elements of a stream are made and how large they are: what sizes chunks."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

TARGET_BYTES = 4 << 20
#: Elements of so many bytes are large. Few of them are a piece, which then may have twice as many
#: bytes: what a piece costs, whatever is in it, is a good part of what such elements cost.
_LARGE_BYTES = 1 << 20
TARGET_S = 0.25
#: What a batch may take: pieces are several, so that one is late by a part of that at most where
#: many splits have begun at once and each takes longer than it was measured.
_BATCH_S = TARGET_S / 8
ELEMENTS_MAX = 4096
#: Elements in a batch of a stream whose rate is not known yet.
_FIRST_BATCH = 8
#: How long a run waits for the first measurement of another one, that its batches have a good size.
_PATIENCE_S = 0.15


@dataclass(slots=True)
class Rate:
    """What the elements of one stream cost, learned from the splits before. Thread-safe.

    Attributes:
        element_bytes: mean payload bytes of an element; None while unknown.
        element_s: mean seconds to make one; None while unknown.
    """

    element_bytes: float | None = None
    element_s: float | None = None
    _changed: threading.Condition = field(default_factory=threading.Condition, repr=False)
    #: The thread whose run goes ahead while nothing is known.
    _first: int | None = field(default=None, repr=False)

    def learn(self, elements: int, nbytes: int, timed: int, seconds: float) -> None:
        """Takes in a chunk: `timed` of its elements took `seconds`; older measurements fade."""
        with self._changed:
            self.element_bytes = _blend(self.element_bytes, nbytes / elements)
            if timed:
                self.element_s = _blend(self.element_s, seconds / timed)
                self._changed.notify_all()

    def batch_size(self, fixed_bytes: int | None) -> int:
        """How many elements are a batch: a power of two.

        By their bytes they make a piece, by their time an eighth of one. Blocks of a lane are
        powers of two as well, so a piece of one batch is handed to the trainer whole. Of the runs
        that ask while nothing is known, the first is answered at once; the others wait a moment
        for what it finds out, since a batch cannot change its size later.
        """
        with self._changed:
            if self.element_s is None:
                self._first = self._first or threading.get_ident()
                if self._first != threading.get_ident():
                    self._changed.wait_for(lambda: self.element_s is not None, _PATIENCE_S)
            nbytes = self.element_bytes if fixed_bytes is None else fixed_bytes
            seconds = self.element_s
        by_bytes = _FIRST_BATCH if nbytes is None else TARGET_BYTES / max(nbytes, 1)
        by_time = _FIRST_BATCH if seconds is None else _BATCH_S / max(seconds, 1e-9)
        worth = int(max(1, min(by_bytes, by_time, ELEMENTS_MAX)))
        return 1 << (worth.bit_length() - 1)


def _blend(old: float | None, new: float) -> float:
    return new if old is None else 0.75 * old + 0.25 * new


class Meter:
    """Says when a chunk is large or late enough, and tells the rate what it measured.

    The time until a split's first batch is left out: opening files and filling shuffle buffers
    say nothing about the elements that follow.
    """

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self.restart()
        self._began: float | None = None

    def restart(self) -> None:
        """A new chunk begins now."""
        self._began = time.monotonic()
        self._elements = self._timed = self._nbytes = self._largest = 0
        self._target = TARGET_BYTES

    def add(self, elements: int, nbytes: int) -> None:
        """So much has been added to the chunk."""
        if self._began is None:
            self._began = time.monotonic()
        else:
            self._timed += elements
        self._elements += elements
        self._nbytes += nbytes
        self._largest = max(self._largest, nbytes)
        if nbytes >= elements * _LARGE_BYTES:
            self._target = 2 * TARGET_BYTES

    @property
    def full(self) -> bool:
        """Whether one more like the largest would be too much, or the time is over.

        Or others wait for the first measurement of all.
        """
        return (
            (self._timed > 0 and self._rate.element_s is None)
            or self._nbytes + self._largest > self._target
            or self._elements >= ELEMENTS_MAX
            or self._seconds() >= TARGET_S
        )

    def flush(self) -> None:
        """The chunk is done: the rate learns what it took."""
        self._rate.learn(self._elements, self._nbytes, self._timed, self._seconds())

    def _seconds(self) -> float:
        return 0.0 if self._began is None else time.monotonic() - self._began
