"""Runs that begin at a checkpoint: what they serve, what they refuse, what they count."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.worker.attempts import AttemptBook
from penstock.worker.messages import (
    CursorKnown,
    Held,
    Report,
    SendChunk,
    SendEnd,
    SendHashes,
    StartAttempt,
    State,
    StopAttempt,
    Wake,
)

from .books import chunk, connected, fetch, forget, gone, sends, started
from .fakes import FakePiece, assignment, digest, hashes


def held(book: AttemptBook) -> Held:
    (only,) = book.held()
    return only


def test_a_run_hears_where_its_client_is_before_it_begins(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1)
    assert book.cursor(1) is None
    assert held(book).waiting
    assert fetch(book, first=7) == [CursorKnown(1), Wake(1)]
    assert book.cursor(1) == 7
    assert not held(book).waiting
    assert fetch(book, first=8) == [Wake(1)]
    assert book.cursor(1) == 7


def test_a_restored_run_serves_what_follows_and_verifies_what_was_before(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1)
    fetch(book, first=6, verify=True)
    assert book.began(1, hashes(0, 4)) == [Report(), Wake(1)]
    assert sends(book) == []  # the hashes up to 6 are not known yet
    book.produced(1, FakePiece(4, 5))
    book.produced(1, FakePiece(5, 8))
    verified, cut = sends(book)
    assert isinstance(verified, SendHashes)
    assert verified.start == 0
    np.testing.assert_array_equal(verified.hashes, hashes(0, 6))
    assert isinstance(cut, SendChunk)
    assert (cut.piece.start, cut.piece.stop) == (6, 8)
    book.ended(1, digest(8))
    assert sends(book) == [SendEnd(1, 1, digest(8))]
    assert held(book) == Held(1, State.PRODUCED, 8, restored=4, recomputed=2, waiting=True)


def test_what_is_made_again_is_told_at_once_whoever_comes_first(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1, 2)
    assert book.began(1, hashes(0, 4)) == [Report()]
    assert fetch(book, first=6) == [Report(), Wake(1)]
    fetch(book, attempt=2, first=6)
    assert book.began(2, hashes(0, 4)) == [Report(), Wake(1)]
    assert [(h.restored, h.recomputed) for h in book.held()] == [(4, 2), (4, 2)]


def test_a_run_from_the_beginning_makes_all_again_that_the_client_has(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1)
    assert fetch(book, first=6) == [CursorKnown(1), Wake(1)]
    assert book.began(1, hashes(0, 0)) == [Report(), Wake(1)]
    assert (held(book).restored, held(book).recomputed) == (0, 6)


def test_only_the_first_fetch_of_a_run_counts(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1)
    book.began(1, hashes(0, 0))
    assert fetch(book) == [Wake(1)]
    for start in range(0, 6, 2):
        book.produced(1, FakePiece(start, start + 2))
    sends(book)
    assert fetch(book, first=6) == [Wake(1)]
    assert held(book).recomputed == 0


def test_elements_before_the_checkpoint_are_gone(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1)
    book.began(1, hashes(0, 4))
    fetch(book, first=3)
    assert sends(book) == [gone(1, "kept from element 4 on, not from 3")]
    fetch(book, first=4)
    book.produced(1, FakePiece(4, 5))
    assert sends(book) == [chunk(4, 5)]


def test_a_fetch_that_goes_back_before_the_run_begins_is_gone(book: AttemptBook) -> None:
    connected(book, 1, 2)
    started(book, 1)
    fetch(book, connection=1, first=6)
    fetch(book, connection=2, first=2)
    assert book.cursor(1) == 6
    book.began(1, hashes(0, 4))
    assert sends(book, 2) == [gone(1, "kept from element 6 on, not from 2", connection=2)]


def test_a_run_may_not_begin_after_what_is_wanted(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1)
    fetch(book, first=2)
    with pytest.raises(ValueError, match="begun at 4, element 2 is wanted"):
        book.began(1, hashes(0, 4))


def test_the_next_attempt_hears_its_own_client(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1)
    book.began(1, hashes(0, 4))
    fetch(book, first=0)
    sends(book)
    again = assignment(2, split=1)
    assert book.desired([again]) == [StopAttempt(1), StartAttempt(again, 2)]
    assert book.cursor(2) is None
    fetch(book, attempt=2, first=0)
    assert book.cursor(2) == 0
    book.began(2, hashes(0, 0))
    book.produced(2, FakePiece(0, 3, attempt=2))
    assert sends(book) == [SendChunk(1, 2, FakePiece(0, 3, attempt=2))]


def test_checkpoints_are_forgotten_with_the_last_attempt_of_their_split(book: AttemptBook) -> None:
    one, other = assignment(1), assignment(2, split=1, job="j2")
    book.desired([one, other])
    assert book.desired([other]) == [StopAttempt(1)]
    assert book.desired([]) == [StopAttempt(2), forget(1)]


def test_checkpoints_are_kept_by_a_worker_that_stops(book: AttemptBook) -> None:
    started(book, 1, 2)
    assert book.drop_all() == [StopAttempt(1), StopAttempt(2)]
    assert book.held() == []


def test_a_checkpoint_needs_hashes_and_what_is_acknowledged(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1)
    book.began(1, hashes(0, 4))
    book.produced(1, FakePiece(4, 9))
    fetch(book, first=6)
    found = book.kept(1, 9)
    assert found is not None
    assert found[0] == 6
    np.testing.assert_array_equal(found[1], hashes(0, 9))
    book.release(1, 1)
    assert book.kept(1, 9) is None
    assert book.kept(77, 0) is None


def test_a_run_begins_once(book: AttemptBook) -> None:
    started(book, 1)
    book.produced(1, FakePiece(0, 1))
    with pytest.raises(ValueError, match="1 elements are made already"):
        book.began(1, hashes(0, 4))


def test_a_stopped_run_begins_nothing(book: AttemptBook) -> None:
    started(book, 1)
    book.desired([])
    assert book.began(1, hashes(0, 4)) == []
    assert book.cursor(1) is None


def test_what_is_read_again_from_a_segment_is_not_made_again(book: AttemptBook) -> None:
    connected(book, 1)
    started(book, 1)
    fetch(book, first=7, verify=True)
    assert book.wanted(1) == 7
    book.reads(1, True)
    assert book.began(1, hashes(0, 4)) == [Wake(1)]
    book.produced(1, FakePiece(4, 9))
    assert held(book) == Held(1, State.RUNNING, 9)
    verified, cut = sends(book)
    assert isinstance(verified, SendHashes)
    assert isinstance(cut, SendChunk)
    assert cut.piece.start == 7


def test_a_run_that_is_stopped_wants_and_reads_nothing(book: AttemptBook) -> None:
    book.reads(9, True)
    assert book.wanted(9) == 0
