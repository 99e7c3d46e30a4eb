"""What the attempt book notes down: attempts, fetches, connections. Part of the pure core."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .buffer import Buffer
from .messages import Held, SendChunk, SendEnd, SendHashes, State, Wake

if TYPE_CHECKING:
    from ..proto.hashing import Digest
    from .messages import Assignment, SendFail

#: Most hashes in one frame (1 MiB); a long prefix is sent in several, as it is made.
HASHES_MAX = 1 << 17


@dataclass(slots=True)
class Fetch:
    """One client's wish for one attempt.

    Attributes:
        connection: where it came from.
        first: the first element wanted; hashes before it are sent if `hashed` says so.
        next: the element to be sent next.
        credit: payload bytes that may still be sent.
        hashed: hashes before it are sent, or were not asked for.
        number: grows with each fetch: a client asks first for what it wants next.
        ended: END is sent.
    """

    connection: int
    first: int
    next: int
    credit: int
    hashed: int
    number: int = 0
    ended: bool = False


@dataclass(slots=True)
class Attempt:
    assignment: Assignment
    run: int
    state: State = State.RUNNING
    buffer: Buffer = field(default_factory=Buffer)
    digest: Digest | None = None
    code: str = ""
    detail: str = ""
    #: The one that raised, where that is known exactly.
    element: int | None = None
    #: What led to the failure, the outermost exception first.
    exceptions: tuple[str, ...] = ()
    fetch: Fetch | None = None
    #: The client does not want it any more; it is listed until the dispatcher knows, too.
    released: bool = False
    #: Its producer waits for ResumeProducing.
    paused: bool = False
    #: Its producer was told where the client is.
    called: bool = False
    #: It is settled at which element the run begins.
    begun: bool = False
    #: That element, if it is of a checkpoint.
    restored: int = 0
    #: It only reads a segment: what it hands over again costs nothing, and needs no turn.
    read: bool = False
    #: The first element of the run's first fetch.
    wanted: int | None = None
    #: Elements made again although the client had them from an earlier attempt.
    recomputed: int = 0

    @property
    def active(self) -> bool:
        """Whether it takes a share of the memory."""
        return not self.released and (self.state is State.RUNNING or self.buffer.nbytes > 0)

    @property
    def waiting(self) -> bool:
        """Whether it is not for its producer to make the next step."""
        return self.released or self.paused or self.state is not State.RUNNING or self.choosing

    @property
    def replaying(self) -> bool:
        """Whether it makes what its client has already."""
        fetch = self.fetch
        if self.read or fetch is None:
            return False
        return self.state is State.RUNNING and self.buffer.made < fetch.first

    def has_room(self, share: int) -> bool:
        """Whether it may make one more piece with that share of the memory, in bytes."""
        buffer = self.buffer
        return buffer.nbytes == 0 or buffer.nbytes + buffer.last_bytes <= share

    def next_hashes(self, fetch: Fetch) -> SendHashes | None:
        """The next run of hashes for a fetch, once it is a full frame or the last one."""
        stop = min(fetch.first, fetch.hashed + HASHES_MAX)
        if stop > self.buffer.made:
            if self.state is State.RUNNING:
                return None
            stop = self.buffer.made  # a shorter split than the client has seen: it will say so
        start, fetch.hashed = fetch.hashed, stop
        hashes = self.buffer.hashes(start, stop)
        return SendHashes(fetch.connection, self.assignment.attempt, start, hashes)

    def next_piece(self, fetch: Fetch) -> SendChunk | SendEnd | None:
        """The next piece for a fetch, if there is one and credit for it; then the end."""
        number = self.assignment.attempt
        if fetch.next < self.buffer.made:
            if fetch.credit <= 0:
                return None
            piece = self.buffer.piece_from(fetch.next)
            assert piece is not None
            fetch.next = piece.stop
            fetch.credit -= piece.nbytes
            return SendChunk(fetch.connection, number, piece)
        if self.state is not State.PRODUCED:
            return None
        fetch.ended = True
        assert self.digest is not None
        return SendEnd(fetch.connection, number, self.digest)

    def held(self) -> Held:
        """What the dispatcher is told of it."""
        return Held(
            self.assignment.attempt,
            self.state,
            self.buffer.made,
            self.code,
            self.detail,
            restored=self.restored,
            recomputed=self.recomputed,
            waiting=self.waiting,
            element=self.element,
            exceptions=self.exceptions,
        )

    def wake(self) -> list[Wake]:
        """The instruction that there may be something to send of it, if somebody fetches it."""
        return [] if self.fetch is None else [Wake(self.fetch.connection)]

    @property
    def choosing(self) -> bool:
        """Whether its producer may be waiting to hear where the client is, or for its turn."""
        return not self.begun and not self.called


@dataclass(slots=True)
class Pending:
    """A fetch of an attempt that was not assigned (yet)."""

    fetch: Fetch
    deadline: float


@dataclass(slots=True)
class Connection:
    #: Attempts fetched here, whose turn it is first.
    turns: OrderedDict[int, None] = field(default_factory=OrderedDict)
    fails: deque[SendFail] = field(default_factory=deque)
