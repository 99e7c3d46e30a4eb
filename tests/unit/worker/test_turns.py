"""What has to be made again is made in the order in which the client asks for it."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.worker.attempts import AttemptBook
from penstock.worker.messages import CursorKnown, ResumeProducing, StopAttempt

from .books import GRACE_S, connected, fetch, started
from .fakes import FakePiece, assignment, digest

NONE = np.empty(0, np.uint64)


@pytest.fixture
def two_at_once() -> AttemptBook:
    """Five attempts that were assigned after a failure; two replays may go on at once."""
    book = AttemptBook(1 << 20, GRACE_S, replays=2)
    connected(book, 1)
    started(book, 1, 2, 3, 4, 5)
    return book


def begin(book: AttemptBook, *runs: int) -> None:
    for run in runs:
        book.began(run, NONE)


def going(book: AttemptBook) -> list[int]:
    """The runs that may make their next piece."""
    return [run for run in range(1, 6) if book.may_produce(run) and book.in_turn(run)]


def test_replays_take_turns_in_the_order_of_the_fetches(two_at_once: AttemptBook) -> None:
    book = two_at_once
    begin(book, 1, 2, 3, 4, 5)
    for attempt in (4, 2, 5, 1, 3):
        fetch(book, attempt=attempt, first=20, verify=True)
    assert going(book) == [2, 4]
    for run in (1, 2, 3, 4, 5):  # those that made something meanwhile wait after it
        book.produced(run, FakePiece(0, 10))
    assert [book.may_produce(run) for run in (1, 2, 3, 4, 5)] == [False, True, False, True, False]
    resumed = book.produced(4, FakePiece(10, 20))
    assert ResumeProducing(5) in resumed
    assert ResumeProducing(1) not in resumed
    assert book.may_produce(4)  # what it makes now its client has not


def test_whoever_ends_fails_or_is_not_wanted_makes_room_for_the_next(
    two_at_once: AttemptBook,
) -> None:
    book = two_at_once
    begin(book, 1, 2, 3, 4, 5)
    for attempt in (1, 2, 3, 4, 5):
        fetch(book, attempt=attempt, first=20)
        book.produced(attempt, FakePiece(0, 10))
    assert ResumeProducing(3) in book.failed(1, "PIPELINE", "bad")
    assert ResumeProducing(4) in book.ended(2, digest(10))
    assert book.release(1, 3) == [StopAttempt(3), ResumeProducing(5)]


def test_a_broken_connection_stops_nobody(two_at_once: AttemptBook) -> None:
    book = two_at_once
    begin(book, 1, 2, 3)
    for attempt in (1, 2, 3):
        fetch(book, attempt=attempt, first=20)
        book.produced(attempt, FakePiece(0, 10))
    assert book.closed(1) == [ResumeProducing(3)]


def test_what_its_client_has_not_is_made_without_a_turn(two_at_once: AttemptBook) -> None:
    book = two_at_once
    begin(book, 1, 2, 3, 4)
    for attempt, first in ((1, 20), (2, 20), (3, 0), (4, 0)):
        fetch(book, attempt=attempt, first=first)
        book.produced(attempt, FakePiece(0, 10))
    assert going(book) == [1, 2, 3, 4, 5]


def test_idle_processors_let_more_of_them_go_on_until_all_have_caught_up(
    two_at_once: AttemptBook,
) -> None:
    book = two_at_once
    begin(book, 1, 2, 3, 4, 5)
    for attempt in (1, 2, 3, 4, 5):
        fetch(book, attempt=attempt, first=10)
        book.produced(attempt, FakePiece(0, 5))
    assert book.idle() == [ResumeProducing(3), ResumeProducing(4)]
    assert book.idle() == [ResumeProducing(5)]
    assert book.idle() == []
    for attempt in (1, 2, 3, 4, 5):
        book.produced(attempt, FakePiece(5, 10))
    book.desired([assignment(number) for number in (6, 7, 8)])
    for attempt in (6, 7, 8):
        fetch(book, attempt=attempt, first=10)
    assert [book.in_turn(run) for run in (6, 7, 8)] == [True, True, False]


def test_a_run_that_may_restore_begins_in_its_turn(two_at_once: AttemptBook) -> None:
    book = two_at_once
    assert CursorKnown(1) in fetch(book, attempt=1, first=10)
    assert CursorKnown(2) in fetch(book, attempt=2, first=10)
    assert CursorKnown(3) not in fetch(book, attempt=3, first=10)
    assert [book.cursor(run) for run in (1, 2, 3, 4)] == [10, 10, None, None]
    waits = {held.attempt: held.waiting for held in book.held()}
    assert waits == {1: False, 2: False, 3: True, 4: True, 5: True}
    begin(book, 1)
    assert CursorKnown(3) in book.produced(1, FakePiece(0, 10))
    assert book.cursor(3) == 10
