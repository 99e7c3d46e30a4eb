"""A thread for each running attempt, from its start to its end, failure or stop."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ..failpoints import failpoint
from .threads import Task, Threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..proto.hashing import Digest, Hashes
    from .last_words import LastWords
    from .messages import Assignment, Piece

logger = logging.getLogger(__name__)

#: How long a run that could begin anywhere waits to hear what is wanted of it first.
_MOMENT_S = 0.1
THREAD_PREFIX = "penstock-attempt-"


class Sink(Protocol):
    """Where runs bring what they make: the exchange."""

    def put(self, run: int, piece: Piece) -> bool:
        """Takes a piece; False: stop."""

    def cursor(self, run: int, timeout_s: float) -> int | None:
        """Waits for the first element that a client wants."""

    def wanted(self, run: int) -> int:
        """The first element that a client wants, as far as it has said so."""

    def reads(self, run: int, reads: bool) -> None:
        """The run only reads a segment, or makes its elements."""

    def begin(self, run: int, hashes: Hashes) -> None:
        """The run begins after elements that have these hashes."""

    def save(self, run: int, elements: int, take: Callable[[int, Hashes], None]) -> None:
        """Has a checkpoint taken."""

    def end(self, run: int, digest: Digest) -> None:
        """Everything is made."""

    def fail(self, run: int, error: Exception) -> None:
        """It cannot be made; an `AttemptError` says which element raised, if that is known."""


@dataclass(frozen=True, slots=True)
class Outlet:
    """What the thread of one run asks and tells.

    Attributes:
        stopped: set when the run is not wanted any more.
    """

    stopped: threading.Event
    _sink: Sink
    _run: int
    _grace_s: float
    _made: Callable[[int, bool], None] | None = None
    _held: list[object] = field(default_factory=list)
    _later: list[Callable[[], None]] = field(default_factory=list)

    def hold(self, iterator: object) -> None:
        """Has the run's iterator freed after its end was told: TensorFlow may take seconds."""
        self._held.append(iterator)

    def later(self, action: Callable[[], None]) -> None:
        """Has something done after the run's end was told: nobody waits for it then."""
        self._later.append(action)

    def finish(self) -> None:
        """The run's end was told."""
        for action in self._later:
            if not self.stopped.is_set():
                action()

    def put(self, piece: Piece) -> bool:
        """Hands over a piece and waits for space; False: stop."""
        if self._made is None:
            return self._sink.put(self._run, piece)
        # Whoever waits for space is not who takes the memory.
        self._made(piece.stop, False)
        goes_on = self._sink.put(self._run, piece)
        self._made(piece.stop, True)
        return goes_on

    def cursor(self, *, patient: bool) -> int | None:
        """Waits for the first element that a client wants, and for the run's turn.

        Args:
            patient: as long as a client may take to ask; otherwise a moment.
        """
        return self._sink.cursor(self._run, self._grace_s if patient else _MOMENT_S)

    def wanted(self) -> int:
        """The first element that a client wants, as far as it has said so."""
        return self._sink.wanted(self._run)

    def reads(self, reads: bool) -> None:
        """The run only reads a segment, from now on, or makes its elements."""
        self._sink.reads(self._run, reads)

    def begin(self, hashes: Hashes) -> None:
        """The run begins after elements that have these hashes."""
        self._sink.begin(self._run, hashes)

    def save(self, elements: int, take: Callable[[int, Hashes], None]) -> None:
        """Has `take` called with what is acknowledged and the hashes so far, if the run goes on."""
        self._sink.save(self._run, elements, take)


@dataclass(frozen=True, slots=True)
class _Run:
    task: Task
    stopped: threading.Event


class Producers:
    """The producing threads.

    Args:
        produce: makes one attempt's pieces; runs in the attempt's thread. An exception of it
            fails the attempt, with its `code` if it has one.
        grace_s: how long a run may wait for its client before it begins.
        words: where what runs is written down; None: nowhere.
    """

    def __init__(
        self,
        produce: Callable[[Assignment, Outlet], Digest | None],
        grace_s: float,
        words: LastWords | None = None,
    ) -> None:
        self._produce = produce
        self._grace_s = grace_s
        self._words = words
        self._sink: Sink | None = None
        self._threads = Threads()
        self._lock = threading.Lock()
        self._runs: dict[int, _Run] = {}

    def connect(self, sink: Sink) -> None:
        """Says where pieces go; before the first start."""
        self._sink = sink

    def start(self, assignment: Assignment, run: int) -> None:
        """Begins a run in a thread of its own."""
        stopped = threading.Event()
        task = Task(
            f"{THREAD_PREFIX}{assignment.attempt}",
            lambda: self._main(assignment, run, stopped),
        )
        with self._lock:
            self._runs[run] = _Run(task, stopped)
        logger.info("%s: started, trial %d", assignment, assignment.trial)
        self._threads.start(task)

    def stop(self, run: int) -> None:
        """Tells a run to stop; it does after the element at hand."""
        with self._lock:
            found = self._runs.get(run)
        if found is not None:
            found.stopped.set()

    def close(self, deadline_s: float) -> list[str]:
        """Waits for all runs, which must have been stopped; names threads that still run one."""
        end = time.monotonic() + deadline_s
        with self._lock:
            runs = list(self._runs.values())
        for run in runs:
            run.stopped.set()
        for run in runs:
            run.task.wait(max(0.0, end - time.monotonic()))
        self._threads.close(end)
        return [run.task.name for run in runs if not run.task.over.is_set()]

    def _main(self, assignment: Assignment, run: int, stopped: threading.Event) -> None:
        sink = self._sink
        assert sink is not None
        began = time.monotonic()
        failpoint("worker.attempt.before_start")
        outlet = Outlet(stopped, sink, run, self._grace_s, self._told(assignment))
        failure: Exception | None = None
        try:
            digest = self._produce(assignment, outlet)
        except Exception as error:
            failure = error
            if stopped.is_set():
                logger.info("%s: stopped", assignment)
            else:
                logger.warning("%s: failed: %s", assignment, error)
                sink.fail(run, error)
        else:
            if digest is None:
                logger.info("%s: stopped", assignment)
            else:
                seconds = time.monotonic() - began
                logger.info("%s: produced %d elements in %.2f s", assignment, digest.count, seconds)
                sink.end(run, digest)
        finally:
            if self._words is not None:
                self._words.ended(assignment, failure)
            try:
                outlet.finish()
            finally:  # not before: whoever closes waits for what is done after the end, too
                with self._lock:
                    self._runs.pop(run, None)

    def _told(self, assignment: Assignment) -> Callable[[int, bool], None] | None:
        """What is told how many elements a run has made, and whether it makes the next one: only
        where elements are made one by one."""
        words = self._words
        if words is None:
            return None
        words.began(assignment)
        if assignment.trial == 1 and not assignment.bad:
            return None
        return lambda elements, making: words.made(assignment, elements, making=making)
