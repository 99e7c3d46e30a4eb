"""Groups of consumers in the simulation: they commit, die, are resized, and account for each lane.

What is true is known for each lane by itself: it is a sequence of elements over all epochs, and
whoever owns it gets its next ones, from where it was committed. So the witness counts how far each
lane was given, sent as a commit and acknowledged, and needs nothing of how penstock puts positions
together.
"""

from __future__ import annotations

import dataclasses
import random
from collections import defaultdict
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from penstock.client.positions import Counting, Positions, Rate
from penstock.client.starts import Start
from penstock.errors import PenstockError, SeatTakenError
from penstock.proto import control_pb2
from penstock.proto.deal import deal
from penstock.proto.position import Consumer, Position
from penstock.proto.seats import GroupPosition, owned

from .checks import Witness, check
from .client import SimTrainer
from .clock import START_S
from .data import Pipeline
from .setup import Setup
from .world import World

if TYPE_CHECKING:
    from collections.abc import Callable

_OFTEN = 0.2
_DIES = 0.7
_GROUP = "group"


class Lanes:
    """What every lane of a pipeline gives, and how far each is known to be."""

    def __init__(self, pipeline: Pipeline, epochs: int) -> None:
        self.count = pipeline.lanes
        self.truth: list[list[tuple[int, int, int]]] = [[] for _ in range(self.count)]
        #: By (lane, epoch): the index in `truth` at which each split begins, and the end.
        self.begins: dict[tuple[int, int], list[int]] = {}
        self.lane_of: dict[tuple[int, int], int] = {}
        self.acknowledged = [0] * self.count
        self.committing = [0] * self.count
        self.starts: dict[int, list[int]] = {}
        for epoch in range(epochs):
            dealt = deal(
                len(pipeline.sizes),
                pipeline.lanes,
                seed=pipeline.seed,
                epoch=epoch,
                weights=pipeline.weights,
                ordered=pipeline.ordered,
            )
            for lane, splits in enumerate(dealt):
                values = [pipeline.values(epoch, split) for split in splits]
                begin = len(self.truth[lane])
                self.begins[lane, epoch] = list(accumulate(map(len, values), initial=begin))
                for split, given in zip(splits, values, strict=True):
                    self.lane_of[epoch, split] = lane
                    self.truth[lane] += [(epoch, split, value) for value in given]

    def index(self, lane: int, epoch: int, splits: int, elements: int) -> int:
        """How many elements of a lane lie before a place."""
        if (lane, epoch) not in self.begins:
            return len(self.truth[lane])
        return self.begins[lane, epoch][splits] + elements

    def begun(self, generation: int, text: str) -> None:
        """A generation begins there: what was acknowledged is before it, and nothing else."""
        places = GroupPosition.parse(text).places if text else ()
        start = [0] * self.count
        for lane, place in enumerate(places):
            start[lane] = self.index(lane, place.epoch, place.cursor.splits, place.cursor.elements)
        new = generation not in self.starts
        known = self.starts.setdefault(generation, start)
        check(known == start, f"generation {generation} begins at {known}, and at {start}")
        check(max(self.starts) == generation, f"generation {generation} comes late")
        for lane in range(self.count) if new else ():
            bounds = (self.acknowledged[lane], self.committing[lane])
            check(
                bounds[0] <= start[lane] <= bounds[1],
                f"lane {lane} of generation {generation} begins at {start[lane]}, not in {bounds}",
            )

    def sent(self, reached: dict[int, int]) -> None:
        """These places are to be committed."""
        for lane, index in reached.items():
            self.committing[lane] = max(self.committing[lane], index)

    def answered(self, generation: int, reached: dict[int, int]) -> None:
        """They are; a later generation, if there is one, knows of them."""
        for lane, index in reached.items():
            self.acknowledged[lane] = max(self.acknowledged[lane], index)
            later = [start[lane] for number, start in self.starts.items() if number > generation]
            check(all(index <= start for start in later), f"a resize lost a commit of lane {lane}")


class LaneWitness(Witness):
    """What one life of a consumer gets, lane by lane."""

    def __init__(self, pipeline: Pipeline, lanes: Lanes) -> None:
        super().__init__(pipeline)
        self.lanes = lanes
        self.taken: list[int] = []  # the lane of each element
        self.first: dict[int, int] = {}
        self.reached: dict[int, int] = {}

    def seated(self, consumer: Consumer, origin: Position | None) -> None:
        """It begins at its own commit, or where its generation began."""
        start = self.lanes.starts[consumer.generation]
        self.taken = []
        self.reached = {lane: start[lane] for lane in owned(consumer, self.lanes.count)}
        stream = origin.streams[0] if origin is not None else None
        for lane in self.reached if stream is not None else ():
            assert stream is not None
            cursor = stream.cursors[lane] if stream.cursors else None
            at = (cursor.splits, cursor.elements) if cursor is not None else (0, 0)
            index = self.lanes.index(lane, stream.epoch, *at)
            self.reached[lane] = max(self.reached[lane], index)
        self.first = dict(self.reached)
        for lane, index in self.reached.items():
            bounds = (self.lanes.acknowledged[lane], self.lanes.committing[lane])
            check(bounds[0] <= index <= bounds[1], f"lane {lane} goes on at {index}, not {bounds}")

    def begin(self, epoch: int, resumed_at: int | None = None) -> None:
        self.epoch = epoch

    def given(self, split: int, values: tuple[int, ...]) -> None:
        lane = self.lanes.lane_of[self.epoch, split]
        check(lane in self.reached, f"lane {lane} is another consumer's")
        at = self.reached[lane]
        wanted = self.lanes.truth[lane][at : at + len(values)]
        came = [(self.epoch, split, value) for value in values]
        check(came == wanted, f"lane {lane}, element {at}: {came} came, not {wanted}")
        self.reached[lane] += len(values)
        self.taken += [lane] * len(values)
        self.elements += len(values)

    def end(self, said: Any) -> None:
        for lane, at in self.reached.items():
            end = self.lanes.begins[lane, self.epoch][-1]
            check(at >= end, f"epoch {self.epoch} ended at {at} of {end} in lane {lane}")
        self.epochs_finished.append(self.epoch)

    def after(self, consumed: int) -> dict[int, int]:
        """How far its lanes are when so many elements were taken in this life."""
        counts: dict[int, int] = defaultdict(int)
        for lane in self.taken[:consumed]:
            counts[lane] += 1
        return {lane: first + counts[lane] for lane, first in self.first.items()}


class ConsumerCommits:
    """Commits of one life of a consumer, now and then."""

    def __init__(self, trainer: SimConsumer) -> None:
        self.origin: Position | None = None
        self.start = None
        self._trainer = trainer
        self._rng = random.Random(f"{trainer.world.seed} {trainer.client}")
        self._last = 0
        self._sequence = 0
        self._busy = False

    def find(self, then: Callable[[list[int]], None]) -> None:
        """It learns where to go on when it is seated."""
        then([])

    def resumed_at(self, epoch: int) -> int | None:
        return None

    def consider(self) -> None:
        """Something was taken: commits some of it, perhaps."""
        trainer, engine = self._trainer, self._trainer.engine
        assert engine is not None
        consumer = engine.history.job.consumer
        assert consumer is not None
        if self._busy or self._rng.random() > _OFTEN:
            return
        witness = trainer.lane_witness
        consumed = self._last = self._rng.randint(self._last, len(witness.taken))
        counting = Counting(witness.pipeline.fingerprint, (Rate(),))
        position = Positions(engine.history, counting, self.origin, rebuilt=True).at(
            consumed, None, 1
        )
        reached = witness.after(consumed)
        witness.lanes.sent(reached)
        self._sequence += 1
        self._busy = True
        request = control_pb2.CommitPositionRequest(
            job=engine.history.job.job,
            client=trainer.client,
            term=engine._term,
            sequence=self._sequence,
            epoch=position.epoch,
            consumed=position.consumed,
            position=str(position),
        )

        def done(reply: control_pb2.CommitPositionReply) -> None:
            self._busy = False
            trainer.world.check(witness.lanes.answered, consumer.generation, reached)

        trainer.call("CommitPosition", request, done)


class SimConsumer(SimTrainer):
    """One life of one of several consumers."""

    lane_witness: LaneWitness
    seat: tuple[int, int]

    def commits(self) -> None:
        """It commits as consumers do."""
        self.lane_witness = self.witness  # type: ignore[assignment]
        self._own = ConsumerCommits(self)
        self._commits = self._own  # type: ignore[assignment]

    def _request(
        self, announced: control_pb2.AnnounceClientReply, epochs: list[int]
    ) -> control_pb2.OpenJobRequest:
        request = super()._request(announced, epochs)
        rank, world = self.seat
        request.job_name = _GROUP
        request.consumer.CopyFrom(control_pb2.Consumer(rank=rank, world=world, restore=True))
        return request

    def _opened(self, reply: Any) -> None:
        if self.engine is None and not self.finished:
            consumer = self._consumer(reply)
            assert consumer is not None
            self.world.check(self.lane_witness.lanes.begun, reply.generation, reply.group_position)
            self._own.origin = Position.parse(reply.position) if reply.position else None
            self.world.check(self.lane_witness.seated, consumer, self._own.origin)
            super()._opened(reply)

    def _consumer(self, reply: control_pb2.OpenJobReply) -> Consumer | None:
        return Consumer(*self.seat, reply.generation)

    def _start(self, reply: control_pb2.OpenJobReply) -> Start:
        origin = self._own.origin
        return Start(
            None if origin is None else origin.streams,
            self._consumer(reply),
            GroupPosition.parse(reply.group_position) if reply.group_position else None,
        )

    def _fail(self, error: PenstockError) -> None:
        if isinstance(error, SeatTakenError) and self.engine is None and not self.finished:
            self.process.after(self.world.setup.timing.heartbeat_s, self._announce)
            return
        super()._fail(error)


class GroupWorld(World):
    """A run of one group, whose consumers become more and fewer."""

    again = "one_group"

    def choose(self) -> Setup:
        setup = super().choose()
        (first, *_) = setup.pipelines
        lanes = max(2, first.lanes)
        # Its failures are other tests' subject; here all epochs are to be read to their ends.
        # Elements that always raise are left out, after some attempts.
        patience = first.attempts_max if first.bad else 1000
        pipeline = dataclasses.replace(first, name=_GROUP, lanes=lanes, attempts_max=patience)
        normal, node, restart, _, late = setup.answers
        answers = (normal, node, restart, 0, late)  # nothing is aborted
        return dataclasses.replace(
            setup, pipelines=(pipeline,), journal_lost=False, answers=answers
        )

    def start_trainers(self) -> None:
        (pipeline,) = self.setup.pipelines
        self._pipeline = pipeline
        self._seats: dict[str, tuple[int, int]] = {}
        self._lanes = Lanes(pipeline, self.setup.epochs)
        self._names: list[str] = []
        self._resizes = 0
        self._resize()
        until_s = self.setup.calm_s or 10.0
        for _ in range(self.rng.choice((1, 2, 4))):
            self.clock.at(START_S + self.rng.random() * until_s, None, self._resize)

    def trainer(self, name: str, witness: Witness) -> SimTrainer:
        consumer = SimConsumer(self, name, LaneWitness(self._pipeline, self._lanes))
        consumer.seat = self._seats[name]
        consumer.commits()
        return consumer

    def _resize(self) -> None:
        """Other consumers come; some of the former ones live on, and must be refused."""
        if self.trainers and all(trainer.finished for trainer in self.trainers.values()):
            return
        former = [self.trainers[name] for name in self._names]
        for trainer in former:
            trainer.finished = True
            if trainer.engine is None or self.rng.random() < _DIES:
                self.kill(trainer.process)
        worlds = [n for n in range(1, self._pipeline.lanes + 1) if n != len(former)]
        self._resizes += 1
        world = self.rng.choice(worlds)
        self.trace("resize to", world)
        self._names = [f"{_GROUP}.{self._resizes}.{rank}" for rank in range(world)]
        for rank, name in enumerate(self._names):
            self._seats[name] = (rank, world)
            self.start_trainer(name, Witness(self._pipeline))
