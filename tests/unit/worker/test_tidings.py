"""When the dispatcher is told of what was produced: not of each split, and before work is out."""

from __future__ import annotations

import pytest

from penstock.worker.attempts import AttemptBook
from penstock.worker.messages import Report
from penstock.worker.tidings import Tidings

from .books import GRACE_S, connected, fetch, sends, started
from .fakes import FakePiece, digest


@pytest.mark.parametrize(
    ("produced", "making", "due"),
    [(0, 0, False), (0, 4, False), (1, 0, True), (1, 1, True), (1, 2, False), (3, 5, False)],
)
def test_who_has_more_to_make_than_to_tell_waits(produced: int, making: int, due: bool) -> None:
    tidings = Tidings()
    for _ in range(produced):
        tidings.produced()
    assert tidings.is_due(making) is due


def test_half_of_the_work_is_told_of_at_once(book: AttemptBook) -> None:
    started(book, 1, 2, 3, 4)
    for run in (1, 2, 3, 4):
        book.began(run, [])  # type: ignore[arg-type]
    assert book.ended(1, digest(0)) == []
    assert book.ended(2, digest(0)) == [Report()]
    assert book.ended(3, digest(0)) == [Report()]  # not told yet


def test_what_was_told_does_not_count_any_more(book: AttemptBook) -> None:
    started(book, *range(1, 7))
    for run in range(1, 7):
        book.began(run, [])  # type: ignore[arg-type]
    assert book.ended(1, digest(0)) == book.ended(2, digest(0)) == []
    book.held()
    assert book.ended(3, digest(0)) == []
    assert book.ended(4, digest(0)) == [Report()]


def test_a_failure_is_told_of_at_once(book: AttemptBook) -> None:
    started(book, *range(1, 7))
    for run in range(1, 7):
        book.began(run, [])  # type: ignore[arg-type]
    assert book.failed(1, "PIPELINE", "boom") == [Report()]


def test_what_waits_for_its_client_is_no_work() -> None:
    book = AttemptBook(memory_limit=1, grace_s=GRACE_S)
    connected(book, 1)
    started(book, 1, 2, 3)
    fetch(book, attempt=1)
    for run in (1, 2, 3):
        book.began(run, [])  # type: ignore[arg-type]
    assert Report() not in book.ended(1, digest(0))
    sends(book)
    assert Report() in book.produced(2, FakePiece(0, 1))  # its buffer is full, and one is left
