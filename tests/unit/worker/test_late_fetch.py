"""A FETCH that is read late, from a connection that its client has given up, changes nothing."""

from __future__ import annotations

from penstock.worker.attempts import AttemptBook

from .books import chunk, connected, fetch, sends, started
from .fakes import FakePiece


def test_a_late_fetch_of_an_older_connection_does_not_take_the_attempt_from_the_newer(
    book: AttemptBook,
) -> None:
    started(book, 1)
    connected(book, 1, 2)
    fetch(book, connection=2)
    fetch(book, connection=1)  # was sent before, and was read after
    book.closed(1)
    book.produced(1, FakePiece(0, 3))
    assert sends(book, 2) == [chunk(0, 3, connection=2)]


def test_likewise_for_an_attempt_that_is_not_assigned_yet(book: AttemptBook) -> None:
    connected(book, 1, 2)
    fetch(book, connection=2)
    fetch(book, connection=1)
    book.closed(1)
    started(book, 1)
    book.produced(1, FakePiece(0, 3))
    assert sends(book, 2) == [chunk(0, 3, connection=2)]
