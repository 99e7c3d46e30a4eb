"""The core against a model of workers: the sequence is always the reference's (G1, G3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.client.events import (
    GONE,
    Credit,
    Delivery,
    Done,
    EndOfEpoch,
    Fail,
    Fetch,
    Instruction,
    Placed,
    Release,
)
from penstock.client.lanes import EpochCore
from penstock.proto.chunk import Chunk
from penstock.proto.hashing import DigestBuilder

WORKERS = ("a", "b", "c")
ELEMENT_BYTES = 8
CHUNK_MAX = 6


@dataclass
class Serving:
    """A worker's side of an open fetch."""

    worker: str
    split: int
    at: int
    credit: int
    hashes_at: int | None


def reference(lanes: list[list[int]], counts: dict[int, int], block: int) -> list[tuple[int, int]]:
    """The order that docs/protocol.md prescribes, written down as plainly as possible."""
    queues = [[(split, i) for split in lane for i in range(counts[split])] for lane in lanes]
    sequence: list[tuple[int, int]] = []
    while any(queues):
        for queue in queues:
            sequence += queue[:block]
            del queue[:block]
    return sequence


class Workers(RuleBasedStateMachine):
    """Random chunking, deaths, replays, stale attempts, reconnects, repeated and lost views."""

    @initialize(
        shape=st.lists(st.lists(st.integers(0, 12), max_size=4), min_size=1, max_size=4),
        block=st.integers(1, 5),
        deterministic=st.booleans(),
        limit=st.sampled_from([1, 100, 1000, 100_000]),
    )
    def open(self, shape: list[list[int]], block: int, deterministic: bool, limit: int) -> None:
        self.counts: dict[int, int] = {}
        self.lanes: list[list[int]] = []
        for lane in shape:
            numbers = [len(self.counts) + i for i in range(len(lane))]
            self.counts.update(zip(numbers, lane, strict=True))
            self.lanes.append(numbers)
        self.limit = limit
        self.deterministic = deterministic
        self.core = EpochCore(self.lanes, block, deterministic=deterministic, memory_limit=limit)
        self.expected = reference(self.lanes, self.counts, block)
        self.delivered: list[tuple[int, int]] = []
        self.view: dict[int, Placed] = {}
        self.serving: dict[int, Serving] = {}
        self.old_attempts: list[tuple[int, int]] = []
        self.up: set[str] = set()
        self.done: set[int] = set()
        self.next_attempt = 1
        self.ended = False

    def chunk(self, split: int, start: int, stop: int) -> Chunk:
        return Chunk.from_stacked(start, [np.arange(start, stop) + 1000 * split])

    def carry_out(self, instructions: list[Instruction]) -> None:
        for item in instructions:
            assert not isinstance(item, Fail), item.error
            if isinstance(item, Fetch):
                placed = next(p for p in self.view.values() if p.attempt == item.attempt)
                assert item.worker == placed.worker
                assert item.worker in self.up
                assert item.attempt not in self.serving
                self.serving[item.attempt] = Serving(
                    item.worker,
                    placed.split,
                    item.start,
                    item.credit,
                    0 if item.verify else None,
                )
            elif isinstance(item, Credit):
                assert item.credit >= 0
                if item.attempt in self.serving:
                    self.serving[item.attempt].credit += item.credit
            elif isinstance(item, Release):
                del self.serving[item.attempt]
            elif isinstance(item, Done):
                assert item.split not in self.done
                self.done.add(item.split)
                del self.view[item.split]

    def send_view(self) -> None:
        self.carry_out(self.core.placements(list(self.view.values())))

    def place(self, split: int, worker: str) -> None:
        if split in self.view:
            self.old_attempts.append((self.view[split].attempt, split))
        self.view[split] = Placed(split, self.next_attempt, worker)
        self.next_attempt += 1
        self.send_view()

    @rule(data=st.data(), worker=st.sampled_from(WORKERS))
    def place_a_split(self, data: Any, worker: str) -> None:
        left = sorted(set(self.counts) - self.done)
        if left:
            self.place(data.draw(st.sampled_from(left)), worker)

    @rule(data=st.data())
    def unplace_a_split(self, data: Any) -> None:
        if self.view:
            placed = self.view.pop(data.draw(st.sampled_from(sorted(self.view))))
            self.old_attempts.append((placed.attempt, placed.split))
            self.send_view()

    @rule()
    def repeat_the_view(self) -> None:
        self.send_view()

    @rule(worker=st.sampled_from(WORKERS))
    def connect(self, worker: str) -> None:
        if worker not in self.up:
            self.up.add(worker)
            self.carry_out(self.core.connected(worker))

    @rule(worker=st.sampled_from(WORKERS))
    def lose(self, worker: str) -> None:
        self.up.discard(worker)
        self.serving = {a: s for a, s in self.serving.items() if s.worker != worker}
        self.carry_out(self.core.lost(worker, "lost"))

    @precondition(lambda self: self.serving)
    @rule(data=st.data(), length=st.integers(1, CHUNK_MAX))
    def serve(self, data: Any, length: int) -> None:
        self.serve_once(data.draw(st.sampled_from(sorted(self.serving))), length)

    def serve_once(self, attempt: int, length: int) -> bool:
        serving = self.serving[attempt]
        count = self.counts[serving.split]
        if serving.hashes_at is not None:
            start, stop = serving.hashes_at, min(serving.hashes_at + length, serving.at)
            serving.hashes_at = None if stop == serving.at else stop
            hashes = self.chunk(serving.split, start, stop).hashes
            self.carry_out(self.core.hashes(attempt, start, hashes))
        elif serving.at < count:
            if serving.credit <= 0:
                return False
            start, stop = serving.at, min(serving.at + length, count)
            nbytes = ELEMENT_BYTES * (stop - start)
            serving.at, serving.credit = stop, serving.credit - nbytes
            self.carry_out(self.core.chunk(attempt, self.chunk(serving.split, start, stop), nbytes))
        else:
            builder = DigestBuilder()
            builder.update(self.chunk(serving.split, 0, count).hashes)
            del self.serving[attempt]
            self.carry_out(self.core.end(attempt, builder.digest()))
        return True

    @precondition(lambda self: self.serving)
    @rule(data=st.data(), code=st.sampled_from([GONE, "PIPELINE"]))
    def fail(self, data: Any, code: str) -> None:
        attempt = data.draw(st.sampled_from(sorted(self.serving)))
        del self.serving[attempt]
        self.carry_out(self.core.fail(attempt, code, "no"))

    @precondition(lambda self: self.old_attempts)
    @rule(data=st.data(), length=st.integers(1, 5))
    def stale_frames_change_nothing(self, data: Any, length: int) -> None:
        attempt, split = data.draw(st.sampled_from(self.old_attempts))
        builder = DigestBuilder()
        assert self.core.chunk(attempt, self.chunk(split, 0, length), 8) == []
        assert self.core.hashes(attempt, 0, self.chunk(split, 5, 6).hashes) == []
        assert self.core.end(attempt, builder.digest()) == []
        assert self.core.fail(attempt, GONE, "stale") == []
        assert self.core.corrupt(attempt, "stale") == []

    @rule(count=st.integers(1, 20))
    def take(self, count: int) -> None:
        self.take_once(count)

    def take_once(self, count: int) -> bool:
        taken, instructions = self.core.take(count)
        self.carry_out(instructions)
        if isinstance(taken, Delivery):
            assert not self.ended
            got = [
                (piece.split, index)
                for piece in taken.each_piece()
                for index in range(piece.chunk.start, piece.chunk.stop)
            ]
            for piece in taken.each_piece():
                part = self.chunk(piece.split, piece.chunk.start, piece.chunk.stop)
                assert np.array_equal(piece.chunk.compute_hashes(), part.hashes)
            assert 1 <= len(got) <= count
            self.delivered += got
        elif isinstance(taken, EndOfEpoch):
            assert self.done == set(self.counts)
            assert taken.digest.count == len(self.expected)
            self.ended = True
        return isinstance(taken, Delivery)

    @invariant()
    def the_sequence_is_the_reference(self) -> None:
        if self.deterministic:
            assert self.delivered == self.expected[: len(self.delivered)]
        else:
            for split in self.counts:
                indices = [index for number, index in self.delivered if number == split]
                assert indices == list(range(len(indices)))
        if self.ended:
            assert sorted(self.delivered) == sorted(self.expected)

    @invariant()
    def credit_and_buffers_stay_within_the_limit(self) -> None:
        received = sum(state.buffered for state in self.core._splits.values())
        granted = sum(max(0, serving.credit) for serving in self.serving.values())
        # The last chunk of each split may exceed its window, which is 1 byte at least.
        excess = (ELEMENT_BYTES * CHUNK_MAX + 1) * len(self.counts)
        assert received + granted <= self.limit + excess

    def teardown(self) -> None:
        """From any state on, workers that work finish the epoch."""
        if not hasattr(self, "core"):
            return
        for worker in WORKERS:
            self.connect(worker)
        for split in sorted(set(self.counts) - self.done):
            self.place(split, WORKERS[split % len(WORKERS)])
        moved = True
        while moved:
            moved = self.take_once(7)
            for attempt in list(self.serving):
                if attempt in self.serving:
                    moved = self.serve_once(attempt, CHUNK_MAX) or moved
            self.credit_and_buffers_stay_within_the_limit()
        self.take_once(1)
        assert self.ended
        assert sorted(self.delivered) == sorted(self.expected)
        self.the_sequence_is_the_reference()


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
