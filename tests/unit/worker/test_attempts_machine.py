"""Whatever the interleaving: elements arrive once and in order, memory is bounded, stop frees."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.proto.hashing import Digest
from penstock.worker.attempts import AttemptBook
from penstock.worker.buffer import held_bytes
from penstock.worker.messages import (
    GONE,
    Instruction,
    ResumeProducing,
    SendChunk,
    SendEnd,
    SendFail,
    SendHashes,
    StartAttempt,
    StopAttempt,
    Wake,
)

from .fakes import FakePiece, assignment, digest, hashes

ATTEMPTS = 3
LARGEST = 5  # elements of a piece
SIZE = 10
LIMIT = 8 * held_bytes(FakePiece(0, LARGEST, SIZE))


@dataclass
class Reader:
    """A client's view of one attempt: what it has, and on which connection it asks for more."""

    had: int = 0  # elements that it has from an earlier attempt of the split
    received: int = 0
    acknowledged: int = 0
    verified: int | None = None  # hashes before it have come; None: not asked for
    first: int = 0
    connection: int = 0
    end: Digest | None = None
    gone: bool = False


@dataclass
class Producer:
    """A run and how far it is; `blocked` as its thread would be."""

    attempt: int
    made: int = 0
    blocked: bool = False
    length: int = field(default=0)
    restored: int | None = None  # None: it has not begun


class Machine(RuleBasedStateMachine):
    """One worker, several attempts, one client that reconnects and asks again at will."""

    def __init__(self) -> None:
        super().__init__()
        self.book = AttemptBook(LIMIT, grace_s=5.0)
        self.now = 0.0
        self.last_connection = 0
        self.connection = 0
        self.runs: dict[int, Producer] = {}
        self.readers: dict[int, Reader] = {}
        self.listed: set[int] = set()
        self.next_attempt = 1
        self.awake = True  # the sender was told, or has not yet found nothing to send
        self.connect()

    def obey(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case StartAttempt(spec, run):
                    self.runs[run] = Producer(spec.attempt, length=7 * spec.attempt % 23)
                case StopAttempt(run):
                    del self.runs[run]
                case ResumeProducing(run):
                    assert self.runs[run].blocked
                    self.runs[run].blocked = False
                case Wake(connection):
                    self.awake |= connection == self.connection

    @rule()
    def connect(self) -> None:
        """The client loses its connection, if it has one, and makes another."""
        self.obey(self.book.closed(self.connection))
        self.last_connection += 1
        self.connection = self.last_connection
        self.awake = True
        self.book.opened(self.connection)

    @rule(data=st.data())
    @precondition(lambda self: len(self.listed) < ATTEMPTS)
    def assign(self, data: st.DataObject) -> None:
        """A split, of which the client may have a part from an attempt that was lost."""
        number = self.next_attempt
        self.listed.add(number)
        had = data.draw(st.integers(0, 7 * number % 23))
        self.readers.setdefault(number, Reader(had, had, had))
        self.next_attempt += 1
        self.list_again()

    @rule()
    def list_again(self) -> None:
        self.obey(self.book.desired([assignment(number) for number in sorted(self.listed)]))

    @rule(data=st.data())
    @precondition(lambda self: self.listed)
    def take_away(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.listed)))
        self.listed.discard(number)
        self.readers[number].gone = True
        self.list_again()
        assert all(run.attempt != number for run in self.runs.values())

    @rule()
    def processors_are_idle(self) -> None:
        self.obey(self.book.idle())

    @rule(data=st.data())
    @precondition(lambda self: any(run.restored is None for run in self.runs.values()))
    def begin(self, data: st.DataObject) -> None:
        """A run begins at a checkpoint at or below what the client wants, if it has said that."""
        fresh = sorted(run for run, producer in self.runs.items() if producer.restored is None)
        run = data.draw(st.sampled_from(fresh))
        producer = self.runs[run]
        cursor = self.book.cursor(run)
        assert cursor in (None, self.readers[producer.attempt].had)
        producer.restored = producer.made = data.draw(st.integers(0, cursor or 0))
        self.obey(self.book.began(run, hashes(0, producer.restored)))

    @rule(data=st.data(), elements=st.integers(1, LARGEST))
    @precondition(lambda self: any(not run.blocked for run in self.runs.values()))
    def produce(self, data: st.DataObject, elements: int) -> None:
        free = sorted(run for run, producer in self.runs.items() if not producer.blocked)
        run = data.draw(st.sampled_from(free))
        producer = self.runs[run]
        producer.restored = producer.restored or 0
        if producer.made == producer.length:
            del self.runs[run]
            self.obey(self.book.ended(run, digest(producer.length)))
            return
        stop = min(producer.made + elements, producer.length)
        piece = FakePiece(producer.made, stop, SIZE, producer.attempt)
        producer.made = stop
        self.obey(self.book.produced(run, piece))
        producer.blocked = not self.book.may_produce(run)

    @rule(data=st.data(), credit=st.integers(0, 200), verify=st.booleans())
    def fetch(self, data: st.DataObject, credit: int, verify: bool) -> None:
        """Also of attempts that are gone, or that are not assigned yet."""
        number = data.draw(st.integers(1, self.next_attempt))
        reader = self.readers.setdefault(number, Reader())
        if reader.end is not None:
            return
        reader.connection, reader.first = self.connection, reader.received
        reader.verified = 0 if verify else None
        self.obey(
            self.book.fetch(self.connection, number, reader.received, credit, verify, self.now)
        )

    @rule(data=st.data(), credit=st.integers(0, 200), all_of_it=st.booleans())
    def give_credit(self, data: st.DataObject, credit: int, all_of_it: bool) -> None:
        number = data.draw(st.integers(1, self.next_attempt))
        reader = self.readers.setdefault(number, Reader())
        lowest = reader.acknowledged
        received = reader.received if all_of_it else data.draw(st.integers(lowest, reader.received))
        if reader.connection == self.connection:
            reader.acknowledged = max(reader.acknowledged, received)
        self.obey(self.book.credit(self.connection, number, received, credit))

    @rule(frames=st.integers(1, 5))
    def receive(self, frames: int) -> None:
        for _ in range(frames):
            send = self.book.next_send(self.connection)
            if send is None:
                self.awake = False
                return
            assert self.awake, "there was something to send that nobody was told of"
            assert send.connection == self.connection
            self.take(send)

    def take(self, send: SendChunk | SendHashes | SendEnd | SendFail) -> None:
        reader = self.readers[send.attempt]
        match send:
            case SendHashes(_, _, start, found):
                assert reader.verified == start
                np.testing.assert_array_equal(found, hashes(start, start + len(found)))
                reader.verified = start + len(found)
                assert reader.verified <= reader.first
            case SendChunk(_, _, piece):
                assert reader.verified in (None, reader.first)
                assert piece.start == reader.received
                assert piece.stop > piece.start
                reader.received = piece.stop
            case SendEnd(_, attempt, found_digest):
                assert found_digest == digest(7 * attempt % 23)
                assert found_digest.count == reader.received
                reader.end = found_digest
            case SendFail(_, attempt, code, _):
                # Everything that the client did not acknowledge is there, if the attempt is.
                assert code == GONE
                assert attempt not in self.listed or reader.gone

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for number, reader in self.readers.items():
            reader.gone |= number not in self.listed
        self.obey(self.book.tick(self.now))

    @invariant()
    def what_is_made_again_is_counted(self) -> None:
        begun = {p.attempt: p.restored for p in self.runs.values() if p.restored is not None}
        for held in self.book.held():
            again = max(0, self.readers[held.attempt].had - held.restored)
            if held.attempt in begun:
                assert held.restored == begun[held.attempt]
                fetched = self.book._attempts[held.attempt].wanted is not None
                assert held.recomputed == (again if fetched else 0)
            assert held.recomputed in (0, again)

    @invariant()
    def memory_is_bounded(self) -> None:
        one = held_bytes(FakePiece(0, LARGEST, SIZE))
        held = 0
        for attempt in self.book._attempts.values():
            attempt.buffer.validate()
            # The share may have been larger when it was filled: it never was above the limit.
            assert attempt.buffer.nbytes <= LIMIT
            held += attempt.buffer.nbytes
        assert held <= LIMIT * (1 + 1 / 2 + 1 / 3) + ATTEMPTS * one

    @invariant()
    def blocked_runs_have_something_to_be_fetched_or_wait_for_one_that_is_not(self) -> None:
        waiting = {run for run in self.runs if not self.book.in_turn(run)}
        if waiting:
            first = {run for run in self.runs if self.book._runs[run].replaying} - waiting
            assert first
            assert not any(self.runs[run].blocked for run in first)
        for run, producer in self.runs.items():
            assert producer.blocked == (not self.book.may_produce(run))
            if producer.blocked and run not in waiting:
                assert self.book._runs[run].buffer.nbytes > 0

    def teardown(self) -> None:
        """Whatever happened, who goes on reading gets the rest; then a stop frees everything."""
        self.connect()
        for number in self.listed:
            self.finish(number)
        self.listed.clear()
        self.list_again()
        assert not self.runs
        assert not self.book.held()
        assert not self.book._runs

    def finish(self, number: int) -> None:
        reader = self.readers[number]
        if reader.end is not None or reader.gone:
            return
        reader.connection, reader.first, reader.verified = self.connection, reader.received, None
        self.obey(
            self.book.fetch(self.connection, number, reader.received, 1 << 30, False, self.now)
        )
        for _ in range(200):
            for run in [r for r, p in self.runs.items() if p.attempt == number and not p.blocked]:
                producer = self.runs[run]
                producer.restored = producer.restored or 0
                if producer.made == producer.length:
                    del self.runs[run]
                    self.obey(self.book.ended(run, digest(producer.length)))
                    continue
                stop = min(producer.made + 2, producer.length)
                self.obey(self.book.produced(run, FakePiece(producer.made, stop, SIZE, number)))
                producer.made = stop
                producer.blocked = not self.book.may_produce(run)
            self.receive(5)
            self.obey(self.book.credit(self.connection, number, reader.received, 0))
        assert reader.end is not None
        assert reader.received == 7 * number % 23


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
