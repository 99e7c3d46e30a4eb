"""The attempt book: events in, exactly these instructions and sends out."""

from __future__ import annotations

import pytest

from penstock.worker.attempts import AttemptBook
from penstock.worker.messages import (
    DETAIL_BYTES_MAX,
    CursorKnown,
    Held,
    Report,
    SendChunk,
    SendEnd,
    SendFail,
    StartAttempt,
    State,
    StopAttempt,
    Wake,
)

from .books import GRACE_S, LOTS, chunk, connected, fetch, forget, gone, sends, started
from .fakes import FakePiece, assignment, digest


def test_what_is_listed_is_started_once_and_what_is_not_is_stopped(book: AttemptBook) -> None:
    one, two, three = map(assignment, (1, 2, 3))
    assert book.desired([one, two]) == [StartAttempt(one, 1), StartAttempt(two, 2)]
    assert book.desired([one, two]) == []
    assert book.desired([two, three]) == [StopAttempt(1), StartAttempt(three, 3), forget(1)]
    assert [held.attempt for held in book.held()] == [2, 3]


def test_an_attempt_that_ended_needs_no_stop(book: AttemptBook) -> None:
    started(book, 1)
    assert book.ended(1, digest(0)) == [Report()]
    assert book.held() == [Held(1, State.PRODUCED, 0, waiting=True)]
    assert book.desired([]) == [forget(1)]
    assert book.held() == []


def test_an_attempt_is_served_as_it_is_produced(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1)
    assert book.produced(1, FakePiece(0, 4)) == []
    assert fetch(book) == [Wake(1)]
    assert sends(book) == [chunk(0, 4)]
    assert book.produced(1, FakePiece(4, 6)) == [Wake(1)]
    assert sends(book) == [chunk(4, 6)]
    assert book.ended(1, digest(6)) == [Report(), Wake(1)]
    assert sends(book) == [SendEnd(1, 1, digest(6))]
    assert sends(book) == []


def test_an_empty_split_has_an_end(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1)
    fetch(book)
    book.ended(1, digest(0))
    assert sends(book) == [SendEnd(1, 1, digest(0))]


def test_chunks_are_sent_while_there_is_credit(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1)
    for start in range(0, 8, 2):
        book.produced(1, FakePiece(start, start + 2))
    fetch(book, credit=21)  # a chunk has 20 bytes: the second one exceeds the credit
    assert sends(book) == [chunk(0, 2), chunk(2, 4)]
    assert book.credit(1, 1, 2, 19) == [Wake(1)]
    assert sends(book) == []
    book.credit(1, 1, 4, 1)
    assert sends(book) == [chunk(4, 6)]


def test_no_credit_is_no_chunk_but_an_end_needs_none(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1, 2)
    book.produced(1, FakePiece(0, 1))
    fetch(book, credit=0)
    assert sends(book) == []
    book.ended(2, digest(0))
    fetch(book, attempt=2, credit=0)
    assert sends(book) == [SendEnd(1, 2, digest(0))]


def test_fetches_of_a_connection_take_turns(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1, 2)
    for run in (1, 2):
        for start in range(3):
            book.produced(run, FakePiece(start, start + 1, attempt=run))
        fetch(book, attempt=run)
    order = [(send.attempt, send.piece.start) for send in sends(book) if type(send) is SendChunk]
    assert order == [(1, 0), (2, 0), (1, 1), (2, 1), (1, 2), (2, 2)]


def test_a_chunk_is_kept_until_it_is_acknowledged(book: AttemptBook) -> None:
    connected(book, 1, 2)
    started(book, 1)
    for start in (0, 2):
        book.produced(1, FakePiece(start, start + 2))
    fetch(book)
    assert sends(book) == [chunk(0, 2), chunk(2, 4)]
    book.credit(1, 1, 2, 0)
    book.closed(1)
    assert fetch(book, connection=2, first=2) == [Wake(2)]
    assert sends(book, 2) == [chunk(2, 4, connection=2)]


def test_a_fetch_from_within_a_chunk_gets_the_rest_of_it(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1)
    book.produced(1, FakePiece(0, 5))
    book.produced(1, FakePiece(5, 9))
    fetch(book, first=3)
    assert sends(book) == [chunk(3, 5), chunk(5, 9)]


def test_a_fetch_from_beyond_what_is_made_waits_and_cuts(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1)
    fetch(book, first=3)
    assert sends(book) == []
    book.produced(1, FakePiece(0, 2))
    assert sends(book) == []
    book.produced(1, FakePiece(2, 5))
    assert sends(book) == [chunk(3, 5)]


def test_below_what_was_acknowledged_it_is_gone(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1)
    book.produced(1, FakePiece(0, 4))
    fetch(book)
    sends(book)
    book.credit(1, 1, 3, 0)
    assert fetch(book, first=2) == [Wake(1)]
    assert sends(book) == [gone(1, "kept from element 3 on, not from 2")]


def test_to_fetch_from_an_element_acknowledges_those_before(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1)
    book.produced(1, FakePiece(0, 4))
    fetch(book, first=4)
    fetch(book, first=0)
    assert sends(book) == [gone(1, "kept from element 4 on, not from 0")]


def test_more_than_was_sent_cannot_be_acknowledged(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1)
    book.produced(1, FakePiece(0, 4))
    fetch(book, credit=0)
    book.credit(1, 1, 1000, 1)
    assert sends(book) == [chunk(0, 4)]


def test_a_second_fetch_supersedes_the_first(book: AttemptBook) -> None:
    connected(book, 1, 2)
    started(book, 1)
    book.produced(1, FakePiece(0, 2))
    fetch(book, credit=1)
    sends(book)
    assert fetch(book, connection=2) == [Wake(2)]
    assert book.credit(1, 1, 2, LOTS) == []  # of the superseded fetch: changes nothing
    assert book.release(1, 1) == []
    book.produced(1, FakePiece(2, 3))
    assert sends(book, 1) == []
    assert sends(book, 2) == [chunk(0, 2, connection=2), chunk(2, 3, connection=2)]


def test_the_end_is_sent_again_to_who_asks_again(book: AttemptBook) -> None:
    connected(book, 1, 2)
    started(book, 1)
    book.produced(1, FakePiece(0, 2))
    book.ended(1, digest(2))
    fetch(book)
    sends(book)
    book.credit(1, 1, 2, 0)
    fetch(book, connection=2, first=2)
    assert sends(book, 2) == [SendEnd(2, 1, digest(2))]


def test_a_fetch_may_come_before_its_assignment(book: AttemptBook) -> None:
    connected(book, 1)
    assert fetch(book, credit=0, now=1.0) == []
    assert book.next_deadline() == 1.0 + GRACE_S
    assert book.tick(1.0 + GRACE_S - 0.01) == []
    book.credit(1, 1, 0, 5)
    assert book.desired([assignment(1)]) == [
        StartAttempt(assignment(1), 1),
        CursorKnown(1),
        Wake(1),
    ]
    assert book.next_deadline() is None
    book.produced(1, FakePiece(0, 1))
    assert sends(book) == [chunk(0, 1)]


def test_a_fetch_of_an_attempt_that_never_comes_is_gone(book: AttemptBook) -> None:
    connected(book, 1)
    fetch(book, attempt=9, now=1.0)
    assert book.tick(1.0 + GRACE_S) == [Wake(1)]
    assert sends(book) == [gone(9, "it is not on this worker")]
    assert book.tick(100.0) == []


def test_a_pending_fetch_ends_with_its_connection_or_release(book: AttemptBook) -> None:
    connected(book, 1, 2)
    fetch(book, attempt=8)
    book.closed(1)
    fetch(book, connection=2, attempt=9)
    book.release(2, 9)
    assert book.next_deadline() is None
    assert book.tick(100.0) == []


def test_an_attempt_that_is_taken_away_is_gone_for_its_client(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1)
    fetch(book)
    assert book.desired([]) == [StopAttempt(1), Wake(1), forget(1)]
    assert sends(book) == [gone(1, "the dispatcher took it away")]


def test_an_attempt_that_is_delivered_goes_silently(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1)
    book.ended(1, digest(0))
    fetch(book)
    sends(book)
    assert book.desired([]) == [forget(1)]
    assert sends(book) == []


def test_release_frees_but_is_held_until_the_dispatcher_knows(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1)
    book.produced(1, FakePiece(0, 2))
    fetch(book)
    assert book.release(1, 1) == [StopAttempt(1)]
    assert book.produced(1, FakePiece(2, 3)) == []  # the run had one more in its hands
    assert book.ended(1, digest(3)) == []
    assert book.desired([assignment(1)]) == []
    assert [held.attempt for held in book.held()] == [1]
    fetch(book)
    assert sends(book) == [gone(1, "it was released")]


def test_a_failure_is_told_at_once_and_frees_the_buffer(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1)
    book.produced(1, FakePiece(0, 2))
    fetch(book, credit=0)
    assert book.failed(1, "PIPELINE", "element 2: bad") == [Report(), Wake(1)]
    assert sends(book) == [SendFail(1, 1, "PIPELINE", "element 2: bad")]
    assert book.held() == [Held(1, State.FAILED, 2, "PIPELINE", "element 2: bad", waiting=True)]
    fetch(book)
    assert sends(book) == [SendFail(1, 1, "PIPELINE", "element 2: bad")]


def test_the_detail_of_a_failure_is_bounded(book: AttemptBook) -> None:
    started(book, 1)
    book.failed(1, "PIPELINE", "ü" * DETAIL_BYTES_MAX)
    assert len(book.held()[0].detail.encode()) <= DETAIL_BYTES_MAX


def test_what_a_stopped_run_says_changes_nothing(book: AttemptBook) -> None:
    started(book, 1)
    book.desired([])
    assert book.produced(1, FakePiece(0, 1)) == []
    assert book.ended(1, digest(1)) == []
    assert book.failed(1, "PIPELINE", "?") == []
    assert not book.may_produce(1)
    assert book.held() == []


def test_an_attempt_that_comes_back_is_another_run(book: AttemptBook) -> None:
    started(book, 1)
    book.produced(1, FakePiece(0, 1))
    book.desired([])
    assert book.desired([assignment(1)]) == [StartAttempt(assignment(1), 2)]
    assert book.produced(1, FakePiece(1, 2)) == []
    assert book.held() == [Held(1, State.RUNNING, 0, waiting=True)]


def test_pieces_must_follow_each_other(book: AttemptBook) -> None:
    started(book, 1)
    with pytest.raises(ValueError, match=r"1\.\.2 after element 0"):
        book.produced(1, FakePiece(1, 2))


def test_a_digest_must_cover_what_was_made(book: AttemptBook) -> None:
    started(book, 1)
    with pytest.raises(ValueError, match="digest of 5 elements, 0 made"):
        book.ended(1, digest(5))


def test_nothing_is_sent_on_a_closed_connection(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1)
    book.produced(1, FakePiece(0, 1))
    fetch(book)
    book.closed(1)
    assert book.next_send(1) is None
    assert book.closed(1) == []
    assert book.desired([]) == [StopAttempt(1), forget(1)]
