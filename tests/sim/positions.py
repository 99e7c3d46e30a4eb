"""A simulated trainer's positions: committed now and then, and where its next life goes on.

Every second pipeline commits, and its trainers die now and then after a commit. What was given up
to a commit is remembered by the witness, which a resumed epoch is put together with.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from penstock.client.positions import Counting, Positions, Rate
from penstock.proto import control_pb2
from penstock.proto.position import Position, StreamPosition

if TYPE_CHECKING:
    from .client import SimTrainer

_OFTEN = 0.15
_DEATHS = 0.2
_DEATHS_MAX = 3


class Commits:
    """The commits of one life of a trainer.

    Args:
        trainer: whose.

    Attributes:
        start: where this life goes on; None at the job's next epoch.
    """

    def __init__(self, trainer: SimTrainer) -> None:
        self.start: Sequence[StreamPosition] | None = None
        self._trainer = trainer
        self._witness = trainer.witness
        self._wanted = self._witness.pipeline.seed % 2 == 0
        # Of its own, so that it does not change what else a seed brings.
        self._rng = random.Random(f"{trainer.world.seed} {trainer.client}")
        self._origin: Position | None = None
        self._taken = 0
        self._last = 0
        self._sequence = 0
        self._busy = False

    def find(self, then: Callable[[list[int]], None]) -> None:
        """Asks for what was committed, and says which epochs come next; none if nothing was."""
        if not self._wanted:
            then([])
            return

        def found(reply: control_pb2.GetPositionReply) -> None:
            if reply.position:
                at = self._origin = Position.parse(reply.position)
                self.start = at.streams
                world = self._trainer.world
                world.check(self._witness.resumes, at.epoch, at.consumed)
                then([at.epoch])
            else:
                self._trainer.world.check(self._witness.resumes, 0, 0)
                then([])

        request = control_pb2.GetPositionRequest(job_name=self._trainer.name)
        self._trainer.call("GetPosition", request, found)

    def resumed_at(self, epoch: int) -> int | None:
        """How much of an epoch that begins was consumed before; None if it begins anew."""
        origin = self._origin
        return origin.consumed if origin is not None and origin.epoch == epoch else None

    def consider(self) -> None:
        """Something was taken: commits some of it, perhaps."""
        trainer, engine = self._trainer, self._trainer.engine
        assert engine is not None
        if not self._wanted or self._busy or self._rng.random() > _OFTEN:
            return
        pipeline = self._witness.pipeline
        delivered = len(self._witness.given_so_far)
        (visit,) = (v for v in engine.history.visits(0) if v.epoch == self._witness.epoch)
        assert visit.delivered == delivered
        positions = Positions(
            engine.history, Counting(pipeline.fingerprint, (Rate(),)), self._origin, rebuilt=True
        )
        least = self._last if self._taken == self._witness.epoch else visit.base
        consumed = self._rng.randint(max(least, visit.base), delivered)
        position = positions.at(consumed, self._witness.epoch, 1)
        self._taken, self._last = self._witness.epoch, consumed
        self._witness.committing(self._witness.epoch, consumed)
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
            self._witness.committed(position.epoch, position.consumed)
            if self._rng.random() < _DEATHS and self._witness.deaths < _DEATHS_MAX:
                self._witness.deaths += 1
                delay_s = self._rng.random()
                restart = trainer.world.faults.restart_trainer
                trainer.process.after(delay_s, restart, trainer.name, delay_s)

        trainer.call("CommitPosition", request, done)
