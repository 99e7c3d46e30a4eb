"""Where the threads meet the attempt book: one lock around it, and waiting for what it decides.

Producers wait for space, senders for something to send; both are woken by the book's
instructions, never by a timer, save for the deadline of a fetch whose attempt may never come.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from typing import TYPE_CHECKING

from ..errors import exception_chain
from ..failpoints import failpoint
from .messages import (
    PIPELINE,
    AttemptError,
    CursorKnown,
    Forget,
    Report,
    ResumeProducing,
    SendFail,
    StartAttempt,
    StopAttempt,
    Wake,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..proto.hashing import Digest, Hashes
    from .attempts import AttemptBook
    from .messages import Assignment, Held, Instruction, Key, Piece, Send

logger = logging.getLogger(__name__)

#: How often a run that waits for its turn looks whether the processors are idle.
_LOOK_S = 0.1


class Exchange:
    """The attempt book, made safe for threads.

    Args:
        book: nobody else may use it from now on.
        start: begins to produce an attempt, in another thread: `start(assignment, run)`.
        stop: stops a run, without waiting for it.
        report: tells the dispatcher's agent that there is news.
        forget: removes a split's checkpoints, in another thread.
        idle: whether the processors have little to do. All of these are called with the lock
            held, so they must neither block nor call back.
    """

    def __init__(
        self,
        book: AttemptBook,
        start: Callable[[Assignment, int], None],
        stop: Callable[[int], None],
        report: Callable[[], None],
        forget: Callable[[Key], None] = lambda key: None,
        idle: Callable[[], bool] = lambda: True,
    ) -> None:
        self._book = book
        self._start = start
        self._stop = stop
        self._report = report
        self._forget = forget
        self._idle = idle
        self._lock = threading.Lock()
        self._space: dict[int, threading.Condition] = {}
        self._news: dict[int, threading.Condition] = {}
        self._connections = itertools.count(1)

    # The agent's side.

    def set_desired(self, assignments: Iterable[Assignment]) -> None:
        """Starts and stops attempts so that exactly these are held."""
        with self._lock:
            self._do(self._book.desired(assignments))

    def drop_all(self) -> None:
        """Stops everything, and keeps the checkpoints for a next life."""
        with self._lock:
            self._do(self._book.drop_all())

    def held(self) -> list[Held]:
        """What the dispatcher is told."""
        with self._lock:
            return self._book.held()

    # The producers' side.

    def cursor(self, run: int, timeout_s: float) -> int | None:
        """Waits for the first element that a client wants of a run, and for the run's turn.

        Args:
            run: has not begun yet.
            timeout_s: how long to wait for a client at most.

        Returns:
            That element; None if nobody asked in time, or the run is stopped.
        """
        end = time.monotonic() + timeout_s
        with self._lock:
            while (first := self._book.cursor(run)) is None:
                space, left = self._space.get(run), end - time.monotonic()
                in_turn = self._book.in_turn(run)
                if space is None or (in_turn and left <= 0):
                    return None
                if in_turn:
                    space.wait(left)
                else:
                    self._await_turn(space)
            return first

    def wanted(self, run: int) -> int:
        """The first element that a client wants of a run, as far as it has said so."""
        with self._lock:
            return self._book.wanted(run)

    def reads(self, run: int, reads: bool) -> None:
        """A run only reads a segment, from now on, or makes its elements."""
        with self._lock:
            self._book.reads(run, reads)

    def begin(self, run: int, hashes: Hashes) -> None:
        """A run begins after elements that have these hashes."""
        with self._lock:
            self._do(self._book.began(run, hashes))

    def save(self, run: int, elements: int, take: Callable[[int, Hashes], None]) -> None:
        """Has a checkpoint taken of a run, unless it is not wanted any more.

        Args:
            run: has made `elements` elements.
            elements: that lie before the checkpoint.
            take: called with the number of acknowledged elements and the hashes of those before
                the checkpoint; with the lock held, so that what is forgotten stays so.
        """
        with self._lock:
            found = self._book.kept(run, elements)
            if found is not None:
                take(*found)

    def put(self, run: int, piece: Piece) -> bool:
        """Hands over a piece, then waits until the next one may be made; False: stop."""
        failpoint("worker.piece.before_put")
        with self._lock:
            self._do(self._book.produced(run, piece))
            while (space := self._space.get(run)) is not None and not self._book.may_produce(run):
                if self._book.in_turn(run):
                    space.wait()
                else:
                    self._await_turn(space)
            return space is not None

    def end(self, run: int, digest: Digest) -> None:
        """A run has made everything."""
        failpoint("worker.attempt.before_end")
        with self._lock:
            self._space.pop(run, None)
            self._do(self._book.ended(run, digest))

    def fail(self, run: int, error: Exception) -> None:
        """A run has failed for good."""
        code, element, chain = PIPELINE, None, exception_chain(error)
        if isinstance(error, AttemptError):
            code, element = error.code, error.element
            chain = chain[1:] or chain  # it came from what the pipeline raised
        with self._lock:
            self._space.pop(run, None)
            self._do(self._book.failed(run, code, str(error), element, *chain))

    # The connections' side.

    def open(self) -> int:
        """A number for a new connection; `close` it in the end."""
        with self._lock:
            connection = next(self._connections)
            self._book.opened(connection)
            self._news[connection] = threading.Condition(self._lock)
            return connection

    def close(self, connection: int) -> None:
        """The connection is gone; wakes its sender for good. Closing twice is fine."""
        with self._lock:
            self._do(self._book.closed(connection))
            news = self._news.pop(connection, None)
            if news is not None:
                news.notify_all()

    def fetch(self, connection: int, attempt: int, first: int, credit: int, verify: bool) -> None:
        """See `AttemptBook.fetch`."""
        with self._lock:
            now = time.monotonic()
            self._do(self._book.fetch(connection, attempt, first, credit, verify, now))
            # The sender has to look at the deadline of a fetch that has to wait.
            self._do([Wake(connection)])

    def credit(self, connection: int, attempt: int, received: int, credit: int) -> None:
        """See `AttemptBook.credit`."""
        with self._lock:
            self._do(self._book.credit(connection, attempt, received, credit))

    def release(self, connection: int, attempt: int) -> None:
        """See `AttemptBook.release`."""
        with self._lock:
            self._do(self._book.release(connection, attempt))

    def lent(self, nbytes: int) -> None:
        """Clients share so much more memory, less if negative: the buffers may have the rest."""
        with self._lock:
            self._book.memory_limit -= nbytes

    def next_send(self, connection: int) -> Send | None:
        """Waits for the next frame to send; None once the connection is closed."""
        with self._lock:
            while (news := self._news.get(connection)) is not None:
                now = time.monotonic()
                self._do(self._book.tick(now))
                send = self._book.next_send(connection)
                if send is not None:
                    if isinstance(send, SendFail):
                        logger.info("refused a fetch: %s: %s", send.code, send.detail)
                    return send
                deadline = self._book.next_deadline()
                news.wait(None if deadline is None else max(0.0, deadline - now))
            return None

    def _await_turn(self, space: threading.Condition) -> None:
        """Waits a while for a run's turn; lets more runs go on if the processors are idle."""
        space.wait(_LOOK_S)  # nobody tells that they are
        if self._idle():
            self._do(self._book.idle())

    def _do(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case StartAttempt(assignment, run):
                    self._space[run] = threading.Condition(self._lock)
                    self._start(assignment, run)
                case StopAttempt(run):
                    self._stop(run)
                    space = self._space.pop(run, None)
                    if space is not None:
                        space.notify_all()
                case ResumeProducing(run) | CursorKnown(run):
                    if run in self._space:
                        self._space[run].notify_all()
                case Forget(key):
                    self._forget(key)
                case Wake(connection):
                    if connection in self._news:
                        self._news[connection].notify_all()
                case Report():
                    self._report()
