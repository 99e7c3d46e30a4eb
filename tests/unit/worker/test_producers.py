"""The producing threads, without TensorFlow."""

from __future__ import annotations

import threading

from penstock.proto.hashing import DigestBuilder
from penstock.worker.messages import Assignment
from penstock.worker.producers import Outlet, Producers


def test_the_end_is_told_before_the_iterator_is_freed() -> None:
    told: list[str] = []
    freed = threading.Event()

    class SlowToFree:
        def __del__(self) -> None:
            told.append("freed")
            freed.set()

    class Sink:
        def end(self, run: int, digest: object) -> None:
            told.append("end")

    def produce(assignment: Assignment, outlet: Outlet) -> object:
        outlet.hold(SlowToFree())
        return DigestBuilder().digest()

    producers = Producers(produce, 1.0)
    producers.connect(Sink())
    producers.start(Assignment(1, "j1", 0, 0, 0, "d"), run=1)
    assert freed.wait(60)
    assert told == ["end", "freed"]
