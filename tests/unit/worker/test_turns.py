"""What has to be made again is made in the order in which the client asks for it."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.worker.attempts import AttemptBook
from penstock.worker.messages import CursorKnown, ResumeProducing, StopAttempt

from .books import GRACE_S, connected, fetch, sends, started
from .fakes import FakePiece, assignment, digest

NONE = np.empty(0, np.uint64)


@pytest.fixture
def after_failure() -> AttemptBook:
    """Five attempts that were assigned after a failure."""
    book = AttemptBook(1 << 20, GRACE_S)
    connected(book, 1)
    started(book, 1, 2, 3, 4, 5)
    return book


def begun(book: AttemptBook, *attempts: int, first: int = 20) -> None:
    """Runs that have begun, whose client asks in that order, and that have made something."""
    for attempt in attempts:
        book.began(attempt, NONE)
    for attempt in attempts:
        fetch(book, attempt=attempt, first=first, verify=True)
    for attempt in attempts:
        book.produced(attempt, FakePiece(0, 10))


def going(book: AttemptBook) -> list[int]:
    """The runs that may make their next piece."""
    return [run for run in range(1, 6) if book.may_produce(run)]


def test_replays_take_turns_in_the_order_of_the_fetches(after_failure: AttemptBook) -> None:
    book = after_failure
    begun(book, 4, 2, 5, 1, 3)
    assert going(book) == [4]
    assert ResumeProducing(2) in book.produced(4, FakePiece(10, 20))
    assert going(book) == [2, 4]  # 4 has nothing that its client has not
    assert ResumeProducing(5) in book.produced(2, FakePiece(10, 25))
    book.produced(2, FakePiece(25, 30))
    assert going(book) == [4, 5]  # 2 has


def test_whoever_ends_fails_or_is_not_wanted_makes_room_for_the_next(
    after_failure: AttemptBook,
) -> None:
    book = after_failure
    begun(book, 1, 2, 3, 4, 5)
    assert ResumeProducing(2) in book.failed(1, "PIPELINE", "bad")
    assert ResumeProducing(3) in book.ended(2, digest(10))
    assert book.release(1, 3) == [StopAttempt(3), ResumeProducing(4)]
    assert ResumeProducing(5) in book.desired([assignment(5)])


def test_a_broken_connection_stops_nobody(after_failure: AttemptBook) -> None:
    book = after_failure
    begun(book, 1, 2, 3)
    assert book.closed(1) == [ResumeProducing(2), ResumeProducing(3)]


def test_what_is_ahead_of_its_client_comes_after_what_is_behind(
    after_failure: AttemptBook,
) -> None:
    book = after_failure
    begun(book, 2, 3)
    begun(book, 1, first=0)
    book.produced(4, FakePiece(0, 10))  # nobody has asked for it yet
    assert going(book) == [2, 5]  # 5 has nothing for its client
    sends(book)
    assert ResumeProducing(1) in book.credit(1, 1, 10, 0)  # its client has taken it: it is needed
    book.produced(1, FakePiece(10, 20))
    assert ResumeProducing(3) in book.produced(2, FakePiece(10, 20))
    resumed = book.produced(3, FakePiece(10, 20))
    assert {ResumeProducing(1), ResumeProducing(4)} <= set(resumed)
    assert going(book) == [1, 2, 3, 4, 5]


def test_idle_processors_let_more_of_them_go_on_until_all_have_caught_up(
    after_failure: AttemptBook,
) -> None:
    book = after_failure
    begun(book, 1, 2, 3, 4, 5)
    assert book.idle() == [ResumeProducing(2)]
    assert book.idle() == [ResumeProducing(3), ResumeProducing(4)]
    assert book.idle() == [ResumeProducing(5)]
    assert book.idle() == []
    for attempt in (1, 2, 3, 4, 5):
        book.produced(attempt, FakePiece(10, 20))
    book.desired([assignment(number) for number in (6, 7)])
    begun(book, 6, 7)
    assert [book.in_turn(run) for run in (6, 7)] == [True, False]


def test_a_run_begins_in_its_turn(after_failure: AttemptBook) -> None:
    book = after_failure
    assert CursorKnown(1) in fetch(book, attempt=1, first=10)
    assert CursorKnown(2) not in fetch(book, attempt=2, first=10)
    assert [book.cursor(run) for run in (1, 2, 3)] == [10, None, None]
    waits = {held.attempt: held.waiting for held in book.held()}
    assert waits == {1: False, 2: True, 3: True, 4: True, 5: True}
    book.began(1, NONE)
    assert CursorKnown(2) in book.produced(1, FakePiece(0, 10))
    assert book.cursor(2) == 10


def test_who_was_called_begins_though_its_client_asks_again_meanwhile(
    after_failure: AttemptBook,
) -> None:
    book = after_failure
    for attempt in (1, 2):
        fetch(book, attempt=attempt, first=10)
    assert book.closed(1) == [CursorKnown(2)]
    connected(book, 2)
    for attempt in (1, 2):
        assert CursorKnown(attempt) not in fetch(book, 2, attempt, first=10)
    assert [book.cursor(run) for run in (1, 2)] == [10, 10]


def test_who_only_reads_a_segment_takes_no_turn_and_makes_nobody_wait(
    after_failure: AttemptBook,
) -> None:
    book = after_failure
    book.reads(2, True)
    begun(book, 2, 1, 3)
    assert going(book) == [1, 2, 4, 5]
    book.reads(2, False)  # its segment was damaged: it makes the rest
    book.produced(2, FakePiece(10, 15))
    assert going(book) == [1, 4, 5]
