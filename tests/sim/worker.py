"""A simulated worker process: the real attempt book, with made-up producers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.proto.hashing import DigestBuilder
from penstock.proto.wire import FrameType
from penstock.worker.attempts import AttemptBook
from penstock.worker.messages import (
    Assignment,
    CursorKnown,
    Forget,
    Instruction,
    Report,
    ResumeProducing,
    Send,
    StartAttempt,
    StopAttempt,
    Wake,
)

from .agent import SimAgent
from .checkpoints import Checkpoints
from .clock import Process
from .data import SimChunk, value_of
from .net import Connection
from .probes import SimProbes

if TYPE_CHECKING:
    from .world import World

_VALIDATED_EVERY = 8
_LOOK_S = _MOMENT_S = 0.1
_NONE = np.empty(0, np.uint64)


@dataclass
class _Run:
    """One run of one split."""

    run: int
    assignment: Assignment
    size: int
    made: int = 0
    #: Of the next element; counts those that are left out.
    number: int = 0
    builder: DigestBuilder = field(default_factory=DigestBuilder)
    #: The element at which it will fail; none if beyond the end.
    fails_at: int = 1 << 62
    #: The element before which it gets stuck; likewise.
    hangs_at: int = 1 << 62
    begun: bool = False


class SimWorker:
    """One life of a worker.

    Args:
        world: where it lives.
        host: its address, which survives it.
        standby: registers as a standby.
        slots: attempts at once ahead of need.
        memory: bytes that its buffers may hold.
    """

    def __init__(self, world: World, host: str, *, standby: bool, slots: int, memory: int) -> None:
        self.world = world
        self.host = host
        self.standby = standby
        self.slots = slots
        self.memory = memory
        self.be_reborn()
        self.process = Process(world.clock, host)
        self.worker = ""
        self.refused: Any = None
        self._timing = world.setup.timing
        self._book = AttemptBook(memory, self._timing.attempt_grace_s)
        self._runs: dict[int, _Run] = {}
        self._connections: dict[int, Connection] = {}
        self._last_connection = 0
        self._pumping: set[int] = set()
        self._events = 0
        self._looking = False
        self.checkpoints = world.checkpoints.setdefault(host, Checkpoints())
        self.probes = SimProbes(self)
        self._agent = SimAgent(self)
        self.process.after(world.rng.uniform(0.01, 0.5), self._agent.step)

    def be_reborn(self) -> None:
        """Takes a new incarnation."""
        self.incarnation = f"{self.host}-{self.world.next_incarnation()}"

    def leave(self) -> None:
        """SIGTERM: says good-bye and ends."""
        self._agent.leave()

    def report(self) -> None:
        """There is news for the dispatcher."""
        self._agent.report()

    # What the agent calls.

    def set_desired(self, assignments: list[Assignment]) -> None:
        """Exactly these are to be held."""
        self._do(self._book.desired(assignments))

    def drop_all(self) -> None:
        """The dispatcher forgot this worker: checkpoints stay."""
        self._do(self._book.drop_all())

    def held(self) -> list[Any]:
        """These are held."""
        return self._book.held()

    # What comes over connections.

    def received(self, connection: Connection, message: Any) -> None:
        """A client's frame."""
        kind, header = message
        if kind is FrameType.HELLO:
            self._last_connection += 1
            connection.number = self._last_connection
            self._connections[connection.number] = connection
            self._book.opened(connection.number)
            connection.send(1, (FrameType.WELCOME, self.worker))
            return
        number, attempt = connection.number, header["attempt"]
        if kind is FrameType.FETCH:
            now_s = self.world.clock.now_s
            first, credit = header["from"], header["credit"]
            verify = header["verify"]
            self._do(self._book.fetch(number, attempt, first, credit, verify, now_s))
            self.process.after(self._timing.attempt_grace_s + 0.001, self._tick, number)
        elif kind is FrameType.CREDIT:
            received, credit = header["received"], header["credit"]
            self._do(self._book.credit(number, attempt, received, credit))
        elif kind is FrameType.RELEASE:
            self._do(self._book.release(number, attempt))

    def disconnected(self, connection: Connection, detail: str) -> None:
        """A client's connection is gone."""
        if self._connections.pop(connection.number, None) is not None:
            self._do(self._book.closed(connection.number))

    def _tick(self, number: int) -> None:
        self._do([*self._book.tick(self.world.clock.now_s), Wake(number)])

    def _pump(self, number: int) -> None:
        """Sends what is due, a few frames at a time."""
        self._pumping.discard(number)
        connection = self._connections.get(number)
        if connection is None:
            return
        for _ in range(self.world.rng.randrange(1, 6)):
            send: Send | None = self._book.next_send(number)
            if send is None:
                return
            connection.send(1, send)
        self._pump_soon(number)

    def _pump_soon(self, number: int) -> None:
        if number in self._connections and number not in self._pumping:
            self._pumping.add(number)
            self.process.after(
                self.world.rng.random() * self.world.setup.frame_s, self._pump, number
            )

    # Production.

    def _do(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case StartAttempt(assignment, run):
                    self._start(assignment, run)
                case StopAttempt(run):
                    # A thread that is in the middle of an element still brings that one.
                    if self.world.rng.random() < 0.5:
                        self._runs.pop(run, None)
                    else:
                        self.process.after(0.5, self._runs.pop, run, None)
                case ResumeProducing(run):
                    self._produce_later(run)
                case CursorKnown(run):
                    self.process.after(0, self._begin, run, True)
                case Forget(key):
                    self.checkpoints.forget(key)
                case Wake(connection):
                    self._pump_soon(connection)
                case Report():
                    self._agent.report()
        if not self._looking and any(not self._book.in_turn(run) for run in self._runs):
            self._looking = True
            self.process.after(_LOOK_S, self._look)
        self._events += 1
        if self._events % _VALIDATED_EVERY == 0:
            self._validate()

    def _look(self) -> None:
        """Runs that wait for their turn look whether the processors are idle."""
        self._looking = False
        self._do(self._book.idle() if self.world.rng.random() < 0.5 else [])

    def _start(self, assignment: Assignment, run: int) -> None:
        world = self.world
        pipeline = world.pipelines[assignment.dataset]
        made = _Run(run, assignment, pipeline.sizes[assignment.split])
        if world.setup.fails and world.faulty and world.rng.random() < world.setup.fails:
            made.fails_at = world.rng.randrange(made.size + 1)
        if world.setup.hangs and world.faulty and world.rng.random() < world.setup.hangs:
            made.hangs_at = world.rng.randrange(made.size + 1)
        self._runs[run] = made
        restorable = world.setup.checkpoint and self.checkpoints.has(assignment.key)
        restorable = restorable and not assignment.bad
        patience_s = self._timing.attempt_grace_s if restorable else _MOMENT_S
        self.process.after(patience_s, self._begin, run, True)
        self.process.after(0, self._begin, run, False)

    def _begin(self, run: int, over: bool) -> None:
        """Begins a run, from a checkpoint if the client is past one; `over`: waits no longer."""
        made = self._runs.get(run)
        if made is None or made.begun:
            return
        cursor = self._book.cursor(run)
        if cursor is None and not (over and self._book.in_turn(run)):
            return  # CursorKnown will come
        made.begun = True
        key = made.assignment.key
        found = None
        if cursor is not None and not made.assignment.bad:
            found = self.checkpoints.find(key, cursor)
        if found is not None:
            self.world.restored += 1
            self.world.trace(self.host, "restores split", key.split, "at", len(found))
            made.made = made.number = len(found)
            made.builder.update(found)
        self._do(self._book.began(run, _NONE if found is None else found))
        self._produce_later(run)

    def _checkpoint(self, made: _Run) -> None:
        """Takes a checkpoint, which is written some time later, or never."""
        setup, key = self.world.setup, made.assignment.key
        if not setup.checkpoint or self.world.rng.random() > setup.checkpoint:
            return
        if made.assignment.bad:
            return
        kept = self._book.kept(made.run, made.made)
        if kept is not None and self.checkpoints.may_take(key, kept[0]):
            acknowledged, hashes = kept
            self.process.after(
                self.world.rng.random() * 0.2, self.checkpoints.add, key, hashes, acknowledged
            )

    def _produce_later(self, run: int) -> None:
        setup = self.world.setup
        self.process.after(self.world.rng.random() * 2 * setup.piece_s, self._produce, run)

    def _produce(self, run: int) -> None:
        made = self._runs.get(run)
        if made is None:
            return
        rng, at = self.world.rng, made.assignment
        if made.made >= made.fails_at:
            del self._runs[run]
            self.world.split_failed(at)
            self._do(self._book.failed(run, "PIPELINE", f"element {made.made} is bad"))
            return
        if made.made >= made.hangs_at:
            self.world.trace(self.host, "hangs in split", at.split)
            self.world.split_failed(at)  # sooner or later it counts as that
            return
        if self._raises(made):
            return
        if made.number == made.size:
            del self._runs[run]
            self._do(self._book.ended(run, made.builder.digest()))
            return
        most = 1 if at.trial > 1 else self.world.setup.piece_max
        stop = min(made.size, made.number + rng.randrange(1, most + 1))
        spoiled = self.world.pipelines[at.dataset].bad
        good = next((n for n in range(made.number, stop) if (at.split, n) in spoiled), stop)
        numbers = range(made.number, max(good, made.number + 1))
        values = [value_of(at.seed, at.epoch, at.split, n) for n in numbers if n not in at.bad]
        made.number = numbers[-1] + 1
        if not values:
            self._produce_later(run)
            return
        piece = SimChunk.of(made.made, values)
        made.builder.update(piece.hashes)
        made.made += len(values)
        self.world.pieces += 1
        self._do(self._book.produced(run, piece))
        self._checkpoint(made)
        if self._book.may_produce(run):
            self._produce_later(run)

    def _raises(self, made: _Run) -> bool:
        """Fails a run whose next element is bad, and not to be left out."""
        at = made.assignment
        if (at.split, made.number) not in self.world.pipelines[at.dataset].bad:
            return False
        if made.number in at.bad:
            return False
        del self._runs[made.run]
        element = made.number if at.trial > 1 or at.bad else None
        self._do(self._book.failed(made.run, "PIPELINE", f"{made.number} is bad", element))
        return True

    def _validate(self) -> None:
        for attempt in self._book._attempts.values():
            # A failed or released attempt has given its pieces up.
            if not attempt.released and attempt.state.name != "FAILED":
                attempt.buffer.validate()
