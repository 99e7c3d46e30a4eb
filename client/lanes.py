"""The pure core of one epoch of one stream: lanes in, one sequence out. No clock, I/O or threads.

Rule 1: everything that decides what is delivered, what is stale and when the epoch has ended
lives here, in `turns` and in `splits`. Events go in by the methods below; each returns the
instructions that the shell must carry out, in order. `take` hands elements over.

Theory of operation. The epoch's splits were dealt to lanes (`proto.deal`), in the same way by the
dispatcher, and lanes take turns (`turns`). So the sequence follows from the deal and the block
alone, and never from timing.

A split is *placed* (the newest view says at which attempt and worker), then *fetched* (while the
worker is connected), until END *proves* it. Losing the worker closes its fetches and keeps what
was received; the next fetch starts at the index wanted next, after comparing the hashes of what
lies before it if the attempt is another one.

Credit. Half of `memory_limit` belongs to the lanes' current splits, an equal window each, half to
all splits that are fetched ahead, which get no more than such a window either. What a split has
buffered and may still be sent stays within its window, but for the last chunk, which may exceed
it, and what is handed over already of the chunk whose turn it is: a worker must not wait for the
end of that, since all lanes come to the ends of their chunks together. A current split without
anything buffered always has credit, so no lane can starve another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import PenstockError, ReplayMismatchError, VerificationError
from ..proto.hashing import DigestBuilder
from .events import (
    GONE,
    MISMATCH,
    REPORTED,
    UNREACHABLE,
    Credit,
    Delivery,
    Done,
    EndOfEpoch,
    Fail,
    Fetch,
    Release,
    Report,
    Wait,
)
from .splits import Lane, SplitState
from .turns import Turns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..proto.chunk import Chunk
    from ..proto.hashing import Digest, Hashes
    from .events import Instruction, Placed, Taken

DEFAULT_MEMORY_LIMIT = 256 << 20
#: What an attempt is that has other bytes than it should have: some worker's fault, or the data's.
DIFFERENT = (ReplayMismatchError, VerificationError)


class EpochCore:
    """One epoch of one stream.

    Args:
        lanes: the splits of each lane, in order: the result of `deal`.
        block: elements that one lane yields before the next one's turn, >= 1.
        deterministic: False takes elements from whichever lane has some.
        replayable: False where a replay has other values: only its count is compared.
        memory_limit: bytes that may be buffered and under way, but for the last chunks.
    """

    def __init__(
        self,
        lanes: Sequence[Sequence[int]],
        block: int,
        *,
        deterministic: bool = True,
        replayable: bool = True,
        memory_limit: int = DEFAULT_MEMORY_LIMIT,
    ) -> None:
        self.memory_limit = memory_limit
        self.block = block
        self._deterministic = deterministic
        self._splits: dict[int, SplitState] = {}
        order: list[Lane] = []
        for number, dealt in enumerate(lanes):
            states = [SplitState(split, number, replayable=replayable) for split in dealt]
            self._splits.update((state.split, state) for state in states)
            order.append(Lane(states))
        self._turns = Turns(order, block)
        # What is placed now and not proven, by attempt.
        self._placed: dict[int, SplitState] = {}
        self._connected: set[str] = set()
        # Splits that were received whole before their turn.
        self._ready: list[SplitState] = []
        self._digest = DigestBuilder()
        self._failed = False
        #: The attempts that differ from what was received, as long as they are placed.
        self._different: dict[int, PenstockError] = {}

    @property
    def digest(self) -> Digest:
        """The digest of everything delivered so far, in delivered order."""
        return self._digest.digest()

    @property
    def round(self) -> int:
        """Elements of one turn of every lane that is not finished."""
        return self.block * max(1, self._turns.unfinished)

    @property
    def workers(self) -> set[str]:
        """The workers that hold something that is still wanted."""
        return {state.worker for state in self._placed.values()}

    def proven(self, split: int) -> Digest | None:
        """The digest of a split, once its END agreed with what was received."""
        state = self._splits.get(split)
        return None if state is None else state.proven

    def counts(self) -> dict[int, int]:
        """How many elements each proven split has."""
        return {
            split: state.proven.count
            for split, state in self._splits.items()
            if state.proven is not None
        }

    def problems(self) -> list[Report]:
        """Every problem that stands: reported again and again until the split is placed anew."""
        return [
            Report(state.attempt, *state.problem)
            for state in self._placed.values()
            if state.problem is not None and state.problem[0] in REPORTED
        ]

    @property
    def different(self) -> PenstockError | None:
        """How an attempt that is placed differs from what was received; None if none does."""
        known = self._different.items()
        return next((error for attempt, error in known if attempt in self._placed), None)

    def wants(self, attempt: int) -> bool:
        """Whether a frame about this attempt would be looked at."""
        return attempt in self._placed

    def placements(self, view: Iterable[Placed]) -> list[Instruction]:
        """The dispatcher's whole view of this epoch: the newest one, older ones are not passed."""
        out: list[Instruction] = []
        seen: set[int] = set()
        for placed in view:
            state = self._splits.get(placed.split)
            if state is None or state.proven is not None or placed.attempt < state.attempt:
                continue
            seen.add(placed.split)
            if placed.attempt > state.attempt or not state.worker:
                self._forget(state, out)
                state.attempt, state.worker, state.problem = placed.attempt, placed.worker, None
                self._placed[placed.attempt] = state
        for state in [state for state in self._placed.values() if state.split not in seen]:
            self._forget(state, out)
        self._open_fetches(out)
        return out

    def connected(self, worker: str) -> list[Instruction]:
        """A connection to the worker is ready."""
        self._connected.add(worker)
        for state in self._placed.values():
            if state.worker == worker and state.problem and state.problem[0] == UNREACHABLE:
                state.problem = None
        out: list[Instruction] = []
        self._open_fetches(out)
        return out

    def lost(self, worker: str, detail: str = "") -> list[Instruction]:
        """The connection to the worker broke, or could not be made."""
        self._connected.discard(worker)
        out: list[Instruction] = []
        for state in self._placed.values():
            if state.worker == worker:
                state.fetch = None
                if state.problem is None:
                    self._trouble(state, UNREACHABLE, detail, out)
        return out

    def chunk(self, attempt: int, chunk: Chunk, nbytes: int) -> list[Instruction]:
        """A verified chunk of `nbytes` payload bytes arrived."""
        state = self._fetched(attempt)
        if state is None or state.fetch is None:
            return []
        try:
            state.accept(chunk, nbytes)
        except PenstockError as error:
            return self._fail(error)
        grant = self._grant(state)
        state.fetch.credit += grant
        return [Credit(state.worker, attempt, state.received, grant)]

    def hashes(self, attempt: int, start: int, hashes: Hashes) -> list[Instruction]:
        """Hashes of elements before the fetch's start arrived."""
        state = self._fetched(attempt)
        if state is None:
            return []
        try:
            state.compare(start, hashes)
        except DIFFERENT as error:
            return self._differs(attempt, error)
        except PenstockError as error:
            return self._fail(error)
        return []

    def end(self, attempt: int, digest: Digest) -> list[Instruction]:
        """The attempt's END arrived."""
        state = self._fetched(attempt)
        if state is None:
            return []
        try:
            state.prove(digest)
        except DIFFERENT as error:
            return self._differs(attempt, error)
        del self._placed[attempt]
        if not self._turns.is_current(state):
            self._ready.append(state)
        assert state.proven is not None
        return [Done(state.split, state.proven)]

    def fail(self, attempt: int, code: str, detail: str) -> list[Instruction]:
        """The worker cannot go on with the attempt.

        What to do about it is the dispatcher's to say. It learns from us that an attempt is not
        there, and from the worker of one that failed; then it places another one.
        """
        state = self._fetched(attempt)
        if state is None:
            return []
        state.fetch = None
        out: list[Instruction] = []
        if code == GONE:
            self._trouble(state, GONE, detail, out)
        else:
            state.problem = (code, detail)
        return out

    def corrupt(self, attempt: int, detail: str) -> list[Instruction]:
        """A chunk of the attempt does not have the hashes or the types that it should have."""
        state = self._fetched(attempt)
        if state is None:
            return []
        out: list[Instruction] = [Release(state.worker, attempt)]
        state.fetch = None
        self._trouble(state, MISMATCH, detail, out)
        return out

    def _differs(self, attempt: int, error: PenstockError) -> list[Instruction]:
        """An attempt has other bytes than those that were received: the dispatcher decides."""
        self._different[attempt] = error
        return self.corrupt(attempt, str(error))

    def abandon(self) -> list[Instruction]:
        """The epoch is given up: nothing is wanted any more."""
        out: list[Instruction] = []
        for state in list(self._placed.values()):
            self._forget(state, out)
        self._splits.clear()
        self._turns.clear()
        return out

    def take(self, max_elements: int) -> tuple[Taken, list[Instruction]]:
        """Hands over the elements that come next, at most `max_elements` (>= 1).

        Returns:
            A `Delivery` of at least one element, or why there is none; and instructions.
        """
        turns = self._turns
        take = turns.take_in_order if self._deterministic else turns.take_any
        taking = take(max_elements)
        out: list[Instruction] = []
        # A split that is a current one now leaves its share of what is fetched ahead to others.
        for state in self._placed.values() if taking.moved else taking.relieved:
            self._top_up(state, out)
        if taking.pieces:
            self._digest.update(np.concatenate([piece.hashes for piece in taking.pieces]))
            return Delivery(tuple(taking.pieces)), out
        if not turns.unfinished:
            return EndOfEpoch(self.digest), out
        return self._wait(), out

    def _wait(self) -> Wait:
        turn, lanes = self._turns.turn, self._turns.lanes
        if not self._deterministic:
            turn = next(i for i, lane in enumerate(lanes) if lane.current is not None)
        state = lanes[turn].current
        assert state is not None
        return Wait(turn, state.split, state.attempt, state.worker, state.why_waiting())

    def _fetched(self, attempt: int) -> SplitState | None:
        state = self._placed.get(attempt)
        return state if state is not None and state.fetch is not None and not self._failed else None

    def _forget(self, state: SplitState, out: list[Instruction]) -> None:
        """The placement of a split is over: whatever its attempt still sends is stale."""
        self._placed.pop(state.attempt, None)
        self._different.pop(state.attempt, None)
        if state.fetch is not None:
            out.append(Release(state.worker, state.attempt))
        state.fetch = state.problem = None
        state.worker = ""

    def _open_fetches(self, out: list[Instruction]) -> None:
        ready = [
            state
            for state in self._placed.values()
            if state.fetch is None and state.problem is None and state.worker in self._connected
        ]
        # A worker that has much to make again does so in the order in which it is asked.
        for state in sorted(ready, key=self._urgency):
            fetch = state.begin()
            fetch.credit = self._grant(state)
            out.append(Fetch(fetch.worker, fetch.attempt, fetch.start, fetch.credit, fetch.verify))

    def _urgency(self, state: SplitState) -> tuple[bool, int]:
        """Less for what is wanted sooner."""
        return not self._turns.is_current(state), self._turns.until(state)

    def _grant(self, state: SplitState) -> int:
        """Credit to be added to a fetch; 0 as long as it is not worth a frame."""
        assert state.fetch is not None
        window = max(1, self.memory_limit // 2 // max(1, self._turns.unfinished))
        wanted = window - state.buffered - state.fetch.credit
        if not self._turns.is_current(state):
            wanted = min(wanted, self._room_ahead())
        worth = wanted * 4 >= window or state.fetch.credit <= 0
        return wanted if wanted > 0 and worth else 0

    def _room_ahead(self) -> int:
        """Bytes that splits fetched ahead may still be sent, all together."""
        self._ready = [state for state in self._ready if not self._turns.is_current(state)]
        used = sum(state.buffered for state in self._ready)
        for state in self._placed.values():
            if not self._turns.is_current(state):
                used += state.buffered + (max(0, state.fetch.credit) if state.fetch else 0)
        return self.memory_limit // 2 - used

    def _top_up(self, state: SplitState, out: list[Instruction]) -> None:
        if state.fetch is not None and (grant := self._grant(state)) > 0:
            state.fetch.credit += grant
            out.append(Credit(state.worker, state.attempt, state.received, grant))

    def _trouble(self, state: SplitState, code: str, detail: str, out: list[Instruction]) -> None:
        state.problem = (code, detail)
        out.append(Report(state.attempt, code, detail))

    def _fail(self, error: PenstockError) -> list[Instruction]:
        self._failed = True
        return [Fail(error)]
