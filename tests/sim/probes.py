"""A simulated worker's probes: what is true of a split, after a while, or a failure by the dice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from penstock.proto import control_pb2
from penstock.proto.hashing import DigestBuilder
from penstock.worker.messages import Assignment

from .data import SimChunk, value_of

if TYPE_CHECKING:
    from .worker import SimWorker

_SLOWEST_S = 2.0


class SimProbes:
    """See `worker/probes.py`."""

    def __init__(self, worker: SimWorker) -> None:
        self._worker = worker
        self._wanted: dict[int, control_pb2.ProbeResult | None] = {}

    def set_wanted(self, assignments: Iterable[Assignment]) -> None:
        """Exactly these are wanted."""
        wanted = {assignment.attempt: assignment for assignment in assignments}
        self._wanted = {number: self._wanted.get(number) for number in wanted}
        for number, result in self._wanted.items():
            if result is None:
                delay_s = self._worker.world.rng.random() * _SLOWEST_S
                self._worker.process.after(delay_s, self._end, wanted[number])

    def results(self) -> list[control_pb2.ProbeResult]:
        """What is known of them."""
        return [result for result in self._wanted.values() if result is not None]

    def _end(self, at: Assignment) -> None:
        if self._wanted.get(at.attempt, at) is not None:
            return  # not wanted any more, or ended
        world = self._worker.world
        pipeline = world.pipelines[at.dataset]
        numbers = [n for n in range(pipeline.sizes[at.split]) if n not in at.bad]
        result = control_pb2.ProbeResult(probe=at.attempt, detail="by the dice")
        if world.rng.random() >= 0.3 and not {(at.split, n) for n in numbers} & pipeline.bad:
            builder = DigestBuilder()
            values = [value_of(at.seed, at.epoch, at.split, n) for n in numbers]
            builder.update(SimChunk.of(0, values).hashes)
            digest = builder.digest()
            result.digest.count, result.digest.total = digest.count, digest.total
            result.digest.chain = digest.chain
        self._wanted[at.attempt] = result
        self._worker.report()
