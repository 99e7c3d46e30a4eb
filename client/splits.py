"""One split at the client: what was received, from which attempt, and whether it is proven.

Part of the pure core (see `lanes`). A split remembers the hash of every element it received until
its END is proven, because another attempt may have to be checked against them (G4).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ProtocolError, ReplayMismatchError, VerificationError
from ..proto.hashing import DigestBuilder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..proto.chunk import Chunk
    from ..proto.hashing import Digest, Hashes


class Fetching:
    """An open fetch: the request that an attempt's worker is answering.

    Attributes:
        attempt: its number.
        worker: whom it was sent to.
        start: the first element asked for.
        credit: payload bytes that the worker may still send; below zero if a chunk exceeded it.
        verify: hashes of the elements before `start` come first.
        verified: number of those that have come.
    """

    __slots__ = ("attempt", "credit", "start", "verified", "verify", "worker")

    def __init__(self, attempt: int, worker: str, start: int, verify: bool) -> None:
        self.attempt = attempt
        self.worker = worker
        self.start = start
        self.credit = 0
        self.verify = verify
        self.verified = 0


class SplitState:
    """What the client knows about one split of an epoch.

    Attributes:
        split: its number.
        lane: its lane's number.
        received: elements received without a gap: the index wanted next.
        delivered: elements handed over.
        buffered: payload bytes of what was received and is not handed over.
        attempt: the newest attempt that was ever placed, 0 for none.
        worker: where that attempt is, empty when the view has the split nowhere.
        fetch: the open fetch, of `attempt` at `worker`.
        problem: (code, detail) of what keeps `attempt` from being fetched.
        proven: the digest, once END agreed with what was received.
    """

    __slots__ = (
        "_chunks",
        "_digest",
        "_hashes",
        "_replayable",
        "_sources",
        "attempt",
        "buffered",
        "delivered",
        "fetch",
        "lane",
        "problem",
        "proven",
        "received",
        "split",
        "worker",
    )

    def __init__(self, split: int, lane: int, *, replayable: bool) -> None:
        self.split = split
        self.lane = lane
        self.received = 0
        self.delivered = 0
        self.buffered = 0
        self.attempt = 0
        self.worker = ""
        self.fetch: Fetching | None = None
        self.problem: tuple[str, str] | None = None
        self.proven: Digest | None = None
        self._replayable = replayable
        self._chunks: deque[tuple[Chunk, int]] = deque()
        self._hashes: list[Hashes] = []
        self._digest = DigestBuilder()
        # Attempts that are known to agree with everything received; it came from these.
        self._sources: set[int] = set()

    @property
    def available(self) -> int:
        """Elements that can be handed over now."""
        return self.received - self.delivered

    @property
    def exhausted(self) -> bool:
        """Proven and handed over whole."""
        return self.proven is not None and self.delivered == self.received

    @property
    def at_hand(self) -> tuple[int, int]:
        """What is left of the chunk that comes next: elements, and payload bytes of each."""
        if not self._chunks:
            return 0, 0
        chunk, nbytes = self._chunks[0]
        return chunk.stop - self.delivered, nbytes // chunk.count

    def why_waiting(self) -> str:
        """Why nothing of it can be handed over, in words for the log."""
        if not self.worker:
            return "no worker has it yet"
        if self.problem is not None:
            return f"its attempt failed: {self.problem[0]}: {self.problem[1]}"
        if self.fetch is None:
            return "its worker is being connected to"
        if self.fetch.verify:
            return "its worker is replaying what was received before"
        return f"its worker has sent {self.received} elements so far"

    def begin(self) -> Fetching:
        """Opens a fetch of the placed attempt at the index wanted next."""
        verify = self.received > 0 and self.attempt not in self._sources
        if self.received == 0:
            self._sources = {self.attempt}
        self.fetch = Fetching(self.attempt, self.worker, self.received, verify)
        return self.fetch

    def compare(self, start: int, hashes: Hashes) -> None:
        """Compares a replay's hashes, from index `start` on, with those of what was received.

        Raises:
            ReplayMismatchError: they differ; the message names the split and the first such index.
            ProtocolError: they are not the hashes that were asked for.
        """
        fetch = self.fetch
        assert fetch is not None
        stop = start + len(hashes)
        if not fetch.verify or start != fetch.verified or stop > fetch.start:
            raise ProtocolError(
                f"{self.name(fetch)} sent hashes {start}..{stop}, wanted were those from "
                f"{fetch.verified} to {fetch.start}"
            )
        if self._replayable:
            known = self._known_hashes()[start:stop]
            different = np.flatnonzero(known != hashes)
            if len(different):
                index = start + int(different[0])
                raise ReplayMismatchError(
                    f"{self.name(fetch)} is a replay that differs from what was delivered before: "
                    f"element {index} has hash {int(hashes[index - start]):016x}, it had "
                    f"{int(known[index - start]):016x}; is the pipeline deterministic?"
                )
        fetch.verified = stop
        if stop == fetch.start:
            self._agreed(fetch)

    def accept(self, chunk: Chunk, nbytes: int) -> None:
        """Takes in the next chunk of the open fetch.

        Raises:
            ProtocolError: it is not the next one, or hashes asked for have not come before it.
        """
        fetch = self.fetch
        assert fetch is not None
        if fetch.verify:
            raise ProtocolError(
                f"{self.name(fetch)} sent elements after {fetch.verified} of the "
                f"{fetch.start} hashes that were asked for"
            )
        if chunk.start != self.received:
            kind = "repeats" if chunk.start < self.received else "skips"
            raise ProtocolError(
                f"{self.name(fetch)} {kind} elements: it sent from {chunk.start}, "
                f"next was {self.received}"
            )
        fetch.credit -= nbytes
        self.received += chunk.count
        self._digest.update(chunk.hashes)
        self._hashes.append(chunk.hashes)
        if chunk.count:
            self.buffered += nbytes
            self._chunks.append((chunk, nbytes))

    def prove(self, digest: Digest) -> None:
        """Compares the attempt's END with what was received, and closes the split if it agrees.

        Raises:
            VerificationError: count or digest differ.
            ReplayMismatchError: a replay ended before what was delivered already.
        """
        fetch = self.fetch
        assert fetch is not None
        own = self._digest.digest()
        if fetch.verify and digest.count < fetch.start:
            raise ReplayMismatchError(
                f"{self.name(fetch)} is a replay of {digest.count} elements; "
                f"{fetch.start} had been received before"
            )
        # A replay that cannot have equal values (unseeded randomness) has an equal count at least.
        by_value = self._replayable or len(self._sources) == 1
        if fetch.verify or digest.count != own.count or (by_value and digest != own):
            raise VerificationError(
                f"{self.name(fetch)} ended with digest {digest}, received were elements of {own}"
            )
        self.proven = own
        self.fetch = None
        self.problem = None
        self._hashes.clear()

    def pop(self, count: int) -> list[Chunk]:
        """Hands over the next `count` elements (at most `available`), as views of their chunks."""
        slices: list[Chunk] = []
        stop = self.delivered + count
        while self.delivered < stop:
            chunk, nbytes = self._chunks[0]
            end = min(stop, chunk.stop)
            whole = self.delivered == chunk.start and end == chunk.stop
            slices.append(chunk if whole else chunk.slice(self.delivered, end))
            past, ahead = self.delivered - chunk.start, end - chunk.start
            self.buffered -= nbytes * ahead // chunk.count - nbytes * past // chunk.count
            self.delivered = end
            if end == chunk.stop:
                self._chunks.popleft()
        return slices

    def name(self, fetch: Fetching) -> str:
        """The split and an attempt of it, for messages."""
        return f"split {self.split}, attempt {fetch.attempt} on worker {fetch.worker},"

    def _agreed(self, fetch: Fetching) -> None:
        fetch.verify = False
        self._sources.add(fetch.attempt)

    def _known_hashes(self) -> Hashes:
        if len(self._hashes) > 1:
            self._hashes[:] = [np.concatenate(self._hashes)]
        return self._hashes[0] if self._hashes else np.empty(0, np.uint64)


class Lane:
    """A lane: its splits in order, and which of them is the current one."""

    __slots__ = ("_position", "_splits")

    def __init__(self, splits: Sequence[SplitState]) -> None:
        self._splits = splits
        self._position = 0

    @property
    def current(self) -> SplitState | None:
        """The split that is yielded now; None when the lane is finished."""
        return self._splits[self._position] if self._position < len(self._splits) else None

    def advance(self) -> None:
        """Goes on to the next split."""
        self._position += 1
