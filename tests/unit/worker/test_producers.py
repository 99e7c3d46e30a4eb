"""The producing threads, without TensorFlow."""

from __future__ import annotations

import threading

from penstock.proto.hashing import DigestBuilder
from penstock.worker.attempts import AttemptBook
from penstock.worker.exchange import Exchange
from penstock.worker.messages import PIPELINE, Assignment, AttemptError
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


def test_what_can_wait_is_done_after_the_end_was_told_and_not_in_a_run_that_is_stopped() -> None:
    told: list[str] = []
    done = threading.Event()

    class Sink:
        def end(self, run: int, digest: object) -> None:
            told.append(f"end {run}")
            if run == 1:
                producers.stop(1)

    def produce(assignment: Assignment, outlet: Outlet) -> object:
        outlet.later(lambda: told.append(f"later {assignment.attempt}"))
        outlet.later(done.set)
        return DigestBuilder().digest()

    producers = Producers(produce, 1.0)
    producers.connect(Sink())
    for run in (1, 2):
        producers.start(Assignment(run, "j1", 0, 0, 0, "d"), run=run)
    assert done.wait(60)
    assert producers.close(60) == []
    assert sorted(told) == ["end 1", "end 2", "later 2"]
    assert told.index("end 2") < told.index("later 2")


def test_whoever_closes_waits_for_what_is_done_after_the_end() -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Sink:
        def end(self, run: int, digest: object) -> None:
            pass

    def slow() -> None:
        begun.set()
        assert go_on.wait(60)

    def produce(assignment: Assignment, outlet: Outlet) -> object:
        outlet.later(slow)
        return DigestBuilder().digest()

    producers = Producers(produce, 1.0)
    producers.connect(Sink())
    producers.start(Assignment(1, "j1", 0, 0, 0, "d"), run=1)
    assert begun.wait(60)
    assert producers.close(0.01) == ["penstock-attempt-1"]
    go_on.set()
    assert producers.close(60) == []


def test_what_led_to_a_failure_is_held_for_the_dispatcher() -> None:
    failed = threading.Event()

    def produce(assignment: Assignment, outlet: Outlet) -> None:
        try:
            raise KeyError("label")
        except KeyError as error:
            raise AttemptError(PIPELINE, "split 0, element 3", 3) from error

    producers = Producers(produce, 1.0)
    exchange = Exchange(
        AttemptBook(1 << 20, 1.0), producers.start, producers.stop, report=failed.set
    )
    producers.connect(exchange)
    exchange.set_desired([Assignment(1, "j1", 0, 0, 0, "d")])
    assert failed.wait(60)
    (held,) = exchange.held()
    assert (held.code, held.detail, held.element) == (PIPELINE, "split 0, element 3", 3)
    assert held.exceptions == ("KeyError: 'label'",)
