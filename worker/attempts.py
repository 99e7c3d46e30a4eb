"""The attempt book: what a worker holds, who fetches it, and who may produce. A pure core.

Rules. 1. Everything that decides lies here; there is no clock (`now` is passed in), no I/O and no
thread. 2. Events are methods and return instructions; what to send is asked for, one frame at a
time, with `next_send`, so that a superseded or slow fetch never leaves frames queued. 3. A piece
is kept until the client acknowledged it, its hashes for as long as the attempt is held.

An attempt is RUNNING, then PRODUCED or FAILED, until the dispatcher does not list it any more. A
fetch belongs to one connection; a new one for the same attempt supersedes it. It first sends the
hashes before its first element if asked to verify, then pieces while it has credit, then the end.

Memory: each attempt that produces or holds pieces may hold an equal share of the limit, and one
piece at least, so no lane can starve another: however full the buffers are, an attempt with an
empty one goes on. A share is exceeded by one piece at most, since a piece is made before its size
is known, and by the whole of it only when new attempts have made the shares smaller. Replays take
turns, see `turns`; when the dispatcher is told of what is produced, see `tidings`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .attempt import Attempt, Connection, Fetch, Pending
from .messages import (
    DETAIL_BYTES_MAX,
    GONE,
    CursorKnown,
    Forget,
    Instruction,
    Report,
    ResumeProducing,
    Send,
    SendFail,
    StartAttempt,
    State,
    StopAttempt,
    Wake,
)
from .tidings import Tidings
from .turns import Turns

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..proto.hashing import Digest, Hashes
    from .messages import Assignment, Held, Piece


class AttemptBook:
    """The book-keeping of all attempts of one worker. Not thread-safe, on purpose.

    Args:
        memory_limit: bytes that the buffers of all attempts may hold; heeded at the next event.
        grace_s: how long a fetch of an unknown attempt waits for its assignment.
    """

    def __init__(self, memory_limit: int, grace_s: float) -> None:
        self.memory_limit = memory_limit
        self._grace_s = grace_s
        self._turns = Turns()
        self._tidings = Tidings()
        self._last_fetch = 0
        self._attempts: dict[int, Attempt] = {}
        self._runs: dict[int, Attempt] = {}
        self._last_run = 0
        self._pending: dict[int, Pending] = {}
        self._connections: dict[int, Connection] = {}
        self._active = 0  # number of active attempts, as of the last event

    # What the dispatcher says.

    def desired(self, assignments: Iterable[Assignment]) -> list[Instruction]:
        """The dispatcher's whole list: starts what is new and drops what is not in it.

        What is dropped is delivered, given up or somebody else's: its checkpoints go with it,
        unless another attempt of the same split may begin from them.
        """
        wanted = {assignment.attempt: assignment for assignment in assignments}
        out: list[Instruction] = []
        dropped = {n: a.assignment.key for n, a in self._attempts.items() if n not in wanted}
        for number in dropped:
            out += self._drop(number)
        for number, assignment in wanted.items():
            if number not in self._attempts:
                out += self._start(assignment)
        keys = {assignment.key for assignment in wanted.values()}
        out += [Forget(key) for key in dict.fromkeys(dropped.values()) if key not in keys]
        return out + self._rebalance()

    def drop_all(self) -> list[Instruction]:
        """This worker stops, or the dispatcher forgot it: checkpoints stay for its next life."""
        return [out for number in list(self._attempts) for out in self._drop(number)]

    def held(self) -> list[Held]:
        """What the dispatcher is told now."""
        self._tidings.told()
        return [attempt.held() for attempt in self._attempts.values()]

    # What the producers say. A run that was stopped meanwhile changes nothing.

    def cursor(self, run: int) -> int | None:
        """The first element that a client wants of a run; None: wait for CursorKnown."""
        attempt = self._runs.get(run)
        if attempt is None or not (attempt.called or self._turns.has(attempt)):
            return None
        return attempt.wanted

    def wanted(self, run: int) -> int:
        """The first element that a client wants of a run, as far as it has said so."""
        attempt = self._runs.get(run)
        return (attempt.wanted or 0) if attempt is not None else 0

    def reads(self, run: int, reads: bool) -> None:
        """A run only reads a segment, from now on, or makes its elements."""
        attempt = self._runs.get(run)
        if attempt is not None:
            attempt.read = reads

    def began(self, run: int, hashes: Hashes) -> list[Instruction]:
        """A run begins after elements that have these hashes: those before a checkpoint, or none.

        Raises:
            ValueError: it has made something already, or begins after what its client wants.
        """
        attempt = self._runs.get(run)
        if attempt is None or attempt.released:
            return []
        if attempt.wanted is not None and attempt.wanted < len(hashes):
            raise ValueError(f"begun at {len(hashes)}, element {attempt.wanted} is wanted")
        attempt.buffer.begin(hashes)
        attempt.restored = 0 if attempt.read else len(hashes)
        told = self._settle(attempt) or ([Report()] if attempt.restored else [])
        return [*told, *attempt.wake()]

    def kept(self, run: int, elements: int) -> tuple[int, Hashes] | None:
        """What a checkpoint after `elements` elements of a run needs besides its state.

        Returns:
            The number of elements that are acknowledged, and the hashes of the first `elements`;
            None if the run is not wanted any more.
        """
        attempt = self._runs.get(run)
        if attempt is None or attempt.released or attempt.buffer.made < elements:
            return None
        return attempt.buffer.base, attempt.buffer.hashes(0, elements)

    def produced(self, run: int, piece: Piece) -> list[Instruction]:
        """A run has made its next piece; `may_produce` says whether it may go on."""
        attempt = self._runs.get(run)
        if attempt is None or attempt.released:
            return []
        out = self._settle(attempt)
        replaying = attempt.replaying
        attempt.buffer.append(piece)
        attempt.paused = not self._goes_on(attempt)
        caught_up = replaying and not attempt.replaying
        out += self._rebalance() if caught_up else []
        return [*out, *self._tidings.of(self._runs.values()), *attempt.wake()]

    def may_produce(self, run: int) -> bool:
        """False: wait for ResumeProducing (or StopAttempt)."""
        attempt = self._runs.get(run)
        return attempt is not None and not attempt.paused

    def in_turn(self, run: int) -> bool:
        """False: the run waits until others have caught up with their client."""
        attempt = self._runs.get(run)
        return attempt is None or self._turns.has(attempt)

    def idle(self) -> list[Instruction]:
        """The processors are idle: more of what waits for its turn goes on."""
        return self._rebalance() if self._turns.widen() else []

    def ended(self, run: int, digest: Digest) -> list[Instruction]:
        """A run has made everything; `digest` covers the whole split."""
        attempt = self._runs.pop(run, None)
        if attempt is None or attempt.released:
            return []
        if digest.count != attempt.buffer.made:
            raise ValueError(f"digest of {digest.count} elements, {attempt.buffer.made} made")
        attempt.state, attempt.digest, attempt.paused = State.PRODUCED, digest, False
        self._settle(attempt)
        self._tidings.produced()
        resumed = self._rebalance()
        return [*self._tidings.of(self._runs.values()), *attempt.wake(), *resumed]

    def failed(
        self, run: int, code: str, detail: str, element: int | None = None, *chain: str
    ) -> list[Instruction]:
        """A run has raised; what it made is freed, since it will be made again elsewhere."""
        attempt = self._runs.pop(run, None)
        if attempt is None or attempt.released:
            return []
        attempt.state, attempt.code, attempt.paused = State.FAILED, code, False
        attempt.element, attempt.exceptions = element, chain
        attempt.detail = detail.encode()[:DETAIL_BYTES_MAX].decode(errors="ignore")
        attempt.buffer.clear()
        return [Report(), *attempt.wake(), *self._rebalance()]

    # What the clients say.

    def opened(self, connection: int) -> None:
        """A client has connected."""
        self._connections[connection] = Connection()

    def closed(self, connection: int) -> list[Instruction]:
        """A connection is gone; what it did not acknowledge is kept for the next one."""
        gone = self._connections.pop(connection, None)
        for number in gone.turns if gone is not None else ():
            self._attempts[number].fetch = None
        for number in [n for n, p in self._pending.items() if p.fetch.connection == connection]:
            del self._pending[number]
        return self._rebalance()

    def fetch(
        self, connection: int, attempt: int, first: int, credit: int, verify: bool, now: float
    ) -> list[Instruction]:
        """A client wants an attempt from element `first` on; it has everything before."""
        self._last_fetch += 1
        fetch = Fetch(connection, first, first, credit, 0 if verify else first, self._last_fetch)
        held, pending = self._attempts.get(attempt), self._pending.get(attempt)
        known = held.fetch if held is not None else pending.fetch if pending is not None else None
        if known is not None and known.connection > connection:
            # Read late from a connection that its client has given up for the newer one, which
            # would be left without a fetch when the older one closes.
            return []
        if held is not None:
            return self._place(attempt, fetch)
        self._pending[attempt] = Pending(fetch, now + self._grace_s)
        return []

    def credit(
        self, connection: int, attempt: int, received: int, credit: int
    ) -> list[Instruction]:
        """Elements before `received` have arrived, `credit` more bytes may be sent."""
        pending = self._pending.get(attempt)
        if pending is not None and pending.fetch.connection == connection:
            pending.fetch.credit += credit
        held = self._attempts.get(attempt)
        if held is None or held.fetch is None or held.fetch.connection != connection:
            return []  # of a fetch that was superseded
        held.fetch.credit += credit
        active = held.active
        held.buffer.acknowledge(min(received, held.fetch.next))
        resumed = self._rebalance() if active != held.active else self._resume(held)
        return [*resumed, *held.wake()]

    def release(self, connection: int, attempt: int) -> list[Instruction]:
        """The client that fetches this attempt does not want it any more."""
        pending = self._pending.get(attempt)
        if pending is not None and pending.fetch.connection == connection:
            del self._pending[attempt]
        held = self._attempts.get(attempt)
        if held is None or held.fetch is None or held.fetch.connection != connection:
            return []
        self._unfetch(held)
        held.released = True
        held.buffer.clear()
        stop: list[Instruction] = []
        if self._runs.pop(held.run, None) is not None:
            stop.append(StopAttempt(held.run))
        return stop + self._rebalance()

    # What the clock says.

    def tick(self, now: float) -> list[Instruction]:
        """Answers the fetches whose attempt has not been assigned in time."""
        out: list[Instruction] = []
        for number in [n for n, p in self._pending.items() if p.deadline <= now]:
            fetch = self._pending.pop(number).fetch
            out += self._refuse(fetch.connection, number, "it is not on this worker")
        return out

    def next_deadline(self) -> float | None:
        """When `tick` has something to do, if no other event comes before."""
        return min((pending.deadline for pending in self._pending.values()), default=None)

    # What is to be sent.

    def next_send(self, connection: int) -> Send | None:
        """The next frame for a connection: its fetches take turns. None: nothing, wait for Wake.

        What is returned counts as sent.
        """
        state = self._connections.get(connection)
        if state is None:
            return None
        if state.fails:
            return state.fails.popleft()
        for number in list(state.turns):
            send = self._take(number)
            if send is not None:
                if number in state.turns:
                    state.turns.move_to_end(number)
                return send
        return None

    def _take(self, number: int) -> Send | None:
        """The next frame of one attempt's fetch, if it may be sent now."""
        attempt = self._attempts[number]
        fetch = attempt.fetch
        assert fetch is not None
        if fetch.ended:
            return None
        if attempt.state is State.FAILED:
            self._unfetch(attempt)
            return SendFail(fetch.connection, number, attempt.code, attempt.detail)
        complete = attempt.state is State.PRODUCED
        if fetch.hashed < fetch.first and not (complete and fetch.hashed == attempt.buffer.made):
            return attempt.next_hashes(fetch)
        return attempt.next_piece(fetch)

    # Transitions.

    def _start(self, assignment: Assignment) -> list[Instruction]:
        self._last_run += 1
        attempt = Attempt(assignment, self._last_run)
        self._attempts[assignment.attempt] = self._runs[attempt.run] = attempt
        out: list[Instruction] = [StartAttempt(assignment, attempt.run)]
        pending = self._pending.pop(assignment.attempt, None)
        return out + (self._place(assignment.attempt, pending.fetch) if pending else [])

    def _drop(self, number: int) -> list[Instruction]:
        attempt = self._attempts.pop(number)
        out: list[Instruction] = []
        if self._runs.pop(attempt.run, None) is not None:
            out.append(StopAttempt(attempt.run))
        if attempt.fetch is not None:
            fetch = attempt.fetch
            self._unfetch(attempt)
            # After its END there is nothing a client could still miss.
            if not fetch.ended:
                out += self._refuse(fetch.connection, number, "the dispatcher took it away")
        return out

    def _place(self, number: int, fetch: Fetch) -> list[Instruction]:
        """Makes `fetch` the one fetch of an attempt that is held."""
        attempt = self._attempts[number]
        if attempt.released:
            return self._refuse(fetch.connection, number, "it was released")
        if fetch.first < attempt.buffer.base and attempt.state is not State.FAILED:
            why = f"kept from element {attempt.buffer.base} on, not from {fetch.first}"
            return self._refuse(fetch.connection, number, why)
        if attempt.fetch is not None:
            self._unfetch(attempt)
        attempt.fetch = fetch
        self._connections[fetch.connection].turns[number] = None
        attempt.buffer.acknowledge(fetch.first)  # who asks from here on has what is before
        out: list[Instruction] = []
        if attempt.wanted is None:
            attempt.wanted = fetch.first
            out = self._count(attempt) if attempt.begun else []
        return [*out, *self._rebalance(), *attempt.wake()]

    def _settle(self, attempt: Attempt) -> list[Instruction]:
        """The run begins where its buffer does."""
        if attempt.begun:
            return []
        attempt.begun = True
        return self._count(attempt)

    def _count(self, attempt: Attempt) -> list[Instruction]:
        """Counts what is made again, once both the run and its client have begun."""
        attempt.recomputed = 0 if attempt.read else max(0, (attempt.wanted or 0) - attempt.restored)
        return [Report()] if attempt.recomputed else []

    def _unfetch(self, attempt: Attempt) -> None:
        if attempt.fetch is not None:
            connection = self._connections.get(attempt.fetch.connection)
            if connection is not None:
                connection.turns.pop(attempt.assignment.attempt, None)
            attempt.fetch = None

    def _refuse(self, connection: int, number: int, why: str) -> list[Instruction]:
        state = self._connections.get(connection)
        if state is None:
            return []
        state.fails.append(SendFail(connection, number, GONE, f"attempt {number}: {why}"))
        return [Wake(connection)]

    # Memory.

    def _goes_on(self, attempt: Attempt) -> bool:
        room = attempt.has_room(self.memory_limit // max(1, self._active))
        return room and self._turns.has(attempt)

    def _resume(self, attempt: Attempt) -> list[Instruction]:
        if attempt.choosing and attempt.wanted is not None and self._turns.has(attempt):
            attempt.called = True
            return [CursorKnown(attempt.run)]
        if not attempt.paused or not self._goes_on(attempt):
            return []
        attempt.paused = False
        return [ResumeProducing(attempt.run)]

    def _rebalance(self) -> list[Instruction]:
        """Counts the shares and deals the turns again, and resumes whoever may go on now."""
        self._active = sum(attempt.active for attempt in self._attempts.values())
        self._turns.deal(self._runs.values())
        return [out for attempt in self._runs.values() for out in self._resume(attempt)]
